//! Local work: what the state owes, started one job at a time, and what its end means.

use tern_protocol::offer::Offer;

use super::agent::{Agent, Content, Done, Held, Job, Output, Target};
use super::component::{self, COMPONENT_TRIES, target};
use super::eligibility::{self, Facts};
use super::hook::{BEFORE, HookStep};
use super::reconcile::{self, Mend, Seen};
use super::state::{Effect, Event, State};
use super::timing::Now;

/// How often a release that is well is tried to be confirmed: with the usual pauses for a quarter of an hour.
const CONFIRM_TRIES: u32 = 6;
/// How often a boot record that cannot be written is tried before a trial is left all the same.
const MENDING_TRIES: u32 = 3;
/// Boots by which a trial is left whose boot record cannot be changed. With two slots the first one does; a single slot comes
/// up with what is in it, and would for ever.
const LEAVING_TRIES: u32 = 3;
/// How often a program that boots the device is called that cannot be run, or fails: with the usual pauses for a day, as
/// whoever keeps the device up may have a reason to.
const BOOT_TRIES: u32 = 30;
/// How often a slot that cannot be read back is tried before it counts as not holding what was written.
const HASH_TRIES: u32 = 3;

impl Agent {
    pub(super) fn done(&mut self, job: u64, result: Done, now: Now) {
        let Some((_, work)) = self.job.take_if(|(number, _)| *number == job) else { return };
        let (work, result) = match self.mended(work, result, now) {
            Some(open) => open,
            None => return,
        };
        let failed = |result: Done| match result {
            Done::Failed(reason) | Done::NotNow(reason) => reason,
            _ => "it did not say why".to_owned(),
        };
        let (work, result) = match (work, result) {
            (Job::Look(_), Done::Looked(around)) => {
                self.job_retry.reset();
                self.job_failures = 0;
                self.looked(around, now);
                return self.evaluate(now);
            }
            (Job::RunHooks(step), result) => {
                self.job_retry.reset();
                self.job_failures = 0;
                if let Some(event) = self.hooks_ended(step, result) {
                    self.step(&event, now);
                }
                return self.evaluate(now);
            }
            (
                Job::Install { component, .. } | Job::Revert(component) | Job::Keep(component),
                Done::Component(facts),
            ) => {
                self.job_retry.reset();
                self.job_failures = 0;
                self.component_is(&component, *facts, now);
                return self.evaluate(now);
            }
            other => other,
        };
        if matches!(work, Job::Decode(_) | Job::Compare { .. }) {
            self.job_retry.reset();
            self.job_failures = 0;
            if let Some(event) = self.fetch_ended(work, result) {
                self.step(&event, now);
            }
            return self.evaluate(now);
        }
        let event = match (work, result) {
            (Job::MarkBad(target), Done::Ok) => {
                self.set_content(&target, Content::Bad);
                Event::SlotMarked
            }
            (Job::Install { component, .. }, Done::NotNow(reason)) => {
                self.install_postponed(&component, &reason)
            }
            (Job::Install { component, .. }, result) => {
                Event::InstallFailed(format!("component {component}: {}", failed(result)))
            }
            (Job::Sync(_, chunks), Done::Ok) => Event::Written(chunks),
            (Job::MarkBad(_) | Job::Sync(..), result) => {
                self.fetch = None;
                Event::WriteFailed(failed(result))
            }
            (Job::Hash { target, artifact, .. }, Done::Ok) => {
                self.set_content(&target, Content::Whole(Held::of(&artifact)));
                Event::Hashed { matches: true }
            }
            (Job::Hash { target, .. }, Done::Mismatch) => {
                // Whatever its label says.
                self.set_content(&target, Content::Unknown);
                Event::Hashed { matches: false }
            }
            (Job::UndoHooks, Done::Ok) => {
                self.hooks_undone();
                Event::Undone
            }
            (Job::UndoHooks, result) => {
                let reason = failed(result);
                if self.undo_is_tried_again() {
                    return self.put_off(&Job::UndoHooks, reason, now);
                }
                // A hook that cannot be undone must not hold the device where it is; but it is told.
                self.give_up_undo(&reason);
                Event::Undone
            }
            (Job::Arm { .. }, Done::Ok) => Event::Armed,
            (Job::Arm { .. }, result) => Event::ArmFailed(failed(result)),
            (Job::Disarm, Done::Ok) => match &mut self.boot {
                Some(boot) => {
                    self.durable.leaving = 0;
                    boot.trial = None;
                    Event::Disarmed { running: boot.slot }
                }
                None => return,
            },
            (Job::Probe, Done::Ok) => Event::ProbesPassed,
            (Job::Probe, result) => Event::ProbeFailed(failed(result)),
            (Job::Confirm(_), Done::Ok) => Event::Confirmed,
            (
                work @ (Job::Hash { .. }
                | Job::Disarm
                | Job::Confirm(_)
                | Job::Reboot
                | Job::Revert(_)
                | Job::Keep(_)
                | Job::Look(_)
                | Job::Decode(_)
                | Job::Compare { .. }
                | Job::RunHooks(_)),
                result,
            ) => {
                // The medium would not do it now; nothing is decided, so try again later.
                let reason = failed(result);
                self.put_off(&work, reason.clone(), now);
                if matches!(work, Job::Revert(_) | Job::Keep(_)) && self.job_failures >= COMPONENT_TRIES {
                    return self.goes_on_without(&work, &reason, now);
                }
                match &self.boot {
                    Some(_) if matches!(work, Job::Confirm(_)) && self.job_failures >= CONFIRM_TRIES => {
                        Event::ConfirmFailed(reason)
                    }
                    Some(boot) if work == Job::Disarm && self.job_failures >= MENDING_TRIES => {
                        Event::DisarmFailed { running: boot.slot, reason }
                    }
                    // A worn sector reads no better later; written anew the medium may put another in its place.
                    _ if matches!(work, Job::Hash { .. }) && self.job_failures >= HASH_TRIES => {
                        Event::Hashed { matches: false }
                    }
                    // What nobody can boot is not left armed.
                    _ if self.is_armed(&work) && self.job_failures >= BOOT_TRIES => {
                        Event::ArmFailed(format!("the device could not be told to boot: {reason}"))
                    }
                    _ => return,
                }
            }
        };
        if !matches!(event, Event::DisarmFailed { .. } | Event::ConfirmFailed(_)) {
            self.job_retry.reset();
            self.job_failures = 0;
        }
        self.step(&event, now);
        if event == Event::Confirmed {
            self.confirmed();
        }
        self.evaluate(now);
    }

    /// Tells whether it is the boot into a trial that is asked for.
    fn is_armed(&self, work: &Job) -> bool {
        *work == Job::Reboot && matches!(self.durable.state, State::Updating { .. })
    }

    fn set_content(&mut self, target: &Target, content: Content) {
        let Some(boot) = &mut self.boot else { return };
        match target {
            Target::Slot(slot) => boot.contents[*slot as usize] = content,
            Target::Component(name) => {
                if let Some(facts) = boot.components.get_mut(name) {
                    facts.held = if let Content::Whole(held) = content { Some(held) } else { None };
                }
            }
        }
    }

    /// A component that cannot be settled must not hold the device where it is; it is said, and tried again later.
    fn goes_on_without(&mut self, work: &Job, reason: &str, now: Now) {
        self.give_up(work, reason, now);
        (self.job_failures, self.job_not_before) = (0, 0);
        self.job_retry.reset();
        self.evaluate(now);
    }

    /// Tells whether what is to be fetched is there already.
    fn held(&self) -> Option<Event> {
        let (State::Downloading { work, at, .. }, Some(boot)) = (&self.durable.state, &self.boot) else {
            return None;
        };
        let artifact = work.offer.artifacts.get(*at)?;
        let held = match target(work.slot, &work.offer.artifacts, *at) {
            Target::Slot(slot) => boot.contents[slot as usize] == Content::Whole(Held::of(artifact)),
            Target::Component(name) => {
                boot.components.get(&name).is_some_and(|it| it.held == Some(Held::of(artifact)))
            }
        };
        held.then_some(Event::Held)
    }

    /// Notes that something could not be done; it is tried again after a pause that grows.
    fn put_off(&mut self, work: &Job, reason: String, now: Now) {
        self.job_not_before = now.uptime + self.job_retry.step();
        self.job_failures += 1;
        self.out.push(Output::Failing { work: work.clone(), reason, times: self.job_failures });
    }

    /// Takes the end of a job that mends the boot record; hands back any other.
    fn mended(&mut self, work: Job, result: Done, now: Now) -> Option<(Job, Done)> {
        let Some(mend) = self.mend else { return Some((work, result)) };
        if self.mending(mend) != work {
            return Some((work, result));
        }
        if let Done::Failed(reason) | Done::NotNow(reason) = result {
            self.put_off(&work, reason, now);
            // What was left would be back with the next boot, and the report that it is gone no longer true.
            let must_be = mend == Mend::Adopt && matches!(self.durable.state, State::Rollback { .. });
            if self.job_failures >= MENDING_TRIES && !must_be {
                // No slot that the record names is ever written, so nothing is lost by going on; but a trial that runs
                // is left also so: its boots are used up, and then the boot loader goes back.
                self.mend = (mend == Mend::Leave && work == Job::Disarm).then(|| {
                    self.forget_trial();
                    self.job_failures = 0;
                    Mend::Leave
                });
            }
            return None;
        }
        self.job_retry.reset();
        self.job_failures = 0;
        match (mend, work) {
            (Mend::Leave, Job::Disarm) => self.forget_trial(),
            (Mend::Adopt, Job::Confirm(slot)) => {
                if let Some(boot) = &mut self.boot {
                    boot.active = slot;
                }
                self.forget_trial();
                self.mend = None;
            }
            _ => {
                self.forget_trial();
                self.mend = None;
            }
        }
        self.evaluate(now);
        None
    }

    fn forget_trial(&mut self) {
        if let Some(boot) = &mut self.boot {
            boot.trial = None;
        }
    }

    /// Returns the job that mends the boot record.
    fn mending(&self, mend: Mend) -> Job {
        match (mend, &self.boot) {
            (Mend::Adopt, Some(boot)) => Job::Confirm(boot.slot),
            (Mend::Leave, Some(boot)) if boot.trial.is_none() => Job::Reboot,
            _ => Job::Disarm,
        }
    }

    /// Judges the open check and starts what the state owes.
    pub(super) fn attend_work(&mut self, now: Now) {
        if let Some(mend) = self.mend {
            self.fetch = None;
            return self.start(self.mending(mend), now);
        }
        loop {
            let owed = self.durable.state.owes(self.stamp(now), &self.settings.timing);
            let judged = match owed {
                Some(Effect::Check) => self.check(now),
                Some(Effect::RunHooks) => self.hooks_never_end(&BEFORE).or_else(|| self.hooks_are_done()),
                Some(Effect::Probe) => self.hooks_never_end(&[HookStep::PostBoot]),
                Some(Effect::MarkBad) => self.held(),
                Some(Effect::Install) => self.installed(now),
                Some(Effect::Disarm | Effect::Reboot) => self.no_way_back(),
                Some(Effect::UndoHooks) if self.component_owed().is_none() => self.undo_is_over(),
                _ => None,
            };
            match judged {
                Some(event) => self.step(&event, now),
                None if matches!(owed, Some(Effect::Check | Effect::Install)) => return,
                None => return self.attend_effect(owed, now),
            }
        }
    }

    /// Sees that a rollback has nowhere to go, before it gives up what boots.
    fn no_way_back(&self) -> Option<Event> {
        let seen = self.boot.as_ref()?.seen();
        let is_stuck = reconcile::has_no_way_back(&self.durable.state, &seen) || self.cannot_leave(&seen);
        is_stuck.then_some(Event::NoWayBack)
    }

    /// Judges whether this device may run a release, now.
    pub(super) fn eligible(&self, offer: &Offer) -> Option<Event> {
        let boot = self.boot.as_ref()?;
        let facts = Facts {
            running: boot.running,
            floor: self.durable.floor,
            model: &self.settings.registry.model,
            component: &self.settings.component,
            components: &self.durable.components,
            others: &boot.components,
            unsettled: self.unsettled(),
            capacity: boot.capacity,
            inactive: match boot.contents[boot.slot.other() as usize] {
                Content::Whole(held) => Some((held.root, held.length)),
                Content::Bad | Content::Unknown => None,
            },
        };
        Some(eligibility::judge(offer, &facts))
    }

    fn attend_effect(&mut self, owed: Option<Effect>, now: Now) {
        let (Some(effect), Some(work)) = (owed, self.durable.state.work().cloned()) else {
            self.fetch = None;
            if self.component_owed().is_none() && self.hooks_owed() == Some(Job::UndoHooks) {
                // Nothing waits for it here: the attempt is over.
                let _concluded = self.undo_is_over();
            }
            self.telling_never_ends();
            match self.component_owed().or_else(|| self.hooks_owed()) {
                Some(job) => self.start(job, now),
                None => self.job = None,
            }
            return;
        };
        if effect != Effect::Fetch {
            self.fetch = None;
        }
        let at = self.durable.state.at();
        let Some(artifact) = work.offer.artifacts.get(at) else { return };
        let target = target(work.slot, &work.offer.artifacts, at);
        let rc = work.offer.attempt.rc;
        let job = match effect {
            Effect::Check | Effect::Install | Effect::Ask | Effect::Announce | Effect::Soak => {
                let looking = matches!(self.job, Some((_, Job::Look(_)))) && self.holds_ask(now);
                if !looking && !self.attend_look(now) {
                    self.job = None;
                }
                return;
            }
            Effect::Fetch => return self.attend_download(now),
            Effect::MarkBad => Job::MarkBad(target),
            Effect::Hash => {
                let version = component::version(artifact, &work.offer);
                Job::Hash { target, artifact: artifact.clone(), rc, version }
            }
            Effect::RunHooks => return self.attend_before(now),
            Effect::UndoHooks => self.component_owed().unwrap_or(Job::UndoHooks),
            Effect::Arm => Job::Arm { slot: work.slot, rc },
            Effect::Reboot => Job::Reboot,
            Effect::Disarm => Job::Disarm,
            Effect::Probe if self.attend_hooks(&[HookStep::PostBoot], now) => return,
            Effect::Probe => Job::Probe,
            Effect::Confirm => Job::Confirm(work.slot),
        };
        self.start(job, now);
    }

    /// Tells whether more boots would lead nowhere: the release that is not well runs on, and the device can be reached.
    fn cannot_leave(&self, seen: &Seen) -> bool {
        let State::Rollback { work, .. } = &self.durable.state else { return false };
        // Where the record could be changed it is the boot that is missing, and that is asked for again and again.
        work.slot == seen.slot && seen.trial.is_some() && self.durable.leaving >= LEAVING_TRIES
    }

    pub(super) fn start(&mut self, work: Job, now: Now) {
        if work == Job::Reboot && now.uptime < self.boot_not_before {
            self.job = None;
            return;
        }
        if self.job.as_ref().is_some_and(|(_, running)| *running == work) || now.uptime < self.job_not_before
        {
            return;
        }
        match work {
            Job::UndoHooks => self.undo_begins(),
            Job::RunHooks(step) => self.hooks_begin(step),
            _ => {}
        }
        if work == Job::Reboot && matches!(self.durable.state, State::Rollback { .. }) {
            self.durable.leaving += 1;
            self.saved = false;
        }
        self.jobs += 1;
        self.job = Some((self.jobs, work.clone()));
        self.out.push(Output::Start { job: self.jobs, work });
    }

    fn confirmed(&mut self) {
        // What was on trial is now what runs; the boot record says so, and so will the next start.
        if let Some(boot) = &mut self.boot {
            boot.trial = None;
            boot.active = boot.slot;
        }
    }
}
