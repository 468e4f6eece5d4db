//! The time from signed files and answers, and what a device does not do when its files are over.
//!
//! *Stale*: the newest timestamp has expired, by the device's clock or by what an answer has just shown, so that nobody vouches for the rest any more. The
//! device keeps running and fetching; it begins no install, and none gets as far as its hooks or its boot record. A
//! trial goes on: it is judged by its probes and by answers, as always.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::digest::Digest;
use tern_protocol::message::ReportKind;

use super::agent::Agent;
use super::timing::Now;

/// The metric of a health report that says so.
const STALE: &str = "stale";

impl Agent {
    /// Tells whether the newest timestamp is over.
    pub(super) fn is_stale(&self, now: Now) -> bool {
        self.trust.timestamp_expires().is_some_and(|end| self.clock.is_over(end, now))
    }

    /// Saves the clock now and then, and says once for each timestamp that it is over.
    pub(super) fn attend_time(&mut self, now: Now) {
        if let Some(floor) = self.clock.to_save(now) {
            self.durable.time_floor = floor;
            self.saved = false;
        }
        let version = self.trust.versions().timestamp;
        if self.durable.stale_said == version || !self.is_stale(now) {
            return;
        }
        self.durable.stale_said = version;
        let rc = self.boot().map_or(0, |boot| boot.running);
        self.durable.outbox.push(ReportKind::Health { rc, metrics: BTreeMap::from([(STALE.to_owned(), 1)]) });
        self.saved = false;
    }

    /// Learns the time from the newest timestamp.
    pub(super) fn time_of_trust(&mut self, now: Now) {
        if let Some(time) = self.trust.timestamp_issued() {
            self.clock.issued(time, now);
        }
    }

    /// Forgets what was learned from keys that people have taken away: the time, and what is halted. Kept in the
    /// journal by key, so that a power cut between two saves loses no forgetting.
    pub(super) fn heed_teachers(&mut self, now: Now) {
        let (known, held) = (&self.durable.teachers, self.trust.versions());
        // Digests of keys cost more than a bundle, and this is asked with every bundle.
        if held.root <= known.root && held.targets <= known.targets {
            return;
        }
        let said = self.trust.teachers();
        let gone = |old: &BTreeSet<Digest>, new: &BTreeSet<Digest>| !old.is_subset(new);
        let mut next = known.clone();
        let (mut time, mut halt) = (false, false);
        // An older file, after the newer one was lost, takes no key away.
        if said.root > known.root {
            time |= gone(&known.timestamp, &said.timestamp);
            (next.root, next.timestamp) = (said.root, said.timestamp);
        }
        if said.targets > known.targets {
            time |= gone(&known.time, &said.time);
            halt = gone(&known.halt, &said.halt);
            (next.targets, next.time, next.halt) = (said.targets, said.time, said.halt);
        }
        if next == *known {
            return;
        }
        self.durable.teachers = next;
        self.saved = false;
        if time {
            self.clock.forget_learned(now);
        }
        if halt {
            self.durable.halted.clear();
        }
    }
}
