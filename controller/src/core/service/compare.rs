//! After a restore or loss of the data folder: nothing is signed until the service knows what its devices know.
//!
//! Two things begin a comparison by themselves: an authenticated hello that claims more than the service has, and a
//! data folder that is a copy (the shell sees that). While it goes on, reports are recorded and acknowledged, no nonce
//! is answered, so nothing is armed, and nothing is signed but kills. Only what is signed is believed.

use std::collections::BTreeMap;

use tern_protocol::id::{DeviceId, ModelId, ProductId};
use tern_protocol::message::Hello;
use tern_protocol::position::{Cut, Position};
use tern_protocol::tuf::Role;
use tern_protocol::tuf::content::listed;

use super::command::{Command, Outcome, refuse};
use super::present::ASKS_ENOUGH;
use super::{Fact, RefusalKind, Reply, Service};
use crate::core::fleet::comparison::Claim;
use crate::core::fleet::device::Standing;
use crate::core::rollout::phase;
use crate::core::rollout::record::{Rollout, Status};

/// Heartbeats for which devices are listened to.
const HEARTBEATS: u64 = 2;

/// How far a comparison is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// When it ends by itself at the earliest, Unix time in milliseconds.
    pub until: u64,
    /// Active devices that can be heard: enrolled ones.
    pub devices: u64,
    /// Devices that said hello and claim nothing more than the service has.
    pub compared: u64,
    /// Devices that claim more and were not asked often enough yet.
    pub waiting: Vec<DeviceId>,
    /// Devices that claim more and present nothing to prove it.
    pub unproved: Vec<DeviceId>,
    /// Files that people signed, that are known to exist and that nobody has presented.
    pub lacking: Vec<(ProductId, Role, u32)>,
}

impl Command {
    /// Tells whether it must wait for the end of a comparison. Stopping never waits.
    pub(super) fn waits(&self) -> bool {
        matches!(
            self,
            Self::PublishRelease { .. }
                | Self::Start { .. }
                | Self::Resume(_)
                | Self::Promote { .. }
                | Self::ApprovePhase { .. }
                | Self::Revert { .. }
        )
    }
}

impl Service {
    /// Tells whether the service compares itself with its devices.
    pub fn is_comparing(&self) -> bool {
        self.fleet.comparison.is_some()
    }

    /// Refuses what would have to be signed meanwhile.
    pub(super) fn unless_comparing(&self, command: &Command) -> Result<(), super::Refusal> {
        let Some(comparison) = self.fleet.comparison.as_ref().filter(|_| command.waits()) else {
            return Ok(());
        };
        let what =
            format!("the service signs nothing, it compares itself with its devices: {}", comparison.because);
        let hint =
            "see how far it is with `tern keys recover --status`; stopping and killing work all the same";
        Err(refuse(RefusalKind::Conflict, what, hint))
    }

    /// Looks at an authenticated hello, whatever its epoch: a claim above what is known here must not be overlooked.
    pub(super) fn look_at_claim(&mut self, id: &DeviceId, hello: &Hello) {
        if self.is_comparing() {
            return;
        }
        let Some(device) = self.fleet.devices.get(id) else { return };
        if device.standing != Standing::Active || device.doubted {
            return;
        }
        let beyond = self.beyond(&Claim::from(hello));
        if beyond.is_empty() {
            return;
        }
        let roles: Vec<&str> = beyond.iter().map(|role| role.name()).collect();
        let because = format!("device {id} claims more than is known here: {}", roles.join(", "));
        self.begin(because, Some(id.clone()));
    }

    /// Returns the roles in which a claim goes beyond what is known.
    pub(super) fn beyond(&self, claim: &Claim) -> Vec<Role> {
        self.fleet.products.get(&claim.product).map(|product| claim.beyond(product)).unwrap_or_default()
    }

    /// Tells the service that its data folder is a copy: it begins to compare before anything else.
    pub fn found_copied(&mut self, because: String) {
        self.copied = Some(because);
    }

    /// A comparison that the copy was caught in begins anew: whoever was heard before may know more by now.
    pub(super) fn begin_if_copied(&mut self) {
        if let Some(because) = self.copied.take() {
            self.begin(because, None);
        }
    }

    pub(super) fn recover(&mut self, because: String) -> Outcome {
        if let Some(comparison) = &self.fleet.comparison {
            let what =
                format!("the service compares itself with its devices already: {}", comparison.because);
            return Ok(Reply::Done { what });
        }
        self.begin(because, None);
        Ok(Reply::Done {
            what: "the service compares itself with its devices; every rollout is paused".to_owned(),
        })
    }

    pub(super) fn end_recovery(&mut self) -> Outcome {
        let Some(progress) = self.progress() else {
            return Ok(Reply::Done { what: "no comparison goes on".to_owned() });
        };
        self.end("by the operator", progress);
        Ok(Reply::Done {
            what: "the comparison is over; look at every rollout, then resume it with `tern rollout resume`"
                .to_owned(),
        })
    }

    fn begin(&mut self, because: String, device: Option<DeviceId>) {
        self.step.alarms.push(format!(
            "the service signs nothing and pauses every rollout, for its data folder may be older than the fleet: {because}; \
             see `tern keys recover --status`"
        ));
        self.record(Fact::ComparisonBegan { because, device });
        let running = self.fleet.rollouts.values().filter(|r| r.status == Status::Running);
        for rollout in running.map(|r| r.id.clone()).collect::<Vec<_>>() {
            let because =
                "PAUSE: by the service, which compares itself with its devices after a restore".to_owned();
            self.record(Fact::Paused { rollout, because });
        }
        // A base is an offer too, and what was recorded before may be old news: nothing more is said until the end.
        self.presents.clear();
    }

    /// Asks whom it should ask, and ends the comparison when everybody who was heard is compared.
    pub(super) fn attend_comparison(&mut self) {
        if !self.is_comparing() {
            self.presents.clear();
            return;
        }
        self.ask_devices();
        let Some(progress) = self.progress() else { return };
        if self.now >= progress.until && progress.waiting.is_empty() {
            self.end("every device that was heard is compared", progress);
        }
    }

    /// Returns how far the comparison is; none goes on: `None`.
    pub fn progress(&self) -> Option<Progress> {
        let comparison = self.fleet.comparison.as_ref()?;
        let (mut waiting, mut unproved, mut compared) = (Vec::new(), Vec::new(), 0);
        for (id, claim) in &comparison.heard {
            // Whoever has no vote holds nothing up.
            if !self.fleet.devices.get(id).is_some_and(|device| device.is_active()) {
                continue;
            }
            if self.beyond(claim).is_empty() {
                compared += 1;
            } else if self.presents.get(id).is_some_and(|ask| ask.times >= ASKS_ENOUGH) {
                unproved.push(id.clone());
            } else {
                waiting.push(id.clone());
            }
        }
        let devices = self.fleet.devices.values().filter(|d| d.is_active() && d.telemetry.is_some()).count();
        let lacking = self.fleet.products.iter().flat_map(|(id, product)| {
            product.lacks().into_iter().map(|(role, version)| (id.clone(), role, version))
        });
        Some(Progress {
            until: comparison.since + HEARTBEATS * self.lives.heartbeat * 1000,
            devices: devices as u64,
            compared,
            waiting,
            unproved,
            lacking: lacking.collect(),
        })
    }

    fn end(&mut self, how: &str, progress: Progress) {
        let Progress { devices, compared, waiting, mut unproved, .. } = progress;
        let files = self.fleet.comparison.as_ref().map_or(0, |comparison| comparison.files);
        unproved.extend(waiting);
        let because = format!(
            "{how}: {compared} of {devices} devices compared, {files} files taken over, {} claims unproved",
            unproved.len()
        );
        self.note(format!(
            "the comparison with the devices is over, {because}; rollouts are resumed by hand"
        ));
        self.record(Fact::ComparisonEnded { because, unproved });
        self.presents.clear();
        // What the broker retains may be older than what is signed now, or gone.
        self.publish_all = true;
    }

    /// Files came in: what they say about rollouts is taken over. A kill stays in force, and nobody who was included
    /// is left out again.
    pub(super) fn conclude(&mut self, product: &ProductId, roles: &[Role]) {
        let Some(state) = self.fleet.products.get(product) else { return };
        let (content, halted) = (state.rollout_content(), state.halted.clone());
        let version = state.versions().rollout;
        let dead =
            |r: &&Rollout| r.product == *product && r.status != Status::Killed && halted.contains(&r.rc);
        let dead: Vec<_> = self.fleet.rollouts.values().filter(dead).map(|r| r.id.clone()).collect();
        for rollout in dead {
            let because = "KILL: by a signed file that devices hold".to_owned();
            self.note(format!("rollout {rollout}: {because}"));
            self.record(Fact::Killed { rollout, because });
        }
        // Said once for each file that says so.
        let entries = if roles.contains(&Role::Rollout) { content.entries } else { Vec::new() };
        for entry in entries {
            let Some(rollout) = self.fleet.rollouts.get(&entry.rollout).cloned() else {
                self.step.alarms.push(format!(
                    "product {product}: rollout {} of release {} was started since the data folder was copied; its \
                     plan is lost: start it again under another name",
                    entry.rollout, entry.rc
                ));
                continue;
            };
            let same = rollout.product == *product && rollout.rc == entry.rc && rollout.salt == entry.salt;
            let open = matches!(rollout.status, Status::Running | Status::Paused);
            if !same || !open {
                continue;
            }
            let (next, phases) = (rollout.phases.len(), rollout.plan.phases.len());
            let held_from = entry.hold_back.map(|(from, _)| from);
            let before = rollout.cuts();
            let mut cuts = before.clone();
            for (model, cut) in entry.cuts {
                let known = cuts.entry(model).or_insert(cut);
                *known = cut.max(*known);
            }
            let written = |id: &&DeviceId| entry.list.contains(&listed(id)) && !rollout.listed.contains(*id);
            let named: Vec<DeviceId> = self.fleet.devices.keys().filter(written).cloned().collect();
            let because = format!("learned from the signed rollout file {version}, which devices hold");
            if cuts == before && named.is_empty() {
                self.learn_let_go(&rollout, held_from, because);
                continue;
            }
            let places = self.places(&rollout);
            let new = |p: &&phase::Place| phase::includes(&cuts, p) && !phase::includes(&before, p);
            let devices = places.iter().filter(new).count() as u64 + named.len() as u64;
            let within = |goal: &BTreeMap<ModelId, Cut>| {
                cuts.iter().all(|(model, cut)| goal.get(model).is_some_and(|most| cut <= most))
            };
            let present = rollout.phases.last().filter(|phase| !phase.is_open() && within(&phase.goal));
            let rollout = rollout.id.clone();
            if let Some(wave) = present.map(|phase| phase.waves + 1) {
                let (step, owed, listed) = (0, 0, named);
                self.record(Fact::WaveOpened {
                    rollout,
                    wave,
                    cuts,
                    devices,
                    step,
                    owed,
                    listed,
                    held_from,
                    key: None,
                    because,
                });
            } else if next < phases {
                let (goal, included) = (BTreeMap::new(), None);
                self.record(Fact::PhaseOpened {
                    rollout,
                    phase: next,
                    cuts,
                    devices,
                    goal,
                    included,
                    owed: 0,
                    held_from,
                    listed: named,
                    key: None,
                    because,
                });
            }
        }
    }

    /// Nobody whom a file let go is held back again; who still waits for room there is.
    fn learn_let_go(&mut self, rollout: &Rollout, held_from: Option<Position>, because: String) {
        let gone = |from: Position| rollout.holds(from) && held_from.is_none_or(|theirs| from < theirs);
        let places = self.places(rollout);
        let devices = places.iter().filter(|place| gone(place.position)).count() as u64;
        if rollout.held_from.is_some_and(|ours| held_from.is_none_or(|theirs| ours < theirs)) {
            self.record(Fact::HoldBackEnded {
                rollout: rollout.id.clone(),
                devices,
                held_from,
                key: None,
                because,
            });
        }
    }
}
