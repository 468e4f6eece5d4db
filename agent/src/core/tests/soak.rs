//! Probes that run again at the end of a trial's soak, seen from the whole agent.

use p256::ecdsa::SigningKey;
use tern_protocol::mac::PairSecret;
use tern_protocol::state::StateName;
use tern_protocol::tuf::build::{self, RootKeys};
use tern_protocol::tuf::key::{P256Signer, Signer as _};
use tern_protocol::tuf::{Trusted, sign};

use super::super::agent::{Agent, Input, Keys, Settings};
use super::super::durable::Durable;
use super::super::state::{Event, State};
use super::super::timing::{Now, Timing};
use super::{NOW, trial};

/// The soak is over, and an answer is still waited for.
const SOAKED: u64 = NOW.uptime + 20 * 60_000;

struct NoKeys;

impl Keys for NoKeys {
    fn identity(&self) -> Vec<u8> {
        Vec::new()
    }
    fn telemetry(&self) -> Vec<u8> {
        Vec::new()
    }
    fn sign(&self, _: &[u8]) -> Vec<u8> {
        Vec::new()
    }
    fn agree(&self, _: &p256::PublicKey) -> PairSecret {
        unreachable!("no file names a key of the service")
    }
}

/// An agent on trial whose first probes have passed.
fn agent() -> Agent {
    let key = P256Signer::new(SigningKey::from_slice(&[1; 32]).unwrap());
    let one = || build::Keys::one(key.public());
    let keys = RootKeys { root: one(), timestamp: one(), snapshot: one(), targets: one() };
    let root = sign::sign(build::root(1, 4_000_000_000, &keys), &[&key]).unwrap();
    let settings = Settings {
        fleet: "acme".parse().unwrap(),
        device: "dev-1".parse().unwrap(),
        registry: tern_protocol::message::Registry {
            product: "cam".parse().unwrap(),
            model: "m1".parse().unwrap(),
            carrier: "none".parse().unwrap(),
            region: "eu".parse().unwrap(),
        },
        component: "rootfs".into(),
        claim: None,
        version: "test".into(),
        timing: Timing::default(),
        conditions: Default::default(),
        hooks: Default::default(),
        transfer: Default::default(),
    };
    let durable = Durable { state: trial(true, false), epoch: NOW.epoch, ..Durable::default() };
    Agent::new(settings, Box::new(NoKeys), durable, Trusted::new(&root).unwrap(), [7; 32])
}

fn at(uptime: u64) -> Now {
    Now { uptime, wall: 0 }
}

fn answered(agent: &mut Agent, uptime: u64) -> StateName {
    agent.step(&Event::Answered, at(uptime));
    agent.durable().state.name()
}

#[test]
fn an_answer_confirms_only_after_the_last_probes_have_passed() {
    let (mut waits, mut does_not) = (agent(), agent());
    waits.expect_soak_probes();

    assert_eq!(answered(&mut does_not, SOAKED), StateName::Success, "without such probes");
    assert_eq!(answered(&mut waits, SOAKED), StateName::VerifyPost);
    assert!(matches!(waits.durable().state, State::VerifyPost { heard: true, .. }), "but it was heard");
    waits.handle(Input::Soaked(Ok(())), at(SOAKED + 1));

    assert_eq!(answered(&mut waits, SOAKED + 2), StateName::Success);
}

#[test]
fn an_answer_within_the_soak_stays_one_whatever_the_probes_say() {
    let mut agent = agent();
    agent.expect_soak_probes();

    agent.handle(Input::Soaked(Ok(())), at(NOW.uptime + 1));

    assert_eq!(answered(&mut agent, NOW.uptime + 2), StateName::VerifyPost);
}

#[test]
fn a_probe_that_fails_at_any_time_of_the_trial_rolls_back() {
    for (uptime, heard) in [(NOW.uptime + 1, false), (SOAKED, true)] {
        let mut agent = agent();
        agent.expect_soak_probes();
        if heard {
            answered(&mut agent, uptime);
        }

        agent.handle(Input::Soaked(Err("app is gone".into())), at(uptime));

        let state = &agent.durable().state;
        assert!(matches!(state, State::Rollback { reason, .. } if reason == "app is gone"), "{state:?}");
    }
}

#[test]
fn what_passed_in_one_trial_says_nothing_in_another() {
    let mut agent = agent();
    agent.expect_soak_probes();
    answered(&mut agent, SOAKED);
    agent.handle(Input::Soaked(Ok(())), at(SOAKED));
    answered(&mut agent, SOAKED);
    agent.step(&Event::Confirmed, at(SOAKED));
    assert_eq!(agent.durable().state.name(), StateName::Idle);

    agent.durable.state = trial(true, false);

    assert_eq!(answered(&mut agent, SOAKED), StateName::VerifyPost);
}
