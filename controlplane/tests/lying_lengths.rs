//! Lengths that lie, and what unpacks to far more than it is: refused before the memory is taken. The process's own peak tells; this
//! file has one test, because all tests of a file share that.
#![allow(clippy::unwrap_used)]

use weft_core::networkdb::{Key, Keyring};
use weft_core::record::{EndpointRecord, PeerRecord};
use weft_core::wire::gossip::{
    BulkSyncMessage, CompoundMessage, DigestMessage, GossipMessage, NetworkPushPull, SummaryMessage, TableEvent, read,
    read_lists,
};
use weft_core::wire::message::Message;
use weft_core::wire::msgpack::Reader;
use weft_core::wire::packet::unpack;
use weft_core::wire::stream::{completeness, decode};

/// Far less than the least of the lies below, and far more than all honest work here takes.
const MOST_BYTES: u64 = 256 << 20;

/// The most address space that this process ever had, touched or not.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn read_all(bytes: &[u8]) {
    let _ = unpack(bytes);
    let _ = decode(bytes);
    let _ = completeness(bytes);
    let _ = Message::decode(bytes);
    let _ = Reader::new(bytes).skip();
    let ring = Keyring::new(Key::new(&[7; 16]).unwrap(), Vec::new());
    let _ = ring.open_datagram(bytes);
    let _ = ring.open_stream(bytes);
    let _ = read::<GossipMessage>(bytes);
    let _ = read::<TableEvent>(bytes);
    let _ = read::<CompoundMessage>(bytes);
    let _ = read::<BulkSyncMessage>(bytes);
    let _ = read::<NetworkPushPull>(bytes);
    let _ = read_lists::<DigestMessage>(bytes);
    let _ = read_lists::<SummaryMessage>(bytes);
    let _ = PeerRecord::decode(bytes);
    let _ = EndpointRecord::decode(bytes);
}

#[test]
fn no_length_that_lies_takes_memory() {
    let before = peak_bytes();
    // A length of 2 to 4 GiB where msgpack, protobuf, compounds and streams have theirs, at every place of a short message.
    let lies: [&[u8]; 8] = [
        &[0xdb, 0xff, 0xff, 0xff, 0xff],
        &[0xc6, 0xff, 0xff, 0xff, 0xff],
        &[0xdd, 0xff, 0xff, 0xff, 0xff],
        &[0xdf, 0xff, 0xff, 0xff, 0xff],
        &[0xc9, 0xff, 0xff, 0xff, 0xff],
        &[0xce, 0x7f, 0xff, 0xff, 0xff],
        &[0x80, 0x80, 0x80, 0x80, 0x0f],
        &[0xff, 0xff, 0xff, 0xff],
    ];
    let fields = [b"Node", b"Addr"].map(|name| [&[0xa4], &name[..]].concat());
    for lie in lies {
        for kind in 0..=13 {
            for map in [0x81, 0x86] {
                for field in &fields {
                    read_all(&[&[kind, map][..], &field[..], lie].concat());
                }
            }
            read_all(&[&[kind][..], lie].concat());
            read_all(&[&[kind, 0x83, 0xa5][..], b"Nodes", lie].concat());
            read_all(&[&[kind, 0x81, 0xaa][..], b"UserMsgLen", lie, &[1; 40]].concat());
            read_all(&[&[kind, 0x83, 0xac][..], b"UserStateLen", lie, &[1; 40]].concat());
            read_all(&[&[kind, 0x82, 0xa4][..], b"Algo\0\xa3Buf", lie, &[1; 40]].concat());
        }
        for tag in 1..=9_u8 {
            for form in [0, 1, 2, 5] {
                read_all(&[&[tag << 3 | form][..], lie, &[1; 40]].concat());
            }
        }
    }
    // Twenty million elements of nothing, two bytes each, as they come out of a stream; as read they would take a gigabyte.
    for tag in [1, 2, 4] {
        let elements = [tag << 3 | 2, 0].repeat(20 << 20);
        let _ = read::<CompoundMessage>(&elements);
        let _ = read::<BulkSyncMessage>(&elements);
        let _ = read::<NetworkPushPull>(&elements);
        let _ = read_lists::<DigestMessage>(&elements);
    }
    let grown = peak_bytes() - before;
    assert!(grown < MOST_BYTES, "{} MiB were taken", grown >> 20);
}
