//! Who is there, by what devices and their wills say to the broker. Nobody signs it, so it may do one thing: where many
//! devices that have nothing to do with a rollout went away too, silence pauses and does not kill.
//!
//! It is not in the ledger; what is concluded from it is. After a start nothing is known until devices connect.

use std::collections::{BTreeMap, BTreeSet};

use tern_protocol::id::{DeviceId, RegionId, RolloutId, SiteId};
use tern_protocol::limits::{PRESENCE_MAX, SITE_STATUS_MAX};
use tern_protocol::message::{Presence, SiteStatus};

use super::{Fact, Service};
use crate::core::fact::Millis;
use crate::core::fleet::device::Device;
use crate::core::rollout::verdict::{KillReason, Test, Verdict};

/// Share of a region's other devices that are away in an outage: one in this many.
const AWAY: u64 = 5;
/// Fewer other devices say nothing about their region.
const OTHERS_MIN: u64 = 5;

/// What is known of each device's connection.
pub(super) type Presences = BTreeMap<DeviceId, Known>;

/// Devices that were connected to each site when it was heard last.
pub(super) type Sites = BTreeMap<SiteId, BTreeSet<DeviceId>>;

/// Sites that are remembered.
pub(super) const SITES_MAX: usize = 4096;

/// Whether a device is there, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    online: bool,
    since: Millis,
}

impl Known {
    pub(super) fn is_online(self) -> bool {
        self.online
    }
}

impl Service {
    /// A device has said hello, under its own key.
    pub(super) fn is_there(&mut self, id: &DeviceId) {
        let known = self.presences.entry(id.clone()).or_insert(Known { online: true, since: self.now });
        if !known.online {
            *known = Known { online: true, since: self.now };
        }
    }

    /// Takes what a device, or its will, says. Anybody at the broker could have said it.
    pub(super) fn present_or_away(&mut self, id: &DeviceId, payload: &[u8]) {
        if payload.len() > PRESENCE_MAX || !self.fleet.devices.contains_key(id) {
            return;
        }
        let Ok(Presence { online }) = serde_json::from_slice(payload) else { return };
        self.set_present(id, online);
    }

    /// Takes what the edge of a site, or its will, says: a site that is cut off takes its devices with it.
    pub(super) fn site_says(&mut self, site: &SiteId, payload: &[u8]) {
        let room = self.sites.len() < SITES_MAX || self.sites.contains_key(site);
        if payload.len() > SITE_STATUS_MAX || !room {
            return;
        }
        let Ok(status) = serde_json::from_slice::<SiteStatus>(payload) else { return };
        let devices = if status.online {
            self.sites.insert(site.clone(), status.seen.iter().cloned().collect());
            status.seen.into_iter().collect()
        } else {
            // What it says in its will names nobody: those that it had last.
            self.sites.get(site).cloned().unwrap_or_default()
        };
        for device in devices {
            if self.fleet.devices.contains_key(&device) {
                self.set_present(&device, status.online);
            }
        }
    }

    fn set_present(&mut self, id: &DeviceId, online: bool) {
        let known = self.presences.get(id).copied();
        if known.is_none_or(|known| known.online != online) {
            self.presences.insert(id.clone(), Known { online, since: self.now });
        }
    }

    /// Looks for an outage before silence that no control was compared with kills; what it finds is a fact.
    pub(super) fn look_for_outage(&mut self, id: &RolloutId, verdict: &Verdict) {
        let Verdict::Kill(KillReason::Evidence(evidence)) = verdict else { return };
        let silence =
            matches!(evidence.test, Test::Silence | Test::SilenceEarly) && evidence.control.is_none();
        if !silence {
            return;
        }
        if let Some((away, others)) = self.outage(id) {
            self.note(format!("rollout {id}: {away} of {others} devices outside it went away too"));
            self.record(Fact::OutageSeen { rollout: id.clone(), away, others });
        }
    }

    /// Returns how many of how many other devices are away, if that is an outage where most of the silent ones are.
    fn outage(&self, id: &RolloutId) -> Option<(u64, u64)> {
        let series = self.fleet.rollouts.get(id)?.series;
        let mut silent: BTreeMap<&RegionId, u64> = BTreeMap::new();
        let mut since = Millis::MAX;
        let active = || self.fleet.devices.iter().filter(|(_, device)| device.is_active());
        let attempt = |device: &'_ Device| device.attempts.get(id);
        for (_, device) in active() {
            let Some(attempt) = attempt(device).filter(|attempt| attempt.series == series) else { continue };
            if attempt.watch.is_some_and(|watch| watch.early == Some(true) || watch.last == Some(true)) {
                *silent.entry(&device.registry.region).or_default() += 1;
                since = since.min(attempt.started_at.unwrap_or(since));
            }
        }
        // Whoever went away before the first of them started has other reasons: every evening a third is switched off.
        let mut others: BTreeMap<&RegionId, (u64, u64)> = BTreeMap::new();
        for (name, device) in active().filter(|(_, device)| attempt(device).is_none_or(|a| a.watch.is_none()))
        {
            let Some(known) = self.presences.get(name) else { continue };
            if known.online || known.since >= since {
                let (away, all) = others.entry(&device.registry.region).or_default();
                *away += u64::from(!known.online);
                *all += 1;
            }
        }
        let out: BTreeSet<_> = others
            .iter()
            .filter(|(_, (away, all))| *all >= OTHERS_MIN && away * AWAY >= *all)
            .map(|(region, _)| *region)
            .collect();
        let in_them: u64 = silent.iter().filter(|(region, _)| out.contains(*region)).map(|(_, n)| n).sum();
        let all: u64 = silent.values().sum();
        let sums =
            out.iter().filter_map(|region| others.get(region)).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        (in_them > 0 && in_them * 2 >= all).then_some(sums)
    }
}
