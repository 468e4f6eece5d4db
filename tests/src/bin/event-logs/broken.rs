//! Controls: what the service would be told if it counted wrongly. Whoever compares must notice each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::ValueEnum;
use tern_protocol::id::DeviceId;

use crate::log::{Line, Log, Said};

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Broken {
    /// An outcome that arrives again counts as another device's.
    Twice,
    /// A device counts as started when its outcome is heard: reports are counted, and not starts.
    Reports,
    /// The outcome has half its share of the budget.
    Weight,
    /// Each hardware model spends the whole budget.
    Strata,
    /// Deadlines pass a millisecond early.
    Deadline,
}

impl Broken {
    /// Returns the log as the service would see it.
    pub(crate) fn log(self, log: &Log) -> Log {
        let mut log = log.clone();
        match self {
            Self::Twice => {
                let mut known: BTreeMap<(DeviceId, u64), u64> = BTreeMap::new();
                let mut lines = Vec::new();
                for line in &log.lines {
                    let times = known.entry((line.device.clone(), line.n)).or_default();
                    *times += 1;
                    if *times > 1 && matches!(line.said, Said::Outcome { .. }) {
                        let ghost: DeviceId =
                            format!("{}-again-{times}", line.device).parse().expect("a valid name");
                        let model = log.devices.iter().find(|(device, _)| *device == line.device);
                        let model = model.expect("who speaks is listed").1.clone();
                        log.devices.push((ghost.clone(), model));
                        for (n, said) in (1..).zip([Said::Hello, Said::Started, line.said]) {
                            lines.push(Line { device: ghost.clone(), e: 1, n, said, ..line.clone() });
                        }
                    } else {
                        lines.push(line.clone());
                    }
                }
                log.lines = lines;
            }
            Self::Reports => {
                let mut begun: BTreeSet<DeviceId> = BTreeSet::new();
                let mut lines = Vec::new();
                for line in &log.lines {
                    let ends = matches!(line.said, Said::Outcome { .. });
                    if ends && begun.insert(line.device.clone()) {
                        lines.push(Line { n: 2, said: Said::Started, ..line.clone() });
                    }
                    if ends || line.said == Said::Hello {
                        lines.push(line.clone());
                    }
                }
                log.lines = lines;
            }
            Self::Weight => log.policy.weights.outcome /= 2.0,
            Self::Strata => {
                let models: BTreeSet<_> = log.devices.iter().map(|(_, model)| model).collect();
                log.policy.alpha *= models.len() as f64;
            }
            Self::Deadline => {
                log.policy.silence_early.after -= Duration::from_millis(1);
                log.policy.silence_deadline.after -= Duration::from_millis(1);
            }
        }
        log
    }
}
