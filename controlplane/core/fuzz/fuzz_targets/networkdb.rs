//! Any message of a member is taken or refused by a node that has tables, and leaves that node going.
//!
//! The first byte chooses the type, the second whether the sender and the network are put right, which bytes at random seldom are.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::net::SocketAddr;
use std::sync::LazyLock;
use weft_core::networkdb::{Effect, Input, NetworkDb, StreamId};
use weft_core::simulation::{CALM, Simulation, network, secs};
use weft_core::time::Instant;
use weft_core::wire::gossip::{MessageType, envelope};
use weft_core::wire::message::Message;
use weft_core::wire::packet::pack;
use weft_core::wire::stream::encode_user;

/// A node among three, and one of the others.
struct Scene {
    db: NetworkDb,
    now: Instant,
    peer: String,
    from: SocketAddr,
}

const TYPES: [MessageType; 12] = [
    MessageType::NetworkEvent,
    MessageType::TableEvent,
    MessageType::PushPull,
    MessageType::BulkSync,
    MessageType::Compound,
    MessageType::NodeEvent,
    MessageType::Digest,
    MessageType::Buckets,
    MessageType::Summary,
    MessageType::Wanted,
    MessageType::Rows,
    MessageType::Invalid,
];

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let net = network("net1");
    let mut simulation = Simulation::cluster(7, CALM, 3, &net);
    simulation.run_for(secs(20));
    for node in 0..3 {
        simulation
            .act(node, |db, now| db.create_entry(now, "t1", &net, &format!("k{node}"), vec![node as u8; 30]))
            .expect("an entry");
    }
    simulation.run_for(secs(10));
    assert_eq!(simulation.rows(0, &net, "t1").len(), 3);
    Scene {
        db: simulation.nodes[0].db.clone(),
        now: simulation.clock_of(0),
        peer: simulation.name(1).to_string(),
        from: simulation.address(1),
    }
});

/// A text or bytes as a field.
fn field(tag: u8, text: &str) -> Vec<u8> {
    [&[tag << 3 | 2, text.len() as u8], text.as_bytes()].concat()
}

/// Where a type names its sender and its network.
fn corrected(kind: MessageType, scene: &Scene) -> Vec<u8> {
    let (node, net) = match kind {
        MessageType::NodeEvent | MessageType::PushPull => (3, None),
        MessageType::NetworkEvent | MessageType::TableEvent => (3, Some(4)),
        MessageType::BulkSync => (3, Some(4)),
        MessageType::Buckets | MessageType::Summary | MessageType::Wanted => (1, Some(2)),
        MessageType::Digest | MessageType::Rows => (1, None),
        MessageType::Compound | MessageType::Invalid => return Vec::new(),
    };
    [field(node, &scene.peer), net.map_or_else(Vec::new, |tag| field(tag, "net1"))].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let scene = &*SCENE;
    let mut db = scene.db.clone();
    let [first, second, content @ ..] = bytes else { return };
    let kind = TYPES[usize::from(*first) % TYPES.len()];
    let mut content = content.to_vec();
    if second & 1 == 0 {
        content.extend(corrected(kind, scene));
    }
    // Both are one field: the type, and the content as it is.
    let mut message = envelope(kind, &());
    let mut length = content.len();
    message.push(2 << 3 | 2);
    while length >= 0x80 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend(content);
    let input = if second & 2 == 0 {
        let bytes = pack(&[Message::User(message).encode()], true);
        Input::Datagram { from: scene.from, bytes }
    } else {
        let bytes = encode_user(&message);
        Input::StreamRequest { stream: StreamId(1 << 40), from: scene.from, bytes }
    };
    let mut now = scene.now;
    db.handle(now, input);
    let mut sent = 0;
    for _ in 0..20 {
        while let Some(effect) = db.poll_effect() {
            if let Effect::Datagram { bytes, .. } | Effect::OpenStream { bytes, .. } = effect {
                sent += bytes.len();
            }
        }
        let Some(next) = db.poll_timeout() else { break };
        now = now.max(next);
        db.handle_timeout(now);
    }
    // Three rows of thirty bytes, however often they are asked for by one message.
    assert!(sent < 200_000, "{sent} bytes were sent");
});
