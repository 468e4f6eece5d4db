//! Enrolments: a device presents its keys. The cheap checks come first, for anybody who reaches the broker may send
//! one: reading, then the claim's name, then its code (a microsecond), and only then a signature (hundreds).

use tern_protocol::claim::{ClaimKey, ClaimProof, Claimed};
use tern_protocol::id::{ClaimId, DeviceId};
use tern_protocol::limits::ENROL_MAX;
use tern_protocol::message::{Enrol, Registry, enrol_signing_input};

use super::ingest::verifies;
use super::{Fact, Service};
use crate::core::enrolment::claim::{Approval, PENDING_MAX, short};
use crate::core::fleet::device::{Device, RETIRED_MAX, Standing};

/// Least time between two wrong signatures for one device or claim: junk must not keep us busy.
const WRONG_PAUSE: u64 = 1000;
/// Least time between two complaints about one claim: a batch that comes too late must not fill the log.
const COMPLAINT_PAUSE: u64 = 60_000;

/// An enrolment whose keys were read.
struct Presented {
    enrol: Enrol,
    identity: Vec<u8>,
    telemetry: Vec<u8>,
}

impl Service {
    pub(super) fn enrol(&mut self, id: &DeviceId, payload: &[u8]) {
        let known = self.fleet.devices.get(id);
        if known.is_some_and(|device| device.standing == Standing::Revoked) {
            self.counters.silenced += 1;
            return;
        }
        let enrol =
            (payload.len() <= ENROL_MAX).then(|| serde_json::from_slice::<Enrol>(payload).ok()).flatten();
        let Some(enrol) = enrol else {
            match known {
                Some(_) => self.counters.malformed += 1,
                None => self.counters.unknown += 1,
            }
            return;
        };
        let (nonce, identity) = (enrol.time, enrol.identity.clone());
        match known {
            Some(device) if device.standing != Standing::Reset => self.enrol_known(id, enrol),
            _ => self.enrol_claimed(id, enrol),
        }
        if let Some(nonce) = nonce {
            self.tell_time(id, &identity, nonce);
        }
    }

    /// A device that a list or a claim brought: its first telemetry key, another one, or another identity key.
    fn enrol_known(&mut self, id: &DeviceId, enrol: Enrol) {
        let Some(device) = self.fleet.devices.get(id) else { return };
        let same = enrol.identity == device.identity;
        if same && device.telemetry.as_ref() == Some(&enrol.telemetry) {
            return;
        }
        // In quarantine a thief could lock the owner out with a key of his own.
        let may_replace = device.standing == Standing::Active && enrol.replaces.is_some();
        let old = device.had(&enrol.identity) || device.had(&enrol.telemetry);
        if old
            || (!same && !may_replace)
            || (device.telemetry.is_some() && device.retired.len() >= RETIRED_MAX)
        {
            self.counters.forged += 1;
            if !same && !may_replace {
                self.note_pretender(id);
            }
            return;
        }
        let present = hex::decode(&device.identity).unwrap_or_default();
        if self.is_too_soon(id.as_str()) {
            return;
        }
        let Some(presented) = Presented::read(enrol) else {
            self.counters.forged += 1;
            return;
        };
        let input = self.input(id, &presented);
        let vouched = match &presented.enrol.replaces {
            Some(former) if !same => verifies(&present, &input, former),
            _ => true,
        };
        if !vouched || !presented.proves(&input) {
            self.was_wrong(id.as_str());
            return;
        }
        let Enrol { identity, telemetry, .. } = presented.enrol;
        let device = id.clone();
        if same {
            self.note(format!("device {id} enrolled"));
            self.record(Fact::Enrolled { device, telemetry });
        } else {
            self.note(format!("device {id} has replaced its keys"));
            self.record(Fact::IdentityReplaced { device, identity, telemetry });
        }
    }

    /// Somebody uses a device's name with other keys: a thief, or the device itself after its flash was replaced. Told
    /// once an hour for each device, for it repeats.
    fn note_pretender(&mut self, id: &DeviceId) {
        const PAUSE: u64 = 3_600_000;
        if self.posed.get(id).is_none_or(|at| self.now.saturating_sub(*at) >= PAUSE) {
            self.posed.insert(id.clone(), self.now);
            self.note(format!(
                "somebody with other keys wants to enrol as {id}, which keeps the keys that it has; if it is the device \
                 itself, reset it: `tern device reset {id}`"
            ));
        }
    }

    /// A device that nobody listed, or that lost its keys: only a claim helps.
    fn enrol_claimed(&mut self, id: &DeviceId, enrol: Enrol) {
        let (Some(proof), Some(registry)) = (&enrol.claim, &enrol.registry) else {
            self.counters.unknown += 1;
            return;
        };
        let proof: Option<ClaimProof> = proof.parse().ok();
        let known = proof.and_then(|proof| {
            let key = ClaimKey::from_digest(self.fleet.claims.get(&proof.claim)?.key);
            Some((key, proof))
        });
        let Some((key, proof)) = known else {
            self.counters.unclaimed += 1;
            return;
        };
        let registry = registry.clone();
        let Some(presented) = Presented::read(enrol) else {
            self.counters.malformed += 1;
            return;
        };
        let claimed = Claimed {
            fleet: &self.fleet.id,
            device: id,
            identity: &presented.identity,
            telemetry: &presented.telemetry,
            registry: &registry,
        };
        if !key.checks(&proof, &claimed) {
            self.counters.unclaimed += 1;
            return;
        }
        // From here on it is somebody who holds the token.
        let claim = proof.claim;
        if self.fleet.pending.get(id).is_some_and(|waits| waits.identity == presented.enrol.identity) {
            return;
        }
        if let Err(why) = self.admits(id, &claim, &presented.enrol, &registry) {
            self.turn_away(id, &claim, &why);
            return;
        }
        if self.is_too_soon(claim.as_str()) {
            return;
        }
        let input = self.input(id, &presented);
        if !presented.proves(&input) {
            self.was_wrong(claim.as_str());
            return;
        }
        self.applied(id, claim, presented.enrol, registry);
    }

    fn admits(
        &self,
        id: &DeviceId,
        claim: &ClaimId,
        enrol: &Enrol,
        registry: &Registry,
    ) -> Result<(), String> {
        let Some(terms) = self.fleet.claims.get(claim) else { return Err("it is unknown".to_owned()) };
        terms.admits(short(&enrol.identity), registry, self.now).map_err(|ended| ended.to_string())?;
        let lost = |device: &Device| device.had(&enrol.identity) || device.had(&enrol.telemetry);
        if self.fleet.devices.get(id).is_some_and(lost) {
            return Err("the device was reset, and these are its lost keys".to_owned());
        }
        if self.fleet.pending.contains_key(id) {
            return Err("another key waits under the same name".to_owned());
        }
        // Whoever waits stays: what comes last is what is refused.
        if terms.terms.approve == Approval::Hand && self.fleet.pending.len() >= PENDING_MAX {
            return Err(format!("{PENDING_MAX} devices wait already"));
        }
        Ok(())
    }

    fn applied(&mut self, id: &DeviceId, claim: ClaimId, enrol: Enrol, registry: Registry) {
        let approve = self.fleet.claims.get(&claim).map_or(Approval::Hand, |claim| claim.terms.approve);
        let Enrol { identity, telemetry, .. } = enrol;
        let (device, named) = (id.clone(), claim.clone());
        self.record(Fact::Applied { device, claim: named, identity, telemetry, registry });
        match approve {
            Approval::Hand => self.note(format!("device {id} waits for approval, by claim {claim}")),
            Approval::Auto => {
                self.note(format!("device {id} enrolled by claim {claim}"));
                self.record(Fact::Approved { device: id.clone(), by: Approval::Auto });
            }
        }
    }

    fn turn_away(&mut self, id: &DeviceId, claim: &ClaimId, why: &str) {
        self.counters.turned_away += 1;
        let last = self.complained.get(claim).copied();
        if last.is_some_and(|at| self.now.saturating_sub(at) < COMPLAINT_PAUSE) {
            return;
        }
        self.complained.insert(claim.clone(), self.now);
        self.note(format!("device {id} was turned away with claim {claim}: {why}"));
    }

    fn input(&self, id: &DeviceId, presented: &Presented) -> Vec<u8> {
        enrol_signing_input(&self.fleet.id, id, &presented.identity, &presented.telemetry)
    }

    /// Tells whether a wrong signature came a moment ago under this name; the device repeats what was dropped.
    fn is_too_soon(&mut self, name: &str) -> bool {
        let soon = self.wrong.get(name).is_some_and(|at| self.now.saturating_sub(*at) < WRONG_PAUSE);
        self.counters.forged += u64::from(soon);
        soon
    }

    /// The names are those of registered devices and of claims: their number is bounded.
    fn was_wrong(&mut self, name: &str) {
        self.counters.forged += 1;
        self.wrong.insert(name.to_owned(), self.now);
    }
}

impl Presented {
    /// Reads the keys; none if they are not written as points are.
    fn read(enrol: Enrol) -> Option<Self> {
        let point = |text: &str| hex::decode(text).ok().filter(|bytes| bytes.len() == 65 && bytes[0] == 4);
        let (identity, telemetry) = (point(&enrol.identity)?, point(&enrol.telemetry)?);
        Some(Self { enrol, identity, telemetry })
    }

    /// Tells whether the identity key signed both keys, and the telemetry key is on the curve.
    fn proves(&self, input: &[u8]) -> bool {
        p256::PublicKey::from_sec1_bytes(&self.telemetry).is_ok()
            && verifies(&self.identity, input, &self.enrol.proof)
    }
}
