//! A site with everything around it: service, the fleet's broker, the link, the edge, and devices behind it.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::{Encrypted, Lab, LabBridge, LabDevice, LabEdge, Making, Wan, made};

/// A site.
pub struct LabSite {
    /// The link that its edge uses.
    pub wan: Wan,
    /// Its edge.
    pub edge: LabEdge,
    /// The service.
    pub lab: Lab,
    /// The broker above.
    pub bridge: LabBridge,
}

impl LabSite {
    /// Starts all of it but devices; `more` are lines for the edge's `[upstream]`.
    pub fn start(more: &str) -> Self {
        let mut site = Self::prepare(|users, upstream| LabEdge::make("hut", users, upstream, more));
        site.edge.start();
        site
    }

    /// Starts service and broker, and has the edge made, which is not started.
    pub fn prepare(edge: impl FnOnce(&Path, SocketAddr) -> LabEdge) -> Self {
        Self::around(LabBridge::configure, edge).0
    }

    /// The same with a broker that speaks TLS too, where the edge is known as `hut` by its certificate and by its password.
    pub fn encrypted() -> (Self, Encrypted) {
        let configure = |bridge: &LabBridge, chunks: &Path| bridge.configure_encrypted(chunks, "cam", "hut");
        Self::around(configure, |users, upstream| LabEdge::make("hut", users, upstream, ""))
    }

    fn around<T>(
        configure: impl FnOnce(&LabBridge, &Path) -> T,
        edge: impl FnOnce(&Path, SocketAddr) -> LabEdge,
    ) -> (Self, T) {
        let mut bridge = LabBridge::prepare();
        let lab = Lab::start_with(bridge.broker());
        let configured = configure(&bridge, &lab.data().join("images"));
        bridge.start();
        let (upstream, users) = bridge.for_sites();
        let wan = Wan::to(upstream);
        let edge = edge(&users, wan.address);
        made(&lab.path("factory.img"), 200_000, 1);
        (Self { wan, edge, lab, bridge }, configured)
    }

    /// Returns how a device behind the edge is made.
    pub fn making(&self) -> Making {
        Self::behind(self.edge.address())
    }

    /// Returns how a device is made that connects there.
    pub fn behind(broker: SocketAddr) -> Making {
        Making { broker: Some(broker), capacity: 8 * 1024 * 1024, ..Making::default() }
    }

    /// Makes and registers a device.
    pub fn device(&self, name: &str, making: &Making) -> LabDevice {
        LabDevice::make(&self.lab, name, &self.lab.path("factory.img"), making)
    }

    /// Starts a rollout that needs no proof, in one phase, to all devices that `more` does not leave out.
    pub fn roll_out(&self, rc: u64, name: &str, more: &Value) {
        let mut plan = json!({"phases": [{"reach": "all", "soak": 1}], "waves": {"on": false}, "hold_back": {"on": false}});
        let parts = more.as_object().into_iter().flatten();
        parts.for_each(|(key, value)| plan[key] = value.clone());
        self.lab.roll_out_by(rc, name, &plan);
    }

    /// Makes and publishes a release of `length` bytes for these models; returns its image.
    pub fn publish(&self, rc: u64, length: usize, models: &[&str]) -> Vec<u8> {
        let image = self.lab.path(&format!("release-{rc}.img"));
        made(&image, length, rc);
        // It shares nothing with what devices run.
        self.lab.publish_with(rc, &image, models, "--no-deltas");
        std::fs::read(&image).expect("it was just written")
    }
}
