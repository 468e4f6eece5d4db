//! A site that is cut off: devices go on with what it has, what they say waits, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::time::Duration;

use serde_json::{Value, json};
use tern_protocol::message::ReportKind;
use tern_protocol::state::StateName;
use tern_tests::lab::{Heard, LabDevice, LabSite, MODEL, Making, Records, wait};

const RELEASE: usize = 2_000_000;
/// Regions, for of one product there is one rollout in a region.
const FRESH: &str = "eu";
const ACKED: &str = "us";
const DOOMED: &str = "jp";

fn plan(region: &str, arm: &str) -> Value {
    json!({"regions": [region], "arm": arm})
}

fn state(device: &LabDevice) -> StateName {
    Records::of(device).journal().map_or(StateName::Idle, |journal| journal.state.name())
}

fn reaches(device: &LabDevice, name: StateName) {
    wait(&format!("{} to be {name:?}", device.name), Duration::from_secs(120), || {
        (state(device) == name).then_some(())
    });
}

#[test]
fn a_site_that_is_cut_off_loses_nothing_and_enforces_the_kill_that_it_had() {
    let mut site = LabSite::start("");
    let making = |region| Making { region, ..site.making() };
    let device = |name: &str, region| site.device(name, &making(region));
    let mut leader = device("leader", FRESH);
    let mut fresh: Vec<_> = (0..2).map(|n| device(&format!("fresh-{n}"), FRESH)).collect();
    let mut acked: Vec<_> = (0..2).map(|n| device(&format!("acked-{n}"), ACKED)).collect();
    let hook = Some(["/bin/sleep", "50"].map(str::to_owned).to_vec());
    let mut doomed = site.device("doomed", &Making { hook, ..making(DOOMED) });
    // Its power fails before its hook has ended; then the release is killed, and the site hears of it.
    site.publish(2, 300_000, &[MODEL]);
    site.roll_out(2, "bad", &plan(DOOMED, "fresh"));
    doomed.start();
    reaches(&doomed, StateName::PreUpdating);
    doomed.cut_power();
    let before = mirror(&site);
    site.lab.json(&["rollout", "kill", "bad"]);
    wait("the site to hear of the kill", Duration::from_secs(30), || (mirror(&site) != before).then_some(()));
    // One device has brought the next release to the site when the link is cut; the others come when it is.
    let image = site.publish(3, RELEASE, &[MODEL]);
    site.roll_out(3, "fresh", &plan(FRESH, "fresh"));
    site.roll_out(3, "acked", &plan(ACKED, "acked"));
    leader.start();
    wait("the leader to run the release", Duration::from_secs(120), || {
        (leader.slot("b") == image).then_some(())
    });
    reaches(&leader, StateName::Idle);
    site.wan.cut(true);
    wait("the site to know", Duration::from_secs(60), || site.edge.status()["site"]["outage"].as_u64());
    fresh.iter_mut().chain(&mut acked).for_each(LabDevice::start);
    doomed.start();

    for device in &fresh {
        wait(&format!("{} to install", device.name), Duration::from_secs(180), || {
            (device.slot("b") == image && Records::of(device).boot().trial.is_none()).then_some(())
        });
        reaches(device, StateName::Idle);
    }
    for device in &acked {
        reaches(device, StateName::Verifying);
        assert_eq!(device.slot("b"), image, "downloaded from the site");
    }
    wait("the kill", Duration::from_secs(60), || {
        let journal = Records::of(&doomed).journal()?;
        (journal.halted.contains(&2) && journal.state.name() == StateName::Idle).then_some(())
    });
    let waits = wait("reports to wait", Duration::from_secs(30), || {
        Some(site.edge.status()).filter(|status| status["queue"].as_u64() > Some(0))
    });
    assert_eq!(waits["site"]["dropped"], 0, "{waits}");
    // The edge dies too, and what waits is still there.
    site.edge.kill();
    site.edge.start();
    for device in &acked {
        assert_eq!((state(device), Records::of(device).boot().trial), (StateName::Verifying, None));
    }

    site.wan.cut(false);

    for (name, count) in [("fresh", 3), ("acked", 2)] {
        let view = site.lab.wait_for_status(name, "completed", Duration::from_secs(180));
        assert_eq!(
            (view["total"]["good"].as_u64(), view["total"]["bad"].as_u64()),
            (Some(count), Some(0)),
            "{view}"
        );
    }
    wait("the queue to be empty", Duration::from_secs(60), || {
        (site.edge.status()["queue"] == 0).then_some(())
    });
    let mut heard = Heard::default();
    wait("the recall to be heard", Duration::from_secs(60), || {
        heard.read(&site.lab);
        let recalled = |(key, kind): (&(String, u64), &ReportKind)| {
            key.0 == "doomed" && matches!(kind, ReportKind::Halted { .. })
        };
        heard.reports.iter().any(recalled).then_some(())
    });
    assert_eq!(heard.doubled, []);
    let status = site.lab.status();
    assert_eq!(status["counters"]["forged"].as_u64().unwrap_or(0), 0, "{status}");
}

/// What the site's mirror holds of heads.
fn mirror(site: &LabSite) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(site.edge.folder().join("mirror")).into_iter().flatten().flatten();
    let mut bundles: Vec<Vec<u8>> = files.filter_map(|file| std::fs::read(file.path()).ok()).collect();
    bundles.retain(|bundle| bundle.windows(6).any(|part| part == b"/head\n"));
    bundles.sort();
    bundles
}
