use proptest::prelude::*;

use super::super::evidence::Arm;
use super::super::policy::HardStop;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn policy() -> Policy {
    Policy::default()
}

/// A large fleet in a phase of a thousand devices; the story fills in the rest.
fn observed() -> Observed {
    Observed { fleet: 100_000, devices: 1000, soaked: 26 * HOUR, ..Observed::default() }
}

fn started(started: u64, good: u64, bad: u64) -> Counts {
    Counts { started, good, bad, ..Counts::default() }
}

fn judged(policy: &Policy, observed: &Observed) -> Verdict {
    judge(policy, &PhaseRule::default(), observed)
}

/// What a thousand devices did with the last good release.
fn usual(bad: u64) -> Baseline {
    Baseline { started: 1000, bad }
}

#[test]
fn a_release_that_is_worse_than_the_last_good_one_is_killed_below_the_absolute_limit() {
    let seen = Observed { total: started(2000, 1900, 80), ..observed() };
    assert!(!matches!(judged(&policy(), &seen), Verdict::Kill(_)), "4 % is below the limit of 5 %");

    let Verdict::Kill(KillReason::Evidence(evidence)) =
        judged(&policy(), &Observed { baseline: Some(usual(4)), ..seen.clone() })
    else {
        panic!("it was 0.4 % before")
    };
    assert!(evidence.p > 0.01 && evidence.p < 0.0175, "its upper bound, and a quarter more: {}", evidence.p);
    assert_eq!(evidence.weight, 0.25, "two claims share the weight");
    let few = Baseline { started: 30, bad: 0 };
    let alone = Observed { total: started(100, 0, 22), ..observed() };
    let (with, without) =
        (judged(&policy(), &Observed { baseline: Some(few), ..alone.clone() }), judged(&policy(), &alone));
    assert_eq!(with, without, "what bounds nothing takes no weight");
}

#[test]
fn a_bad_release_is_killed_with_its_numbers() {
    let policy = Policy { max_failure_rate: 0.009, ..policy() };
    let seen = Observed { total: started(812, 700, 37), ..observed() };

    let verdict = judged(&policy, &seen);

    let Verdict::Kill(KillReason::Evidence(evidence)) = &verdict else { panic!("{verdict}") };
    assert!((evidence.ln_e - 27.987_279).abs() < 1e-9);
    assert_eq!(
        verdict.explain("fw 2.4.1 model=B3"),
        "KILL fw 2.4.1 model=B3: 37 bad of 812 started (4.6 %); allowed 0.9 %; evidence 1.4e12 : 1, needed 2000 : 1."
    );
}

#[test]
fn a_healthy_release_advances_on_proof_and_soak() {
    let counts = started(400, 398, 2);
    let seen = Observed { total: counts, fresh: counts, devices: 400, ..observed() };

    assert_eq!(
        judged(&policy(), &seen).to_string(),
        "ADVANCE: 2 bad of 400 started, all resolved; failure rate < 2.4 % (95 %), soak 26 h."
    );

    let early = Observed { soaked: 3 * HOUR, ..seen };
    assert_eq!(judged(&policy(), &early).to_string(), "HOLD: soak 3 h of 24 h.");
}

#[test]
fn pending_devices_hold_the_gate() {
    let counts = started(400, 376, 3);
    let seen = Observed { total: counts, fresh: counts, devices: 400, ..observed() };

    assert_eq!(
        judged(&policy(), &seen).explain("gate 1 %->10 %"),
        "HOLD gate 1 %->10 %: 3 bad + 21 pending of 400; proven < 10.9 %, need < 5 %; \
         enough once the pending ones report clean."
    );
}

#[test]
fn a_gate_says_how_many_clean_devices_it_still_wants() {
    let counts = started(100, 98, 2);
    let seen = Observed { total: counts, fresh: counts, ..observed() };
    let text = judged(&policy(), &seen).to_string();
    assert!(text.ends_with("enough with 87 more clean devices."), "{text}");

    let full = Observed { devices: 150, ..seen };
    let text = judged(&policy(), &full).to_string();
    assert!(text.ends_with("too few devices to pass any more; a person decides."), "{text}");
}

#[test]
fn a_gate_looks_at_fresh_devices_only() {
    let seen = Observed { total: started(5000, 5000, 0), fresh: started(20, 20, 0), ..observed() };
    assert!(matches!(judged(&policy(), &seen), Verdict::Hold(HoldReason::Gate { .. })));
}

#[test]
fn an_undecided_gate_asks_a_person_and_never_passes_by_itself() {
    let counts = started(1000, 960, 40);
    let seen = Observed { total: counts, fresh: counts, soaked: 8 * 24 * HOUR, ..observed() };

    let verdict = judged(&policy(), &seen);

    assert!(matches!(verdict, Verdict::Hold(HoldReason::TimedOut { .. })), "{verdict}");
    assert!(verdict.to_string().ends_with("undecided after 8 d; a person decides."), "{verdict}");
}

#[test]
fn a_phase_that_nobody_started_does_not_advance_even_without_a_gate() {
    let phase = PhaseRule { gate: None, ..PhaseRule::default() };
    assert_eq!(judge(&policy(), &phase, &observed()), Verdict::Hold(HoldReason::NothingStarted));

    let seen = Observed { fresh: started(1, 1, 0), ..observed() };
    assert!(matches!(judge(&policy(), &phase, &seen), Verdict::Advance(AdvanceReason::Soaked { .. })));
}

#[test]
fn a_phase_whose_devices_all_started_before_it_was_resumed_says_so_and_needs_only_time_without_a_gate() {
    let spent = Observed { devices: 8, spent: 8, ..observed() };
    let ungated = PhaseRule { gate: None, ..PhaseRule::default() };

    let verdict = judged(&policy(), &spent);

    assert_eq!(verdict, Verdict::Hold(HoldReason::Spent { devices: 8 }));
    assert!(verdict.to_string().contains("tern rollout promote"), "{verdict}");
    let ended = judge(&policy(), &ungated, &spent);
    assert!(matches!(ended, Verdict::Advance(AdvanceReason::Soaked { .. })), "{ended}");
    // While somebody is left to start, the gate waits for them.
    let some = Observed { spent: 7, ..spent };
    assert_eq!(judge(&policy(), &ungated, &some), Verdict::Hold(HoldReason::NothingStarted));
}

#[test]
fn silent_devices_kill_though_none_ever_failed() {
    let total = Counts { started: 8, due_early: 8, silent_early: 8, ..Counts::default() };
    let seen = Observed { total, fresh: total, ..observed() };

    assert_eq!(
        judged(&policy(), &seen).explain("fw 2.4.1"),
        "KILL fw 2.4.1: 8 of 8 devices silent 1 h after start (100 %); allowed 20 %; \
         evidence 39390 : 1, needed 10000 : 1."
    );
}

#[test]
fn an_outage_softens_silence_into_a_pause_and_nothing_else() {
    let silent = Counts { started: 50, due_early: 50, silent_early: 50, ..Counts::default() };
    let seen = Observed { total: silent, outage: true, ..observed() };
    assert!(matches!(judged(&policy(), &seen), Verdict::Pause(PauseReason::Outage(_))));

    let failing = Observed { total: started(50, 0, 50), outage: true, ..observed() };
    assert!(matches!(judged(&policy(), &failing), Verdict::Kill(_)));
}

fn pair(treated: (u64, u64), control: (u64, u64), rho: f64) -> Option<PairEvidence> {
    let arm = |(events, exposure)| Arm { events, exposure };
    let mut pair = PairEvidence::default();
    pair.tick(arm(treated), arm(control), rho);
    Some(pair)
}

#[test]
fn a_control_that_is_as_silent_replaces_the_one_sample_test() {
    let total = Counts { started: 100, good: 60, due: 100, silent: 40, ..Counts::default() };
    let alone = Observed { total, ..observed() };
    let with_control = |control: (u64, u64)| Observed {
        controls: control.1,
        pairs: Pairs { silence: pair((40, 100), control, SILENCE_RATIO), ..Pairs::default() },
        ..alone.clone()
    };

    assert!(matches!(judged(&policy(), &alone), Verdict::Kill(_)));
    assert!(!matches!(judged(&policy(), &with_control((40, 100))), Verdict::Kill(_) | Verdict::Pause(_)));
    assert!(matches!(judged(&policy(), &with_control((1, 400))), Verdict::Kill(_)), "a brick");
    assert!(matches!(judged(&policy(), &with_control((7, 19))), Verdict::Kill(_)), "too small a control");
}

/// One in two hundred does not come back from any update, and nobody boots a held-back device.
#[test]
fn silence_that_is_allowed_stops_nothing_though_the_control_is_never_silent() {
    let seen = |events| Observed {
        total: Counts { started: 4000, good: 4000 - events, due: 4000, silent: events, ..Counts::default() },
        controls: 400,
        pairs: Pairs { silence: pair((events, 4000), (0, 40_000), SILENCE_RATIO), ..Pairs::default() },
        ..observed()
    };

    assert!(!matches!(judged(&policy(), &seen(20)), Verdict::Kill(_) | Verdict::Pause(_)));
    let Verdict::Kill(KillReason::Evidence(evidence)) = judged(&policy(), &seen(160)) else {
        panic!("twice what is allowed")
    };
    assert_eq!(evidence.allowed, Some(policy().silence_deadline.max_rate));
    assert!(evidence.to_string().contains("; allowed 2 % and ratio > 2; evidence "), "{evidence}");
}

#[test]
fn crashes_are_judged_against_the_control() {
    let crash = pair((62, 980), (212, 9900), 1.25);
    let seen = Observed { pairs: Pairs { crash, ..Pairs::default() }, ..observed() };

    let text = judged(&policy(), &seen).explain("fw 2.4.1");

    let expected = "KILL fw 2.4.1: crashes: released 62/980 vs control 212/9900; ratio > 1.25; evidence ";
    assert!(text.starts_with(expected) && text.ends_with(", needed 10000 : 1."), "{text}");
}

#[test]
fn three_bad_of_the_first_ten_stop_unless_the_baseline_is_high() {
    let seen = Observed { total: started(10, 0, 3), first_bad: 3, ..observed() };
    let stop = Verdict::Kill(KillReason::HardStop { bad: 3, first: 10 });
    assert_eq!(judged(&policy(), &seen), stop);

    let used_to_it = Observed { baseline: Some(usual(30)), ..seen.clone() };
    assert!(!matches!(judged(&policy(), &used_to_it), Verdict::Kill(_)));
    let late = Observed { total: started(400, 397, 3), first_bad: 2, ..observed() };
    assert!(!matches!(judged(&policy(), &late), Verdict::Kill(_)));
    let stricter = Policy { hard_stop: Some(HardStop { bad: 2, first: 10 }), ..policy() };
    assert!(matches!(judged(&stricter, &late), Verdict::Kill(KillReason::HardStop { .. })));
}

#[test]
fn a_tiny_fleet_pauses_on_its_first_bad_device() {
    let seen = Observed { fleet: 60, devices: 10, total: started(4, 3, 1), ..observed() };

    assert_eq!(
        judged(&policy(), &seen).to_string(),
        "PAUSE: 1 bad of 4 started in a small fleet; look before more start."
    );
    let large = Observed { fleet: 200, ..seen };
    assert!(!matches!(judged(&policy(), &large), Verdict::Pause(_)));
}

#[test]
fn a_tiny_fleet_is_killed_on_weaker_evidence() {
    let policy = Policy { max_failure_rate: 0.02, hard_stop: None, ..policy() };
    let seen = |fleet| Observed { fleet, total: started(20, 15, 5), ..observed() };

    assert!(matches!(judged(&policy, &seen(199)), Verdict::Kill(_)));
    assert!(matches!(judged(&policy, &seen(200)), Verdict::Pause(PauseReason::Evidence(_))));
}

#[test]
fn a_phase_too_small_to_prove_anything_wants_an_operators_word() {
    let clean = started(63, 63, 0);
    let seen = Observed { fleet: 120, devices: 63, total: clean, fresh: clean, ..observed() };
    let verdict = judged(&policy(), &seen);
    assert!(matches!(verdict, Verdict::Hold(HoldReason::Unproven { .. })), "{verdict}");

    assert!(verdict.to_string().ends_with("look at them, then `tern rollout promote`."), "{verdict}");

    let lenient = PhaseRule { gate: Some(0.10), ..PhaseRule::default() };
    let clean = started(32, 32, 0);
    let proven = Observed { devices: 32, total: clean, fresh: clean, ..seen };
    assert!(matches!(judge(&policy(), &lenient, &proven), Verdict::Advance(AdvanceReason::Proven { .. })));
}

#[test]
fn unreachable_devices_hold_a_gate_and_pause_but_never_kill() {
    let total =
        |unreachable| Counts { started: 400, good: 400 - unreachable, unreachable, ..Counts::default() };
    let seen = |n| Observed { total: total(n), fresh: total(n), devices: 400, ..observed() };

    assert!(matches!(judged(&policy(), &seen(2)), Verdict::Advance(_)));
    assert!(matches!(judged(&policy(), &seen(14)), Verdict::Hold(HoldReason::Gate { .. })));
    assert!(matches!(judged(&policy(), &seen(400)), Verdict::Pause(PauseReason::Evidence(_))));
}

#[test]
fn recalled_and_deferred_devices_are_neither_good_nor_bad() {
    let counts = Counts { recalled: 300, deferred: 50, ..started(750, 398, 2) };
    assert_eq!((counts.judged(), counts.pending()), (400, 0));

    let seen = Observed { total: counts, fresh: counts, ..observed() };
    assert!(judged(&policy(), &seen).to_string().starts_with("ADVANCE: 2 bad of 400 started"));
}

#[test]
fn a_spent_harm_budget_pauses() {
    let policy = Policy { harm_budget: Some(3), ..policy() };
    let total = Counts { silent: 1, ..started(1000, 900, 2) };
    let seen = Observed { total, ..observed() };
    assert_eq!(judged(&policy, &seen), Verdict::Pause(PauseReason::HarmBudget { bad: 3, budget: 3 }));
}

#[test]
fn strata_share_one_budget() {
    let seen = |strata| Observed { strata, total: started(20, 0, 8), ..observed() };
    let policy = Policy { hard_stop: None, ..policy() };

    assert!(matches!(judged(&policy, &seen(1)), Verdict::Kill(_)));
    assert!(!matches!(judged(&policy, &seen(100)), Verdict::Kill(_)));
}

proptest! {
    #[test]
    fn a_verdict_survives_the_ledgers_json(
        n in 1u64..3000, bad in 0u64..200, silent in 0u64..50, fleet in 10u64..100_000, baseline in 0u64..50,
    ) {
        let counts = Counts { silent, due: n, ..started(n, n.saturating_sub(bad + silent), bad.min(n)) };
        let seen = Observed { fleet, baseline: Some(usual(baseline)), total: counts, fresh: counts, ..observed() };

        let verdict = judged(&policy(), &seen);

        let text = serde_json::to_string(&verdict).unwrap();
        prop_assert_eq!(serde_json::from_str::<Verdict>(&text).unwrap(), verdict);
    }

    #[test]
    fn one_more_bad_device_never_makes_a_verdict_kinder(n in 1u64..2000, bad in 0u64..100, fleet in 10u64..1000) {
        let severity = |bad: u64| {
            let counts = started(n, n.saturating_sub(bad), bad);
            let seen = Observed { fleet, total: counts, fresh: counts, ..observed() };
            judged(&policy(), &seen).severity()
        };
        let bad = bad.min(n - 1);
        prop_assert!(severity(bad + 1) >= severity(bad));
    }

    #[test]
    fn counts_of_partitions_add_up_in_any_order(a in any::<[u16; 6]>(), b in any::<[u16; 6]>()) {
        let counts = |c: [u16; 6]| {
            let [started, bad, good, unreachable, recalled, deferred] = c.map(u64::from);
            Counts { started, bad, good, unreachable, recalled, deferred, ..Counts::default() }
        };
        prop_assert_eq!(counts(a) + counts(b), counts(b) + counts(a));
    }
}
