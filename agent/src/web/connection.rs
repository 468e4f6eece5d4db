//! One HTTP/1.1 connection: a range is asked for, and comes part by part.

use std::ops::Range;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Patience, Shared};
use crate::config::WebPrefix;
use crate::core::agent::WebFailure;
use crate::device::chain;
use crate::link::encrypted;

/// Bytes that the head of an answer may have, and headers.
const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// A byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection on which nothing is under way.
pub(super) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

/// Nobody reads any more.
impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// It may go better the next time.
pub(super) fn passing(reason: impl Into<String>) -> WebFailure {
    WebFailure { reason: reason.into(), may_pass: true }
}

/// It would be the same again.
pub(super) fn lasting(reason: impl Into<String>) -> WebFailure {
    WebFailure { reason: reason.into(), may_pass: false }
}

async fn patiently<T>(
    what: &str,
    patience: Duration,
    work: impl Future<Output = Result<T, WebFailure>>,
) -> Result<T, WebFailure> {
    timeout(patience, work).await.unwrap_or_else(|_| Err(passing(format!("{what} within {patience:?}"))))
}

impl Connection {
    async fn open(shared: &Shared, prefix: &WebPrefix) -> Result<Self, WebFailure> {
        let bare = prefix.address.host.trim_start_matches('[').trim_end_matches(']');
        let connect = async {
            let stream = TcpStream::connect((bare, prefix.address.port)).await;
            let stream = stream.map_err(|error| passing(format!("no connection: {error}")))?;
            // What is asked is one small packet.
            stream.set_nodelay(true).map_err(|error| passing(error.to_string()))?;
            let stream: Box<dyn Stream> = match &shared.tls {
                Some(tls) if prefix.tls => encrypted(tls, bare, stream).await.map_err(passing)?,
                None if prefix.tls => return Err(lasting("there is no authority for its certificate")),
                _ => Box::new(stream),
            };
            let mut builder = Builder::new();
            builder.max_buf_size(HEAD_MAX).max_headers(HEADERS_MAX);
            let made = builder.handshake(TokioIo::new(stream)).await;
            made.map_err(|error| passing(format!("no connection: {}", chain(&error))))
        };
        let (sender, connection) = patiently("no connection", shared.patience.silence, connect).await?;
        let driver = tokio::spawn(async move {
            // Whoever waits for an answer hears of it too.
            if let Err(error) = connection.await {
                tracing::debug!(error = chain(&error), "a connection to a web server has ended");
            }
        });
        Ok(Self { sender, driver })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request; none of it has been answered if that fails.
    async fn send(&mut self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, WebFailure> {
        let broken = |error: hyper::Error| passing(chain(&error));
        self.sender.ready().await.map_err(broken)?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

/// A range that is on its way.
pub(super) struct Coming {
    connection: Connection,
    body: Incoming,
    patience: Patience,
    /// Came, and belongs to the next part.
    ahead: Bytes,
}

/// Asks for a range of a file, over a connection that was kept or a new one.
pub(super) async fn ask(
    shared: &Shared,
    prefix: usize,
    file: &str,
    range: &Range<u64>,
) -> Result<Coming, WebFailure> {
    let Some(address) = shared.prefixes.get(prefix) else { return Err(lasting("there is no such prefix")) };
    let silence = shared.patience.silence;
    let answered = |answer: Response<Incoming>, connection| {
        judge(&answer, range)
            .map_err(|failure| WebFailure { reason: format!("{file}: {}", failure.reason), ..failure })?;
        let (body, patience, ahead) = (answer.into_body(), shared.patience, Bytes::new());
        Ok(Coming { connection, body, patience, ahead })
    };
    if let Some(mut kept) = shared.kept(prefix) {
        let sent = patiently("no answer", silence, kept.send(request(address, file, range)?)).await;
        // The server may have closed it meanwhile, which is no failure of its.
        if let Ok(answer) = sent {
            return answered(answer, kept);
        }
    }
    let mut connection = Connection::open(shared, address).await?;
    let answer = patiently("no answer", silence, connection.send(request(address, file, range)?)).await?;
    answered(answer, connection)
}

fn request(prefix: &WebPrefix, file: &str, range: &Range<u64>) -> Result<Request<Empty<Bytes>>, WebFailure> {
    let address = &prefix.address;
    let port = if prefix.tls { 443 } else { 80 };
    let host = if address.port == port {
        address.host.clone()
    } else {
        format!("{}:{}", address.host, address.port)
    };
    Request::get(format!("{}/{file}", address.path))
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("tern-agent/", env!("CARGO_PKG_VERSION")))
        .header(header::RANGE, format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
        .body(Empty::new())
        .map_err(|error| lasting(format!("the prefix is no address: {error}")))
}

/// Judges an answer by its head: exactly the range that was asked for, or nothing of it is read.
fn judge(answer: &Response<Incoming>, range: &Range<u64>) -> Result<(), WebFailure> {
    let status = answer.status();
    match status {
        StatusCode::PARTIAL_CONTENT => {}
        StatusCode::OK => return Err(lasting("it knows no ranges: status 200")),
        status if status.is_redirection() => {
            return Err(lasting(format!(
                "it leads elsewhere, which is not followed: status {}",
                status.as_u16()
            )));
        }
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            return Err(passing(format!("status {}", status.as_u16())));
        }
        status if status.is_server_error() => return Err(passing(format!("status {}", status.as_u16()))),
        status => return Err(lasting(format!("status {}", status.as_u16()))),
    }
    if answer.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(lasting("it sends the bytes in an encoding that was not asked for"));
    }
    let given = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let begins = format!("bytes {}-{}/", range.start, range.end.saturating_sub(1));
    if given.is_none_or(|given| !given.starts_with(&begins)) {
        return Err(lasting("it gives another range than was asked for"));
    }
    match answer.body().size_hint().exact() {
        Some(length) if length != range.end - range.start => {
            Err(lasting("it sends another number of bytes than was asked for"))
        }
        _ => Ok(()),
    }
}

impl Coming {
    /// Returns the next `length` bytes.
    pub(super) async fn part(&mut self, length: usize) -> Result<Vec<u8>, WebFailure> {
        let patience = self.patience.part;
        patiently("a part does not come", patience, self.read(length)).await
    }

    async fn read(&mut self, length: usize) -> Result<Vec<u8>, WebFailure> {
        let mut part = Vec::with_capacity(length);
        loop {
            let taken = self.ahead.split_to(self.ahead.len().min(length - part.len()));
            part.extend_from_slice(&taken);
            if part.len() == length {
                return Ok(part);
            }
            self.ahead = self.more().await?.ok_or_else(|| passing("it broke off"))?;
        }
    }

    /// Returns more bytes; nothing at the end.
    async fn more(&mut self) -> Result<Option<Bytes>, WebFailure> {
        loop {
            let frame = async { Ok(self.body.frame().await) };
            let frame = patiently("nothing more came", self.patience.silence, frame).await?;
            match frame.transpose().map_err(|error| passing(format!("it broke off: {}", chain(&error))))? {
                None => return Ok(None),
                // Trailers are nobody's business here.
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// All parts are here; there must be nothing more.
    pub(super) async fn finish(mut self) -> Result<Connection, WebFailure> {
        if !self.ahead.is_empty() || self.more().await?.is_some() {
            return Err(lasting("it sends more than it was asked for"));
        }
        Ok(self.connection)
    }
}
