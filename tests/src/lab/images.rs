//! Images: real ones from Debian packages, and made ones where only size matters.

use std::path::{Path, PathBuf};

use super::in_ci;

/// Firmware that nobody here wrote: U-Boot for QEMU's arm64 machine, from Debian's package `u-boot-qemu`.
const FIRMWARE: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// Returns a real firmware image of at least 500 KB, or none outside CI where the package is missing.
///
/// # Panics
/// In CI, when the package is missing: a test that needs it must not pass by skipping.
pub fn firmware() -> Option<PathBuf> {
    let path = PathBuf::from(FIRMWARE);
    if path.exists() {
        return Some(path);
    }
    assert!(!in_ci(), "{FIRMWARE} is missing: CI installs the package u-boot-qemu");
    let said = format!("SKIPPED: {FIRMWARE} is missing; install the Debian package u-boot-qemu\n");
    let _shown = std::io::Write::write_all(&mut std::io::stderr(), said.as_bytes());
    None
}

/// Writes an image of `length` bytes that does not repeat itself, different for every `seed`.
pub fn made(path: &Path, length: usize, seed: u64) {
    std::fs::write(path, noise(length, seed)).expect("an image file");
}

/// Returns an image that shares most of `old`: of each 140 000 B a fifth is another one, and all behind it has moved.
pub fn moved(old: &[u8], seed: u64) -> Vec<u8> {
    let (mut new, foreign) = (old.to_vec(), noise(old.len() / 5, seed));
    for (part, at) in foreign.chunks(30_000).zip((0..).step_by(140_000)) {
        new.splice(at..at + 29_000, part.iter().copied());
    }
    new
}

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 32);
    let mut counter = 0u64;
    while bytes.len() < length {
        let block = [seed.to_be_bytes(), counter.to_be_bytes()].concat();
        bytes.extend_from_slice(&tern_protocol::digest::Digest::of(&block).0);
        counter += 1;
    }
    bytes.truncate(length);
    bytes
}
