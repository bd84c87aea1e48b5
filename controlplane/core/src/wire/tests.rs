//! The byte vectors of `spec/networkdb.md` 3.3, captured from real nodes, and bytes that nobody sent.

mod hostile;
mod lzw;
mod vectors;

use super::gossip::{
    Change, GossipMessage, MessageType, NetworkEvent, NetworkPushPull, Presence, TableEvent, compound, envelope,
};
use super::message::{Accusation, Alive, IndirectPing, Message, Ping, Source, VERSIONS};
use super::packet::{pack, unpack};
use super::stream::{
    Completeness, NodeState, PushNode, PushPull, StreamMessage, completeness, decode, encode_error, encode_push_pull,
    encode_user,
};
use super::{WireError, compress};
use crate::id::NodeId;
use proptest::prelude::*;
use prost::Message as _;
use std::net::SocketAddr;

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("hex"))
        .collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("node id")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

/// Encodes to exactly these bytes, and reads them as exactly this message.
fn both_ways(message: Message, bytes: &str) {
    assert_eq!(message.encode(), hex(bytes), "{message:?}");
    assert_eq!(Message::decode(&hex(bytes)), Ok(message));
}

#[test]
fn messages_are_written_as_the_go_encoder_writes_them() {
    let source = Some(Source {
        address: address("10.0.0.1:7946"),
        node: "nodeaaaaaaaa".into(),
    });
    both_ways(
        Message::Ping(Ping {
            sequence: 1,
            node: "nodebbbbbbbb".into(),
            source,
        }),
        "00 85 a44e6f6465 ac6e6f64656262626262626262 a55365714e6f 01 aa536f7572636541646472 a40a000001
         aa536f757263654e6f6465 ac6e6f64656161616161616161 aa536f75726365506f7274 cd1f0a",
    );
    both_ways(
        Message::Ping(Ping {
            sequence: 300,
            node: "n".into(),
            source: None,
        }),
        "0082a44e6f6465a16ea55365714e6fcd012c",
    );
    both_ways(Message::Ack(1), "0282a75061796c6f6164c0a55365714e6f01");
    both_ways(Message::Nack(2), "0b81a55365714e6f02");
    let accusation = Accusation {
        incarnation: 3,
        node: id("b"),
        from: id("a"),
    };
    both_ways(
        Message::Suspect(accusation.clone()),
        "0383a446726f6da161ab496e6361726e6174696f6e03a44e6f6465a162",
    );
    both_ways(
        Message::Dead(accusation),
        "0583a446726f6da161ab496e6361726e6174696f6e03a44e6f6465a162",
    );
    let alive = Alive {
        incarnation: 70000,
        node: id("nodeaaaaaaaa"),
        address: address("10.0.0.1:7946"),
        meta: Vec::new(),
        versions: VERSIONS,
    };
    both_ways(
        Message::Alive(alive),
        "0486a441646472a40a000001ab496e6361726e6174696f6ece00011170a44d657461a0a44e6f6465ac6e6f6465616161
         6161616161a4506f7274cd1f0aa356736ea6010502000000",
    );
    assert_eq!(encode_error("boom"), hex("0d81a54572726f72a4626f6f6d"));
}

#[test]
fn an_indirect_ping_comes_back_whole_and_its_keys_are_sorted() {
    let source = Some(Source {
        address: address("10.0.0.1:7946"),
        node: "nodeaaaaaaaa".into(),
    });
    let ping = IndirectPing {
        sequence: 9,
        node: "b".into(),
        target: address("10.0.0.2:7947"),
        nack: true,
        source,
    };
    let bytes = Message::IndirectPing(ping.clone()).encode();
    assert_eq!(Message::decode(&bytes), Ok(Message::IndirectPing(ping)));
    let at = |key: &str| {
        bytes
            .windows(key.len())
            .position(|window| window == key.as_bytes())
            .expect(key)
    };
    let places = [
        "Nack",
        "Node",
        "Port",
        "SeqNo",
        "SourceAddr",
        "SourceNode",
        "SourcePort",
        "Target",
    ]
    .map(at);
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn numbers_and_texts_are_read_in_every_form_that_go_writes() {
    // SeqNo as int16 (d1), Node as str8 (d9), an unknown key with a nested value.
    let bytes = hex("00 83 a44e6f6465 d9016e a55365714e6f d1012c a3466f6f 93 01 81 a161 c0 c3");
    let ping = Ping {
        sequence: 300,
        node: "n".into(),
        source: None,
    };
    assert_eq!(Message::decode(&bytes), Ok(Message::Ping(ping)));
    // Extension types of every form are passed over, and nil is zero.
    for skipped in [
        "d4 01 aa",
        "d5 01 aaaa",
        "d6 01 aaaaaaaa",
        "d7 01 aaaaaaaaaaaaaaaa",
        "c7 02 01 aaaa",
        "c8 0001 01 aa",
        "c9 00000001 01 aa",
    ] {
        let bytes = hex(&format!(
            "02 83 a7556e6b6e6f776e {skipped} a75061796c6f6164 c403010203 a55365714e6f c0"
        ));
        assert_eq!(Message::decode(&bytes), Ok(Message::Ack(0)), "{skipped}");
    }
    let bytes = hex(&format!("02 81 a3466f6f d8 01 {}", "aa".repeat(16)));
    assert_eq!(Message::decode(&bytes), Ok(Message::Ack(0)));
    assert_eq!(
        Message::decode(&hex("02 81 a3466f6f c9 ffffffff 01")),
        Err(WireError::Truncated)
    );
    for (form, number) in [
        ("7f", 127),
        ("cc80", 128),
        ("cdffff", 65535),
        ("ce00010000", 65536),
        ("cf0000000000000005", 5),
        ("d07f", 127),
        ("d17fff", 32767),
        ("d27fffffff", 0x7fff_ffff),
        ("d30000000100000000", 0),
        ("d3000000000000000a", 10),
        ("ff", 0),
        ("d1ffff", 0),
    ] {
        let read = Message::decode(&hex(&format!("02 81 a55365714e6f {form}")));
        // Larger than 32 bits, or negative, it is no sequence number.
        match number {
            0 => assert!(read.is_err(), "{form}: {read:?}"),
            number => assert_eq!(read, Ok(Message::Ack(number)), "{form}"),
        }
    }
    // Addr as bin8 (c4), in sixteen bytes.
    let bytes = hex("04 83 a44e6f6465 a16e a441646472 c410 00000000000000000000ffff0a000001 a4506f7274 cd1f0a");
    match Message::decode(&bytes) {
        Ok(Message::Alive(alive)) => assert_eq!(alive.address, address("10.0.0.1:7946")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn stream_headers_are_read_in_the_old_and_the_new_form() {
    let user = vec![7; 70000];
    for header in [
        "81aa557365724d73674c656ed200011170",
        "81aa557365724d73674c656ece00011170",
    ] {
        let bytes = [hex("08"), hex(header), user.clone()].concat();
        assert_eq!(completeness(&bytes), Completeness::Whole(bytes.len()));
        assert_eq!(decode(&bytes), Ok(StreamMessage::User(user.clone())));
    }
    assert_eq!(encode_user(&user)[..18], hex("08 81aa557365724d73674c656ece00011170"));
    let two = PushPull {
        join: true,
        nodes: vec![captured_push_pull().1.nodes[0].clone(); 2],
        user_state: vec![1; 200],
    };
    let header = hex("06 83a44a6f696ec3a54e6f64657302ac5573657253746174654c656eccc8");
    assert_eq!(encode_push_pull(&two)[..header.len()], header);
    let signed = hex("06 83a44a6f696ec3a54e6f646573d10002ac5573657253746174654c656ed2000000c8");
    let rewritten = [signed, encode_push_pull(&two)[header.len()..].to_vec()].concat();
    assert_eq!(decode(&rewritten), Ok(StreamMessage::PushPull(two)));
    for length in ["d100c8", "ccc8"] {
        let header = format!("06 83a44a6f696ec3a54e6f64657300ac5573657253746174654c656e{length}");
        let bytes = [hex(&header), vec![1; 200]].concat();
        let expected = PushPull {
            join: true,
            nodes: Vec::new(),
            user_state: vec![1; 200],
        };
        assert_eq!(decode(&bytes), Ok(StreamMessage::PushPull(expected)));
    }
}

fn captured_push_pull() -> (Vec<u8>, PushPull) {
    let bytes = hex(
        "06 83a44a6f696ec3a54e6f64657301ac5573657253746174654c656e14
         87a441646472a47f000002ab496e6361726e6174696f6e01a44d657461a0a44e616d65ac6e6f64656161616161616161a4506f7274cd1f0aa5537461746500
         a356736ea6010502000000
         0803 1210 0801 1a0c6e6f64656161616161616161",
    );
    let state = NetworkPushPull {
        l_time: 1,
        networks: Vec::new(),
        node_name: "nodeaaaaaaaa".into(),
    };
    let alive = Alive {
        incarnation: 1,
        node: id("nodeaaaaaaaa"),
        address: address("127.0.0.2:7946"),
        meta: Vec::new(),
        versions: VERSIONS,
    };
    let message = PushPull {
        join: true,
        nodes: vec![PushNode {
            alive,
            state: NodeState::Alive,
        }],
        user_state: envelope(MessageType::PushPull, &state),
    };
    (bytes, message)
}

#[test]
fn the_captured_push_pull_is_read_and_written() {
    let (bytes, message) = captured_push_pull();
    assert_eq!(encode_push_pull(&message), bytes);
    assert_eq!(decode(&bytes), Ok(StreamMessage::PushPull(message)));
    assert_eq!(completeness(&bytes), Completeness::Whole(bytes.len()));
    for length in 0..bytes.len() {
        let more = completeness(&bytes[..length]);
        let wanted = matches!(more, Completeness::More) || more == Completeness::Whole(bytes.len());
        assert!(wanted, "{length}: {more:?}");
    }
    let state = GossipMessage::decode(&*hex("0803 1210 0801 1a0c6e6f64656161616161616161")).expect("state");
    assert_eq!(state.r#type(), MessageType::PushPull);
}

#[test]
fn streams_that_can_be_no_message_are_refused_early() {
    for bytes in ["f4 00", "63", "07 01", "06 01", "08 81 aa557365724d73674c656e ff"] {
        assert!(matches!(completeness(&hex(bytes)), Completeness::Invalid(_)), "{bytes}");
    }
    // 21 MiB of user message, announced.
    assert!(matches!(
        completeness(&hex("08 81aa557365724d73674c656ece01500000")),
        Completeness::Invalid(_)
    ));
}

#[test]
fn compressed_messages_are_unpacked() {
    let unpacked = unpack(&hex("0982a4416c676f00a3427566af 00d19461c3e60d0881040d222c1810"));
    // The content is a text, not a message: it starts with `h`, which is no type.
    assert_eq!(unpacked.errors, [WireError::Invalid("a message has an unknown type")]);
    let plain = compress::unpack(&hex("00d19461c3e60d0881040d222c1810"), 100).expect("unpacked");
    assert_eq!(plain, b"hello hello hello");
    let plain = compress::unpack(&hex("00c3081c48b0a0c18308132a4c1810"), 100).expect("unpacked");
    assert_eq!(plain, [b'a'; 64]);
    assert!(compress::unpack(&hex("00c3081c48b0a0c18308132a4c1810"), 63).is_err());
}

#[test]
fn a_compressed_push_pull_is_measured_and_read() {
    let (bytes, message) = captured_push_pull();
    let buffer = compress::lzw(&bytes).expect("packed");
    let mut wrapped = hex("0982a4416c676f00a3427566");
    super::msgpack::write_raw(&mut wrapped, &buffer);
    assert_eq!(completeness(&wrapped), Completeness::Whole(wrapped.len()));
    assert_eq!(completeness(&wrapped[..wrapped.len() - 1]), Completeness::More);
    assert_eq!(decode(&wrapped), Ok(StreamMessage::PushPull(message)));
}

#[test]
fn datagrams_nest_as_captured() {
    let event = NetworkEvent {
        r#type: Presence::Join.into(),
        l_time: 5,
        node_name: "nodebbbbbbbb".into(),
        network_id: "net1".into(),
    };
    let user = Message::User(envelope(MessageType::NetworkEvent, &event));
    let body = "0801 1218 0801 1005 1a0c6e6f6465626262626262626222046e657431";
    assert_eq!(user.encode(), hex(&format!("08 {body}")));
    let single = hex(&format!("0c 36769aaf 08 {body}"));
    assert_eq!(pack(&[user.encode()], true), single);
    assert_eq!(unpack(&single).messages, std::slice::from_ref(&user));
    let double = hex(&format!("0c 1c9b2ef9 07 02 001d 001d 08 {body} 08 {body}"));
    // The second message of the captured datagram is not printed in full, so the checksum of two equal ones differs.
    let ours = pack(&[user.encode(), user.encode()], true);
    assert_eq!(ours[5..], double[5..]);
    assert_eq!(unpack(&ours).messages, [user.clone(), user.clone()]);
    let mut broken = single;
    broken[12] ^= 1;
    assert_eq!(
        unpack(&broken).errors,
        [WireError::Invalid("the checksum of a datagram is wrong")]
    );
    assert_eq!(
        pack(&[b"ab".to_vec(), b"cde".to_vec()], false),
        hex("07 02 0002 0003 6162 636465")
    );
    // A tail cut off costs only what it held.
    let cut = &ours[..ours.len() - 1][5..];
    assert_eq!(unpack(cut).messages, [user]);
    assert_eq!(unpack(cut).errors, [WireError::Truncated]);
}

#[test]
fn table_gossip_is_written_as_captured() {
    let create = TableEvent {
        r#type: Change::Create.into(),
        l_time: 1,
        node_name: "nodeaaaaaaaa".into(),
        network_id: "net1".into(),
        table_name: "t1".into(),
        key: "k1".into(),
        value: b"hello".to_vec(),
        residual_reap_time: 0,
    };
    let gossip = |event: &TableEvent| Message::User(compound(vec![envelope(MessageType::TableEvent, event)])).encode();
    let created =
        "0c 72b4ea48 08 0805 122f 0a2d 0a2b 0802 1227 0801 1001 1a0c6e6f6465616161616161616122046e6574312a0274313202
                   6b313a0568656c6c6f";
    assert_eq!(pack(&[gossip(&create)], true), hex(created));
    let delete = TableEvent {
        r#type: Change::Delete.into(),
        l_time: 3,
        residual_reap_time: 1800,
        ..create
    };
    let deleted =
        "0c 99cec647 08 0805 1232 0a30 0a2e 0802 122a 0803 1003 1a0c6e6f6465616161616161616122046e6574312a0274313202
                   6b313a0568656c6c6f 40880e";
    assert_eq!(pack(&[gossip(&delete)], true), hex(deleted));
    assert_eq!(compound(Vec::new()), hex("0805"));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in 0_u8..14) {
        let typed = [vec![kind], bytes.clone()].concat();
        for bytes in [&bytes, &typed] {
            let _ = unpack(bytes);
            let _ = decode(bytes);
            let _ = completeness(bytes);
            let _ = GossipMessage::decode(&**bytes);
            let _ = TableEvent::decode(&**bytes);
        }
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut bytes, _) = captured_push_pull();
        let place = place.index(bytes.len());
        bytes[place] = value;
        bytes.truncate(cut.index(bytes.len()) + 1);
        let _ = decode(&bytes);
        let _ = completeness(&bytes);
        let mut packet = pack(&[bytes.clone(), bytes], true);
        packet.truncate(place);
        let _ = unpack(&packet);
    }

    #[test]
    fn whatever_is_packed_is_unpacked(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..255), crc in any::<bool>()) {
        let messages: Vec<_> = parts.into_iter().map(Message::User).collect();
        let encoded: Vec<_> = messages.iter().map(Message::encode).collect();
        let unpacked = unpack(&pack(&encoded, crc));
        prop_assert_eq!(unpacked.messages, messages);
        prop_assert!(unpacked.errors.is_empty());
    }
}
