//! Chunk answers: images kept by content, and who asked for what.
//!
//! | module | what it holds |
//! |---|---|
//! | [`store`] | images and their trees as files, addressed by Merkle root |
//! | `pending` | what one device still waits for; pure |
//! | `serve` | from a `get` to packs and bundles |

pub(crate) mod pending;
pub(crate) mod serve;
pub mod store;

pub use store::{ChunkStore, ObjectInfo, StoreError};
