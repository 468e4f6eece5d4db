//! Deltas: a new image from the one in the other slot and a few packs.
//!
//! docs/delta-format.md has every table and rule. A pack is at most 64 KiB, is verified before it is decoded, and stands
//! alone: what the coder learns is forgotten at its end. Decoding allocates nothing once [`Decoder::new`] has made its
//! tables, uses integers only, and does not panic on any bytes.
//!
//! | module | what it holds |
//! |---|---|
//! | [`manifest`] | which packs lead from which image to which |
//! | [`signed`] | the manifest under signatures, as it travels |
//! | [`profile`] | what kind of device a delta is for: coder, sizes of tables |
//! | [`port`] | reading the old image, writing the new one |
//! | [`decode`] | from packs to chunks |
//! | `encode` | from two images to packs (feature `delta-encode`, not on devices) |
//! | `pack` | a pack's header; the walk over chunks that both directions share |
//! | `model` | what is learnt within a pack; `copy`: bytes with a counterpart, `literal`: bytes without |
//! | `words` | what became of old addresses; `history`: literals that come again |
//! | `symbol`, `mix`, `slots`, `arith` | bytes and flags out of contexts: mixing, probabilities, the arithmetic coder |
//! | `window` | the part of the source that is at hand |
#![allow(
    clippy::cast_possible_truncation,
    reason = "bits are cut on purpose; what a pack says is checked as u64"
)]
#![allow(clippy::cast_possible_wrap, reason = "images end at 2^32")]

mod arith;
mod copy;
pub mod decode;
#[cfg(feature = "delta-encode")]
pub mod encode;
pub mod error;
mod history;
mod literal;
pub mod manifest;
mod mix;
mod model;
mod pack;
pub mod port;
pub mod profile;
pub mod signed;
mod slots;
mod symbol;
#[cfg(all(test, feature = "delta-encode"))]
mod tests;
mod window;
mod words;

pub use decode::{Decoder, span};
#[cfg(feature = "delta-encode")]
pub use encode::{Delta, encode, encode_if_it_saves};
pub use error::{DecodeError, DeltaManifestError, SignedDeltaError};
pub use manifest::{DeltaManifest, ImageId};
pub use port::{ReadAt, Slot};
pub use profile::Profile;
