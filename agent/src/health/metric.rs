//! A number that must stay within its bounds: a temperature, free memory, a signal's strength.

use std::fs::OpenOptions;
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Bytes that a file with a number may have; the kernel's own have fewer.
const FILE_MAX: u64 = 4096;

/// A number and its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Where the number is: the first word of the last line that is not empty.
    pub from: From,
    /// It must not be below this.
    pub least: Option<f64>,
    /// It must not be above this.
    pub most: Option<f64>,
}

/// Where a number is.
#[derive(Debug, Clone, PartialEq)]
pub enum From {
    /// In a file.
    File(PathBuf),
    /// In the output of a program: executable and arguments.
    Command(Vec<String>),
}

impl Metric {
    /// Judges the number in `text`.
    pub(super) fn judge(&self, text: &str) -> Result<(), String> {
        let line = text.trim_end().lines().next_back().unwrap_or_default();
        let word = line.split_whitespace().next().unwrap_or_default();
        // Neither NaN nor infinity is a measurement, and comparisons with NaN are true for nobody.
        let Some(number) = word.parse::<f64>().ok().filter(|number| number.is_finite()) else {
            let start: String = word.chars().take(40).collect();
            return Err(format!("{start:?} is no number"));
        };
        match (self.least, self.most) {
            (Some(least), _) if number < least => Err(format!("{number} is below {least}")),
            (_, Some(most)) if number > most => Err(format!("{number} is above {most}")),
            _ => Ok(()),
        }
    }
}

/// Reads a file that holds a number: a file, and a small one. A pipe could keep the reader for ever.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("could not read {}: {error}", path.display());
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_MAX {
        return Err(format!("{} has more than {FILE_MAX} B; it should hold a number", path.display()));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str, least: Option<f64>, most: Option<f64>) -> Result<(), String> {
        Metric { from: From::File("/x".into()), least, most }.judge(text)
    }

    #[test]
    fn a_number_is_well_within_its_bounds_and_on_them() {
        let bounds = (Some(-95.5), Some(-20.0));
        for text in ["-95.5", "-20", "-60 dBm\n", "0\n1\n-60\n\n"] {
            assert_eq!(judged(text, bounds.0, bounds.1), Ok(()), "{text}");
        }
        assert_eq!(judged("-95.6", bounds.0, bounds.1), Err("-95.6 is below -95.5".into()));
        assert_eq!(judged("-19.9", bounds.0, bounds.1), Err("-19.9 is above -20".into()));
        assert_eq!(judged("-60\n85000", None, Some(80000.0)), Err("85000 is above 80000".into()));
        assert_eq!(judged("0.20 9.9", None, Some(4.0)), Ok(()), "the first word of /proc/loadavg");
    }

    #[test]
    fn what_is_no_number_is_not_well() {
        for text in ["", "\n", "hot", "nan", "inf", "1e999", "0x10"] {
            assert!(judged(text, None, Some(f64::MAX)).unwrap_err().contains("is no number"), "{text}");
        }
        assert!(judged(&"9".repeat(5000).replace('9', "x"), None, None).unwrap_err().len() < 100);
    }

    #[test]
    fn only_a_small_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("number"), "41\n").unwrap();
        std::fs::write(path("full"), " ".repeat(4094) + "41").unwrap();
        std::fs::write(path("huge"), " ".repeat(4095) + "41").unwrap();
        std::fs::write(path("bytes"), b"\xff\xff").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RUSR).unwrap();

        assert_eq!(read(&path("number")).unwrap(), "41\n");
        assert!(read(&path("full")).is_ok());
        assert!(read(&path("huge")).unwrap_err().contains("more than 4096 B"));
        assert!(read(Path::new("/dev/zero")).unwrap_err().contains("is no file"));
        assert!(read(&path("pipe")).unwrap_err().contains("is no file"));
        for bad in ["bytes", "missing"] {
            assert!(read(&path(bad)).unwrap_err().contains("could not read"), "{bad}");
        }
    }
}
