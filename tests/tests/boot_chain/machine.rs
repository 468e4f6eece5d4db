//! A machine: one QEMU process from power on to power off, and what it says on its serial console.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tern_tests::lab::wait_telling;

use crate::disk::Disk;
use crate::kit::tool;

/// What the guest's own words begin with.
const MARK: &str = "@@ ";
/// How long a boot may take. Four seconds on an idle machine; forty were seen on a busy one.
const BOOT: Duration = Duration::from_secs(180);
/// How long an answer on the console may take.
const ANSWER: Duration = Duration::from_secs(60);

/// A machine that runs.
pub(crate) struct Machine {
    process: Child,
    console: PathBuf,
    /// What of the console was dealt with.
    read: usize,
}

impl Machine {
    /// Switches a board with U-Boot on; its way to the service is a door at 10.0.2.100. What it says is appended to
    /// `console`. With `log`, all that is written to the disk is logged there.
    pub(crate) fn power_on(disk: &Disk, service: SocketAddr, console: &Path, log: Option<&Path>) -> Self {
        let mut command = qemu("qemu-system-aarch64");
        command.args(["-M", "virt", "-cpu", "cortex-a53", "-m", "256"]);
        command.args(["-drive", &flash(0, true, &disk.code), "-drive", &flash(1, true, &disk.flash)]);
        medium(&mut command, &disk.path, log);
        command.args(["-device", "virtio-blk-pci,drive=disk", "-device", "i6300esb,addr=0x10"]);
        let port = service.port();
        let door = format!("user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:1883-cmd:nc 127.0.0.1 {port}");
        command.args(["-netdev", &door, "-device", "virtio-net-pci,netdev=net,romfile="]);
        Self::start(command, console)
    }

    /// Switches a PC with UEFI on.
    pub(crate) fn power_on_pc(firmware: [&Path; 2], disk: &Path, console: &Path, log: Option<&Path>) -> Self {
        let mut command = qemu("qemu-system-x86_64");
        command.args(["-M", "q35", "-cpu", "qemu64", "-m", "256", "-nic", "none"]);
        command.args(["-drive", &flash(0, true, firmware[0]), "-drive", &flash(1, false, firmware[1])]);
        medium(&mut command, disk, log);
        command.args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"]);
        Self::start(command, console)
    }

    fn start(mut command: Command, console: &Path) -> Self {
        let before = fs::read(console).map_or(0, |said| said.len());
        let out = File::options().create(true).append(true).open(console).unwrap();
        command.stdin(Stdio::piped()).stderr(out.try_clone().unwrap()).stdout(out);
        Self { process: command.spawn().unwrap(), console: console.to_owned(), read: before }
    }

    /// Waits for the next of the guest's words that begins with `word`, and returns what follows.
    pub(crate) fn hear(&mut self, word: &str) -> String {
        self.find(&format!("{MARK}{word} "), BOOT)
    }

    /// Waits for `what`, from U-Boot, the kernel or the guest, and returns the rest of its line.
    pub(crate) fn find(&mut self, what: &str, most: Duration) -> String {
        let tell = || format!("{what:?}; the console ends:\n{}", tail(&self.text(), 60));
        let (line, end) = wait_telling(tell, most, || {
            let said = self.text();
            let fresh = said.get(self.read..)?;
            let from = fresh.find(what)? + what.len();
            let length = fresh[from..].find('\n')?;
            Some((fresh[from..from + length].trim().to_owned(), self.read + from + length))
        });
        self.read = end;
        line
    }

    /// Asks the guest for `tern-agent status --json`.
    pub(crate) fn status(&mut self) -> Value {
        // The agent's log goes to the same console, and may stand in the middle of a line.
        for _ in 0..5 {
            self.tell("status");
            let line = self.find(&format!("{MARK}status "), ANSWER);
            if let Ok(status) = serde_json::from_str(&line) {
                return status;
            }
        }
        panic!("no status can be read; the console ends:\n{}", tail(&self.text(), 30));
    }

    /// Types a line on the console.
    pub(crate) fn tell(&mut self, word: &str) {
        let input = self.process.stdin.as_mut().unwrap();
        input.write_all(format!("{word}\n").as_bytes()).and_then(|()| input.flush()).unwrap();
    }

    /// Has the guest switch itself off.
    pub(crate) fn power_off(mut self) {
        self.tell("off");
        let ended =
            wait_telling(|| "the machine to go off".to_owned(), ANSWER, || self.process.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
    }

    /// Cuts the power.
    pub(crate) fn cut_power(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// What was said in all of this device's life. Bytes that are no text keep their number.
    fn text(&self) -> String {
        fs::read(&self.console)
            .unwrap()
            .iter()
            .map(|byte| if byte.is_ascii() { char::from(*byte) } else { '?' })
            .collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Mostly it is off already.
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// QEMU with nothing but a console.
fn qemu(name: &str) -> Command {
    // A test that is killed takes its machine along.
    let mut command = tool("setpriv");
    command.args(["--pdeathsig", "KILL", name, "-nodefaults", "-display", "none"]);
    command.args(["-serial", "stdio", "-monitor", "none"]);
    command
}

fn flash(index: u8, is_fixed: bool, path: &Path) -> String {
    let fixed = if is_fixed { "on" } else { "off" };
    format!("if=pflash,format=raw,index={index},readonly={fixed},file={}", path.display())
}

/// The disk, and a log of what is written to it.
fn medium(command: &mut Command, disk: &Path, log: Option<&Path>) {
    match log {
        // What the guest flushes ends in this system's cache, which outlives a machine that is killed.
        None => command.args(["-blockdev", &file("disk", disk)]),
        Some(log) => {
            command.args(["-blockdev", &file("file", disk), "-blockdev", &file("log", log)]);
            let logged = "driver=blklogwrites,node-name=disk,file=file,log=log,log-sector-size=512";
            command.args(["-blockdev", logged])
        }
    };
}

fn file(name: &str, path: &Path) -> String {
    format!("driver=file,node-name={name},filename={}", path.display())
}

fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
