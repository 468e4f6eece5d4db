//! The control: devices that a rollout covers and keeps from its release for a while, to be compared with those that
//! have it.
//!
//! Whatever hits both arms alike, an outage, a time of day, speaks against nobody. A control is kept as long as there
//! are phases to be judged: as many devices as the canary has, then a small share; the last phase lets it go.

use serde::{Deserialize, Serialize};
use tern_protocol::position::Position;

use super::phase::Place;
use super::policy::TINY_FLEET;

/// A control takes no more of a fleet than one in this many.
const SHARE_MAX: u64 = 5;
/// With fewer, a wave in which every device is silent is not killed at once.
const LEAST: u64 = 64;
/// More add nothing but radio: each of them says every hour that it is there.
const MOST: u64 = 1000;

/// How many devices are held back.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HoldBack {
    /// Whether any are.
    pub on: bool,
    /// Share of the covered devices after the first phase, in percent.
    pub percent: f64,
    /// Exactly so many devices in every phase instead, in a tiny fleet as well; at most half of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices: Option<u64>,
}

impl Default for HoldBack {
    fn default() -> Self {
        Self { on: true, percent: 2.0, devices: None }
    }
}

impl HoldBack {
    /// Nobody.
    pub const OFF: Self = Self { on: false, percent: 2.0, devices: None };

    /// Returns how many of `fleet` covered devices are held back in a phase of `devices`.
    pub fn size(&self, fleet: u64, phase: usize, devices: u64) -> u64 {
        if !self.on {
            return 0;
        }
        if let Some(devices) = self.devices {
            return devices.min(fleet / 2);
        }
        if fleet < TINY_FLEET {
            return 0;
        }
        let share = whole(fleet as f64 * self.percent / 100.0);
        let wanted = if phase == 0 { devices } else { share };
        let most = (fleet / SHARE_MAX).min(MOST);
        wanted.clamp(LEAST.min(most), most)
    }
}

/// Returns the position from which on devices are held back, for `held` of them to be; `places` are sorted.
pub fn from(places: &[Place], held: u64) -> Option<Position> {
    let held = usize::try_from(held).ok().filter(|held| (1..=places.len()).contains(held))?;
    Some(places[places.len() - held].position)
}

/// Returns a count that was worked out as a fraction.
#[expect(clippy::cast_possible_truncation, reason = "a share of a fleet, at most all of it")]
fn whole(count: f64) -> u64 {
    libm::ceil(count) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_is_as_large_as_the_canary_and_then_two_percent() {
        let held = HoldBack::default();
        assert_eq!((held.size(100_000, 0, 1000), held.size(100_000, 1, 9000)), (1000, 1000));
        assert_eq!(held.size(199, 0, 34), 0, "a tiny fleet has nobody to spare");
        assert_eq!(
            (held.size(200, 0, 34), held.size(1000, 2, 500), held.size(10_000, 1, 900)),
            (40, 64, 200)
        );
        let exact = HoldBack { devices: Some(24), ..held };
        assert_eq!((exact.size(60, 0, 20), exact.size(40, 1, 20)), (24, 20));
        assert_eq!(HoldBack::OFF.size(100_000, 0, 1000), 0);
    }
}
