//! Real agents, killed in a state and brought back on a fresh connection after the release was killed meanwhile.
//!
//! The simulation tells the same stories for every seed (`sim_kill`), and there an armed device also lives to hear of
//! the kill before its reboot. Here nothing is virtual: processes, files, broker.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_agent::core::durable::Durable;
use tern_agent::core::state::State;
use tern_protocol::state::StateName;
use tern_tests::lab::{Lab, LabDevice, Making, Records, Stopwatch, made, wait};

/// What an agent logs when it comes up from the slot of release 2.
const TRIAL_RUNS: &str = "agent is up slot=b rc=2";

/// Where the agent is to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Downloading,
    Verifying,
    PreUpdating,
    Armed,
}

impl Moment {
    fn is(self, journal: &Durable, records: &Records) -> bool {
        match (self, &journal.state) {
            (Self::Downloading, State::Downloading { have, .. }) => have.len() >= 4,
            (Self::Verifying, State::Verifying { .. }) => true,
            (Self::PreUpdating, State::PreUpdating { undo: None, .. }) => true,
            (Self::Armed, State::Updating { .. }) => records.boot().trial.is_some_and(|t| t.tries_left == 2),
            _ => false,
        }
    }
}

/// Watches a device's journal and kills its agent in the moment; tells whether it fell there.
fn kill_in(device: &mut LabDevice, moment: Moment) -> bool {
    let records = Records::of(device);
    let since = Stopwatch::start();
    while since.read() < Duration::from_secs(60) {
        let journal = records.journal().unwrap_or_default();
        let late = matches!(journal.state.name(), StateName::VerifyPost | StateName::Success);
        if moment.is(&journal, &records) || late {
            device.kill();
            return moment.is(&records.journal().unwrap(), &records);
        }
    }
    panic!("{} never came to {moment:?}", device.name);
}

fn scene(names: &[&str]) -> (Lab, Vec<LabDevice>) {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("new.img"));
    made(&factory, 100_000, 1);
    made(&image, 16_000_000, 2);
    let hook = ["/bin/sh", "-c", "sleep 1"].map(str::to_owned).to_vec();
    let making = Making { hook: Some(hook), timing: "window = 8".to_owned(), ..Making::default() };
    let mut devices: Vec<_> =
        names.iter().map(|name| LabDevice::make(&lab, name, &factory, &making)).collect();
    lab.publish(2, &image);
    devices.iter_mut().for_each(LabDevice::start);
    lab.wait_for_hellos();
    (lab, devices)
}

fn comes_to_rest(lab: &Lab, device: &LabDevice) -> String {
    let records = Records::of(device);
    wait("the device to come to rest", Duration::from_secs(60), || {
        let journal = records.journal()?;
        let rests = matches!(journal.state.name(), StateName::Idle | StateName::Failed);
        (rests && journal.outbox.pending().next().is_none()).then_some(())
    });
    // Nothing is wanted of it any more; a device that would still install something would begin within this.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(records.confirmed(), Some(1), "{}", device.name);
    assert_eq!(records.boot().trial, None, "{} is still armed", device.name);
    let view = lab.device(&device.name);
    view["attempts"]["r2"]["outcome"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_agent_that_died_before_it_armed_comes_back_after_the_kill_and_installs_nothing() {
    let moments = [Moment::Downloading, Moment::Verifying, Moment::PreUpdating];
    let (lab, mut devices) = scene(&["downloading", "verifying", "pre-updating"]);
    lab.roll_out(2, "r2", "all", 86_400);
    let hits: Vec<bool> = std::thread::scope(|threads| {
        let watch = |(device, moment)| threads.spawn(move || kill_in(device, moment));
        let watches: Vec<_> = devices.iter_mut().zip(moments).map(watch).collect();
        watches.into_iter().map(|watch| watch.join().unwrap()).collect()
    });
    assert_eq!(hits, [true; 3], "an agent was not hit where it should be");

    lab.json(&["rollout", "kill", "r2"]);
    devices.iter_mut().for_each(LabDevice::start);

    for device in &devices {
        let outcome = comes_to_rest(&lab, device);
        assert!(outcome.is_empty() || outcome == "recalled", "{}: {outcome}", device.name);
        assert!(!device.log().contains(TRIAL_RUNS), "{} ran release 2", device.name);
    }
}

#[test]
fn a_device_that_lost_power_while_armed_boots_the_trial_cannot_confirm_and_goes_back_as_recalled() {
    let names = ["armed-1", "armed-2", "armed-3", "armed-4"];
    let (lab, mut devices) = scene(&names);
    lab.roll_out(2, "r2", "all", 86_400);
    let hits = std::thread::scope(|threads| {
        let watches: Vec<_> =
            devices.iter_mut().map(|d| threads.spawn(move || kill_in(d, Moment::Armed))).collect();
        watches.into_iter().map(|watch| watch.join().unwrap()).filter(|hit| *hit).count()
    });
    assert!(hits > 0, "no device was hit between its boot record and its reboot");

    lab.json(&["rollout", "kill", "r2"]);
    for device in &mut devices {
        device.cut_power();
        device.start();
    }

    for device in &devices {
        assert_eq!(comes_to_rest(&lab, device), "recalled", "{}", device.name);
        assert!(device.log().contains(TRIAL_RUNS), "{} never booted its trial", device.name);
    }
}
