//! A real agent whose product python-tuf signs: there is no service, only a broker and the signed files on it.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tern_agent::record::RecordFile;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::tuf::Role;
use tern_tests::lab::{
    Broker, Foreign, Lab, LabBridge, LabDevice, Making, MqttClient, PRODUCT, ends, made, wait,
};

const PATIENCE: Duration = Duration::from_secs(90);

type Files = BTreeMap<String, String>;

/// Publishes files as the service does.
fn publish(service: &mut MqttClient, files: &Files) {
    let file = |(role, text): (&String, &String)| File {
        role: Role::from_name(role).unwrap(),
        bytes: text.clone().into_bytes(),
    };
    let bundle = Bundle { root: 1, files: files.iter().map(file).collect() };
    service.publish(&format!("ota/v1/lab/p/{PRODUCT}/head"), &bundle.pack(), true);
    service.messages();
}

/// Returns the signed files on a device's disk.
fn stored(device: &LabDevice) -> Files {
    // An agent that has just been started makes its folder.
    let Ok(record) = RecordFile::<Vec<Value>>::open(&device.dir.join("data"), "trust") else {
        return Files::new();
    };
    // A living agent may write the copy that is read.
    let files = (0..100).find_map(|_| record.load().ok()).unwrap().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    files.iter().map(|file| (text(&file["role"]), text(&file["text"]))).collect()
}

#[test]
fn a_real_agent_takes_what_python_tuf_signs_and_nothing_that_it_forges() {
    let Some(foreign) = Foreign::built() else { return };
    let ran = ends(&mut foreign.script("signer.py"));
    let written: Value = serde_json::from_str(&ran.out).unwrap();
    let cases = written["cases"].as_array().unwrap();
    let files = |value: &Value| -> Files { serde_json::from_value(value.clone()).unwrap() };
    let good = files(&cases[0]["held"]);

    let mut bridge = LabBridge::prepare();
    let mut lab = Lab::bare(bridge.broker());
    let Broker::External { port, password_file } = bridge.broker() else { panic!("a bridge is external") };
    lab.mqtt = SocketAddr::from(([127, 0, 0, 1], port));
    fs::create_dir_all(lab.path("chunks")).unwrap();
    bridge.configure(&lab.path("chunks"));
    bridge.start();
    let folder = lab.data().join("products").join(PRODUCT);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("root.json"), &good["root"]).unwrap();
    let factory = lab.path("factory.img");
    made(&factory, 50_000, 1);
    let mut device = LabDevice::build(&lab, "dev-1", &factory, &Making::default());
    let password = fs::read_to_string(password_file).unwrap();
    let mut service = MqttClient::connect(lab.mqtt, "service", Some(("service", &password)));

    device.start();
    publish(&mut service, &good);
    wait("the agent to hold what python-tuf signed", PATIENCE, || (stored(&device) == good).then_some(()));
    wait("the agent to begin with the release", PATIENCE, || {
        (device.status()["state"] == "downloading").then_some(())
    });

    // What is wrong in root or timestamp leaves nothing of the set to believe.
    let forged = |role: &'static str| cases.iter().filter(move |case| case["role"] == role);
    let mut tried = 0;
    for case in forged("timestamp").filter(|case| case["later"] == 0) {
        // As in a heartbeat. The rest of such a set is good, would wait, and be taken once a timestamp leads to it.
        let both =
            files(&case["files"]).into_iter().filter(|(role, _)| role == "timestamp" || role == "snapshot");
        publish(&mut service, &both.collect());
        tried += 1;
    }
    for case in forged("root").filter(|case| case["name"] != "root that has expired") {
        let root = case["files"]["root"].as_str().unwrap().to_owned();
        publish(&mut service, &[("root".to_owned(), root)].into());
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
    // Messages of one sender stay in order: when the last is here, the others were.
    let last = cases.iter().find(|case| case["name"] == "release signed by rollout's key").unwrap();
    let last = files(&last["files"]);
    assert_eq!(stored(&device), good);
    publish(&mut service, &last);
    let now = wait("the agent to take what is good of the last set", PATIENCE, || {
        Some(stored(&device)).filter(|now| now["rollout"] == last["rollout"])
    });

    let (mut expected, mut kept) = (last, good);
    expected.insert("root".into(), kept.remove("root").unwrap());
    // The release of before stays, beside a snapshot that names another one: nothing is offered by it.
    expected.insert("release".into(), kept.remove("release").unwrap());
    assert_eq!(now, expected);
    assert!(device.alive());
    assert!(device.log().matches("a signed file was refused").count() > 10, "{}", device.log());
}
