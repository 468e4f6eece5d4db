//! A blocking MQTT client that does nothing but what a bench needs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tern_bridge::front::frame::{self, Connect, Packet};
use tern_protocol::limits::MQTT_PACKET_MAX;

/// A connection.
pub(super) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes to be written at the next [`Client::flush`].
    pub(super) out: Vec<u8>,
}

impl Client {
    /// Connects and subscribes.
    pub(super) fn connect(
        address: SocketAddr,
        id: &str,
        login: Option<(&str, &str)>,
        filters: Vec<(String, u8)>,
    ) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, buffer: Vec::new(), out: Vec::new() };
        let connect = Connect {
            level: 4,
            client_id: id.to_owned(),
            clean_session: true,
            keep_alive: 600,
            will: None,
            user: login.map(|(user, _)| user.to_owned()),
            password: login.map(|(_, password)| password.as_bytes().to_vec()),
        };
        Packet::Connect(Box::new(connect)).write(&mut client.out);
        Packet::Subscribe { id: 1, filters }.write(&mut client.out);
        client.flush()?;
        loop {
            if client.read()?.iter().any(|p| matches!(p, Packet::SubAck { .. })) {
                return Ok(client);
            }
        }
    }

    /// Gives up reading after `most`.
    pub(super) fn patience(&self, most: Duration) -> std::io::Result<()> {
        self.stream.set_read_timeout(Some(most))
    }

    /// Writes what has gathered.
    pub(super) fn flush(&mut self) -> std::io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for bytes and returns the packets that are whole.
    pub(super) fn read(&mut self) -> std::io::Result<Vec<Packet>> {
        let mut part = [0; 64 * 1024];
        let count = self.stream.read(&mut part)?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&part[..count]);
        let mut packets = Vec::new();
        let mut done = 0;
        while let Some((packet, length)) =
            frame::read(&self.buffer[done..], MQTT_PACKET_MAX).map_err(std::io::Error::other)?
        {
            packets.push(packet);
            done += length;
        }
        self.buffer.drain(..done);
        Ok(packets)
    }
}
