//! Signed metadata after The Update Framework 1.0: types, signing, and the client workflow.
//!
//! | module | what it holds |
//! |---|---|
//! | [`canonical`] | the JSON form that is signed, and the strict reader |
//! | [`key`] | public keys, key ids, what signs |
//! | [`metadata`] | the signed part of each role |
//! | [`content`] | what Tern adds to them |
//! | [`build`] | unsigned metadata, for the controller |
//! | [`sign`] | unsigned metadata in, a file out |
//! | [`verify`] | one file against the keys that its parent names |
//! | [`client`] | the workflow: files that arrive in any order, or a server that is asked |
//! | [`time`] | `expires` to and from unix seconds |

pub mod build;
pub mod canonical;
pub mod client;
pub mod content;
mod delegation;
mod error;
pub mod key;
pub mod metadata;
mod role;
pub mod sign;
pub mod time;
pub mod verify;

pub use client::{Current, Opened, Pool, Teachers, Trusted};
pub use error::TufError;
pub use key::Signer;
pub use metadata::peek;
pub use role::{Role, RoleName, quote};
