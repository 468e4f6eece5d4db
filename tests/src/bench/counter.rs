//! Stands between a device and its broker and counts what MQTT they speak, packet by packet.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use tern_bridge::front::frame::{self, Packet};

/// Bytes of one packet.
const PACKET_MAX: usize = 1 << 20;

/// Packets and bytes by what they are: the kind, and the topic of a message.
pub(in crate::bench) type Counts = BTreeMap<String, (u64, u64)>;

/// The counter.
pub(in crate::bench) struct Counter {
    /// Where the device finds it.
    pub(in crate::bench) address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Counter {
    /// Listens on loopback and hands on to `broker`.
    pub(in crate::bench) fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let counts = Arc::<Mutex<Counts>>::default();
        let theirs = counts.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                // A device that cannot be served tries again.
                let _lost = join(device, broker, &theirs);
            }
        });
        Self { address, counts }
    }

    /// Returns what was counted since the last time.
    pub(in crate::bench) fn take(&self) -> Counts {
        std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns how many packets of a kind were counted since.
    pub(in crate::bench) fn seen(&self, what: &str) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|(name, _)| name.contains(what)).map(|(_, (count, _))| count).sum()
    }
}

fn join(device: TcpStream, broker: SocketAddr, counts: &Arc<Mutex<Counts>>) -> std::io::Result<()> {
    let front = TcpStream::connect(broker)?;
    for (from, to, way) in [(&device, &front, "up"), (&front, &device, "down")] {
        let (from, to, counts) = (from.try_clone()?, to.try_clone()?, counts.clone());
        std::thread::spawn(move || {
            // Either end closes both.
            let _ended = carry(&from, &to, way, &counts);
            let _gone = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

fn carry(mut from: &TcpStream, mut to: &TcpStream, way: &str, counts: &Mutex<Counts>) -> std::io::Result<()> {
    let (mut buffer, mut bytes) = (Vec::new(), [0; 16_384]);
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&bytes[..count])?;
        buffer.extend_from_slice(&bytes[..count]);
        while let Some((packet, length)) = frame::read(&buffer, PACKET_MAX).map_err(std::io::Error::other)? {
            buffer.drain(..length);
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = counts.entry(format!("{way} {}", name(&packet))).or_default();
            *entry = (entry.0 + 1, entry.1 + length as u64);
        }
    }
}

fn name(packet: &Packet) -> String {
    match packet {
        Packet::Publish(message) => message.topic.clone(),
        Packet::PingReq => "PINGREQ".to_owned(),
        Packet::PingResp => "PINGRESP".to_owned(),
        other => format!("{other:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned(),
    }
}

/// Returns how many packets the system has sent and received on the connections to a port.
pub(in crate::bench) fn segments(port: u16) -> u64 {
    let ran = Command::new("ss").args(["-tinH", "dst", &format!("127.0.0.1:{port}")]).output();
    let text = ran.map(|ran| String::from_utf8_lossy(&ran.stdout).into_owned()).unwrap_or_default();
    let number = |word: &str| word.split_once(':').and_then(|(_, number)| number.parse::<u64>().ok());
    let words = text.split_whitespace().filter(|word| word.starts_with("segs_"));
    words.filter_map(number).sum()
}
