//! Battery: how much of it is used while nothing charges it.
//!
//! Looked at now and then, because one look a day tells nothing of a device that is charged every evening: what it has
//! lost between two looks, with nothing plugged in at either, and the time in between, are added up. In memory alone:
//! after a start the rest of the day has to do.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10 * 60);
/// A figure needs at least this much time without a charger: capacity is told in whole percent.
const LEAST: Duration = Duration::from_secs(3600);
/// Power supplies that are looked at.
const SUPPLIES_MAX: usize = 64;
const DAY: u64 = 86_400;

/// What was seen of the battery since the last figure.
#[derive(Debug, Default)]
pub(super) struct Battery {
    last: Option<Look>,
    /// Percent lost without a charger.
    lost: u64,
    /// The time that took.
    took: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    percent: u64,
    discharging: bool,
}

impl Battery {
    /// Tells whether it is time for another look.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.last.is_none_or(|last| now.saturating_sub(last.at) >= EVERY)
    }

    /// Looks.
    pub(super) fn sample(&mut self, folder: &Path, now: Duration) {
        let look = look(folder, now);
        if let (Some(before), Some(after)) = (self.last, look)
            && before.discharging
            && after.discharging
            // Charged and unplugged again meanwhile.
            && after.percent <= before.percent
        {
            self.lost += before.percent - after.percent;
            self.took += after.at.saturating_sub(before.at);
        }
        // Without a battery the next look is as far away as ever.
        self.last = look.or(Some(Look { at: now, percent: 0, discharging: false }));
    }

    /// Returns tenths of a percent a day, and begins anew.
    pub(super) fn take(&mut self) -> Option<u64> {
        let (lost, took) = (std::mem::take(&mut self.lost), std::mem::take(&mut self.took));
        (took >= LEAST).then(|| lost * 10 * DAY / took.as_secs())
    }
}

/// Looks at the first battery, by its name, that is the device's own.
fn look(folder: &Path, at: Duration) -> Option<Look> {
    let supplies = fs::read_dir(folder).ok()?.take(SUPPLIES_MAX).flatten();
    let named = supplies.filter_map(|supply| {
        let says = |name: &str| read(&supply.path().join(name)).unwrap_or_default();
        // A scope of "Device" is a keyboard's or a mouse's.
        if says("type") != "Battery" || says("scope") == "Device" {
            return None;
        }
        let percent = says("capacity").parse().ok().filter(|percent| *percent <= 100)?;
        Some((supply.file_name(), Look { at, percent, discharging: says("status") == "Discharging" }))
    });
    named.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, look)| look)
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(64).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn supply(folder: &Path, name: &str, files: &[(&str, &str)]) {
        fs::create_dir_all(folder.join(name)).unwrap();
        for (file, text) in files {
            fs::write(folder.join(name).join(file), format!("{text}\n")).unwrap();
        }
    }

    /// Looks once an hour at a battery of this many percent with this status; returns the figure.
    fn figure(looks: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let mut battery = Battery::default();
        supply(folder.path(), "mouse", &[("type", "Battery"), ("scope", "Device"), ("capacity", "1")]);
        supply(folder.path(), "ac", &[("type", "Mains"), ("capacity", "3")]);
        for (hour, (percent, status)) in (1..).zip(looks) {
            let files = [("type", "Battery"), ("capacity", *percent), ("status", *status)];
            supply(folder.path(), "own", &files);
            battery.sample(folder.path(), Duration::from_secs(hour * HOUR));
        }
        let figure = battery.take();
        assert_eq!(battery.take(), None, "it begins anew");
        figure
    }

    #[test]
    fn what_is_lost_without_a_charger_is_told_a_day() {
        let on = "Discharging";

        assert_eq!(figure(&[("80", on), ("79", on), ("76", on)]), Some(480), "4 percent in 2 hours");
        assert_eq!(figure(&[("80", on), ("80", on)]), Some(0));
        // Charged in the evening: only the hours without a charger count.
        let day = [("50", on), ("48", on), ("90", "Charging"), ("99", "Full"), ("98", on), ("97", on)];
        assert_eq!(figure(&day), Some(360), "3 percent in 2 hours");
        assert_eq!(figure(&[("50", on), ("90", on), ("89", on)]), Some(240), "charged between two looks");
    }

    #[test]
    fn a_charger_no_battery_and_nonsense_make_no_figure() {
        let on = "Discharging";

        assert_eq!(figure(&[("80", "Full"), ("70", "Not charging")]), None);
        assert_eq!(figure(&[("80", on)]), None, "one look tells nothing");
        assert_eq!(figure(&[("101", on), ("high", on), ("", on)]), None);
        let mut battery = Battery::default();
        battery.sample(Path::new("/no/such/folder"), Duration::from_secs(1));
        assert_eq!(battery.take(), None);
    }

    #[test]
    fn a_look_is_due_every_ten_minutes_with_a_battery_or_without() {
        let mut battery = Battery::default();
        let second = Duration::from_secs;
        assert!(battery.is_due(second(0)));

        battery.sample(Path::new("/no/such/folder"), second(5));

        assert!(!battery.is_due(second(604)));
        assert!(battery.is_due(second(605)));
    }
}
