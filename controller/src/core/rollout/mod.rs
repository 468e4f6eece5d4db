//! Rollouts: whom they include, what the evidence says, and what follows from it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | a rollout's parameters |
//! | [`wave`] | how a phase opens: a few devices first |
//! | [`times`] | when it may widen |
//! | [`hold_back`] | which devices are kept from a release to be compared with |
//! | [`control`] | what they are compared by: [`paired`] events, and [`drain`] |
//! | [`baseline`] | how the last good release fared |
//! | [`outlook`] | what each test has, and what would decide it |
//! | [`phase`] | from the wish of a phase to one cut per hardware model |
//! | [`record`] | one rollout as the ledger tells it |
//! | `growth` | how that record grows: phases, waves, series |
//! | `tally` | what its devices did, counted into it |
//! | [`judgement`] | what it adds up to, by stratum |
//! | [`counts`] | what a rollout has seen of its devices |
//! | [`evidence`] | test martingales over counters |
//! | [`gate`] | from counters to a verdict |
//! | [`detect`] | what a plan can find out, before it starts |
//! | [`policy`] | what the operator allows |
//! | [`room`] | how many more devices may be on trial |
//! | [`silence`] | when a device that started counts as silent |
//! | [`verdict`] | a decision with the numbers that led to it |

pub mod baseline;
pub mod control;
pub mod counts;
pub mod detect;
pub mod drain;
pub mod evidence;
mod explain;
pub mod gate;
mod growth;
pub mod hold_back;
pub mod judgement;
pub mod outlook;
pub mod paired;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod record;
pub mod room;
pub mod silence;
mod tally;
pub mod times;
pub mod verdict;
pub mod wave;
