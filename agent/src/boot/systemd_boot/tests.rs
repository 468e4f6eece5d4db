//! Entries on a real file system. What a power cut leaves, and what the loader makes of it, is in the campaigns of the
//! workspace's `tests`.

use std::fs;

use super::entry::{Content, SIZE_MAX};
use super::*;
use crate::boot::Trial;
use crate::storage;
use crate::storage::system::System;

struct Board {
    folder: tempfile::TempDir,
    config: SystemdBootConfig,
}

const TEMPLATE: &str =
    "title Tern\noptions root=PARTUUID=1234 ro\noptions quiet tern.slot=@\nlinux /@/linux\ninitrd /@/initrd";

impl Board {
    fn blank() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("loader/entries")).unwrap();
        fs::create_dir(path("templates")).unwrap();
        for slot in ["a", "b"] {
            fs::write(path(&format!("templates/{slot}.conf")), TEMPLATE.replace('@', slot)).unwrap();
        }
        fs::write(path("loader/loader.conf"), "timeout 0\n#default x\ndefault  tern-*\n").unwrap();
        fs::write(path("loader/entries/rescue.conf"), "linux /rescue\n").unwrap();
        let config = SystemdBootConfig {
            entries: path("loader/entries"),
            templates: path("templates"),
            cmdline: path("cmdline"),
            boot_id: path("boot_id"),
            reboot: vec!["/bin/true".into()],
        };
        let board = Self { folder, config };
        board.boots("a");
        board
    }

    fn provisioned() -> Self {
        let board = Self::blank();
        SystemdBoot::provision_on(&System, &board.config).unwrap();
        board
    }

    fn boots(&self, slot: &str) {
        fs::write(&self.config.cmdline, format!("quiet tern.slot={slot}\n")).unwrap();
        fs::write(&self.config.boot_id, format!("boot of {slot}\n")).unwrap();
    }

    fn start(&self) -> SystemdBoot {
        SystemdBoot::on(&storage::system(), &self.config).unwrap()
    }

    /// Names of ours in the folder, those that are switched off in brackets.
    fn shows(&self) -> String {
        let entries = folder::entries(&System, &self.config.entries).unwrap();
        let name =
            |entry: &Entry| if entry.is_on() { entry.file.clone() } else { format!("({})", entry.file) };
        let mut names: Vec<_> = entries.iter().map(name).collect();
        names.sort();
        names.join(" ")
    }

    fn counts(&self, from: &str, to: &str) {
        fs::rename(self.config.entries.join(from), self.config.entries.join(to)).unwrap();
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.config.entries.join(name)).unwrap()
    }
}

fn confirmed(active: SlotName) -> BootRecord {
    BootRecord { active, trial: None }
}

fn trial(tries_left: u8) -> BootRecord {
    BootRecord { active: SlotName::A, trial: Some(Trial { slot: SlotName::B, rc: 7, tries_left }) }
}

fn said(error: BootError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn a_trial_is_armed_counted_by_the_loader_confirmed_and_settled() {
    let board = Board::provisioned();
    assert_eq!(board.shows(), "tern-a.conf");
    assert!(matches!(SystemdBoot::provision_on(&System, &board.config), Err(BootError::AlreadyProvisioned)));
    let mut boot = board.start();
    assert_eq!(boot.record().unwrap(), confirmed(SlotName::A));

    boot.write(&trial(2)).unwrap();

    assert_eq!(board.shows(), "tern-a.conf tern-b+2.conf");
    assert_eq!(
        board.text("tern-b+2.conf"),
        "# tern rc 7\nsort-key tern\nversion 2\noptions tern.trial=1\ntitle Tern\noptions root=PARTUUID=1234 ro\noptions quiet tern.slot=b\n\
         linux /b/linux\ninitrd /b/initrd\n"
    );
    board.counts("tern-b+2.conf", "tern-b+1-1.conf");
    board.boots("b");
    let mut boot = board.start();
    assert_eq!((boot.record().unwrap(), boot.booted().unwrap().slot), (trial(1), SlotName::B));

    boot.write(&confirmed(SlotName::B)).unwrap();
    assert_eq!(boot.record().unwrap(), confirmed(SlotName::B));
    boot.settle().unwrap();

    assert_eq!(board.shows(), "tern-b.conf");
    assert!(board.text("tern-b.conf").contains("version 3\noptions tern.trial=0\n"));
    assert_eq!(board.text("rescue.conf"), "linux /rescue\n", "what is not ours is left alone");
}

#[test]
fn a_trial_that_is_disarmed_or_used_up_leaves_nothing_that_boots() {
    let board = Board::provisioned();
    let mut boot = board.start();
    boot.write(&trial(2)).unwrap();
    board.counts("tern-b+2.conf", "tern-b+0-2.conf");
    assert_eq!(board.start().record().unwrap(), trial(0));

    boot.write(&confirmed(SlotName::A)).unwrap();
    assert_eq!(board.shows(), "tern-a.conf");
    // A leftover would keep the loader from counting the next one down to its name.
    fs::write(board.config.entries.join("tern-b+1-1.conf"), "").unwrap();
    boot.write(&trial(2)).unwrap();

    assert_eq!(board.shows(), "tern-a.conf tern-b+2.conf");
}

#[test]
fn a_trial_that_is_there_twice_has_the_tries_of_the_lower_one_and_comes_to_be_there_once() {
    for (names, left, expected) in [
        (["tern-b+2.conf", "tern-b+1-1.conf"], 1, "tern-a.conf tern-b+1.conf"),
        (["tern-b+1-1.conf", "tern-b+0-2.conf"], 0, "tern-a.conf tern-b+0.conf"),
        (["tern-b+1.conf", "tern-b+0-1.conf"], 0, "tern-a.conf tern-b+0.conf"),
    ] {
        let board = Board::provisioned();
        board.start().write(&trial(2)).unwrap();
        let bytes = board.text("tern-b+2.conf");
        fs::remove_file(board.config.entries.join("tern-b+2.conf")).unwrap();
        // On FAT both are the same clusters; here they are one file under two names, which is as near as it gets.
        fs::write(board.config.entries.join(names[0]), bytes).unwrap();
        fs::hard_link(board.config.entries.join(names[0]), board.config.entries.join(names[1])).unwrap();
        board.boots("b");

        let boot = board.start();

        assert_eq!(boot.record().unwrap(), trial(left));
        assert_eq!(board.shows(), expected);
        assert!(
            board.text(expected.split(' ').nth(1).unwrap()).contains("version 3\n"),
            "it is a file of its own"
        );
    }
}

#[test]
fn without_its_confirmed_entry_a_trial_still_tells_which_slot_that_was() {
    let board = Board::provisioned();
    board.start().write(&trial(2)).unwrap();
    fs::remove_file(board.config.entries.join("tern-a.conf")).unwrap();
    let mut boot = board.start();
    assert_eq!(boot.record().unwrap(), trial(2));

    boot.write(&confirmed(SlotName::A)).unwrap();

    assert_eq!(boot.record().unwrap(), confirmed(SlotName::A));
    boot.settle().unwrap();
    assert_eq!(board.shows(), "tern-a.conf");
}

#[test]
fn names_are_read_as_the_loader_reads_them() {
    let counter = |left, done| Some(Counter { left, done });
    for (file, slot, read) in [
        ("tern-a.conf", SlotName::A, None),
        ("TERN-B.CONF", SlotName::B, None),
        ("tern-b+2.conf", SlotName::B, counter(2, 0)),
        ("tern-b+1-1.conf", SlotName::B, counter(1, 1)),
        ("tern-b+0-2.conf", SlotName::B, counter(0, 2)),
    ] {
        let name = Name::parse(file).unwrap();
        assert_eq!(name, Name { slot, counter: read }, "{file}");
        assert_eq!(name.file(), file.to_ascii_lowercase());
    }
    for file in [
        "tern-c.conf",
        "tern-.conf",
        "tern-a.con",
        "a.conf",
        "tern-a+.conf",
        "tern-a+-1.conf",
        "tern-a+1-.conf",
        "tern-a++1.conf",
        "tern-a+1+1.conf",
        "tern-a+300.conf",
        "tern-ab.conf",
        "tern-a.conf.new",
        "",
    ] {
        assert_eq!(Name::parse(file), None, "{file}");
    }
}

#[test]
fn an_entry_is_one_by_a_line_that_names_what_is_booted() {
    let slot = |text: &str| {
        let content = Content::read(text.as_bytes());
        (content.switches.len(), content.slot)
    };
    assert_eq!(slot("linux /l\noptions tern.slot=a"), (1, Some(SlotName::A)));
    assert_eq!(slot("  linux\t/l\r\n  options x tern.slot=a tern.slot=b"), (1, Some(SlotName::B)));
    assert_eq!(slot("efi /l\noptions tern.slot=a\noptions more"), (1, Some(SlotName::A)));
    for none in ["", "#linux /l", "# linux /l", "linux", "linux ", "linuxes /l", "title linux /l", "\u{fffd}"]
    {
        assert_eq!(slot(none).0, 0, "{none:?}");
    }
    let at = Content::read(b"a b\r\n  linux /l\n\nefi /x").switches;
    assert_eq!(at, [7, 17]);
}

#[test]
fn a_template_that_makes_no_entry_is_refused_with_what_it_lacks() {
    for (template, says) in [
        (TEMPLATE.replace("linux /", "#linux /"), "has 0"),
        (format!("{TEMPLATE}\nefi /x.efi"), "has 2"),
        (TEMPLATE.replace("tern.slot", "slot"), "do not say tern.slot=b"),
        (TEMPLATE.replace("tern.slot=@", "tern.slot=a"), "do not say tern.slot=b"),
        (format!("version 3\n{TEMPLATE}"), "take that out"),
        (format!("sort-key x\n{TEMPLATE}"), "take that out"),
        (format!("{TEMPLATE}\n{}", "#".repeat(SIZE_MAX - 100)), "more than 4096 bytes"),
    ] {
        let board = Board::provisioned();
        fs::write(board.config.templates.join("b.conf"), template.replace('@', "b")).unwrap();

        let refusal = said(board.start().write(&trial(2)).unwrap_err());

        assert!(refusal.contains(says) && refusal.contains("b.conf"), "{refusal}");
        assert_eq!(board.shows(), "tern-a.conf", "nothing was changed");
    }
}

#[test]
fn the_samples_make_entries() {
    let mut board = Board::blank();
    let samples = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd-boot"));
    fs::copy(samples.join("loader.conf"), board.folder.path().join("loader/loader.conf")).unwrap();
    board.config.templates = samples.to_owned();
    SystemdBoot::provision_on(&System, &board.config).unwrap();

    board.start().write(&trial(2)).unwrap();

    assert_eq!(board.shows(), "tern-a.conf tern-b+2.conf");
    // Both say the same, each of its own slot.
    let of = |slot: &str| fs::read_to_string(samples.join(format!("{slot}.conf"))).unwrap();
    let lines = |text: String| {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
    };
    let other = of("a")
        .replace("slot a", "slot b")
        .replace("slot-a", "slot-b")
        .replace("=a", "=b")
        .replace("/a/", "/b/");
    assert_eq!(lines(of("b")), lines(other));
}

#[test]
fn a_loader_that_may_boot_another_entry_is_told_before_the_device_is_provisioned() {
    for text in ["", "default a.conf", "#default tern-*", "default tern-*\ndefault other", "defaults tern-*"]
    {
        let board = Board::blank();
        fs::write(board.folder.path().join("loader/loader.conf"), text).unwrap();

        let refusal = said(SystemdBoot::provision_on(&System, &board.config).unwrap_err());

        assert!(refusal.contains("does not say `default tern-*`"), "{refusal}");
        assert_eq!(board.shows(), "");
    }
}

#[test]
fn a_partition_that_is_not_mounted_or_a_device_without_entries_is_said() {
    let mut board = Board::blank();
    assert!(matches!(SystemdBoot::on(&storage::system(), &board.config), Err(BootError::NotProvisioned)));

    board.config.entries = board.folder.path().join("not-there");

    let refusal = said(SystemdBoot::on(&storage::system(), &board.config).unwrap_err());
    assert!(refusal.contains("could not list") && refusal.contains("it must be mounted"), "{refusal}");
}

#[test]
fn what_is_in_the_way_of_an_entry_is_none_and_gives_way() {
    let board = Board::blank();
    fs::write(board.config.entries.join("tern-a.conf"), vec![b'x'; SIZE_MAX + 1]).unwrap();
    assert_eq!(board.shows(), "(tern-a.conf)");

    SystemdBoot::provision_on(&System, &board.config).unwrap();

    assert_eq!(board.shows(), "tern-a.conf");
}
