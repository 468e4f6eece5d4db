//! The configuration as it is written in the file: its keys, their defaults, and what must fit together.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tern_protocol::id::CarrierId;

use super::section::Section;
use super::{
    BootConfig, BrokerAddress, Config, SlotsConfig, TlsFiles, boot, component, guard, probe, timing,
    transfer, when,
};
use crate::command::Program;
use crate::hooks::{HOOKS_MAX, Hook, HookStep};

/// Every key that stands in no section, and every section; first those that `tern-agent recover` reads.
pub(super) const FILE_KEYS: [&str; 27] = [
    "fleet",
    "device",
    "product",
    "model",
    "carrier",
    "region",
    "component",
    "brokers",
    "user",
    "password_file",
    "tls",
    "data_dir",
    "runtime_dir",
    "root",
    "slots",
    "boot",
    "claim_file",
    "components",
    "probes",
    "metrics",
    "collect",
    "watchdog",
    "hooks",
    "when",
    "data",
    "timing",
    "transfer",
];
/// How many `tern-agent recover` reads.
const RECOVERY_KEYS: usize = 16;

/// Leaves only what a recovery system needs.
pub(super) fn for_recovery(file: Section) -> Section {
    file.with_only(&FILE_KEYS[..RECOVERY_KEYS])
}

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
            return Err("slots.a and slots.b need a boot loader; write boot.kind = \"uboot\", \"systemd-boot\" or \"script\"".into());
        }
        (Some(a), Some(b)) => Some([a, b]),
        _ => return Err("slots.a and slots.b go together; name both or neither".into()),
    };
    let system = path("system")?;
    if system.is_some() && (paths.is_some() || !matches!(boot, BootConfig::Uboot(_))) {
        return Err(
            "slots.system is for a device with a single slot, which U-Boot boots: name neither slots.a \
                    nor slots.b, and write boot.kind = \"uboot\""
                .into(),
        );
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

pub(super) fn program_deadline() -> Duration {
    Duration::from_secs(60)
}

/// Reads the file, and checks what no single key can tell.
pub(super) fn file(file: Section) -> Result<Config, String> {
    let mut file = file.with_keys("", &FILE_KEYS)?;
    let (fleet, device, product) =
        (id(&mut file, "fleet")?, id(&mut file, "device")?, id(&mut file, "product")?);
    let (model, region) = (id(&mut file, "model")?, id(&mut file, "region")?);
    let carrier = file.text("carrier")?.unwrap_or_else(|| "none".into());
    let carrier = carrier.parse::<CarrierId>().map_err(|error| error.to_string())?;
    let component = file.text("component")?.unwrap_or_else(|| "rootfs".into());
    let brokers = file.list("brokers")?.ok_or_else(|| file.missing("brokers"))?;
    let brokers = brokers.iter().map(|text| text.parse()).collect::<Result<Vec<BrokerAddress>, _>>()?;
    let (user, password_file) = (file.text("user")?, file.text("password_file")?.map(PathBuf::from));
    let claim_file = file.text("claim_file")?.map(PathBuf::from);
    let data_dir = file.path("data_dir", "/var/lib/tern")?;
    let runtime_dir = file.path("runtime_dir", "/run/tern")?;
    let root = file.path("root", "/etc/tern/root.json")?;
    let tls = file.table("tls")?.map(tls).transpose()?;
    if brokers.is_empty() {
        return Err("brokers is empty; name at least one".into());
    }
    if cfg!(feature = "tls") && brokers.iter().any(|broker| broker.tls) && tls.is_none() {
        return Err("a broker is mqtts:// but there is no [tls] section; name at least its ca".into());
    }
    if user.is_none() && password_file.is_some() {
        return Err("password_file without user; MQTT 3.1.1 knows no password alone".into());
    }
    if component.is_empty() || component.contains('/') {
        return Err(format!("component {:?} is no part of a target's path; write one word", component));
    }
    let boot = boot::boot(file.table("boot")?.unwrap_or_default())?;
    let slots = file.table("slots")?.ok_or_else(|| file.missing("slots"))?;
    let slots = self::slots(slots, &boot, &data_dir)?;
    let components = component::components(file.tables("components")?, &component)?;
    let probes = file.tables("probes")?.into_iter().map(probe::probe).collect::<Result<_, _>>()?;
    let metrics = file.table("metrics")?.map(probe::metrics).transpose()?;
    let collect = file.table("collect")?.map(guard::collect).transpose()?;
    let watchdog = file.table("watchdog")?.map(guard::watchdog).transpose()?;
    let hooks = file.tables("hooks")?.into_iter().map(hook).collect::<Result<Vec<_>, _>>()?;
    if hooks.len() > HOOKS_MAX {
        return Err(format!("more than {HOOKS_MAX} hooks; put some into one program"));
    }
    let trial = hooks.iter().filter(|hook| hook.step == HookStep::PostBoot);
    let trial: Duration = trial.map(|hook| hook.program.deadline).sum();
    let timing = timing::timing(file.table("timing")?.unwrap_or_default())?;
    // Neither is scaled.
    if trial > timing.probe_deadline {
        return Err(
            "the deadlines of all post-boot hooks together are longer than timing.probe_deadline; a trial \
                        that takes so long is taken for a silent one"
                .into(),
        );
    }
    let data = file.table("data")?.unwrap_or_default().with_keys("data", &DATA_KEYS)?.list("areas")?;
    let transfer = file.table("transfer")?.unwrap_or_default();
    let (transfer, web) = transfer::transfer(transfer, tls.is_some())?;
    Ok(Config {
        fleet,
        device,
        product,
        model,
        carrier,
        region,
        component,
        brokers,
        user,
        password_file,
        claim_file,
        tls,
        data_dir,
        runtime_dir,
        root,
        slots,
        components,
        boot,
        probes,
        metrics,
        collect,
        watchdog,
        hooks,
        when: when::when(file.table("when")?.unwrap_or_default())?,
        data: data.unwrap_or_default().into_iter().map(PathBuf::from).collect(),
        timing: timing.checked()?,
        transfer,
        web,
    })
}

/// Refuses brokers that this program cannot speak to.
pub(super) fn check_links(config: &Config) -> Result<(), String> {
    match config.brokers.iter().find(|broker| broker.tls && !cfg!(feature = "tls")) {
        None => Ok(()),
        Some(broker) => Err(format!(
            "broker {:?} is mqtts://, but this tern-agent is built without TLS; install one that is built with the \
                 feature \"tls\", as it is by default",
            broker.host
        )),
    }
}

fn id<T: FromStr<Err: Display>>(file: &mut Section, key: &str) -> Result<T, String> {
    file.needed(key)?.parse().map_err(|error: T::Err| error.to_string())
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
