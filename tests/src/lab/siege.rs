//! A fleet under siege: real agents, a real service, a middleman between them, and what must hold all the same.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use tern_bridge::front::frame::Publish;
use tern_protocol::digest::Digest;
use tern_protocol::state::StateName;

use super::{
    Heard, Lab, LabDevice, Making, Manner, Middleman, MqttClient, PRODUCT, Records, Truth, made, wait,
};

/// Longer than anything takes on a busy machine; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// A fleet under siege.
pub struct Siege {
    /// The devices. First, so that a test that fails can show their logs, which lie in the laboratory's folder.
    pub devices: Vec<LabDevice>,
    /// The service. Agents are configured with the middleman's address, which it gives as its own.
    pub lab: Lab,
    /// Who stands between.
    pub middleman: Middleman,
    /// Where the service itself listens.
    pub front: std::net::SocketAddr,
}

impl Siege {
    /// Starts three devices that run release 1 and have been heard once, with release 2 published and not rolled out.
    pub fn lay(seed: u64, making: &Making) -> Self {
        let mut lab = Lab::bare(super::Broker::Embedded);
        lab.make_keys();
        let (data, offline) = (lab.data().display().to_string(), lab.path("offline-2").display().to_string());
        let second = ["keys", "init", "--fleet", "lab", "--product", "second", "--data", &data];
        let ran = lab.run(&[&second[..], &["--offline", &offline, "--no-passphrase"]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        lab.start_service();
        for (rc, length) in [(1, 100_000), (2, 300_000), (3, 300_000)] {
            made(&image(&lab, rc), length, rc);
        }
        let front = lab.mqtt;
        let middleman = Middleman::start(front, seed, Manner::Behaves);
        middleman.teach(second_product(front));
        lab.mqtt = middleman.address;
        let factory = image(&lab, 1);
        let make = |i| LabDevice::make(&lab, &format!("dev-{i}"), &factory, making);
        let mut devices: Vec<LabDevice> = (1..=3).map(make).collect();
        lab.publish(2, &image(&lab, 2));
        devices.iter_mut().for_each(LabDevice::start);
        let known = |device: &LabDevice| lab.device(&device.name)["running"] == 1;
        wait("the devices to be known", PATIENCE, || devices.iter().all(known).then_some(()));
        middleman.keep_state();
        Self { lab, middleman, front, devices }
    }

    /// Safety: says which device holds as whole what is not among the `approved` images, claims what it does not
    /// hold, or ever booted a release that is not among the `assigned`.
    pub fn unsafe_devices(&self, approved: &[u64], assigned: &[u64]) -> Vec<String> {
        let published = |rc: u64| {
            let bytes = std::fs::read(image(&self.lab, rc)).ok().filter(|_| approved.contains(&rc));
            bytes.map(|bytes| Digest::of(&bytes))
        };
        let mut wrong = Vec::new();
        for device in &self.devices {
            let name = &device.name;
            for rc in booted(device).into_iter().filter(|rc| !assigned.contains(rc)) {
                wrong.push(format!("{name} ran release {rc}, which nobody assigned to it"));
            }
            wrong.extend(
                Records::of(device).false_claims(published).into_iter().map(|w| format!("{name}: {w}")),
            );
        }
        wrong
    }

    /// Truth at rest: says where ledger and counts differ from what the devices made.
    pub fn lies(&self, rollout: &str) -> Vec<String> {
        let (view, heard) = (self.lab.rollout(rollout), self.heard());
        let truth = self.truth();
        let mut lies = truth.lies(&heard);
        lies.extend(heard.broken_walks());
        let (sum, found) = (truth.sum(rollout), counts(&view));
        if found != [sum.started, sum.good, sum.bad, sum.recalled] {
            lies.push(format!("the service counts {found:?}, devices made {sum:?}: {view}"));
        }
        lies
    }

    /// Truth under way: says what ledger and counts hold beyond what the devices made.
    pub fn inventions(&self, rollout: &str) -> Vec<String> {
        // In this order: what devices make meanwhile may only be more.
        let (view, heard) = (self.lab.rollout(rollout), self.heard());
        let truth = self.truth();
        let mut lies = truth.inventions(&heard);
        let (sum, found) = (truth.sum(rollout), counts(&view));
        let [started, good, bad, recalled] = found;
        if started > truth.ever_started(rollout)
            || good > sum.good
            || bad > sum.bad
            || recalled > sum.recalled
        {
            lies.push(format!("the service counts {found:?}, devices made {sum:?}: {view}"));
        }
        lies
    }

    /// Waits until nobody has anything to do or to say.
    pub fn rest(&self) {
        wait("everybody to come to rest", PATIENCE, || self.is_quiet().then_some(()));
    }

    /// Tells whether nobody has anything to do or to say.
    pub fn is_quiet(&self) -> bool {
        self.devices.iter().all(quiet)
    }

    /// Waits until the middleman has done this.
    pub fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        wait(what, PATIENCE, || done(self).then_some(()));
    }

    /// Returns how often a device has sent a message of this kind that holds this text.
    pub fn sent(&self, device: &LabDevice, kind: &str, text: &str) -> usize {
        let topic = format!("/{}/{kind}", device.name);
        let theirs =
            |m: &&Publish| m.topic.ends_with(&topic) && String::from_utf8_lossy(&m.payload).contains(text);
        self.middleman.sent().iter().filter(theirs).count()
    }

    fn heard(&self) -> Heard {
        let mut heard = Heard::default();
        heard.read(&self.lab);
        heard
    }

    fn truth(&self) -> Truth {
        Truth::of(&self.lab, &self.devices, &self.middleman.sent())
    }
}

/// Returns where the image of a release lies.
pub fn image(lab: &Lab, rc: u64) -> std::path::PathBuf {
    lab.path(&format!("r{rc}.img"))
}

/// Returns the releases that a device ever booted, from its agent's log.
pub fn booted(device: &LabDevice) -> BTreeSet<u64> {
    let log = device.log();
    let ups = log.lines().filter(|line| line.contains("agent is up"));
    ups.filter_map(|line| line.split("rc=").nth(1)?.split_whitespace().next()?.parse().ok()).collect()
}

fn quiet(device: &LabDevice) -> bool {
    Records::of(device).journal().is_some_and(|journal| {
        matches!(journal.state.name(), StateName::Idle | StateName::Failed)
            && journal.outbox.pending().next().is_none()
    })
}

fn counts(view: &Value) -> [u64; 4] {
    ["started", "good", "bad", "recalled"].map(|key| view["total"][key].as_u64().expect("a count"))
}

/// Returns what the second product of the fleet retains.
fn second_product(front: std::net::SocketAddr) -> Vec<Vec<u8>> {
    assert_ne!(PRODUCT, "second");
    let mut client = MqttClient::connect(front, "thief", None);
    let mut heard = Vec::new();
    let codes = client.subscribe(&["ota/v1/lab/p/second/head", "ota/v1/lab/p/second/ts"], &mut heard);
    assert!(codes.iter().all(|code| *code < 3), "{codes:?}");
    wait("the second product's files", PATIENCE, || {
        heard.extend(client.messages());
        (heard.len() >= 2).then_some(())
    });
    heard.into_iter().map(|message| message.payload).collect()
}
