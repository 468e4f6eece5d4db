//! Signed files in, offers and kills out.

use tern_protocol::digest::Digest;
use tern_protocol::limits::{ENTRIES_MAX, GET_WANTS_MAX};
use tern_protocol::message::{Get, Registry, Want};
use tern_protocol::offer::{self, Selection, select_by};
use tern_protocol::position::position;
use tern_protocol::topic::{Topic, UpKind};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::content::EntryKind;

use super::agent::{Agent, Output};
use super::component::{changes_component, fitted};
use super::state::{Event, State};
use super::timing::{Backoff, Now};

/// Everything but root, which is asked for by version.
const NEWEST: [(Role, Option<u32>); 6] = [
    (Role::Timestamp, None),
    (Role::Snapshot, None),
    (Role::Targets, None),
    (Role::Release, None),
    (Role::Rollout, None),
    (Role::Halt, None),
];

/// What the device still lacks, and when it asks for it.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    files: Vec<(Role, Option<u32>)>,
    ask_at: u64,
    repeat: Backoff,
    /// A `head` is among what cannot be read, and that was heeded.
    soon: bool,
}

impl Agent {
    /// Retained files are awaited from here; without a whole set by then the device subscribes again and asks.
    pub(super) fn retained_from(&mut self, now: Now) {
        let timing = &self.settings.timing;
        if self.trust.current().is_none() {
            let repeat = Backoff::new(timing.get_first, timing.get_most);
            let ask_at = now.uptime + timing.retained_wait;
            self.missing = Some(Missing { files: Vec::new(), ask_at, repeat, soon: false });
        } else if let Some(missing) = &mut self.missing {
            missing.ask_at = missing.ask_at.min(now.uptime + timing.retained_wait);
        }
    }

    pub(super) fn trust_due(&self) -> u64 {
        match &self.missing {
            Some(missing) if self.exchange.is_up() => missing.ask_at,
            _ => u64::MAX,
        }
    }

    /// Takes a bundle from wherever it came; what is old or bad changes nothing.
    pub(super) fn bundle(&mut self, topic: &Topic, payload: &[u8], now: Now) {
        let files = self.reader.read(&self.trust, topic, payload);
        if files.is_empty() && self.reader.awaited().is_none() {
            return;
        }
        // What waits for targets was asked for with them: without, this answers something else.
        let brings = files.iter().any(|file| file.role == Role::Targets);
        let answered = matches!(topic, Topic::DeviceIn(_)) && brings;
        files.into_iter().for_each(|file| self.pool.add(file));
        self.refresh(now);
        // A chunk server has sent the newest that there is: what waits still is for nobody.
        if answered && self.reader.awaited().is_some() {
            self.reader.forget();
            self.refresh(now);
        }
    }

    fn refresh(&mut self, now: Now) {
        let (mut changed, mut refused) = (false, Vec::new());
        let missing = loop {
            // Roots first: what the clock owes to a key that they take away must not judge what comes with them.
            let mut refresh = self.trust.refresh_root(&mut self.pool);
            self.heed_teachers(now);
            let (time, latest) = (self.clock.now(now), self.clock.latest_issue(now));
            let rest = self.trust.refresh_issued_by(&mut self.pool, time, latest);
            refresh.changed.extend(rest.changed);
            refresh.refused.extend(rest.refused);
            changed |= !refresh.changed.is_empty();
            refused.extend(refresh.refused);
            self.heed_teachers(now);
            self.time_of_trust(now);
            let renewed = refresh.changed.iter().any(|role| matches!(role, Role::Root | Role::Targets));
            let files = if renewed { self.reader.read_again(&self.trust) } else { Vec::new() };
            if files.is_empty() {
                break rest.missing;
            }
            files.into_iter().for_each(|file| self.pool.add(file));
        };
        if changed {
            self.out.insert(0, Output::SaveTrust(self.trust.files()));
        }
        self.note_missing(missing, now);
        let refused = refused.into_iter().map(|(role, error)| Output::Refused { role, error });
        self.out.extend(refused);
        let held = self.trust.versions();
        if self.exchange.behind.is_some_and(|(rollout, halt)| rollout <= held.rollout && halt <= held.halt) {
            self.exchange.behind = None;
            self.exchange.ask_anew();
        }
        self.evaluate(now);
    }

    /// With an open attempt what is missing is asked for at once, otherwise within half a heartbeat.
    fn note_missing(&mut self, files: Vec<(Role, Option<u32>)>, now: Now) {
        // Whatever else is missing: what names newer files may be among what cannot be read.
        if self.reader.awaited().is_some() {
            self.note_unread(now);
            return;
        }
        if files.is_empty() {
            if self.trust.current().is_some() && self.exchange.behind.is_none() && !self.is_stale(now) {
                self.missing = None;
            }
            return;
        }
        let timing = &self.settings.timing;
        let wait = self.calm();
        match &mut self.missing {
            Some(missing) if missing.files == files => {}
            missing => {
                let repeat = Backoff::new(timing.get_first, timing.get_most);
                *missing = Some(Missing { files, ask_at: now.uptime + wait, repeat, soon: false });
            }
        }
    }

    /// A bundle waits for a root or targets that are not here. Where many devices lack them `head` carries them and needs no
    /// dictionary; if they do not come, everything is asked for. A `head` that cannot be read may hold a kill, and few
    /// devices have to ask for that: it is asked for soon.
    fn note_unread(&mut self, now: Now) {
        let Some(awaited) = self.reader.awaited() else { return };
        // Nobody has signed what the bundle says about its dictionary, so it moves a request by two roots at most.
        let roots = (self.trust.versions().root.saturating_add(1)..=awaited.root).take(2);
        let mut files: Vec<_> = roots.map(|version| (Role::Root, Some(version))).collect();
        files.extend(NEWEST);
        let repeat = Backoff::new(self.settings.timing.get_first, self.settings.timing.get_most);
        let soon = self.reader.awaits_head();
        let calm = if soon { 0 } else { self.calm() };
        let wait = calm.max(self.settings.timing.retained_wait);
        let ask_at = now.uptime + wait;
        let missing = self.missing.get_or_insert(Missing { files: Vec::new(), ask_at, repeat, soon: false });
        // What waits for half a heartbeat has become urgent.
        if soon && !missing.soon {
            missing.soon = true;
            missing.ask_at = missing.ask_at.min(ask_at);
        }
        missing.files = files;
    }

    /// With an open attempt, or with no whole set, there is no time to lose; otherwise a fleet asks over half a heartbeat.
    fn calm(&self) -> u64 {
        // Who waits for the night has time, and a fleet of those must not ask at once.
        let open = self.durable.state.open().is_some() && self.durable.waiting.is_none();
        if open || self.trust.current().is_none() {
            return 0;
        }
        let hash = Digest::of(self.settings.device.as_str().as_bytes()).short() >> 32;
        (self.settings.timing.heartbeat / 2).saturating_mul(hash) >> 32
    }

    /// Asks for missing files when that is due.
    pub(super) fn attend_trust(&mut self, now: Now) {
        if self.exchange.behind.is_some() && self.missing.is_none() {
            let repeat = Backoff::new(self.settings.timing.get_first, self.settings.timing.get_most);
            self.missing = Some(Missing { files: Vec::new(), ask_at: now.uptime, repeat, soon: false });
        }
        if self.missing.is_none() && self.is_stale(now) {
            // For as long as the service is silent nobody has anything newer: ask seldom.
            let timing = &self.settings.timing;
            let repeat = Backoff::new(timing.get_most, timing.heartbeat.max(timing.get_most));
            self.missing =
                Some(Missing { files: Vec::new(), ask_at: now.uptime + self.calm(), repeat, soon: false });
        }
        if !self.exchange.is_up() {
            return;
        }
        if self.missing.as_ref().is_none_or(|missing| now.uptime < missing.ask_at) {
            return;
        }
        // Hashes every file that is held: only when something is asked for.
        let whole = self.trust.current().is_some();
        let product = self.registry().product.clone();
        let Some(missing) = &mut self.missing else { return };
        missing.ask_at = now.uptime + missing.repeat.step();
        let mut files = missing.files.clone();
        if files.is_empty() {
            // Nothing names what is missing, so ask for the newest of everything.
            files = NEWEST.into();
        }
        let want = files
            .into_iter()
            .take(GET_WANTS_MAX)
            .map(|(role, version)| {
                let version = version.filter(|_| role == Role::Root);
                Want::File { product: product.clone(), role, version }
            })
            .collect::<Vec<_>>();
        if !whole {
            self.out.push(Output::ListenAgain);
        }
        let topic = Topic::Up(self.settings.device.clone(), UpKind::Get);
        let get = Get { want, dictionary: self.reader.held(&self.trust) };
        self.out.push(Output::Publish { topic, payload: get.write() });
    }

    /// Draws the conclusions from the trusted files: kills first, then what is offered.
    pub(super) fn evaluate(&mut self, now: Now) {
        let halted = self.trust.halted();
        if !halted.is_subset(&self.durable.halted) {
            self.durable.halted.extend(halted);
            self.saved = false;
        }
        if self.job.as_ref().is_some_and(|(_, job)| changes_component(job)) {
            // Seen when it has ended: half a modem is none.
            return;
        }
        let open_rc = self.durable.state.open().map(|work| work.offer.attempt.rc);
        if open_rc.is_some_and(|rc| self.durable.halted.contains(&rc)) {
            self.step(&Event::Halted, now);
        }
        let Some(selection) = self.selection() else { return };
        self.consider_control(&selection, now);
        let offered = match selection {
            Selection::Offer(offer) if !self.durable.halted.contains(&offer.attempt.rc) => Some(offer),
            _ => None,
        };
        let stays = match (&offered, self.durable.state.open()) {
            (_, None) => true,
            (Some(offer), Some(work)) => offer.attempt == work.offer.attempt,
            (None, Some(_)) => false,
        };
        if !stays {
            self.step(&Event::Withdrawn, now);
        }
        let Some(boot) = self.boot() else { return };
        let Some(offer) = offered.filter(|offer| wants(offer, boot.running)) else {
            return self.waits_for_nothing();
        };
        let slot = boot.slot.other();
        let waiting = matches!(self.durable.state, State::Idle { .. } | State::Failed { .. });
        let owes = self.hooks_owed().is_some() || self.component_owed().is_some();
        if waiting && !self.done_with(&offer) && !self.is_stale(now) && !owes {
            let offer = fitted(offer, &self.settings.component, boot, &self.durable.components);
            self.step(&Event::Offered { offer, slot }, now);
        }
    }

    /// Works out what the trusted files offer. Kept until they or the registry change, for this is asked after every job;
    /// and a position costs a thousand hashes, but stays the same as long as its rollout.
    fn selection(&mut self) -> Option<Selection> {
        let (versions, registry) = (self.trust.versions(), self.registry());
        let running = self.boot().map_or(0, |boot| boot.running);
        if let Some((of, by, to, selection)) = &self.selected
            && (*of, by, *to) == (versions, registry, running)
        {
            return selection.clone();
        }
        let registry = registry.clone();
        let selection = self.select(&registry);
        self.selected = Some((versions, registry, running, selection.clone()));
        selection
    }

    fn select(&mut self, registry: &Registry) -> Option<Selection> {
        let current = self.trust.current()?;
        let device = offer::Device {
            id: &self.settings.device,
            product: &registry.product,
            model: &registry.model,
            carrier: &registry.carrier,
            region: &registry.region,
            running: self.boot.as_ref().map_or(0, |boot| boot.running),
        };
        let positions = &mut self.positions;
        Some(select_by(&current, &device, |salt| {
            if let Some((_, known)) = positions.iter().find(|(of, _)| *of == salt) {
                return *known;
            }
            let found = position(salt, device.id);
            if positions.len() == ENTRIES_MAX {
                positions.remove(0);
            }
            positions.push((salt, found));
            found
        }))
    }

    /// The same attempt is not begun twice: what was confirmed runs, what was given up stays given up.
    fn done_with(&self, offer: &offer::Offer) -> bool {
        self.boot().is_some_and(|boot| boot.running == offer.attempt.rc)
    }
}

/// A base or an update only raises the release; going back needs an entry of kind `revert`, and one that names the
/// release to be left.
pub(super) fn wants(offer: &offer::Offer, running: u64) -> bool {
    let rc = offer.attempt.rc;
    match offer.kind {
        EntryKind::Update | EntryKind::Base => rc > running,
        EntryKind::Revert => rc != running && (offer.from.is_empty() || offer.from.contains(&running)),
    }
}
