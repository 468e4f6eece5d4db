//! Publishing makes deltas: from what devices run, in a process of its own, once, and again after a bad end.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tern_bridge::ChunkStore;
use tern_protocol::chunk::{self, RootHasher};
use tern_protocol::delta::signed::read_unverified;
use tern_protocol::delta::{Decoder, ImageId, Profile};
use tern_protocol::digest::Digest;
use tern_tests::lab::{Lab, LabDevice, Making, PRODUCT, made, wait};

const PATIENCE: Duration = Duration::from_secs(400);

/// Makes an image that has words in it, as programs have; `edits` of its bytes are others.
fn image(path: &Path, length: usize, edits: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 64);
    let mut number = 0u64;
    while bytes.len() < length {
        let noise = Digest::of(&number.to_le_bytes()).0;
        let line = format!("routine_{:04x} calls {:02x}, then returns\n", number % 977, noise[0]);
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(&noise[..6]);
        number += 1;
    }
    bytes.truncate(length);
    for edit in 0..edits {
        let at = (edit * 7919 + 13) % length;
        bytes[at] ^= 0x55;
    }
    fs::write(path, &bytes).unwrap();
    bytes
}

fn root(bytes: &[u8]) -> Digest {
    let mut hasher = RootHasher::default();
    hasher.update(bytes);
    chunk::root(&hasher.finish())
}

fn deltas(lab: &Lab, rc: u64) -> Vec<Value> {
    let found = lab.json(&["release", "deltas", "--product", PRODUCT, "--rc", &rc.to_string()]);
    found.as_array().unwrap().clone()
}

fn states(lab: &Lab, rc: u64) -> Vec<String> {
    deltas(lab, rc).iter().map(|delta| delta["state"].as_str().unwrap().to_owned()).collect()
}

fn made_so_far(lab: &Lab) -> usize {
    lab.log().matches("a delta is there").count()
}

/// Takes a delta out of the service's store and makes the new image of it.
fn decoded(lab: &Lab, old: Option<&[u8]>, new: &[u8]) -> Vec<u8> {
    let store = ChunkStore::open(lab.data().join("images")).unwrap();
    let from = old.map_or_else(|| ImageId::nothing().root, root);
    let found = store.delta(&from, &root(new), &[Profile::Linux.id()]).unwrap().expect("a delta");
    let manifest = read_unverified(&found.signed).unwrap();
    assert!(manifest.bytes < new.len() as u64 / 2, "{manifest:?}");
    let (mut decoder, mut slot) = (Decoder::new(&manifest), Vec::new());
    for index in 0..manifest.packs {
        let pack = store.read_chunk(&manifest.root, index).unwrap();
        decoder.decode(&pack, &old.unwrap_or_default(), &mut slot).unwrap();
    }
    slot
}

#[test]
fn a_release_gets_deltas_from_what_devices_run_and_they_are_made_once() {
    let mut lab = Lab::start();
    let [one, two] = ["one.img", "two.img"].map(|name| lab.path(name));
    let first = image(&one, 200_000, 20);
    let second = image(&two, 200_000, 60);
    // As the factory made it, it runs release 1.
    let mut device = LabDevice::make(&lab, "dev-1", &one, &Making::default());
    device.start();
    lab.wait_for_hellos();
    publish(&lab, 1, &one, &[]);
    assert_eq!(states(&lab, 1), ["ready"], "nobody runs anything before it: the whole image alone");

    publish(&lab, 2, &two, &[]);

    let found = deltas(&lab, 2);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&found[0]["from"], &found[0]["devices"], &found[0]["state"]),
        (&1.into(), &1.into(), &"ready".into())
    );
    assert!(found[0]["bytes"].as_u64().unwrap() < 4000, "{found:?}");
    assert_eq!((&found[1]["from"], &found[1]["state"]), (&Value::Null, &"ready".into()));
    assert_eq!(decoded(&lab, Some(&first), &second), second);
    assert_eq!(decoded(&lab, None, &second), second);
    let shown = lab.run(&["release", "show", "--product", PRODUCT, "--rc", "2"]);
    assert!(shown.out.contains("from release 1, linux"), "{shown:?}");

    let before = made_so_far(&lab);
    publish(&lab, 3, &two, &[]);
    lab.stop_service();
    lab.start_service();
    wait("the plan after the start", PATIENCE, || (states(&lab, 3) == ["ready", "ready"]).then_some(()));
    assert_eq!((before, made_so_far(&lab)), (3, 3));
}

#[test]
fn a_service_that_dies_while_it_encodes_takes_its_encoder_along_and_starts_over() {
    let mut lab = Lab::start();
    let new = lab.path("new.img");
    let bytes = image(&new, 6_000_000, 0);
    publish(&lab, 1, &new, &["--no-wait"]);
    let encoding = |lab: &Lab| states(lab, 1).iter().any(|state| state == "encoding");
    wait("the encoder", PATIENCE, || encoding(&lab).then_some(()));
    let service = lab.service_pid().unwrap();
    let encoder = wait("the encoder's process", PATIENCE, || child_of(service));
    let plan = ["rollout", "plan", "--product", PRODUCT, "--rc", "1", "--phases", "all"];
    assert!(lab.json(&plan)["warnings"].to_string().contains("1 of 1 deltas of release 1"), "it warns");

    lab.kill_service();

    wait("the encoder to end", PATIENCE, || (!runs(encoder)).then_some(()));
    assert_eq!(made_so_far(&lab), 0);
    lab.start_service();
    wait("the delta", PATIENCE, || (states(&lab, 1) == ["ready"]).then_some(()));
    assert_eq!(decoded(&lab, None, &bytes), bytes);
    assert!(!lab.json(&plan)["warnings"].to_string().contains("deltas of release 1"));
}

#[test]
fn what_takes_too_much_memory_is_refused_with_the_reason_and_the_release_is_published() {
    let lab = Lab::start_configured("[deltas]\nmemory_mib = 32\n");
    let new = lab.path("new.img");
    image(&new, 200_000, 0);

    let said = publish(&lab, 1, &new, &[]);

    assert!(said.contains("raise deltas.memory_mib") && said.contains("the full image"), "{said}");
    assert_eq!(states(&lab, 1), ["refused"]);
    assert_eq!(
        lab.json(&["release", "list", "--product", PRODUCT])[PRODUCT][0]["artifacts"][0]["stored"],
        true
    );
}

#[test]
fn noise_is_sent_as_it_is_and_what_is_not_wanted_is_not_made() {
    let mut lab = Lab::start();
    let [noise, other, small] = ["noise.img", "other.img", "small.img"].map(|name| lab.path(name));
    made(&noise, 300_000, 1);
    image(&other, 300_000, 0);
    image(&small, 10_000, 0);

    publish(&lab, 1, &noise, &[]);
    publish(&lab, 2, &other, &["--no-deltas"]);
    assert_eq!((states(&lab, 1), states(&lab, 2)), (vec!["useless".to_owned()], vec!["not-made".to_owned()]));
    publish(&lab, 3, &small, &[]);
    assert_eq!(states(&lab, 3), [] as [String; 0]);

    lab.stop_service();
    lab.start_service();
    assert_eq!((states(&lab, 1), states(&lab, 2)), (vec!["useless".to_owned()], vec!["not-made".to_owned()]));
    assert_eq!(made_so_far(&lab), 0);
}

fn publish(lab: &Lab, rc: u64, image: &Path, more: &[&str]) -> String {
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (draft, signed) = (text(&lab.path(&format!("{rc}.draft"))), text(&lab.path(&format!("{rc}.signed"))));
    let (rc, image, key) = (rc.to_string(), text(image), text(&lab.path("offline").join("release.pem")));
    let create =
        ["release", "create", "--product", PRODUCT, "--rc", &rc, "--version", &rc, "--image", &image];
    lab.json(&[&create[..], &["--model", tern_tests::lab::MODEL, "--out", &draft]].concat());
    lab.json(&["release", "sign", &draft, "--key", &key, "--out", &signed]);
    let ran = lab.run(&[&["release", "publish", &signed, "--image", &image], more].concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.err
}

fn child_of(pid: u32) -> Option<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let children = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    children
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .next()
}

fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
