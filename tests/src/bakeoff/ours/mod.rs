//! The same fleet under the product's own service: every device speaks to it in sealed reports, and what it decides is
//! read from its facts. Waves, hold-backs or whatever a plan brings need nothing here: a device begins when the cuts
//! that the service has opened include it.
//!
//! Devices are traits and arithmetic here ([`super::device`]); the tests hold that arithmetic against real agents.

mod meter;
mod site;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tern_agent::core::timing::Timing;
use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::gate::{Observed, Pairs, judge};
use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::Plan;
use tern_controller::core::rollout::policy::{Claim, PhaseRule, Policy};
use tern_controller::core::rollout::record::Status;
use tern_controller::core::rollout::verdict::Verdict;
use tern_controller::core::service::Input;
use tern_protocol::message::{Nonce, ReportKind};
use tern_protocol::state::Outcome;

use self::meter::Meter;
pub use self::site::Devices;
use self::site::Site;
use super::Ended;
use super::device::{End, TRIES, Traits, course, heard, start};
use super::scenario::{BASELINE, Scenario};
use crate::sim::clock::{HOUR, MINUTE, SECOND};

/// Messages within this time are one step of the service: while few devices have started, and later. It may see a bad
/// device so much later than it could, never earlier.
const STEP: [u64; 2] = [5 * SECOND, MINUTE];
/// So many are few.
const FEW: u64 = 2000;
/// Fewer than [`tern_controller::core::service::BATCH`]: a full batch puts deadlines off.
const STEP_MOST: usize = 1500;
/// The service looks at the time so often.
const TICK: u64 = 5 * MINUTE;
/// A rollout that holds for so long after the last word of its devices waits for a person: two soaks.
const HOLDS: u64 = 48 * HOUR;
/// After the last word of the fleet its last deadlines pass within this time.
const AFTERMATH: u64 = 7 * HOUR;

/// Which policy the service is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// What a plan has when nothing is said.
    Default,
    /// One relative claim at 1.25 times the usual failure rate, and no hard stop: what a baseline will give.
    Relative,
    /// Deliberately wrong: deadlines of weeks, so that silence is never heard.
    Deaf,
    /// Deliberately wrong: gates that pass by time alone, and tests that never stop.
    Blind,
}

impl Profile {
    /// Returns the plan: phases of 1, 10, 50 and 100 % with their gates, and this policy.
    pub fn plan(self) -> Plan {
        // The devices of the harness are in no control.
        let mut plan = Plan { hold_back: HoldBack::OFF, ..Plan::default() };
        let policy = &mut plan.policy;
        match self {
            Self::Default => {}
            Self::Relative => {
                *policy = Policy {
                    claim: Claim::Absolute,
                    max_failure_rate: BASELINE * 1.25,
                    hard_stop: None,
                    ..Policy::default()
                };
            }
            Self::Deaf | Self::Blind => {
                let day = std::time::Duration::from_secs(24 * 3600);
                (policy.silence_early.after, policy.silence_deadline.after) = (80 * day, 90 * day);
                plan.waves.pause = Some(day / 12);
            }
        }
        if self == Self::Blind {
            (policy.max_failure_rate, policy.hard_stop) = (0.99, None);
            plan.phases
                .iter_mut()
                .for_each(|phase| phase.rule = PhaseRule { gate: None, ..phase.rule.clone() });
        }
        plan
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It starts, for the how-many-th time.
    Start(usize, u32),
    /// It speaks from a later boot.
    Boots(usize),
    /// Its trial ended.
    Ends(usize, u32),
    /// Its connection is gone, or back.
    Presence(usize, bool),
    /// The service's connection is gone, or back.
    Broker(bool),
    /// Nothing but time passed.
    Tick,
}

struct World<'a> {
    scenario: &'a Scenario,
    fleet: &'a [Traits],
    timing: Timing,
    site: Site,
    queue: BinaryHeap<Reverse<(u64, Event)>>,
    offered: Vec<bool>,
    begun: Vec<bool>,
    ends: Vec<Option<End>>,
    last_word: u64,
    meter: Option<Meter>,
    ended: Ended,
}

/// Plays one rollout to its end.
pub fn play(scenario: &Scenario, fleet: &[Traits], devices: &Devices, profile: Profile, seed: u64) -> Ended {
    let mut site = Site::new(devices, seed);
    site.start(profile.plan());
    let size = fleet.len();
    let mut world = World {
        scenario,
        fleet,
        timing: Timing::default(),
        site,
        queue: BinaryHeap::new(),
        offered: vec![false; size],
        begun: vec![false; size],
        ends: vec![None; size],
        last_word: 0,
        meter: scenario.defect.map(Meter::new),
        ended: Ended::default(),
    };
    world.plan_outage();
    world.queue.push(Reverse((0, Event::Tick)));
    world.offer(0);
    while world.step() {}
    world.ended
}

impl World<'_> {
    fn plan(&mut self, at: u64, event: Event) {
        self.last_word = self.last_word.max(at);
        self.queue.push(Reverse((at, event)));
    }

    /// Everybody is known to be there before; a broker speaks the wills of whoever is cut off.
    fn plan_outage(&mut self) {
        let Some(outage) = self.scenario.outage else { return };
        let Some(region) = outage.region else {
            self.plan(outage.from, Event::Broker(false));
            self.plan(outage.to, Event::Broker(true));
            return;
        };
        for d in 0..self.fleet.len() {
            self.plan(0, Event::Presence(d, true));
            if self.fleet[d].region == region {
                self.plan(outage.from + MINUTE, Event::Presence(d, false));
                self.plan(outage.to + self.fleet[d].drain, Event::Presence(d, true));
            }
        }
    }

    /// Hands the service what happens within a moment; false when the rollout is over.
    fn step(&mut self) -> bool {
        let Some(Reverse((first, _))) = self.queue.peek().copied() else { return false };
        let (mut at, mut inputs) = (first, Vec::new());
        let until = first + STEP[usize::from(self.ended.started > FEW)];
        while let Some(Reverse((next, event))) = self.queue.peek().copied()
            && next <= until
            && inputs.len() < STEP_MOST
        {
            self.queue.pop();
            at = next;
            self.happen(at, event, &mut inputs);
        }
        let facts = self.site.handle(inputs, at);
        let mut widened = false;
        for fact in facts {
            match fact {
                Fact::PhaseOpened { .. } | Fact::WaveOpened { .. } | Fact::HoldBackEnded { .. } => {
                    widened = true
                }
                Fact::Paused { .. } | Fact::Killed { .. } => {
                    self.stop(at, matches!(fact, Fact::Killed { .. }));
                    return false;
                }
                _ => {}
            }
        }
        if widened {
            self.offer(at);
        }
        if let Some(verdict) = self.weigh(at)
            && matches!(verdict, Verdict::Kill(_) | Verdict::Pause(_))
        {
            self.stop(at, matches!(verdict, Verdict::Kill(_)));
            return false;
        }
        let rest = if self.ended.reached_all_at.is_some() { AFTERMATH } else { HOLDS };
        at <= self.last_word + rest && self.site.rollout().status != Status::Completed
    }

    fn stop(&mut self, at: u64, killed: bool) {
        (self.ended.stopped_at, self.ended.killed) = (Some(at), killed);
    }

    fn happen(&mut self, at: u64, event: Event, inputs: &mut Vec<Input>) {
        match event {
            Event::Tick => {
                inputs.push(Input::Time);
                self.queue.push(Reverse((at + TICK, Event::Tick)));
            }
            Event::Broker(up) => inputs.push(if up { Input::BrokerUp } else { Input::BrokerDown }),
            Event::Presence(d, online) => inputs.push(self.site.presence(d, online)),
            Event::Start(d, attempt) => {
                if !std::mem::replace(&mut self.begun[d], true) {
                    self.ended.started += 1;
                    self.ended.harmed += u64::from(self.fleet[d].is_bad());
                }
                let attempts = self.site.attempt();
                inputs.push(
                    self.site.report(d, ReportKind::Started { nonce: Nonce([0; 16]), attempt: attempts }),
                );
                let outage = self.scenario.outage;
                if let Some(course) = course(&self.fleet[d], at, outage, &self.timing, true) {
                    let end = course.end;
                    self.ends[d] = end.map(|(_, end)| end);
                    // Who reached nobody speaks once it is back.
                    if end.is_none_or(|(_, end)| end != End::Unreachable) {
                        self.plan(course.up, Event::Boots(d));
                    }
                    if let Some((at, _)) = end {
                        self.plan(at, Event::Ends(d, attempt));
                    }
                }
            }
            Event::Boots(d) => inputs.push(self.site.boots(d)),
            Event::Ends(d, attempt) => self.ends(at, d, attempt, inputs),
        }
    }

    fn ends(&mut self, at: u64, d: usize, attempt: u32, inputs: &mut Vec<Input>) {
        let Some(end) = self.ends[d].take() else { return };
        let outcome = match end {
            End::Good => Outcome::Success,
            End::RolledBack => Outcome::RolledBack,
            End::Unreachable => Outcome::Unreachable,
        };
        if end != End::Good {
            // The old release came up again.
            inputs.push(self.site.boots(d));
        }
        let attempts = self.site.attempt();
        inputs.push(self.site.report(d, ReportKind::Outcome { attempt: attempts, outcome, reason: None }));
        if end == End::Unreachable && attempt < TRIES {
            let again = heard(&self.fleet[d], at + self.timing.deferral, self.scenario.outage);
            self.plan(again, Event::Start(d, attempt + 1));
        }
        if let (End::Good, Some(meter)) = (end, &mut self.meter) {
            meter.confirmed(d, at);
        }
    }

    /// Whoever the cuts include now is offered the release.
    fn offer(&mut self, at: u64) {
        let included = self.site.included();
        for (d, included) in included.into_iter().enumerate() {
            if included && !std::mem::replace(&mut self.offered[d], true) {
                let start = start(&self.fleet[d], at, self.scenario.outage);
                self.plan(start, Event::Start(d, 1));
            }
        }
        if self.site.rollout().reaches_all() {
            self.ended.reached_all_at.get_or_insert(at);
        }
    }

    /// Judges crashes and battery beside the service, with the product's own test: the service takes no such metrics in
    /// yet. The control are devices that have not been offered the release.
    fn weigh(&mut self, at: u64) -> Option<Verdict> {
        let meter = self.meter.as_mut()?;
        let control = self.offered.iter().map(|offered| !offered);
        let ratio = 1.0 + self.site.rollout().plan.policy.max_regression;
        let pairs: Pairs = meter.read(at, self.fleet, control, ratio)?;
        // More than will be measured: one stratum of a randomised comparison.
        let observed = Observed { fleet: self.fleet.len() as u64, strata: 1, pairs, ..Observed::default() };
        let plan = &self.site.rollout().plan;
        Some(judge(&plan.policy, &PhaseRule { gate: None, ..PhaseRule::default() }, &observed))
    }
}
