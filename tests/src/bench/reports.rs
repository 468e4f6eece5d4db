//! Reports a second: front, broker, ledger and evidence, beside an echo behind the same front.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::id::FleetId;
use tern_protocol::topic::{Topic, UpKind, uplink_filter};

use super::load::{Load, LoadDevice, run};
use super::mqtt::Client;
use super::usage::{Usage, median};
use crate::lab::{Lab, made, program, wait};

const PASSWORD: &str = "bench-password-1";
const LIMITS: &str = "[limits]\npackets_each_second = 1000000\nbytes_each_second = 1000000000\n";

/// One side of the comparison.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Side {
    /// Reports acknowledged a second.
    pub per_second: f64,
    /// CPU seconds of the front, the broker and what answers, per 100,000 reports.
    pub cpu_per_100k: f64,
    /// CPU seconds of the load generator, per 100,000 reports.
    pub load_cpu_per_100k: f64,
}

/// The comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Reports {
    /// Devices, each with 16 reports on the way.
    pub devices: u32,
    /// Rounds of each side, in turn: the service, an echo that subscribes at QoS 1, one at QoS 0 as the service does.
    pub rounds: Vec<[Side; 3]>,
    /// Median over the rounds of service / echo, for either echo.
    pub ratios: [f64; 2],
}

/// Measures: the service and the two echoes in turn, `rounds` times for `seconds` each.
pub fn reports(devices: u32, rounds: u64, seconds: u64) -> Reports {
    let lab = Lab::start_configured(LIMITS);
    let load: Vec<LoadDevice> = (0..devices).map(LoadDevice::new).collect();
    let list = lab.path("load.jsonl");
    let lines: Vec<String> = load.iter().map(LoadDevice::factory_line).collect();
    std::fs::write(&list, lines.join("\n")).expect("a factory list");
    lab.json(&["device", "add", "--unsigned", "--file", &list.display().to_string()]);
    let image = lab.path("image");
    made(&image, 100_000, 1);
    lab.publish(2, &image);
    // The evidence is weighed at every batch.
    lab.roll_out(2, "r2", "50%,all", 86_400);
    let load: Arc<Vec<LoadDevice>> = Arc::new(load);
    let echoes = [Echo::start(1), Echo::start(0)];
    let controller = controller(&lab);
    let mut results = Vec::new();
    for round in 1..=rounds {
        let service = side(&load, lab.mqtt, "lab", round, true, seconds, &controller, &[lab.service_pid()]);
        let [at_1, at_0] = echoes
            .each_ref()
            .map(|echo| side(&load, echo.address, "lab", round, false, seconds, &controller, &echo.pids()));
        results.push([service, at_1, at_0]);
    }
    let ratios = [1, 2].map(|echo| median(results.iter().map(|r| r[0].per_second / r[echo].per_second)));
    Reports { devices, rounds: results, ratios }
}

/// Returns the controller's telemetry key from the product's targets.
pub(super) fn controller(lab: &Lab) -> p256::PublicKey {
    let path = lab.data().join("products").join(crate::lab::PRODUCT).join("targets.json");
    let text = std::fs::read(path).expect("targets.json");
    let targets: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    let key = targets["signed"]["x-tern"]["telemetry"]["1"].as_str().expect("a telemetry key");
    p256::PublicKey::from_sec1_bytes(&hex::decode(key).expect("hex")).expect("a point")
}

#[expect(clippy::too_many_arguments, reason = "one call, two sides")]
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn side(
    devices: &Arc<Vec<LoadDevice>>,
    address: SocketAddr,
    fleet: &str,
    epoch: u64,
    ranges: bool,
    seconds: u64,
    controller: &p256::PublicKey,
    pids: &[Option<u32>],
) -> Side {
    let load = Arc::new(Load {
        fleet: fleet.parse().expect("a valid name"),
        address,
        controller: *controller,
        rollout: "r2".parse().expect("a valid name"),
        epoch,
        ranges,
        acknowledged: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let threads: Vec<_> = (0..devices.len())
        .map(|i| {
            let (load, devices) = (load.clone(), devices.clone());
            std::thread::spawn(move || run(&load, &devices[i]))
        })
        .collect();
    let count = || load.acknowledged.load(Ordering::Relaxed);
    wait("the load to flow", Duration::from_secs(30), || (count() > 20 * devices.len() as u64).then_some(()));
    let usage = || pids.iter().flatten().map(|pid| Usage::of(*pid).cpu).sum::<f64>();
    let (began, first, cpu, own) = (Instant::now(), count(), usage(), Usage::of(std::process::id()));
    std::thread::sleep(Duration::from_secs(seconds));
    let (took, done) = (began.elapsed().as_secs_f64(), (count() - first) as f64);
    let (cpu, own) = (usage() - cpu, Usage::of(std::process::id()).since(own));
    load.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        // A device whose connection ended with its service has said nothing that counts.
        let _ended = thread.join();
    }
    Side { per_second: done / took, cpu_per_100k: cpu / done * 1e5, load_cpu_per_100k: own / done * 1e5 }
}

/// A bridge of its own and an echo behind it.
struct Echo {
    _dir: tempfile::TempDir,
    bridge: std::process::Child,
    echo: std::process::Child,
    address: SocketAddr,
}

impl Echo {
    fn start(qos: u8) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let config = dir.path().join("bridge.toml");
        let text = format!(
            "fleet = \"lab\"\nservice_password = {PASSWORD:?}\nchunk_dir = {:?}\n[[listeners]]\nlisten = \"{address}\"\nauth.mode = \"open\"\n{LIMITS}",
            dir.path().join("chunks").display().to_string()
        );
        std::fs::write(&config, text).expect("a configuration");
        let spawn = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts")
        };
        let bridge = spawn(Command::new(program("tern-bridge")).arg("run").arg("--config").arg(&config));
        wait("the bridge", Duration::from_secs(20), || std::net::TcpStream::connect(address).ok());
        let own = std::env::current_exe().expect("a process has an executable");
        let echo = spawn(Command::new(own).arg("echo").arg(address.to_string()).arg(qos.to_string()));
        std::thread::sleep(Duration::from_secs(1));
        Self { _dir: dir, bridge, echo, address }
    }

    fn pids(&self) -> Vec<Option<u32>> {
        vec![Some(self.bridge.id()), Some(self.echo.id())]
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        for child in [&mut self.echo, &mut self.bridge] {
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

pub(super) fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("an address").port()
}

/// Answers every report with one PUBLISH of 60 B: what the fastest subscriber at `qos` could do.
pub fn echo(address: SocketAddr, qos: u8) -> std::io::Result<()> {
    let fleet: FleetId = "lab".parse().expect("a valid name");
    let filters = vec![(uplink_filter(&fleet, UpKind::Report), qos)];
    let mut client = Client::connect(address, "echo", Some(("service", PASSWORD)), filters)?;
    let mut id = 0u16;
    loop {
        for packet in client.read()? {
            let Packet::Publish(publish) = packet else { continue };
            if publish.qos == 1 {
                Packet::PubAck(publish.id).write(&mut client.out);
            }
            let Ok(Topic::Up(device, _)) = Topic::parse(&fleet, &publish.topic) else { continue };
            id = id % 0x7000 + 1;
            let topic = Topic::DeviceIn(device).render(&fleet);
            let answer = Publish { qos: 1, topic, id, payload: vec![b'x'; 60], ..Publish::default() };
            Packet::Publish(answer).write(&mut client.out);
        }
        client.flush()?;
    }
}
