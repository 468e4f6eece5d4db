//! Local work: what the state owes, started one job at a time, and what its end means.

use tern_protocol::offer::{Artifact, Offer};
use tern_protocol::topic::{Topic, UpKind};

use super::agent::{Agent, Done, Job, Output};
use super::download::Download;
use super::eligibility::{self, Facts};
use super::hook::HookStep;
use super::state::{Effect, Event, State};
use super::timing::Now;

impl Agent {
    pub(super) fn done(&mut self, job: u64, result: Done, now: Now) {
        let Some((_, work)) = self.job.take_if(|(number, _)| *number == job) else { return };
        let failed = |result: Done| match result {
            Done::Failed(reason) | Done::NotNow(reason) => reason,
            Done::Ok | Done::Mismatch | Done::Looked(_) => "it did not say why".to_owned(),
        };
        let (work, result) = match (work, result) {
            (Job::Look(_), Done::Looked(around)) => {
                self.job_retry.reset();
                self.looked(around, now);
                return self.evaluate(now);
            }
            (Job::RunHooks(step), result) => {
                self.job_retry.reset();
                if let Some(event) = self.hooks_ended(step, result) {
                    self.step(&event, now);
                }
                return self.evaluate(now);
            }
            other => other,
        };
        let event = match (work, result) {
            (Job::MarkBad(_), Done::Ok) => {
                self.set_inactive(None);
                Event::SlotMarked
            }
            (Job::Sync(_, chunks), Done::Ok) => Event::Written(chunks),
            (Job::MarkBad(_) | Job::Sync(..), result) => {
                self.download = None;
                Event::WriteFailed(failed(result))
            }
            (Job::Hash { artifact, .. }, Done::Ok) => {
                self.set_inactive(Some(artifact));
                Event::Hashed { matches: true }
            }
            (Job::Hash { .. }, Done::Mismatch) => Event::Hashed { matches: false },
            // A hook that cannot be undone must not hold the device where it is.
            (Job::UndoHooks, _) => {
                self.hooks_undone();
                Event::Undone
            }
            (Job::Arm { .. }, Done::Ok) => Event::Armed,
            (Job::Arm { .. }, result) => Event::ArmFailed(failed(result)),
            (Job::Disarm, Done::Ok) => match &self.boot {
                Some(boot) => Event::Disarmed { running: boot.slot },
                None => return,
            },
            (Job::Probe, Done::Ok) => Event::ProbesPassed,
            (Job::Probe, result) => Event::ProbeFailed(failed(result)),
            (Job::Confirm(_), Done::Ok) => Event::Confirmed,
            (
                Job::Hash { .. }
                | Job::Disarm
                | Job::Confirm(_)
                | Job::Reboot
                | Job::Look(_)
                | Job::RunHooks(_),
                _,
            ) => {
                // The medium would not do it now; nothing is decided, so try again later.
                self.job_not_before = now.uptime + self.job_retry.step();
                return;
            }
        };
        self.job_retry.reset();
        self.step(&event, now);
        if event == Event::Confirmed {
            self.confirmed();
        }
        self.evaluate(now);
    }

    fn set_inactive(&mut self, artifact: Option<Artifact>) {
        if let Some(boot) = &mut self.boot {
            boot.inactive = artifact;
        }
    }

    /// Judges the open check and starts what the state owes.
    pub(super) fn attend_work(&mut self, now: Now) {
        loop {
            let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
            let judged = match owed {
                Some(Effect::Check) => self.check(now),
                Some(Effect::RunHooks) => self.hooks_are_done(),
                _ => None,
            };
            match judged {
                Some(event) => self.step(&event, now),
                None if owed == Some(Effect::Check) => return,
                None => return self.attend_effect(owed, now),
            }
        }
    }

    /// Judges whether this device may run a release, now.
    pub(super) fn eligible(&self, offer: &Offer) -> Option<Event> {
        let boot = self.boot.as_ref()?;
        let facts = Facts {
            running: boot.running,
            floor: self.durable.floor,
            model: &self.settings.registry.model,
            component: &self.settings.component,
            capacity: boot.capacity,
            inactive: boot.inactive.as_ref().map(|artifact| (artifact.root, artifact.length)),
        };
        Some(eligibility::judge(offer, &facts))
    }

    fn attend_effect(&mut self, owed: Option<Effect>, now: Now) {
        let (Some(effect), Some(work)) = (owed, self.durable.state.work().cloned()) else {
            self.download = None;
            match self.hooks_owed() {
                Some(job) => self.start(job, now),
                None => self.job = None,
            }
            return;
        };
        if effect != Effect::Fetch {
            self.download = None;
        }
        let Some(artifact) = work.offer.artifacts.first() else { return };
        let rc = work.offer.attempt.rc;
        let job = match effect {
            Effect::Check | Effect::Ask | Effect::Announce | Effect::Soak => {
                let looking = matches!(self.job, Some((_, Job::Look(_)))) && self.holds_ask(now);
                if !looking && !self.attend_look(now) {
                    self.job = None;
                }
                return;
            }
            Effect::Fetch => return self.attend_download(now),
            Effect::MarkBad => Job::MarkBad(work.slot),
            Effect::Hash => Job::Hash {
                slot: work.slot,
                artifact: artifact.clone(),
                rc,
                version: work.offer.version.clone(),
            },
            Effect::RunHooks => return self.attend_before(now),
            Effect::UndoHooks => Job::UndoHooks,
            Effect::Arm => Job::Arm { slot: work.slot, rc },
            Effect::Reboot => Job::Reboot,
            Effect::Disarm => Job::Disarm,
            Effect::Probe if self.attend_hooks(&[HookStep::PostBoot], now) => return,
            Effect::Probe => Job::Probe,
            Effect::Confirm => Job::Confirm(work.slot),
        };
        self.start(job, now);
    }

    pub(super) fn start(&mut self, work: Job, now: Now) {
        if self.job.as_ref().is_some_and(|(_, running)| *running == work) || now.uptime < self.job_not_before
        {
            return;
        }
        self.jobs += 1;
        self.job = Some((self.jobs, work.clone()));
        self.out.push(Output::Start { job: self.jobs, work });
    }

    fn attend_download(&mut self, now: Now) {
        let State::Downloading { work, have, .. } = &self.durable.state else { return };
        let (slot, Some(artifact)) = (work.slot, work.offer.artifacts.first().cloned()) else { return };
        if !self.download.as_ref().is_some_and(|d| d.is_of(&artifact)) {
            let mut download = Download::new(&artifact, have, &self.settings.timing);
            download.wait_until(now.uptime + self.spread(work.offer.spread));
            self.download = Some(download);
        }
        let Some(download) = &mut self.download else { return };
        if self.exchange.is_up()
            && !self.hold.download
            && let Some(get) = download.request(now.uptime)
        {
            let topic = Topic::Up(self.settings.device.clone(), UpKind::Get);
            self.out.push(Output::Publish { topic, payload: get.write() });
        }
        if !matches!(self.job, Some((_, Job::Sync(..))))
            && let Some(chunks) = download.to_sync()
        {
            self.start(Job::Sync(slot, chunks), now);
        }
        if self.job.is_none() {
            self.attend_look(now);
        }
    }

    /// A device waits hash × spread before its first `get`, so that a wave does not ask all at once.
    fn spread(&self, seconds: u32) -> u64 {
        let hash = tern_protocol::digest::Digest::of(self.settings.device.as_str().as_bytes()).short();
        // The upper half of the hash as a fraction of 2³².
        (u64::from(seconds) * 1000 * (hash >> 32)) >> 32
    }

    fn confirmed(&mut self) {
        // What was on trial is now what runs; the boot record says so, and so will the next start.
        if let Some(boot) = &mut self.boot {
            boot.armed = false;
        }
    }
}
