//! What an operator must be able to rely on when something is wrong with keys, files or clocks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;
use tern_protocol::id::{ProductId, RolloutId};
use tern_protocol::message::Registry;

use super::{Command, Input, Lives, Output, Refusal, RefusalKind, Reply, Service, Step};
use crate::core::fact::DeviceEntry;
use crate::core::fleet::Fleet;
use crate::core::rollout::hold_back::HoldBack;
use crate::core::rollout::plan::{Phase, Plan, Reach};
use crate::core::rollout::wave::Waves;
use crate::keys::{self, InitOptions};
use crate::release::{NewArtifact, NewRelease, ReleaseDocument, draft, measure, sign};

const NOW: u64 = 1_795_000_000_000;
const DAY: u64 = 24 * 3600 * 1000;

#[path = "tests_cap.rs"]
mod cap;
#[path = "tests_control.rs"]
mod control;
#[path = "tests_head.rs"]
mod head;
#[path = "tests_parts.rs"]
mod parts;
#[path = "tests_revert.rs"]
mod revert;
#[path = "tests_sites.rs"]
mod sites;
#[path = "tests_steer.rs"]
mod steer;

struct Scene {
    home: TempDir,
    service: Service,
    product: ProductId,
    now: u64,
}

impl Scene {
    /// A product and one device.
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// As above, after something was done to the data folder.
    fn with(damage: impl Fn(&PathBuf)) -> Self {
        let home = TempDir::new().unwrap();
        let options = InitOptions::unencrypted(
            "acme".parse().unwrap(),
            "cam".parse().unwrap(),
            home.path().join("data"),
            home.path().join("offline"),
            NOW / 1000,
        );
        keys::init(&options).unwrap();
        damage(&options.data.join("keys/cam"));
        let product = options.product.clone();
        let online = keys::load_online(&options.data, &product).unwrap();
        let fleet = Fleet::new("acme".parse().unwrap());
        let service =
            Service::new(fleet, BTreeMap::from([(product.clone(), online)]), Lives::default(), [7; 32]);
        let mut scene = Self { home, service, product: product.clone(), now: NOW };
        let files = keys::offline_files(&options.data, &product).unwrap();
        scene.command(Command::AddProduct { product, files }).unwrap();
        scene.add("cam-1");
        scene
    }

    fn add(&mut self, name: &str) {
        self.add_in(name, "eu");
    }

    fn add_in(&mut self, name: &str, region: &str) {
        let key = p256::SecretKey::from_slice(&[9; 32]).unwrap();
        let registry = Registry {
            product: self.product.clone(),
            model: "b3".parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: region.parse().unwrap(),
        };
        let identity = tern_protocol::tuf::content::point_hex(&key.public_key());
        let devices = vec![DeviceEntry { device: name.parse().unwrap(), identity, registry }];
        self.command(Command::AddUnsignedDevices { devices }).unwrap();
    }

    fn step(&mut self, input: Input) -> Step {
        self.service.handle(vec![input], self.now)
    }

    fn command(&mut self, command: Command) -> Result<Reply, Refusal> {
        let step = self.step(Input::Command { id: 0, by: None, command: Box::new(command) });
        let reply = step.outputs.into_iter().find_map(|output| match output {
            Output::Reply { result, .. } => Some(result),
            Output::Publish { .. } => None,
        });
        reply.unwrap()
    }

    /// Signs a release whose image is made of `byte`, on top of `previous` or of what is published.
    fn signed(&self, rc: u64, byte: u8, previous: Option<&str>) -> String {
        let image = self.home.path().join("image");
        std::fs::write(&image, [byte; 1000]).unwrap();
        let published =
            &self.service.fleet().products[&self.product].files[&tern_protocol::tuf::Role::Release];
        let previous = previous.unwrap_or(published);
        let new = NewRelease {
            product: self.product.clone(),
            rc,
            version: format!("1.{rc}"),
            min_from: 0,
            floor: 0,
            artifacts: vec![NewArtifact::new(
                "rootfs",
                vec!["b3".parse().unwrap()],
                measure(&image, |_| {}).unwrap(),
            )],
            expires: (NOW + 100 * DAY) / 1000,
        };
        let previous = ReleaseDocument::read("previous", previous.as_bytes()).unwrap();
        let (bytes, _) = draft(&previous, &new).unwrap();
        let key = keys::load_signer(&self.home.path().join("offline/release.pem")).unwrap();
        String::from_utf8(sign(&bytes, &key).unwrap()).unwrap()
    }

    fn publish(&mut self, file: &str) -> Result<Reply, Refusal> {
        self.command(Command::PublishRelease { product: self.product.clone(), file: file.to_owned() })
    }

    fn start(&mut self, name: &str, rc: u64) -> Result<Reply, Refusal> {
        let phases = vec![Phase::new(Reach::All, Default::default())];
        let (rollout, product) = (name.parse().unwrap(), self.product.clone());
        let plan = Plan { phases, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
        self.command(Command::Start { rollout, product, rc, attempt: 1, plan })
    }

    fn kill(&mut self, name: &str) -> Result<Reply, Refusal> {
        self.command(Command::Kill { rollout: name.parse().unwrap(), reason: "test".into() })
    }
}

fn id(name: &str) -> RolloutId {
    name.parse().unwrap()
}

#[test]
fn a_kill_that_cannot_be_signed_is_never_called_done() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.start("r2", 2).unwrap();
    // Root and targets are of yesterday's year: no device accepts anything under them.
    scene.now += 4000 * DAY;

    let refusal = scene.kill("r2").unwrap_err();

    assert_eq!(refusal.kind, RefusalKind::Unsigned);
    assert!(refusal.what.contains("NO DEVICE LEARNS OF IT"), "{refusal}");
    let halted = &scene.service.fleet().products[&scene.product].halted;
    assert!(halted.contains(&2), "the kill is recorded all the same");
    assert!(scene.service.trouble().contains_key(&scene.product));
}

#[test]
fn a_key_that_devices_do_not_believe_is_noticed_at_the_start_and_stops_every_start() {
    let misplaced = |keys: &PathBuf| {
        std::fs::copy(keys.join("rollout.pem"), keys.join("halt.pem")).unwrap();
    };
    let mut scene = Scene::with(misplaced);

    let step = scene.step(Input::Time);

    assert!(scene.service.trouble().contains_key(&scene.product), "{step:?}");
    // Control: with its own key nothing is wrong.
    let mut sound = Scene::new();
    sound.step(Input::Time);
    assert!(sound.service.trouble().is_empty(), "{:?}", sound.service.trouble());
}

#[test]
fn trouble_is_said_once_and_not_at_every_tick() {
    let mut scene = Scene::new();
    scene.now += 4000 * DAY;

    let alarms: Vec<String> = (0..50)
        .flat_map(|_| {
            scene.now += 200;
            scene.step(Input::Time).alarms
        })
        .collect();

    assert_eq!(alarms.len(), 1, "{alarms:?}");
}

#[test]
fn the_bytes_of_a_release_never_change_under_its_counter() {
    let mut scene = Scene::new();
    let empty =
        scene.service.fleet().products[&scene.product].files[&tern_protocol::tuf::Role::Release].clone();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    scene.start("r3", 3).unwrap();

    let beside = scene.publish(&scene.signed(2, 66, Some(&empty))).unwrap_err();
    let without = scene.signed(4, 4, Some(&empty));
    let older = scene.publish(&without).unwrap_err();

    assert_eq!(beside.kind, RefusalKind::Conflict);
    assert!(beside.what.contains("release 2 was published already"), "{beside}");
    assert!(older.what.contains("has version"), "{older}");
    let releases = scene.service.fleet().products[&scene.product].releases();
    assert_eq!(releases.into_keys().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn the_way_of_offline_files_is_no_way_around_the_rules_for_releases() {
    let mut scene = Scene::new();
    let release = |scene: &Scene| {
        scene.service.fleet().products[&scene.product].files[&tern_protocol::tuf::Role::Release].clone()
    };
    let empty = release(&scene);
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    let other = scene.signed(3, 3, Some(&scene.signed(2, 66, Some(&empty))));
    let new = scene.signed(3, 3, None);
    let held = release(&scene);

    let mut offline = |text: String| {
        let role = tern_protocol::tuf::Role::Release;
        let files = vec![crate::core::fact::SignedFile { role, text }];
        scene.command(Command::AddProduct { product: scene.product.clone(), files }).unwrap_err()
    };
    let (changed, added) = (offline(other), offline(new));

    assert!(changed.what.contains("release 2 was published already"), "{changed}");
    assert!(added.what.contains("release 3, which is not published"), "{added}");
    assert_eq!(release(&scene), held);
}

#[test]
fn a_kill_for_a_product_whose_keys_are_gone_is_never_called_done() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.start("r2", 2).unwrap();
    scene.service.keys.clear();

    let refusal = scene.kill("r2").unwrap_err();

    assert_eq!(refusal.kind, RefusalKind::Unsigned, "{refusal}");
}

#[test]
fn the_newest_rollout_comes_first_whatever_the_clock_said() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    scene.start("r2", 2).unwrap();
    // Everybody is offered it and nobody is on the way, so the next one supersedes it. Within one run time never
    // goes back; a restart on a machine whose clock was mended does.
    scene.service.now = NOW - 2 * DAY;
    scene.now = NOW - 2 * DAY;
    scene.start("r3", 3).unwrap();

    let content = scene.service.fleet().products[&scene.product].rollout_content();

    assert_eq!(content.entries[0].rc, 3, "{content:?}");
    // Both are bases in the end, and there the newer must win too.
    scene.service.fleet.rollouts.get_mut(&id("r3")).unwrap().status =
        crate::core::rollout::record::Status::Completed;
    let bases = scene.service.wanted_rollout(&scene.product);
    assert_eq!(bases.entries.iter().map(|entry| entry.rc).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_release_that_devices_still_fetch_is_not_over() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    scene.start("r2", 2).unwrap();
    scene.service.fleet.devices.get_mut(&"cam-1".parse().unwrap()).unwrap().seen_at = Some(NOW);
    scene.now += DAY / 25;

    let refusal = scene.start("r3", 3).unwrap_err();

    assert!(refusal.what.contains("rollout r2 is active"), "{refusal}");
    scene.now += DAY / 24;
    scene.start("r3", 3).unwrap();
    let before = &scene.service.fleet().rollouts[&id("r2")];
    assert!(before.because.ends_with("superseded by r3"), "{}", before.because);
}

#[test]
fn a_rollout_of_other_models_ends_none() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    scene.start("r2", 2).unwrap();
    scene.service.fleet.rollouts.get_mut(&id("r2")).unwrap().plan.models = vec!["other".parse().unwrap()];
    scene.now += DAY;
    let phases = vec![Phase::new(Reach::All, Default::default())];
    let models = vec![scene.service.fleet().devices[&"cam-1".parse().unwrap()].registry.model.clone()];
    let plan = Plan { phases, models, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
    let (rollout, product) = (id("r3"), scene.product.clone());

    scene.command(Command::Start { rollout, product, rc: 3, attempt: 1, plan }).unwrap();

    let status = |name: &str| scene.service.fleet().rollouts[&id(name)].status;
    use crate::core::rollout::record::Status;
    assert_eq!((status("r2"), status("r3")), (Status::Running, Status::Running));
}

#[test]
fn no_rollout_pushes_another_out_of_what_devices_are_told() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.publish(&scene.signed(3, 3, None)).unwrap();
    scene.start("r2", 2).unwrap();
    let first = scene.service.fleet().rollouts[&id("r2")].clone();
    for number in 0..8 {
        let mut other = first.clone();
        other.id = id(&format!("other-{number}"));
        other.plan.regions = vec![format!("far-{number}").parse().unwrap()];
        scene.service.fleet.rollouts.insert(other.id.clone(), other);
    }
    scene.service.fleet.rollouts.remove(&id("r2"));
    let region = scene.service.fleet().devices[&"cam-1".parse().unwrap()].registry.region.clone();
    let start = |scene: &mut Scene| {
        let phases = vec![Phase::new(Reach::All, Default::default())];
        let regions = vec![region.clone()];
        let plan = Plan { phases, regions, waves: Waves::OFF, hold_back: HoldBack::OFF, ..Plan::default() };
        let (rollout, product) = (id("r3"), scene.product.clone());
        scene.command(Command::Start { rollout, product, rc: 3, attempt: 1, plan })
    };

    let refusal = start(&mut scene).unwrap_err();

    assert!(refusal.what.contains("8 rollouts of product") && refusal.what.contains("other-7"), "{refusal}");
    scene.service.fleet.rollouts.remove(&id("other-3"));
    start(&mut scene).unwrap();
}

#[test]
fn a_rollout_that_nobody_needs_is_refused() {
    let mut scene = Scene::new();
    scene.publish(&scene.signed(2, 2, None)).unwrap();
    scene.service.fleet.devices.get_mut(&"cam-1".parse().unwrap()).unwrap().running = 2;

    let refusal = scene.start("r2", 2).unwrap_err();

    assert!(refusal.what.contains("runs release 2 or a newer one already"), "{refusal}");
    scene.service.fleet.devices.get_mut(&"cam-1".parse().unwrap()).unwrap().running = 1;
    scene.start("r2", 2).unwrap();
}
