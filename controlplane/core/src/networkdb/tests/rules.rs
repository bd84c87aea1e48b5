//! The rules of `spec/networkdb.md` 3.6, 3.9 and 3.10 for received messages, one by one, at one node of a quiet cluster.

use super::{TABLE, settled};
use crate::networkdb::{Effect, Event, Input, NetworkDb, REAP_ENTRY, StreamId};
use crate::simulation::{network, secs};
use crate::time::{Duration, Instant};
use crate::wire::gossip::{
    BulkSyncMessage, Change, GossipMessage, MessageType, NetworkEvent, NodeEvent, Presence, TableEvent, compound,
    envelope, read,
};
use crate::wire::message::Message;
use crate::wire::packet::pack;
use crate::wire::stream::{StreamMessage, decode, encode_user};
use std::net::SocketAddr;

/// Node 0 of three, and the names of the others.
struct Listener {
    db: NetworkDb,
    now: Instant,
    from: SocketAddr,
    peers: [String; 2],
    events: Vec<Event>,
    streams: Vec<Vec<u8>>,
}

impl Listener {
    fn new() -> Listener {
        let simulation = settled(3, 3);
        Listener {
            db: simulation.nodes[0].db.clone(),
            now: simulation.clock_of(0),
            from: simulation.address(1),
            peers: [1, 2].map(|node| simulation.name(node).to_string()),
            events: Vec::new(),
            streams: Vec::new(),
        }
    }

    fn event(&self, change: Change, time: u64, key: &str, value: &[u8]) -> TableEvent {
        TableEvent {
            r#type: change.into(),
            l_time: time,
            node_name: self.peers[0].clone(),
            network_id: "net1".to_owned(),
            table_name: TABLE.to_owned(),
            key: key.to_owned(),
            value: value.to_vec(),
            residual_reap_time: if change == Change::Delete { 1800 } else { 0 },
        }
    }

    fn hear(&mut self, message: Vec<u8>) {
        let bytes = pack(&[Message::User(message).encode()], true);
        self.db.handle(self.now, Input::Datagram { from: self.from, bytes });
        self.gather();
    }

    fn hear_event(&mut self, event: &TableEvent) {
        self.hear(envelope(MessageType::TableEvent, event));
    }

    fn hear_bulk(&mut self, parts: Vec<Vec<u8>>, unsolicited: bool, time: u64) {
        let message = BulkSyncMessage {
            l_time: time,
            unsolicited,
            node_name: self.peers[0].clone(),
            networks: vec!["net1".to_owned()],
            payload: compound(parts),
        };
        let bytes = encode_user(&envelope(MessageType::BulkSync, &message));
        let (stream, from) = (StreamId(1 << 40), self.from);
        self.db.handle(self.now, Input::StreamRequest { stream, from, bytes });
        self.gather();
    }

    fn gather(&mut self) {
        while let Some(effect) = self.db.poll_effect() {
            match effect {
                Effect::Event(event) => self.events.push(event),
                Effect::OpenStream { bytes, .. } => self.streams.push(bytes),
                _ => {}
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(next) = self.db.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.db.handle_timeout(self.now);
            self.gather();
        }
        self.now = end;
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let value = self.db.get_entry(TABLE, &network("net1"), key);
        value.ok().map(<[u8]>::to_vec)
    }

    /// Messages that wait to be told on.
    fn relayed(&self) -> usize {
        self.db.own[&network("net1")].relay.len()
    }
}

#[test]
fn only_a_later_event_counts_and_the_value_before_is_told() {
    let mut listener = Listener::new();
    let time = listener.db.table_clock.time() + 10;
    listener.hear_event(&listener.event(Change::Create, time, "k", b"first"));
    assert_eq!((listener.value("k"), listener.relayed()), (Some(b"first".to_vec()), 1));
    listener.hear_event(&listener.event(Change::Create, time, "k", b"first"));
    for (change, at) in [(Change::Update, time - 1), (Change::Delete, time - 1)] {
        listener.hear_event(&listener.event(change, at, "k", b"late"));
        assert_eq!(listener.value("k"), Some(b"first".to_vec()), "{change:?}");
    }
    listener.hear_event(&listener.event(Change::Update, time + 1, "k", b"second"));
    assert_eq!(listener.value("k"), Some(b"second".to_vec()));
    listener.hear_event(&listener.event(Change::Delete, time + 2, "k", b""));
    assert_eq!(listener.value("k"), None);
    let gone = listener.events.iter().any(|event| match event {
        Event::EntryGone { key, value, .. } => (&key[..], &value[..]) == ("k", b"second"),
        _ => false,
    });
    assert!(gone, "{:?}", listener.events);
    // One message of a row is enough to tell on: the newest.
    assert_eq!(listener.relayed(), 1);
}

#[test]
fn at_one_lamport_time_all_nodes_keep_the_same_row() {
    // Two writers, in both orders.
    let kept = [false, true].map(|turned| {
        let mut listener = Listener::new();
        let time = listener.db.table_clock.time() + 10;
        let mut writers = [0, 1];
        if turned {
            writers.reverse();
        }
        for writer in writers {
            let node_name = listener.peers[writer].clone();
            let event = TableEvent {
                node_name,
                ..listener.event(Change::Create, time, "k", &[writer as u8])
            };
            listener.hear_event(&event);
        }
        listener.value("k")
    });
    assert!(kept[0].is_some());
    assert_eq!(kept[0], kept[1]);
}

#[test]
fn every_time_is_witnessed_even_of_what_is_dropped() {
    let mut listener = Listener::new();
    let far = 1_000_000;
    // Of a network that this node is not in.
    let event = TableEvent {
        network_id: "elsewhere".to_owned(),
        ..listener.event(Change::Create, far, "k", b"v")
    };
    listener.hear_event(&event);
    assert_eq!(listener.db.table_clock.time(), far + 1);
    // Of this node itself.
    let node_name = listener.db.name.to_string();
    let event = TableEvent {
        node_name,
        ..listener.event(Change::Delete, 2 * far, "k", b"v")
    };
    listener.hear_event(&event);
    assert_eq!(listener.db.table_clock.time(), 2 * far + 1);
    listener.hear_bulk(Vec::new(), false, 3 * far);
    assert_eq!(listener.db.table_clock.time(), 3 * far + 1);
    // The other clock counts nodes and their networks.
    let unknown = NodeEvent {
        r#type: Presence::Leave.into(),
        l_time: far,
        node_name: "nobody".to_owned(),
    };
    listener.hear(envelope(MessageType::NodeEvent, &unknown));
    assert_eq!(listener.db.network_clock.time(), far + 1);
    let joined = NetworkEvent {
        r#type: Presence::Join.into(),
        l_time: 2 * far,
        node_name: "nobody".to_owned(),
        network_id: "net1".to_owned(),
    };
    listener.hear(envelope(MessageType::NetworkEvent, &joined));
    assert_eq!(listener.db.network_clock.time(), 2 * far + 1);
    assert_eq!(
        listener.db.network_peers(&network("net1")).len(),
        3,
        "who is unknown is no member"
    );
    assert_eq!(listener.value("k"), None);
}

#[test]
fn rows_of_who_is_not_attached_are_refused_until_the_attachment_is_known() {
    let mut listener = Listener::new();
    let time = listener.db.table_clock.time() + 10;
    let left = NetworkEvent {
        r#type: Presence::Leave.into(),
        l_time: listener.db.network_clock.time() + 10,
        node_name: listener.peers[0].clone(),
        network_id: "net1".to_owned(),
    };
    listener.hear(envelope(MessageType::NetworkEvent, &left));
    listener.hear_event(&listener.event(Change::Create, time, "k", b"v"));
    assert_eq!(listener.value("k"), None);
    // A bulk sync brings the attachment in front of the row, as releases after 29.7 send it.
    let joined = NetworkEvent {
        r#type: Presence::Join.into(),
        l_time: left.l_time + 1,
        ..left
    };
    let parts = vec![
        envelope(MessageType::NetworkEvent, &joined),
        envelope(
            MessageType::TableEvent,
            &listener.event(Change::Create, time, "k", b"v"),
        ),
    ];
    listener.hear_bulk(parts, false, time);
    assert_eq!(listener.value("k"), Some(b"v".to_vec()));
}

#[test]
fn a_tombstone_of_something_unknown_is_told_on_only_if_it_came_by_bulk_sync_and_has_long_to_live() {
    let residual = |listener: &Listener, key: &str, seconds: i32| TableEvent {
        residual_reap_time: seconds,
        ..listener.event(Change::Delete, 1_000, key, b"")
    };
    let mut listener = Listener::new();
    listener.hear_event(&residual(&listener, "gossip", 1800));
    assert_eq!(listener.relayed(), 0);
    let part = envelope(MessageType::TableEvent, &residual(&listener, "short", 300));
    listener.hear_bulk(vec![part], false, 1_000);
    assert_eq!(listener.relayed(), 0);
    let part = envelope(MessageType::TableEvent, &residual(&listener, "long", 301));
    listener.hear_bulk(vec![part], false, 1_000);
    assert_eq!(listener.relayed(), 1);
    // All three are known from now on: what was deleted does not come back by an older event.
    for key in ["gossip", "short", "long"] {
        listener.hear_event(&listener.event(Change::Create, 999, key, b"old"));
        assert_eq!(listener.value(key), None, "{key}");
    }
}

#[test]
fn a_tombstone_without_a_remaining_time_lives_for_half_an_hour() {
    let mut listener = Listener::new();
    let deleted = TableEvent {
        residual_reap_time: 0,
        ..listener.event(Change::Delete, 1_000, "zero", b"")
    };
    listener.hear_event(&deleted);
    let short = TableEvent {
        residual_reap_time: 60,
        ..listener.event(Change::Delete, 1_000, "minute", b"")
    };
    listener.hear_event(&short);
    let known = |listener: &Listener, key: &str| {
        let net = network("net1");
        let mut entries = listener.db.tables.of_network(&net);
        entries.any(|(_, name, _)| name == key)
    };
    listener.wait(secs(90));
    assert!(known(&listener, "zero") && !known(&listener, "minute"));
    // The others are silent meanwhile and count as failed; that changes nothing for what is remembered here.
    listener.wait(REAP_ENTRY - secs(120));
    assert!(known(&listener, "zero"));
    listener.wait(secs(60));
    assert!(!known(&listener, "zero"));
}

#[test]
fn a_bulk_sync_that_asks_is_answered_with_the_same_networks_and_one_that_answers_is_not() {
    let mut listener = Listener::new();
    let net = network("net1");
    let now = listener.now;
    listener
        .db
        .create_entry(now, TABLE, &net, "own", b"v".to_vec())
        .expect("created");
    listener.gather();
    listener.streams.clear();
    listener.hear_bulk(Vec::new(), false, 5);
    assert_eq!(listener.streams.len(), 0);
    listener.hear_bulk(Vec::new(), true, 5);
    let [answer] = &listener.streams[..] else {
        panic!("{} streams", listener.streams.len())
    };
    let Ok(StreamMessage::User(message)) = decode(answer) else {
        panic!("{answer:?}")
    };
    let message: GossipMessage = read(&message).expect("an envelope");
    assert_eq!(message.r#type(), MessageType::BulkSync);
    let sync: BulkSyncMessage = read(&message.data).expect("a bulk sync");
    assert_eq!(
        (sync.unsolicited, &sync.networks[..]),
        (false, &["net1".to_owned()][..])
    );
    assert_eq!(
        (sync.node_name, sync.l_time),
        (listener.db.name.to_string(), listener.db.table_clock.time())
    );
    assert!(sync.payload.windows(3).any(|window| window == b"own"));
}

#[test]
fn what_belongs_elsewhere_is_refused_and_counted() {
    let mut listener = Listener::new();
    let before = listener.db.refused_gossip;
    // A push/pull's state in gossip, a type of the future, and a bulk sync inside of a bulk sync.
    listener.hear(envelope(MessageType::PushPull, &()));
    listener.hear(vec![8, 7]);
    listener.hear(Vec::new());
    let inner = BulkSyncMessage {
        unsolicited: true,
        node_name: listener.peers[0].clone(),
        networks: vec!["net1".to_owned()],
        ..BulkSyncMessage::default()
    };
    listener.streams.clear();
    listener.hear_bulk(vec![envelope(MessageType::BulkSync, &inner)], false, 5);
    assert_eq!(listener.streams.len(), 0, "it would be an amplifier");
    assert_eq!(listener.db.refused_gossip, before + 4);
}

#[test]
fn a_clock_that_was_set_back_loses_nothing() {
    let mut listener = Listener::new();
    let (net, then) = (network("net1"), listener.now);
    listener.hear_event(&listener.event(Change::Create, 1_000, "before", b"v"));
    let now = then + secs(5);
    listener
        .db
        .create_entry(now, TABLE, &net, "own", b"v".to_vec())
        .expect("created");
    listener.db.handle_timeout(now);
    listener.gather();
    // The caller's clock is hours behind from now on: what is written, heard and deleted then counts all the same.
    listener.now = Instant::ZERO;
    listener.hear_event(&listener.event(Change::Create, 1_001, "after", b"v"));
    listener.db.handle_timeout(Instant::ZERO);
    listener
        .db
        .create_entry(Instant::ZERO, TABLE, &net, "late", b"v".to_vec())
        .expect("created");
    listener
        .db
        .delete_entry(Instant::ZERO, TABLE, &net, "own")
        .expect("deleted");
    listener.wait(secs(2));
    for key in ["before", "after", "late"] {
        assert_eq!(listener.value(key), Some(b"v".to_vec()), "{key}");
    }
    assert_eq!(listener.value("own"), None);
    // Time comes to where it was, and nothing has ended early: the tombstone is still known.
    listener.now = now;
    listener.wait(secs(1));
    let entries = listener.db.tables.of_network(&net);
    assert_eq!(entries.filter(|(table, ..)| *table == TABLE).count(), 4);
}

#[test]
fn a_time_that_would_leave_none_for_others_is_not_believed() {
    use crate::networkdb::clock::LATEST;
    let net = network("net1");
    let mut listener = Listener::new();
    let refused = listener.db.stats().refused_gossip;
    for time in [LATEST + 1, u64::MAX] {
        listener.hear_event(&listener.event(Change::Create, time, "k", b"late"));
    }
    assert_eq!(listener.db.stats().refused_gossip, refused + 2);
    assert!(listener.db.get_entry(TABLE, &net, "k").is_err());
    listener.hear_event(&listener.event(Change::Create, LATEST, "k", b"last"));
    assert_eq!(listener.db.get_entry(TABLE, &net, "k").expect("a row"), b"last");
    let now = listener.now;
    let updated = listener.db.update_entry(now, TABLE, &net, "k", b"mine".to_vec());
    updated.expect("a row of another node");
    assert_eq!(listener.db.get_entry(TABLE, &net, "k").expect("a row"), b"mine");
}
