//! Who we are: enrolment, hello, and the epoch that the controller grants.

use tern_protocol::bundle::{Bundle, File};
use tern_protocol::claim::Claimed;
use tern_protocol::limits::PRESENTED_MAX;
use tern_protocol::message::{
    Enrol, Hello, Nonce, Proof, ReportKind, challenge_signing_input, enrol_signing_input,
};
use tern_protocol::topic::UpKind;
use tern_protocol::tuf::Role;

use crate::core::agent::Agent;
use crate::core::state::{State, UpdatingStep};
use crate::core::timing::Now;

/// Hellos without an answer after which the device enrols again: the controller may have lost its store.
const HELLOS_BEFORE_ENROL: u32 = 3;

impl Agent {
    pub(in crate::core) fn greet_again(&mut self, now: Now) {
        self.exchange.unheard = 0;
        self.exchange.greeted = false;
        self.exchange.hellos = 0;
        self.exchange.resend_at = now.uptime;
        self.durable.outbox.drop_hello();
    }

    pub(super) fn greet(&mut self, now: Now) {
        let due = !self.durable.enrolled || self.exchange.replacing;
        if due || self.exchange.hellos >= HELLOS_BEFORE_ENROL {
            self.enrol(now);
            self.exchange.hellos = 0;
        }
        self.exchange.hellos += 1;
        let waits = self.durable.outbox.pending().any(|p| matches!(p.kind, ReportKind::Hello(_)));
        if !waits {
            let hello = self.hello(None);
            self.durable.outbox.push(ReportKind::Hello(Box::new(hello)));
            self.saved = false;
        }
        let hello = self.durable.outbox.pending().find(|p| matches!(p.kind, ReportKind::Hello(_))).cloned();
        if let Some(pending) = hello {
            self.send_one(pending.n, pending.kind);
        }
    }

    fn hello(&self, proof: Option<Proof>) -> Hello {
        let registry = self.registry().clone();
        let boot = self.boot();
        Hello {
            running: boot.map_or(0, |b| b.running),
            agent: self.settings.version.clone(),
            product: registry.product,
            model: registry.model,
            carrier: registry.carrier,
            region: registry.region,
            floor: self.durable.floor,
            versions: self.trust.versions(),
            halted: self.durable.halted.iter().rev().take(32).copied().collect(),
            components: self.durable.components.clone(),
            proof,
        }
    }

    fn enrol(&mut self, now: Now) {
        let asks = self.lacks_code() && self.trust.time_key().is_some();
        self.exchange.time_nonce = asks.then(|| (self.entropy.nonce(), now.uptime));
        let (identity, telemetry) = (self.keys.identity(), self.keys.telemetry());
        let input = enrol_signing_input(&self.settings.fleet, &self.settings.device, &identity, &telemetry);
        // The proof covers what we were configured as: the registry's word is the controller's own.
        let registry = &self.settings.registry;
        let (fleet, device) = (&self.settings.fleet, &self.settings.device);
        let claimed = Claimed { fleet, device, identity: &identity, telemetry: &telemetry, registry };
        let claim = self.settings.claim.as_ref().map(|token| token.prove(&claimed).to_string());
        let former = self.exchange.replacing.then(|| self.keys.sign_as_former(&input)).flatten();
        let enrol = Enrol {
            identity: hex::encode(&identity),
            telemetry: hex::encode(&telemetry),
            proof: hex::encode(self.keys.sign(&input)),
            registry: claim.is_some().then(|| registry.clone()),
            claim,
            replaces: former.map(hex::encode),
            time: self.exchange.time_nonce.map(|(nonce, _)| nonce),
        };
        let payload = serde_json::to_vec(&enrol).expect("our own messages serialise");
        self.publish(UpKind::Enrol, payload);
    }

    pub(super) fn challenged(&mut self, challenge: Nonce) {
        // Challenges answer hellos, and ours was acknowledged: somebody repeats an old one of ours.
        if self.exchange.greeted {
            return;
        }
        let counter = self.durable.outbox.highest();
        let input = challenge_signing_input(&self.settings.device, challenge, counter);
        let signature = hex::encode(self.keys.sign(&input));
        let hello = self.hello(Some(Proof { challenge, counter, signature }));
        self.exchange.challenge = Some(challenge);
        let n = self.durable.outbox.number();
        if self.durable.outbox.must_reserve() {
            self.saved = false;
        }
        self.send_one(n, ReportKind::Hello(Box::new(hello)));
    }

    pub(super) fn granted(&mut self, challenge: Nonce, epoch: u64, counter: u64, now: Now) {
        // An old grant that somebody replays answers no challenge that is open.
        if self.exchange.challenge != Some(challenge) || epoch <= self.durable.epoch {
            return;
        }
        self.exchange.challenge = None;
        let old = std::mem::replace(&mut self.durable.epoch, epoch);
        self.durable.outbox.raise(counter);
        self.durable.outbox.drop_hello();
        self.restamp(old, now);
        self.saved = false;
        self.exchange.greeted = false;
        self.exchange.resend_at = now.uptime;
    }

    /// A granted epoch is not a boot: what was timed in the old one goes on in the new one.
    fn restamp(&mut self, old: u64, now: Now) {
        let at = self.stamp(now);
        match &mut self.durable.state {
            State::VerifyPost { since, .. }
            | State::Retry { since, .. }
            | State::Updating {
                step: UpdatingStep::Announce { since } | UpdatingStep::Reask { since },
                ..
            } => {
                since.epoch = at.epoch;
            }
            State::Idle { not_before: Some(since) } | State::Failed { again: Some(since), .. } => {
                since.epoch = at.epoch;
            }
            _ => {}
        }
        if let Some(compared) = &mut self.durable.compared {
            // Figures of an earlier boot stay so: how long the device was off since then the clock says.
            if compared.counted.epoch == old {
                compared.counted.epoch = at.epoch;
            }
            compared.since.epoch = at.epoch;
        }
    }

    /// Tells whether the controller has not answered with a code under these keys yet.
    pub(super) fn lacks_code(&self) -> bool {
        !self.durable.enrolled || self.exchange.replacing
    }

    /// The service has lost its data folder, or an older one was put back. What it should believe of us is signed.
    pub(super) fn present(&mut self, roles: &[Role], now: Now) {
        if roles.is_empty() {
            self.greet_again(now);
        }
        // Each role once: nobody may have us send more than there is.
        for role in Role::ALL.into_iter().filter(|role| roles.contains(role)) {
            let Some(bytes) = self.trust.file(role) else { continue };
            let files = vec![File { role, bytes: bytes.to_vec() }];
            let payload = Bundle { root: self.trust.root().version, files }.pack_stored();
            if payload.len() <= PRESENTED_MAX {
                self.publish(UpKind::Report, payload);
            }
        }
    }
}
