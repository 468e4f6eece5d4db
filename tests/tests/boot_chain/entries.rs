//! Our back end writes the entries, on Linux' own FAT, and the real systemd-boot boots them.
//!
//! `TERN_BOOT_RECORD` names the example boot-record of the agent, static for this machine's processor.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tern_agent::boot::choose;
use tern_agent::boot::systemd_boot::{SystemdBoot, SystemdBootConfig};
use tern_agent::core::SlotName;
use tern_agent::storage::Storage as _;
use tern_tests::powercut::disk::FakeDisk;
use tern_tests::powercut::systemd_boot;
use tern_tests::sim::clock::Rng;

use crate::crash::cuts::{Cut, cuts};
use crate::crash::write_log::{Write, epochs};
use crate::machine::Machine;
use crate::number;
use crate::pc::Pc;

const RECORD: &str = "TERN_BOOT_RECORD";
const LOADER: &str = "/boot/loader";

fn pc() -> Option<Pc> {
    let record = std::env::var_os(RECORD).map(PathBuf::from);
    let record = record.unwrap_or_else(|| panic!("{RECORD} is not set; call .ci/long systemd-boot"));
    Pc::of_ours(&record)
}

/// Has the guest change the record, and returns what it is then, and which entries there are.
fn record(machine: &mut Machine, verb: &str) -> (String, String) {
    machine.tell(&format!("record {verb}"));
    (machine.hear("record"), machine.hear("entries"))
}

fn is(found: (String, String), record: &str, entries: &str) {
    assert_eq!(found, (record.to_owned(), format!("factory.conf {entries}").trim().to_owned()));
}

const A: &str = r#"{"active":"a"}"#;
const B: &str = r#"{"active":"b"}"#;

fn on_trial(active: &str, slot: &str, rc: u64, left: u8) -> String {
    format!(r#"{{"active":"{active}","trial":{{"slot":"{slot}","rc":{rc},"tries_left":{left}}}}}"#)
}

/// The power is cut, and not switched off, wherever the back end has said that something is so.
#[test]
#[ignore = "takes minutes; .ci/long systemd-boot runs it"]
fn systemd_boot_tries_what_our_back_end_has_armed_keeps_what_it_confirms_and_falls_back_by_itself() {
    let Some(pc) = pc() else { return };
    let on = || pc.power_on(&pc.disk(), None);
    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=a trial= selected=factory.conf");
    is(record(&mut machine, "provision"), A, "tern-a.conf");
    machine.cut_power();

    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=a trial=0 selected=tern-a.conf");
    is(record(&mut machine, "arm b 7"), &on_trial("a", "b", 7, 2), "tern-a.conf tern-b+2.conf");
    machine.cut_power();

    // Good.
    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=b trial=1 selected=tern-b+2.conf");
    is(record(&mut machine, "show"), &on_trial("a", "b", 7, 1), "tern-a.conf tern-b+1-1.conf");
    is(record(&mut machine, "confirm b"), B, "tern-b.conf");
    machine.cut_power();

    // Never confirmed: two boots, and back.
    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=b trial=0 selected=tern-b.conf");
    is(record(&mut machine, "arm a 8"), &on_trial("b", "a", 8, 2), "tern-a+2.conf tern-b.conf");
    machine.cut_power();
    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=a trial=1 selected=tern-a+2.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), "slot=a trial=1 selected=tern-a+1-1.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), "slot=b trial=0 selected=tern-b.conf");
    is(record(&mut machine, "show"), &on_trial("b", "a", 8, 0), "tern-a+0-2.conf tern-b.conf");
    is(record(&mut machine, "disarm"), B, "tern-b.conf");

    // Not well: rolled back by the agent in its first boot.
    is(record(&mut machine, "arm a 9"), &on_trial("b", "a", 9, 2), "tern-a+2.conf tern-b.conf");
    machine.tell("reboot");
    assert_eq!(machine.hear("up"), "slot=a trial=1 selected=tern-a+2.conf");
    is(record(&mut machine, "disarm"), B, "tern-b.conf");
    machine.cut_power();
    let mut machine = on();
    assert_eq!(machine.hear("up"), "slot=b trial=0 selected=tern-b.conf");
    machine.power_off();
}

/// The same with GRUB, a trial whose kernel does not load among it. What the folder of entries shows is another's here.
#[test]
#[ignore = "takes minutes; .ci/long systemd-boot runs it"]
fn grub_tries_what_our_program_has_armed_keeps_what_it_confirms_and_falls_back_by_itself() {
    let tool = std::env::var_os(RECORD).map(PathBuf::from).expect("call .ci/long systemd-boot");
    let Some(pc) = Pc::of_grub(&tool) else { return };
    let on = || pc.power_on(&pc.disk(), None);
    let is = |machine: &mut Machine, verb: &str, expected: &str| {
        assert_eq!(record(machine, verb).0, expected, "{verb}")
    };
    let comes_up = |machine: &mut Machine, slot: &str, trial: u8| {
        assert_eq!(machine.hear("up"), format!("slot={slot} trial={trial} selected="));
    };
    let mut machine = on();
    comes_up(&mut machine, "a", 0);
    is(&mut machine, "provision", A);
    machine.cut_power();
    let mut machine = on();
    comes_up(&mut machine, "a", 0);
    is(&mut machine, "arm b 7", &on_trial("a", "b", 7, 2));
    machine.cut_power();

    let mut machine = on();
    comes_up(&mut machine, "b", 1);
    is(&mut machine, "show", &on_trial("a", "b", 7, 1));
    is(&mut machine, "confirm b", B);
    machine.cut_power();

    let mut machine = on();
    comes_up(&mut machine, "b", 0);
    is(&mut machine, "arm a 8", &on_trial("b", "a", 8, 2));
    machine.cut_power();
    let mut machine = on();
    comes_up(&mut machine, "a", 1);
    machine.tell("reboot");
    comes_up(&mut machine, "a", 1);
    machine.tell("reboot");
    comes_up(&mut machine, "b", 0);
    is(&mut machine, "show", &on_trial("b", "a", 8, 0));
    is(&mut machine, "disarm", B);

    machine.tell("break a");
    machine.hear("broken");
    is(&mut machine, "arm a 9", &on_trial("b", "a", 9, 2));
    machine.tell("reboot");
    comes_up(&mut machine, "b", 0);
    is(&mut machine, "show", &on_trial("b", "a", 9, 0));
    machine.power_off();
}

/// Cuts all that was written by our back end and by the loader's counting, between any two flushes, in many ways.
#[test]
#[ignore = "takes minutes; .ci/long systemd-boot runs it"]
fn a_power_cut_anywhere_in_an_update_leaves_entries_of_which_a_confirmed_slot_boots() {
    let Some(pc) = pc() else { return };
    let mut machine = pc.power_on(&pc.disk(), None);
    machine.hear("up");
    record(&mut machine, "provision");
    machine.power_off();
    let mut disk = std::fs::read(pc.disk()).unwrap();
    let log = pc.path("write.log");
    std::fs::write(&log, "").unwrap();
    let mut machine = pc.power_on(&pc.disk(), Some(&log));
    machine.hear("up");
    record(&mut machine, "arm b 7");
    record(&mut machine, "disarm");
    record(&mut machine, "arm b 7");
    machine.tell("reboot");
    assert!(machine.hear("up").starts_with("slot=b"));
    record(&mut machine, "confirm b");
    machine.power_off();

    let begin = disk.clone();
    let most = number("TERN_CRASH_CUTS", 40);
    let (mut kinds, mut runs): (BTreeMap<String, (usize, PathBuf)>, usize) = (BTreeMap::new(), 0);
    let epochs = epochs(&log);
    for (number, epoch) in epochs.iter().enumerate() {
        for cut in cuts(epoch, &disk, most, &mut Rng::of(1, &format!("epoch {number}"))) {
            let left = written(&disk, epoch, cut);
            runs += 1;
            let path = pc.path(&format!("kind-{}.disk", kinds.len()));
            let (times, _) = kinds.entry(look(&pc, &left)).or_insert_with(|| {
                std::fs::write(&path, &left).unwrap();
                (0, path)
            });
            *times += 1;
        }
        for write in epoch {
            disk[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
        }
    }
    let count: usize = epochs.iter().map(Vec::len).sum();
    println!("{count} writes in {} epochs, {runs} cuts", epochs.len());
    for (kind, (times, _)) in &kinds {
        println!("{times:5} x {kind}");
    }
    assert!(kinds.keys().all(|kind| !kind.contains("WRONG")), "see above");
    // The control: a back end that flushes nothing leaves all of it to chance.
    let unflushed = epochs.concat();
    let drawn = cuts(&unflushed, &begin, 10 * most, &mut Rng::of(1, "unflushed"));
    let all = drawn.len();
    let broken = drawn
        .into_iter()
        .filter(|cut| look(&pc, &written(&begin, &unflushed, cut.clone())).contains("WRONG"));
    let broken = broken.count();
    println!(
        "control, no flush: {broken} of {all} cuts leave nothing of ours that boots, or not what the record says"
    );
    assert!(broken > 0, "the test sees nothing");
    // The real one does what the model says.
    for (kind, (_, disk)) in &kinds {
        let mut machine = pc.power_on(disk, None);
        let up = machine.hear("up");
        let (entries, boots) = kind.split_once(", boots ").unwrap();
        println!("booted: {entries}: {up}");
        assert!(up.starts_with(&format!("slot={}", boots.split(' ').next().unwrap())), "{kind}: {up}");
        machine.cut_power();
    }
}

/// The disk with what of an epoch has reached it.
fn written(disk: &[u8], epoch: &[Write], cut: Cut) -> Vec<u8> {
    let mut left = disk.to_vec();
    for (index, part) in cut {
        let at = epoch[index].at;
        left[at + part.start..at + part.end].copy_from_slice(&epoch[index].bytes[part]);
    }
    left
}

/// What a disk shows after a power cut: our entries, the record that our back end reads, and the slot that the loader's
/// model boots. WRONG if that is none of what the change has between.
fn look(pc: &Pc, disk: &[u8]) -> String {
    let files = match pc.files(disk) {
        Ok(files) => files,
        Err(said) => return format!("WRONG: {said}"),
    };
    let fake = FakeDisk::default();
    fake.put(&Path::new(LOADER).join("loader.conf"), b"default tern-*\n");
    let folder = Path::new(LOADER).join("entries");
    fake.create_folder(&folder).unwrap();
    let mut names = Vec::new();
    for (name, text) in files {
        // FAT shows a name of which the long form is gone by its short one, which is no entry.
        fake.put(&folder.join(&name), &text);
        names.push(name);
    }
    names.sort();
    let config = SystemdBootConfig {
        entries: folder,
        templates: "/t".into(),
        cmdline: "/c".into(),
        boot_id: "/b".into(),
        reboot: Vec::new(),
    };
    let record = SystemdBoot::record_on(&fake, &config).map_err(|error| error.to_string());
    let boots = systemd_boot::boot(&fake, Path::new(LOADER)).map(|choice| {
        SlotName::BOTH.into_iter().find(|slot| choice.options.contains(&format!("tern.slot={slot}")))
    });
    let names = names.join(" ");
    match (&record, &boots) {
        (Ok(Some(record)), Ok(Some(slot))) => {
            let expected = choose(record, [true, true]).map(|(slot, _)| slot).ok();
            let wrong = if expected == Some(*slot) { "" } else { " WRONG" };
            let trial = record.trial.as_ref().map(|trial| trial.tries_left);
            format!("{names}: active {}, tries {trial:?}, boots {slot}{wrong}", record.active)
        }
        _ => format!("{names}: WRONG {record:?} {boots:?}"),
    }
}
