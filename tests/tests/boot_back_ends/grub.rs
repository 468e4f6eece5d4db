//! GRUB with the program of `deploy/boot-script`: the program runs, GRUB is played from its manual and its grub.cfg.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tern_agent::boot::script::{ScriptBoot, ScriptConfig};
use tern_agent::boot::{Boot as _, BootRecord, Trial};
use tern_agent::core::SlotName;
use tern_agent::storage;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/boot-script");
const HEADER: &str = "# GRUB Environment Block\n";
/// Bytes of an environment block.
const BLOCK: usize = 1024;

/// A device with GRUB.
pub(crate) struct Grub {
    folder: tempfile::TempDir,
    pub(crate) config: ScriptConfig,
    boots: u32,
}

impl Grub {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let command = vec![
            "/usr/bin/env".into(),
            format!("TERN_GRUB_ENV={}", path("tern.env").display()),
            format!("TERN_CMDLINE={}", path("cmdline").display()),
            format!("{FOLDER}/grub-env.sh"),
        ];
        let config = ScriptConfig {
            command,
            deadline: Duration::from_secs(25),
            boot_id: path("boot_id"),
            reboot: vec!["/bin/true".into()],
        };
        let grub = Self { folder, config, boots: 0 };
        ScriptBoot::provision(&grub.config).unwrap();
        grub
    }

    pub(crate) fn environment(&self) -> PathBuf {
        self.folder.path().join("tern.env")
    }

    /// Reads and writes the block as GRUB does: `name=value` in lines, `#` up to the end.
    fn variables(&self) -> Vec<(String, String)> {
        let block = fs::read_to_string(self.environment()).unwrap();
        assert_eq!(block.len(), BLOCK);
        let lines = block.strip_prefix(HEADER).unwrap().lines().take_while(|line| !line.starts_with('#'));
        lines.filter_map(|line| line.split_once('=')).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    fn save(&self, variables: &[(String, String)]) {
        let lines = variables.iter().map(|(name, value)| format!("{name}={value}\n"));
        let text = HEADER.to_owned() + &lines.collect::<String>();
        fs::write(self.environment(), text.clone() + &"#".repeat(BLOCK - text.len())).unwrap();
    }

    /// What grub.cfg does.
    pub(crate) fn power_on(&mut self) -> SlotName {
        self.boots += 1;
        let mut variables = self.variables();
        let value = |name: &str| variables.iter().find(|(it, _)| it == name).map_or("", |(_, value)| value);
        let mut slot = if value("tern_active") == "b" { "b" } else { "a" }.to_owned();
        let left = match (value("tern_trial"), value("tern_tries")) {
            ("", _) => None,
            (_, "2") => Some("1"),
            (_, "1") => Some("0"),
            _ => None,
        };
        if let Some(left) = left {
            slot = value("tern_trial").to_owned();
            variables
                .iter_mut()
                .filter(|(name, _)| name == "tern_tries")
                .for_each(|(_, tries)| *tries = left.into());
            self.save(&variables);
        }
        fs::write(self.folder.path().join("cmdline"), format!("quiet tern.slot=x tern.slot={slot}\n"))
            .unwrap();
        fs::write(self.folder.path().join("boot_id"), format!("boot-{}\n", self.boots)).unwrap();
        if slot == "b" { SlotName::B } else { SlotName::A }
    }
}

/// Tells whether a program of GRUB's is here; CI installs them.
fn is_there(program: &str) -> bool {
    let is_there = Command::new(program).arg("--version").output().is_ok();
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: CI installs grub-common");
        println!("{program} is missing (Debian: grub-common): NOT COMPARED");
    }
    is_there
}

#[test]
fn grubs_own_tool_reads_what_the_program_writes_and_the_program_what_the_tool_does() {
    if !is_there("grub-editenv") {
        return;
    }
    let mut grub = Grub::new();
    let file = grub.environment();
    grub.power_on();
    let mut boot = ScriptBoot::on(&storage::system(), &grub.config).unwrap();
    let record = |tries_left| BootRecord {
        active: SlotName::A,
        trial: Some(Trial { slot: SlotName::B, rc: u64::MAX, tries_left }),
    };
    let tool = |words: &[&str]| {
        let output = Command::new("grub-editenv").arg(&file).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };

    boot.write(&record(2)).unwrap();

    let shown = format!("tern_active=a\ntern_trial=b\ntern_tries=2\ntern_trial_rc={}\n", u64::MAX);
    assert_eq!(tool(&["list"]), shown);
    assert!(shown.len() + HEADER.len() < 512, "all in one sector");
    tool(&["set", "tern_tries=1"]);
    assert_eq!(boot.record().unwrap(), record(1));
    boot.write(&record(2)).unwrap();
    assert_eq!(tool(&["list"]), shown);
}

#[test]
fn grubs_script_is_one() {
    if is_there("grub-script-check") {
        let output = Command::new("grub-script-check").arg(format!("{FOLDER}/grub.cfg")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_program_writes_over_its_block_in_place_and_leaves_one_alone_that_is_none() {
    use std::os::unix::fs::MetadataExt as _;
    let mut grub = Grub::new();
    let file = grub.environment();
    let inode = fs::metadata(&file).unwrap().ino();
    grub.power_on();
    let mut boot = ScriptBoot::on(&storage::system(), &grub.config).unwrap();
    let record = BootRecord { active: SlotName::B, trial: None };
    boot.write(&record).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().ino(), inode, "GRUB replays no journal");

    for damage in [&b"short"[..], &[b'x'; BLOCK]] {
        fs::write(&file, damage).unwrap();
        let error = boot.write(&record).unwrap_err();
        let source = std::error::Error::source(&error).and_then(std::error::Error::source).unwrap();
        assert!(source.to_string().contains("is no environment block"), "{source}");
        assert_eq!(fs::read(&file).unwrap(), damage);
    }
}
