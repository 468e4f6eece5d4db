//! Clients that verify the same files and answer with one PUBLISH, and a bare subscriber that receives it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::bundle::Bundle;
use tern_protocol::id::{DeviceId, FleetId, ProductId};
use tern_protocol::topic::{Topic, UpKind, uplink_filter};
use tern_protocol::tuf::{Pool, Trusted};

use super::super::mqtt::Client;
use super::super::scene::registry;
use super::super::usage::{Usage, thread_cpu};
use super::broker::BaselineBroker;
use super::crowd::{Crowd, Member, Wire, lock};
use super::stage::Stage;
use super::{Reach, reach, used};
use crate::lab::wait;

/// Bytes of the answer: as many as a sealed report has.
const ANSWER: usize = 141;
const PATIENCE: Duration = Duration::from_secs(120);

/// Its topics are its own: on a shared broker nobody hears the other's files.
fn product() -> ProductId {
    "baseline".parse().expect("a valid name")
}

/// Returns the name of a client.
pub(super) fn name(index: u32) -> String {
    format!("base-{index:05}")
}

struct BaselineClient {
    fleet: FleetId,
    device: DeviceId,
    password: Option<String>,
    /// What it trusts before the files come; all have the same.
    held: Arc<Mutex<Option<Trusted>>>,
    is_up: bool,
    verify: Duration,
}

impl Member for BaselineClient {
    fn login(&self) -> (String, Option<(String, String)>) {
        let name = self.device.to_string();
        (name.clone(), self.password.clone().map(|password| (name, password)))
    }

    fn connected(&mut self, wire: &mut Wire) {
        let topics = Topic::of_device(&self.device, &product(), &registry().region);
        wire.subscribe(topics.iter().map(|topic| (topic.render(&self.fleet), topic.qos())).collect());
    }

    fn subscribed(&mut self, _: &mut Wire) {
        self.is_up = true;
    }

    fn message(&mut self, publish: Publish, wire: &mut Wire) {
        // What each client would have in its own memory is not its work.
        let Some(mut trust) = lock(&self.held).clone() else { return };
        let began = thread_cpu();
        let bundle = Bundle::unpack(&publish.payload, None).expect("head needs no dictionary");
        let mut pool = Pool::default();
        bundle.files.into_iter().for_each(|file| pool.add(file));
        let refresh = trust.refresh(&mut pool, seconds());
        assert!(
            refresh.refused.is_empty() && !refresh.changed.is_empty(),
            "the files are good news: {refresh:?}"
        );
        assert!(trust.current().is_some(), "the files are whole");
        self.verify += thread_cpu() - began;
        let topic = Topic::Up(self.device.clone(), UpKind::Report);
        wire.publish(topic.render(&self.fleet), topic.qos(), vec![b'x'; ANSWER]);
    }

    fn time(&mut self, _: &mut Wire) {}
}

#[expect(clippy::disallowed_methods, reason = "a bench asks for the time as a device does")]
fn seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The baseline's side, connected for as long as the measurement lasts.
pub(super) struct Baseline {
    /// Dropped before the broker that it is connected to.
    crowd: Crowd<BaselineClient>,
    broker: BaselineBroker,
    held: Arc<Mutex<Option<Trusted>>>,
    receiver: Client,
    fleet: FleetId,
    number: u16,
}

impl Baseline {
    pub(super) fn set(stage: &Stage, count: u32) -> Self {
        let broker = stage.baseline_broker();
        let fleet = stage.fleet().clone();
        let held = Arc::new(Mutex::new(None));
        let client = |index| BaselineClient {
            fleet: fleet.clone(),
            device: name(index).parse().expect("a valid name"),
            password: broker.password_of(&name(index)),
            held: held.clone(),
            is_up: false,
            verify: Duration::ZERO,
        };
        let crowd = Crowd::gather(broker.address(), (0..count).map(client).collect());
        wait("the baseline's clients", PATIENCE, || {
            (crowd.count(|client| client.is_up) == count as usize).then_some(())
        });
        let login = broker.service_login();
        let filters = vec![(uplink_filter(&fleet, UpKind::Report), 0)];
        let receiver = Client::connect(broker.address(), "receiver", Some((&login.0, &login.1)), filters)
            .expect("it connects");
        receiver.patience(PATIENCE).expect("a read can have an end");
        Self { crowd, broker, held, receiver, fleet, number: 0 }
    }

    /// Publishes the files to everybody, who held `trust`, and waits for everybody's answer.
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    pub(super) fn run(&mut self, trust: &Trusted, bundle: &[u8]) -> Reach {
        *lock(&self.held) = Some(trust.clone());
        self.crowd.members.iter().for_each(|member| lock(member).verify = Duration::ZERO);
        let (pids, own) = (self.broker.pids(), std::process::id());
        let (before, crowd_before) = (used(&pids), Usage::of(own));
        self.number += 1;
        let topic = Topic::Head(product());
        let publish = Publish {
            qos: topic.qos(),
            retain: true,
            topic: topic.render(&self.fleet),
            id: self.number,
            payload: bundle.to_vec(),
            ..Publish::default()
        };
        Packet::Publish(publish).write(&mut self.receiver.out);
        let began = Instant::now();
        self.receiver.flush().expect("the broker takes it");
        let (mut heard, mut waits) = (BTreeSet::new(), Vec::new());
        while waits.len() < self.crowd.members.len() {
            let packets = self.receiver.read().expect("everybody answers in time");
            let took = began.elapsed().as_secs_f64() * 1e3;
            for packet in packets {
                let Packet::Publish(publish) = packet else { continue };
                // On a shared broker the agents' reports come by as well.
                if publish.payload.len() == ANSWER
                    && publish.topic.contains("/base-")
                    && heard.insert(publish.topic)
                {
                    waits.push(took);
                }
            }
        }
        let verify = self.crowd.members.iter().map(|member| lock(member).verify.as_secs_f64()).sum();
        *lock(&self.held) = None;
        reach(waits, verify, Usage::of(own).since(crowd_before), used(&pids) - before)
    }
}
