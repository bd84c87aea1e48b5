//! Random maps and packets. Addresses and ports are few, so that packets meet, and most packets are nearly right, so that they get far.

use super::{Balancing, Event, Sequence};
use crate::expect::{SHORTEST_IPV4, SHORTEST_IPV6};
use crate::model::{Attachment, Origin, Policy, World};
use crate::packet::{Datagram, Ip, Mac, Payload, Tunnel, arp_bytes, ethernet_bytes};
use crate::programs::{FOREIGN_VNI, GATEWAY, Lab, UPLINK, VNI};
use std::collections::BTreeMap;
use weft_dataplane::abi::VXLAN_PORT;
use weft_dataplane::abi::service::{POLICY_LEAST_CONNECTIONS, POLICY_MAGLEV};
use weft_dataplane::packet::{Arp, arp, checksum, ethernet, ipv4};

/// A second network, in which the same addresses may be others.
const OTHER_VNI: u32 = VNI + 1;
const VNIS: [u32; 2] = [VNI, OTHER_VNI];
const PORTS: [u16; 4] = [1, 53, 80, 40000];
const VTEPS: [Ip; 3] = [[192, 168, 50, 2], [192, 168, 50, 3], [192, 168, 50, 4]];
const MTUS: [u32; 5] = [100, 300, 576, 1500, 9000];
/// Stations of a network: the containers, then others.
const STATIONS: u8 = 8;
const VIPS: [Ip; 4] = [[10, 0, 1, 100], [10, 0, 1, 101], [10, 0, 1, 102], [10, 0, 1, 103]];

/// A small generator of numbers, the same in every run (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// True once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn station(number: u8) -> (Mac, Ip) {
    ([2, 0x42, 10, 0, 1, number], [10, 0, 1, number])
}

/// A random sequence.
pub(super) fn sequence(numbers: &mut Numbers, lab: &Lab, length: usize) -> Sequence {
    let first = world(numbers, lab);
    let mut world = first.clone();
    let event = |_| {
        if numbers.once_in(30) {
            return Event::Silence;
        }
        if numbers.once_in(20) {
            let balancing = balancing(numbers, &world);
            (world.services, world.policies) = (balancing.services.clone(), balancing.policies.clone());
            return Event::Services(Box::new(balancing));
        }
        let (origin, packet) = packet(numbers, &world, lab);
        Event::Packet(origin, packet)
    };
    let events = (0..length).map(event).collect();
    Sequence { world: first, events }
}

/// Other backends and policies of some virtual IPs. Who is no backend any more may stay to drain.
fn balancing(numbers: &mut Numbers, world: &World) -> Balancing {
    let mut now = Balancing {
        services: world.services.clone(),
        policies: world.policies.clone(),
        members: BTreeMap::new(),
    };
    for (address, backends) in &mut now.services {
        let before = backends.clone();
        if !numbers.once_in(3) {
            *backends = (0..numbers.below(4)).map(|_| backend(numbers)).collect();
            now.policies.remove(address);
            now.policies
                .extend(policy(numbers, backends).map(|policy| (*address, policy)));
        }
        let draining = before.into_iter().filter(|_| numbers.once_in(2)).map(|ip| (ip, false));
        let mut members: BTreeMap<Ip, bool> = draining.collect();
        members.extend(backends.iter().map(|ip| (*ip, true)));
        now.members.insert(*address, members);
    }
    now
}

/// How a virtual IP with these backends chooses, if not by turns.
fn policy(numbers: &mut Numbers, backends: &[Ip]) -> Option<Policy> {
    let kind = numbers.below(4) as u32;
    let affinity_seconds = if numbers.once_in(4) { 60 } else { 0 };
    let mut policy = Policy {
        kind,
        affinity_seconds,
        ..Policy::default()
    };
    if backends.is_empty() || kind == 0 && affinity_seconds == 0 {
        return None;
    }
    if kind == POLICY_MAGLEV && !numbers.once_in(5) {
        let size = numbers.of(&[7, 61, 251]);
        policy.table = (0..size).map(|_| numbers.of(backends)).collect();
    }
    if kind == POLICY_LEAST_CONNECTIONS {
        let weighted = backends
            .iter()
            .filter(|_| numbers.once_in(2))
            .copied()
            .collect::<Vec<_>>();
        policy.weights = weighted
            .into_iter()
            .map(|ip| (ip, 1 + numbers.below(3) as u32))
            .collect();
    }
    Some(policy)
}

fn world(numbers: &mut Numbers, lab: &Lab) -> World {
    let mut world = World {
        gateway: GATEWAY,
        uplink: UPLINK.0,
        port: VXLAN_PORT,
        ..World::default()
    };
    world.networks.insert(VNI);
    if !numbers.once_in(4) {
        world.networks.insert(OTHER_VNI);
    }
    for vni in world.networks.clone() {
        if numbers.once_in(3) {
            world.clamps.insert(vni, numbers.of(&MTUS));
        }
    }
    for vtep in VTEPS {
        if !numbers.once_in(5) {
            world.nodes.insert(vtep, (UPLINK.1, numbers.of(&MTUS)));
        }
    }
    for (ifindex, number) in [(lab.alice, 2), (lab.bob, 3)] {
        let (mac, ip) = station(number);
        let vni = if numbers.once_in(5) { OTHER_VNI } else { VNI };
        if !world.networks.contains(&vni) || numbers.once_in(20) {
            continue;
        }
        world.attachments.insert(ifindex, Attachment { vni, ip, mac });
        if !numbers.once_in(20) {
            world.endpoints.insert((vni, ip), mac);
        }
    }
    for vni in world.networks.clone() {
        for number in 2..2 + STATIONS {
            let (mac, ip) = station(number);
            if world.endpoints.contains_key(&(vni, ip)) || numbers.once_in(3) || number < 4 {
                continue;
            }
            world.peers.insert((vni, ip), (numbers.of(&VTEPS), mac));
        }
        for vip in VIPS {
            if numbers.once_in(4) {
                continue;
            }
            let count = numbers.below(4);
            let backends: Vec<Ip> = (0..count).map(|_| backend(numbers)).collect();
            let policy = policy(numbers, &backends);
            world.services.insert((vni, vip), backends);
            world.policies.extend(policy.map(|policy| ((vni, vip), policy)));
        }
    }
    world
}

fn backend(numbers: &mut Numbers) -> Ip {
    if numbers.once_in(15) {
        return numbers.of(&VIPS);
    }
    station(2 + numbers.below(usize::from(STATIONS)) as u8).1
}

fn packet(numbers: &mut Numbers, world: &World, lab: &Lab) -> (Origin, Vec<u8>) {
    let (origin, frame) = if numbers.once_in(3) {
        (Origin::Underlay, from_underlay(numbers, world))
    } else {
        let (ifindex, number) = numbers.of(&[(lab.alice, 2), (lab.alice, 2), (lab.bob, 3)]);
        (Origin::Container(ifindex), from_container(numbers, station(number)))
    };
    (origin, damaged(numbers, frame))
}

fn from_container(numbers: &mut Numbers, own: (Mac, Ip)) -> Vec<u8> {
    if numbers.once_in(12) {
        return arp_request(numbers, own);
    }
    if numbers.once_in(40) {
        let mut frame = ethernet_bytes(
            (own.0, station(4).0),
            numbers.of(&[[0x88, 0xcc], [0x81, 0x00], [0, 60]]),
        );
        frame.extend(numbers.bytes(80));
        return frame;
    }
    let from = if numbers.once_in(30) {
        station(2 + numbers.below(5) as u8)
    } else {
        own
    };
    let to = destination(numbers);
    let mut datagram = datagram(numbers, from, to);
    if numbers.once_in(10) {
        datagram.macs.1 = station(4 + numbers.below(4) as u8).0;
    }
    datagram.bytes()
}

fn destination(numbers: &mut Numbers) -> (Mac, Ip) {
    match numbers.below(24) {
        0..=9 => station(2 + numbers.below(usize::from(STATIONS)) as u8),
        10..=20 => (GATEWAY.0, numbers.of(&VIPS)),
        21 => GATEWAY,
        22 => (GATEWAY.0, [8, 8, 8, 8]),
        _ => numbers.of(&[([0xff; 6], [255; 4]), ([1, 0, 0x5e, 0, 0, 1], [224, 0, 0, 1])]),
    }
}

fn datagram(numbers: &mut Numbers, from: (Mac, Ip), to: (Mac, Ip)) -> Datagram {
    let length = match numbers.below(6) {
        0 => 0,
        1 => numbers.below(1500),
        2 => 400 + numbers.below(200),
        _ => numbers.below(40),
    };
    let data = numbers.bytes(length);
    // Half of all talk on the same two ports, so that connections meet.
    let (source, destination) = if numbers.once_in(2) {
        (40000, 53)
    } else {
        (numbers.of(&PORTS), numbers.of(&PORTS))
    };
    let payload = match numbers.below(26) {
        0..=7 => {
            let flags = match numbers.below(8) {
                0..=2 => 0x02,
                3..=4 => 0x10,
                5 => numbers.of(&[0x11, 0x04, 0x14]),
                6 => 0x12,
                _ => numbers.next() as u8,
            };
            if flags & 0x02 != 0 && numbers.once_in(2) {
                Payload::TcpOptions(source, destination, flags, options(numbers))
            } else {
                Payload::Tcp(source, destination, flags, data)
            }
        }
        8..=14 => Payload::Udp(source, destination, data),
        15 => Payload::UdpWithoutChecksum(source, destination, data),
        16 => Payload::Echo(numbers.next() as u16),
        17 | 20.. => Payload::Raw(ipv4::ICMP, error(numbers, from, to, source, destination)),
        18 => Payload::Raw(numbers.of(&[ipv4::TCP, ipv4::UDP]), data),
        19 => Payload::Raw(numbers.next() as u8, data),
    };
    let mut datagram = Datagram::new(from, to, payload);
    if numbers.once_in(10) {
        datagram.options = vec![1; 4 * (1 + numbers.below(10))];
    }
    if numbers.once_in(10) {
        let fragment = numbers.next() as u16 & 0x1fff;
        datagram.fragment = numbers.of(&[0, 0x2000, 0x4000, 0x8000, fragment, 0x2000 | fragment]);
    }
    if numbers.once_in(10) {
        datagram.ttl = numbers.of(&[0, 1, 255]);
    }
    if numbers.once_in(4) {
        datagram.tos = numbers.next() as u8;
    }
    datagram
}

/// TCP options with an MSS among them, most of the time.
fn options(numbers: &mut Numbers) -> Vec<u8> {
    let mut options = Vec::new();
    for _ in 0..1 + numbers.below(4) {
        let mss = numbers.next() as u16 % 2000;
        let [high, low] = mss.to_be_bytes();
        match numbers.below(8) {
            0..=3 => options.extend([2, 4, high, low]),
            4 => options.extend([1]),
            5 => options.extend([8, 10, 0, 0, 0, 1, 0, 0, 0, 2]),
            6 => options.extend([3, 3, 7]),
            _ => options.extend(numbers.bytes(2)),
        }
    }
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), 0);
    options
}

/// An ICMP error, or something like it, that quotes a packet which its sender may have got from its receiver; or just bytes.
fn error(numbers: &mut Numbers, from: (Mac, Ip), to: (Mac, Ip), source: u16, destination: u16) -> Vec<u8> {
    if numbers.once_in(4) {
        let length = numbers.below(60);
        return numbers.bytes(length);
    }
    let (source, destination) = if numbers.once_in(2) {
        (source, destination)
    } else {
        (destination, source)
    };
    let payload = if numbers.once_in(2) {
        Payload::Tcp(destination, source, 0x10, vec![])
    } else {
        Payload::Udp(destination, source, numbers.bytes(9))
    };
    let mut quoted = Datagram::new(to, from, payload);
    if numbers.once_in(10) {
        quoted.options = vec![1; 4 * (1 + numbers.below(10))];
    }
    if numbers.once_in(10) {
        quoted.fragment = numbers.of(&[0x2000, 0x2007, 9]);
    }
    let mut error = vec![numbers.of(&[3, 3, 4, 5, 11, 12]), numbers.next() as u8, 0, 0];
    error.extend(numbers.bytes(4));
    error.extend(&quoted.bytes()[14..]);
    if numbers.once_in(5) {
        error.truncate(numbers.below(error.len()));
    }
    if error.len() >= 4 {
        let sum = checksum::of(0, &error).to_be_bytes();
        error[2..4].copy_from_slice(&sum);
    }
    error
}

fn arp_request(numbers: &mut Numbers, own: (Mac, Ip)) -> Vec<u8> {
    let (_, target) = destination(numbers);
    let sender = match numbers.below(8) {
        0 => (own.0, [0; 4]),
        1 => station(5),
        _ => own,
    };
    let operation = if numbers.once_in(10) { arp::REPLY } else { arp::REQUEST };
    arp_bytes((own.0, [0xff; 6]), &Arp::new(operation, sender, ([0; 6], target)))
}

fn from_underlay(numbers: &mut Numbers, world: &World) -> Vec<u8> {
    let peers: Vec<_> = world
        .peers
        .iter()
        .map(|((vni, ip), (vtep, mac))| (*vni, *vtep, (*mac, *ip)))
        .collect();
    let (vni, vtep, from) = if peers.is_empty() || numbers.once_in(15) {
        let from = station(2 + numbers.below(usize::from(STATIONS)) as u8);
        (numbers.of(&VNIS), numbers.of(&VTEPS), from)
    } else {
        numbers.of(&peers)
    };
    let to = match numbers.below(12) {
        0 => destination(numbers),
        1..=3 => station(3),
        _ => station(2),
    };
    let inner = match numbers.below(30) {
        0 => arp_request(numbers, from),
        1 => numbers.bytes(40),
        _ => datagram(numbers, from, to).bytes(),
    };
    let mut tunnel = Tunnel {
        macs: ([2, 0, 0, 0, 0, 0xb], UPLINK.0),
        ips: (vtep, UPLINK.1),
        ports: (49152 + numbers.below(1000) as u16, VXLAN_PORT),
        flags: 0x08,
        vni,
        options: Vec::new(),
        tos: 0,
    };
    if numbers.once_in(8) {
        tunnel.tos = numbers.next() as u8;
    }
    match numbers.below(40) {
        0 => tunnel.vni = FOREIGN_VNI,
        1 => tunnel.flags = numbers.next() as u8,
        2 => tunnel.options = vec![1; 4 * (1 + numbers.below(10))],
        3 => tunnel.ips.0 = numbers.of(&VTEPS),
        4 => tunnel.ports.1 = numbers.of(&[VXLAN_PORT + 1, 53]),
        5 => tunnel.macs.1 = numbers.of(&[[2, 9, 9, 9, 9, 9], [0xff; 6]]),
        6 => tunnel.vni = numbers.of(&VNIS),
        7 => return datagram(numbers, ([2, 0, 0, 0, 0, 0xb], vtep), UPLINK).bytes(),
        _ => {}
    }
    tunnel.around(&inner)
}

/// Now and then some bytes are others, or missing, or too many.
fn damaged(numbers: &mut Numbers, mut frame: Vec<u8>) -> Vec<u8> {
    let whole = frame.clone();
    match numbers.below(24) {
        0..=2 => {
            for _ in 0..1 + numbers.below(3) {
                let at = numbers.below(frame.len());
                frame[at] = numbers.next() as u8;
            }
        }
        3 => frame.truncate(14 + numbers.below(frame.len() - 13)),
        4 => {
            let more = numbers.below(100);
            frame.extend(numbers.bytes(more));
        }
        _ => {}
    }
    // The kernel makes no test run of less.
    let shortest = match [frame[12], frame[13]] {
        ethernet::IPV4 => SHORTEST_IPV4,
        ethernet::IPV6 => SHORTEST_IPV6,
        _ => 15,
    };
    if frame.len() >= shortest { frame } else { whole }
}
