//! Every decoder, on random bytes and on real messages that were cut, changed or put together wrongly; and lengths that lie.

use super::super::gossip::{
    BucketsMessage, BulkSyncMessage, Change, CompoundMessage, DigestMessage, GossipMessage, MessageType, NetworkDigest,
    NetworkEntry, NetworkEvent, NetworkPushPull, NodeEvent, Presence, RowsMessage, SummaryMessage, TableEvent,
    WantedMessage, compound, envelope, read, read_lists,
};
use super::super::keyring::{Key, Keyring};
use super::super::message::Message;
use super::super::msgpack::Reader;
use super::super::packet::{pack, unpack};
use super::super::protobuf::count_fields;
use super::super::stream::{
    Completeness, MAX_MESSAGE_BYTES, completeness, decode, encode_error, encode_push_pull, encode_user,
};
use super::super::{WireError, compress};
use super::{captured_push_pull, hex};
use proptest::prelude::*;
use prost::Message as _;

fn ring() -> Keyring {
    Keyring::new(Key::new(b"0123456789abcdef").expect("key"), Vec::new())
}

fn table_event() -> TableEvent {
    TableEvent {
        r#type: Change::Create.into(),
        l_time: 300,
        node_name: "nodeaaaaaaaa".into(),
        network_id: "net1".into(),
        table_name: "t1".into(),
        key: "k1".into(),
        value: vec![7; 60],
        residual_reap_time: 5,
    }
}

/// One of each message of NetworkDB, in its envelope.
fn gossip() -> Vec<Vec<u8>> {
    let node_name = || "nodeaaaaaaaa".to_owned();
    let network_id = || "net1".to_owned();
    let payload = compound(vec![envelope(MessageType::TableEvent, &table_event())]);
    let node = NodeEvent {
        r#type: Presence::Join.into(),
        l_time: 9,
        node_name: node_name(),
    };
    let network = NetworkEvent {
        r#type: Presence::Leave.into(),
        l_time: 9,
        node_name: node_name(),
        network_id: network_id(),
    };
    let entry = NetworkEntry {
        network_id: network_id(),
        l_time: 9,
        node_name: node_name(),
        leaving: true,
    };
    let view = NetworkPushPull {
        l_time: 9,
        networks: vec![entry; 3],
        node_name: node_name(),
    };
    let bulk = BulkSyncMessage {
        l_time: 9,
        unsolicited: true,
        node_name: node_name(),
        networks: vec![network_id(), "net2".to_owned()],
        payload: payload.clone(),
    };
    let digest = NetworkDigest {
        network_id: network_id(),
        total: u64::MAX,
    };
    let digest = DigestMessage {
        node_name: node_name(),
        networks: vec![digest; 2],
    };
    let buckets = BucketsMessage {
        node_name: node_name(),
        network_id: network_id(),
        sums: (0..64).collect(),
    };
    let summary = SummaryMessage {
        node_name: node_name(),
        network_id: network_id(),
        buckets: 3,
        keys: vec![1, 2],
        times: vec![1 << 60, 2],
        contents: vec![5, 6],
    };
    let wanted = WantedMessage {
        node_name: node_name(),
        network_id: network_id(),
        keys: vec![1, 2, 3],
    };
    let rows = RowsMessage {
        node_name: node_name(),
        l_time: 9,
        payload: payload.clone(),
    };
    vec![
        envelope(MessageType::NodeEvent, &node),
        envelope(MessageType::NetworkEvent, &network),
        envelope(MessageType::TableEvent, &table_event()),
        envelope(MessageType::PushPull, &view),
        envelope(MessageType::BulkSync, &bulk),
        envelope(MessageType::Digest, &digest),
        envelope(MessageType::Buckets, &buckets),
        envelope(MessageType::Summary, &summary),
        envelope(MessageType::Wanted, &wanted),
        envelope(MessageType::Rows, &rows),
        payload,
    ]
}

/// Real messages of every kind, as they are on the wire.
fn messages() -> Vec<Vec<u8>> {
    let (view, push_pull) = captured_push_pull();
    let mut messages = vec![
        hex(
            "00 85 a44e6f6465 ac6e6f64656262626262626262 a55365714e6f 01 aa536f7572636541646472 a40a000001
             aa536f757263654e6f6465 ac6e6f64656161616161616161 aa536f75726365506f7274 cd1f0a",
        ),
        hex("0282a75061796c6f6164c0a55365714e6f01"),
        hex("0b81a55365714e6f02"),
        hex("0383a446726f6da161ab496e6361726e6174696f6e03a44e6f6465a162"),
        hex(
            "0486a441646472a40a000001ab496e6361726e6174696f6ece00011170a44d657461a0a44e6f6465ac6e6f6465616161
             6161616161a4506f7274cd1f0aa356736ea6010502000000",
        ),
        hex("0982a4416c676f00a3427566af 00d19461c3e60d0881040d222c1810"),
        encode_error("boom"),
        encode_push_pull(&push_pull),
        view,
    ];
    for message in gossip() {
        messages.push(encode_user(&message));
        messages.push(Message::User(message).encode());
    }
    let plain = messages.clone();
    for checksum in [false, true] {
        // One of many parts is long enough to be compressed.
        messages.push(pack(&plain[..2], checksum));
        messages.push(pack(&plain, checksum));
    }
    messages.extend(plain.iter().map(|plain| ring().seal_datagram([7; 12], plain.clone())));
    messages.extend(plain.into_iter().map(|plain| ring().seal_stream([7; 12], plain)));
    messages
}

/// Everything here that reads bytes of others.
fn survive(bytes: &[u8]) {
    let unpacked = unpack(bytes);
    // A part takes two bytes at least, and one part is one message or one error.
    assert!(unpacked.messages.len() + unpacked.errors.len() <= 256 * 1024);
    let _ = decode(bytes);
    if let Completeness::Whole(length) = completeness(bytes) {
        assert!(length <= bytes.len());
    }
    let mut reader = Reader::new(bytes);
    while reader.skip().is_ok() {}
    assert!(reader.position() <= bytes.len());
    if let Ok(plain) = compress::unpack(bytes, 1 << 16) {
        assert!(plain.len() <= 1 << 16);
    }
    for ring in [Keyring::default(), ring()] {
        for opened in [ring.open_datagram(bytes), ring.open_stream(bytes)]
            .into_iter()
            .flatten()
        {
            assert!(opened.len() <= bytes.len());
        }
    }
    let _ = read::<GossipMessage>(bytes);
    for content in [bytes, &read::<GossipMessage>(bytes).unwrap_or_default().data] {
        let _ = read::<NodeEvent>(content);
        let _ = read::<NetworkEvent>(content);
        let _ = read::<TableEvent>(content);
        let _ = read::<NetworkPushPull>(content);
        let _ = read::<BulkSyncMessage>(content);
        let _ = read::<CompoundMessage>(content);
        let _ = read_lists::<DigestMessage>(content);
        let _ = read_lists::<BucketsMessage>(content);
        let _ = read_lists::<SummaryMessage>(content);
        let _ = read_lists::<WantedMessage>(content);
        let _ = read::<RowsMessage>(content);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_are_read_or_refused(kind in 0_u8..14, bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        survive(&bytes);
        survive(&[vec![kind], bytes].concat());
    }

    #[test]
    fn real_messages_are_survived_however_they_were_changed(
        which in any::<prop::sample::Index>(),
        other in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
        joint in any::<prop::sample::Index>(),
    ) {
        let messages = messages();
        let mut bytes = which.get(&messages).clone();
        let whole = bytes.len();
        for (place, value) in changes {
            bytes[place.index(whole)] = value;
        }
        survive(&bytes);
        survive(&bytes[..cut.index(whole + 1)]);
        let other = other.get(&messages);
        survive(&[&bytes[..joint.index(whole)], &other[joint.index(other.len())..]].concat());
    }

    #[test]
    fn fields_are_counted_as_prost_reads_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        // What prost reads can be counted. Only what has groups, which nobody sends, is refused for being counted.
        if TableEvent::decode(&*bytes).is_ok() {
            let groups = Err(WireError::Invalid("a field has an unknown form"));
            prop_assert!(count_fields(&bytes).is_ok() || count_fields(&bytes) == groups);
        }
    }
}

#[test]
fn every_start_of_a_real_message_is_an_error_or_a_shorter_message() {
    for message in messages() {
        for length in 0..=message.len() {
            survive(&message[..length]);
        }
    }
}

#[test]
fn real_messages_are_counted_and_read() {
    for message in gossip() {
        let envelope: GossipMessage = read(&message).expect("an envelope");
        assert_eq!(count_fields(&message), Ok(2));
        assert!(count_fields(&envelope.data).is_ok_and(|fields| fields > 0));
    }
    assert_eq!(count_fields(&[]), Ok(0));
    assert_eq!(
        count_fields(&hex("0801 1001 1a00 25 00000000 29 0000000000000000")),
        Ok(5)
    );
    for broken in [
        "08",
        "08 80",
        "1a 05 00",
        "25 0000",
        "29 00000000",
        "1a ffffffffffffffffff01",
    ] {
        assert_eq!(count_fields(&hex(broken)), Err(WireError::Truncated), "{broken}");
    }
    for invalid in ["0b", "0f", "08 8080808080808080808080"] {
        assert!(
            matches!(count_fields(&hex(invalid)), Err(WireError::Invalid(_))),
            "{invalid}"
        );
    }
}

#[test]
fn lists_of_nothing_are_refused_before_they_take_memory() {
    // Each element takes two bytes here, and up to sixty once it is read.
    let elements = |tag: u8, count: usize| [tag << 3 | 2, 0].repeat(count);
    const TOO_MANY: usize = (1 << 19) + 1;
    let refused = WireError::Invalid("a message has too many fields");
    assert_eq!(read::<CompoundMessage>(&elements(1, TOO_MANY)), Err(refused.clone()));
    assert_eq!(read::<NetworkPushPull>(&elements(2, TOO_MANY)), Err(refused.clone()));
    assert_eq!(read::<BulkSyncMessage>(&elements(4, TOO_MANY)), Err(refused));
    assert!(read::<CompoundMessage>(&elements(1, 1 << 19)).is_ok());
    // A list of numbers, a byte each, in one field.
    let numbers = |count: usize| {
        let mut bytes = vec![5 << 3 | 2];
        prost::encoding::encode_varint(count as u64, &mut bytes);
        bytes.resize(bytes.len() + count, 1);
        bytes
    };
    assert!(read_lists::<SummaryMessage>(&numbers(3 << 20)).is_err());
    assert_eq!(
        read_lists::<SummaryMessage>(&numbers(1000)).map(|summary| summary.times.len()),
        Ok(1000)
    );
}

#[test]
fn a_compressed_message_may_not_unpack_to_more_than_is_allowed() {
    let bomb = |length: usize| {
        let mut wrapped = hex("0982a4416c676f00a3427566");
        super::super::msgpack::write_raw(&mut wrapped, &compress::lzw(&vec![0; length]).expect("packed"));
        wrapped
    };
    let refused = WireError::Invalid("a compressed message unpacks to more than is allowed");
    let datagram = bomb(300 << 10);
    assert!(datagram.len() < 2000, "{}", datagram.len());
    assert_eq!(unpack(&datagram).errors, std::slice::from_ref(&refused));
    let stream = bomb((40 << 20) + 1);
    assert!(stream.len() < 100_000, "{}", stream.len());
    assert_eq!(decode(&stream), Err(refused));
}

#[test]
fn lengths_that_lie_are_refused_or_waited_for() {
    // All msgpack forms of a length, up to 2^32 - 1, with nothing behind them.
    for body in [
        "81 a4 4e6f6465 db ffffffff",
        "81 a4 4e6f6465 c6 ffffffff",
        "81 a4 4e6f6465 da ffff",
        "df ffffffff",
        "de ffff",
        "81 db ffffffff",
        "81 a3 666f6f dd ffffffff",
        "81 a3 666f6f df ffffffff",
        "81 a3 666f6f c9 ffffffff 01",
    ] {
        for kind in [0, 1, 2, 3, 4, 5, 11] {
            let bytes = [vec![kind], hex(body)].concat();
            assert!(Message::decode(&bytes).is_err(), "{kind} {body}");
        }
        for kind in [6, 8, 9, 13] {
            let bytes = [vec![kind], hex(body)].concat();
            assert!(decode(&bytes).is_err(), "{kind} {body}");
        }
    }
    // More nodes than memberlist allows, and as many as it allows, of which none comes.
    let nodes = |count: &str| {
        hex(&format!(
            "06 83 a44a6f696ec3 a54e6f646573{count} ac5573657253746174654c656e00"
        ))
    };
    assert_eq!(
        decode(&nodes("ceffffffff")),
        Err(WireError::Invalid("a push/pull has more than 1048576 nodes"))
    );
    assert!(matches!(completeness(&nodes("ceffffffff")), Completeness::Invalid(_)));
    assert_eq!(decode(&nodes("ce00100000")), Err(WireError::Truncated));
    assert_eq!(completeness(&nodes("ce00100000")), Completeness::More);
    // A sealed stream of 4 GiB, a byte more than is accepted, and the longest that is.
    assert!(matches!(completeness(&hex("0a ffffffff")), Completeness::Invalid(_)));
    let longest = (MAX_MESSAGE_BYTES - 5) as u32;
    let head = |length: u32| [vec![10], length.to_be_bytes().to_vec()].concat();
    assert!(matches!(completeness(&head(longest + 1)), Completeness::Invalid(_)));
    assert_eq!(completeness(&head(longest)), Completeness::More);
    // Protobuf: a field of 2^63 bytes.
    assert_eq!(
        read::<GossipMessage>(&hex("12 ffffffffffffffff7f")),
        Err(WireError::Truncated)
    );
}
