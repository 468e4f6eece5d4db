//! The configuration as it is written in the file: its keys, their defaults, and what must fit together.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tern_protocol::id::{CarrierId, DeviceId, FleetId, ModelId, ProductId, RegionId};

use super::boot::BootFile;
use super::section::Section;
use super::table::Table;
use super::when::WhenFile;
use super::{BootConfig, BrokerAddress, Config, SlotsConfig, Timing, TlsFiles, guard, probe, timing};
use crate::command::Program;
use crate::hooks::{HOOKS_MAX, Hook, HookStep};

impl HookFile {
    fn checked(self) -> Result<Hook, String> {
        let Self { step, name, command, undo, deadline } = self;
        if !undo.is_empty() && !step.can_be_undone() {
            let step = step.as_str();
            return Err(format!("hook {name:?} has an undo, but nothing of step {step:?} can be undone"));
        }
        let undo = (!undo.is_empty()).then(|| program(name.clone(), undo, deadline)).transpose()?;
        Ok(Hook { step, program: program(name, command, deadline)?, undo })
    }
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    fleet: FleetId,
    device: DeviceId,
    product: ProductId,
    model: ModelId,
    #[serde(default = "no_carrier")]
    carrier: CarrierId,
    region: RegionId,
    #[serde(default = "component")]
    component: String,
    brokers: Vec<BrokerAddress>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    claim_file: Option<PathBuf>,
    tls: Option<Table<TlsFiles>>,
    #[serde(default = "data_dir")]
    data_dir: PathBuf,
    #[serde(default = "runtime_dir")]
    runtime_dir: PathBuf,
    #[serde(default = "root")]
    root: PathBuf,
    slots: Table<SlotsFile>,
    #[serde(default)]
    boot: Table<BootFile>,
    #[serde(default)]
    probes: Vec<Section>,
    metrics: Option<Section>,
    collect: Option<Section>,
    watchdog: Option<Section>,
    #[serde(default)]
    hooks: Vec<Table<HookFile>>,
    #[serde(default)]
    when: Table<WhenFile>,
    #[serde(default)]
    data: Table<DataFile>,
    #[serde(default)]
    timing: Table<Timing>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SlotsFile {
    dir: Option<PathBuf>,
    capacity: u64,
    a: Option<PathBuf>,
    b: Option<PathBuf>,
    system: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HookFile {
    step: HookStep,
    name: String,
    command: Vec<String>,
    #[serde(default)]
    undo: Vec<String>,
    #[serde(default = "program_deadline", with = "timing::seconds")]
    deadline: Duration,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct DataFile {
    #[serde(default)]
    areas: Vec<String>,
}

fn no_carrier() -> CarrierId {
    "none".parse().expect("a plain word is an id")
}

fn component() -> String {
    "rootfs".into()
}

fn data_dir() -> PathBuf {
    "/var/lib/tern".into()
}

fn runtime_dir() -> PathBuf {
    "/run/tern".into()
}

fn root() -> PathBuf {
    "/etc/tern/root.json".into()
}

pub(super) fn program_deadline() -> Duration {
    Duration::from_secs(60)
}

impl File {
    /// Checks what no single key can tell.
    pub(super) fn checked(self) -> Result<Config, String> {
        let (tls, slots) = (self.tls.map(|tls| tls.0), self.slots.0);
        if self.brokers.is_empty() {
            return Err("brokers is empty; name at least one".into());
        }
        if self.brokers.iter().any(|broker| broker.tls) && tls.is_none() {
            return Err("a broker is mqtts:// but there is no [tls] section; name at least its ca".into());
        }
        if tls.as_ref().is_some_and(|tls| tls.cert.is_some() != tls.key.is_some()) {
            return Err("tls.cert and tls.key go together; name both or neither".into());
        }
        if self.user.is_none() && self.password_file.is_some() {
            return Err("password_file without user; MQTT 3.1.1 knows no password alone".into());
        }
        if self.component.is_empty() || self.component.contains('/') {
            return Err(format!(
                "component {:?} is no part of a target's path; write one word",
                self.component
            ));
        }
        if slots.capacity == 0 {
            return Err("slots.capacity is 0; say how many bytes one slot can hold".into());
        }
        let boot = self.boot.0.checked()?;
        let paths = match (slots.a, slots.b) {
            (None, None) => None,
            (Some(a), Some(b)) if a == b => return Err("slots.a and slots.b are the same; name two".into()),
            (Some(_), Some(_)) if boot == BootConfig::File => {
                return Err("slots.a and slots.b need a boot loader; write boot.kind = \"uboot\"".into());
            }
            (Some(a), Some(b)) => Some([a, b]),
            _ => return Err("slots.a and slots.b go together; name both or neither".into()),
        };
        if slots.system.is_some() && (paths.is_some() || boot == BootConfig::File) {
            return Err("slots.system is for a device with a single slot, which a boot loader boots: name neither slots.a \
                        nor slots.b, and write boot.kind = \"uboot\""
                .into());
        }
        let probes = self.probes.into_iter().map(probe::probe).collect::<Result<_, _>>()?;
        let metrics = self.metrics.map(probe::metrics).transpose()?;
        let collect = self.collect.map(guard::collect).transpose()?;
        let watchdog = self.watchdog.map(guard::watchdog).transpose()?;
        let hooks = self.hooks.into_iter().map(|Table(hook)| hook.checked());
        let hooks = hooks.collect::<Result<Vec<_>, _>>()?;
        if hooks.len() > HOOKS_MAX {
            return Err(format!("more than {HOOKS_MAX} hooks; put some into one program"));
        }
        let trial = hooks.iter().filter(|hook| hook.step == HookStep::PostBoot);
        let trial: Duration = trial.map(|hook| hook.program.deadline).sum();
        if trial > self.timing.0.probe_deadline {
            return Err("the deadlines of all post-boot hooks together are longer than timing.probe_deadline; a trial \
                        that takes so long is taken for a silent one"
                .into());
        }
        let slots_dir = slots.dir.unwrap_or_else(|| self.data_dir.join("slots"));
        Ok(Config {
            fleet: self.fleet,
            device: self.device,
            product: self.product,
            model: self.model,
            carrier: self.carrier,
            region: self.region,
            component: self.component,
            brokers: self.brokers,
            user: self.user,
            password_file: self.password_file,
            claim_file: self.claim_file,
            tls,
            data_dir: self.data_dir,
            runtime_dir: self.runtime_dir,
            root: self.root,
            slots: SlotsConfig { dir: slots_dir, capacity: slots.capacity, paths, system: slots.system },
            boot,
            probes,
            metrics,
            collect,
            watchdog,
            hooks,
            when: self.when.0.checked()?,
            data: self.data.0.areas.into_iter().map(PathBuf::from).collect(),
            timing: self.timing.0.checked()?,
        })
    }
}

pub(super) fn program(name: String, command: Vec<String>, deadline: Duration) -> Result<Program, String> {
    runnable(&name, &command, deadline)?;
    Ok(Program { name, command, deadline })
}

/// Checks what every program needs.
pub(super) fn runnable(name: &str, command: &[String], deadline: Duration) -> Result<(), String> {
    if command.first().is_none_or(String::is_empty) {
        return Err(format!("the command of {name:?} is empty; name an executable"));
    }
    if deadline.is_zero() {
        return Err(format!("the deadline of {name:?} is 0; it could never succeed"));
    }
    Ok(())
}
