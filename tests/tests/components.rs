//! A real device with a modem and an application beside its slots, through releases of all three: good ones, one whose
//! application is no archive, one that is not well, and an agent that is killed while the modem is written.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tern_tests::lab::{Lab, LabDevice, MODEL, Making, PRODUCT, made, wait, wait_telling};

const PATIENCE: Duration = Duration::from_secs(90);

/// The modem is a file and says what is done with it; while `busy` is there it takes its time.
const SECTIONS: &str = r#"
[[components]]
name = "modem"
kind = "program"
capacity = 100000
version = "1.0"
install = ["/bin/sh", "-c", 'echo "$TERN_STEP $TERN_RC" >> {dir}/flashed; while test -e {dir}/busy; do sleep 0.05; done; cat "$TERN_SLOT_PATH" > {dir}/modem']
revert = ["/bin/sh", "-c", 'echo "$TERN_STEP $TERN_RC" >> {dir}/flashed; cat "${TERN_SLOT_PATH:-/dev/null}" > {dir}/modem']
deadline = 30
[[components]]
name = "app"
kind = "archive"
path = "{dir}/app"
capacity = 100000
"#;

struct Scene {
    lab: Lab,
    device: LabDevice,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::start();
        let factory = lab.path("factory.img");
        made(&factory, 100_000, 1);
        // Release 4 is not well.
        let probe = ["/bin/sh", "-c", "test $TERN_RC != 4 || { echo the modem is gone; exit 1; }"];
        let making = Making {
            sections: SECTIONS.to_owned(),
            probe: Some(probe.map(str::to_owned).into()),
            ..Making::default()
        };
        let mut device = LabDevice::build(&lab, "dev-1", &factory, &making);
        device.register(&lab);
        device.start();
        lab.wait_for_hellos();
        Self { lab, device }
    }

    /// Publishes and offers a release of all three; an application that is no archive where `broken`.
    fn rolls_out(&self, rc: u64, broken: bool) {
        let file = |name: &str| self.lab.path(&format!("{rc}.{name}"));
        made(&file("img"), 100_000, rc);
        fs::write(file("modem"), format!("modem {rc}")).unwrap();
        let app = file("app");
        fs::create_dir(&app).unwrap();
        fs::write(app.join("run"), format!("app {rc}")).unwrap();
        match broken {
            true => fs::write(file("tar"), "no archive").unwrap(),
            false => {
                let packed =
                    Command::new("tar").arg("-C").arg(&app).arg("-cf").arg(file("tar")).arg("run").status();
                assert!(packed.unwrap().success());
            }
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let artifact = |component: &str, image: &str, order: u8, requires: Value| {
            json!({"component": component, "image": text(&file(image)), "version": format!("{rc}.1"), "order": order,
                   "requires": requires})
        };
        let manifest = json!({"artifact": [
            artifact("rootfs", "img", 0, json!({})),
            artifact("modem", "modem", 1, json!({})),
            artifact("app", "tar", 2, json!({"modem": ">=2"})),
        ]});
        fs::write(file("json"), manifest.to_string()).unwrap();
        let (lab, manifest, draft, signed) =
            (&self.lab, text(&file("json")), text(&file("draft")), text(&file("signed")));
        let (number, version) = (rc.to_string(), format!("{rc}.0"));
        let create = ["release", "create", "--product", PRODUCT, "--rc", &number, "--version", &version];
        lab.json(&[&create[..], &["--model", MODEL, "--manifest", &manifest, "--out", &draft]].concat());
        let key = text(&lab.path("offline").join("release.pem"));
        lab.json(&["release", "sign", &draft, "--key", &key, "--out", &signed]);
        lab.json(&["release", "publish", &signed, "--manifest", &manifest]);
        lab.roll_out(rc, &format!("r{rc}"), "all", 1);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.device.dir.join(name)).unwrap_or_default()
    }

    /// Returns what the components are, and what the agent says of them.
    fn components(&self) -> (String, String, Value) {
        (self.read("modem"), self.read("app/current/run"), self.device.status()["components"].clone())
    }

    fn are(&self, rc: u64) {
        let version = format!("{rc}.1");
        let known =
            json!({"modem": {"version": version, "tried": null}, "app": {"version": version, "tried": null}});
        let due = (format!("modem {rc}"), format!("app {rc}"), known);
        let said = || format!("all to be of release {rc}: {:?}\n{}", self.components(), self.device.log());
        wait_telling(said, PATIENCE, || (self.components() == due).then_some(()));
    }

    /// Waits for the end of a release that fails, and for the service to hear why.
    fn failed(&self, rc: u64, why: &str) {
        wait("the end", PATIENCE, || {
            let status = self.device.status();
            (status["state"] == "failed" && status["rc"] == rc).then_some(())
        });
        let told = || self.lab.json(&["device", "show", "dev-1"]).to_string();
        let heard = || format!("{why:?} to be heard: {}", told());
        wait_telling(heard, PATIENCE, || told().contains(why).then_some(()));
        // Paused by then: the fleet is tiny.
        let name = format!("r{rc}");
        self.lab.json(&["rollout", "kill", &name, "--reason", "bad"]);
    }
}

#[test]
fn a_release_of_three_components_is_installed_whole_or_not_at_all() {
    let mut scene = Scene::new();

    scene.rolls_out(2, false);
    scene.lab.wait_for_status("r2", "completed", PATIENCE);
    scene.are(2);
    assert_eq!(scene.read("flashed"), "install 2\n");
    let shown = wait("the service to hear of the versions", PATIENCE, || {
        let shown = scene.lab.json(&["device", "show", "dev-1"]);
        (shown["components"]["modem"] == "2.1").then_some(shown)
    });
    assert_eq!(shown["components"], json!({"app": "2.1", "modem": "2.1", "rootfs": "2.1"}));

    // The second of two cannot be installed: the first is taken back, and nothing boots.
    let boots = scene.device.status()["epoch"].clone();
    scene.rolls_out(3, true);
    scene.failed(3, "component app: tar: exit code");
    scene.are(2);
    assert_eq!(scene.read("flashed"), "install 2\ninstall 3\nrevert 2\n");
    assert_eq!(scene.device.status()["epoch"], boots);

    // All of it is in, and the trial fails.
    scene.rolls_out(4, false);
    scene.failed(4, "the modem is gone");
    scene.are(2);
    assert!(scene.read("flashed").ends_with("install 4\nrevert 2\n"));

    // Killed while the modem is written: it is written once more.
    fs::write(scene.device.dir.join("busy"), "").unwrap();
    scene.rolls_out(5, false);
    wait("the modem to be written", PATIENCE, || {
        scene.read("flashed").ends_with("install 5\n").then_some(())
    });
    assert_eq!(scene.device.status()["components"]["modem"]["tried"], 5);
    scene.device.kill();
    fs::remove_file(scene.device.dir.join("busy")).unwrap();
    scene.device.start();
    scene.lab.wait_for_status("r5", "completed", PATIENCE);
    scene.are(5);
    assert!(scene.read("flashed").ends_with("install 5\ninstall 5\n"), "{}", scene.read("flashed"));

    // The power fails while the modem is written: all is taken back and begun anew.
    fs::write(scene.device.dir.join("busy"), "").unwrap();
    scene.rolls_out(6, false);
    wait("the modem to be written", PATIENCE, || {
        scene.read("flashed").ends_with("install 6\n").then_some(())
    });
    scene.device.cut_power();
    fs::remove_file(scene.device.dir.join("busy")).unwrap();
    scene.device.start();
    scene.lab.wait_for_status("r6", "completed", PATIENCE);
    scene.are(6);
    assert!(scene.read("flashed").ends_with("install 6\nrevert 5\ninstall 6\n"), "{}", scene.read("flashed"));

    // Of a component whose record cannot be read nothing is known; the agent is there all the same, and says so.
    scene.device.kill();
    for copy in ["installed.0", "installed.1"] {
        let path = scene.device.dir.join("data/components/app").join(copy);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
    }
    scene.device.start();
    scene.rolls_out(7, false);
    scene.failed(7, "the package for app has");
    scene.device.kill();
}
