//! How fast a kill reaches a fleet that is downloading, beside clients that verify the same files and do nothing else.
//!
//! The service, the front and the broker are the real programs; the agents are real cores, each with a connection of
//! its own, many in one process. One run is: everybody downloads (and is given no chunk), one device says that the
//! release is bad, and everybody's `halted` comes back. Then the same files go to as many baseline clients, which
//! connect and subscribe the same way, verify them, and answer with one PUBLISH to a bare subscriber.
//!
//! | module | what it holds |
//! |---|---|
//! | [`crowd`] | many MQTT connections in a few threads |
//! | [`agents`] | a real agent core on one of them |
//! | [`baseline`] | what only verifies and answers, and who receives that |
//! | [`broker`] | mosquitto as `deploy/` has it; a bridge of its own for the baseline |
//! | [`stage`] | a service with its fleet, brought to the moment before the kill |

mod agents;
mod baseline;
mod broker;
mod crowd;
mod stage;

use std::time::Duration;

use serde::Serialize;

use super::usage::Usage;
use baseline::Baseline;
use stage::Stage;

pub use broker::KillBroker;

/// Who kills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum By {
    /// A device's report that the release is bad.
    Report,
    /// An operator's `rollout kill`.
    Operator,
}

/// Milliseconds from the deciding moment, over all devices, and the work behind them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Reach {
    /// Half of the devices.
    pub p50: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// The last.
    pub last: f64,
    /// CPU seconds of verification, all devices together.
    pub verify_cpu: f64,
    /// CPU seconds of the process that holds the devices, verification included.
    pub crowd_cpu: f64,
    /// CPU seconds of whoever signs, spreads and receives: the service with its broker; broker and receiver.
    pub service_cpu: f64,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct KillRun {
    /// Who killed.
    pub by: By,
    /// Load average before it.
    pub load: f64,
    /// The product.
    pub agents: Reach,
    /// The baseline.
    pub baseline: Reach,
}

impl KillRun {
    /// What the product's p99 may be: half as much again as the baseline's, and 150 ms.
    pub fn allowed(&self) -> f64 {
        1.5 * self.baseline.p99 + 150.0
    }
}

/// What [`kill`] is asked for.
#[derive(Debug, Clone, Copy)]
pub struct KillOptions {
    /// Agents, and as many baseline clients.
    pub agents: u32,
    /// The broker.
    pub broker: KillBroker,
    /// Runs in which a report decides.
    pub runs: u32,
    /// Runs in which an operator does, after them.
    pub operator_runs: u32,
}

/// Measures; `tell` hears of every run as it ends.
pub fn kill(options: KillOptions, mut tell: impl FnMut(&KillRun)) -> Vec<KillRun> {
    crowd::raise_descriptors();
    let mut stage = Stage::set(options.broker, options.agents);
    let mut baseline = Baseline::set(&stage, options.agents);
    let kinds = (0..options.runs).map(|_| By::Report).chain((0..options.operator_runs).map(|_| By::Operator));
    let mut runs = Vec::new();
    for (rc, by) in (2..).zip(kinds) {
        stage.begin(rc);
        let load = load();
        let killed = stage.kill(rc, by);
        // What is left of the one must not weigh on the other.
        std::thread::sleep(Duration::from_secs(1));
        let baseline = baseline.run(&killed.trust, &killed.bundle);
        let run = KillRun { by, load, agents: killed.reach, baseline };
        tell(&run);
        runs.push(run);
    }
    runs
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Adds up what the processes have used.
fn used(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| Usage::of(*pid).cpu).sum()
}

/// Returns the value that so many in a hundred do not exceed.
fn quantile(sorted: &[f64], percent: usize) -> f64 {
    let place = (sorted.len() * percent).div_ceil(100);
    sorted[place.clamp(1, sorted.len()) - 1]
}

fn reach(mut waits: Vec<f64>, verify_cpu: f64, crowd_cpu: f64, service_cpu: f64) -> Reach {
    waits.sort_by(f64::total_cmp);
    let last = waits[waits.len() - 1];
    Reach { p50: quantile(&waits, 50), p99: quantile(&waits, 99), last, verify_cpu, crowd_cpu, service_cpu }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_value_that_so_many_do_not_exceed() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!((quantile(&values, 50), quantile(&values, 99)), (500.0, 990.0));
        assert_eq!(quantile(&[7.0], 99), 7.0);
    }
}
