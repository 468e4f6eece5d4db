//! Who may use the API, with the real service and the real command line.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tern_tests::lab::{Broker, Lab, Ran, TlsProxy, certificates};

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Makes a token and returns its file.
fn token(lab: &Lab, name: &str, role: &str) -> PathBuf {
    let path = lab.path(&format!("{name}.token"));
    let made = lab.json(&["token", "create", name, "--role", role, "--out", &show(&path)]);
    assert_eq!(made["token"], name, "{made}");
    assert!(made.get("secret").is_none(), "what is in a file is not shown: {made}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    path
}

/// Runs `tern` with this token and no other.
fn run_as(lab: &Lab, token: Option<&Path>, words: &[&str]) -> Ran {
    let mut command = lab.command(words);
    // Nothing lies about where this looks by itself.
    command.env_remove("TERN_TOKEN_FILE").env("HOME", lab.path("nobody")).current_dir(lab.dir.path());
    if let Some(token) = token {
        command.arg("--token-file").arg(token);
    }
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Reads every file below a folder.
fn everything(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(everything(&path));
        } else {
            files.push((path.clone(), std::fs::read(&path).unwrap_or_default()));
        }
    }
    files
}

#[test]
fn each_role_may_what_it_may_and_who_has_no_token_is_told_where_to_get_one() {
    let lab = Lab::start();
    let roles = ["viewer", "operator", "approver", "admin"];
    let tokens = roles.map(|role| token(&lab, &format!("the-{role}"), role));
    // The least role that gets past the gate, for one command of each kind.
    let table: [(&[&str], usize); 9] = [
        (&["rollout", "list"], 0),
        (&["device", "pending"], 0),
        (&["rollout", "kill", "none"], 1),
        (&["rollout", "pause", "none"], 1),
        (&["device", "revoke", "none"], 2),
        (&["claim", "revoke", "none"], 2),
        (&["ledger", "show"], 2),
        (&["token", "list"], 3),
        (&["token", "revoke", "none"], 3),
    ];
    for (words, least) in table {
        let ran = run_as(&lab, None, words);
        assert_eq!(ran.code, Some(6), "{words:?}: {ran:?}");
        assert!(ran.err.contains("this takes a token") && ran.err.contains("--token-file"), "{ran:?}");
        for (rank, token) in tokens.iter().enumerate() {
            let ran = run_as(&lab, Some(token), words);
            assert_eq!(ran.code == Some(6), rank < least, "{words:?} as {}: {ran:?}", roles[rank]);
            if rank < least {
                let hint = format!("--role {}", roles[least]);
                assert!(ran.err.contains(&hint), "{ran:?}");
            }
        }
    }
    assert_eq!(lab.http_with("", "GET", "/v1/status", None).0, 401);
    assert_eq!(lab.http_with("", "GET", "/v1/nothing", None).0, 401);
}

#[test]
fn a_token_is_refused_the_moment_it_is_revoked_also_after_a_restart() {
    let mut lab = Lab::start();
    let ann = token(&lab, "ann", "viewer");
    assert_eq!(run_as(&lab, Some(&ann), &["rollout", "list"]).code, Some(0));

    lab.json(&["token", "revoke", "ann"]);

    let ran = run_as(&lab, Some(&ann), &["rollout", "list"]);
    assert!(ran.code == Some(6) && ran.err.contains("ann is revoked"), "{ran:?}");
    // By the checkpoint, and by the ledger alone.
    lab.stop_service();
    lab.start_service();
    assert_eq!(run_as(&lab, Some(&ann), &["rollout", "list"]).code, Some(6));
    lab.kill_service();
    std::fs::remove_dir_all(lab.data().join("store")).unwrap();
    lab.start_service();
    assert_eq!(run_as(&lab, Some(&ann), &["rollout", "list"]).code, Some(6));
    let listed = lab.json(&["token", "list"]);
    let statuses: Vec<_> = listed.as_array().unwrap().iter().map(|t| (&t["token"], &t["status"])).collect();
    assert_eq!(statuses.len(), 2, "a restart makes no token while one is in force: {listed}");
}

#[test]
fn a_tokens_text_is_seen_once_and_its_uses_are_in_the_ledger() {
    let lab = Lab::start();
    let ran = lab.run(&["token", "create", "ann", "--role", "operator"]);
    let text = ran.out.trim().to_owned();
    assert!(text.starts_with("tern_") && text.len() == 91, "{ran:?}");
    assert!(!ran.err.contains(&text));
    let ann = lab.path("ann.token");
    std::fs::write(&ann, &text).unwrap();
    std::fs::set_permissions(&ann, std::fs::Permissions::from_mode(0o600)).unwrap();

    let outputs = [
        run_as(&lab, Some(&ann), &["rollout", "list"]),
        run_as(&lab, Some(&ann), &["--json", "rollout", "kill", "none"]),
        run_as(&lab, Some(&ann), &["token", "list"]),
        lab.run(&["token", "list"]),
        lab.run(&["--json", "token", "list"]),
        lab.run(&["ledger", "show", "--limit", "1000"]),
        lab.run(&["--json", "ledger", "show", "--limit", "1000"]),
    ];
    let shown = &outputs[5].out;
    assert!(shown.contains("token ann made: operator [admin]"), "{shown}");
    assert!(shown.contains("token ann (operator) used from 127.0.0.1"), "{shown}");
    assert!(shown.contains("token admin made by the service, into its data folder: admin"), "{shown}");
    let admin = std::fs::read_to_string(lab.admin_token()).unwrap();
    let (_, status) = lab.http("GET", "/v1/status", None);
    let log = lab.log();
    assert!(log.contains("admin.token"), "{log}");

    // The secret part, as text and as bytes, is nowhere but in the files that were made for it.
    for text in [text.as_str(), admin.trim()] {
        let secret = text.split('_').nth(2).unwrap();
        let bytes = (0..64).step_by(2).map(|at| u8::from_str_radix(&secret[at..at + 2], 16).unwrap());
        let bytes: Vec<u8> = bytes.collect();
        let has = |where_: &[u8]| {
            where_.windows(64).any(|w| w == secret.as_bytes()) || where_.windows(32).any(|w| w == bytes)
        };
        for ran in &outputs {
            assert!(!has(ran.out.as_bytes()) && !has(ran.err.as_bytes()), "{ran:?}");
        }
        assert!(!has(log.as_bytes()) && !has(status.to_string().as_bytes()));
        let holders: Vec<PathBuf> = everything(lab.dir.path())
            .into_iter()
            .filter(|(_, held)| has(held))
            .map(|(path, _)| path)
            .collect();
        assert_eq!(holders.len(), 1, "{holders:?}");
    }
}

#[test]
fn the_first_admin_token_is_the_services_own_and_comes_back_when_no_admin_is_left() {
    let mut lab = Lab::start();
    let mode = std::fs::metadata(lab.admin_token()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let first = std::fs::read_to_string(lab.admin_token()).unwrap();
    assert_eq!(lab.http_with("", "POST", "/v1/tokens", Some(br#"{"token":"me","role":"admin"}"#)).0, 401);

    let ran = lab.run(&["token", "revoke", "admin"]);
    assert!(ran.out.contains("NO ADMIN IS LEFT"), "{ran:?}");
    assert_eq!(lab.run(&["token", "list"]).code, Some(6));
    lab.stop_service();
    lab.start_service();

    assert_ne!(std::fs::read_to_string(lab.admin_token()).unwrap(), first);
    let listed = lab.json(&["token", "list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|t| t["token"].as_str().unwrap()).collect();
    assert_eq!(names, ["admin-2", "admin"]);
}

#[test]
fn by_choice_the_first_token_is_made_from_loopback_and_then_never_again() {
    let mut lab = Lab::bare(Broker::Embedded);
    lab.make_keys();
    lab.configure("first_token = \"loopback\"\n");
    lab.start_service();
    assert!(!lab.admin_token().exists());
    let body: &[u8] = br#"{"token":"me","role":"admin"}"#;
    for proxy in ["x-forwarded-for: 10.0.0.1\r\n", "via: 1.1 proxy\r\n", "forwarded: for=10.0.0.1\r\n"] {
        assert_eq!(lab.http_with(proxy, "POST", "/v1/tokens", Some(body)).0, 401, "{proxy}");
    }
    assert_eq!(lab.http_with("", "GET", "/v1/status", None).0, 401);

    let (code, made) = lab.http_with("", "POST", "/v1/tokens", Some(body));

    assert_eq!(code, 200, "{made}");
    assert_eq!(lab.http_with("", "POST", "/v1/tokens", Some(br#"{"token":"you","role":"admin"}"#)).0, 401);
    let header = format!("authorization: Bearer {}\r\n", made["secret"].as_str().unwrap());
    assert_eq!(lab.http_with(&header, "GET", "/v1/tokens", None).0, 200);
    lab.stop_service();
    lab.start_service();
    assert_eq!(lab.http_with("", "POST", "/v1/tokens", Some(br#"{"token":"you","role":"admin"}"#)).0, 401);
}

#[test]
fn guessing_is_slowed_and_counted_while_the_operator_goes_on() {
    let lab = Lab::start();
    let frames = lab.verified_frames();
    let mut guess = std::fs::read_to_string(lab.admin_token()).unwrap().trim().to_owned();
    // The right id, whole and mistyped.
    guess.replace_range(20..21, if &guess[20..21] == "0" { "1" } else { "0" });
    let header = format!("authorization: Bearer {guess}\r\n");
    let (code, body) = lab.http_with(&header, "GET", "/v1/status", None);
    assert_eq!(code, 401);
    assert!(body["error"].as_str().unwrap().contains("mistyped"), "{body}");

    let codes: Vec<u16> = (0..30).map(|_| lab.http_with(&header, "GET", "/v1/status", None).0).collect();

    assert!(codes.iter().filter(|code| **code == 429).count() >= 15, "{codes:?}");
    assert_eq!(lab.run(&["rollout", "kill", "none"]).code, Some(1), "a right token is heard at once");
    let metrics = metrics(&lab);
    assert!(metrics.contains("tern_api_refused_total 31\n"), "{metrics}");
    // One frame for the admin's first use at most: no guess is in the ledger.
    assert!(lab.verified_frames() <= frames + 1);
    let refusals = lab.log().matches("a request was refused").count();
    assert!((1..=15).contains(&refusals), "{refusals} lines in the log");
}

fn metrics(lab: &Lab) -> String {
    use std::io::{Read, Write};
    let host = lab.api.trim_start_matches("http://");
    let token = std::fs::read_to_string(lab.admin_token()).unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let token = token.trim();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_leads_to_no_file_is_called_that_and_not_to_be_closed() {
    let lab = Lab::bare(Broker::Embedded);
    for path in [lab.dir.path(), Path::new("/dev/null")] {
        let ran = run_as(&lab, Some(path), &["rollout", "list"]);
        assert!(ran.err.contains("is not a regular file") && !ran.err.contains("chmod"), "{ran:?}");
    }
}

#[test]
fn an_unsigned_list_that_a_proxy_passed_on_is_refused_as_such() {
    let lab = Lab::start();
    let token = std::fs::read_to_string(lab.admin_token()).unwrap();
    let lines = format!("authorization: Bearer {}\r\nx-forwarded-for: 10.0.0.1\r\n", token.trim());
    let body: &[u8] = br#"{"devices":[],"unsigned":true}"#;

    let (code, said) = lab.http_with(&lines, "POST", "/v1/devices", Some(body));

    assert_eq!(code, 403);
    assert!(said["error"].as_str().unwrap().starts_with("a proxy passed this list on"), "{said}");
}

#[test]
fn a_token_file_that_others_may_read_is_not_used() {
    let lab = Lab::start();
    let ann = token(&lab, "ann", "viewer");
    std::fs::set_permissions(&ann, std::fs::Permissions::from_mode(0o644)).unwrap();

    let ran = run_as(&lab, Some(&ann), &["--json", "rollout", "list"]);

    assert_eq!(ran.code, Some(6), "{ran:?}");
    let said: Value = serde_json::from_str(ran.err.trim()).unwrap();
    assert!(said["hint"].as_str().unwrap().contains("chmod 600"), "{said}");
    // What asks no service needs no token.
    assert_eq!(run_as(&lab, Some(&ann), &["ledger", "verify", "--data", &show(&lab.data())]).code, Some(0));
}

/// Behind a proxy that ends TLS the command line works as before, if it believes the proxy: and only then is the
/// token shown to it.
#[test]
fn over_tls_a_token_goes_to_whom_an_authority_vouches_for() {
    let lab = Lab::start();
    certificates(lab.dir.path());
    let port = lab.api.rsplit(':').next().unwrap().parse().unwrap();
    let proxy = TlsProxy::start(lab.dir.path(), port);
    let port = proxy.address.port();
    let ask = |host: &str, ca: &str| {
        let api = format!("https://{host}:{port}");
        run_as(
            &lab,
            Some(&lab.admin_token()),
            &["--api", &api, "--ca", &show(&lab.path(ca)), "device", "list"],
        )
    };

    let good = ask("localhost", "ca.pem");
    assert_eq!(good.code, Some(0), "{good:?}");
    // The wrong authority, the wrong name, none at all: nothing is sent, and the hint says what is missing.
    for (host, ca) in [("localhost", "other.pem"), ("127.0.0.1", "ca.pem")] {
        let refused = ask(host, ca);
        assert_eq!(refused.code, Some(5), "{refused:?}");
        assert!(refused.err.contains("certificate") && refused.err.contains("--ca"), "{refused:?}");
    }
    let none = ask("localhost", "proxy.csr");
    assert!(none.code != Some(0) && none.err.contains("holds no certificate"), "{none:?}");

    assert!(proxy.stop());
}
