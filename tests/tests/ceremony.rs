//! Three holders with a stick each, a service and a device: what people do with keys, by command line.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_tests::lab::{Broker, Lab, LabDevice, MODEL, Making, PRODUCT, Ran, made, wait};

const PATIENCE: Duration = Duration::from_secs(90);
const HOLDERS: [&str; 3] = ["ann", "bob", "cid"];

/// A laboratory whose offline keys are on three sticks: root 2 of 3, release 2 of 3, all encrypted.
struct Ceremony {
    lab: Lab,
}

impl Ceremony {
    fn held() -> Self {
        let mut lab = Lab::bare(Broker::Embedded);
        let mut words: Vec<String> =
            ["keys", "init", "--fleet", "lab", "--product", PRODUCT, "--data"].map(str::to_owned).to_vec();
        words.push(show(&lab.data()));
        for holder in HOLDERS {
            secret(&lab.path(&format!("{holder}.phrase")), holder);
            let stick = show(&lab.path(holder));
            let phrase = show(&lab.path(&format!("{holder}.phrase")));
            words.extend(
                ["--holder", holder, "--offline", &stick, "--passphrase-file", &phrase].map(str::to_owned),
            );
        }
        let quotas =
            ["--root-keys", "3", "--root-threshold", "2", "--release-keys", "3", "--release-threshold", "2"];
        let words: Vec<&str> = words.iter().map(String::as_str).chain(quotas).collect();
        lab.json(&words);
        lab.start_service();
        Self { lab }
    }

    fn stick(&self, holder: &str, name: &str) -> PathBuf {
        self.lab.path(holder).join(name)
    }

    /// Has a holder sign a file where it lies.
    fn sign(&self, noun: &str, file: &Path, holder: &str, key: &str) -> Ran {
        let (file, key) = (show(file), show(&self.stick(holder, key)));
        let phrase = show(&self.lab.path(&format!("{holder}.phrase")));
        self.lab.run(&[noun, "sign", &file, "--key", &key, "--passphrase-file", &phrase, "--out", &file])
    }

    fn signed(&self, file: &Path, holder: &str, key: &str) -> String {
        let ran = self.sign("keys", file, holder, key);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out + &ran.err
    }

    fn rotate(&self, role: &str, out: &str, more: &[&str]) -> PathBuf {
        let folder = self.lab.path(out);
        let text = show(&folder);
        self.lab.json(&[&["keys", "rotate", role, "--product", PRODUCT, "--out", &text], more].concat());
        folder
    }

    fn publish(&self, files: &[&Path]) -> Ran {
        let files: Vec<String> = files.iter().map(|file| show(file)).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        self.lab.run(&[&["keys", "publish", "--product", PRODUCT], &files[..]].concat())
    }

    /// Hands new files to the service and onto the sticks.
    fn published(&self, files: &[&Path]) {
        let ran = self.publish(files);
        assert_eq!(ran.code, Some(0), "{ran:?}\n{}", self.lab.log());
        for (file, holder) in files.iter().flat_map(|file| HOLDERS.map(|holder| (file, holder))) {
            std::fs::copy(file, self.stick(holder, &show(Path::new(file.file_name().unwrap())))).unwrap();
        }
    }

    fn draft(&self, rc: u64, image: &Path) -> PathBuf {
        let draft = self.lab.path(&format!("{rc}.json"));
        let (rc, image, out) = (rc.to_string(), show(image), show(&draft));
        let words = ["release", "create", "--product", PRODUCT, "--rc", &rc, "--version", "2.0"];
        self.lab.json(&[&words[..], &["--model", MODEL, "--image", &image, "--out", &out]].concat());
        draft
    }

    /// Publishes a release with these holders' signatures.
    fn release(&self, rc: u64, image: &Path, holders: &[&str]) -> Ran {
        let draft = self.draft(rc, image);
        for holder in holders {
            let ran = self.sign("release", &draft, holder, "release.pem");
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        self.lab.run(&["release", "publish", &show(&draft), "--image", &show(image)])
    }

    fn versions(&self) -> Vec<(String, u64)> {
        let status = self.lab.json(&["keys", "status"]);
        let files = status[PRODUCT]["files"].as_array().unwrap().clone();
        files
            .iter()
            .map(|f| (f["role"].as_str().unwrap().to_owned(), f["version"].as_u64().unwrap()))
            .collect()
    }

    fn version(&self, role: &str) -> u64 {
        self.versions().into_iter().find(|(name, _)| name == role).unwrap().1
    }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn secret(path: &Path, holder: &str) {
    std::fs::write(path, format!("the passphrase of {holder}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn openssl_reads(key: &Path, passphrase: &str) -> bool {
    let mut command = Command::new("openssl");
    command.args(["pkey", "-noout", "-in"]).arg(key).args(["-passin", &format!("pass:{passphrase}")]);
    command.output().unwrap().status.success()
}

fn device(ceremony: &Ceremony, name: &str) -> LabDevice {
    let factory = ceremony.lab.path("factory.img");
    made(&factory, 100_000, 1);
    LabDevice::make(&ceremony.lab, name, &factory, &Making::default())
}

fn runs(device: &LabDevice, rc: u64) {
    wait(&format!("{} to run release {rc}", device.name), PATIENCE, || {
        (device.status()["running"].as_u64() == Some(rc) || holds(&device.status(), rc)).then_some(())
    });
}

fn holds(status: &Value, rc: u64) -> bool {
    let active = status["active"].as_str().unwrap_or_default();
    status["slots"][active]["holds"].as_u64() == Some(rc) && status["state"] == "success"
        || status["slots"][active]["holds"].as_u64() == Some(rc) && status["state"] == "idle"
}

#[test]
fn two_of_three_holders_release_and_rotate_while_devices_follow() {
    let ceremony = Ceremony::held();
    let (mut near, mut away) = (device(&ceremony, "near"), device(&ceremony, "away"));
    near.start();
    away.start();
    let image = |rc: u64| {
        let path = ceremony.lab.path(&format!("{rc}.img"));
        made(&path, 150_000, rc);
        path
    };
    // Keys that people keep are encrypted, and openssl reads them.
    assert!(openssl_reads(&ceremony.stick("ann", "root.pem"), "the passphrase of ann"));
    assert!(!openssl_reads(&ceremony.stick("ann", "root.pem"), "the passphrase of bob"));

    // One signature is not enough, and it is said whose are missing.
    let one = ceremony.release(2, &image(2), &["ann"]);
    assert_eq!(one.code, Some(1), "{one:?}");
    assert!(one.err.contains("1 of 2") && one.err.contains("bob (") && one.err.contains("cid ("), "{one:?}");
    assert!(!one.err.contains("ann ("), "{one:?}");
    // The same holder twice is one signature.
    let draft = ceremony.lab.path("2.json");
    assert_eq!(ceremony.sign("release", &draft, "ann", "release.pem").code, Some(0));
    let again = ceremony.lab.run(&["release", "publish", &show(&draft), "--image", &show(&image(2))]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert_eq!(ceremony.version("release"), 1);
    assert_eq!(ceremony.sign("release", &draft, "cid", "release.pem").code, Some(0));
    let both = ceremony.lab.run(&["release", "publish", &show(&draft), "--image", &show(&image(2))]);
    assert_eq!(both.code, Some(0), "{both:?}");
    ceremony.lab.roll_out(2, "r2", "all", 0);
    runs(&near, 2);
    runs(&away, 2);
    away.kill();

    // Ann leaves, dora comes: a release key of hers instead of ann's; ann and bob sign the targets that say so.
    secret(&ceremony.lab.path("dora.phrase"), "dora");
    std::fs::create_dir(ceremony.lab.path("dora")).unwrap();
    for name in ["root.json", "targets.json", "release.json"] {
        std::fs::copy(ceremony.stick("bob", name), ceremony.stick("dora", name)).unwrap();
    }
    for key in ["root.pem", "release.pem"] {
        let (key, phrase) = (show(&ceremony.stick("dora", key)), show(&ceremony.lab.path("dora.phrase")));
        ceremony.lab.json(&["keys", "make", &key, "--passphrase-file", &phrase]);
    }
    let dora = format!("dora={}", show(&ceremony.stick("dora", "release.pub")));
    let folder = ceremony.rotate("release", "new-release", &["--add", &dora, "--remove", "ann"]);
    let (targets, release) = (folder.join("targets.json"), folder.join("release.json"));
    assert!(release.is_file(), "ann's signature on the release file does not count any more");
    let shown = ceremony.signed(&targets, "ann", "targets.pem");
    assert!(shown.contains("ADDED   dora (") && shown.contains("REMOVED ann ("), "{shown}");
    let early = ceremony.publish(&[&targets, &release]);
    assert_eq!(early.code, Some(1), "{early:?}");
    let next = ceremony.signed(&targets, "bob", "targets.pem");
    assert!(next.contains(&format!("`tern keys publish --product {PRODUCT} ")), "{next}");
    // A wrong key, and a wrong passphrase, change nothing.
    let before = std::fs::read(&release).unwrap();
    let ann = ceremony.sign("keys", &release, "ann", "release.pem");
    assert!(ann.code == Some(1) && ann.err.contains("none of those that may sign release"), "{ann:?}");
    let mixed = ceremony.lab.run(&[
        "keys",
        "sign",
        &show(&release),
        "--out",
        &show(&release),
        "--key",
        &show(&ceremony.stick("bob", "release.pem")),
        "--passphrase-file",
        &show(&ceremony.lab.path("ann.phrase")),
    ]);
    assert!(mixed.code == Some(1) && mixed.err.contains("does not open"), "{mixed:?}");
    assert_eq!(std::fs::read(&release).unwrap(), before);
    ceremony.signed(&release, "bob", "release.pem");
    ceremony.signed(&release, "dora", "release.pem");
    ceremony.published(&[&targets, &release]);
    assert_eq!((ceremony.version("targets"), ceremony.version("release")), (2, 3));

    // Root: cid's key goes, dora's comes. The old two and the new two must sign; ann and bob are both.
    let dora = format!("dora={}", show(&ceremony.stick("dora", "root.pub")));
    let folder = ceremony.rotate("root", "new-root", &["--add", &dora, "--remove", "cid"]);
    let root = folder.join("root.json");
    ceremony.signed(&root, "ann", "root.pem");
    ceremony.signed(&root, "dora", "root.pem");
    let half = ceremony.publish(&[&root]);
    assert!(half.code == Some(1) && half.err.contains("1 of 2"), "the old root has ann's alone: {half:?}");
    let next = ceremony.signed(&root, "cid", "root.pem");
    assert!(next.contains(&format!("`tern keys publish --product {PRODUCT} ")), "{next}");
    ceremony.published(&[&root]);
    assert_eq!(ceremony.version("root"), 2);

    // An online key: made in the data folder, in force once root names it.
    let data = show(&ceremony.lab.data());
    let folder = ceremony.rotate("timestamp", "new-timestamp", &["--data", &data]);
    let root = folder.join("root.json");
    ceremony.signed(&root, "ann", "root.pem");
    ceremony.signed(&root, "bob", "root.pem");
    ceremony.published(&[&root]);
    let folder = ceremony.rotate("rollout", "new-rollout", &["--data", &data]);
    let targets = folder.join("targets.json");
    ceremony.signed(&targets, "cid", "targets.pem");
    ceremony.signed(&targets, "bob", "targets.pem");
    ceremony.published(&[&targets]);
    assert_eq!((ceremony.version("root"), ceremony.version("targets")), (3, 3));

    // A release of the new holders reaches the device that followed, and the one that missed everything.
    std::fs::copy(&release, ceremony.stick("dora", "release.json")).unwrap();
    std::fs::copy(ceremony.stick("bob", "targets.json"), ceremony.stick("dora", "targets.json")).unwrap();
    let published = ceremony.release(3, &image(3), &["bob", "dora"]);
    assert_eq!(published.code, Some(0), "{published:?}\n{}", ceremony.lab.log());
    ceremony.lab.roll_out(3, "r3", "all", 0);
    runs(&near, 3);
    away.start();
    runs(&away, 3);
}

#[test]
fn a_service_that_restarts_after_a_rotation_goes_on_with_the_new_keys() {
    let mut lab = Lab::start();
    let offline = lab.path("offline");
    let (data, out) = (show(&lab.data()), show(&lab.path("new")));
    lab.json(&["keys", "rotate", "snapshot", "--product", PRODUCT, "--data", &data, "--out", &out]);
    let root = show(&lab.path("new").join("root.json"));
    let key = show(&offline.join("root.pem"));
    lab.json(&["keys", "sign", &root, "--key", &key, "--out", &root]);
    lab.json(&["keys", "publish", "--product", PRODUCT, &root]);
    let old = std::fs::remove_file(lab.data().join("keys").join(PRODUCT).join("snapshot.pem"));
    old.unwrap();

    lab.stop_service();
    lab.start_service();

    let image = lab.path("2.img");
    made(&image, 100_000, 2);
    let factory = lab.path("factory.img");
    made(&factory, 100_000, 1);
    let mut device = LabDevice::make(&lab, "dev-1", &factory, &Making::default());
    device.start();
    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    lab.wait_for_status("r2", "completed", PATIENCE);
}

#[test]
fn files_in_the_data_folder_are_judged_at_the_start_and_bad_ones_change_nothing() {
    let mut lab = Lab::start();
    let folder = lab.data().join("products").join(PRODUCT);
    let (from, out) = (show(&folder), show(&lab.path("new")));
    lab.json(&["keys", "rotate", "targets", "--product", PRODUCT, "--from", &from, "--out", &out]);
    let prepared = lab.path("new").join("targets.json");
    let targets = |lab: &Lab| {
        let status = lab.json(&["keys", "status"]);
        let files = status[PRODUCT]["files"].as_array().unwrap();
        files.iter().find(|file| file["role"] == "targets").unwrap()["version"].clone()
    };
    lab.stop_service();

    std::fs::copy(&prepared, folder.join("targets.json")).unwrap();
    lab.start_service();
    assert!(lab.log().contains("new offline files are refused"), "{}", lab.log());
    assert_eq!(targets(&lab), 1);
    lab.stop_service();

    let key = show(&lab.path("offline").join("targets.pem"));
    let signed = show(&folder.join("targets.json"));
    lab.json(&["keys", "sign", &show(&prepared), "--key", &key, "--out", &signed]);
    lab.start_service();
    assert_eq!(targets(&lab), 2);
}

#[test]
fn a_program_signs_where_the_key_is_somewhere_else() {
    let lab = Lab::start();
    let key = show(&lab.path("offline").join("root.pem"));
    let out = show(&lab.path("new"));
    lab.json(&["keys", "rotate", "root", "--product", PRODUCT, "--out", &out]);
    let root = show(&lab.path("new").join("root.json"));
    let previous = show(&lab.path("offline").join("root.json"));
    let sign = |program: &str| {
        let key = format!("exec:{program}");
        lab.run(&["keys", "sign", &root, "--key", &key, "--previous", &previous, "--out", &root])
    };

    let other = show(&lab.path("offline").join("release.pem"));
    for (program, words) in [
        (format!("openssl dgst -sha256 -sign {other}"), "none of those that may sign root"),
        ("cat".to_owned(), "printed 1025 B"),
        ("false".to_owned(), "ended with exit status: 1"),
        ("true".to_owned(), "printed 0 B"),
        ("/no/such/program".to_owned(), "could not run /no/such/program"),
    ] {
        let ran = sign(&program);
        assert!(ran.code == Some(1) && ran.err.contains(words), "{program}: {ran:?}");
    }
    let good = sign(&format!("openssl dgst -sha256 -sign {key}"));
    assert_eq!(good.code, Some(0), "{good:?}");
    lab.json(&["keys", "publish", "--product", PRODUCT, &root]);
}

#[test]
fn status_tells_cron_when_somebody_has_to_sign() {
    let lab = Lab::start();
    let fine = lab.run(&["keys", "status"]);
    assert_eq!(fine.code, Some(0), "{fine:?}");
    let out = show(&lab.path("new"));
    lab.json(&["keys", "rotate", "targets", "--product", PRODUCT, "--days", "29", "--out", &out]);
    let targets = show(&lab.path("new").join("targets.json"));
    let key = show(&lab.path("offline").join("targets.pem"));
    lab.json(&["keys", "sign", &targets, "--key", &key, "--out", &targets]);
    lab.json(&["keys", "publish", "--product", PRODUCT, &targets]);

    let due = lab.run(&["keys", "status"]);

    assert!(due.code == Some(1) && due.out.contains("SIGN AGAIN SOON"), "{due:?}");
    let json = lab.run(&["--json", "keys", "status"]);
    let status: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json.code, &status[PRODUCT]["due"]), (Some(1), &Value::Bool(true)), "{status}");
    let keys = status[PRODUCT]["keys"].as_array().unwrap();
    let place = |role: &str| keys.iter().find(|key| key["role"] == role).unwrap()["path"].clone();
    assert!(
        place("rollout").as_str().unwrap().ends_with("rollout.pem") && place("root").is_null(),
        "{status}"
    );
    // A folder is looked at without a service.
    let stick = lab.run(&["keys", "status", "--from", &show(&lab.path("offline"))]);
    assert_eq!(stick.code, Some(0), "{stick:?}");
}

#[test]
fn keys_are_not_made_in_the_clear_unless_somebody_says_so() {
    let lab = Lab::bare(Broker::Embedded);
    let (data, offline) = (show(&lab.data()), show(&lab.path("offline")));
    let words =
        ["keys", "init", "--fleet", "lab", "--product", PRODUCT, "--data", &data, "--offline", &offline];

    // In a session of its own there is no terminal to ask on.
    let mut command = Command::new("setsid");
    command.arg("--wait").arg(tern_tests::lab::program("tern")).args(words);
    let refused = command.stdin(std::process::Stdio::null()).output().unwrap();

    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(!lab.path("offline").join("root.pem").exists());
    lab.json(&[&words[..], &["--no-passphrase"]].concat());
    let pem = std::fs::read_to_string(lab.path("offline").join("root.pem")).unwrap();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----"), "{pem}");
}
