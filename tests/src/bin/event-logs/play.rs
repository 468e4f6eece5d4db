//! Plays a log through the real service: sealed messages in, facts out, and its judgement after every step.

use std::collections::BTreeMap;

use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use serde::Serialize;
use tern_controller::core::fact::{DeviceEntry, Entry, Fact};
use tern_controller::core::replay::{Found, Replay};
use tern_controller::core::rollout::counts::Counts;
use tern_controller::core::rollout::evidence::{kill_evidence, kill_threshold, silence_evidence};
use tern_controller::core::rollout::hold_back::HoldBack;
use tern_controller::core::rollout::plan::{Phase, Plan, Reach};
use tern_controller::core::rollout::policy::{PhaseRule, TINY_ALPHA, TINY_FLEET, WAIT_MAX};
use tern_controller::core::rollout::record::Rollout;
use tern_controller::core::rollout::verdict::{KillReason, Test, Verdict};
use tern_controller::core::rollout::wave::Waves;
use tern_controller::core::service::{Command, Input, Output, Service};
use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, FleetId, ModelId, ProductId, RolloutId};
use tern_protocol::mac::{Direction, PairSecret};
use tern_protocol::message::{Attempt, Nonce, Registry, Report, ReportKind};
use tern_protocol::offer::Artifact;
use tern_protocol::state::StateName;
use tern_protocol::topic::{Topic, UpKind};
use tern_tests::sim::clock::{EPOCH, SECOND};
use tern_tests::sim::controller::{Controller, secret_key};
use tern_tests::sim::device::hello;

use crate::log::{Line, Log, Said};

/// Draws the service's keys.
const SEED: u64 = 11;
const RC: u64 = 2;
/// Every device has this telemetry key: what counts here is who says what, not who could have.
const DEVICE_KEY: [u8; 32] = [9; 32];
/// How often nothing but time passes; below what the clock of reception takes for an absence.
const TICK: u64 = 150 * SECOND;

/// What the service made of a log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// The log.
    pub(crate) log: u64,
    /// Its profile.
    pub(crate) profile: String,
    /// The kill, if there was one.
    pub(crate) kill: Option<Kill>,
    /// The highest evidence less its threshold that any test ever had.
    pub(crate) peak: f64,
    /// The same when the log ended, or the release was killed.
    pub(crate) end: f64,
    /// What was counted by then, by hardware model.
    pub(crate) counts: BTreeMap<ModelId, Counted>,
    /// The ledger, replayed, gives the same verdicts and the same state.
    pub(crate) replays: bool,
}

/// What was counted of one hardware model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Counted {
    pub(crate) started: u64,
    pub(crate) bad: u64,
    pub(crate) due_early: u64,
    pub(crate) silent_early: u64,
    pub(crate) due: u64,
    pub(crate) silent: u64,
}

impl From<&Counts> for Counted {
    fn from(counts: &Counts) -> Self {
        let Counts { bad, due_early, silent_early, due, silent, .. } = *counts;
        Self { started: counts.judged(), bad, due_early, silent_early, due, silent }
    }
}

/// A kill.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Kill {
    /// When.
    pub(crate) at: u64,
    /// Lines that had arrived by then.
    pub(crate) lines: usize,
    /// Whose report or deadline it was.
    pub(crate) device: Option<DeviceId>,
    /// Which test.
    pub(crate) test: String,
    /// Devices.
    pub(crate) n: u64,
    /// Bad ones.
    pub(crate) f: u64,
    /// The evidence; a hard stop has none.
    pub(crate) weighed: Option<Weighed>,
    /// The line.
    pub(crate) because: String,
}

/// What a test weighed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Weighed {
    pub(crate) p: f64,
    pub(crate) alpha: f64,
    pub(crate) weight: f64,
    pub(crate) ln_e: f64,
    pub(crate) threshold: f64,
}

fn name<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("the player uses valid names")
}

/// A service in the middle of one rollout.
struct Player {
    service: Service,
    fleet: FleetId,
    secret: PairSecret,
    rollout: RolloutId,
    models: BTreeMap<DeviceId, ModelId>,
    /// Every fact so far.
    ledger: Vec<Entry>,
    /// What was counted when the evidence was looked at last.
    seen: BTreeMap<ModelId, Counts>,
    peak: f64,
    end: f64,
}

/// Plays one log to its end or to its kill.
pub(crate) fn play(log: &Log) -> Finding {
    let mut player = Player::new(log);
    let kill = player.run(log);
    let (peak, end) = (player.peak, player.end);
    let counts = player.seen.iter().map(|(model, counts)| (model.clone(), Counted::from(counts))).collect();
    let replays = player.replays();
    Finding { log: log.log, profile: log.profile.clone(), kill, peak, end, counts, replays }
}

impl Player {
    fn new(log: &Log) -> Self {
        let (fleet, product): (FleetId, ProductId) = (name("acme"), name("cam"));
        let telemetry = p256::SecretKey::from_slice(&DEVICE_KEY).expect("a key");
        let point = hex::encode(telemetry.public_key().to_encoded_point(false));
        let secret = PairSecret::agree(&telemetry, &secret_key(SEED, "telemetry").public_key());
        let mut controller = Controller::new(SEED, fleet.clone(), product.clone());
        let registry = |model: &ModelId| registry(&product, model);
        let entry = |(device, model): &(DeviceId, ModelId)| DeviceEntry {
            device: device.clone(),
            identity: point.clone(),
            registry: registry(model),
        };
        let files = controller.offline_files();
        let mut facts = vec![
            Fact::ProductAdded { product: product.clone(), files },
            Fact::DevicesAdded { devices: log.devices.iter().map(entry).collect(), by: None },
        ];
        let enrolled = |(device, _): &(DeviceId, ModelId)| Fact::Enrolled {
            device: device.clone(),
            telemetry: point.clone(),
        };
        facts.extend(log.devices.iter().map(enrolled));
        controller.ledger.extend(facts.into_iter().map(|fact| Entry { at: EPOCH, actor: None, fact }));
        controller.start();

        let models: BTreeMap<DeviceId, ModelId> = log.devices.iter().cloned().collect();
        let mut kinds: Vec<ModelId> = models.values().cloned().collect();
        kinds.sort();
        kinds.dedup();
        let digest = Digest::of(b"release");
        let artifact = Artifact::new("rootfs", 1 << 20, digest, digest);
        let file = controller.sign_release(RC, 0, &kinds, &artifact);
        let rollout: RolloutId = name("r2");
        // The log alone decides: no phase opens, and the rollout does not end.
        let rule = PhaseRule { gate: None, soak: WAIT_MAX };
        let phases = vec![Phase::new(Reach::All, rule)];
        let (waves, hold_back) = (Waves::OFF, HoldBack::OFF);
        let plan = Plan { phases, policy: log.policy.clone(), waves, hold_back, ..Plan::default() };
        controller.handle(Input::BrokerUp, 0);
        for command in [
            Command::PublishRelease { product: product.clone(), file },
            Command::Start { rollout: rollout.clone(), product, rc: RC, attempt: 1, plan },
        ] {
            let step = controller.handle(Input::Command { id: 0, by: None, command: Box::new(command) }, 0);
            for output in step.outputs {
                if let Output::Reply { result, .. } = output {
                    result.expect("the player asks for nothing that is refused");
                }
            }
        }
        let ledger = std::mem::take(&mut controller.ledger);
        let service = controller.into_service().expect("the service runs");
        let (peak, end) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        Self { service, fleet, secret, rollout, models, ledger, seen: BTreeMap::new(), peak, end }
    }

    fn run(&mut self, log: &Log) -> Option<Kill> {
        let wait = |after: std::time::Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let deadlines = [log.policy.silence_early.after, log.policy.silence_deadline.after].map(wait);
        let last = log.lines.last().map_or(0, |line| line.at) + deadlines[1] + TICK;
        // Time passes at every deadline that there may be, and a moment before it: whether one has passed is for the
        // service to say.
        let mut begun = std::collections::BTreeSet::new();
        let starts = log.lines.iter().filter(|line| {
            line.said == Said::Started || (line.said == Said::Trial && begun.insert(line.device.clone()))
        });
        let due = starts.flat_map(|line| deadlines.map(|after| line.at + after));
        let mut moments: Vec<u64> = due.flat_map(|due| [due - 1, due]).collect();
        moments.extend((0..=last / TICK).map(|tick| tick * TICK));
        let arrivals: std::collections::BTreeSet<u64> = log.lines.iter().map(|line| line.at).collect();
        moments.retain(|at| !arrivals.contains(at));
        let mut steps: Vec<(u64, Option<(usize, &Line)>)> =
            moments.into_iter().map(|at| (at, None)).collect();
        steps.extend(log.lines.iter().enumerate().map(|(index, line)| (line.at, Some((index, line)))));
        steps.sort_by_key(|(at, _)| *at);
        steps.dedup_by(|a, b| a.0 == b.0 && a.1.is_none() && b.1.is_none());

        let mut taken = 0;
        for (at, line) in steps {
            let input = match line {
                None => Input::Time,
                Some((index, line)) => {
                    taken = index + 1;
                    self.message(line)
                }
            };
            let step = self.service.handle(vec![input], EPOCH + at);
            let entry = |fact: &Fact| Entry { at: step.at, actor: None, fact: fact.clone() };
            self.ledger.extend(step.facts.iter().map(entry));
            self.weigh();
            let killed = step.facts.iter().find_map(|fact| match fact {
                Fact::Killed { because, .. } => Some(because.clone()),
                _ => None,
            });
            if let Some(because) = killed {
                let reported = line.map(|(_, line)| line.device.clone());
                let silent = step.facts.iter().find_map(|fact| match fact {
                    Fact::DeadlinePassed { silent, .. } => silent.first().cloned(),
                    _ => None,
                });
                return Some(self.killed((at, taken), silent.or(reported), because));
            }
        }
        None
    }

    fn message(&self, line: &Line) -> Input {
        let attempt = Attempt { rc: RC, rollout: self.rollout.clone(), attempt: 1 };
        let kind = match line.said {
            Said::Hello => hello(&registry(&name("cam"), &self.models[&line.device]), 1),
            Said::Started => ReportKind::Started { nonce: Nonce([1; 16]), attempt },
            Said::Trial => {
                let (from, to) = (StateName::Updating, StateName::VerifyPost);
                ReportKind::Transition { attempt, from, to, reason: None }
            }
            Said::Outcome { outcome } => ReportKind::Outcome { attempt, outcome, reason: None },
        };
        let key = self.secret.key(Direction::Up, &self.fleet, &line.device, 1, line.e);
        let report = Report { e: line.e, k: 1, n: line.n, low: 1, kind };
        Input::Message { topic: Topic::Up(line.device.clone(), UpKind::Report), payload: key.seal(&report) }
    }

    fn record(&self) -> &Rollout {
        &self.service.fleet().rollouts[&self.rollout]
    }

    /// Looks at how near the evidence of every test is to its threshold.
    fn weigh(&mut self) {
        let record = self.record();
        let judged = &record.phases[0].judged;
        if *judged == self.seen {
            return;
        }
        let (seen, policy) = (judged.clone(), &record.plan.policy);
        let tiny = self.service.covered(record) < TINY_FLEET;
        let alpha = if tiny { policy.alpha.max(TINY_ALPHA) } else { policy.alpha };
        let strata = record.shares() as f64;
        let mut sums: BTreeMap<Option<&ModelId>, Counts> = BTreeMap::new();
        for (model, counts) in judged {
            *sums.entry((!record.pooled.contains(model)).then_some(model)).or_default() += *counts;
        }
        let mut end = f64::NEG_INFINITY;
        for counts in sums.values() {
            let (early, last) = (policy.silence_early.max_rate, policy.silence_deadline.max_rate);
            for (ln_e, weight) in [
                (kill_evidence(counts.judged(), counts.bad, policy.max_failure_rate), policy.weights.outcome),
                (silence_evidence(counts.due, counts.silent, last), policy.weights.silence),
                (
                    silence_evidence(counts.due_early, counts.silent_early, early),
                    policy.weights.silence_early,
                ),
            ] {
                end = end.max(ln_e - kill_threshold(alpha, weight / strata));
            }
        }
        (self.seen, self.end, self.peak) = (seen, end, self.peak.max(end));
    }

    fn replays(&self) -> bool {
        let mut replay = Replay::new();
        let same = self.ledger.iter().all(|entry| !matches!(replay.take(entry), Found::Differs { .. }));
        let (replayed, live) = (replay.fleet(), self.service.fleet());
        same && replayed.rollouts == live.rollouts && replayed.devices == live.devices
    }

    fn killed(&self, (at, lines): (u64, usize), device: Option<DeviceId>, because: String) -> Kill {
        let Verdict::Kill(reason) = self.service.judge(self.record()).verdict else {
            panic!("{because}: and yet the judgement is another");
        };
        let (test, n, f, weighed) = match reason {
            KillReason::HardStop { bad, first } => ("hard-stop", first, bad, None),
            KillReason::Evidence(e) => {
                let test = match e.test {
                    Test::Outcome => "outcome",
                    Test::Silence => "silence",
                    Test::SilenceEarly => "silence-early",
                    other => panic!("{other:?} cannot kill here"),
                };
                let (p, alpha, weight, ln_e, threshold) = (e.p, e.alpha, e.weight, e.ln_e, e.threshold);
                (test, e.n, e.f, Some(Weighed { p, alpha, weight, ln_e, threshold }))
            }
        };
        Kill { at, lines, device, test: test.to_owned(), n, f, weighed, because }
    }
}

fn registry(product: &ProductId, model: &ModelId) -> Registry {
    Registry { product: product.clone(), model: model.clone(), carrier: name("none"), region: name("eu") }
}
