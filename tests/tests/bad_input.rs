//! Bad input gets a clear error and loses nothing: configurations, keys, files, requests, ports.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tern_tests::lab::{Broker, Lab, LabDevice, MODEL, Making, PRODUCT, Ran, ends, made, program, wait};

const PATIENCE: Duration = Duration::from_secs(60);

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Asserts that a program failed as an operator should see it: code 1, naming the thing, saying what to do.
#[track_caller]
fn refused(ran: &Ran, words: &[&str]) {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for word in words {
        assert!(ran.err.contains(word), "{word:?} is missing in {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

#[test]
fn every_program_refuses_an_unknown_configuration_key_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let config = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("deploy");
    let sample = |name: &str| std::fs::read_to_string(deploy.join(name)).unwrap();
    let agent = config("agent.toml", &format!("colour = 1\n{}", sample("agent.toml")));
    let bridge = config("bridge.toml", &format!("colour = 1\n{}", sample("bridge.toml")));
    let service = config("tern.toml", "heartbeat = 60\ncolour = 1\n");
    let deep = config("deep.toml", "[limits]\ncolour = 1\n");

    for (name, verb, path) in [
        ("tern", "serve", &service),
        ("tern", "serve", &deep),
        ("tern-agent", "run", &agent),
        ("tern-agent", "status", &agent),
        ("tern-bridge", "run", &bridge),
    ] {
        let ran = ends(Command::new(program(name)).arg(verb).arg("--config").arg(path));
        // "expected one of" lists what may stand there instead.
        refused(&ran, &[&show(path), "unknown field `colour`", "expected one of"]);
    }
}

#[test]
fn a_missing_file_is_named_with_what_to_do() {
    let lab = Lab::start();
    let gone = lab.path("nowhere");
    let there = lab.path("image");
    made(&there, 1000, 1);
    let (gone, there, out) = (&show(&gone), &show(&there), &show(&lab.path("out")));
    let before = lab.memory();

    let create = ["release", "create", "--product", PRODUCT, "--rc", "2", "--version", "2", "--model", MODEL];
    let cases: [(&[&str], &[&str]); 6] = [
        (&["serve", "--config", gone], &["could not read configuration", gone]),
        (&["device", "add", "--unsigned", "--file", gone], &["could not read", gone, "check the path"]),
        (&[&create[..], &["--image", gone, "--out", out]].concat(), &[gone, "check the path"]),
        (&["release", "sign", gone, "--key", there, "--out", out], &["could not read", gone, "hint:"]),
        (&["release", "publish", gone], &["could not read", gone, "check the path"]),
        (&["ledger", "verify", "--data", gone], &["no ledger in", gone, "--data"]),
    ];
    for (arguments, words) in cases {
        refused(&lab.run(arguments), words);
    }
    let ran = ends(
        Command::new(program("tern"))
            .args(["serve", "--data", &show(&lab.path("other")), "--listen-api", "127.0.0.1:0"])
            .args(["--broker", "mqtt://127.0.0.1:1", "--broker-password-file", gone]),
    );
    refused(&ran, &["could not read", gone]);
    for (name, arguments) in [("tern-bridge", ["run", "--config"]), ("tern-agent", ["run", "--config"])] {
        let ran = ends(Command::new(program(name)).args(arguments).arg(gone));
        refused(&ran, &["could not read", gone]);
    }
    // No draft, key or image stays behind half-made.
    assert!(!Path::new(out).exists());
    assert_eq!(lab.memory(), before);
}

#[test]
fn an_agent_without_a_usable_root_file_says_so_and_goes_on_once_it_is_there() {
    let lab = Lab::start();
    let factory = lab.path("factory.img");
    made(&factory, 100_000, 1);
    let mut device = LabDevice::make(&lab, "dev-1", &factory, &Making::default());
    let config = std::fs::read_to_string(device.config()).unwrap();
    let right = show(&lab.data().join("products").join(PRODUCT).join("root.json"));
    let wrong = show(&lab.path("wrong-root.json"));
    std::fs::write(device.config(), config.replace(&right, &wrong)).unwrap();

    refused(&ends(&mut device.run_command()), &["could not use", &wrong]);
    std::fs::write(&wrong, "{\"signed\": {}}").unwrap();
    refused(
        &ends(&mut device.run_command()),
        &[&wrong, "is not valid", "copy root.json of the product there"],
    );

    std::fs::copy(&right, &wrong).unwrap();
    device.start();
    wait("the device to enrol", PATIENCE, || (lab.device("dev-1")["enrolled"] == true).then_some(()));
}

#[test]
fn what_a_foreign_key_signed_is_refused_everywhere() {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory.img"), lab.path("new.img"));
    made(&factory, 100_000, 1);
    made(&image, 300_000, 2);
    let (other, offline) = (lab.path("other"), lab.path("other-offline"));
    let keys =
        ["keys", "init", "--fleet", "lab", "--product", PRODUCT, "--no-passphrase", "--data", &show(&other)];
    lab.json(&[&keys[..], &["--offline", &show(&offline)]].concat());
    let foreign_key = show(&offline.join("release.pem"));
    // Two devices: one as it should be, one that its factory gave the root of somebody else's fleet.
    let mut good = LabDevice::make(&lab, "dev-1", &factory, &Making::default());
    let mut misled = LabDevice::make(&lab, "dev-2", &factory, &Making::default());
    let config = std::fs::read_to_string(misled.config()).unwrap();
    let product = |data: &Path| show(&data.join("products").join(PRODUCT).join("root.json"));
    std::fs::write(misled.config(), config.replace(&product(&lab.data()), &product(&other))).unwrap();
    good.start();
    misled.start();

    // A release that another key has signed.
    let (draft, signed) = (show(&lab.path("draft.json")), show(&lab.path("signed.json")));
    let create = ["release", "create", "--product", PRODUCT, "--rc", "2", "--version", "2", "--model", MODEL];
    lab.json(&[&create[..], &["--image", &show(&image), "--out", &draft]].concat());
    let ran = lab.run(&["release", "sign", &draft, "--key", &foreign_key, "--out", &signed]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let before = lab.memory();
    let ran = lab.run(&["release", "publish", &signed, "--image", &show(&image)]);
    refused(&ran, &["has 0 of 1 signatures", "1 more of: holder-1 (", "hint:"]);
    let file = std::fs::read_to_string(&signed).unwrap();
    let path = format!("/v1/products/{PRODUCT}/releases");
    // Not for want of the image, which the command line did not send for such a file.
    assert_eq!(lab.http("PUT", "/v1/images", Some(&std::fs::read(&image).unwrap())).0, 200);
    let (code, body) = lab.http("POST", &path, Some(json!({"file": file}).to_string().as_bytes()));
    assert_eq!(code, 422, "{body}");
    // The same file cut short is none at all.
    let cut = json!({"file": &file[..file.len() / 2]}).to_string();
    assert_eq!(lab.http("POST", &path, Some(cut.as_bytes())).0, 422);
    assert_eq!(lab.memory()["releases"], before["releases"]);

    // A known device with another identity.
    let thief = LabDevice::build(&lab, "thief", &factory, &Making::default());
    let mut line = thief.identity();
    line["device"] = json!("dev-1");
    let list = lab.path("stolen.json");
    std::fs::write(&list, format!("{}\n{line}\n", thief.identity())).unwrap();
    let ran = lab.run(&["device", "add", "--unsigned", "--file", &show(&list)]);
    refused(&ran, &["dev-1 is registered with another identity key", "hint:"]);
    let (code, body) = lab.http(
        "POST",
        "/v1/devices",
        Some(json!({"devices": [line], "unsigned": true}).to_string().as_bytes()),
    );
    assert_eq!(code, 409, "{body}");
    assert_eq!(lab.http("GET", "/v1/devices/thief", None).0, 404, "a refused list registers nobody");

    // The device with the foreign root refuses everything, and says why.
    wait("the misled device to say why", PATIENCE, || {
        let log = misled.log();
        (log.contains("a signed file was refused") && log.contains("root.json")).then_some(())
    });

    // The right key still works, and the misled device joins once it has the right root.
    lab.publish(2, &image);
    lab.roll_out(2, "r2", "all", 0);
    wait("the good device to run the release", PATIENCE, || {
        (lab.device("dev-1")["running"] == 2).then_some(())
    });
    assert_eq!(misled.status()["active"], "a");
    assert_eq!(misled.status()["enrolled"], false);
    misled.kill();
    std::fs::write(misled.config(), config).unwrap();
    misled.start();
    let view = lab.wait_for_status("r2", "completed", PATIENCE);
    assert_eq!(view["total"]["good"], 2, "{view}");
    assert!(lab.verified_frames() > 0);
}

#[test]
fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let lab = Lab::start();
    let before = lab.memory();
    let large = vec![b' '; 300 * 1024];
    let deep = [b"{\"devices\":".to_vec(), vec![b'['; 100_000]].concat();
    let plan = br#"{"rollout":"x","product":"nothing","rc":1,"attempt":1,"plan":{}}"#;

    let publish = format!("/v1/products/{PRODUCT}/releases");
    let cases: [(&str, &str, &[u8], u16); 13] = [
        ("POST", "/v1/devices", b"{\"devices\": [{\"dev", 422),
        ("POST", "/v1/devices", b"\xff\xfe\x00", 422),
        ("POST", "/v1/devices", b"", 422),
        ("POST", "/v1/devices", &deep, 422),
        ("POST", "/v1/devices", br#"{"devices":[],"colour":1}"#, 422),
        ("POST", &publish, &large, 413),
        ("POST", &publish, b"{\"file\":\"{}\"}", 422),
        ("POST", "/v1/rollouts", plan, 404),
        ("POST", "/v1/rollouts", br#"{"product":"router","rc":1,"plan":{"colour":1}}"#, 422),
        ("POST", "/v1/rollouts/none/kill", b"{\"reason\":\"x\"}", 404),
        ("PUT", "/v1/images", b"", 422),
        ("DELETE", "/v1/devices", b"", 405),
        ("GET", "/v1/nothing", b"", 404),
    ];
    for (method, path, body, expected) in cases {
        let (code, answer) = lab.http(method, path, Some(body));
        assert_eq!(code, expected, "{method} {path}: {answer}");
        for part in ["error", "hint"] {
            assert!(answer[part].as_str().is_some_and(|text| text.len() > 3), "{method} {path}: {answer}");
        }
    }

    let ran = lab.run(&["rollout", "pause", "no such name"]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    refused(&lab.run(&["rollout", "pause", "none"]), &["none", "hint:"]);
    assert_eq!(lab.memory(), before);
}

#[test]
fn a_second_service_on_the_same_folder_leaves_the_first_one_alone() {
    let lab = Lab::start();
    let pid = lab.service_pid();
    let ready = std::fs::read(lab.data().join("service.json")).unwrap();

    let mut second = Command::new(program("tern"));
    second.arg("serve").arg("--data").arg(lab.data());
    second.args(["--listen-api", "127.0.0.1:0", "--listen-mqtt", "127.0.0.1:0"]);
    refused(&ends(&mut second), &["in use by another process", &show(&lab.data()), "stop that one first"]);

    // It neither moved the address file nor the folder.
    assert_eq!(std::fs::read(lab.data().join("service.json")).unwrap(), ready);
    assert!(
        !std::fs::read_dir(lab.data())
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains("damaged") })
    );
    let image = lab.path("new.img");
    made(&image, 100_000, 2);
    lab.publish(2, &image);
    assert_eq!(lab.service_pid(), pid);
    assert!(lab.verified_frames() > 0);
}

#[test]
fn a_port_in_use_is_named_and_nothing_is_lost() {
    let mut lab = Lab::start();
    let image = lab.path("new.img");
    made(&image, 100_000, 2);
    lab.publish(2, &image);
    let before = lab.memory();
    lab.stop_service();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();

    let serve = |api: &str, mqtt: &str| {
        let mut command = Command::new(program("tern"));
        command.arg("serve").arg("--data").arg(lab.data());
        ends(command.args(["--listen-api", api, "--listen-mqtt", mqtt]))
    };
    refused(&serve(&address, "127.0.0.1:0"), &[&address, "API", "stop what uses it", "--listen-api"]);
    refused(&serve("127.0.0.1:0", &address), &[&address, "end the program that uses it", "--listen-mqtt"]);
    let config = lab.path("bridge.toml");
    let text = format!(
        "fleet = \"lab\"\nservice_password = \"a-long-password\"\nchunk_dir = {:?}\n[[listeners]]\nlisten = \
         {address:?}\nauth.mode = \"open\"\n",
        show(&lab.path("chunks"))
    );
    std::fs::write(&config, text).unwrap();
    let ran = ends(Command::new(program("tern-bridge")).arg("run").arg("--config").arg(&config));
    refused(&ran, &[&address, "end the program that uses it", "`listen`"]);

    lab.start_service();
    assert_eq!(lab.memory(), before);
    assert!(lab.verified_frames() > 0);
}

/// What an external broker's address may look like is said before anything is opened.
#[test]
fn a_broker_address_that_is_none_is_refused() {
    let lab = Lab::bare(Broker::Embedded);
    let data = show(&lab.data());
    let ran = lab.run(&["serve", "--data", &data, "--listen-api", "127.0.0.1:0", "--broker", "http://x"]);
    refused(&ran, &["http://x", "mqtt://host:port"]);
}

#[test]
fn a_key_that_others_may_read_keeps_the_service_down_and_says_how_to_close_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::bare(Broker::Embedded);
    lab.make_keys();
    let key = lab.data().join("keys").join(PRODUCT).join("timestamp.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();

    let ran = lab.run(&["serve", "--data", &show(&lab.data()), "--listen-api", "127.0.0.1:0"]);

    refused(&ran, &["mode 644", &format!("hint: close it with `chmod 600 {}`", show(&key))]);
}

/// The API has no TLS: who asks for it on another address is told before anything is written.
#[test]
fn an_api_whose_tokens_would_travel_in_the_clear_is_refused() {
    let lab = Lab::bare(Broker::Embedded);
    let fresh = lab.path("fresh");
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:7880"] {
        let ran = lab.run(&["serve", "--data", &show(&fresh), "--listen-api", address]);
        refused(&ran, &[address, "in the clear", "SSH tunnel", "--insecure-api-without-tls"]);
    }
    assert!(!fresh.exists());
}

#[test]
fn a_data_folder_that_holds_nothing_is_named_with_what_to_do() {
    let lab = Lab::bare(Broker::Embedded);
    let (typo, taken) = (lab.path("tern-dat"), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = taken.local_addr().unwrap().to_string();

    // The taken address ends it right after it has looked into the folder.
    let ran = lab.run(&["serve", "--data", &show(&typo), "--listen-api", &address]);

    refused(&ran, &[&show(&typo), "holds no product", "tern keys init", "--data"]);
}

#[test]
fn offline_keys_do_not_go_where_the_service_keeps_its_own() {
    let lab = Lab::bare(Broker::Embedded);
    std::fs::create_dir(lab.data()).unwrap();
    std::os::unix::fs::symlink(lab.data(), lab.path("link")).unwrap();
    for folder in [lab.data(), lab.data().join("off"), lab.path("link").join("off")] {
        let init = ["keys", "init", "--fleet", "acme", "--product", "cam", "--no-passphrase"];
        let places = ["--data", &show(&lab.data()), "--offline", &show(&folder)];
        let ran = lab.run(&[&init[..], &places[..]].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.err.contains("lies in the data folder of the service"), "{ran:?}");
        assert_eq!(std::fs::read_dir(lab.data()).unwrap().count(), 0, "nothing was made");
    }
}

#[test]
fn a_command_line_that_is_not_understood_is_told_to_programs_in_json() {
    let lab = Lab::bare(Broker::Embedded);
    let ran = lab.run(&["--json", "rollout", "begin"]);
    assert_eq!(ran.code, Some(2));
    let said: serde_json::Value = serde_json::from_str(ran.err.trim()).unwrap();
    assert!(said["error"].as_str().unwrap().contains("'begin'"), "{said}");
    let ran = lab.run(&["rollout", "begin"]);
    assert!(ran.code == Some(2) && ran.err.contains("Usage:"), "{ran:?}");
    let ran = lab.run(&["--json", "--help"]);
    assert!(ran.code == Some(0) && ran.out.contains("Usage:"), "{ran:?}");
}

#[test]
fn no_token_is_made_that_could_not_be_written_down() {
    let lab = Lab::start();
    let out = lab.path("nowhere").join("ann.token");
    let ran = lab.run(&["token", "create", "ann", "--role", "viewer", "--out", &show(&out)]);
    refused(&ran, &["no file can be made in", "no token was made"]);
    let tokens = lab.json(&["token", "list"]);
    assert!(!tokens.to_string().contains("\"ann\""), "{tokens}");
}
