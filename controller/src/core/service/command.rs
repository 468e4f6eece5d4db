//! What operators want, and how it goes. Stopping never asks; widening says what the operator saw.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ClaimId, DeviceId, FactoryId, ModelId, ProductId, RegionId, RolloutId};
use tern_protocol::position::Salt;
use tern_protocol::tuf::content::EntryKind;
use tern_protocol::tuf::{Role, peek};

use super::admit::{Admission, NewClaim, OneTimeToken};
use super::tokens::MintToken;
use super::{Fact, Service};
use crate::core::access::TokenName;
use crate::core::fact::{DeviceEntry, SignedFile};
use crate::core::fleet::product::{Release, releases_in};
use crate::core::rollout::phase;
use crate::core::rollout::plan::{Phase, Plan};
use crate::core::rollout::record::{Rollout, Status};

/// What an operator wants.
#[expect(clippy::large_enum_variant, reason = "commands travel boxed, one at a time")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Set up a product with its offline files, or replace them.
    AddProduct {
        /// The product.
        product: ProductId,
        /// Root, targets and an empty release file.
        files: Vec<SignedFile>,
    },
    /// Replace offline files of a product by newer ones.
    RenewOffline {
        /// The product.
        product: ProductId,
        /// Roots, targets, release: those that are new.
        files: Vec<SignedFile>,
    },
    /// Register devices of a list that a trusted factory has signed.
    AddDevices {
        /// The list, byte for byte.
        list: String,
        /// The signature, hex of DER.
        signature: String,
    },
    /// Register devices on nobody's word but that of whoever reached the API.
    AddUnsignedDevices {
        /// The devices.
        devices: Vec<DeviceEntry>,
    },
    /// Accept the lists of a factory from now on.
    TrustFactory {
        /// Its name.
        factory: FactoryId,
        /// Its public key, hex of the uncompressed point.
        key: String,
    },
    /// Refuse the lists of a factory from now on.
    RevokeFactory(FactoryId),
    /// Make a claim; its token is in the reply and nowhere else.
    CreateClaim(NewClaim),
    /// Take a claim back.
    RevokeClaim(ClaimId),
    /// Decide about one device.
    Admit {
        /// The device.
        device: DeviceId,
        /// What.
        admission: Admission,
        /// Why, for the ledger.
        reason: String,
    },
    /// Make a token of the API.
    CreateToken(MintToken),
    /// Take a token of the API back.
    RevokeToken(TokenName),
    /// Write down that a token was used, if this hour's use is not written down yet.
    NoteUse {
        /// The token.
        token: TokenName,
        /// From where.
        peer: IpAddr,
    },
    /// Publish a signed release file.
    PublishRelease {
        /// The product.
        product: ProductId,
        /// The file.
        file: String,
    },
    /// Start a rollout.
    Start {
        /// Its name.
        rollout: RolloutId,
        /// The product.
        product: ProductId,
        /// The release.
        rc: u64,
        /// Attempt number, from 1.
        attempt: u32,
        /// Parameters.
        plan: Plan,
    },
    /// Stop offering, reversibly.
    Pause(RolloutId),
    /// Go on offering.
    Resume(RolloutId),
    /// Open the next phase without waiting for its gate. Names the phase that the operator saw, from 1.
    Promote {
        /// The rollout.
        rollout: RolloutId,
        /// The present phase, as the operator saw it.
        from_phase: usize,
    },
    /// Take the release back, for ever.
    Kill {
        /// The rollout.
        rollout: RolloutId,
        /// Why, for the ledger.
        reason: String,
    },
}

/// What a command wants devices to learn, in signed files.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signs {
    /// Something about this product.
    Product(ProductId),
    /// Something about this rollout.
    Rollout(RolloutId),
    /// That this rollout is dead.
    Kill(RolloutId),
}

impl Command {
    /// Returns what signing the command takes, if any.
    pub(super) fn signs(&self) -> Option<Signs> {
        match self {
            Self::Start { product, .. } => Some(Signs::Product(product.clone())),
            Self::Pause(rollout) | Self::Resume(rollout) | Self::Promote { rollout, .. } => {
                Some(Signs::Rollout(rollout.clone()))
            }
            Self::Kill { rollout, .. } => Some(Signs::Kill(rollout.clone())),
            // What they change is signed already, or is nothing that devices are told in signed files.
            _ => None,
        }
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done {
        /// In words.
        what: String,
    },
    /// Devices were registered.
    Devices {
        /// New ones.
        added: usize,
        /// Known ones whose entry was renewed.
        renewed: usize,
    },
    /// A claim was made.
    Claim {
        /// Its name.
        claim: ClaimId,
        /// Its token.
        token: OneTimeToken,
    },
    /// A release was published.
    Published {
        /// The releases that the product now has.
        releases: Vec<u64>,
    },
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}; {hint}")]
pub struct Refusal {
    /// Which kind: the API maps it to a status.
    pub kind: RefusalKind,
    /// What is wrong.
    pub what: String,
    /// What to do next.
    pub hint: String,
}

/// Which kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalKind {
    /// No such thing.
    NotFound,
    /// It does not go together with the present state.
    Conflict,
    /// It makes no sense.
    Invalid,
    /// It is recorded, and devices cannot learn of it: nothing can be signed.
    Unsigned,
    /// Whoever asks may not.
    Denied,
}

pub(crate) fn refuse(kind: RefusalKind, what: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal { kind, what: what.into(), hint: hint.into() }
}

pub(super) type Outcome = Result<Reply, Refusal>;

impl Service {
    pub(super) fn command(&mut self, command: Command) -> Outcome {
        match command {
            Command::AddProduct { product, files } => self.add_product(product, files),
            Command::RenewOffline { product, files } => self.renew_offline(&product, files),
            Command::AddDevices { list, signature } => self.add_signed(&list, &signature),
            Command::AddUnsignedDevices { devices } => self.add_unsigned(devices),
            Command::TrustFactory { factory, key } => self.trust_factory(factory, key),
            Command::RevokeFactory(factory) => self.revoke_factory(factory),
            Command::CreateClaim(new) => self.create_claim(new),
            Command::RevokeClaim(claim) => self.revoke_claim(claim),
            Command::Admit { device, admission, reason } => self.admission(device, admission, &reason),
            Command::CreateToken(new) => self.create_token(new),
            Command::RevokeToken(token) => self.revoke_token(token),
            Command::NoteUse { token, peer } => self.note_use(token, peer),
            Command::PublishRelease { product, file } => self.publish_release(product, file),
            Command::Start { rollout, product, rc, attempt, plan } => {
                self.start(rollout, product, rc, attempt, plan)
            }
            Command::Pause(id) => self.pause(&id),
            Command::Resume(id) => self.resume(&id),
            Command::Promote { rollout, from_phase } => self.promote(&rollout, from_phase),
            Command::Kill { rollout, reason } => self.kill_by_hand(&rollout, &reason),
        }
    }

    /// Says so when what was done is in the ledger and in no signed file: no device knows of it.
    pub(super) fn unless_unsigned(&self, signs: Option<&Signs>, outcome: Outcome) -> Outcome {
        let (Some(signs), Ok(_)) = (signs, &outcome) else { return outcome };
        let product = match signs {
            Signs::Product(product) => Some(product),
            Signs::Rollout(id) | Signs::Kill(id) => self.fleet.rollouts.get(id).map(|r| &r.product),
        };
        let Some(why) = product.and_then(|product| self.trouble.get(product)) else { return outcome };
        let what = match signs {
            Signs::Kill(id) => format!(
                "the kill of rollout {id} is recorded, but NO DEVICE LEARNS OF IT: it could not be signed: {why}"
            ),
            _ => format!("it is recorded, but no device learns of it: it could not be signed: {why}"),
        };
        let hint = "mend that (keys in the data folder, the clock, expired files) and restart the service; it signs what is recorded by itself";
        Err(refuse(RefusalKind::Unsigned, what, hint))
    }

    fn publish_release(&mut self, product: ProductId, file: String) -> Outcome {
        let new = self.check_release(&product, &file)?;
        let files = self.sign_step(&product, Some(file.into_bytes()), None, None).map_err(|e| {
            refuse(
                RefusalKind::Invalid,
                e.to_string(),
                "sign it with `tern release sign` and the release key of this product",
            )
        })?;
        self.record(Fact::Signed { product: product.clone(), files });
        for Release { rc, version, .. } in new {
            self.note(format!("product {product}: release {rc} ({version}) published"));
            self.record(Fact::ReleasePublished { product: product.clone(), rc, version });
        }
        let releases = self.product(&product)?.releases();
        Ok(Reply::Published { releases: releases.into_keys().collect() })
    }

    /// Tells what a release file may not do, whichever way it comes, and returns the releases that it adds. Evidence
    /// about a release is evidence about its bytes: they never change under its counter.
    pub(super) fn check_release(&self, id: &ProductId, file: &str) -> Result<Vec<Release>, Refusal> {
        let state = self.product(id)?;
        let (fresh, before) = (releases_in(file), state.releases());
        let new: Vec<Release> = fresh.values().filter(|r| !before.contains_key(&r.rc)).cloned().collect();
        if let Some(halted) = new.iter().find(|r| state.halted.contains(&r.rc)) {
            let what = format!("release {} was halted and is dead for ever", halted.rc);
            return Err(refuse(RefusalKind::Conflict, what, "publish the same bytes under a new rc"));
        }
        if state.files.get(&Role::Release).is_some_and(|held| held == file) {
            return Ok(new);
        }
        // What is no file at all is refused as such, by the check of its signature.
        let Some(offered) = peek(file.as_bytes()) else { return Ok(new) };
        for (rc, release) in &fresh {
            // A checkpoint of an earlier version knows only the newest file's.
            let held = || before.get(rc).map(Release::fingerprint);
            let known = state.published.get(rc).copied().or_else(held);
            if known.is_some_and(|known| known != release.fingerprint()) {
                let what = format!("release {rc} was published already, with other bytes or conditions");
                return Err(refuse(RefusalKind::Conflict, what, "publish these under a new rc"));
            }
        }
        let held = state.versions().release;
        if offered <= held {
            let what = format!("the release file has version {offered}, and version {held} is published");
            let hint = "somebody published in between: make the draft again from the newest file, without --previous";
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        let active = |r: &&Rollout| {
            r.product == *id
                && matches!(r.status, Status::Running | Status::Paused)
                && !fresh.contains_key(&r.rc)
        };
        if let Some(rollout) = self.fleet.rollouts.values().find(active) {
            let what = format!("the file lacks release {}, which rollout {} offers", rollout.rc, rollout.id);
            return Err(refuse(
                RefusalKind::Conflict,
                what,
                "end that rollout first, or keep the release in the file",
            ));
        }
        Ok(new)
    }

    fn start(&mut self, id: RolloutId, product: ProductId, rc: u64, attempt: u32, plan: Plan) -> Outcome {
        plan.check().map_err(|e| refuse(RefusalKind::Invalid, chain(&e), "correct the plan"))?;
        if self.fleet.rollouts.contains_key(&id) {
            let what = format!("a rollout {id} exists already");
            return Err(refuse(RefusalKind::Conflict, what, "choose another name with --name"));
        }
        let state = self.product(&product)?;
        if state.halted.contains(&rc) {
            let what = format!("release {rc} was halted and is dead for ever");
            return Err(refuse(RefusalKind::Conflict, what, "publish the same bytes under a new rc"));
        }
        let models = state.models_of(rc);
        if models.is_empty() {
            let what = format!("product {product} has no release {rc}");
            return Err(refuse(RefusalKind::NotFound, what, "publish it with `tern release publish`"));
        }
        let overlap = self.fleet.rollouts.values().find(|r| {
            r.product == product
                && matches!(r.status, Status::Running | Status::Paused)
                && regions_meet(&r.plan.regions, &plan.regions)
        });
        let overlap = overlap.filter(|r| !has_settled(r));
        if let Some(other) = overlap {
            let what = format!("rollout {} is active in the same regions", other.id);
            let hint = format!("see what it waits for with `tern rollout explain {}`, or stop it", other.id);
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if let Some(why) = self.trouble.get(&product) {
            let what = format!("nothing can be signed for product {product}: {why}");
            return Err(refuse(
                RefusalKind::Unsigned,
                what,
                "mend that and restart the service, then start again",
            ));
        }
        let salt = Salt(self.random().0);
        let preview = preview(&id, &product, rc, attempt, salt, plan.clone(), models, self.now);
        let places = self.places(&preview);
        let behind = |place: &phase::Place| {
            self.fleet.devices.get(&place.device).is_some_and(|device| device.running < rc)
        };
        if !places.is_empty() && !places.iter().any(behind) {
            let what = format!("every device that the plan covers runs release {rc} or a newer one already");
            return Err(refuse(RefusalKind::Conflict, what, "nothing is left to do; see `tern device list`"));
        }
        if places.is_empty() {
            let what = format!("no registered device of product {product} is covered by the plan");
            return Err(refuse(RefusalKind::Invalid, what, "see `tern device list`"));
        }
        self.supersede(&id, &product, &plan);
        let kind = EntryKind::Update;
        self.record(Fact::RolloutStarted { rollout: id.clone(), product, rc, kind, attempt, salt, plan });
        let rollout = self.fleet.rollouts.get(&id).cloned().expect("it was recorded just now");
        self.open_phase(&rollout, 0, format!("started by {}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} started") })
    }

    /// A rollout that reaches everybody and has nobody on the way waits only for devices that are away; it must
    /// not hold up what comes after it. It stays as the base, and those devices take whatever is newest.
    fn supersede(&mut self, by: &RolloutId, product: &ProductId, plan: &Plan) {
        let settled: Vec<(RolloutId, String)> = self
            .fleet
            .rollouts
            .values()
            .filter(|r| r.product == *product && r.status == Status::Running && has_settled(r))
            .filter(|r| regions_meet(&r.plan.regions, &plan.regions))
            .map(|r| {
                let (good, covered) = (r.total().good, self.covered(r));
                let rc = r.rc;
                (
                    r.id.clone(),
                    format!("COMPLETE: {good} of {covered} devices on release {rc}; superseded by {by}"),
                )
            })
            .collect();
        for (rollout, because) in settled {
            self.note(format!("rollout {rollout}: {because}"));
            self.record(Fact::Completed { rollout, because });
        }
    }

    fn pause(&mut self, id: &RolloutId) -> Outcome {
        let rollout = self.rollout(id)?;
        match rollout.status {
            Status::Paused => Ok(Reply::Done { what: format!("rollout {id} is paused already") }),
            Status::Running => {
                let because = format!("PAUSE: by {}", self.actor());
                self.record(Fact::Paused { rollout: id.clone(), because });
                Ok(Reply::Done { what: format!("rollout {id} paused") })
            }
            status => Err(ended(id, status)),
        }
    }

    fn resume(&mut self, id: &RolloutId) -> Outcome {
        let rollout = self.rollout(id)?;
        match rollout.status {
            Status::Running => Ok(Reply::Done { what: format!("rollout {id} is running already") }),
            Status::Paused => {
                let because = format!("RESUME: by {}; a new series begins", self.actor());
                self.record(Fact::Resumed { rollout: id.clone(), because });
                Ok(Reply::Done { what: format!("rollout {id} resumed") })
            }
            status => Err(ended(id, status)),
        }
    }

    fn promote(&mut self, id: &RolloutId, from_phase: usize) -> Outcome {
        let rollout = self.rollout(id)?.clone();
        if matches!(rollout.status, Status::Killed | Status::Completed) {
            return Err(ended(id, rollout.status));
        }
        if rollout.status != Status::Running {
            let hint = format!("resume it first with `tern rollout resume {id}`");
            let what = format!("rollout {id} is not running");
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        if rollout.phases.len() != from_phase {
            let (now, saw) = (rollout.phases.len(), from_phase);
            let what = format!("rollout {id} is in phase {now}, not in phase {saw} as you saw it");
            return Err(refuse(RefusalKind::Conflict, what, "look again with `tern rollout explain`"));
        }
        if rollout.phases.len() >= rollout.plan.phases.len() {
            let what = format!("rollout {id} is in its last phase");
            return Err(refuse(RefusalKind::Conflict, what, "nothing is left to promote to"));
        }
        let verdict = self.judge(&rollout);
        self.advance(&rollout, format!("PROMOTED by {}; it stood at: {verdict}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} promoted to phase {}", from_phase + 1) })
    }

    fn kill_by_hand(&mut self, id: &RolloutId, reason: &str) -> Outcome {
        let rollout = self.rollout(id)?;
        if rollout.status == Status::Killed {
            return Ok(Reply::Done { what: format!("rollout {id} is killed already") });
        }
        let rc = rollout.rc;
        self.kill(id, format!("KILL: by {}: {reason}", self.actor()));
        Ok(Reply::Done { what: format!("rollout {id} killed; release {rc} is dead for ever") })
    }

    pub(super) fn product(&self, id: &ProductId) -> Result<&crate::core::fleet::product::Product, Refusal> {
        self.fleet.products.get(id).ok_or_else(|| {
            let what = format!("no product {id}");
            refuse(RefusalKind::NotFound, what, "set it up with `tern keys init` before starting the service")
        })
    }

    /// Returns a rollout by its name.
    pub fn rollout(&self, id: &RolloutId) -> Result<&Rollout, Refusal> {
        self.fleet.rollouts.get(id).ok_or_else(|| {
            refuse(RefusalKind::NotFound, format!("no rollout {id}"), "see `tern rollout list`")
        })
    }

    /// Works out what a plan would do, without doing it: devices newly included by each phase.
    pub fn preview(
        &mut self,
        product: &ProductId,
        rc: u64,
        plan: &Plan,
    ) -> Result<Vec<PhasePreview>, Refusal> {
        plan.check().map_err(|e| refuse(RefusalKind::Invalid, chain(&e), "correct the plan"))?;
        let models = self.product(product)?.models_of(rc);
        if models.is_empty() {
            let what = format!("product {product} has no release {rc}");
            return Err(refuse(RefusalKind::NotFound, what, "publish it with `tern release publish`"));
        }
        let id: RolloutId = "preview".parse().expect("a valid name");
        let salt = Salt(self.random().0);
        let rollout = preview(&id, product, rc, 1, salt, plan.clone(), models, self.now);
        let models: Vec<ModelId> = rollout.models.iter().cloned().collect();
        let shuffle = tern_protocol::position::Shuffle::new(salt);
        let devices =
            self.fleet.devices.iter().filter(|(_, d)| d.is_active() && d.registry.product == *product);
        let places = phase::places(plan, &models, &shuffle, devices.map(|(id, d)| (id, &d.registry)));
        let mut before = std::collections::BTreeMap::new();
        let mut previews = Vec::new();
        for step in &plan.phases {
            let cuts = phase::cuts(step.reach, &places, &rollout.models, &before);
            let new =
                places.iter().filter(|p| phase::includes(&cuts, p) && !phase::includes(&before, p)).count();
            let messages = phase::new_cohorts(&places, &before, &cuts).len();
            previews.push(PhasePreview {
                phase: step.clone(),
                devices: new as u64,
                cohort_messages: messages as u64,
            });
            before = cuts;
        }
        Ok(previews)
    }
}

/// What one phase of a plan would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhasePreview {
    /// The phase.
    #[serde(flatten)]
    pub phase: Phase,
    /// Devices that it newly includes.
    pub devices: u64,
    /// Cohort messages that it takes.
    pub cohort_messages: u64,
}

#[expect(clippy::too_many_arguments, reason = "one value for each field that is not at its start")]
fn preview(
    id: &RolloutId,
    product: &ProductId,
    rc: u64,
    attempt: u32,
    salt: Salt,
    plan: Plan,
    models: std::collections::BTreeSet<ModelId>,
    now: u64,
) -> Rollout {
    Rollout {
        id: id.clone(),
        product: product.clone(),
        rc,
        kind: EntryKind::Update,
        attempt,
        salt,
        plan,
        status: Status::Running,
        phases: Vec::new(),
        models,
        series: 0,
        first: Default::default(),
        first_bad: Default::default(),
        order: 0,
        started_at: now,
        ended_at: None,
        because: String::new(),
    }
}

/// Tells whether a rollout reaches everybody and nobody is on the way.
fn has_settled(rollout: &Rollout) -> bool {
    rollout.status == Status::Running && rollout.reaches_all() && rollout.total().pending() == 0
}

fn regions_meet(a: &[RegionId], b: &[RegionId]) -> bool {
    a.is_empty() || b.is_empty() || a.iter().any(|region| b.contains(region))
}

fn ended(id: &RolloutId, status: Status) -> Refusal {
    let word = if status == Status::Killed { "killed" } else { "completed" };
    let what = format!("rollout {id} is {word}");
    refuse(RefusalKind::Conflict, what, "that is final; start a new rollout of a new release")
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
