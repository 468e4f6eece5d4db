//! Updates whose packs come from a web server: what goes which way, servers that are ill, and the way back to the broker.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use p256::ecdsa::SigningKey;
use p256::pkcs8::DecodePrivateKey as _;
use tern_agent::core::state::State;
use tern_bridge::chunks::ChunkStore;
use tern_protocol::delta::encode::Options;
use tern_protocol::delta::{Delta, Profile, encode, signed};
use tern_protocol::message::ReportKind;
use tern_protocol::state::StateName;
use tern_protocol::tuf::key::P256Signer;
use tern_tests::lab::{
    Heard, Ill, Lab, LabDevice, Making, PRODUCT, Radio, Records, Stopwatch, Terms, TlsProxy, Uplink,
    WebServer, certificates, made, wait,
};

/// Bytes of the images: several requests of packs.
const LENGTH: usize = 9_000_000;
const PACK: usize = 16 * 1024;
const MOST: Duration = Duration::from_secs(120);
/// MQTT bytes of an update without its packs: two boots, reports, signed files, and which ways there are.
const TALK: u64 = 60_000;

/// A lab with release 2, a web server with its files, and a device that runs release 1 and knows the server.
struct Scene {
    lab: Lab,
    uplink: Uplink,
    device: LabDevice,
    web: WebServer,
    new: Vec<u8>,
    before: u64,
}

/// How packs come.
enum By {
    Chunks,
    Delta,
}

impl Scene {
    fn new(by: By) -> Self {
        Self::with(by, |_, web| format!("http_prefixes = [{:?}]", web.prefix()))
    }

    /// A scene whose device has these lines in its section `[transfer]`.
    fn with(by: By, lines: impl FnOnce(&Lab, &WebServer) -> String) -> Self {
        Self::made(LENGTH, by, Making::default(), lines)
    }

    fn made(length: usize, by: By, making: Making, lines: impl FnOnce(&Lab, &WebServer) -> String) -> Self {
        let lab = Lab::start();
        let (factory, image) = (lab.path("old.img"), lab.path("new.img"));
        made(&factory, length, 1);
        let old = std::fs::read(&factory).unwrap();
        let mut new = old.clone();
        for at in (0..length - 40_000).step_by(300_000) {
            let part: Vec<u8> = old[at..at + 31_000].iter().rev().map(|byte| byte ^ 0x5a).collect();
            new.splice(at..at + 29_000, part);
        }
        std::fs::write(&image, &new).unwrap();
        let web = WebServer::start(&lab.path("www"));
        let uplink = Uplink::to(lab.mqtt);
        let profile = if let By::Delta = by { "small-linux" } else { "none" };
        let sections = format!("[transfer]\nprofile = {profile:?}\n{}", lines(&lab, &web));
        let making = Making { broker: Some(uplink.address), sections, capacity: 1 << 28, ..making };
        let mut device = LabDevice::make(&lab, "dev-1", &factory, &making);
        lab.publish(2, &image);
        if let By::Delta = by {
            offer(&lab, &encode(&old, &new, Options { pack: PACK, ..Options::new(Profile::SmallLinux) }));
        }
        let [data, to] = [lab.data(), lab.path("www")].map(|path| path.to_str().unwrap().to_owned());
        let words = ["release", "export", "--product", PRODUCT, "--rc", "2", "--no-wait", "--data"];
        let exported = lab.json(&[&words[..], &[&data, "--to", &to]].concat());
        assert_eq!(exported["images"], 1, "{exported}");
        device.start();
        lab.wait_for_hellos();
        let before = uplink.bytes()[1];
        Self { lab, uplink, device, web, new, before }
    }

    /// Rolls release 2 out, and waits until the device runs it.
    fn updates(&self) {
        self.lab.roll_out(2, "r2", "all", 0);
        self.ends();
    }

    fn ends(&self) {
        self.lab.wait_for_status("r2", "completed", MOST);
        assert_eq!(self.device.status()["active"], "b");
        assert!(self.device.slot("b")[..] == self.new[..], "slot b is not the new image");
    }

    /// Returns how many bytes the broker has sent since the device was up.
    fn by_broker(&self) -> u64 {
        self.uplink.bytes()[1] - self.before
    }

    /// Returns the reason that the device gave with the end of its download.
    fn told(&self) -> Option<String> {
        let mut heard = Heard::default();
        heard.read(&self.lab);
        heard.reports.into_values().find_map(|report| match report {
            ReportKind::Transition { from: StateName::Downloading, reason, .. } => reason,
            _ => None,
        })
    }

    fn logged(&self, what: &str) -> Vec<String> {
        self.device.log().lines().filter(|line| line.contains(what)).map(str::to_owned).collect()
    }
}

/// Has the chunk server offer a delta, signed as the service signs.
fn offer(lab: &Lab, delta: &Delta) {
    let key = lab.data().join("keys").join(PRODUCT).join("rollout.pem");
    let key = SigningKey::from_pkcs8_pem(&std::fs::read_to_string(key).unwrap()).unwrap();
    let signed = signed::sign(&delta.manifest, &[&P256Signer::new(key)]).unwrap();
    let store = ChunkStore::open(lab.data().join("images")).unwrap();
    store.add_delta(&signed, delta.packs.iter().cloned().map(Ok)).unwrap();
}

#[test]
fn packs_come_from_the_web_server_and_the_broker_sends_next_to_nothing() {
    let scene = Scene::new(By::Chunks);
    let nowhere = scene.lab.path("nowhere").to_str().unwrap().to_owned();
    let words = ["release", "export", "--product", PRODUCT, "--rc", "2", "--no-wait", "--data", &nowhere];
    let refused = scene.lab.run(&[&words[..], &["--to", &nowhere]].concat());
    assert!(refused.code == Some(1) && refused.err.contains("on the service's machine"), "{refused:?}");

    scene.updates();

    let (web, broker) = (scene.web.bytes(), scene.by_broker());
    println!(
        "{LENGTH} B: {web} B by the web server in {} requests, {broker} B by the broker",
        scene.web.requests().len()
    );
    let image = scene.new.len() as u64;
    assert!(web > image && web < image + 30_000, "{web} B");
    assert!(broker < TALK, "{broker} B by the broker");
    assert_eq!(scene.told(), None);
}

#[test]
fn a_delta_comes_from_the_web_server_too() {
    let scene = Scene::new(By::Delta);

    scene.updates();

    let fetched = scene.logged("fetched");
    let (web, broker) = (scene.web.bytes(), scene.by_broker());
    println!(
        "{web} B by the web server in {} requests, {broker} B by the broker; {fetched:?}",
        scene.web.requests().len()
    );
    assert!(fetched[0].contains("by=\"delta\"") && web < LENGTH as u64 / 4, "{fetched:?}");
    assert!(broker < TALK, "{broker} B by the broker");
    let packs = scene.web.requests();
    assert!(packs.iter().all(|path| path.contains(".tree") || path.contains(".packs")), "{packs:?}");
}

#[test]
fn a_server_under_tls_is_believed_when_the_devices_authority_vouches_for_it() {
    for (ca, is_vouched_for) in [("ca.pem", true), ("other.pem", false)] {
        let mut proxy = None;
        let scene = Scene::with(By::Chunks, |lab, web| {
            certificates(&lab.path(""));
            let found = proxy.insert(TlsProxy::start(&lab.path(""), web.address.port()));
            let ca = lab.path(ca);
            format!("http_prefixes = [\"https://localhost:{}\"]\nhttp_ca = {ca:?}", found.address.port())
        });

        scene.updates();

        let (web, broker) = (scene.web.bytes(), scene.by_broker());
        println!("{ca}: {web} B by the web server, {broker} B by the broker; {:?}", scene.told());
        assert_eq!(web > LENGTH as u64, is_vouched_for, "{web} B by the web server");
        assert_eq!(broker < TALK, is_vouched_for, "{broker} B by the broker");
    }
}

/// What is wrong with a server, after how many good answers, and what the device says of it. More is seen by what unit tests let
/// servers answer.
fn ills(elsewhere: &WebServer) -> Vec<(Ill, usize, &'static str)> {
    vec![
        (Ill::Lies, 2, "other bytes"),
        (Ill::Status(404), 0, "status 404"),
        (Ill::Status(503), 1, "status 503"),
        (Ill::Leads(elsewhere.address), 0, "leads elsewhere"),
        (Ill::NeverEnds, 1, "more than it was asked for"),
        (Ill::Hangs, 2, "nothing more came"),
    ]
}

#[test]
fn whatever_is_wrong_with_a_server_the_broker_gives_the_rest_and_the_outcome_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // Anybody could be asked there, and nobody is.
    let elsewhere = WebServer::start(dir.path());
    for (ill, well, expected) in ills(&elsewhere) {
        let scene = Scene::new(By::Chunks);
        scene.web.falls(ill.clone(), well);

        scene.updates();

        let told = scene.told().unwrap_or_default();
        let (web, broker) = (scene.web.bytes(), scene.by_broker());
        println!("{ill:?} after {well}: {web} B by the web server, {broker} B by the broker; {told}");
        assert!(told.starts_with(&scene.web.prefix()) && told.contains(expected), "{ill:?}: {told:?}");
        assert!(!scene.logged("is given up").is_empty());
        // Nothing of what is right is fetched again, but what was on its way.
        assert!(broker > 4 * TALK && broker < LENGTH as u64 + 700_000, "{ill:?}: {broker} B by the broker");
    }
    assert_eq!(elsewhere.requests(), Vec::<String>::new(), "a redirect was followed");
}

#[test]
fn a_delta_goes_on_over_the_broker_where_the_server_leaves_off() {
    for (ill, expected) in [(Ill::Lies, "other bytes"), (Ill::Status(404), "status 404")] {
        let scene = Scene::new(By::Delta);
        scene.web.falls(ill, 5);

        scene.updates();

        let (fetched, told) = (scene.logged("fetched"), scene.told().unwrap_or_default());
        println!("{fetched:?}; {told}");
        assert!(fetched[0].contains("by=\"delta\"") && told.contains(expected), "{fetched:?}: {told}");
        assert!(scene.by_broker() < LENGTH as u64 / 4, "{} B by the broker", scene.by_broker());
    }
}

#[test]
fn a_server_that_has_a_bad_moment_is_asked_again() {
    let scene = Scene::new(By::Chunks);
    scene.web.falls(Ill::BreaksOff, 1);
    scene.lab.roll_out(2, "r2", "all", 0);
    wait("a failure", MOST, || (!scene.logged("is tried again").is_empty()).then_some(()));
    scene.web.recovers();

    scene.ends();

    assert!(scene.by_broker() < TALK, "{} B by the broker", scene.by_broker());
    assert_eq!(scene.told(), None);
}

#[test]
fn the_second_server_is_asked_before_the_broker() {
    let dir = tempfile::tempdir().unwrap();
    // Nothing is in it.
    let first = WebServer::start(dir.path());
    let scene = Scene::with(By::Chunks, |_, web| {
        format!("http_prefixes = [{:?}, {:?}]", first.prefix(), web.prefix())
    });

    scene.updates();

    assert!(scene.told().unwrap_or_default().starts_with(&first.prefix()), "{:?}", scene.told());
    assert!(
        !first.requests().is_empty() && scene.by_broker() < TALK,
        "{} B by the broker",
        scene.by_broker()
    );
}

#[test]
fn a_device_that_is_killed_or_loses_its_broker_goes_on_where_it_was() {
    let mut scene = Scene::with(By::Chunks, |_, web| {
        // Some seconds for all.
        format!("rate = 3000000\nhttp_prefixes = [{:?}]", web.prefix())
    });
    let records = Records::of(&scene.device);
    let have = |least: u32| {
        wait("chunks that are durable", MOST, || match records.journal()?.state {
            State::Downloading { have, .. } if have.len() >= least => Some(have.len()),
            State::Downloading { .. } | State::Checking { .. } | State::Idle { .. } => None,
            other => panic!("{other:?}"),
        })
    };
    scene.lab.roll_out(2, "r2", "all", 0);

    let at_cut = have(20);
    scene.uplink.cut(true);
    let later = have(at_cut + 20);
    scene.uplink.cut(false);
    let at_kill = have(later);
    scene.device.kill();
    scene.device.start();
    scene.ends();

    let web = scene.web.bytes();
    println!("{at_cut} chunks at the cut, {at_kill} at the kill, {web} B by the web server");
    // What was on its way at the kill, at most a window, is fetched again.
    assert!(web < LENGTH as u64 + 96 * 65_536 / 2, "{web} B by the web server");
    assert!(scene.by_broker() < 2 * TALK, "{} B by the broker", scene.by_broker());
}

/// How much of what a link allows a download gets over it.
#[expect(clippy::print_stdout, reason = "the figure is what the test is run for by hand")]
fn part_of(terms: &Terms, length: usize) -> f64 {
    let mut radio = None;
    // On such a link an answer takes longer than a laboratory waits for one.
    let timing = "get_repeat_first = 10\nretained_wait = 1.0\nask_first = 1.0\nresend_first = 1.0".to_owned();
    let making = Making { usual_waits: true, timing, ..Making::default() };
    let scene = Scene::made(length, By::Chunks, making, |_, web| {
        let link = radio.insert(Radio::to(web.address, terms.clone()));
        format!("http_prefixes = [\"http://{}\"]", link.address)
    });
    scene.lab.roll_out(2, "r2", "all", 0);
    wait("the first request", MOST, || (!scene.web.requests().is_empty()).then_some(()));
    let took = Stopwatch::start();
    wait("the last byte", MOST, || (!scene.logged("fetched").is_empty()).then_some(()));
    let took = took.read();
    scene.ends();
    let part = scene.new.len() as f64 * 8.0 / terms.rate as f64 / took.as_secs_f64();
    println!("{length} B in {took:?}, {part:.2} of the link, {} requests", scene.web.requests().len());
    assert_eq!(scene.told(), None);
    part
}

/// `TERN_WEB_LINK=BITS,MILLISECONDS,BYTES`: another link, one way, and another image.
#[test]
fn a_long_link_is_kept_busy() {
    let other = std::env::var("TERN_WEB_LINK").unwrap_or_default();
    let numbers: Vec<u64> = other.split(',').filter_map(|number| number.parse().ok()).collect();
    let [rate, delay, length] = numbers[..] else {
        let part = part_of(&Terms::plain(8_000_000, Duration::from_millis(200)), LENGTH);
        return assert!(part > 0.7, "{part}");
    };
    part_of(&Terms::plain(rate, Duration::from_millis(delay)), usize::try_from(length).unwrap());
}

/// A web server that nobody here wrote: `TERN_NGINX=PROGRAM`.
#[test]
fn nginx_with_its_defaults_serves_a_release() {
    let Ok(program) = std::env::var("TERN_NGINX") else { return };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let prefix = format!("http://127.0.0.1:{port}/tern");
    let scene = Scene::with(By::Delta, |_, _| format!("http_prefixes = [{prefix:?}]"));
    let (root, dir) = (scene.lab.path("root"), scene.lab.path("nginx"));
    std::fs::create_dir_all(&root).unwrap();
    std::fs::create_dir_all(&dir).unwrap();
    std::os::unix::fs::symlink(scene.lab.path("www"), root.join("tern")).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {}/{what}; ", dir.display()))
        .concat();
    let (dir, root) = (dir.display(), root.display());
    let server = format!("server {{ listen 127.0.0.1:{port}; root {root}; }}");
    let user = "user root; daemon off; master_process off; error_log stderr;";
    let text =
        format!("{user} pid {dir}/pid; events {{}} http {{ access_log {dir}/log; {temporary} {server} }}");
    std::fs::write(format!("{dir}/conf"), text).unwrap();
    let mut server = Command::new(program).args(["-c", &format!("{dir}/conf")]).spawn().unwrap();
    wait("nginx", MOST, || TcpStream::connect(("127.0.0.1", port)).ok());

    scene.updates();

    server.kill().unwrap();
    server.wait().unwrap();
    let log = std::fs::read_to_string(format!("{dir}/log")).unwrap();
    println!("{} requests, {} B by the broker\n{log}", log.lines().count(), scene.by_broker());
    assert!(scene.by_broker() < TALK, "{} B by the broker", scene.by_broker());
    assert!(log.lines().all(|line| line.contains(" 206 ")), "{log}");
}
