//! A site that is cut off: devices go on with what it has, what they say waits, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tern_bridge::front::frame::Publish;
use tern_protocol::message::ReportKind;
use tern_protocol::state::{Outcome, StateName};
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

/// What tells a report.
type Sought<'a> = &'a dyn Fn(&ReportKind) -> bool;

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
    // Everybody is enrolled; then most are switched off.
    let everybody = [&mut leader, &mut doomed].into_iter().chain(&mut fresh).chain(&mut acked);
    everybody.for_each(LabDevice::start);
    site.lab.wait_for_hellos();
    let everybody = [&mut leader, &mut doomed].into_iter().chain(&mut fresh).chain(&mut acked);
    everybody.for_each(LabDevice::kill);
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

    let mut heard = Heard::default();
    let installed = fresh.iter().chain(&acked).chain([&leader]).map(|device| device.name.clone());
    let succeeded = |kind: &ReportKind| matches!(kind, ReportKind::Outcome { outcome: Outcome::Success, .. });
    let recalled = |kind: &ReportKind| matches!(kind, ReportKind::Halted { .. });
    let mut owed: Vec<(String, Sought<'_>)> = vec![(doomed.name.clone(), &recalled)];
    owed.extend(installed.map(|name| (name, &succeeded as &dyn Fn(&ReportKind) -> bool)));
    wait("everything to be heard", Duration::from_secs(180), || {
        heard.read(&site.lab);
        let said = |owed: &(String, &dyn Fn(&ReportKind) -> bool)| {
            heard.reports.iter().any(|((device, _), kind)| *device == owed.0 && owed.1(kind))
        };
        owed.iter().all(said).then_some(())
    });
    for name in ["fresh", "acked"] {
        let view = site.lab.wait_for_status(name, "completed", Duration::from_secs(60));
        assert_eq!(view["total"]["bad"].as_u64(), Some(0), "{view}");
    }
    wait("the queue to be empty", Duration::from_secs(60), || {
        (site.edge.status()["queue"] == 0).then_some(())
    });
    assert_eq!(heard.doubled, []);
    in_order(&site.wan.sent());
    assert_eq!(forged(&site), 0);
}

/// What each device said went up in its order, however often; a hello comes first in its connection.
fn in_order(sent: &[Publish]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for message in sent.iter().filter(|message| message.topic.ends_with("/report")) {
        let report: Value = serde_json::from_slice(&message.payload).unwrap();
        let n = report["n"].as_u64().unwrap();
        if report["t"] != "hello" && seen.insert((&message.topic, n)) {
            let before = last.insert(&message.topic, n).unwrap_or(0);
            assert!(before < n, "{} said {n} after {before}", message.topic);
        }
    }
    assert!(last.len() >= 6, "{last:?}");
}

/// How many messages the service took for forged.
fn forged(site: &LabSite) -> u64 {
    let token = std::fs::read_to_string(site.lab.admin_token()).unwrap();
    let host = site.lab.api.trim_start_matches("http://");
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with("tern_messages_forged_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What the site's mirror holds of heads.
fn mirror(site: &LabSite) -> Vec<Vec<u8>> {
    let files = std::fs::read_dir(site.edge.folder().join("mirror")).into_iter().flatten().flatten();
    let mut bundles: Vec<Vec<u8>> = files.filter_map(|file| std::fs::read(file.path()).ok()).collect();
    bundles.retain(|bundle| bundle.windows(6).any(|part| part == b"/head\n"));
    bundles.sort();
    bundles
}
