//! Puts the eBPF object, if it was built, where `include_bytes_aligned!` finds it. Without one the daemon wants `--bpf-object`.

use std::path::Path;
use std::{env, fs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = match env::var_os("CARGO_FEATURE_NEXT_ABI") {
        Some(_) => "weft-dataplane-next.bpf.o",
        None => "weft-dataplane.bpf.o",
    };
    let object = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../target").join(name);
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
