//! Stories of an operator over HTTP.

use serde_json::{Value, json};
use tern_protocol::topic::Topic;

use super::client::ClientError;
use super::routes::BODY_MAX;
use super::testing::{World, admin, device};
use super::types::*;
use crate::core::fact::{DeviceEntry, Fact};
use crate::core::rollout::plan::Plan;
use crate::core::rollout::record::Status;

/// Returns the status and the body of a refusal.
fn refused<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, ErrorBody) {
    match answer.unwrap_err() {
        ClientError::Refused(body, status) => (status, body),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn bearer() -> String {
    format!("Authorization: Bearer {}\r\n", admin().reveal().as_str())
}

#[test]
fn an_operator_publishes_previews_starts_pauses_resumes_and_kills() {
    let world = World::new();
    world.add_devices(100);

    let (status, early) = refused(world.publish(1));
    assert_eq!(status, 409);
    assert!(early.error.contains("cam/1/rootfs") && early.hint.contains("--image"), "{early:?}");
    let stored = world.client.put_image(&world.image(1), |_| {}).unwrap();
    assert_eq!(stored.length, 200_000);
    assert_eq!(std::fs::read_dir(world.home.path().join("staging")).unwrap().count(), 0);
    assert_eq!(world.publish(1).unwrap().releases, vec![1]);

    let preview: Preview = world.client.post("/v1/rollouts/preview", &world.request(1)).unwrap();
    assert_eq!((preview.devices, preview.bytes_each), (100, 200_000));
    assert_eq!(preview.phases.iter().map(|step| step.devices).collect::<Vec<_>>(), vec![34, 66]);
    assert!(preview.warnings.iter().any(|warning| warning.contains("tiny fleet")), "{preview:?}");

    let _done: DoneBody = world.client.post("/v1/rollouts", &world.request(1)).unwrap();
    let view = world.rollout("cam-1-1");
    assert_eq!((view.status, view.phase, view.covered), (Status::Running, 1, 100));
    assert_eq!((view.phases[0].devices, view.phases[1].open), (34, false));
    assert!(view.explanation.contains("no device has started"), "{}", view.explanation);
    let outcome = view.tests.iter().find(|one| one.line.contains("0 bad of 0 started")).unwrap();
    assert!(outcome.kills.is_some() && outcome.pauses.is_some(), "{outcome:?}");

    world.command("cam-1-1", "pause", json!({})).unwrap();
    assert_eq!(world.rollout("cam-1-1").status, Status::Paused);
    world.command("cam-1-1", "resume", json!({})).unwrap();
    assert_eq!(world.rollout("cam-1-1").status, Status::Running);
    let (status, _) = refused(world.command("cam-1-1", "promote", json!({"from_phase": 2})));
    assert_eq!(status, 409);
    let long = json!({"from_phase": 1, "key": "k".repeat(65)});
    let (status, cut) = refused(world.command("cam-1-1", "promote", long));
    assert!(
        status == 422 && cut.error.contains("at most 64 characters, this one has 65"),
        "{status} {cut:?}"
    );
    assert!(cut.hint.contains("UUID") && !world.rollout("cam-1-1").phases[1].open, "{cut:?}");
    world.command("cam-1-1", "promote", json!({"from_phase": 1, "key": "é".repeat(64)})).unwrap();
    assert_eq!(world.rollout("cam-1-1").phases[1].devices, 66);
    world.command("cam-1-1", "kill", json!({"reason": "modems lose their SIM"})).unwrap();

    let killed = world.rollout("cam-1-1");
    assert_eq!(killed.status, Status::Killed);
    assert!(killed.explanation.contains("modems lose their SIM"), "{}", killed.explanation);
    let releases: Vec<ReleaseView> = world.client.get("/v1/products/cam/releases").unwrap();
    assert!(releases[0].halted && releases[0].artifacts[0].stored);
    let again = StartRollout { attempt: 2, ..world.request(1) };
    assert_eq!(refused(world.client.post::<DoneBody>("/v1/rollouts", &again)).0, 409);
    let lines: Vec<RolloutLine> = world.client.get("/v1/rollouts").unwrap();
    assert_eq!((lines.len(), lines[0].phase, lines[0].phases), (1, 2, 2));
    assert!(world.published.lock().unwrap().contains(&Topic::Head(world.product().clone())));
}

#[test]
fn the_ledger_over_http_is_the_one_on_the_disk() {
    let world = World::new();
    world.add_devices(3);

    let head: LedgerView = world.client.get("/v1/ledger").unwrap();
    let mut facts = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let page: LedgerPage = world.client.get(&format!("/v1/ledger/frames?from={from}&limit=2")).unwrap();
        assert!(page.frames.len() <= 2);
        next = page.next;
        facts.extend(page.frames);
    }

    let report = crate::ledger::verify(&world.options.data.join("ledger")).unwrap();
    assert_eq!((report.frames, report.head_hash), (head.frames, head.head));
    assert_eq!(facts.last().map(|frame| (frame.seq + 1, frame.hash)), Some((head.frames, head.head)));
    assert!(facts.iter().zip(0..).all(|(frame, seq)| frame.seq == seq));
    assert!(
        facts.iter().any(
            |frame| matches!(&frame.entry.fact, Fact::DevicesAdded { devices, .. } if devices.len() == 3)
        )
    );
}

#[test]
fn devices_come_in_pages_and_one_by_one() {
    let world = World::new();
    world.add_devices(5);

    let first: Vec<DeviceLine> = world.client.get("/v1/devices?limit=2").unwrap();
    let rest: Vec<DeviceLine> =
        world.client.get(&format!("/v1/devices?product=cam&after={}", first[1].device)).unwrap();
    let others: Vec<DeviceLine> = world.client.get("/v1/devices?product=router").unwrap();
    let one: DeviceView = world.client.get("/v1/devices/cam-0003").unwrap();

    assert_eq!((first.len(), rest.len(), others.len()), (2, 3, 0));
    assert_eq!((one.line.device.as_str(), one.line.enrolled), ("cam-0003", false));
    let devices = vec![DeviceEntry { identity: device(9, "b3").identity, ..device(3, "b3") }];
    let taken = AddDevices { devices, unsigned: true };
    assert_eq!(refused(world.client.post::<AddedDevices>("/v1/devices", &taken)).0, 409);
}

#[test]
fn every_error_is_json_with_a_hint() {
    let world = World::new();
    let statuses = [
        refused(world.client.get::<Value>("/v1/nothing")),
        refused(world.client.get::<Value>("/v1/devices/nobody")),
        refused(world.client.get::<Value>("/v1/devices/no%20name")),
        refused(world.client.get::<Value>("/v1/rollouts/nothing")),
        refused(world.client.get::<Value>("/v1/products/other/releases")),
        refused(world.client.get::<Value>("/v1/ledger/frames?limit=many")),
        refused(world.client.get::<Value>("/v1/devices?lmit=1")),
        refused(world.client.post::<Value>("/v1/status", &json!({}))),
        refused(world.client.post::<Value>("/v1/rollouts", &json!({"product": "cam"}))),
        refused(world.client.post::<Value>("/v1/rollouts", &json!({"product": "cam", "rc": 9}))),
        refused(world.client.post::<Value>("/v1/rollouts/x/kill", &json!({"resaon": "typo"}))),
        // Little too much: of what is never read a closed connection may lose the answer.
        refused(world.client.post::<Value>("/v1/rollouts/x/kill", &json!({"reason": "x".repeat(BODY_MAX)}))),
    ];

    assert!(statuses.iter().all(|(_, body)| !body.error.is_empty() && !body.hint.is_empty()));
    let codes: Vec<u16> = statuses.iter().map(|(status, _)| *status).collect();
    assert_eq!(codes, vec![404, 404, 404, 404, 404, 422, 422, 405, 422, 404, 422, 413]);
    let host = world.address;
    let (status, body) = world.raw(&format!(
        "POST /v1/rollouts HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 5\r\n\r\n{{\"a\":"
    ));
    assert_eq!(status, 422);
    assert!(serde_json::from_str::<ErrorBody>(&body).is_ok(), "{body}");
}

#[test]
fn a_web_page_in_the_operators_browser_cannot_kill() {
    let world = World::new();
    let host = world.address;
    let kill = |headers: &str| {
        world.raw(&format!(
            "POST /v1/rollouts/x/kill HTTP/1.1\r\n{headers}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        ))
    };

    assert_eq!(kill(&format!("Host: {host}\r\nOrigin: http://evil.example")).0, 403);
    assert_eq!(kill("Host: evil.example").0, 403);
    // The control: without these marks the request gets as far as the rollout's name.
    assert_eq!(kill(&format!("Host: {host}")).0, 404);
}

#[test]
fn an_image_that_is_empty_too_large_or_cut_short_leaves_nothing_behind() {
    let world = World::new();
    let host = world.address;
    let put = |length: u64, body: &str| {
        world.raw(&format!(
            "PUT /v1/images HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };

    assert_eq!(put(0, "").0, 422);
    assert_eq!(put((4 << 30) + 1, "").0, 413);
    {
        use std::io::Write;
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let head = format!("PUT /v1/images HTTP/1.1\r\nHost: {host}\r\n{}", bearer());
        write!(stream, "{head}Content-Length: 900000\r\n\r\nabc").unwrap();
    }
    // A later upload succeeds, so the broken one holds no turn; its file goes with it.
    assert_eq!(put(3, "abc").0, 200);
    let staging = world.home.path().join("staging");
    let gone = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        std::fs::read_dir(&staging).unwrap().count() == 0
    });
    assert!(gone, "a part of an upload stayed in {}", staging.display());
}

#[test]
fn status_and_metrics_tell_the_same_numbers() {
    let world = World::new();
    world.add_devices(4);

    let status: ServiceStatus = world.client.get("/v1/status").unwrap();
    let host = world.address;
    let (code, metrics) =
        world.raw(&format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));

    assert_eq!((status.fleet.as_str(), status.devices, status.wire.packs), ("acme", 4, 42));
    assert_eq!(status.listeners, vec!["127.0.0.1:1883"]);
    assert_eq!(code, 200);
    assert!(metrics.contains("\ntern_devices 4\n"), "{metrics}");
    let names = metrics.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert!((1..=32).contains(&names), "{names} metrics");
    let (health, _) =
        world.raw(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(health, 200);
    world.runtime.block_on(world.engine.stop());
    let (stopped, _) =
        world.raw(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    assert_eq!(stopped, 503);
}

#[test]
fn a_refused_upload_hears_the_reason_and_not_a_broken_pipe() {
    use std::io::{Read as _, Write as _};
    let world = World::new();
    let large = world.home.path().join("large");
    std::fs::write(&large, vec![7; 32 << 20]).unwrap();
    let host = world.address;
    let head = |length: usize| {
        format!(
            "PUT /v1/images HTTP/1.1\r\nHost: {host}\r\n{}Connection: close\r\nContent-Length: {length}\r\n\r\n",
            bearer()
        )
    };

    // Two uploads that stand still take both turns.
    let stalled = [0, 1].map(|_| {
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        let head = head(900_000).replace("Connection", "Expect: 100-continue\r\nConnection");
        stream.write_all(head.as_bytes()).unwrap();
        // Said once it has its turn.
        let mut said = [0; 12];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"HTTP/1.1 100");
        stream.write_all(b"abc").unwrap();
        stream
    });
    let (status, body) = refused(world.client.put_image(&large, |_| {}));
    assert_eq!((status, body.error.as_str()), (503, "too many images at once"));
    drop(stalled);

    let staging = world.home.path().join("staging");
    std::fs::remove_dir_all(&staging).unwrap();
    let gone = (0..200).find_map(|_| {
        let (status, body) = refused(world.client.put_image(&large, |_| {}));
        (status != 503).then_some((status, body))
    });
    let (status, body) = gone.unwrap();
    assert_eq!(status, 500);
    assert!(body.hint.contains("staging"), "{body:?}");
    // A sender that does not ask first is read to the end.
    let (status, text) = world.bare(&format!("{}{}", head(8 << 20), "x".repeat(8 << 20)));
    assert_eq!(status, 500);
    assert!(text.contains("staging"), "{text}");

    std::fs::create_dir(&staging).unwrap();
    assert_eq!(world.client.put_image(&large, |_| {}).unwrap().length, 32 << 20);
}

#[test]
fn a_kill_needs_no_body_and_its_reason_is_short_and_commands_no_terminal() {
    let world = World::new();
    world.add_devices(10);
    for rc in [1, 2] {
        world.client.put_image(&world.image(rc), |_| {}).unwrap();
        world.publish(rc).unwrap();
    }
    let host = world.address;
    let post = |verb: &str| {
        let head =
            format!("POST /v1/rollouts/cam-1-1/{verb} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        world.raw(&format!("{head}Content-Length: 0\r\n\r\n")).0
    };
    let _done: DoneBody = world.client.post("/v1/rollouts", &world.request(1)).unwrap();

    assert_eq!(["pause", "resume", "kill"].map(post), [200, 200, 200]);
    assert!(world.rollout("cam-1-1").because.contains("no reason given"));
    // What a body must say, nothing does not say.
    assert_eq!(post("promote"), 422);

    let _done: DoneBody = world.client.post("/v1/rollouts", &world.request(2)).unwrap();
    let reason = format!("first\nCOMPLETE \x1b[2J{}", "x".repeat(600));
    world.command("cam-2-1", "kill", json!({ "reason": reason })).unwrap();

    let because = world.rollout("cam-2-1").because;
    assert!(because.contains(r"first\nCOMPLETE \u{1b}[2Jxxx"), "{because}");
    assert!((500..560).contains(&because.chars().count()), "{because}");
}

#[test]
fn the_bodies_in_the_manual_are_those_that_the_api_takes() {
    let manual = include_str!("../../../docs/operating.md").replace("04…", "04");
    let api = manual.split_once("## The API").unwrap().1.split("\n## ").next().unwrap();
    let bodies = |path: &str| -> Vec<Value> {
        let row = api.lines().find(|line| line.starts_with(&format!("| `{path}`"))).unwrap();
        let quoted = row.split('`').filter(|text| text.starts_with('{'));
        quoted.map(|body| serde_json::from_str(body).unwrap()).collect()
    };
    fn all_read<T: serde::de::DeserializeOwned>(bodies: Vec<Value>) -> Vec<T> {
        assert!(!bodies.is_empty());
        bodies.into_iter().map(|body| serde_json::from_value(body).unwrap()).collect()
    }

    all_read::<AddDevices>(bodies("devices"));
    all_read::<PublishRelease>(bodies("products/P/releases"));
    all_read::<Promote>(bodies("rollouts/R/promote"));
    all_read::<ApprovePhase>(bodies("rollouts/R/approve"));
    all_read::<Revert>(bodies("rollouts/R/revert"));
    all_read::<TagDevices>(bodies("tags"));
    all_read::<Kill>(bodies("rollouts/R/kill"));
    let starts = all_read::<StartRollout>(bodies("rollouts"));
    assert!(starts.len() == 2 && starts.iter().all(|start| start.plan.check().is_ok()));
}

#[test]
fn a_preview_tells_a_rollout_that_the_start_ends_from_one_that_forbids_it() {
    let world = World::new();
    world.add_devices(10);
    for rc in [1, 2] {
        world.client.put_image(&world.image(rc), |_| {}).unwrap();
        world.publish(rc).unwrap();
    }
    let said = |request: &StartRollout| {
        let preview: Preview = world.client.post("/v1/rollouts/preview", request).unwrap();
        preview.warnings.join("\n")
    };
    let mut next = world.request(2);
    let _done: DoneBody = world.client.post("/v1/rollouts", &world.request(1)).unwrap();
    let counted: Preview = world.client.post("/v1/rollouts/preview", &next).unwrap();
    world.client.post::<DoneBody>("/v1/devices/cam-0001/quarantine", &json!({"reason": "smells"})).unwrap();
    let fewer: Preview = world.client.post("/v1/rollouts/preview", &next).unwrap();
    assert_eq!((counted.devices, fewer.devices), (10, 9), "one takes no part");
    world.client.post::<DoneBody>("/v1/devices/cam-0001/readmit", &json!({"reason": "well"})).unwrap();

    assert!(said(&next).contains("cannot start before cam-1-1 has ended"), "{}", said(&next));
    assert_eq!(refused(world.client.post::<DoneBody>("/v1/rollouts", &next)).0, 409);
    next.plan.regions = vec!["eu".parse().unwrap()];
    assert!(said(&next).contains("cam-1-1"));

    // Everybody is reached, and nobody is on the way.
    world.command("cam-1-1", "promote", json!({"from_phase": 1})).unwrap();
    assert!(said(&next).contains("starting completes it"), "{}", said(&next));
    let _done: DoneBody = world.client.post("/v1/rollouts", &next).unwrap();
    assert_eq!(world.rollout("cam-1-1").status, Status::Completed);
    let elsewhere = Plan { regions: vec!["us".parse().unwrap()], ..next.plan.clone() };
    let third = StartRollout { rollout: Some("third".parse().unwrap()), plan: elsewhere, ..next.clone() };
    assert!(!said(&third).contains("cam-"), "{}", said(&third));
}

#[test]
fn a_service_whose_ledger_was_moved_away_is_not_healthy() {
    let world = World::new();
    let host = world.address;
    let health = || world.raw(&format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"));
    let (data, away) = (&world.options.data, world.home.path().join("away"));
    assert_eq!(health().0, 200);

    std::fs::rename(data, &away).unwrap();
    let (status, text) = health();
    std::fs::rename(&away, data).unwrap();

    assert_eq!(status, 503);
    assert!(text.contains("ledger") && text.contains("put the data folder back"), "{text}");
    assert_eq!(health().0, 200);
}

#[test]
fn a_list_that_names_a_product_of_nobody_registers_nobody() {
    let world = World::new();
    let mut slip = device(2, "b3");
    slip.registry.product = "cma".parse().unwrap();

    let list = AddDevices { devices: vec![device(1, "b3"), slip], unsigned: true };
    let (status, body) = refused(world.client.post::<AddedDevices>("/v1/devices", &list));

    assert_eq!(status, 409);
    assert!(body.error.contains("cma") && body.hint.contains("keys init"), "{body:?}");
    let devices: Vec<DeviceLine> = world.client.get("/v1/devices").unwrap();
    assert!(devices.is_empty());
}
