//! What the tests promise, tried on many made-up rollouts. Seeded: every run gives the same figures.

use super::*;

/// SplitMix64: small, good enough for coin flips, and the same for ever.
struct Coins(u64);

impl Coins {
    fn is_bad(&mut self, p: f64) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        uniform < p
    }
}

const RUNS: u64 = 300;

/// Share of `RUNS` rollouts in which `happened`.
fn share(happened: impl Fn(&mut Coins) -> bool) -> f64 {
    let count = (0..RUNS).filter(|run| happened(&mut Coins(20_261_123 + run * 7_919))).count();
    count as f64 / RUNS as f64
}

/// Tells whether a share found in `RUNS` rollouts is no more than `chance`, give or take three standard errors.
fn at_most(chance: f64, found: f64) -> bool {
    found <= chance + 3.0 * (chance * (1.0 - chance) / RUNS as f64).sqrt()
}

/// Starts `devices` one after the other and tells whether `kills(started, bad)` ever held after a bad one.
fn ever_killed(coins: &mut Coins, devices: u64, p: f64, kills: impl Fn(u64, u64) -> bool) -> bool {
    let mut bad = 0;
    (1..=devices).any(|started| {
        let failed = coins.is_bad(p);
        bad += u64::from(failed);
        failed && kills(started, bad)
    })
}

#[test]
fn looking_after_every_device_rarely_kills_a_release_that_is_just_good_enough() {
    let allowed = 0.0125;
    for alpha in [0.05, 0.01] {
        let threshold = kill_threshold(alpha, 1.0);
        let killed = share(|coins| {
            ever_killed(coins, 10_000, allowed, |n, f| kill_evidence(n, f, allowed) >= threshold)
        });
        assert!(at_most(alpha, killed), "alpha {alpha}: {killed}");
    }

    let fixed = share(|coins| ever_killed(coins, 10_000, 0.01, |n, f| n >= 10 && f as f64 > 0.05 * n as f64));
    assert!(fixed > 0.1, "a fixed 5 % after 10 devices should kill healthy releases often: {fixed}");
}

#[test]
fn failures_that_report_first_do_not_kill_a_healthy_release() {
    // A bad device reports at once, a good one after 400 more have started.
    let (p, delay) = (0.03, 400);
    let allowed = p * 1.25;
    let threshold = kill_threshold(0.001, 0.5);
    let on_started = |n, f| kill_evidence(n, f, allowed) >= threshold;
    let on_reports = |n: u64, f: u64| kill_evidence(n.saturating_sub(delay).max(f), f, allowed) >= threshold;

    assert!(share(|coins| ever_killed(coins, 3000, p, on_started)) < 0.004);
    assert!(share(|coins| ever_killed(coins, 3000, p, on_reports)) > 0.5, "the rule that this one replaces");
}

#[test]
fn a_bad_release_is_found_within_few_devices() {
    let threshold = kill_threshold(0.001, 0.5);
    let found = |times: f64, devices| {
        share(|coins| {
            ever_killed(coins, devices, 0.01 * times, |n, f| kill_evidence(n, f, 0.0125) >= threshold)
        })
    };
    assert!(found(20.0, 100) > 0.99);
    assert!(found(5.0, 1000) > 0.99);
    assert!(found(2.0, 10_000) > 0.8);
}

#[test]
fn a_gate_rarely_passes_a_release_at_its_limit_however_often_it_is_looked_at() {
    let passes = |p: f64, devices: u64| {
        share(|coins| {
            let mut bad = 0;
            (1..=devices).any(|started| {
                bad += u64::from(coins.is_bad(p));
                gate_evidence(started, bad, 0.05) >= gate_threshold(0.05)
            })
        })
    };
    assert!(at_most(0.05, passes(0.05, 1000)));
    assert!(passes(0.10, 1000) <= 0.01);
    assert!(passes(0.01, 400) > 0.9, "a gate that lets nobody through would pass the lines above too");
}

/// Days beside a control: 64 held back beside 400 released, of which a few crash on most days whatever they run. Tells
/// whether the release, which changes nothing, is ever killed within two weeks.
fn killed_by_chronic_devices(coins: &mut Coins, spent_after_one: bool) -> bool {
    let (ratio, threshold) = (1.25, kill_threshold(0.001, 0.1));
    let mut devices: Vec<(bool, bool, bool)> =
        (0..464).map(|d| (d < 400, coins.is_bad(0.03), false)).collect();
    let mut evidence = PairEvidence::default();
    (0..14).any(|_| {
        let (mut treated, mut control) = (Arm::default(), Arm::default());
        for (is_treated, chronic, spent) in &mut devices {
            if *spent {
                continue;
            }
            let crashed = coins.is_bad(if *chronic { 0.9 } else { 0.002 });
            *spent = crashed && spent_after_one;
            let one = Arm { events: u64::from(crashed), exposure: 1 };
            if *is_treated {
                treated += one;
            } else {
                control += one;
            }
        }
        evidence.tick(treated, control, ratio);
        evidence.ln_e() >= threshold
    })
}

#[test]
fn devices_that_crash_every_day_whatever_they_run_kill_nothing_if_each_counts_until_its_first_crash() {
    assert!(at_most(0.001, share(|coins| killed_by_chronic_devices(coins, true))));
    let daily = share(|coins| killed_by_chronic_devices(coins, false));
    assert!(daily > 0.05, "counted every day they speak against the arm that chance put them into: {daily}");
}
