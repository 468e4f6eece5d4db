mod tools;
mod torn;

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::environment::{Environment, newest};
use super::medium::Location;
use super::*;
use crate::boot::{Trial, choose};
use crate::slot::SlotName;
use crate::storage::system::System;

/// Bytes of a copy, and of the distance between both.
const SIZE: usize = 0x4000;
const SECOND: usize = 0x1_0000;

/// A device whose environment is a file.
struct Board {
    folder: tempfile::TempDir,
    config: UbootConfig,
}

impl Board {
    /// An environment as a factory writes it: both copies equal.
    fn with(variables: &[(&str, &str)]) -> Self {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.set(name, Some(value));
        }
        let copy = environment.encode(1, SIZE).unwrap();
        let board = Self::blank();
        board.put([&copy, &copy]);
        board
    }

    fn provisioned() -> Self {
        let board = Self::with(&[("bootcmd", "run tern"), ("serial#", "7")]);
        UbootBoot::provision(&board.config.medium).unwrap();
        board
    }

    fn blank() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("environment");
        fs::write(&path, vec![0xff; SECOND + SIZE]).unwrap();
        let location = |offset| Location { path: path.clone(), offset };
        let copies = [location(0), location(SECOND as u64)];
        let config = UbootConfig {
            medium: Medium { copies, size: SIZE, lock: folder.path().join("lock") },
            cmdline: folder.path().join("cmdline"),
            boot_id: folder.path().join("boot_id"),
            reboot: vec!["/bin/true".into()],
        };
        let board = Self { folder, config };
        board.boots("a", "first");
        board
    }

    fn boots(&self, slot: &str, boot_id: &str) {
        let words = format!("console=ttyS0 tern.slot=x quiet tern.slot={slot}\n");
        fs::write(&self.config.cmdline, words).unwrap();
        fs::write(&self.config.boot_id, format!("{boot_id}\n")).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("environment")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn copies(&self) -> [Vec<u8>; 2] {
        let bytes = self.bytes();
        [bytes[..SIZE].to_vec(), bytes[SECOND..].to_vec()]
    }

    fn put(&self, copies: [&[u8]; 2]) {
        let mut bytes = self.bytes();
        bytes[..SIZE].copy_from_slice(copies[0]);
        bytes[SECOND..].copy_from_slice(copies[1]);
        fs::write(self.path(), bytes).unwrap();
    }

    fn start(&self) -> Result<UbootBoot, BootError> {
        UbootBoot::start(&self.config)
    }
}

fn record(active: SlotName, trial: Option<(SlotName, u64, u8)>) -> BootRecord {
    let trial = trial.map(|(slot, rc, tries_left)| Trial { slot, rc, tries_left });
    BootRecord { active, trial }
}

fn every_record() -> Vec<BootRecord> {
    let mut records = Vec::new();
    for active in SlotName::BOTH {
        records.push(record(active, None));
        for slot in SlotName::BOTH {
            for (rc, tries) in [(0, 0), (9, 2), (u64::MAX, 255)] {
                records.push(record(active, Some((slot, rc, tries))));
            }
        }
    }
    records
}

/// Returns the whole chain, as the log prints it.
fn chain(error: BootError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[test]
fn every_record_is_read_as_it_was_written_and_each_write_is_one_copy() {
    let board = Board::provisioned();
    let mut boot = board.start().unwrap();

    for record in every_record() {
        let before = board.copies();
        boot.write(&record).unwrap();
        let after = board.copies();

        assert_eq!(boot.record().unwrap(), record);
        let changed = [0, 1].map(|copy| before[copy] != after[copy]);
        // The record that is there already spares the medium.
        assert!(changed != [true, true], "{record:?}");
        let counts = newest([&after[0], &after[1]]).unwrap();
        assert!(changed == [false, false] || changed[counts.index], "{record:?}");
        assert_eq!(counts.environment.value("serial#"), Some(&b"7"[..]));
    }
}

#[test]
fn nothing_outside_the_two_copies_is_ever_written() {
    let board = Board::provisioned();
    let mut boot = board.start().unwrap();

    for record in every_record().into_iter().cycle().take(300) {
        boot.write(&record).unwrap();
    }

    assert!(board.bytes()[SIZE..SECOND].iter().all(|byte| *byte == 0xff));
    assert_eq!(board.bytes().len(), SECOND + SIZE);
}

#[test]
fn a_record_that_is_there_already_is_not_written_again() {
    let board = Board::provisioned();
    let mut boot = board.start().unwrap();
    let before = board.bytes();

    boot.write(&record(SlotName::A, None)).unwrap();

    assert_eq!(board.bytes(), before);
}

#[test]
fn the_slot_comes_from_the_command_line_and_the_boot_from_the_kernel() {
    let board = Board::provisioned();
    let boot = board.start().unwrap().booted().unwrap();
    let again = board.start().unwrap().booted().unwrap();
    assert_eq!(
        (boot.slot, boot.boot_id.as_str(), boot.powered_on_at),
        (SlotName::A, "first", Duration::ZERO)
    );
    assert_eq!(again, boot, "an agent restart is not a boot");

    board.boots("b", "second");

    let boot = board.start().unwrap().booted().unwrap();
    assert_eq!((boot.slot, boot.boot_id.as_str()), (SlotName::B, "second"));
}

#[test]
fn a_command_line_without_a_slot_is_refused_with_a_way_out() {
    let board = Board::provisioned();
    for words in ["", "quiet", "tern.slot=", "tern.slot=c", "tern.slot=a tern.slot=ab", "xtern.slot=a"] {
        fs::write(&board.config.cmdline, words).unwrap();
        let refusal = chain(board.start().unwrap_err());
        assert!(
            refusal.contains("tern.slot=${tern_slot} on the kernel's command line"),
            "{words}: {refusal}"
        );
    }
    fs::remove_file(&board.config.cmdline).unwrap();
    assert!(chain(board.start().unwrap_err()).contains("could not read"));
}

#[test]
fn a_device_is_provisioned_once() {
    let board = Board::with(&[("bootcmd", "run tern")]);
    assert!(matches!(board.start(), Err(BootError::NotProvisioned)));
    assert!(!UbootBoot::is_provisioned(&board.config.medium).unwrap());

    UbootBoot::provision(&board.config.medium).unwrap();

    assert_eq!(board.start().unwrap().record().unwrap(), record(SlotName::A, None));
    assert!(matches!(UbootBoot::provision(&board.config.medium), Err(BootError::AlreadyProvisioned)));
}

/// A U-Boot that finds no environment uses the one it was built with. One of ours alone would take that from it, the
/// boot command included.
#[test]
fn where_no_copy_is_whole_nothing_is_written() {
    let board = Board::blank();
    let before = board.bytes();

    for error in [UbootBoot::provision(&board.config.medium).unwrap_err(), board.start().unwrap_err()] {
        let refusal = chain(error);
        assert!(refusal.contains("neither copy of the U-Boot environment is whole"), "{refusal}");
    }

    assert_eq!(board.bytes(), before);
}

#[test]
fn a_record_that_does_not_fit_is_refused_and_the_old_one_stays() {
    let filler = "f".repeat(SIZE - 60);
    let board = Board::with(&[("filler", &filler), ("tern_active", "a")]);
    let mut boot = board.start().unwrap();
    let before = board.bytes();

    let refusal = chain(boot.write(&record(SlotName::A, Some((SlotName::B, 9, 2)))).unwrap_err());

    assert!(refusal.contains("a copy has 16384"), "{refusal}");
    assert_eq!(board.bytes(), before);
}

#[test]
fn variables_that_make_no_sense_are_named() {
    let trial = [("tern_active", "a"), ("tern_trial", "b"), ("tern_tries", "2"), ("tern_trial_rc", "9")];
    for (name, value) in [
        ("tern_active", "A"),
        ("tern_trial", "c"),
        ("tern_tries", "two"),
        ("tern_tries", "100"),
        ("tern_trial_rc", "-1"),
        ("tern_trial_rc", "ü"),
    ] {
        let mut variables = trial.to_vec();
        variables.push((name, value));
        let refusal = chain(Board::with(&variables).start().unwrap_err());
        assert!(refusal.contains(name) && refusal.contains(value), "{refusal}");
    }
}

#[test]
fn what_the_boot_script_takes_for_none_is_none() {
    let cases = [
        (vec![("tern_active", "b"), ("tern_trial", "")], record(SlotName::B, None)),
        (vec![("tern_active", "b"), ("tern_tries", "2")], record(SlotName::B, None)),
        (vec![("tern_active", "b"), ("tern_trial", "a")], record(SlotName::B, Some((SlotName::A, 0, 0)))),
        (
            vec![("tern_active", "a"), ("tern_trial", "b"), ("tern_tries", "a")],
            record(SlotName::A, Some((SlotName::B, 0, 10))),
        ),
    ];
    for (variables, expected) in cases {
        assert_eq!(UbootBoot::read(&Board::with(&variables).config.medium).unwrap(), expected);
    }
}

#[test]
fn an_agent_between_disarming_and_its_reboot_goes_on() {
    let board = Board::provisioned();
    board.boots("b", "second");

    let boot = board.start().unwrap();

    assert_eq!(
        (boot.booted().unwrap().slot, boot.record().unwrap()),
        (SlotName::B, record(SlotName::A, None))
    );
}

#[test]
fn a_reboot_is_a_command_that_must_succeed() {
    let board = Board::provisioned();
    let done = board.folder.path().join("done");
    let reboot = |command: &[&str]| {
        let reboot = command.iter().map(|word| (*word).to_owned()).collect();
        UbootBoot::start(&UbootConfig { reboot, ..board.config.clone() }).unwrap().reboot()
    };

    reboot(&["/bin/sh", "-c", &format!("echo 1 >> {}", done.display())]).unwrap();

    assert_eq!(fs::read_to_string(done).unwrap(), "1\n");
    assert!(chain(reboot(&["/bin/false"]).unwrap_err()).contains("exit status: 1"));
    assert!(chain(reboot(&["/no/such/program"]).unwrap_err()).contains("No such file"));
    assert!(chain(reboot(&[]).unwrap_err()).contains("no program is named"));
}

#[test]
fn media_that_cannot_hold_an_environment_are_refused_by_name() {
    let board = Board::provisioned();
    let with = |path: &Path, offset| {
        let mut medium = board.config.medium.clone();
        medium.copies[1] = Location { path: path.to_owned(), offset };
        chain(UbootBoot::read(&medium).unwrap_err())
    };

    assert!(with(Path::new("/dev/null"), 0).contains("/dev/null is neither a block device nor a file"));
    assert!(with(board.folder.path(), 0).contains("neither a block device nor a file"));
    assert!(with(Path::new("/no/such/device"), 0).contains("could not look at /no/such/device"));
    let short = with(&board.path(), SECOND as u64 + 1);
    assert!(short.contains("could not find the copy in"), "{short}");
}

#[test]
fn a_lock_that_is_never_let_go_is_named() {
    let board = Board::provisioned();
    let lock = fs::File::create(&board.config.medium.lock).unwrap();
    lock.lock().unwrap();

    let refusal = chain(board.start().unwrap().write(&record(SlotName::B, None)).unwrap_err());

    assert!(refusal.contains("is held by another program"), "{refusal}");
    let found = UbootBoot::read(&board.config.medium).unwrap();
    assert_eq!(found, record(SlotName::A, None), "reading needs no lock");
}

/// The record's rules and the variables' are the same story: what the boot script writes is read as `choose` has it.
#[test]
fn a_try_that_the_boot_script_took_is_read_as_the_reference_has_it() {
    for tries in 1..=16 {
        let board = Board::provisioned();
        let before = record(SlotName::A, Some((SlotName::B, 9, tries)));
        board.start().unwrap().write(&before).unwrap();

        // setexpr tern_tries 0x${tern_tries} - 1
        let less = format!("{:x}", tries - 1);
        board
            .config
            .medium
            .change(&System, |environment| environment.set("tern_tries", Some(&less)))
            .unwrap();

        let (slot, expected) = choose(&before, [true, true]).unwrap();
        assert_eq!((slot, UbootBoot::read(&board.config.medium).unwrap()), (SlotName::B, expected));
    }
}
