use super::*;
use crate::health::Kind;
use crate::slot::SlotName;

const SOAK: u64 = 15 * 60_000;

fn probe(command: &[&str], soak: bool) -> Probe {
    Probe {
        name: "app".into(),
        kind: Kind::Command(command.iter().map(|part| (*part).to_owned()).collect()),
        deadline: Duration::from_secs(20),
        times: 1,
        interval: None,
        soak,
    }
}

fn soak(probes: &[Probe]) -> Soak {
    Soak::new(probes, SOAK, Duration::from_secs(20))
}

fn context() -> Context {
    let device = "r-1".parse().unwrap();
    Context { slot: SlotName::B, slot_path: "/bin/true".into(), rc: 2, version: "2".into(), device }
}

fn at(uptime: u64) -> Stamp {
    Stamp { epoch: 3, uptime }
}

/// A trial that began at the hundredth second.
fn trial(probed: bool) -> State {
    crate::testing::trial(at(100_000), probed)
}

#[test]
fn runs_are_due_every_fifteenth_of_the_soak_and_at_its_end() {
    assert_eq!(following(100, 1_000, 1_500), 200);
    assert_eq!(following(950, 1_000, 1_500), 1_000, "the end comes first");
    assert_eq!(following(1_000, 1_000, 1_500), 1_100, "and on until somebody answers");
    assert_eq!(following(7, 7, 1), 8, "a soak of nothing does not spin");
}

#[tokio::test]
async fn a_release_is_asked_again_in_the_soak_and_at_its_end() {
    let mut soak = soak(&[probe(&["/bin/true"], true)]);

    assert_eq!(soak.attend(&trial(false), at(110_000)), None, "its first probes still run");
    assert_eq!((soak.attend(&trial(true), at(120_000)), soak.due()), (None, 180_000));
    assert_eq!(soak.attend(&trial(true), at(180_000)), Some(false));
    soak.begin(false, context());
    assert_eq!((soak.attend(&trial(true), at(240_000)), soak.due()), (None, u64::MAX), "one runs");
    assert_eq!(soak.ended().await, Soaked { last: false, result: Ok(()) });
    assert_eq!(soak.attend(&trial(true), at(999_000)), Some(false));
    assert_eq!(soak.due(), 1_000_000);
    assert_eq!(soak.attend(&trial(true), at(1_000_000)), Some(true), "the soak is over");
    assert_eq!(soak.attend(&trial(true), at(1_060_000)), Some(true), "and still nobody answered");
}

#[tokio::test]
async fn what_breaks_in_the_soak_is_said_with_its_reason() {
    let mut soak = soak(&[probe(&["/bin/true"], true), probe(&["/bin/false"], true)]);

    soak.begin(false, context());

    let result = Err("in the soak, app: exit code 1".to_owned());
    assert_eq!(soak.ended().await, Soaked { last: false, result });
}

#[tokio::test]
async fn probes_that_are_not_for_the_soak_are_not_run_in_it() {
    let mut none = soak(&[probe(&["/bin/false"], false)]);
    let mut some = soak(&[probe(&["/bin/false"], false), probe(&["/bin/true"], true)]);

    assert!(!none.is_wanted());
    assert_eq!(none.attend(&trial(true), at(10_000_000)), None);
    some.begin(true, context());
    assert_eq!(some.ended().await, Soaked { last: true, result: Ok(()) });
}

#[tokio::test]
async fn a_process_that_was_started_again_in_the_soak_is_not_well_unless_it_may_be() {
    let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let process = |lived| {
        let kind = Kind::Process { name: "sleep".into(), lived: Duration::from_millis(lived) };
        Probe { kind, ..probe(&[], true) }
    };
    // This machine has been up for less than the soak lasts: no process is that old.
    let lasts = u64::try_from(crate::clock::uptime().as_millis()).unwrap() + 60_000;
    let mut told = Vec::new();
    for lived in [0, 1] {
        let mut soak = soak(&[process(lived)]);
        soak.attend(&trial(true), at(100_000));
        assert!(soak.attend(&trial(true), at(100_000 + lasts)).is_some());
        soak.begin(false, context());
        told.push(soak.ended().await.result);
    }
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(told[0], Ok(()), "alive is enough");
    assert!(told[1].as_ref().unwrap_err().contains("process \"sleep\" has lived for"), "{told:?}");
}

#[tokio::test]
async fn a_trial_that_is_over_ends_the_run() {
    let mut soak = soak(&[probe(&["/bin/sleep", "1000"], true)]);
    soak.attend(&trial(true), at(180_000));
    soak.begin(false, context());

    soak.attend(&State::Idle { not_before: None }, at(181_000));

    assert_eq!(soak.due(), u64::MAX);
    assert!(soak.run.is_none());
}

#[test]
fn a_trial_of_another_boot_has_soaked_for_nobody_knows_how_long() {
    let mut soak = soak(&[probe(&["/bin/true"], true)]);
    let later = Stamp { epoch: 4, uptime: 5_000 };

    soak.attend(&trial(true), later);

    assert_eq!(soak.attend(&trial(true), Stamp { uptime: 65_000, ..later }), Some(true));
}
