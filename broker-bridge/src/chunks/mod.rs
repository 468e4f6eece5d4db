//! Chunk answers: images and deltas kept by content, and who asked for what.
//!
//! | module | what it holds |
//! |---|---|
//! | [`store`] | images, deltas and their trees as files, addressed by Merkle root |
//! | `pending` | what one device still waits for; pure |
//! | `serve` | from a `get` to packs and bundles |
//! | [`client`] | the same answers as a client of an external broker |

pub mod client;
pub(crate) mod pending;
pub(crate) mod serve;
pub mod store;

pub use client::{ChunkClient, ChunkClientConfig, ChunkClientError};
pub use store::{ChunkStore, Exported, ObjectInfo, StoreError, StoredDelta};
