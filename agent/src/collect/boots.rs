//! Boots that nobody asked for, and those after a reset by the hardware watchdog.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::CollectConfig;
use crate::core::state::{RollbackStep, State, UpdatingStep};

/// Flag of the kernel's `linux/watchdog.h`: the card reset the device.
const WDIOF_CARDRESET: u64 = 0x20;
/// Bytes that are read of a file.
const READ_MAX: u64 = 256;

/// Boots since the last time.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Boots {
    /// The last boot that was looked at; empty at first.
    last: String,
    unexpected: u64,
    watchdog: u64,
}

/// Tells whether the agent had asked for a boot when it saved its state last.
pub(super) fn asked_for(state: &State) -> bool {
    matches!(
        state,
        State::Updating { step: UpdatingStep::Reboot, .. }
            | State::Rollback { step: RollbackStep::Reboot, .. }
    )
}

/// Returns the kernel's name of this boot; empty where it has none.
pub(super) fn id(config: &CollectConfig) -> String {
    read(&config.boot_id).unwrap_or_default()
}

impl Boots {
    /// Looks what boot this is; tells whether that has changed anything. The first ever was before counting began.
    pub(super) fn came_up(&mut self, config: &CollectConfig, asked: bool) -> bool {
        let id = id(config);
        if id.is_empty() || id == self.last {
            return false;
        }
        let first = std::mem::replace(&mut self.last, id).is_empty();
        let reset =
            config.watchdog.as_deref().and_then(status).is_some_and(|flags| flags & WDIOF_CARDRESET != 0);
        self.unexpected += u64::from(!first && !asked);
        self.watchdog += u64::from(!first && reset);
        true
    }

    /// Returns the counts, and begins anew.
    pub(super) fn take(&mut self, config: &CollectConfig) -> [(&'static str, Option<u64>); 2] {
        let (unexpected, watchdog) =
            (std::mem::take(&mut self.unexpected), std::mem::take(&mut self.watchdog));
        let tells = config.watchdog.as_deref().and_then(status).is_some();
        [
            ("unexpected-reboots", (!self.last.is_empty()).then_some(unexpected)),
            ("watchdog-resets", (tells && !self.last.is_empty()).then_some(watchdog)),
        ]
    }
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
        boots: Boots,
    }

    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let config = CollectConfig {
            watchdog: Some(folder.path().join("bootstatus")),
            boot_id: folder.path().join("boot_id"),
            ..super::super::tests::nothing()
        };
        Scene { folder, config, boots: Boots::default() }
    }

    impl Scene {
        /// A boot with that id and that status of the watchdog.
        fn boots(&mut self, id: &str, status: &str, asked: bool) -> bool {
            std::fs::write(self.folder.path().join("boot_id"), format!("{id}\n")).unwrap();
            std::fs::write(self.folder.path().join("bootstatus"), format!("{status}\n")).unwrap();
            self.boots.came_up(&self.config, asked)
        }

        /// Unexpected boots, resets.
        fn taken(&mut self) -> [Option<u64>; 2] {
            self.boots.take(&self.config).map(|(_, count)| count)
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

        assert_eq!(scene.boots.watchdog, 2);
        assert_eq!(scene.taken(), [Some(0), None], "this driver says nothing");
    }

    #[test]
    fn a_kernel_without_a_boot_id_and_a_device_without_a_watchdog_have_no_such_figures() {
        let mut scene = scene();

        assert!(!scene.boots.came_up(&scene.config.clone(), false));

        assert_eq!(scene.taken(), [None, None]);
    }
}
