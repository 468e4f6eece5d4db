//! Benchmarks of whole processes, each beside a yardstick in the same run. Machines are noisy: trust the ratios.
//!
//! | module | what it holds |
//! |---|---|
//! | `mqtt` | a blocking MQTT client that does nothing but what a bench needs |
//! | `load` | devices that send sealed reports as fast as they are acknowledged |
//! | `reports` | reports a second: the service beside an echo behind the same front |
//! | `download` | images to agents: beside an HTTP download of the same file |
//! | `size` | what the agent's executable is made of |
//! | `usage` | CPU seconds and memory of processes |

mod download;
mod load;
mod mqtt;
mod reports;
mod size;
mod usage;

pub use download::{Download, download};
pub use reports::{Reports, echo, reports};
pub use size::{Part, parts};
pub use usage::{Usage, resident_kib};
