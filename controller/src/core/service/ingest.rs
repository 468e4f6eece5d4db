//! Messages from devices: authenticate, tell duplicates, record, acknowledge.

use tern_protocol::bundle::Bundle;
use tern_protocol::id::{DeviceId, RolloutId};
use tern_protocol::limits::{METRIC_NAME_MAX, METRICS_MAX, REPORT_MAX};
use tern_protocol::mac::{Direction, MacKey, epoch_of, kid_of};
use tern_protocol::message::{
    Answer, AnswerKind, Attempt, Hello, Report, ReportKind, Reports, Versions, challenge_signing_input,
};
use tern_protocol::topic::{Topic, UpKind};

use super::keys::DeviceKeys;
use super::{Acks, Fact, Line, Service};
use crate::core::fleet::device::{AttemptRecord, Device, Standing};

/// Least time between two challenges to one device: junk must not make us talk.
const CHALLENGE_PAUSE: u64 = 1000;
/// Least time between two forged hellos of other epochs in one device's name: junk must not have keys derived.
const STRANGE_PAUSE: u64 = 1000;
/// How long a challenge may be answered.
const CHALLENGE_VALID: u64 = 10 * 60 * 1000;

impl Service {
    pub(super) fn message(&mut self, topic: &Topic, payload: &[u8]) {
        match topic {
            Topic::Up(device, UpKind::Report) => self.report(device, payload),
            Topic::Up(device, UpKind::Presence) => self.present_or_away(device, payload),
            Topic::Up(device, UpKind::Enrol) => self.enrol(device, payload),
            Topic::SiteStatus(site) => self.site_says(site, payload),
            _ => {}
        }
    }

    fn report(&mut self, id: &DeviceId, payload: &[u8]) {
        let Some(device) = self.fleet.devices.get(id) else {
            self.counters.unknown += 1;
            return;
        };
        if device.standing.is_silenced() {
            self.counters.silenced += 1;
            return;
        }
        if Bundle::looks_like(payload) {
            return self.presented(id, payload);
        }
        let (Some(e), Some(k), true) = (epoch_of(payload), kid_of(payload), payload.len() <= REPORT_MAX)
        else {
            self.counters.malformed += 1;
            return;
        };
        let expected = e == device.epoch || e == device.epoch + 1;
        // An epoch other than the present or the next is dropped before a key is derived, but for a hello: a device that
        // lost its journal has no other way back.
        if e == 0 || (!expected && (self.is_strange(id) || !looks_like_hello(payload))) {
            self.counters.forged += 1;
            return;
        }
        let line = Line { kid: k, epoch: e };
        let Some(reports) = self.open(id, line, payload) else {
            if !expected {
                self.strange.insert(id.clone(), self.now);
            }
            return;
        };
        if (reports.first.e, reports.first.k) != (e, k) {
            self.counters.forged += 1;
            return;
        }
        let several = !reports.more.is_empty();
        for report in reports {
            self.said(id, line, report, expected);
        }
        // Whoever says several at once reads an answer as an ack; others wait for one.
        if let Some(acks) = self.acks.get_mut(id).filter(|_| several) {
            acks.in_answer = true;
        }
    }

    /// Takes what a device has said under `line`; in an epoch that is neither the present nor the next it can only be a hello.
    fn said(&mut self, id: &DeviceId, line: Line, report: Report, expected: bool) {
        let e = report.e;
        // A device counts up from 1 for its life: no honest number is anywhere near.
        if e > NUMBER_MAX || report.n > NUMBER_MAX || report.low > report.n {
            self.counters.malformed += 1;
            return;
        }
        if let ReportKind::Hello(hello) = &report.kind {
            self.look_at_claim(id, hello);
        }
        // Its outbox had moved past this number already: an old hello that somebody repeats, or a device that
        // lost its journal and would be acknowledged for numbers that nobody counts.
        let forgetful = self.fleet.devices.get(id).is_some_and(|d| d.received.is_done_with(report.n));
        match report.kind {
            ReportKind::Hello(hello) if !expected || forgetful || hello.proof.is_some() => {
                self.stranger(id, line, report.n, &hello)
            }
            _ if !expected => self.counters.forged += 1,
            // The first thing of a new epoch is its hello.
            kind if e != self.epoch(id) && !matches!(kind, ReportKind::Hello(_)) => {
                self.counters.forged += 1;
            }
            ReportKind::Ask { nonce, attempt } => {
                self.counters.accepted += 1;
                if self.may_ask(id, &attempt) {
                    self.asks.push((id.clone(), line, nonce));
                }
            }
            kind => self.counted(id, Report { kind, ..report }),
        }
    }

    /// Tells whether a forged hello of another epoch came a moment ago: the next one waits its turn, as a wrong enrolment
    /// does, for each would have a key derived. A device repeats its hello.
    fn is_strange(&self, id: &DeviceId) -> bool {
        self.strange.get(id).is_some_and(|at| self.now.saturating_sub(*at) < STRANGE_PAUSE)
    }

    fn may_ask(&self, id: &DeviceId, attempt: &Attempt) -> bool {
        self.fleet.devices.get(id).is_some_and(|device| may_ask(device, attempt))
    }

    fn epoch(&self, id: &DeviceId) -> u64 {
        self.fleet.devices.get(id).map_or(0, |d| d.epoch)
    }

    fn counted(&mut self, id: &DeviceId, report: Report) {
        let Some(device) = self.fleet.devices.get(id) else { return };
        if !self.acks.contains_key(id) {
            self.acks.insert(id.clone(), Acks::default());
        }
        let Some(acks) = self.acks.get_mut(id) else { return };
        let line = Line { kid: report.k, epoch: report.e };
        acks.line = line;
        acks.numbers.push(report.n);
        acks.registry |= matches!(report.kind, ReportKind::Hello(_));
        if let ReportKind::Started { nonce, attempt } = &report.kind
            && may_ask(device, attempt)
        {
            self.asks.push((id.clone(), line, *nonce));
        }
        if device.received.contains(report.n) {
            // Its ack was lost: acknowledged and answered again, counted once. A new epoch still opens.
            self.counters.duplicates += 1;
            if report.e == device.epoch {
                return;
            }
        }
        if matches!(report.kind, ReportKind::Hello(_)) {
            // It found its way without: an answer that somebody held back must not move the epoch under its feet.
            self.challenges.remove(id);
        }
        self.counters.accepted += 1;
        if let Some(attempt) = report.kind.attempt()
            && !self.touched.contains(&attempt.rollout)
        {
            self.touched.insert(attempt.rollout.clone());
        }
        let Report { e, n, low, kind, .. } = report;
        let of = kind.attempt().map(|attempt| attempt.rollout.clone());
        let before = of.as_ref().and_then(|rollout| self.watched(id, rollout));
        // Held-back devices that were away are waited for again, whatever it is that they say.
        let mut back: Vec<RolloutId> = Vec::new();
        if let Some(device) = self.fleet.devices.get(id) {
            let away = |a: &AttemptRecord| a.beside.is_some_and(|beside| beside.is_away());
            back.extend(device.attempts.iter().filter(|(_, a)| away(a)).map(|(rollout, _)| rollout.clone()));
        }
        let hello = matches!(kind, ReportKind::Hello(_));
        self.record(Fact::Reported { device: id.clone(), e, n, low, report: kind });
        if let Some(rollout) = of.filter(|rollout| self.watched(id, rollout) != before) {
            self.watch(id, &rollout);
        }
        for rollout in back {
            self.watch(id, &rollout);
        }
        if hello {
            self.is_there(id);
        }
    }

    /// A hello of an unexpected epoch: challenge it, or grant an epoch when it answers one.
    fn stranger(&mut self, id: &DeviceId, line: Line, n: u64, hello: &Hello) {
        let Some(device) = self.fleet.devices.get(id) else { return };
        let valid = |(_, at): &(_, u64)| self.now.saturating_sub(*at) < CHALLENGE_VALID;
        let open = self.challenges.get(id).copied().filter(valid);
        if let (Some(proof), Some((challenge, _))) = (&hello.proof, open)
            && proof.challenge == challenge
            && answers(device, id, proof)
        {
            let epoch = device.epoch.max(line.epoch) + 1;
            let counter = device.received.highest().max(proof.counter).max(n);
            self.challenges.remove(id);
            self.record(Fact::Granted { device: id.clone(), epoch, counter });
            self.note(format!("device {id} proved its identity, epoch {epoch}"));
            let kind = AnswerKind::Grant { challenge, epoch, counter };
            self.answer(id, Line { epoch: 0, ..line }, kind);
            return;
        }
        if open.is_some_and(|(_, at)| self.now.saturating_sub(at) < CHALLENGE_PAUSE) {
            return;
        }
        let challenge = self.random();
        self.challenges.insert(id.clone(), (challenge, self.now));
        self.counters.challenged += 1;
        self.answer(id, Line { epoch: 0, ..line }, AnswerKind::Challenge { challenge });
    }

    /// Sends what this step owes to devices: acks, and the answers to nonces, which name the versions that hold after
    /// every verdict of the step. An answer acknowledges what was said with its question.
    pub(super) fn acknowledge(&mut self) {
        let mut acks = std::mem::take(&mut self.acks);
        let asks = std::mem::take(&mut self.asks);
        // Before the service knows what its devices know, no answer may let one of them arm. It asks again.
        let asks = if self.is_comparing() { Vec::new() } else { asks };
        let mut answers = Vec::new();
        for (id, line, nonce) in asks {
            let Some(product) = self.fleet.devices.get(&id).map(|d| &d.registry.product) else { continue };
            if !self.kills_are_signed(product) {
                // No answer may name versions that do not know of a kill. The device asks again.
                continue;
            }
            let Some(product) = self.fleet.products.get(product) else { continue };
            let Versions { rollout, halt, .. } = product.versions();
            let with =
                acks.get(&id).is_some_and(|acks| acks.line == line && acks.in_answer && !acks.registry);
            let ranges = with.then(|| acks.remove(&id)).flatten().map(Acks::ranges).unwrap_or_default();
            let time = self.now / 1000;
            answers.push((id, line, AnswerKind::Answer { nonce, time, rollout, halt, ranges }));
        }
        for (id, acks) in acks {
            let registry =
                acks.registry.then(|| self.fleet.devices.get(&id).map(|d| d.registry.clone())).flatten();
            self.answer(&id, acks.line, AnswerKind::Ack { ranges: acks.ranges(), registry });
        }
        for (id, line, kind) in answers {
            self.answer(&id, line, kind);
        }
    }

    /// Answers under the key by which the device was heard: it may not know a newer one yet.
    pub(super) fn answer(&mut self, id: &DeviceId, line: Line, kind: AnswerKind) {
        let Some(key) = self.key(id, Direction::Down, line) else { return };
        let payload = key.seal(&Answer { e: line.epoch, k: line.kid, kind });
        self.publish(Topic::DeviceIn(id.clone()), payload);
    }

    fn open(&mut self, id: &DeviceId, line: Line, payload: &[u8]) -> Option<Reports> {
        let opened = self.key(id, Direction::Up, line).and_then(|key| key.open(payload).ok());
        let Some(body) = opened else {
            self.counters.forged += 1;
            return None;
        };
        let reports = serde_json::from_slice(&body).ok().filter(|reports: &Reports| {
            is_within_limits(&reports.first) && reports.more.iter().all(is_within_limits)
        });
        self.counters.malformed += u64::from(reports.is_none());
        reports
    }

    /// Returns the key of a device and one of our telemetry keys; none once targets names that one no more.
    fn key(&mut self, id: &DeviceId, direction: Direction, line: Line) -> Option<&MacKey> {
        let device = self.fleet.devices.get(id)?;
        let telemetry = device.telemetry.as_deref()?;
        let ours = &self.keys.get(&device.registry.product)?.telemetry;
        let own = ours.get(&line.kid)?;
        if self.secrets.get(id).and_then(|known| known.get(line.kid)).is_none_or(|k| !k.is_of(telemetry)) {
            self.counters.derived += 1;
            // All that are in force are kept: junk under the other number must not cost a curve operation each.
            let fresh = DeviceKeys::agree(telemetry, own, line.kid)?;
            let known = self.secrets.entry(id.clone()).or_default();
            known.retain(|kid, keys| ours.contains_key(&kid) && keys.is_of(telemetry));
            known.insert(fresh);
        }
        let keys = self.secrets.get_mut(id)?.get_mut(line.kid)?;
        Some(keys.key(direction, &self.fleet.id, id, line.epoch, &mut self.counters.derived))
    }
}

/// Epochs and report numbers above this are nonsense; sums of two of them cannot overflow.
const NUMBER_MAX: u64 = 1 << 53;

/// Without an answer nothing is armed: that is what keeps a quarantined device from starting. What it had begun before
/// it may bring to an end.
fn may_ask(device: &Device, attempt: &Attempt) -> bool {
    match device.standing {
        Standing::Active => true,
        Standing::Quarantined => device.has_begun(&attempt.rollout),
        Standing::Revoked | Standing::Reset => false,
    }
}

/// Tells whether a report's lists are as short as devices make them.
fn is_within_limits(report: &Report) -> bool {
    match &report.kind {
        ReportKind::Health { metrics, .. } => {
            metrics.len() <= METRICS_MAX && metrics.keys().all(|name| name.len() <= METRIC_NAME_MAX)
        }
        _ => true,
    }
}

/// The kind of a hello as it stands in the payload.
const HELLO: &[u8] = br#""t":"hello""#;

fn looks_like_hello(payload: &[u8]) -> bool {
    payload.windows(HELLO.len()).any(|window| window == HELLO)
}

fn answers(device: &Device, id: &DeviceId, proof: &tern_protocol::message::Proof) -> bool {
    let input = challenge_signing_input(id, proof.challenge, proof.counter);
    hex::decode(&device.identity).is_ok_and(|identity| verifies(&identity, &input, &proof.signature))
}

pub(super) fn verifies(identity: &[u8], message: &[u8], signature: &str) -> bool {
    use p256::ecdsa::signature::Verifier;
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(identity);
    let signature = hex::decode(signature).ok().and_then(|der| p256::ecdsa::Signature::from_der(&der).ok());
    match (key, signature) {
        (Ok(key), Some(signature)) => key.verify(message, &signature).is_ok(),
        _ => false,
    }
}
