//! How a phase opens: a few devices first, then twice as many, and so on.
//!
//! A brick is known only after its silence deadline, so the number of devices that may start before anybody can know
//! bounds the harm. Each wave is offered when the one before it is old enough to be judged, and when half of what
//! was offered has started: on slow links everybody would otherwise start at once in the end.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::{Policy, optional_seconds};

/// Least time between two waves that are paced by themselves.
const PAUSE: Duration = Duration::from_secs(2 * 3600);
/// A wave that nobody starts is waited for this many pauses.
const PATIENCE: u32 = 12;
/// More waves than this were a slip of the hand.
pub const WAVES_MAX: usize = 1000;

/// How the waves of a phase grow.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Waves {
    /// Whether phases open in waves; otherwise all at once.
    pub on: bool,
    /// Devices of a rollout's first wave, where the phase has ten times as many. Later phases begin with as many as
    /// were included before them.
    pub first: u64,
    /// How many times as many the next wave has.
    pub factor: f64,
    /// Least time between two waves; absent: two hours, or the early silence deadline if that is longer.
    #[serde(with = "optional_seconds", skip_serializing_if = "Option::is_none")]
    pub pause: Option<Duration>,
}

impl Default for Waves {
    fn default() -> Self {
        Self { on: true, first: 10, factor: 2.0, pause: None }
    }
}

impl Waves {
    /// Every phase at once.
    pub const OFF: Self = Self { on: false, first: 10, factor: 2.0, pause: None };

    /// Returns the least time between two waves.
    pub fn pause(&self, policy: &Policy) -> Duration {
        self.pause.unwrap_or(PAUSE.max(policy.silence_early.after))
    }

    /// Returns how long a device that was included and does not start is waited for.
    pub fn patience(&self, policy: &Policy) -> Duration {
        self.pause(policy).max(policy.silence_early.after).saturating_mul(PATIENCE)
    }

    /// Returns how many devices each wave newly includes, in a phase of `devices` after a rollout has included
    /// `before`.
    pub fn sizes(&self, devices: u64, before: u64) -> Vec<u64> {
        if !self.on || devices == 0 {
            return vec![devices];
        }
        let first = self.first.max(before).min(devices / 10).max(1);
        let (mut sizes, mut left, mut next) = (Vec::new(), devices, first as f64);
        while left > 0 {
            let wave = if sizes.len() + 1 >= WAVES_MAX { left } else { whole(next).clamp(1, left) };
            sizes.push(wave);
            left -= wave;
            next *= self.factor;
        }
        sizes
    }

    /// Tells whether the next wave may open: `waited` since the last one, with `started` of `included` begun.
    pub fn is_due(&self, policy: &Policy, waited: Duration, started: u64, included: u64) -> bool {
        let pause = self.pause(policy);
        waited >= pause && (started.saturating_mul(2) >= included || waited >= pause * PATIENCE)
    }
}

/// Returns a count that was worked out as a fraction.
#[expect(clippy::cast_possible_truncation, reason = "clamped to the devices of a phase right after")]
fn whole(count: f64) -> u64 {
    count as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_of_a_thousand_opens_in_seven_waves() {
        let waves = Waves::default();
        assert_eq!(waves.sizes(1000, 0), [10, 20, 40, 80, 160, 320, 370]);
        assert_eq!(waves.sizes(9000, 1000), [900, 1800, 3600, 2700]);
        assert_eq!((waves.sizes(34, 0), waves.sizes(3, 0)), (vec![3, 6, 12, 13], vec![1, 2]));
        assert_eq!((waves.sizes(0, 0), Waves::OFF.sizes(500, 0)), (vec![0], vec![500]));
        let flat = Waves { factor: 1.0, first: 1, ..waves };
        assert_eq!(flat.sizes(5000, 0).len(), WAVES_MAX, "however small, they come to an end");
    }

    #[test]
    fn a_wave_waits_for_its_pause_and_for_half_of_the_one_before_but_not_for_ever() {
        let (waves, policy, hour) = (Waves::default(), Policy::default(), Duration::from_secs(3600));
        assert!(!waves.is_due(&policy, hour, 10, 10));
        assert!(waves.is_due(&policy, 2 * hour, 5, 10) && !waves.is_due(&policy, 23 * hour, 4, 10));
        assert!(waves.is_due(&policy, 24 * hour, 0, 10));
    }
}
