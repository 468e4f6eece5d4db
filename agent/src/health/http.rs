//! A GET over plain HTTP/1.0: is the answer's status 2xx?
//!
//! By hand, because a client library weighs more than all probes: one request, and of the answer its first line alone. No
//! TLS, no redirects, no body. What needs more is a `command`.

use std::str::FromStr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes in which the first line of an answer must end.
const LINE_MAX: usize = 512;

/// What is asked: `http://host[:port][/path]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    /// Host name or address, as it is written in front of the port.
    pub(crate) host: String,
    /// Port; 80 when none is named.
    pub(crate) port: u16,
    /// Path with its first `/`.
    pub(crate) path: String,
}

impl FromStr for HttpAddress {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("address {text:?} {why}; write http://host:port/path");
        let rest = text.strip_prefix("http://").ok_or_else(|| wrong("is not plain HTTP"))?;
        Self::behind_scheme(rest, 80).map_err(wrong)
    }
}

impl HttpAddress {
    /// Reads what follows the scheme; `port` is the one that it stands for. An error says what is wrong with it.
    pub(crate) fn behind_scheme(rest: &str, port: u16) -> Result<Self, &'static str> {
        // A line break in it would be another line of the request.
        if rest.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("holds something that is no printable ASCII");
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            None => (authority, Some(port)),
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)),
        };
        let port = port.ok_or("has no valid port")?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if bare.is_empty() || host.contains(['@', '?', '#']) || (bare.contains(':') && bare == host) {
            return Err("has no valid host");
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { host: host.to_owned(), port, path: path.to_owned() })
    }
}

/// Asks once. Has no deadline of its own.
pub(super) async fn get(address: &HttpAddress) -> Result<(), String> {
    let HttpAddress { host, port, path } = address;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let failed = |what: &str, error: std::io::Error| format!("could not {what} {host}:{port}: {error}");
    let mut stream = TcpStream::connect((bare, *port)).await.map_err(|error| failed("connect to", error))?;
    let agent = concat!("tern-agent/", env!("CARGO_PKG_VERSION"));
    let request = format!(
        "GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(|error| failed("ask", error))?;
    let (mut line, mut length) = ([0; LINE_MAX], 0);
    loop {
        let count = stream.read(&mut line[length..]).await.map_err(|error| failed("hear", error))?;
        length += count;
        if let Some(end) = line[..length].iter().position(|byte| *byte == b'\n') {
            return judge(&line[..end]);
        }
        // At the ceiling there is no room left, and nothing is read either.
        if count == 0 {
            return Err(format!("{host}:{port} answered without a line of status"));
        }
    }
}

/// Judges the first line of an answer, such as `HTTP/1.1 204 No Content`.
fn judge(line: &[u8]) -> Result<(), String> {
    let line = String::from_utf8_lossy(line);
    let status = line
        .split_once(' ')
        .filter(|(version, _)| version.starts_with("HTTP/1."))
        .and_then(|(_, rest)| {
            rest.get(..3).filter(|_| matches!(rest.as_bytes().get(3), None | Some(b' ' | b'\r')))
        })
        .and_then(|status| status.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(status) => Err(format!("status {status}")),
        None => Err("it answered something that is not HTTP".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// Answers one request with `answer`, over and over if `endless`, and returns what was asked and what came of it.
    async fn asked(answer: &'static [u8], endless: bool) -> (String, Result<(), String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/well?x=1", listener.local_addr().unwrap()).parse().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            // Whoever has heard enough hangs up.
            while stream.write_all(answer).await.is_ok() && endless {}
            String::from_utf8(request).unwrap()
        });
        let result = timeout(Duration::from_secs(60), get(&address)).await.expect("nothing is endless");
        (served.await.unwrap(), result)
    }

    #[tokio::test]
    async fn every_status_of_two_hundred_is_well_and_no_other() {
        for (answer, expected) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], Ok(())),
            (b"HTTP/1.0 204\n", Ok(())),
            (b"HTTP/1.0 299 \r\n", Ok(())),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", Err("status 503")),
            (b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n", Err("status 301")),
            (b"HTTP/1.1 2000 OK\r\n", Err("it answered something that is not HTTP")),
            (b"HTTP/1.1 20\r\n", Err("it answered something that is not HTTP")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Err("it answered something that is not HTTP")),
            (b"\xff\xfe\n", Err("it answered something that is not HTTP")),
        ] {
            let (request, result) = asked(answer, false).await;

            assert_eq!(result.as_ref().map_err(|e| e.as_str()).copied(), expected, "{answer:?}");
            assert!(request.starts_with("GET /well?x=1 HTTP/1.0\r\nHost: 127.0.0.1:"), "{request}");
        }
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_not_read_and_a_line_without_one_is_given_up() {
        let (_, well) = asked(b"HTTP/1.1 200 OK\r\n\r\nmore and more", true).await;
        let (_, unwell) = asked(b"HTTP/1.1 200 OK and on and on ", true).await;
        let (_, silent) = asked(b"", false).await;

        assert_eq!(well, Ok(()));
        assert!(unwell.unwrap_err().contains("without a line of status"));
        assert!(silent.unwrap_err().contains("without a line of status"));
    }

    #[tokio::test]
    async fn where_nobody_listens_nothing_is_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);

        assert!(get(&address).await.unwrap_err().contains("could not connect to 127.0.0.1:"));
    }

    #[test]
    fn addresses_say_host_port_and_path() {
        let address =
            |host: &str, port, path: &str| Ok(HttpAddress { host: host.into(), port, path: path.into() });

        assert_eq!("http://127.0.0.1:8080/health?a=b:c".parse(), address("127.0.0.1", 8080, "/health?a=b:c"));
        assert_eq!("http://router".parse(), address("router", 80, "/"));
        assert_eq!("http://[::1]:81/x".parse(), address("[::1]", 81, "/x"));
        assert_eq!("http://[::1]".parse(), address("[::1]", 80, "/"));
        for bad in [
            "",
            "https://x",
            "x",
            "http://",
            "http://:80",
            "http://x:0",
            "http://x:65536",
            "http://x:",
            "http://::1",
            "http://a@b",
            "http://x/a b",
            "http://x/a\r\nHost: y",
            "http://x/\u{e4}",
        ] {
            assert!(bad.parse::<HttpAddress>().is_err(), "{bad:?}");
        }
    }
}
