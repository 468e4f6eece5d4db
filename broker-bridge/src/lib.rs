//! The device-facing MQTT edge: it knows who is there, who may say what, and answers for chunks itself.
//!
//! | module | what it holds |
//! |---|---|
//! | `bridge` | the whole, started, watched and stopped |
//! | [`config`] | what it must be told |
//! | [`policy`] | who may publish and subscribe to what; also as a mosquitto ACL |
//! | [`front`] | connections: MQTT frames, identity, sessions, queues |
//! | `broker` | rumqttd, embedded on loopback |
//! | `watchdog` | notices when it has died |
//! | [`chunks`] | images by content, and the answers to `get` |
//! | [`files`] | the newest signed files that went by |
//! | [`password`] | the file of users |
//! | [`site`] | the edge of a site: cache, queue, mirror and the link to upstream |
//! | `stats` | what is counted |
#![forbid(unsafe_code)]

mod bridge;
mod broker;
pub mod chunks;
mod clock;
pub mod config;
pub mod files;
pub mod front;
pub mod password;
pub mod policy;
pub mod site;
mod stats;
mod watchdog;

pub use bridge::{Bridge, BridgeError};
pub use broker::{BrokerError, abort_on_broker_panic};
pub use chunks::{ChunkClient, ChunkClientConfig, ChunkClientError, ChunkStore, StoreError, StoredDelta};
pub use config::{Auth, BridgeConfig, ConfigError, FrontLimits, ListenerConfig, TlsFiles};
pub use site::{UpstreamConfig, UpstreamError};
pub use stats::BridgeStats;
