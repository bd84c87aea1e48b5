//! Any message of a member, however it was made, leaves a node as it should be: going, bounded, and with its own rows.

use super::{TABLE, settled};
use crate::networkdb::{Effect, Input, NetworkDb, StreamId};
use crate::simulation::network;
use crate::time::Instant;
use crate::wire::gossip::{
    BucketsMessage, DigestMessage, MessageType, NetworkDigest, RowsMessage, SummaryMessage, WantedMessage, compound,
    envelope,
};
use crate::wire::message::Message;
use crate::wire::packet::pack;
use crate::wire::stream::encode_user;
use proptest::prelude::*;
use std::net::SocketAddr;
use std::sync::LazyLock;

/// One node of a cluster of three with three rows, and one of the others.
struct Scene {
    db: NetworkDb,
    now: Instant,
    peer: String,
    from: SocketAddr,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let net = network("net1");
    let mut simulation = settled(7, 3);
    for node in 0..3 {
        let value = vec![node as u8; 30];
        simulation
            .act(node, |db, now| {
                db.create_entry(now, TABLE, &net, &format!("k{node}"), value)
            })
            .expect("created");
    }
    simulation.run_until(crate::simulation::secs(10), "all rows are known", |s| {
        s.rows(0, &net, TABLE).len() == 3
    });
    Scene {
        db: simulation.nodes[0].db.clone(),
        now: simulation.clock_of(0),
        peer: simulation.name(1).to_string(),
        from: simulation.address(1),
    }
});

fn numbers() -> impl Strategy<Value = Vec<u64>> {
    let number = prop_oneof![any::<u64>(), 0..3_u64, Just(u64::MAX)];
    prop_oneof![
        4 => prop::collection::vec(number.clone(), 0..70),
        1 => prop::collection::vec(number, 64..65),
    ]
}

fn net_name() -> impl Strategy<Value = String> {
    prop_oneof![3 => Just("net1".to_owned()), 1 => "[a-z0-9/]{0,20}"]
}

fn sender() -> impl Strategy<Value = String> {
    prop_oneof![8 => Just(SCENE.peer.clone()), 1 => "[a-f0-9]{0,14}", 1 => Just(SCENE.db.name.to_string())]
}

/// The messages that only weft's nodes speak, with any content.
fn digests() -> impl Strategy<Value = (MessageType, Vec<u8>)> {
    let networks = prop::collection::vec((net_name(), any::<u64>()), 0..30);
    let digest = (sender(), networks).prop_map(|(node_name, networks)| {
        let networks = networks.into_iter();
        let networks = networks.map(|(network_id, total)| NetworkDigest { network_id, total });
        let networks = networks.collect();
        (
            MessageType::Digest,
            envelope(MessageType::Digest, &DigestMessage { node_name, networks }),
        )
    });
    let buckets = (sender(), net_name(), numbers()).prop_map(|(node_name, network_id, sums)| {
        let message = BucketsMessage {
            node_name,
            network_id,
            sums,
        };
        (MessageType::Buckets, envelope(MessageType::Buckets, &message))
    });
    let lists = (numbers(), numbers(), numbers(), any::<bool>());
    let summary = (sender(), net_name(), any::<u64>(), lists).prop_map(|(node_name, network_id, buckets, lists)| {
        let (keys, mut times, mut contents, equal) = lists;
        if equal {
            times.resize(keys.len(), 1);
            contents.resize(keys.len(), 1);
        }
        let message = SummaryMessage {
            node_name,
            network_id,
            buckets,
            keys,
            times,
            contents,
        };
        (MessageType::Summary, envelope(MessageType::Summary, &message))
    });
    let wanted = (sender(), net_name(), numbers()).prop_map(|(node_name, network_id, keys)| {
        let message = WantedMessage {
            node_name,
            network_id,
            keys,
        };
        (MessageType::Wanted, envelope(MessageType::Wanted, &message))
    });
    let payload = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5);
    let rows = (sender(), any::<u64>(), payload).prop_map(|(node_name, l_time, parts)| {
        let payload = compound(parts);
        let message = RowsMessage {
            node_name,
            l_time,
            payload,
        };
        (MessageType::Rows, envelope(MessageType::Rows, &message))
    });
    prop_oneof![digest, buckets, summary, wanted, rows]
}

/// What a copy of the scene's node sends because of a message, in ten seconds; and the node then.
fn after(message: &[u8], by_stream: bool) -> (usize, NetworkDb) {
    let (mut db, from) = (SCENE.db.clone(), SCENE.from);
    let input = if by_stream {
        let bytes = encode_user(message);
        Input::StreamRequest {
            stream: StreamId(1 << 40),
            from,
            bytes,
        }
    } else {
        let bytes = pack(&[Message::User(message.to_vec()).encode()], true);
        Input::Datagram { from, bytes }
    };
    let (mut now, mut sent) = (SCENE.now, 0);
    let end = now + crate::simulation::secs(3);
    db.handle(now, input);
    loop {
        while let Some(effect) = db.poll_effect() {
            if let Effect::Datagram { bytes, .. } | Effect::OpenStream { bytes, .. } = effect {
                sent += bytes.len();
            }
        }
        let Some(next) = db.poll_timeout().filter(|next| *next <= end) else {
            return (sent, db);
        };
        now = now.max(next);
        db.handle_timeout(now);
    }
}

/// How much a node sends in that time anyway, and for three rows that differ.
const MOST_BYTES: usize = 60_000;

proptest! {
    #[test]
    fn a_digest_with_any_content_is_answered_within_bounds((kind, message) in digests(), by_stream in any::<bool>()) {
        let (sent, db) = after(&message, by_stream);
        prop_assert!(sent < MOST_BYTES, "{kind:?}: {sent} bytes");
        prop_assert_eq!(db.get_entry(TABLE, &network("net1"), "k0"), Ok(&[0_u8; 30][..]));
    }

    #[test]
    fn a_damaged_digest_is_survived(
        (kind, message) in digests(),
        place in any::<prop::sample::Index>(),
        value in any::<u8>(),
        cut in any::<prop::sample::Index>(),
        by_stream in any::<bool>(),
    ) {
        let mut damaged = message.clone();
        let place = place.index(damaged.len());
        damaged[place] = value;
        for bytes in [&damaged[..], &message[..cut.index(message.len())]] {
            let (sent, db) = after(bytes, by_stream);
            prop_assert!(sent < MOST_BYTES, "{kind:?}: {sent} bytes");
            prop_assert_eq!(db.get_entry(TABLE, &network("net1"), "k0"), Ok(&[0_u8; 30][..]));
        }
    }
}

#[test]
fn what_is_asked_for_by_a_member_is_sent() {
    // Without this the properties above could hold of a node that takes no such message at all.
    let before = SCENE.db.stats();
    let node_name = SCENE.peer.clone();
    let differing = NetworkDigest {
        network_id: "net1".to_owned(),
        total: 1,
    };
    let digest = DigestMessage {
        node_name: node_name.clone(),
        networks: vec![differing],
    };
    let (_, db) = after(&envelope(MessageType::Digest, &digest), false);
    assert_eq!(db.repair.differed, SCENE.db.repair.differed + 1);
    let summary = SummaryMessage {
        node_name,
        network_id: "net1".to_owned(),
        buckets: u64::MAX,
        ..SummaryMessage::default()
    };
    let (_, db) = after(&envelope(MessageType::Summary, &summary), true);
    // Three rows and three attachments, but not the peer's own.
    assert!(db.repair.sent >= SCENE.db.repair.sent + 5, "{}", db.repair.sent);
    let lists = SummaryMessage {
        keys: vec![1],
        ..summary
    };
    let (_, db) = after(&envelope(MessageType::Summary, &lists), false);
    assert_eq!(
        db.refused_gossip,
        SCENE.db.refused_gossip + 1,
        "lists of unequal length"
    );
    assert_eq!(before, SCENE.db.stats());
}
