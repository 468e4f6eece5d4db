//! The test vectors of docs/protocol.md, computed anew from the code: neither can change without the other.
//!
//! `tests/second-device/vectors.py` reads the same block and knows nothing of this code.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use hkdf::Hkdf;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use serde_json::{Value, json};
use sha2::Sha256;
use tern_protocol::bundle::{Bundle, Dictionary, File};
use tern_protocol::chunk::{PieceId, leaf, root};
use tern_protocol::claim::{Claimed, Token};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ProductId};
use tern_protocol::limits::CHUNK;
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::message::{Nonce, Pack, Registry, Versions, challenge_signing_input, enrol_signing_input};
use tern_protocol::position::{Cohort, Cut, Partition, Salt, position};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::Signer;
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
use tern_protocol::tuf::content::{
    Arm, Entry, EntryKind, RolloutContent, TargetsContent, Urgency, point_hex,
};
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::sign::sign;

const PAGE: &str = include_str!("../../docs/protocol.md");
/// 2026-11-26, about: when the files of the bundles were issued.
const NOW: u64 = 1_795_651_200;
const DAY: u64 = 86_400;

fn page() -> Value {
    let block = PAGE.split("\n## Test vectors\n").nth(1).and_then(|rest| rest.split("```json\n").nth(1));
    let block = block.and_then(|rest| rest.split("```").next()).expect("the page ends with its vectors");
    serde_json::from_str(block).expect("the vectors are JSON")
}

/// Compares one part of the page, and says what it should hold.
fn holds(name: &str, computed: &Value) {
    let page = &page()[name];
    assert_eq!(page, computed, "docs/protocol.md, «Test vectors», should say {name:?}: {computed}");
}

fn salt() -> Salt {
    Salt(*b"0123456789abcdef")
}

fn fleet() -> FleetId {
    "acme".parse().unwrap()
}

fn device() -> DeviceId {
    "cam-1".parse().unwrap()
}

fn secret(seed: u8) -> SecretKey {
    SecretKey::from_slice(&[seed; 32]).unwrap()
}

fn point(seed: u8) -> Vec<u8> {
    secret(seed).public_key().to_encoded_point(false).as_bytes().to_vec()
}

fn signature(seed: u8, input: &[u8]) -> String {
    let signature: Signature = SigningKey::from(secret(seed)).sign(input);
    hex::encode(signature.to_der())
}

#[test]
fn positions_are_those_of_the_page() {
    let line = |device: &str| {
        let id: DeviceId = device.parse().unwrap();
        json!({
            "device": device,
            "partition": format!("{:02x}", Partition::of(&id).0),
            "cohort": format!("{:03}", Cohort::of(&id).number()),
            "salt": hex::encode(salt().0),
            "position": position(salt(), &id).0,
        })
    };
    holds("positions", &["router-1", "router-2", "modem_A", "x"].map(line).into());
}

#[test]
fn the_tree_of_an_image_is_the_one_of_the_page() {
    // Three chunks, the last one short: the tree is lopsided.
    let image: Vec<u8> = (0..150_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let leaves: Vec<Digest> = image.chunks(CHUNK).map(leaf).collect();
    let root = root(&leaves);
    let piece = Pack::piece(&root, PieceId { level: 0, index: 0 }, &leaves).write();
    let chunk = Pack::chunk(&root, 2, image[2 * CHUNK..].to_vec()).write();
    holds(
        "tree",
        &json!({
            "length": image.len(),
            "byte_at": "i mod 251",
            "sha256": Digest::of(&image),
            "leaves": leaves,
            "root": root,
            "piece_frame": hex::encode(piece),
            "chunk_2_header": hex::encode(&chunk[..15]),
            "chunk_2_frame_length": chunk.len(),
        }),
    );
}

#[test]
fn codes_are_those_of_the_page() {
    let (own, peer) = (secret(1), secret(2).public_key());
    let shared = p256::ecdh::diffie_hellman(own.to_nonzero_scalar(), peer.as_affine());
    let pair = PairSecret::agree(&own, &peer);
    let message = |direction, letter: &str, epoch: u64, kid: u32, body: &str| {
        // The schedule as the page writes it, beside the code's own.
        let mut key = [0; 32];
        let numbers = [kid.to_be_bytes().as_slice(), epoch.to_be_bytes().as_slice()].concat();
        let info = [b"tern-mac-v1", letter.as_bytes(), b"cam-1", &[0], &numbers].concat();
        Hkdf::<Sha256>::new(Some(b"acme"), shared.raw_secret_bytes()).expand(&info, &mut key).unwrap();
        // A sealed body keeps its order, so it is read as raw text and not as a map.
        let body: Box<serde_json::value::RawValue> = serde_json::from_str(body).unwrap();
        let sealed = pair.key(direction, &fleet(), &device(), kid, epoch).seal(&body);
        json!({
            "direction": letter,
            "kid": kid,
            "epoch": epoch,
            "key": hex::encode(key),
            "body": body.get(),
            "message": String::from_utf8(sealed).unwrap(),
        })
    };
    let started = r#"{"e":4,"k":1,"n":43,"low":42,"t":"started","nonce":"101112131415161718191a1b1c1d1e1f","rc":7,"rollout":"cam-7-1","attempt":1}"#;
    let grant =
        r#"{"e":0,"k":2,"t":"grant","challenge":"202122232425262728292a2b2c2d2e2f","epoch":9,"counter":60}"#;
    holds(
        "codes",
        &json!({
            "fleet": "acme",
            "device": "cam-1",
            "device_private": hex::encode(own.to_bytes()),
            "service_private": hex::encode(secret(2).to_bytes()),
            "secret": hex::encode(shared.raw_secret_bytes()),
            "messages": [
                message(Direction::Up, "u", 4, 1, started),
                message(Direction::Down, "d", 0, 2, grant),
            ],
        }),
    );
}

#[test]
fn proofs_are_those_of_the_page() {
    let (identity, telemetry) = (point(3), point(1));
    let input = enrol_signing_input(&fleet(), &device(), &identity, &telemetry);
    holds(
        "enrol",
        &json!({
            "fleet": "acme",
            "device": "cam-1",
            "identity_private": hex::encode(secret(3).to_bytes()),
            "telemetry_private": hex::encode(secret(1).to_bytes()),
            "identity": hex::encode(&identity),
            "telemetry": hex::encode(&telemetry),
            "input": hex::encode(&input),
            "proof": signature(3, &input),
        }),
    );
    let token: Token = "batch-7.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let registry = Registry {
        product: "cam".parse().unwrap(),
        model: "b3".parse().unwrap(),
        carrier: "none".parse().unwrap(),
        region: "eu".parse().unwrap(),
    };
    let (fleet, device) = (&fleet(), &device());
    let claimed = Claimed { fleet, device, identity: &identity, telemetry: &telemetry, registry: &registry };
    holds(
        "claim",
        &json!({
            "token": token.reveal(),
            "registry": registry,
            "key": token.key().digest(),
            "claim": token.prove(&claimed).to_string(),
        }),
    );
    let challenge: Nonce = serde_json::from_value(json!("202122232425262728292a2b2c2d2e2f")).unwrap();
    let input = challenge_signing_input(device, challenge, 57);
    holds(
        "challenge",
        &json!({
            "challenge": challenge,
            "counter": 57,
            "input": hex::encode(&input),
            "signature": signature(3, &input),
        }),
    );
}

fn keys(seed: u8) -> Keys {
    Keys::one(P256Signer::new(SigningKey::from(secret(seed))).public())
}

fn signed(role: Role, metadata: Value, seed: u8) -> File {
    let bytes = sign(metadata, &[&P256Signer::new(SigningKey::from(secret(seed)))]).unwrap();
    File { role, bytes }
}

/// A product's files: root 2 and targets 3, and those that change often.
fn files() -> [File; 5] {
    let product: ProductId = "cam".parse().unwrap();
    let top = RootKeys { root: keys(11), timestamp: keys(12), snapshot: keys(13), targets: keys(14) };
    let delegated = DelegatedKeys { release: keys(15), rollout: keys(16), halt: keys(17) };
    let content = TargetsContent {
        telemetry: [(1, point_hex(&secret(2).public_key()))].into(),
        ..TargetsContent::default()
    };
    let entry = Entry {
        rollout: "cam-7-1".parse().unwrap(),
        rc: 7,
        kind: EntryKind::Update,
        attempt: 1,
        regions: vec!["eu".parse().unwrap()],
        models: vec![],
        carriers: vec![],
        salt: salt(),
        cuts: [("b3".parse().unwrap(), Cut(583_847_943_727))].into(),
        hold_back: None,
        schedule: None,
        from: vec![],
        list: vec![],
        spread: 0,
        arm: Arm::Acked,
        urgency: Urgency::Soft,
    };
    let path = build::path(&product, 7, "rootfs");
    let named = Named { path, length: 48_234_496, sha256: Digest::of(b"image") };
    let entries = RolloutContent { entries: vec![entry] };
    let v = Versions { root: 2, timestamp: 9, snapshot: 8, targets: 3, release: 2, rollout: 5, halt: 1 };
    let snapshot = signed(Role::Snapshot, build::snapshot(v.snapshot, NOW + 30 * DAY, &v), 13);
    let timestamp = build::timestamp(v.timestamp, NOW + 3 * DAY, v.snapshot, Some(&snapshot.bytes), NOW);
    [
        signed(Role::Root, build::root(v.root, NOW + 365 * DAY, &top), 11),
        signed(Role::Targets, build::targets(v.targets, NOW + 365 * DAY, &product, &delegated, &content), 14),
        signed(Role::Timestamp, timestamp, 12),
        snapshot,
        signed(Role::Rollout, build::rollout(v.rollout, NOW + 30 * DAY, &[named], &entries), 16),
    ]
}

#[test]
fn bundles_are_those_of_the_page() {
    let [root, targets, timestamp, snapshot, rollout] = files();
    let dictionary = Dictionary::unverified(&root.bytes, &targets.bytes).unwrap();
    let general = Bundle { root: 2, files: vec![root, targets] };
    let step = Bundle { root: 2, files: vec![timestamp, snapshot, rollout] };
    let describe = |bundle: &Bundle, packed: Vec<u8>, dictionary: &Dictionary| {
        let files: Vec<Value> =
            bundle.files.iter().map(|file| json!([file.role, Digest::of(&file.bytes)])).collect();
        json!({
            "dictionary": dictionary.id(),
            "dictionary_sha256": Digest::of(dictionary.bytes()),
            "files": files,
            "bundle": hex::encode(packed),
        })
    };
    let computed = json!([
        describe(&general, general.pack(), Dictionary::general()),
        describe(&step, step.pack_with(&dictionary), &dictionary),
    ]);

    // Another packer may write other bytes; what has to hold is what a reader finds in those of the page.
    let mut written = page()["bundles"].clone();
    for (at, bundle) in [&general, &step].into_iter().enumerate() {
        let bytes = hex::decode(written[at]["bundle"].as_str().unwrap_or_default()).unwrap();
        let found = Bundle::unpack(&bytes, Some(&dictionary));
        assert_eq!(found.as_ref(), Ok(bundle), "«Test vectors» should say \"bundles\": {computed}");
        written[at]["bundle"] = computed[at]["bundle"].clone();
    }
    assert_eq!(written, computed, "«Test vectors» should say \"bundles\": {computed}");
}

#[test]
fn the_short_vectors_beside_the_text_hold_too() {
    let line = |text: &str| {
        let text = format!("{text}\n");
        assert!(PAGE.contains(&text), "docs/protocol.md should hold: {text}");
    };
    for device in ["router-1", "router-2", "modem_A", "x"] {
        let id: DeviceId = device.parse().unwrap();
        let (partition, cohort) = (Partition::of(&id).0, Cohort::of(&id).number());
        let position = position(salt(), &id).0;
        line(&format!("| `{device}` | {partition} (`{partition:02x}`) | {cohort} | {position} |"));
    }
    let pair = PairSecret::agree(&secret(1), &secret(2).public_key());
    let body: Box<serde_json::value::RawValue> = serde_json::from_str(r#"{"e":4,"text":"hi"}"#).unwrap();
    let sealed = pair.key(Direction::Up, &fleet(), &"d1".parse().unwrap(), 1, 4).seal(&body);
    line(&format!("message {}", String::from_utf8(sealed).unwrap()));
    let token: Token = "batch-7.000102030405060708090a0b0c0d0e0f".parse().unwrap();
    let registry = serde_json::from_value(page()["claim"]["registry"].clone()).unwrap();
    let (identity, telemetry) = (&[4; 65], &[5; 65]);
    let claimed = Claimed { fleet: &fleet(), device: &device(), identity, telemetry, registry: &registry };
    line(&format!("key     {}", token.key().digest()));
    line(&format!("claim   {}", token.prove(&claimed)));
}
