//! The gossip's keys, as the managers hand them out (`spec/swarm-agent.md` 8.6).

use super::proto::EncryptionKey;
use crate::networkdb::{InvalidKey, Key, Keyring};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The keys of this subsystem are the gossip's.
const GOSSIP: &str = "networking:gossip";

/// AES-GCM is the only algorithm that there is.
const AES_128_GCM: i32 = 0;

/// A key of the gossip, to be remembered.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Its order, and its identity.
    pub lamport_time: u64,
    /// Its bytes.
    pub key: Vec<u8>,
}

/// The key itself is no reader's business.
impl fmt::Debug for GossipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GossipKey(at {})", self.lamport_time)
    }
}

/// The gossip's keys among those of a message, oldest first; empty when the message tells none, which means no change.
pub fn gossip_keys(keys: &[EncryptionKey]) -> Vec<GossipKey> {
    let mut found: Vec<GossipKey> = keys
        .iter()
        .filter(|key| key.subsystem == GOSSIP && key.algorithm == AES_128_GCM)
        .map(|key| GossipKey {
            lamport_time: key.lamport_time,
            key: key.key.clone(),
        })
        .collect();
    found.sort_by_key(|key| key.lamport_time);
    found.dedup_by_key(|key| key.lamport_time);
    found
}

/// The keyring of these keys, oldest first: all are received with, and the second oldest is sent with, because by now every node has
/// heard of it, and none has forgotten it yet.
pub fn keyring(keys: &[GossipKey]) -> Result<Keyring, InvalidKey> {
    let mut ring = keys
        .iter()
        .map(|key| Key::new(&key.key))
        .collect::<Result<Vec<_>, _>>()?;
    if ring.is_empty() {
        return Ok(Keyring::default());
    }
    let primary = ring.remove(1.min(ring.len() - 1));
    Ok(Keyring::new(primary, ring))
}

/// The keys to go on with: those that the managers tell, or those before if one told cannot be a key, which is the error. Without
/// keys the gossip would go in the clear, so keys of no use never take the place of others.
pub fn usable(told: Vec<GossipKey>, before: &[GossipKey]) -> (Vec<GossipKey>, Option<InvalidKey>) {
    match keyring(&told) {
        Ok(_) => (told, None),
        Err(error) => (before.to_vec(), Some(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(subsystem: &str, lamport_time: u64) -> EncryptionKey {
        EncryptionKey {
            subsystem: subsystem.to_owned(),
            algorithm: 0,
            key: vec![u8::try_from(lamport_time % 256).unwrap(); 16],
            lamport_time,
        }
    }

    fn times(ring: &Keyring) -> Vec<u8> {
        ring.keys().iter().map(|key| key.bytes()[0]).collect()
    }

    #[test]
    fn the_middle_key_is_sent_with() {
        let ipsec = "networking:ipsec";
        let told = [
            key(ipsec, 14),
            key(GOSSIP, 13),
            key(ipsec, 16),
            key(GOSSIP, 11),
            key(GOSSIP, 12),
            key(ipsec, 15),
        ];
        let keys = gossip_keys(&told);
        assert_eq!(keys.iter().map(|k| k.lamport_time).collect::<Vec<_>>(), [11, 12, 13]);
        assert_eq!(times(&keyring(&keys).unwrap()), [12, 11, 13]);
    }

    #[test]
    fn a_rotation_drops_the_oldest_and_moves_the_primary_on() {
        let rotated = gossip_keys(&[key(GOSSIP, 17), key(GOSSIP, 12), key(GOSSIP, 13)]);
        assert_eq!(times(&keyring(&rotated).unwrap()), [13, 12, 17]);
    }

    #[test]
    fn fewer_keys_are_keys_too() {
        assert_eq!(times(&keyring(&gossip_keys(&[key(GOSSIP, 5)])).unwrap()), [5]);
        assert_eq!(
            times(&keyring(&gossip_keys(&[key(GOSSIP, 6), key(GOSSIP, 5)])).unwrap()),
            [6, 5]
        );
        assert!(keyring(&gossip_keys(&[])).unwrap().keys().is_empty());
    }

    #[test]
    fn a_key_of_a_wrong_length_is_refused_and_never_shown() {
        let mut wrong = key(GOSSIP, 7);
        wrong.key.pop();
        assert!(keyring(&gossip_keys(&[wrong])).is_err());
        assert_eq!(format!("{:?}", gossip_keys(&[key(GOSSIP, 7)])), "[GossipKey(at 7)]");
    }

    #[test]
    fn keys_of_no_use_do_not_take_the_place_of_others() {
        let good = |times: [u64; 3]| gossip_keys(&times.map(|time| key(GOSSIP, time)));
        let before = good([1, 2, 3]);
        let mut told = good([2, 3, 4]);
        assert_eq!(usable(told.clone(), &before), (told.clone(), None));
        told[2].key.truncate(12);
        let (kept, error) = usable(told.clone(), &before);
        assert_eq!((kept, error.map(|error| error.bytes)), (before, Some(12)));
        assert_eq!(
            usable(told, &[]).0,
            [],
            "and then there is no gossip, none in the clear either"
        );
    }
}
