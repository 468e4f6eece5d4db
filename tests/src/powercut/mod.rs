//! Power cut everywhere: the agent's own code, from its core down to its last write, on a disk that forgets.
//!
//! | module | what it holds |
//! |---|---|
//! | [`disk`] | a disk behind the agent's storage port that loses, tears and reorders what was not synced |
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
pub mod outcome;
pub mod service;
pub mod story;
pub mod systemd_boot;
