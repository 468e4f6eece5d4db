//! What two parties of Tern must agree on byte for byte.
//!
//! No I/O, no clock, no randomness: bytes and `now` come in as arguments, values go out.
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`] | checked names: fleet, product, region, device, site |
//! | [`limits`] | every ceiling on what may arrive from outside |
//! | [`digest`] | SHA-256 values |
//! | [`topic`] | every MQTT topic, built and parsed in one place |
//! | [`position`] | where a device stands in a rollout: partition, cohort, position, cut |
//! | [`chunk`] | images as 64 KiB chunks under a Merkle root; the chunk index |
//! | [`object`] | images, deltas and their trees as files: names, and places in them |
//! | [`delta`] | a new image from the old one and a few packs |
//! | [`bundle`] | the container in which signed files travel |
//! | [`message`] | reports, answers, requests for packs and files |
//! | [`claim`] | tokens that let devices enrol which no factory list names |
//! | [`mac`] | keys and authentication codes of everything that is not a signed file |
//! | [`state`] | the names of the update machine's states and of outcomes |
//! | [`tuf`] | signed metadata: types, signing, and the client workflow |
//! | [`offer`] | which release a device should run, read from verified metadata |
//! | [`version`] | the order of components' versions, and ranges of them |
#![forbid(unsafe_code)]

pub mod bundle;
pub mod chunk;
pub mod claim;
pub mod delta;
pub mod digest;
pub mod id;
pub mod limits;
pub mod mac;
pub mod message;
pub mod object;
pub mod offer;
pub mod position;
pub mod state;
pub mod topic;
pub mod tuf;
pub mod version;
