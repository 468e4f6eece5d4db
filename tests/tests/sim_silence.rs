//! Devices that are not heard of any more: a brick is found out, and our own outage is not taken for one.

use std::time::Duration;

use tern_controller::core::fact::Fact;
use tern_controller::core::rollout::plan::{Plan, Reach};
use tern_controller::core::rollout::policy::{PhaseRule, SilenceRule};
use tern_controller::core::rollout::record::Status;
use tern_protocol::id::RolloutId;
use tern_protocol::state::StateName;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

const CANARY: [Reach; 2] = [Reach::Devices(8), Reach::All];

/// A fleet in which only the first few are offered a release that behaves like this.
fn scene(seed: u64, devices: usize, models: &[&'static str], trial: Trial, plan: Plan) -> (Sim, RolloutId) {
    let models = models.to_vec();
    let mut sim = Sim::new(seed, SimConfig { devices, models, image: 5000, ..SimConfig::default() });
    sim.run_for(MINUTE);
    let rc = sim.publish(trial);
    let rollout = sim.start(rc, plan);
    (sim, rollout)
}

fn because(sim: &Sim, rollout: &RolloutId) -> String {
    sim.rollout(rollout).because
}

/// The controller's verdicts on a rollout that an operator did not give.
fn verdicts(sim: &Sim) -> Vec<&Fact> {
    let verdict = |fact: &&Fact| matches!(fact, Fact::Paused { .. } | Fact::Killed { .. });
    sim.controller.ledger.iter().map(|entry| &entry.fact).filter(verdict).collect()
}

/// Phases with the usual gate.
fn gated(reaches: &[Reach]) -> Plan {
    let mut plan = plan(reaches, 3600);
    plan.phases.iter_mut().for_each(|phase| phase.rule = PhaseRule::default());
    plan
}

fn patient(mut plan: Plan) -> Plan {
    let rule = |days: u64| SilenceRule { after: Duration::from_secs(days * 24 * 3600), max_rate: 0.2 };
    (plan.policy.silence_early, plan.policy.silence_deadline) = (rule(80), rule(90));
    plan
}

/// Eight of one model are evidence enough at the early deadline; three or four of each of two have to wait for the last one.
#[test]
fn a_release_that_bricks_every_device_is_killed_though_nobody_ever_says_so() {
    for (models, words, most) in [
        (&["B3"][..], "8 of 8 devices silent 1 h after start", 2 * HOUR),
        (&["B3", "C1"][..], "devices silent 6 h after start (100 %)", 7 * HOUR),
    ] {
        let (mut sim, rollout) = scene(301, 40, models, Trial::Bricking, gated(&CANARY));

        sim.expect("it is killed", |s| s.status(&rollout) == Some(Status::Killed), most);

        let said = because(&sim, &rollout);
        assert!(said.starts_with("KILL") && said.contains(words), "{said}");
        let counts = sim.rollout(&rollout).total();
        assert_eq!((counts.started, counts.bad), (8, 0), "nobody ever said that it failed");
        assert_eq!(sim.rollout(&rollout).phases.len(), 1);
        sim.assert_sound();
    }
}

/// The control: without deadlines the same release is never found out, as before there were any.
#[test]
fn without_deadlines_a_brick_kills_nothing() {
    let (mut sim, rollout) = scene(301, 40, &["B3"], Trial::Bricking, patient(gated(&CANARY)));

    sim.run_for(24 * HOUR);

    assert_eq!(sim.status(&rollout), Some(Status::Running));
    assert_eq!(sim.rollout(&rollout).total().pending(), 8);
}

#[test]
fn every_restart_of_the_service_leaves_the_deadlines_where_they_were() {
    let (mut sim, rollout) = scene(302, 40, &["B3"], Trial::Bricking, gated(&CANARY));
    for _ in 0..4 {
        sim.run_for(20 * MINUTE);
        sim.service_restart();
    }

    // Four gaps give each half an hour more, and the service's knowledge is the ledger's.
    sim.expect("it is killed", |s| s.status(&rollout) == Some(Status::Killed), 3 * HOUR);

    assert_eq!(sim.controller.live(), Some(&sim.controller.fleet()));
}

/// While the service is away, trials reach nobody and go back, all of a sudden and all of them: that is no evidence.
#[test]
fn an_outage_of_ours_stops_no_healthy_release() {
    for (seed, service_dies) in [(303, true), (304, false)] {
        let (mut sim, rollout) =
            scene(seed, 30, &["B3", "C1"], Trial::Healthy, plan(&[Reach::Devices(15), Reach::All], 1800));
        let on_trial =
            |s: &Sim| s.devices.iter().filter(|d| d.state() == Some(StateName::VerifyPost)).count() > 5;
        sim.expect("trials run", on_trial, 6 * HOUR);

        if service_dies {
            sim.service_away_for(3 * HOUR);
            sim.run_for(3 * HOUR);
        } else {
            sim.sever_service(true);
            sim.run_for(3 * HOUR);
            sim.sever_service(false);
        }

        sim.expect("it completes", |s| s.status(&rollout) == Some(Status::Completed), 24 * HOUR);
        assert_eq!(verdicts(&sim), Vec::<&Fact>::new(), "{}", sim.tail(60));
        // Those whose trials fell into the outage went back, were offered it again, and run it.
        let counts = sim.rollout(&rollout).total();
        assert!(counts.deferred > 5 && counts.unreachable == 0, "{counts:?}");
        assert_eq!((counts.good, sim.settled_on(1)), (30, 30));
        sim.finish();
    }
}

/// The control: the same hours in which devices reach nobody, and the service is there and receives nothing of them.
#[test]
fn the_same_silence_while_we_listen_is_evidence() {
    let (mut sim, rollout) =
        scene(303, 30, &["B3", "C1"], Trial::Healthy, plan(&[Reach::Devices(15), Reach::All], 1800));
    let on_trial =
        |s: &Sim| s.devices.iter().filter(|d| d.state() == Some(StateName::VerifyPost)).count() > 5;
    sim.expect("trials run", on_trial, 6 * HOUR);

    sim.partition_all(true);
    sim.run_for(3 * HOUR);
    sim.partition_all(false);

    sim.expect("it is stopped", |s| s.status(&rollout) != Some(Status::Running), 2 * HOUR);
    assert!(!verdicts(&sim).is_empty());
}

/// Devices that have nothing to do with the release went away in the same minutes, so it may be the network: a person
/// looks. Without them (nobody else is there to ask) the same silence kills.
#[test]
fn silence_in_an_outage_pauses_and_does_not_kill() {
    for (seed, devices, reach, word) in [(306, 40, 10, "paused"), (307, 40, 38, "killed")] {
        let plan = gated(&[Reach::Devices(reach), Reach::All]);
        let (mut sim, rollout) = scene(seed, devices, &["B3"], Trial::Healthy, plan);
        sim.hold_reboots = true;
        sim.expect("they begin", |s| s.rollout(&rollout).total().started >= reach, 6 * HOUR);
        sim.partition_all(true);

        sim.expect("it is stopped", |s| s.status(&rollout) != Some(Status::Running), 3 * HOUR);

        let said = because(&sim, &rollout);
        let paused = sim.status(&rollout) == Some(Status::Paused);
        assert_eq!(if paused { "paused" } else { "killed" }, word, "{said}");
        assert_eq!(said.contains("devices outside the rollout are offline too"), paused, "{said}");
    }
}

#[test]
fn a_report_after_the_last_deadline_changes_no_verdict() {
    let mut plan = plan(&[Reach::Devices(3), Reach::All], 30 * 24 * 3600);
    // One silent device of three must not stop this story.
    plan.policy.silence_deadline.max_rate = 0.9;
    plan.policy.silence_early.max_rate = 0.9;
    let (mut sim, rollout) = scene(305, 12, &["B3"], Trial::Healthy, plan);
    let begun = |s: &Sim| (0..12).find(|d| s.devices[*d].state() == Some(StateName::VerifyPost));
    sim.expect("a trial runs", |s| begun(s).is_some(), 6 * HOUR);
    let d = begun(&sim).unwrap_or(0);
    sim.set_offline(d, true);

    sim.expect("the deadline passes", |s| s.rollout(&rollout).total().due == 3, 8 * HOUR);
    let silent = sim.rollout(&rollout).total();
    assert_eq!((silent.silent, silent.good), (1, 2));
    sim.set_offline(d, false);
    sim.expect("it is heard", |s| s.outcome(d, &rollout).is_some(), 2 * HOUR);

    assert_eq!(sim.rollout(&rollout).total(), silent);
}
