//! What was hit, and what is to be hit next.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tern_protocol::state::StateName;
use tern_tests::sim::clock::Rng;

/// Hits that every state, the service and the bridge get in a long campaign.
const EACH: u32 = 2;

/// What a round means to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// An agent in this state.
    Agent(StateName),
    /// The service while some device is on its way.
    Service,
    /// The service while it kills a bad release.
    ServiceKilling,
    /// The bridge.
    Bridge,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent(StateName::Checking) => f.write_str("agent, checking (see below)"),
            Self::Agent(state) => write!(f, "agent, {state}"),
            Self::Service => f.write_str("service"),
            Self::ServiceKilling => f.write_str("service, killing a release"),
            Self::Bridge => f.write_str("bridge"),
        }
    }
}

/// Counts hits.
pub(crate) struct Tally {
    long: bool,
    counted: u32,
    hits: BTreeMap<Target, u32>,
    tried: BTreeMap<Target, u32>,
}

impl Tally {
    pub(crate) fn new(long: bool) -> Self {
        let agents = StateName::ALL.into_iter().map(Target::Agent);
        let all = agents.chain([Target::Service, Target::ServiceKilling, Target::Bridge]);
        let zeros: BTreeMap<Target, u32> = all.map(|target| (target, 0)).collect();
        Self { long, counted: 0, hits: zeros.clone(), tried: zeros }
    }

    /// Returns the rounds that counted.
    pub(crate) fn counted(&self) -> u32 {
        self.counted
    }

    /// Tells whether everything was hit often enough; a short campaign asks for the number of rounds alone.
    pub(crate) fn complete(&self) -> bool {
        !self.long || self.hits.values().all(|hits| *hits >= EACH)
    }

    /// Draws a target among those that were hit least, then tried least: a state that is hard to hit must not
    /// keep the others from their turn.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Target {
        let rank = |target: &Target| (self.hits[target].min(EACH), self.tried[target]);
        let least = self.hits.keys().map(rank).min().expect("there are targets");
        let candidates: Vec<Target> = self.hits.keys().filter(|t| rank(t) == least).copied().collect();
        let drawn = usize::try_from(rng.below(candidates.len() as u64)).expect("a small number");
        let target = candidates[drawn];
        *self.tried.entry(target).or_default() += 1;
        target
    }

    /// Notes a kill inside a rollout, by what was really hit.
    pub(crate) fn hit(&mut self, target: Target) {
        self.counted += 1;
        *self.hits.entry(target).or_default() += 1;
    }

    /// Writes the table.
    pub(crate) fn table(&self) -> String {
        let mut out = format!("{:32} hits inside a rollout\n", "killed with -9");
        for (target, hits) in &self.hits {
            writeln!(out, "{:32} {hits}", target.to_string()).expect("a string takes everything");
        }
        out.push_str(
            "checking has no dwell and is never on the disk: the agent judges an offer between two saves. A hit\n\
             there is a kill after the signed files that make the offer were saved, before the next state was:\n\
             the journal still says idle or failed, the trust record names the rollout.",
        );
        out
    }
}
