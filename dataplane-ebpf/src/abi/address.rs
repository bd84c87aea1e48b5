//! Addresses as they stand in keys: both families, each with maps of its own, so that a key is no longer than its addresses.

use super::{MapType, map_type};
use core::fmt;
use core::hash::Hash;

/// An IP address: [`V4`] or [`V6`].
pub trait Ip: MapType + Ord + Hash + fmt::Debug + Default {
    /// Whether it is IPv6.
    const V6: bool;

    /// A VNI beside an address in a key, as wide as leaves no padding.
    type Vni: Copy + Ord + Hash + fmt::Debug + From<u32> + Into<u64>;

    /// As 16 bytes; an IPv4 address in the form of RFC 4291 section 2.5.5.2.
    fn mapped(&self) -> V6;

    /// The sum of its words of four bytes, as they lie in memory.
    fn sum(&self) -> u64;

    /// How many words of four bytes it has.
    const WORDS: u64;
}

/// An IPv4 address, network order.
pub type V4 = [u8; 4];

/// An IPv6 address in two halves, each as it lies in memory in network order. Halves, because the verifier wants accesses to the stack
/// aligned, and the compiler moves bytes in words as large as it may.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct V6 {
    high: u64,
    low: u64,
}

impl V6 {
    /// The address `::`.
    pub const UNSPECIFIED: V6 = V6 { high: 0, low: 0 };

    /// From its bytes in network order.
    #[inline(always)]
    pub const fn new(octets: [u8; 16]) -> V6 {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        V6 {
            high: u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            low: u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        }
    }

    /// Its bytes in network order.
    #[inline(always)]
    pub const fn octets(&self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h] = self.high.to_ne_bytes();
        let [i, j, k, l, m, n, o, p] = self.low.to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// Whether it is a multicast group (RFC 4291 section 2.7).
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        self.high.to_ne_bytes()[0] == 0xff
    }

    /// Whether it is an address of the link only (RFC 4291 section 2.5.6).
    #[inline(always)]
    pub const fn is_link_local(&self) -> bool {
        let [first, second, ..] = self.high.to_ne_bytes();
        first == 0xfe && second & 0xc0 == 0x80
    }

    /// Its last four bytes: of a [mapped] address the IPv4 address.
    #[inline(always)]
    pub const fn last_four(&self) -> V4 {
        let [.., a, b, c, d] = self.low.to_ne_bytes();
        [a, b, c, d]
    }

    /// Its two halves, as they lie in memory.
    #[inline(always)]
    pub const fn halves(&self) -> [u64; 2] {
        [self.high, self.low]
    }
}

impl PartialOrd for V6 {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for V6 {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets().cmp(&other.octets())
    }
}

impl fmt::Debug for V6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&core::net::Ipv6Addr::from(self.octets()), f)
    }
}

impl Ip for V4 {
    const V6: bool = false;
    const WORDS: u64 = 1;
    type Vni = u32;

    #[inline(always)]
    fn mapped(&self) -> V6 {
        mapped(*self)
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        u32::from_ne_bytes(*self) as u64
    }
}

impl Ip for V6 {
    const V6: bool = true;
    const WORDS: u64 = 4;
    type Vni = u64;

    #[inline(always)]
    fn mapped(&self) -> V6 {
        *self
    }

    #[inline(always)]
    fn sum(&self) -> u64 {
        let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
        halves(self.high) + halves(self.low)
    }
}

/// An IPv4 address in the 16 bytes of RFC 4291 section 2.5.5.2, `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn mapped([a, b, c, d]: V4) -> V6 {
    V6 {
        high: 0,
        low: u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d]),
    }
}

/// The IPv4 address in 16 bytes; `None` if they are those of an IPv6 address.
#[inline(always)]
pub const fn unmapped(ip: V6) -> Option<V4> {
    match ip.octets() {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}

/// An address inside one overlay: the key of everything that is looked up by "who is this?".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct OverlayAddress<A: Ip = V4> {
    /// The address.
    pub ip: A,
    /// VXLAN network identifier, 24 bits (RFC 7348 section 5).
    pub vni: A::Vni,
}

impl<A: Ip> OverlayAddress<A> {
    /// An address of the network `vni`.
    #[inline(always)]
    pub fn new(vni: u32, ip: A) -> Self {
        OverlayAddress { ip, vni: vni.into() }
    }

    /// The network.
    #[inline(always)]
    pub fn vni(&self) -> u32 {
        let vni: u64 = self.vni.into();
        vni as u32
    }
}

impl<A: Ip> PartialOrd for OverlayAddress<A> {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By network, then by address.
impl<A: Ip> Ord for OverlayAddress<A> {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.vni, self.ip).cmp(&(other.vni, other.ip))
    }
}

map_type!(V6, 16);
map_type!(OverlayAddress<V4>, 8);
map_type!(OverlayAddress<V6>, 24);

impl MapType for V4 {
    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_stands_in_sixteen_bytes() {
        let ip = [192, 0, 2, 7];
        assert_eq!(
            mapped(ip).octets(),
            std::net::Ipv4Addr::from(ip).to_ipv6_mapped().octets()
        );
        assert_eq!(unmapped(mapped(ip)), Some(ip));
        assert_eq!(unmapped(V6::new([0xfd; 16])), None);
        assert_eq!((ip.mapped(), mapped(ip).last_four()), (mapped(ip), ip));
    }

    #[test]
    fn an_ipv6_address_is_its_bytes() {
        let octets: [u8; 16] = core::array::from_fn(|index| index as u8 + 1);
        let ip = V6::new(octets);
        assert_eq!(ip.octets(), octets);
        assert_eq!(ip.as_bytes(), octets);
        assert_eq!(V6::from_bytes(&octets), Some(ip));
        let (words, _) = octets.as_chunks::<4>();
        assert_eq!(
            ip.sum(),
            words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()
        );
        assert!(V6::new([0xff; 16]).is_multicast() && !ip.is_multicast());
        let mut link = octets;
        link[..2].copy_from_slice(&[0xfe, 0xbf]);
        assert!(V6::new(link).is_link_local() && !ip.is_link_local());
    }

    #[test]
    fn addresses_are_sorted_by_network_and_in_network_order() {
        let at = |vni, last| OverlayAddress::new(vni, V6::new([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last, 0]));
        assert!(at(1, 9) < at(2, 1) && at(2, 1) < at(2, 2));
        assert_eq!(at(7, 1).vni(), 7);
        let v6 = |high, low| {
            let mut octets = [0; 16];
            (octets[0], octets[1]) = (high, low);
            V6::new(octets)
        };
        assert!(v6(1, 0) > v6(0, 9));
    }
}
