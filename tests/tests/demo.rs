//! The demo keeps to its own folder, and takes it away when it is stopped.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::process::{Command, Stdio};
use std::time::Duration;

use tern_tests::lab::{ends, program, wait};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_demo_writes_into_no_folder_of_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("fleet"), "acme").unwrap();

    let ran = ends(Command::new(program("tern")).args(["demo", "--devices", "1", "--keep"]).arg(dir.path()));

    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("is not empty") && ran.err.contains("choose an empty"), "{ran:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    for signal in ["-TERM", "-INT"] {
        let temporary = tempfile::tempdir().unwrap();
        let mut demo = Command::new(program("tern"))
            .args(["--json", "demo", "--devices", "3"])
            .env("TMPDIR", temporary.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let folder = temporary.path().join(format!("tern-demo-{}", demo.id()));
        let up = folder.join("devices").join("dev-003").join("agent.log");
        wait("the demo to be in the middle of it", PATIENCE, || up.exists().then_some(()));
        let service = std::fs::read(folder.join("service").join("service.json")).unwrap();
        let service: serde_json::Value = serde_json::from_slice(&service).unwrap();

        let sent = Command::new("kill").args([signal, &demo.id().to_string()]).status().unwrap();
        assert!(sent.success());
        wait("the demo to end", PATIENCE, || demo.try_wait().unwrap());

        let output = demo.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the demo was stopped"), "{said}");
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
        let process = format!("/proc/{}", service["pid"]);
        assert!(!std::path::Path::new(&process).exists(), "the service outlived the demo");
    }
}
