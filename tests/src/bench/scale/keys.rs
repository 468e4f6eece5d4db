//! What the service keeps of the keys that it shares with each device. Real keys, so fewer devices: agreeing on one is a
//! curve operation.

use tern_controller::core::service::{Input, Service};

use super::resident;
use crate::bench::scene::Scene;
use crate::sim::clock::EPOCH;

const DEVICES: u32 = 1000;
/// Services that hear the same devices. What the process had freed before is used up by the first ones.
const SERVICES: usize = 24;
const WARM: usize = 8;

/// Returns the bytes that the service's key cache takes for each device that it hears and answers, and the services,
/// which are to be kept for as long as anything else is measured.
pub(super) fn key_cache() -> (Vec<Service>, f64) {
    let mut scene = Scene::new(DEVICES);
    let reports = scene.reports();
    let mut services = Vec::new();
    let mut grown = 0;
    for round in 0..SERVICES {
        let mut service = scene.controller.spare_service();
        let inputs = reports
            .iter()
            .map(|(topic, payload)| Input::Message { topic: topic.clone(), payload: payload.clone() });
        let inputs = inputs.collect();
        let before = resident();
        drop(service.handle(inputs, EPOCH));
        grown += if round < WARM { 0 } else { resident().saturating_sub(before) };
        assert_eq!(service.counters().accepted, u64::from(DEVICES), "every device was heard");
        services.push(service);
    }
    (services, grown as f64 / ((SERVICES - WARM) as f64 * f64::from(DEVICES)))
}
