//! What a checkpoint keeps, through one store.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{DeviceId, FleetId, ModelId, RolloutId};
use tern_protocol::message::{Attempt, Nonce, Registry, ReportKind};
use tern_protocol::position::{Cut, Position, Salt, Shuffle};
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::tuf::content::EntryKind;

use super::directory::Directory;
use super::*;
use crate::core::fact::DeviceEntry;
use crate::core::fleet::attempts::Attempts;
use crate::core::fleet::common::Common;
use crate::core::fleet::components::Inventory;
use crate::core::fleet::device::{AttemptRecord, Device, Standing};
use crate::core::rollout::plan::Plan;
use crate::core::rollout::silence::{Deadline, Watch};
use crate::store::memory::MemoryStore;
use crate::store::{Page, Prefix, Recovered, Stats};

fn name<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn registry() -> Registry {
    Registry { product: name("ap"), model: name("m1"), carrier: name("none"), region: name("eu") }
}

/// A device that has said nothing yet.
pub(super) fn device(n: u32) -> (DeviceId, Device) {
    (name(&format!("d-{n:05}")), Device::new(format!("04{n:0128x}"), registry()))
}

/// One that is under way, with most of what can be known of it.
pub(super) fn reported(n: u32) -> (DeviceId, Device) {
    let (id, fresh) = device(n);
    let watch = Watch { since: 9, gaps: 1, missed: 2, epoch: 3, heard: true, early: Some(false), last: None };
    let record = AttemptRecord {
        started_at: Some(1_700_000_000_000),
        state: StateName::VerifyPost,
        reason: Some("probe".to_owned()),
        watch: Some(watch),
        excused: vec![4],
        ..AttemptRecord::fresh(1, 2, 1_700_000_000_500)
    };
    let mut attempts = Attempts::default();
    attempts.insert(std::sync::Arc::new(Common::unknown(name("r2"))), record);
    let components = Inventory::default().share(&[("modem".to_owned(), "4.2".to_owned())].into());
    (
        id,
        Device {
            telemetry: Some(format!("04{n:0128x}")),
            epoch: 3,
            running: 1,
            components,
            attempts,
            ..fresh
        },
    )
}

fn entry(n: u32) -> DeviceEntry {
    let (id, device) = device(n);
    DeviceEntry { device: id, identity: device.identity, registry: device.registry }
}

/// A store that two owners share, one after the other, and that ends at a given call as a power cut ends it.
#[derive(Clone, Default)]
struct Shared {
    store: std::sync::Arc<std::sync::Mutex<MemoryStore>>,
    calls: std::sync::Arc<std::sync::atomic::AtomicU32>,
    cut_at: u32,
}

impl Shared {
    fn counted<T>(
        &self,
        run: impl FnOnce(&mut MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == self.cut_at.wrapping_sub(1) {
            return Err(StoreError::Io {
                what: "write to",
                source: std::io::Error::other("the power is cut"),
            });
        }
        run(&mut self.store.lock().unwrap())
    }
}

impl Store for Shared {
    fn recovered(&self) -> Recovered {
        self.store.lock().unwrap().recovered()
    }
    fn apply(&mut self, term: u64, batch: &Batch) -> Result<(), StoreError> {
        self.counted(|store| store.apply(term, batch))
    }
    fn stage(&mut self, term: u64, puts: Vec<(Key, Vec<u8>)>, deletes: Vec<Key>) -> Result<(), StoreError> {
        self.counted(|store| store.stage(term, puts, deletes))
    }
    fn fence(&mut self, term: u64) -> Result<(), StoreError> {
        self.store.lock().unwrap().fence(term)
    }
    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.counted(MemoryStore::checkpoint)
    }
    fn get(&self, key: &Key) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.lock().unwrap().get(key)
    }
    fn scan(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Result<Page, StoreError> {
        self.store.lock().unwrap().scan(prefix, after, limit)
    }
    fn verify(&self) -> Result<u64, StoreError> {
        self.store.lock().unwrap().verify()
    }
    fn wipe(&mut self) -> Result<(), StoreError> {
        self.store.lock().unwrap().wipe()
    }
    fn stats(&self) -> Result<Stats, StoreError> {
        self.store.lock().unwrap().stats()
    }
}

/// A fleet, its checkpoint, and the frames so far.
struct World {
    shared: Shared,
    fleet: Fleet,
    checkpoint: Checkpoint,
    frames: u64,
}

impl World {
    fn new(devices: u32) -> Self {
        let shared = Shared::default();
        let fleet = Fleet::new(name::<FleetId>("lab"));
        let checkpoint = Checkpoint::new(Box::new(shared.clone()), Directory::default(), 0);
        let mut world = Self { shared, fleet, checkpoint, frames: 0 };
        world.tell(&Fact::DevicesAdded { devices: (0..devices).map(entry).collect(), by: None });
        world
    }

    fn tell(&mut self, fact: &Fact) {
        self.frames += 1;
        self.fleet.apply(self.frames, fact);
        self.checkpoint.note(fact, &self.fleet);
    }

    /// As above, and then a checkpoint.
    fn check(&mut self, fact: &Fact) {
        self.tell(fact);
        self.write().unwrap();
        assert!(self.read() == self.fleet, "after {fact:?}");
    }

    fn reports(&mut self, n: u32) {
        let kind = ReportKind::Health { rc: 1, metrics: Default::default() };
        self.tell(&Fact::Reported { device: device(n).0, e: 1, n: self.frames, low: 1, report: kind });
    }

    fn write(&mut self) -> Result<(), CheckpointError> {
        self.checkpoint.write(1, &self.fleet, self.frames)
    }

    fn read(&self) -> Fleet {
        read::read(&self.shared, &self.fleet.id).unwrap().unwrap().0
    }

    fn places(&self) -> Vec<bool> {
        let bytes = self.shared.get(&Key::Meta(Meta::Directory)).unwrap().unwrap();
        Directory::from_bytes(&bytes).unwrap().pages().map(|(_, place)| place).collect()
    }
}

#[test]
fn a_fleet_is_read_back_as_it_was_and_only_pages_that_changed_are_written() {
    let mut world = World::new(2500);
    world.write().unwrap();
    assert!(world.read() == world.fleet);
    assert_eq!(world.places(), [false; 3]);

    world.reports(1500);
    world.write().unwrap();

    assert!(world.read() == world.fleet);
    assert_eq!(world.places(), [false, true, false]);
    assert_eq!(world.read().devices.get(&device(1500).0).unwrap().epoch, 1);
}

#[test]
fn a_checkpoint_that_is_cut_anywhere_leaves_the_one_before_or_is_whole() {
    let mut cuts = 0;
    for cut_at in 1.. {
        let mut world = World::new(3000);
        world.write().unwrap();
        let before = world.fleet.clone();
        (0..3000).step_by(700).for_each(|n| world.reports(n));
        let shared = Shared { cut_at, calls: Default::default(), ..world.shared.clone() };
        let (_, directory) = read::read(&shared, &before.id).unwrap().unwrap();
        let mut checkpoint = Checkpoint::new(Box::new(shared), directory, 1);
        checkpoint.changed = std::mem::take(&mut world.checkpoint.changed);

        let written = checkpoint.write(1, &world.fleet, world.frames);

        let applied = world.shared.recovered().applied_seq.unwrap();
        let kept = if applied == 0 { &before } else { &world.fleet };
        assert!(world.read() == *kept, "cut at call {cut_at}");
        if written.is_ok() {
            assert_eq!(applied, world.frames - 1);
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 4, "pages, their sync, the batch, its sync: {cuts}");
}

#[test]
fn a_checkpoint_too_large_for_one_batch_that_is_cut_is_not_read() {
    let mut marked = 0;
    for cut_at in 1.. {
        // Whoever is listed may have waited, so this one frame takes out more keys than a batch holds.
        let mut world = World::new(3000);
        let shared = Shared { cut_at, ..Shared::default() };
        world.checkpoint.store = Box::new(shared.clone());

        let written = world.write();

        match read::read(&shared, &world.fleet.id).unwrap() {
            Err(why) => {
                assert_eq!(why, "was cut short");
                marked += 1;
            }
            Ok((fleet, _)) if shared.recovered().applied_seq.is_none() => assert!(fleet.devices.is_empty()),
            Ok((fleet, _)) => assert!(fleet == world.fleet),
        }
        if written.is_ok() {
            break;
        }
    }
    assert!(marked >= 3, "{marked}");
}

#[test]
fn a_checkpoint_of_another_form_or_with_a_page_missing_is_not_read() {
    let why = |world: &World| read::read(&world.shared, &world.fleet.id).unwrap().err();
    let mut world = World::new(1500);
    world.write().unwrap();
    assert_eq!(why(&world), None);

    let page = Key::Page { number: 1, place: false, part: 0 };
    world.shared.stage(1, vec![(page, b"\x09\0\0\0damage".to_vec())], Vec::new()).unwrap();
    assert_eq!(why(&world), Some("has a page of devices that does not read"));

    world.shared.stage(1, vec![(Key::Meta(Meta::Directory), vec![99, 0])], Vec::new()).unwrap();
    assert_eq!(why(&world), Some("has the form of another version"));

    // As it was before there were pages.
    let mut old = Shared::default();
    let puts = vec![(Key::Device(device(1).0), b"{}".to_vec())];
    old.apply(1, &Batch { first_seq: 0, last_seq: 9, puts, deletes: Vec::new() }).unwrap();
    let read = read::read(&old, &world.fleet.id).unwrap();
    assert_eq!(read.err(), Some("has the form of another version"));
}

#[test]
fn whatever_kind_of_fact_a_checkpoint_follows_it_holds_the_fleet_as_it_is() {
    let mut world = World::new(2500);
    let rollout: RolloutId = name("r2");
    let cuts = |cut: u64| BTreeMap::from([(name::<ModelId>("m1"), Cut(cut))]);
    let because = || "a reason".to_owned();
    let salt = Salt([3; 16]);
    let shuffle = Shuffle::new(salt);
    let positions: BTreeMap<Position, DeviceId> =
        (0..2500).map(|n| (shuffle.position(&device(n).0), device(n).0)).collect();
    let reach = Cut(positions.keys().nth(500).unwrap().0);
    let from = |nth: usize| Some(*positions.keys().nth(nth).unwrap());
    let held: Vec<DeviceId> = positions.values().rev().take(600).cloned().collect();
    let early: Vec<DeviceId> = positions.values().take(20).cloned().collect();

    let attempt = || Attempt { rc: 2, rollout: name("r2"), attempt: 1 };
    let nonce = || Nonce([0; 16]);
    let started = Fact::RolloutStarted {
        rollout: rollout.clone(),
        product: name("ap"),
        rc: 2,
        kind: EntryKind::Update,
        attempt: 1,
        salt,
        plan: Plan { concurrency: Some(2000), ..Plan::default() },
        starter: None,
        from: Vec::new(),
        baseline: BTreeMap::new(),
        pooled: BTreeSet::new(),
        reserve: from(1900),
    };
    world.check(&Fact::ReceptionBegan);
    world.check(&started);
    // No release is signed here that would say so.
    world.fleet.rollouts.get_mut(&rollout).unwrap().models = [name("m1")].into();
    let opened = |phase, held_from| Fact::PhaseOpened {
        rollout: rollout.clone(),
        phase,
        cuts: cuts(10),
        devices: 500,
        goal: cuts(reach.0),
        included: Some(0),
        owed: 0,
        held_from,
        listed: Vec::new(),
        key: None,
        because: because(),
    };
    let wave = |wave, held_from, listed: &[DeviceId]| Fact::WaveOpened {
        key: None,
        rollout: rollout.clone(),
        wave,
        cuts: cuts(reach.0),
        devices: 500,
        step: 0,
        owed: 0,
        listed: listed.to_vec(),
        held_from,
        because: because(),
    };
    let mut n = 1;
    let mut say = |world: &mut World, device: &DeviceId, report: ReportKind| {
        n += 1;
        world.check(&Fact::Reported { device: device.clone(), e: 1, n, low: n, report });
    };
    let beside = |world: &World| {
        let of = |device: &&Device| device.attempts.get(&name("r2")).is_some_and(|a| a.beside.is_some());
        world.fleet.devices.values().filter(of).count()
    };
    world.check(&Fact::PhaseApproved { rollout: rollout.clone(), phase: 0, because: because() });
    world.check(&opened(0, from(1900)));
    for device in held.iter().step_by(10) {
        say(&mut world, device, ReportKind::ControlStart { attempt: attempt() });
    }
    assert_eq!(beside(&world), 60);
    // Fewer are held back, then nobody: as no service does any more, and ledgers of before have it.
    world.check(&wave(2, from(2000), &[]));
    assert_eq!(beside(&world), 50);
    for device in &early {
        say(&mut world, device, ReportKind::Started { nonce: nonce(), attempt: attempt() });
    }
    let outcome = |outcome| ReportKind::Outcome { attempt: attempt(), outcome, reason: None };
    say(&mut world, &early[0], outcome(Outcome::Success));
    say(&mut world, &early[1], outcome(Outcome::Deferred));
    say(&mut world, &early[2], outcome(Outcome::Failed));
    say(&mut world, &early[1], ReportKind::Started { nonce: nonce(), attempt: attempt() });
    let metrics = [("boots".parse().unwrap(), 2)].into();
    say(&mut world, &held[100], ReportKind::Health { rc: 1, metrics });
    let (heard, silent) = (vec![early[3].clone(), held[10].clone()], vec![early[4].clone()]);
    world.check(&Fact::DeadlinePassed { rollout: rollout.clone(), deadline: Deadline::Early, heard, silent });
    world.check(&Fact::OutageSeen { rollout: rollout.clone(), away: 7, others: 30 });
    let quarantined = |device: &DeviceId, standing| Fact::StandingChanged {
        device: device.clone(),
        standing,
        because: because(),
    };
    world.check(&quarantined(&early[5], Standing::Quarantined));
    world.check(&quarantined(&held[20], Standing::Quarantined));
    world.check(&quarantined(&early[5], Standing::Active));
    world.check(&Fact::Tagged { devices: vec![early[6].clone()], tag: name("bench"), on: true });
    world.check(&Fact::Granted { device: early[7].clone(), epoch: 4, counter: 99 });
    world.check(&Fact::Enrolled { device: early[8].clone(), telemetry: "04aa".to_owned() });
    let (identity, telemetry) = ("04bb".to_owned(), "04cc".to_owned());
    world.check(&Fact::IdentityReplaced { device: early[9].clone(), identity, telemetry });
    world.check(&Fact::Paused { rollout: rollout.clone(), because: because() });
    world.check(&Fact::Resumed { rollout: rollout.clone(), because: because() });
    world.check(&wave(3, None, &held[..1]));
    assert_eq!(beside(&world), 0);

    world.check(&opened(1, from(1900)));
    for device in held.iter().skip(5).step_by(10) {
        say(&mut world, device, ReportKind::ControlStart { attempt: attempt() });
    }
    assert!(beside(&world) > 50);
    for held_from in [from(2200), None] {
        let (rollout, devices) = (rollout.clone(), 300);
        world.check(&Fact::HoldBackEnded { rollout, devices, held_from, because: because(), key: None });
    }
    assert_eq!(beside(&world), 0);
    world.check(&Fact::ComparisonBegan { because: because(), device: None });
    world.check(&Fact::ComparisonEnded { because: because(), unproved: vec![early[10].clone()] });
    world.check(&Fact::Killed { rollout: rollout.clone(), because: because() });
    world.check(&Fact::ServiceStarted { version: "1".to_owned(), rules: 1 });
    world.check(&Fact::ReceptionEnded);
}
