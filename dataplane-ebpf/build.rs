//! Tells bpf-linker how the object may touch memory.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        // Headers are byte arrays. Without this, each four-byte field is loaded and stored byte by byte; the kernels that weft
        // runs on (x86-64, arm64) verify and run unaligned packet access.
        println!("cargo:rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}
