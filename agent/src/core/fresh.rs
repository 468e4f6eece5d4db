//! `arm: fresh`: where the controller cannot be asked, a device goes on by its signed files alone, if the offer says so.
//!
//! It asks first, as always: whoever can be reached says whether there is a newer kill. Only when no answer has come for as
//! long as the first ask waits, the device takes instead: a timestamp that is not over, by a clock that is taken for
//! right, and a broker to which it is connected and whose files it can read, so that it knows what its site knows. What it reports waits, and arrives
//! when the site is connected again. A kill that did not reach the site before it was cut off is missed until then: that
//! is what whoever starts such a rollout accepts.

use tern_protocol::state::StateName;
use tern_protocol::tuf::content::Arm;

use super::agent::Agent;
use super::state::{Effect, Event, State};
use super::timing::Now;

impl Agent {
    /// Goes on where nobody has answered, and nobody need.
    pub(super) fn attend_fresh(&mut self, now: Now) {
        let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
        let asks = matches!(owed, Some(Effect::Ask | Effect::Announce));
        let fresh = self.durable.state.work().is_some_and(|work| work.offer.arm == Arm::Fresh);
        if !asks || !fresh {
            self.unanswered = None;
            return;
        }
        let name = self.durable.state.name();
        if self.unanswered.is_none_or(|(known, _)| known != name) {
            self.unanswered = Some((name, now.uptime));
        }
        if !self.goes_on_unasked(now) || self.holds_ask(now) || !self.allows_install(now) {
            return;
        }
        self.unanswered = None;
        self.exchange.forget_nonces();
        self.step(&Event::Answered, now);
    }

    /// Tells whether an answer has been waited for long enough, and the device's files speak for themselves.
    pub(super) fn goes_on_unasked(&self, now: Now) -> bool {
        let waited = self.unanswered_due().is_some_and(|due| now.uptime >= due);
        // A trial was armed while the files were fresh; it is judged by its probes and by reaching the broker.
        let trial = matches!(self.durable.state, State::VerifyPost { .. });
        let vouched = trial || (self.clock.known(now).is_some() && !self.is_stale(now));
        let unread = self.reader.awaited().is_some() || self.trust.current().is_none();
        let knows = trial || (!unread && self.exchange.has_heard_retained(now));
        waited && vouched && knows && self.exchange.is_up() && self.exchange.behind.is_none()
    }

    fn unanswered_due(&self) -> Option<u64> {
        self.unanswered.map(|(_, since)| since.saturating_add(self.settings.timing.ask_first))
    }

    /// Returns when [`Agent::attend_fresh`] may have something to do.
    pub(super) fn fresh_due(&self, now: Now) -> u64 {
        // Past them, it is not time that is waited for.
        let due = [self.unanswered_due(), self.exchange.retained_due()];
        let due = due.into_iter().flatten().filter(|due| *due > now.uptime);
        due.min().filter(|_| self.unanswered.is_some()).unwrap_or(u64::MAX)
    }
}

/// The state that waits for an answer, and since when; uptime.
pub(super) type Unanswered = Option<(StateName, u64)>;
