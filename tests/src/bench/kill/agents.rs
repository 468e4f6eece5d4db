//! A real agent core on a connection, with a journal in memory and slots that take everything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tern_agent::core::SlotName;
use tern_agent::core::agent::{Agent, BootFacts, Content, Done, Input, Job, Output, Settings};
use tern_agent::core::conditions::Conditions;
use tern_agent::core::durable::Durable;
use tern_agent::core::timing::{Now, Timing};
use tern_bridge::front::frame::Publish;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Trusted;

use super::super::scene::registry;
use super::super::usage::thread_cpu;
use super::crowd::{Member, Wire};
use crate::sim::device::DeviceKeys;

/// From what the devices' keys are drawn.
pub(super) const KEYS: u64 = 11;

/// One device.
pub(super) struct BenchAgent {
    agent: Agent,
    fleet: FleetId,
    device: DeviceId,
    password: Option<String>,
    began: Instant,
    listens: Vec<Topic>,
    is_up: bool,
    /// What its disk would hold: the work of writing it down is done.
    journal: Vec<u8>,
    trust: Vec<u8>,
    /// The newest `head`, as it came.
    pub(super) head: Vec<u8>,
    /// CPU time from a bundle to the decision.
    pub(super) verify: Duration,
}

impl BenchAgent {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    pub(super) fn new(fleet: FleetId, device: DeviceId, password: Option<String>, factory: Trusted) -> Self {
        let settings = Settings {
            fleet: fleet.clone(),
            device: device.clone(),
            registry: registry(),
            component: "rootfs".to_owned(),
            claim: None,
            version: "bench".to_owned(),
            timing: Timing::default(),
            conditions: Conditions::default(),
            hooks: BTreeSet::new(),
            transfer: Default::default(),
        };
        let keys = Box::new(DeviceKeys::new(KEYS, &device));
        let seed = tern_protocol::digest::Digest::of(device.as_str().as_bytes()).0;
        let facts = BootFacts {
            components: Default::default(),
            slot: SlotName::A,
            boot_id: "bench".to_owned(),
            active: SlotName::A,
            trial: None,
            running: 1,
            floor: 0,
            running_version: "1.0.0".to_owned(),
            capacity: 64 << 20,
            contents: [Content::Unknown, Content::Bad],
        };
        let mut new = Self {
            agent: Agent::new(settings, keys, Durable::default(), factory, seed),
            fleet,
            device,
            password,
            began: Instant::now(),
            listens: Vec::new(),
            is_up: false,
            journal: Vec::new(),
            trust: Vec::new(),
            head: Vec::new(),
            verify: Duration::ZERO,
        };
        new.feed(Input::Up(facts), &mut Wire::default());
        new
    }

    /// Returns the state of its update machine.
    pub(super) fn state(&self) -> StateName {
        self.agent.durable().state.name()
    }

    /// Tells whether everything that it has reported was acknowledged.
    pub(super) fn is_heard(&self) -> bool {
        self.is_up && self.agent.durable().outbox.pending().next().is_none()
    }

    /// Returns the signed files that it trusts.
    pub(super) fn trusted(&self) -> &Trusted {
        self.agent.trust()
    }

    /// Tells whether it knows that a release is dead.
    pub(super) fn knows_halted(&self, rc: u64) -> bool {
        self.agent.durable().halted.contains(&rc)
    }

    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    fn now(&self) -> Now {
        let uptime = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Now { uptime: uptime + 60_000, wall: wall.map_or(0, |since| since.as_secs()) }
    }

    fn feed(&mut self, input: Input, wire: &mut Wire) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let now = self.now();
            for output in self.agent.handle(input, now) {
                inputs.extend(self.carry_out(output, wire));
            }
        }
    }

    fn carry_out(&mut self, output: Output, wire: &mut Wire) -> Option<Input> {
        match output {
            Output::SaveTrust(files) => {
                self.trust = files.into_iter().flat_map(|file| file.bytes).collect();
            }
            Output::SaveJournal => {
                self.journal = serde_json::to_vec(self.agent.durable()).expect("a journal is JSON");
            }
            Output::Listen(topics) if topics != self.listens => {
                self.listens = topics;
                if self.is_up {
                    self.subscribe(wire);
                }
            }
            Output::ListenAgain if self.is_up => self.subscribe(wire),
            // Chunks are withheld: what it asks for while it downloads does not leave the device.
            Output::Publish { topic: Topic::Up(_, UpKind::Get), .. }
                if self.state() == StateName::Downloading => {}
            Output::Publish { topic, payload } => {
                wire.publish(topic.render(&self.fleet), topic.qos(), payload);
            }
            Output::Start { job, work } => {
                assert!(!matches!(work, Job::Arm { .. } | Job::Reboot), "nobody gets so far without a chunk");
                return Some(Input::Done { job, result: Done::Ok });
            }
            _ => {}
        }
        None
    }

    fn subscribe(&self, wire: &mut Wire) {
        wire.subscribe(self.listens.iter().map(|topic| (topic.render(&self.fleet), topic.qos())).collect());
    }
}

impl Member for BenchAgent {
    fn login(&self) -> (String, Option<(String, String)>) {
        let name = self.device.to_string();
        (name.clone(), self.password.clone().map(|password| (name, password)))
    }

    fn connected(&mut self, wire: &mut Wire) {
        self.subscribe(wire);
    }

    fn subscribed(&mut self, wire: &mut Wire) {
        if !std::mem::replace(&mut self.is_up, true) {
            self.feed(Input::LinkUp, wire);
        }
    }

    fn message(&mut self, publish: Publish, wire: &mut Wire) {
        let Ok(topic) = Topic::parse(&self.fleet, &publish.topic) else { return };
        let signed = matches!(topic, Topic::Head(_) | Topic::Timestamp(_) | Topic::Cohort(..));
        if matches!(topic, Topic::Head(_)) {
            self.head.clone_from(&publish.payload);
        }
        let began = thread_cpu();
        self.feed(Input::Message { topic, payload: publish.payload }, wire);
        if signed {
            self.verify += thread_cpu() - began;
        }
    }

    fn time(&mut self, wire: &mut Wire) {
        if self.is_up && self.agent.wake_at() <= self.now().uptime {
            self.feed(Input::Time, wire);
        }
    }
}
