//! What operators want, and how it goes. Stopping never asks; widening says what the operator saw.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tern_protocol::id::{ClaimId, DeviceId, FactoryId, ProductId, RolloutId, TagId};

use super::Service;
use super::admit::{Admission, NewClaim, OneTimeToken};
use super::tokens::MintToken;
use crate::core::access::TokenName;
use crate::core::fact::{DeviceEntry, SignedFile};
use crate::core::fleet::product::Product;
use crate::core::rollout::plan::Plan;
use crate::core::rollout::record::Rollout;

/// What an operator wants.
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
        /// Names the request: the same one again does nothing more.
        #[serde(default)]
        key: Option<String>,
    },
    /// Agree, as a second person, that a phase may open.
    ApprovePhase {
        /// The rollout.
        rollout: RolloutId,
        /// The phase, from 1.
        phase: usize,
    },
    /// Take devices back from a release that was killed.
    Revert {
        /// The rollout that was killed.
        rollout: RolloutId,
        /// What the revert is called; absent: after the rollout.
        name: Option<RolloutId>,
        /// The release to go back to; absent: the last that reached everybody before.
        to: Option<u64>,
        /// Parameters; absent: those of the rollout.
        plan: Option<Plan>,
    },
    /// Give devices a label, or take it from them.
    Tag {
        /// The devices.
        devices: Vec<DeviceId>,
        /// The label.
        tag: TagId,
        /// They have it from here on.
        on: bool,
    },
    /// Take the release back, for ever.
    Kill {
        /// The rollout.
        rollout: RolloutId,
        /// Why, for the ledger.
        reason: String,
    },
    /// Compare with the devices before anything more is signed: the data folder may be older than the fleet.
    Recover {
        /// Why, for the ledger.
        because: String,
    },
    /// End the comparison, whoever was not heard.
    EndRecovery,
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
            Self::Pause(rollout)
            | Self::Resume(rollout)
            | Self::Promote { rollout, .. }
            | Self::ApprovePhase { rollout, .. }
            | Self::Revert { rollout, .. } => Some(Signs::Rollout(rollout.clone())),
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
        self.unless_comparing(&command)?;
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
            Command::Promote { rollout, from_phase, key } => self.promote(&rollout, from_phase, key),
            Command::ApprovePhase { rollout, phase } => self.approve_phase(&rollout, phase),
            Command::Revert { rollout, name, to, plan } => self.revert(&rollout, name, to, plan),
            Command::Tag { devices, tag, on } => self.tag(devices, tag, on),
            Command::Kill { rollout, reason } => self.kill_by_hand(&rollout, &reason),
            Command::Recover { because } => self.recover(because),
            Command::EndRecovery => self.end_recovery(),
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

    pub(super) fn product(&self, id: &ProductId) -> Result<&Product, Refusal> {
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
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
