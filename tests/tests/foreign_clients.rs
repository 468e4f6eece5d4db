//! Clients that nobody here wrote follow what our service publishes: python-tuf's ngclient, and the crate tough.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tern_protocol::digest::Digest;
use tern_protocol::tuf::Role;
use tern_tests::lab::{Broker, Foreign, Lab, LabDevice, MODEL, Making, Mirror, PRODUCT, Peer, made};

const PEERS: [(Peer, &str); 2] = [(Peer::PythonTuf, "python-tuf"), (Peer::Tough, "tough")];

/// A service whose offline keys three people hold: root, targets and release 2 of 3.
struct World {
    lab: Lab,
    foreign: Foreign,
    mirror: Mirror,
    images: BTreeMap<u64, PathBuf>,
}

impl World {
    fn start() -> Option<Self> {
        let foreign = Foreign::built()?;
        let mut lab = Lab::bare(Broker::Embedded);
        let path = |name: &str| show(&lab.path(name));
        let (data, ann, bob, cid) = (path("data"), path("ann"), path("bob"), path("cid"));
        let mut words =
            vec!["keys", "init", "--fleet", "lab", "--product", PRODUCT, "--data", &data, "--no-passphrase"];
        for (holder, stick) in [("ann", &ann), ("bob", &bob), ("cid", &cid)] {
            words.extend(["--holder", holder, "--offline", stick]);
        }
        words.extend([
            "--root-keys",
            "3",
            "--root-threshold",
            "2",
            "--release-keys",
            "3",
            "--release-threshold",
            "2",
        ]);
        lab.json(&words);
        lab.start_service();
        let mirror = Mirror::new(lab.path("mirror"));
        let world = Self { lab, foreign, mirror, images: BTreeMap::new() };
        world.add_dora();
        let factory = world.lab.path("factory.img");
        made(&factory, 50_000, 1);
        // A rollout is for somebody; that the agent follows is shown elsewhere.
        LabDevice::make(&world.lab, "dev-1", &factory, &Making::default());
        Some(world)
    }

    /// Dora takes ann's place in every role, one after the other.
    fn add_dora(&self) {
        fs::create_dir(self.lab.path("dora")).unwrap();
        for key in ["root", "targets", "release"] {
            let key = show(&self.stick("dora", &format!("{key}.pem")));
            self.lab.json(&["keys", "make", &key, "--no-passphrase"]);
        }
        for file in ["root.json", "targets.json", "release.json"] {
            fs::copy(self.stick("ann", file), self.stick("dora", file)).unwrap();
        }
    }

    fn stick(&self, holder: &str, name: &str) -> PathBuf {
        self.lab.path(holder).join(name)
    }

    fn sign(&self, noun: &str, file: &Path, role: &str, holders: &[&str]) {
        for holder in holders {
            let (file, key) = (show(file), show(&self.stick(holder, &format!("{role}.pem"))));
            self.lab.json(&[noun, "sign", &file, "--key", &key, "--out", &file]);
        }
    }

    fn release(&mut self, rc: u64, holders: &[&str]) {
        let image = self.lab.path(&format!("{rc}.img"));
        made(&image, 150_000, rc);
        let draft = self.lab.path(&format!("{rc}.json"));
        let (number, version) = (rc.to_string(), format!("{rc}.0.0"));
        let words = ["release", "create", "--product", PRODUCT, "--rc", &number, "--version", &version];
        let more = ["--model", MODEL, "--image", &show(&image), "--out", &show(&draft)];
        self.lab.json(&[&words[..], &more[..]].concat());
        self.sign("release", &draft, "release", holders);
        self.lab.json(&["release", "publish", &show(&draft), "--image", &show(&image)]);
        self.mirror.add(&name(rc), &image);
        self.images.insert(rc, image);
    }

    /// Gives a role new keys: of offline roles ann's goes and dora's comes. Returns which files that took.
    fn rotate(&self, role: Role, before: &[&str]) -> Vec<String> {
        let out = self.lab.path(&format!("new-{role}"));
        let (folder, data) = (show(&out), show(&self.lab.data()));
        let dora = format!("dora={}", show(&self.stick("dora", &format!("{role}.pub"))));
        let change = match role {
            Role::Root | Role::Targets | Role::Release => vec!["--add", &dora, "--remove", "ann"],
            Role::Rollout | Role::Halt | Role::Snapshot | Role::Timestamp => vec!["--data", &data],
        };
        let words = ["keys", "rotate", role.name(), "--product", PRODUCT, "--out", &folder];
        self.lab.json(&[&words[..], &change[..]].concat());
        let mut files = Vec::new();
        for file in [Role::Root, Role::Targets, Role::Release] {
            let path = out.join(format!("{file}.json"));
            if !path.exists() {
                continue;
            }
            let holders: &[&str] = match file {
                // The old threshold and the new one: ann and bob, bob and dora.
                Role::Root if role == Role::Root => &["ann", "bob", "dora"],
                Role::Root => &["bob", "dora"],
                _ if role == file => &["bob", "dora"],
                _ => before,
            };
            self.sign("keys", &path, file.name(), holders);
            files.push(show(&path));
        }
        let given: Vec<&str> = files.iter().map(String::as_str).collect();
        self.lab.json(&[&["keys", "publish", "--product", PRODUCT], &given[..]].concat());
        for (file, holder) in files.iter().flat_map(|file| ["ann", "bob", "cid", "dora"].map(|h| (file, h))) {
            fs::copy(file, self.stick(holder, &show(Path::new(Path::new(file).file_name().unwrap()))))
                .unwrap();
        }
        files
    }

    /// Has both clients follow what the service publishes now, each from where it stood; returns the versions.
    fn followed(&self, what: &str, stores: &str) -> BTreeMap<String, u64> {
        let versions = self.mirror.follow(&self.lab);
        let expected = self.expected(&versions);
        for (peer, word) in PEERS {
            let ran = self.run(peer, &self.lab.path(&format!("{stores}-{word}")), &self.mirror);
            assert_eq!(ran.1, expected, "{word} after {what}: {}", ran.0);
        }
        versions
    }

    fn expected(&self, versions: &BTreeMap<String, u64>) -> Value {
        let target = |(rc, image): (&u64, &PathBuf)| {
            let bytes = fs::read(image).unwrap();
            (name(*rc), json!({"length": bytes.len(), "sha256": Digest::of(&bytes)}))
        };
        json!({"versions": versions, "targets": self.images.iter().map(target).collect::<BTreeMap<_, _>>()})
    }

    /// Returns what a client says against, and what it believes.
    fn run(&self, peer: Peer, store: &Path, mirror: &Mirror) -> (String, Value) {
        let names: Vec<String> = self.images.keys().map(|rc| name(*rc)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let first = self.mirror.file(Role::Root, 1);
        let ran = self.foreign.follows(peer, &first, store, mirror, &names);
        match ran.code {
            Some(0) => (ran.err, serde_json::from_str(&ran.out).unwrap()),
            Some(1) => (ran.err, Value::Null),
            _ => panic!("{ran:?}"),
        }
    }
}

fn name(rc: u64) -> String {
    format!("{PRODUCT}/{rc}/rootfs")
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn foreign_clients_follow_our_service_through_new_keys_of_every_role() {
    let Some(mut world) = World::start() else { return };
    let first = world.followed("the first files", "old");
    // A release by itself says nothing to devices: it goes out with the first rollout of it.
    world.release(2, &["ann", "bob"]);
    world.lab.roll_out(2, "r2", "all", 0);
    let step = world.followed("a rollout step", "old");
    assert!(step["rollout"] > first["rollout"], "{first:?} {step:?}");

    let mut last = step;
    for role in
        [Role::Root, Role::Targets, Role::Release, Role::Rollout, Role::Halt, Role::Snapshot, Role::Timestamp]
    {
        // Targets have other holders once they are rotated.
        let holders: &[&str] = if role == Role::Root { &["ann", "bob"] } else { &["bob", "dora"] };
        let keys = keys_of(&world.mirror, role, last["root"]);

        world.rotate(role, holders);
        let now = world.followed(&format!("new keys of {role}"), "old");

        assert_ne!(keys_of(&world.mirror, role, now["root"]), keys, "{role}");
        last = now;
    }
    assert!(last.values().all(|version| *version > 1), "{last:?}");
    world.release(3, &["bob", "dora"]);
    world.lab.roll_out(3, "r3", "all", 0);
    world.followed("a release by the new keys", "old");
    world.lab.json(&["rollout", "kill", "r3"]);
    let killed = world.followed("a kill", "old");
    assert!(killed["halt"] > last["halt"]);
    // One that knows nothing but the first root.
    world.followed("all of it", "new");
}

/// Returns the ids of a role's keys in what is published.
fn keys_of(mirror: &Mirror, role: Role, root: u64) -> Value {
    let file =
        |role| -> Value { serde_json::from_slice(&fs::read(mirror.file(role, root)).unwrap()).unwrap() };
    match role {
        Role::Root | Role::Timestamp | Role::Snapshot | Role::Targets => {
            file(Role::Root)["signed"]["roles"][role.name()]["keyids"].clone()
        }
        Role::Release | Role::Rollout | Role::Halt => {
            let roles = file(Role::Targets)["signed"]["delegations"]["roles"].as_array().unwrap().clone();
            roles.into_iter().find(|line| line["name"] == role.name()).unwrap()["keyids"].clone()
        }
    }
}

#[test]
fn foreign_clients_refuse_what_our_service_did_not_sign() {
    let Some(mut world) = World::start() else { return };
    world.rotate(Role::Root, &["ann", "bob"]);
    world.release(2, &["ann", "bob"]);
    world.lab.roll_out(2, "r2", "all", 0);
    world.followed("everything", "good");

    for role in Role::ALL {
        let forged = world.mirror.copied(world.lab.path(&format!("forged-{role}")));
        let file = forged.file(role, 2);
        let text = fs::read_to_string(&file).unwrap();
        // Another end, which is what a broker that wants to freeze a fleet would like to write.
        let other = text.replacen("\"expires\":\"20", "\"expires\":\"21", 1);
        assert_ne!(other, text);
        fs::write(&file, other).unwrap();
        for (peer, word) in PEERS {
            let (said, believed) = world.run(peer, &world.lab.path(&format!("{role}-{word}")), &forged);
            assert_eq!(believed, Value::Null, "{word}, {role}");
            assert!(said.to_lowercase().contains(blamed(peer, role)), "{word}, {role}: {said}");
        }
    }
    let image = world.mirror.targets().join(name(2));
    let mut bytes = fs::read(&image).unwrap();
    bytes[77] ^= 1;
    fs::write(&image, bytes).unwrap();
    for (peer, word) in PEERS {
        let (said, believed) = world.run(peer, &world.lab.path(&format!("image-{word}")), &world.mirror);
        assert_eq!(believed, Value::Null, "{word}");
        assert!(said.to_lowercase().contains("hash"), "{word}: {said}");
    }
}

/// Returns what a refusal names: of snapshot, timestamp tells the hash; tough calls every delegated role targets.
fn blamed(peer: Peer, role: Role) -> &'static str {
    match role {
        Role::Snapshot => "hash",
        Role::Release | Role::Rollout | Role::Halt if peer == Peer::Tough => "targets",
        _ => role.name(),
    }
}
