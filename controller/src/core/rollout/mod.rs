//! Rollouts: whom they include, what the evidence says, and what follows from it.

pub mod counts;
pub mod evidence;
pub mod gate;
pub mod phase;
pub mod plan;
pub mod policy;
pub mod record;
pub mod verdict;

mod explain;
