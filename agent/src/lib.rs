//! Keeps one device on the release that its fleet has approved.
#![forbid(unsafe_code)]

pub mod core;
