//! Makes the executable that devices get small, where no setting of a profile does: profile `agent`, on Linux.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=no-unwind.ld");
    println!("cargo:rustc-check-cfg=cfg(no_unwind_tables)");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    // A build script is not told its profile's name. Only `agent` optimises for size; that it also aborts on a
    // panic, which a build script is not told either, is checked at the top of main.rs.
    if is("OPT_LEVEL", "z") && is("CARGO_CFG_TARGET_OS", "linux") {
        let folder = variable("CARGO_MANIFEST_DIR");
        println!("cargo:rustc-cfg=no_unwind_tables");
        link(&format!("-Wl,-T,{folder}/no-unwind.ld"));
        link("-Wl,--no-eh-frame-hdr");
        let is_static = std::env::var("CARGO_CFG_TARGET_FEATURE")
            .is_ok_and(|all| all.split(',').any(|one| one == "crt-static"));
        // For musl that is the default, which cargo does not tell.
        if is_static || is("CARGO_CFG_TARGET_ENV", "musl") {
            // A static library brings its unwinder along, a function of which is ours here: the first one counts.
            link("-Wl,--allow-multiple-definition");
        }
        fold_equal_functions();
        if std::env::var_os("CARGO_FEATURE_PACKED_RELOCATIONS").is_some() {
            link("-Wl,-z,pack-relative-relocs");
        }
    }
}

/// Keeps one copy of functions that came out as the same instructions: 48 kB. Nothing here compares the addresses of
/// functions, which Rust never promised to differ.
fn fold_equal_functions() {
    const FOLD: &str = "-Wl,--icf=all";
    if links_with(FOLD) {
        link(FOLD);
    } else {
        println!(
            "cargo:warning=this linker keeps equal functions apart, so the agent is 50 kB larger; lld folds them"
        );
    }
}

/// Tells whether the linker of this build takes `argument`: GNU ld, as most cross compilers use it, refuses what it
/// does not know.
fn links_with(argument: &str) -> bool {
    let folder = PathBuf::from(variable("OUT_DIR"));
    let source = folder.join("probe.rs");
    std::fs::write(&source, "fn main() {}").expect("a build script may write to its folder");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.arg(&source).arg("-o").arg(folder.join("probe"));
    // The profile's own panic: a library built for devices may have no other (.ci/static-agent).
    rustc.args(["--target", &variable("TARGET"), "-C", "panic=abort", "-C", &format!("link-arg={argument}")]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.args(["-C", &format!("linker={linker}")]);
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    rustc.output().is_ok_and(|output| output.status.success())
}

fn link(argument: &str) {
    println!("cargo:rustc-link-arg-bins={argument}");
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
