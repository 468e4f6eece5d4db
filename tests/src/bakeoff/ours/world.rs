//! What happens next, to whom: virtual time, outages, and the devices that have an agent.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tern_agent::core::agent::{Done, Input as Heard, Job, Output};
use tern_controller::core::service::Input;
use tern_protocol::topic::{Topic, UpKind};

use super::super::device::{Kind, Traits, heard};
use super::super::scenario::Scenario;
use super::air::Air;
use super::devices::Devices;
use super::site::{Said, Site};
use super::terminal::Terminal;
use crate::sim::clock::{MINUTE, Rng};

/// The service looks at the time so often.
pub(super) const TICK: u64 = 5 * MINUTE;
/// An agent's probes take no longer, all together.
const PROBES_MOST: u64 = 10 * MINUTE;
/// A device that turns bad later than that does so before its soak is over: after it, it would be no failed update.
const RESETS: u64 = 14 * MINUTE;
/// A broker notices a connection that is gone after this time, and speaks the device's will.
const KEEPALIVE: u64 = MINUTE;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// It hears what is retained, and has an agent from then on.
    Hears,
    /// It wanted to be woken.
    Wakes(u32),
    /// Its probes are over.
    Probed(u32, u64),
    /// The system goes down under the new release.
    Resets(u32),
    /// It comes up again.
    Boots(u32),
    /// The network around it goes, or is back.
    Network(bool),
    /// The broker speaks its will.
    Will,
    /// The service's own connection goes, or is back.
    Broker(bool),
}

/// Devices, the service, and what is between them.
pub(super) struct World<'a> {
    pub(super) site: Site<'a>,
    pub(super) fleet: &'a [Traits],
    /// What the service is to be handed.
    pub(super) inputs: Vec<Input>,
    /// When a device last began or ended, or something opened; or will hear of it.
    pub(super) last_word: u64,
    scenario: &'a Scenario,
    air: Air,
    queue: BinaryHeap<Reverse<(u64, u64, usize, Event)>>,
    planned: u64,
    said: Vec<Said>,
    /// Before this a device is not on, or not ready, and hears nothing.
    hears_from: Vec<u64>,
    terminals: Vec<Option<Box<Terminal>>>,
    cut_off: bool,
    rng: Rng,
}

impl<'a> World<'a> {
    pub(super) fn new(scenario: &'a Scenario, fleet: &'a [Traits], devices: &'a Devices, seed: u64) -> Self {
        let site = Site::new(devices, seed);
        let mut air = Air::new(site.fleet());
        let (root, image) = Site::image();
        air.serve(root, image);
        let mut world = Self {
            site,
            fleet,
            inputs: Vec::new(),
            last_word: 0,
            scenario,
            air,
            queue: BinaryHeap::new(),
            planned: 0,
            said: vec![Said::Nothing; fleet.len()],
            hears_from: vec![0; fleet.len()],
            terminals: fleet.iter().map(|_| None).collect(),
            cut_off: false,
            rng: Rng::of(seed, "bakeoff devices"),
        };
        world.let_out(0);
        world.plan_outage();
        world
    }

    /// Everybody is known to be there before; a broker speaks the wills of whoever is cut off.
    fn plan_outage(&mut self) {
        let Some(outage) = self.scenario.outage else { return };
        let Some(region) = outage.region else {
            self.plan(outage.from, 0, Event::Broker(false));
            return self.plan(outage.to, 0, Event::Broker(true));
        };
        for d in 0..self.fleet.len() {
            self.inputs.push(self.site.presence(d, true));
            if self.fleet[d].region == region {
                self.plan(outage.from, d, Event::Network(false));
                self.plan(outage.from + KEEPALIVE, d, Event::Will);
                self.plan(outage.to + self.fleet[d].drain, d, Event::Network(true));
            }
        }
    }

    fn plan(&mut self, at: u64, d: usize, event: Event) {
        self.planned += 1;
        self.queue.push(Reverse((at, self.planned, d, event)));
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((at, ..))| *at)
    }

    /// Something was said that moves the rollout.
    pub(super) fn speaks(&mut self, at: u64) {
        self.last_word = self.last_word.max(at);
    }

    /// Lets the next thing happen.
    pub(super) fn happen(&mut self) {
        let Some(Reverse((at, _, d, event))) = self.queue.pop() else { return };
        let process = self.terminals[d].as_ref().map(|terminal| terminal.process);
        match event {
            Event::Hears if self.terminals[d].is_none() => {
                let (durable, trust) = self.site.disk(d);
                self.terminals[d] = Some(Box::new(Terminal::new(durable, trust)));
                self.boot(d, at);
            }
            Event::Hears => self.hand_in(d, Heard::Time, at),
            Event::Wakes(of) if process == Some(of) => {
                // A later wake may have been asked for since.
                if self.terminals[d].as_ref().is_some_and(|terminal| terminal.wake <= at) {
                    self.hand_in(d, Heard::Time, at);
                }
            }
            Event::Probed(of, job) if process == Some(of) => {
                let device = &self.fleet[d];
                let fails = device.kind == Kind::Sick && device.probe <= PROBES_MOST;
                let result = if fails { Done::Failed("a probe failed".to_owned()) } else { Done::Ok };
                self.hand_in(d, Heard::Done { job, result }, at);
            }
            Event::Resets(of) if process == Some(of) => {
                self.off(d);
                self.plan_boot(d, at);
            }
            Event::Boots(of) if process == Some(of) => self.boot(d, at),
            Event::Network(up) => self.network(d, up, at),
            Event::Will => self.inputs.push(self.site.presence(d, false)),
            Event::Broker(up) => {
                self.cut_off = !up;
                self.inputs.push(if up { Input::BrokerUp } else { Input::BrokerDown });
            }
            // The process that this was meant for is gone.
            Event::Wakes(_) | Event::Probed(..) | Event::Resets(_) | Event::Boots(_) => {}
        }
    }

    fn has_network(&self, d: usize, at: u64) -> bool {
        self.scenario.outage.is_none_or(|outage| outage.region.is_none())
            || heard(&self.fleet[d], at, self.scenario.outage) == at
    }

    fn network(&mut self, d: usize, up: bool, at: u64) {
        let up = up && self.has_network(d, at);
        match &mut self.terminals[d] {
            Some(terminal)
                if terminal.agent.is_some() && terminal.link != up && (!up || terminal.back_at <= at) =>
            {
                (terminal.link, terminal.heard) = (up, 0);
                self.hand_in(d, if up { Heard::LinkUp } else { Heard::LinkDown }, at);
            }
            None if up => self.inputs.push(self.site.presence(d, true)),
            _ => {}
        }
    }

    fn boot(&mut self, d: usize, at: u64) {
        let (settings, seed) = (self.site.settings(d), self.rng.seed());
        let keys = self.site.keys();
        let back_at = self.terminals[d].as_ref().map_or(0, |terminal| terminal.back_at);
        let linked = self.has_network(d, at) && back_at <= at;
        if back_at > at {
            self.plan(back_at, d, Event::Network(true));
        }
        let Some(terminal) = &mut self.terminals[d] else { return };
        let Some(facts) = terminal.boot(settings, keys, at, seed) else { return };
        self.hand_in(d, Heard::Up(facts), at);
        if linked && let Some(terminal) = &mut self.terminals[d] {
            // Whoever subscribes is handed all that is retained.
            (terminal.link, terminal.heard) = (true, 0);
            self.hand_in(d, Heard::LinkUp, at);
        }
    }

    fn plan_boot(&mut self, d: usize, at: u64) {
        let process = self.terminals[d].as_ref().map_or(0, |terminal| terminal.process);
        self.plan(at + self.fleet[d].boot, d, Event::Boots(process));
    }

    fn off(&mut self, d: usize) {
        let Some(terminal) = &mut self.terminals[d] else { return };
        if terminal.link && !self.cut_off {
            self.inputs.push(self.site.presence(d, false));
        }
        terminal.off();
    }

    /// Hands a device something, after what it has not heard yet, and does what it wants done.
    fn hand_in(&mut self, d: usize, first: Heard, at: u64) {
        let mut waiting = VecDeque::from([first]);
        let (region, cohort) = self.site.place(d);
        while let Some(terminal) = &mut self.terminals[d] {
            let next = waiting.pop_front();
            if terminal.link && self.hears_from[d] <= at && terminal.heard < self.air.newest() {
                let news = self.air.since(terminal.heard, region, cohort);
                terminal.heard = self.air.newest();
                let news = news.into_iter().map(|(topic, payload)| Heard::Message { topic, payload });
                // A connection comes before what it carries.
                if matches!(next, Some(Heard::LinkUp)) {
                    news.rev().for_each(|message| waiting.push_front(message));
                } else {
                    waiting.extend(next);
                    news.rev().for_each(|message| waiting.push_front(message));
                    continue;
                }
            }
            let Some(input) = next else { break };
            let now = terminal.now(at);
            let Some(agent) = &mut terminal.agent else { return };
            for output in agent.handle(input, now) {
                self.carry_out(d, output, at, &mut waiting);
            }
        }
        self.plan_wake(d, at);
    }

    fn carry_out(&mut self, d: usize, output: Output, at: u64, waiting: &mut VecDeque<Heard>) {
        let traits = &self.fleet[d];
        let Some(terminal) = &mut self.terminals[d] else { return };
        match output {
            Output::Publish { topic: Topic::Up(id, UpKind::Get), payload } if terminal.link => {
                let answers = self.air.answer(&id, &payload).into_iter();
                waiting.extend(answers.map(|(topic, payload)| Heard::Message { topic, payload }));
            }
            Output::Publish { topic, payload } => {
                if terminal.link && !self.cut_off {
                    self.inputs.push(Input::Message { topic, payload });
                }
            }
            Output::ListenAgain => terminal.heard = 0,
            Output::Collect => {
                waiting.push_back(Heard::Collected(terminal.figures(traits, self.scenario.defect, at)));
            }
            Output::Start { work: Job::Reboot, .. } => {
                self.off(d);
                if !matches!(traits.kind, Kind::Brick | Kind::Mute) {
                    self.plan_boot(d, at);
                }
            }
            Output::Start { job, work: Job::Probe } => {
                let process = terminal.process;
                if traits.kind == Kind::Sick {
                    // When bad devices say so is the scenario's: the old release finds its network then.
                    terminal.back_at = at + traits.probe + traits.boot;
                    self.plan(at + traits.probe.min(RESETS), d, Event::Resets(process));
                }
                self.plan(at + traits.probe.min(PROBES_MOST), d, Event::Probed(process, job));
            }
            Output::Start { job, work } => {
                terminal.perform(work);
                waiting.push_back(Heard::Done { job, result: Done::Ok });
            }
            // A disk that never fails holds what the agent holds; the topics of a device are known.
            Output::SaveTrust(_) | Output::SaveJournal | Output::Listen(_) => {}
            Output::SettleKeys
            | Output::Refused { .. }
            | Output::Failing { .. }
            | Output::Fetched { .. }
            // No terminal names a web server.
            | Output::Web { .. }
            | Output::StopWeb(_)
            | Output::WebFailed { .. }
            | Output::Write { .. } => {}
        }
    }

    fn plan_wake(&mut self, d: usize, at: u64) {
        let mute = self.fleet[d].kind == Kind::Mute;
        let Some(terminal) = &mut self.terminals[d] else { return };
        if mute && terminal.waits() {
            return self.off(d);
        }
        let Some(agent) = &terminal.agent else { return };
        let wake = agent.wake_at();
        let wake = if wake == u64::MAX { u64::MAX } else { terminal.moment(wake).max(at + 1) };
        if std::mem::replace(&mut terminal.wake, wake) != wake && wake < u64::MAX {
            let event = Event::Wakes(terminal.process);
            self.plan(wake, d, event);
        }
    }

    /// Brings what the service sent to whom it is for.
    pub(super) fn let_out(&mut self, at: u64) {
        let mut everybody = false;
        for (topic, payload) in std::mem::take(&mut self.site.sent) {
            let Topic::DeviceIn(id) = &topic else {
                everybody |= self.air.keep(topic, payload);
                continue;
            };
            let Some(d) = self.site.number(id) else { continue };
            if self.terminals[d].as_ref().is_some_and(|terminal| terminal.link) {
                self.hand_in(d, Heard::Message { topic, payload }, at);
            }
        }
        if everybody {
            let up = (0..self.fleet.len()).filter(|d| self.terminals[*d].is_some());
            for d in up.collect::<Vec<_>>() {
                self.plan(at + self.fleet[d].begin, d, Event::Hears);
            }
        }
    }

    /// Whoever is told something else than before hears it when it is on and reaches the broker.
    pub(super) fn widen(&mut self, at: u64) {
        let before = std::mem::replace(&mut self.said, self.site.said());
        for (d, before) in before.into_iter().enumerate() {
            if self.said[d] == before || self.said[d] == Said::Nothing {
                continue;
            }
            let device = &self.fleet[d];
            let ready = (at + device.begin).max(device.away_until);
            let regional = self.scenario.outage.filter(|outage| outage.region.is_some());
            self.hears_from[d] = heard(device, ready, regional);
            self.last_word = self.last_word.max(self.hears_from[d]);
            self.plan(self.hears_from[d], d, Event::Hears);
        }
    }
}
