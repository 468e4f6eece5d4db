//! Publishes signed releases, widens them on evidence and takes bad ones back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what should happen next, worked out by plain functions |
//! | [`engine`] | the thread that owns the core: record first, then let out |
//! | [`state`] | the data folder, opened and folded |
//! | [`ledger`] | the append-only, hash-chained record of everything that was decided or heard |
//! | [`retention`] | which old frames may be dropped, and what is kept of them |
//! | [`store`] | the state that the ledger adds up to; may be deleted and rebuilt |
//! | [`checkpoint`] | what the ledger adds up to, so that a start need not read all of it |
//! | [`broker_link`] | the service's own connection to the broker |
//! | [`serve`] | the service as a process |
//! | [`api`] | the HTTP API under `/v1` |
//! | [`cli`] | the command line |
//! | [`keys`] | private keys |
//! | [`ceremony`] | offline files and the people who sign them |
//! | [`deltas`] | deltas of what is published: planned, made, signed |
//! | [`release`] | release files: draft, sign |
//! | [`lint`] | what makes an image expensive to send |
//! | [`demo`] | the whole story on one machine |
//! | [`fault`] | where tests may end the process; empty in what is shipped |
//! | [`files`] | files that are there whole or not at all |
//! | [`place`] | the data folder, told from a copy of it |
//! | [`plain`] | text of others, made harmless for a terminal |
//! | [`token_file`] | tokens of the API in files |
//! | [`clock`] | the one place that asks what time it is |
#![forbid(unsafe_code)]

pub mod api;
pub mod broker_link;
pub mod ceremony;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod core;
pub mod deltas;
pub mod demo;
pub mod engine;
pub mod fault;
pub mod files;
pub mod keys;
pub mod ledger;
pub mod lint;
pub mod place;
pub mod plain;
pub mod release;
pub mod retention;
pub mod serve;
pub mod state;
pub mod store;
pub mod token_file;
