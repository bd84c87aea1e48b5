//! The keys that encrypt the gossip, and what is sealed with them: AES-GCM (`spec/networkdb.md` 3.3.7 and 3.13).
//!
//! With an empty [`Keyring`] all is sent in the clear, and what is encrypted is refused. With keys it is the other way round: the
//! primary key seals, every key is tried for opening, and what is not encrypted is refused.

#[cfg(test)]
mod tests;

use super::kind;
use super::message::Message;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::aes::{Aes128, Aes192, Aes256, Block};
use aes_gcm::{AeadInOut, AesGcm, KeyInit};
use serde::{Deserialize, Serialize};
use std::fmt;
use zeroize::Zeroizing;

/// How many bytes encryption adds to a datagram: version, nonce and tag.
pub const OVERHEAD_BYTES: usize = 1 + NONCE_BYTES + TAG_BYTES;

/// What stands in front of an encrypted message on a stream, and is authenticated with it: type byte and length.
const STREAM_HEAD_BYTES: usize = 5;

const NONCE_BYTES: usize = 12;

const TAG_BYTES: usize = 16;

const BLOCK_BYTES: usize = 16;

/// The version that is sent.
const UNPADDED: u8 = 1;

/// The version of protocol 1, whose content is padded to whole blocks (PKCS#7); accepted only.
const PADDED: u8 = 0;

/// Why bytes are no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a gossip key has {bytes} bytes; it must have 16, 24 or 32")]
pub struct InvalidKey {
    /// How many were given.
    pub bytes: usize,
}

/// Why a keyring cannot be changed. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// Only a key of the ring can become the primary one.
    #[error("gossip key {0} is not in the keyring; add it everywhere before it is used")]
    Unknown(String),
    /// The primary key cannot be removed.
    #[error("gossip key {0} is the primary one; use another one everywhere before it is removed")]
    Primary(String),
}

/// Why a message is refused before it is read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum OpenError {
    /// There are keys, and the message is in the clear.
    #[error("it is not encrypted, and this node has a gossip key; the sender needs the same key")]
    Plaintext,
    /// There are no keys, and the message is encrypted.
    #[error("it is encrypted, and this node has no gossip key")]
    NoKeys,
    /// No key opens it: it was sealed with another one, damaged or forged.
    #[error("none of this node's gossip keys opens it (there are {keys}, the primary is {primary})")]
    WrongKey {
        /// How many keys were tried.
        keys: usize,
        /// Fingerprint of the primary key.
        primary: String,
    },
}

/// A number used once with a key.
pub type Nonce = [u8; NONCE_BYTES];

/// A key of 16, 24 or 32 bytes. Its memory is wiped when it is dropped, and it is never printed.
#[derive(Clone)]
pub struct Key {
    bytes: Zeroizing<Vec<u8>>,
    cipher: Cipher,
    fingerprint: [u8; 4],
}

/// The key made ready for use once, not for each message. These too are wiped when they are dropped.
#[derive(Clone)]
enum Cipher {
    Aes128(Box<AesGcm<Aes128, U12>>),
    Aes192(Box<AesGcm<Aes192, U12>>),
    Aes256(Box<AesGcm<Aes256, U12>>),
}

/// Runs the same code on whichever cipher it is.
macro_rules! with_cipher {
    ($cipher:expr, $name:ident => $action:expr) => {
        match $cipher {
            Cipher::Aes128($name) => $action,
            Cipher::Aes192($name) => $action,
            Cipher::Aes256($name) => $action,
        }
    };
}

impl Key {
    /// Checks and takes the bytes.
    pub fn new(bytes: &[u8]) -> Result<Key, InvalidKey> {
        let wrong = |_| InvalidKey { bytes: bytes.len() };
        let (cipher, fingerprint) = match bytes.len() {
            16 => {
                let aes = Aes128::new_from_slice(bytes).map_err(wrong)?;
                let print = fingerprint(&aes);
                (Cipher::Aes128(Box::new(aes.into())), print)
            }
            24 => {
                let aes = Aes192::new_from_slice(bytes).map_err(wrong)?;
                let print = fingerprint(&aes);
                (Cipher::Aes192(Box::new(aes.into())), print)
            }
            32 => {
                let aes = Aes256::new_from_slice(bytes).map_err(wrong)?;
                let print = fingerprint(&aes);
                (Cipher::Aes256(Box::new(aes.into())), print)
            }
            length => return Err(InvalidKey { bytes: length }),
        };
        Ok(Key {
            bytes: Zeroizing::new(bytes.to_vec()),
            cipher,
            fingerprint,
        })
    }

    /// The key itself, for those who store it or hand it on.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Eight hex digits that tell keys apart and say nothing about them: safe to log.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Version, nonce, ciphertext and tag, after what is in `out` already, which is authenticated with it.
    fn seal(&self, nonce: Nonce, mut out: Vec<u8>, plain: &[u8]) -> Vec<u8> {
        let head = out.clone();
        out.reserve(plain.len() + OVERHEAD_BYTES);
        out.push(UNPADDED);
        out.extend_from_slice(&nonce);
        let start = out.len();
        out.extend_from_slice(plain);
        let content = out.get_mut(start..).unwrap_or_default();
        let tag =
            with_cipher!(&self.cipher, cipher => cipher.encrypt_inout_detached(&nonce.into(), &head, content.into()));
        match tag {
            Ok(tag) => out.extend_from_slice(&tag),
            // Only 64 GiB and more cannot be sealed; such a thing is not sent at all, least of all in the clear.
            Err(_) => out.clear(),
        }
        out
    }

    /// Decrypts in place; false if this is not the key.
    fn open(&self, nonce: Nonce, head: &[u8], content: &mut [u8], tag: [u8; TAG_BYTES]) -> bool {
        with_cipher!(&self.cipher, cipher => {
            cipher.decrypt_inout_detached(&nonce.into(), head, content.into(), &tag.into()).is_ok()
        })
    }
}

/// A part of the encryption of a block that GCM itself encrypts under no nonce (its counters start at 1).
fn fingerprint(aes: &impl BlockCipherEncrypt<BlockSize = U16>) -> [u8; 4] {
    let mut block = Block::from(*b"fingerprint\0\0\0\0\0");
    aes.encrypt_block(&mut block);
    let [a, b, c, d, ..] = <[u8; BLOCK_BYTES]>::from(block);
    [a, b, c, d]
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.fingerprint())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Key {}

/// The keys, the primary one first. Empty: gossip in the clear.
///
/// A key is replaced without losing a message by three steps, each done on all nodes before the next: [add](Self::add) the new one,
/// [use](Self::use_key) it, [remove](Self::remove) the old one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// The primary key, and others that are accepted.
    pub fn new(primary: Key, others: Vec<Key>) -> Keyring {
        let mut keyring = Keyring { keys: vec![primary] };
        others.into_iter().for_each(|key| keyring.add(key));
        keyring
    }

    /// Accepts a key from now on. The first key of an empty ring becomes the primary one; a key that is there already changes
    /// nothing.
    pub fn add(&mut self, key: Key) {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    /// Makes a key of the ring the primary one.
    pub fn use_key(&mut self, key: &Key) -> Result<(), KeyringError> {
        let place = self.keys.iter().position(|other| other == key);
        let place = place.ok_or_else(|| KeyringError::Unknown(key.fingerprint()))?;
        let key = self.keys.remove(place);
        self.keys.insert(0, key);
        Ok(())
    }

    /// Accepts a key no more. A key that is not there changes nothing; the primary one stays.
    pub fn remove(&mut self, key: &Key) -> Result<(), KeyringError> {
        if self.keys.first() == Some(key) {
            return Err(KeyringError::Primary(key.fingerprint()));
        }
        self.keys.retain(|other| other != key);
        Ok(())
    }

    /// All keys, the primary one first.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// Whether gossip goes in the clear.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// A datagram as it is sent: sealed with the primary key, or as it is without one.
    pub fn seal_datagram(&self, nonce: Nonce, plain: Vec<u8>) -> Vec<u8> {
        match self.keys.first() {
            Some(primary) => primary.seal(nonce, Vec::new(), &plain),
            None => plain,
        }
    }

    /// A message on a stream as it is sent: sealed with the primary key, or as it is without one.
    pub fn seal_stream(&self, nonce: Nonce, plain: Vec<u8>) -> Vec<u8> {
        let Some(primary) = self.keys.first() else {
            return plain;
        };
        let mut head = Vec::with_capacity(STREAM_HEAD_BYTES + OVERHEAD_BYTES + plain.len());
        head.push(kind::ENCRYPT);
        head.extend_from_slice(&((plain.len() + OVERHEAD_BYTES) as u32).to_be_bytes());
        primary.seal(nonce, head, &plain)
    }

    /// What a datagram holds.
    pub fn open_datagram(&self, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        match (self.is_empty(), seems_encrypted(bytes)) {
            (true, true) => Err(OpenError::NoKeys),
            (true, false) => Ok(bytes.to_vec()),
            (false, _) => self.open(&[], bytes).ok_or_else(|| self.refusal(!is_plain(bytes))),
        }
    }

    /// What a whole message on a stream holds.
    pub fn open_stream(&self, bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        let encrypted = bytes.first() == Some(&kind::ENCRYPT);
        match (self.is_empty(), encrypted) {
            (true, true) => Err(OpenError::NoKeys),
            (true, false) => Ok(bytes.to_vec()),
            (false, false) => Err(OpenError::Plaintext),
            (false, true) => {
                let (head, payload) = bytes.split_at_checked(STREAM_HEAD_BYTES).unwrap_or_default();
                self.open(head, payload).ok_or_else(|| self.refusal(true))
            }
        }
    }

    fn refusal(&self, encrypted: bool) -> OpenError {
        if !encrypted {
            return OpenError::Plaintext;
        }
        OpenError::WrongKey {
            keys: self.keys.len(),
            primary: self.keys.first().map(Key::fingerprint).unwrap_or_default(),
        }
    }

    /// Tries all keys; `head` is authenticated with the payload.
    fn open(&self, head: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = payload.split_first().filter(|(version, _)| **version <= UNPADDED)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
        let (content, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        let mut opened = content.to_vec();
        for key in &self.keys {
            if key.open(*nonce, head, &mut opened, *tag) {
                if *version == PADDED {
                    unpad(&mut opened)?;
                }
                return Some(opened);
            }
            opened.copy_from_slice(content);
        }
        None
    }
}

/// Takes the padding off the end: as many bytes as each of them says.
fn unpad(content: &mut Vec<u8>) -> Option<()> {
    let last = *content.last()?;
    let length = content.len().checked_sub(last.into())?;
    let padding = content.get(length..)?;
    if !(1..=BLOCK_BYTES).contains(&padding.len()) || padding.iter().any(|byte| *byte != last) {
        return None;
    }
    content.truncate(length);
    Some(())
}

/// Whether a datagram is a message in the clear. The versions of encrypted ones are the types of pings, which are told by their
/// content.
fn is_plain(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(&(kind::PING | kind::INDIRECT_PING)) => Message::decode(bytes).is_ok(),
        Some(&first) => first <= kind::ERR,
        None => true,
    }
}

/// Whether a datagram that should be in the clear is none, but long enough to be encrypted and starting as such.
fn seems_encrypted(bytes: &[u8]) -> bool {
    bytes.len() >= OVERHEAD_BYTES && bytes.first().is_some_and(|version| *version <= UNPADDED) && !is_plain(bytes)
}

/// Numbers used once with each key: eight bytes of salt, then a counter of four; when the counter is used up comes the next salt.
///
/// All nodes of a cluster use the same keys, so what must not repeat is (salt, counter) over all nodes and all their starts as long
/// as a key lives. The counter tells the messages of one salt apart. Salts are the seed, which the daemon takes from the kernel's
/// random numbers, mixed by a function that maps different inputs to different outputs: one node never gets a salt twice, and two
/// starts share one with the probability that two random 64-bit numbers are equal. With 10,000 starts in the life of a key (a swarm
/// renews it every 12 hours) that is 3 in 10^12, below the 2^-32 that NIST SP 800-38D asks for; random nonces, as Go draws them,
/// reach that limit after 2^32 messages of the whole cluster. The salt may be known to everybody: nonces are no secret.
#[derive(Clone, Debug)]
pub struct Nonces {
    seed: u64,
    salts: u64,
    salt: u64,
    counter: u32,
}

impl Nonces {
    /// Nonces out of a random seed.
    pub fn new(seed: u64) -> Self {
        Nonces {
            seed,
            salts: 0,
            salt: mix(seed),
            counter: 0,
        }
    }

    /// The next one.
    pub fn draw(&mut self) -> Nonce {
        let mut nonce = [0; NONCE_BYTES];
        let (salt, counter) = nonce.split_at_mut(8);
        salt.copy_from_slice(&self.salt.to_be_bytes());
        counter.copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        if self.counter == 0 {
            self.salts += 1;
            self.salt = mix(self.seed.wrapping_add(self.salts.wrapping_mul(GOLDEN)));
        }
        nonce
    }
}

/// An odd number, so that its multiples repeat only after 2^64 of them.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finisher: each step can be undone, so different numbers stay different.
fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
