use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::api::testing::World;
use crate::core::fleet::Fleet;
use crate::ledger::{examine, verify};
use crate::{clock, keys, state};

const DAYS: u64 = 30;

fn standing(active: &[&str]) -> Standing {
    Standing {
        dir: PathBuf::new(),
        file: PathBuf::new(),
        checkpointed: 100,
        end: 120,
        active: active.iter().map(|id| id.parse().unwrap()).collect(),
    }
}

#[test]
fn a_segment_goes_when_it_is_old_covered_and_no_active_rollout_began_in_it() {
    let began = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect();
    let seen = Seen { end: 100, newest: 999, began: began(&["r1"]) };
    assert!(may_go(&seen, &standing(&["r2"]), 1000));
    assert!(
        !may_go(&Seen { end: 101, ..seen.clone() }, &standing(&["r2"]), 1000),
        "the checkpoint lacks a frame"
    );
    assert!(
        !may_go(&Seen { newest: 1000, ..seen.clone() }, &standing(&["r2"]), 1000),
        "one frame is too young"
    );
    assert!(!may_go(&seen, &standing(&["r1", "r2"]), 1000), "a rollout that runs began there");
}

/// A data folder after a story, in a segment for each chapter, as a copy that no service holds.
fn scene() -> TempDir {
    let world = World::new();
    let chapter = || {
        world.runtime.block_on(world.api().engine.standing(Millis::MAX)).unwrap();
    };
    let publish = |rc| {
        world.client.put_image(&world.image(rc), |_| {}).unwrap();
        world.publish(rc).unwrap();
    };
    world.add_devices(40);
    chapter();
    publish(1);
    let request = world.request(1);
    let _started: serde_json::Value = world.client.post("/v1/rollouts", &request).unwrap();
    chapter();
    world.command("cam-1-1", "kill", serde_json::json!({"reason": "smoke"})).unwrap();
    chapter();
    publish(2);
    chapter();
    let _started: serde_json::Value = world.client.post("/v1/rollouts", &world.request(2)).unwrap();
    chapter();
    publish(3);
    chapter();
    let home = TempDir::new().unwrap();
    copy(&world.options.data, &home.path().join("data"));
    // The store is not copied: what it adds up to must come from ledger and snapshot.
    std::fs::remove_dir_all(home.path().join("data/store")).unwrap();
    home
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

struct Folder {
    _home: TempDir,
    data: PathBuf,
}

impl Folder {
    fn of(scene: &TempDir) -> Self {
        let home = TempDir::new().unwrap();
        let data = home.path().join("data");
        copy(&scene.path().join("data"), &data);
        Self { _home: home, data }
    }

    fn ledger(&self) -> PathBuf {
        self.data.join("ledger")
    }

    fn fleet(&self) -> Fleet {
        state::open(&self.data, &"acme".parse().unwrap()).unwrap().fleet
    }

    fn signer(&self) -> NoteSigner {
        NoteSigner::new(keys::ledger_key(&self.data).unwrap().key)
    }

    /// What a service with a checkpoint of everything would say, the clock being a year ahead.
    fn plan(&self) -> Option<Plan> {
        let fleet = self.fleet();
        let end = verify(&self.ledger()).unwrap().frames;
        let standing = Standing {
            dir: self.ledger(),
            file: PathBuf::new(),
            checkpointed: end,
            end,
            active: active(&fleet),
        };
        plan(&standing, &self.signer(), DAYS, clock::now() + 365 * DAY).unwrap()
    }

    fn frames(&self, from: u64) -> Vec<Frame> {
        let end = verify(&self.ledger()).unwrap().frames;
        Frames::new(&self.ledger(), from, end).unwrap().map(Result::unwrap).collect()
    }
}

#[test]
fn old_frames_go_up_to_the_first_active_rollout_and_everything_goes_on_from_what_was_kept() {
    let scene = scene();
    let (whole, folder) = (Folder::of(&scene), Folder::of(&scene));
    let before = whole.fleet();
    assert_eq!(active(&before).len(), 1, "one was killed, one runs");

    let plan = folder.plan().unwrap();
    plan.steps.iter().for_each(|step| step.take().unwrap());

    let first = plan.boundary.first();
    assert!(first > 0);
    assert_eq!(folder.fleet(), before, "the store is rebuilt from the snapshot");
    let kept = folder.frames(first);
    let started: Vec<_> = kept
        .iter()
        .filter_map(|frame| match entry(frame).unwrap().fact {
            Fact::RolloutStarted { rollout, .. } => Some(rollout.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(started, ["cam-2-1"], "the active rollout is there from its start, the other is not");
    assert_eq!(kept, whole.frames(first));
    let found = examine(&folder.ledger(), Some(folder.signer().public().clone())).unwrap();
    assert_eq!(found.boundary.map(|b| (b.first(), b.days)), Some((first, DAYS)));
    // A replay comes to the same state by both ways.
    let end = |folder: &Folder, mut replay: Replay, from| {
        folder.frames(from).iter().for_each(|frame| drop(replay.take(&entry(frame).unwrap())));
        replay
    };
    let through = end(&folder, snapshot(&folder.ledger(), &plan.boundary).unwrap(), first);
    assert_eq!(through, end(&whole, Replay::new(), 0));
    assert!(folder.plan().is_none(), "there is nothing more to drop");
}

#[test]
fn a_power_cut_between_any_two_steps_leaves_a_ledger_that_opens_verifies_and_can_be_dropped_again() {
    let scene = scene();
    let before = Folder::of(&scene).fleet();
    let count = Folder::of(&scene).plan().unwrap().steps.len();
    assert!(count > 4, "{count} steps");
    let mut boundaries = Vec::new();
    for done in 0..=count {
        let folder = Folder::of(&scene);
        let plan = folder.plan().unwrap();
        plan.steps[..done].iter().for_each(|step| step.take().unwrap());
        let key = folder.signer().public().clone();

        // A copy that is made now is right.
        let found = examine(&folder.ledger(), Some(key.clone())).unwrap();
        boundaries.push(found.boundary.is_some());
        assert_eq!(folder.fleet(), before, "after {done} steps");
        assert!(
            examine(&folder.ledger(), Some(key.clone())).is_ok(),
            "after the restart that follows {done} steps"
        );

        if let Some(again) = folder.plan() {
            again.steps.iter().for_each(|step| step.take().unwrap());
        }
        assert_eq!(folder.fleet(), before);
        let found = examine(&folder.ledger(), Some(key)).unwrap();
        assert_eq!(found.boundary.unwrap().first(), plan.boundary.first());
        let left = boundary::leftovers(&folder.ledger(), Some(plan.boundary.first())).unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(boundaries.iter().filter(|set| !**set).count(), 2, "it counts once the boundary is there");
}

/// The order is what keeps it whole: the same steps in another order lose the ledger.
#[test]
fn a_segment_that_goes_before_the_boundary_is_there_is_missed() {
    let scene = scene();
    let folder = Folder::of(&scene);
    let plan = folder.plan().unwrap();
    let [Step::Snapshot(..), Step::Boundary(..), first @ Step::Drop(_), ..] = &plan.steps[..] else {
        panic!("{:?}", plan.steps.len())
    };

    first.take().unwrap();

    assert!(examine(&folder.ledger(), None).is_err());
    assert!(state::open(&folder.data, &"acme".parse().unwrap()).is_err());
}

#[test]
fn a_second_retention_goes_on_from_the_first_and_takes_its_snapshot_away() {
    let scene = scene();
    let folder = Folder::of(&scene);
    let first = folder.plan().unwrap();
    // First only a part, as if the rest had been too young.
    let end = crate::ledger::segment::Segment::list(&folder.ledger()).unwrap()[1].first;
    let fleet = folder.fleet();
    let part = Standing {
        dir: folder.ledger(),
        file: PathBuf::new(),
        checkpointed: end,
        end,
        active: active(&fleet),
    };
    let part = plan(&part, &folder.signer(), DAYS, clock::now() + 365 * DAY).unwrap().unwrap();
    part.steps.iter().for_each(|step| step.take().unwrap());
    assert_eq!(part.boundary.first(), end);

    let second = folder.plan().unwrap();
    second.steps.iter().for_each(|step| step.take().unwrap());

    assert_eq!(second.boundary.link, first.boundary.link);
    assert_eq!(second.boundary.tree, first.boundary.tree);
    assert_eq!(second.boundary.snapshot, first.boundary.snapshot);
    assert!(!part.boundary.snapshot_path(&folder.ledger()).exists());
    assert_eq!(folder.fleet(), fleet);
}
