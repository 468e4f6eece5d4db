//! The demo's releases are real files; a bad one says so in its last bytes, and fails only where it runs.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use tern_protocol::digest::Digest;

/// A release's last bytes: a line that a program loader ignores and the probe reads.
const MARK: &str = "\ntern-demo release=";
/// Bytes at the end of an image in which the mark is looked for.
const TAIL: u64 = 256;

/// Makes an image of `base` with a mark behind it.
pub(super) fn make(base: &Path, image: &Path, release: u64, bad: Option<(f64, u64)>) -> anyhow::Result<u64> {
    std::fs::copy(base, image).with_context(|| format!("could not copy {}", base.display()))?;
    let (rate, seed) = bad.unwrap_or((0.0, 0));
    let mark = format!("{MARK}{release} fails={rate} seed={seed}\n");
    let mut file = std::fs::OpenOptions::new().append(true).open(image)?;
    file.write_all(mark.as_bytes())?;
    Ok(file.metadata()?.len())
}

/// The health probe of the demo's devices: runs the image if it is a program, then looks whether it is one of
/// those that fail on this device. Exit code 0 is healthy.
pub fn probe(image: &Path, device: &str) -> anyhow::Result<()> {
    let mut file =
        std::fs::File::open(image).with_context(|| format!("could not open {}", image.display()))?;
    let mut magic = [0; 4];
    if file.read_exact(&mut magic).is_ok() && &magic == b"\x7fELF" {
        let status = Command::new(image).arg("--version").stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("{} does not run", image.display()))?;
        anyhow::ensure!(status.success(), "{} --version ended with {status}", image.display());
    }
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let Some((_, mark)) = tail.rsplit_once(MARK) else { return Ok(()) };
    let value = |key: &str| mark.split_whitespace().find_map(|word| word.strip_prefix(key));
    let rate = value("fails=").and_then(|v| v.parse().ok()).unwrap_or(0.0);
    let seed = value("seed=").and_then(|v| v.parse().ok()).unwrap_or(0);
    anyhow::ensure!(!fails(device, rate, seed), "the modem does not register with this release");
    Ok(())
}

/// Tells whether a bad release fails on a device: a share of them, drawn by name.
pub(super) fn fails(device: &str, rate: f64, seed: u64) -> bool {
    let drawn = Digest::of_parts(&[&seed.to_be_bytes(), device.as_bytes()]).short() >> 32;
    (drawn as f64) < rate * f64::from(u32::MAX)
}

/// Returns the images of releases 1, 2 and 3.
pub(super) struct Images {
    pub(super) old: PathBuf,
    pub(super) new: PathBuf,
    pub(super) bad: PathBuf,
}

impl Images {
    pub(super) fn make(
        folder: &Path,
        own: Option<&(PathBuf, PathBuf)>,
        bad_rate: f64,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let images = Self {
            old: folder.join("release-1.img"),
            new: folder.join("release-2.img"),
            bad: folder.join("release-3.img"),
        };
        match own {
            Some((old, new)) => {
                std::fs::copy(old, &images.old)
                    .with_context(|| format!("could not copy {}", old.display()))?;
                std::fs::copy(new, &images.new)
                    .with_context(|| format!("could not copy {}", new.display()))?;
            }
            None => {
                std::fs::write(&images.old, "the factory's image: nothing to run yet\n")?;
                make(&std::env::current_exe()?, &images.new, 2, None)?;
            }
        }
        make(&images.new, &images.bad, 3, Some((bad_rate, seed)))?;
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_release_fails_on_its_share_of_devices_and_nowhere_else() {
        let bad = (0..1000).filter(|i| fails(&format!("dev-{i:03}"), 0.5, 7)).count();
        assert!((430..570).contains(&bad), "{bad}");
        assert_eq!((0..1000).filter(|i| fails(&format!("dev-{i:03}"), 0.0, 7)).count(), 0);
    }

    #[test]
    fn the_probe_reads_the_mark_of_the_image_itself() {
        let dir = tempfile::tempdir().unwrap();
        let (base, image) = (dir.path().join("base"), dir.path().join("image"));
        std::fs::write(&base, "not a program").unwrap();
        make(&base, &image, 3, Some((1.0, 1))).unwrap();
        assert!(probe(&image, "dev-1").is_err());
        make(&base, &image, 2, None).unwrap();
        assert!(probe(&image, "dev-1").is_ok());
    }
}
