//! Every combination of journal, boot record, running slot and slots' contents, each played to its end: with power cuts
//! before and after whatever is done, with probes that pass and fail, with a release that is halted and one that is not.

mod page;

use std::collections::HashSet;

use tern_protocol::message::ReportKind;
use tern_protocol::state::Outcome;

use super::super::SlotName;
use super::super::machine::reports;
use super::super::reconcile::{Content, Mend, Seen, has_no_way_back, mend};
use super::super::state::{Effect, Event, RollbackStep, State, UpdatingStep};
use super::super::timing::{Stamp, Timing};
use super::{LONG, NOW, show, states, whole, work};
use crate::boot::{BootRecord, Trial, choose};

/// Boots that a trial gets.
const TRIES: u8 = 2;
/// Power cuts on one path.
const CUTS: u8 = 2;
/// More boots than that on one path are a loop.
const BOOTS: u8 = 12;

/// How the world treats an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Fate {
    Good,
    ProbeFails,
    Halted,
}

/// A device, as far as booting it goes.
#[derive(Debug, Clone)]
struct World {
    state: State,
    record: BootRecord,
    contents: [Content; 2],
    running: SlotName,
    mend: Option<Mend>,
    epoch: u64,
    cuts: u8,
    boots: u8,
    /// It was well on trial before this began, or confirmed.
    was_well: bool,
}

impl World {
    fn seen(&self) -> Seen {
        let trial = self.record.trial.as_ref().map(|trial| trial.slot);
        Seen { slot: self.running, active: self.record.active, trial, contents: self.contents }
    }

    /// A factory's image boots; what was being written does not.
    fn usable(&self) -> [bool; 2] {
        self.contents.map(|content| content != Content::Bad)
    }

    fn can_boot(&self) -> bool {
        choose(&self.record, self.usable()).is_ok()
    }

    fn at(&self, uptime: u64) -> Stamp {
        Stamp { epoch: self.epoch, uptime }
    }

    /// What the journal keeps of it, and what the device is: two worlds with the same key go on alike.
    fn key(&self) -> String {
        let Self { state, record, contents, running, mend, cuts, .. } = self;
        format!("{}{record:?}{contents:?}{running}{mend:?}{cuts}", show(state))
    }

    /// Feeds the machine; a report that is not true ends the test.
    fn step(&mut self, event: &Event, at: Stamp, fate: Fate) {
        let next = self.state.clone().after(event, at, &Timing::default());
        for report in reports(&self.state, &next, event) {
            let ReportKind::Outcome { outcome, .. } = report else { continue };
            let work = self.state.work().unwrap();
            let is_new = self.running == work.slot && self.record.active == work.slot;
            match outcome {
                Outcome::Success => {
                    assert!(is_new, "claims a release that it does not run: {self:?}");
                    assert!(fate != Fate::ProbeFails || self.was_well, "claims what is not well: {self:?}");
                    assert!(
                        !matches!(self.state, State::Rollback { .. }),
                        "claims what it was to leave: {self:?}"
                    );
                }
                Outcome::RolledBack | Outcome::Unreachable => {
                    assert!(self.running != work.slot, "claims to be back: {self:?}");
                    assert!(self.record.active != work.slot, "does not stay back: {self:?}");
                }
                _ => {}
            }
        }
        self.state = next;
    }

    /// The agent comes up.
    fn comes_up(&mut self, rebooted: bool, fate: Fate) {
        if rebooted {
            self.epoch += 1;
        }
        let seen = self.seen();
        self.step(&Event::Booted { seen, rebooted }, self.at(1000), fate);
        self.mend = mend(&self.state, &seen);
        self.hears(fate);
    }

    fn hears(&mut self, fate: Fate) {
        if fate == Fate::Halted && self.state.open().is_some() {
            self.step(&Event::Halted, self.at(2000), fate);
        }
    }

    fn boots(&mut self, fate: Fate) {
        self.boots += 1;
        assert!(self.boots < BOOTS, "boots for ever: {self:?}");
        let (slot, record) = choose(&self.record, self.usable())
            .unwrap_or_else(|_| panic!("nothing boots any more: {self:?}"));
        (self.running, self.record) = (slot, record);
        self.comes_up(true, fate);
    }

    /// What the shell refuses, whatever the core asks for.
    fn refuses(&self, slot: SlotName) -> bool {
        let on_trial = self.record.trial.as_ref().is_some_and(|trial| trial.slot == slot);
        slot == self.running || slot == self.record.active || on_trial
    }

    fn work_slot(&self) -> SlotName {
        self.state.work().map(|work| work.slot).unwrap()
    }

    /// Does what is owed to the medium. The event that tells of it comes afterwards, if the power stays.
    fn perform(&mut self, fate: Fate) -> Option<Event> {
        let running = self.running;
        if let Some(mend) = self.mend {
            return self.perform_mend(mend);
        }
        if has_no_way_back(&self.state, &self.seen()) {
            return Some(Event::NoWayBack);
        }
        let refused = || "it is refused".to_owned();
        Some(match self.state.owes(self.at(3000), &Timing::default())? {
            Effect::Check => {
                Event::Eligible { present: self.contents[self.work_slot() as usize] == whole(2) }
            }
            Effect::MarkBad if self.refuses(self.work_slot()) => Event::WriteFailed(refused()),
            Effect::MarkBad => {
                self.contents[self.work_slot() as usize] = Content::Bad;
                Event::SlotMarked
            }
            Effect::Fetch if self.refuses(self.work_slot()) => Event::WriteFailed(refused()),
            Effect::Fetch => {
                let slot = self.work_slot();
                assert_eq!(self.contents[slot as usize], Content::Bad, "writes over something: {self:?}");
                Event::Written(vec![0, 1, 2])
            }
            // The shell asks again later, and nothing moves.
            Effect::Hash if self.refuses(self.work_slot()) => return None,
            Effect::Hash => {
                let slot = self.work_slot();
                let was_written = self.contents[slot as usize] == Content::Bad;
                let matches = was_written || self.contents[slot as usize] == whole(2);
                if matches {
                    self.contents[slot as usize] = whole(2);
                }
                Event::Hashed { matches }
            }
            Effect::Install => Event::Installed,
            Effect::Ask | Effect::Announce => Event::Answered,
            Effect::RunHooks => Event::HooksDone,
            Effect::UndoHooks => Event::Undone,
            Effect::Arm => {
                let slot = self.work_slot();
                if slot == self.record.active || self.contents[slot as usize] != whole(2) {
                    return Some(Event::ArmFailed(refused()));
                }
                self.record.trial = Some(Trial { slot, rc: 2, tries_left: TRIES });
                Event::Armed
            }
            Effect::Reboot => return None,
            Effect::Disarm => {
                self.record.trial = None;
                Event::Disarmed { running }
            }
            Effect::Probe if fate == Fate::ProbeFails => Event::ProbeFailed("the modem is gone".into()),
            Effect::Probe => Event::ProbesPassed,
            Effect::Soak => Event::Time,
            Effect::Confirm => {
                self.record = BootRecord { active: self.work_slot(), trial: None };
                Event::Confirmed
            }
        })
    }

    fn perform_mend(&mut self, mend: Mend) -> Option<Event> {
        match mend {
            Mend::Adopt => {
                self.record = BootRecord { active: self.running, trial: None };
                self.mend = None;
            }
            Mend::Disarm => {
                self.record.trial = None;
                self.mend = None;
            }
            Mend::Leave => self.record.trial = None,
        }
        Some(Event::Time)
    }

    fn owes_a_boot(&self) -> bool {
        match self.mend {
            Some(mend) => mend == Mend::Leave && self.record.trial.is_none(),
            None if has_no_way_back(&self.state, &self.seen()) => false,
            None => self.state.owes(self.at(3000), &Timing::default()) == Some(Effect::Reboot),
        }
    }

    /// Waits are over, and soaks, and deferrals.
    fn moves(&mut self, event: &Event, fate: Fate) {
        self.step(event, self.at(LONG), fate);
        self.hears(fate);
    }
}

/// Plays a device to its end in every way that the power can fail; returns how many worlds were seen.
fn play(start: World, fate: Fate) -> usize {
    let (mut seen, mut open) = (HashSet::new(), vec![start]);
    while let Some(world) = open.pop() {
        if !seen.insert(world.key()) {
            continue;
        }
        // What is adopted is the last that boots, and its boots may be used up: the first thing done is to keep it.
        let is_last =
            world.mend == Some(Mend::Adopt) && world.contents[world.record.active as usize] == Content::Bad;
        assert!(world.can_boot() || is_last, "nothing would boot any more: {world:?}");
        if world.owes_a_boot() {
            let mut next = world.clone();
            next.boots(fate);
            open.push(next);
            continue;
        }
        let mut done = world.clone();
        let event = done.perform(fate);
        assert!(done.can_boot(), "nothing would boot any more after {event:?}: {done:?}");
        if world.cuts < CUTS && world.can_boot() {
            for mut cut in [world.clone(), done.clone()] {
                cut.cuts += 1;
                cut.mend = None;
                cut.boots(fate);
                open.push(cut);
            }
        }
        match event {
            Some(event) => {
                done.moves(&event, fate);
                open.push(done);
            }
            None => at_rest(&done),
        }
    }
    seen.len()
}

fn at_rest(world: &World) {
    if matches!(world.state, State::Retry { .. } | State::Verifying { .. }) {
        return;
    }
    assert_eq!(world.record.trial, None, "stays armed: {world:?}");
    assert!(
        matches!(world.state, State::Idle { .. } | State::Failed { .. }),
        "comes to no end: {}",
        show(&world.state)
    );
}

/// Every combination from which something boots.
fn every_start() -> Vec<World> {
    let contents = [Content::Unknown, Content::Bad, whole(1), whole(2)];
    let mut starts = Vec::new();
    for state in states() {
        for active in SlotName::BOTH {
            let trials = SlotName::BOTH
                .into_iter()
                .flat_map(|slot| (0..=TRIES).map(move |tries_left| Some(Trial { slot, rc: 2, tries_left })));
            for trial in trials.chain([None]) {
                for running in SlotName::BOTH {
                    for a in contents {
                        for b in contents {
                            let record = BootRecord { active, trial: trial.clone() };
                            let is_past = matches!(
                                &state,
                                State::VerifyPost { probed: true, .. } | State::Success { .. }
                            );
                            let was_well = is_past || active == work().slot;
                            let (state, contents) = (state.clone(), [a, b]);
                            let (mend, epoch) = (None, NOW.epoch);
                            starts.push(World {
                                state,
                                record,
                                contents,
                                running,
                                mend,
                                epoch,
                                cuts: 0,
                                boots: 0,
                                was_well,
                            });
                        }
                    }
                }
            }
        }
    }
    // A slot that runs was not being written: no slot is that the boot record names, or that runs.
    let is_sane = |w: &World| w.contents[w.running as usize] != Content::Bad;
    starts.retain(|world| world.can_boot() && is_sane(world));
    starts
}

#[test]
fn every_combination_ends_bootable_and_truthful_whenever_the_power_fails() {
    let starts = every_start();
    let mut worlds = 0;
    for start in &starts {
        for fate in [Fate::Good, Fate::ProbeFails, Fate::Halted] {
            for rebooted in [false, true] {
                let mut world = start.clone();
                world.comes_up(rebooted, fate);
                worlds += play(world, fate);
            }
        }
    }
    println!("{} combinations, {worlds} worlds", starts.len());
    assert!(starts.len() > 5000 && worlds > 100_000, "{} {worlds}", starts.len());
}

/// The same with one rule of the table taken away, each in turn: it must show.
#[test]
fn a_trial_that_nobody_remembers_and_nobody_mends_stays_armed() {
    let record =
        BootRecord { active: SlotName::A, trial: Some(Trial { slot: SlotName::B, rc: 2, tries_left: 2 }) };
    let mut world = World {
        state: State::Idle { not_before: None },
        record,
        contents: [whole(1), whole(2)],
        running: SlotName::A,
        mend: None,
        epoch: NOW.epoch,
        cuts: CUTS,
        boots: 0,
        was_well: true,
    };
    world.comes_up(true, Fate::Good);
    assert_eq!(world.mend, Some(Mend::Disarm));
    world.mend = None;

    let result = std::panic::catch_unwind(|| play(world, Fate::Good));

    assert!(result.is_err());
}

#[test]
fn a_rollback_whose_slot_is_confirmed_after_all_ends_instead_of_booting_for_ever() {
    let mut world = World {
        state: super::rollback(RollbackStep::Record),
        record: BootRecord { active: SlotName::B, trial: None },
        contents: [whole(1), whole(2)],
        running: SlotName::B,
        mend: None,
        epoch: NOW.epoch,
        cuts: 0,
        boots: 0,
        was_well: false,
    };
    world.comes_up(true, Fate::Good);

    let event = world.perform(Fate::Good).unwrap();
    world.moves(&event, Fate::Good);

    let State::Failed { reason, .. } = world.state else { panic!("{}", show(&world.state)) };
    assert_eq!(reason, "a probe failed; there is nothing to go back to");
}

#[test]
fn a_rollback_whose_slot_would_come_back_with_the_next_boot_makes_what_runs_stay() {
    let seen = Seen { slot: SlotName::A, active: SlotName::B, trial: None, contents: [whole(1), whole(2)] };
    for state in [super::rollback(RollbackStep::Reboot), State::Success { work: work() }] {
        let state = super::after(state, &Event::Booted { seen, rebooted: true });

        assert!(matches!(state, State::Rollback { step: RollbackStep::Undo, .. }), "{}", show(&state));
        assert_eq!(mend(&state, &seen), Some(Mend::Adopt));
    }
}

#[test]
fn a_trial_without_a_slot_to_go_back_to_is_kept_from_running_out_and_judged_all_the_same() {
    let contents = [Content::Bad, whole(2)];
    let seen = Seen { slot: SlotName::B, active: SlotName::A, trial: Some(SlotName::B), contents };

    let state = super::after(super::trial(false, false), &Event::Booted { seen, rebooted: true });

    assert!(matches!(state, State::VerifyPost { probed: false, heard: false, .. }));
    assert_eq!(mend(&state, &seen), Some(Mend::Adopt));
}

#[test]
fn the_last_slot_that_was_verified_is_kept_rather_than_left_for_one_that_was_being_written() {
    let record =
        BootRecord { active: SlotName::A, trial: Some(Trial { slot: SlotName::B, rc: 2, tries_left: 1 }) };
    let seen = |a| Seen {
        slot: SlotName::B,
        active: record.active,
        trial: Some(SlotName::B),
        contents: [a, whole(2)],
    };
    let idle = State::Idle { not_before: None };

    assert_eq!(mend(&idle, &seen(Content::Bad)), Some(Mend::Adopt));
    assert_eq!(mend(&idle, &seen(whole(1))), Some(Mend::Leave));
    assert_eq!(mend(&idle, &seen(Content::Unknown)), Some(Mend::Leave));
}

#[test]
fn a_trial_that_the_journal_is_about_is_left_to_it() {
    let seen = Seen {
        slot: SlotName::B,
        active: SlotName::A,
        trial: Some(SlotName::B),
        contents: [whole(1), whole(2)],
    };
    for state in states() {
        let knows = matches!(
            &state,
            State::VerifyPost { .. }
                | State::Success { .. }
                | State::Rollback { .. }
                | State::Updating { .. }
        ) && !matches!(
            &state,
            State::Updating {
                step: UpdatingStep::Announce { .. }
                    | UpdatingStep::Install
                    | UpdatingStep::Reask { .. }
                    | UpdatingStep::Undo(_),
                ..
            } | State::Rollback { step: RollbackStep::Undo, .. }
        );
        assert_eq!(mend(&state, &seen).is_none(), knows, "{}", show(&state));
    }
}
