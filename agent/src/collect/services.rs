//! Crashes of services: how often systemd has started them again by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{CollectConfig, Counted};
use crate::command::{Context, Ending, Program};

/// How long systemd may take over one unit.
const DEADLINE: Duration = Duration::from_secs(10);

/// Begins the restarts of a unit that were counted already, in the record.
const RESTARTS: &str = "restarts of ";
/// The boot in which: systemd counts from each boot on.
const BOOT: &str = "restarts in boot";

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
        if let (Ending::Exit(0), Some(count)) = (&finished.ending, told.and_then(|count| count.parse().ok()))
        {
            restarts.insert(unit.clone(), count);
        }
    }
    restarts
}

/// Returns how many restarts there were since the last time; `None` if no unit is known. A unit's first count is where
/// its counting begins.
pub(super) fn count(counted: &mut Counted, now: &BTreeMap<String, u64>, boot: Option<u64>) -> Option<u64> {
    let boot = boot.unwrap_or_default();
    if counted.insert(BOOT.to_owned(), boot) != Some(boot) {
        // Also of units that do not answer this time.
        counted.iter_mut().filter(|(key, _)| key.starts_with(RESTARTS)).for_each(|(_, count)| *count = 0);
    }
    let mut new = 0_u64;
    for (unit, count) in now {
        // A count that fell was set back: what it shows came after that.
        let since = match counted.insert(format!("{RESTARTS}{unit}"), *count) {
            None => *count,
            Some(known) if known > *count => 0,
            Some(known) => known,
        };
        new = new.saturating_add(count - since);
    }
    (!now.is_empty()).then_some(new)
}

/// Forgets units that are not configured any more.
pub(super) fn keep(counted: &mut Counted, units: &[String]) {
    counted.retain(|key, _| match key.strip_prefix(RESTARTS) {
        Some(unit) => units.iter().any(|known| known == unit),
        None => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        counts.iter().map(|(unit, count)| ((*unit).to_owned(), *count)).collect()
    }

    #[test]
    fn only_what_was_added_since_the_last_time_counts() {
        let mut known = Counted::new();

        assert_eq!(count(&mut known, &counts(&[]), Some(1)), None);
        assert_eq!(count(&mut known, &counts(&[("modem", 7)]), Some(1)), Some(0), "they were before");
        assert_eq!(count(&mut known, &counts(&[("modem", 9), ("web", 3)]), Some(1)), Some(2));
        assert_eq!(count(&mut known, &counts(&[("web", 4)]), Some(1)), Some(1), "modem does not answer");
        assert_eq!(count(&mut known, &counts(&[("modem", 9), ("web", 4)]), Some(1)), Some(0));
        assert_eq!(count(&mut known, &counts(&[("modem", 1)]), Some(1)), Some(1), "somebody set it back");
    }

    #[test]
    fn another_boot_counts_from_nought() {
        let mut known = Counted::new();
        count(&mut known, &counts(&[("modem", 2), ("web", 2)]), Some(1));

        assert_eq!(count(&mut known, &counts(&[("modem", 5)]), Some(2)), Some(5));
        assert_eq!(count(&mut known, &counts(&[("modem", 5), ("web", 1)]), Some(2)), Some(1));
    }

    #[test]
    fn a_unit_that_is_not_configured_any_more_is_forgotten() {
        let mut known = Counted::new();
        count(&mut known, &counts(&[("modem", 2), ("web", 2)]), Some(1));

        keep(&mut known, &["web".to_owned()]);

        assert_eq!(known, counts(&[("restarts in boot", 1), ("restarts of web", 2)]));
    }
}
