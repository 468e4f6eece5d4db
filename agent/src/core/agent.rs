//! The whole agent as one value: inputs in, outputs out, no I/O.
//!
//! The shell (or a simulation) hands in what happened and carries out what comes back, in order: saves come
//! before everything that relies on them. One local job runs at a time; a new job replaces the old one, and what
//! the old one still says is ignored by its number.

use tern_protocol::message::{Registry, ReportKind, TimeAnswer, Versions};
use tern_protocol::offer::Selection;
use tern_protocol::position::{Position, Salt};
use tern_protocol::topic::Topic;
use tern_protocol::tuf::{Pool, Trusted};

use super::choice::Choice;
use super::component::Components;
use super::durable::Durable;
use super::entropy::Entropy;
use super::exchange::Exchange;
use super::fetch::Fetch;
use super::fresh::Unanswered;
use super::hold::Hold;
use super::machine::reports;
use super::pace::Pace;
pub use super::port::{
    BootFacts, ComponentFacts, Content, Decode, Done, Held, Input, Job, Keys, Output, Settings, Target,
    Transfer, Web, WebFailure, WebGet,
};
use super::reader::Reader;
use super::reconcile::{self, Mend};
use super::source::Sources;
use super::state::{Event, State, UpdatingStep};
use super::time::Clock;
use super::timing::{Backoff, Now, Stamp};
use super::trust::Missing;

/// The agent.
pub struct Agent {
    pub(super) settings: Settings,
    pub(super) keys: Box<dyn Keys + Send>,
    pub(super) durable: Durable,
    pub(super) saved: bool,
    pub(super) trust: Trusted,
    pub(super) pool: Pool,
    pub(super) clock: Clock,
    pub(super) reader: Reader,
    pub(super) exchange: Exchange,
    pub(super) missing: Option<Missing>,
    pub(super) entropy: Entropy,
    /// What the files of these versions offer to a device of this registry entry that runs this release.
    pub(super) selected: Option<(Versions, Registry, u64, Option<Selection>)>,
    /// Where the device stands in the rollouts that it has heard of last.
    pub(super) positions: Vec<(Salt, Position)>,
    pub(super) boot: Option<BootFacts>,
    pub(super) fetch: Option<Fetch>,
    /// What a download would cost, where it must be known before it begins.
    pub(super) quote: Option<Choice>,
    pub(super) pace: Pace,
    pub(super) sources: Sources,
    /// Bytes of packs that have come for the present artifact, in this process.
    pub(super) fetched: u64,
    pub(super) job: Option<(u64, Job)>,
    pub(super) jobs: u64,
    pub(super) job_retry: Backoff,
    pub(super) job_not_before: u64,
    /// Uptime before which no boot is asked for, ms.
    pub(super) boot_not_before: u64,
    /// How often in a row the present job could not be done.
    pub(super) job_failures: u32,
    /// What is wrong with the boot record, and mended first.
    pub(super) mend: Option<Mend>,
    /// Uptime before which the shell is not asked again how the device fares.
    pub(super) collect_at: u64,
    /// Probes run again at the end of the soak, and whether they have passed; `None` without such probes.
    soaked: Option<bool>,
    pub(super) hold: Hold,
    pub(super) unanswered: Unanswered,
    pub(super) components: Components,
    pub(super) looked_at: Now,
    pub(super) out: Vec<Output>,
}

impl Agent {
    /// Starts from what was saved; `seed` is random and never used twice.
    pub fn new(
        settings: Settings,
        keys: Box<dyn Keys + Send>,
        mut durable: Durable,
        trust: Trusted,
        seed: [u8; 32],
    ) -> Self {
        durable.outbox.after_restart();
        let job_retry = Backoff::new(settings.timing.retry_first, settings.timing.retry_most);
        let exchange = Exchange::new(&settings.timing, keys.replaces());
        let clock = Clock::new(durable.time_floor);
        Self {
            settings,
            keys,
            durable,
            saved: true,
            trust,
            pool: Pool::default(),
            clock,
            reader: Reader::default(),
            exchange,
            missing: None,
            entropy: Entropy { seed, used: 0 },
            selected: None,
            positions: Vec::new(),
            boot: None,
            fetch: None,
            quote: None,
            pace: Pace::default(),
            sources: Sources::default(),
            fetched: 0,
            job: None,
            jobs: 0,
            job_retry,
            job_not_before: 0,
            boot_not_before: 0,
            job_failures: 0,
            mend: None,
            collect_at: 0,
            soaked: None,
            hold: Hold::default(),
            unanswered: None,
            components: Components::default(),
            looked_at: Now::default(),
            out: Vec::new(),
        }
    }

    /// Has every trial wait for an [`Input::Soaked`] that is well before an answer confirms it.
    pub fn expect_soak_probes(&mut self) {
        self.soaked = Some(false);
    }

    /// Returns what must be saved by [`Output::SaveJournal`].
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// Returns the signed files that are trusted now.
    pub fn trust(&self) -> &Trusted {
        &self.trust
    }

    /// Returns the device's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns what boot record and slots said when the agent came up.
    pub fn boot(&self) -> Option<&BootFacts> {
        self.boot.as_ref()
    }

    /// Returns what the device is, as far as it knows.
    pub(super) fn registry(&self) -> &Registry {
        self.durable.registry.as_ref().unwrap_or(&self.settings.registry)
    }

    /// Tells whether nothing comes that was asked for, so that the link itself may be dead: what is published then is worth
    /// an acknowledgement of the broker's, without which the link is given up.
    pub fn doubts_link(&self) -> bool {
        self.fetch.as_ref().is_some_and(Fetch::doubts_link)
    }

    /// Takes something that happened and returns what to do, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Output> {
        self.looked_at = now;
        self.clock.start(now);
        match input {
            Input::Up(facts) => self.came_up(facts, now),
            Input::LinkUp => self.link_up(now),
            Input::LinkDown => {
                self.exchange.link_down();
                if !self.asks_web() {
                    self.fetch.iter_mut().for_each(Fetch::link_lost);
                }
                self.quote.iter_mut().for_each(Choice::link_lost);
            }
            Input::Message { topic, payload } => self.message(&topic, &payload, now),
            Input::Done { job, result } => self.done(job, result, now),
            Input::Web { request, said } => self.web(request, said, now),
            Input::Collected(metrics) => self.collected(metrics, now),
            Input::Soaked(Ok(())) => {
                if self.soaked.replace(true) == Some(false) {
                    self.exchange.ask_anew();
                }
            }
            Input::Soaked(Err(reason)) => self.step(&Event::ProbeFailed(reason), now),
            // A deferral may be over.
            Input::Time
                if matches!(
                    self.durable.state,
                    State::Idle { not_before: Some(_) } | State::Failed { again: Some(_), .. }
                ) =>
            {
                self.evaluate(now)
            }
            Input::Time => {}
        }
        self.step(&Event::Time, now);
        self.attend_time(now);
        self.attend_trust(now);
        // What it has to say goes out with the rest.
        self.attend_comparison(now);
        self.attend_exchange(now);
        self.attend_fresh(now);
        self.attend_work(now);
        self.stop_web();
        self.finish()
    }

    /// Returns the uptime at which [`Input::Time`] should be handed in at the latest.
    ///
    /// Judged as of the last input, not as of the call: what came due in between was not looked at yet.
    pub fn wake_at(&self) -> u64 {
        let now = self.looked_at;
        let timing = &self.settings.timing;
        let mut at = self.exchange.due().min(self.trust_due()).min(self.comparison_due(now));
        at = at.min(self.look_due(now)).min(self.fresh_due(now));
        let by_web = self.asks_web();
        let may_ask =
            |fetch: &&Fetch| (by_web || self.exchange.is_up()) && (!self.hold.download || fetch.only_asks());
        if let Some(fetch) = self.fetch.as_ref().filter(may_ask) {
            let due = if by_web { self.web_due(fetch, now) } else { fetch.due() };
            at = at.min(due.max(self.pace.not_before()));
        }
        if let (State::Checking { .. }, Some(quote)) = (&self.durable.state, &self.quote) {
            at = at.min(if self.exchange.is_up() { quote.due() } else { u64::MAX });
        }
        for not_before in [self.job_not_before, self.boot_not_before] {
            if self.job.is_none() && not_before > now.uptime {
                at = at.min(not_before);
            }
        }
        let until = |since: Stamp, wait: u64| {
            if since.epoch == self.durable.epoch { since.uptime.saturating_add(wait) } else { now.uptime }
        };
        match &self.durable.state {
            State::Idle { not_before: Some(since) } | State::Failed { again: Some(since), .. } => {
                let over = until(*since, timing.deferral);
                // With nothing on offer the deferral stays when it is over, and is no reason to wake.
                if over > now.uptime {
                    at = at.min(over);
                }
            }
            State::Retry { since, wait, .. } => at = at.min(until(*since, *wait)),
            State::Updating {
                step: UpdatingStep::Announce { since } | UpdatingStep::Reask { since },
                ..
            } => {
                at = at.min(until(*since, timing.started_timeout));
            }
            State::VerifyPost { since, heard, .. } => {
                let soak = until(*since, timing.soak);
                if soak > now.uptime {
                    at = at.min(soak);
                }
                at = at.min(until(*since, timing.last_answer(*heard)));
            }
            _ => {}
        }
        at.max(now.uptime + 1)
    }

    fn came_up(&mut self, facts: BootFacts, now: Now) {
        let rebooted = facts.boot_id != self.durable.boot_id;
        if rebooted {
            self.durable.boot_id.clone_from(&facts.boot_id);
            self.durable.epoch += 1;
            self.compared_boot(now);
            self.saved = false;
        }
        // A lost journal knows no floor any more; the file that was signed with the confirmed release does.
        if facts.floor > self.durable.floor {
            self.durable.floor = facts.floor;
            self.saved = false;
        }
        self.time_of_trust(now);
        self.listen();
        let seen = facts.seen();
        self.boot = Some(facts);
        self.note_versions();
        self.step(&Event::Booted { seen, rebooted }, now);
        self.mend = reconcile::mend(&self.durable.state, &seen);
        if let State::Updating { work, step: UpdatingStep::Reboot } = &self.durable.state
            && work.tries.reboots > 0
        {
            // The boot that was asked for did not come. A kill may have come meanwhile: nobody was listening. A minute as a
            // rule.
            self.boot_not_before =
                now.uptime.saturating_add(self.settings.timing.retry_first.saturating_mul(2));
        }
        self.evaluate(now);
    }

    pub(super) fn listen(&mut self) {
        let registry = self.registry().clone();
        let topics = Topic::of_device(&self.settings.device, &registry.product, &registry.region);
        self.out.push(Output::Listen(topics.to_vec()));
    }

    pub(super) fn stamp(&self, now: Now) -> Stamp {
        Stamp { epoch: self.durable.epoch, uptime: now.uptime }
    }

    /// Feeds one fact to the machine and keeps what the controller must hear of it.
    pub(super) fn step(&mut self, event: &Event, now: Now) {
        let before = self.durable.state.clone();
        let at = match (event, &before) {
            // Until the last probes have passed the soak is not over, so an answer is one that came within it.
            (Event::Answered, State::VerifyPost { since, .. }) if self.soaked == Some(false) => *since,
            _ => self.stamp(now),
        };
        let after = before.clone().after(event, at, &self.settings.timing);
        if after == before {
            return;
        }
        let said = self.telling_what_was_not_undone(event, reports(&before, &after, event));
        let said = self.telling_of_sources(said);
        for kind in self.told(&before, &after, event, said) {
            self.durable.outbox.push(kind);
        }
        self.note_end(&before, &after);
        self.note_fetched(&before, &after);
        if let Some(work) = announced(&after) {
            let nonce = self.entropy.nonce();
            let attempt = work.offer.attempt.clone();
            self.exchange.expect(nonce, now.uptime);
            self.durable.outbox.push(ReportKind::Started { nonce, attempt });
            let offer = work.offer.clone();
            self.compare_from(&offer, now);
        }
        if let (State::Success { work }, State::Idle { .. }) = (&before, &after) {
            self.durable.floor = self.durable.floor.max(work.offer.floor);
        }
        if before.name() != after.name() {
            self.durable.leaving = 0;
            self.soaked = self.soaked.map(|_| false);
            self.exchange.ask_anew();
            self.enter(&after, now);
            self.forget_installed();
        }
        self.durable.state = after;
        self.saved = false;
    }

    fn message(&mut self, topic: &Topic, payload: &[u8], now: Now) {
        match topic {
            Topic::DevicePack(device) if *device == self.settings.device => self.pack(payload, now),
            Topic::DeviceIn(device) if *device == self.settings.device => {
                if tern_protocol::bundle::Bundle::looks_like(payload) {
                    self.bundle(topic, payload, now);
                } else if TimeAnswer::looks_like(payload) {
                    self.time_answer(payload, now);
                } else {
                    self.answer(payload, now);
                }
            }
            Topic::Timestamp(_) | Topic::Root(..) | Topic::Head(_) | Topic::Cohort(..) => {
                self.bundle(topic, payload, now)
            }
            _ => {}
        }
    }

    fn finish(&mut self) -> Vec<Output> {
        let mut out = std::mem::take(&mut self.out);
        if !self.saved {
            self.saved = true;
            let after_trust = out.iter().take_while(|o| matches!(o, Output::SaveTrust(_))).count();
            out.insert(after_trust, Output::SaveJournal);
        }
        out
    }
}

/// Returns the attempt whose start is being announced.
fn announced(state: &State) -> Option<&super::state::Work> {
    match state {
        State::Updating { work, step: UpdatingStep::Announce { .. } } => Some(work),
        _ => None,
    }
}
