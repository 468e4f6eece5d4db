//! What junk may not bring about: that the service works for it. Counted in keys, not in time.

use tern_protocol::limits::REPORT_MAX;
use tern_protocol::mac::{Direction, MacKey, PairSecret};
use tern_protocol::message::{
    Answer, AnswerKind, Attempt, Hello, Nonce, Registry, Report, ReportKind, Reports, Versions,
};
use tern_protocol::topic::{Topic, UpKind};

use super::enrol_tests::{Camera, World, fleet, registry};
use super::*;

/// The epoch in which [`World::enrolled`] leaves a device.
const PRESENT: u64 = 1;

fn key(world: &World, device: &Camera, epoch: u64) -> MacKey {
    let online = &world.service.keys[&registry().product];
    let (kid, ours) = online.newest().unwrap();
    let secret = PairSecret::agree(&device.telemetry, &ours.public_key());
    secret.key(Direction::Up, &fleet(), &device.id, kid, epoch)
}

fn health() -> ReportKind {
    ReportKind::Health { rc: 1, metrics: [("boots".to_owned(), 1)].into() }
}

fn hello() -> ReportKind {
    hello_with(&[])
}

fn hello_with(components: &[(&str, &str)]) -> ReportKind {
    let components =
        components.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
    let Registry { product, model, carrier, region } = registry();
    let (versions, halted) = (Versions::default(), Vec::new());
    let agent = "test".to_owned();
    let hello = Hello {
        running: 1,
        agent,
        product,
        model,
        carrier,
        region,
        floor: 0,
        versions,
        halted,
        components,
        proof: None,
    };
    ReportKind::Hello(Box::new(hello))
}

/// A report as the device itself seals it in `epoch`.
fn sealed(world: &World, device: &Camera, epoch: u64, kind: ReportKind) -> Vec<u8> {
    key(world, device, epoch).seal(&Report { e: epoch, k: 1, n: 2, low: 2, kind })
}

/// The same from somebody who does not have its keys.
fn forged(world: &World, device: &Camera, epoch: u64, kind: ReportKind) -> Vec<u8> {
    let mut payload = sealed(world, device, epoch, kind);
    let digit = payload.len() - 10;
    payload[digit] = if payload[digit] == b'A' { b'B' } else { b'A' };
    payload
}

/// Sends a payload in the device's name; returns how many keys that took, and whether the service did anything.
fn sends(world: &mut World, device: &Camera, payload: Vec<u8>) -> (u64, bool) {
    let before = world.service.counters();
    let topic = Topic::Up(device.id.clone(), UpKind::Report);
    let outputs = world.handle(Input::Message { topic, payload });
    let after = world.service.counters();
    assert_eq!((after.forged + after.malformed) > (before.forged + before.malformed), outputs.is_empty());
    (after.derived - before.derived, !outputs.is_empty())
}

#[test]
fn a_report_of_another_epoch_than_the_present_or_the_next_is_dropped_before_any_key_is_derived() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    for epoch in [0, PRESENT + 2, PRESENT + 3, 1 << 40, u64::MAX - 1] {
        let honest = sealed(&world, &cam, epoch, health());

        assert_eq!(sends(&mut world, &cam, honest), (0, false), "epoch {epoch}");
    }
    // The controls: in the present epoch the key is at hand, in the next it is derived, once.
    let present = sealed(&world, &cam, PRESENT, health());
    assert_eq!(sends(&mut world, &cam, present), (0, true));
    let next = forged(&world, &cam, PRESENT + 1, health());
    assert_eq!(sends(&mut world, &cam, next.clone()), (1, false));
    assert_eq!(sends(&mut world, &cam, next), (0, false));
}

#[test]
fn a_forged_hello_of_another_epoch_has_one_key_derived_a_second() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    // Fifty epochs from a number on: a key that was just derived would be at hand for its own.
    let epochs = |world: &mut World, from: u64| -> u64 {
        (from..from + 50)
            .map(|epoch| {
                let payload = forged(world, &cam, epoch, hello());
                sends(world, &cam, payload).0
            })
            .sum()
    };

    assert_eq!(epochs(&mut world, 100), 1);
    world.now += 999;
    assert_eq!(epochs(&mut world, 200), 0);
    world.now += 1;
    assert_eq!(epochs(&mut world, 300), 1);
    // A device that lost its journal is heard a second after the last of them, and challenged.
    world.now += 1000;
    let honest = sealed(&world, &cam, 400, hello());
    let (_, answered) = sends(&mut world, &cam, honest);
    assert!(answered && world.service.counters().challenged == 1);
}

#[test]
fn what_is_no_report_of_a_known_device_takes_no_key() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    for junk in [
        b"".to_vec(),
        b"{}".to_vec(),
        vec![b'x'; 200],
        br#"{"t":"hello","e":1,"m":"bEyATWGdPOw3pwGpdGln9A"}"#.to_vec(),
        br#"{"e":"1","t":"hello","m":"bEyATWGdPOw3pwGpdGln9A"}"#.to_vec(),
        br#"{"e":18446744073709551616,"t":"hello","m":"bEyATWGdPOw3pwGpdGln9A"}"#.to_vec(),
        [br#"{"e":2,"t":"hello","x":""#.as_slice(), &vec![b'x'; REPORT_MAX], br#""}"#].concat(),
    ] {
        assert_eq!(sends(&mut world, &cam, junk), (0, false));
    }
}

#[test]
fn the_registry_has_the_components_of_the_last_hello() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    let mut say = |n: u64, components: &[(&str, &str)]| {
        let kind = hello_with(components);
        let payload = key(&world, &cam, PRESENT).seal(&Report { e: PRESENT, k: 1, n, low: n, kind });
        assert_eq!(sends(&mut world, &cam, payload), (0, true));
        world.service.fleet().devices[&cam.id].components.versions().clone()
    };

    assert_eq!(say(11, &[("rootfs", "1.0"), ("baseband", "4.2")]).len(), 2);
    let now =
        say(12, &[("rootfs", "1.1"), ("baseband", "4.3"), ("a component without end", &"9".repeat(65))]);
    assert_eq!(
        now,
        [("rootfs", "1.1"), ("baseband", "4.3")].map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    );
}

/// What a device says at the same moment, from number `n` on.
fn several(world: &World, device: &Camera, n: u64, mut kinds: Vec<ReportKind>) -> Vec<u8> {
    let reports = Reports::gather(PRESENT, 1, n, n, &mut kinds).unwrap();
    assert_eq!(kinds, []);
    key(world, device, PRESENT).seal(&reports)
}

fn question(nonce: u8) -> ReportKind {
    let attempt = Attempt { rc: 2, rollout: "r2".parse().unwrap(), attempt: 1 };
    ReportKind::Ask { nonce: Nonce([nonce; 16]), attempt }
}

/// What the service says to a device in answer to a payload.
fn told(world: &mut World, device: &Camera, payload: Vec<u8>) -> Vec<AnswerKind> {
    let topic = Topic::Up(device.id.clone(), UpKind::Report);
    let outputs = world.handle(Input::Message { topic, payload });
    let online = &world.service.keys[&registry().product];
    let (kid, ours) = online.newest().unwrap();
    let secret = PairSecret::agree(&device.telemetry, &ours.public_key());
    let key = secret.key(Direction::Down, &fleet(), &device.id, kid, PRESENT);
    let said = outputs.into_iter().filter_map(|output| match output {
        Output::Publish { topic: Topic::DeviceIn(_), payload } => Some(payload),
        _ => None,
    });
    said.map(|payload| serde_json::from_slice::<Answer>(&key.open(&payload).unwrap()).unwrap().kind).collect()
}

#[test]
fn several_reports_in_a_message_are_counted_one_by_one_and_answered_by_one() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    let message = several(&world, &cam, 20, vec![health(), health(), question(7)]);
    let before = world.service.counters();

    let first = told(&mut world, &cam, message.clone());
    let [AnswerKind::Answer { nonce, ranges, .. }] = &first[..] else { panic!("{first:?}") };
    assert_eq!((*nonce, ranges.as_slice()), (Nonce([7; 16]), [(20, 21)].as_slice()));
    let counted = world.service.counters();
    assert_eq!((counted.accepted - before.accepted, counted.duplicates - before.duplicates), (3, 0));
    // It comes again, as after a lost answer: acknowledged and answered again, and counted once.
    let again = told(&mut world, &cam, message);
    assert!(matches!(&again[..], [AnswerKind::Answer { ranges, .. }] if *ranges == [(20, 21)]), "{again:?}");
    assert_eq!(world.service.counters().duplicates - before.duplicates, 2);
    assert!(world.service.fleet().devices[&cam.id].received.contains(21));

    // Without a question, and with a hello: acks as ever, and the answer by itself.
    let plain = several(&world, &cam, 23, vec![health()]);
    let acked = told(&mut world, &cam, plain);
    assert!(matches!(&acked[..], [AnswerKind::Ack { ranges, registry: None }] if *ranges == [(23, 23)]));
}

#[test]
fn a_number_that_no_device_reaches_is_malformed_wherever_it_stands_in_a_message() {
    let mut world = World::new();
    let cam = world.enrolled(1);
    for n in [(1 << 53) - 1, u64::MAX] {
        let payload = several(&world, &cam, n, vec![health(), health(), health()]);
        let before = world.service.counters();

        let topic = Topic::Up(cam.id.clone(), UpKind::Report);
        world.handle(Input::Message { topic, payload });

        assert!(world.service.counters().malformed > before.malformed, "{n}");
        let received = &world.service.fleet().devices[&cam.id].received;
        assert!(n.checked_add(2).is_none_or(|n| !received.contains(n)));
    }
}
