//! Connections to the API: how many at once, and how long one may take to say what it wants.
//!
//! A token is looked at when the head of a request is there. Until then, and while a body comes, whoever connects costs
//! memory and a descriptor, so both have a deadline and the connections a ceiling.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::extract::connect_info::ConnectInfo;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::answer::Failure;

/// What connections may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; one more waits until another has ended.
    pub connections: usize,
    /// How long a head may take, and a connection stay without a request.
    pub head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, head: Duration::from_secs(15) }
    }
}

/// How long a request may take from its head to its answer. Images have their own limits: they are gigabytes.
const REQUEST: Duration = Duration::from_secs(60);
/// A head is no longer than this.
const HEAD_MAX: usize = 16 * 1024;
/// After an error of the system, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Ends a request whose body trickles.
pub(super) async fn deadline(request: Request, next: Next) -> Response {
    if request.method() == Method::PUT {
        return next.run(request).await;
    }
    tokio::time::timeout(REQUEST, next.run(request)).await.unwrap_or_else(|_| {
        let error = format!("the request was not done within {} s", REQUEST.as_secs());
        Failure::new(StatusCode::REQUEST_TIMEOUT, error, "look before you try again: it may have been done")
            .into_response()
    })
}

/// Answers requests until it is dropped.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits) {
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(turn) = room.clone().acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("the API could not take a connection: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let router = router.clone();
        tokio::spawn(async move {
            let _turn = turn;
            let service = TowerToHyperService::new(router);
            let service = service_fn(move |mut request: axum::http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(ConnectInfo::<SocketAddr>(peer));
                hyper::service::Service::call(&service, request)
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_MAX);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%peer, "a connection to the API ended: {error}");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use axum::routing::get;

    use super::*;

    const WHOLE: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    fn listening(limits: Limits) -> (tokio::runtime::Runtime, SocketAddr) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }),
        );
        runtime.spawn(serve(listener, router, limits));
        (runtime, address)
    }

    fn said(mut stream: TcpStream, words: &str) -> String {
        stream.write_all(words.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(ended.is_ok() || !answer.is_empty(), "nobody ended it: {ended:?}");
        answer
    }

    #[test]
    fn a_head_that_never_ends_is_ended_and_a_whole_one_is_answered() {
        let (_runtime, address) = listening(Limits { head: Duration::from_millis(300), ..Limits::default() });
        let dial = || TcpStream::connect(address).unwrap();
        let whole = said(dial(), WHOLE);
        assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("127.0.0.1"), "{whole}");
        for half in ["GET / HTTP/1.1\r\nhost:", ""] {
            let answer = said(dial(), half);
            assert!(!answer.contains("200"), "{answer}");
        }
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(HEAD_MAX));
        let answer = said(dial(), &long);
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[test]
    fn one_connection_more_than_allowed_waits_until_another_has_ended() {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        let limits = Limits { connections: 4, head: Duration::from_secs(3600) };
        let (_runtime, address) = listening(limits);
        let mut mute: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        let mut fifth = TcpStream::connect(address).unwrap();
        fifth.write_all(WHOLE.as_bytes()).unwrap();
        fifth.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let waits = fifth.read(&mut [0; 1]).unwrap_err().kind();
        assert!(matches!(waits, TimedOut | WouldBlock), "it was answered beside four others: {waits}");

        drop(mute.pop());

        let answer = said(fifth, "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
