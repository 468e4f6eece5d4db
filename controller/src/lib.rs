//! Publishes signed releases, widens them on evidence and takes bad ones back.
//!
//! | module | what it holds |
//! |---|---|
//! | [`core`] | what should happen next, worked out by plain functions |
#![forbid(unsafe_code)]

pub mod core;
