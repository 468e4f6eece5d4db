//! The independent reference of the kill switch's arithmetic, and the scripts of `tests/reference` that ask it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Lab, Ran, ends, foreign_python};

/// What a script ends with when the reference is absent.
const ABSENT: i32 = 77;

/// What `tests/reference` runs with.
#[derive(Debug, Clone)]
pub struct Reference {
    python: PathBuf,
}

impl Reference {
    /// Finds a Python with numpy and scipy: `TERN_PYTHON`, or what `.ci/foreign` has made.
    ///
    /// # Panics
    /// In CI, when it is missing: a test that needs it must not pass by skipping.
    pub fn found() -> Option<Self> {
        let python = std::env::var_os("TERN_PYTHON").map(PathBuf::from).or_else(foreign_python)?;
        Some(Self { python })
    }

    /// Runs a script; nothing if the reference is absent, which it says.
    ///
    /// # Panics
    /// When `TERN_ORACLE` says where the reference lies, and it does not.
    pub fn run(&self, script: &str, words: &[&str]) -> Option<Ran> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference").join(script);
        let ran = ends(Command::new(&self.python).arg("-B").arg(script).args(words));
        if ran.code == Some(ABSENT) {
            // A checkout alone does not have it. Whoever says where it lies means it to be there.
            assert!(std::env::var_os("TERN_ORACLE").is_none(), "{}", ran.err);
            let _shown = std::io::Write::write_all(&mut std::io::stderr(), ran.err.as_bytes());
            return None;
        }
        Some(ran)
    }
}

impl Lab {
    /// Has the reference work out every verdict in the ledger of a data folder again: counts by another hand, evidence
    /// by another implementation, compared with the numbers in the line. Returns the lines that agreed; nothing if the
    /// reference is absent, which was said. `now`: lines that `tern rollout explain` shows, by rollout.
    ///
    /// # Panics
    /// When a number differs, or `TERN_ORACLE` names a folder without the reference.
    pub fn recompute(&self, data: &Path, now: &[(&str, &str)]) -> Option<Vec<String>> {
        let reference = Reference::found()?;
        let folder = data.display().to_string();
        let show = ["--json", "ledger", "show", "--data", &folder, "--limit", "1000000"];
        let ran = self.run(&show);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let frames = self.path("exported.jsonl");
        std::fs::write(&frames, &ran.out).expect("a file of frames");
        recomputed(&reference, &frames, now)
    }
}

/// Works an exported ledger out again, as [`Lab::recompute`] does.
///
/// # Panics
/// When a number differs, or `TERN_ORACLE` names a folder without the reference.
pub fn recomputed(reference: &Reference, frames: &Path, now: &[(&str, &str)]) -> Option<Vec<String>> {
    let frames = frames.display().to_string();
    let mut words = vec![frames, "--json".to_owned()];
    for (rollout, line) in now {
        words.extend(["--now".to_owned(), format!("{rollout}={line}")]);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = reference.run("ledger.py", &words)?;
    assert_eq!(ran.code, Some(0), "{} {}", ran.out, ran.err);
    let result: Value = serde_json::from_str(&ran.out).expect("one JSON object");
    let checked = result["checked"].as_array().expect("a list").iter();
    Some(checked.filter_map(|verdict| verdict["line"].as_str().map(str::to_owned)).collect())
}
