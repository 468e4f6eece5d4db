//! The device's half of docs/protocol.md, "Reports and answers": what is sent, and when it is sent again.
//!
//! | module | what it holds |
//! |---|---|
//! | `greeting` | enrolment, hello, the challenge and the grant of an epoch |
//! | `answer` | what the controller says, and what counts of it |

mod answer;
mod greeting;

use std::collections::VecDeque;

use tern_protocol::mac::{Direction, MacKey};
use tern_protocol::message::{Nonce, ReportKind, Reports};
use tern_protocol::topic::{Topic, UpKind};

use super::agent::{Agent, Output};
use super::outbox::Pending;
use super::state::Effect;
use super::timing::{Backoff, Now, Timing};

/// Unanswered nonces that still count.
const NONCES: usize = 4;
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
    /// Until when changes of state wait for something to be said with.
    gathers: Option<u64>,
    /// Something was said again, and nothing acknowledged since: perhaps one report keeps the others of its message back.
    again: bool,
    /// From when on retained files have had their time to come, since the link came up.
    retained_by: Option<u64>,
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
            gathers: None,
            again: false,
            retained_by: None,
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
        self.gathers = None;
        self.retained_by = None;
    }

    /// Tells whether what the broker retains has had its time to come.
    pub(super) fn has_heard_retained(&self, now: Now) -> bool {
        self.retained_by.is_some_and(|at| now.uptime >= at)
    }

    pub(super) fn retained_due(&self) -> Option<u64> {
        self.retained_by
    }

    /// Returns when something is to be sent again.
    pub(super) fn due(&self) -> u64 {
        if !self.up || self.keys.is_none() {
            u64::MAX
        } else if !self.greeted {
            self.resend_at
        } else {
            let ask = if self.behind.is_some() { u64::MAX } else { self.ask_at };
            self.resend_at.min(ask).min(self.gathers.unwrap_or(u64::MAX))
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
        self.exchange.retained_by = Some(now.uptime + self.settings.timing.retained_wait);
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
            self.exchange.again |= self.exchange.greeted && self.exchange.sent_below > 0;
            self.exchange.sent_below = 0;
            self.exchange.resend_at = now.uptime + self.exchange.resend.step();
            if !self.exchange.greeted {
                self.greet(now);
            }
        }
        if self.exchange.greeted {
            let ask = self.ask(now);
            let asks = ask.is_some();
            self.say(ask, now);
            if asks {
                self.asked();
                self.unheard(now);
            }
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

    /// Sends every waiting report that was not sent yet in this connection, and a question, in order; what has numbers
    /// one after the other in one message, unless that was tried before. Changes of state alone wait a moment, for most of
    /// them are the first of several.
    fn say(&mut self, ask: Option<Pending>, now: Now) {
        let from = self.exchange.sent_below;
        let unsent = self.durable.outbox.pending().filter(|p| p.n >= from);
        let mut waiting: Vec<_> =
            unsent.filter(|p| !matches!(p.kind, ReportKind::Hello(_))).cloned().collect();
        if ask.is_none()
            && waiting.iter().all(|p| matches!(p.kind, ReportKind::Transition { reason: None, .. }))
        {
            if waiting.is_empty() {
                self.exchange.gathers = None;
                return;
            }
            let until = *self.exchange.gathers.get_or_insert(now.uptime + self.settings.timing.gather);
            if now.uptime < until {
                return;
            }
        }
        self.exchange.gathers = None;
        if let Some(last) = waiting.last() {
            self.exchange.sent_below = last.n + 1;
            if self.exchange.resend_at == u64::MAX {
                // Everything before was acknowledged, so nothing was due; these may be lost like any other.
                self.exchange.resend_at = now.uptime + self.exchange.resend.step();
            }
        }
        waiting.extend(ask);
        let apart = self.exchange.again;
        for run in waiting.chunk_by(|one, next| !apart && one.n + 1 == next.n) {
            self.send(run);
        }
    }

    fn send_one(&mut self, n: u64, kind: ReportKind) {
        self.send(&[Pending { n, kind }]);
    }

    /// Sends reports whose numbers follow one another.
    fn send(&mut self, run: &[Pending]) {
        let (Some(mut n), Some(keys)) = (run.first().map(|first| first.n), &self.exchange.keys) else {
            return;
        };
        let low = self.durable.outbox.low().min(n);
        let mut kinds: Vec<_> = run.iter().map(|pending| pending.kind.clone()).collect();
        let mut payloads = Vec::new();
        while let Some(reports) = Reports::gather(keys.epoch, keys.kid, n, low, &mut kinds) {
            payloads.push(keys.up.seal(&reports));
            n += 1 + reports.more.len() as u64;
        }
        payloads.into_iter().for_each(|payload| self.publish(UpKind::Report, payload));
    }

    fn publish(&mut self, kind: UpKind, payload: Vec<u8>) {
        let topic = Topic::Up(self.settings.device.clone(), kind);
        self.out.push(Output::Publish { topic, payload });
    }

    /// Returns a question, when one is due.
    fn ask(&mut self, now: Now) -> Option<Pending> {
        let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
        let asks = matches!(owed, Some(Effect::Ask | Effect::Announce));
        let Some(work) = self.durable.state.work().filter(|_| asks) else {
            self.exchange.ask_at = u64::MAX;
            return None;
        };
        if self.exchange.behind.is_some() {
            return None;
        }
        if self.exchange.ask_at == u64::MAX {
            self.exchange.ask_at = now.uptime;
        }
        if now.uptime < self.exchange.ask_at {
            return None;
        }
        let attempt = work.offer.attempt.clone();
        if self.holds_ask(now) {
            self.exchange.ask_at = u64::MAX;
            return None;
        }
        // `started` carries a nonce of its own: give it one wait before asking beside it.
        let first = self.exchange.ask_at == 0;
        let announcing = owed == Some(Effect::Announce);
        self.exchange.ask_at = now.uptime + self.exchange.ask.step();
        if first && announcing && self.durable.outbox.start_waits(&attempt) {
            return None;
        }
        let nonce = self.entropy.nonce();
        self.exchange.expect(nonce, now.uptime);
        let n = self.durable.outbox.number();
        if self.durable.outbox.must_reserve() {
            self.saved = false;
        }
        Some(Pending { n, kind: ReportKind::Ask { nonce, attempt } })
    }

    /// Derives the keys of this epoch; false while the signed files name no telemetry key.
    fn derive_keys(&mut self) -> bool {
        let epoch = self.durable.epoch;
        let Some((kid, peer)) = self.trust.telemetry_keys().into_iter().next_back() else {
            self.exchange.keys = None;
            return false;
        };
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
}
