//! The same event logs through the real service and through an independent implementation of the kill switch: the same
//! kill at the same event, with the same numbers. `.ci/long reference` compares many more.
//!
//! The reference is no part of this repository: `TERN_ORACLE` names its folder. Without it nothing is compared, which the
//! tests say; where `TERN_ORACLE` names its folder they fail.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tern_controller::core::rollout::evidence::{Arm, PairEvidence, kill_threshold};
use tern_controller::core::rollout::verdict::{Evidence, PauseReason, Test, Verdict};
use tern_protocol::position::{Position, Salt, Shuffle};
use tern_tests::lab::{Reference, recomputed};

/// Eight logs of each of the thirteen kinds.
const LOGS: &str = "104";

fn event_logs(words: &[&str], to: &Path) {
    let ran = Command::new(env!("CARGO_BIN_EXE_event-logs")).args(words).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    std::fs::write(to, ran.stdout).unwrap();
}

struct Scene {
    folder: tempfile::TempDir,
    reference: Reference,
}

impl Scene {
    fn new(count: &str) -> Option<Self> {
        let reference = Reference::found()?;
        let scene = Self { folder: tempfile::tempdir().unwrap(), reference };
        event_logs(&["make", "--count", count], &scene.path("logs.jsonl"));
        Some(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Plays the logs and compares; returns what the comparison ended with and what it found.
    fn compared(&self, play: &[&str]) -> Option<(i32, Value)> {
        let (logs, findings) = (self.path("logs.jsonl"), self.path("findings.jsonl"));
        let (logs, found) = (logs.display().to_string(), findings.display().to_string());
        event_logs(&[&["play", &logs], play].concat(), &findings);
        let ran = self.reference.run("logs.py", &[&logs, &found, "--json"])?;
        let result = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{} {}", ran.out, ran.err));
        Some((ran.code.unwrap(), result))
    }
}

#[test]
fn the_same_event_logs_give_the_same_kill_as_an_independent_implementation() {
    let Some(scene) = Scene::new(LOGS) else { return };

    let Some((code, result)) = scene.compared(&[]) else { return };

    assert_eq!((code, &result["differences"]), (0, &0.into()), "{result}");
    // Neither side was given only what is easy.
    for (what, least) in
        [("kills", 40), ("near", 30), ("near_kills", 15), ("repeated", 30), ("overtaken", 50)]
    {
        assert!(result[what].as_u64() >= Some(least), "{what}: {result}");
    }
    for test in ["hard-stop", "outcome", "silence", "silence-early"] {
        assert!(result["kills_by_test"][test].as_u64() >= Some(1), "{test}: {result}");
    }
}

#[test]
fn a_service_that_counts_wrongly_is_noticed() {
    let Some(scene) = Scene::new("13") else { return };

    for broken in ["twice", "reports", "weight", "strata", "deadline"] {
        let Some((code, result)) = scene.compared(&["--broken", broken]) else { return };
        assert_eq!(code, 1, "{broken}: {result}");
    }
}

#[test]
fn a_line_with_another_number_than_its_ledger_is_noticed() {
    let Some(reference) = Reference::found() else { return };
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames.jsonl");
    let told = |because: &str| std::fs::write(&frames, ledger(because)).unwrap();
    let true_line = "KILL: 6 bad of 10 started (60 %); allowed 5 %; evidence 29335 : 1, needed 2000 : 1.";

    told(true_line);
    let Some(lines) = recomputed(&reference, &frames, &[]) else { return };

    assert_eq!(lines, [true_line]);
    for (one, other) in [
        ("6 bad", "7 bad"),
        ("of 10", "of 11"),
        ("60 %", "61 %"),
        ("29335", "29337"),
        ("2000", "2001"),
        ("5 %", "6 %"),
    ] {
        told(&true_line.replacen(one, other, 1));
        let ran = reference.run("ledger.py", &[&frames.display().to_string()]).unwrap();
        assert_eq!(ran.code, Some(1), "{other}: {}", ran.out);
    }
}

#[test]
fn a_line_about_a_control_is_worked_out_from_what_both_arms_showed() {
    let Some(reference) = Reference::found() else { return };
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames.jsonl");
    let told = |because: &str| std::fs::write(&frames, controlled(because)).unwrap();
    let mut pair = PairEvidence::default();
    pair.tick(Arm { events: 8, exposure: 8 }, Arm { events: 0, exposure: 24 }, 2.0);
    let evidence = Evidence {
        test: Test::SilenceEarly,
        n: 8,
        f: 8,
        p: 2.0,
        control: Some(pair.control()),
        allowed: Some(0.2),
        after: Duration::from_secs(3600),
        alpha: 0.05,
        weight: 0.1,
        ln_e: pair.ln_e(),
        threshold: kill_threshold(0.05, 0.1),
    };
    let true_line = Verdict::Pause(PauseReason::Evidence(evidence)).explain("");
    assert!(
        true_line.starts_with(
            "PAUSE: silent: released 8/8 vs control 0/24; allowed 20 % and ratio > 2; evidence "
        ),
        "{true_line}"
    );

    told(&true_line);
    let Some(lines) = recomputed(&reference, &frames, &[]) else { return };

    assert_eq!(lines, std::slice::from_ref(&true_line));
    let odds = format!("evidence {:.0} : 1", pair.ln_e().exp());
    let other_odds = format!("evidence {:.0} : 1", pair.ln_e().exp() + 1.0);
    for (one, other) in [
        ("8/8", "7/8"),
        ("8/8", "8/9"),
        ("0/24", "1/24"),
        ("0/24", "0/25"),
        ("ratio > 2", "ratio > 3"),
        ("allowed 20 %", "allowed 30 %"),
        ("needed 200", "needed 201"),
        ("PAUSE", "KILL"),
        (&odds, &other_odds),
    ] {
        assert!(true_line.contains(one), "{one}: {true_line}");
        told(&true_line.replacen(one, other, 1));
        let ran = reference.run("ledger.py", &[&frames.display().to_string()]).unwrap();
        assert_eq!(ran.code, Some(1), "{other}: {}", ran.out);
    }
}

/// A ledger in which eight devices start and are silent beside 24 that are held back and are not.
fn controlled(because: &str) -> String {
    use serde_json::json;
    let shuffle = Shuffle::new(Salt([0; 16]));
    let mut places: Vec<(Position, String)> = (0..300)
        .map(|index| format!("d-{index}"))
        .map(|name| (shuffle.position(&name.parse().unwrap()), name))
        .collect();
    places.sort();
    let held_from = places[200].0;
    let names = |range: std::ops::Range<usize>| {
        places[range].iter().map(|(_, name)| name.clone()).collect::<Vec<_>>()
    };
    let entry = |device: &String| json!({"device": device, "product": "cam", "model": "b3", "carrier": "none", "region": "eu"});
    let plan = serde_json::to_value(tern_controller::core::rollout::plan::Plan::default()).unwrap();
    let mut facts = vec![
        json!({"fact": "devices-added", "devices": names(0..300).iter().map(entry).collect::<Vec<_>>()}),
        json!({"fact": "rollout-started", "rollout": "r2", "product": "cam", "rc": 2, "salt": "00".repeat(16), "plan": plan}),
        json!({"fact": "phase-opened", "rollout": "r2", "phase": 0, "cuts": {"b3": 1000u64 << 32}, "devices": 200,
               "held_from": held_from.0, "because": "started by ann"}),
    ];
    let report = |device: &String, t: &str| {
        json!({"fact": "reported", "device": device, "e": 1, "n": 1, "low": 1,
               "report": {"t": t, "rc": 2, "rollout": "r2", "attempt": 1, "nonce": "00"}})
    };
    let (started, held) = (names(0..8), names(200..224));
    facts.extend(started.iter().map(|device| report(device, "started")));
    facts.extend(held.iter().map(|device| report(device, "control-start")));
    let passed = |heard: &[String], silent: &[String]| json!({"fact": "deadline-passed", "rollout": "r2", "deadline": "early", "heard": heard, "silent": silent});
    facts.push(passed(&held, &started));
    facts.extend([json!({"fact": "receiving"}), json!({"fact": "receiving"})]);
    // In the next tick one is due whom nobody is beside: that compares nothing yet.
    facts.push(passed(&held[..1], &[]));
    facts.push(json!({"fact": "paused", "rollout": "r2", "because": because}));
    let line = |(seq, mut fact): (usize, Value)| {
        fact["at"] = (1_795_000_000_000u64 + seq as u64 * 480_000).into();
        json!({"seq": seq, "entry": fact}).to_string()
    };
    facts.into_iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// A ledger in which ten devices start and six go back, and a release is killed for it.
fn ledger(because: &str) -> String {
    use serde_json::json;
    let devices: Vec<String> = (0..300).map(|index| format!("d-{index}")).collect();
    let entry = |device: &String| json!({"device": device, "product": "cam", "model": "b3", "carrier": "none", "region": "eu"});
    let mut plan = serde_json::to_value(tern_controller::core::rollout::plan::Plan::default()).unwrap();
    plan["policy"]["hard_stop"] = Value::Null;
    let mut facts = vec![
        json!({"fact": "devices-added", "devices": devices.iter().map(entry).collect::<Vec<_>>()}),
        json!({"fact": "rollout-started", "rollout": "r2", "product": "cam", "rc": 2, "salt": "00".repeat(16), "plan": plan}),
        json!({"fact": "phase-opened", "rollout": "r2", "phase": 0, "cuts": {"b3": 1000u64 << 32}, "devices": 300, "because": "started by ann"}),
    ];
    for (index, device) in devices.iter().take(10).enumerate() {
        let report = |report: Value| json!({"fact": "reported", "device": device, "e": 1, "n": 1, "low": 1, "report": report});
        facts.push(report(json!({"t": "started", "rc": 2, "rollout": "r2", "attempt": 1, "nonce": "00"})));
        if index < 6 {
            let mut ended = report(
                json!({"t": "outcome", "rc": 2, "rollout": "r2", "attempt": 1, "outcome": "rolled-back"}),
            );
            ended["n"] = 2.into();
            facts.push(ended);
        }
    }
    facts.push(json!({"fact": "killed", "rollout": "r2", "because": because}));
    let line = |(seq, mut fact): (usize, Value)| {
        fact["at"] = (1_795_000_000_000u64 + seq as u64).into();
        json!({"seq": seq, "entry": fact}).to_string()
    };
    facts.into_iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}
