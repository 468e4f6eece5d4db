//! How a release widens, waits, or is taken back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`counts`] | what a rollout has seen of its devices |
//! | [`evidence`] | the arithmetic: how strongly do counts speak against a release, or for it |
//! | [`policy`] | what the operator allows |
//! | [`gate`] | from counters to a verdict |
//! | [`verdict`] | a decision with the numbers that led to it, and (`explain`) in words |

pub mod counts;
pub mod evidence;
mod explain;
pub mod gate;
pub mod policy;
pub mod verdict;
