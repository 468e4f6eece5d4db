//! Leaves the unwind tables out of the executable that devices get: profile `agent`, on Linux.

fn main() {
    println!("cargo:rerun-if-changed=no-unwind.ld");
    println!("cargo:rustc-check-cfg=cfg(no_unwind_tables)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // A build script is not told its profile's name. Only `agent` optimises for size; that it also aborts on a
    // panic, which a build script is not told either, is checked at the top of main.rs.
    if is("OPT_LEVEL", "z") && is("CARGO_CFG_TARGET_OS", "linux") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the package's folder");
        println!("cargo:rustc-cfg=no_unwind_tables");
        println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/no-unwind.ld");
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    }
}
