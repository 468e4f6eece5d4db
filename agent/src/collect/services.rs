//! Crashes of services: how often systemd has started them again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::CollectConfig;
use crate::command::{Context, Ending, Program};

/// How long systemd may take over one unit.
const DEADLINE: Duration = Duration::from_secs(10);

/// Restarts that were counted already.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Services {
    /// The boot in which: systemd counts from each boot on.
    boot: String,
    restarts: BTreeMap<String, u64>,
}

/// Asks systemd for the restarts of every unit in this boot. A unit that it does not know is left out.
pub(super) async fn ask(config: &CollectConfig, context: &Context) -> BTreeMap<String, u64> {
    let mut restarts = BTreeMap::new();
    for unit in &config.services {
        let systemctl = config.systemctl.to_string_lossy().into_owned();
        let command =
            vec![systemctl, "show".into(), "-p".into(), "NRestarts".into(), "--".into(), unit.clone()];
        let program = Program { name: unit.clone(), command, deadline: DEADLINE };
        let finished = program.run(context, &[]).await;
        let told = finished.output_tail.lines().find_map(|line| line.trim().strip_prefix("NRestarts="));
        match (&finished.ending, told.and_then(|count| count.parse().ok())) {
            (Ending::Exit(0), Some(count)) => {
                restarts.insert(unit.clone(), count);
            }
            (ending, _) => {
                tracing::debug!(unit, %ending, said = finished.output_tail, "no count of restarts")
            }
        }
    }
    restarts
}

impl Services {
    /// Returns how many restarts there were since the last time; `None` if no unit is known. A unit's first count is
    /// where its counting begins.
    pub(super) fn count(&mut self, now: &BTreeMap<String, u64>, boot: &str) -> Option<u64> {
        let rebooted = self.boot != boot;
        boot.clone_into(&mut self.boot);
        let mut new = 0_u64;
        for (unit, count) in now {
            let since = match self.restarts.get(unit) {
                None => *count,
                // A count that fell was set back: what it shows came after that.
                Some(known) if rebooted || known > count => 0,
                Some(known) => *known,
            };
            new = new.saturating_add(count - since);
        }
        if rebooted {
            // Also of units that did not answer this time.
            self.restarts.values_mut().for_each(|count| *count = 0);
        }
        self.restarts.extend(now.iter().map(|(unit, count)| (unit.clone(), *count)));
        (!now.is_empty()).then_some(new)
    }

    /// Forgets units that are not configured any more.
    pub(super) fn keep(&mut self, units: &[String]) {
        self.restarts.retain(|unit, _| units.contains(unit));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(unit, count)| ((*unit).to_owned(), *count)).collect()
    }

    #[test]
    fn only_what_was_added_since_the_last_time_counts() {
        let mut services = Services::default();

        assert_eq!(services.count(&counts(&[]), "one"), None);
        assert_eq!(services.count(&counts(&[("modem", 7)]), "one"), Some(0), "they were before");
        assert_eq!(services.count(&counts(&[("modem", 9), ("web", 3)]), "one"), Some(2));
        assert_eq!(services.count(&counts(&[("web", 4)]), "one"), Some(1), "modem does not answer");
        assert_eq!(services.count(&counts(&[("modem", 9), ("web", 4)]), "one"), Some(0));
        assert_eq!(services.count(&counts(&[("modem", 1)]), "one"), Some(1), "somebody set it back");
    }

    #[test]
    fn another_boot_counts_from_nought() {
        let mut services = Services::default();
        services.count(&counts(&[("modem", 2), ("web", 2)]), "one");

        assert_eq!(services.count(&counts(&[("modem", 5)]), "two"), Some(5));
        assert_eq!(services.count(&counts(&[("modem", 5), ("web", 1)]), "two"), Some(1));
    }

    #[test]
    fn a_unit_that_is_not_configured_any_more_is_forgotten() {
        let mut services = Services::default();
        services.count(&counts(&[("modem", 2), ("web", 2)]), "one");

        services.keep(&["web".to_owned()]);

        assert_eq!(services.restarts, counts(&[("web", 2)]));
    }
}
