//! `counters`: what became of each packet. Every drop has a name.

/// Name of the map: per-CPU array, [`Counter`] as `u32` -> packets (`u64`).
pub const NAME: &str = "counters";

/// Room for reasons yet to come without a change of layout.
pub const MAX_ENTRIES: u32 = 64;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $index:literal, $name:literal;)+) => {
        /// What became of a packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant = $index,)+
        }

        impl Counter {
            /// All counters, in the order of their index.
            pub const ALL: &'static [Counter] = &[$(Counter::$variant),+];

            /// Stable name, as diagnostics and metrics print it.
            pub const fn name(self) -> &'static str {
                match self { $(Counter::$variant => $name,)+ }
            }

            /// What it means, in a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Counter::$variant => concat!($($doc),+),)+ }
            }
        }
    };
}

counters! {
    /// sent to another node in VXLAN
    Encapsulated = 0, "encapsulated";
    /// taken out of VXLAN and delivered to a local endpoint
    Delivered = 1, "delivered";
    /// delivered between two endpoints of this node
    DeliveredLocally = 2, "delivered_locally";
    /// ARP request answered from the maps
    ArpAnswered = 3, "arp_answered";
    /// new connection through a virtual IP
    FlowCreated = 4, "flow_created";
    /// VXLAN of a VNI that is not weft's, passed on untouched
    PassedForeignVni = 5, "passed_foreign_vni";
    /// ping of a virtual IP that has a backend, answered
    EchoAnswered = 6, "echo_answered";
    /// ICMP error sent to the container whose packet was dropped
    UnreachableSent = 7, "unreachable_sent";
    /// TCP reset sent to the container whose packet was dropped
    ResetSent = 8, "reset_sent";
    /// ICMP error not sent, because the container was sent too many of late
    AnswerSuppressed = 9, "answer_suppressed";
    /// IPv6 neighbour solicitation answered from the maps
    NeighborAnswered = 10, "neighbor_answered";
    /// ICMP error about a balanced connection, translated with what it quotes
    ErrorTranslated = 11, "error_translated";
    /// balanced connection forgotten, because no packet came for longer than its time-out
    FlowExpired = 12, "flow_expired";
    /// socket that asked for a virtual IP, connected to a backend: its packets are not translated
    SocketBalanced = 13, "socket_balanced";
    /// dropped: the interface it came from has no attachment yet
    DropNotAttached = 16, "drop_not_attached";
    /// dropped: shorter than its headers say
    DropTruncated = 17, "drop_truncated";
    /// dropped: neither IPv4, IPv6 nor ARP
    DropUnknownProtocol = 18, "drop_unknown_protocol";
    /// dropped: source address or MAC is not the endpoint's own
    DropSpoofedSource = 19, "drop_spoofed_source";
    /// dropped: ARP for an address that nobody on the network has
    DropUnknownArpTarget = 20, "drop_unknown_arp_target";
    /// dropped: ARP that wants no answer: no request for an IPv4 address, or for the endpoint's own
    DropUnexpectedArp = 21, "drop_unexpected_arp";
    /// dropped: broadcast or multicast, which the overlay does not carry
    DropMulticast = 22, "drop_multicast";
    /// dropped: destination is neither a peer, a local endpoint nor a virtual IP
    DropUnknownDestination = 23, "drop_unknown_destination";
    /// dropped: the virtual IP has no backend
    DropNoBackend = 24, "drop_no_backend";
    /// dropped: the virtual IP balances TCP and UDP only
    DropVipProtocol = 25, "drop_vip_protocol";
    /// dropped: fragment to a virtual IP whose first one, which carries the ports, did not come before it
    DropVipFragment = 26, "drop_vip_fragment";
    /// dropped: the underlay has no route to the VTEP
    DropNoRoute = 27, "drop_no_route";
    /// dropped: does not fit the path to the VTEP
    DropTooBig = 28, "drop_too_big";
    /// dropped: the kernel refused to grow or shrink the packet
    DropAdjustRoom = 29, "drop_adjust_room";
    /// dropped: VXLAN for an address that no endpoint of this node has
    DropNoEndpoint = 30, "drop_no_endpoint";
    /// dropped: VXLAN whose inner source does not live behind the VTEP that sent it
    DropUnknownPeer = 31, "drop_unknown_peer";
    /// dropped: VXLAN header without a valid VNI (RFC 7348 section 5)
    DropBadVxlan = 32, "drop_bad_vxlan";
    /// dropped: inner frame out of VXLAN is neither IPv4 nor IPv6
    DropInnerProtocol = 33, "drop_inner_protocol";
    /// dropped: the flow table is full of connections that are alive, so the new one was refused
    DropFlowTableFull = 34, "drop_flow_table_full";
    /// dropped: the backend of the connection is neither a peer nor a local endpoint any more
    DropBackendGone = 35, "drop_backend_gone";
    /// dropped: VXLAN of a VNI of weft's in an outer IPv4 header with options
    DropOuterOptions = 36, "drop_outer_options";
    /// dropped: time to live or hop limit is zero
    DropTtlExpired = 37, "drop_ttl_expired";
    /// dropped: more or other IPv6 extension headers than are looked through
    DropExtensionHeaders = 38, "drop_extension_headers";
    /// dropped: IPv6 neighbour discovery that wants no answer
    DropUnexpectedNeighbor = 39, "drop_unexpected_neighbor";
    /// dropped: neighbour solicitation for an address that nobody on the network has
    DropUnknownNeighborTarget = 40, "drop_unknown_neighbor_target";
    /// dropped: no source port is free between the client and the backend
    DropNoFreePort = 41, "drop_no_free_port";
    /// dropped: the underlay marked congestion on a packet that cannot carry the mark (RFC 6040 section 4.2)
    DropCongestionMark = 42, "drop_congestion_mark";
    /// dropped: a part of the programs is not loaded
    DropNoProgram = 43, "drop_no_program";
}

impl Counter {
    /// Whether it counts packets that were dropped.
    pub const fn is_drop(self) -> bool {
        self as u32 >= 16
    }
}
