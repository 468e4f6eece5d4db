//! Keeps one device on the release that its fleet has approved.
//!
//! | module | what it holds |
//! |---|---|
//! | [`clock`] | the only place that asks what time it is |
//! | [`record`] | one checksummed record in two copies: what must survive a power cut |
//! | [`slot`] | the two places that hold a release, and what vouches for their bytes |
//! | [`boot`] | which slot comes up next; trial, confirm, rollback |
#![forbid(unsafe_code)]

pub mod boot;
pub mod clock;
pub mod record;
pub mod slot;
