//! A service with its fleet, brought to the moment before the kill; and the kill, as the ledger tells it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tern_agent::core::agent::Keys as _;
use tern_bridge::front::frame::{Packet, Publish};
use tern_controller::api::types::LedgerFrame;
use tern_controller::core::fact::Fact;
use tern_protocol::id::{DeviceId, FleetId};
use tern_protocol::mac::{Direction, MacKey};
use tern_protocol::message::{Attempt, Nonce, Report, ReportKind};
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Trusted;

use super::super::load::{LoadDevice, acknowledged};
use super::super::mqtt::Client;
use super::super::reports::controller;
use super::super::usage::Usage;
use super::agents::{BenchAgent, KEYS};
use super::broker::{BareBridge, BaselineBroker, KillBroker, limits};
use super::crowd::{Crowd, lock};
use super::{By, Reach, baseline, reach, used};
use crate::lab::{Broker, Lab, MODEL, Mosquitto, PRODUCT, made, wait, wait_telling};
use crate::sim::device::DeviceKeys;

const PATIENCE: Duration = Duration::from_secs(180);
/// Lines of one factory list: what the API takes in one body.
const LIST: usize = 500;
/// Everybody at once; the first bad device kills, and nothing else is decided meanwhile.
const PLAN: &str = r#"{"phases":[{"reach":"all","soak":86400}],"waves":{"on":false},"hold_back":{"on":false},"policy":{"hard_stop":{"bad":1,"first":10}}}"#;

/// What one kill was.
pub(super) struct Killed {
    pub(super) reach: Reach,
    /// What every agent trusted before it.
    pub(super) trust: Trusted,
    /// What told of it.
    pub(super) bundle: Vec<u8>,
}

/// The service, its fleet, and the device that finds the release bad.
pub(super) struct Stage {
    /// Dropped before the brokers that it is connected to.
    crowd: Crowd<BenchAgent>,
    lab: Lab,
    mosquitto: Option<Arc<Mosquitto>>,
    spoiler: Spoiler,
    fleet: FleetId,
    clients: u32,
    /// First frame of the ledger that was not read yet.
    frames: u64,
}

fn name(index: u32) -> String {
    format!("agent-{index:05}")
}

impl Stage {
    pub(super) fn set(broker: KillBroker, agents: u32) -> Self {
        let mosquitto = (broker == KillBroker::Mosquitto).then(|| {
            let users = ["service".to_owned(), Spoiler::NAME.to_owned()];
            let devices = (0..agents).flat_map(|index| [name(index), baseline::name(index)]);
            let users: Vec<String> = users.into_iter().chain(devices).collect();
            Arc::new(Mosquitto::start(&users).expect("install the Debian package mosquitto"))
        });
        let lab = match &mosquitto {
            Some(mosquitto) => Lab::start_with(Broker::External {
                port: mosquitto.address().port(),
                password_file: mosquitto.password_file("service"),
            }),
            None => Lab::start_configured(&limits(agents)),
        };
        let spoiler = LoadDevice::new(0);
        let mut lines: Vec<String> = (0..agents).map(|index| line(&name(index))).collect();
        lines.push(spoiler.factory_line());
        for (number, part) in lines.chunks(LIST).enumerate() {
            let list = lab.path(&format!("devices-{number}.jsonl"));
            std::fs::write(&list, part.join("\n")).expect("a factory list");
            lab.json(&["device", "add", "--unsigned", "--file", &list.display().to_string()]);
        }
        let fleet: FleetId = "lab".parse().expect("a valid name");
        let password = |user: &str| mosquitto.is_some().then(|| Mosquitto::password(user));
        let factory = factory(&lab);
        let member = |index| {
            let device: DeviceId = name(index).parse().expect("a valid name");
            BenchAgent::new(fleet.clone(), device, password(&name(index)), factory.clone())
        };
        let crowd = Crowd::gather(lab.mqtt, (0..agents).map(member).collect());
        wait("everybody to be known", PATIENCE, || {
            (crowd.count(BenchAgent::is_heard) == agents as usize).then_some(())
        });
        let spoiler = Spoiler::connect(&lab, &fleet, spoiler, password(Spoiler::NAME));
        Self { crowd, lab, mosquitto, spoiler, fleet, clients: agents, frames: 0 }
    }

    pub(super) fn fleet(&self) -> &FleetId {
        &self.fleet
    }

    /// Returns where the baseline is to run: beside the embedded broker on one of its own, else on the same.
    pub(super) fn baseline_broker(&self) -> BaselineBroker {
        match &self.mosquitto {
            Some(mosquitto) => BaselineBroker::Shared(mosquitto.clone()),
            None => BaselineBroker::Bridge(BareBridge::start(self.clients)),
        }
    }

    /// Has everybody download release `rc`, of which nobody gets a chunk.
    pub(super) fn begin(&mut self, rc: u64) {
        let image = self.lab.path(&format!("{rc}.image"));
        made(&image, 200_000, u8::try_from(rc % 250).unwrap_or(0).into());
        self.lab.publish(rc, &image);
        let plan = self.lab.path("plan.json");
        std::fs::write(&plan, PLAN).expect("a plan");
        let (rc_text, name, plan) = (rc.to_string(), format!("r{rc}"), plan.display().to_string());
        self.lab.json(&[
            "rollout",
            "start",
            "--product",
            PRODUCT,
            "--rc",
            &rc_text,
            "--name",
            &name,
            "--plan",
            &plan,
            "--yes",
        ]);
        let ready = |agent: &BenchAgent| agent.state() == StateName::Downloading && agent.is_heard();
        let all = self.clients as usize;
        let tell = || format!("everybody to download: {} of {all} do", self.crowd.count(ready));
        wait_telling(tell, PATIENCE, || (self.crowd.count(ready) == all).then_some(()));
        self.crowd.members.iter().for_each(|member| lock(member).verify = Duration::ZERO);
        self.read_ledger();
    }

    /// Kills it, and waits until everybody's `halted` is in the ledger.
    pub(super) fn kill(&mut self, rc: u64, by: By) -> Killed {
        let rollout = format!("r{rc}");
        let attempt = Attempt { rc, rollout: rollout.parse().expect("a valid name"), attempt: 1 };
        if by == By::Report {
            self.spoiler.say(ReportKind::Started { nonce: Nonce([9; 16]), attempt: attempt.clone() });
        }
        // What came before must be over.
        std::thread::sleep(Duration::from_secs(1));
        let trust = lock(&self.crowd.members[0]).trusted().clone();
        let mosquitto = self.mosquitto.iter().map(|mosquitto| mosquitto.pid());
        let pids: Vec<u32> = self.lab.service_pid().into_iter().chain(mosquitto).collect();
        let own = std::process::id();
        let (before, crowd_before) = (used(&pids), Usage::of(own));
        match by {
            By::Report => {
                self.spoiler.say(ReportKind::Outcome { attempt, outcome: Outcome::RolledBack, reason: None })
            }
            By::Operator => drop(self.lab.json(&["rollout", "kill", &rollout, "--reason", "a bench"])),
        }
        let knows = |agent: &BenchAgent| agent.knows_halted(rc) && agent.is_heard();
        let all = self.clients as usize;
        let tell = || format!("everybody's halted: {} of {all} are in", self.crowd.count(knows));
        wait_telling(tell, PATIENCE, || (self.crowd.count(knows) == all).then_some(()));
        let (service_cpu, crowd_cpu) = (used(&pids) - before, Usage::of(own).since(crowd_before));
        let verify = self.crowd.members.iter().map(|member| lock(member).verify.as_secs_f64()).sum();
        let bundle = lock(&self.crowd.members[0]).head.clone();
        let waits = self.waits(&rollout);
        assert_eq!(waits.len(), all, "every agent's halted is in the ledger");
        Killed { reach: reach(waits, verify, crowd_cpu, service_cpu), trust, bundle }
    }

    /// Reads from the ledger how long after the deciding moment each device's `halted` was authenticated.
    fn waits(&mut self, rollout: &str) -> Vec<f64> {
        let (mut killed, mut halted) = (None, BTreeMap::new());
        for frame in self.read_ledger() {
            let at = frame.entry.at;
            match frame.entry.fact {
                Fact::Killed { rollout: id, .. } if id.as_str() == rollout => killed = Some(at),
                Fact::Reported { device, report: ReportKind::Halted { attempt, .. }, .. }
                    if attempt.rollout.as_str() == rollout =>
                {
                    halted.entry(device).or_insert(at);
                }
                _ => {}
            }
        }
        let killed = killed.expect("the kill is in the ledger");
        halted.into_values().map(|at| at.saturating_sub(killed) as f64).collect()
    }

    fn read_ledger(&mut self) -> Vec<LedgerFrame> {
        let (data, from) = (self.lab.data().display().to_string(), self.frames.to_string());
        let ran = self
            .lab
            .run(&["--json", "ledger", "show", "--data", &data, "--from", &from, "--limit", "1000000"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let frames: Vec<LedgerFrame> =
            ran.out.lines().map(|line| serde_json::from_str(line).expect("a frame")).collect();
        self.frames = frames.last().map_or(self.frames, |last| last.seq + 1);
        frames
    }
}

/// Returns a device's line of the factory list.
fn line(device: &str) -> String {
    let id: DeviceId = device.parse().expect("a valid name");
    let identity = hex::encode(DeviceKeys::new(KEYS, &id).identity());
    format!(
        r#"{{"device":"{device}","identity":"{identity}","product":"{PRODUCT}","model":"{MODEL}","carrier":"none","region":"eu"}}"#
    )
}

/// Returns what devices leave the factory with.
fn factory(lab: &Lab) -> Trusted {
    use tern_protocol::bundle::File;
    use tern_protocol::tuf::Role;
    let folder = lab.data().join("products").join(PRODUCT);
    let file = |role: Role| {
        let bytes = std::fs::read(folder.join(format!("{}.json", role.name()))).expect("an offline file");
        File { role, bytes }
    };
    Trusted::restore(&[file(Role::Root), file(Role::Targets)]).expect("the files are good")
}

/// The device that finds the release bad. It says so by itself, without an agent.
struct Spoiler {
    client: Client,
    key: MacKey,
    topic: String,
    number: u64,
    id: u16,
}

impl Spoiler {
    const NAME: &str = "load-0000";

    fn connect(lab: &Lab, fleet: &FleetId, device: LoadDevice, password: Option<String>) -> Self {
        let own = Topic::DeviceIn(device.id.clone()).render(fleet);
        let login = password.as_ref().map(|password| (Self::NAME, password.as_str()));
        let client = Client::connect(lab.mqtt, Self::NAME, login, vec![(own, 0)]).expect("it connects");
        client.patience(Duration::from_secs(20)).expect("a read can have an end");
        let topic = |kind| Topic::Up(device.id.clone(), kind).render(fleet);
        let key = device.agree(&controller(lab)).key(Direction::Up, fleet, &device.id, 1, 1);
        let mut spoiler = Self { client, key, topic: topic(UpKind::Report), number: 0, id: 0 };
        spoiler.publish(topic(UpKind::Enrol), device.enrol(fleet));
        // A broker may deliver two topics in either order, and this device does not repeat itself.
        std::thread::sleep(Duration::from_secs(1));
        spoiler.say(device.hello());
        spoiler
    }

    fn publish(&mut self, topic: String, payload: Vec<u8>) {
        self.id = self.id % 0x7000 + 1;
        let publish = Publish { qos: 1, topic, id: self.id, payload, ..Publish::default() };
        Packet::Publish(publish).write(&mut self.client.out);
        self.client.flush().expect("the broker takes it");
    }

    /// Reports, and waits for the acknowledgement.
    fn say(&mut self, kind: ReportKind) {
        self.number += 1;
        let (n, low) = (self.number, self.number);
        let payload = self.key.seal(&Report { e: 1, k: 1, n, low, kind });
        self.publish(self.topic.clone(), payload);
        loop {
            for packet in self.client.read().expect("the service acknowledges") {
                let Packet::Publish(publish) = packet else { continue };
                if publish.qos == 1 {
                    Packet::PubAck(publish.id).write(&mut self.client.out);
                }
                if acknowledged(&publish.payload) > 0 {
                    return;
                }
            }
        }
    }
}
