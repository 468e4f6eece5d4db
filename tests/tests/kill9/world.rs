//! Five devices whose health the image decides, a service, and a bridge between them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tern_agent::core::durable::Durable;
use tern_protocol::digest::Digest;
use tern_protocol::message::ReportKind;
use tern_protocol::state::StateName;
use tern_tests::lab::{Heard, Lab, LabBridge, LabDevice, Making, Records, made};

/// Devices.
pub(crate) const DEVICES: usize = 5;

/// The last line of a bad image: the names of the devices on which it fails.
const MARK: &str = "fails-on:";

/// Everything that runs, and what was seen of it.
pub(crate) struct World {
    pub(crate) devices: Vec<LabDevice>,
    pub(crate) records: Vec<Records>,
    pub(crate) bridge: LabBridge,
    /// Behind those whose logs lie in its folder, which goes with it.
    pub(crate) lab: Lab,
    pub(crate) heard: Heard,
    /// Digest of every published image.
    pub(crate) images: BTreeMap<u64, Digest>,
    /// Every report that a saved journal was seen to promise, hellos aside: a newer hello replaces an older one.
    pub(crate) promised: BTreeMap<(String, u64), ReportKind>,
    /// The newest release.
    pub(crate) rc: u64,
}

impl World {
    /// Builds it and waits until every device has said hello.
    pub(crate) fn build() -> Self {
        let mut bridge = LabBridge::prepare();
        let lab = Lab::start_with(bridge.broker());
        bridge.configure(&lab.data().join("images"));
        bridge.start();
        let factory = lab.path("factory.img");
        made(&factory, 200_000, 1);
        let mut devices: Vec<LabDevice> = (1..=DEVICES).map(|i| device(&lab, i, &factory)).collect();
        let records = devices.iter().map(Records::of).collect();
        devices.iter_mut().for_each(LabDevice::start);
        let images = BTreeMap::from([(1, digest(&factory))]);
        let (heard, promised) = (Heard::default(), BTreeMap::new());
        let mut world = Self { lab, bridge, devices, records, heard, images, promised, rc: 1 };
        tern_tests::lab::wait("the devices to be heard", std::time::Duration::from_secs(60), || {
            world.look().iter().all(|journal| journal.enrolled).then_some(())
        });
        world
    }

    /// Makes and publishes the next release; it fails on the devices that are named.
    pub(crate) fn publish(&mut self, length: usize, fails_on: &[String]) {
        self.rc += 1;
        let image = self.lab.path(&format!("release-{}.img", self.rc));
        made(&image, length, self.rc);
        if !fails_on.is_empty() {
            let mut bytes = std::fs::read(&image).expect("an image");
            bytes.extend_from_slice(format!("\n{MARK} {} \n", fails_on.join(" ")).as_bytes());
            std::fs::write(&image, bytes).expect("an image");
        }
        self.images.insert(self.rc, digest(&image));
        self.lab.publish(self.rc, &image);
        std::fs::remove_file(&image).expect("an image");
    }

    /// Reads every journal and keeps what it promises.
    pub(crate) fn look(&mut self) -> Vec<Durable> {
        let read = |records: &Records| records.journal().unwrap_or_default();
        let journals: Vec<Durable> = self.records.iter().map(read).collect();
        for (device, journal) in self.devices.iter().zip(&journals) {
            for pending in journal.outbox.pending() {
                if !matches!(pending.kind, ReportKind::Hello(_)) {
                    self.promised.insert((device.name.clone(), pending.n), pending.kind.clone());
                }
            }
        }
        journals
    }

    /// Has the pre-update hook of this release say "not now", or lets it pass.
    pub(crate) fn postpone(&self, rc: u64, yes: bool) {
        for device in &self.devices {
            let file = device.dir.join(format!("not-now-{rc}"));
            if yes {
                std::fs::write(&file, "").expect("a device's folder");
            } else {
                // Not every round has one.
                let _absent = std::fs::remove_file(&file);
            }
        }
    }
}

/// Returns the state that a journal holds for a release; what it says of an older one is no state of this rollout.
pub(crate) fn state_for(journal: &Durable, rc: u64) -> Option<StateName> {
    journal.state.work().filter(|work| work.offer.attempt.rc == rc).map(|_| journal.state.name())
}

/// Tells whether reports still wait for their ack.
pub(crate) fn owes_reports(journal: &Durable) -> bool {
    journal.outbox.pending().any(|p| !matches!(p.kind, ReportKind::Hello(_)))
}

fn digest(path: &PathBuf) -> Digest {
    Digest::of(&std::fs::read(path).expect("an image"))
}

/// Makes a device whose hooks and probe take 0.3 s each, so that there is a state to be killed in.
fn device(lab: &Lab, index: usize, factory: &std::path::Path) -> LabDevice {
    let name = format!("dev-{index}");
    let script = |name: &str, text: &str| {
        let path = lab.path(name);
        std::fs::write(&path, text).expect("a script");
        path.display().to_string()
    };
    let hook = script("hook.sh", "sleep 0.3\n[ ! -e \"$1/not-now-$TERN_RC\" ] || exit 75\n");
    let undo = script("undo.sh", "sleep 0.3\n");
    let probe = script(
        "probe.sh",
        "sleep 0.3\ntail -c 200 \"$1\" | grep -a -q \"^fails-on:.* $2 \" && exit 1\nexit 0\n",
    );
    let folder = lab.path("devices").join(&name).display().to_string();
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let making = Making {
        capacity: 4 * 1024 * 1024,
        soak: 0.8,
        probe: words(&["/bin/sh", &probe, "{slot_path}", "{device}"]),
        hook: words(&["/bin/sh", &hook, &folder]),
        // Several windows for every image, and no wait that outlasts a round.
        timing: "window = 8\nstarted_timeout = 20.0\nconnect_deadline = 60.0".to_owned(),
        ..Making::default()
    };
    let device = LabDevice::make(lab, &name, factory, &making);
    let more = format!(
        "[[hooks]]\nstep = \"undo\"\nname = \"undo\"\ncommand = [\"/bin/sh\", {undo:?}]\ndeadline = 20\n"
    );
    let text = std::fs::read_to_string(device.config()).expect("a configuration");
    std::fs::write(device.config(), text + &more).expect("a configuration");
    device
}
