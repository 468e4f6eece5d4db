//! What a push costs a device: signed files from their bundle to the decision, without its disk and its network.

use serde::Serialize;
use std::collections::BTreeSet;
use tern_agent::core::SlotName;
use tern_agent::core::agent::{Agent, BootFacts, Content, Input, Output, Settings};
use tern_agent::core::conditions::Conditions;
use tern_agent::core::durable::Durable;
use tern_agent::core::timing::{Now, Timing};
use tern_controller::core::rollout::plan::Reach;
use tern_protocol::id::DeviceId;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::{Role, Trusted};

use super::scene::{Scene, registry};
use super::usage::{median, thread_cpu};
use crate::sim::clock::EPOCH;
use crate::sim::device::DeviceKeys;

/// One kind of push.
#[derive(Debug, Clone, Serialize)]
pub struct Push {
    /// What it is.
    pub kind: &'static str,
    /// Bytes of the bundle.
    pub bytes: usize,
    /// Files that it changed; each was verified.
    pub files: usize,
    /// Seconds of one core: the median, and the worst of the runs.
    pub seconds: f64,
    /// The slowest run.
    pub worst: f64,
}

/// Measures: every kind `runs` times, each on a device that has not seen it.
pub fn push(runs: usize) -> Vec<Push> {
    let mut scene = Scene::new(4);
    let factory = Trusted::restore(&scene.controller.factory_trust()).expect("a device is provisioned");
    let first = scene.release(2, &[Reach::All]);
    let mut before = factory.clone();
    learn(&mut before, head(&first));
    // Root, targets and halt are as before: what an ordinary release changes.
    let second = scene.release(3, &[Reach::Percent(50.0), Reach::All]);
    let cohort = second.iter().find(|(topic, _)| matches!(topic, Topic::Cohort(..)));
    let cohort = cohort.expect("a first phase is offered to cohorts");
    let kinds = [
        ("`head` to a device from the factory", &factory, head(&first)),
        ("`head` with a new release and its rollout", &before, head(&second)),
        ("the same as an offer to a cohort", &before, cohort),
    ];
    kinds
        .into_iter()
        .map(|(kind, trust, message)| {
            let (mut costs, mut files) = (Vec::new(), 0);
            for _ in 0..runs {
                let (cost, changed) = arrives(trust, message);
                costs.push(cost);
                files = changed;
            }
            let worst = costs.iter().copied().fold(0.0, f64::max);
            let (bytes, seconds) = (message.1.len(), median(costs.into_iter()));
            Push { kind, bytes, files, seconds, worst }
        })
        .collect()
}

/// Returns the newest of what was published on `head`.
fn head(published: &[(Topic, Vec<u8>)]) -> &(Topic, Vec<u8>) {
    let heads = published.iter().rev().find(|(topic, _)| matches!(topic, Topic::Head(_)));
    heads.expect("a start is published on head")
}

fn learn(trust: &mut Trusted, (topic, payload): &(Topic, Vec<u8>)) {
    let mut agent = agent(trust.clone());
    agent.handle(Input::Message { topic: topic.clone(), payload: payload.clone() }, now());
    *trust = agent.trust().clone();
    assert!(trust.current().is_some(), "the head is whole");
}

/// Hands a push to a device that runs and is connected; returns its cost and how many files it changed.
fn arrives(trust: &Trusted, (topic, payload): &(Topic, Vec<u8>)) -> (f64, usize) {
    let mut agent = agent(trust.clone());
    let input = Input::Message { topic: topic.clone(), payload: payload.clone() };
    let began = thread_cpu();
    let outputs = agent.handle(input, now());
    let took = (thread_cpu() - began).as_secs_f64();
    assert!(outputs.iter().any(|output| matches!(output, Output::SaveTrust(_))), "the push was news");
    assert!(agent.trust().current().is_some(), "the push is whole");
    let changed = Role::ALL.into_iter().filter(|role| agent.trust().file(*role) != trust.file(*role)).count();
    (took, changed)
}

fn agent(trust: Trusted) -> Agent {
    let device: DeviceId = "bench-1".parse().expect("a valid name");
    let settings = Settings {
        fleet: "lab".parse().expect("a valid name"),
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
    let keys = Box::new(DeviceKeys::new(1, &device));
    let mut agent = Agent::new(settings, keys, Durable::default(), trust, [7; 32]);
    let facts = BootFacts {
        components: Default::default(),
        slot: SlotName::A,
        boot_id: "bench".to_owned(),
        active: SlotName::A,
        trial: None,
        running: 0,
        floor: 0,
        running_version: "0".to_owned(),
        capacity: 64 << 20,
        contents: [Content::Unknown, Content::Bad],
    };
    agent.handle(Input::Up(facts), now());
    agent.handle(Input::LinkUp, now());
    agent
}

fn now() -> Now {
    Now { uptime: 60_000, wall: EPOCH / 1000 }
}
