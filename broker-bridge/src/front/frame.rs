//! MQTT 3.1.1 packets (OASIS standard, 2014), read and written; pure, bounded, and without a panic.
//!
//! Quality of service 2 is refused: no topic of Tern uses it, and its four-way handshake would need state.

use std::fmt;

/// A control packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// First packet of a client.
    Connect(Box<Connect>),
    /// Its answer.
    ConnAck {
        /// Whether the server kept a session; never true here.
        session_present: bool,
        /// 0 accepted, 1 protocol, 2 identifier, 3 unavailable, 4 user or password, 5 not authorized.
        code: u8,
    },
    /// A message.
    Publish(Publish),
    /// Receipt of a message of quality of service 1.
    PubAck(u16),
    /// Request for topics.
    Subscribe {
        /// Packet id.
        id: u16,
        /// Filters, each with its wished quality of service.
        filters: Vec<(String, u8)>,
    },
    /// Its answer, a code a filter: the granted quality of service, or 0x80.
    SubAck {
        /// Packet id.
        id: u16,
        /// One code a filter.
        codes: Vec<u8>,
    },
    /// Gives topics up.
    Unsubscribe {
        /// Packet id.
        id: u16,
        /// Filters.
        filters: Vec<String>,
    },
    /// Its answer.
    UnsubAck(u16),
    /// Sign of life.
    PingReq,
    /// Its answer.
    PingResp,
    /// Orderly end.
    Disconnect,
}

/// Content of CONNECT.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Connect {
    /// Protocol level; 4 is MQTT 3.1.1. Nothing but this is read from a packet of another level.
    pub level: u8,
    /// Name of the client.
    pub client_id: String,
    /// Whether the server should forget an earlier session.
    pub clean_session: bool,
    /// Seconds between signs of life; 0 for never.
    pub keep_alive: u16,
    /// Message to publish when the connection breaks; its `id` is not used.
    pub will: Option<Publish>,
    /// User name.
    pub user: Option<String>,
    /// Password.
    pub password: Option<Vec<u8>>,
}

impl fmt::Debug for Connect {
    /// Shows who connects, never the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connect({:?}, user {:?})", self.client_id, self.user)
    }
}

/// Content of PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Quality of service, 0 or 1.
    pub qos: u8,
    /// To be kept for later subscribers, or was.
    pub retain: bool,
    /// Topic, without wildcards.
    pub topic: String,
    /// Packet id; 0 at quality of service 0.
    pub id: u16,
    /// The message.
    pub payload: Vec<u8>,
}

/// Says why bytes are not a packet that this program accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than the ceiling.
    #[error("a packet of {length} B is above the ceiling of {ceiling} B")]
    TooLarge {
        /// Its length.
        length: usize,
        /// The ceiling.
        ceiling: usize,
    },
    /// The remaining length takes more than four bytes.
    #[error("the remaining length is malformed")]
    Length,
    /// Reserved flags are set, or a type of packet that 3.1.1 does not have or Tern does not use.
    #[error("packet type {0:#04x} is unknown or not in use here")]
    Type(u8),
    /// Its content is cut short, too long, or breaks a rule of the standard.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// Reads the packet at the start of `buffer` and tells its length, or `None` until all of it is there.
pub fn read(buffer: &[u8], ceiling: usize) -> Result<Option<(Packet, usize)>, FrameError> {
    let Some((header, rest)) = buffer.split_first() else { return Ok(None) };
    // Judged before its length, so that a client of another protocol is not waited for.
    let known = matches!(header, 0x30..=0x33 | 0x38..=0x3b | 0x82 | 0xa2)
        || (header & 0x0f == 0 && matches!(header >> 4, 1 | 2 | 4 | 9 | 11..=14));
    if !known {
        return Err(FrameError::Type(*header));
    }
    let mut length = 0usize;
    for (at, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            let whole = 2 + at + length;
            if whole > ceiling {
                return Err(FrameError::TooLarge { length: whole, ceiling });
            }
            let Some(body) = buffer.get(2 + at..whole) else { return Ok(None) };
            return parse(*header, body).map(|packet| Some((packet, whole)));
        }
    }
    if rest.len() >= 4 { Err(FrameError::Length) } else { Ok(None) }
}

fn parse(header: u8, bytes: &[u8]) -> Result<Packet, FrameError> {
    let mut body = Body(bytes);
    let packet = match header {
        0x10 => return connect(body).map(|c| Packet::Connect(Box::new(c))),
        0x20 => {
            let [flags, code] = [body.byte("CONNACK")?, body.byte("CONNACK")?];
            Packet::ConnAck { session_present: flags & 1 == 1, code }
        }
        0x30..=0x3f => return publish(header, body).map(Packet::Publish),
        0x40 => Packet::PubAck(body.id("PUBACK")?),
        0x82 => {
            let id = body.id("SUBSCRIBE")?;
            let mut filters = Vec::new();
            while !body.0.is_empty() {
                let filter = body.text("SUBSCRIBE")?;
                let qos = body.byte("SUBSCRIBE")?;
                if qos > 2 {
                    return Err(FrameError::Malformed("SUBSCRIBE"));
                }
                filters.push((filter, qos));
            }
            // [MQTT-3.8.3-3] the payload must contain at least one filter.
            if filters.is_empty() {
                return Err(FrameError::Malformed("SUBSCRIBE"));
            }
            Packet::Subscribe { id, filters }
        }
        0x90 => {
            let id = body.id("SUBACK")?;
            let codes = std::mem::take(&mut body.0).to_vec();
            Packet::SubAck { id, codes }
        }
        0xa2 => {
            let id = body.id("UNSUBSCRIBE")?;
            let mut filters = Vec::new();
            while !body.0.is_empty() {
                filters.push(body.text("UNSUBSCRIBE")?);
            }
            if filters.is_empty() {
                return Err(FrameError::Malformed("UNSUBSCRIBE"));
            }
            Packet::Unsubscribe { id, filters }
        }
        0xb0 => Packet::UnsubAck(body.id("UNSUBACK")?),
        0xc0 => Packet::PingReq,
        0xd0 => Packet::PingResp,
        0xe0 => Packet::Disconnect,
        other => return Err(FrameError::Type(other)),
    };
    body.end("packet")?;
    Ok(packet)
}

fn connect(mut body: Body<'_>) -> Result<Connect, FrameError> {
    const WHAT: &str = "CONNECT";
    let protocol = body.text(WHAT)?;
    let level = body.byte(WHAT)?;
    if protocol != "MQTT" || level != 4 {
        // The rest of another level has another shape; the caller answers with code 1.
        let level = if level == 4 { 0 } else { level };
        return Ok(Connect { level, ..Connect::default() });
    }
    let flags = body.byte(WHAT)?;
    let keep_alive = body.number(WHAT)?;
    let (has_user, has_password) = (flags & 0x80 != 0, flags & 0x40 != 0);
    let (will_retain, will_qos, has_will) = (flags & 0x20 != 0, flags >> 3 & 3, flags & 4 != 0);
    // [MQTT-3.1.2-3] reserved flag; [-11, -13, -15] no will, no will flags; [-22] no user, no password.
    let bad = flags & 1 != 0 || (!has_will && (will_retain || will_qos != 0)) || will_qos > 1;
    if bad || (has_password && !has_user) {
        return Err(FrameError::Malformed(WHAT));
    }
    let client_id = body.text(WHAT)?;
    let will = if has_will {
        let topic = topic_name(body.text(WHAT)?, WHAT)?;
        let payload = body.bytes(WHAT)?.to_vec();
        Some(Publish { dup: false, qos: will_qos, retain: will_retain, topic, id: 0, payload })
    } else {
        None
    };
    let user = if has_user { Some(body.text(WHAT)?) } else { None };
    let password = if has_password { Some(body.bytes(WHAT)?.to_vec()) } else { None };
    body.end(WHAT)?;
    Ok(Connect { level, client_id, clean_session: flags & 2 != 0, keep_alive, will, user, password })
}

fn publish(header: u8, mut body: Body<'_>) -> Result<Publish, FrameError> {
    const WHAT: &str = "PUBLISH";
    let qos = header >> 1 & 3;
    let dup = header & 8 != 0;
    // [MQTT-3.3.1-2] DUP must be 0 at quality of service 0.
    if dup && qos == 0 {
        return Err(FrameError::Malformed(WHAT));
    }
    let topic = topic_name(body.text(WHAT)?, WHAT)?;
    let id = if qos == 0 { 0 } else { body.id(WHAT)? };
    Ok(Publish { dup, qos, retain: header & 1 != 0, topic, id, payload: body.0.to_vec() })
}

/// [MQTT-3.3.2-2] a topic name has no wildcards; [MQTT-4.7.3-1] and at least one character.
fn topic_name(topic: String, what: &'static str) -> Result<String, FrameError> {
    if topic.is_empty() || topic.contains(['+', '#']) {
        return Err(FrameError::Malformed(what));
    }
    Ok(topic)
}

/// What is left of a packet.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(FrameError::Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, FrameError> {
        self.take(1, what).map(|b| b[0])
    }

    fn number(&mut self, what: &'static str) -> Result<u16, FrameError> {
        self.take(2, what).map(|b| u16::from_be_bytes([b[0], b[1]]))
    }

    /// [MQTT-2.3.1-1] a packet id is not zero.
    fn id(&mut self, what: &'static str) -> Result<u16, FrameError> {
        self.number(what).and_then(|id| if id == 0 { Err(FrameError::Malformed(what)) } else { Ok(id) })
    }

    fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], FrameError> {
        let length = self.number(what)?;
        self.take(usize::from(length), what)
    }

    /// [MQTT-1.5.3-1] well-formed UTF-8; [MQTT-1.5.3-2] without U+0000.
    fn text(&mut self, what: &'static str) -> Result<String, FrameError> {
        let text = std::str::from_utf8(self.bytes(what)?).map_err(|_| FrameError::Malformed(what))?;
        if text.contains('\0') {
            return Err(FrameError::Malformed(what));
        }
        Ok(text.to_owned())
    }

    fn end(&self, what: &'static str) -> Result<(), FrameError> {
        if self.0.is_empty() { Ok(()) } else { Err(FrameError::Malformed(what)) }
    }
}

impl Packet {
    /// Appends the packet's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect(connect) => write_connect(connect, out),
            Self::ConnAck { session_present, code } => {
                out.extend_from_slice(&[0x20, 2, u8::from(*session_present), *code]);
            }
            Self::Publish(publish) => publish.write(out),
            Self::PubAck(id) => short(0x40, *id, out),
            Self::Subscribe { id, filters } => {
                let length = filters.iter().map(|(f, _)| f.len() + 3).sum::<usize>();
                head(0x82, 2 + length, out);
                out.extend_from_slice(&id.to_be_bytes());
                for (filter, qos) in filters {
                    field(filter.as_bytes(), out);
                    out.push(*qos);
                }
            }
            Self::SubAck { id, codes } => {
                head(0x90, 2 + codes.len(), out);
                out.extend_from_slice(&id.to_be_bytes());
                out.extend_from_slice(codes);
            }
            Self::Unsubscribe { id, filters } => {
                head(0xa2, 2 + filters.iter().map(|f| f.len() + 2).sum::<usize>(), out);
                out.extend_from_slice(&id.to_be_bytes());
                filters.iter().for_each(|filter| field(filter.as_bytes(), out));
            }
            Self::UnsubAck(id) => short(0xb0, *id, out),
            Self::PingReq => out.extend_from_slice(&[0xc0, 0]),
            Self::PingResp => out.extend_from_slice(&[0xd0, 0]),
            Self::Disconnect => out.extend_from_slice(&[0xe0, 0]),
        }
    }

    /// Returns the packet's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

impl Publish {
    /// Appends the packet's bytes to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let header = 0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let id = if self.qos == 0 { 0 } else { 2 };
        head(header, 2 + self.topic.len() + id + self.payload.len(), out);
        field(self.topic.as_bytes(), out);
        if self.qos > 0 {
            out.extend_from_slice(&self.id.to_be_bytes());
        }
        out.extend_from_slice(&self.payload);
    }
}

fn write_connect(connect: &Connect, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(64);
    field(b"MQTT", &mut body);
    let mut flags = u8::from(connect.clean_session) << 1;
    if let Some(will) = &connect.will {
        flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
    }
    flags |= u8::from(connect.user.is_some()) << 7 | u8::from(connect.password.is_some()) << 6;
    body.extend_from_slice(&[connect.level, flags]);
    body.extend_from_slice(&connect.keep_alive.to_be_bytes());
    field(connect.client_id.as_bytes(), &mut body);
    if let Some(will) = &connect.will {
        field(will.topic.as_bytes(), &mut body);
        field(&will.payload, &mut body);
    }
    if let Some(user) = &connect.user {
        field(user.as_bytes(), &mut body);
    }
    if let Some(password) = &connect.password {
        field(password, &mut body);
    }
    head(0x10, body.len(), out);
    out.extend_from_slice(&body);
}

fn short(header: u8, id: u16, out: &mut Vec<u8>) {
    let [high, low] = id.to_be_bytes();
    out.extend_from_slice(&[header, 2, high, low]);
}

fn head(header: u8, length: usize, out: &mut Vec<u8>) {
    out.push(header);
    let mut left = length;
    loop {
        let byte = u8::try_from(left & 0x7f).expect("seven bits fit a byte");
        left >>= 7;
        out.push(if left > 0 { byte | 0x80 } else { byte });
        if left == 0 {
            break;
        }
    }
}

/// Writes a field after its length; our own fields come from packets below the ceiling, or from constants.
fn field(bytes: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(bytes.len()).expect("a field of ours is below 64 KiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
