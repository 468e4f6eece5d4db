//! How others fetch: a chunk, then the next; or HTTP. Each for a given time over a link of its own; what is here in whole
//! by then counts. They verify nothing and write nothing.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use tern_bridge::front::frame::{Packet, Publish};
use tern_protocol::chunk::{RootHasher, root};
use tern_protocol::digest::Digest;
use tern_protocol::id::FleetId;
use tern_protocol::limits::CHUNK;
use tern_protocol::message::{Get, Want};
use tern_protocol::topic::{Topic, UpKind};

use super::super::mqtt::Client;
use super::Case;
use super::server::serve;
use crate::lab::{Lab, Radio, Stopwatch};

/// Measures one chunk a round trip, ranges, and one request; side by side, for they share nothing.
pub(super) fn all(lab: &Lab, case: &Case, image: &Path) -> [f64; 3] {
    let bytes = std::fs::read(image).expect("the image is there");
    let mut hasher = RootHasher::default();
    hasher.update(&bytes);
    let of = root(&hasher.finish());
    let chunks = u32::try_from(bytes.len().div_ceil(CHUNK)).expect("an image has 65536 chunks at most");
    let (mqtt, http) = (lab.mqtt, serve(image));
    std::thread::scope(|scope| {
        let chunk = scope.spawn(|| over(case, mqtt, |way, run| one_chunk(way, run, of, chunks)));
        let ranges = scope.spawn(|| over(case, http, |way, run| http_get(way, run, Some(CHUNK as u64))));
        let whole = scope.spawn(|| over(case, http, |way, run| http_get(way, run, None)));
        [chunk, ranges, whole].map(|thread| thread.join().expect("a client ends"))
    })
}

/// What a client has got so far.
struct Run {
    clock: Stopwatch,
    most: Duration,
    image: u64,
    bytes: u64,
    /// When the last of it was here.
    last: Duration,
}

impl Run {
    /// Takes note of bytes that are here; tells whether there is more to do.
    fn got(&mut self, bytes: u64) -> bool {
        (self.bytes, self.last) = (self.bytes + bytes, self.clock.read());
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        self.bytes < self.image && self.clock.read() < self.most
    }
}

/// Runs a client over a link of its own, and again whenever its connection is lost; returns its part of the link's rate.
fn over(
    case: &Case,
    server: SocketAddr,
    client: impl Fn(SocketAddr, &mut Run) -> std::io::Result<()>,
) -> f64 {
    let radio = Radio::to(server, case.terms.clone());
    let (clock, most, image) = (Stopwatch::start(), case.peers, case.image as u64);
    let mut run = Run { clock, most, image, bytes: 0, last: Duration::ZERO };
    while run.goes_on() {
        // Lost: it goes on where it was.
        let _lost = client(radio.address, &mut run);
    }
    // Where connections break, the time after the last chunk counts too, up to the end.
    let cut = case.cut_every.is_some() && run.bytes < run.image;
    let seconds = if cut { run.clock.read() } else { run.last };
    case.part(run.bytes, seconds.as_secs_f64().max(0.001))
}

/// As ThingsBoard's clients do: a request for a chunk, the chunk, the next request.
fn one_chunk(way: SocketAddr, run: &mut Run, of: Digest, chunks: u32) -> std::io::Result<()> {
    let fleet: FleetId = "lab".parse().expect("a name");
    let device: tern_protocol::id::DeviceId = "peer-1".parse().expect("a name");
    let packs = Topic::DevicePack(device.clone()).render(&fleet);
    let topic = Topic::Up(device, UpKind::Get).render(&fleet);
    let mut client = Client::connect(way, "peer-1", None, vec![(packs, 0)])?;
    loop {
        let next = u32::try_from(run.bytes / CHUNK as u64).unwrap_or(u32::MAX) % chunks;
        let get = Get::from(vec![Want::Packs { of, ranges: vec![(next, next + 1)] }]);
        let message = Publish { topic: topic.clone(), payload: get.write(), ..Publish::default() };
        Packet::Publish(message).write(&mut client.out);
        client.flush()?;
        while !client.read()?.iter().any(|packet| matches!(packet, Packet::Publish(_))) {}
        if !run.got((run.image - run.bytes).min(CHUNK as u64)) {
            return Ok(());
        }
    }
}

/// Fetches ranges of a length one after the other, or all that is left with one request.
fn http_get(way: SocketAddr, run: &mut Run, range: Option<u64>) -> std::io::Result<()> {
    let stream = TcpStream::connect(way)?;
    stream.set_nodelay(true)?;
    let mut answers = BufReader::with_capacity(CHUNK, &stream);
    loop {
        let from = run.bytes;
        let end = range.map_or(run.image, |length| (from + length).min(run.image));
        write!(&stream, "GET /image HTTP/1.1\r\nHost: image\r\nRange: bytes={from}-{}\r\n\r\n", end - 1)?;
        loop {
            let mut line = String::new();
            if answers.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut left = end - from;
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let count = answers.read(&mut buffer[..most])? as u64;
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            left -= count;
            // A range counts when all of it is here; of the whole, every byte does.
            let counts = if range.is_none() { count } else { 0 };
            if !run.got(counts) {
                return Ok(());
            }
        }
        if range.is_some() && !run.got(end - from) {
            return Ok(());
        }
        if range.is_none() {
            return Ok(());
        }
    }
}
