//! The Internet checksum (RFC 1071) and its update by difference (RFC 1624).

use crate::abi::{Ip, V6};

/// Folds a sum of 16-bit words and complements it (RFC 1071 section 1).
#[inline(always)]
pub const fn finish(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Folds a sum of 32-bit words to 32 bits: the end-around carry is added until there is none.
#[inline(always)]
pub const fn fold(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    ((sum & 0xffff_ffff) + (sum >> 32)) as u32
}

/// What changes in a sum when `new` takes the place of `old`, in words as they lie in memory (RFC 1071 section 2 (B): the sum does
/// not depend on the order of bytes).
#[inline(always)]
pub fn difference<A: Ip>(old: &A, new: &A) -> u64 {
    A::WORDS * 0xffff_ffff - old.sum() + new.sum()
}

/// The checksum, as it stands in the packet, after its sum changed by a folded [`difference`] (RFC 1624 section 3, equation 3).
#[inline(always)]
pub const fn changed(checksum: [u8; 2], difference: u32) -> [u8; 2] {
    let sum = !u16::from_ne_bytes(checksum) as u32 + (difference & 0xffff) + (difference >> 16);
    finish(sum).to_ne_bytes()
}

/// The sum of the words of the pseudo-header of IPv6 (RFC 8200 section 8.1).
#[inline(always)]
pub fn pseudo_header6(source: &V6, destination: &V6, protocol: u8, length: u16) -> u32 {
    // The sum of words in memory's order, folded, is that of words in network order with its two bytes swapped.
    let sum = fold(source.sum() + destination.sum());
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    u32::from(u16::from_be(sum as u16)) + protocol as u32 + length as u32
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
    fn a_change_by_difference_equals_computing_anew() {
        let (old, new) = ([10, 0, 0, 100], [10, 0, 255, 3]);
        let mut header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 6, 0, 0, 0xc0, 0xa8, 0, 1, 0, 0, 0, 0,
        ];
        header[16..].copy_from_slice(&old);
        let before = of(0, &header).to_be_bytes();
        header[16..].copy_from_slice(&new);
        assert_eq!(
            changed(before, fold(difference(&old, &new))),
            of(0, &header).to_be_bytes()
        );
        let (old, new) = (V6::new([0xfd; 16]), V6::new([0xff; 16]));
        let (before, after) = (pseudo_header6(&old, &old, 6, 20), pseudo_header6(&old, &new, 6, 20));
        assert_eq!(
            changed(finish(before).to_be_bytes(), fold(difference(&old, &new))),
            finish(after).to_be_bytes()
        );
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
