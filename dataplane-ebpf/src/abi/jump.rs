//! `jumps`: programs that go on where another leaves off, so that each has a stack of its own.

/// Name of the map: program array, one of the indexes here -> the program. Written once the programs are loaded.
pub const NAME: &str = "jumps";

/// Room for programs yet to come without a change of layout.
pub const MAX_ENTRIES: u32 = 16;

/// `overlay_egress6`.
pub const EGRESS6: u32 = 0;
/// `overlay_ingress6`.
pub const INGRESS6: u32 = 1;

/// `overlay_balance`.
pub const BALANCE: u32 = 2;
/// `overlay_balance6`.
pub const BALANCE6: u32 = 3;

/// `overlay_reply6`.
pub const REPLY6: u32 = 4;

/// `overlay_egress4`.
pub const EGRESS4: u32 = 5;
/// `overlay_ingress4`.
pub const INGRESS4: u32 = 6;

/// `overlay_handover`.
pub const HANDOVER: u32 = 7;
/// `overlay_handover6`.
pub const HANDOVER6: u32 = 8;

/// `overlay_ingress` itself: nobody goes on there, and the generation after this one finds it here.
pub const OWN_INGRESS: u32 = 11;
/// `overlay_egress` itself.
pub const OWN_EGRESS: u32 = 12;

/// While connections are copied from another generation's maps: its program of the uplink, for packets of connections that the new maps
/// do not know. Else empty, as the next two are.
pub const OLD_INGRESS: u32 = 13;
/// Its program of endpoints, for packets that cannot open a connection.
pub const OLD_EGRESS: u32 = 14;
/// Its program of endpoints, for packets that may open one; empty once all links have their new program.
pub const OLD_OPENING: u32 = 15;

/// The programs, and where each belongs.
pub const PROGRAMS: [(u32, &str); 9] = [
    (EGRESS4, "overlay_egress4"),
    (INGRESS4, "overlay_ingress4"),
    (EGRESS6, "overlay_egress6"),
    (INGRESS6, "overlay_ingress6"),
    (BALANCE, "overlay_balance"),
    (BALANCE6, "overlay_balance6"),
    (REPLY6, "overlay_reply6"),
    (HANDOVER, "overlay_handover"),
    (HANDOVER6, "overlay_handover6"),
];

/// The programs of the hooks.
pub const OWN: [(u32, &str); 2] = [
    (OWN_INGRESS, super::program::OVERLAY_INGRESS),
    (OWN_EGRESS, super::program::OVERLAY_EGRESS),
];
