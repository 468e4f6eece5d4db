//! Signed files out: what devices should hold is worked out from the fleet, compared with what was signed last,
//! and signed anew where it differs. A kill that was recorded but not yet signed is completed the same way.

use std::collections::BTreeSet;

use tern_protocol::bundle::{Bundle, Dictionary, File};
use tern_protocol::id::{ProductId, RegionId, RolloutId};
use tern_protocol::limits::ENTRIES_MAX;
use tern_protocol::message::Versions;
use tern_protocol::position::Cohort;
use tern_protocol::topic::Topic;
use tern_protocol::tuf::content::{HaltContent, RolloutContent};
use tern_protocol::tuf::{Pool, Role, Signer, Trusted, TufError, build, sign};

use super::offered::Offered;
use super::rotation::{Stale, stale};
use super::{Fact, Service};
use crate::core::fact::SignedFile;
use crate::core::fleet::holders::held;
use crate::core::fleet::product::Product;
use crate::core::rollout::record::{Rollout, Status};

/// All that `head` carries.
const HEAD: [Role; 6] =
    [Role::Timestamp, Role::Snapshot, Role::Targets, Role::Release, Role::Rollout, Role::Halt];
/// What `head` carries to devices that hold root and targets.
const KNOWN: [Role; 5] = [Role::Timestamp, Role::Snapshot, Role::Release, Role::Rollout, Role::Halt];
/// How long a count of the devices that hold the newest keys is good, from so many devices on: at every wave a large fleet
/// would be counted anew.
const COUNT_VALID: (u64, usize) = (1000, 10_000);
/// A bundle that leans on keys which are not there yet is kept up to this length, by devices and chunk servers.
const LEANING_MAX: usize = 4096;

/// All that a cohort topic carries.
const STEP: [Role; 4] = [Role::Timestamp, Role::Snapshot, Role::Release, Role::Rollout];
/// All that a heartbeat carries.
const BEAT: [Role; 2] = [Role::Timestamp, Role::Snapshot];

/// Says why files could not be signed or would not be believed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum SignStepError {
    /// The service holds no online keys for the product.
    #[error("the service holds no online keys for product {0}")]
    NoKeys(ProductId),
    /// A key would not sign.
    #[error("could not sign {0}")]
    Sign(Role),
    /// A client that holds the present files would not accept the new ones.
    #[error("a device that holds the present files would refuse the new {0}: {1}")]
    Refused(Role, TufError),
    /// A client would be left without a consistent set.
    #[error("a device would be left without a consistent set of files")]
    Inconsistent,
}

impl Service {
    /// Signs whatever differs from what the fleet's state asks for.
    pub(super) fn reconcile(&mut self) {
        if !self.unsettled {
            return;
        }
        let mut settled = true;
        // Also those whose keys are not here: what is to be said about them and cannot be signed is trouble.
        let products: Vec<ProductId> = self.fleet.products.keys().cloned().collect();
        for product in products {
            let Some(state) = self.fleet.products.get(&product) else { continue };
            let (rollout, halt) = (self.wanted_rollout(&product), wanted_halt(state));
            // While the service compares it signs nothing but kills: they only stop.
            if self.is_comparing() && state.halt_content() == halt {
                continue;
            }
            let stale = if self.renewed.contains(&product) { stale(state) } else { Stale::default() };
            let new_rollout = (stale.rollout
                || state.rollout_content() != rollout
                || state.is_behind(Role::Rollout)
                || !state.files.contains_key(&Role::Rollout))
            .then_some(rollout);
            let halted = state.halt_content() != halt || !state.files.contains_key(&Role::Halt);
            let new_halt = (stale.halt || halted || state.is_behind(Role::Halt)).then_some(halt);
            if new_rollout.is_none() && new_halt.is_none() && !stale.any {
                self.renewed.remove(&product);
                continue;
            }
            match self.sign_step(&product, None, new_rollout, new_halt) {
                Ok(files) => {
                    self.all_clear(&product);
                    self.record(Fact::Signed { product: product.clone(), files });
                    self.refreshed_at.insert(product.clone(), self.now);
                    self.renewed.remove(&product);
                    if stale.any {
                        self.publish_product(&product);
                    }
                    self.publish_step(&product, halted && !stale.any);
                }
                Err(error) => {
                    settled = false;
                    self.alarm(&product, error.to_string());
                }
            }
        }
        self.unsettled = !settled;
    }

    /// Tells whether every kill of a product is in a signed file; until then no nonce of it is answered.
    pub(super) fn kills_are_signed(&self, product: &ProductId) -> bool {
        !self.unsettled
            || self.fleet.products.get(product).is_none_or(|state| state.halt_content() == wanted_halt(state))
    }

    /// Returns what the rollout role should say: running rollouts, newest first, then what reached everybody.
    pub(super) fn wanted_rollout(&self, product: &ProductId) -> RolloutContent {
        let mut offering: Vec<&Rollout> = self
            .fleet
            .rollouts
            .values()
            .filter(|r| r.product == *product && r.offers() && !r.phases.is_empty())
            .collect();
        // By their order in the ledger: the clock may have been set back in between.
        let rank = |r: &Rollout| {
            (r.status == Status::Completed, std::cmp::Reverse(r.order), std::cmp::Reverse(r.started_at))
        };
        offering.sort_by_key(|r| (rank(r), r.id.clone()));
        let mut covered: Vec<&Rollout> = Vec::new();
        offering.retain(|r| {
            // A base that a newer base covers wholly says nothing any more.
            // What takes devices back is for some of them only.
            // So is one whose time was over before it reached everybody.
            let whole = |newer: &&&Rollout| newer.status == Status::Completed && newer.reaches_all();
            let bases = covered.iter().filter(whole).filter(|newer| newer.from.is_empty());
            let replaced =
                r.status == Status::Completed && bases.into_iter().any(|newer| same_scope(newer, r));
            if !replaced {
                covered.push(r);
            }
            !replaced
        });
        RolloutContent { entries: offering.into_iter().take(ENTRIES_MAX).map(Rollout::entry).collect() }
    }

    /// Signs a step and lets a simulated device judge it before anybody else sees it.
    pub(super) fn sign_step(
        &self,
        product: &ProductId,
        release: Option<Vec<u8>>,
        rollout: Option<RolloutContent>,
        halt: Option<HaltContent>,
    ) -> Result<Vec<SignedFile>, SignStepError> {
        let keys = self.keys.get(product).ok_or_else(|| SignStepError::NoKeys(product.clone()))?;
        let empty = Product::default();
        let state = self.fleet.products.get(product).unwrap_or(&empty);
        let (mut versions, above) = (state.versions(), self.above(state));
        let seconds = self.now / 1000;
        let mut files: Vec<File> = Vec::new();
        if let Some(bytes) = release {
            versions.release = tern_protocol::tuf::peek(&bytes).unwrap_or(0);
            files.push(File { role: Role::Release, bytes });
        }
        if let Some(content) = rollout {
            versions.rollout = above.rollout + 1;
            let named = named_artifacts(state, &files, &content);
            let value = build::rollout(versions.rollout, seconds + self.lives.rollout, &named, &content);
            files.push(signed(Role::Rollout, value, keys.rollout.as_ref())?);
        }
        if let Some(content) = halt {
            versions.halt = above.halt + 1;
            let value = build::halt(versions.halt, seconds + self.lives.halt, &content);
            files.push(signed(Role::Halt, value, keys.halt.as_ref())?);
        }
        if !files.is_empty() || versions.snapshot == 0 || self.renewed.contains(product) {
            versions.snapshot = above.snapshot + 1;
            let value = build::snapshot(versions.snapshot, seconds + self.lives.snapshot, &versions);
            files.push(signed(Role::Snapshot, value, keys.snapshot.as_ref())?);
        }
        versions.timestamp = above.timestamp + 1;
        let newest_snapshot = files.iter().find(|f| f.role == Role::Snapshot).map(|f| f.bytes.clone());
        let snapshot =
            newest_snapshot.or_else(|| state.files.get(&Role::Snapshot).map(|t| t.clone().into_bytes()));
        let value = build::timestamp(
            versions.timestamp,
            seconds + self.lives.timestamp,
            versions.snapshot,
            snapshot.as_deref(),
            seconds,
        );
        files.push(signed(Role::Timestamp, value, keys.timestamp.as_ref())?);
        simulate(state, &files, seconds)?;
        Ok(files.iter().filter_map(|f| SignedFile::new(f.role, &f.bytes)).collect())
    }

    /// Returns what the next versions must be above. A kill that is signed while the service compares leaves room for
    /// what devices hold and nobody has shown yet.
    pub(super) fn above(&self, state: &Product) -> Versions {
        let mut state = state.clone();
        if self.is_comparing() {
            state.step_ahead();
        }
        state.reached()
    }

    /// Publishes after something was signed. A kill goes to everybody, in this order: `head`, `ts`, then the
    /// rollout's cohort topics are cleared. Widening goes to the newly included cohorts alone.
    fn publish_step(&mut self, product: &ProductId, halted: bool) {
        let rollouts: Vec<Rollout> =
            self.fleet.rollouts.values().filter(|r| r.product == *product).cloned().collect();
        let everybody = halted || rollouts.iter().any(|r| self.head_must_carry(r));
        if everybody {
            self.publish_head(product);
            self.publish_beat(product);
        }
        for rollout in rollouts {
            let key = (product.clone(), rollout.id.clone());
            let offered = self.cohorts.get(&key).cloned().unwrap_or_default();
            let topics = offered.topics.clone();
            let running = rollout.status == Status::Running;
            if rollout.reaches_all() || matches!(rollout.status, Status::Killed | Status::Completed) {
                for (region, cohort) in topics {
                    // An empty payload clears; to a device it means no information.
                    self.publish(Topic::Cohort(product.clone(), region, cohort), Vec::new());
                }
                self.cohorts.remove(&key);
            } else if rollout.status == Status::Paused {
                self.publish_cohorts(product, &topics);
            } else if running {
                let places = self.places(&rollout);
                let now = Offered::of(&rollout, &places);
                let changed =
                    if self.resumed(&rollout) { now.topics.clone() } else { now.news(&offered, &places) };
                self.publish_cohorts(product, &changed);
                self.cohorts.insert(key, now);
            }
        }
    }

    fn resumed(&self, rollout: &Rollout) -> bool {
        self.step.facts.iter().any(|f| matches!(f, Fact::Resumed { rollout: r, .. } if *r == rollout.id))
    }

    /// `head` carries a rollout from when it reaches everybody; before that its cohort topics do.
    fn head_must_carry(&self, rollout: &Rollout) -> bool {
        self.step.facts.iter().any(|fact| match fact {
            Fact::PhaseOpened { rollout: id, .. }
            | Fact::WaveOpened { rollout: id, .. }
            | Fact::HoldBackEnded { rollout: id, .. } => *id == rollout.id && rollout.reaches_all(),
            Fact::Paused { rollout: id, .. } | Fact::Resumed { rollout: id, .. } => {
                *id == rollout.id && rollout.reaches_all()
            }
            // A base that it replaces leaves the rollout role. Answers name the new version, so it must be had.
            Fact::Completed { rollout: id, .. } => *id == rollout.id,
            _ => false,
        })
    }

    fn publish_cohorts(&mut self, product: &ProductId, cohorts: &BTreeSet<(RegionId, Cohort)>) {
        let Some(state) = self.fleet.products.get(product).filter(|_| !cohorts.is_empty()) else { return };
        let packed = packed(state, &STEP);
        for (region, cohort) in cohorts {
            self.publish(Topic::Cohort(product.clone(), region.clone(), *cohort), packed.clone());
        }
    }

    /// With targets and in the general dictionary while devices lack the newest root, targets or kills, for a kill must not wait
    /// for a `get`. Else, and it comes with every connection, without what they all have.
    fn publish_head(&mut self, product: &ProductId) {
        let known = self.is_known(product);
        let Some(state) = self.fleet.products.get(product) else { return };
        let leaning = known.then(|| packed(state, &KNOWN)).filter(|packed| packed.len() <= LEANING_MAX);
        let general = || Bundle { root: state.versions().root, files: state.signed(&HEAD) }.pack();
        let payload = leaning.unwrap_or_else(general);
        self.publish(Topic::Head(product.clone()), payload);
    }

    /// Tells whether the devices of a product hold its newest keys and kills, by a count that may be a second old.
    fn is_known(&mut self, product: &ProductId) -> bool {
        let Some(newest) = self.fleet.products.get(product).map(|state| held(&state.versions())) else {
            return false;
        };
        let fresh = self.now.checked_sub(self.holders.0).is_some_and(|since| since < COUNT_VALID.0)
            && self.fleet.devices.len() >= COUNT_VALID.1;
        let counted =
            |service: &Self| service.holders.1.get(product).filter(|(keys, _)| *keys == newest).copied();
        match counted(self).filter(|_| fresh) {
            Some((_, hold)) => hold,
            None => {
                self.holders = (self.now, self.fleet.holders(self.now));
                counted(self).is_some_and(|(_, hold)| hold)
            }
        }
    }

    fn publish_beat(&mut self, product: &ProductId) {
        let Some(state) = self.fleet.products.get(product) else { return };
        let packed = packed(state, &BEAT);
        self.publish(Topic::Timestamp(product.clone()), packed);
    }

    /// Publishes all that is retained: after a start, and whenever the broker may have forgotten.
    pub(super) fn publish_everything(&mut self) {
        let products: Vec<ProductId> = self.fleet.products.keys().cloned().collect();
        for product in products {
            self.publish_product(&product);
        }
        self.publish_revoked();
    }

    /// What carries new keys goes first: roots, the newest with targets, then `head`. The rest is packed against them. Chunk
    /// servers listen to the roots: with those they answer a device that cannot read `head`.
    fn publish_product(&mut self, product: &ProductId) {
        let Some(state) = self.fleet.products.get(product) else { return };
        let newest = state.versions().root;
        let bundle = |(version, text): (&u32, &String)| {
            let mut files = vec![File { role: Role::Root, bytes: text.clone().into_bytes() }];
            files.extend((*version == newest).then(|| state.signed(&[Role::Targets])).into_iter().flatten());
            (*version, Bundle { root: *version, files }.pack())
        };
        let roots: Vec<_> = state.roots.iter().map(bundle).collect();
        for (version, payload) in roots {
            self.publish(Topic::Root(product.clone(), version), payload);
        }
        self.publish_head(product);
        let cohorts = self.cohorts.iter().filter(|((of, _), _)| of == product);
        let cohorts: BTreeSet<_> = cohorts.flat_map(|(_, offered)| &offered.topics).cloned().collect();
        self.publish_cohorts(product, &cohorts);
        self.publish_beat(product);
    }

    /// After a start: which cohort topics should hold something.
    pub(super) fn recall_cohorts(&mut self) {
        let rollouts: Vec<Rollout> = self.fleet.rollouts.values().cloned().collect();
        for rollout in rollouts {
            let holds = matches!(rollout.status, Status::Running | Status::Paused);
            if holds && !rollout.reaches_all() && !rollout.phases.is_empty() {
                let offered = Offered::of(&rollout, &self.places(&rollout));
                self.cohorts.insert((rollout.product.clone(), rollout.id.clone()), offered);
            }
        }
    }

    /// Renews heartbeats, and whatever has less than a fifth of its life left.
    pub(super) fn renew(&mut self) {
        if self.is_comparing() {
            return;
        }
        let products: Vec<ProductId> = self.keys.keys().cloned().collect();
        let mut renewed = false;
        for product in products {
            let Some(state) = self.fleet.products.get(&product) else { continue };
            let beaten = self.refreshed_at.get(&product).copied();
            let due = beaten.is_none_or(|at| self.now.saturating_sub(at) >= self.lives.heartbeat * 1000);
            if !due {
                continue;
            }
            let soon = |role: Role, life: u64| {
                let expires = state
                    .expiries()
                    .into_iter()
                    .find(|(r, _)| *r == role)
                    .and_then(|(_, text)| tern_protocol::tuf::time::read(&text));
                expires.is_none_or(|at| at.saturating_sub(self.now / 1000) < life / 5 + self.lives.heartbeat)
            };
            let rollout = soon(Role::Rollout, self.lives.rollout).then(|| self.wanted_rollout(&product));
            let halt = soon(Role::Halt, self.lives.halt).then(|| wanted_halt(state));
            let again = rollout.is_some() || halt.is_some();
            // A key that is not the one that devices believe must be noticed now, not when a kill needs it.
            let rehearsal =
                self.sign_step(&product, None, Some(self.wanted_rollout(&product)), Some(wanted_halt(state)));
            match rehearsal {
                Ok(_) => self.all_clear(&product),
                Err(error) => self.alarm(&product, error.to_string()),
            }
            match self.sign_step(&product, None, rollout, halt) {
                Ok(files) => {
                    self.record(Fact::Signed { product: product.clone(), files });
                    self.refreshed_at.insert(product.clone(), self.now);
                    renewed |= again;
                    if !again {
                        self.publish_beat(&product);
                    }
                }
                Err(error) if !self.trouble.contains_key(&product) => self.alarm(&product, error.to_string()),
                Err(_) => {}
            }
        }
        if renewed {
            self.publish_everything();
        }
    }

    /// Returns the topics that carry a rollout besides `head`, for `rollout explain`.
    pub fn cohort_topics(&self, product: &ProductId, rollout: &RolloutId) -> usize {
        self.cohorts.get(&(product.clone(), rollout.clone())).map_or(0, |offered| offered.topics.len())
    }
}

/// Packs files for devices that hold the newest root and targets. Those that do not yet have `head` for that.
fn packed(state: &Product, roles: &[Role]) -> Vec<u8> {
    let bundle = Bundle { root: state.versions().root, files: state.signed(roles) };
    let file = |role| state.files.get(&role).map(String::as_bytes);
    let dictionary = file(Role::Root).zip(file(Role::Targets));
    match dictionary.and_then(|(root, targets)| Dictionary::unverified(root, targets).ok()) {
        Some(dictionary) => bundle.pack_with(&dictionary),
        None => bundle.pack(),
    }
}

fn same_scope(a: &Rollout, b: &Rollout) -> bool {
    let covers = |wide: &[RegionId], narrow: &[RegionId]| {
        wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(|r| wide.contains(r)))
    };
    covers(&a.plan.regions, &b.plan.regions)
        && (a.plan.models.is_empty() || a.plan.models == b.plan.models)
        && (a.plan.carriers.is_empty() || a.plan.carriers == b.plan.carriers)
        && b.models.is_subset(&a.models)
}

fn wanted_halt(state: &Product) -> HaltContent {
    HaltContent { halted: state.halted.iter().copied().collect() }
}

/// Returns the artifacts that the rollout file must repeat: those of every release that an entry offers.
fn named_artifacts(state: &Product, files: &[File], content: &RolloutContent) -> Vec<build::Named> {
    let fresh = files
        .iter()
        .find(|f| f.role == Role::Release)
        .and_then(|f| std::str::from_utf8(&f.bytes).ok())
        .map(crate::core::fleet::product::releases_in);
    let releases = fresh.unwrap_or_else(|| state.releases());
    let offered: BTreeSet<u64> = content.entries.iter().map(|e| e.rc).collect();
    releases
        .into_iter()
        .filter(|(rc, _)| offered.contains(rc))
        .flat_map(|(_, release)| release.artifacts.into_iter().map(|(named, _)| named))
        .collect()
}

fn signed(
    role: Role,
    value: serde_json::Value,
    key: &(dyn Signer + Send + Sync),
) -> Result<File, SignStepError> {
    let bytes = sign::sign(value, &[key as &dyn Signer]).map_err(|_| SignStepError::Sign(role))?;
    Ok(File { role, bytes })
}

/// Lets a device that holds the present files judge the new ones.
pub(super) fn simulate(state: &Product, new: &[File], seconds: u64) -> Result<(), SignStepError> {
    let held = state.signed(&Role::ALL);
    let mut device = match Trusted::restore(&held) {
        Ok(device) => device,
        Err(error) => return Err(SignStepError::Refused(Role::Root, error)),
    };
    let mut pool = Pool::default();
    for file in new {
        pool.add(file.clone());
    }
    let refresh = device.refresh(&mut pool, seconds);
    if let Some((role, error)) = refresh.refused.into_iter().next() {
        return Err(SignStepError::Refused(role, error));
    }
    if device.current().is_none() {
        return Err(SignStepError::Inconsistent);
    }
    Ok(())
}
