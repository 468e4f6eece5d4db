//! Publishes signed releases, widens them on evidence and takes bad ones back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what should happen next, worked out by plain functions |
//! | [`engine`] | the thread that owns the core: record first, then let out |
//! | [`state`] | the data folder, opened and folded |
//! | [`ledger`] | the append-only, hash-chained record of everything that was decided or heard |
//! | [`store`] | the state that the ledger adds up to; may be deleted and rebuilt |
//! | [`api`] | the HTTP API under `/v1` |
//! | [`cli`] | the command line |
//! | [`keys`] | keys and offline files |
//! | [`release`] | release files: draft, sign |
//! | [`serve`] | runs the service |
//! | [`demo`] | shows the whole product on one machine |
//! | [`files`] | files that are there whole or not at all |
//! | [`clock`] | the one place that asks what time it is |
#![forbid(unsafe_code)]

pub mod api;
pub mod cli;
pub mod clock;
pub mod core;
pub mod demo;
pub mod engine;
pub mod files;
pub mod keys;
pub mod ledger;
pub mod release;
pub mod serve;
pub mod state;
pub mod store;
