//! What is used of the kernel: what trials say of this one, and what an operator can force.
#![allow(clippy::unwrap_used)]

use aya::util::KernelVersion;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use weft::dataplane::{Dataplane, Feature, Forced, Hook, wants_encap_device};
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{Counter, Network, VXLAN_PORT, flow};
use weft_tests::namespace::Namespace;
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, Action, BOB, CAROL, GATEWAY, Lab, Loaded, UPLINK, VIP, VNI, VTEP, config, narrow};
use weft_tests::traffic::DEADLINE;

/// A trial finds what the version says, but for the one feature that older kernels got, too, with their fixes.
#[test]
fn trials_find_what_the_version_says() {
    let kernel = KernelVersion::current().unwrap();
    let loaded = Loaded::new(&config());
    let came_with = [(6, 6), (5, 10), (5, 13), (6, 3), (6, 16), (5, 6)];
    for (feature, (major, minor)) in Feature::ALL.into_iter().zip(came_with) {
        let told: Vec<String> = loaded.features().choices().iter().map(ToString::to_string).collect();
        let backported = feature == Feature::CsumIpv6 && loaded.features().has(feature);
        let expected = backported || kernel >= KernelVersion::new(major, minor, 0);
        assert_eq!(loaded.features().has(feature), expected, "{}: {told:?}", feature.name());
        let told = &told[feature as usize];
        let word = if expected { " has " } else { " has no " };
        assert!(
            told.starts_with(feature.name()) && told.contains(word) && !told.contains("cannot be tried"),
            "{told}"
        );
    }
}

#[test]
fn what_is_forced_is_done_or_refused_before_anything_is_touched() {
    for feature in Feature::ALL {
        let by_trial = Loaded::new(&config()).features().has(feature);
        for (better, way) in [true, false].into_iter().zip(feature.choices()) {
            let mut config = config();
            config.features = Forced::only(&[(feature.name(), way)]).unwrap();
            config.encap_device = Some(1);
            match Dataplane::load(&config) {
                Ok(dataplane) => {
                    let choice = dataplane.features().choices()[feature as usize].clone();
                    assert_eq!((choice.way(), choice.why.as_str()), (way, "as configured"));
                    dataplane.remove().unwrap();
                }
                Err(error) => {
                    assert!(better && !by_trial, "{way}: {error}");
                    let [_, other] = feature.choices();
                    let error = error.to_string();
                    assert!(
                        error.starts_with(&format!("features \"{}={way}\": ", feature.name())),
                        "{error}"
                    );
                    assert!(error.ends_with(&format!("; {other} is possible")), "{error}");
                }
            }
            assert!(!config.pin_directory.exists());
        }
    }
}

#[test]
fn nothing_is_loaded_without_the_device_that_is_to_encapsulate() {
    let mut config = config();
    for (way, wanted) in Feature::Encap.choices().into_iter().zip([false, true]) {
        config.features = Forced::only(&[("encap", way)]).unwrap();
        assert_eq!(wants_encap_device(&config.features), Ok(wanted));
    }
    let error = Dataplane::load(&config).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"features "encap=collect_md": there is no vxlan device that encapsulates"#
    );
    assert!(!config.pin_directory.exists());
}

/// Only the inner Ethernet header is written, as the packet is handed to the device; what is told or dropped before is as ever.
#[test]
fn the_device_gets_the_packet_as_it_is_to_arrive() {
    let mut config = config();
    config.features = Forced::only(&[("encap", "collect_md")]).unwrap();
    config.encap_device = Some(1);
    let mut lab = Lab::with(&config);
    for payload in [Payload::Echo(1), Payload::Udp(1, 2, vec![7; 100])] {
        let sent = Datagram::new(ALICE, CAROL, payload).bytes();
        let outcome = lab.from_alice(&sent);
        assert_eq!((outcome.action, &outcome.packet), (Action::Redirect, &sent));
        assert_eq!(outcome.counted, BTreeMap::from([(Counter::Encapsulated, 1)]));
    }
    let sent = Datagram::new(ALICE, (GATEWAY.0, CAROL.1), Payload::Udp(1, 2, vec![])).bytes();
    let outcome = lab.from_alice(&sent);
    assert_eq!((&outcome.packet[..6], &outcome.packet[6..]), (&CAROL.0[..], &sent[6..]));
    lab.apply(&[narrow(149)]);
    let outcome = lab.from_alice(&Datagram::new(ALICE, CAROL, Payload::Udp(1, 2, vec![7; 100])).bytes());
    assert_eq!(outcome.counted.get(&Counter::Encapsulated), None);
}

/// What the kernel's device writes around a packet, on the wire: all as the programs do, but that it does not pass a congestion mark on
/// (RFC 3168 section 9.1.1), which the inner header keeps.
#[test]
fn the_device_writes_what_it_is_told() {
    const DEVICE: u32 = 100;
    let mut config = config();
    config.features = Forced::only(&[("encap", "collect_md")]).unwrap();
    config.encap_device = Some(DEVICE);
    let mut lab = Lab::with(&config);
    lab.attach(Hook::Endpoint, lab.alice);
    let (host, alice) = (lab.namespace(), Namespace::new("wpa"));
    for arguments in [
        // Not the first of its addresses, which the route would choose.
        "addr add 192.168.50.9/24 dev uplink",
        "addr add 192.168.50.1/24 dev uplink",
        "link set uplink-peer up",
        "neigh add 192.168.50.2 lladdr 02:00:00:00:00:0b dev uplink nud permanent",
        &format!("link add weft-gro index {DEVICE} type vxlan external vnifilter nolearning dstport {VXLAN_PORT}"),
        "link set weft-gro up",
        &format!("link set alice-peer netns {}", alice.name()),
    ] {
        host.ip(arguments);
    }
    for arguments in ["address 02:42:0a:00:01:02", "up"] {
        alice.ip(&format!("link set alice-peer {arguments}"));
    }
    alice.ip("addr add 10.0.1.2/24 dev alice-peer");
    let all_protocols = Protocol::from(i32::from(3_u16.to_be()));
    let wire = host.enter(|| Socket::new(Domain::PACKET, Type::RAW, Some(all_protocols)));
    let mut wire = wire.unwrap();
    wire.set_read_timeout(Some(DEADLINE)).unwrap();
    let socket = alice.enter(|| Socket::new(Domain::IPV4, Type::DGRAM, None)).unwrap();
    for (inner, outer) in [(0xb8, 0), (0xb9, 1), (0xba, 2), (0xbb, 2)] {
        socket.set_tos_v4(inner).unwrap();
        socket
            .send_to(b"hello", &SocketAddr::from((CAROL.1, 7)).into())
            .unwrap();
        let frame = loop {
            let mut buffer = vec![0; 2048];
            let length = wire.read(&mut buffer).expect("the packet passes the uplink");
            buffer.truncate(length);
            // Each is seen on both ends of the link.
            if length > 90 && buffer[36..38] == VXLAN_PORT.to_be_bytes() && u32::from(buffer[65]) == inner {
                break buffer;
            }
        };
        assert_eq!(
            (frame[14..16].to_vec(), &frame[20..24]),
            (vec![0x45, outer], &[0x40, 0, 64, 17][..])
        );
        assert_eq!((&frame[26..30], &frame[30..34]), (&UPLINK.1[..], &VTEP.1[..]));
        assert_eq!(frame[40..42], [0; 2], "a checksum of UDP");
        assert_eq!((frame[42], &frame[46..49]), (8, &VNI.to_be_bytes()[1..]));
        assert_eq!((&frame[50..56], &frame[56..62]), (&CAROL.0[..], &ALICE.0[..]));
        assert_eq!((&frame[76..80], &frame[80..84]), (&ALICE.1[..], &CAROL.1[..]));
        assert!(frame.ends_with(b"hello"));
    }
}

#[test]
fn the_handover_is_what_was_forced() {
    for way in Feature::Handover.choices() {
        let mut config = config();
        config.features = Forced::only(&[("handover", way)]).unwrap();
        let lab = Lab::with(&config);
        let outcome = lab.from_alice(&Datagram::new(ALICE, BOB, Payload::Echo(1)).bytes());
        assert_eq!(outcome.action, Action::Redirect, "{way}");
        let outcome = lab.from_alice(&Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes());
        assert_eq!(outcome.action, Action::Redirect, "{way}");
    }
}

#[test]
fn maps_are_read_alike_one_by_one() {
    let read = |way: &str| {
        let mut config = config();
        config.features = Forced::only(&[("map-reads", way)]).unwrap();
        let mut lab = Lab::with(&config);
        for port in 0..100 {
            lab.from_alice(&Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Udp(port, 2, vec![])).bytes());
        }
        // A walk over the flows, of which none is over.
        for _ in 0..100 {
            lab.dataplane.sweep_flows().unwrap();
        }
        let summaries = lab.dataplane.summaries().unwrap();
        let entries = |name: &str| summaries.iter().find(|summary| summary.name == name).unwrap().entries;
        assert_eq!((entries(flow::NAME), entries("peers")), (200, 3), "{way}");
        summaries
            .into_iter()
            .map(|summary| (summary.name, summary.entries))
            .collect::<Vec<_>>()
    };
    assert_eq!(read("batch"), read("single"));
}

/// Maps of another size are filled from those that were there, whichever way they are read.
#[test]
fn maps_are_copied_alike_one_by_one() {
    for way in Feature::MapReads.choices() {
        let mut config = config();
        config.features = Forced::only(&[("map-reads", way)]).unwrap();
        let mut first = Loaded::new(&config);
        let steps: Vec<Step> = (0..50)
            .map(|number| {
                Step::Put(Entry::Network(
                    VNI + number,
                    Network {
                        gateway: GATEWAY.1,
                        gateway_mac: GATEWAY.0,
                        prefix_len: 24,
                        padding: 0,
                    },
                ))
            })
            .collect();
        first.apply(&steps).unwrap();
        let present = first.present().unwrap();
        first.leave();
        config.sizes.networks /= 2;
        let second = Loaded::new(&config);
        assert_eq!(second.present().unwrap(), present, "{way}");
        assert_eq!(second.attached().unwrap(), Vec::<(Hook, u32)>::new());
    }
}
