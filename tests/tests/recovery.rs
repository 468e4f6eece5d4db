//! A device with a single slot and no whole package left fetches the confirmed one again, from a real service.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tern_agent::boot::uboot::environment::Environment;
use tern_agent::boot::uboot::medium::{Location, Medium};
use tern_agent::boot::uboot::variables;
use tern_agent::core::SlotName;
use tern_agent::storage::system::System;
use tern_tests::lab::tree::{Walk, plant};
use tern_tests::lab::{Lab, MODEL, PRODUCT, made, program};

const COPY: usize = 8192;

struct Device {
    folder: PathBuf,
    medium: Medium,
}

impl Device {
    /// A device as its factory makes it, with `image` as release 2.
    fn make(lab: &Lab, image: &Path) -> Self {
        let folder = lab.path("single");
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name);
        let copy = Environment::default().encode(1, COPY).unwrap();
        fs::write(path("environment"), [copy.clone(), copy].concat()).unwrap();
        fs::write(path("system"), vec![0xee; 1 << 20]).unwrap();
        let copies = [0, COPY as u64].map(|offset| Location { path: path("environment"), offset });
        let medium = Medium { copies, size: COPY, lock: path("lock") };
        let environment = path("environment");
        let text = format!(
            "fleet = \"lab\"\ndevice = \"single\"\nproduct = {PRODUCT:?}\nmodel = {MODEL:?}\nregion = \"eu\"\n\
             brokers = [\"mqtt://{mqtt}\"]\ndata_dir = {data:?}\nruntime_dir = {run:?}\nroot = {root:?}\n\
             [slots]\ncapacity = 1048576\nsystem = {system:?}\n[boot]\nkind = \"uboot\"\nlock = {lock:?}\n\
             reboot = [\"/bin/true\"]\ncopies = [\n{{ path = {environment:?}, offset = 0, size = {COPY} }},\n\
             {{ path = {environment:?}, offset = {COPY}, size = {COPY} }},\n]\n[data]\nareas = [{user:?}]\n",
            mqtt = lab.mqtt,
            data = path("data"),
            run = path("run"),
            root = lab.data().join("products").join(PRODUCT).join("root.json"),
            system = path("system"),
            user = path("srv/user"),
            lock = path("lock"),
        );
        fs::write(path("agent.toml"), text).unwrap();
        let device = Self { folder, medium };
        let image = image.to_str().unwrap();
        let (ok, said) = device.agent(&["provision", "--image", image, "--rc", "2", "--version", "2.0.0"]);
        assert!(ok, "{said}");
        let (ok, line) = device.agent(&["identity"]);
        assert!(ok, "{line}");
        fs::write(device.folder.join("factory.json"), line).unwrap();
        let list = device.folder.join("factory.json");
        lab.json(&["device", "add", "--unsigned", "--file", list.to_str().unwrap()]);
        device
    }

    fn agent(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = Command::new("timeout");
        command.arg("100").arg(program("tern-agent")).arg(arguments[0]);
        command.arg("--config").arg(self.folder.join("agent.toml")).args(&arguments[1..]);
        let output = command.output().unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            if output.status.success() { "".into() } else { String::from_utf8_lossy(&output.stderr) }
        );
        (output.status.success(), said)
    }

    fn installed(&self) -> Option<SlotName> {
        variables::installed(&self.medium.read(&System).unwrap()).unwrap()
    }

    fn uninstall(&self) {
        self.medium.change(&System, |environment| variables::put_installed(environment, None)).unwrap();
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join(name)).unwrap()
    }
}

#[test]
fn a_single_slot_is_filled_again_also_where_no_package_is_whole_any_more() {
    let lab = Lab::start();
    let image = lab.path("2.img");
    made(&image, 300_000, 2);
    lab.publish(2, &image);
    let device = Device::make(&lab, &image);
    let has_tree = plant(&device.folder.join("srv/user"));
    let tree = || has_tree.then(|| Walk::through(&device.folder.join("srv")));
    let before = tree();
    let wanted = fs::read(&image).unwrap();
    assert!(device.file("system").starts_with(&wanted), "provisioning fills it");
    assert_eq!(device.installed(), Some(SlotName::A));
    let recovered = |written: bool| json!({"slot": "a", "written": written});
    let recover = || {
        let (ok, said) = device.agent(&["recover", "--json"]);
        assert!(ok, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    assert_eq!(recover(), recovered(false));

    // One bit of it changes, and nothing says so but the bytes.
    let mut rotten = device.file("system");
    rotten[70_000] ^= 1;
    fs::write(device.folder.join("system"), rotten).unwrap();
    assert_eq!(recover(), recovered(true));
    assert!(device.file("system").starts_with(&wanted));
    assert_eq!((device.installed(), recover()), (Some(SlotName::A), recovered(false)));

    // The system slot is lost: the package is there.
    fs::write(device.folder.join("system"), vec![0; 1 << 20]).unwrap();
    device.uninstall();
    assert_eq!(recover(), recovered(true));
    assert!(device.file("system").starts_with(&wanted));

    // The package is damaged, too: it comes again.
    let package = device.folder.join("data/slots/a.img");
    let mut damaged = fs::read(&package).unwrap();
    damaged[70_000] ^= 1;
    fs::write(&package, &damaged).unwrap();
    fs::write(device.folder.join("system"), vec![0; 1 << 20]).unwrap();
    device.uninstall();
    assert_eq!(recover(), recovered(true));
    assert!(device.file("system").starts_with(&wanted));
    assert_eq!(device.installed(), Some(SlotName::A));

    // And where nothing says what it was, a person is told.
    for name in ["a.label.0", "a.label.1", "fetch.0", "fetch.1"] {
        let _gone = fs::remove_file(device.folder.join("data/slots").join(name));
    }
    device.uninstall();
    let (ok, said) = device.agent(&["recover"]);
    assert!(!ok && said.contains("write a signed image by hand"), "{said}");
    assert_eq!(tree(), before, "recovery leaves user data alone");
}
