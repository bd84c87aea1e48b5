//! MSS clamping of IPv6: what opens a connection says what fits, also behind extension headers.
#![allow(clippy::unwrap_used)]

use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{Attachment, Clamp, Counter, Endpoint, OverlayAddress, Peer, V6, clamp, mapped};
use weft_dataplane::packet::ethernet;
use weft_tests::packet::{Mac, OVERHEAD, difference, ethernet_bytes};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, GATEWAY, Lab, VNI, VTEP, from_vtep, narrow};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const TCP: u8 = 6;

/// What the clamped network carries, and what then fits behind the headers of IPv6 and TCP.
const NETWORK_MTU: u32 = 1450;
const FITS: u16 = 1390;

type Station = (Mac, V6);

/// The stations of the network, each with an IPv6 address that ends as its IPv4 address does.
const ALICE6: Station = (ALICE.0, address(2));
const BOB6: Station = (BOB.0, address(3));
const CAROL6: Station = (CAROL.0, address(4));

const fn address(number: u8) -> V6 {
    V6::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number])
}

/// Next headers, and an extension header of each, whose first byte is still to be written.
const HOP_BY_HOP: (u8, &[u8]) = (0, &[0, 0, 1, 4, 0, 0, 0, 0]);
const LONG_OPTIONS: (u8, &[u8]) = (
    60,
    &[0, 2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
);
const ROUTING: (u8, &[u8]) = (43, &[0, 0, 2, 0, 0, 0, 0, 0]);
const WHOLE: (u8, &[u8]) = (44, &[0, 0, 0, 0, 1, 2, 3, 4]);
const FIRST: (u8, &[u8]) = (44, &[0, 0, 0, 1, 1, 2, 3, 4]);
const LATER: (u8, &[u8]) = (44, &[0, 0, 0, 8, 1, 2, 3, 4]);

/// A segment without data.
#[derive(Clone)]
struct Segment {
    from: Station,
    to: Station,
    extensions: Vec<(u8, &'static [u8])>,
    flags: u8,
    options: Vec<u8>,
}

impl Segment {
    fn to_carol(flags: u8, options: &[u8]) -> Self {
        Segment {
            from: ALICE6,
            to: CAROL6,
            extensions: Vec::new(),
            flags,
            options: options.to_vec(),
        }
    }

    fn between(mut self, from: Station, to: Station) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    fn behind(mut self, extensions: &[(u8, &'static [u8])]) -> Self {
        self.extensions = extensions.to_vec();
        self
    }

    /// The same with this MSS in place of its own, which is the last of its options.
    fn says(&self, mss: u16) -> Self {
        let mut other = self.clone();
        let at = other.options.windows(2).rposition(|two| two == [2, 4]).unwrap() + 2;
        other.options[at..at + 2].copy_from_slice(&mss.to_be_bytes());
        other
    }

    fn bytes(&self) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..4].copy_from_slice(&[0x9c, 0x40, 0, 80]);
        segment[12] = ((20 + self.options.len()) as u8 / 4) << 4;
        segment[13] = self.flags;
        segment[14] = 0xff;
        segment.extend(&self.options);
        let (from, to) = (self.from.1.octets(), self.to.1.octets());
        // RFC 8200 section 8.1.
        let pseudo = [&from[..], &to, &[0, 0, 0, segment.len() as u8, 0, 0, 0, TCP]].concat();
        let sum = sum(&[&pseudo[..], &segment].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut next = TCP;
        let mut chain: Vec<u8> = Vec::new();
        for (kind, bytes) in self.extensions.iter().rev() {
            let mut header = bytes.to_vec();
            header[0] = next;
            chain.splice(..0, header);
            next = *kind;
        }
        let mut frame = ethernet_bytes((self.from.0, self.to.0), ethernet::IPV6);
        frame.extend([0x60, 0, 0, 0, 0, (chain.len() + segment.len()) as u8, next, 64]);
        frame.extend([&from[..], &to, &chain, &segment].concat());
        frame
    }
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

fn mss(value: u16) -> Vec<u8> {
    let [high, low] = value.to_be_bytes();
    vec![2, 4, high, low]
}

/// A node whose stations have IPv6, on a network that is clamped to `mtu`, if one is given.
fn lab(mtu: Option<u32>) -> Lab {
    let mut lab = Lab::new();
    let mut entries = Vec::new();
    for ((mac, ip), ip6, ifindex) in [(ALICE, ALICE6.1, lab.alice), (BOB, BOB6.1, lab.bob)] {
        entries.push(Entry::Endpoint6(
            OverlayAddress::new(VNI, ip6),
            Endpoint { ifindex, mac, flags: 0 },
        ));
        entries.push(Entry::Attachment(
            ifindex,
            Attachment {
                vni: VNI,
                ip,
                gateway: GATEWAY.1,
                mac,
                gateway_mac: GATEWAY.0,
                ip6,
                gateway6: address(1),
            },
        ));
    }
    entries.push(Entry::Peer6(
        OverlayAddress::new(VNI, CAROL6.1),
        Peer {
            vtep: mapped(VTEP.1),
            mac: CAROL.0,
            flags: 0,
        },
    ));
    entries.extend(mtu.map(|mtu| Entry::Clamp(VNI, Clamp { mtu })));
    let steps: Vec<Step> = entries.into_iter().map(Step::Put).collect();
    lab.apply(&steps);
    lab
}

/// What Alice sends to a peer arrives in VXLAN, as this.
#[track_caller]
fn sent(lab: &Lab, name: &str, segment: &Segment, expected: &Segment) {
    let outcome = lab.from_alice(&segment.bytes());
    assert_eq!(
        (outcome.action, outcome.counted.into_keys().collect::<Vec<_>>()),
        (Action::Redirect, vec![Counter::Encapsulated]),
        "{name}"
    );
    is(name, &outcome.packet[OVERHEAD..], expected);
}

#[track_caller]
fn is(name: &str, frame: &[u8], expected: &Segment) {
    let difference = difference(&expected.bytes(), frame);
    assert!(difference.is_empty(), "{name}:\n{difference}");
}

#[test]
fn what_opens_a_connection_says_no_more_than_fits() {
    let lab = lab(Some(NETWORK_MTU));
    let syn = |value| Segment::to_carol(SYN, &mss(value));
    let answer = Segment::to_carol(SYN | ACK, &mss(8910));
    let other = Segment::to_carol(ACK, &mss(8910));
    let none = Segment::to_carol(SYN, &[]);
    let cases = [
        ("a SYN", syn(8910), syn(FITS)),
        ("one more than fits", syn(FITS + 1), syn(FITS)),
        ("a SYN that answers one", answer.clone(), answer.says(FITS)),
        ("as much as fits", syn(FITS), syn(FITS)),
        ("less", syn(1220), syn(1220)),
        ("a segment that opens nothing", other.clone(), other),
        ("a SYN without the option", none.clone(), none),
    ];
    for (name, segment, expected) in cases {
        sent(&lab, name, &segment, &expected);
    }
}

#[test]
fn extension_headers_hide_nothing() {
    let lab = lab(Some(NETWORK_MTU));
    let syn = Segment::to_carol(SYN, &mss(8910));
    for (name, extensions) in [
        ("hop-by-hop options", &[HOP_BY_HOP][..]),
        ("long destination options", &[LONG_OPTIONS]),
        ("a routing header", &[ROUTING]),
        ("the header of a packet that is whole", &[WHOLE]),
        ("three of them", &[HOP_BY_HOP, ROUTING, LONG_OPTIONS]),
        ("four of them", &[HOP_BY_HOP, LONG_OPTIONS, ROUTING, WHOLE]),
        ("the header of a first fragment", &[FIRST]),
        ("options before the header of a first fragment", &[HOP_BY_HOP, FIRST]),
    ] {
        let segment = syn.clone().behind(extensions);
        sent(&lab, name, &segment, &segment.says(FITS));
    }
    for (name, extensions) in [
        ("a later fragment", &[LATER][..]),
        ("a later fragment behind options", &[HOP_BY_HOP, LATER]),
    ] {
        let segment = syn.clone().behind(extensions);
        sent(&lab, name, &segment, &segment);
    }
    let many = syn.behind(&[HOP_BY_HOP, ROUTING, LONG_OPTIONS, LONG_OPTIONS, LONG_OPTIONS]);
    lab.from_alice(&many.bytes())
        .dropped(&many.bytes(), Counter::DropExtensionHeaders);
}

/// Its value may lie across two words of the checksum.
#[test]
fn the_option_may_stand_anywhere() {
    let lab = lab(Some(NETWORK_MTU));
    for before in [
        &[1_u8][..],
        &[1, 1],
        &[3, 3, 7],
        &[4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
        &[1; 17],
    ] {
        for extensions in [&[][..], &[HOP_BY_HOP, LONG_OPTIONS]] {
            let mut options = [before, &mss(0x1234)].concat();
            options.resize(options.len().next_multiple_of(4), 0);
            let segment = Segment::to_carol(SYN, &options).behind(extensions);
            sent(&lab, &format!("behind {before:?}"), &segment, &segment.says(FITS));
        }
    }
}

#[test]
fn network_and_path_count_where_they_are_asked_for() {
    let syn = Segment::to_carol(SYN, &mss(8910));
    let mut open = lab(None);
    sent(&open, "nobody asks", &syn, &syn);
    open.apply(&[narrow(1000), Step::Put(Entry::Clamp(VNI, Clamp { mtu: NETWORK_MTU }))]);
    // 1000 bytes, less 50 of encapsulation and 60 of headers.
    sent(&open, "a path that carries less", &syn, &syn.says(890));
    open.apply(&[narrow(9000)]);
    sent(&open, "a path that carries more", &syn, &syn.says(FITS));
    assert_eq!(open.dataplane.dump(clamp::NAME).unwrap().entries.len(), 1);
}

#[test]
fn neighbours_and_other_nodes_are_told_too() {
    let lab = lab(Some(NETWORK_MTU));
    for extensions in [&[][..], &[HOP_BY_HOP]] {
        let syn = Segment::to_carol(SYN, &mss(8910)).behind(extensions);
        let local = syn.clone().between(ALICE6, BOB6);
        let outcome = lab.from_alice(&local.bytes());
        is("to a neighbour", &outcome.packet, &local.says(FITS));
        assert!(outcome.counted.contains_key(&Counter::DeliveredLocally), "{outcome:?}");

        let remote = syn.between(CAROL6, ALICE6);
        let outcome = lab.from_underlay(&from_vtep().around(&remote.bytes()));
        is("from another node", &outcome.packet, &remote.says(FITS));
        assert!(outcome.counted.contains_key(&Counter::Delivered), "{outcome:?}");
    }
}
