//! One device: the real agent core on a disk that is two flags, with the boots and probes that its traits draw.

use std::collections::BTreeMap;

use p256::ecdsa::SigningKey;
use p256::ecdsa::signature::Signer as _;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use tern_agent::core::SlotName;
use tern_agent::core::agent::{Agent, BootFacts, Content, Held, Job, Keys, Settings};
use tern_agent::core::durable::Durable;
use tern_agent::core::timing::Now;
use tern_protocol::mac::PairSecret;
use tern_protocol::offer::Artifact;
use tern_protocol::tuf::Trusted;

use super::super::device::{Kind, Traits, uniform};
use super::super::scenario::Defect;
use super::site::RC;
use crate::sim::clock::{EPOCH, HOUR, Rng};

/// Bytes of a slot.
const CAPACITY: u64 = 1 << 20;
const DAY: u64 = 24 * HOUR;
/// Crashes a day of a device, and of one that has the defect.
const CRASHES: (f64, f64) = (0.01, 0.7);
/// So many devices crash as often whatever they run: chance has put them into one arm or the other.
const CHRONIC: f64 = 0.01;
/// What a device drains in a day, in tenths of a percent: median, spread of the logarithm among devices and among a
/// device's days.
const DRAIN: (f64, f64, f64) = (100.0, 0.17, 0.1);
/// So many times as much drains one that has the defect: eight in ten of its days are above nine in ten usual ones.
const DRAINED: f64 = 1.53;

/// The keys that all devices of a run share; what they seal differs all the same, for the device's name is in every key.
#[derive(Clone)]
pub(super) struct SharedKeys {
    pub(super) secret: PairSecret,
    pub(super) own: p256::SecretKey,
}

impl Keys for SharedKeys {
    fn identity(&self) -> Vec<u8> {
        self.own.public_key().to_encoded_point(false).as_bytes().to_vec()
    }

    fn telemetry(&self) -> Vec<u8> {
        self.identity()
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature: p256::ecdsa::Signature = SigningKey::from(&self.own).sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    fn agree(&self, _: &p256::PublicKey) -> PairSecret {
        self.secret.clone()
    }
}

/// A device whose agent has something to do, or had.
pub(super) struct Terminal {
    /// None while it is off.
    pub(super) agent: Option<Agent>,
    /// What its disk holds while it is off.
    saved: Option<Box<(Durable, Trusted)>>,
    pub(super) link: bool,
    /// It finds no network before this.
    pub(super) back_at: u64,
    /// Wakes, jobs and boots of an earlier process are lost with it.
    pub(super) process: u32,
    /// When it wants to be woken, in virtual time.
    pub(super) wake: u64,
    /// The newest retained message that it was handed.
    pub(super) heard: u64,
    booted_at: u64,
    boots: u64,
    /// The release runs.
    runs: bool,
    /// The boot record holds a trial of it.
    armed: bool,
    confirmed: bool,
    /// The image in the inactive slot.
    image: Option<Artifact>,
    /// When it counted last, and how often.
    counted: (u64, u64),
}

impl Terminal {
    /// A device that has run since before the rollout and knows what was published then; `boot` brings it up.
    pub(super) fn new(durable: Durable, trust: Trusted) -> Self {
        Self {
            agent: None,
            saved: Some(Box::new((durable, trust))),
            link: false,
            back_at: 0,
            process: 0,
            wake: u64::MAX,
            heard: 0,
            booted_at: 0,
            boots: 0,
            runs: false,
            armed: false,
            confirmed: false,
            image: None,
            counted: (0, 0),
        }
    }

    /// Returns the device's own time.
    pub(super) fn now(&self, at: u64) -> Now {
        Now { uptime: at - self.booted_at, wall: (EPOCH + at) / 1000 }
    }

    /// Returns the moment of an uptime.
    pub(super) fn moment(&self, uptime: u64) -> u64 {
        self.booted_at.saturating_add(uptime)
    }

    /// Brings up the agent; the first time it has been up since the beginning. `None` for a device that is up.
    pub(super) fn boot(
        &mut self,
        settings: Settings,
        keys: &SharedKeys,
        at: u64,
        seed: [u8; 32],
    ) -> Option<BootFacts> {
        let (durable, trust) = *self.saved.take()?;
        let first = self.boots == 0;
        self.boots += 1;
        self.counted.0 = at;
        if !first {
            self.booted_at = at;
            // The boot loader tries a trial once.
            self.runs = self.confirmed || (self.armed && !self.runs);
        }
        let facts = BootFacts {
            components: Default::default(),
            slot: if self.runs { SlotName::B } else { SlotName::A },
            boot_id: self.boots.to_string(),
            active: if self.confirmed { SlotName::B } else { SlotName::A },
            trial: self.armed.then_some(SlotName::B),
            running: if self.runs { RC } else { 0 },
            running_version: if self.runs { format!("{RC}.0.0") } else { String::new() },
            floor: 0,
            capacity: CAPACITY,
            contents: [
                Content::Unknown,
                self.image.as_ref().map_or(Content::Bad, |image| Content::Whole(Held::of(image))),
            ],
        };
        self.agent = Some(Agent::new(settings, Box::new(keys.clone()), durable, trust, seed));
        Some(facts)
    }

    /// Switches it off; its disk keeps what the agent had saved.
    pub(super) fn off(&mut self) {
        self.process += 1;
        self.link = false;
        self.wake = u64::MAX;
        self.saved =
            self.agent.take().map(|agent| Box::new((agent.durable().clone(), agent.trust().clone())));
    }

    /// Does a job that takes no time worth counting.
    pub(super) fn perform(&mut self, job: Job) {
        match job {
            Job::MarkBad(_) => self.image = None,
            Job::Hash { artifact, .. } => self.image = Some(artifact),
            Job::Arm { .. } => self.armed = true,
            Job::Disarm => self.armed = false,
            Job::Confirm(_) => (self.confirmed, self.armed) = (true, false),
            Job::Install { .. } | Job::Revert(_) | Job::Keep(_) => unreachable!("it has slots alone"),
            Job::Decode(_) | Job::Compare { .. } => unreachable!("it takes images as they are"),
            Job::Sync(..) | Job::RunHooks(_) | Job::UndoHooks | Job::Look(_) | Job::Probe | Job::Reboot => {}
        }
    }

    /// Tells whether it is held back and has said so: who falls silent by itself does so in either arm.
    pub(super) fn waits(&self) -> bool {
        let durable = self.agent.as_ref().map(Agent::durable);
        durable.is_some_and(|durable| {
            durable.compared.as_ref().is_some_and(|compared| compared.control)
                && durable.outbox.pending().next().is_none()
        })
    }

    /// Returns what it counted since the last time.
    pub(super) fn figures(
        &mut self,
        traits: &Traits,
        defect: Option<Defect>,
        at: u64,
    ) -> BTreeMap<String, u64> {
        let (since, times) = self.counted;
        self.counted = (at, times + 1);
        let mut rng = Rng::new(traits.days.wrapping_add(times.wrapping_mul(0x9e37_79b9)));
        let affected = self.runs && traits.affected && traits.kind == Kind::Good;
        let crashing = affected && matches!(defect, Some(Defect::Crash(_)));
        let thirsty = affected && matches!(defect, Some(Defect::Battery(_)));
        let mut own = Rng::new(traits.days);
        let (chronic, usual) =
            (uniform(&mut own) < CHRONIC, DRAIN.1 * super::super::device::normal(&mut own));
        let rate = if crashing || chronic { CRASHES.1 } else { CRASHES.0 };
        let days = at.saturating_sub(since) as f64 / DAY as f64;
        let crashes = uniform(&mut rng) < 1.0 - libm::exp(-rate * days);
        let times = if thirsty { DRAINED } else { 1.0 };
        let drain = DRAIN.0 * times * libm::exp(usual + DRAIN.2 * super::super::device::normal(&mut rng));
        BTreeMap::from([("crashes".to_owned(), u64::from(crashes)), ("drain".to_owned(), whole(drain))])
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred")]
fn whole(count: f64) -> u64 {
    count as u64
}
