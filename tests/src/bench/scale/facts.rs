//! The facts of a large fleet with one rollout under way, made a few at a time so that they take no memory themselves.

use tern_controller::core::fact::{DeviceEntry, Entry, Fact};
use tern_controller::core::rollout::plan::Reach;
use tern_protocol::id::{DeviceId, RolloutId};
use tern_protocol::message::{Attempt, Hello, Nonce, ReportKind, Versions};
use tern_protocol::state::{Outcome, StateName};

use crate::bench::scene::{Scene, registry};

/// Facts that are made, applied and written together: as many as the service takes in one step.
pub(super) const STEP: u32 = 2048;
const _: () = assert!(STEP as usize == tern_controller::core::service::BATCH);
/// Devices of one line of a factory list; an ordinary list is cut so that its facts stay below a frame's ceiling.
const LIST: u32 = 500;

/// The states from rest to the start.
const STATES: [StateName; 6] = [
    StateName::Idle,
    StateName::Checking,
    StateName::Downloading,
    StateName::Verifying,
    StateName::PreUpdating,
    StateName::Updating,
];

/// What a device says, one part after the other; all devices say the same part before the next one begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It is listed by its factory.
    Listed,
    /// It enrols.
    Enrolled,
    /// It says what it is and runs.
    Hello,
    /// It enters the states from an offer to the start, one after the other.
    Enters(usize),
    /// It starts.
    Starts,
    /// It has come up again and runs on trial.
    Trial,
    /// Every second one has confirmed the release; the others are on trial still.
    Confirms,
}

impl Part {
    /// What makes a device known.
    pub(super) const KNOWN: [Self; 3] = [Self::Listed, Self::Enrolled, Self::Hello];
    /// What it does in the rollout.
    pub(super) const ROLLOUT: [Self; 8] = [
        Self::Enters(0),
        Self::Enters(1),
        Self::Enters(2),
        Self::Enters(3),
        Self::Enters(4),
        Self::Starts,
        Self::Trial,
        Self::Confirms,
    ];

    /// Returns the part's facts of some devices.
    pub(super) fn facts(self, devices: std::ops::Range<u32>) -> Vec<Fact> {
        if self == Self::Listed {
            let firsts = devices.clone().step_by(LIST as usize);
            let list = |first: u32| {
                let devices = (first..devices.end.min(first + LIST)).map(listed).collect();
                Fact::DevicesAdded { devices, by: None }
            };
            return firsts.map(list).collect();
        }
        let second = |index: &u32| self != Self::Confirms || index.is_multiple_of(2);
        devices.filter(second).map(|index| self.fact(index)).collect()
    }

    fn fact(self, index: u32) -> Fact {
        let device = device(index);
        let moved = |from, to| ReportKind::Transition { attempt: attempt(), from, to, reason: None };
        let (e, n, report) = match self {
            Self::Listed | Self::Enrolled => return Fact::Enrolled { device, telemetry: point(index, 2) },
            Self::Hello => (1, 1, hello()),
            Self::Enters(place) => (1, 2 + place as u64, moved(STATES[place], STATES[place + 1])),
            Self::Starts => (1, 7, ReportKind::Started { nonce: Nonce([7; 16]), attempt: attempt() }),
            Self::Trial => (2, 9, moved(StateName::Updating, StateName::VerifyPost)),
            Self::Confirms => {
                let outcome = Outcome::Success;
                (2, 10, ReportKind::Outcome { attempt: attempt(), outcome, reason: None })
            }
        };
        Fact::Reported { device, e, n, low: n, report }
    }
}

/// Returns the rollout of the facts.
pub(super) fn rollout() -> RolloutId {
    "r2".parse().expect("a valid name")
}

/// Returns what a real service records of a product, a release and a rollout that reaches everybody.
pub(super) fn founding() -> Vec<Entry> {
    let mut scene = Scene::new(1);
    scene.release(2, &[Reach::All]);
    scene.controller.ledger
}

/// Returns the name of a device.
pub(super) fn device(index: u32) -> DeviceId {
    format!("terminal-{index:08}").parse().expect("a valid name")
}

fn listed(index: u32) -> DeviceEntry {
    DeviceEntry { device: device(index), identity: point(index, 1), registry: registry() }
}

/// Returns what has a point's form; nothing is verified here.
fn point(index: u32, salt: u32) -> String {
    format!("04{:064x}{:064x}", u64::from(index) + 1, u64::from(salt))
}

fn attempt() -> Attempt {
    Attempt { rc: 2, rollout: rollout(), attempt: 1 }
}

fn hello() -> ReportKind {
    let registry = registry();
    ReportKind::Hello(Box::new(Hello {
        running: 1,
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        product: registry.product,
        model: registry.model,
        carrier: registry.carrier,
        region: registry.region,
        floor: 1,
        versions: Versions::default(),
        halted: Vec::new(),
        components: Default::default(),
        proof: None,
    }))
}
