//! What a device may run: approved, assigned to it, not below its floor, and not halted as far as it can know.

use tern_protocol::bundle::File;
use tern_protocol::tuf::Role;

use super::Sim;
use super::clock::MINUTE;

/// How long after the halt was saved its release may still boot on trial: a reboot under way, or a power cut before
/// the boot record was taken back. The agent that comes up then rolls back.
const TAKING_BACK: u64 = MINUTE;

impl Sim {
    pub(super) fn check_boot(&mut self, d: usize) {
        let slot = self.devices[d].running();
        match self.image_in(d, slot) {
            None => {
                let id = self.devices[d].id.clone();
                self.violated(format!("{id} runs bytes in slot {slot} that nobody signed"));
            }
            // What the factory put there needs nobody's leave.
            Some(0) => {}
            Some(image) => self.check_may_run(d, self.images[image].rc),
        }
        self.check_device(d);
    }

    /// Whatever boots was approved, was offered to this device once, and is not below its floor. What boots on trial
    /// is not halted either, as far as the device can know.
    fn check_may_run(&mut self, d: usize, rc: u64) {
        let device = &self.devices[d];
        let id = device.id.clone();
        let fleet = self.controller.fleet();
        let position = |salt| tern_protocol::position::position(salt, &id);
        let ever = || self.before.iter().chain([&fleet]);
        let offered = ever().flat_map(|fleet| fleet.rollouts.values()).any(|rollout| {
            rollout.rc == rc
                && rollout.phase_of(&device.id, &device.registry, position(rollout.salt)).is_some()
        });
        let approved = ever().filter_map(|fleet| fleet.products.get(&self.product)).any(|product| {
            product.releases().get(&rc).is_some_and(|release| {
                release.artifacts.iter().all(|(_, content)| content.models.contains(&device.registry.model))
            })
        });
        let floor = device.watched.floor;
        let on_trial = device.running() != device.disk.record.active;
        let halted = device.watched.halted.get(&rc).filter(|_| on_trial).copied();
        if !offered {
            self.violated(format!("{id} runs release {rc}, which no rollout ever offered to it"));
        }
        if !approved {
            self.violated(format!("{id} runs release {rc}, which nobody approved for its model"));
        }
        if rc < floor {
            self.violated(format!("{id} runs release {rc} below its floor {floor}"));
        }
        if let Some(since) = halted.filter(|since| self.queue.now() > since + TAKING_BACK) {
            self.violated(format!("{id} tries release {rc}, which it knows to be halted since {since}"));
        }
    }

    /// Notes which releases the files on a device's disk halt: from here on it knows. What a halt key said is void once
    /// offline targets name another one.
    pub(super) fn watch_trust(&mut self, d: usize, files: &[File]) {
        let now = self.queue.now();
        let targets = files.iter().find(|file| file.role == Role::Targets);
        if let Some(keys) = targets.map(|file| halt_keys(&file.bytes)) {
            let watched = &mut self.devices[d].watched;
            if watched.halt_keys.replace(keys.clone()).is_some_and(|before| before != keys) {
                watched.halted.clear();
            }
        }
        for file in files.iter().filter(|file| file.role == Role::Halt) {
            // The agent verified the file; only what it says matters here.
            let value: serde_json::Value = serde_json::from_slice(&file.bytes).unwrap_or_default();
            let named = value["signed"]["x-tern"]["halted"].as_array().cloned().unwrap_or_default();
            for rc in named.iter().filter_map(serde_json::Value::as_u64) {
                self.devices[d].watched.halted.entry(rc).or_insert(now);
            }
        }
    }

    /// A release that the device knows to be halted goes no step further: it is neither armed nor taken as good.
    pub(super) fn check_not_halted(&mut self, d: usize, rc: u64, what: &str) {
        if let Some(since) = self.devices[d].watched.halted.get(&rc).copied() {
            let id = self.devices[d].id.clone();
            self.violated(format!("{id} {what} release {rc}, which it knows to be halted since {since}"));
        }
    }
}

/// Returns the ids of the keys to which a targets file delegates halt.
fn halt_keys(targets: &[u8]) -> Vec<String> {
    let value: serde_json::Value = serde_json::from_slice(targets).unwrap_or_default();
    let roles = value["signed"]["delegations"]["roles"].as_array().cloned().unwrap_or_default();
    let halt = roles.iter().find(|role| role["name"] == Role::Halt.name());
    let keys = halt.and_then(|role| role["keyids"].as_array().cloned()).unwrap_or_default();
    keys.iter().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use tern_controller::core::rollout::plan::Reach;
    use tern_protocol::state::StateName;

    use super::*;
    use crate::sim::SimConfig;
    use crate::sim::Trial;
    use crate::sim::clock::HOUR;
    use crate::sim::operator::plan;

    fn on_its_way(to: StateName) -> Sim {
        let mut sim = Sim::new(70, SimConfig { devices: 1, image: 70_000, ..SimConfig::default() });
        let rc = sim.publish(Trial::Healthy);
        sim.start(rc, plan(&[Reach::All], 60));
        sim.expect("it gets there", |s| s.devices[0].state() == Some(to), HOUR);
        sim
    }

    /// Puts a halt on the device's disk behind its agent's back: an agent that read it and forgot looks like this.
    fn halt_unheeded(sim: &mut Sim) {
        let bytes = br#"{"signed":{"x-tern":{"halted":[1]}}}"#.to_vec();
        sim.watch_trust(0, &[File { role: Role::Halt, bytes }]);
    }

    fn found(sim: &Sim, what: &str) {
        assert!(sim.violations.iter().any(|v| v.contains(what)), "no {what:?} in {:?}", sim.violations);
    }

    #[test]
    fn should_find_a_device_that_arms_what_it_knows_to_be_halted() {
        let mut sim = on_its_way(StateName::Verifying);
        halt_unheeded(&mut sim);
        sim.run_for(HOUR);
        found(&sim, "is about to arm release 1");
    }

    #[test]
    fn should_find_a_device_that_takes_as_good_what_it_knows_to_be_halted() {
        let mut sim = on_its_way(StateName::VerifyPost);
        halt_unheeded(&mut sim);
        sim.run_for(HOUR);
        found(&sim, "takes as good release 1");
    }

    #[test]
    fn should_find_a_device_that_boots_what_it_has_long_known_to_be_halted() {
        let mut sim = on_its_way(StateName::VerifyPost);
        halt_unheeded(&mut sim);
        sim.run_for(2 * MINUTE);
        sim.power_cut(0);
        sim.run_for(MINUTE);
        found(&sim, "tries release 1, which it knows to be halted");
    }

    #[test]
    fn should_find_a_release_that_nobody_offered_or_approved() {
        let mut sim = on_its_way(StateName::VerifyPost);
        sim.check_may_run(0, 7);
        found(&sim, "which no rollout ever offered to it");
        found(&sim, "which nobody approved");
    }
}
