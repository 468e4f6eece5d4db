//! Epochs, hello, nonces and answers: the device's half of docs/protocol.md, "Reports and answers".

use std::collections::VecDeque;

use tern_protocol::bundle::{Bundle, File};
use tern_protocol::claim::Claimed;
use tern_protocol::limits::{ANSWER_MAX, PRESENTED_MAX};
use tern_protocol::mac::{Direction, MacKey, epoch_of};
use tern_protocol::message::{
    Answer, AnswerKind, Enrol, Hello, Nonce, Proof, Report, ReportKind, TimeAnswer, challenge_signing_input,
    enrol_signing_input,
};
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Role;

use super::agent::{Agent, Output};
use super::state::{Effect, Event, State, UpdatingStep};
use super::timing::{Backoff, Now, Timing};

/// Unanswered nonces that still count.
const NONCES: usize = 4;
/// Hellos without an answer after which the device enrols again: the controller may have lost its store.
const HELLOS_BEFORE_ENROL: u32 = 3;
/// Rounds of reports or asks without a word from the controller after which the device greets again.
const UNHEARD_MAX: u32 = 5;

/// What the device remembers of its talk with the controller while it runs.
pub(super) struct Exchange {
    up: bool,
    /// The hello of this connection was acknowledged: the controller knows our epoch.
    greeted: bool,
    hellos: u32,
    keys: Option<Keys>,
    nonces: VecDeque<(Nonce, u64)>,
    ask: Backoff,
    ask_at: u64,
    resend: Backoff,
    resend_at: u64,
    challenge: Option<Nonce>,
    /// The nonce that went out with the last enrolment, and when: it asks for the time.
    time_nonce: Option<(Nonce, u64)>,
    /// Reports and asks sent since the controller was heard last, in rounds.
    unheard: u32,
    /// Reports below this number were sent in this connection and epoch.
    sent_below: u64,
    /// The controller may still believe in other keys than ours.
    replacing: bool,
    /// The last answer named newer files than those held: wait for them before asking again.
    pub(super) behind: Option<(u32, u32)>,
}

struct Keys {
    epoch: u64,
    kid: u32,
    up: MacKey,
    down: MacKey,
    /// Opens what comes before an epoch is agreed: challenge and grant.
    down_before: MacKey,
}

impl Exchange {
    pub(super) fn new(timing: &Timing, replacing: bool) -> Self {
        Self {
            up: false,
            greeted: false,
            hellos: 0,
            keys: None,
            nonces: VecDeque::new(),
            ask: Backoff::new(timing.ask_first, timing.ask_most),
            ask_at: 0,
            resend: Backoff::new(timing.resend_first, timing.get_most),
            resend_at: 0,
            challenge: None,
            time_nonce: None,
            unheard: 0,
            sent_below: 0,
            replacing,
            behind: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.up
    }

    pub(super) fn link_down(&mut self) {
        self.up = false;
        self.greeted = false;
    }

    /// Returns when something is to be sent again.
    pub(super) fn due(&self) -> u64 {
        if !self.up || self.keys.is_none() {
            u64::MAX
        } else if !self.greeted || self.behind.is_some() {
            self.resend_at
        } else {
            self.resend_at.min(self.ask_at)
        }
    }

    /// Remembers a nonce whose answer would count.
    pub(super) fn expect(&mut self, nonce: Nonce, uptime: u64) {
        if self.nonces.len() == NONCES {
            self.nonces.pop_front();
        }
        self.nonces.push_back((nonce, uptime));
    }

    /// Answers to what was asked so far do not count any more.
    pub(super) fn forget_nonces(&mut self) {
        self.nonces.clear();
    }

    /// Tells whether an ask could go out and was held back.
    pub(super) fn waits_to_ask(&self) -> bool {
        self.up && self.greeted && self.behind.is_none() && self.ask_at == u64::MAX
    }

    /// A new state asks at once.
    pub(super) fn ask_anew(&mut self) {
        self.ask.reset();
        self.ask_at = 0;
    }
}

impl Agent {
    pub(super) fn link_up(&mut self, now: Now) {
        self.exchange.up = true;
        self.exchange.greeted = false;
        self.exchange.hellos = 0;
        self.exchange.resend.reset();
        self.exchange.resend_at = now.uptime;
        self.exchange.sent_below = 0;
        self.exchange.ask_anew();
        self.look_again();
        self.retained_from(now);
        self.durable.outbox.drop_hello();
        let presence = tern_protocol::message::Presence { online: true };
        let payload = serde_json::to_vec(&presence).expect("our own messages serialise");
        self.publish(UpKind::Presence, payload);
    }

    /// Sends what is due: enrolment, hello, waiting reports, asks.
    pub(super) fn attend_exchange(&mut self, now: Now) {
        if !self.exchange.up || !self.derive_keys() {
            return;
        }
        if now.uptime >= self.exchange.resend_at {
            self.unheard(now);
            self.exchange.sent_below = 0;
            self.exchange.resend_at = now.uptime + self.exchange.resend.step();
            if !self.exchange.greeted {
                self.greet(now);
            }
        }
        if self.exchange.greeted {
            self.send_waiting(now);
            self.attend_ask(now);
        }
    }

    /// Counts a try that may go unheard. After some the device greets again: a service that was restored, or took
    /// an old message of this device for a new one, drops everything in this epoch until it has been greeted.
    fn unheard(&mut self, now: Now) {
        if !self.exchange.greeted {
            return;
        }
        self.exchange.unheard += 1;
        if self.exchange.unheard >= UNHEARD_MAX {
            self.greet_again(now);
        }
    }

    pub(super) fn greet_again(&mut self, now: Now) {
        self.exchange.unheard = 0;
        self.exchange.greeted = false;
        self.exchange.hellos = 0;
        self.exchange.resend_at = now.uptime;
        self.durable.outbox.drop_hello();
    }

    fn greet(&mut self, now: Now) {
        let due = !self.durable.enrolled || self.exchange.replacing;
        if due || self.exchange.hellos >= HELLOS_BEFORE_ENROL {
            self.enrol(now);
            self.exchange.hellos = 0;
        }
        self.exchange.hellos += 1;
        let waits = self.durable.outbox.pending().any(|p| matches!(p.kind, ReportKind::Hello(_)));
        if !waits {
            let hello = self.hello(None);
            self.durable.outbox.push(ReportKind::Hello(Box::new(hello)));
            self.saved = false;
        }
        let hello = self.durable.outbox.pending().find(|p| matches!(p.kind, ReportKind::Hello(_))).cloned();
        if let Some(pending) = hello {
            self.send(pending.n, pending.kind);
        }
    }

    fn hello(&self, proof: Option<Proof>) -> Hello {
        let registry = self.registry().clone();
        let boot = self.boot();
        Hello {
            running: boot.map_or(0, |b| b.running),
            agent: self.settings.version.clone(),
            product: registry.product,
            model: registry.model,
            carrier: registry.carrier,
            region: registry.region,
            floor: self.durable.floor,
            versions: self.trust.versions(),
            halted: self.durable.halted.iter().rev().take(32).copied().collect(),
            components: self.durable.components.clone(),
            proof,
        }
    }

    fn enrol(&mut self, now: Now) {
        let asks = self.lacks_code() && self.trust.time_key().is_some();
        self.exchange.time_nonce = asks.then(|| (self.entropy.nonce(), now.uptime));
        let (identity, telemetry) = (self.keys.identity(), self.keys.telemetry());
        let input = enrol_signing_input(&self.settings.fleet, &self.settings.device, &identity, &telemetry);
        // The proof covers what we were configured as: the registry's word is the controller's own.
        let registry = &self.settings.registry;
        let (fleet, device) = (&self.settings.fleet, &self.settings.device);
        let claimed = Claimed { fleet, device, identity: &identity, telemetry: &telemetry, registry };
        let claim = self.settings.claim.as_ref().map(|token| token.prove(&claimed).to_string());
        let former = self.exchange.replacing.then(|| self.keys.sign_as_former(&input)).flatten();
        let enrol = Enrol {
            identity: hex::encode(&identity),
            telemetry: hex::encode(&telemetry),
            proof: hex::encode(self.keys.sign(&input)),
            registry: claim.is_some().then(|| registry.clone()),
            claim,
            replaces: former.map(hex::encode),
            time: self.exchange.time_nonce.map(|(nonce, _)| nonce),
        };
        let payload = serde_json::to_vec(&enrol).expect("our own messages serialise");
        self.publish(UpKind::Enrol, payload);
    }

    /// Sends every waiting report that was not sent yet in this connection, in order.
    fn send_waiting(&mut self, now: Now) {
        let from = self.exchange.sent_below;
        let waiting: Vec<_> = self.durable.outbox.pending().filter(|p| p.n >= from).cloned().collect();
        if !waiting.is_empty() && self.exchange.resend_at == u64::MAX {
            // Everything before was acknowledged, so nothing was due; these may be lost like any other.
            self.exchange.resend_at = now.uptime + self.exchange.resend.step();
        }
        for pending in waiting {
            self.exchange.sent_below = pending.n + 1;
            if !matches!(pending.kind, ReportKind::Hello(_)) {
                self.send(pending.n, pending.kind);
            }
        }
    }

    fn send(&mut self, n: u64, kind: ReportKind) {
        let low = self.durable.outbox.low().min(n);
        let Some(keys) = &self.exchange.keys else { return };
        let report = Report { e: keys.epoch, k: keys.kid, n, low, kind };
        let payload = keys.up.seal(&report);
        self.publish(UpKind::Report, payload);
    }

    fn publish(&mut self, kind: UpKind, payload: Vec<u8>) {
        let topic = Topic::Up(self.settings.device.clone(), kind);
        self.out.push(Output::Publish { topic, payload });
    }

    fn attend_ask(&mut self, now: Now) {
        let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
        let asks = matches!(owed, Some(Effect::Ask | Effect::Announce));
        let Some(work) = self.durable.state.work().filter(|_| asks) else {
            self.exchange.ask_at = u64::MAX;
            return;
        };
        if self.exchange.behind.is_some() {
            return;
        }
        if self.exchange.ask_at == u64::MAX {
            self.exchange.ask_at = now.uptime;
        }
        if now.uptime < self.exchange.ask_at {
            return;
        }
        let attempt = work.offer.attempt.clone();
        if self.holds_ask(now) {
            self.exchange.ask_at = u64::MAX;
            return;
        }
        // `started` carries a nonce of its own: give it one wait before asking beside it.
        let first = self.exchange.ask_at == 0;
        let announcing = owed == Some(Effect::Announce);
        self.exchange.ask_at = now.uptime + self.exchange.ask.step();
        if first && announcing && self.durable.outbox.start_waits(&attempt) {
            return;
        }
        let nonce = self.entropy.nonce();
        self.exchange.expect(nonce, now.uptime);
        let n = self.durable.outbox.number();
        if self.durable.outbox.must_reserve() {
            self.saved = false;
        }
        self.send(n, ReportKind::Ask { nonce, attempt });
        self.asked();
        self.unheard(now);
    }

    /// Tells whether the controller has not answered with a code under these keys yet.
    fn lacks_code(&self) -> bool {
        !self.durable.enrolled || self.exchange.replacing
    }

    /// Takes the time key's word, for as long as the controller has no better one for us. It shows the time and
    /// whether files are old; nothing is armed by it, or a device that nobody approved could start.
    pub(super) fn time_answer(&mut self, payload: &[u8], now: Now) {
        let (Some((nonce, made)), Some(key)) = (self.exchange.time_nonce, self.trust.time_key()) else {
            return;
        };
        if !self.lacks_code() || now.uptime.saturating_sub(made) > self.settings.timing.answer_valid {
            return;
        }
        let (fleet, device) = (&self.settings.fleet, &self.settings.device);
        let product = &self.registry().product;
        let Ok(answer) = TimeAnswer::open(payload, &key, fleet, product, device) else { return };
        if answer.nonce != nonce {
            return;
        }
        self.exchange.time_nonce = None;
        self.clock.answer(answer.time, now);
        let held = self.trust.versions();
        let behind = answer.rollout > held.rollout || answer.halt > held.halt;
        self.exchange.behind = behind.then_some((answer.rollout, answer.halt));
    }

    /// Derives the keys of this epoch; false while the signed files name no telemetry key.
    fn derive_keys(&mut self) -> bool {
        let epoch = self.durable.epoch;
        let Some((kid, peer)) = self.trust.telemetry_keys().into_iter().next_back() else { return false };
        if self.exchange.keys.as_ref().is_some_and(|k| k.epoch == epoch && k.kid == kid) {
            return true;
        }
        if self.exchange.keys.as_ref().is_some_and(|keys| keys.kid != kid) {
            // What is on its way under the old key may find nobody who holds it: say it all again.
            self.exchange.sent_below = 0;
            self.exchange.resend.reset();
            self.exchange.resend_at = 0;
        }
        let secret = self.keys.agree(&peer);
        let (fleet, device) = (&self.settings.fleet, &self.settings.device);
        let key = |direction, epoch| secret.key(direction, fleet, device, kid, epoch);
        self.exchange.keys = Some(Keys {
            epoch,
            kid,
            up: key(Direction::Up, epoch),
            down: key(Direction::Down, epoch),
            down_before: key(Direction::Down, 0),
        });
        true
    }

    /// Takes a sealed answer; anything that does not open is as if it had never come.
    pub(super) fn answer(&mut self, payload: &[u8], now: Now) {
        if payload.len() > ANSWER_MAX || !self.derive_keys() {
            return;
        }
        let Some(keys) = &self.exchange.keys else { return };
        let key = match epoch_of(payload) {
            Some(0) => &keys.down_before,
            Some(epoch) if epoch == keys.epoch => &keys.down,
            _ => return,
        };
        let Ok(body) = key.open(payload) else { return };
        let Ok(answer) = serde_json::from_slice::<Answer>(&body) else { return };
        self.exchange.unheard = 0;
        if !self.durable.enrolled {
            self.durable.enrolled = true;
            // From here on the time key's word does not count, nor what it said before.
            self.exchange.behind = None;
            self.saved = false;
        }
        if std::mem::take(&mut self.exchange.replacing) {
            self.out.push(Output::SettleKeys);
        }
        match (answer.e, answer.kind) {
            (0, AnswerKind::Challenge { challenge }) => self.challenged(challenge),
            (0, AnswerKind::Grant { challenge, epoch, counter }) => {
                self.granted(challenge, epoch, counter, now)
            }
            (0, AnswerKind::Present { roles }) => self.present(&roles, now),
            (0, _) => {}
            (_, AnswerKind::Ack { ranges, registry }) => self.acknowledged(&ranges, registry, now),
            (_, AnswerKind::Answer { nonce, time, rollout, halt }) => {
                self.answered(nonce, time, rollout, halt, now);
            }
            (_, AnswerKind::Challenge { .. } | AnswerKind::Grant { .. } | AnswerKind::Present { .. }) => {}
        }
    }

    /// The service has lost its data folder, or an older one was put back. What it should believe of us is signed.
    fn present(&mut self, roles: &[Role], now: Now) {
        if roles.is_empty() {
            self.greet_again(now);
        }
        // Each role once: nobody may have us send more than there is.
        for role in Role::ALL.into_iter().filter(|role| roles.contains(role)) {
            let Some(bytes) = self.trust.file(role) else { continue };
            let files = vec![File { role, bytes: bytes.to_vec() }];
            let payload = Bundle { root: self.trust.root().version, files }.pack_stored();
            if payload.len() <= PRESENTED_MAX {
                self.publish(UpKind::Report, payload);
            }
        }
    }

    fn challenged(&mut self, challenge: Nonce) {
        // Challenges answer hellos, and ours was acknowledged: somebody repeats an old one of ours.
        if self.exchange.greeted {
            return;
        }
        let counter = self.durable.outbox.highest();
        let input = challenge_signing_input(&self.settings.device, challenge, counter);
        let signature = hex::encode(self.keys.sign(&input));
        let hello = self.hello(Some(Proof { challenge, counter, signature }));
        self.exchange.challenge = Some(challenge);
        let n = self.durable.outbox.number();
        if self.durable.outbox.must_reserve() {
            self.saved = false;
        }
        self.send(n, ReportKind::Hello(Box::new(hello)));
    }

    fn granted(&mut self, challenge: Nonce, epoch: u64, counter: u64, now: Now) {
        // An old grant that somebody replays answers no challenge that is open.
        if self.exchange.challenge != Some(challenge) || epoch <= self.durable.epoch {
            return;
        }
        self.exchange.challenge = None;
        let old = std::mem::replace(&mut self.durable.epoch, epoch);
        self.durable.outbox.raise(counter);
        self.durable.outbox.drop_hello();
        self.restamp(old, now);
        self.saved = false;
        self.exchange.greeted = false;
        self.exchange.resend_at = now.uptime;
    }

    /// A granted epoch is not a boot: what was timed in the old one goes on in the new one.
    fn restamp(&mut self, old: u64, now: Now) {
        let at = self.stamp(now);
        match &mut self.durable.state {
            State::VerifyPost { since, .. }
            | State::Retry { since, .. }
            | State::Updating {
                step: UpdatingStep::Announce { since } | UpdatingStep::Reask { since },
                ..
            } => {
                since.epoch = at.epoch;
            }
            State::Idle { not_before: Some(since) } | State::Failed { again: Some(since), .. } => {
                since.epoch = at.epoch;
            }
            _ => {}
        }
        if let Some(compared) = &mut self.durable.compared {
            // Figures of an earlier boot stay so: how long the device was off since then the clock says.
            if compared.counted.epoch == old {
                compared.counted.epoch = at.epoch;
            }
            compared.since.epoch = at.epoch;
        }
    }

    fn acknowledged(
        &mut self,
        ranges: &[(u64, u64)],
        registry: Option<tern_protocol::message::Registry>,
        now: Now,
    ) {
        let hello_waited = self.durable.outbox.pending().any(|p| matches!(p.kind, ReportKind::Hello(_)));
        if self.durable.outbox.acknowledge(ranges) {
            self.saved = false;
            self.exchange.resend.reset();
            self.exchange.resend_at = now.uptime + self.exchange.resend.step();
        }
        let hello_waits = self.durable.outbox.pending().any(|p| matches!(p.kind, ReportKind::Hello(_)));
        if hello_waited && !hello_waits {
            self.exchange.greeted = true;
            self.exchange.sent_below = 0;
            self.exchange.ask_anew();
        }
        if self.durable.outbox.pending().next().is_none() && self.exchange.greeted {
            self.exchange.resend_at = u64::MAX;
        }
        if registry.is_some() && registry != self.durable.registry {
            self.durable.registry = registry;
            self.saved = false;
            self.listen();
            self.evaluate(now);
        }
    }

    fn answered(&mut self, nonce: Nonce, time: u64, rollout: u32, halt: u32, now: Now) {
        let Some((_, made)) = self.exchange.nonces.iter().find(|(n, _)| *n == nonce).copied() else { return };
        if now.uptime.saturating_sub(made) > self.settings.timing.answer_valid {
            return;
        }
        self.clock.answer(time, now);
        let held = self.trust.versions();
        if rollout > held.rollout || halt > held.halt {
            self.exchange.behind = Some((rollout, halt));
            return;
        }
        // Freshness is looked at once more before the hooks and before the boot record; a trial has passed both.
        if self.is_stale(now) && !matches!(self.durable.state, State::VerifyPost { .. }) {
            return;
        }
        // A start counts only once it is in the ledger.
        if let State::Updating { work, step: UpdatingStep::Announce { .. } } = &self.durable.state
            && self.durable.outbox.start_waits(&work.offer.attempt)
        {
            return;
        }
        if !self.allows_install(now) {
            return;
        }
        self.exchange.nonces.clear();
        self.step(&Event::Answered, now);
    }
}
