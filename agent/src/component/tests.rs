//! Every kind with real files, real programs and real archives.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;

use super::*;
use crate::storage;

struct Scene {
    folder: tempfile::TempDir,
    component: Component,
}

impl Scene {
    fn new(kind: impl FnOnce(&Path) -> Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = ComponentConfig {
            name: "part".into(),
            capacity: 200_000,
            version: "0.9".into(),
            kind: kind(folder.path()),
        };
        let places = folder.path().join("places");
        let component = Component::on(&storage::system(), config, places, "dev-1".parse().unwrap()).unwrap();
        Self { folder, component }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|_| "nothing".into())
    }

    /// A package of a release comes, and is read back.
    fn comes(&self, rc: u64, bytes: &[u8]) {
        self.component.mark_bad().unwrap();
        self.component.write(0, bytes).unwrap();
        self.component.sync().unwrap();
        let mut leaves = RootHasher::default();
        leaves.update(bytes);
        let artifact = Artifact::new("part", bytes.len() as u64, Digest::of(bytes), root(&leaves.finish()));
        assert!(self.component.hash(&artifact, rc, format!("{rc}.0"), &AtomicBool::new(false)).unwrap());
    }

    async fn installs(&self, rc: u64, bytes: &[u8]) {
        self.comes(rc, bytes);
        let facts = self.component.install(rc).await.unwrap();
        assert_eq!((facts.unsettled, facts.version), (Some(rc), format!("{rc}.0")));
    }
}

fn script(folder: &Path, name: &str, text: &str) -> Program {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", folder.display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let command = vec![path.to_str().unwrap().to_owned(), "{slot_path}".into()];
    Program { name: name.into(), command, deadline: Duration::from_secs(20) }
}

/// A tar archive with one file.
fn archive(text: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::write(folder.path().join("bin/app"), text).unwrap();
    let out =
        std::process::Command::new("tar").arg("-C").arg(folder.path()).args(["-cf", "-", "bin"]).output();
    out.unwrap().stdout
}

#[tokio::test]
async fn a_file_is_replaced_taken_back_and_kept() {
    let scene = Scene::new(|folder| Kind::File { path: folder.join("app/it"), mode: 0o755 });
    fs::create_dir(scene.path("app")).unwrap();
    fs::write(scene.path("app/it"), "factory").unwrap();
    assert_eq!(scene.component.facts().unwrap().version, "0.9");

    scene.installs(2, b"two").await;
    assert_eq!(scene.read("app/it"), "two");
    // As after a power cut: again, and again.
    scene.component.install(2).await.unwrap();
    let facts = scene.component.revert().await.unwrap();
    assert_eq!(
        (scene.read("app/it").as_str(), facts.version.as_str(), facts.unsettled),
        ("factory", "0.9", None)
    );
    assert_eq!(scene.component.revert().await.unwrap(), facts, "twice is as good");

    scene.installs(2, b"two").await;
    let kept = scene.component.keep().await.unwrap();
    assert_eq!((kept.version.as_str(), kept.unsettled, kept.held), ("2.0", None, None));
    assert_eq!(kept.installed.unwrap().length, 3);
    scene.installs(3, b"three").await;
    assert_eq!(scene.read("app/it"), "three");
    scene.component.revert().await.unwrap();
    assert_eq!(scene.read("app/it"), "two");
    assert!(!scene.path("app/it.tern-new").exists());
}

/// The power goes between the two copies of the record when something was taken back; later the newer one is lost.
#[tokio::test]
async fn what_was_taken_back_is_not_tried_again_by_an_older_copy_of_the_record() {
    let scene = Scene::new(|folder| Kind::File { path: folder.join("it"), mode: 0o755 });
    fs::write(scene.path("it"), "factory").unwrap();
    scene.installs(2, b"two").await;
    let copies = || [0, 1].map(|copy| fs::read(scene.path(&format!("places/installed.{copy}"))).unwrap());
    let before = copies();
    scene.component.record().unwrap().save(&Installed::default()).unwrap();
    let newest = if copies()[0] == before[0] { 1 } else { 0 };
    scene.comes(3, b"three");
    // What there was before would go now; it stops here.
    fs::remove_file(scene.path("it")).unwrap();
    fs::create_dir(scene.path("it")).unwrap();
    scene.component.install(3).await.unwrap_err();

    fs::remove_file(scene.path(&format!("places/installed.{newest}"))).unwrap();

    assert_eq!(scene.component.facts().unwrap().unsettled, None);
}

#[tokio::test]
async fn a_file_that_was_not_there_is_gone_again() {
    let scene = Scene::new(|folder| Kind::File { path: folder.join("it"), mode: 0o640 });

    scene.installs(2, b"two").await;
    assert_eq!(scene.read("it"), "two");
    scene.component.revert().await.unwrap();

    assert_eq!(scene.read("it"), "nothing");
}

#[tokio::test]
async fn a_file_keeps_the_owner_and_the_mode_of_the_one_that_it_replaces() {
    let scene = Scene::new(|folder| Kind::File { path: folder.join("it"), mode: 0o640 });
    let rights = || {
        let found = fs::metadata(scene.path("it")).unwrap();
        (found.mode() & 0o7777, found.uid(), found.gid())
    };
    // Nothing was there.
    scene.installs(2, b"two").await;
    assert_eq!(rights().0, 0o640);
    scene.component.revert().await.unwrap();

    fs::write(scene.path("it"), "factory").unwrap();
    // Whoever may give files away gives this one away.
    let _may_not = chown(scene.path("it"), Some(1000), Some(17));
    fs::set_permissions(scene.path("it"), fs::Permissions::from_mode(0o4750)).unwrap();
    let before = rights();
    scene.installs(2, b"two").await;
    assert_eq!((scene.read("it").as_str(), rights()), ("two", before));
    let aside = fs::metadata(scene.path("places/before")).unwrap();
    assert_eq!((aside.mode() & 0o7777, aside.uid(), aside.gid()), before);
    scene.component.revert().await.unwrap();
    assert_eq!((scene.read("it").as_str(), rights()), ("factory", before));
    scene.installs(2, b"two").await;
    scene.component.keep().await.unwrap();
    scene.installs(3, b"three").await;
    assert_eq!((scene.read("it").as_str(), rights()), ("three", before));
}

#[tokio::test]
async fn an_archive_has_a_folder_for_each_version_and_a_link_to_the_one_that_counts() {
    let deadline = Duration::from_secs(20);
    let scene = Scene::new(|folder| Kind::Archive { path: folder.join("app"), deadline });

    scene.installs(2, &archive("two")).await;
    assert_eq!(scene.read("app/current/bin/app"), "two");
    scene.component.revert().await.unwrap();
    assert_eq!(
        (scene.read("app/current/bin/app").as_str(), scene.path("app/2").exists()),
        ("nothing", false)
    );
    scene.installs(2, &archive("two")).await;
    scene.component.keep().await.unwrap();
    fs::create_dir(scene.path("app/data")).unwrap();

    scene.installs(3, &archive("three")).await;
    assert_eq!((scene.read("app/current/bin/app").as_str(), scene.path("app/2").exists()), ("three", true));
    scene.component.revert().await.unwrap();
    assert_eq!((scene.read("app/current/bin/app").as_str(), scene.path("app/3").exists()), ("two", false));
    scene.installs(4, &archive("four")).await;
    scene.component.keep().await.unwrap();

    assert_eq!(scene.read("app/current/bin/app"), "four");
    assert!(!scene.path("app/2").exists() && scene.path("app/data").exists(), "what is not ours stays");
}

#[tokio::test]
async fn what_is_no_archive_changes_nothing_that_counts() {
    let deadline = Duration::from_secs(20);
    let scene = Scene::new(|folder| Kind::Archive { path: folder.join("app"), deadline });
    scene.installs(2, &archive("two")).await;
    scene.component.keep().await.unwrap();

    scene.comes(3, b"this is no archive");
    let said = scene.component.install(3).await.unwrap_err().to_string();

    assert!(said.starts_with("tar: exit code"), "{said}");
    assert_eq!(scene.read("app/current/bin/app"), "two");
    scene.component.revert().await.unwrap();
    assert_eq!(
        (scene.read("app/current/bin/app").as_str(), scene.path("app/.partly").exists()),
        ("two", false)
    );
}

#[tokio::test]
async fn a_program_is_told_what_to_put_in_and_what_to_put_back() {
    let scene = Scene::new(|folder| Kind::Program {
        install: script(
            folder,
            "install",
            "cat \"$1\" > modem; echo \"$TERN_STEP $TERN_RC $(cat \"$TERN_FORMER\")\" >> log",
        ),
        revert: script(
            folder,
            "revert",
            "cat \"${1:-factory}\" > modem; echo \"$TERN_STEP $TERN_RC\" >> log",
        ),
    });
    fs::write(scene.path("factory"), "factory").unwrap();

    scene.installs(2, b"two").await;
    assert_eq!(scene.read("modem"), "two");
    scene.component.revert().await.unwrap();
    assert_eq!(scene.read("modem"), "factory");
    scene.installs(2, b"two").await;
    scene.component.keep().await.unwrap();
    scene.installs(3, b"three").await;
    assert_eq!(scene.read("modem"), "three");
    scene.component.revert().await.unwrap();

    assert_eq!(scene.read("modem"), "two");
    assert_eq!(scene.read("log"), "install 2 \nrevert 0\ninstall 2 \ninstall 3 two\nrevert 2\n");
    assert_eq!(scene.read("places/logs/revert-revert.log"), "revert: exit code 0\n");
}

#[tokio::test]
async fn a_program_that_fails_says_why_and_one_that_asks_for_another_time_is_heard() {
    for (text, expected) in [
        ("echo no modem; exit 3", Done::Failed("install: exit code 3, saying \"no modem\"".into())),
        ("echo in a call; exit 75", Done::NotNow("not now; in a call".into())),
    ] {
        let scene = Scene::new(|folder| Kind::Program {
            install: script(folder, "install", text),
            revert: script(folder, "revert", ""),
        });
        scene.comes(2, b"two");

        assert_eq!(done(scene.component.install(2).await), expected);
        let said = scene.read("places/logs/install-install.log");
        let (_, says) = text.split_once("echo ").unwrap();
        assert!(said.ends_with(&format!("\n{}\n", says.split_once(';').unwrap().0)), "{said}");
        assert_eq!(
            scene.component.facts().unwrap().unsettled,
            Some(2),
            "whatever it has done may have to be undone"
        );
        assert!(scene.component.mark_bad().is_err(), "and is not written over");
    }
}

#[tokio::test]
async fn only_what_was_read_back_for_this_release_is_installed() {
    let scene = Scene::new(|folder| Kind::File { path: folder.join("it"), mode: 0o640 });
    scene.component.mark_bad().unwrap();
    scene.component.write(0, b"half").unwrap();
    assert!(scene.component.install(2).await.is_err());

    scene.comes(2, b"two");

    assert!(scene.component.install(3).await.is_err());
    assert_eq!(scene.read("it"), "nothing");
}

/// One component of a device, a file, as agent.toml has it.
fn configured(folder: &Path) -> ComponentConfig {
    let kind = Kind::File { path: folder.join("it"), mode: 0o644 };
    ComponentConfig { name: "part".into(), capacity: 1000, version: "0.9".into(), kind }
}

#[tokio::test]
async fn what_is_tried_and_not_configured_any_more_can_be_kept_and_waits_for_its_configuration_to_be_taken_back()
 {
    for keeps in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let (disk, device, configs) =
            (storage::system(), "dev-1".parse().unwrap(), [configured(folder.path())]);
        let open = |configs: &[ComponentConfig]| open_all(&disk, configs, folder.path(), &device).unwrap();
        let component = open(&configs).remove("part").unwrap();
        assert!(open(&[]).is_empty(), "nothing is tried");
        let scene = Scene { folder: tempfile::tempdir().unwrap(), component };
        scene.installs(2, b"two").await;

        let seen = look_at_all(&disk, &[], folder.path(), &device).remove("part").unwrap().unwrap();
        assert_eq!((seen.unsettled, seen.version.as_str()), (Some(2), "2.0"));
        let gone = open(&[]).remove("part").unwrap();
        let why = gone.revert().await.unwrap_err().to_string();
        assert!(why.contains("put part back there"), "{why}");
        assert_eq!(gone.facts().unwrap().unsettled, Some(2));
        match keeps {
            true => assert_eq!(gone.keep().await.unwrap().unsettled, None),
            false => assert_eq!(open(&configs)["part"].revert().await.unwrap().unsettled, None),
        }

        assert!(open(&[]).is_empty());
        assert_eq!(folder.path().join("it").exists(), keeps);
        assert_eq!(open(&configs)["part"].facts().unwrap().version, if keeps { "2.0" } else { "0.9" });
    }
}

#[tokio::test]
async fn whoever_looks_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, device, configs) = (storage::system(), "dev-1".parse().unwrap(), [configured(folder.path())]);
    let look = || look_at_all(&disk, &configs, folder.path(), &device).remove("part").unwrap();

    assert_eq!(look().unwrap().version, "0.9");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

    let component = open_all(&disk, &configs, folder.path(), &device).unwrap().remove("part").unwrap();
    let scene = Scene { folder: tempfile::tempdir().unwrap(), component };
    scene.installs(2, b"two").await;
    for copy in ["installed.0", "installed.1"] {
        fs::write(folder.path().join("components/part").join(copy), "damaged").unwrap();
    }
    assert!(look().is_err(), "an agent would begin it anew");
    assert!(look().is_err());
}
