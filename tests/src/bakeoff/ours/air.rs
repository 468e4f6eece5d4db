//! What lies between the service and its devices: retained messages, and the chunk server beside the broker.

use std::collections::HashMap;

use tern_protocol::id::{DeviceId, FleetId, RegionId};
use tern_protocol::position::Cohort;
use tern_protocol::topic::Topic;

use crate::sim::broker::Broker;

/// A retained message, and its number among all of them.
#[derive(Debug, Clone, Default)]
struct Retained {
    number: u64,
    message: Option<(Topic, Vec<u8>)>,
}

/// The broker.
#[derive(Debug)]
pub(super) struct Air {
    fleet: FleetId,
    chunks: Broker,
    number: u64,
    beat: Retained,
    head: Retained,
    cohorts: HashMap<(RegionId, Cohort), Retained>,
    last: Vec<u8>,
}

impl Air {
    pub(super) fn new(fleet: FleetId) -> Self {
        Self {
            fleet,
            chunks: Broker::default(),
            number: 0,
            beat: Retained::default(),
            head: Retained::default(),
            cohorts: HashMap::new(),
            last: Vec::new(),
        }
    }

    /// Puts the image on the chunk server.
    pub(super) fn serve(&mut self, root: tern_protocol::digest::Digest, image: Vec<u8>) {
        self.chunks.serve(root, image);
    }

    /// Keeps what is retained; tells whether it is news for everybody.
    pub(super) fn keep(&mut self, topic: Topic, payload: Vec<u8>) -> bool {
        if !topic.is_retained() {
            return false;
        }
        // A wave says the same on hundreds of topics, and the chunk server need read it once.
        if payload != self.last {
            self.chunks.keep(topic.render(&self.fleet), &topic, &payload);
            self.last.clone_from(&payload);
        }
        self.number += 1;
        let slot = match &topic {
            Topic::Timestamp(_) => &mut self.beat,
            Topic::Head(_) => &mut self.head,
            Topic::Cohort(_, region, cohort) => self.cohorts.entry((region.clone(), *cohort)).or_default(),
            _ => return false,
        };
        let everybody = matches!(topic, Topic::Head(_));
        *slot = Retained { number: self.number, message: (!payload.is_empty()).then_some((topic, payload)) };
        everybody
    }

    /// Returns what a device is handed that has heard everything up to number `heard`, oldest first.
    pub(super) fn since(&self, heard: u64, region: &RegionId, cohort: Cohort) -> Vec<(Topic, Vec<u8>)> {
        let cohort = self.cohorts.get(&(region.clone(), cohort));
        let mut news: Vec<&Retained> =
            [Some(&self.beat), Some(&self.head), cohort].into_iter().flatten().collect();
        news.retain(|retained| retained.number > heard);
        news.sort_unstable_by_key(|retained| retained.number);
        news.into_iter().filter_map(|retained| retained.message.clone()).collect()
    }

    /// Returns the number of the newest retained message.
    pub(super) fn newest(&self) -> u64 {
        self.number
    }

    /// Answers a device's request: signed files, then packs.
    pub(super) fn answer(&self, device: &DeviceId, request: &[u8]) -> Vec<(Topic, Vec<u8>)> {
        let (packs, files) = self.chunks.answer(request);
        let files = files.into_iter().map(|payload| (Topic::DeviceIn(device.clone()), payload));
        let packs = packs.into_iter().map(|pack| (Topic::DevicePack(device.clone()), pack.write()));
        files.chain(packs).collect()
    }
}
