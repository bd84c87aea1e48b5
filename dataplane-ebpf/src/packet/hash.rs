//! The outer UDP source port: one per flow, so that the underlay spreads flows over paths and queues (RFC 7348 section 5).

/// First port of the dynamic range (RFC 6335 section 6), from which RFC 7348 wants the source port.
pub const FIRST_PORT: u16 = 49152;
/// The size of the range, less one: the range is all ports from [`FIRST_PORT`].
pub const MASK: u32 = 0x3fff;

/// The port for a flow's hash.
#[inline(always)]
pub const fn source_port(hash: u32) -> u16 {
    FIRST_PORT + (hash & MASK) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_stays_in_the_dynamic_range() {
        assert_eq!(source_port(0), 49152);
        assert_eq!(source_port(0x3fff), 65535);
        assert_eq!(source_port(0x4000), 49152);
        assert_eq!(source_port(u32::MAX), 65535);
    }
}
