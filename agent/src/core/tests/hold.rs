//! Waiting, and hooks, as the whole agent does it: what is started, what is said, and what is not counted.

use tern_protocol::message::ReportKind;
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::tuf::content::{Entry, Urgency};

use super::super::agent::{Done, Input, Job};
use super::super::conditions::{Conditions, Consent, Power, Stage};
use super::super::hook::HookStep;
use super::super::state::State;
use super::super::timing::Stamp;
use super::thief::{Published, World};

const HOUR: u64 = 3_600_000;

fn consent_needed() -> Conditions {
    Conditions { consent: true, ..Conditions::default() }
}

/// Lets time pass; returns how often the agent woke.
fn pass(world: &mut World, time: u64) -> usize {
    let end = world.uptime + time;
    let mut wakes = 0;
    while world.uptime < end {
        world.uptime = world.agent.wake_at().min(world.uptime + 60_000).min(end);
        world.handle(Input::Time);
        wakes += 1;
    }
    wakes
}

/// What the controller has heard, as (from, to, reason).
fn steps(world: &World) -> Vec<(StateName, StateName, Option<String>)> {
    let step = |kind: &ReportKind| match kind {
        ReportKind::Transition { from, to, reason, .. } => Some((*from, *to, reason.clone())),
        _ => None,
    };
    world.said.values().filter_map(step).collect()
}

fn outcomes(world: &World) -> Vec<Outcome> {
    let outcome = |kind: &ReportKind| match kind {
        ReportKind::Outcome { outcome, .. } => Some(*outcome),
        _ => None,
    };
    world.said.values().filter_map(outcome).collect()
}

fn leads_from_state_to_state(world: &World) {
    for pair in steps(world).windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{:?}", steps(world));
    }
}

fn hooks_run(world: &World) -> Vec<HookStep> {
    let step = |job: &Job| match job {
        Job::RunHooks(step) => Some(*step),
        Job::UndoHooks => Some(HookStep::Undo),
        _ => None,
    };
    world.jobs.iter().filter_map(step).collect()
}

#[test]
fn an_install_waits_for_consent_says_so_once_and_then_asks_and_goes_on() {
    let mut world = World::with(consent_needed(), &[HookStep::PreUpdate], true);
    world.around.consent = Consent::NotYet;
    world.publish(&Published::offers(6));

    let wakes = pass(&mut world, 18 * HOUR);

    let State::Verifying { work, hashed: true, .. } = &world.agent.durable().state else {
        panic!("it moved")
    };
    assert_eq!(work.tries, Default::default(), "waiting is no failure");
    assert_eq!((hooks_run(&world), outcomes(&world)), (vec![], vec![]));
    assert!(world.nonces.is_empty() && wakes < 18 * 60 * 3, "it woke {wakes} times");
    let waits = |world: &World| steps(world).iter().filter(|step| step.2.is_some()).count();
    assert_eq!(waits(&world), 1, "{:?}", steps(&world));
    let looks = world.jobs.iter().filter(|job| **job == Job::Look(Stage::Install)).count();
    assert!((72..=76).contains(&looks), "it looked {looks} times");
    assert_eq!(world.agent.durable().waiting.as_ref().unwrap().reason, "consent");

    world.restarts();
    pass(&mut world, HOUR);
    assert_eq!(waits(&world), 1, "a restart says nothing new");
    world.around.consent = Consent::Given;
    pass(&mut world, HOUR / 2);

    assert_eq!((world.armed(), hooks_run(&world)), (Some(6), vec![HookStep::PreUpdate]));
    assert_eq!(world.agent.durable().waiting, None);
    leads_from_state_to_state(&world);
}

#[test]
fn another_reason_is_said_and_the_same_with_another_number_is_not() {
    let conditions = Conditions { battery_min: Some(40), ..consent_needed() };
    let mut world = World::with(conditions, &[], true);
    world.around.power = Power::Battery(10);
    world.publish(&Published::offers(6));
    for percent in 11..30 {
        world.around.power = Power::Battery(percent);
        pass(&mut world, HOUR / 4);
    }
    assert_eq!(world.agent.durable().waiting.as_ref().unwrap().reason, "battery 29 % of 40 %");

    world.around.consent = Consent::NotYet;
    pass(&mut world, HOUR / 2);

    let said: Vec<_> = steps(&world).into_iter().filter_map(|step| step.2).collect();
    assert_eq!(said, ["waits for battery 10 % of 40 %", "waits for consent"]);
}

#[test]
fn a_kill_or_a_withdrawal_while_it_waits_drops_the_attempt() {
    for halted in [vec![5, 6], vec![5]] {
        let mut world = World::with(consent_needed(), &[], true);
        world.around.consent = Consent::NotYet;
        world.publish(&Published::offers(6));
        assert!(world.agent.durable().waiting.is_some());

        world.publish(&Published { halted, ..Published::default() });

        assert_eq!(world.agent.durable().state.name(), StateName::Idle);
        assert_eq!(world.agent.durable().waiting, None);
        world.around.consent = Consent::Given;
        pass(&mut world, HOUR);
        assert_eq!(world.armed(), None);
    }
}

#[test]
fn what_allowed_an_install_is_looked_at_again_before_every_ask() {
    let mut world = World::with(consent_needed(), &[], true);
    world.keeps_nonces = true;
    world.publish(&Published::offers(6));
    let asked = world.nonces.len();
    assert!(asked > 0);

    world.around.consent = Consent::Refused("not in my shift".into());
    pass(&mut world, HOUR);

    assert!(world.nonces.len() <= asked + 1, "{} asks", world.nonces.len());
    let waiting = world.agent.durable().waiting.as_ref();
    assert_eq!(waiting.map(|w| w.reason.as_str()), Some("consent: not in my shift"));
}

#[test]
fn a_forced_rollout_goes_past_consent_and_not_past_an_empty_battery() {
    let forced = |urgency| {
        let offers = Published::offers(6);
        let entries = offers.entries.iter().map(|entry| Entry { urgency, ..entry.clone() }).collect();
        Published { entries, ..offers }
    };
    let conditions = Conditions { battery_min: Some(40), ..consent_needed() };
    for (urgency, allow_forced, percent, arms) in [
        (Urgency::Forced, true, 50, true),
        (Urgency::Forced, true, 39, false),
        (Urgency::Forced, false, 50, false),
        (Urgency::Soft, true, 50, false),
    ] {
        let mut world = World::with(Conditions { allow_forced, ..conditions.clone() }, &[], true);
        world.around.consent = Consent::NotYet;
        world.around.power = Power::Battery(percent);
        world.publish(&forced(urgency));
        assert_eq!(world.armed().is_some(), arms, "{urgency:?}, {allow_forced}, {percent} %");
    }
}

#[test]
fn a_check_that_says_not_now_for_hours_is_said_once_and_every_step_follows_from_the_one_before() {
    let mut world = World::with(Conditions::default(), &[HookStep::Check], true);
    world.refuses = vec![(HookStep::Check, Done::NotNow("hook calls".to_owned()))];
    world.publish(&Published::offers(6));
    pass(&mut world, 10 * HOUR);

    assert!(matches!(world.agent.durable().state, State::Idle { not_before: Some(Stamp { .. }) }));
    let (idle, checking) = (StateName::Idle, StateName::Checking);
    let reason = Some("waits for hook calls".to_owned());
    assert_eq!(steps(&world), [(idle, checking, None), (checking, idle, reason)]);
    assert!(hooks_run(&world).iter().filter(|step| **step == HookStep::Check).count() > 30);
    assert_eq!(world.agent.durable().waiting.as_ref().unwrap().reason, "hook calls");
    assert_eq!(world.agent.durable().hooks.about.as_ref().map(|about| about.rc), Some(6));
    assert!(!hooks_run(&world).contains(&HookStep::Undo), "a question leaves nothing behind");

    world.refuses.clear();
    pass(&mut world, HOUR);

    assert_eq!((world.armed(), outcomes(&world)), (Some(6), vec![]));
    leads_from_state_to_state(&world);
}

#[test]
fn a_check_that_fails_ends_the_attempt() {
    let mut world = World::with(Conditions::default(), &[HookStep::Check], true);
    world.refuses = vec![(HookStep::Check, Done::Failed("calls: exit code 3".to_owned()))];
    world.publish(&Published::offers(6));

    assert_eq!(
        (world.agent.durable().state.name(), outcomes(&world)),
        (StateName::Failed, vec![Outcome::Failed])
    );
}

#[test]
fn hooks_run_in_the_order_of_the_page_and_the_record_is_written_after_them() {
    use HookStep as S;
    let all = [S::Arm, S::Migrate, S::Snapshot, S::PreUpdate, S::Download, S::Check, S::PostBoot];
    let mut world = World::with(Conditions::default(), &all, true);
    world.publish(&Published::offers(6));

    assert_eq!(hooks_run(&world), [S::Check, S::PreUpdate, S::Snapshot, S::Migrate, S::Arm]);
    assert!(matches!(world.jobs.last(), Some(Job::Arm { rc: 6, .. })), "{:?}", world.jobs);
    assert_eq!(world.agent.durable().hooks.through, Some(S::Arm));
    let about = world.agent.durable().hooks.about.clone().unwrap();
    assert_eq!((about.rc, about.from.as_str()), (6, "1.4"));
}

#[test]
fn a_migration_that_fails_is_undone_with_everything_before_it_once() {
    use HookStep as S;
    let mut world = World::with(Conditions::default(), &[S::Snapshot, S::Migrate, S::Arm], true);
    world.refuses = vec![(S::Migrate, Done::Failed("migrate: exit code 1".to_owned()))];
    world.publish(&Published::offers(6));
    pass(&mut world, HOUR);

    assert_eq!(hooks_run(&world), [S::Snapshot, S::Migrate, S::Undo]);
    assert_eq!((outcomes(&world), world.armed()), (vec![Outcome::Failed], None));
    assert_eq!(world.agent.durable().hooks.through, None);
}

/// The reason that the controller hears of the end.
fn reason(world: &World) -> String {
    let reason = |kind: &ReportKind| match kind {
        ReportKind::Outcome { reason, .. } => reason.clone(),
        _ => None,
    };
    world.said.values().find_map(reason).unwrap_or_default()
}

/// A migration of release 6 fails, and so does its undo, or it `hangs`.
fn not_undone(hangs: bool) -> World {
    use HookStep as S;
    let mut world = World::with(Conditions::default(), &[S::Snapshot, S::Migrate], true);
    let undo = Done::Failed("undo of data: exit code 1, saying \"no room\"".to_owned());
    world.refuses = vec![(S::Migrate, Done::Failed("migrate: exit code 1".to_owned())), (S::Undo, undo)];
    world.hangs = hangs.then_some(Job::UndoHooks);
    world.publish(&Published::offers(6));
    world
}

fn undos(world: &World) -> usize {
    hooks_run(world).iter().filter(|step| **step == HookStep::Undo).count()
}

#[test]
fn an_undo_that_fails_is_tried_again_over_restarts_and_in_the_end_the_report_says_what_was_not_undone() {
    let mut world = not_undone(true);
    assert_eq!((undos(&world), outcomes(&world)), (1, vec![]), "it is not over yet");
    world.hangs = None;
    // However often the agent begins anew: it counts on.
    for _ in 0..3 {
        world.restarts();
    }
    pass(&mut world, 20 * HOUR);

    assert_eq!((undos(&world), outcomes(&world)), (6, vec![Outcome::Failed]));
    let told = reason(&world);
    assert_eq!(told, "migrate: exit code 1; not undone: undo of data: exit code 1, saying \"no room\"");
    let durable = world.agent.durable();
    assert!(matches!(&durable.state, State::Failed { reason, .. } if *reason == told));
    assert!(durable.hooks.not_undone.starts_with("undo of data"));
    assert_eq!((durable.hooks.through, durable.hooks.undo), (None, Default::default()));
}

#[test]
fn an_undo_that_succeeds_in_the_end_says_nothing_more() {
    let mut world = not_undone(true);
    world.hangs = None;
    world.restarts();
    assert_eq!((undos(&world), outcomes(&world)), (2, vec![]), "it has failed once");

    world.refuses.retain(|(step, _)| *step != HookStep::Undo);
    pass(&mut world, HOUR);

    assert_eq!((reason(&world).as_str(), outcomes(&world)), ("migrate: exit code 1", vec![Outcome::Failed]));
    assert_eq!(
        (world.agent.durable().hooks.not_undone.as_str(), world.agent.durable().hooks.undo),
        ("", Default::default())
    );
}

#[test]
fn what_a_kill_leaves_behind_is_told_too() {
    use HookStep as S;
    let mut world = World::with(Conditions::default(), &[S::PreUpdate], true);
    world.refuses = vec![
        (S::PreUpdate, Done::NotNow("busy".to_owned())),
        (S::Undo, Done::Failed("undo of services: exit code 2".to_owned())),
    ];
    world.publish(&Published::offers(6));
    // The hooks have run, and their undo has failed and waits.
    let undoes =
        |world: &World| matches!(world.agent.durable().state, State::PreUpdating { undo: Some(_), .. });
    for _ in 0..200 {
        if undoes(&world) {
            break;
        }
        world.uptime = world.agent.wake_at();
        world.handle(Input::Time);
    }
    assert!(undoes(&world));

    world.publish(&Published { halted: vec![5, 6], ..Published::default() });
    pass(&mut world, HOUR);

    assert_eq!(outcomes(&world), [Outcome::Recalled]);
    assert_eq!(reason(&world), "not undone: undo of services: exit code 2");
}

#[test]
fn an_undo_of_a_dropped_attempt_that_fails_is_told_by_a_step_that_leads_nowhere() {
    let mut world = World::with(Conditions::default(), &[HookStep::Download], false);
    world.refuses = vec![(HookStep::Undo, Done::Failed("undo of modem: exit code 2".to_owned()))];
    world.publish(&Published::offers(6));

    world.publish(&Published { halted: vec![5], ..Published::default() });
    pass(&mut world, HOUR);

    assert_eq!(undos(&world), 5);
    let told = (StateName::Idle, StateName::Idle, Some("not undone: undo of modem: exit code 2".to_owned()));
    assert_eq!(steps(&world).last(), Some(&told));
    leads_from_state_to_state(&world);
}

#[test]
fn an_undo_that_never_ends_because_the_device_goes_down_with_it_is_not_begun_for_ever() {
    let mut world = not_undone(true);
    for _ in 0..40 {
        world.restarts();
        pass(&mut world, HOUR / 10);
    }

    assert_eq!((undos(&world), outcomes(&world)), (20, vec![Outcome::Failed]));
    assert!(reason(&world).contains("begun 20 times"), "{}", reason(&world));
}

#[test]
fn a_hook_that_takes_the_device_down_each_time_has_failed_in_the_end() {
    for step in [HookStep::Check, HookStep::PreUpdate, HookStep::Migrate] {
        let mut world = World::with(Conditions::default(), &[step], true);
        world.hangs = Some(Job::RunHooks(step));
        world.publish(&Published::offers(6));
        for _ in 0..20 {
            world.restarts();
            pass(&mut world, HOUR / 10);
        }

        let begun = hooks_run(&world).iter().filter(|run| **run == step).count();
        assert_eq!((begun, world.armed()), (5, None), "{step:?}");
        let State::Failed { reason, .. } = &world.agent.durable().state else {
            panic!("{step:?}: {:?}", world.agent.durable().state)
        };
        assert!(reason.contains("were begun 5 times, and never ended"), "{reason}");
    }
}

/// A confirmed slot that goes down in each boot is counted by no boot loader.
#[test]
fn a_hook_that_is_told_of_the_end_and_takes_the_device_down_is_left_and_that_is_reported() {
    let mut world = World::with(Conditions::default(), &[HookStep::RolledBack, HookStep::Check], true);
    world.agent.durable.hooks.tell = Some(HookStep::RolledBack);
    world.hangs = Some(Job::RunHooks(HookStep::RolledBack));
    for _ in 0..20 {
        world.restarts();
        pass(&mut world, HOUR / 10);
    }

    let begun = hooks_run(&world).iter().filter(|run| **run == HookStep::RolledBack).count();
    assert_eq!((begun, world.agent.durable().hooks.tell), (5, None));
}

#[test]
fn a_hook_that_ends_is_not_counted_however_often_it_runs() {
    let mut world = World::with(Conditions::default(), &[HookStep::PreUpdate], true);
    world.refuses = vec![(HookStep::PreUpdate, Done::NotNow("busy".to_owned()))];
    world.publish(&Published::offers(6));
    for _ in 0..20 {
        world.restarts();
        pass(&mut world, HOUR);
    }
    assert!(hooks_run(&world).iter().filter(|run| **run == HookStep::PreUpdate).count() > 10);
    assert_eq!((outcomes(&world), world.armed()), (vec![], None));

    world.refuses.clear();
    pass(&mut world, 2 * HOUR);
    assert_eq!(world.armed(), Some(6));
}

#[test]
fn a_hook_that_says_not_now_again_and_again_is_asked_again_and_fails_nothing() {
    let mut world = World::with(Conditions::default(), &[HookStep::PreUpdate], true);
    world.refuses = vec![(HookStep::PreUpdate, Done::NotNow("busy".to_owned()))];
    world.publish(&Published::offers(6));
    pass(&mut world, 15 * HOUR);
    assert_eq!((outcomes(&world), world.armed()), (vec![], None));

    world.refuses.clear();
    pass(&mut world, 2 * HOUR);

    assert_eq!((outcomes(&world), world.armed()), (vec![], Some(6)));
}

#[test]
fn what_a_download_hook_did_is_undone_when_the_attempt_is_dropped_before_any_other_begins() {
    use HookStep as S;
    let mut world = World::with(Conditions::default(), &[S::Download, S::Confirmed], false);
    world.publish(&Published::offers(6));
    assert_eq!(
        (hooks_run(&world), world.agent.durable().state.name()),
        (vec![S::Download], StateName::Downloading)
    );

    world.publish(&Published { halted: vec![5], ..Published::default() });

    assert_eq!(hooks_run(&world), [S::Download, S::Undo]);
    assert_eq!(world.agent.durable().hooks.through, None);
    world.publish(&Published::offers(6));
    assert_eq!(hooks_run(&world), [S::Download, S::Undo, S::Download]);
}

#[test]
fn a_download_waits_on_a_metered_link_and_pauses_when_the_link_becomes_one() {
    let conditions = Conditions { metered_max: Some(0), ..Conditions::default() };
    let mut world = World::with(conditions, &[], false);
    world.around.metered = true;
    world.publish(&Published::offers(6));
    pass(&mut world, 3 * HOUR);
    assert_eq!((world.gets, world.agent.durable().state.name()), (0, StateName::Idle));

    world.around.metered = false;
    pass(&mut world, HOUR);
    assert_eq!(world.agent.durable().state.name(), StateName::Downloading);
    let asked = world.gets;
    assert!(asked > 0);

    world.around.metered = true;
    world.handle(Input::LinkDown);
    world.handle(Input::LinkUp);
    let asked = world.gets.max(asked);
    let wakes = pass(&mut world, 3 * HOUR);
    assert!(world.gets <= asked && wakes < 3 * 60 * 3, "{} after {asked}, {wakes} wakes", world.gets);
    assert_eq!(world.agent.durable().state.name(), StateName::Downloading);

    world.around.metered = false;
    pass(&mut world, HOUR);
    assert!(world.gets > asked);
    let said: Vec<_> = steps(&world).into_iter().filter_map(|step| step.2).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    leads_from_state_to_state(&world);
}
