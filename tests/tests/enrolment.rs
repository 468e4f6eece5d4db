//! How devices come in, fall out of favour and come back, as real processes.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, Wan, made, wait, wait_telling};

const PATIENCE: Duration = Duration::from_secs(60);

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

/// Makes a claim and a file with its token.
fn claim(lab: &Lab, name: &str, devices: &str) -> std::path::PathBuf {
    let create = ["claim", "create", "--product", PRODUCT, "--expires", "1h", "--name", name];
    let made = lab.json(&[&create[..], &["--count", devices]].concat());
    let path = lab.path(&format!("{name}.token"));
    std::fs::write(&path, format!("{}\n", made["token"].as_str().unwrap())).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

fn pending(lab: &Lab) -> Vec<String> {
    let lines = lab.json(&["device", "pending"]);
    lines.as_array().unwrap().iter().map(|line| line["device"].as_str().unwrap().to_owned()).collect()
}

fn wait_to_run(lab: &Lab, device: &str, rc: u64) {
    let tell = || format!("{device} to run release {rc}: {}", lab.device(device));
    wait_telling(tell, PATIENCE, || (lab.device(device)["running"] == rc).then_some(()));
}

/// Waits until the service has heard the device after this moment.
fn wait_to_be_heard(lab: &Lab, device: &str, since: u64) {
    let tell = || format!("{device} to be heard after {since}: {}", lab.device(device));
    wait_telling(tell, PATIENCE, || {
        (lab.device(device)["seen_at"].as_u64().unwrap_or(0) > since).then_some(())
    });
}

#[test]
fn a_factory_vouches_for_its_devices_and_one_changed_byte_undoes_it() {
    let lab = Lab::start();
    let image = lab.path("factory.img");
    made(&image, 100_000, 1);
    let mut device = LabDevice::build(&lab, "dev-1", &image, &Making::default());
    let (list, signature) = (lab.path("list.jsonl"), lab.path("list.sig"));
    std::fs::write(&list, format!("{}\n", device.identity())).unwrap();
    let key = lab.path("line-1.pem");
    let words = lab.path("words");
    std::fs::write(&words, "correct horse\n").unwrap();
    std::fs::set_permissions(&words, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let words = show(&words);
    lab.json(&["keys", "factory", "--out", &show(&key), "--passphrase-file", &words]);
    let sign = [
        "factory",
        "sign",
        &show(&list),
        "--fleet",
        "lab",
        "--key",
        &show(&key),
        "--passphrase-file",
        &words,
    ];
    lab.json(&[&sign[..], &["--out", &show(&signature)]].concat());
    let (list, signature) = (show(&list), show(&signature));
    let add = ["device", "add", "--file", &list, "--signature", &signature];
    let refused = |why: &str| {
        let ran = lab.run(&add);
        assert!(ran.code == Some(1) && ran.err.contains(why), "{ran:?}");
    };

    refused("no trusted factory has signed this list");
    lab.json(&["factory", "add", "line-1", "--key", &show(&lab.path("line-1.pub.pem"))]);
    let signed = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, signed.replace("\"eu\"", "\"us\"")).unwrap();
    refused("no trusted factory has signed this list");
    std::fs::write(&list, signed).unwrap();
    let ran = lab.run(&["device", "add", "--file", &list]);
    assert_eq!(ran.code, Some(2), "without a signature it has to be said: {ran:?}");
    let (code, body) = lab.http("POST", "/v1/devices", Some(json!({"devices": []}).to_string().as_bytes()));
    assert_eq!(code, 422, "{body}");
    assert_eq!(lab.json(&["device", "list"]), json!([]));

    let added = lab.json(&add);

    assert_eq!(added["added"], 1);
    device.start();
    wait_to_run(&lab, "dev-1", 1);
    let shown = lab.run(&["ledger", "show"]);
    assert!(shown.out.contains("vouched for by factory line-1"), "{shown:?}");
    lab.json(&["factory", "revoke", "line-1"]);
    refused("no trusted factory has signed this list");
}

#[test]
fn a_claimed_device_is_approved_quarantined_readmitted_revoked_and_let_back_in() {
    let mut lab = Lab::start();
    let (factory, two, three) = (lab.path("factory.img"), lab.path("two.img"), lab.path("three.img"));
    made(&factory, 100_000, 1);
    made(&two, 300_000, 2);
    made(&three, 300_000, 3);
    let mut listed = LabDevice::make(&lab, "listed", &factory, &Making::default());
    let making = Making { claim: Some(claim(&lab, "batch", "2")), ..Making::default() };
    let mut claimed = LabDevice::build(&lab, "claimed", &factory, &making);
    let expected = claimed.identity()["identity"].clone();
    listed.start();
    claimed.start();

    // It waits, over a restart of the service too, and a rollout goes by without it.
    wait("the device to wait", PATIENCE, || (pending(&lab) == ["claimed"]).then_some(()));
    assert_eq!(lab.json(&["device", "pending"])[0]["identity"], expected);
    wait_to_run(&lab, "listed", 1);
    lab.publish(2, &two);
    lab.roll_out(2, "r2", "all", 0);
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!((&view["covered"], &view["total"]["started"]), (&json!(1), &json!(1)), "{view}");
    assert_eq!(lab.http("GET", "/v1/devices/claimed", None).0, 404);
    lab.stop_service();
    lab.start_service();
    assert_eq!(pending(&lab), ["claimed"]);
    assert_eq!(lab.json(&["claim", "list"])[0]["used"], 1);

    // Approved, it takes what everybody has.
    lab.json(&["device", "approve", "claimed"]);
    wait_to_run(&lab, "claimed", 2);
    assert_eq!(claimed.status()["enrolled"], true);
    lab.stop_service();
    lab.start_service();
    assert_eq!(pending(&lab), Vec::<String>::new());

    // Its keys are replaced; the old ones are gone once the service has answered under the new ones.
    claimed.kill();
    let before = lab.device("claimed")["seen_at"].as_u64().unwrap();
    claimed.rotate_keys();
    claimed.start();
    let next = claimed.dir.join("data/identity.next.pem");
    wait("the new keys to be the only ones", PATIENCE, || (!next.exists()).then_some(()));
    wait_to_be_heard(&lab, "claimed", before);
    let identity = claimed.identity()["identity"].clone();
    assert_ne!(identity, expected);
    assert_eq!(lab.device("claimed")["identity"], identity);

    // In quarantine it is heard, starts nothing, and does not hold up the others.
    let ran = lab.run(&["device", "quarantine", "claimed", "--reason", "smells of smoke"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(lab.run(&["device", "show", "claimed"]).out.contains("quarantined: smells of smoke"));
    lab.publish(3, &three);
    lab.roll_out(3, "r3", "all", 0);
    let view = lab.wait_for_status("r3", "completed", PATIENCE);
    assert_eq!((&view["covered"], &view["total"]["started"]), (&json!(1), &json!(1)), "{view}");
    // It fetched the release as its signed files say, asks to start it, and gets no answer.
    wait("the device to ask", PATIENCE, || (claimed.status()["state"] == "verifying").then_some(()));
    assert_eq!(lab.device("claimed")["running"], 2);
    lab.json(&["device", "readmit", "claimed"]);
    wait_to_run(&lab, "claimed", 3);
    // A trial that its journal does not know is left, and the journal goes below.
    wait("the trial to be confirmed", PATIENCE, || claimed.status()["trial"].is_null().then_some(()));

    // Revoked, it is not heard whatever it says.
    lab.json(&["device", "revoke", "claimed", "--reason", "stolen"]);
    let front = |lab: &Lab, counter: &str| count(&lab.status()["front"][counter]);
    wait("its connection to be closed", PATIENCE, || (front(&lab, "revoked_connections") == 1).then_some(()));
    let seen = lab.device("claimed")["seen_at"].clone();
    let before = front(&lab, "refused_connections");
    claimed.kill();
    claimed.start();
    let turned_away = |lab: &Lab| front(lab, "refused_connections") > before + 1;
    wait("the device to be turned away", PATIENCE, || turned_away(&lab).then_some(()));
    assert_eq!(lab.device("claimed")["seen_at"], seen);

    // With other keys the name cannot be had, claim or not, until somebody resets it.
    claimed.kill();
    claimed.lose_keys();
    // After a restart of the service too.
    lab.stop_service();
    lab.start_service();
    let before = front(&lab, "refused_connections");
    claimed.start();
    let turned_away = |lab: &Lab| front(lab, "refused_connections") > before + 1;
    wait("the device to be turned away", PATIENCE, || turned_away(&lab).then_some(()));
    assert_eq!(pending(&lab), Vec::<String>::new());
    lab.json(&["device", "reset", "claimed", "--reason", "flash replaced"]);
    wait("the device to wait again", PATIENCE, || (pending(&lab) == ["claimed"]).then_some(()));
    assert_eq!(lab.json(&["device", "pending"])[0]["replaces"], true);
    let before = lab.device("claimed")["seen_at"].as_u64().unwrap();
    lab.json(&["device", "approve", "--claim", "batch"]);
    wait_to_be_heard(&lab, "claimed", before);
    let back = lab.device("claimed");
    assert_eq!((&back["standing"], &back["running"]), (&json!("active"), &json!(3)), "{back}");

    // The claim is used up: a third device stays outside.
    let mut late = LabDevice::build(&lab, "late", &factory, &making);
    late.start();
    let away = |lab: &Lab| count(&lab.status()["counters"]["turned_away"]);
    wait("the late device to be turned away", PATIENCE, || (away(&lab) > 0).then_some(()));
    assert!(lab.log().contains("it is used up"), "{}", lab.log());
    assert_eq!(lab.http("GET", "/v1/devices/late", None).0, 404);
    let memory = lab.memory();
    late.kill();
    listed.kill();
    claimed.kill();
    lab.kill_service();
    lab.start_service();
    assert_eq!(lab.memory(), memory);
}

#[test]
fn an_enrolled_id_is_not_taken_by_another_key_with_a_token() {
    let lab = Lab::start();
    let image = lab.path("factory.img");
    made(&image, 100_000, 1);
    let mut owner = LabDevice::make(&lab, "dev-1", &image, &Making::default());
    owner.start();
    wait_to_run(&lab, "dev-1", 1);
    owner.kill();
    let identity = lab.device("dev-1")["identity"].clone();
    let elsewhere = Making { claim: Some(claim(&lab, "batch", "5")), ..Making::default() };
    owner.configure(&lab, &elsewhere);
    let before = count(&lab.status()["counters"]["forged"]);
    let kept = owner.dir.join("kept");
    std::fs::rename(owner.dir.join("data"), &kept).unwrap();

    // The same name, a right token, other keys.
    owner.start();

    let forged = || count(&lab.status()["counters"]["forged"]);
    wait("the thief to be refused", PATIENCE, || (forged() > before + 2).then_some(()));
    let told = lab.log().matches("somebody with other keys wants to enrol as dev-1").count();
    assert_eq!(told, 1, "once, and not each time: {}", lab.log());
    assert_eq!(pending(&lab), Vec::<String>::new());
    assert_eq!(lab.device("dev-1")["identity"], identity);
    owner.kill();
    // The control: with its own keys it is heard again.
    std::fs::remove_dir_all(owner.dir.join("data")).unwrap();
    std::fs::rename(&kept, owner.dir.join("data")).unwrap();
    let before = lab.device("dev-1")["seen_at"].as_u64().unwrap();
    owner.start();
    wait_to_be_heard(&lab, "dev-1", before);
}

/// What is retained for everybody has no keys in it once the fleet holds them; a device from the factory asks for those.
#[test]
fn a_device_that_comes_to_a_fleet_that_holds_the_keys_asks_for_them_and_updates() {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("second.img"));
    made(&factory, 200_000, 1);
    made(&image, 300_000, 2);
    let (old, new) = (Wan::to(lab.mqtt), Wan::to(lab.mqtt));
    let behind = |wan: &Wan| Making { broker: Some(wan.address), ..Making::default() };
    let mut first = LabDevice::make(&lab, "dev-1", &factory, &behind(&old));
    first.start();
    lab.wait_for_hellos();
    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    lab.wait_for_status("r2", "completed", PATIENCE);

    let mut second = LabDevice::make(&lab, "dev-2", &factory, &behind(&new));
    second.start();

    wait_to_run(&lab, "dev-2", 2);
    let asked = |wan: &Wan| {
        let gets = wan.sent().into_iter().filter(|message| message.topic.ends_with("/get"));
        gets.filter(|get| String::from_utf8_lossy(&get.payload).contains("targets")).count()
    };
    // The first came while nobody had been heard, and had them with what is retained.
    assert_eq!((asked(&old), asked(&new)), (0, 1));
}
