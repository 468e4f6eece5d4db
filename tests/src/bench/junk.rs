//! What junk costs the service before it is dropped: anybody who reaches the broker can send it.

use serde::Serialize;
use tern_controller::core::service::{Counters, Input};
use tern_protocol::mac::Direction;
use tern_protocol::message::{Report, ReportKind};
use tern_protocol::topic::{Topic, UpKind};

use super::scene::{Known, PRESENT, Scene};
use super::usage::{median, thread_cpu};

/// Bytes of a piece of junk.
pub const JUNK: usize = 200;
/// Pieces of one step: what the service's engine takes at once.
const BATCH: usize = 2048;

/// One kind of junk.
#[derive(Debug, Clone, Serialize)]
pub struct Junk {
    /// What it is.
    pub kind: &'static str,
    /// Whether it is recognised without a key, so that the bound holds.
    pub keyless: bool,
    /// Seconds of one core for a piece.
    pub seconds: f64,
}

type Make = fn(&Scene, &Known) -> (Topic, Vec<u8>);
type Dropped = fn(&Counters) -> u64;

const KINDS: [(&str, bool, Make, Dropped); 7] = [
    ("of a device that nobody registered", true, stranger, |c| c.unknown),
    ("no JSON", true, noise, |c| c.malformed),
    (
        "JSON that is no report",
        true,
        |_, known| report_of(known, padded(br#"{"a":["#, b"]}")),
        |c| c.malformed,
    ),
    ("of another epoch", true, |scene, known| sealed(scene, known, PRESENT + 2), |c| c.forged),
    (
        "of the present epoch, with a wrong tag",
        false,
        |scene, known| forged(scene, known, PRESENT),
        |c| c.forged,
    ),
    (
        "of the next epoch, with a wrong tag",
        false,
        |scene, known| forged(scene, known, PRESENT + 1),
        |c| c.forged,
    ),
    ("a hello of another epoch, with a wrong tag", false, forged_hello, |c| c.forged),
];

/// Measures every kind `rounds` times in turn, each for `seconds` of the thread's time.
pub fn junk(rounds: usize, seconds: f64) -> Vec<Junk> {
    let mut scene = Scene::new(256);
    let mut found: Vec<Vec<f64>> = vec![Vec::new(); KINDS.len()];
    for _ in 0..rounds {
        for (costs, (kind, _, make, dropped)) in found.iter_mut().zip(KINDS) {
            costs.push(dropping(&mut scene, seconds, kind, make, dropped));
        }
    }
    let kinds = KINDS.into_iter().zip(found);
    kinds
        .map(|((kind, keyless, ..), costs)| Junk { kind, keyless, seconds: median(costs.into_iter()) })
        .collect()
}

/// Returns the seconds for one piece, from its topic's text to the step's end.
fn dropping(scene: &mut Scene, seconds: f64, kind: &str, make: Make, dropped: Dropped) -> f64 {
    let pieces: Vec<(String, Vec<u8>)> = (0..BATCH)
        .map(|i| {
            let (topic, payload) = make(scene, &scene.devices[i % scene.devices.len()]);
            assert_eq!(payload.len(), JUNK, "{kind}");
            (topic.render(&scene.fleet), payload)
        })
        .collect();
    let fleet = scene.fleet.clone();
    let before = dropped(&scene.service().counters());
    let (mut used, mut steps) = (0.0, 0u64);
    while used < seconds {
        let pieces = pieces.clone();
        let service = scene.service();
        let began = thread_cpu();
        let inputs = pieces.into_iter().map(|(topic, payload)| {
            let topic = Topic::parse(&fleet, &topic).expect("a topic of the fleet");
            Input::Message { topic, payload }
        });
        let step = service.handle(inputs.collect(), 0);
        used += (thread_cpu() - began).as_secs_f64();
        steps += 1;
        assert!(step.facts.is_empty() && step.outputs.is_empty(), "{kind}: junk was answered");
    }
    let count = steps * BATCH as u64;
    assert_eq!(dropped(&scene.service().counters()) - before, count, "{kind}: another reason");
    used / count as f64
}

fn report_of(known: &Known, payload: Vec<u8>) -> (Topic, Vec<u8>) {
    (Topic::Up(known.device.id.clone(), UpKind::Report), payload)
}

/// Fills up between a beginning and an end.
fn padded(begin: &[u8], end: &[u8]) -> Vec<u8> {
    [begin, &vec![b'1'; JUNK - begin.len() - end.len()], end].concat()
}

fn stranger(scene: &Scene, known: &Known) -> (Topic, Vec<u8>) {
    let (_, payload) = sealed(scene, known, PRESENT);
    let name = format!("{}x", known.device.id);
    (Topic::Up(name.parse().expect("a valid name"), UpKind::Report), payload)
}

fn noise(_: &Scene, known: &Known) -> (Topic, Vec<u8>) {
    // No byte of it is one that a reader of JSON would stop at early.
    report_of(known, (b'A'..=b'Z').cycle().take(JUNK).collect())
}

/// A report as its device would seal it in `epoch`, 200 bytes long.
fn sealed(scene: &Scene, known: &Known, epoch: u64) -> (Topic, Vec<u8>) {
    let key = scene.secret(&known.device).key(Direction::Up, &scene.fleet, &known.device.id, 1, epoch);
    let with = |name: String| {
        let metrics = [(name, 1)].into();
        let kind = ReportKind::Health { rc: 2, metrics };
        key.seal(&Report { e: epoch, k: 1, n: 1, low: 1, kind })
    };
    let empty = with(String::new()).len();
    report_of(known, with("x".repeat(JUNK - empty)))
}

/// The same with another tag.
fn forged(scene: &Scene, known: &Known, epoch: u64) -> (Topic, Vec<u8>) {
    let (topic, mut payload) = sealed(scene, known, epoch);
    break_tag(&mut payload);
    (topic, payload)
}

fn forged_hello(_: &Scene, known: &Known) -> (Topic, Vec<u8>) {
    let begin = format!(r#"{{"e":{},"k":1,"n":1,"low":1,"t":"hello","x":"#, PRESENT + 9);
    report_of(known, padded(begin.as_bytes(), br#","m":"bEyATWGdPOw3pwGpdGln9A"}"#))
}

fn break_tag(payload: &mut [u8]) {
    let digit = &mut payload[JUNK - 10];
    *digit = if *digit == b'A' { b'B' } else { b'A' };
}
