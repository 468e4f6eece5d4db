//! One round: publish, roll out, kill, bring back, converge, check.

use std::time::Duration;

use tern_agent::core::durable::Durable;
use tern_agent::core::state::State;
use tern_protocol::state::StateName;
use tern_tests::lab::{Stopwatch, wait};
use tern_tests::sim::clock::Rng;

use crate::tally::{Tally, Target};
use crate::world::{DEVICES, World, owes_reports, state_for};
use crate::{moment, proof};

/// The longest that the world may take to come to its end after a kill.
const CONVERGE: Duration = Duration::from_secs(90);

/// What the seed decided.
struct Plan {
    rollout: String,
    /// Devices on which the release fails.
    fails_on: Vec<String>,
    phases: &'static str,
    postponed: bool,
    /// State of some device in which a service or bridge is killed.
    at: StateName,
    power_cut: bool,
    down: Duration,
}

/// What was killed, in words and for the table.
struct Kill {
    hit: Target,
    words: String,
    /// The rollout still had somewhere to go.
    inside: bool,
    /// What a killed agent's slots claimed falsely.
    wrong: Vec<String>,
}

/// Plays a round and returns its line.
pub(crate) fn play(
    world: &mut World,
    target: Target,
    number: u32,
    rng: &mut Rng,
    tally: &mut Tally,
) -> String {
    let plan = draw(world, target, number, rng);
    let length = 1_000_000 + usize::try_from(rng.below(1_500_000)).expect("a small number");
    world.publish(length, &plan.fails_on);
    world.postpone(world.rc, plan.postponed);

    let kill = strike(world, target, &plan, rng);
    if let Some(kill) = &kill {
        assert_eq!(kill.wrong, Vec::<String>::new(), "after the kill: {}", kill.words);
    }
    world.postpone(world.rc, false);
    let since = Stopwatch::start();
    converge(world, &plan);
    proof::check(world, &plan.rollout);

    let kind = if plan.fails_on.is_empty() { "good" } else { "bad" };
    let (rc, seconds) = (world.rc, since.read().as_secs_f64());
    match kill {
        Some(kill) if kill.inside => {
            tally.hit(kill.hit);
            let counted = tally.counted();
            format!(
                "round {number} counts ({counted}): {} in {kind} rc {rc}; converged in {seconds:.1} s",
                kill.words
            )
        }
        Some(kill) => format!("round {number} does not count: {} when the rollout was over", kill.words),
        None => format!("round {number} does not count: no chance to kill {target}"),
    }
}

fn draw(world: &World, target: Target, number: u32, rng: &mut Rng) -> Plan {
    use StateName::{Downloading, Failed, PreUpdating, Retry, Rollback, Updating, VerifyPost, Verifying};
    let bad = match target {
        Target::Agent(Failed | Rollback) | Target::ServiceKilling => true,
        Target::Agent(_) => false,
        Target::Service | Target::Bridge => rng.chance(0.3),
    };
    let names = world.devices.iter().map(|device| device.name.clone());
    let mut fails_on: Vec<String> = names.filter(|_| rng.chance(0.6) && bad).collect();
    if bad && fails_on.is_empty() {
        fails_on = world.devices.iter().take(DEVICES / 2).map(|device| device.name.clone()).collect();
    }
    let whole = bad || target == Target::Agent(StateName::Checking);
    let moments = [Downloading, Verifying, PreUpdating, Updating, VerifyPost];
    let at = moments[usize::try_from(rng.below(moments.len() as u64)).expect("a small number")];
    Plan {
        rollout: format!("round-{number:03}"),
        fails_on,
        phases: if whole { "all" } else { "2@none,all" },
        postponed: target == Target::Agent(Retry),
        at: if bad && rng.chance(0.5) { Rollback } else { at },
        power_cut: rng.chance(0.3),
        down: Duration::from_millis(rng.below(1200)),
    }
}

/// Starts the rollout and kills when the moment is there; brings back what was killed.
fn strike(world: &mut World, target: Target, plan: &Plan, rng: &mut Rng) -> Option<Kill> {
    let soak = u64::from(plan.phases != "all");
    let Target::Agent(StateName::Checking) = target else {
        world.lab.roll_out(world.rc, &plan.rollout, plan.phases, soak);
        return match target {
            Target::Agent(state) => {
                let device = moment::reached(world, state, &plan.rollout, rng)?;
                Some(kill_agent(world, device, plan))
            }
            Target::Service => {
                moment::reached(world, plan.at, &plan.rollout, rng)?;
                let words = format!("service killed with {}", states(world));
                world.lab.kill_service();
                std::thread::sleep(plan.down);
                world.lab.start_service();
                let inside = is_going_on(world, &plan.rollout);
                Some(Kill { hit: target, words, inside, wrong: Vec::new() })
            }
            Target::ServiceKilling => kill_while_killing(world, plan, rng),
            Target::Bridge => {
                moment::reached(world, plan.at, &plan.rollout, rng)?;
                let words = format!("bridge killed with {}", states(world));
                world.bridge.kill();
                let inside = is_going_on(world, &plan.rollout);
                std::thread::sleep(plan.down);
                world.bridge.start();
                Some(Kill { hit: target, words, inside, wrong: Vec::new() })
            }
        };
    };
    // The offer arrives while the command line still waits for its answer.
    let mut start = world.lab.command(&[
        "rollout",
        "start",
        "--product",
        tern_tests::lab::PRODUCT,
        "--rc",
        &world.rc.to_string(),
        "--name",
        &plan.rollout,
        "--phases",
        plan.phases,
        "--soak",
        "0",
        "--at-once",
        "--hold-back",
        "none",
        "--yes",
    ]);
    let quiet = std::process::Stdio::null;
    let mut child = start.stdout(quiet()).stderr(quiet()).spawn().expect("tern starts");
    let device = moment::reached(world, StateName::Checking, &plan.rollout, rng);
    let kill = device.map(|device| kill_agent(world, device, plan));
    assert!(child.wait().expect("tern ends").success(), "the rollout did not start");
    kill
}

fn kill_agent(world: &mut World, device: usize, plan: &Plan) -> Kill {
    if plan.power_cut {
        world.devices[device].cut_power();
    } else {
        world.devices[device].kill();
    }
    let journal = world.records[device].journal().expect("a killed agent leaves a whole journal");
    let trusts = world.records[device].trusts(&plan.rollout);
    let runs_it = world.records[device].confirmed() == Some(world.rc);
    let state = match state_for(&journal, world.rc) {
        Some(state) => state,
        None if trusts && !runs_it && plan.phases == "all" => StateName::Checking,
        None => journal.state.name(),
    };
    let inside = is_going_on(world, &plan.rollout);
    let wrong = proof::claims(world, device);
    let how = if plan.power_cut { " with a power cut" } else { "" };
    let words = format!(
        "agent {} killed in {}{how}, back after {} ms",
        world.devices[device].name,
        detail(&journal, state),
        plan.down.as_millis()
    );
    std::thread::sleep(plan.down);
    world.devices[device].start();
    Kill { hit: Target::Agent(state), words, inside, wrong }
}

/// Kills the service at a seeded moment of its work on `rollout kill`.
fn kill_while_killing(world: &mut World, plan: &Plan, rng: &mut Rng) -> Option<Kill> {
    let status = wait("a first bad device", CONVERGE, || {
        world.look();
        let status = world.lab.rollout(&plan.rollout)["status"].clone();
        (status != "running").then_some(status)
    });
    if status != "paused" {
        // So many failed at once that the service was faster than any operator.
        return None;
    }
    let mut command = world.lab.command(&["rollout", "kill", &plan.rollout]);
    let quiet = std::process::Stdio::null;
    let mut child = command.stdout(quiet()).stderr(quiet()).spawn().expect("tern starts");
    let later = Duration::from_micros(rng.below(80_000));
    std::thread::sleep(later);
    world.lab.kill_service();
    // It may have been answered or not: that is the point.
    let answered = child.wait().expect("tern ends").success();
    std::thread::sleep(plan.down);
    world.lab.start_service();
    let words = format!(
        "service killed {:.0} ms into `rollout kill`{}",
        later.as_secs_f64() * 1000.0,
        if answered { ", which was answered" } else { "" }
    );
    let inside = is_going_on(world, &plan.rollout);
    Some(Kill { hit: Target::ServiceKilling, words, inside, wrong: Vec::new() })
}

/// Says more than the state where there is more to say.
fn detail(journal: &Durable, state: StateName) -> String {
    match &journal.state {
        State::Downloading { work, have, .. } if state == StateName::Downloading => {
            let length = work.offer.artifacts.first().map_or(0, |artifact| artifact.length);
            format!("{state} ({} of {} chunks)", have.len(), length.div_ceil(64 * 1024))
        }
        State::Updating { step, .. } if state == StateName::Updating => format!("{state} ({})", word(step)),
        State::Rollback { step, .. } if state == StateName::Rollback => format!("{state} ({})", word(step)),
        _ => state.to_string(),
    }
}

fn word(step: &impl std::fmt::Debug) -> String {
    let text = format!("{step:?}").to_lowercase();
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

fn states(world: &mut World) -> String {
    let rc = world.rc;
    let name = |journal: &Durable| state_for(journal, rc).unwrap_or(journal.state.name()).to_string();
    let names: Vec<String> = world.look().iter().map(name).collect();
    format!("devices in {}", names.join(", "))
}

/// Tells whether the rollout still has somewhere to go: asked right after the kill, of a service as soon as it is back.
fn is_going_on(world: &mut World, rollout: &str) -> bool {
    let view = world.lab.rollout(rollout);
    match view["status"].as_str() {
        Some("running" | "paused") => true,
        Some("killed") => !ended(world),
        _ => false,
    }
}

fn ended(world: &mut World) -> bool {
    world.look().iter().all(|journal| {
        matches!(journal.state, State::Idle { .. } | State::Failed { .. }) && !owes_reports(journal)
    })
}

/// Plays the operator until every device has come to its end and nothing waits.
fn converge(world: &mut World, plan: &Plan) {
    let since = Stopwatch::start();
    loop {
        let devices_ended = ended(world);
        let view = world.lab.rollout(&plan.rollout);
        let status = view["status"].as_str().unwrap_or_default().to_owned();
        let done = if plan.fails_on.is_empty() {
            status == "completed" && world.records.iter().all(|r| r.confirmed() == Some(world.rc))
        } else {
            status == "killed"
        };
        if done && devices_ended && ended(world) {
            return;
        }
        if status == "paused" {
            // A tiny fleet pauses at its first bad device; a person has seen enough.
            let ran = world.lab.run(&["rollout", "kill", &plan.rollout, "--reason", "it fails"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        if since.read() > CONVERGE {
            let seen = states(world);
            panic!("{} did not converge: {seen}; {view}", plan.rollout);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
