//! Publishes signed releases, widens them on evidence and takes bad ones back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what should happen next, worked out by plain functions |
//! | [`ledger`] | the append-only, hash-chained record of everything that was decided or heard |
#![forbid(unsafe_code)]

pub mod core;
pub mod ledger;
