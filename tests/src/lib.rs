//! What tests share: a deterministic simulation of devices, broker and controller.
//!
//! | module | what it holds |
//! |---|---|
//! | [`apart`] | the real engine, ledger and store in a process that dies where it is told to |
//! | [`bakeoff`] | what decides about rollouts, compared over the same fleets |
//! | [`mod@bench`] | benchmarks of whole processes |
//! | [`lab`] | real processes on loopback |
//! | [`powercut`] | the agent on a disk that forgets, with the power cut everywhere |
//! | [`sim`] | virtual clock, simulated network and disks around the real cores; seed in, event log out |
#![forbid(unsafe_code)]

pub mod apart;
pub mod bakeoff;
pub mod bench;
pub mod lab;
pub mod powercut;
pub mod sim;
