//! Boots that nobody asked for, and those after a reset by the hardware watchdog.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use tern_protocol::digest::Digest;

use super::{CollectConfig, Counted};
use crate::core::state::{RollbackStep, State, UpdatingStep};

/// Flag of the kernel's `linux/watchdog.h`: the card reset the device.
const WDIOF_CARDRESET: u64 = 0x20;
/// Bytes that are read of a file.
const READ_MAX: u64 = 256;

/// The last boot that was looked at, in the record.
const LAST: &str = "boot";
const UNEXPECTED: &str = "unexpected-reboots";
const WATCHDOG: &str = "watchdog-resets";

/// Tells whether the agent had asked for a boot when it saved its state last.
pub(super) fn asked_for(state: &State) -> bool {
    matches!(
        state,
        State::Updating { step: UpdatingStep::Reboot, .. }
            | State::Rollback { step: RollbackStep::Reboot, .. }
    )
}

/// Returns a number for this boot of the kernel; `None` where it has no name for it.
pub(super) fn id(config: &CollectConfig) -> Option<u64> {
    let id = read(&config.boot_id).filter(|id| !id.is_empty())?;
    Some(Digest::of(id.as_bytes()).short())
}

/// Looks what boot this is; tells whether that has changed anything. The first ever was before counting began.
pub(super) fn came_up(counted: &mut Counted, config: &CollectConfig, asked: bool) -> bool {
    let Some(id) = id(config) else { return false };
    let before = counted.insert(LAST.to_owned(), id);
    if before.is_some_and(|before| before != id) {
        let status = config.watchdog.as_deref().and_then(status);
        let reset = status.is_some_and(|flags| flags & WDIOF_CARDRESET != 0);
        *counted.entry(UNEXPECTED.to_owned()).or_default() += u64::from(!asked);
        *counted.entry(WATCHDOG.to_owned()).or_default() += u64::from(reset);
    }
    before != Some(id)
}

/// Returns the counts, and begins anew.
pub(super) fn take(counted: &mut Counted, config: &CollectConfig) -> [(&'static str, Option<u64>); 2] {
    let [unexpected, resets] = [UNEXPECTED, WATCHDOG].map(|name| counted.remove(name).unwrap_or_default());
    let known = counted.contains_key(LAST);
    let tells = config.watchdog.as_deref().and_then(status).is_some();
    [(UNEXPECTED, known.then_some(unexpected)), (WATCHDOG, (known && tells).then_some(resets))]
}

/// Returns the flags in a driver's boot status.
fn status(path: &Path) -> Option<u64> {
    read(path)?.parse().ok()
}

fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(READ_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        config: CollectConfig,
        counted: Counted,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let config = CollectConfig {
            watchdog: Some(folder.path().join("bootstatus")),
            boot_id: folder.path().join("boot_id"),
            ..super::super::tests::nothing()
        };
        Scene { folder, config, counted: Counted::new() }
    }

    impl Scene {
        /// A boot with that id and that status of the watchdog.
        fn boots(&mut self, id: &str, status: &str, asked: bool) -> bool {
            std::fs::write(self.folder.path().join("boot_id"), format!("{id}\n")).unwrap();
            std::fs::write(self.folder.path().join("bootstatus"), format!("{status}\n")).unwrap();
            came_up(&mut self.counted, &self.config, asked)
        }

        /// Unexpected boots, resets.
        fn taken(&mut self) -> [Option<u64>; 2] {
            take(&mut self.counted, &self.config).map(|(_, count)| count)
        }
    }

    #[test]
    fn a_boot_counts_unless_the_agent_asked_for_it_or_nothing_is_known_of_before() {
        let mut scene = scene();
        assert!(scene.boots("one", "32", false));
        assert_eq!(scene.taken(), [Some(0), Some(0)], "nobody knows what was before the first");

        assert!(!scene.boots("one", "0", false), "the agent's process alone is new");
        assert!(scene.boots("two", "0", true));
        assert_eq!(scene.taken(), [Some(0), Some(0)]);
        scene.boots("three", "0", false);
        scene.boots("four", "0", false);

        assert_eq!(scene.taken(), [Some(2), Some(0)]);
        assert_eq!(scene.taken(), [Some(0), Some(0)]);
    }

    #[test]
    fn the_agent_has_asked_for_the_boots_into_a_trial_and_out_of_it() {
        use crate::testing::{trial, work};
        let since = crate::core::timing::Stamp { epoch: 1, uptime: 0 };
        let rollback = |step| {
            let outcome = tern_protocol::state::Outcome::RolledBack;
            State::Rollback { work: work(), outcome, reason: "unwell".into(), step }
        };

        assert!(asked_for(&State::Updating { work: work(), step: UpdatingStep::Reboot }));
        assert!(asked_for(&rollback(RollbackStep::Reboot)));
        for other in [
            State::Updating { work: work(), step: UpdatingStep::Arm },
            rollback(RollbackStep::Record),
            trial(since, true),
            State::Idle { not_before: None },
        ] {
            assert!(!asked_for(&other), "{}", other.name());
        }
    }

    #[test]
    fn only_the_flag_of_the_watchdogs_own_reset_counts_once_a_boot() {
        let mut scene = scene();
        scene.boots("one", "0", false);

        scene.boots("two", "32", true);
        scene.boots("two", "32", true);
        scene.boots("three", "48", true);
        scene.boots("four", "16", true);
        scene.boots("five", "?", true);

        assert_eq!(scene.counted[WATCHDOG], 2);
        assert_eq!(scene.taken(), [Some(0), None], "this driver says nothing");
    }

    #[test]
    fn a_kernel_without_a_boot_id_and_a_device_without_a_watchdog_have_no_such_figures() {
        let mut scene = scene();

        assert!(!came_up(&mut scene.counted, &scene.config, false));

        assert_eq!(scene.taken(), [None, None]);
    }
}
