//! The real service around a ledger in memory, with the operator's offline keys beside it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use tern_controller::core::fact::{Entry, Fact, SignedFile};
use tern_controller::core::fleet::Fleet;
use tern_controller::core::service::{Input, Lives, OnlineKeys, Output, Service, Step};
use tern_protocol::bundle::File;
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, ProductId};
use tern_protocol::mac::{Direction, PairSecret, epoch_of, kid_of};
use tern_protocol::message::{Answer, AnswerKind, Attempt, Nonce, Report, ReportKind, Reports, TimeAnswer};
use tern_protocol::offer::Artifact;
use tern_protocol::state::Outcome;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::build::{self, DelegatedKeys, Keys, Named, RootKeys};
use tern_protocol::tuf::content::{ArtifactContent, TargetsContent, point_hex};
use tern_protocol::tuf::key::{P256Signer, PublicKey, SignError};
use tern_protocol::tuf::{Role, Signer, sign};

use super::clock::{EPOCH, Rng};
use crate::apart::service::Apart;

/// Offline files outlive every simulation.
const EXPIRES: u64 = EPOCH / 1000 + 10 * 365 * 24 * 3600;

/// Returns a key for one purpose.
pub fn secret_key(seed: u64, purpose: &str) -> SecretKey {
    let mut rng = Rng::of(seed, purpose);
    loop {
        // Almost every 32 bytes are a key.
        if let Ok(key) = SecretKey::from_slice(&rng.seed()) {
            return key;
        }
    }
}

/// Returns the purpose from which a telemetry key of the service is drawn.
fn telemetry(kid: u32) -> String {
    if kid == 1 { "telemetry".to_owned() } else { format!("telemetry {kid}") }
}

fn signer(seed: u64, purpose: &str) -> P256Signer {
    P256Signer::new(SigningKey::from(secret_key(seed, purpose)))
}

/// Returns the first keys of a service whose keys are drawn from `seed`.
pub fn online_keys(seed: u64) -> OnlineKeys {
    let key = |role: &str| -> Box<dyn Signer + Send + Sync> { Box::new(signer(seed, role)) };
    OnlineKeys {
        rollout: key("rollout").into(),
        halt: key("halt"),
        snapshot: key("snapshot"),
        timestamp: key("timestamp"),
        telemetry: BTreeMap::from([(1, secret_key(seed, &telemetry(1)))]),
        time: Some(SigningKey::from(secret_key(seed, "time"))),
    }
}

/// A key that can be out of order, like a token that was pulled.
struct Token {
    signer: P256Signer,
    pulled: Arc<AtomicBool>,
}

impl Signer for Token {
    fn public(&self) -> PublicKey {
        self.signer.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        if self.pulled.load(Ordering::Relaxed) {
            let source = std::io::Error::other("the token was pulled").into();
            return Err(SignError::Signer { key: self.public().id(), source });
        }
        self.signer.sign(message)
    }
}

/// The controller and its operator.
pub struct Controller {
    seed: u64,
    fleet: FleetId,
    product: ProductId,
    rng: Rng,
    service: Option<Service>,
    /// The service, if it runs in a process of its own.
    pub apart: Option<Apart>,
    halt_pulled: Arc<AtomicBool>,
    /// Devices' telemetry keys.
    peers: BTreeMap<DeviceId, p256::PublicKey>,
    secrets: BTreeMap<(DeviceId, u32), PairSecret>,
    releases: Vec<(Named, ArtifactContent)>,
    release_version: u32,
    root_version: u32,
    targets_version: u32,
    /// How often the key of a role was replaced, by role.
    replaced: BTreeMap<&'static str, u32>,
    /// Numbers of the telemetry keys that targets names.
    telemetry: Vec<u32>,
    /// Every fact, in order.
    pub ledger: Vec<Entry>,
    /// When something was handed in last.
    now: u64,
    /// Steps of the service so far.
    pub steps: u64,
    /// Steps in which a release was killed.
    pub killed: BTreeMap<u64, u64>,
    /// Steps in which a nonce was answered.
    pub answers: BTreeMap<[u8; 16], u64>,
    /// Whoever answers nonces adds this many seconds to the time.
    pub lies_about_time: u64,
    /// Deliberately wrong: from a kill on, answers name no versions and nothing is published.
    pub forgets_kills: bool,
    /// The ledger is a copy that was put in place, and the shell saw it; until the next start.
    pub copied: bool,
}

impl Controller {
    /// Starts a service without facts.
    pub fn new(seed: u64, fleet: FleetId, product: ProductId) -> Self {
        Self::drawn(seed, seed, fleet, product)
    }

    /// The same with keys from one seed and everything else from another.
    pub fn drawn(seed: u64, chance: u64, fleet: FleetId, product: ProductId) -> Self {
        let mut controller = Self::not_started((seed, chance), fleet, product);
        controller.start();
        controller
    }

    /// Starts a service without facts in a process of its own, whose keys are drawn from the same seed.
    pub fn in_a_process(seed: u64, fleet: FleetId, product: ProductId, apart: Apart) -> Self {
        let fresh = Self::not_started((seed, seed), fleet, product);
        let mut controller = Self { apart: Some(apart), ..fresh };
        controller.start();
        controller
    }

    fn not_started((seed, chance): (u64, u64), fleet: FleetId, product: ProductId) -> Self {
        Self {
            seed,
            fleet,
            product,
            rng: Rng::of(chance, "controller"),
            service: None,
            apart: None,
            halt_pulled: Arc::default(),
            peers: BTreeMap::new(),
            secrets: BTreeMap::new(),
            releases: Vec::new(),
            release_version: 1,
            root_version: 1,
            targets_version: 1,
            replaced: BTreeMap::new(),
            telemetry: vec![1],
            ledger: Vec::new(),
            now: 0,
            steps: 0,
            killed: BTreeMap::new(),
            answers: BTreeMap::new(),
            lies_about_time: 0,
            forgets_kills: false,
            copied: false,
        }
    }

    /// Has the operator sign new targets with another rollout key, and starts a service that holds it.
    pub fn rotate_rollout_key(&mut self) {
        self.replace("rollout");
        self.targets_version += 1;
        self.start();
    }

    /// Has the operator sign new targets with another key of `role` (halt, time), and gives it to the service.
    pub fn rotate_by_targets(&mut self, role: &'static str) {
        self.replace(role);
        self.targets_version += 1;
        self.stage();
    }

    /// Has the operator sign a new root with another timestamp key, and gives it to the service.
    pub fn rotate_timestamp_key(&mut self) {
        self.replace("timestamp");
        self.root_version += 1;
        self.stage();
    }

    /// Has the operator sign new targets that name one telemetry key more.
    pub fn add_telemetry_key(&mut self) {
        self.telemetry.push(self.telemetry.last().map_or(1, |kid| kid + 1));
        self.targets_version += 1;
        self.stage();
        for device in self.peers.keys().cloned().collect::<Vec<_>>() {
            self.agree(&device);
        }
    }

    /// Has the operator sign new targets without a telemetry key.
    pub fn remove_telemetry_key(&mut self, kid: u32) {
        self.telemetry.retain(|held| *held != kid);
        self.targets_version += 1;
        self.stage();
    }

    fn replace(&mut self, role: &'static str) {
        *self.replaced.entry(role).or_default() += 1;
    }

    /// Returns the purpose from which the present key of a role is drawn.
    fn purpose(&self, role: &str) -> String {
        match self.replaced.get(role) {
            None => role.to_owned(),
            Some(times) => format!("{role} {}", times + 1),
        }
    }

    /// Returns the present key of a role, as a thief has it.
    pub fn stolen(&self, role: &str) -> P256Signer {
        signer(self.seed, &self.purpose(role))
    }

    /// Returns one of the service's telemetry keys, as a thief has it.
    pub fn stolen_telemetry(&self, kid: u32) -> SecretKey {
        secret_key(self.seed, &telemetry(kid))
    }

    fn stage(&mut self) {
        let keys = self.online();
        let product = self.product.clone();
        if let Some(service) = &mut self.service {
            service.stage_keys(product, keys);
        }
    }

    /// Returns the offline files of a new product: root, targets, and a release file without releases.
    pub fn offline_files(&self) -> Vec<SignedFile> {
        let key = |role: &str| Keys::one(self.stolen(role).public());
        let root_keys = RootKeys {
            root: key("root"),
            timestamp: key("timestamp"),
            snapshot: key("snapshot"),
            targets: key("targets"),
        };
        let delegated = DelegatedKeys { release: key("release"), rollout: key("rollout"), halt: key("halt") };
        let point = |purpose: &str| point_hex(&secret_key(self.seed, purpose).public_key());
        let telemetry = self.telemetry.iter().map(|kid| (*kid, point(&telemetry(*kid)))).collect();
        let content = TargetsContent { telemetry, time: Some(point(&self.purpose("time"))) };
        let targets = build::targets(self.targets_version, EXPIRES, &self.product, &delegated, &content);
        [
            (Role::Root, build::root(self.root_version, EXPIRES, &root_keys), "root"),
            (Role::Targets, targets, "targets"),
            (Role::Release, build::release(1, EXPIRES, &[]), "release"),
        ]
        .into_iter()
        .map(|(role, value, purpose)| {
            let bytes = sign::sign(value, &[&signer(self.seed, purpose)]).expect("our own files sign");
            SignedFile::new(role, &bytes).expect("metadata is text")
        })
        .collect()
    }

    /// Signs a release file that names one artifact more.
    pub fn sign_release(&mut self, rc: u64, floor: u64, models: &[ModelId], artifact: &Artifact) -> String {
        let (version, component) = (format!("{rc}.0.0"), artifact.component.clone());
        let content = ArtifactContent {
            floor,
            ..ArtifactContent::new(rc, version, component, models.to_vec(), artifact.root)
        };
        let path = build::path(&self.product, rc, &artifact.component);
        self.releases.push((Named { path, length: artifact.length, sha256: artifact.sha256 }, content));
        self.release_version += 1;
        let value = build::release(self.release_version, EXPIRES, &self.releases);
        let bytes = sign::sign(value, &[&signer(self.seed, "release")]).expect("our own files sign");
        String::from_utf8(bytes).expect("metadata is text")
    }

    /// Returns what devices are provisioned with.
    pub fn factory_trust(&self) -> Vec<File> {
        self.offline_files().iter().filter(|f| f.role != Role::Release).map(File::from).collect()
    }

    /// Pulls the token that signs kills, or puts it back.
    pub fn pull_halt_token(&self, pulled: bool) {
        self.halt_pulled.store(pulled, Ordering::Relaxed);
    }

    /// Agrees with a device's telemetry key, to look into sealed messages.
    pub fn meet(&mut self, device: &DeviceId, telemetry: &p256::PublicKey) {
        self.peers.insert(device.clone(), *telemetry);
        self.agree(device);
    }

    fn agree(&mut self, device: &DeviceId) {
        let Some(peer) = self.peers.get(device) else { return };
        for kid in &self.telemetry {
            let secret = PairSecret::agree(&secret_key(self.seed, &telemetry(*kid)), peer);
            self.secrets.insert((device.clone(), *kid), secret);
        }
    }

    /// Opens what a device reports, and returns the first: a hello is always alone.
    pub fn open_report(&self, device: &DeviceId, payload: &[u8]) -> Option<Report> {
        let body = self.open(device, Direction::Up, payload)?;
        serde_json::from_slice::<Reports>(&body).ok().map(|reports| reports.first)
    }

    /// Seals a report as its device does.
    pub fn seal_report(&self, device: &DeviceId, report: &Report) -> Vec<u8> {
        let secret = self.secrets.get(&(device.clone(), report.k)).expect("the harness met every device");
        secret.key(Direction::Up, &self.fleet, device, report.k, report.e).seal(report)
    }

    /// Seals a report that the device never made, as a thief of its key would: an outcome under a number far ahead.
    pub fn forge_report(&self, device: &DeviceId, genuine: &[u8]) -> Option<Vec<u8>> {
        let mut report = self.open_report(device, genuine)?;
        report.n += 1000;
        report.kind = ReportKind::Outcome {
            attempt: Attempt { rc: 1, rollout: "r1".parse().ok()?, attempt: 1 },
            outcome: Outcome::Success,
            reason: None,
        };
        Some(self.seal_report(device, &report))
    }

    /// Opens an answer to a device.
    pub fn open_answer(&self, device: &DeviceId, payload: &[u8]) -> Option<Answer> {
        let body = self.open(device, Direction::Down, payload)?;
        serde_json::from_slice(&body).ok()
    }

    fn open(&self, device: &DeviceId, direction: Direction, payload: &[u8]) -> Option<Vec<u8>> {
        let kid = kid_of(payload)?;
        let secret = self.secrets.get(&(device.clone(), kid))?;
        secret.key(direction, &self.fleet, device, kid, epoch_of(payload)?).open(payload).ok()
    }

    /// Tells whether the service runs.
    pub fn is_up(&self) -> bool {
        self.apart.as_ref().map_or(self.service.is_some(), Apart::is_up)
    }

    /// Returns what the ledger adds up to.
    pub fn fleet(&self) -> Fleet {
        let mut fleet = Fleet::new(self.fleet.clone());
        self.ledger.iter().for_each(|entry| fleet.apply(entry.at, &entry.fact));
        fleet
    }

    /// Returns the running service's view of the fleet.
    pub fn live(&self) -> Option<&Fleet> {
        match &self.apart {
            // What it has recorded; whether it knows the same is asked at the end of a story.
            Some(apart) => apart.is_up().then_some(&apart.known),
            None => self.service.as_ref().map(Service::fleet),
        }
    }

    /// Returns what the running service took in and what it refused.
    pub fn counters(&self) -> Option<tern_controller::core::service::Counters> {
        self.service.as_ref().map(Service::counters)
    }

    /// Returns the running service, for who measures it by itself: what it records is in no ledger then.
    pub fn service(&mut self) -> Option<&mut Service> {
        self.service.as_mut()
    }

    /// Returns the service alone, for who goes on with it by itself.
    pub fn into_service(self) -> Option<Service> {
        self.service
    }

    /// Ends the service's process.
    pub fn stop(&mut self) {
        self.service = None;
        if let Some(apart) = &mut self.apart {
            apart.stop();
        }
    }

    fn online(&self) -> OnlineKeys {
        let token = |role: &str, pulled: Arc<AtomicBool>| -> Box<dyn Signer + Send + Sync> {
            Box::new(Token { signer: self.stolen(role), pulled })
        };
        OnlineKeys {
            rollout: token("rollout", Arc::default()).into(),
            halt: token("halt", self.halt_pulled.clone()),
            snapshot: token("snapshot", Arc::default()),
            timestamp: token("timestamp", Arc::default()),
            telemetry: self.telemetry.iter().map(|kid| (*kid, self.stolen_telemetry(*kid))).collect(),
            time: Some(SigningKey::from(secret_key(self.seed, &self.purpose("time")))),
        }
    }

    /// Returns another service from the same ledger, as if it had just come up, for who measures it by itself.
    pub fn spare_service(&mut self) -> Service {
        let keys = BTreeMap::from([(self.product.clone(), self.online())]);
        Service::new(self.fleet(), keys, Lives::default(), self.rng.seed())
    }

    /// Starts a service from the ledger; the caller says that the broker is up.
    pub fn start(&mut self) {
        let seed = self.rng.seed();
        if let Some(apart) = &mut self.apart {
            self.ledger.extend(apart.start(seed, EPOCH + self.now));
            return;
        }
        let keys = BTreeMap::from([(self.product.clone(), self.online())]);
        let mut service = Service::new(self.fleet(), keys, Lives::default(), seed);
        if std::mem::take(&mut self.copied) {
            service.found_copied("the data folder is a copy".to_owned());
        }
        let step = service.came_up("sim", EPOCH + self.now);
        self.ledger.extend(step.facts.into_iter().map(|fact| Entry { at: step.at, actor: None, fact }));
        self.service = Some(service);
    }

    /// Hands in one thing that happened. Facts are in the ledger when this returns, outputs are not out yet.
    pub fn handle(&mut self, input: Input, now: u64) -> Step {
        self.now = now;
        let (mut step, entries) = match (&mut self.apart, &mut self.service) {
            (Some(apart), _) => {
                let (outputs, entries) = apart.handle(input, EPOCH + now);
                let facts = entries.iter().map(|entry| entry.fact.clone()).collect();
                (Step { facts, outputs, ..Step::default() }, entries)
            }
            (None, Some(service)) => {
                let step = service.handle(vec![input], EPOCH + now);
                let entry = |fact: &Fact| Entry { at: EPOCH + now, actor: None, fact: fact.clone() };
                let entries = step.facts.iter().map(entry).collect();
                (step, entries)
            }
            (None, None) => return Step::default(),
        };
        self.steps += 1;
        self.ledger.extend(entries);
        let fleet = match (&self.apart, &self.service) {
            (Some(apart), _) => &apart.known,
            (None, Some(service)) => service.fleet(),
            (None, None) => return step,
        };
        for fact in &step.facts {
            if let Fact::Killed { rollout, .. } = fact
                && let Some(rollout) = fleet.rollouts.get(rollout)
            {
                self.killed.entry(rollout.rc).or_insert(self.steps);
            }
        }
        if self.forgets_kills && !self.killed.is_empty() {
            step.outputs = step.outputs.into_iter().filter_map(|o| self.forgetful(o)).collect();
        }
        if self.lies_about_time > 0 {
            step.outputs = step.outputs.into_iter().map(|o| self.lying(o)).collect();
        }
        for output in &step.outputs {
            if let Output::Publish { topic: Topic::DeviceIn(device), payload } = output
                && let Some(Answer { kind: AnswerKind::Answer { nonce: Nonce(nonce), .. }, .. }) =
                    self.open_answer(device, payload)
            {
                self.answers.insert(nonce, self.steps);
            }
        }
        step
    }

    fn forgetful(&self, output: Output) -> Option<Output> {
        let Output::Publish { topic, payload } = output else { return Some(output) };
        if topic.is_retained() {
            return None;
        }
        let Topic::DeviceIn(device) = &topic else { return Some(Output::Publish { topic, payload }) };
        let Some(mut answer) = self.open_answer(device, &payload) else {
            return Some(Output::Publish { topic, payload });
        };
        if let AnswerKind::Answer { rollout, halt, .. } = &mut answer.kind {
            (*rollout, *halt) = (0, 0);
        }
        Some(Output::Publish { payload: self.sealed(device, &answer)?, topic })
    }

    /// What comes out when the telemetry and time keys are in the wrong hands: another time, well sealed.
    fn lying(&self, output: Output) -> Output {
        let Output::Publish { topic: Topic::DeviceIn(device), payload } = &output else { return output };
        let lie = || {
            if let Some(mut answer) = self.open_answer(device, payload) {
                let AnswerKind::Answer { time, .. } = &mut answer.kind else { return None };
                *time += self.lies_about_time;
                return self.sealed(device, &answer);
            }
            let key = secret_key(self.seed, &self.purpose("time"));
            let (fleet, product) = (&self.fleet, &self.product);
            let mut answer = TimeAnswer::open(payload, &key.public_key(), fleet, product, device).ok()?;
            answer.time += self.lies_about_time;
            Some(answer.sign(&SigningKey::from(key), fleet, product, device))
        };
        match lie() {
            Some(payload) => Output::Publish { topic: Topic::DeviceIn(device.clone()), payload },
            None => output,
        }
    }

    fn sealed(&self, device: &DeviceId, answer: &Answer) -> Option<Vec<u8>> {
        let secret = self.secrets.get(&(device.clone(), answer.k))?;
        Some(secret.key(Direction::Down, &self.fleet, device, answer.k, answer.e).seal(answer))
    }

    /// Returns a short name of a step's facts, for the log.
    pub fn say(fact: &Fact) -> String {
        match fact {
            Fact::Reported { device, e, n, report, .. } => {
                let word = report.word();
                match report {
                    tern_protocol::message::ReportKind::Outcome { outcome, .. } => {
                        format!("reported {device} e{e} n{n} {word} {outcome}")
                    }
                    _ => format!("reported {device} e{e} n{n} {word}"),
                }
            }
            Fact::Granted { device, epoch, counter } => format!("granted {device} e{epoch} above {counter}"),
            Fact::Enrolled { device, .. } => format!("enrolled {device}"),
            Fact::PhaseOpened { rollout, phase, devices, because, .. } => {
                format!("phase {phase} of {rollout} opened for {devices}: {because}")
            }
            Fact::PhaseApproved { rollout, because, .. } => format!("{rollout}: {because}"),
            Fact::Tagged { devices, tag, on } => format!("{} devices, tag {tag} {on}", devices.len()),
            Fact::WaveOpened { rollout, wave, devices, because, .. } => {
                format!("wave {wave} of {rollout} opened for {devices}: {because}")
            }
            Fact::HoldBackEnded { rollout, devices, .. } => {
                format!("control of {devices} of {rollout} let go")
            }
            Fact::Paused { rollout, because } => format!("paused {rollout}: {because}"),
            Fact::Resumed { rollout, .. } => format!("resumed {rollout}"),
            Fact::RevertRefused { rollout, because } => format!("no revert of {rollout}: {because}"),
            Fact::Killed { rollout, because } => format!("killed {rollout}: {because}"),
            Fact::Completed { rollout, because } => format!("completed {rollout}: {because}"),
            Fact::RolloutStarted { rollout, rc, .. } => format!("started {rollout} of release {rc}"),
            Fact::ReleasePublished { rc, .. } => format!("release {rc} published"),
            Fact::Signed { files, .. } => {
                let files: Vec<String> = files
                    .iter()
                    .map(|f| format!("{} {}", f.role.name(), Digest::of(f.text.as_bytes()).short() >> 40))
                    .collect();
                format!("signed {}", files.join(", "))
            }
            Fact::ServiceStarted { .. } => "service started".to_owned(),
            Fact::ReceptionBegan => "reception began".to_owned(),
            Fact::ReceptionEnded => "reception ended".to_owned(),
            Fact::Receiving => "receiving still".to_owned(),
            Fact::OutageSeen { rollout, away, others } => {
                format!("outage around {rollout}: {away} of {others}")
            }
            Fact::DeadlinePassed { rollout, deadline, heard, silent } => {
                format!("{} deadline of {rollout}: {} heard, silent {silent:?}", deadline.word(), heard.len())
            }
            Fact::ProductAdded { product, .. } => format!("product {product} added"),
            Fact::DevicesAdded { devices, .. } => format!("{} devices added", devices.len()),
            Fact::FactoryAdded { factory, .. } => format!("factory {factory} added"),
            Fact::FactoryRevoked { factory } => format!("factory {factory} revoked"),
            Fact::ClaimCreated { claim, .. } => format!("claim {claim} created"),
            Fact::ClaimRevoked { claim } => format!("claim {claim} revoked"),
            Fact::Applied { device, claim, .. } => format!("applied {device} by {claim}"),
            Fact::Approved { device, .. } => format!("approved {device}"),
            Fact::Rejected { device } => format!("rejected {device}"),
            Fact::StandingChanged { device, standing, .. } => format!("{device} is {}", standing.word()),
            Fact::IdentityReplaced { device, .. } => format!("{device} has replaced its keys"),
            Fact::ComparisonBegan { because, .. } => format!("comparison began: {because}"),
            Fact::FilesPresented { device, files, .. } => {
                let by = device.as_ref().map_or("an operator", |id| id.as_str());
                let files: Vec<&str> = files.iter().map(|file| file.role.name()).collect();
                format!("{by} presented {}", files.join(", "))
            }
            Fact::ComparisonEnded { because, .. } => format!("comparison ended: {because}"),
            Fact::TokenCreated { token, .. } => format!("token {token} created"),
            Fact::TokenRevoked { token } => format!("token {token} revoked"),
            Fact::TokenUsed { token, .. } => format!("token {token} used"),
        }
    }
}
