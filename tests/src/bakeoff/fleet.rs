//! A fleet in virtual time under a peer's rule.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tern_agent::core::timing::Timing;

use super::Ended;
use super::device::{End, Traits, course, start};
use super::rule::{Move, Rule, Seen};
use super::scenario::Scenario;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Started(usize),
    Ended(usize, bool),
    TimesOut(usize),
    Clock,
}

struct World<'a> {
    scenario: &'a Scenario,
    fleet: &'a [Traits],
    timing: Timing,
    queue: BinaryHeap<Reverse<(u64, Event)>>,
    reach: usize,
    open: Vec<bool>,
    ended: Ended,
}

impl World<'_> {
    /// Tells whether the rollout is over.
    fn moves(&mut self, at: u64, wanted: Move) -> bool {
        match wanted {
            Move::Nothing => {}
            Move::Offer(reach) => {
                let offered = self.reach..reach.min(self.fleet.len());
                self.reach = self.reach.max(offered.end);
                for d in offered {
                    let start = start(&self.fleet[d], at, self.scenario.outage);
                    self.queue.push(Reverse((start, Event::Started(d))));
                }
                if self.reach == self.fleet.len() {
                    self.ended.reached_all_at.get_or_insert(at);
                }
            }
            Move::Pause | Move::Cancel => {
                self.ended.stopped_at = Some(at);
                self.ended.killed = wanted == Move::Cancel;
                return true;
            }
        }
        false
    }

    fn started(&mut self, d: usize, at: u64, timeout: Option<u64>) {
        self.ended.started += 1;
        self.ended.harmed += u64::from(self.fleet[d].is_bad());
        self.open[d] = true;
        if let Some(after) = timeout {
            self.queue.push(Reverse((at + after, Event::TimesOut(d))));
        }
        // Their clients wait for the network and then say how it went.
        let course = course(&self.fleet[d], at, self.scenario.outage, &self.timing, false);
        if let Some((at, end)) = course.and_then(|course| course.end) {
            self.queue.push(Reverse((at, Event::Ended(d, end == End::Good))));
        }
    }
}

/// Plays one rollout to its end.
pub fn play(scenario: &Scenario, fleet: &[Traits], rule: &mut dyn Rule) -> Ended {
    let mut world = World {
        scenario,
        fleet,
        timing: Timing::default(),
        queue: BinaryHeap::new(),
        reach: 0,
        open: vec![false; fleet.len()],
        ended: Ended::default(),
    };
    let first = rule.begin(fleet.len());
    if world.moves(0, first) {
        return world.ended;
    }
    let mut woken = None;
    loop {
        if let Some(at) = rule.wakes_at().filter(|at| woken != Some(*at)) {
            woken = Some(at);
            world.queue.push(Reverse((at, Event::Clock)));
        }
        let Some(Reverse((at, event))) = world.queue.pop() else { return world.ended };
        let seen = match event {
            Event::Clock => Seen::Clock,
            Event::Started(d) => {
                world.started(d, at, rule.timeout());
                Seen::Started(d)
            }
            Event::TimesOut(d) | Event::Ended(d, _) if !std::mem::take(&mut world.open[d]) => continue,
            Event::TimesOut(d) => Seen::TimedOut(d),
            Event::Ended(d, true) => Seen::Succeeded(d),
            Event::Ended(d, false) => Seen::Failed(d),
        };
        let wanted = rule.see(at, seen);
        if world.moves(at, wanted) {
            return world.ended;
        }
    }
}
