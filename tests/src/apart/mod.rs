//! The real engine, ledger and store in a process of their own, which dies where it is told to: as `kill -9` ends it,
//! or as a power cut does, with the loss of what was not synced.
//!
//! The process owns a data folder and lives on what the simulation hands to it: messages, commands and the time come
//! through a pipe, what it lets out goes back the same way. It is built with the feature `fault-points`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | what is said through the pipe |
//! | [`process`] | [`process::Process`]: one life of it |
//! | [`tail`] | the ledger's files as they grow, and what a power cut leaves of them |
//! | [`service`] | [`service::Apart`]: all its lives, for the simulation |

pub mod process;
pub mod service;
pub mod tail;
pub mod wire;
