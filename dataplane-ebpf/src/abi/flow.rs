//! `flows`: the balanced connections, both directions. Written by the kernel.

use super::map_type;

/// Name of the map: LRU hash, [`FlowKey`] -> [`Flow`].
pub const NAME: &str = "flows";

/// Two entries for each of 131,072 connections. When it is full, the least recently used connection is forgotten.
pub const MAX_ENTRIES: u32 = 262_144;

/// A packet of the flow as it arrives, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct FlowKey {
    /// VNI of the network.
    pub vni: u32,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// IANA protocol number: 6 or 17. Four bytes wide, so that a key on the stack is written in aligned words.
    pub protocol: Protocol,
}

/// The type of [`FlowKey::protocol`].
#[cfg(not(feature = "next-abi"))]
pub type Protocol = u32;
/// The type of [`FlowKey::protocol`], wider in the contract version that only tests build.
#[cfg(feature = "next-abi")]
pub type Protocol = u64;

/// What becomes of a packet of the flow: its addresses are rewritten, its ports stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Flow {
    /// Time of the last packet, nanoseconds of `CLOCK_MONOTONIC`.
    pub last_seen_ns: u64,
    /// Source address after translation.
    pub source: [u8; 4],
    /// Destination address after translation.
    pub destination: [u8; 4],
    /// Bits of [`CLOSING`] and [`REPLY`].
    pub flags: u32,
    /// Always zero.
    pub padding: u32,
}

/// The entry translates packets back from the backend; without it, from the client to the backend.
pub const REPLY: u32 = 1;
/// A FIN or RST was seen: a new SYN on the same ports is a new connection and chooses anew.
pub const CLOSING: u32 = 2;

/// UDP has no end: a flow without a packet for so long is forgotten, and the next packet chooses anew. The default of IPVS, which
/// Docker balances with.
pub const UDP_IDLE_NS: u64 = 300_000_000_000;
/// How often [`Flow::last_seen_ns`] is written while packets flow: each write takes the cache line from other CPUs.
pub const TOUCH_INTERVAL_NS: u64 = 1_000_000_000;

impl FlowKey {
    /// The key of the packets in the other direction of a flow that is translated as `flow` says.
    #[inline(always)]
    pub const fn twin(&self, flow: &Flow) -> FlowKey {
        FlowKey {
            vni: self.vni,
            source: flow.destination,
            destination: flow.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl Flow {
    /// The entry of the other direction: what [`FlowKey::twin`] is translated to.
    #[inline(always)]
    pub const fn twin(&self, key: &FlowKey) -> Flow {
        Flow {
            last_seen_ns: self.last_seen_ns,
            source: key.destination,
            destination: key.source,
            flags: self.flags ^ REPLY,
            padding: 0,
        }
    }
}

map_type!(FlowKey, 16 + size_of::<Protocol>());
map_type!(Flow, 24);

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 2];
    const VIP: [u8; 4] = [10, 0, 0, 100];
    const BACKEND: [u8; 4] = [10, 0, 0, 3];

    #[test]
    fn the_twin_of_the_twin_is_the_flow_itself() {
        for (source, destination) in [(CLIENT, BACKEND), (VIP, CLIENT)] {
            let key = FlowKey {
                vni: 4096,
                source: CLIENT,
                destination: VIP,
                source_port: [0x9c, 0x40],
                destination_port: [0, 80],
                protocol: 6,
            };
            let flow = Flow {
                last_seen_ns: 7,
                source,
                destination,
                flags: CLOSING,
                padding: 0,
            };
            let (twin_key, twin) = (key.twin(&flow), flow.twin(&key));
            assert_eq!(twin_key.source, destination);
            assert_eq!((twin.source, twin.destination), (VIP, CLIENT));
            assert_eq!(twin.flags, CLOSING | REPLY);
            assert_eq!(twin_key.twin(&twin), key);
            assert_eq!(twin.twin(&twin_key), flow);
        }
    }
}
