use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::slot::SlotName;

/// Nothing to look at.
pub(super) fn nothing() -> CollectConfig {
    let no = PathBuf::from("/no/such/file");
    CollectConfig {
        panics: None,
        watchdog: None,
        boot_id: no.clone(),
        services: vec![],
        systemctl: no,
        battery: None,
    }
}

/// A device whose kernel, watchdog, services and battery are files.
struct Scene {
    folder: tempfile::TempDir,
    config: CollectConfig,
    program: Option<Program>,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for dir in ["pstore", "power/bat", "data"] {
        fs::create_dir_all(path(dir)).unwrap();
    }
    for (file, text) in [
        ("boot_id", "one\n"),
        ("bootstatus", "0\n"),
        ("power/bat/type", "Battery\n"),
        ("power/bat/status", "Discharging\n"),
        ("power/bat/capacity", "80\n"),
        ("restarts", "3"),
    ] {
        fs::write(path(file), text).unwrap();
    }
    let restarts = path("restarts");
    let script =
        format!("#!/bin/sh\ntest \"$5\" = modem.service && echo NRestarts=$(cat {})\n", restarts.display());
    fs::write(path("systemctl"), script).unwrap();
    fs::set_permissions(path("systemctl"), fs::Permissions::from_mode(0o755)).unwrap();
    let config = CollectConfig {
        panics: Some(path("pstore")),
        watchdog: Some(path("bootstatus")),
        boot_id: path("boot_id"),
        services: vec!["modem.service".into(), "other.service".into()],
        systemctl: path("systemctl"),
        battery: Some(path("power")),
    };
    Scene { folder, config, program: None }
}

impl Scene {
    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).unwrap();
    }

    /// The agent starts.
    fn start(&self) -> Collectors {
        let state = State::Idle { not_before: None };
        let data = self.folder.path().join("data");
        Collectors::open(Some(self.config.clone()), self.program.clone(), &data, &state)
    }
}

async fn collected(collectors: &Collectors) -> Vec<(String, u64)> {
    let device = "r-1".parse().unwrap();
    let context = Context { slot: SlotName::A, slot_path: "/x".into(), rc: 1, version: "1".into(), device };
    collectors.collect(&context).await.into_iter().collect()
}

fn counts(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

#[tokio::test]
async fn everything_that_goes_wrong_counts_once_over_boots_and_restarts_of_the_agent() {
    let scene = scene();
    let quiet = counts(&[("crashes", 0), ("panics", 0), ("unexpected-reboots", 0), ("watchdog-resets", 0)]);
    assert_eq!(collected(&scene.start()).await, quiet);

    scene.write("restarts", "4");
    scene.write("pstore/dmesg-ramoops-0", "Oops");
    scene.write("boot_id", "two");
    scene.write("bootstatus", "32");
    scene.start();
    let restarted = scene.start();

    // Another boot: all four restarts are of it.
    let told = counts(&[("crashes", 4), ("panics", 1), ("unexpected-reboots", 1), ("watchdog-resets", 1)]);
    assert_eq!(collected(&restarted).await, told);
    assert_eq!(collected(&scene.start()).await, quiet);
}

#[tokio::test]
async fn a_damaged_record_begins_anew_and_counts_nothing_twice() {
    let scene = scene();
    scene.write("pstore/dmesg-ramoops-0", "Oops");
    collected(&scene.start()).await;
    for copy in ["data/collect.0", "data/collect.1"] {
        if scene.folder.path().join(copy).exists() {
            scene.write(copy, "damage");
        }
    }

    let anew = scene.start();

    assert!(collected(&anew).await.iter().all(|(_, count)| *count == 0));
    scene.write("pstore/dmesg-ramoops-1", "Oops");
    assert!(collected(&scene.start()).await.contains(&("panics".to_owned(), 1)), "the new record is kept");
}

#[tokio::test]
async fn drain_is_among_the_figures_when_an_hour_without_a_charger_was_seen() {
    let scene = scene();
    let collectors = scene.start();
    let hour = Duration::from_secs(3600);
    let began = clock::uptime().saturating_sub(hour);
    if clock::uptime() < 2 * hour {
        // This machine is too young to have seen an hour.
        return;
    }
    collectors.try_inner().unwrap().battery.sample(&scene.folder.path().join("power"), began);
    scene.write("power/bat/capacity", "79");

    let told = collected(&collectors).await;

    assert!(told.iter().any(|(name, drain)| name == "drain" && (239..=240).contains(drain)), "{told:?}");
}

#[tokio::test]
async fn the_integrators_program_adds_its_own_and_has_the_last_word() {
    let mut scene = scene();
    let command = ["/bin/sh", "-c", "echo '{\"modem-resets\":2,\"crashes\":9}'"].map(str::to_owned).into();
    let deadline = Duration::from_secs(20);
    scene.program = Some(Program { name: "figures".into(), command, deadline });

    let told = collected(&scene.start()).await;

    for expected in counts(&[("modem-resets", 2), ("crashes", 9), ("panics", 0)]) {
        assert!(told.contains(&expected), "{told:?}");
    }
}

#[tokio::test]
async fn a_device_without_any_of_it_has_no_figures_and_no_trouble() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::Idle { not_before: None };
    let config = CollectConfig {
        panics: Some("/no/such/folder".into()),
        watchdog: Some("/no/such/file".into()),
        services: vec!["modem.service".into()],
        battery: Some("/no/such/folder".into()),
        ..nothing()
    };

    for config in [Some(config), Some(nothing()), None] {
        let collectors = Collectors::open(config, None, folder.path(), &state);
        collectors.sample(clock::uptime());
        assert_eq!(collected(&collectors).await, counts(&[]));
    }
    let unwritable = Collectors::open(Some(nothing()), None, Path::new("/no/such/folder"), &state);
    assert_eq!(collected(&unwritable).await, counts(&[]));
}

#[tokio::test]
async fn a_driver_that_hangs_costs_its_figures_and_nothing_else() {
    let scene = scene();
    let collectors = scene.start();
    let (held, (hold, release)) = (collectors.clone(), std::sync::mpsc::channel::<()>());
    let (holds, is_held) = std::sync::mpsc::channel();
    let hung = std::thread::spawn(move || {
        let inner = held.try_inner();
        holds.send(inner.is_some()).unwrap();
        release.recv().unwrap();
    });
    assert!(is_held.recv().unwrap());

    let told = collected(&collectors).await;
    collectors.sample(clock::uptime());

    hold.send(()).unwrap();
    hung.join().unwrap();
    assert_eq!(told, counts(&[]));
    assert!(!collected(&collectors).await.is_empty());
}
