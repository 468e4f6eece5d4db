//! The program, from the outside.

use std::process::{Command, Output, Stdio};

fn tern_bridge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tern-bridge"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn an_unknown_key_is_named_and_ends_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, include_str!("../../deploy/bridge.toml").replace("handshakes =", "handshake ="))
        .unwrap();

    let output = tern_bridge().arg("run").arg("--config").arg(&path).output().unwrap();

    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("handshake`"), "{}", text(&output));
}

#[test]
fn the_program_listens_and_ends_well_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let chunks = folder.path().join("chunks");
    let sample = include_str!("../../deploy/bridge.toml")
        .replace("127.0.0.1:1883", &address.to_string())
        .replace("/var/lib/tern/chunks", &chunks.display().to_string());
    let path = folder.path().join("bridge.toml");
    std::fs::write(&path, sample).unwrap();
    let mut child =
        tern_bridge().arg("run").arg("--config").arg(&path).stderr(Stdio::null()).spawn().unwrap();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it runs");
        std::thread::yield_now();
    }

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();

    assert!(child.wait().unwrap().success());
}

#[test]
fn a_password_is_drawn_and_a_policy_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("users");

    let set =
        tern_bridge().args(["passwd", "set", "--file"]).arg(&file).args(["device", "r-1"]).output().unwrap();
    let policy = tern_bridge().args(["policy", "mosquitto", "--fleet", "acme"]).output().unwrap();

    let users = tern_bridge::password::Passwords::open(&file).unwrap();
    assert!(users.check("r-1", text(&set).trim().as_bytes()).is_some());
    assert!(text(&policy).contains("pattern write ota/v1/acme/up/+/%u/report"));
}
