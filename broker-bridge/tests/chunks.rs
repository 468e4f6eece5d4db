//! `get`, answered by the front: packs that verify, files that were published, and never more than was asked.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use common::{Client, Scene, all_is_well, bridge, up};
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::chunk::{self, PieceId, TreeShape};
use tern_protocol::delta::signed::sign;
use tern_protocol::delta::{DeltaManifest, ImageId, Profile};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::topic::UpKind;
use tern_protocol::tuf::Role;

const PACKS: &str = "ota/v1/acme/d/r-1/pack";
const IN: &str = "ota/v1/acme/d/r-1/in";

fn image(chunks: usize) -> Vec<u8> {
    (0..chunks * CHUNK - 100).map(|i| u8::try_from(i / 13 % 251).unwrap()).collect()
}

async fn device(scene: &Scene) -> Client {
    let mut device = Client::device(scene, "r-1").await;
    assert_eq!(device.subscribe(&[PACKS, IN], 1).await, [1, 1]);
    device
}

async fn ask(device: &mut Client, want: Vec<Want>) {
    device.publish(&up("r-1", UpKind::Get), &Get::from(want).write(), 0).await;
}

async fn pack(device: &mut Client) -> Pack {
    let message = device.message().await;
    assert_eq!((message.topic.as_str(), message.qos), (PACKS, 0));
    Pack::read(&message.payload).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_image_comes_window_by_window_and_verifies() {
    let scene = bridge().await;
    let image = image(300);
    let root = scene.bridge.chunk_store().add(image.as_slice()).unwrap().root;
    let mut device = device(&scene).await;
    let shape = TreeShape::new(300);
    ask(&mut device, vec![Want::piece(root, shape.top())]).await;
    let top = pack(&mut device).await.digests().unwrap();
    assert_eq!(chunk::root(&top), root);

    let mut leaves = Vec::new();
    for (index, parent) in (0..).zip(&top) {
        ask(&mut device, vec![Want::piece(root, PieceId { level: 0, index })]).await;
        let piece = pack(&mut device).await.digests().unwrap();
        assert_eq!(chunk::root(&piece), *parent);
        leaves.extend(piece);
    }
    let mut received = Vec::new();
    for start in (0..300).step_by(96) {
        let end = (start + 96).min(300);
        ask(&mut device, vec![Want::Packs { of: root, ranges: vec![(start, end)] }]).await;
        for expected in start..end {
            let pack = pack(&mut device).await;
            assert_eq!((pack.of, pack.kind), (root.short(), PackKind::Chunk(expected)));
            assert_eq!(chunk::leaf(&pack.payload), leaves[expected as usize]);
            received.extend(pack.payload);
        }
    }

    assert!(received == image);
    let stats = scene.bridge.stats();
    assert_eq!((stats.packs, stats.missed_packs), (303, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn impatient_requests_are_answered_once_each_chunk_while_they_wait() {
    let scene = bridge().await;
    let root = scene.bridge.chunk_store().add(image(96).as_slice()).unwrap().root;
    let mut device = device(&scene).await;
    for _ in 0..50 {
        ask(&mut device, vec![Want::Packs { of: root, ranges: vec![(0, 96)] }]).await;
    }
    let mut seen = BTreeSet::new();
    while seen.len() < 96 {
        seen.insert(format!("{:?}", pack(&mut device).await.kind));
    }

    // What was in the socket already may come twice; not fifty times.
    assert!(scene.bridge.stats().packs < 50 * 96 / 2, "{:?}", scene.bridge.stats());
}

fn delta(from: Digest, to: Digest, packs: &[Vec<u8>]) -> DeltaManifest {
    let leaves: Vec<Digest> = packs.iter().map(|pack| chunk::leaf(pack)).collect();
    DeltaManifest {
        profile: Profile::Linux,
        chunk_log2: 16,
        old: ImageId { length: 1, root: from },
        new: ImageId { length: 1, root: to },
        packs: leaves.len().try_into().unwrap(),
        bytes: packs.iter().map(|pack| pack.len() as u64).sum(),
        root: chunk::root(&leaves),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_is_found_by_its_images_and_its_packs_come_as_chunks() {
    let scene = bridge().await;
    let (from, to) = (Digest::of(b"old"), Digest::of(b"new"));
    let packs = [vec![1; 40_000], vec![2; 3], vec![3; CHUNK + 49]];
    let manifest = delta(from, to, &packs);
    let signed = sign(&manifest, &[]).unwrap();
    scene.bridge.chunk_store().add_delta(&signed, packs.iter().cloned().map(Ok)).unwrap();
    let mut device = device(&scene).await;

    ask(&mut device, vec![Want::Delta { from, to, profiles: vec![9, Profile::Linux.id()] }]).await;
    let found = pack(&mut device).await;
    assert_eq!((found.of, found.as_delta()), (to.short(), Some((from, &signed[..]))));
    let piece = Want::piece(manifest.root, TreeShape::new(3).top());
    ask(&mut device, vec![piece, Want::Packs { of: manifest.root, ranges: vec![(0, 3)] }]).await;

    let leaves = pack(&mut device).await.digests().unwrap();
    assert_eq!(chunk::root(&leaves), manifest.root);
    for (index, expected) in (0..).zip(&packs) {
        let pack = pack(&mut device).await;
        assert_eq!((pack.of, pack.kind), (manifest.root.short(), PackKind::Chunk(index)));
        assert_eq!(pack.payload, *expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn that_there_is_no_delta_is_answered_too() {
    let scene = bridge().await;
    let (from, to) = (Digest::of(b"old"), Digest::of(b"new"));
    let packs = [vec![1; 10]];
    let signed = sign(&delta(from, to, &packs), &[]).unwrap();
    scene.bridge.chunk_store().add_delta(&signed, packs.into_iter().map(Ok)).unwrap();
    let mut device = device(&scene).await;

    for (from, to, profile) in
        [(to, from, Profile::Linux), (from, to, Profile::Mcu), (ImageId::nothing().root, to, Profile::Linux)]
    {
        ask(&mut device, vec![Want::Delta { from, to, profiles: vec![profile.id()] }]).await;
        let answer = pack(&mut device).await;
        assert_eq!((answer.of, answer.as_delta()), (to.short(), Some((from, &[][..]))));
    }
    assert_eq!(scene.bridge.stats().missed_packs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_left_out_and_a_request_that_breaks_the_rules_is_ignored() {
    let scene = bridge().await;
    let root = scene.bridge.chunk_store().add(image(2).as_slice()).unwrap().root;
    let mut device = device(&scene).await;
    ask(&mut device, vec![Want::Packs { of: Digest::of(b"unknown"), ranges: vec![(0, 3)] }]).await;
    device.publish(&up("r-1", UpKind::Get), b"rubbish", 0).await;
    ask(&mut device, vec![Want::Packs { of: root, ranges: vec![(0, 4000)] }]).await;
    ask(&mut device, vec![Want::Packs { of: root, ranges: vec![(1, 5)] }]).await;

    assert_eq!(pack(&mut device).await.kind, PackKind::Chunk(1));
    assert!(device.ping().await);
    assert_eq!(scene.bridge.stats().missed_packs, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_listen_for_packs_is_sent_none() {
    let scene = bridge().await;
    let root = scene.bridge.chunk_store().add(image(2).as_slice()).unwrap().root;
    let mut deaf = Client::device(&scene, "r-1").await;

    ask(&mut deaf, vec![Want::Packs { of: root, ranges: vec![(0, 2)] }]).await;

    deaf.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn published_files_are_answered_in_one_bundle() {
    let scene = bridge().await;
    let file = |role, version| File {
        role,
        bytes: format!("{{\"signed\":{{\"version\":{version}}}}}").into_bytes(),
    };
    let bundle = |files| Bundle { root: 1, files }.pack();
    let mut service = Client::service(&scene).await;
    for (topic, payload) in [
        ("ota/v1/acme/p/ap/head", bundle(vec![file(Role::Halt, 3), file(Role::Rollout, 8)])),
        ("ota/v1/acme/p/ap/ts", bundle(vec![file(Role::Timestamp, 40)])),
        ("ota/v1/acme/p/ap/root/2", file(Role::Root, 2).bytes),
    ] {
        service.publish_as(topic, &payload, 1, true).await;
        service.next().await;
    }
    let mut device = device(&scene).await;
    let want = |role, version| Want::File { product: "ap".parse().unwrap(), role, version };

    ask(
        &mut device,
        vec![
            want(Role::Halt, None),
            want(Role::Root, Some(2)),
            want(Role::Root, Some(9)),
            want(Role::Timestamp, None),
        ],
    )
    .await;

    let message = device.message().await;
    assert_eq!(message.topic, IN);
    let files = Bundle::unpack(&message.payload, None).unwrap().files;
    assert_eq!(files, [file(Role::Halt, 3), file(Role::Root, 2), file(Role::Timestamp, 40)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_and_never_reads_costs_little_and_disturbs_nobody() {
    let scene = bridge().await;
    let root = scene.bridge.chunk_store().add(image(96).as_slice()).unwrap().root;
    let mut greedy = device(&scene).await;
    for _ in 0..200 {
        ask(&mut greedy, vec![Want::Packs { of: root, ranges: vec![(0, 96)] }]).await;
    }

    all_is_well(&scene).await;

    // Sockets hold a few MiB; the rest must still be on the disk.
    assert!(scene.bridge.stats().pack_bytes < 16 * 1024 * 1024, "{:?}", scene.bridge.stats());
}

/// Prints the rate; run with --release --nocapture --ignored to measure.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput_to_one_device() {
    let scene = bridge().await;
    let chunks = 4096;
    let root = scene.bridge.chunk_store().add(image(chunks as usize).as_slice()).unwrap().root;
    let mut device = device(&scene).await;
    #[expect(clippy::disallowed_methods, reason = "a measurement needs a clock")]
    let start = std::time::Instant::now();
    let want = |at: u32| vec![Want::Packs { of: root, ranges: vec![(at, (at + 96).min(chunks))] }];
    ask(&mut device, want(0)).await;
    for index in 0..chunks {
        if index % 96 == 0 && index + 96 < chunks {
            ask(&mut device, want(index + 96)).await;
        }
        pack(&mut device).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} MB/s", f64::from(chunks) * 65_536.0 / 1e6 / seconds);
}
