//! Real sockets over the link, each beside the same without it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::*;
use crate::lab::wait;

/// A server that sends `bytes` to whoever has sent a byte, and then reads.
fn server(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0; 1];
                if stream.read_exact(&mut byte).is_ok() {
                    let _gone = stream.write_all(&vec![7; bytes]);
                    let _gone = std::io::copy(&mut stream, &mut std::io::sink());
                }
            });
        }
    });
    address
}

/// Asks, and returns how long the first byte and the last of `bytes` took.
fn fetch(address: SocketAddr, bytes: usize) -> [Duration; 2] {
    let clock = Stopwatch::start();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(&[1]).expect("it takes a byte");
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer[..1]).expect("a first byte");
    let first = clock.read();
    stream.read_exact(&mut buffer[1..]).expect("the others");
    [first, clock.read()]
}

#[test]
fn a_link_has_its_rate_and_its_round_trips_and_without_it_there_are_none() {
    let server = server(100_000);
    // 100 kB at 800 kbit/s: a second. Two round trips: TCP's, and the request's.
    let radio = Radio::to(server, Terms::plain(800_000, Duration::from_millis(100)));

    let [first, last] = fetch(radio.address, 100_000);
    let [_, direct] = fetch(server, 100_000);

    assert!(first >= Duration::from_millis(400), "{first:?}");
    assert!(last >= Duration::from_millis(1390), "{last:?}");
    assert!(last < Duration::from_secs(5) && direct < last / 2, "{last:?}, direct {direct:?}");
    // Whoever counts may come a moment after who reads.
    wait("the count", Duration::from_secs(10), || (radio.carried() == [1, 100_000]).then_some(()));
}

#[test]
fn a_sender_is_held_back_when_the_queue_is_full() {
    // Nobody sends so much into 8 kbit/s in this time, unless what is in between takes everything.
    let radio = Radio::to(server(1), Terms::plain(8_000, Duration::ZERO));
    let mut stream = TcpStream::connect(radio.address).expect("it listens");
    stream.set_nonblocking(true).expect("a socket");
    let (mut sent, bytes) = (0, vec![1; 64 * 1024]);
    let clock = Stopwatch::start();
    while clock.read() < Duration::from_millis(500) {
        match stream.write(&bytes) {
            Ok(count) => sent += count,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }

    // The sender's own buffer takes most of it.
    assert!(sent < 8_000_000, "{sent}");
    assert!(radio.carried()[0] <= 1_500, "{:?}", radio.carried());
}

#[test]
fn a_cut_closes_what_is_open_and_loses_what_was_under_way_and_the_next_connection_works() {
    let server = server(1_000_000);
    let cuts = vec![Duration::from_millis(700)];
    let radio = Radio::to(server, Terms { cuts, ..Terms::plain(800_000, Duration::from_millis(50)) });
    let mut stream = TcpStream::connect(radio.address).expect("it listens");
    stream.write_all(&[1]).expect("it takes a byte");
    let mut got = Vec::new();
    // A reset is an end like another.
    let _cut = stream.read_to_end(&mut got);

    assert!(got.len() < 100_000, "{}", got.len());
    assert_eq!(radio.cuts(), 1);
    let [first, _] = fetch(radio.address, 1000);
    assert!(first >= Duration::from_millis(200), "{first:?}");
    assert_eq!(radio.connections(), 2);
}
