//! Real input: a firmware image that nobody here wrote, through real separate processes.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use tern_tests::lab::{Lab, LabDevice, Making, firmware, made, wait};

#[test]
fn a_real_firmware_image_arrives_byte_for_byte_through_real_processes() {
    let Some(image) = firmware() else { return };
    let source = std::fs::read(&image).unwrap();
    assert!(source.len() >= 500_000, "{} B is no firmware image", source.len());
    let lab = Lab::start();
    let factory = lab.path("factory.img");
    made(&factory, 100_000, 1);
    let mut devices: Vec<LabDevice> =
        (1..=3).map(|i| LabDevice::make(&lab, &format!("dev-{i}"), &factory, &Making::default())).collect();
    devices.iter_mut().for_each(LabDevice::start);

    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    let view = lab.wait_for_status("r2", "completed", Duration::from_secs(90));

    assert_eq!(view["total"]["good"], 3, "{view}");
    for device in &devices {
        assert!(
            device.slot("b")[..source.len()] == source[..],
            "slot b of {} differs from the source",
            device.name
        );
        let status = device.status();
        assert_eq!(
            (status["active"].as_str(), status["slots"]["b"]["holds"].as_u64()),
            (Some("b"), Some(2)),
            "{status}"
        );
    }
    let verified = lab.json(&["ledger", "verify", "--data", &lab.data().display().to_string()]);
    assert!(verified["frames"].as_u64() > Some(10), "{verified}");
}

/// The control of the test above: a device must not end up with what was not signed.
#[test]
fn a_chunk_that_was_changed_in_the_store_reaches_no_slot() {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("new.img"));
    made(&factory, 100_000, 1);
    made(&image, 300_000, 2);
    let mut device = LabDevice::make(&lab, "dev-1", &factory, &Making::default());
    lab.publish(2, &image);
    let stored = walk(&lab.data().join("images"));
    let largest = stored.iter().max_by_key(|p| std::fs::metadata(p).unwrap().len()).unwrap();
    let mut bytes = std::fs::read(largest).unwrap();
    bytes[150_000] ^= 1;
    std::fs::write(largest, bytes).unwrap();

    device.start();
    lab.roll_out(2, "r2", "all", 0);
    wait("the device to try", Duration::from_secs(60), || {
        (device.status()["state"] == "downloading").then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));

    let status = device.status();
    assert_eq!(status["active"], "a", "{status}");
    assert_eq!(status["slots"]["b"]["holds"].as_u64(), None, "{status}");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}
