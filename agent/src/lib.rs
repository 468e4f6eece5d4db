//! Keeps one device on the release that its fleet has approved.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what to do next, worked out without I/O, clock or randomness |
//! | [`clock`] | the only place that asks what time it is |
//! | [`storage`] | files, folders and block devices, behind one port |
//! | [`record`] | one checksummed record in two copies: what must survive a power cut |
//! | [`slot`] | the two places that hold a release, and what vouches for their bytes |
//! | [`boot`] | which slot comes up next; trial, confirm, rollback |
//! | [`backend`] | slots and boot loader, as the configuration names them |
//! | [`config`] | what the agent is told, read once into checked types |
//! | [`identity`] | the device's two keys |
//! | [`link`] | one MQTT connection to the first broker that does its duty |
//! | `web` | web servers as sources of packs, with the feature `http-source` |
//! | [`command`] | running an integrator's program, bounded in time and output |
//! | [`health`] | probes that decide whether a release on trial is well |
//! | [`collect`] | what went wrong since it was asked last, as counts |
//! | [`hooks`] | programs around the update itself |
//! | [`surroundings`] | measures what the owner's conditions ask for |
//! | `delta` | packs of a delta into a slot |
//! | [`device`] | records, slots and boot record of one device, in one hand |
//! | [`notify`] | telling the service manager how the agent fares |
//! | [`watchdog`] | the hardware watchdog, which resets a device that hangs |
//! | [`pulse`] | what the loop says to both on every turn |
//! | [`recovery`] | a single slot that a system of its own fills |
//! | [`run`] | the loop around the core |
//! | [`process`] | the agent as a process, booting |
#![forbid(unsafe_code)]

pub mod backend;
pub mod boot;
pub mod clock;
pub mod collect;
pub mod command;
pub mod component;
pub mod config;
pub mod core;
mod delta;
pub mod device;
pub mod health;
pub mod hooks;
pub mod identity;
pub mod link;
pub mod notify;
pub mod process;
pub mod pulse;
pub mod record;
pub mod recovery;
pub mod run;
pub mod slot;
pub mod starts;
pub mod storage;
pub mod surroundings;
#[cfg(test)]
mod testing;
pub mod watchdog;
#[cfg(feature = "http-source")]
mod web;
#[cfg(not(feature = "http-source"))]
#[path = "without_web.rs"]
mod web;
