//! What operators decide about devices: who vouches, who may come in, who may stay.

use p256::ecdsa::Signature;
use serde::{Deserialize, Serialize};
use tern_protocol::claim::Token;
use tern_protocol::digest::Digest;
use tern_protocol::id::{ClaimId, DeviceId, FactoryId};

use super::command::{Outcome, Reply, refuse};
use super::{Fact, RefusalKind, Service};
use crate::core::enrolment::claim::{Approval, CLAIMS_MAX, COUNT_MAX, LIFE_MAX, Terms};
use crate::core::enrolment::factory::{FACTORIES_MAX, LIST_MAX, Vouched, signing_input};
use crate::core::enrolment::list;
use crate::core::fact::DeviceEntry;
use crate::core::fleet::device::Standing;

/// Devices in one frame of the ledger.
const DEVICES_PER_FRAME: usize = 500;
/// Bytes of a reason in the ledger.
const REASON_MAX: usize = 512;

/// What an operator decides about one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Admission {
    /// Let a waiting device in.
    Approve,
    /// Turn a waiting device away.
    Reject,
    /// Hear it, and count nothing of it.
    Quarantine,
    /// End the quarantine.
    Readmit,
    /// Neither hear nor answer it.
    Revoke,
    /// Let it enrol again with new keys, by a claim or a list.
    Reset,
}

/// A claim to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClaim {
    /// Its name; `<product>-claim-<n>` when absent.
    #[serde(default)]
    pub claim: Option<ClaimId>,
    /// What its token is good for.
    #[serde(flatten)]
    pub terms: Terms,
}

/// A token on its way to the operator: shown once, kept nowhere.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OneTimeToken(pub String);

impl std::fmt::Debug for OneTimeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneTimeToken(hidden)")
    }
}

impl Service {
    /// Registers devices that nobody vouches for.
    pub(super) fn add_unsigned(&mut self, devices: Vec<DeviceEntry>) -> Outcome {
        self.add_devices(devices, Vouched::Unsigned)
    }

    /// Registers the devices of a list that a trusted factory has signed.
    pub(super) fn add_signed(&mut self, text: &str, signature: &str) -> Outcome {
        if text.len() > LIST_MAX {
            let what = format!("the list has {} bytes, allowed are {LIST_MAX}", text.len());
            return Err(refuse(RefusalKind::Invalid, what, "cut it into several and have each signed"));
        }
        let signature = hex::decode(signature).ok().and_then(|der| Signature::from_der(&der).ok());
        let Some(signature) = signature else {
            let what = "the signature is not an ECDSA signature in DER";
            return Err(refuse(RefusalKind::Invalid, what, "make it with `tern factory sign`"));
        };
        let input = signing_input(&self.fleet.id, text.as_bytes());
        let mut factories = self.fleet.factories.iter();
        let Some((factory, _)) = factories.find(|(_, factory)| factory.vouches(&input, &signature)) else {
            let what = "no trusted factory has signed this list, byte for byte, for this fleet";
            let hint = "compare the list with what was signed, and see `tern factory list`";
            return Err(refuse(RefusalKind::Invalid, what, hint));
        };
        let factory = factory.clone();
        let devices = list::read(text).map_err(|why| {
            let hint = "have the factory correct and sign it; no device of it was registered";
            refuse(RefusalKind::Invalid, format!("the signed list: {why}"), hint)
        })?;
        let list = Digest::of(text.as_bytes());
        self.note(format!("factory {factory} vouches for {} devices", devices.len()));
        self.add_devices(devices, Vouched::ByFactory { factory, list })
    }

    fn add_devices(&mut self, devices: Vec<DeviceEntry>, by: Vouched) -> Outcome {
        for entry in &devices {
            let id = &entry.device;
            if let Some(known) = self.fleet.devices.get(id)
                && known.identity != entry.identity
            {
                if known.standing != Standing::Reset {
                    let what = format!("device {id} is registered with another identity key");
                    let hint =
                        "an enrolled id cannot be taken over; use another id, or `tern device reset` it";
                    return Err(refuse(RefusalKind::Conflict, what, hint));
                }
                if known.had(&entry.identity) {
                    let what = format!("device {id} was reset, and the list names a key that it lost");
                    return Err(refuse(RefusalKind::Conflict, what, "list its new key"));
                }
            }
            let point = hex::decode(&entry.identity).ok();
            if point.is_none_or(|p| p256::PublicKey::from_sec1_bytes(&p).is_err()) {
                let what = format!("the identity of device {id} is not a P-256 public key in hex");
                return Err(refuse(RefusalKind::Invalid, what, "print it with `tern-agent identity`"));
            }
        }
        let renewed = devices.iter().filter(|e| self.fleet.devices.contains_key(&e.device)).count();
        let added = devices.len() - renewed;
        for some in devices.chunks(DEVICES_PER_FRAME) {
            self.record(Fact::DevicesAdded { devices: some.to_vec(), by: Some(by.clone()) });
        }
        Ok(Reply::Devices { added, renewed })
    }

    pub(super) fn trust_factory(&mut self, factory: FactoryId, key: String) -> Outcome {
        let point = hex::decode(&key).ok().filter(|point| point.len() == 65);
        if point.is_none_or(|p| p256::PublicKey::from_sec1_bytes(&p).is_err()) {
            let what = format!("the key of factory {factory} is not a P-256 public key");
            return Err(refuse(RefusalKind::Invalid, what, "make one with `tern keys factory`"));
        }
        if let Some(known) = self.fleet.factories.get(&factory) {
            if known.key == key && !known.revoked {
                return Ok(Reply::Done { what: format!("factory {factory} is trusted already") });
            }
            let what = format!("a factory {factory} was registered before");
            return Err(refuse(RefusalKind::Conflict, what, "choose another name for the new key"));
        }
        if let Some((other, _)) = self.fleet.factories.iter().find(|(_, other)| other.key == key) {
            let what = format!("the same key is registered as factory {other}");
            return Err(refuse(RefusalKind::Conflict, what, "one key speaks for one factory"));
        }
        if self.fleet.factories.values().filter(|factory| !factory.revoked).count() >= FACTORIES_MAX {
            let what = format!("{FACTORIES_MAX} factories are trusted already");
            return Err(refuse(RefusalKind::Conflict, what, "revoke one with `tern factory revoke`"));
        }
        self.note(format!("factory {factory} is trusted from now on"));
        self.record(Fact::FactoryAdded { factory: factory.clone(), key });
        Ok(Reply::Done { what: format!("factory {factory} is trusted") })
    }

    pub(super) fn revoke_factory(&mut self, factory: FactoryId) -> Outcome {
        let Some(known) = self.fleet.factories.get(&factory) else {
            let what = format!("no factory {factory}");
            return Err(refuse(RefusalKind::NotFound, what, "see `tern factory list`"));
        };
        if known.revoked {
            return Ok(Reply::Done { what: format!("factory {factory} is revoked already") });
        }
        self.note(format!("factory {factory} is revoked"));
        self.record(Fact::FactoryRevoked { factory: factory.clone() });
        Ok(Reply::Done { what: format!("factory {factory} is revoked; the devices of its lists stay") })
    }

    pub(super) fn create_claim(&mut self, new: NewClaim) -> Outcome {
        let NewClaim { claim, terms } = new;
        if !self.fleet.products.contains_key(&terms.product) {
            let what = format!("no product {}", terms.product);
            return Err(refuse(RefusalKind::NotFound, what, "see `tern keys init`"));
        }
        if !(1..=COUNT_MAX).contains(&terms.count) {
            let what = format!("a claim for {} devices", terms.count);
            return Err(refuse(RefusalKind::Invalid, what, format!("choose 1 to {COUNT_MAX}")));
        }
        if terms.expires <= self.now || terms.expires - self.now > LIFE_MAX {
            let what = "a claim must expire, after now and within 366 days";
            return Err(refuse(RefusalKind::Invalid, what, "choose another --expires"));
        }
        if self.fleet.claims.len() >= CLAIMS_MAX {
            let what = format!("{CLAIMS_MAX} claims were made already");
            return Err(refuse(RefusalKind::Conflict, what, "use factory lists for what comes in numbers"));
        }
        let claim = match claim {
            Some(claim) => claim,
            None => self.free_name(&terms)?,
        };
        if self.fleet.claims.contains_key(&claim) {
            let what = format!("a claim {claim} was made before");
            return Err(refuse(RefusalKind::Conflict, what, "choose another --name"));
        }
        let token = Token::new(claim.clone(), self.random().0);
        let key = token.key().digest();
        self.note(format!("claim {claim} made for {} devices", terms.count));
        self.record(Fact::ClaimCreated { claim: claim.clone(), terms, key });
        Ok(Reply::Claim { claim, token: OneTimeToken(token.reveal()) })
    }

    fn free_name(&self, terms: &Terms) -> Result<ClaimId, super::Refusal> {
        let name = |n: usize| format!("{}-claim-{n}", terms.product).parse::<ClaimId>();
        // No claim is ever removed, so within one more than there are is a free one.
        let free = (1..=self.fleet.claims.len() + 1).filter_map(|n| name(n).ok());
        free.into_iter().find(|name| !self.fleet.claims.contains_key(name)).ok_or_else(|| {
            refuse(RefusalKind::Invalid, "the product's name leaves no room", "choose a --name")
        })
    }

    pub(super) fn revoke_claim(&mut self, claim: ClaimId) -> Outcome {
        let Some(known) = self.fleet.claims.get(&claim) else {
            let what = format!("no claim {claim}");
            return Err(refuse(RefusalKind::NotFound, what, "see `tern claim list`"));
        };
        if known.revoked {
            return Ok(Reply::Done { what: format!("claim {claim} is revoked already") });
        }
        self.note(format!("claim {claim} is revoked"));
        self.record(Fact::ClaimRevoked { claim: claim.clone() });
        let waiting = self.fleet.pending.values().filter(|waits| waits.claim == claim).count();
        Ok(Reply::Done { what: format!("claim {claim} is revoked; {waiting} of its devices still wait") })
    }

    pub(super) fn admission(&mut self, id: DeviceId, admission: Admission, reason: &str) -> Outcome {
        if reason.len() > REASON_MAX {
            let what = format!("the reason has {} bytes", reason.len());
            return Err(refuse(RefusalKind::Invalid, what, format!("write at most {REASON_MAX}")));
        }
        match admission {
            Admission::Approve => self.approve(id),
            Admission::Reject => {
                self.waiting(&id)?;
                self.note(format!("device {id} is rejected"));
                self.record(Fact::Rejected { device: id.clone() });
                Ok(Reply::Done { what: format!("device {id} is rejected") })
            }
            Admission::Quarantine => {
                self.change(id, Standing::Quarantined, reason, |now| now == Standing::Active)
            }
            Admission::Readmit => {
                self.change(id, Standing::Active, reason, |now| now == Standing::Quarantined)
            }
            Admission::Revoke => self.change(id, Standing::Revoked, reason, |now| now != Standing::Revoked),
            Admission::Reset => self.change(id, Standing::Reset, reason, |now| now != Standing::Reset),
        }
    }

    fn approve(&mut self, id: DeviceId) -> Outcome {
        self.waiting(&id)?;
        // Somebody may have decided about the device while its new keys waited.
        if let Some(device) = self.fleet.devices.get(&id).filter(|d| d.standing != Standing::Reset) {
            let what = format!("device {id} is {} and not reset", device.standing.word());
            let hint = format!("`tern device reset {id}` first, or `tern device reject {id}`");
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        self.note(format!("device {id} is approved"));
        self.record(Fact::Approved { device: id.clone(), by: Approval::Hand });
        Ok(Reply::Done { what: format!("device {id} is approved; it is heard at its next hello") })
    }

    fn waiting(&self, id: &DeviceId) -> Result<(), super::Refusal> {
        if self.fleet.pending.contains_key(id) {
            return Ok(());
        }
        let what = format!("no device {id} waits for approval");
        Err(refuse(RefusalKind::NotFound, what, "see `tern device pending`"))
    }

    fn change(
        &mut self,
        id: DeviceId,
        standing: Standing,
        reason: &str,
        from: impl Fn(Standing) -> bool,
    ) -> Outcome {
        let Some(device) = self.fleet.devices.get(&id) else {
            let hint = if self.fleet.pending.contains_key(&id) {
                format!("it waits for approval: `tern device reject {id}`")
            } else {
                "see `tern device list`".to_owned()
            };
            return Err(refuse(RefusalKind::NotFound, format!("no device {id}"), hint));
        };
        let now = device.standing;
        if now == standing {
            return Ok(Reply::Done { what: format!("device {id} is {} already", standing.word()) });
        }
        if !from(now) {
            let what = format!("device {id} is {}", now.word());
            let hint = match now {
                Standing::Active | Standing::Quarantined => "see `tern device show`",
                Standing::Revoked | Standing::Reset => {
                    "it comes back with new keys: `tern device reset`, a claim"
                }
            };
            return Err(refuse(RefusalKind::Conflict, what, hint));
        }
        let by = self.actor();
        let because = if reason.is_empty() { format!("by {by}") } else { format!("{reason} (by {by})") };
        self.note(format!("device {id} is {}: {because}", standing.word()));
        self.record(Fact::StandingChanged { device: id.clone(), standing, because });
        let what = match standing {
            Standing::Active => format!("device {id} is active again"),
            Standing::Quarantined => {
                format!("device {id} is quarantined: heard, not counted, not offered anything")
            }
            Standing::Revoked => {
                format!("device {id} is revoked; take its password or certificate away as well")
            }
            Standing::Reset => {
                format!("device {id} is reset: it may enrol with new keys by a claim or a list")
            }
        };
        Ok(Reply::Done { what })
    }
}
