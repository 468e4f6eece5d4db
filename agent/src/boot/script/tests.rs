//! What the program is told, what is made of what it says, and what it may not do to the agent.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::boot::Trial;
use crate::storage;

struct Device {
    folder: tempfile::TempDir,
    config: ScriptConfig,
}

impl Device {
    /// A device whose program is this text of a shell, which finds `$record` beside it.
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let record = folder.path().join("record");
        fs::write(&path, format!("#!/bin/sh\nrecord={}\n{text}\n", record.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let boot_id = folder.path().join("boot_id");
        fs::write(&boot_id, "this-boot\n").unwrap();
        let config = ScriptConfig {
            command: vec![path.to_str().unwrap().into(), "one".into()],
            deadline: Duration::from_secs(20),
            boot_id,
            reboot: vec!["/bin/true".into()],
        };
        Self { folder, config }
    }

    /// One that keeps what it is given.
    fn keeps() -> Self {
        Self::with(
            "case $2 in\nget) [ ! -e $record ] || cat $record ;;\nset) cat >$record; env | grep -E '^TERN_(ACTIVE|TRIES|TRIAL|TRIAL_RC)=' | sort >$record.env ;;\n\
             running) echo b ;;\n*) exit 9 ;;\nesac",
        )
    }

    fn start(&self) -> Result<ScriptBoot, BootError> {
        ScriptBoot::on(&storage::system(), &self.config)
    }

    fn says(&self) -> String {
        chain(&ScriptBoot::read(&self.config).unwrap_err())
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_record_comes_back_as_it_was_set_and_is_in_the_environment_too() {
    let device = Device::keeps();
    assert!(matches!(device.start(), Err(BootError::NotProvisioned)));
    ScriptBoot::provision(&device.config).unwrap();
    assert!(matches!(ScriptBoot::provision(&device.config), Err(BootError::AlreadyProvisioned)));
    let mut boot = device.start().unwrap();
    let booted = boot.booted().unwrap();
    assert_eq!((booted.slot, booted.boot_id.as_str()), (SlotName::B, "this-boot"));

    let trial = Some(Trial { slot: SlotName::B, rc: 7, tries_left: 2 });
    boot.write(&BootRecord { active: SlotName::A, trial: trial.clone() }).unwrap();

    assert_eq!(boot.record().unwrap().trial, trial);
    let environment = || fs::read_to_string(device.folder.path().join("record.env")).unwrap();
    assert_eq!(environment(), "TERN_ACTIVE=a\nTERN_TRIAL=b\nTERN_TRIAL_RC=7\nTERN_TRIES=2\n");
    boot.write(&BootRecord { active: SlotName::B, trial: None }).unwrap();
    boot.settle().unwrap();
    assert_eq!(environment(), "TERN_ACTIVE=b\nTERN_TRIAL=\nTERN_TRIAL_RC=\nTERN_TRIES=\n");
    boot.reboot().unwrap();
    assert!(boot.goes_down());
}

#[test]
fn what_fails_is_told_with_its_exit_code_and_its_own_words() {
    let said = Device::with("echo no grubenv here >&2; exit 3").says();
    assert!(said.contains("get failed; run it by hand") && said.contains("exit code 3"), "{said}");
    assert!(said.contains("no grubenv here"), "{said}");

    assert!(Device::with("kill -9 $$").says().contains("killed by signal 9"));
    assert!(Device::with("echo '{\"active\":\"c\"}'").says().contains("must print JSON"));
    assert!(Device::with("echo maybe").says().contains("must print JSON"));
    let mut device = Device::keeps();
    device.config.command[0] = "/no/such/program".into();
    assert!(device.says().contains("no such executable: /no/such/program"));
}

#[test]
fn a_slot_that_is_none_is_told() {
    let device = Device::with("case $2 in get) echo '{\"active\":\"a\"}' ;; running) echo c ;; esac");

    let said = chain(&device.start().unwrap_err());

    assert!(said.contains("running printed \"c\"; it must print a or b"), "{said}");
}

#[test]
fn what_was_set_and_does_not_come_back_is_no_success() {
    let device = Device::with("case $2 in get) echo '{\"active\":\"a\"}' ;; running) echo a ;; esac");
    let mut boot = device.start().unwrap();

    let result = boot.write(&BootRecord { active: SlotName::B, trial: None });

    assert!(matches!(result, Err(BootError::ReadBack)));
}

#[test]
fn a_program_that_hangs_is_killed_with_what_it_started_and_one_that_talks_is_cut_short() {
    let mut device = Device::with("sleep 1000 & echo $! >$record; wait");
    device.config.deadline = Duration::from_millis(300);
    assert!(device.says().contains("no end after 300ms"));
    let child = fs::read_to_string(device.folder.path().join("record")).unwrap();
    let is_gone = || match fs::read_to_string(format!("/proc/{}/stat", child.trim())) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    // A killed process takes a moment to be gone.
    let end = crate::clock::uptime() + Duration::from_secs(10);
    while !is_gone() {
        assert!(crate::clock::uptime() < end, "its child goes on");
        std::thread::yield_now();
    }

    assert!(Device::with("yes | head -c 10000000").says().contains("more than 4096 bytes"));
    // It writes more to both than a pipe holds, and reads nothing: neither waits for the other.
    let said = Device::with("yes no | head -c 1000000 >&2; exit 4").says();
    assert!(said.contains("exit code 4") && said.len() < 1000, "{said}");
}
