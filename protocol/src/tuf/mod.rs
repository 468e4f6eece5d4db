//! Signed metadata after The Update Framework 1.0: types, signing, and the client workflow.

pub mod content;
mod role;

pub use role::Role;
