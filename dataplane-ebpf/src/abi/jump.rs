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

/// The programs, and where each belongs.
pub const PROGRAMS: [(u32, &str); 7] = [
    (EGRESS4, "overlay_egress4"),
    (INGRESS4, "overlay_ingress4"),
    (EGRESS6, "overlay_egress6"),
    (INGRESS6, "overlay_ingress6"),
    (BALANCE, "overlay_balance"),
    (BALANCE6, "overlay_balance6"),
    (REPLY6, "overlay_reply6"),
];
