//! Puts the eBPF object, if it was built, where `include_bytes_aligned!` finds it. Without one the daemon wants `--bpf-object`.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let object = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target/weft-dataplane.bpf.o");
    let copy = Path::new(&env::var("OUT_DIR")?).join("weft-dataplane.bpf.o");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", object.display());
    if object.exists() {
        fs::copy(&object, &copy)?;
    } else {
        fs::write(&copy, [])?;
    }
    Ok(())
}
