//! A newly attached endpoint: until its maps are complete nothing that it sends leaves, and nothing goes to a wrong place.
#![allow(clippy::unwrap_used)]

use std::net::{Ipv4Addr, UdpSocket};
use weft::dataplane::{Dataplane, Hook};
use weft_core::reconcile::{self, Entry, Step};
use weft_core::wanted::MapContents;
use weft_dataplane::abi::{Counter, Flow, FlowKey, OverlayAddress, Sizes, answer, flow, service};
use weft_dataplane::packet::{Arp, arp, ethernet};
use weft_tests::namespace::{Namespace, eventually};
use weft_tests::packet::{Datagram, Payload, arp_bytes, ethernet_bytes};
use weft_tests::programs::{
    ALICE, Action, BOB, CAROL, EMPTY_VIP, GATEWAY, Lab, Loaded, NOBODY, Outcome, VIP, config, from_vtep,
};
use weft_tests::table::clear;

const BROADCAST: [u8; 6] = [0xff; 6];

/// Everything that a container may try.
fn out_of_the_container() -> Vec<(&'static str, Vec<u8>)> {
    let udp = || Payload::Udp(40000, 53, b"question".to_vec());
    vec![
        (
            "a question for a peer",
            arp_bytes((ALICE.0, BROADCAST), &Arp::new(arp::REQUEST, ALICE, ([0; 6], CAROL.1))),
        ),
        ("a datagram to a peer", Datagram::new(ALICE, CAROL, udp()).bytes()),
        ("a datagram to a neighbour", Datagram::new(ALICE, BOB, udp()).bytes()),
        ("a datagram to nobody", Datagram::new(ALICE, NOBODY, udp()).bytes()),
        (
            "a datagram to a virtual IP",
            Datagram::new(ALICE, (GATEWAY.0, VIP), udp()).bytes(),
        ),
        (
            "a segment to a virtual IP without backends",
            Datagram::new(ALICE, (GATEWAY.0, EMPTY_VIP), Payload::Tcp(1, 2, 2, vec![])).bytes(),
        ),
        (
            "a ping of the gateway",
            Datagram::new(ALICE, GATEWAY, Payload::Echo(1)).bytes(),
        ),
        (
            "a broadcast",
            Datagram::new(ALICE, (BROADCAST, [255; 4]), udp()).bytes(),
        ),
        (
            "somebody else's address",
            Datagram::new((ALICE.0, BOB.1), CAROL, udp()).bytes(),
        ),
        (
            "IPv6",
            [ethernet_bytes((ALICE.0, CAROL.0), ethernet::IPV6), vec![0x60; 60]].concat(),
        ),
        (
            "a VLAN",
            [ethernet_bytes((ALICE.0, CAROL.0), [0x81, 0]), vec![0; 60]].concat(),
        ),
    ]
}

fn run(lab: &Lab) -> Vec<(&'static str, Vec<u8>, Outcome)> {
    out_of_the_container()
        .into_iter()
        .map(|(name, packet)| {
            let outcome = lab.from_alice(&packet);
            (name, packet, outcome)
        })
        .collect()
}

/// What became of a packet, without what is random in it.
fn fate(outcome: &Outcome) -> (Action, Vec<Counter>, usize) {
    let counters = outcome.counted.keys().copied().collect();
    (outcome.action, counters, outcome.packet.len())
}

/// Connections, turns and answers are those of a new node again.
fn forget(lab: &Lab) {
    clear::<FlowKey, Flow>(&lab.dataplane.pin_of(flow::NAME));
    clear::<OverlayAddress, u32>(&lab.dataplane.pin_of(service::ROTATION_NAME));
    clear::<u32, u64>(&lab.dataplane.pin_of(answer::NAME));
}

/// Steps are taken in the order of a daemon, one at a time, and everything is tried after each.
#[test]
fn nothing_leaves_before_the_attachment_and_everything_is_right_after_it() {
    let mut lab = Lab::new();
    let wanted = lab.dataplane.present().unwrap();
    let complete: Vec<_> = run(&lab).iter().map(|(_, _, outcome)| fate(outcome)).collect();
    let inbound = from_vtep().around(&Datagram::new(CAROL, ALICE, Payload::Echo(1)).bytes());
    let delivered = lab.from_underlay(&inbound);
    assert_eq!(delivered.action, Action::Redirect);

    lab.apply(&reconcile::steps(&MapContents::default(), &wanted, &Sizes::DEFAULT));
    assert_eq!(lab.dataplane.present().unwrap(), MapContents::default());
    let steps = reconcile::steps(&wanted, &MapContents::default(), &Sizes::DEFAULT);
    let alice = lab.alice;
    let attached = |step: &Step| matches!(step, Step::Put(Entry::Attachment(ifindex, _)) if *ifindex == alice);
    assert!(steps.iter().any(attached), "{steps:?}");
    let mut is_attached = false;
    for step in [None].into_iter().chain(steps.iter().map(Some)) {
        if let Some(step) = step {
            lab.apply(std::slice::from_ref(step));
            is_attached |= attached(step);
        }
        if is_attached {
            forget(&lab);
        }
        for ((name, packet, outcome), complete) in run(&lab).into_iter().zip(&complete) {
            if is_attached {
                assert_eq!(fate(&outcome), *complete, "{name}, after {step:?}");
            } else {
                assert_eq!(
                    fate(&outcome),
                    (Action::Drop, vec![Counter::DropNotAttached], packet.len()),
                    "{name}, after {step:?}"
                );
                assert_eq!(outcome.packet, packet, "{name}, after {step:?}");
            }
        }
        // What comes from outside is delivered where it belongs, or not at all.
        let outcome = lab.from_underlay(&inbound);
        if outcome.action == Action::Redirect {
            assert_eq!(outcome, delivered, "after {step:?}");
        }
    }
    assert!(is_attached);
    assert_eq!(lab.dataplane.present().unwrap(), wanted);
}

/// How many packets came in by an interface of the namespace.
fn received(namespace: &Namespace, interface: &str) -> u64 {
    let table = namespace.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(&format!("{interface}:")));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap()
}

/// The same with real packets, through a program that is attached before anything is in the maps.
#[test]
fn real_packets_of_an_endpoint_without_maps_go_nowhere() {
    const COUNT: u64 = 20;
    let lab = Lab::new();
    let wanted = lab.dataplane.present().unwrap();
    let entries = |dataplane: &Dataplane, counter: Counter| dataplane.counter(counter).unwrap();
    let (host, container) = (Namespace::new("wna"), Namespace::new("wna"));
    for interface in ["uplink", "bob"] {
        host.ip(&format!("link add {interface} type veth peer name {interface}-peer"));
        host.ip(&format!("link set {interface} up"));
        host.ip(&format!("link set {interface}-peer up"));
    }
    let mac = ALICE.0.map(|byte| format!("{byte:02x}")).join(":");
    host.ip(&format!(
        "link add alice type veth peer name eth0 address {mac} netns {}",
        container.name()
    ));
    host.ip("link set alice up");
    container.ip(&format!("addr add {}/24 dev eth0", Ipv4Addr::from(ALICE.1)));
    container.ip("link set eth0 up");
    for (mac, ip) in [CAROL, BOB, (GATEWAY.0, VIP)] {
        let mac = mac.map(|byte| format!("{byte:02x}")).join(":");
        container.ip(&format!(
            "neigh replace {} lladdr {mac} dev eth0 nud permanent",
            Ipv4Addr::from(ip)
        ));
    }
    let send = || {
        container.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for number in 0..COUNT {
                let to = [CAROL.1, BOB.1, VIP][number as usize % 3];
                socket.send_to(b"x", (Ipv4Addr::from(to), 53)).unwrap();
            }
        });
    };
    let mut dataplane = Loaded::new(&config());
    let ifindex = host.ifindex("alice");
    host.enter(|| dataplane.attach(Hook::Endpoint, ifindex)).unwrap();
    let quiet = |dataplane: &Dataplane, step: &str| {
        let before = entries(dataplane, Counter::DropNotAttached);
        send();
        eventually("all of them are dropped", || {
            entries(dataplane, Counter::DropNotAttached) >= before + COUNT
        });
        for place in ["uplink-peer", "bob-peer"] {
            assert_eq!(received(&host, place), 0, "{place}, after {step}");
        }
    };
    quiet(&dataplane, "nothing");
    for step in reconcile::steps(&wanted, &MapContents::default(), &Sizes::DEFAULT) {
        // The lab's interfaces are those of another host; here are only these.
        let step = match step {
            Step::Put(Entry::Attachment(..)) => continue,
            Step::Put(Entry::Node(vtep, mut node)) => {
                node.ifindex = host.ifindex("uplink");
                Step::Put(Entry::Node(vtep, node))
            }
            Step::Put(Entry::Endpoint(address, mut endpoint)) => {
                endpoint.ifindex = host.ifindex(if address.ip == BOB.1 { "bob" } else { "alice" });
                Step::Put(Entry::Endpoint(address, endpoint))
            }
            other => other,
        };
        dataplane.apply(&[step]).unwrap();
        quiet(&dataplane, &format!("{step:?}"));
    }
    let attachment = wanted.attachments[&lab.alice];
    dataplane
        .apply(&[Step::Put(Entry::Attachment(ifindex, attachment))])
        .unwrap();
    let dropped = entries(&dataplane, Counter::DropNotAttached);
    send();
    eventually("what is for the neighbour arrives there", || {
        entries(&dataplane, Counter::DeliveredLocally) >= COUNT / 3
    });
    eventually("what is for the peer is sent", || {
        entries(&dataplane, Counter::Encapsulated) >= COUNT / 3
    });
    assert_eq!(entries(&dataplane, Counter::DropNotAttached), dropped);
}
