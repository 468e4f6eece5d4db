//! A site that is cut off: devices go on with what it has, what they say waits, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::time::Duration;

use serde_json::{Value, json};
use tern_agent::core::state::State;
use tern_bridge::front::frame::Publish;
use tern_protocol::message::ReportKind;
use tern_protocol::state::{Outcome, StateName};
use tern_tests::lab::{Heard, LabDevice, LabSite, MODEL, Making, Records, Stopwatch, wait};

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
    // The broker may hand the service a hello before the enrolment that vouches for it; the device says it again.
    let forged_before = forged(&site);
    let everybody = [&mut leader, &mut doomed].into_iter().chain(&mut fresh).chain(&mut acked);
    everybody.for_each(LabDevice::kill);
    // Its power fails before its hook has ended; then the release is killed, and the site hears of it.
    site.publish(2, 300_000, &[MODEL]);
    site.roll_out(2, "bad", &plan(DOOMED, "fresh"));
    doomed.start();
    reaches(&doomed, StateName::PreUpdating);
    doomed.cut_power();
    // One device has brought the next release to the site when the link is cut; the others come when it is.
    let image = kills_and_goes_on(&site);
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

    let installed = fresh.iter().chain(&acked).chain([&leader]);
    everything_is_heard(&site, installed, &doomed);
    assert_eq!(forged(&site), forged_before, "what went up:\n{}", told(&site.wan.sent()));
    for name in ["fresh", "acked"] {
        completes(&site, name);
    }
    assert!(in_order(&site.wan.sent()) >= 6);
}

/// An hour without the link, 180 times as fast: longer than a trial may go without a broker, or a start without an answer.
const HOUR: Duration = Duration::from_secs(20);
const SCALED: &str = "connect_deadline = 11.7\nstarted_timeout = 3.4";
/// Packs on the link at once.
const WINDOW: u64 = 4;
/// A release that comes over the link while it is cut.
const REMOTE: &str = "cn";
const CHUNKS: usize = 40;

#[test]
fn downloads_that_are_cut_in_the_middle_go_on_and_the_site_is_as_if_it_had_never_been_away() {
    let site = LabSite::start(&format!("window = {WINDOW}"));
    let making = |region, rate: u32| Making {
        region,
        sections: format!("[transfer]\nrate = {rate}"),
        timing: SCALED.into(),
        ..site.making()
    };
    let device = |name: &str, region, rate| site.device(name, &making(region, rate));
    let mut leader = device("leader", FRESH, 0);
    // From the site's cache, slowly, so that they are in the middle when the link goes.
    let mut fresh = device("fresh", FRESH, 100_000);
    let mut acked = device("acked", ACKED, 100_000);
    let mut doomed = device("doomed", DOOMED, 100_000);
    let mut remote: Vec<_> = (0..2).map(|n| device(&format!("remote-{n}"), REMOTE, 0)).collect();
    let mut everybody: Vec<&mut LabDevice> = vec![&mut leader, &mut fresh, &mut acked, &mut doomed];
    everybody.extend(&mut remote);
    everybody.iter_mut().for_each(|device| device.start());
    site.lab.wait_for_hellos();
    let forged_before = forged(&site);
    everybody.iter_mut().for_each(|device| device.kill());
    drop(everybody);
    // Its power fails in the middle of a download; then the release is killed, and the site hears of it.
    site.publish(2, RELEASE, &[MODEL]);
    site.roll_out(2, "bad", &plan(DOOMED, "fresh"));
    doomed.start();
    is_in_the_middle(&doomed);
    doomed.cut_power();
    let image = kills_and_goes_on(&site);
    let other = site.publish(4, CHUNKS * 65_536, &[MODEL]);
    site.roll_out(4, "remote", &plan(REMOTE, "fresh"));
    leader.start();
    wait("the leader to run the release", Duration::from_secs(120), || {
        (leader.slot("b") == image && state(&leader) == StateName::Idle).then_some(())
    });
    let so_far = site.wan.passed().len();
    site.wan.delay(Duration::from_millis(250));
    remote.iter_mut().chain([&mut fresh, &mut acked]).for_each(LabDevice::start);
    for device in [&fresh, &acked] {
        is_in_the_middle(device);
    }
    wait("the third release on its way", Duration::from_secs(60), || {
        (site.wan.passed().len() >= so_far + 6).then_some(())
    });

    site.wan.cut(true);

    let hour = Stopwatch::start();
    for device in remote.iter().chain([&fresh, &acked]) {
        assert_eq!(state(device), StateName::Downloading, "{}", device.name);
    }
    wait("the site to know", Duration::from_secs(60), || site.edge.status()["site"]["outage"].as_u64());
    let cut = site.wan.passed().len();
    assert!(cut < so_far + CHUNKS, "{cut} parts");
    doomed.start();
    wait("the fresh one to install", Duration::from_secs(120), || {
        (fresh.slot("b") == image && Records::of(&fresh).boot().trial.is_none()).then_some(())
    });
    reaches(&fresh, StateName::Idle);
    reaches(&acked, StateName::Verifying);
    wait("the kill", Duration::from_secs(60), || {
        let journal = Records::of(&doomed).journal()?;
        (journal.halted.contains(&2) && journal.state.name() == StateName::Idle).then_some(())
    });
    wait("the hour to pass", 3 * HOUR, || (hour.read() >= HOUR).then_some(()));
    assert_eq!((state(&acked), Records::of(&acked).boot().trial), (StateName::Verifying, None));
    assert_eq!(acked.slot("b"), image, "downloaded from the site");
    assert!(remote.iter().all(|device| state(device) == StateName::Downloading));
    let waits = site.edge.status();
    assert!(waits["queue"].as_u64() > Some(0) && waits["site"]["dropped"] == 0, "{waits}");
    assert_eq!(site.wan.passed().len(), cut);
    site.wan.delay(Duration::ZERO);

    site.wan.cut(false);

    let installed = remote.iter().chain([&leader, &fresh, &acked]);
    everything_is_heard(&site, installed, &doomed);
    assert_eq!(forged(&site), forged_before, "what went up:\n{}", told(&site.wan.sent()));
    for name in ["fresh", "acked", "remote"] {
        completes(&site, name);
    }
    assert!(remote.iter().all(|device| device.slot("b") == other));
    let (all, twice) = site.wan.packs();
    assert!(twice <= WINDOW, "{twice} of {all} packs came twice");
    assert!(in_order(&site.wan.sent()) >= 6);
}

/// Kills the bad release, and offers the next one when the site has heard of that; returns its image.
fn kills_and_goes_on(site: &LabSite) -> Vec<u8> {
    let before = mirror(site);
    site.lab.json(&["rollout", "kill", "bad"]);
    wait("the site to hear of the kill", Duration::from_secs(30), || (mirror(site) != before).then_some(()));
    let image = site.publish(3, RELEASE, &[MODEL]);
    site.roll_out(3, "fresh", &plan(FRESH, "fresh"));
    site.roll_out(3, "acked", &plan(ACKED, "acked"));
    image
}

/// Waits until a device has some of what it downloads, and not all.
fn is_in_the_middle(device: &LabDevice) {
    wait(&format!("{} to be in the middle", device.name), Duration::from_secs(60), || {
        let journal = Records::of(device).journal()?;
        matches!(journal.state, State::Downloading { have, .. } if !have.is_empty()).then_some(())
    });
}

fn completes(site: &LabSite, rollout: &str) {
    let view = site.lab.wait_for_status(rollout, "completed", Duration::from_secs(60));
    assert_eq!(view["total"]["bad"].as_u64(), Some(0), "{view}");
}

/// Waits until the service knows all that there is to know, and holds that against what went up.
fn everything_is_heard<'a>(
    site: &LabSite,
    installed: impl Iterator<Item = &'a LabDevice>,
    recalled: &LabDevice,
) {
    let succeeded = |kind: &ReportKind| matches!(kind, ReportKind::Outcome { outcome: Outcome::Success, .. });
    let halted = |kind: &ReportKind| matches!(kind, ReportKind::Halted { .. });
    let mut owed: Vec<(&str, Sought<'_>)> = vec![(&recalled.name, &halted)];
    owed.extend(installed.map(|device| (device.name.as_str(), &succeeded as Sought<'_>)));
    let mut heard = Heard::default();
    wait("everything to be heard", Duration::from_secs(180), || {
        heard.read(&site.lab);
        let said = |(device, sought): &(&str, Sought<'_>)| {
            heard.reports.iter().any(|((name, _), kind)| name == device && sought(kind))
        };
        owed.iter().all(said).then_some(())
    });
    wait("the queue to be empty", Duration::from_secs(60), || {
        (site.edge.status()["queue"] == 0).then_some(())
    });
    heard.read(&site.lab);
    let found = (&heard.doubled, heard.broken_walks());
    assert_eq!(found, (&Vec::new(), Vec::new()), "what went up:\n{}", told(&site.wan.sent()));
}

/// What each device said went up in its order, however often; a hello comes first in its connection. Returns how many devices that were.
fn in_order(sent: &[Publish]) -> usize {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for message in sent.iter().filter(|message| message.topic.ends_with("/report")) {
        let report: Value = serde_json::from_slice(&message.payload).unwrap();
        let (n, more) = (report["n"].as_u64().unwrap(), report["more"].as_array().map_or(0, Vec::len) as u64);
        for n in (n..=n + more).filter(|_| report["t"] != "hello") {
            if seen.insert((&message.topic, n)) {
                let before = last.insert(&message.topic, n).unwrap_or(0);
                assert!(before < n, "{} said {n} after {before}", message.topic);
            }
        }
    }
    last.len()
}

/// What went up, for whoever reads of a failure: topic, epoch, number and kind.
fn told(sent: &[Publish]) -> String {
    let reports = sent.iter().filter(|message| !message.topic.ends_with("/get"));
    let line = |message: &Publish| {
        let report: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        let more = report["more"].as_array().map_or(0, Vec::len);
        format!("{} {} {} {}, {more} more\n", message.topic, report["e"], report["n"], report["t"])
    };
    reports.map(line).collect()
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
