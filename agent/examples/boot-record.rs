//! Reads and changes a device's boot record by its own back end, for tests on real boot loaders.
//!
//! ```text
//! boot-record CONFIG provision | show | arm SLOT RC | disarm | confirm SLOT
//! ```
//! Each prints the record that is there afterwards, as JSON. `show` takes part in no boot. Not for devices: there the
//! agent decides, and it keeps a journal beside the record.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::path::Path;

use anyhow::{Context as _, bail};
use tern_agent::backend;
use tern_agent::boot::script::ScriptBoot;
use tern_agent::boot::systemd_boot::SystemdBoot;
use tern_agent::boot::{BootRecord, Trial};
use tern_agent::config::{BootConfig, Config};
use tern_agent::core::SlotName;
use tern_agent::storage;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [config, verb, more @ ..] = &words[..] else { bail!("usage: boot-record CONFIG VERB …") };
    let config = Config::load(Path::new(config))?;
    let disk = storage::system();
    match (*verb, more) {
        ("provision", []) => match &config.boot {
            BootConfig::SystemdBoot(loader) => SystemdBoot::provision_on(&*disk, loader)?,
            BootConfig::Script(script) => ScriptBoot::provision(script)?,
            _ => bail!("only for systemd-boot and for a program"),
        },
        ("show", []) => {}
        _ => {
            let mut boot = backend::boot(&config, &disk)?;
            let now = boot.record()?;
            match (*verb, more) {
                ("arm", [name, rc]) => {
                    let (slot, rc) = (slot(name)?, rc.parse()?);
                    let trial = Some(Trial { slot, rc, tries_left: 2 });
                    boot.write(&BootRecord { active: now.active, trial })?;
                }
                ("disarm", []) => boot.write(&BootRecord { active: now.active, trial: None })?,
                ("confirm", [name]) => {
                    boot.write(&BootRecord { active: slot(name)?, trial: None })?;
                    boot.settle()?;
                }
                _ => bail!("unknown: {verb} {more:?}"),
            }
        }
    }
    println!("{}", serde_json::to_string(&backend::record_on(&disk, &config)?)?);
    Ok(())
}

fn slot(name: &str) -> anyhow::Result<SlotName> {
    SlotName::BOTH.into_iter().find(|slot| slot.to_string() == name).context("a slot is a or b")
}
