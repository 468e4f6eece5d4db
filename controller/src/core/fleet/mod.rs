//! Devices, products and rollouts, folded from the ledger's facts.

mod admission;
pub mod attempts;
pub(crate) mod common;
pub mod comparison;
pub mod components;
pub mod device;
mod health;
pub mod holders;
pub mod misfits;
mod packed;
pub mod product;
pub mod received;
pub mod reception;
mod reported;
pub mod roster;
pub mod tale;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ClaimId, DeviceId, FactoryId, FleetId, ProductId, RolloutId};
use tern_protocol::position::{Salt, Shuffle};
use tern_protocol::state::Outcome;
use tern_protocol::tuf::content::EntryKind;

use self::common::{Common, Commons};
use self::comparison::Comparison;
use self::components::Inventory;
use self::device::Device;
use self::product::Product;
use self::reception::Reception;
use self::roster::Roster;
use super::access::Access;
use super::enrolment::claim::{Applicant, Claim};
use super::enrolment::factory::Factory;
use super::fact::{Fact, Millis};
use super::rollout::judgement::Named;
use super::rollout::paired::Side;
use super::rollout::phase;
use super::rollout::record::{Rollout, Status};
use super::rollout::silence::Deadline;

/// Everything that the ledger says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// The fleet.
    pub id: FleetId,
    /// Its products.
    pub products: BTreeMap<ProductId, Product>,
    /// Its devices.
    pub devices: Roster,
    /// Its rollouts.
    pub rollouts: BTreeMap<RolloutId, Rollout>,
    /// Devices that wait to be let in. Nothing of them is counted, and nothing is answered.
    pub pending: BTreeMap<DeviceId, Applicant>,
    /// Claims, ended ones as well.
    pub claims: BTreeMap<ClaimId, Claim>,
    /// Factories, revoked ones as well.
    pub factories: BTreeMap<FactoryId, Factory>,
    /// The comparison with the devices that goes on after the data folder was restored; nothing is signed meanwhile.
    pub comparison: Option<Comparison>,
    /// Who may use the API.
    pub access: Access,
    /// The clock of deadlines and soaks.
    pub reception: Reception,
    /// Reports counted, for the statistics.
    pub reports: u64,
    /// What the devices' attempts share.
    #[serde(skip)]
    pub(crate) commons: Commons,
    /// Components that devices report, each list of them once.
    #[serde(skip)]
    pub(crate) inventory: Inventory,
    /// Orders of the cohorts, worked out once per rollout.
    #[serde(skip)]
    pub(crate) shuffles: Shuffles,
}

/// A cache; two fleets are the same fleet whatever has been worked out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shuffles(BTreeMap<RolloutId, Shuffle>);

impl PartialEq for Shuffles {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Shuffles {
    /// Returns the order of the cohorts in a rollout.
    pub(crate) fn of(&mut self, rollout: &RolloutId, salt: Salt) -> &Shuffle {
        self.0.entry(rollout.clone()).or_insert_with(|| Shuffle::new(salt))
    }
}

impl Fleet {
    /// Starts without anything.
    pub fn new(id: FleetId) -> Self {
        Self {
            id,
            products: BTreeMap::new(),
            devices: Roster::default(),
            rollouts: BTreeMap::new(),
            pending: BTreeMap::new(),
            claims: BTreeMap::new(),
            factories: BTreeMap::new(),
            comparison: None,
            access: Access::default(),
            reception: Reception::default(),
            reports: 0,
            commons: Commons::default(),
            inventory: Inventory::default(),
            shuffles: Shuffles::default(),
        }
    }

    /// Has devices share what they and their attempts have in common: after they were read from somewhere, when the rollouts and
    /// the clock of reception were already.
    pub(crate) fn share<'a>(&mut self, devices: impl Iterator<Item = &'a mut Device>) {
        for device in devices {
            device.components = self.inventory.share(device.components.versions());
            device.attempts.share(|id, record| {
                let common = match self.rollouts.get(id) {
                    Some(rollout) => {
                        let at = record.changed_at;
                        let now = Common::at(rollout, (record.attempt, record.phase), at, &self.reception);
                        Common::of(record, now)
                    }
                    None => Common::unknown(id.clone()),
                };
                self.commons.share(common)
            });
        }
    }

    /// The same for all devices.
    pub(crate) fn share_all(&mut self) {
        let mut devices = std::mem::take(&mut self.devices);
        self.share(devices.values_mut());
        self.devices = devices;
    }

    /// Counts the devices that a rollout covers.
    pub fn covered(&self, rollout: &Rollout) -> u64 {
        self.covered_by(rollout).count() as u64
    }

    fn covered_by(&self, rollout: &Rollout) -> impl Iterator<Item = &Device> {
        let models: Vec<_> = rollout.models.iter().cloned().collect();
        self.devices.values().filter(move |device| {
            device.is_active()
                && device.registry.product == rollout.product
                && phase::covers(&rollout.plan, &models, &device.registry)
        })
    }

    /// Tells whether a rollout makes room for what comes after it: it reaches nobody more, all who have begun have ended, and
    /// of those who have ever been here nobody is about to begin. Who is still fetching has said nothing of a release yet.
    pub fn makes_room(&self, rollout: &Rollout, now: Millis) -> bool {
        let begun = |device: &Device| {
            let attempt = device.attempts.get(&rollout.id);
            device.running >= rollout.rc || attempt.is_some_and(|attempt| attempt.started_at.is_some())
        };
        let may_begin = |device: &Device| device.seen_at.is_some() && !begun(device);
        rollout.reaches_no_more(now) && !(rollout.may_begin(now) && self.covered_by(rollout).any(may_begin))
    }

    /// Returns what is known of the devices of a phase by name; of another phase, nothing.
    pub fn named(&self, rollout: &Rollout) -> Named {
        let Some(phase) = rollout.phases.last().filter(|phase| phase.devices == phase.listed.len() as u64)
        else {
            return Named::default();
        };
        let devices = || phase.listed.iter().filter_map(|id| self.devices.get(id));
        let fresh = |device: &&Device| device.attempts.get(&rollout.id).is_none_or(|a| a.watch.is_none());
        let runs = |device: &&Device| match rollout.kind {
            EntryKind::Revert => !rollout.concerns(device.running),
            _ => device.running >= rollout.rc,
        };
        let heard = |device: &Device| device.seen_at.is_some_and(|at| at >= phase.opened_at);
        Named {
            running: devices().filter(fresh).filter(runs).count() as u64,
            away: !phase.listed.is_empty() && !devices().any(heard),
        }
    }

    /// Takes in one fact. The same facts in the same order give the same fleet.
    pub fn apply(&mut self, at: Millis, fact: &Fact) {
        match fact {
            Fact::ServiceStarted { .. } => return self.reception.restarted(at),
            _ => self.reception.pass(at),
        }
        match fact {
            Fact::ServiceStarted { .. } | Fact::Receiving => {}
            Fact::ReceptionBegan => self.reception.begin(),
            Fact::ReceptionEnded => self.reception.end(),
            Fact::DeadlinePassed { rollout, deadline, heard, silent } => {
                let found = heard.iter().map(|id| (id, false)).chain(silent.iter().map(|id| (id, true)));
                let observed = self.reception.observed(at);
                for found in found {
                    self.deadline_passed(rollout, *deadline, found, observed);
                }
            }
            Fact::TokenCreated { .. } | Fact::TokenRevoked { .. } | Fact::TokenUsed { .. } => {
                self.access.apply(at, fact);
            }
            Fact::OutageSeen { rollout, .. } => {
                if let Some(record) = self.rollouts.get_mut(rollout) {
                    record.outage = true;
                }
            }
            Fact::ProductAdded { product, files } => {
                self.products.entry(product.clone()).or_default().take(files);
            }
            Fact::DevicesAdded { .. }
            | Fact::FactoryAdded { .. }
            | Fact::FactoryRevoked { .. }
            | Fact::ClaimCreated { .. }
            | Fact::ClaimRevoked { .. }
            | Fact::Applied { .. }
            | Fact::Approved { .. }
            | Fact::Rejected { .. }
            | Fact::StandingChanged { .. }
            | Fact::IdentityReplaced { .. }
            | Fact::Enrolled { .. } => self.admission(at, fact),
            Fact::ComparisonBegan { .. } | Fact::FilesPresented { .. } | Fact::ComparisonEnded { .. } => {
                self.compared(at, fact)
            }
            // The counter binds the device, which continues above it. Numbers below it may still wait in its
            // outbox: taken as received they would be acknowledged and never counted.
            Fact::Granted { device, epoch, .. } => {
                if let Some(device) = self.devices.get_mut(device) {
                    device.epoch = *epoch;
                }
            }
            Fact::Reported { device, e, n, low, report } => self.reported(at, device, (*e, *n, *low), report),
            Fact::ReleasePublished { .. } => {}
            Fact::Signed { product, files } => {
                if let Some(product) = self.products.get_mut(product) {
                    product.take(files);
                }
            }
            Fact::RolloutStarted {
                rollout,
                product,
                rc,
                kind,
                attempt,
                salt,
                plan,
                starter,
                from,
                baseline,
                pooled,
                reserve,
            } => {
                let models = self.products.get(product).map(|p| p.models_of(*rc)).unwrap_or_default();
                let fresh = Rollout::new(rollout.clone(), product.clone(), *rc, *salt, plan.clone(), models);
                let order = self.rollouts.len() as u64;
                let record = Rollout {
                    kind: *kind,
                    attempt: *attempt,
                    order,
                    started_at: at,
                    baseline: baseline.clone(),
                    pooled: pooled.clone(),
                    reserve: *reserve,
                    from: from.clone(),
                    starter: starter.clone(),
                    ..fresh
                };
                self.rollouts.insert(rollout.clone(), record);
            }
            Fact::PhaseOpened { rollout, .. }
            | Fact::WaveOpened { rollout, .. }
            | Fact::HoldBackEnded { rollout, .. } => {
                let observed = self.reception.observed(at);
                if let Some(record) = self.rollouts.get_mut(rollout) {
                    let before = record.held_from;
                    record.widened(fact, at, observed);
                    if record.held_from != before {
                        self.release_control(rollout);
                    }
                }
            }
            Fact::PhaseApproved { rollout, phase, because } => {
                if let Some(record) = self.rollouts.get_mut(rollout) {
                    record.approved.insert(*phase);
                    record.because.clone_from(because);
                }
            }
            Fact::Tagged { devices, tag, on } => {
                for id in devices {
                    let Some(device) = self.devices.get_mut(id) else { continue };
                    if *on {
                        device.tags.insert(tag.clone())
                    } else {
                        device.tags.remove(tag)
                    };
                }
            }
            Fact::Paused { rollout, because } => self.set_status(at, rollout, Status::Paused, because),
            Fact::Resumed { rollout, because } => {
                self.set_status(at, rollout, Status::Running, because);
                let observed = self.reception.observed(at);
                if let Some(record) = self.rollouts.get_mut(rollout) {
                    record.resume(at, observed);
                    // Whoever resumes it after its time means it to go on.
                    let times = &mut record.plan.times;
                    times.end = times.end.filter(|_| !times.is_over(at));
                }
            }
            Fact::Killed { rollout, because } => {
                self.set_status(at, rollout, Status::Killed, because);
                if let Some(record) = self.rollouts.get(rollout) {
                    let rc = record.rc;
                    if let Some(product) = self.products.get_mut(&record.product) {
                        product.halted.insert(rc);
                    }
                }
            }
            Fact::RevertRefused { rollout, .. } => {
                if let Some(record) = self.rollouts.get_mut(rollout) {
                    record.revert_refused = true;
                }
            }
            Fact::Completed { rollout, because } => self.set_status(at, rollout, Status::Completed, because),
        }
    }

    /// Takes devices out of the control that are no longer held back: nobody waits for their word any more.
    fn release_control(&mut self, id: &RolloutId) {
        let Some(rollout) = self.rollouts.get_mut(id) else { return };
        let shuffle = self.shuffles.of(&rollout.id, rollout.salt);
        let beside = |device: &Device| device.attempts.get(id).is_some_and(|a| a.beside.is_some());
        let released = |name: &DeviceId| !rollout.holds(shuffle.position(name));
        let released: Vec<DeviceId> = (self.devices.iter())
            .filter(|(name, device)| beside(device) && released(name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in released {
            if let Some(device) = self.devices.get_mut(&name) {
                device.attempts.remove(id);
                rollout.leave_control(&device.registry.model);
            }
        }
    }

    /// Counts what a deadline found of one device; the first finding stands.
    fn deadline_passed(
        &mut self,
        rollout: &RolloutId,
        deadline: Deadline,
        (id, silent): (&DeviceId, bool),
        observed: Millis,
    ) {
        let (Some(device), Some(record)) = (self.devices.get_mut(id), self.rollouts.get_mut(rollout)) else {
            return;
        };
        let Some(mut attempt) = device.attempts.get_mut(rollout) else { return };
        let model = &device.registry.model;
        if let Some(beside) = &mut attempt.beside {
            beside.again(deadline, (observed, self.reception.gaps()), silent);
            return record.compare(model, deadline, (Side::Control, silent), observed);
        }
        let Some(watch) = attempt.watch.as_mut().filter(|watch| watch.found(deadline).is_none()) else {
            return;
        };
        watch.judge(deadline, silent);
        record.count_deadline(model, attempt.phase, attempt.series, deadline, silent);
        if attempt.series == record.series {
            let reached_nobody = deadline == Deadline::Last && attempt.outcome == Some(Outcome::Unreachable);
            record.compare(model, deadline, (Side::Treated, silent || reached_nobody), observed);
        }
    }

    fn set_status(&mut self, at: Millis, rollout: &RolloutId, status: Status, because: &str) {
        let Some(record) = self.rollouts.get_mut(rollout) else { return };
        // A kill is final.
        if record.status == Status::Killed {
            return;
        }
        record.status = status;
        record.because = because.to_owned();
        if matches!(status, Status::Killed | Status::Completed) {
            record.ended_at = Some(at);
        }
    }
}
