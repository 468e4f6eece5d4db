//! What the controller decides, worked out without I/O, clock or randomness.
//!
//! | module | what it holds |
//! |---|---|
//! | [`access`] | tokens and roles: who may use the API |
//! | [`enrolment`] | claims, factory lists: who may become a device |
//! | [`fact`] | what the ledger records; the only thing that changes state |
//! | [`fleet`] | devices, products and rollouts, folded from facts |
//! | [`replay`] | works every verdict of a ledger out again |
//! | [`rollout`] | plans, phases, cuts, evidence, verdicts |
//! | [`service`] | the whole controller as one value: inputs in, facts and outputs out |

pub mod access;
pub mod enrolment;
pub mod fact;
pub mod fleet;
pub mod replay;
pub mod rollout;
pub mod service;
