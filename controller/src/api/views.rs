//! From the fleet to the shapes that the API answers with.

use std::collections::BTreeMap;

use tern_protocol::digest::Digest;
use tern_protocol::id::{DeviceId, RolloutId};
use tern_protocol::offer::Variant;
use tern_protocol::state::{Outcome, StateName};
use tern_protocol::tuf::build::Named;
use tern_protocol::tuf::content::ArtifactContent;

use super::types::{
    ArtifactView, AttemptView, DeviceLine, DeviceView, EdgeView, LedgerView, PhaseView, ReleaseView,
    RolloutLine, RolloutView, ServiceStatus,
};
use crate::core::fleet::Fleet;
use crate::core::fleet::device::{AttemptRecord, Device, Standing};
use crate::core::fleet::product::Release;
use crate::core::rollout::counts::Counts;
use crate::core::rollout::record::{Rollout, Status};
use crate::core::rollout::verdict::Verdict;
use crate::core::service::{Refusal, Service};
use crate::ledger::Ledger;

pub(super) fn status(service: &Service, ledger: &Ledger, edge: EdgeView) -> ServiceStatus {
    let EdgeView { wire, front, listeners } = edge;
    let fleet = service.fleet();
    ServiceStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        fleet: fleet.id.to_string(),
        devices: fleet.devices.len() as u64,
        enrolled: enrolled(fleet),
        pending: fleet.pending.len() as u64,
        quarantined: quarantined(fleet),
        reports: fleet.reports,
        counters: service.counters(),
        trouble: service.trouble().clone(),
        comparing: service.is_comparing(),
        ledger: self::ledger(ledger),
        wire,
        front,
        listeners,
    }
}

pub(super) fn enrolled(fleet: &Fleet) -> u64 {
    fleet.devices.values().filter(|d| d.telemetry.is_some()).count() as u64
}

pub(super) fn quarantined(fleet: &Fleet) -> u64 {
    fleet.devices.values().filter(|d| d.standing == Standing::Quarantined).count() as u64
}

pub(super) fn ledger(ledger: &Ledger) -> LedgerView {
    LedgerView { frames: ledger.next(), head: ledger.head_hash() }
}

pub(super) fn device_line(id: &DeviceId, device: &Device) -> DeviceLine {
    let latest = device.attempts.values().max_by_key(|attempt| attempt.changed_at);
    DeviceLine {
        device: id.clone(),
        registry: device.registry.clone(),
        running: device.running,
        standing: device.standing,
        enrolled: device.telemetry.is_some(),
        seen_at: device.seen_at,
        state: latest.map(|attempt| attempt.state),
    }
}

pub(super) fn device(id: &DeviceId, device: &Device) -> DeviceView {
    let attempt = |record: &AttemptRecord| AttemptView {
        attempt: record.attempt,
        phase: record.phase + 1,
        started_at: record.started_at,
        state: record.state,
        outcome: record.outcome,
        reason: record.reason.clone(),
        halted_at: record.halted_at,
        halted_in: record.halted_in,
        held_back: record.beside.is_some(),
        silent: record.was_silent(),
    };
    DeviceView {
        line: device_line(id, device),
        epoch: device.epoch,
        because: device.because.clone(),
        identity: device.identity.clone(),
        floor: device.floor,
        agent: device.agent.clone(),
        components: device.components.versions().clone(),
        attempts: device.attempts.iter().map(|(rollout, a)| (rollout.clone(), attempt(&a))).collect(),
        anomalies: device.anomalies.clone(),
    }
}

pub(super) fn release(release: &Release, halted: bool, stored: impl Fn(&Digest) -> bool) -> ReleaseView {
    let view = |(named, content): &(Named, ArtifactContent)| ArtifactView {
        component: content.component.clone(),
        variant: Variant::of_path(&named.path, &content.component).and_then(|of| of.name().cloned()),
        version: content.version.clone(),
        order: content.order,
        models: content.models.clone(),
        carriers: content.carriers.clone(),
        regions: content.regions.clone(),
        requires: content.requires.clone(),
        length: named.length,
        sha256: named.sha256,
        root: content.root,
        stored: stored(&content.root),
    };
    let mut artifacts: Vec<ArtifactView> = release.artifacts.iter().map(view).collect();
    artifacts.sort_by(|a, b| (a.order, &a.component).cmp(&(b.order, &b.component)));
    ReleaseView { rc: release.rc, version: release.version.clone(), halted, artifacts }
}

/// Lists rollouts, the newest first.
pub(super) fn rollout_lines(fleet: &Fleet) -> Vec<RolloutLine> {
    let line = |rollout: &Rollout| RolloutLine {
        rollout: rollout.id.clone(),
        product: rollout.product.clone(),
        rc: rollout.rc,
        attempt: rollout.attempt,
        status: rollout.status,
        phase: rollout.phases.len(),
        phases: rollout.plan.phases.len(),
        total: rollout.total(),
        because: rollout.because.clone(),
        started_at: rollout.started_at,
        ended_at: rollout.ended_at,
    };
    let mut newest_first: Vec<&Rollout> = fleet.rollouts.values().collect();
    newest_first.sort_by_key(|rollout| std::cmp::Reverse((rollout.order, rollout.started_at)));
    newest_first.into_iter().map(line).collect()
}

pub(super) fn rollout(service: &Service, id: &RolloutId) -> Result<RolloutView, Refusal> {
    let rollout = service.rollout(id)?;
    let fleet = service.fleet();
    let mut states: BTreeMap<StateName, u64> = BTreeMap::new();
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    let mut kill_ms = Vec::new();
    let killed_at = rollout.ended_at.filter(|_| rollout.status == Status::Killed);
    let mut held_back = 0;
    for attempt in fleet.devices.values().filter_map(|device| device.attempts.get(id)) {
        if attempt.beside.is_some() {
            held_back += 1;
            continue;
        }
        *states.entry(attempt.state).or_default() += 1;
        if let Some(outcome) = attempt.outcome {
            *outcomes.entry(outcome).or_default() += 1;
        }
        if let Some((halted, killed)) = attempt.halted_at.zip(killed_at) {
            kill_ms.push(halted.saturating_sub(killed));
        }
    }
    kill_ms.sort_unstable();
    // Before its first phase there is nothing to judge: the service stopped between two frames.
    let active = matches!(rollout.status, Status::Running | Status::Paused) && !rollout.phases.is_empty();
    let judged = active.then(|| service.judge(rollout));
    let explanation = match &judged {
        Some(judged) => {
            let subject = format!("{id} rc {} phase {} {}", rollout.rc, rollout.phases.len(), judged.subject);
            judged.verdict.explain(subject.trim_end())
        }
        None => rollout.because.clone(),
    };
    let may = judged.as_ref().is_some_and(|judged| matches!(judged.verdict, Verdict::Advance(_)));
    let waits = service
        .waits(rollout)
        .or_else(|| service.lacks_room(rollout).filter(|_| may))
        .filter(|_| rollout.status == Status::Running && !rollout.reaches_all());
    let explanation = match &waits {
        Some(waits) if explanation.is_empty() => format!("HOLD: {waits}."),
        Some(waits) => format!("{} It {waits}.", explanation.trim_end()),
        None => explanation,
    };
    let version = fleet
        .products
        .get(&rollout.product)
        .and_then(|product| product.releases().remove(&rollout.rc))
        .map_or_else(|| "no longer listed".to_owned(), |release| release.version);
    Ok(RolloutView {
        rollout: id.clone(),
        product: rollout.product.clone(),
        rc: rollout.rc,
        version,
        attempt: rollout.attempt,
        urgency: rollout.plan.urgency,
        status: rollout.status,
        phase: rollout.phases.len(),
        phases: phases(rollout),
        covered: service.covered(rollout),
        total: rollout.total(),
        on_trial: service.on_trial(rollout).filter(|_| active),
        held_back,
        states,
        outcomes,
        kill_ms,
        because: rollout.because.clone(),
        explanation,
        tests: if active { service.outlook(rollout) } else { Vec::new() },
        verdict: judged.map(|judged| judged.verdict),
        started_at: rollout.started_at,
        ended_at: rollout.ended_at,
    })
}

fn phases(rollout: &Rollout) -> Vec<PhaseView> {
    let view = |(index, step): (usize, &crate::core::rollout::plan::Phase)| {
        let record = rollout.phases.get(index);
        PhaseView {
            phase: index + 1,
            devices: record.map_or(0, |record| record.devices),
            included: record.map_or(0, |record| record.included),
            waves: record.map_or(0, |record| record.waves),
            gate: step.rule.gate,
            open: record.is_some(),
            counts: record
                .map(|record| record.counts.values().fold(Counts::default(), |a, b| a + *b))
                .unwrap_or_default(),
        }
    };
    rollout.plan.phases.iter().enumerate().map(view).collect()
}
