//! Publishes signed releases, widens them on evidence and takes bad ones back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what should happen next, worked out by plain functions |
//! | [`ledger`] | the append-only, hash-chained record of everything that was decided or heard |
//! | [`store`] | the state that the ledger adds up to; may be deleted and rebuilt |
#![forbid(unsafe_code)]

pub mod core;
pub mod ledger;
pub mod store;
