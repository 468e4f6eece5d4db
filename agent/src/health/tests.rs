use std::path::Path;

use super::metric::From;
use super::*;
use crate::slot::SlotName;

fn context(slot_path: &str) -> Context {
    Context {
        slot: SlotName::A,
        slot_path: slot_path.into(),
        rc: 1,
        version: "1".into(),
        device: "r-1".parse().unwrap(),
    }
}

fn probe(name: &str, kind: Kind) -> Probe {
    let deadline = Duration::from_secs(20);
    Probe { name: name.into(), kind, deadline, times: 1, interval: None, soak: false }
}

fn command(name: &str, command: &[&str]) -> Probe {
    probe(name, Kind::Command(command.iter().map(|part| (*part).to_owned()).collect()))
}

fn shell(script: &str) -> Probe {
    command("shell", &["/bin/sh", "-c", script])
}

/// Asked again after a moment, for at most this many milliseconds.
fn again(probe: Probe, milliseconds: u64) -> Probe {
    let (interval, deadline) = (Some(Duration::from_millis(1)), Duration::from_millis(milliseconds));
    Probe { interval, deadline, ..probe }
}

async fn run(probe: &Probe) -> Result<(), String> {
    run_probes([probe], &context("/bin/true")).await.map_err(|failure| failure.summary())
}

#[tokio::test]
async fn a_device_is_healthy_when_every_probe_says_so() {
    let probes = [command("payload", &["{slot_path}"]), command("disk", &["/bin/true"])];

    assert!(run_probes(&probes, &context("/bin/true")).await.is_ok());
    assert!(run_probes(&[], &context("/bin/true")).await.is_ok());
}

#[tokio::test]
async fn the_first_unhealthy_probe_is_named_with_what_it_said_and_the_rest_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked");
    let probes = [
        command("disk", &["/bin/true"]),
        command("modem", &["/bin/sh", "-c", "echo no carrier; exit 4"]),
        command("late", &["/bin/touch", asked.to_str().unwrap()]),
    ];

    let failure = run_probes(&probes, &context("/bin/true")).await.unwrap_err();

    assert_eq!(failure.summary(), "modem: exit code 4, saying \"no carrier\"");
    assert!(!asked.exists());
}

#[tokio::test]
async fn a_failure_is_never_longer_than_a_report_takes() {
    let failure = run(&shell("yes '\u{e4}\u{f6}' | head -c 9000; exit 1")).await.unwrap_err();

    assert!(failure.starts_with("shell: exit code 1, saying"), "{failure}");
    assert!(failure.len() <= REASON_MAX);
}

#[tokio::test]
async fn every_kind_of_probe_finds_well_what_is_and_unwell_what_is_not() {
    let own = std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned();
    let process = |name: &str| Kind::Process { name: name.into(), lived: Duration::ZERO };
    let metric = |from, most| Kind::Metric(Metric { from, least: None, most: Some(most) });
    let loadavg = || From::File("/proc/loadavg".into());
    let says = |text: &str| From::Command(["/bin/sh", "-c", text].map(str::to_owned).into());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for answer in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0 500 Broken\r\n\r\n"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await.unwrap();
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 100]).await.unwrap();
        }
    });
    let http = || Kind::Http(format!("http://{address}/").parse().unwrap());

    for kind in [process(&own), metric(loadavg(), 1e6), metric(says("echo warm; echo 41 C"), 41.0), http()] {
        assert_eq!(run(&probe("well", kind.clone())).await, Ok(()), "{kind:?}");
    }
    for (kind, expected) in [
        (process("no-such-process"), "no process \"no-such-process\" is alive"),
        (metric(loadavg(), -1.0), "is above -1"),
        (metric(says("echo 42"), 41.0), "42 is above 41"),
        (metric(says("echo 1; exit 3"), 41.0), "exit code 3, saying \"1\""),
        (metric(From::File("/no/such/file".into()), 1.0), "could not read /no/such/file"),
        (http(), "status 500"),
    ] {
        let failure = run(&probe("unwell", kind)).await.unwrap_err();
        assert!(failure.starts_with("unwell: ") && failure.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn whoever_does_not_answer_at_all_is_not_well_at_the_deadline() {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = Kind::Http(format!("http://{}", deaf.local_addr().unwrap()).parse().unwrap());

    let failure = run(&Probe { deadline: Duration::from_millis(100), ..probe("web", http) }).await;

    assert_eq!(failure, Err("web: no answer after 100ms".to_owned()));
}

/// Fails the first two times, and writes down each.
fn third_time(log: &Path) -> String {
    format!("echo x >> {0}; test $(wc -l < {0}) -ge 3 || {{ echo not yet; exit 1; }}", log.display())
}

#[tokio::test]
async fn with_an_interval_a_probe_is_asked_until_it_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (once, often) = (folder.path().join("once"), folder.path().join("often"));

    assert!(run(&shell(&third_time(&once))).await.is_err());
    assert_eq!(run(&again(shell(&third_time(&often)), 20_000)).await, Ok(()));

    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!((lines(&once), lines(&often)), (1, 3));
}

#[tokio::test]
async fn it_must_pass_as_often_in_a_row_as_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    // Well, unwell, and well from then on.
    let script = format!("echo x >> {0}; test $(wc -l < {0}) -ne 2", log.display());

    let three = Probe { times: 3, ..again(shell(&script), 20_000) };
    assert_eq!(run(&three).await, Ok(()));

    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 5);
}

#[tokio::test]
async fn one_that_never_passes_ends_at_its_deadline_and_says_what_it_found() {
    let failure = run(&again(shell("echo no carrier; exit 1"), 200)).await.unwrap_err();
    assert_eq!(failure, "shell: not well within 200ms; it said: exit code 1, saying \"no carrier\"");

    let hangs = run(&again(shell("sleep 1000"), 100)).await.unwrap_err();
    assert!(hangs.contains("well within 100ms"), "{hangs}");
}
