//! `flows`, `flows6`: the balanced connections, both directions. Written by the kernel.

use super::{Ip, V4, V6, map_type};

/// Name of the map: hash, [`FlowKey`] -> [`Flow`].
pub const NAME: &str = "flows";
/// Name of the map for IPv6.
pub const NAME6: &str = "flows6";

/// Two entries for each of 262,144 connections, the default of netfilter's connection tracking on a host of this size. Memory is taken
/// as connections come. When it is full, a new connection is refused: no established one has to go for it.
pub const MAX_ENTRIES: u32 = 524_288;

/// Name of the map: array, slot -> [`FlowKey`] of a connection's packets from its client. New connections pass over it in turn and take
/// away what they find expired, so that the table empties itself while no daemon runs.
pub const RING_NAME: &str = "flow_ring";
/// Name of the ring for IPv6.
pub const RING_NAME6: &str = "flow_ring6";

/// A slot for each connection that `flows` can hold.
pub const RING_ENTRIES: u32 = MAX_ENTRIES / 2;

/// Name of the map: array, 0 for IPv4 and 1 for IPv6 -> `u32`, the position in the ring.
pub const HAND_NAME: &str = "flow_hands";
/// One position for each family.
pub const HAND_ENTRIES: u32 = 2;

/// How many slots of the ring a new connection looks at, at most.
pub const RING_STEPS: u32 = 2;

/// What precedes the key in a frame that has `flow_sweep` look at one connection: the kernel wants an Ethernet header.
pub const SWEEP_HEADER: usize = 14;
/// The first byte of a frame that has `flow_sweep` forget the connection even if it is alive.
pub const SWEEP_ALIVE: u8 = 1;

/// A packet of the flow as it arrives, before translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct FlowKey<A = V4> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// Source port.
    pub source_port: [u8; 2],
    /// Destination port.
    pub destination_port: [u8; 2],
    /// VNI of the network in the upper 24 bits, IANA protocol number in the lower 8.
    pub network: u32,
    /// Nothing.
    pub reserved: Reserved,
}

/// The type of [`FlowKey::reserved`].
#[cfg(not(feature = "next-abi"))]
pub type Reserved = [u8; 0];
/// The type of [`FlowKey::reserved`], longer in the contract version that only tests build.
#[cfg(feature = "next-abi")]
pub type Reserved = [u8; 8];

/// The value of [`FlowKey::reserved`].
pub const RESERVED: Reserved = [0; size_of::<Reserved>()];

/// What becomes of a packet of the flow: addresses and ports are rewritten to these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C, align(8))]
pub struct Flow<A = V4> {
    /// Time of the last packet in either direction, see [`ticks`].
    pub last_seen: u32,
    /// Bits of [`REPLY`] and the others. But for that one they are alike in both directions.
    pub flags: u32,
    /// Source address after translation.
    pub source: A,
    /// Destination address after translation.
    pub destination: A,
    /// Source port after translation.
    pub source_port: [u8; 2],
    /// Destination port after translation.
    pub destination_port: [u8; 2],
    /// Slot in the ring; of the direction from the client only.
    pub slot: u32,
}

/// The entry translates packets back from the backend; without it, from the client to the backend.
pub const REPLY: u32 = 1;
/// The other side has answered.
pub const ANSWERED: u32 = 2;
/// The client has sent a FIN.
pub const CLIENT_FINISHED: u32 = 4;
/// The backend has sent a FIN.
pub const BACKEND_FINISHED: u32 = 8;
/// Either side has sent a RST.
pub const RESET: u32 = 16;
/// A connection straight to an endpoint, on whose ports a balanced one was already: its client's port is translated.
pub const DIRECT: u32 = 32;
/// TCP: the client has acknowledged the backend's answer.
pub const ESTABLISHED: u32 = 64;
/// The connection is in its backend's load. Where it is over, the bit goes from the entry without [`REPLY`] first, once.
pub const COUNTED: u32 = 128;
/// Both sides have sent a FIN.
pub const BOTH_FINISHED: u32 = CLIENT_FINISHED | BACKEND_FINISHED;

/// Whether a connection of these flags has nothing more to say.
#[inline(always)]
pub const fn is_over(flags: u32) -> bool {
    flags & RESET != 0 || flags & BOTH_FINISHED == BOTH_FINISHED
}

/// One tick in nanoseconds, as a shift: 16.8 ms. 32 bits of ticks last for 2.2 years.
pub const TICK_SHIFT: u32 = 24;

/// A point in time of `CLOCK_MONOTONIC`, in nanoseconds, as ticks.
#[inline(always)]
pub const fn ticks(now_ns: u64) -> u32 {
    (now_ns >> TICK_SHIFT) as u32
}

/// Seconds as ticks, rounded up; at most half of what 32 bits hold, which is a year.
pub const fn ticks_of_seconds(seconds: u32) -> u32 {
    let ticks = ((seconds as u64 * 1_000_000_000) >> TICK_SHIFT) + 1;
    if ticks > (u32::MAX / 2) as u64 {
        u32::MAX / 2
    } else {
        ticks as u32
    }
}

/// How often [`Flow::last_seen`] is written while packets flow: each write takes the cache line from other CPUs.
pub const TOUCH_TICKS: u32 = ticks_of_seconds(1);

/// After how many ticks without a packet a flow is forgotten, by its state. The defaults are those of netfilter's connection tracking
/// (Linux `nf_conntrack_proto_tcp.c` and `nf_conntrack_proto_udp.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, not established yet.
    pub tcp_opening: u32,
    /// TCP, established.
    pub tcp_established: u32,
    /// TCP, one side or both have finished.
    pub tcp_finished: u32,
    /// TCP, reset.
    pub tcp_reset: u32,
    /// UDP, not answered yet.
    pub udp: u32,
    /// UDP, packets both ways.
    pub udp_answered: u32,
}

impl Timeouts {
    /// The defaults, in seconds.
    pub const DEFAULT_SECONDS: Timeouts = Timeouts {
        tcp_opening: 120,
        tcp_established: 5 * 24 * 3600,
        tcp_finished: 120,
        tcp_reset: 10,
        udp: 30,
        udp_answered: 180,
    };

    /// The defaults.
    pub const DEFAULT: Timeouts = Timeouts::DEFAULT_SECONDS.seconds_in_ticks();

    /// The same in ticks, if these are seconds.
    pub const fn seconds_in_ticks(&self) -> Timeouts {
        Timeouts {
            tcp_opening: ticks_of_seconds(self.tcp_opening),
            tcp_established: ticks_of_seconds(self.tcp_established),
            tcp_finished: ticks_of_seconds(self.tcp_finished),
            tcp_reset: ticks_of_seconds(self.tcp_reset),
            udp: ticks_of_seconds(self.udp),
            udp_answered: ticks_of_seconds(self.udp_answered),
        }
    }

    /// How long after the other direction's entry one entry may say that a packet came, and so how much longer than its time-out a flow
    /// may last: to touch both at each packet costs more than all else that is done to one.
    #[inline(always)]
    pub const fn slack(&self, tcp: bool, flags: u32) -> u32 {
        (self.of(tcp, flags) >> 3) + TOUCH_TICKS
    }

    /// Whether, at a packet of an entry that was last touched at `last_seen`, the other direction's is to be touched, too: in the first
    /// packet of each of the spans into which its slack divides time.
    #[inline(always)]
    pub const fn is_twin_due(&self, tcp: bool, flags: u32, last_seen: u32, now: u32) -> bool {
        let span = self.of(tcp, flags) >> 3;
        match (now.checked_div(span), last_seen.checked_div(span)) {
            (Some(this), Some(last)) => this != last,
            _ => true,
        }
    }

    /// The one that counts for a flow of these flags.
    #[inline(always)]
    pub const fn of(&self, tcp: bool, flags: u32) -> u32 {
        if !tcp {
            return if flags & ANSWERED != 0 {
                self.udp_answered
            } else {
                self.udp
            };
        }
        if flags & RESET != 0 {
            self.tcp_reset
        } else if flags & (CLIENT_FINISHED | BACKEND_FINISHED) != 0 {
            self.tcp_finished
        } else if flags & ESTABLISHED != 0 {
            self.tcp_established
        } else {
            self.tcp_opening
        }
    }
}

/// IANA protocol number of TCP.
const TCP: u32 = 6;

impl<A: Ip> FlowKey<A> {
    /// VNI of the network.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        self.network >> 8
    }

    /// Whether it is a TCP connection.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.network & 0xff == TCP
    }

    /// The key of the packets in the other direction, if none is translated.
    #[inline(always)]
    pub fn opposite(&self) -> FlowKey<A> {
        FlowKey {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            network: self.network,
            reserved: RESERVED,
        }
    }

    /// The key of the packets in the other direction of a flow that is translated as `flow` says.
    #[inline(always)]
    pub fn twin(&self, flow: &Flow<A>) -> FlowKey<A> {
        FlowKey {
            network: self.network,
            source: flow.destination,
            destination: flow.source,
            source_port: flow.destination_port,
            destination_port: flow.source_port,
            reserved: RESERVED,
        }
    }
}

/// The first word of a [`FlowKey`].
#[inline(always)]
pub const fn network(vni: u32, protocol: u8) -> u32 {
    vni << 8 | protocol as u32
}

impl<A: Ip> Flow<A> {
    /// The entry of the other direction: what [`FlowKey::twin`] is translated to.
    #[inline(always)]
    pub fn twin(&self, key: &FlowKey<A>) -> Flow<A> {
        Flow {
            last_seen: self.last_seen,
            flags: self.flags ^ REPLY,
            source: key.destination,
            destination: key.source,
            source_port: key.destination_port,
            destination_port: key.source_port,
            slot: 0,
        }
    }

    /// Whether so much time passed at `now` without a packet that the flow is over: its time-out and its [slack](Timeouts::slack). A clock that reads a little earlier on another CPU
    /// makes no flow old.
    #[inline(always)]
    pub fn is_expired(&self, tcp: bool, timeouts: &Timeouts, now: u32) -> bool {
        let idle = now.wrapping_sub(self.last_seen);
        idle < u32::MAX / 2
            && idle
                > timeouts
                    .of(tcp, self.flags)
                    .saturating_add(timeouts.slack(tcp, self.flags))
    }
}

map_type!(FlowKey<V4>, 16 + size_of::<Reserved>());
map_type!(FlowKey<V6>, 40 + size_of::<Reserved>());
map_type!(Flow<V4>, 24);
map_type!(Flow<V6>, 48);

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: V4 = [10, 0, 0, 2];
    const VIP: V4 = [10, 0, 0, 100];
    const BACKEND: V4 = [10, 0, 0, 3];

    #[test]
    fn the_twin_of_the_twin_is_the_flow_itself() {
        for (source, destination, port) in [(CLIENT, BACKEND, [0x9c, 0x40]), (VIP, CLIENT, [0x9c, 0x41])] {
            let key = FlowKey {
                network: network(4096, 6),
                source: CLIENT,
                destination: VIP,
                source_port: [0x9c, 0x40],
                destination_port: [0, 80],
                reserved: RESERVED,
            };
            let flow = Flow {
                last_seen: 7,
                flags: RESET,
                source,
                destination,
                source_port: port,
                destination_port: [0, 80],
                slot: 0,
            };
            let (twin_key, twin) = (key.twin(&flow), flow.twin(&key));
            assert_eq!((twin_key.source, twin_key.destination_port), (destination, port));
            assert_eq!((twin.source, twin.destination), (VIP, CLIENT));
            assert_eq!(twin.flags, RESET | REPLY);
            assert_eq!(twin_key.twin(&twin), key);
            assert_eq!(twin.twin(&twin_key), flow);
            assert_eq!((key.vni(), key.is_tcp()), (4096, true));
        }
    }

    #[test]
    fn each_state_has_its_time_out() {
        let timeouts = Timeouts {
            tcp_opening: 1,
            tcp_established: 2,
            tcp_finished: 3,
            tcp_reset: 4,
            udp: 5,
            udp_answered: 6,
        };
        for (tcp, flags, expected) in [
            (true, 0, 1),
            (true, ANSWERED, 1),
            (true, ANSWERED | ESTABLISHED, 2),
            (true, ANSWERED | CLIENT_FINISHED, 3),
            (true, BACKEND_FINISHED, 3),
            (true, ANSWERED | CLIENT_FINISHED | BACKEND_FINISHED | RESET, 4),
            (false, 0, 5),
            (false, ANSWERED, 6),
        ] {
            assert_eq!(timeouts.of(tcp, flags), expected, "tcp {tcp} flags {flags}");
            assert_eq!(timeouts.of(tcp, flags | REPLY), expected);
        }
    }

    #[test]
    fn the_clock_may_wrap_and_differ_between_processors() {
        let flow = |last_seen| Flow {
            last_seen,
            flags: 0,
            source: CLIENT,
            destination: BACKEND,
            source_port: [0; 2],
            destination_port: [0; 2],
            slot: 0,
        };
        let udp = Timeouts::DEFAULT.udp;
        let udp = udp + Timeouts::DEFAULT.slack(false, 0);
        assert!(!flow(100).is_expired(false, &Timeouts::DEFAULT, 100 + udp));
        assert!(flow(100).is_expired(false, &Timeouts::DEFAULT, 101 + udp));
        assert!(!flow(100).is_expired(false, &Timeouts::DEFAULT, 99));
        assert!(!flow(u32::MAX - 1).is_expired(false, &Timeouts::DEFAULT, 3));
        assert!(flow(u32::MAX - 1).is_expired(false, &Timeouts::DEFAULT, udp));
    }

    #[test]
    fn the_other_direction_is_behind_by_its_slack_at_most() {
        let timeouts = Timeouts::DEFAULT;
        for (tcp, flags) in [
            (false, 0),
            (false, ANSWERED),
            (true, RESET),
            (true, ANSWERED | ESTABLISHED),
        ] {
            let (mut own, mut other) = (1000, 1000);
            let step = timeouts.slack(tcp, flags) / 50 + TOUCH_TICKS + 1;
            for now in (1000..).step_by(step as usize).take(500) {
                if timeouts.is_twin_due(tcp, flags, own, now) {
                    other = now;
                }
                own = now;
                assert!(
                    own - other <= timeouts.slack(tcp, flags),
                    "{tcp} {flags} at {now}: {other}"
                );
            }
        }
    }

    #[test]
    fn seconds_become_ticks_of_at_most_a_year() {
        assert_eq!(ticks(16_777_216), 1);
        assert_eq!(ticks_of_seconds(1), 60);
        assert_eq!(ticks_of_seconds(u32::MAX), u32::MAX / 2);
        assert!(Timeouts::DEFAULT.tcp_established >= ticks_of_seconds(24 * 3600));
    }
}
