//! The configuration as it is written in the file: its keys, their defaults, and what must fit together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tern_protocol::id::{CarrierId, DeviceId, FleetId, ModelId, ProductId, RegionId};

use super::section::Section;
use super::{BootConfig, BrokerAddress, Config, SlotsConfig, TlsFiles, boot, guard, probe, timing, when};
use crate::command::Program;
use crate::hooks::{HOOKS_MAX, Hook, HookStep};

/// Every key of `[tls]`.
pub(super) const TLS_KEYS: [&str; 3] = ["ca", "cert", "key"];
/// Every key of `[slots]`.
pub(super) const SLOTS_KEYS: [&str; 5] = ["dir", "capacity", "a", "b", "system"];
/// Every key of a hook.
pub(super) const HOOK_KEYS: [&str; 5] = ["step", "name", "command", "undo", "deadline"];
/// Every key of `[data]`.
pub(super) const DATA_KEYS: [&str; 1] = ["areas"];

fn tls(section: Section) -> Result<TlsFiles, String> {
    let mut section = section.with_keys("tls", &TLS_KEYS)?;
    let ca = section.needed("ca")?.into();
    let (cert, key) = (section.text("cert")?.map(PathBuf::from), section.text("key")?.map(PathBuf::from));
    if cert.is_some() != key.is_some() {
        return Err("tls.cert and tls.key go together; name both or neither".into());
    }
    Ok(TlsFiles { ca, cert, key })
}

fn slots(section: Section, boot: &BootConfig, data_dir: &Path) -> Result<SlotsConfig, String> {
    let mut section = section.with_keys("slots", &SLOTS_KEYS)?;
    let capacity = section.whole("capacity")?.ok_or_else(|| section.missing("capacity"))?;
    if capacity == 0 {
        return Err("slots.capacity is 0; say how many bytes one slot can hold".into());
    }
    let mut path = |key| Ok::<_, String>(section.text(key)?.map(PathBuf::from));
    let paths = match (path("a")?, path("b")?) {
        (None, None) => None,
        (Some(a), Some(b)) if a == b => return Err("slots.a and slots.b are the same; name two".into()),
        (Some(_), Some(_)) if *boot == BootConfig::File => {
            return Err("slots.a and slots.b need a boot loader; write boot.kind = \"uboot\"".into());
        }
        (Some(a), Some(b)) => Some([a, b]),
        _ => return Err("slots.a and slots.b go together; name both or neither".into()),
    };
    let system = path("system")?;
    if system.is_some() && (paths.is_some() || *boot == BootConfig::File) {
        return Err("slots.system is for a device with a single slot, which a boot loader boots: name neither slots.a \
                    nor slots.b, and write boot.kind = \"uboot\""
            .into());
    }
    let dir = path("dir")?.unwrap_or_else(|| data_dir.join("slots"));
    Ok(SlotsConfig { dir, capacity, paths, system })
}

fn hook(section: Section) -> Result<Hook, String> {
    let mut section = section.with_keys("hooks", &HOOK_KEYS)?;
    let step = section.needed("step")?;
    let Some(step) = HookStep::ALL.into_iter().find(|known| known.as_str() == step) else {
        return Err(format!(
            "unknown variant {step:?} of hooks.step, expected one of {:?}",
            HookStep::ALL.map(HookStep::as_str)
        ));
    };
    let name = section.needed("name")?;
    let command = section.list("command")?.ok_or_else(|| section.missing("command"))?;
    let undo = section.list("undo")?.unwrap_or_default();
    let deadline = section.duration("deadline", program_deadline())?;
    if !undo.is_empty() && !step.can_be_undone() {
        let step = step.as_str();
        return Err(format!("hook {name:?} has an undo, but nothing of step {step:?} can be undone"));
    }
    let undo = (!undo.is_empty()).then(|| program(name.clone(), undo, deadline)).transpose()?;
    Ok(Hook { step, program: program(name, command, deadline)?, undo })
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
    tls: Option<Section>,
    #[serde(default = "data_dir")]
    data_dir: PathBuf,
    #[serde(default = "runtime_dir")]
    runtime_dir: PathBuf,
    #[serde(default = "root")]
    root: PathBuf,
    slots: Section,
    #[serde(default)]
    boot: Section,
    #[serde(default)]
    probes: Vec<Section>,
    metrics: Option<Section>,
    collect: Option<Section>,
    watchdog: Option<Section>,
    #[serde(default)]
    hooks: Vec<Section>,
    #[serde(default)]
    when: Section,
    #[serde(default)]
    data: Section,
    #[serde(default)]
    timing: Section,
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
        let tls = self.tls.map(tls).transpose()?;
        if self.brokers.is_empty() {
            return Err("brokers is empty; name at least one".into());
        }
        if let Some(broker) = self.brokers.iter().find(|broker| broker.tls && !cfg!(feature = "tls")) {
            return Err(format!(
                "broker {:?} is mqtts://, but this tern-agent is built without TLS; install one that is built with the \
                 feature \"tls\", as it is by default",
                broker.host
            ));
        }
        if self.brokers.iter().any(|broker| broker.tls) && tls.is_none() {
            return Err("a broker is mqtts:// but there is no [tls] section; name at least its ca".into());
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
        let boot = boot::boot(self.boot)?;
        let slots = slots(self.slots, &boot, &self.data_dir)?;
        let probes = self.probes.into_iter().map(probe::probe).collect::<Result<_, _>>()?;
        let metrics = self.metrics.map(probe::metrics).transpose()?;
        let collect = self.collect.map(guard::collect).transpose()?;
        let watchdog = self.watchdog.map(guard::watchdog).transpose()?;
        let hooks = self.hooks.into_iter().map(hook).collect::<Result<Vec<_>, _>>()?;
        if hooks.len() > HOOKS_MAX {
            return Err(format!("more than {HOOKS_MAX} hooks; put some into one program"));
        }
        let trial = hooks.iter().filter(|hook| hook.step == HookStep::PostBoot);
        let trial: Duration = trial.map(|hook| hook.program.deadline).sum();
        let timing = timing::timing(self.timing)?;
        // Neither is scaled.
        if trial > timing.probe_deadline {
            return Err("the deadlines of all post-boot hooks together are longer than timing.probe_deadline; a trial \
                        that takes so long is taken for a silent one"
                .into());
        }
        let data = self.data.with_keys("data", &DATA_KEYS)?.list("areas")?.unwrap_or_default();
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
            slots,
            boot,
            probes,
            metrics,
            collect,
            watchdog,
            hooks,
            when: when::when(self.when)?,
            data: data.into_iter().map(PathBuf::from).collect(),
            timing: timing.checked()?,
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
