//! Benchmarks of whole processes, and of the cores in one thread, each beside a yardstick in the same run. Machines are
//! noisy: trust the ratios.
//!
//! | module | what it holds |
//! |---|---|
//! | `mqtt` | a blocking MQTT client that does nothing but what a bench needs |
//! | `kill` | how fast a kill reaches a fleet that downloads, beside clients that only verify |
//! | `load` | devices that send sealed reports as fast as they are acknowledged |
//! | `reports` | reports a second: the service beside an echo behind the same front |
//! | `download` | images to agents: beside an HTTP download of the same file |
//! | `goodput` | how much of a bad link a download makes use of, beside other ways |
//! | `counter` | MQTT between a device and its broker, packet by packet |
//! | `wire` | the bytes of a whole update by delta, as MQTT, under TLS, and in packets of IP |
//! | `idle` | what a device that has nothing to do costs on the wire, beside one that polls |
//! | `builds` | the static agents: their size, and what they keep in memory |
//! | `memory` | what an agent keeps in memory, idle and at most in an update |
//! | `scene` | a controller and devices in one thread: what the next three measure |
//! | `authentication` | reports that a core authenticates, beside bare HMAC-SHA256 |
//! | `junk` | what junk costs the service before it is dropped |
//! | `push` | what a push costs a device |
//! | `scale` | a large fleet: memory a device, reports a core-second, checkpoint and restart |
//! | `size` | what an agent's executable is made of |
//! | `usage` | CPU seconds and memory of processes, CPU time of a thread |

mod authentication;
mod builds;
mod counter;
mod download;
mod goodput;
mod idle;
mod junk;
mod kill;
mod load;
mod memory;
mod mqtt;
mod push;
mod reports;
mod scale;
mod scene;
mod size;
mod usage;
mod wire;

pub use authentication::{Authentication, authentication};
pub use builds::{Build, builds};
pub use download::{Download, download};
pub use goodput::{Case, Goodput, goodput};
pub use idle::{DAY, Idle, Kind, Polling, idle};
pub use junk::{JUNK, Junk, junk};
pub use kill::{By, KillBroker, KillOptions, KillRun, Reach, kill};
pub use memory::{Link, Memory, memory};
pub use push::{Push, push};
pub use reports::{Reports, echo, reports};
pub use scale::{Restart, Scale, Timed, scale};
pub use size::Part;
pub use usage::{Usage, resident_kib};
pub use wire::{Wire, wire};
