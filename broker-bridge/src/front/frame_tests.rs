use super::*;
use proptest::prelude::*;

const CEILING: usize = 80 * 1024;

fn text() -> impl Strategy<Value = String> {
    "[a-z/]{1,40}"
}

fn a_publish() -> impl Strategy<Value = Publish> {
    (any::<bool>(), 0u8..2, any::<bool>(), text(), 1u16.., prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(dup, qos, retain, topic, id, payload)| Publish {
            dup: dup && qos > 0,
            qos,
            retain,
            topic,
            id: if qos > 0 { id } else { 0 },
            payload,
        })
}

fn a_connect() -> impl Strategy<Value = Connect> {
    let login = prop::option::of((text(), prop::option::of(prop::collection::vec(any::<u8>(), 0..40))));
    (text(), any::<bool>(), any::<u16>(), prop::option::of(a_publish()), login).prop_map(
        |(client_id, clean_session, keep_alive, will, login)| Connect {
            level: 4,
            client_id,
            clean_session,
            keep_alive,
            will: will.map(|w| Publish { dup: false, id: 0, ..w }),
            user: login.as_ref().map(|l| l.0.clone()),
            password: login.and_then(|l| l.1),
        },
    )
}

fn a_packet() -> impl Strategy<Value = Packet> {
    prop_oneof![
        a_connect().prop_map(|c| Packet::Connect(Box::new(c))),
        (any::<bool>(), 0u8..6).prop_map(|(session_present, code)| Packet::ConnAck { session_present, code }),
        a_publish().prop_map(Packet::Publish),
        (1u16..).prop_map(Packet::PubAck),
        (1u16.., prop::collection::vec((text(), 0u8..3), 1..5))
            .prop_map(|(id, filters)| Packet::Subscribe { id, filters }),
        (1u16.., prop::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(id, codes)| Packet::SubAck { id, codes }),
        (1u16.., prop::collection::vec(text(), 1..5))
            .prop_map(|(id, filters)| Packet::Unsubscribe { id, filters }),
        (1u16..).prop_map(Packet::UnsubAck),
        Just(Packet::PingReq),
        Just(Packet::PingResp),
        Just(Packet::Disconnect),
    ]
}

proptest! {
    #[test]
    fn every_packet_survives_the_round_trip(packet in a_packet()) {
        let bytes = packet.to_bytes();

        prop_assert_eq!(read(&bytes, CEILING), Ok(Some((packet, bytes.len()))));
    }

    #[test]
    fn a_packet_that_is_not_all_there_is_waited_for(packet in a_packet()) {
        let bytes = packet.to_bytes();

        for end in 0..bytes.len() {
            prop_assert_eq!(read(&bytes[..end], CEILING), Ok(None));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(read(&bytes, CEILING));
    }

    #[test]
    fn no_broken_packet_makes_the_reader_panic(packet in a_packet(), at: usize, to: u8) {
        let mut bytes = packet.to_bytes();
        let at = at % bytes.len();
        bytes[at] = to;

        drop(read(&bytes, CEILING));
    }
}

#[test]
fn a_length_above_the_ceiling_is_refused_before_its_bytes_are_there() {
    assert_eq!(
        read(&[0x30, 0xff, 0xff, 0x7f], 1000),
        Err(FrameError::TooLarge { length: 2_097_155, ceiling: 1000 })
    );
    assert_eq!(read(&[0x30, 0xff, 0xff, 0xff, 0xff, 1], 1000), Err(FrameError::Length));
}

#[test]
fn a_connect_of_mqtt_5_is_recognised_and_not_read_further() {
    let packet = read(&[0x10, 8, 0, 4, b'M', b'Q', b'T', b'T', 5, 0xff], CEILING).unwrap().unwrap().0;

    assert_eq!(packet, Packet::Connect(Box::new(Connect { level: 5, ..Connect::default() })));
}

#[test]
fn what_only_quality_of_service_2_needs_is_refused() {
    assert_eq!(read(&[0x34, 5, 0, 1, b'a', 0, 1], CEILING), Err(FrameError::Type(0x34)));
    assert_eq!(read(&[0x50, 2, 0, 1], CEILING), Err(FrameError::Type(0x50)));
}

#[test]
fn a_topic_with_a_wildcard_cannot_be_published_to() {
    assert_eq!(read(&[0x30, 3, 0, 1, b'#'], CEILING), Err(FrameError::Malformed("PUBLISH")));
}
