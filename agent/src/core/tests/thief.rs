//! What a thief of the service's keys can have a device do, and what it cannot.
//!
//! The thief signs rollout, halt, snapshot and timestamp, holds the service's telemetry key and owns the broker: what it
//! says arrives, and every answer is its own. Root, targets and release are signed by people.

use std::collections::BTreeMap;

use p256::SecretKey;
use p256::ecdsa::SigningKey;
use tern_protocol::bundle::{Bundle, File};
use tern_protocol::digest::Digest;
use tern_protocol::mac::{Direction, PairSecret, epoch_of};
use tern_protocol::message::{Answer, AnswerKind, Get, Nonce, Registry, ReportKind, Reports, Versions, Want};
use tern_protocol::offer::Artifact;
use tern_protocol::position::{Cut, Salt};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::build::{self, DelegatedKeys, Named, RootKeys};
use tern_protocol::tuf::content::{
    Arm, ArtifactContent, Entry, EntryKind, HaltContent, RolloutContent, TargetsContent, Urgency, point_hex,
};
use tern_protocol::tuf::key::{P256Signer, Signer as _};
use tern_protocol::tuf::{Role, Trusted, sign};

use super::super::SlotName;
use super::super::agent::{Agent, BootFacts, Content, Done, Held, Input, Job, Keys, Output, Settings};
use super::super::conditions::{Conditions, Surroundings};
use super::super::durable::Durable;
use super::super::hook::HookStep;
use super::super::state::State;
use super::super::timing::{Now, Timing};

pub(super) const WALL: u64 = 1_800_000_000;
const EXPIRES: u64 = WALL + 86_400;
/// Who holds a key: people, or the service and so its thief.
const PEOPLE: u8 = 1;
const SERVICE: u8 = 2;
/// Number of the service's telemetry key.
const KID: u32 = 1;

fn key(holder: u8) -> P256Signer {
    P256Signer::new(SigningKey::from_slice(&[holder; 32]).unwrap())
}

fn telemetry(holder: u8) -> SecretKey {
    SecretKey::from_slice(&[holder + 100; 32]).unwrap()
}

struct DeviceKeys;

impl Keys for DeviceKeys {
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
        PairSecret::agree(&telemetry(9), peer)
    }
}

fn registry(model: &str) -> Registry {
    Registry {
        product: "cam".parse().unwrap(),
        model: model.parse().unwrap(),
        carrier: "none".parse().unwrap(),
        region: "eu".parse().unwrap(),
    }
}

fn named(rc: u64) -> Named {
    Named { path: format!("cam/{rc}/rootfs"), length: 3 * 65_536, sha256: Digest::of(&rc.to_be_bytes()) }
}

fn approved(rc: u64, model: &str) -> (Named, ArtifactContent) {
    let (models, root) = (vec![model.parse().unwrap()], Digest::of(&rc.to_be_bytes()));
    let content = ArtifactContent::new(rc, format!("1.{rc}"), "rootfs", models, root);
    (named(rc), content)
}

/// An entry that includes every device of both models.
fn entry(rc: u64) -> Entry {
    Entry {
        rollout: format!("r{rc}").parse().unwrap(),
        rc,
        kind: EntryKind::Update,
        attempt: 1,
        regions: vec![],
        models: vec![],
        carriers: vec![],
        salt: Salt([5; 16]),
        cuts: ["m1", "m2"].map(|model| (model.parse().unwrap(), Cut::ALL)).into(),
        hold_back: None,
        schedule: None,
        from: vec![],
        list: vec![],
        spread: 0,
        arm: Arm::Acked,
        urgency: Urgency::Soft,
    }
}

/// What is published; whatever people sign is theirs unless the thief forges it.
#[derive(Default)]
pub(super) struct Published {
    pub(super) entries: Vec<Entry>,
    pub(super) named: Vec<Named>,
    pub(super) halted: Vec<u64>,
    pub(super) forges_release: Vec<(Named, ArtifactContent)>,
    pub(super) forges_targets: bool,
}

impl Published {
    pub(super) fn offers(rc: u64) -> Self {
        Self { entries: vec![entry(rc)], named: vec![named(rc)], halted: vec![5], ..Self::default() }
    }
}

/// A device of model m1 that runs release 4, with floor 3, and knows that release 5 is dead. People approved 2, 5 and 6
/// for its model, and 7 for another one.
pub(super) struct World {
    pub(super) agent: Agent,
    settings: Settings,
    pub(super) versions: Versions,
    pub(super) uptime: u64,
    /// What the thief tells the device that it is.
    registry: Registry,
    pub(super) jobs: Vec<Job>,
    /// What the device measures.
    pub(super) around: Surroundings,
    /// How hooks end, but for those that do what they should.
    pub(super) refuses: Vec<(HookStep, Done)>,
    /// Does not end.
    pub(super) hangs: Option<Job>,
    /// Steps of the machine that it has reported, once each.
    pub(super) said: BTreeMap<u64, ReportKind>,
    /// Messages of reports: when each was sent, and the numbers in it.
    pub(super) messages: Vec<(u64, Vec<u64>)>,
    /// Windows of packs that it has asked for.
    pub(super) gets: usize,
    /// Files that it has asked for, and when.
    pub(super) wants: Vec<(u64, Vec<Role>)>,
    /// Nonces are not answered, but kept, with the moment at which each was heard.
    pub(super) keeps_nonces: bool,
    pub(super) nonces: Vec<(u64, Nonce)>,
    /// The service hears and says nothing.
    pub(super) deaf: bool,
    /// Its answers name a halt file that is not here.
    pub(super) hides_a_kill: bool,
    /// What the device's own clock says, and whether it goes.
    pub(super) wall: u64,
    pub(super) clock_goes: bool,
    /// Until when the timestamps are good that are published.
    pub(super) expires: u64,
}

impl World {
    fn new() -> Self {
        Self::with(Conditions::default(), &[HookStep::PreUpdate], true)
    }

    /// A device with conditions and hooks, whose other slot holds release 6 already, if `present`.
    pub(super) fn with(conditions: Conditions, hooks: &[HookStep], present: bool) -> Self {
        let versions =
            Versions { root: 1, timestamp: 1, snapshot: 1, targets: 1, release: 1, rollout: 1, halt: 1 };
        let (people, service) =
            (|| build::Keys::one(key(PEOPLE).public()), || build::Keys::one(key(SERVICE).public()));
        let keys = RootKeys { root: people(), timestamp: service(), snapshot: service(), targets: people() };
        let root = sign::sign(build::root(1, EXPIRES, &keys), &[&key(PEOPLE)]).unwrap();
        let settings = Settings {
            fleet: "acme".parse().unwrap(),
            device: "dev-1".parse().unwrap(),
            registry: registry("m1"),
            component: "rootfs".into(),
            claim: None,
            version: "test".into(),
            timing: Timing::default(),
            conditions,
            hooks: hooks.iter().copied().collect(),
            transfer: Default::default(),
        };
        let durable = Durable { floor: 3, ..Durable::default() };
        let agent = Agent::new(
            settings.clone(),
            Box::new(DeviceKeys),
            durable,
            Trusted::new(&root).unwrap(),
            [7; 32],
        );
        let mut world = Self {
            agent,
            settings,
            versions,
            uptime: 60_000,
            registry: registry("m1"),
            jobs: Vec::new(),
            around: Surroundings::default(),
            refuses: Vec::new(),
            hangs: None,
            said: BTreeMap::new(),
            messages: Vec::new(),
            gets: 0,
            wants: Vec::new(),
            keeps_nonces: false,
            nonces: Vec::new(),
            deaf: false,
            hides_a_kill: false,
            wall: WALL,
            clock_goes: false,
            expires: EXPIRES,
        };
        world.comes_up("first", present);
        world.publish(&Published { halted: vec![5], ..Published::default() });
        assert!(world.agent.trust().current().is_some() && world.agent.durable().halted.contains(&5));
        assert_eq!(world.jobs, []);
        world
    }

    /// The agent's process ends and comes up again in the same boot, from what was saved.
    pub(super) fn restarts(&mut self) {
        let saved = serde_json::to_vec(self.agent.durable()).unwrap();
        let durable = serde_json::from_slice(&saved).unwrap();
        let trust = Trusted::restore(&self.agent.trust().files()).unwrap();
        self.agent = Agent::new(self.settings.clone(), Box::new(DeviceKeys), durable, trust, [8; 32]);
        self.comes_up("first", true);
    }

    fn comes_up(&mut self, boot: &str, present: bool) {
        let (good, content) = approved(6, "m1");
        let inactive = Artifact::approved(&content, good.length, good.sha256);
        self.handle(Input::Up(BootFacts {
            components: Default::default(),
            slot: SlotName::A,
            boot_id: boot.into(),
            active: SlotName::A,
            trial: None,
            running: 4,
            running_version: "1.4".into(),
            floor: 0,
            capacity: 1 << 20,
            // Spares the stories a download.
            contents: [
                Content::Unknown,
                if present { Content::Whole(Held::of(&inactive)) } else { Content::Unknown },
            ],
        }));
        self.handle(Input::LinkUp);
    }

    pub(super) fn files(&self, what: &Published) -> Vec<File> {
        let v = &self.versions;
        let forges_release = !what.forges_release.is_empty();
        let by = |thief: bool| if thief { SERVICE } else { PEOPLE };
        let one = |holder: u8| build::Keys::one(key(holder).public());
        let delegated = DelegatedKeys {
            release: one(by(what.forges_targets)),
            rollout: one(SERVICE),
            halt: one(SERVICE),
        };
        let content = TargetsContent {
            telemetry: BTreeMap::from([(KID, point_hex(&telemetry(SERVICE).public_key()))]),
            ..TargetsContent::default()
        };
        let mut artifacts = vec![approved(2, "m1"), approved(5, "m1"), approved(6, "m1"), approved(7, "m2")];
        artifacts.extend(what.forges_release.iter().cloned());
        let (rollout, halt) =
            (RolloutContent { entries: what.entries.clone() }, HaltContent { halted: what.halted.clone() });
        let product = "cam".parse().unwrap();
        let signed = [
            (Role::Timestamp, SERVICE, build::timestamp(v.timestamp, self.expires, v.snapshot, None, WALL)),
            (Role::Snapshot, SERVICE, build::snapshot(v.snapshot, EXPIRES, v)),
            (
                Role::Targets,
                by(what.forges_targets),
                build::targets(v.targets, EXPIRES, &product, &delegated, &content),
            ),
            (Role::Release, by(forges_release), build::release(v.release, EXPIRES, &artifacts)),
            (Role::Rollout, SERVICE, build::rollout(v.rollout, EXPIRES, &what.named, &rollout)),
            (Role::Halt, SERVICE, build::halt(v.halt, EXPIRES, &halt)),
        ];
        let file = |(role, by, value)| File { role, bytes: sign::sign(value, &[&key(by)]).unwrap() };
        signed.map(file).into()
    }

    /// Publishes new files of every role, and plays service and device until nothing happens any more.
    pub(super) fn publish(&mut self, what: &Published) {
        self.publish_quietly(what);
        // Reports, asks and answers, each after its wait.
        for _ in 0..40 {
            self.uptime = self.agent.wake_at().min(self.uptime + 60_000);
            self.handle(Input::Time);
        }
    }

    /// Publishes new files of every role, and no time passes.
    pub(super) fn publish_quietly(&mut self, what: &Published) {
        let v = &mut self.versions;
        for version in
            [&mut v.timestamp, &mut v.snapshot, &mut v.targets, &mut v.release, &mut v.rollout, &mut v.halt]
        {
            *version += 1;
        }
        let payload = Bundle { root: 1, files: self.files(what) }.pack();
        self.handle(Input::Message { topic: Topic::Head("cam".parse().unwrap()), payload });
    }

    pub(super) fn handle(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            let input = inputs.remove(0);
            let gone = if self.clock_goes { self.uptime / 1000 } else { 0 };
            for output in self.agent.handle(input, Now { uptime: self.uptime, wall: self.wall + gone }) {
                inputs.extend(self.responds(output));
            }
        }
    }

    /// Does what the device wants done, and answers as its service. A device that arms is left there.
    fn responds(&mut self, output: Output) -> Vec<Input> {
        match output {
            Output::Start { job, work } => {
                let arms = matches!(work, Job::Arm { .. }) || self.hangs.as_ref() == Some(&work);
                let result = match &work {
                    Job::Look(_) => Done::Looked(self.around.clone()),
                    Job::RunHooks(step) => {
                        let refusal = self.refuses.iter().find(|(of, _)| of == step);
                        refusal.map_or(Done::Ok, |(_, refusal)| refusal.clone())
                    }
                    Job::UndoHooks => {
                        let refusal = self.refuses.iter().find(|(of, _)| *of == HookStep::Undo);
                        refusal.map_or(Done::Ok, |(_, refusal)| refusal.clone())
                    }
                    _ => Done::Ok,
                };
                self.jobs.push(work);
                if arms { Vec::new() } else { vec![Input::Done { job, result }] }
            }
            Output::Publish { topic: Topic::Up(_, UpKind::Get), payload } => {
                self.gets += 1;
                let roles = Get::read(&payload).unwrap().want.into_iter().filter_map(|want| match want {
                    Want::File { role, .. } => Some(role),
                    _ => None,
                });
                self.wants.push((self.uptime, roles.collect()));
                Vec::new()
            }
            Output::Publish { topic: Topic::Up(_, UpKind::Report), payload } => {
                let Some(e) = epoch_of(&payload) else { return Vec::new() };
                let body = self.sealed(Direction::Up, e).open(&payload).unwrap();
                let reports: Reports = serde_json::from_slice(&body).unwrap();
                self.messages
                    .push((self.uptime, reports.clone().into_iter().map(|report| report.n).collect()));
                if self.deaf {
                    return Vec::new();
                }
                self.reported(e, reports)
            }
            _ => Vec::new(),
        }
    }

    /// Acknowledges what came, and answers a question; in one message, if several reports were one.
    fn reported(&mut self, e: u64, reports: Reports) -> Vec<Input> {
        let together = !reports.more.is_empty();
        let (mut numbers, mut asked) = (Vec::new(), None);
        for report in reports {
            if matches!(report.kind, ReportKind::Transition { .. } | ReportKind::Outcome { .. }) {
                self.said.insert(report.n, report.kind.clone());
            }
            if let ReportKind::Ask { nonce, .. } | ReportKind::Started { nonce, .. } = report.kind {
                asked = Some(nonce);
            }
            if !matches!(report.kind, ReportKind::Ask { .. }) {
                numbers.push((report.n, report.n));
            }
        }
        let answer = asked.filter(|_| !self.keeps_nonces).map(|nonce| self.answer(nonce));
        self.nonces.extend(asked.filter(|_| self.keeps_nonces).map(|nonce| (self.uptime, nonce)));
        let says = match answer {
            Some(AnswerKind::Answer { nonce, time, rollout, halt, .. }) if together => {
                vec![AnswerKind::Answer { nonce, time, rollout, halt, ranges: numbers }]
            }
            answer => {
                let ack = AnswerKind::Ack { ranges: numbers, registry: Some(self.registry.clone()) };
                [ack].into_iter().chain(answer).collect()
            }
        };
        says.into_iter().map(|kind| self.says(e, kind)).collect()
    }

    fn answer(&self, nonce: Nonce) -> AnswerKind {
        let Versions { rollout, halt, .. } = self.versions;
        AnswerKind::Answer {
            nonce,
            time: WALL,
            rollout,
            halt: halt + u32::from(self.hides_a_kill),
            ranges: vec![],
        }
    }

    /// Waits until the device has asked once more.
    fn ask(&mut self) {
        let asked = self.nonces.len();
        for _ in 0..100 {
            if self.nonces.len() > asked {
                return;
            }
            self.uptime = self.agent.wake_at();
            self.handle(Input::Time);
        }
        panic!("the device asks no more");
    }

    fn hears(&mut self, kind: AnswerKind) {
        let input = self.says(self.agent.durable().epoch, kind);
        self.handle(input);
    }

    fn says(&self, e: u64, kind: AnswerKind) -> Input {
        let payload = self.sealed(Direction::Down, e).seal(&Answer { e, k: KID, kind });
        Input::Message { topic: Topic::DeviceIn("dev-1".parse().unwrap()), payload }
    }

    fn sealed(&self, direction: Direction, e: u64) -> tern_protocol::mac::MacKey {
        let secret = PairSecret::agree(&telemetry(SERVICE), &telemetry(9).public_key());
        secret.key(direction, &"acme".parse().unwrap(), &"dev-1".parse().unwrap(), KID, e)
    }

    pub(super) fn armed(&self) -> Option<u64> {
        self.jobs.iter().find_map(|job| match job {
            Job::Arm { rc, .. } => Some(*rc),
            _ => None,
        })
    }
}

#[test]
fn every_online_key_together_starts_nothing_that_people_did_not_approve() {
    let other_bytes = Named { sha256: Digest([9; 32]), ..named(6) };
    let longer = Named { length: named(6).length + 1, ..named(6) };
    let revert = Entry { kind: EntryKind::Revert, ..entry(2) };
    let own = || vec![approved(9, "m1")];
    let attacks = [
        (
            "other bytes under an approved name",
            Published { named: vec![other_bytes], ..Published::offers(6) },
        ),
        ("more bytes under an approved name", Published { named: vec![longer], ..Published::offers(6) }),
        ("a name that people do not know", Published::offers(9)),
        ("a release file of its own", Published { forges_release: own(), ..Published::offers(9) }),
        (
            "targets of its own, with its key for release",
            Published { forges_targets: true, forges_release: own(), ..Published::offers(9) },
        ),
        ("a way back below the floor", Published { entries: vec![revert], ..Published::offers(2) }),
        ("a dead release, and a halt file without it", Published { halted: vec![], ..Published::offers(5) }),
        ("another model's release", Published::offers(7)),
    ];
    for (attack, published) in attacks {
        let mut world = World::new();

        world.publish(&published);

        assert_eq!(world.jobs, [], "{attack}");
        // The control: what people approved goes all the way, by the same keys and answers.
        world.publish(&Published::offers(6));
        assert_eq!(world.armed(), Some(6), "after {attack}: {:?}", world.agent.durable().state);
    }
}

#[test]
fn a_stolen_telemetry_key_starts_nothing_that_is_not_offered_to_the_device() {
    let mut world = World::new();
    // Approved and under way, and not for this device yet.
    let narrow = Entry { cuts: BTreeMap::new(), ..entry(6) };
    world.publish(&Published { entries: vec![narrow], ..Published::offers(6) });
    let epoch = world.agent.durable().epoch;

    for (e, kind) in [
        (epoch, world.answer(Nonce([0; 16]))),
        (0, AnswerKind::Challenge { challenge: Nonce([1; 16]) }),
        (0, AnswerKind::Grant { challenge: Nonce([1; 16]), epoch: epoch + 1, counter: 1 << 30 }),
        (0, AnswerKind::Present { roles: Role::ALL.into() }),
        (0, AnswerKind::Present { roles: Vec::new() }),
        (epoch, AnswerKind::Ack { ranges: vec![(0, 1 << 30)], registry: None }),
    ] {
        let input = world.says(e, kind);
        world.handle(input);
    }
    for _ in 0..40 {
        world.uptime += 60_000;
        world.handle(Input::Time);
    }

    assert_eq!(world.jobs, []);
    world.publish(&Published::offers(6));
    assert_eq!(world.armed(), Some(6), "{:?}", world.agent.durable().state);
}

#[test]
fn an_answer_counts_for_its_own_nonce_in_its_time_and_if_it_names_nothing_newer() {
    let mut world = World::new();
    world.keeps_nonces = true;
    world.publish(&Published::offers(6));
    let done = world.jobs.clone();
    assert!(matches!(done[..], [Job::Hash { .. }]), "it asks before it goes on: {done:?}");
    let valid = Timing::default().answer_valid;
    // The device remembers four nonces: one that it has dropped shows nothing about time.
    let held: Vec<_> = world.nonces.iter().rev().take(4).collect();
    let (_, late) = **held.iter().find(|(at, _)| at + valid < world.uptime).unwrap();

    world.hears(world.answer(Nonce([0; 16])));
    assert_eq!(world.jobs, done, "a nonce that it never made");
    world.hears(world.answer(late));
    assert_eq!(world.jobs, done, "an answer that was held back");
    world.ask();
    world.versions.halt += 1;
    world.hears(world.answer(world.nonces.last().unwrap().1));
    world.versions.halt -= 1;
    assert_eq!(world.jobs, done, "an answer that names a kill which is not here");

    world.publish(&Published::offers(6));
    world.ask();
    world.hears(world.answer(world.nonces.last().unwrap().1));
    assert_eq!(world.jobs.get(1), Some(&Job::RunHooks(HookStep::PreUpdate)));
}

/// The registry is the service's word, and its telemetry key is all that stands behind it: it chooses among rollouts, but
/// not which boards an image is for.
#[test]
fn who_tells_a_device_that_it_is_of_another_model_puts_nothing_of_that_model_on_it() {
    let mut world = World::new();
    world.publish(&Published::offers(7));
    assert_eq!(world.jobs, []);

    let lie = AnswerKind::Ack { ranges: vec![], registry: Some(registry("m2")) };
    world.hears(lie);

    assert_eq!(world.jobs, [], "it fetches nothing that is for m2");
    let state = &world.agent.durable().state;
    assert!(matches!(state, State::Failed { .. }), "and says why: {state:?}");
}
