//! The built executables: built once per test process, by the same cargo, into the same folder.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::time::Duration;

use super::wait;

static BUILT: Once = Once::new();

/// Returns the path of a program of the workspace, building all of them first.
///
/// # Panics
/// When the workspace does not build.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a process has an executable");
    // target/<profile>/deps/<test>, or target/<profile>/<program>
    let folder = test.parent().expect("an executable lies in a folder");
    let profile = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    BUILT.call_once(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args([
            "build",
            "--quiet",
            "-p",
            "tern-controller",
            "-p",
            "tern-agent",
            "-p",
            "tern-bridge",
            "--bins",
            // The device's configuration says whether it is used.
            "--features",
            "tern-agent/http-source",
        ]);
        // What `cargo test` says of this package. Build scripts that look at these (ring's) would take the programs of
        // `cargo build` for others, and compile everything above them again, each time.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                build.env_remove(&name);
            }
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let target = profile.parent().expect("a profile lies in the target folder");
        build.arg("--target-dir").arg(target);
        let status = build.status().expect("cargo starts");
        assert!(status.success(), "the programs do not build");
    });
    profile.join(name)
}

/// Returns the path of a program that was built with another profile, if it was.
pub fn program_in(profile: &str, name: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let target = own.ancestors().find(|folder| folder.join(profile).is_dir())?;
    Some(target.join(profile).join(name)).filter(|path| path.is_file())
}

/// Tells whether this is CI, where a missing package is a failure and not a reason to skip.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value != "false")
}

/// What a program that has ended gave.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; none if it was killed.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs a program that must end by itself.
///
/// # Panics
/// When it does not: it is killed, and the test has failed.
pub fn ends(command: &mut Command) -> Ran {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = |name| std::fs::File::create(dir.path().join(name)).expect("a file for what it says");
    let read = |name| {
        String::from_utf8_lossy(&std::fs::read(dir.path().join(name)).unwrap_or_default()).into_owned()
    };
    let mut child = Ended(
        command
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .expect("the program starts"),
    );
    let code = wait(&format!("the end of {command:?}"), Duration::from_secs(30), || {
        child.0.try_wait().expect("a child can be asked").map(|status| status.code())
    });
    Ran { code, out: read("out"), err: read("err") }
}

/// A child that does not outlive the test that waits for it.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _gone = self.0.kill();
        let _reaped = self.0.wait();
    }
}
