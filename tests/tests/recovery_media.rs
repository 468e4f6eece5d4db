//! Recovery on a medium that reads badly: what is good is kept, what has come is kept, and nothing is tried for ever.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::PathBuf;
use std::sync::Arc;

use tern_agent::boot::Trial;
use tern_agent::boot::uboot::medium::Medium;
use tern_agent::boot::uboot::variables;
use tern_agent::config::BootConfig;
use tern_agent::core::SlotName;
use tern_agent::core::agent::Done;
use tern_agent::device::Device;
use tern_agent::recovery::{self, Fetching, Recovered, RecoveryError, Remedy};
use tern_agent::slot::file::FileSlots;
use tern_agent::slot::{SlotLabel, Slots as _};
use tern_agent::storage::Disk;
use tern_protocol::message::Pack;
use tern_protocol::offer::Artifact;
use tern_tests::powercut::board::{Board, Kind};
use tern_tests::powercut::disk::FakeDisk;
use tern_tests::powercut::outcome::Outcome;
use tern_tests::powercut::service::{Release, Service};

const A: SlotName = SlotName::A;
const B: SlotName = SlotName::B;
const CHUNK: usize = 65_536;
const IMAGE: usize = 20 * CHUNK + 77;

/// A device with a single slot that runs release 1, with release 2 as package b.
struct Scene {
    board: Arc<Board>,
    service: Service,
    fake: FakeDisk,
    releases: [Release; 2],
}

impl Scene {
    fn new() -> Self {
        let releases = [1, 2].map(|rc| Release::new(rc, IMAGE));
        let service = Service::new(&releases);
        let board = Board::with_capacity(Kind::Single, &service, 21 * CHUNK);
        let fake = board.factory(&releases[0]);
        let scene = Self { board, service, fake, releases };
        let mut device = scene.device();
        assert_eq!(device.mark_bad(B), Done::Ok);
        device.write(B, 0, &scene.releases[1].image);
        assert_eq!(device.sync(B), Done::Ok);
        let image = scene.releases[1].label();
        let artifact = Artifact::new("rootfs", image.length, image.sha256, image.root);
        assert_eq!(device.hash(B, artifact, 2, image.version, Vec::new())(), Done::Ok);
        drop(device);
        scene
    }

    fn armed() -> Self {
        let scene = Self::new();
        assert_eq!(scene.device().arm(B, 2), Done::Ok);
        scene
    }

    fn disk(&self) -> Disk {
        Arc::new(self.fake.clone())
    }

    fn device(&self) -> Device {
        self.board.power_on(&self.fake, &self.service, 1).unwrap();
        Device::on(&self.disk(), &self.board.config).unwrap()
    }

    fn medium(&self) -> &Medium {
        let BootConfig::Uboot(uboot) = &self.board.config.boot else { panic!("a board with U-Boot") };
        &uboot.medium
    }

    fn recover(&self) -> Result<Recovered, RecoveryError> {
        recovery::recover(&self.disk(), &self.board.config, &mut |_, _| {})
    }

    fn trial(&self) -> Option<Trial> {
        variables::record(&self.medium().read(&self.fake).unwrap()).unwrap().unwrap().trial
    }

    fn installed(&self) -> Option<SlotName> {
        variables::installed(&self.medium().read(&self.fake).unwrap()).unwrap()
    }

    fn label(&self, slot: SlotName) -> SlotLabel {
        let config = &self.board.config;
        let slots = FileSlots::on(&self.disk(), &config.slots.dir, config.slots.capacity, slot.other());
        slots.unwrap().label(slot).unwrap()
    }

    fn package(&self, slot: SlotName) -> PathBuf {
        self.board.slot(slot)
    }

    fn system_holds(&self, release: usize) -> bool {
        self.fake.bytes(&self.board.runs_from(A)).unwrap().starts_with(&self.releases[release].image)
    }

    /// No package and no system slot is whole any more.
    fn ruined() -> Self {
        let scene = Self::new();
        scene.medium().change(&scene.fake, |it| variables::put_installed(it, None)).unwrap();
        scene.fake.rot(&scene.board.runs_from(A), 5);
        scene.fake.rot(&scene.package(A), 3 * CHUNK);
        assert!(matches!(scene.recover(), Err(RecoveryError::NoPackage(_))));
        scene
    }

    /// Fetches package a until `most` chunks have come; returns how many have.
    fn fetch(&mut self, most: usize) -> (usize, Fetching) {
        let mut fetching = Fetching::begin(&self.disk(), &self.board.config, A).unwrap();
        let (mut chunks, mut now) = (0, 0);
        while chunks < most && !fetching.is_here() {
            now += 60_000;
            let Some(get) = fetching.request(now) else { continue };
            for payload in self.service.packs(&get.write()) {
                chunks += usize::from(fetching.take(Pack::read(&payload).unwrap(), now).unwrap());
            }
        }
        (chunks, fetching)
    }
}

#[test]
fn a_staged_package_that_does_not_read_at_times_is_not_withdrawn() {
    let trial = Some(Trial { slot: B, rc: 2, tries_left: 2 });
    // Once, and in all the reads of one run of recovery: its init tries again.
    for (failing, runs) in [(1, 1), (3, 2)] {
        let scene = Scene::armed();
        scene.fake.fail_reads(&scene.package(B), failing);

        for _ in 1..runs {
            let error = scene.recover().unwrap_err();
            assert!(matches!(error, RecoveryError::InDoubt { slot: B, .. }), "{error}");
            assert_eq!(
                (error.remedy(), scene.trial(), scene.installed()),
                (Remedy::Again, trial.clone(), Some(A))
            );
        }

        assert_eq!(scene.recover().unwrap(), Recovered::Applied(B));
        assert_eq!((scene.trial(), scene.system_holds(1)), (trial.clone(), true));
    }
}

#[test]
fn a_staged_package_that_never_reads_is_withdrawn_in_the_end_and_a_damaged_one_at_once() {
    let worn = Scene::armed();
    worn.fake.wear_out(&worn.package(B), 70_000);
    for _ in 0..3 {
        assert!(matches!(worn.recover(), Err(RecoveryError::InDoubt { .. })));
    }
    let damaged = Scene::armed();
    damaged.fake.rot(&damaged.package(B), 70_000);

    for scene in [worn, damaged] {
        assert_eq!(scene.recover().unwrap(), Recovered::Nothing(A), "a is in the system slot all the time");
        assert_eq!((scene.trial().map(|trial| trial.tries_left), scene.system_holds(0)), (Some(0), true));
    }
}

#[test]
fn a_package_whose_bytes_are_in_the_system_slot_is_not_needed() {
    let scene = Scene::new();
    scene.fake.rot(&scene.package(A), 5);

    assert_eq!(scene.recover().unwrap(), Recovered::Nothing(A));

    scene.medium().change(&scene.fake, |it| variables::put_installed(it, None)).unwrap();
    assert_eq!((scene.recover().unwrap(), scene.installed()), (Recovered::Applied(A), Some(A)));
}

#[test]
fn fetching_goes_on_where_the_power_failed_and_the_old_label_stays_until_something_has_come() {
    let mut scene = Scene::ruined();
    drop(scene.fetch(0));
    assert!(matches!(scene.label(A), SlotLabel::Holds(_)), "nothing has come yet");
    let (before, fetching) = scene.fetch(12);
    drop(fetching);
    assert_eq!(scene.label(A), SlotLabel::Bad);

    // A window of one chunk: all but the one under way was noted.
    for (_, medium) in scene.fake.futures(&Outcome::few()) {
        scene.fake = FakeDisk::of(medium);
        let (after, fetching) = scene.fetch(usize::MAX);

        assert_eq!((before, before + after), (12, 21));
        fetching.finish().unwrap();
        assert!(matches!(scene.label(A), SlotLabel::Holds(_)));
        assert_eq!(scene.recover().unwrap(), Recovered::Applied(A));
        assert!(scene.system_holds(0));
    }
}

#[test]
fn what_was_fetched_and_does_not_read_back_is_fetched_anew() {
    let mut scene = Scene::ruined();
    let (_, fetching) = scene.fetch(usize::MAX);
    scene.fake.rot(&scene.package(A), 3 * CHUNK + 1);

    assert!(fetching.finish().is_err());

    let (again, fetching) = scene.fetch(usize::MAX);
    assert_eq!(again, 21);
    fetching.finish().unwrap();
}

#[test]
fn a_single_slot_is_not_armed_while_one_copy_of_its_record_is_dead() {
    for copy in [0, 1] {
        let scene = Scene::new();
        let mut device = scene.device();
        let (path, copies) = scene.board.environment().unwrap();
        scene.fake.wear_out(path, copies[copy].start);

        let Done::Failed(why) = device.arm(B, 2) else { panic!("armed") };

        assert!(why.starts_with("not armed: a single slot needs both copies"), "{why}");
        assert_eq!((scene.trial(), scene.installed()), (None, Some(A)));
        assert_eq!(variables::record(&scene.medium().read(&scene.fake).unwrap()).unwrap().unwrap().active, A);
    }
}

#[test]
fn recovery_that_cannot_change_the_record_hands_back_what_is_confirmed_and_does_not_go_round_for_ever() {
    let mut seen = Vec::new();
    for copy in [0, 1] {
        let scene = Scene::armed();
        let (path, copies) = scene.board.environment().unwrap();
        scene.fake.wear_out(path, copies[copy].start);
        // With the copy that counted the trial is gone, and nothing has to be changed.
        let expected = scene.trial().map_or(Recovered::Nothing(A), |_| Recovered::Unrecorded(A));
        seen.push(expected);
        for _ in 0..5 {
            assert_eq!(scene.recover().unwrap(), expected);
            assert_eq!((scene.installed(), scene.system_holds(0)), (Some(A), true), "copy {copy}");
        }

        let error = scene.recover().unwrap_err();

        assert!(matches!(error, RecoveryError::InTurns { slot: A }), "{error}");
        assert_eq!(error.remedy(), Remedy::Person);
        // The boot script finds the same about the record, makes no trial, and the system comes up: all is counted anew.
        drop(scene.device());
        assert_eq!(scene.recover().unwrap(), expected);
    }
    assert!(seen.contains(&Recovered::Unrecorded(A)), "{seen:?}");
}
