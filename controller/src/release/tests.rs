//! Stories of a release file from draft to device.

use p256::ecdsa::SigningKey;
use tempfile::TempDir;
use tern_protocol::bundle::File;
use tern_protocol::message::Versions;
use tern_protocol::tuf::content::{HaltContent, RolloutContent};
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::{Pool, Signer, Trusted, build, sign as tuf_sign};

mod parts;

use super::*;
use crate::keys::{self, InitOptions};

const NOW: u64 = 1_800_000_000;

struct Home {
    dir: TempDir,
    options: InitOptions,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let options = InitOptions::unencrypted(
            "acme".parse().unwrap(),
            "cam".parse().unwrap(),
            dir.path().join("data"),
            dir.path().join("offline"),
            NOW,
        );
        keys::init(&options).unwrap();
        Self { dir, options }
    }

    fn last(&self) -> ReleaseDocument {
        ReleaseDocument::open(&self.options.holders[0].folder.join("release.json")).unwrap().0
    }

    fn new_release(&self, rc: u64) -> NewRelease {
        let image = self.dir.path().join("image");
        std::fs::write(&image, vec![u8::try_from(rc).unwrap(); 100_000]).unwrap();
        NewRelease {
            product: self.options.product.clone(),
            rc,
            version: format!("1.{rc}.0"),
            min_from: 0,
            floor: 0,
            artifacts: vec![NewArtifact::new(
                "rootfs",
                vec!["b3".parse().unwrap()],
                measure(&image, |_| {}).unwrap(),
            )],
            expires: NOW + 1000,
        }
    }

    fn key(&self, name: &str) -> P256Signer {
        keys::load_signer(&self.options.holders[0].folder.join(format!("{name}.pem"))).unwrap()
    }

    fn targets(&self) -> Vec<u8> {
        std::fs::read(self.options.holders[0].folder.join("targets.json")).unwrap()
    }
}

#[test]
fn a_device_accepts_what_was_created_and_signed() {
    let home = Home::new();
    let (draft, dropped) = draft(&home.last(), &home.new_release(7)).unwrap();

    let signed = sign(&draft, &home.key("release")).unwrap();

    assert!(dropped.is_empty());
    check_authority(&home.targets(), &signed).unwrap();
    let online = keys::load_online(&home.options.data, &home.options.product).unwrap();
    let offline = keys::offline_files(&home.options.data, &home.options.product).unwrap();
    let held: Vec<File> = offline.iter().map(File::from).collect();
    let mut device = Trusted::restore(&held).unwrap();
    let versions = Versions { root: 1, targets: 1, release: 2, rollout: 1, halt: 1, ..Versions::default() };
    let file = |role, value, key: &dyn Signer| File { role, bytes: tuf_sign::sign(value, &[key]).unwrap() };
    let life = NOW + 1000;
    let mut pool = Pool::default();
    for file in [
        File { role: Role::Release, bytes: signed },
        file(
            Role::Rollout,
            build::rollout(1, life, &[], &RolloutContent::default()),
            online.rollout.as_ref(),
        ),
        file(Role::Halt, build::halt(1, life, &HaltContent::default()), online.halt.as_ref()),
        file(Role::Snapshot, build::snapshot(1, life, &versions), online.snapshot.as_ref()),
        file(Role::Timestamp, build::timestamp(1, life, 1, None, NOW), online.timestamp.as_ref()),
    ] {
        pool.add(file);
    }
    let refresh = device.refresh(&mut pool, NOW);
    assert_eq!(refresh.refused, vec![]);
    let current = device.current().expect("a consistent set");
    assert_eq!(current.release.content["cam/7/rootfs"].rc, 7);
}

#[test]
fn another_key_signs_in_vain() {
    let home = Home::new();
    let (draft, _) = draft(&home.last(), &home.new_release(7)).unwrap();

    for name in ["root", "targets"] {
        let signed = sign(&draft, &home.key(name)).unwrap();
        let said = check_authority(&home.targets(), &signed);
        assert!(matches!(said, Err(ReleaseError::Refused(TufError::Threshold { .. }))), "{name}");
    }
    let stranger = P256Signer::new(SigningKey::from_slice(&[9; 32]).unwrap());
    assert!(check_authority(&home.targets(), &sign(&draft, &stranger).unwrap()).is_err());
    assert!(check_authority(&home.targets(), &draft).is_err());
}

#[test]
fn the_newest_five_releases_stay_and_their_words_are_not_changed() {
    let home = Home::new();
    let mut document = home.last();
    for rc in 1..=6 {
        let (bytes, dropped) = draft(&document, &home.new_release(rc)).unwrap();
        assert_eq!(dropped, if rc == 6 { vec![1] } else { vec![] });
        let next = ReleaseDocument::read("draft", &bytes).unwrap();
        for (path, target) in next.signed["targets"].as_object().unwrap() {
            if next.release.content[path].rc != rc {
                assert_eq!(Some(target), document.signed["targets"].get(path));
            }
        }
        document = next;
    }
    let counters: Vec<u64> = document.release.content.values().map(|a| a.rc).collect();
    assert_eq!(counters, vec![2, 3, 4, 5, 6]);
    assert_eq!(document.release.meta.version, 7);
}

#[test]
fn a_draft_that_changes_an_approved_release_is_not_signed() {
    let home = Home::new();
    let (first, _) = draft(&home.last(), &home.new_release(1)).unwrap();
    let last = ReleaseDocument::read("first", &first).unwrap();
    let (second, _) = draft(&last, &home.new_release(2)).unwrap();
    let honest = ReleaseDocument::read("second", &second).unwrap();
    let swapped = |change: fn(&mut Value)| {
        let mut file: Value = serde_json::from_slice(&second).unwrap();
        change(&mut file["signed"]["targets"]);
        ReleaseDocument::read("swapped", &serde_json::to_vec(&file).unwrap()).unwrap()
    };

    let summary = summarise(&honest, Some(&last)).unwrap();
    let other_bytes = swapped(|targets| targets["cam/1/rootfs"]["length"] = 5.into());
    let one_more = swapped(|targets| targets["cam/1/modem"] = targets["cam/1/rootfs"].clone());

    let changes: Vec<(u64, Change)> = summary.artifacts.iter().map(|a| (a.rc, a.change)).collect();
    assert_eq!(changes, vec![(2, Change::New), (1, Change::Same)]);
    assert!(matches!(summarise(&other_bytes, Some(&last)), Err(ReleaseError::Tampered(1))));
    assert!(matches!(summarise(&one_more, Some(&last)), Err(ReleaseError::Tampered(1))));
    assert!(matches!(summarise(&last, Some(&honest)), Err(ReleaseError::Version { .. })));
}

#[test]
fn a_release_that_makes_no_sense_is_refused_before_anybody_signs_it() {
    let home = Home::new();
    let (one, _) = draft(&home.last(), &home.new_release(3)).unwrap();
    let last = ReleaseDocument::read("one", &one).unwrap();
    let with = |change: fn(&mut NewRelease)| {
        let mut new = home.new_release(4);
        change(&mut new);
        draft(&last, &new)
    };

    assert!(with(|_| {}).is_ok());
    assert!(matches!(with(|new| new.rc = 3), Err(ReleaseError::Counter { newest: 3, .. })));
    assert!(matches!(with(|new| new.floor = 5), Err(ReleaseError::Value(_))));
    assert!(matches!(with(|new| new.artifacts[0].models.clear()), Err(ReleaseError::Value(_))));
    assert!(matches!(with(|new| new.artifacts[0].component = "../x".into()), Err(ReleaseError::Value(_))));
    assert!(matches!(with(|new| new.product = "router".parse().unwrap()), Err(ReleaseError::Value(_))));
    let empty = home.dir.path().join("empty");
    std::fs::write(&empty, b"").unwrap();
    assert!(matches!(measure(&empty, |_| {}), Err(ReleaseError::Size { length: 0, .. })));
}
