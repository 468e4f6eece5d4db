//! `tern-agent status`: says what is there, and changes nothing.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn agent(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern-agent"));
    command.args(arguments).arg("--config").arg(folder.join("agent.toml")).output().unwrap()
}

/// Everything that is in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        names.push(path.display().to_string());
        if path.is_dir() {
            names.extend(self::names(&path));
        }
    }
    names.sort();
    names
}

fn configured() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "fleet = 'acme'\ndevice = 'r-1'\nproduct = 'ap'\nmodel = 'm1'\nregion = 'eu'\n\
         brokers = ['mqtt://localhost']\nslots = {{ capacity = 400000 }}\ndata_dir = '{0}/data'\n\
         runtime_dir = '{0}/run'\n[[components]]\nname = 'regulatory'\nkind = 'file'\ncapacity = 1000\n\
         version = '4.1'\npath = '{0}/regulatory.db'\n",
        folder.path().display()
    );
    fs::write(folder.path().join("agent.toml"), text).unwrap();
    folder
}

#[test]
fn status_says_what_to_do_before_the_device_is_provisioned_and_never_writes() {
    let folder = configured();
    let before = names(folder.path());

    let said = agent(folder.path(), &["status"]);

    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && text.contains("was never provisioned: tern-agent provision"), "{text}");
    assert_eq!(names(folder.path()), before);

    let image = folder.path().join("1.img");
    fs::write(&image, "release one").unwrap();
    let arguments = ["provision", "--image", image.to_str().unwrap(), "--rc", "1", "--version", "1.0"];
    assert!(agent(folder.path(), &arguments).status.success());
    let before = names(folder.path());

    let said = agent(folder.path(), &["status"]);

    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{said:?}");
    assert!(text.contains("component regulatory 4.1") && text.contains("release 1 (1.0)"), "{text}");
    assert_eq!(names(folder.path()), before);
}

#[test]
fn whoever_reads_no_further_hears_of_no_error() {
    let folder = configured();
    let image = folder.path().join("1.img");
    fs::write(&image, "release one").unwrap();
    let arguments = ["provision", "--image", image.to_str().unwrap(), "--rc", "1", "--version", "1.0"];
    assert!(agent(folder.path(), &arguments).status.success());
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let mut command = Command::new(env!("CARGO_BIN_EXE_tern-agent"));
    command.args(["status", "--config"]).arg(folder.path().join("agent.toml"));
    let ended = command.stdout(writer).stderr(Stdio::piped()).output().unwrap();

    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}
