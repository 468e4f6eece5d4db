//! What the agent should do next, worked out without I/O, clock or randomness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`machine`] | the update machine: `after` (state × event → state) and `owes` (state → effect) |
//! | [`state`] | the machine's states, events and effects as plain values |
//! | [`time`] | what time it is, on a device that may have no clock |
//! | [`timing`] | every wait, and how points in time survive a restart |
//! | [`reconcile`] | what a boot has brought up, held against what the journal remembers |
//! | [`eligibility`] | may this device run that release, now? |
//! | [`component`] | what is not in a slot: installed with it, kept with it, taken back with it |
//! | [`conditions`] | may it download, or install, at this moment? |
//! | [`zone`] | where a device's clock on the wall stands beside UTC |
//! | [`hold`] | what holds an attempt back for a while |
//! | [`hook`] | when hooks run, and which of them are to be undone |
//! | [`undo`] | how often that is tried, and what is told if it cannot be done |
//! | [`way`] | how an artifact is fetched, and how far: chunks, or the packs of a delta |
//! | `fetch` | what Downloading does with that |
//! | `choice` | which way is the cheapest |
//! | [`download`] | which packs to ask for next, and which to believe |
//! | [`window`] | how many packs to have on their way, and which of them to ask for again |
//! | `pace` | how fast that may be |
//! | `source` | whom to ask for them: web servers that the owner has named, or the broker |
//! | `packs` | the packs of a delta, handed on in their order |
//! | `tree` | the part of a tree under which they are believed |
//! | [`outbox`] | numbered reports that wait for the controller's ack |
//! | `reader` | bundles: their dictionary, and those that wait for one |
//! | `comparison` | what a device owes to the comparison with a control |
//! | [`durable`] | what the journal keeps |
//! | [`agent`] | the whole agent as one value: inputs in, outputs out |
//! | [`port`] | those inputs and outputs, and the device's keys |
//! | `work` | local jobs: what the state owes, and what their end means |
//! | `entropy` | chance from one seed |
//! | `exchange` | epochs, hello, nonces, answers |
//! | `fresh` | going on where nobody can be asked |
//! | `stale` | time from files and answers, and what is not done when files are over |
//! | `trust` | signed files in, offers and kills out |
//!
//! The same core runs on a device, in the fleet simulator and under the power-cut simulation.

pub mod agent;
mod choice;
mod comparison;
pub mod component;
pub mod conditions;
pub mod download;
pub mod durable;
pub mod eligibility;
mod entropy;
mod exchange;
mod fetch;
mod fresh;
pub mod hold;
pub mod hook;
pub mod machine;
pub mod outbox;
mod pace;
mod packs;
pub mod port;
mod reader;
pub mod reconcile;
mod source;
mod stale;
pub mod state;
pub mod time;
pub mod timing;
mod tree;
mod trust;
pub mod undo;
pub mod way;
pub mod window;
mod work;
pub mod zone;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

/// Names one of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlotName {
    /// The slot that a device is provisioned with.
    A,
    /// The other one.
    B,
}

impl SlotName {
    /// Both slots.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Returns the other slot.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl std::fmt::Display for SlotName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}
