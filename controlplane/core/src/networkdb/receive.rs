//! What NetworkDB messages change (`spec/networkdb.md` 3.9).

use super::clock::LATEST;
use super::nodes::NodeState;
use super::tables::{Entry, EntryKey};
use super::{LogLevel, NetworkDb, REAP_ENTRY};
use crate::id::{NetworkId, NodeId};
use crate::membership::UserKey;
use crate::time::{Duration, Instant};
use crate::wire::gossip::{
    BucketsMessage, BulkSyncMessage, Change, CompoundMessage, DigestMessage, GossipMessage, MessageType, NetworkEvent,
    NodeEvent, Presence, RowsMessage, SummaryMessage, TableEvent, WantedMessage, read, read_lists,
};

/// How deep compounds may nest: a bulk sync holds one.
const MAX_DEPTH: u32 = 4;

/// The longest name of a table, and the longest key, taken from others.
const MAX_NAME_BYTES: usize = 1024;

/// The largest value taken from others. An engine's records have some hundred bytes.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// From so many waiting messages on, what came by bulk sync is not told on: the others bulk sync too.
const RELAY_BULK_BELOW: usize = 500;

/// A tombstone of something unknown is told on only if it has more than this left: a sixth of its life.
const RELAY_TOMBSTONE_ABOVE: Duration = Duration::from_secs(5 * 60);

/// On which way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Told by whoever.
    Gossip,
    /// Part of a bulk sync.
    Bulk,
}

/// The content of an envelope, if it holds this type.
pub(super) fn open_envelope(bytes: &[u8], kind: MessageType) -> Option<Vec<u8>> {
    let message: GossipMessage = read(bytes).ok()?;
    (message.r#type == i32::from(kind)).then_some(message.data)
}

impl NetworkDb {
    /// Handles one message.
    pub(super) fn receive(&mut self, now: Instant, bytes: &[u8], origin: Origin) {
        if self.receive_nested(now, bytes, origin, MAX_DEPTH).is_none() {
            self.refused_gossip += 1;
        }
    }

    /// `None` if it cannot be read.
    fn receive_nested(&mut self, now: Instant, bytes: &[u8], origin: Origin, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let message: GossipMessage = read(bytes).ok()?;
        match MessageType::try_from(message.r#type).ok()? {
            MessageType::NodeEvent => {
                let event: NodeEvent = read(&message.data).ok()?;
                if self.presence_event(now, event.r#type(), event.l_time, &event.node_name) {
                    let node = NodeId::new(event.node_name).ok()?;
                    self.membership
                        .broadcast(UserKey::Presence(node, event.l_time), bytes.to_vec());
                }
            }
            MessageType::NetworkEvent => {
                let event: NetworkEvent = read(&message.data).ok()?;
                if self.attachment_event(now, &event) {
                    self.relay_attachment(&event, bytes.to_vec());
                }
            }
            MessageType::TableEvent => {
                let event: TableEvent = read(&message.data).ok()?;
                self.table_event(now, event, bytes, origin);
            }
            MessageType::Compound => {
                for part in read::<CompoundMessage>(&message.data).ok()?.messages {
                    if self.receive_nested(now, &part.payload, origin, depth).is_none() {
                        self.refused_gossip += 1;
                    }
                }
            }
            MessageType::BulkSync => {
                let sync: BulkSyncMessage = read(&message.data).ok()?;
                // A bulk sync inside of a bulk sync would be an amplifier.
                if origin == Origin::Bulk {
                    return None;
                }
                self.receive_bulk_sync(now, sync);
            }
            MessageType::Digest => self.receive_digest(read_lists::<DigestMessage>(&message.data).ok()?),
            MessageType::Buckets => self.receive_buckets(&read_lists::<BucketsMessage>(&message.data).ok()?),
            MessageType::Summary => self.receive_summary(now, &read_lists::<SummaryMessage>(&message.data).ok()?),
            MessageType::Wanted => self.receive_wanted(now, &read_lists::<WantedMessage>(&message.data).ok()?),
            MessageType::Rows => {
                let rows: RowsMessage = read(&message.data).ok()?;
                if origin == Origin::Bulk {
                    return None;
                }
                self.receive_rows(now, &rows);
            }
            MessageType::PushPull | MessageType::Invalid => return None,
        }
        Some(())
    }

    /// A node came or leaves; true if that was news.
    pub(super) fn presence_event(&mut self, now: Instant, presence: Presence, time: u64, name: &str) -> bool {
        self.network_clock.witness(time);
        let Some(node) = NodeId::new(name).ok().filter(|_| time <= LATEST) else {
            self.refused_gossip += 1;
            return false;
        };
        if node == self.name {
            return false;
        }
        let Some(record) = self.nodes.get_mut(&node).filter(|record| record.time < time) else {
            return false;
        };
        record.time = time;
        // A node that is not active comes back by membership alone, which knows whether it answers.
        if presence != Presence::Leave || record.state != NodeState::Active {
            return false;
        }
        self.node_left(now, &node);
        true
    }

    fn table_event(&mut self, now: Instant, event: TableEvent, bytes: &[u8], origin: Origin) {
        self.table_clock.witness(event.l_time);
        let (Ok(owner), Ok(network)) = (NodeId::new(&*event.node_name), NetworkId::new(&*event.network_id)) else {
            self.refused_gossip += 1;
            return;
        };
        let too_long = event.table_name.len().max(event.key.len()) > MAX_NAME_BYTES;
        let too_late = event.l_time > LATEST;
        if too_long || too_late || event.value.len() > MAX_VALUE_BYTES || event.r#type() == Change::Invalid {
            self.refused_gossip += 1;
            return;
        }
        let joined = self.own.get(&network).is_some_and(|own| !own.at.leaving);
        let key = EntryKey::new(&network, &event.table_name, &event.key);
        // This node's own tombstone may have given way to an entry whose node is gone since, and an older one have come again.
        let own_tombstone = owner == self.name
            && event.r#type() == Change::Delete
            && self.tables.find(&key).is_some_and(Entry::visible);
        if owner == self.name && joined && event.r#type() != Change::Delete {
            if self.is_taken_over_by_failed(&key, event.l_time) {
                self.store(now, &key, owner, event);
            } else {
                self.disown(now, key, event.l_time);
            }
            return;
        }
        if (owner == self.name && !own_tombstone) || !joined {
            return;
        }
        if !own_tombstone && !self.is_attached(&owner, &network) && !self.buries(&key, &event, &owner, origin) {
            if origin == Origin::Gossip {
                // News of its attachment was lost, or is slower than this: a peer knows.
                self.repair_soon(now);
            }
            return;
        }
        let known = self.tables.find(&key);
        if known.is_some_and(|known| !self.gives_way(known, &event, &owner)) {
            return;
        }
        if known.is_none() && self.tables.full() {
            self.refused_entries += 1;
            return;
        }
        let relay = self.relays(&event, known.is_some(), origin);
        self.store(now, &key, owner, event);
        if relay {
            self.relay(&network, key, bytes, origin);
        }
    }

    /// Whether this node's own entry of some time had to give way to one of a failed node at the very same time, as that one has the greater
    /// name. Until it returns, the own one stands; a tombstone would be later than either.
    fn is_taken_over_by_failed(&self, key: &EntryKey, time: u64) -> bool {
        let known = self.tables.find(key);
        known.is_some_and(|known| known.hidden && !known.deleted && known.time == time && known.owner != self.name)
    }

    /// Whether an event is the tombstone, by a node that is gone or was never known here, of an entry that shows here: a peer holds it
    /// against the entry.
    fn buries(&self, key: &EntryKey, event: &TableEvent, owner: &NodeId, origin: Origin) -> bool {
        let deletes = origin == Origin::Bulk && event.r#type() == Change::Delete;
        deletes && !self.is_active(owner) && self.tables.find(key).is_some_and(Entry::visible)
    }

    /// Whether an entry gives way to an event.
    fn gives_way(&self, known: &Entry, event: &TableEvent, owner: &NodeId) -> bool {
        if event.r#type() != Change::Delete {
            // What a failed node wrote waits for its return. Meanwhile an address or a key that it had may belong to somebody who never
            // heard of it, and so writes with an earlier time.
            let active = self.is_active(owner);
            if active && (known.hidden || self.is_replaced(&known.owner)) {
                return true;
            }
            if known.visible() && !active {
                return false;
            }
        }
        known.rank() < (event.l_time, owner, event.r#type() == Change::Delete, &event.value)
    }

    fn relays(&self, event: &TableEvent, known: bool, origin: Origin) -> bool {
        if event.r#type() != Change::Delete || known {
            return true;
        }
        // Nobody here knew the entry; that others do not know either is likely unless this is how news travel after an outage.
        let residual = Duration::from_secs(u64::try_from(event.residual_reap_time).unwrap_or_default());
        origin == Origin::Bulk && residual > RELAY_TOMBSTONE_ABOVE
    }

    fn store(&mut self, now: Instant, key: &EntryKey, owner: NodeId, event: TableEvent) {
        let deleted = event.r#type() == Change::Delete;
        let residual = match u64::try_from(event.residual_reap_time).unwrap_or_default() {
            0 => REAP_ENTRY,
            seconds => Duration::from_secs(seconds).min(REAP_ENTRY),
        };
        if deleted && event.residual_reap_time <= 0 {
            let message = format!(
                "tombstone of {} in table {} without a remaining time",
                key.key, key.table
            );
            self.log(LogLevel::Debug, message);
        }
        let hidden = !deleted && !self.is_active(&owner);
        let entry = Entry {
            owner,
            time: event.l_time,
            value: event.value,
            deleted,
            hidden,
            until: now + residual,
        };
        let visible = entry.visible().then(|| (entry.value.clone(), entry.owner.clone()));
        if !self.is_active(&entry.owner) {
            self.tables.set_live(&entry.owner, false);
        }
        let old = self.tables.insert(key.clone(), entry).filter(Entry::visible);
        match (visible, old) {
            (Some((value, owner)), _) => self.tell_set(key, value, owner),
            (None, Some(old)) => self.tell_gone(key, old.value, old.owner),
            (None, None) => {}
        }
    }

    /// Tells a table message on, as it came.
    fn relay(&mut self, network: &NetworkId, key: EntryKey, bytes: &[u8], origin: Origin) {
        let fits = bytes.len() <= self.table_message_limit();
        let Some(own) = self.own.get_mut(network).filter(|own| own.in_sync()) else {
            return;
        };
        if fits && (origin == Origin::Gossip || own.relay.len() < RELAY_BULK_BELOW) {
            own.relay.push(Some((key.table, key.key)), bytes.to_vec());
        }
    }
}
