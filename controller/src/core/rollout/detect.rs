//! What a plan can find out before it starts: which failure rate stops a release, among so many devices.

use super::evidence::{kill_evidence, kill_threshold};
use super::policy::{HARD_STOP_BASELINE_MAX, Policy, TINY_ALPHA, TINY_FLEET};

/// Chance with which what is called detectable is detected.
pub const POWER: f64 = 0.9;
/// Halvings of an interval of rates: four digits are shown.
const BISECTIONS: u32 = 24;

/// Rates from which on a release is killed with a chance of nine in ten, when all devices have ended.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct Detectable {
    /// Of devices that fail or go back; none is so high: `None`.
    pub failing: Option<f64>,
    /// Of devices that stay silent, without a control to judge them by.
    pub silent: Option<f64>,
}

/// Returns what is detectable with `devices` of a fleet, of so many models that are judged separately; `usual` is the
/// failure rate of the last good release.
pub fn detectable(policy: &Policy, fleet: u64, devices: u64, models: u64, usual: Option<f64>) -> Detectable {
    let models = models.max(1);
    let each = devices / models;
    let alpha = if fleet < TINY_FLEET { policy.alpha.max(TINY_ALPHA) } else { policy.alpha };
    let crosses = |p: f64, weight: f64| {
        let needed = kill_threshold(alpha, weight / models as f64);
        rate_for(each, fewest(each, |bad| kill_evidence(each, bad, p) >= needed)?)
    };
    let stop = policy
        .hard_stop
        .filter(|stop| each >= stop.first && usual.is_none_or(|rate| rate <= HARD_STOP_BASELINE_MAX));
    let failing = crosses(policy.max_failure_rate, policy.weights.outcome);
    let stopped = stop.and_then(|stop| rate_for(stop.first, stop.bad));
    let silent = [
        crosses(policy.silence_deadline.max_rate, policy.weights.silence),
        crosses(policy.silence_early.max_rate, policy.weights.silence_early),
    ];
    let least = |rates: &[Option<f64>]| rates.iter().flatten().copied().reduce(f64::min);
    Detectable { failing: least(&[failing, stopped]), silent: least(&silent) }
}

/// Returns the fewest of `n` for which something holds that holds for all that are more.
fn fewest(n: u64, holds: impl Fn(u64) -> bool) -> Option<u64> {
    if !holds(n) {
        return None;
    }
    let (mut fails, mut enough) = (0, n);
    while enough - fails > 1 {
        let middle = u64::midpoint(fails, enough);
        if holds(middle) { enough = middle } else { fails = middle }
    }
    Some(enough)
}

/// Returns the rate at which at least `bad` of `n` devices are bad with a chance of [`POWER`]; none is so high: `None`.
fn rate_for(n: u64, bad: u64) -> Option<f64> {
    if n == 0 || bad > n {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if at_least(n, bad, middle) >= POWER { high = middle } else { low = middle }
    }
    Some(high)
}

/// Returns the chance that at least `bad` of `n` are bad, each with this chance.
fn at_least(n: u64, bad: u64, rate: f64) -> f64 {
    let (bet, n) = (libm::log(rate) - libm::log1p(-rate), n as f64);
    // ln of the chance that exactly k are.
    let mut exactly = n * libm::log1p(-rate);
    let mut fewer = 0.0;
    for k in 0..bad {
        fewer += libm::exp(exactly);
        exactly += bet + libm::log((n - k as f64) / (k as f64 + 1.0));
    }
    1.0 - fewer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_canary_detects_is_what_the_table_of_bad_devices_says_and_a_little_more() {
        let policy = Policy { hard_stop: None, ..Policy::default() };
        // 18 bad of 100 kill: a rate of a fifth gives as many two times in three, one of 23 % nine times in ten.
        let failing = detectable(&policy, 1000, 100, 1, None).failing.unwrap();
        assert!((0.22..0.24).contains(&failing), "{failing}");
        assert!((at_least(100, 18, 0.2) - 0.7288).abs() < 1e-3, "{}", at_least(100, 18, 0.2));
        let whole = detectable(&policy, 1000, 1000, 1, None);
        assert!((0.09..0.10).contains(&whole.failing.unwrap()), "{whole:?}");
        assert!(whole.silent.unwrap() < whole.failing.unwrap(), "{whole:?}");
        let split = detectable(&policy, 1000, 100, 5, None).failing.unwrap();
        assert!(split > failing, "{split}");
    }

    #[test]
    fn a_few_devices_detect_nothing_and_the_hard_stop_detects_what_is_gross() {
        let policy = Policy::default();
        assert_eq!(detectable(&policy, 1000, 2, 1, None), Detectable::default());
        let ten = detectable(&policy, 1000, 10, 1, None).failing.unwrap();
        assert!((0.44..0.46).contains(&ten), "three of the first ten: {ten}");
        let usual = detectable(&policy, 1000, 10, 1, Some(0.03)).failing.unwrap();
        assert!(usual > 0.6, "the hard stop is off: {usual}");
    }
}
