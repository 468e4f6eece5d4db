//! Releases, their packs, and a service that answers: what a device on a good link has at the other end.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use tern_agent::core::agent::Keys;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::chunk::{RootHasher, TreeShape, chunk_length, chunks_of, leaf, root};
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Delta, ImageId, Profile, signed};
use tern_protocol::digest::Digest;
use tern_protocol::limits::CHUNK;
use tern_protocol::mac::{Direction, PairSecret, epoch_of};
use tern_protocol::message::{
    Answer, AnswerKind, Get, Pack, Registry, Report, ReportKind, Reports, Versions, Want,
};
use tern_protocol::position::{Cut, Salt};
use tern_protocol::tuf::build::{self, DelegatedKeys, Named, RootKeys};
use tern_protocol::tuf::content::{
    Arm, ArtifactContent, Entry, EntryKind, HaltContent, RolloutContent, TargetsContent, point_hex,
};
use tern_protocol::tuf::key::{P256Signer, Signer as _};
use tern_protocol::tuf::{Role, Trusted, sign};

/// The time at which everything happens.
pub const WALL: u64 = 1_800_000_000;
const EXPIRES: u64 = WALL + 30 * 86_400;
const KID: u32 = 1;
const PEOPLE: u8 = 1;
const SERVICE: u8 = 2;
const DEVICE: u8 = 9;

fn key(holder: u8) -> P256Signer {
    P256Signer::new(SigningKey::from_slice(&[holder; 32]).expect("a small number is a key"))
}

fn telemetry(holder: u8) -> SecretKey {
    SecretKey::from_slice(&[holder + 100; 32]).expect("a small number is a key")
}

/// The device's keys: in a chip, so that no power cut loses them.
pub struct ChipKeys;

impl Keys for ChipKeys {
    fn identity(&self) -> Vec<u8> {
        vec![4; 65]
    }
    fn telemetry(&self) -> Vec<u8> {
        vec![4; 65]
    }
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn agree(&self, peer: &p256::PublicKey) -> PairSecret {
        // The other end is always the service: what they agree on is worked out once.
        static AGREED: OnceLock<PairSecret> = OnceLock::new();
        AGREED.get_or_init(|| PairSecret::agree(&telemetry(DEVICE), peer)).clone()
    }
}

/// Returns what the registry says of the device.
pub fn registry() -> Registry {
    Registry {
        product: "cam".parse().expect("an id"),
        model: "b3".parse().expect("an id"),
        carrier: "none".parse().expect("an id"),
        region: "eu".parse().expect("an id"),
    }
}

/// A delta, as a chunk server has it.
#[derive(Debug, Clone)]
struct Encoded {
    delta: Delta,
    leaves: Vec<Digest>,
    signed: Vec<u8>,
}

impl Encoded {
    /// Encodes in packs that are small, so that small images have several. `claims` is what the manifest says to lead from.
    fn new(old: &[u8], claims: ImageId, new: &[u8]) -> Self {
        let options = Options { pack: 4096, ..Options::new(Profile::Mcu) };
        let mut delta = tern_protocol::delta::encode(old, new, options);
        delta.manifest.old = claims;
        let leaves = delta.packs.iter().map(|pack| leaf(pack)).collect();
        let signed = signed::sign(&delta.manifest, &[&key(SERVICE)]).expect("a manifest signs");
        Self { delta, leaves, signed }
    }
}

/// A release: its bytes, and what names them.
#[derive(Debug, Clone)]
pub struct Release {
    /// Release counter.
    pub rc: u64,
    /// Its image.
    pub image: Vec<u8>,
    leaves: Vec<Digest>,
    /// Deltas that lead to it.
    deltas: Vec<Encoded>,
    /// Packages for components, in the order in which they are installed.
    pub packages: Vec<(&'static str, Release)>,
}

impl Release {
    /// Makes one whose bytes are its own from the first sector to the last.
    pub fn new(rc: u64, length: usize) -> Self {
        let mut image = Vec::with_capacity(length + 32);
        let mut block = Digest::of(&rc.to_be_bytes());
        while image.len() < length {
            image.extend_from_slice(&block.0);
            block = Digest::of(&block.0);
        }
        image.truncate(length);
        let mut hasher = RootHasher::default();
        hasher.update(&image);
        Self { rc, image, leaves: hasher.finish(), deltas: Vec::new(), packages: Vec::new() }
    }

    /// Makes the next one: most of it is as it was.
    pub fn after(before: &Self) -> Self {
        let mut image = before.image.clone();
        let foreign = Self::new(before.rc + 500, 60_000).image;
        image.splice(40_000..45_000, foreign[..30_000].iter().copied());
        image.splice(100_000..110_000, foreign[30_000..].iter().copied());
        (0..200).for_each(|at| image[at * 150] ^= 5);
        image.truncate(before.image.len() - 500);
        let mut hasher = RootHasher::default();
        hasher.update(&image);
        Self { rc: before.rc + 1, image, leaves: hasher.finish(), ..before.clone() }
    }

    /// Has deltas lead to it: the whole of it, coded, and from `before`.
    pub fn with_deltas(mut self, before: &Self) -> Self {
        let claims = ImageId { length: before.image.len() as u64, root: before.root() };
        self.deltas = vec![
            Encoded::new(&before.image, claims, &self.image),
            Encoded::new(&[], ImageId::nothing(), &self.image),
        ];
        self
    }

    /// The same, made for another base than devices have, though it says that it is that one.
    pub fn with_wrong_delta(mut self, before: &Self) -> Self {
        let claims = ImageId { length: before.image.len() as u64, root: before.root() };
        let mut other = before.image.clone();
        // One place that is coded, and one that is moved as it is.
        for at in [15_010, 60_000] {
            other[at] ^= 0xff;
        }
        self.deltas = vec![Encoded::new(&other, claims, &self.image)];
        self
    }

    /// Adds packages for two components, shorter from release to release.
    pub fn with_packages(mut self) -> Self {
        let shorter = 100 * usize::try_from(self.rc).unwrap_or(0);
        let package = |number: u64, length| Self::new(self.rc * 1000 + number, length - shorter);
        self.packages = vec![("modem", package(1, 70_000)), ("app", package(2, 3000))];
        self
    }

    fn root(&self) -> Digest {
        root(&self.leaves)
    }

    /// Returns what a label says of it.
    pub fn label(&self) -> tern_agent::slot::Image {
        tern_agent::slot::Image {
            rc: self.rc,
            version: format!("1.{}", self.rc),
            length: self.image.len() as u64,
            sha256: Digest::of(&self.image),
            root: self.root(),
        }
    }
}

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    releases: Arc<BTreeMap<u64, Release>>,
    offered: Option<u64>,
    halted: Vec<u64>,
    version: u32,
    root: Arc<[u8]>,
    /// The bundle on `head`, made anew with each version.
    head: Arc<[u8]>,
    /// Every report, by its number; a number that comes twice must say the same.
    pub heard: BTreeMap<u64, ReportKind>,
    /// A number that was used for two reports.
    pub reused: Option<u64>,
    /// How often a pack, or a chunk, was sent: by its object and number.
    pub sent: BTreeMap<(Digest, u32), u32>,
}

impl Service {
    /// Starts with these releases, none of which is offered.
    pub fn new(releases: &[Release]) -> Self {
        let one = |holder: u8| build::Keys::one(key(holder).public());
        let keys = RootKeys {
            root: one(PEOPLE),
            timestamp: one(SERVICE),
            snapshot: one(SERVICE),
            targets: one(PEOPLE),
        };
        let root = sign::sign(build::root(1, EXPIRES, &keys), &[&key(PEOPLE)]).expect("a root signs");
        Self {
            releases: Arc::new(releases.iter().map(|release| (release.rc, release.clone())).collect()),
            offered: None,
            halted: Vec::new(),
            version: 1,
            root: root.into(),
            head: Arc::default(),
            heard: BTreeMap::new(),
            reused: None,
            sent: BTreeMap::new(),
        }
    }

    /// Returns the root that a factory puts on the device.
    pub fn trust(&self) -> Trusted {
        Trusted::new(&self.root).expect("our own root is one")
    }

    /// Returns the release in `rc`.
    pub fn release(&self, rc: u64) -> &Release {
        &self.releases[&rc]
    }

    /// Returns the release whose image these bytes begin with.
    pub fn release_in(&self, bytes: &[u8]) -> Option<u64> {
        self.releases.values().find(|release| bytes.starts_with(&release.image)).map(|release| release.rc)
    }

    /// Offers a release.
    pub fn offer(&mut self, rc: u64) {
        self.offered = Some(rc);
        self.publish();
    }

    /// Kills what is offered.
    pub fn halt(&mut self) {
        self.halted.extend(self.offered.take());
        self.publish();
    }

    /// Tells whether the release is dead.
    pub fn is_halted(&self, rc: u64) -> bool {
        self.halted.contains(&rc)
    }

    /// Returns what tells it from every other one with these releases.
    pub fn state(&self) -> String {
        let Self { offered, halted, version, heard, reused, .. } = self;
        format!("{offered:?} {halted:?} {version} {heard:?} {reused:?}")
    }

    fn versions(&self) -> Versions {
        let v = self.version;
        Versions { root: 1, timestamp: v, snapshot: v, targets: v, release: v, rollout: v, halt: v }
    }

    /// Returns the bundle on `head`.
    pub fn head(&self) -> Vec<u8> {
        self.head.to_vec()
    }

    fn publish(&mut self) {
        self.version += 1;
        self.head = self.bundle().into();
    }

    fn bundle(&self) -> Vec<u8> {
        let v = self.versions();
        let one = |holder: u8| build::Keys::one(key(holder).public());
        let delegated = DelegatedKeys { release: one(PEOPLE), rollout: one(SERVICE), halt: one(SERVICE) };
        let content = TargetsContent {
            telemetry: BTreeMap::from([(KID, point_hex(&telemetry(SERVICE).public_key()))]),
            ..TargetsContent::default()
        };
        let approved: Vec<_> = self.releases.values().flat_map(artifacts).collect();
        let offered: Vec<&Release> = self.offered.iter().map(|rc| &self.releases[rc]).collect();
        let entries = offered.iter().map(|release| entry(release.rc)).collect();
        let names: Vec<Named> =
            offered.iter().flat_map(|release| artifacts(release)).map(|(named, _)| named).collect();
        let (rollout, halt) = (RolloutContent { entries }, HaltContent { halted: self.halted.clone() });
        let product = registry().product;
        let signed = [
            (Role::Timestamp, SERVICE, build::timestamp(v.timestamp, EXPIRES, v.snapshot, None, WALL)),
            (Role::Snapshot, SERVICE, build::snapshot(v.snapshot, EXPIRES, &v)),
            (Role::Targets, PEOPLE, build::targets(v.targets, EXPIRES, &product, &delegated, &content)),
            (Role::Release, PEOPLE, build::release(v.release, EXPIRES, &approved)),
            (Role::Rollout, SERVICE, build::rollout(v.rollout, EXPIRES, &names, &rollout)),
            (Role::Halt, SERVICE, build::halt(v.halt, EXPIRES, &halt)),
        ];
        let file =
            |(role, by, value)| File { role, bytes: sign::sign(value, &[&key(by)]).expect("it signs") };
        Bundle { root: 1, files: signed.map(file).into() }.pack_stored()
    }

    /// Returns what has this root: an image, or a package.
    fn payload(&self, of: Digest) -> Option<&Release> {
        let packages = self.releases.values().flat_map(|release| release.packages.iter().map(|(_, it)| it));
        self.releases.values().chain(packages).find(|payload| payload.root() == of)
    }

    /// Returns how often packs of deltas were sent that had been sent before, and how many chunks were.
    pub fn sent_again(&self) -> (u32, u32) {
        let (packs, chunks): (Vec<_>, Vec<_>) =
            self.sent.iter().partition(|((of, _), _)| self.delta(*of).is_some());
        (packs.iter().map(|(_, times)| **times - 1).sum(), chunks.iter().map(|(_, times)| **times).sum())
    }

    /// Returns the delta of this name.
    fn delta(&self, of: Digest) -> Option<&Encoded> {
        self.releases.values().flat_map(|release| &release.deltas).find(|it| it.delta.manifest.root == of)
    }

    /// Tells whether a release has this package for a component.
    pub fn has_package(&self, component: &str, bytes: &[u8]) -> bool {
        let packages = self.releases.values().flat_map(|release| &release.packages);
        packages.into_iter().any(|(of, package)| *of == component && package.image == bytes)
    }

    /// Tells whether releases have packages for components.
    pub fn has_packages(&self) -> bool {
        self.releases.values().any(|release| !release.packages.is_empty())
    }

    /// Answers a request for packs.
    pub fn packs(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        let Ok(get) = Get::read(payload) else { return Vec::new() };
        let mut packs = Vec::new();
        for want in get.want {
            if let Want::Packs { of, ranges } = &want {
                let numbers = ranges.iter().flat_map(|(from, to)| *from..*to);
                numbers.for_each(|number| *self.sent.entry((*of, number)).or_default() += 1);
            }
            match want {
                Want::Packs { of, ranges } if self.delta(of).is_some() => {
                    let all = &self.delta(of).expect("just seen").delta.packs;
                    for index in ranges.into_iter().flat_map(|(from, to)| from..to) {
                        packs.push(Pack::chunk(&of, index, all[index as usize].clone()).write());
                    }
                }
                Want::Piece { of, level, index } if self.delta(of).is_some() => {
                    let leaves = &self.delta(of).expect("just seen").leaves;
                    let piece = tern_protocol::chunk::PieceId { level, index };
                    let chunks = u32::try_from(leaves.len()).expect("a small delta");
                    let digests = TreeShape::new(chunks).cut(leaves, piece);
                    packs.extend(digests.map(|digests| Pack::piece(&of, piece, &digests).write()));
                }
                Want::Delta { from, to, .. } => {
                    let found = self.payload(to).and_then(|release| {
                        release.deltas.iter().find(|it| it.delta.manifest.old.root == from)
                    });
                    packs.push(Pack::delta(&from, &to, found.map_or(&[], |it| &it.signed)).write());
                }
                Want::Packs { of, ranges } => {
                    let Some(release) = self.payload(of) else {
                        continue;
                    };
                    for index in ranges.into_iter().flat_map(|(from, to)| from..to) {
                        let from = index as usize * CHUNK;
                        let length = chunk_length(release.image.len() as u64, index);
                        packs.push(
                            Pack::chunk(&of, index, release.image[from..from + length].to_vec()).write(),
                        );
                    }
                }
                Want::Piece { of, level, index } => {
                    let Some(release) = self.payload(of) else {
                        continue;
                    };
                    let piece = tern_protocol::chunk::PieceId { level, index };
                    let chunks = chunks_of(release.image.len() as u64).unwrap_or(0);
                    let digests = TreeShape::new(chunks).cut(&release.leaves, piece);
                    packs.extend(digests.map(|digests| Pack::piece(&of, piece, &digests).write()));
                }
                Want::File { .. } => {}
            }
        }
        packs
    }

    /// Reads reports without taking them.
    pub fn peek(&self, payload: &[u8]) -> Option<Reports> {
        let body = sealed(Direction::Up, epoch_of(payload)?).open(payload).ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// Takes reports and returns what it says to them.
    pub fn report(&mut self, payload: &[u8]) -> Vec<Vec<u8>> {
        let Some(e) = epoch_of(payload) else { return Vec::new() };
        let Ok(body) = sealed(Direction::Up, e).open(payload) else { return Vec::new() };
        let Ok(reports) = serde_json::from_slice::<Reports>(&body) else { return Vec::new() };
        reports.into_iter().flat_map(|report| self.one(report)).collect()
    }

    fn one(&mut self, report: Report) -> Vec<Vec<u8>> {
        let e = report.e;
        // An ask is not kept by the device, and a hello is made anew.
        if !matches!(report.kind, ReportKind::Ask { .. } | ReportKind::Hello(_) | ReportKind::Started { .. })
        {
            match self.heard.get(&report.n) {
                Some(before) if *before != report.kind => self.reused = Some(report.n),
                _ => {}
            }
            self.heard.insert(report.n, report.kind.clone());
        }
        let ranges = vec![(report.n, report.n)];
        let mut says = vec![AnswerKind::Ack { ranges, registry: Some(registry()) }];
        if let ReportKind::Ask { nonce, .. } | ReportKind::Started { nonce, .. } = report.kind {
            let Versions { rollout, halt, .. } = self.versions();
            says.push(AnswerKind::Answer { nonce, time: WALL, rollout, halt, ranges: Vec::new() });
        }
        let seal = |kind| sealed(Direction::Down, e).seal(&Answer { e, k: KID, kind });
        says.into_iter().map(seal).collect()
    }
}

fn sealed(direction: Direction, epoch: u64) -> tern_protocol::mac::MacKey {
    static AGREED: OnceLock<PairSecret> = OnceLock::new();
    let secret =
        AGREED.get_or_init(|| PairSecret::agree(&telemetry(SERVICE), &telemetry(DEVICE).public_key()));
    let (fleet, device) = ("acme".parse().expect("an id"), "dev-1".parse().expect("an id"));
    secret.key(direction, &fleet, &device, KID, epoch)
}

/// What a release consists of.
fn artifacts(release: &Release) -> Vec<(Named, ArtifactContent)> {
    let packages = release.packages.iter().zip(1..);
    let packages =
        packages.map(|((component, package), order)| artifact(release.rc, component, package, order));
    [artifact(release.rc, "rootfs", release, 0)].into_iter().chain(packages).collect()
}

fn artifact(rc: u64, component: &str, payload: &Release, order: u8) -> (Named, ArtifactContent) {
    let (path, length) = (format!("cam/{rc}/{component}"), payload.image.len() as u64);
    let named = Named { path, length, sha256: Digest::of(&payload.image) };
    let (version, models) = (format!("1.{rc}"), vec![registry().model]);
    let content = ArtifactContent::new(rc, version, component.to_owned(), models, payload.root());
    (named, ArtifactContent { floor: rc.saturating_sub(1), order, ..content })
}

fn entry(rc: u64) -> Entry {
    Entry {
        rollout: format!("r{rc}").parse().expect("an id"),
        rc,
        kind: EntryKind::Update,
        attempt: 1,
        regions: vec![],
        models: vec![],
        carriers: vec![],
        salt: Salt([5; 16]),
        cuts: [(registry().model, Cut::ALL)].into(),
        hold_back: None,
        schedule: None,
        from: vec![],
        list: vec![],
        spread: 0,
        urgency: Default::default(),
        arm: Arm::Acked,
    }
}
