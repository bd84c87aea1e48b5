//! Vectors of `spec/networkdb.md` that are of whole packets: what stands around what, and how it is told apart.

use super::super::keyring::{Key, Keyring};
use super::super::message::Message;
use super::super::packet::{pack, unpack};
use super::super::stream::{Completeness, StreamMessage, completeness, decode, encode_error};
use super::super::{WireError, compress, kind, msgpack};
use super::{captured_push_pull, hex};

#[test]
fn an_error_is_read_as_go_writes_it() {
    let bytes = hex("0d81a54572726f72a4626f6f6d");
    assert_eq!(decode(&bytes), Ok(StreamMessage::Err("boom".to_owned())));
    assert_eq!(completeness(&bytes), Completeness::Whole(bytes.len()));
    assert_eq!(encode_error("boom"), bytes);
}

/// 3.3.9: the captured push/pull went out as `09 82 a4416c676f 00 a3427566 da0079` and 121 bytes of LZW.
#[test]
fn the_captured_push_pull_is_packed_as_long_as_go_packed_it() {
    let (plain, message) = captured_push_pull();
    let packed = compress::lzw(&plain).expect("packed");
    let mut wire = hex("09 82 a4416c676f 00 a3427566");
    msgpack::write_raw(&mut wire, &packed);
    assert!(
        wire.starts_with(&hex("09 82 a4416c676f 00 a3427566 da0079")),
        "{} bytes",
        packed.len()
    );
    assert_eq!(packed.len(), 121);
    assert_eq!(completeness(&wire), Completeness::Whole(wire.len()));
    assert_eq!(decode(&wire), Ok(StreamMessage::PushPull(message)));
}

/// 3.3.2 and 3.3.9: Docker's label is empty, so one that is there is another cluster's.
#[test]
fn a_label_is_refused_on_both_ways() {
    assert!(matches!(
        completeness(&hex("f4 05 6c6162656c 00")),
        Completeness::Invalid(_)
    ));
    assert!(decode(&hex("f4 05 6c6162656c 00")).is_err());
    let unpacked = unpack(&hex("f4 05 6c6162656c 0282a75061796c6f6164c0a55365714e6f01"));
    assert!(unpacked.messages.is_empty());
    assert_eq!(unpacked.errors.len(), 1);
}

/// 3.3.8: `[encrypt( ] [crc] [compress( ] message | compound(messages) [ ) ] [ ) ]`, each bracket there or not.
#[test]
fn packets_nest_in_the_order_of_the_spec() {
    // Long and repetitive enough to be compressed as one, too short by itself.
    let parts: Vec<_> = (0..6).map(|part| Message::User(vec![part; 90])).collect();
    let encoded: Vec<_> = parts.iter().map(Message::encode).collect();
    let ring = Keyring::new(Key::new(b"0123456789abcdef").expect("key"), Vec::new());
    for checksum in [false, true] {
        let short = pack(&encoded[..2], checksum);
        let long = pack(&encoded, checksum);
        let inner = if checksum { 5 } else { 0 };
        for (packet, inner_kind, count) in [(&short, kind::COMPOUND, 2), (&long, kind::COMPRESS, 6)] {
            assert_eq!(packet.first() == Some(&kind::HAS_CRC), checksum);
            assert_eq!(packet[inner], inner_kind);
            assert_eq!(unpack(packet).messages, parts[..count]);
            let sealed = ring.seal_datagram([9; 12], packet.clone());
            assert_eq!(sealed.len(), packet.len() + 29);
            assert_eq!(ring.open_datagram(&sealed).as_ref(), Ok(packet));
        }
        let content = compress::unpack(
            compress::read_buffer(&mut msgpack::Reader::new(&long[inner + 1..])).expect("a buffer"),
            1000,
        );
        assert_eq!(content.expect("unpacked").first(), Some(&kind::COMPOUND));
    }
    // A checksum inside of the compression is nobody's order, and yet read.
    let inside = pack(&encoded[..1], true);
    let mut wrapped = hex("09 82 a4416c676f 00 a3427566");
    msgpack::write_raw(&mut wrapped, &compress::lzw(&inside).expect("packed"));
    assert_eq!(unpack(&wrapped).messages, parts[..1]);
}

/// 3.3.6: the checksum covers all that follows it, whatever that is.
#[test]
fn one_wrong_bit_anywhere_makes_the_checksum_wrong() {
    let packet = pack(&[Message::Ack(1).encode(), Message::Nack(2).encode()], true);
    let refused = [WireError::Invalid("the checksum of a datagram is wrong")];
    for place in 1..packet.len() {
        for bit in 0..8 {
            let mut changed = packet.clone();
            changed[place] ^= 1_u8 << bit;
            let unpacked = unpack(&changed);
            assert_eq!(
                (unpacked.messages.len(), &unpacked.errors[..]),
                (0, &refused[..]),
                "{place}.{bit}"
            );
        }
    }
}

/// 3.3.1: keys are compared exactly, unknown ones are skipped, missing ones leave zero, and their order is not asked for.
#[test]
fn keys_may_come_in_any_order_or_not_at_all() {
    let turned = hex("0182a55365714e6f07a654617267657490");
    assert!(Message::decode(&turned).is_err(), "a target that is no bytes");
    assert_eq!(Message::decode(&hex("0280")), Ok(Message::Ack(0)));
    assert_eq!(
        Message::decode(&hex("0281a57365716e6f07")),
        Ok(Message::Ack(0)),
        "seqno is not SeqNo"
    );
    assert_eq!(
        Message::decode(&hex("0282a55365714e6f07a75061796c6f6164a0")),
        Ok(Message::Ack(7)),
        "SeqNo before Payload, and an empty Payload in place of nil"
    );
}
