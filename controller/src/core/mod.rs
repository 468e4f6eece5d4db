//! Decisions as plain values: no I/O, no clock, no randomness, no async.

pub mod rollout;
