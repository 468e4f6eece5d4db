//! The HTTP API under `/v1`: whoever has a token may do what its role says.
//!
//! | module | what it holds |
//! |---|---|
//! | [`types`] | request and response shapes |
//! | [`routes`] | which path does what |
//! | [`client`], [`trust`] | the same from the command line's side, and whom it believes over TLS |
//! | [`listen`] | connections: how many, and how long they may take |
//! | [`access`], `throttle` | the gate before every path |
//! | `answer` | reading requests, writing errors |
//! | `devices`, `releases`, `keys`, `rollouts`, `ledger` | what the paths do |
//! | `tokens` | tokens made and taken back |
//! | `admission` | claims, factories, and decisions about devices |
//! | `images` | taking in the bytes of an image |
//! | `deltas` | how it is with the deltas of a release |
//! | `preview` | what an operator should know before starting |
//! | `views` | from the fleet to the shapes |
//! | `metrics` | the numbers that Prometheus reads |

pub mod access;
mod admission;
mod answer;
pub mod client;
mod deltas;
mod devices;
mod images;
mod keys;
mod ledger;
pub mod listen;
mod metrics;
mod preview;
mod recover;
mod releases;
mod rollouts;
pub mod routes;
mod throttle;
mod tokens;
pub mod trust;
pub mod types;
mod views;

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod keys_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern_protocol::digest::Digest;

use self::types::{EdgeView, StoredImage};
use crate::deltas::Deltas;
use crate::engine::Engine;

/// Where images are kept.
pub trait Images: Send + Sync {
    /// Takes in the image at `path`, which lies in [`Images::staging`]; the file may be moved or left.
    fn add(&self, path: &Path) -> io::Result<StoredImage>;
    /// Tells whether the image with this Merkle root is here.
    fn has(&self, root: &Digest) -> bool;
    /// Returns the folder into which uploads are written first.
    fn staging(&self) -> PathBuf;
}

/// Returns what only the running service knows: bytes moved, and the addresses on which devices may connect.
pub type Extras = Arc<dyn Fn() -> EdgeView + Send + Sync>;

/// What the API works on.
#[derive(Clone)]
pub struct ApiState {
    /// The engine.
    pub engine: Engine,
    /// The images.
    pub images: Arc<dyn Images>,
    /// Deltas between them; none where none are made.
    pub deltas: Option<Deltas>,
    /// What only the running service knows.
    pub extras: Extras,
    /// The data folder.
    pub data_dir: PathBuf,
    /// How the first admin token comes to its holder.
    pub first_token: access::FirstToken,
}
