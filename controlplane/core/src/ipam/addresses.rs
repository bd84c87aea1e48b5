//! The addresses of one subnet.

use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Bits in a chunk: 64 bytes, a cache line.
const CHUNK_BITS: u32 = 512;

const WORD_BITS: u32 = u64::BITS;

type Chunk = [u64; (CHUNK_BITS / WORD_BITS) as usize];

/// Why an address cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// Not in the subnet.
    OutOfRange,
    /// The subnet's own address.
    Network,
    /// The subnet's broadcast address.
    Broadcast,
    /// Somebody has it.
    Taken,
}

/// Which addresses of a subnet are taken, as a bitmap whose empty parts do not exist: a /8 with ten endpoints costs a few
/// hundred bytes. The network and the broadcast address can never be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    subnet: Ipv4Net,
    chunks: BTreeMap<u32, Chunk>,
    used: u32,
    /// Automatic choice goes on after this offset.
    cursor: u32,
}

impl Addresses {
    /// All addresses of `subnet` free. Prefix lengths above 30 leave no host address.
    pub fn new(subnet: Ipv4Net) -> Self {
        Addresses {
            subnet: subnet.trunc(),
            chunks: BTreeMap::new(),
            used: 0,
            cursor: 0,
        }
    }

    /// The subnet.
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// How many addresses are taken.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// How many addresses there are, without network and broadcast address.
    pub fn capacity(&self) -> u32 {
        self.last_offset()
    }

    /// Whether the address could be taken.
    pub fn check(&self, address: Ipv4Addr) -> Result<(), Unavailable> {
        match self.offset(address) {
            None => Err(Unavailable::OutOfRange),
            Some(0) => Err(Unavailable::Network),
            Some(offset) if offset > self.last_offset() => Err(Unavailable::Broadcast),
            Some(offset) if self.is_set(offset) => Err(Unavailable::Taken),
            Some(_) => Ok(()),
        }
    }

    /// Takes the address; on error nothing changes.
    pub fn take(&mut self, address: Ipv4Addr) -> Result<(), Unavailable> {
        self.check(address)?;
        if let Some(offset) = self.offset(address) {
            let (chunk, word, bit) = place(offset);
            self.chunks.entry(chunk).or_default()[word] |= bit;
            self.used += 1;
        }
        Ok(())
    }

    /// Gives the address back; whether it was taken.
    pub fn release(&mut self, address: Ipv4Addr) -> bool {
        let Some(offset) = self.offset(address).filter(|offset| self.is_set(*offset)) else {
            return false;
        };
        let (index, word, bit) = place(offset);
        if let Some(chunk) = self.chunks.get_mut(&index) {
            chunk[word] &= !bit;
            if chunk.iter().all(|word| *word == 0) {
                self.chunks.remove(&index);
            }
        }
        self.used -= 1;
        true
    }

    /// Automatic choice goes on after this address, so that a released one is used again as late as possible
    /// (`spec/ipam.md` 6.3). An address outside of the subnet changes nothing.
    pub fn advance_past(&mut self, address: Ipv4Addr) {
        if let Some(offset) = self.offset(address) {
            self.cursor = offset;
        }
    }

    /// The first free address after the last one handed out, wrapping at the end; `None` when all are taken.
    pub fn next(&self) -> Option<Ipv4Addr> {
        let last = self.last_offset();
        let start = if self.cursor >= last { 1 } else { self.cursor + 1 };
        let offset = self.first_free(start, last).or_else(|| self.first_free(1, start - 1))?;
        Some((u32::from(self.subnet.network()) + offset).into())
    }

    fn offset(&self, address: Ipv4Addr) -> Option<u32> {
        let offset = || u32::from(address) - u32::from(self.subnet.network());
        self.subnet.contains(&address).then(offset)
    }

    /// Offset of the last host address; zero if there is none.
    fn last_offset(&self) -> u32 {
        let hosts = u32::from(self.subnet.hostmask());
        hosts.saturating_sub(1)
    }

    fn is_set(&self, offset: u32) -> bool {
        let (chunk, word, bit) = place(offset);
        self.chunks.get(&chunk).is_some_and(|words| words[word] & bit != 0)
    }

    /// The lowest free offset of `from..=to`. Full chunks are skipped word by word, absent ones are free as a whole.
    fn first_free(&self, from: u32, to: u32) -> Option<u32> {
        let mut offset = from;
        while offset <= to {
            let (index, word, _) = place(offset);
            let Some(chunk) = self.chunks.get(&index) else {
                return Some(offset);
            };
            let behind = !(u64::MAX << (offset % WORD_BITS));
            let skipped = (chunk[word] | behind).trailing_ones();
            let found = offset - offset % WORD_BITS + skipped;
            if skipped < WORD_BITS {
                return (found <= to).then_some(found);
            }
            offset = found;
        }
        None
    }
}

/// Chunk, word in it, bit in that.
fn place(offset: u32) -> (u32, usize, u64) {
    let word = (offset % CHUNK_BITS) / WORD_BITS;
    (offset / CHUNK_BITS, word as usize, 1 << (offset % WORD_BITS))
}
