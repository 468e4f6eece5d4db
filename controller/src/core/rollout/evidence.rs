//! How strongly counts speak against a release, or for it.
//!
//! Every figure here is the natural logarithm of an e-value: a bet against a claim ("the failure rate is at
//! most p") that cannot be expected to win while the claim is true, however often one looks and in whatever
//! order devices report. By Ville's inequality the chance that it ever exceeds 1/α is at most α. So one may
//! look after every report, and stop the moment the threshold is crossed.
//!
//! | test | claim | n | f | crossed means |
//! |---|---|---|---|---|
//! | (A) kill | bad rate ≤ `p_kill` | started | bad; pending counts as good | take the release back |
//! | (B) silence | silent rate ≤ `s_max` | deadline passed | of those, not heard | the same |
//! | (C) pair | rate ≤ ρ × the control's rate | – | – | the same |
//! | (D) gate | bad rate ≥ `p_max` | started | bad; pending counts as bad | widen |
//!
//! A pending device is counted in favour of whatever the test would otherwise decide, which is what makes the
//! tests hold for any delay of reports. Mixtures are discrete, so `ln` and `exp` are all they need, and both
//! come from `libm`: the standard library's differ between platforms, and a ledger must replay to the bit.

use serde::{Deserialize, Serialize};

/// Alternatives that a kill test bets on.
const UP: usize = 16;
/// Alternatives that a gate bets on.
const DOWN: usize = 8;
/// Rate ratios, as multiples of the allowed one, that the pair test bets on.
const RATIOS: [f64; 6] = [1.5, 2.0, 3.0, 5.0, 10.0, 30.0];
/// Rates nearer to 0 or 1 than this are moved here, where every logarithm is finite.
const RATE_EDGE: f64 = 1e-9;
/// Halvings of the interval in [`upper_bound`]: more than a double can tell apart.
const BISECTIONS: u32 = 60;

/// Returns the evidence (ln e) that more than `p_kill` of the started devices are bad.
pub fn kill_evidence(started: u64, bad: u64, p_kill: f64) -> f64 {
    ln_e(started, bad, p_kill, &grid_up(p_kill))
}

/// Returns the evidence (ln e) that more than `s_max` of the devices whose deadline passed stay silent.
pub fn silence_evidence(due: u64, silent: u64, s_max: f64) -> f64 {
    kill_evidence(due, silent, s_max)
}

/// Returns the evidence (ln e) that fewer than `p_max` of the started devices are bad, the pending ones
/// being counted as bad already.
pub fn gate_evidence(started: u64, bad_plus_pending: u64, p_max: f64) -> f64 {
    ln_e(started, bad_plus_pending, p_max, &grid_down(p_max))
}

/// Returns the evidence (ln e) at which a test kills, given the release's false-kill budget and its share.
pub fn kill_threshold(alpha: f64, weight: f64) -> f64 {
    -libm::log(alpha * weight)
}

/// Returns the evidence (ln e) at which a gate passes, given the chance of passing a bad release.
pub fn gate_threshold(beta: f64) -> f64 {
    -libm::log(beta)
}

/// Returns the failure rate that is ruled out with confidence 1 − `beta`: "the rate is below this".
pub fn upper_bound(started: u64, bad: u64, beta: f64) -> f64 {
    if started == 0 || bad >= started {
        return 1.0;
    }
    let needed = gate_threshold(beta);
    let (mut low, mut high) = ((real(bad) / real(started)).max(RATE_EDGE), 1.0 - RATE_EDGE);
    for _ in 0..BISECTIONS {
        let middle = f64::midpoint(low, high);
        if gate_evidence(started, bad, middle) >= needed {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// Returns the fewest devices with which a gate passes when `bad` of them are bad; none below `ceiling`.
pub fn fewest_to_pass(bad: u64, p_max: f64, beta: f64, ceiling: u64) -> Option<u64> {
    let needed = gate_threshold(beta);
    let grid = grid_down(p_max);
    let passes = |n: u64| ln_e(n, bad, p_max, &grid) >= needed;
    // Another clean device only adds evidence, so the first n that passes can be bisected.
    if !passes(ceiling) {
        return None;
    }
    let (mut fails, mut enough) = (bad, ceiling.max(bad));
    while enough - fails > 1 {
        let middle = fails + (enough - fails) / 2;
        if passes(middle) {
            enough = middle;
        } else {
            fails = middle;
        }
    }
    Some(enough)
}

/// Rounds to six decimals, as evidence is written down: JSON then returns the very same number.
pub fn rounded(value: f64) -> f64 {
    libm::round(value * 1e6) / 1e6
}

/// Evidence that the treated devices fare worse than ρ times a concurrent control (test C).
///
/// Incidents and times of day common to both arms cancel, because each tick is judged by how its events split
/// between the arms, not by how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PairEvidence {
    /// One sum for each ratio of the mixture.
    sums: [f64; 6],
    /// What was counted, for the operator's screen.
    treated: Arm,
    /// The same of the control.
    control: Arm,
}

/// What one arm of a comparison saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arm {
    /// Events, each device at most once in a window.
    pub events: u64,
    /// Devices at risk, or device-hours.
    pub exposure: u64,
}

impl PairEvidence {
    /// Adds one tick. A tick in which an arm had nobody at risk compares nothing and only counts.
    pub fn tick(&mut self, treated: Arm, control: Arm, rho: f64) {
        self.treated += treated;
        self.control += control;
        if treated.exposure == 0 || control.exposure == 0 {
            return;
        }
        let (at_risk, aside) = (real(treated.exposure), real(control.exposure));
        let share = |ratio: f64| (rho * ratio * at_risk) / (rho * ratio * at_risk + aside);
        let allowed = share(1.0);
        for (sum, ratio) in self.sums.iter_mut().zip(RATIOS) {
            let bet = share(ratio);
            *sum += real(treated.events) * libm::log(bet / allowed)
                + real(control.events) * libm::log((1.0 - bet) / (1.0 - allowed));
        }
    }

    /// Adds what another partition or period saw. Replay merges in the ledger's order: sums of doubles
    /// depend on it in their last bit.
    pub fn merge(&mut self, other: &Self) {
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum += more;
        }
        self.treated += other.treated;
        self.control += other.control;
    }

    /// Returns the evidence (ln e).
    pub fn ln_e(&self) -> f64 {
        mix(&self.sums)
    }

    /// Returns what the treated devices saw.
    pub fn treated(&self) -> Arm {
        self.treated
    }

    /// Returns what the control saw.
    pub fn control(&self) -> Arm {
        self.control
    }
}

impl std::ops::AddAssign for Arm {
    fn add_assign(&mut self, other: Self) {
        self.events = self.events.saturating_add(other.events);
        self.exposure = self.exposure.saturating_add(other.exposure);
    }
}

/// Returns ln of the mean of e^l, without overflow.
pub fn mix<const K: usize>(logs: &[f64; K]) -> f64 {
    let max = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mean = logs.iter().map(|l| libm::exp(l - max)).sum::<f64>() / K as f64;
    max + libm::log(mean)
}

/// Returns alternatives worse than `p`: odds log-spaced from 1.2 × odds(p) to odds(0.9).
pub fn grid_up(p: f64) -> [f64; UP] {
    let low = libm::log(1.2 * odds(p));
    let high = libm::log(odds(0.9)).max(low + std::f64::consts::LN_2);
    spaced::<UP>(low, high).map(|l| rate_of(libm::exp(l)))
}

/// Returns alternatives better than `p`: odds(p) divided by 1.5 to 1000, log-spaced.
pub fn grid_down(p: f64) -> [f64; DOWN] {
    let odds = odds(p);
    spaced::<DOWN>(libm::log(1.5), libm::log(1000.0)).map(|l| rate_of(odds / libm::exp(l)))
}

/// Returns ln of the mixture e-value of `f` events in `n` devices against the claim `p`.
pub fn ln_e<const K: usize>(n: u64, f: u64, p: f64, grid: &[f64; K]) -> f64 {
    let p = inside(p);
    let f = f.min(n);
    let (events, others) = (real(f), real(n - f));
    mix(&grid.map(|q| events * libm::log(q / p) + others * libm::log((1.0 - q) / (1.0 - p))))
}

fn inside(p: f64) -> f64 {
    p.clamp(RATE_EDGE, 1.0 - RATE_EDGE)
}

fn odds(p: f64) -> f64 {
    let p = inside(p);
    p / (1.0 - p)
}

fn rate_of(odds: f64) -> f64 {
    odds / (1.0 + odds)
}

fn spaced<const K: usize>(low: f64, high: f64) -> [f64; K] {
    let step = (high - low) / (K - 1) as f64;
    std::array::from_fn(|k| if k + 1 == K { high } else { low + step * k as f64 })
}

/// Counts of devices are far below 2⁵³, where every integer is a double.
fn real(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
