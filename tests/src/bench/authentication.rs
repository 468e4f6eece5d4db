//! Reports that one core authenticates in a second, beside the same bytes through HMAC-SHA256 and nothing else.

use hmac::{Hmac, Mac as _};
use serde::Serialize;
use sha2::Sha256;
use tern_controller::core::service::Input;
use tern_protocol::mac::{Direction, MacKey, epoch_of};
use tern_protocol::message::Report;
use tern_protocol::topic::Topic;

use super::scene::{PRESENT, Scene};
use super::usage::{cost, median, thread_cpu};

/// What one core does in a second of its own time.
#[derive(Debug, Clone, Serialize)]
pub struct Authentication {
    /// Bytes of a report.
    pub bytes: usize,
    /// HMAC-SHA256 of those bytes under a key that is at hand: the limit.
    pub hmac: f64,
    /// Epoch read, tag checked, body handed on.
    pub authenticated: f64,
    /// The same, and the body read as a report.
    pub read: f64,
    /// The first report of an epoch: its key is derived as well.
    pub derived: f64,
    /// The service's whole step: topic, device, duplicates, fleet, fact, acknowledgement; without the ledger's sync.
    pub handled: f64,
    /// Median over the rounds of authenticated / hmac.
    pub ratio: f64,
}

/// Measures `rounds` times, every kind in turn, each for `seconds` of the thread's time.
pub fn authentication(rounds: usize, seconds: f64) -> Authentication {
    let mut scene = Scene::new(256);
    let reports = scene.reports();
    let keys: Vec<MacKey> = scene.devices.iter().map(|known| known.key.clone()).collect();
    let secrets: Vec<_> = scene.devices.iter().map(|known| scene.secret(&known.device)).collect();
    let ids: Vec<_> = scene.devices.iter().map(|known| known.device.id.clone()).collect();
    let bare = Hmac::<Sha256>::new_from_slice(&[7; 32]).expect("HMAC takes keys of any length");
    let count = reports.len() as u64;
    let all = || reports.iter().map(|(_, payload)| payload.as_slice());
    let open = |key: &MacKey, payload: &[u8]| {
        assert_eq!(epoch_of(payload), Some(PRESENT));
        key.open(payload).expect("an honest report")
    };
    let mut found: [Vec<f64>; 5] = Default::default();
    for _ in 0..rounds {
        let hmac = cost(seconds, count, || {
            all().for_each(|payload| {
                let mut hmac = bare.clone();
                hmac.update(payload);
                std::hint::black_box(hmac.finalize());
            });
        });
        let authenticated = cost(seconds, count, || {
            keys.iter().zip(all()).for_each(|(key, payload)| {
                std::hint::black_box(open(key, payload));
            });
        });
        let read = cost(seconds, count, || {
            keys.iter().zip(all()).for_each(|(key, payload)| {
                let body = open(key, payload);
                let report: Report = serde_json::from_slice(&body).expect("an honest report");
                std::hint::black_box(report);
            });
        });
        let derived = cost(seconds, count, || {
            secrets.iter().zip(&ids).zip(all()).for_each(|((secret, id), payload)| {
                let key = secret.key(Direction::Up, &scene.fleet, id, 1, PRESENT);
                std::hint::black_box(open(&key, payload));
            });
        });
        let handled = handled(&mut scene, seconds);
        for (all, one) in found.iter_mut().zip([hmac, authenticated, read, derived, handled]) {
            all.push(one);
        }
    }
    let ratio = median(found[0].iter().zip(&found[1]).map(|(hmac, ours)| hmac / ours));
    let [hmac, authenticated, read, derived, handled] = found.map(|costs| 1.0 / median(costs.into_iter()));
    let bytes = reports[0].1.len();
    Authentication { bytes, hmac, authenticated, read, derived, handled, ratio }
}

/// Returns the seconds that the service needs for one new report. Reports are sealed between the measured steps.
fn handled(scene: &mut Scene, seconds: f64) -> f64 {
    let (mut used, mut count) = (0.0, 0u64);
    let before = scene.service().counters().accepted;
    while used < seconds {
        let batch: Vec<(Topic, Vec<u8>)> = (0..8).flat_map(|_| scene.reports()).collect();
        count += batch.len() as u64;
        let inputs: Vec<Input> =
            batch.into_iter().map(|(topic, payload)| Input::Message { topic, payload }).collect();
        let service = scene.service();
        let began = thread_cpu();
        let step = service.handle(inputs, 0);
        used += (thread_cpu() - began).as_secs_f64();
        drop(step);
    }
    assert_eq!(scene.service().counters().accepted - before, count, "every report was taken in");
    used / count as f64
}
