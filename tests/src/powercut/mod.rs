//! Power cut everywhere: the agent's own code, from its core down to its last write, on a disk that forgets.
//!
//! | module | what it holds |
//! |---|---|
//! | [`disk`] | a disk behind the agent's storage port that loses, tears and reorders what was not synced |
//! | `medium` | what that disk is made of: what is seen, what is durable, what is pending |
//! | `port` | its side of the port: what real storage refuses is refused |
//! | [`lie`] | syncs that it only pretends to do |
//! | `state` | what tells one disk that is off from every other one |
//! | `wear` | reads that fail, sectors that wear out, copies that are lost |
//! | [`outcome`] | what a power cut may leave of what was not synced |
//! | [`service`] | releases, their packs, and a service that answers |
//! | [`device`] | one device: boot loader, agent and disk, with a power switch |
//! | [`board`] | kinds of devices: files; U-Boot with partitions, or with a single one; systemd-boot |
//! | [`mod@systemd_boot`] | what systemd-boot does with the entries that it finds |
//! | [`flaw`] | media that do not read any more, and copies that are gone |
//! | [`story`] | what happens to a device, and what must be true whenever it boots and when it is over |
//! | [`campaign`] | a story played with the power cut at every operation, and with each sync taken away |

pub mod board;
pub mod campaign;
pub mod device;
pub mod disk;
pub mod flaw;
pub mod lie;
mod medium;
pub mod outcome;
mod port;
pub mod service;
mod state;
pub mod story;
pub mod systemd_boot;
mod wear;
