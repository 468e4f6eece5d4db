//! Who may what, over real sockets: the table walked, and whatever tries to come around it.

use std::collections::BTreeSet;

use axum::http::Method;
use serde_json::{Value, json};

use super::access::Need;
use super::client::{Client, ClientError};
use super::routes::{lines, with_a_path_of_no_line};
use super::testing::{World, admin};
use super::types::*;
use crate::core::access::{Role, Secret, TokenName};
use crate::core::fact::Fact;

fn token(world: &World, name: &str, role: Role) -> Secret {
    let new = NewToken { token: name.parse().unwrap(), role, expires: None };
    let made: CreatedToken = world.client.post("/v1/tokens", &new).unwrap();
    made.secret.0.parse().unwrap()
}

fn client(world: &World, token: &Secret) -> Client {
    Client::new(world.client.base()).with_token(token)
}

/// Sends one request as it stands; `lines` are header lines with their ends.
fn ask(world: &World, method: &str, path: &str, lines: &str) -> (u16, String) {
    let host = world.address;
    world.bare(&format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
}

fn bearer(token: &Secret) -> String {
    format!("Authorization: Bearer {}\r\n", token.reveal().as_str())
}

fn ledger(world: &World) -> Vec<LedgerFrame> {
    let (mut frames, mut from) = (Vec::new(), Some(0));
    while let Some(next) = from {
        let page: LedgerPage =
            world.client.get(&format!("/v1/ledger/frames?from={next}&limit=1000")).unwrap();
        frames.extend(page.frames);
        from = page.next;
    }
    frames
}

#[test]
fn every_path_takes_the_role_that_its_line_names_and_no_less() {
    let world = World::new();
    let tokens = Role::ALL.map(|role| (role, bearer(&token(&world, role.word(), role))));
    let mut seen = BTreeSet::new();
    for line in lines() {
        let path = line.path.replace("{verb}", "approve").replace(['{', '}'], "");
        let method = line.method.as_str();
        assert!(seen.insert((method.to_owned(), line.path)), "{method} {path} has two lines");
        let (bare, body) = ask(&world, method, &path, "");
        let Need::Role(least) = line.need else {
            assert_eq!((line.path, bare), ("/healthz", 200), "nothing else is open to everybody");
            continue;
        };
        assert_eq!(bare, 401, "{method} {path}: {body}");
        for (role, header) in &tokens {
            let (status, body) = ask(&world, method, &path, header);
            let refused = status == 403 || status == 401;
            assert_eq!(refused, *role < least, "{method} {path} as {role}: {status} {body}");
            if refused {
                let article = if least == Role::Viewer { "a" } else { "an" };
                assert!(body.contains(&format!("this takes {article} {least}\"")), "{body}");
                assert!(body.contains("--role"), "{body}");
            }
            if method == "GET" {
                assert_eq!(ask(&world, "HEAD", &path, header).0 == 403, refused, "HEAD {path} as {role}");
            }
        }
    }
    assert!(seen.len() > 30);
}

#[test]
fn whoever_may_stop_a_rollout_is_no_more_than_an_operator() {
    let least =
        |path: &str| lines().into_iter().find(|l| l.path == path && l.method == Method::POST).unwrap().need;
    for verb in ["pause", "kill"] {
        assert_eq!(least(&format!("/v1/rollouts/{{rollout}}/{verb}")), Need::Role(Role::Operator));
    }
}

#[test]
fn a_path_that_somebody_added_without_a_line_stays_shut() {
    let world = World::new();
    let state = world.api();
    let served = world.serve(with_a_path_of_no_line(state, "/v1/forgotten"));
    let host = served.base().trim_start_matches("http://").to_owned();

    let head = |path: &str| {
        let token = bearer(&admin());
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n")
    };
    let forgotten = World::send(&host, &head("/v1/forgotten"));
    let listed = World::send(&host, &head("/v1/status"));

    assert_eq!(forgotten.0, 405, "{}", forgotten.1);
    assert!(!forgotten.1.contains("open sesame"));
    assert_eq!(listed.0, 200);
}

#[test]
fn nothing_that_a_request_says_about_itself_comes_around_the_gate() {
    let world = World::new();
    let (viewer, right) = (bearer(&token(&world, "vera", Role::Viewer)), bearer(&admin()));
    let text = admin().reveal().to_string();
    let kill = "/v1/rollouts/x/kill";

    // Paths that only look like others: unknown, and shut without a token.
    for path in [
        "//v1/status",
        "/v1//status",
        "/v1/./status",
        "/healthz/../v1/status",
        "/v1/status/",
        "/V1/status",
        "/v1/%73tatus",
        "/%2e%2e/v1/status",
        "/v1%2fstatus",
        "/healthz/",
        "/healthz%2f..%2fv1%2fstatus",
        "/v1/status;x=/healthz",
        "*",
    ] {
        let (status, body) = ask(&world, "GET", path, "");
        assert!([400, 401].contains(&status), "{path}: {status} {body}");
    }
    // A name in a path is read once: what it hides reaches no other path.
    assert_eq!(ask(&world, "POST", "/v1/rollouts/x%2Fkill/pause", &viewer).0, 403);
    assert_eq!(ask(&world, "POST", "/v1/rollouts/preview%2f..%2fx/kill", &viewer).0, 403);
    assert_eq!(ask(&world, "POST", "/v1/rollouts/preview/kill", &viewer).0, 403);
    assert_eq!(ask(&world, "POST", &format!("http://127.0.0.1{kill}"), &viewer).0, 403);
    // Methods.
    for method in ["OPTIONS", "TRACE", "PATCH", "DELETE", "PUT", "get", "KILL"] {
        assert_eq!(ask(&world, method, kill, "").0, 401, "{method}");
        assert_eq!(ask(&world, method, kill, &right).0, 405, "{method}");
    }
    for name in ["X-HTTP-Method-Override", "X-Method-Override", "X-Original-URL", "X-Rewrite-URL"] {
        assert_eq!(ask(&world, "POST", kill, &format!("{viewer}{name}: /healthz\r\n")).0, 403, "{name}");
        assert_eq!(ask(&world, "GET", "/v1/status", &format!("{name}: /healthz\r\n")).0, 401, "{name}");
    }
    // Headers: two tokens, in either order; other shapes; other places.
    for lines in [
        format!("{viewer}{right}"),
        format!("{right}{viewer}"),
        format!("{right}{right}"),
        format!("{right}Authorization:\r\n"),
        format!("Authorization: Basic {text}\r\n"),
        format!("Authorization: {text}\r\n"),
        format!("Authorization: Bearer {text}{}\r\n", "0".repeat(8000)),
        format!("Authorization: Bearer {}\r\n", text.to_uppercase()),
        format!("Proxy-Authorization: Bearer {text}\r\n"),
        format!("X-Authorization: Bearer {text}\r\nCookie: token={text}\r\n"),
    ] {
        let (status, body) = ask(&world, "GET", "/v1/status", &lines);
        assert!([401, 429].contains(&status), "{lines:.60}: {status} {body}");
    }
    assert_eq!(ask(&world, "GET", &format!("/v1/status?access_token={text}"), "").0, 401);
    // The controls: the right header works, its name and scheme in any case, blanks around the token.
    for lines in [
        right.clone(),
        format!("aUTHORIZATION: bEARER   {text}  \r\n"),
        format!("{right}X-Forwarded-For: 10.0.0.1\r\n"),
    ] {
        assert_eq!(ask(&world, "GET", "/v1/status", &lines).0, 200, "{lines:.40}");
    }
}

#[test]
fn a_token_that_was_taken_back_is_refused_at_once_and_another_goes_on() {
    let world = World::new();
    let (ann, bob) = (token(&world, "ann", Role::Operator), token(&world, "bob", Role::Operator));
    let (ann, bob) = (client(&world, &ann), client(&world, &bob));
    let _seen: ServiceStatus = ann.get("/v1/status").unwrap();

    let done: DoneBody = world.client.post("/v1/tokens/ann/revoke", &json!({})).unwrap();

    assert_eq!(done.done, "token ann is revoked");
    match ann.get::<Value>("/v1/status") {
        Err(ClientError::Refused(body, 401)) => assert!(body.error.contains("ann is revoked"), "{body:?}"),
        other => panic!("{other:?}"),
    }
    let _seen: ServiceStatus = bob.get("/v1/status").unwrap();
    // A name is one holder's for ever.
    let again = NewToken { token: "ann".parse().unwrap(), role: Role::Viewer, expires: None };
    assert!(matches!(world.client.post::<Value>("/v1/tokens", &again), Err(ClientError::Refused(_, 409))));
    let last: DoneBody = world.client.post("/v1/tokens/root/revoke", &json!({})).unwrap();
    assert!(last.done.contains("NO ADMIN IS LEFT"), "{}", last.done);
}

#[test]
fn what_a_command_changes_says_in_the_ledger_who_wanted_it() {
    let world = World::new();
    world.add_devices(40);
    world.client.put_image(&world.image(7), |_| {}).unwrap();
    world.publish(7).unwrap();
    let ann = client(&world, &token(&world, "ann", Role::Operator));
    let cid = client(&world, &token(&world, "cid", Role::Approver));
    let _done: DoneBody = ann.post("/v1/rollouts", &world.request(7)).unwrap();
    for verb in ["pause", "resume", "kill"] {
        let _done: DoneBody = ann.post(&format!("/v1/rollouts/cam-7-1/{verb}"), &json!({})).unwrap();
    }
    let why = Because { reason: "smells".into() };
    let _done: DoneBody = cid.post("/v1/devices/cam-0001/quarantine", &why).unwrap();

    let by = |wanted: &dyn Fn(&Fact) -> bool| {
        let frames = ledger(&world);
        let frame = frames.iter().find(|frame| wanted(&frame.entry.fact)).unwrap();
        frame.entry.actor.as_ref().map(TokenName::to_string)
    };
    assert_eq!(by(&|f| matches!(f, Fact::DevicesAdded { .. })), Some("root".into()));
    assert_eq!(by(&|f| matches!(f, Fact::ReleasePublished { .. })), Some("root".into()));
    assert_eq!(
        by(&|f| matches!(f, Fact::TokenCreated { token, .. } if token.as_str() == "ann")),
        Some("root".into())
    );
    assert_eq!(by(&|f| matches!(f, Fact::RolloutStarted { .. })), Some("ann".into()));
    assert_eq!(by(&|f| matches!(f, Fact::Paused { .. })), Some("ann".into()));
    assert_eq!(by(&|f| matches!(f, Fact::Resumed { .. })), Some("ann".into()));
    assert_eq!(by(&|f| matches!(f, Fact::Killed { .. })), Some("ann".into()));
    assert_eq!(by(&|f| matches!(f, Fact::StandingChanged { .. })), Some("cid".into()));
    // What the service does by itself is nobody's.
    assert_eq!(by(&|f| matches!(f, Fact::ServiceStarted { .. })), None);
    // People see it where they look.
    assert!(world.rollout("cam-7-1").because.contains("by ann"));
    let device: DeviceView = world.client.get("/v1/devices/cam-0001").unwrap();
    assert_eq!(device.because, "smells (by cid)");
    // A use is one frame, however many requests there were.
    let uses = ledger(&world);
    let of = |name: &str| {
        let used = |f: &&LedgerFrame| matches!(&f.entry.fact, Fact::TokenUsed { token, .. } if token.as_str() == name);
        uses.iter().filter(used).count()
    };
    // Two, if the hour turned in between.
    assert!((1..=2).contains(&of("ann")) && (1..=2).contains(&of("cid")));
    let listed: Vec<TokenLine> = world.client.get("/v1/tokens").unwrap();
    let ann = listed.iter().find(|line| line.token.as_str() == "ann").unwrap();
    assert!(ann.used_at.is_some() && ann.used_from == Some([127, 0, 0, 1].into()) && ann.status == "live");
}

#[test]
fn wrong_tokens_are_slowed_and_counted_and_leave_no_trace_in_the_ledger() {
    let world = World::new();
    let wrong = bearer(&Secret::new([9; 6], [9; 32]));
    let frames = ledger(&world).len();
    let codes: Vec<u16> = (0..40).map(|_| ask(&world, "GET", "/v1/status", &wrong).0).collect();

    assert!(codes.starts_with(&[401; 10]), "{codes:?}");
    assert!(codes.iter().filter(|code| **code == 429).count() >= 25, "{codes:?}");
    // Nobody locks the operator out of a kill.
    assert_eq!(ask(&world, "POST", "/v1/rollouts/x/kill", &bearer(&admin())).0, 404);
    assert_eq!(ledger(&world).len(), frames);
    let (_, metrics) = ask(&world, "GET", "/metrics", &bearer(&admin()));
    assert!(metrics.contains("\ntern_api_refused_total 40\n"), "{metrics}");
}

#[test]
fn only_the_very_first_token_is_made_from_loopback_without_one_and_by_no_proxy() {
    let world = World::open();
    let host = world.address;
    let make = |lines: &str, role: &str| {
        let body = format!("{{\"token\":\"first\",\"role\":\"{role}\"}}");
        let length = body.len();
        world.bare(&format!(
            "POST /v1/tokens HTTP/1.1\r\nHost: {host}\r\n{lines}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    };
    for (method, path) in
        [("GET", "/v1/tokens"), ("GET", "/v1/status"), ("POST", "/v1/rollouts/x/kill"), ("GET", "/metrics")]
    {
        assert_eq!(ask(&world, method, path, "").0, 401, "{method} {path}");
    }
    for name in ["X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP"] {
        assert_eq!(make(&format!("{name}: 127.0.0.1\r\n"), "admin").0, 401, "{name}");
    }
    assert_eq!(make("Origin: http://evil.example\r\n", "admin").0, 403);
    assert_eq!(make("Authorization: Bearer nothing\r\n", "admin").0, 401);
    assert_eq!(make("", "operator").0, 403);

    let (status, body) = make("", "admin");

    assert_eq!(status, 200, "{body}");
    let made: CreatedToken = serde_json::from_str(&body).unwrap();
    let first: Secret = made.secret.0.parse().unwrap();
    assert_eq!(ask(&world, "GET", "/v1/tokens", &bearer(&first)).0, 200);
    // The door is shut, also after the first one is gone.
    assert_eq!(make("", "admin").0, 401);
    let revoked = ask(&world, "POST", "/v1/tokens/first/revoke", &bearer(&first));
    assert_eq!(revoked.0, 200, "{}", revoked.1);
    assert_eq!(make("", "admin").0, 401);
}

#[test]
fn a_service_that_writes_its_first_token_into_a_file_opens_no_door_at_all() {
    let world = World::without_tokens();
    let (status, _) = ask(&world, "POST", "/v1/tokens", "");
    assert_eq!(status, 401);
}
