//! The Internet checksum (RFC 1071) and its update by difference (RFC 1624).

/// Folds a sum of 16-bit words and complements it (RFC 1071 section 1).
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// The checksum of `bytes`; an odd last byte is padded with zero. `start` is a sum of words that are covered too, such as a
/// pseudo-header. At most 64 KiB.
pub fn of(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = start;
    let (pairs, rest) = bytes.as_chunks::<2>();
    for pair in pairs {
        sum += u32::from(u16::from_be_bytes(*pair));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    if let [last] = rest {
        sum += u32::from(u16::from_be_bytes([*last, 0]));
    }
    finish(sum)
}

/// The sum of the words of the pseudo-header that TCP and UDP cover (RFC 9293 section 3.1, RFC 768).
pub const fn pseudo_header(source: [u8; 4], destination: [u8; 4], protocol: u8, length: u16) -> u32 {
    words(source) + words(destination) + protocol as u32 + length as u32
}

/// The checksum after four bytes that it covers changed from `old` to `new` (RFC 1624 section 3, equation 3).
pub const fn replace(checksum: u16, old: [u8; 4], new: [u8; 4]) -> u16 {
    let old_high = !u16::from_be_bytes([old[0], old[1]]) as u32;
    let old_low = !u16::from_be_bytes([old[2], old[3]]) as u32;
    finish(!checksum as u32 + old_high + old_low + words(new))
}

const fn words(four: [u8; 4]) -> u32 {
    u16::from_be_bytes([four[0], four[1]]) as u32 + u16::from_be_bytes([four[2], four[3]]) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3() {
        assert_eq!(of(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_section_4() {
        // Header checksum 0xdd2f, a field changes from 0x5555 to 0x3285: the new checksum is 0x0000.
        assert_eq!(replace(0xdd2f, [0x55, 0x55, 0, 0], [0x32, 0x85, 0, 0]), 0x0000);
    }

    #[test]
    fn an_odd_byte_is_padded_with_zero() {
        assert_eq!(of(0, &[1, 2, 3]), of(0, &[1, 2, 3, 0]));
    }

    #[test]
    fn replacing_equals_computing_anew() {
        let mut bytes = [0u8; 40];
        let mut seed = 1u32;
        for round in 0..1000 {
            for byte in &mut bytes {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = (seed >> 24) as u8;
            }
            let before = of(0, &bytes);
            let old = [bytes[8], bytes[9], bytes[10], bytes[11]];
            let new = seed.to_be_bytes();
            bytes[8..12].copy_from_slice(&new);
            assert_eq!(replace(before, old, new), of(0, &bytes), "round {round}");
        }
    }
}
