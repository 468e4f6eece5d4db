//! The power fails before every operation of an update, a second update, a rollback and a recall.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "a campaign tells what it has done")]

use std::sync::Arc;

use tern_agent::boot::BootError;
use tern_agent::boot::uboot::variables;
use tern_agent::config::BootConfig;
use tern_agent::core::SlotName;
use tern_tests::powercut::board::{Board, Kind};
use tern_tests::powercut::campaign::{Tally, Violation, kills, lies, pairs, single};
use tern_tests::powercut::device::{Ended, Terminal};
use tern_tests::powercut::disk::FakeDisk;
use tern_tests::powercut::flaw::flawed;
use tern_tests::powercut::lie::{Lie, Operation};
use tern_tests::powercut::outcome::Outcome;
use tern_tests::powercut::service::{Release, Service};
use tern_tests::powercut::story::Story;

const KINDS: [(&str, Kind); 4] = [
    ("files", Kind::Files),
    ("uboot", Kind::Uboot),
    ("single", Kind::Single),
    ("systemd-boot", Kind::SystemdBoot),
];

const STORIES: [(&str, Story); 10] = [
    ("update", Story::Update),
    ("second", Story::Second),
    ("third", Story::Third),
    ("rollback", Story::Rollback),
    ("recall", Story::Recall),
    ("disarm", Story::Disarm),
    ("parts", Story::Parts),
    ("parts-third", Story::PartsThird),
    ("parts-back", Story::PartsBack),
    ("parts-fail", Story::PartsFail),
];

/// What components do does not depend on the boot loader: they are played beside files and beside one that counts itself.
fn stories(kind: Kind) -> &'static [Story] {
    match kind {
        Kind::Files | Kind::Uboot => &Story::EVERY,
        Kind::Single | Kind::SystemdBoot => &Story::ALL,
    }
}

fn outcomes(kind: Kind) -> Vec<Outcome> {
    if kind == Kind::SystemdBoot { Outcome::on_fat() } else { Outcome::all() }
}

fn every_cut(kind: Kind, stories: &[Story]) {
    for story in stories.iter().copied() {
        let tally = single(story, kind, None, &outcomes(kind))
            .unwrap_or_else(|violation| panic!("{story:?}: {violation}"));
        let Tally { operations, cuts, runs } = tally;
        println!(
            "{kind:?} {story:?}: {operations} operations, {cuts} cuts, {runs} different states played on"
        );
        assert!(operations > 50 && 2 * cuts > 3 * operations && runs > operations / 2, "{tally:?}");
    }
}

#[test]
fn files_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Files, &Story::ALL);
}

#[test]
fn a_delta_and_its_repair_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Files, &[Story::ByDelta, Story::Mended]);
}

#[test]
fn partitions_and_an_environment_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Uboot, &Story::ALL);
}

#[test]
fn a_single_slot_and_its_recovery_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::Single, &Story::ALL);
}

#[test]
fn components_are_all_of_one_release_wherever_the_power_fails() {
    every_cut(Kind::Files, &Story::PARTS);
}

#[test]
fn components_beside_partitions_are_all_of_one_release_wherever_the_power_fails() {
    every_cut(Kind::Uboot, &Story::PARTS);
}

/// Returns how often recovery is done where the boot loader comes back to it each time, and each reset loses the cache;
/// nothing if that has no end.
fn turns(lie: Option<&Lie>) -> Option<u32> {
    let releases = [1, 2].map(|rc| Release::new(rc, 70_000));
    let board = Board::new(Kind::Single, &Service::new(&releases));
    let mut medium = board.factory(&releases[0]).shut_down();
    for turn in 1..=32 {
        let fake = FakeDisk::of(medium);
        fake.lie(lie.cloned());
        // Whatever else it fails by ends it as well.
        if board.recover_once(&fake).is_err() {
            return Some(turn);
        }
        medium = fake.futures(&[Outcome::NOTHING]).remove(0).1;
    }
    None
}

#[test]
fn recovery_comes_to_an_end_though_every_reset_loses_the_cache() {
    assert_eq!(turns(None), Some(6));
    assert_eq!(turns(Some(&Lie::Never(Operation::Sync, "recovery-tries".into()))), None);
}

/// Operations behind a start of the agent: all that it does before it goes on with its work, and the first of that.
const START: u64 = 24;
/// The same with components.
const LONG_START: u64 = 64;

fn every_kill(kind: Kind, stories: &[Story], reach: u64) {
    for story in stories.iter().copied() {
        let tally = kills(story, kind, None, &few(kind), reach)
            .unwrap_or_else(|violation| panic!("{kind:?} {story:?}: {violation}"));
        let Tally { operations, cuts, runs } = tally;
        println!(
            "{kind:?} {story:?}: {operations} kills, {cuts} cuts behind them, {runs} different states played on"
        );
        assert!(operations > 50 && runs > operations / 2, "{tally:?}");
    }
}

/// What the dead one had not synced is still in the cache when the next one looks, and goes with the power.
#[test]
fn an_agent_that_is_killed_leaves_nothing_to_a_power_cut_behind_it() {
    every_kill(Kind::Files, &[Story::Update, Story::Second], START);
}

/// `TERN_KILLS` names kinds and stories, as `files parts-back`; every one of either if it names none.
#[test]
#[ignore = "an hour of work: .ci/long power-kills"]
fn every_kill_and_every_power_cut_behind_it_is_survived() {
    let asked = std::env::var("TERN_KILLS").unwrap_or_default();
    let named = |name: &str| asked.split_whitespace().any(|word| word == name);
    let (some_kinds, some_stories) =
        (KINDS.iter().any(|(name, _)| named(name)), STORIES.iter().any(|(name, _)| named(name)));
    for (_, kind) in KINDS.iter().filter(|(name, _)| !some_kinds || named(name)) {
        let wanted = STORIES.iter().filter(|(name, _)| !some_stories || named(name));
        let wanted = wanted.map(|(_, story)| *story).filter(|story| stories(*kind).contains(story));
        every_kill(*kind, &wanted.collect::<Vec<_>>(), u64::MAX);
    }
}

/// A factory calls again what it has interrupted, and believes what that says.
#[test]
fn what_provisioning_says_is_there_stays_there() {
    for (name, kind) in KINDS {
        let releases = [1, 2].map(|rc| Release::new(rc, 70_000));
        let service = Service::new(&releases);
        let board = Board::new(kind, &service);
        let (mut number, mut runs) = (0, 0);
        loop {
            number += 1;
            let fake = board.bare();
            fake.kill_before(number);
            if board.provision(&fake, &releases[0]).is_ok() {
                break;
            }
            fake.revive();
            match board.provision(&fake, &releases[0]) {
                Ok(()) | Err(BootError::AlreadyProvisioned) => {}
                Err(error) => panic!("{name}, killed before operation {number}: {error:?}"),
            }
            for (outcome, medium) in fake.futures(&outcomes(kind)) {
                let mut terminal =
                    Terminal::new(Arc::clone(&board), FakeDisk::of(medium), Service::new(&releases));

                let ended = terminal.run(&|_, _| true);

                assert_eq!(ended, Ended::Done, "{name}, killed before operation {number}, {outcome:?}");
                assert_eq!(terminal.runs, Some(1), "{name}, killed before operation {number}, {outcome:?}");
                runs += 1;
            }
        }
        println!("{name}: killed before each of {} operations, {runs} runs", number - 1);
        assert!(number > 8 && runs + 1 >= number, "{name}: {number} {runs}");
    }
}

/// With what FAT makes of a rename: the loader's counting leaves an entry there twice, or not at all.
#[test]
fn partitions_and_entries_of_systemd_boot_survive_a_power_cut_before_every_operation() {
    every_cut(Kind::SystemdBoot, &Story::ALL);
}

/// Media that fail: a read, a sector, a whole copy. `TERN_FLAWS` names the seeds, as `0..30000`.
#[test]
fn a_read_that_fails_a_worn_sector_and_a_lost_copy_cost_no_device() {
    let asked = std::env::var("TERN_FLAWS").ok();
    let seeds = asked.as_deref().unwrap_or("0..24").split_once("..").unwrap();
    let seeds = seeds.0.parse().unwrap()..seeds.1.parse().unwrap();
    let mut broken = Vec::new();
    for kind in [Kind::Files, Kind::Uboot, Kind::Single] {
        for story in Story::ALL {
            let (runs, seen) = flawed(story, kind, seeds.clone());
            println!("{kind:?} {story:?}: {runs} flaws, {} broken", seen.len());
            broken.extend(seen.into_iter().map(|what| format!("{kind:?} {story:?} {what}")));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// What recovery has marked as done is not written again, wherever the power fails.
#[test]
fn a_long_recovery_goes_on_where_the_power_failed() {
    const CHUNK: usize = 65_536;
    let releases = [1, 2].map(|rc| Release::new(rc, 40 * CHUNK + 77));
    let service = Service::new(&releases);
    let board = Board::with_capacity(Kind::Single, &service, 41 * CHUNK);
    let whole = board.factory(&releases[0]);
    let medium = whole.shut_down();
    // The other package is in the system slot: recovery has everything to write.
    let start = || {
        let fake = FakeDisk::of(medium.clone());
        let BootConfig::Uboot(uboot) = &board.config.boot else { panic!("a board with U-Boot") };
        uboot
            .medium
            .change(&fake, |environment| variables::put_installed(environment, Some(SlotName::B)))
            .unwrap();
        let system = board.runs_from(SlotName::A);
        (0..40).for_each(|chunk| fake.rot(&system, chunk * CHUNK));
        FakeDisk::of(fake.shut_down())
    };
    let recover = |fake: &FakeDisk| board.recover_once(fake);
    let written = |fake: &FakeDisk| fake.written().get("system").copied().unwrap_or(0);
    let fake = start();
    recover(&fake).unwrap();
    let all = written(&fake);
    assert_eq!(all, releases[0].image.len() as u64);
    let mut resumed = 0;
    for number in (1..fake.done()).step_by(3) {
        let fake = start();
        fake.cut_before(number);
        assert!(recover(&fake).is_err());
        let before = written(&fake);
        for (_, medium) in fake.futures(&Outcome::few()) {
            let fake = FakeDisk::of(medium);

            recover(&fake).unwrap();

            let system = fake.bytes(&board.runs_from(SlotName::A)).unwrap();
            assert!(system.starts_with(&releases[0].image), "before operation {number}");
            // A stride of sixteen chunks and what was not marked yet.
            assert!(before + written(&fake) <= all + 17 * CHUNK as u64, "before operation {number}");
            resumed += u64::from(written(&fake) < all);
        }
    }
    assert!(resumed > 10, "{resumed}");
}

/// What a recovery has written and not lived to sync is all that is left, where its package rots behind it.
#[test]
fn what_recovery_believes_of_the_system_slot_stays_there() {
    let releases = [1, 2].map(|rc| Release::new(rc, 70_000));
    let service = Service::new(&releases);
    let board = Board::new(Kind::Single, &service);
    let medium = board.factory(&releases[0]).shut_down();
    let system = board.runs_from(SlotName::A);
    let holds = |fake: &FakeDisk| fake.bytes(&system).unwrap().starts_with(&releases[0].image);
    let recover = |fake: &FakeDisk| board.recover_once(fake);
    let mut believed = 0;
    for number in 1.. {
        let fake = FakeDisk::of(medium.clone());
        fake.rot(&system, 0);
        fake.kill_before(number);
        if recover(&fake).is_ok() {
            break;
        }
        fake.revive();
        if !holds(&fake) {
            continue;
        }
        fake.rot(&board.slot(SlotName::A), 0);

        recover(&fake).unwrap();

        for (outcome, medium) in fake.futures(&Outcome::all()) {
            assert!(holds(&FakeDisk::of(medium)), "killed before operation {number}, {outcome:?}");
            believed += 1;
        }
    }
    assert!(believed > 0);
}

/// Taken out and missed by nobody, all the same: the entry of a trial that has booted is switched off, and what the loader
/// goes by is durable by the orderly reboot that comes before anything is said of it. The line is the one that switches off
/// an entry which has not booted; that one is needed.
const BOOTED: [&str; 4] = [
    "Never(Sync, \"tern+1-1.conf\")",
    "Never(Sync, \"tern+1-1.conf at start\")",
    // What need not be durable at all need not be so before the next.
    "After(Sync, \"tern+1-1.conf\", Sync, \"journal\")",
    "After(Sync, \"tern+1-1.conf\", Sync, \"tern.conf\")",
];

/// Each sync taken out in turn, and the order of each two that follow one another turned round: the campaign must see it.
/// `TERN_LIES` names kinds, as `files uboot`; every one if it is not set. `TERN_LIE` is a part of those that are wanted, as
/// `SyncFolder, "slots"`.
#[test]
#[ignore = "minutes of work: .ci/long power-cuts"]
fn every_sync_and_every_order_of_two_writes_is_needed() {
    let asked = std::env::var("TERN_LIES").unwrap_or_default();
    let wanted = std::env::var("TERN_LIE").unwrap_or_default();
    let mut survived = Vec::new();
    for (name, kind) in KINDS {
        if !asked.is_empty() && !asked.split_whitespace().any(|word| word == name) {
            continue;
        }
        // What fails with everything in its place would pass for something that was missed.
        if wanted.is_empty() {
            every_kill(kind, stories(kind), LONG_START);
        }
        let mut lies = lies(kind, stories(kind)).unwrap_or_else(|violation| panic!("{violation}"));
        lies.retain(|(lie, _)| format!("{lie:?}").contains(&wanted));
        for (lie, stories) in lies {
            match missed(kind, &lie, &stories) {
                Some(what) => println!("seen      {kind:?} {lie:?}: {what}"),
                None if kind == Kind::SystemdBoot && BOOTED.contains(&format!("{lie:?}").as_str()) => {
                    println!("spared    {kind:?} {lie:?}: by the reboot behind it");
                }
                None => {
                    println!("SURVIVED  {kind:?} {lie:?}");
                    survived.push(format!("{kind:?} {lie:?}"));
                }
            }
        }
    }
    assert!(survived.is_empty(), "nobody misses these:\n{}", survived.join("\n"));
}

/// Says who misses what was taken out, if somebody does; it comes in `of`.
fn missed(kind: Kind, lie: &Lie, of: &[Story]) -> Option<String> {
    let (all, few) = (outcomes(kind), few(kind));
    let cut = |story| single(story, kind, Some(lie), &all).err();
    let killed = |story| kills(story, kind, Some(lie), &few, LONG_START).err();
    let first = |stories: &[Story], fails: &dyn Fn(Story) -> Option<Violation>| {
        stories.iter().find_map(|story| fails(*story).map(|seen| format!("{story:?}: {seen}")))
    };
    // One that died has others go another way than the story goes by itself.
    let others: Vec<_> = stories(kind).iter().copied().filter(|story| !of.contains(story)).collect();
    let endless = || {
        (kind == Kind::Single && turns(Some(lie)).is_none())
            .then(|| "recovery is begun again for ever, where each reset loses the cache".to_owned())
    };
    // What only a start does, only a dead agent before it makes needful.
    let seen = match lie.is_of_a_start() {
        true => first(of, &killed).or_else(|| first(of, &cut)),
        false => first(of, &cut).or_else(endless).or_else(|| first(of, &killed)),
    };
    seen.or_else(|| first(&others, &killed))
}

fn few(kind: Kind) -> Vec<Outcome> {
    if kind == Kind::SystemdBoot { Outcome::few_on_fat() } else { Outcome::few() }
}

/// Two power cuts, before every pair of operations. `TERN_PAIRS` names kind, story and share, as `files update 0/16`.
#[test]
#[ignore = "hours of work: .ci/long power-pairs"]
fn every_pair_of_power_cuts_is_survived() {
    let asked = std::env::var("TERN_PAIRS").unwrap_or_default();
    let mut words = asked.split_whitespace();
    let kind = words.next().and_then(|word| KINDS.iter().find(|(name, _)| *name == word));
    let story = words.next().and_then(|word| STORIES.iter().find(|(name, _)| *name == word));
    let share = words.next().and_then(|word| word.split_once('/'));
    let share = share.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let (Some((_, kind)), Some((_, story)), Some(share)) = (kind, story, share) else {
        panic!("TERN_PAIRS is {asked:?}; write for instance \"files update 0/16\"")
    };

    let tally = pairs(*story, *kind, &few(*kind), share, |number, tally| {
        println!("{asked}: first cut before operation {number}, {} runs so far", tally.runs);
    });

    let tally = tally.unwrap_or_else(|violation| panic!("{asked}: {violation}"));
    let Tally { operations, cuts, runs } = tally;
    println!(
        "{asked}: {operations} operations, {cuts} second cuts, {runs} different states played on, 0 broken"
    );
}
