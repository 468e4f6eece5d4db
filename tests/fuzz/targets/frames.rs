//! MQTT packets as any client may send them: read as the front reads them, written again, read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern_bridge::front::frame::{Packet, read};

const CEILING: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some((packet, length))) = read(bytes, CEILING) else { return };
    assert!(length <= bytes.len() && length <= CEILING);
    // A packet that has not arrived whole is waited for, never judged by what is missing.
    assert!(matches!(read(&bytes[..length - 1], CEILING), Ok(None)), "{packet:?} was read from a part of it");
    let mut written = Vec::new();
    packet.write(&mut written);
    // CONNECT is read and never written as it was: a bridge connects under a name of its own.
    if matches!(packet, Packet::Connect(_)) {
        return;
    }
    let (again, all) = read(&written, CEILING + 8).expect("what we write is well-formed").expect("whole");
    assert_eq!((&again, all), (&packet, written.len()));
});
