//! The chunk server as a client of a broker that is not ours.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Client, external_broker, hello, up};
use tern_bridge::front::frame::Connect;
use tern_bridge::{ChunkClient, ChunkClientConfig, ChunkClientError, ChunkStore};
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Pack, PackKind, Want};
use tern_protocol::topic::UpKind;
use tern_protocol::tuf::Role;

async fn connect(address: SocketAddr, user: &str) -> Client {
    loop {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut client = Client::raw(address).await;
    let login = Connect { user: Some(user.into()), password: Some("right".into()), ..hello(user) };
    assert_eq!(client.connect(login).await, Some(0));
    client
}

fn config(brokers: Vec<String>) -> ChunkClientConfig {
    ChunkClientConfig {
        fleet: "acme".parse().unwrap(),
        brokers,
        client_id: "chunks".into(),
        user: "service".into(),
        password: "right".into(),
        ca: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_and_files_come_through_the_second_broker_when_the_first_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ChunkStore::open(folder.path()).unwrap());
    let root = store.add(vec![7; 40 * CHUNK].as_slice()).unwrap().root;
    let address = external_broker();
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut service = connect(address, "service").await;
    let halt = File { role: Role::Halt, bytes: b"{\"signed\":{\"version\":4}}".to_vec() };
    let bundle = Bundle { root: 1, files: vec![halt.clone()] }.pack();
    service.publish_as("ota/v1/acme/p/ap/head", &bundle, 1, true).await;
    service.next().await;
    let mut device = connect(address, "r-1").await;
    assert_eq!(device.subscribe(&["ota/v1/acme/d/r-1/pack", "ota/v1/acme/d/r-1/in"], 0).await, [0, 0]);

    let client = ChunkClient::start(config(vec![away.to_string(), address.to_string()]), store).unwrap();

    // Asked again until the client has found its broker, as a device would.
    let file = Want::File { product: "ap".parse().unwrap(), role: Role::Halt, version: None };
    let delta = Want::Delta { from: Digest::of(b"old"), to: root, profiles: vec![1] };
    let want = vec![Want::Packs { of: root, ranges: vec![(0, 40)] }, file, delta];
    let get = Get::from(want).write();
    let mut asking = tokio::time::interval(Duration::from_millis(500));
    let (mut packs, mut files) = (Vec::new(), Vec::new());
    while packs.len() < 41 || files.is_empty() {
        tokio::select! {
            _ = asking.tick(), if packs.is_empty() && files.is_empty() => {
                device.publish(&up("r-1", UpKind::Get), &get, 0).await;
            }
            message = device.message() => match message.topic.as_str() {
                "ota/v1/acme/d/r-1/pack" => packs.push(Pack::read(&message.payload).unwrap()),
                _ => files.extend(Bundle::unpack(&message.payload, None).unwrap().files),
            }
        }
    }

    // That there is no delta is said here too.
    packs.retain(|pack| pack.as_delta().is_none_or(|found| found != (Digest::of(b"old"), &[][..])));
    let mut kinds: Vec<u32> = packs
        .iter()
        .filter_map(|pack| match pack.kind {
            PackKind::Chunk(index) => Some(index),
            PackKind::Piece(_) | PackKind::Delta => None,
        })
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    assert!(kinds.into_iter().eq(0..40));
    assert!(packs.iter().all(|pack| pack.payload == vec![7; CHUNK]));
    assert_eq!(files[0], halt);
    client.stop().await;
}

#[tokio::test]
async fn a_chunk_client_without_a_usable_address_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(ChunkStore::open(folder.path()).unwrap());
    let start = |brokers: &[&str]| {
        ChunkClient::start(config(brokers.iter().map(|b| (*b).into()).collect()), store.clone())
    };

    assert!(matches!(start(&[]), Err(ChunkClientError::NoBroker)));
    for bad in ["host", "host:", ":1883", "host:http"] {
        assert!(matches!(start(&[bad]), Err(ChunkClientError::Address(_))), "{bad}");
    }
}
