//! What does not fit: told, counted, or sent in parts.

use super::super::attachments::{Attachment, MAX_TABLE_BROADCASTS};
use super::super::receive::open_envelope;
use super::{TABLE, alone};
use crate::id::NodeId;
use crate::simulation::network;
use crate::time::Instant;
use crate::wire::gossip::{MessageType, NetworkPushPull};
use prost::Message;
use std::collections::BTreeSet;

#[test]
fn a_state_too_large_for_old_engines_is_told_in_parts() {
    let (mut db, mine) = (alone(), network("mine"));
    db.join_network(Instant::ZERO, &mine).expect("joined");
    let attachment = Attachment {
        time: u64::MAX,
        leaving: true,
        until: Instant::ZERO,
    };
    let nodes: Vec<_> = (0..60)
        .map(|node| NodeId::new(format!("node{node:08}")).expect("name"))
        .collect();
    for node in &nodes {
        let networks = (0..1000).map(|number| (network(&format!("{number:0128}")), attachment.clone()));
        db.attachments.insert(node.clone(), networks.collect());
    }
    let mut told = BTreeSet::new();
    for _ in 0..30 {
        let state = db.state();
        assert!((5 << 20..=6 << 20).contains(&state.len()), "{} bytes", state.len());
        let state = open_envelope(&state, MessageType::PushPull).expect("a state");
        let state = NetworkPushPull::decode(&*state).expect("a state");
        let of_this_node = |entry: &&crate::wire::gossip::NetworkEntry| entry.node_name == db.name().as_str();
        assert_eq!(state.networks.iter().filter(of_this_node).count(), 1);
        told.extend(
            state
                .networks
                .into_iter()
                .map(|entry| (entry.node_name, entry.network_id)),
        );
    }
    assert_eq!(told.len(), 60 * 1000 + 1, "in time all are told");
}

#[test]
fn messages_that_a_full_queue_drops_are_counted_also_after_the_network_is_left() {
    let (mut db, net, now) = (alone(), network("net1"), Instant::ZERO);
    db.join_network(now, &net).expect("joined");
    let write = |db: &mut super::NetworkDb, key: usize| {
        let key = key.to_string();
        db.create_entry(now, TABLE, &net, &key, vec![1]).expect("created");
    };
    for key in 0..MAX_TABLE_BROADCASTS {
        write(&mut db, key);
    }
    assert_eq!(
        (db.stats().dropped_messages, db.stats().queued),
        (0, MAX_TABLE_BROADCASTS)
    );
    for key in 0..7 {
        write(&mut db, MAX_TABLE_BROADCASTS + key);
    }
    assert_eq!(
        (db.stats().dropped_messages, db.stats().queued),
        (7, MAX_TABLE_BROADCASTS)
    );
    // A newer message of a key takes the place of the older one, and nothing is lost.
    for value in 0..7 {
        let key = (MAX_TABLE_BROADCASTS + value).to_string();
        db.update_entry(now, TABLE, &net, &key, vec![2]).expect("updated");
    }
    assert_eq!(db.stats().dropped_messages, 7);
    db.leave_network(now, &net).expect("left");
    db.join_network(now, &net).expect("joined again");
    assert_eq!((db.stats().dropped_messages, db.stats().queued), (7, 0));
}
