//! Answers that servers give, as they come over the wire.

use tern_protocol::chunk::PieceId;
use tern_protocol::message::PackKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::core::agent::WebFailure;

/// Chunks of the image that is asked for; the last one has 100 bytes.
const LENGTH: u64 = 65_536 + 100;

/// Asks a server that gives these answers, one for each request, over one connection after the other. Returns what was asked, what came, and how
/// it ended.
async fn asked(answers: &[Vec<u8>], get: WebGet) -> (Vec<String>, Vec<Web>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prefix = format!("http://{}/tern", listener.local_addr().unwrap()).parse().unwrap();
    let patience = Patience { silence: Duration::from_secs(60), part: Duration::from_secs(60) };
    let shared = Shared {
        prefixes: vec![prefix],
        tls: None,
        patience,
        idle: Mutex::default(),
        places: Mutex::default(),
    };
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut servers = WebServers { shared: Arc::new(shared), sender, receiver, open: BTreeMap::new() };
    let answers = answers.to_vec();
    let served = tokio::spawn(async move {
        let (mut requests, mut answers) = (Vec::new(), answers.into_iter());
        'connections: while answers.len() > 0 {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers.by_ref() {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => request.push(byte),
                        Err(_) => continue 'connections,
                    }
                }
                requests.push(String::from_utf8(request).unwrap());
                // Whoever has heard enough hangs up.
                if stream.write_all(&answer).await.is_err() || answer.ends_with(b"!") {
                    break;
                }
            }
        }
        requests
    });

    servers.ask(1, 0, get);
    let mut said = Vec::new();
    while said.last().is_none_or(|said| matches!(said, Web::Pack(_))) {
        let (request, what) = servers.said().await;
        assert_eq!(request, 1);
        said.push(what);
    }
    servers.rest();
    (served.await.unwrap(), said)
}

fn image(ranges: &[(u32, u32)]) -> WebGet {
    WebGet {
        of: Digest([0xab; 32]),
        parts: 2,
        length: Some(LENGTH),
        pieces: Vec::new(),
        ranges: ranges.to_vec(),
    }
}

/// An answer with these lines and bytes.
fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {}\r\n\r\n", head.replace('\n', "\r\n")).as_bytes(), body].concat()
}

/// The answer to who asked for the last chunk.
fn last_chunk() -> Vec<u8> {
    answer("206 Partial Content\nContent-Range: bytes 65536-65635/65636\nContent-Length: 100", &[7; 100])
}

fn failure(said: &[Web]) -> &WebFailure {
    match said {
        [Web::Failed(failure)] => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_piece_and_a_run_of_chunks_come_over_one_connection() {
    let mut get = image(&[(0, 2)]);
    get.pieces = vec![PieceId { level: 0, index: 0 }];
    let tree = answer("206 Partial Content\nContent-Range: bytes 0-63/64\nContent-Length: 64", &[1; 64]);
    let both = [vec![2; 65_536], vec![3; 100]].concat();
    let chunks =
        answer("206 Partial Content\nContent-Range: bytes 0-65635/65636\nContent-Length: 65636", &both);

    let (requests, said) = asked(&[tree, chunks], get).await;

    let pack =
        |kind, payload| Web::Pack(tern_protocol::message::Pack { of: 0xabab_abab_abab_abab, kind, payload });
    let piece = PackKind::Piece(PieceId { level: 0, index: 0 });
    let expected = [
        pack(piece, vec![1; 64]),
        pack(PackKind::Chunk(0), vec![2; 65_536]),
        pack(PackKind::Chunk(1), vec![3; 100]),
        Web::Ended,
    ];
    assert!(said == expected, "other packs came");
    let name = "ab".repeat(32);
    assert!(
        requests[0].starts_with(&format!("GET /tern/ab/{name}.tree HTTP/1.1\r\nhost: 127.0.0.1:")),
        "{requests:?}"
    );
    assert!(
        requests[0].contains("range: bytes=0-63\r\n") && requests[1].contains("range: bytes=0-65635\r\n")
    );
}

#[tokio::test]
async fn packs_are_cut_where_the_server_says_and_that_is_asked_once() {
    let get = |ranges: &[(u32, u32)]| WebGet { parts: 3, length: None, ..image(ranges) };
    let ends: Vec<u8> = [10u64, 17, 20].iter().flat_map(|end| end.to_le_bytes()).collect();
    let places = answer("206 Partial Content\nContent-Range: bytes 4-27/48\nContent-Length: 24", &ends);
    let first = answer("206 Partial Content\nContent-Range: bytes 28-37/48\nContent-Length: 10", &[1; 10]);
    let third = answer("206 Partial Content\nContent-Range: bytes 45-47/48\nContent-Length: 3", &[3; 3]);

    let (requests, said) = asked(&[places, first, third], get(&[(0, 1), (2, 3)])).await;

    let lengths = said.iter().map(|said| match said {
        Web::Pack(pack) => pack.payload.len(),
        _ => 0,
    });
    assert_eq!(lengths.collect::<Vec<_>>(), [10, 3, 0], "{said:?}");
    assert_eq!(requests.len(), 3);
    for ends in [[10u64, 9, 20], [10, 70_000, 70_001], [0, 0, 0]] {
        let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let places = answer("206 Partial Content\nContent-Range: bytes 4-27/48\nContent-Length: 24", &ends);
        let (_, said) = asked(&[places], get(&[(0, 3)])).await;
        assert!(failure(&said).reason.contains("where none can be"), "{said:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_the_range_that_was_asked_for_is_not_read() {
    let right = "Content-Range: bytes 65536-65635/65636\nContent-Length: 100";
    for (head, why, may_pass) in [
        (format!("200 OK\n{right}"), "knows no ranges", false),
        ("301 Moved\nLocation: http://127.0.0.1:1/\nContent-Length: 0".into(), "leads elsewhere", false),
        ("404 Not Found\nContent-Length: 0".into(), "status 404", false),
        ("416 No\nContent-Length: 0".into(), "status 416", false),
        ("429 Slow\nContent-Length: 0".into(), "status 429", true),
        ("503 Later\nContent-Length: 0".into(), "status 503", true),
        ("206 Partial Content\nContent-Length: 100".into(), "another range", false),
        (
            "206 Partial Content\nContent-Range: bytes 0-99/65636\nContent-Length: 100".into(),
            "another range",
            false,
        ),
        (
            format!("206 Partial Content\n{}", right.replace("h: 100", "h: 101")),
            "another number of bytes",
            false,
        ),
        (format!("206 Partial Content\nContent-Encoding: gzip\n{right}"), "encoding", false),
        (format!("206 Partial Content\nX: {}\n{right}", "x".repeat(20_000)), "", true),
    ] {
        let (_, said) = asked(&[answer(&head, &[0; 100])], image(&[(1, 2)])).await;

        let failure = failure(&said);
        assert!(failure.reason.contains(why) && failure.may_pass == may_pass, "{head}: {failure:?}");
    }
    let (_, said) = asked(&[last_chunk()], image(&[(1, 2)])).await;
    assert!(matches!(said[..], [Web::Pack(_), Web::Ended]), "{said:?}");
}

#[tokio::test]
async fn a_body_that_is_too_long_or_too_short_is_a_failure() {
    let head = "206 Partial Content\nContent-Range: bytes 65536-65635/65636\nTransfer-Encoding: chunked";
    let long = answer(head, &[b"65\r\n", &[7; 101][..], b"\r\n"].concat());
    let (_, said) = asked(&[long], image(&[(1, 2)])).await;
    assert!(matches!(&said[..], [Web::Pack(_), Web::Failed(failure)] if !failure.may_pass), "{said:?}");

    let short = answer(head, &[b"10\r\n", &[7; 16][..], b"\r\n0\r\n\r\n"].concat());
    let (_, said) = asked(&[short], image(&[(1, 2)])).await;
    assert!(failure(&said).reason.contains("broke off") && failure(&said).may_pass);

    let cut =
        answer("206 Partial Content\nContent-Range: bytes 65536-65635/65636\nContent-Length: 100", b"7!");
    let (_, said) = asked(&[cut], image(&[(1, 2)])).await;
    assert!(failure(&said).reason.contains("broke off") && failure(&said).may_pass);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_no_failure_of_its() {
    let mut first = last_chunk();
    // The server hangs up behind this byte.
    *first.last_mut().unwrap() = b'!';

    let (requests, said) = asked(&[first, last_chunk()], image(&[(1, 2), (1, 2)])).await;

    assert_eq!(requests.len(), 2);
    assert!(matches!(said[..], [Web::Pack(_), Web::Pack(_), Web::Ended]), "{said:?}");
}
