//! Images to agents, beside an HTTP download of the same file; CPU and bytes of a whole update.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::usage::Usage;
use crate::lab::{Lab, LabDevice, Making, made, wait};

/// A download to some agents.
#[derive(Debug, Clone, Serialize)]
pub struct Download {
    /// Agents at once.
    pub agents: usize,
    /// Bytes of the image.
    pub image: usize,
    /// MB/s over all agents: first agent that begins to last that has everything, synced.
    pub mb_per_second: f64,
    /// MB/s of the same number of HTTP clients that write and sync the same file.
    pub http_mb_per_second: f64,
    /// MQTT bytes of the update both ways, whole sessions, over image bytes.
    pub wire_per_payload: f64,
    /// CPU seconds of one agent for a whole update: download, check, boot, soak.
    pub agent_cpu_s: f64,
}

/// Measures.
pub fn download(agents: usize, image_bytes: usize) -> Download {
    let lab = Lab::start();
    let (factory, image) = (lab.path("factory"), lab.path("image"));
    made(&factory, 50_000, 1);
    made(&image, image_bytes, 2);
    let making = Making { capacity: image_bytes as u64 + 1024, ..Making::default() };
    let mut devices: Vec<LabDevice> =
        (0..agents).map(|i| LabDevice::make(&lab, &format!("dev-{i:02}"), &factory, &making)).collect();
    devices.iter_mut().for_each(LabDevice::start);
    wait("the agents", Duration::from_secs(60), || {
        (lab.json(&["device", "list"]).to_string().matches("\"enrolled\":true").count() == agents)
            .then_some(())
    });
    lab.publish(2, &image);
    let wire = |lab: &Lab| {
        let status = lab.status();
        status["wire"]["down"].as_u64().unwrap_or(0) + status["wire"]["up"].as_u64().unwrap_or(0)
    };
    let before = wire(&lab);
    let cpu: Vec<Usage> = devices.iter().map(|d| Usage::of(d.pid())).collect();
    lab.roll_out(2, "r2", "all", 0);
    lab.wait_for_status("r2", "completed", Duration::from_secs(300));
    let used: f64 = devices.iter().zip(cpu).map(|(d, before)| Usage::of(d.pid()).since(before)).sum();
    let bytes = wire(&lab) - before;
    let (mut first, mut last) = (f64::MAX, 0f64);
    for device in &devices {
        let log = device.log();
        first = first.min(moment(&log, "to=downloading"));
        last = last.max(moment(&log, "to=verifying"));
    }
    let payload = (image_bytes * agents) as f64;
    Download {
        agents,
        image: image_bytes,
        mb_per_second: payload / 1e6 / (last - first),
        http_mb_per_second: payload / 1e6 / http(lab.dir.path(), &image, agents),
        wire_per_payload: bytes as f64 / payload,
        agent_cpu_s: used / agents as f64,
    }
}

/// Returns the second of the day of the first log line with `mark`.
pub(super) fn moment(log: &str, mark: &str) -> f64 {
    let line = log.lines().find(|line| line.contains(mark)).unwrap_or_else(|| panic!("no {mark} in the log"));
    let time = line.get(11..26).expect("a log line begins with its time");
    time.split(':').map(|part| part.parse::<f64>().expect("digits")).fold(0.0, |sum, part| sum * 60.0 + part)
}

/// Downloads `file` by HTTP, `clients` at once, each into a synced file; returns the seconds.
#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn http(folder: &Path, file: &Path, clients: usize) -> f64 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("an address");
    drop(socket);
    let mut server = Command::new("python3")
        .args(["-m", "http.server", &address.port().to_string(), "--bind", "127.0.0.1", "--directory"])
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 serves files");
    wait("the HTTP server", Duration::from_secs(20), || TcpStream::connect(address).ok());
    let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
    let began = Instant::now();
    let threads: Vec<_> = (0..clients)
        .map(|i| {
            let (name, to) = (name.clone(), folder.join(format!("http-{i}")));
            std::thread::spawn(move || fetch_again(address, &name, &to))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client ends").expect("a download");
    }
    let took = began.elapsed().as_secs_f64();
    let _gone = server.kill();
    let _reaped = server.wait();
    took
}

/// Python's server lets five wait; who is turned away comes again.
fn fetch_again(address: SocketAddr, name: &str, to: &Path) -> std::io::Result<()> {
    for _ in 0..200 {
        if fetch(address, name, to).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    fetch(address, name, to)
}

fn fetch(address: SocketAddr, name: &str, to: &Path) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /{name} HTTP/1.0\r\n\r\n")?;
    let mut file = std::fs::File::create(to)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return file.sync_all(),
            count => file.write_all(&buffer[..count])?,
        }
    }
}
