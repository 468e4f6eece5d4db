//! U-Boot's own tools, as Debian's package libubootenv-tool has them, on the bytes that we write and read.

use std::process::{Command, Stdio};

use std::io::Write as _;
use std::process::{Child, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;
use crate::storage::testing::Knocking;

/// The lock that libubootenv takes, whatever its configuration file says.
const LOCK: &str = "/var/lock/fw_printenv.lock";

/// They share one lock, and a test that holds it for seconds would have another one give up.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns leave to use the tools, if they are there. Without them nothing is compared, which only CI takes for a failure.
fn tools() -> Option<MutexGuard<'static, ()>> {
    let there = Command::new("fw_printenv").arg("-V").output().is_ok();
    if !there {
        assert!(
            std::env::var_os("CI").is_none_or(|value| value == "false"),
            "fw_printenv is missing: install libubootenv-tool"
        );
        // Past the harness, which shows nothing of a test that passes.
        let said = "NOT COMPARED with fw_printenv and fw_setenv: they are not installed (Debian: libubootenv-tool)\n";
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    }
    Some(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Board {
    /// A device that shares its lock with the real tools.
    fn shared(variables: &[(&str, &str)]) -> Self {
        let mut board = Self::with(variables);
        board.config.medium.lock = LOCK.into();
        let [first, second] = board.config.medium.copies.each_ref().map(|copy| {
            format!("{} {:#x} {:#x}", copy.path.display(), copy.offset, board.config.medium.size)
        });
        fs::write(board.folder.path().join("fw_env.config"), format!("{first}\n{second}\n")).unwrap();
        board
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(self.folder.path().join("fw_env.config"));
        command
    }

    fn fw_printenv(&self, names: &[&str]) -> String {
        text(self.tool("fw_printenv").args(names).output().unwrap())
    }

    /// Sets variables as the agent's record needs it, in one go; an empty value takes a variable out.
    fn fw_setenv(&self, lines: &str) {
        let script = self.folder.path().join("script");
        fs::write(&script, lines).unwrap();
        text(self.tool("fw_setenv").arg("-s").arg(script).output().unwrap());
    }
}

fn text(output: Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The record as a script for `fw_setenv`.
fn script(record: &BootRecord) -> String {
    let mut environment = Environment::default();
    variables::put(&mut environment, record);
    let line = |name: &&str| {
        let value = environment.value(name).unwrap_or_default();
        format!("{name}={}\n", String::from_utf8_lossy(value))
    };
    variables::NAMES.iter().map(line).collect()
}

/// The flag, and everything up to the end of the text. Behind it libubootenv leaves what its memory held before, such
/// as pieces of the script, and sums that up as well.
fn text_of(copy: &[u8]) -> (u8, &[u8]) {
    let end = copy[5..].windows(2).position(|two| two == [0, 0]).unwrap();
    (copy[4], &copy[5..5 + end + 2])
}

const FOREIGN: [(&str, &str); 4] =
    [("baudrate", "115200"), ("bootcmd", "run a; run b=c"), ("empty", ""), ("zz", "ü \"'\\")];

#[test]
fn what_we_write_fw_setenv_would_have_written_byte_for_byte() {
    let Some(_alone) = tools() else { return };
    let (ours, theirs) = (Board::shared(&FOREIGN), Board::shared(&FOREIGN));
    // One variable at a time, each text longer than the one before: over clean memory, all bytes are the same.
    let values = ["1", "12", "123", "1234", "12345", "123456", "1234567", "12345678"];
    let steps = variables::NAMES.iter().flat_map(|name| values.map(|value| (*name, value)));

    for (name, value) in steps {
        ours.config.medium.change(&System, |environment| environment.set(name, Some(value))).unwrap();
        assert!(theirs.tool("fw_setenv").args([name, value]).status().unwrap().success());

        assert!(ours.bytes() == theirs.bytes(), "{name}={value}");
    }
}

#[test]
fn whole_records_are_the_text_that_fw_setenv_writes_twice_round_the_flag() {
    let Some(_alone) = tools() else { return };
    let steps = [
        record(SlotName::A, None),
        record(SlotName::A, Some((SlotName::B, 9, 2))),
        record(SlotName::A, Some((SlotName::B, 9, 1))),
        record(SlotName::B, None),
        record(SlotName::B, Some((SlotName::A, u64::MAX, 31))),
    ];
    let (ours, theirs) = (Board::shared(&FOREIGN), Board::shared(&FOREIGN));

    for step in steps.iter().cycle().take(2 * 256) {
        ours.config.medium.change(&System, |environment| variables::put(environment, step)).unwrap();
        theirs.fw_setenv(&script(step));

        let (ours, theirs) = (ours.copies(), theirs.copies());
        for copy in [0, 1] {
            assert_eq!(text_of(&ours[copy]), text_of(&theirs[copy]), "{step:?}");
        }
    }
}

#[test]
fn they_read_what_we_write_and_we_read_what_they_write() {
    let Some(_alone) = tools() else { return };
    let board = Board::shared(&FOREIGN);
    for step in every_record() {
        board.config.medium.change(&System, |environment| variables::put(environment, &step)).unwrap();
        for line in script(&step).lines() {
            let (name, value) = line.split_once('=').unwrap();
            if !value.is_empty() {
                assert_eq!(board.fw_printenv(&["-n", name]).trim_end(), value);
            }
        }
        for (name, value) in FOREIGN {
            assert_eq!(board.fw_printenv(&[name]), format!("{name}={value}\n"));
        }

        let other = record(step.active.other(), Some((step.active, 77, 3)));
        board.fw_setenv(&script(&other));

        assert_eq!(UbootBoot::read(&board.config.medium).unwrap(), other);
    }
}

#[test]
fn of_two_copies_they_believe_the_same_one() {
    let Some(_alone) = tools() else { return };
    let board = Board::shared(&[]);
    let copy = |flag: u8, word: &str| {
        let mut environment = Environment::default();
        environment.set("word", Some(word));
        environment.encode(flag, SIZE).unwrap()
    };
    let flags = [0, 1, 2, 127, 128, 129, 254, 255];
    for (first, second) in flags.iter().flat_map(|first| flags.map(|second| (*first, second))) {
        let (mut a, mut b) = (copy(first, "a"), copy(second, "b"));
        for damage in ["none", "a", "b"] {
            board.put([&a, &b]);
            let read = board.config.medium.read(&System).unwrap();
            let ours = String::from_utf8(read.value("word").unwrap().to_vec()).unwrap();
            assert_eq!(board.fw_printenv(&["-n", "word"]).trim_end(), ours, "{first} {second} {damage}");
            (a, b) = (copy(first, "a"), copy(second, "b"));
            (if damage == "none" { &mut a } else { &mut b })[SIZE / 2] = 0x55;
        }
    }
}

/// A `fw_setenv` that holds the lock until it is let go: it reads its script while it does.
fn hold(board: &Board, line: &str) -> Child {
    let mut child = board.tool("fw_setenv").args(["-s", "/dev/stdin"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    child
}

/// Whether process `id` has a lock, or waits for one, as the kernel lists it. Other tests use the same lock.
fn is_listed(id: u32, waits: bool) -> bool {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let is_it = |line: &str| line.split_whitespace().any(|word| word == id.to_string());
    locks.lines().any(|line| line.contains("->") == waits && is_it(line))
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come to pass in 10 s");
}

#[test]
fn fw_setenv_waits_for_us() {
    let Some(_alone) = tools() else { return };
    let board = Board::shared(&FOREIGN);
    let mut child = None;

    board
        .config
        .medium
        .change(&System, |environment| {
            // In the middle of our change: read, not yet written.
            let started = board.tool("fw_setenv").args(["theirs", "1"]).spawn().unwrap();
            until("fw_setenv waiting for the lock", || is_listed(started.id(), true));
            child = Some(started);
            variables::put(environment, &record(SlotName::A, None));
        })
        .unwrap();

    assert!(child.unwrap().wait().unwrap().success());
    assert_eq!(board.fw_printenv(&["theirs", "tern_active"]), "theirs=1\ntern_active=a\n");
}

#[test]
fn we_wait_for_fw_setenv() {
    let Some(_alone) = tools() else { return };
    let board = Board::shared(&FOREIGN);
    let mut holder = hold(&board, "theirs=1\n");
    until("fw_setenv holding the lock", || is_listed(holder.id(), false));
    let medium = board.config.medium.clone();

    let (knocks, knocked) = std::sync::mpsc::channel();
    let ours = std::thread::spawn(move || {
        let disk = Knocking(knocks);
        medium.change(&disk, |environment| variables::put(environment, &record(SlotName::A, None)))
    });
    for _ in 0..2 {
        knocked.recv_timeout(Duration::from_secs(10)).expect("we ask for the lock, and are refused");
    }
    drop(holder.stdin.take());

    assert!(holder.wait().unwrap().success());
    ours.join().unwrap().unwrap();
    assert_eq!(board.fw_printenv(&["theirs", "tern_active"]), "theirs=1\ntern_active=a\n");
}

#[test]
fn nobodys_change_is_lost_when_many_write() {
    let Some(_alone) = tools() else { return };
    let board = Board::shared(&FOREIGN);
    let medium = board.config.medium.clone();
    let mut children = Vec::new();
    let ours = std::thread::spawn(move || {
        for number in 0..40u64 {
            let step = record(SlotName::A, Some((SlotName::B, number, 2)));
            medium.change(&System, |environment| variables::put(environment, &step)).unwrap();
        }
    });
    for number in 0..20 {
        children.push(board.tool("fw_setenv").args([format!("theirs{number}"), "1".into()]).spawn().unwrap());
    }

    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    ours.join().unwrap();

    let all = board.fw_printenv(&[]);
    assert!((0..20).all(|number| all.contains(&format!("theirs{number}=1\n"))), "{all}");
    assert!(all.contains("tern_trial_rc=39\n"), "{all}");
}
