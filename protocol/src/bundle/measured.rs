//! What bundles weigh, and what dictionaries say: docs/protocol.md holds the figures and the texts, and these
//! tests compare, so that neither the page nor the order of a field changes unnoticed.

use std::fmt::Write as _;

use super::*;
use crate::digest::Digest;
use crate::message::Versions;
use crate::position::{Cut, Salt};
use crate::tuf::Role::{self, Halt, Release, Rollout, Snapshot, Targets, Timestamp};
use crate::tuf::build::{self, DelegatedKeys, Named, RootKeys};
use crate::tuf::client::tests::repository::{keys, signed};
use crate::tuf::content::{
    Arm, ArtifactContent, Entry, EntryKind, HaltContent, RolloutContent, TargetsContent, Urgency, point_hex,
};

const PAGE: &str = include_str!("../../../docs/protocol.md");
const DAY: u64 = 86_400;

/// How long a bundle may be in the dictionary of root and targets, and in the general one.
type Bounds = (Option<usize>, Option<usize>);

const BUNDLES: [(&str, &[Role], Bounds); 7] = [
    ("timestamp alone", &[Timestamp], (Some(150), None)),
    ("heartbeat (`ts`)", &[Timestamp, Snapshot], (Some(280), None)),
    ("answer to a `get` of a step", &[Timestamp, Snapshot, Rollout], (Some(400), None)),
    ("answer to a `get` of a kill", &[Timestamp, Snapshot, Rollout, Halt], (None, None)),
    ("offer to a cohort", &[Timestamp, Snapshot, Release, Rollout], (Some(700), None)),
    ("`head`, where targets is held", &[Timestamp, Snapshot, Release, Rollout, Halt], (Some(800), None)),
    ("`head`", &[Timestamp, Snapshot, Targets, Release, Rollout, Halt], (None, Some(2048))),
];

/// A product as an operator would have it: root and targets signed by two of three, the release by two, one
/// stratum, one region, no list.
struct Product {
    root: Vec<u8>,
    files: Vec<File>,
}

impl Product {
    /// `n` moves every version, hash, time and signature.
    fn new(n: u32) -> Self {
        let now = 1_795_461_723 + u64::from(n) * 7919;
        let (timestamp, snapshot) = (412 + n, 37 + n);
        let v = Versions { root: 2, timestamp, snapshot, targets: 3, release: 12, rollout: 23, halt: 4 };
        let holders = || keys(&[1, 2, 3], 2);
        let top = RootKeys {
            root: holders(),
            timestamp: keys(&[11], 1),
            snapshot: keys(&[12], 1),
            targets: holders(),
        };
        let delegated =
            DelegatedKeys { release: keys(&[14, 17], 2), rollout: keys(&[15], 1), halt: keys(&[16], 1) };
        let point = |byte| point_hex(&p256::SecretKey::from_slice(&[byte; 32]).unwrap().public_key());
        let content = TargetsContent { telemetry: [(1, point(21))].into(), time: Some(point(22)) };
        let product = "router-ax".parse().unwrap();
        let targets = build::targets(v.targets, now + 300 * DAY, &product, &delegated, &content);

        let of = |text: &str| Digest::of(format!("{text} {n}").as_bytes());
        let path = build::path(&product, 47, "rootfs");
        let named = Named { path, length: 48_234_496, sha256: of("image") };
        let models = vec!["ax3000".parse().unwrap()];
        let artifact = ArtifactContent {
            min_from: 40,
            floor: 41,
            ..ArtifactContent::new(47, "2.14.3", "rootfs", models, of("tree"))
        };
        let release = build::release(v.release, now + 180 * DAY, &[(named.clone(), artifact)]);
        let entry = Entry {
            rollout: "router-ax-47-1".parse().unwrap(),
            rc: 47,
            kind: EntryKind::Update,
            attempt: 1,
            regions: vec!["eu".parse().unwrap()],
            models: vec![],
            carriers: vec![],
            salt: Salt(of("salt").0[..16].try_into().unwrap()),
            cuts: [("ax3000".parse().unwrap(), Cut(583_847_943_727))].into(),
            hold_back: None,
            schedule: None,
            from: vec![],
            list: vec![],
            spread: 3600,
            arm: Arm::Acked,
            urgency: Urgency::Soft,
        };
        let entries = RolloutContent { entries: vec![entry] };
        let rollout = build::rollout(v.rollout, now + 30 * DAY, &[named], &entries);
        let halt = build::halt(v.halt, now + 200 * DAY, &HaltContent { halted: vec![31, 44] });
        let snapshot = signed(build::snapshot(v.snapshot, now + 20 * DAY, &v), &[12]);
        let timestamp = build::timestamp(v.timestamp, now + 3 * DAY, v.snapshot, Some(&snapshot), now);
        let files = [
            (Timestamp, signed(timestamp, &[11])),
            (Snapshot, snapshot),
            (Targets, signed(targets, &[1, 2])),
            (Release, signed(release, &[14, 17])),
            (Rollout, signed(rollout, &[15])),
            (Halt, signed(halt, &[16])),
        ];
        Self {
            root: signed(build::root(v.root, now + 365 * DAY, &top), &[1, 2]),
            files: files.map(|(role, bytes)| File { role, bytes }).into(),
        }
    }

    fn bundle(&self, roles: &[Role]) -> Bundle {
        let files = self.files.iter().filter(|file| roles.contains(&file.role)).cloned().collect();
        Bundle { root: 2, files }
    }

    fn dictionary(&self) -> Dictionary {
        let targets = self.files.iter().find(|file| file.role == Targets).unwrap();
        Dictionary::unverified(&self.root, &targets.bytes).unwrap()
    }
}

#[test]
fn bundles_weigh_what_the_page_says_and_stay_below_their_bounds() {
    let products: Vec<Product> = (0..20).map(Product::new).collect();
    let mut table = String::new();
    for (name, roles, (bound, general_bound)) in BUNDLES {
        let most = |pack: &dyn Fn(&Product, &Bundle) -> usize| {
            products.iter().map(|product| pack(product, &product.bundle(roles))).max().unwrap()
        };
        let plain = most(&|_, bundle| bundle.files.iter().map(|file| file.bytes.len()).sum());
        let general = most(&|_, bundle| bundle.pack().len());
        let with = most(&|product, bundle| {
            let dictionary = product.dictionary();
            let packed = bundle.pack_with(&dictionary);
            assert_eq!(Bundle::unpack(&packed, Some(&dictionary)).as_ref(), Ok(bundle));
            packed.len()
        });
        assert!(with <= bound.unwrap_or(usize::MAX), "{name}: {with} B");
        assert!(general <= general_bound.unwrap_or(usize::MAX), "{name}: {general} B");
        let or_none = |bound: Option<usize>| bound.map_or("–".into(), |bound| bound.to_string());
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        let (roles, bound, general_bound) = (roles.join(", "), or_none(bound), or_none(general_bound));
        writeln!(table, "| {name} | {roles} | {plain} | {with} | {bound} | {general} | {general_bound} |")
            .unwrap();
    }
    assert!(PAGE.contains(&table), "docs/protocol.md does not hold what was measured:\n{table}");
}

/// Every dictionary of root 2 and targets 3 is the same, whenever and by whomever the files were signed.
#[test]
fn a_dictionary_does_not_change_when_its_files_are_signed_again() {
    let dictionaries = [0, 7].map(|n| Product::new(n).dictionary());

    assert_eq!(dictionaries[0].id(), DictionaryId { root: 2, targets: 3 });
    assert_eq!(dictionaries[0], dictionaries[1]);
}

#[test]
fn dictionaries_are_what_the_page_says() {
    for dictionary in [Dictionary::general(), &Product::new(0).dictionary()] {
        let text = readable(dictionary.bytes());
        let digest = Digest::of(dictionary.bytes());
        let length = dictionary.bytes().len();
        assert!(PAGE.contains(&text), "docs/protocol.md does not hold this dictionary:\n{text}");
        let line = format!("{length} B, SHA-256 `{digest}`");
        assert!(PAGE.contains(&line), "docs/protocol.md does not hold: {line}");
    }
}

/// Writes marks, roles and ends as numbers in brackets, a file a line.
fn readable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            0 => text.push_str("<0>\n"),
            1..=7 => write!(text, "<{byte}>").unwrap(),
            byte => text.push(char::from(*byte)),
        }
    }
    text
}
