//! The TUF client as a program: command line, HTTP, files. What it checks, the public suite and the stories of the
//! protocol crate show.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use p256::ecdsa::SigningKey;
use serde_json::Value;
use tern_agent::clock;
use tern_protocol::digest::Digest;
use tern_protocol::message::Versions;
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
use tern_protocol::tuf::content::{ArtifactContent, HaltContent, RolloutContent, TargetsContent};
use tern_protocol::tuf::key::P256Signer;
use tern_protocol::tuf::{Signer, sign};

const IMAGE: &[u8] = b"the image of release 7";
const PATH: &str = "cam/7/rootfs";

/// A product's own repository as files, at version `v` of everything but root.
fn repository(v: u32) -> BTreeMap<String, Vec<u8>> {
    let key = |seed: u8| P256Signer::new(SigningKey::from_slice(&[seed; 32]).unwrap());
    let keys = |seed| Keys::one(key(seed).public());
    let expires = clock::wall() + 3600;
    let top = RootKeys { root: keys(1), timestamp: keys(2), snapshot: keys(3), targets: keys(4) };
    let delegated = DelegatedKeys { release: keys(5), rollout: keys(6), halt: keys(7) };
    let named = Named { path: PATH.into(), length: IMAGE.len() as u64, sha256: Digest::of(IMAGE) };
    let models = vec!["m1".parse().unwrap()];
    let content = ArtifactContent::new(7, "1.7", "rootfs", models, Digest::of(b""));
    let versions =
        Versions { root: 1, timestamp: v, snapshot: v, targets: v, release: v, rollout: v, halt: v };
    let product = "cam".parse().unwrap();
    let values: [(&str, u8, Value); 7] = [
        ("1.root", 1, build::root(1, expires, &top)),
        ("timestamp", 2, build::timestamp(v, expires, v, None, expires - 3600)),
        ("snapshot", 3, build::snapshot(v, expires, &versions)),
        ("targets", 4, build::targets(v, expires, &product, &delegated, &TargetsContent::default())),
        ("release", 5, build::release(v, expires, &[(named.clone(), content)])),
        ("rollout", 6, build::rollout(v, expires, &[named], &RolloutContent::default())),
        ("halt", 7, build::halt(v, expires, &HaltContent::default())),
    ];
    values
        .into_iter()
        .map(|(name, seed, value)| {
            (format!("/metadata/{name}.json"), sign::sign(value, &[&key(seed)]).unwrap())
        })
        .chain([(format!("/targets/{PATH}"), IMAGE.to_vec())])
        .collect()
}

/// Files over HTTP, and who asked for which.
#[derive(Clone)]
struct Web {
    url: String,
    files: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let web = Self { url, files: Arc::new(Mutex::new(files)), asked: Arc::default() };
        let served = web.clone();
        // Ends with the test's process.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| served.answer(stream)));
        web
    }

    fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines();
        let request = lines.next().unwrap().unwrap();
        lines.map(Result::unwrap).take_while(|line| !line.is_empty()).for_each(drop);
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let file = self.files.lock().unwrap().get(&path).cloned();
        self.asked.lock().unwrap().push(path);
        let (status, body) = file.map_or(("404 Not Found", vec![]), |bytes| ("200 OK", bytes));
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
            .unwrap();
        // A client that has read enough hangs up.
        let _sent = stream.write_all(&body);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

/// The program with a folder of its own.
struct Client {
    folder: tempfile::TempDir,
    web: Web,
}

impl Client {
    fn start(web: &Web) -> Self {
        let client = Self { folder: tempfile::tempdir().unwrap(), web: web.clone() };
        fs::create_dir(client.path("targets")).unwrap();
        let root = client.path("given.json");
        fs::write(&root, &web.files.lock().unwrap()["/metadata/1.root.json"]).unwrap();
        assert!(client.run(&["init", root.to_str().unwrap()]).status.success());
        client
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tuf-client"));
        command.arg("--metadata-dir").arg(self.path("metadata"));
        command.arg("--metadata-url").arg(format!("{}/metadata/", self.web.url));
        command.arg("--target-base-url").arg(format!("{}/targets", self.web.url));
        command.arg("--target-dir").arg(self.path("targets"));
        command.args(arguments).output().unwrap()
    }

    fn download(&self) -> Output {
        self.run(&["--target-name", PATH, "download"])
    }

    fn image(&self) -> Option<Vec<u8>> {
        fs::read(self.path("targets/cam%2F7%2Frootfs")).ok()
    }
}

#[test]
fn a_products_own_repository_is_plain_tuf_to_a_client_that_knows_nothing_of_it() {
    let web = Web::start(repository(1));
    let client = Client::start(&web);
    assert!(web.asked().is_empty());

    let output = client.download();

    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(client.image().unwrap(), IMAGE);
    let asked = ["2.root", "timestamp", "snapshot", "targets", "release"];
    let mut expected: Vec<_> = asked.iter().map(|name| format!("/metadata/{name}.json")).collect();
    expected.push(format!("/targets/{PATH}"));
    assert_eq!(web.asked(), expected);
    for role in ["timestamp", "snapshot", "targets", "release"] {
        let stored = fs::read(client.path(&format!("metadata/{role}.json"))).unwrap();
        assert_eq!(stored, web.files.lock().unwrap()[&format!("/metadata/{role}.json")], "{role}");
    }
    assert!(client.download().status.success());
    assert_eq!(web.asked(), ["/metadata/2.root.json", "/metadata/timestamp.json"]);
}

#[test]
fn bytes_that_the_release_role_did_not_approve_are_not_stored() {
    for (path, bytes) in [
        (format!("/targets/{PATH}"), b"the image of release 8".to_vec()),
        (format!("/targets/{PATH}"), [IMAGE, b"!"].concat()),
        (format!("/targets/{PATH}"), vec![0; 1 << 20]),
        ("/metadata/release.json".into(), b"{}".to_vec()),
        ("/metadata/timestamp.json".into(), vec![b' '; 1 << 20]),
    ] {
        let web = Web::start(repository(1));
        let client = Client::start(&web);
        web.files.lock().unwrap().insert(path.clone(), bytes);

        let output = client.download();

        assert_eq!((output.status.code(), client.image()), (Some(1), None), "{path}");
    }
}

#[test]
fn a_server_that_goes_back_in_time_is_refused_and_what_was_trusted_stays() {
    let web = Web::start(repository(2));
    let client = Client::start(&web);
    assert!(client.run(&["refresh"]).status.success());
    let held = fs::read(client.path("metadata/timestamp.json")).unwrap();
    web.files.lock().unwrap().extend(repository(1));

    let output = client.run(&["refresh"]);

    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("takes timestamp back from version 2 to 1"),
        "{said}"
    );
    assert_eq!(fs::read(client.path("metadata/timestamp.json")).unwrap(), held);
}

#[test]
fn without_a_root_or_a_server_nothing_is_trusted() {
    let web = Web::start(repository(1));
    let client = Client::start(&web);
    fs::remove_file(client.path("metadata/root.json")).unwrap();
    assert_eq!(client.run(&["refresh"]).status.code(), Some(1));
    assert!(web.asked().is_empty());

    let forged = client.path("forged.json");
    let root = String::from_utf8(repository(1)["/metadata/1.root.json"].clone()).unwrap();
    fs::write(&forged, root.replace("\"version\":1", "\"version\":9")).unwrap();
    assert_eq!(client.run(&["init", forged.to_str().unwrap()]).status.code(), Some(1));
    assert!(!client.path("metadata/root.json").exists());
}
