//! A good release reaches everybody, in phases.

use tern_controller::core::rollout::plan::Reach;
use tern_controller::core::rollout::record::Status;
use tern_tests::sim::clock::{HOUR, MINUTE};
use tern_tests::sim::operator::plan;
use tern_tests::sim::{Sim, SimConfig, Trial};

fn phases() -> [Reach; 3] {
    [Reach::Devices(3), Reach::Percent(50.0), Reach::All]
}

#[test]
fn twenty_devices_take_a_good_release() {
    let mut sim = Sim::new(1, SimConfig::default());
    let rc = sim.publish(Trial::Healthy);
    let rollout = sim.start(rc, plan(&phases(), 1800));

    sim.expect("the rollout completes", |s| s.status(&rollout) == Some(Status::Completed), 12 * HOUR);

    sim.run_for(5 * MINUTE);
    std::fs::write("/tmp/sim.log", sim.log.join("\n")).ok();
    assert_eq!(sim.settled_on(rc), 20);
    assert_eq!(sim.rollout(&rollout).phases.len(), 3);
    sim.finish();
}
