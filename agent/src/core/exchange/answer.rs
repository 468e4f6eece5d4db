//! What the controller says, and what counts of it.

use tern_protocol::limits::ANSWER_MAX;
use tern_protocol::mac::epoch_of;
use tern_protocol::message::{Answer, AnswerKind, Nonce, Registry, ReportKind, TimeAnswer};

use crate::core::agent::{Agent, Output};
use crate::core::state::{Event, State, UpdatingStep};
use crate::core::timing::Now;

impl Agent {
    /// Takes the time key's word, for as long as the controller has no better one for us. It shows the time and
    /// whether files are old; nothing is armed by it, or a device that nobody approved could start.
    pub(in crate::core) fn time_answer(&mut self, payload: &[u8], now: Now) {
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

    /// Takes a sealed answer; anything that does not open is as if it had never come.
    pub(in crate::core) fn answer(&mut self, payload: &[u8], now: Now) {
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
            (_, AnswerKind::Answer { nonce, time, rollout, halt, ranges }) => {
                self.acknowledged(&ranges, None, now);
                self.answered(nonce, time, rollout, halt, now);
            }
            (_, AnswerKind::Challenge { .. } | AnswerKind::Grant { .. } | AnswerKind::Present { .. }) => {}
        }
    }

    fn acknowledged(&mut self, ranges: &[(u64, u64)], registry: Option<Registry>, now: Now) {
        let hello_waited = self.durable.outbox.pending().any(|p| matches!(p.kind, ReportKind::Hello(_)));
        if self.durable.outbox.acknowledge(ranges) {
            self.saved = false;
            self.exchange.again = false;
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
