//! Reading and writing entries (`spec/networkdb.md` 3.8; errors `spec/diag-api.md` 1.5).

use super::tables::{Entry, EntryKey, MAX_ENTRIES};
use super::{EntryError, EntryName, LogLevel, NetworkDb, OwnerState, REAP_ENTRY, Row};
use crate::id::NetworkId;
use crate::recording::{Happening, Written};
use crate::time::{Duration, Instant};
use crate::wire::gossip::{Change, MessageType, TableEvent, envelope};
use crate::wire::stream::NodeState;

/// The longest name of a table and the longest key that can be written here. Docker's tables have names of 18 letters, its keys
/// are ids of 64 digits.
const MAX_NAME_BYTES: usize = 256;

impl NetworkDb {
    /// Writes an entry that does not exist, or was deleted, or is hidden. Whether this node takes part in the network does not
    /// matter: the entry is sent once it does.
    pub fn create_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), EntryError> {
        self.record(now, || Happening::Create(Written::new(table, network, key, &value)));
        if self.tables.get(network, table, key).is_some_and(Entry::visible) {
            return Err(EntryError::Exists(entry_name(table, network, key)));
        }
        self.check_names(table, key)?;
        self.write(now, Change::Create, EntryKey::new(network, table, key), value)
    }

    /// Gives an entry a new value. This node owns it from now on.
    pub fn update_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), EntryError> {
        self.record(now, || Happening::Update(Written::new(table, network, key, &value)));
        if !self.tables.get(network, table, key).is_some_and(Entry::visible) {
            return Err(EntryError::NothingToUpdate(entry_name(table, network, key)));
        }
        self.write(now, Change::Update, EntryKey::new(network, table, key), value)
    }

    /// Deletes an entry, whoever owns it.
    pub fn delete_entry(
        &mut self,
        now: Instant,
        table: &str,
        network: &NetworkId,
        key: &str,
    ) -> Result<(), EntryError> {
        self.record(now, || Happening::Delete(Written::new(table, network, key, &[])));
        let Some(entry) = self.tables.get(network, table, key).filter(|entry| entry.visible()) else {
            return Err(EntryError::NothingToDelete(entry_name(table, network, key)));
        };
        let value = entry.value.clone();
        self.write(now, Change::Delete, EntryKey::new(network, table, key), value)
    }

    /// The value of an entry.
    pub fn get_entry(&self, table: &str, network: &NetworkId, key: &str) -> Result<&[u8], EntryError> {
        match self.tables.get(network, table, key) {
            None => Err(EntryError::Missing(entry_name(table, network, key))),
            Some(entry) if entry.deleted => Err(EntryError::Deleted(entry_name(table, network, key))),
            Some(entry) if entry.hidden => Err(EntryError::Hidden(entry_name(table, network, key))),
            Some(entry) => Ok(&entry.value),
        }
    }

    /// The visible entries of a table of exactly this network, by key.
    pub fn rows<'a>(&'a self, network: &NetworkId, table: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        self.rows_of_all(network, table)
            .filter(|row| row.owner_state != OwnerState::Failed)
    }

    /// The same, and those that are kept for the return of failed nodes.
    pub fn rows_of_all<'a>(&'a self, network: &NetworkId, table: &str) -> impl Iterator<Item = Row<'a>> + use<'a> {
        let entries = self.tables.of_table(network, table);
        entries.filter(|(_, entry)| !entry.deleted).map(|(key, entry)| Row {
            key,
            value: &entry.value,
            owner: &entry.owner,
            owner_state: self.owner_state(entry),
        })
    }

    pub(super) fn owner_state(&self, entry: &Entry) -> OwnerState {
        if entry.hidden {
            return OwnerState::Failed;
        }
        if self.is_replaced(&entry.owner) {
            return OwnerState::Replaced;
        }
        match self.membership.member(&entry.owner) {
            Some(member) if member.state == NodeState::Suspect => OwnerState::Suspect,
            _ => OwnerState::Alive,
        }
    }

    /// Somebody tells of an entry of this node that this node does not hold: others wrote or deleted it and left or failed, which took
    /// their word back here but not where it never arrived. The owner decides: it is gone.
    pub(super) fn disown(&mut self, now: Instant, key: EntryKey, time: u64) {
        // Who came later takes no word of a deleter that is gone.
        let orphaned = |known: &Entry| known.deleted && known.owner != self.name && !self.is_active(&known.owner);
        let newer = |known: &Entry| known.time >= time && !known.hidden && !orphaned(known);
        if self.tables.find(&key).is_some_and(newer) || self.tables.full() {
            return;
        }
        self.log(
            LogLevel::Debug,
            format!(
                "entry {} in table {} is told of, and this node has deleted it",
                key.key, key.table
            ),
        );
        let tombstone = Entry {
            owner: self.name.clone(),
            time: self.taken_back(&key.network, time),
            value: Vec::new(),
            deleted: true,
            hidden: false,
            until: now + REAP_ENTRY,
        };
        self.announce_entry(now, Change::Delete, &key, &tombstone);
        // What a failed node wrote later stays for its return.
        if self
            .tables
            .find(&key)
            .is_none_or(|known| known.rank() < tombstone.rank())
            && let Some(old) = self.tables.insert(key.clone(), tombstone).filter(Entry::visible)
        {
            self.tell_gone(&key, old.value, old.owner);
        }
    }

    /// The time of the tombstone by which this node takes back a row of its own: the row's, so that nobody who wrote the key unheard
    /// loses to it. Engines take no deletion that is not later than the row.
    pub(super) fn taken_back(&self, network: &NetworkId, time: u64) -> u64 {
        let mut members = self.members.get(network).into_iter().flatten();
        let engine = members.any(|member| *member != self.name && !self.is_weft(member));
        time.saturating_add(u64::from(engine))
    }

    fn check_names(&self, table: &str, key: &str) -> Result<(), EntryError> {
        for (what, name) in [("table name", table), ("key", key)] {
            if name.contains('/') || name.len() > MAX_NAME_BYTES {
                return Err(EntryError::InvalidName {
                    what,
                    value: name.to_owned(),
                    limit: MAX_NAME_BYTES,
                });
            }
        }
        Ok(())
    }

    fn write(&mut self, now: Instant, change: Change, key: EntryKey, value: Vec<u8>) -> Result<(), EntryError> {
        self.check_room(&key, &value, change)?;
        let time = self.table_clock.increment();
        let deleted = change == Change::Delete;
        let entry = Entry {
            owner: self.name.clone(),
            time,
            value,
            deleted,
            hidden: false,
            until: now + REAP_ENTRY,
        };
        let old = self.tables.insert(key.clone(), entry.clone());
        self.announce_entry(now, change, &key, &entry);
        match old {
            Some(old) if deleted && old.visible() => self.tell_gone(&key, old.value, old.owner),
            _ if deleted => {}
            _ => self.tell_set(&key, entry.value, entry.owner),
        }
        Ok(())
    }

    /// Queues the message that tells of an entry of this node.
    fn announce_entry(&mut self, now: Instant, change: Change, key: &EntryKey, entry: &Entry) {
        let mut event = table_event(now, change, key, entry);
        let mut message = envelope(MessageType::TableEvent, &event);
        if message.len() > self.table_message_limit() {
            // The tombstone of a larger value that came by bulk sync: receivers know the value.
            event.value.clear();
            message = envelope(MessageType::TableEvent, &event);
        }
        if let Some(own) = self.own.get_mut(&key.network).filter(|own| !own.at.leaving) {
            own.local.push(Some((key.table.clone(), key.key.clone())), message);
        }
    }

    /// The message must fit into a packet whatever the clock shows, and so must its deletion.
    fn check_room(&self, key: &EntryKey, value: &[u8], change: Change) -> Result<(), EntryError> {
        let name = || entry_name(&key.table, &key.network, &key.key);
        if change == Change::Delete {
            return Ok(());
        }
        if self.tables.find(key).is_none() && self.tables.full() {
            return Err(EntryError::TooMany {
                name: name(),
                limit: MAX_ENTRIES,
            });
        }
        let (owner, until) = (self.name.clone(), Instant::ZERO + REAP_ENTRY);
        let largest = Entry {
            owner,
            time: u64::MAX,
            value: value.to_vec(),
            deleted: true,
            hidden: false,
            until,
        };
        let event = table_event(Instant::ZERO, Change::Delete, key, &largest);
        let bytes = envelope(MessageType::TableEvent, &event).len();
        match bytes.checked_sub(self.table_message_limit()) {
            None | Some(0) => Ok(()),
            Some(excess) => {
                let limit = value.len().saturating_sub(excess);
                Err(EntryError::TooLarge {
                    name: name(),
                    bytes: value.len(),
                    limit,
                })
            }
        }
    }
}

fn entry_name(table: &str, network: &NetworkId, key: &str) -> EntryName {
    EntryName {
        table: table.to_owned(),
        network: network.clone(),
        key: key.to_owned(),
    }
}

/// The message that tells of an entry. A tombstone says how many seconds it has left, never zero; so does a hidden entry, lest it
/// grow younger with each node that hears of it.
pub(super) fn table_event(now: Instant, change: Change, key: &EntryKey, entry: &Entry) -> TableEvent {
    let residual = if entry.visible() {
        0
    } else {
        entry.until.saturating_since(now).max(Duration::from_secs(1)).as_secs()
    };
    TableEvent {
        r#type: change.into(),
        l_time: entry.time,
        node_name: entry.owner.to_string(),
        network_id: key.network.to_string(),
        table_name: key.table.to_string(),
        key: key.key.to_string(),
        value: entry.value.clone(),
        residual_reap_time: i32::try_from(residual).unwrap_or(i32::MAX),
    }
}
