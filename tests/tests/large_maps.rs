//! What the maps of a large cluster cost: 100,000 peers, 10,000 services of 10 backends, and 1,000,000 connections.
#![allow(clippy::unwrap_used)]

use aya::maps::{HashMap, Map, MapData};
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd};
use weft::dataplane::Dataplane;
use weft_core::reconcile::{Entry, Step};
use weft_dataplane::abi::{
    Backend, BackendKey, Flow, FlowKey, MapType, OverlayAddress, Peer, Service, Sizes, V4, filter, flow, front, mapped,
    neighbor, service,
};
use weft_tests::programs::{Loaded, VNI, config};

const PEERS: u32 = 100_000;
const SERVICES: u32 = 10_000;
const BACKENDS: u32 = 10;
const CONNECTIONS: u32 = 1_000_000;
const MOST_BYTES: u64 = 256 << 20;

fn address(block: u8, number: u32) -> V4 {
    let [_, a, b, c] = number.to_be_bytes();
    [block + a, b, c, 1]
}

fn pinned<K: MapType + aya::Pod, V: MapType + aya::Pod>(dataplane: &Dataplane, name: &str) -> HashMap<MapData, K, V> {
    let map = MapData::from_pin(dataplane.pin_of(name)).unwrap();
    Map::from_map_data(map).unwrap().try_into().unwrap()
}

fn fill(dataplane: &mut Loaded) {
    let peer = Peer {
        vtep: mapped([192, 168, 0, 1]),
        mac: [2; 6],
        flags: 0,
    };
    let mut steps: Vec<Step> = (0..PEERS)
        .map(|number| Step::Put(Entry::Peer(OverlayAddress::new(VNI, address(10, number)), peer)))
        .collect();
    let chosen = Service {
        backend_count: BACKENDS,
        policy: service::POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    for number in 0..SERVICES {
        let vip = address(40, number);
        for slot in 0..BACKENDS {
            let backend = Backend {
                ip: address(10, number * BACKENDS + slot),
            };
            steps.push(Step::Put(Entry::Backend(BackendKey { vip, vni: VNI, slot }, backend)));
        }
        steps.push(Step::Put(Entry::Service(OverlayAddress::new(VNI, vip), chosen)));
    }
    dataplane.apply(&steps).unwrap_or_else(|error| panic!("{error}"));
    let mut rotations: HashMap<_, OverlayAddress, u32> = pinned(dataplane, service::ROTATION_NAME);
    for number in 0..SERVICES {
        rotations
            .insert(OverlayAddress::new(VNI, address(40, number)), 1, 0)
            .unwrap();
    }
    let mut flows: HashMap<_, FlowKey, Flow> = pinned(dataplane, flow::NAME);
    for number in 0..CONNECTIONS {
        let [a, b, c, d] = number.to_be_bytes();
        let key = FlowKey {
            source: [10, a, b, 2],
            destination: [40, 0, 0, 1],
            source_port: [c, d],
            destination_port: [0, 80],
            network: flow::network(VNI, 6),
            reserved: flow::RESERVED,
        };
        let value = Flow {
            last_seen: 0,
            flags: 0,
            source: key.source,
            destination: [10, 0, 0, 1],
            source_port: key.source_port,
            destination_port: key.destination_port,
            slot: number,
        };
        flows.insert(key, value, 0).unwrap();
        flows.insert(key.twin(&value), value.twin(&key), 0).unwrap();
    }
}

/// What the kernel says that a map takes.
fn bytes(map: &MapData) -> u64 {
    let path = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    value.unwrap().trim().parse().unwrap()
}

#[test]
fn a_large_cluster_fits_into_256_mib() {
    let mut config = config();
    config.sizes = Sizes {
        peers: PEERS,
        services: SERVICES,
        backends: SERVICES * BACKENDS,
        flows: CONNECTIONS,
        flows6: 8192,
        maglev_parts: 4096,
        loads: 4096,
        affinities: 1024,
        sockets: 4096,
        preallocate_flows: true,
        ..Sizes::DEFAULT
    };
    let mut dataplane = Loaded::new(&config);
    fill(&mut dataplane);
    let (mut sum, mut told) = (0, String::new());
    for summary in dataplane.summaries().unwrap() {
        let map = MapData::from_pin(dataplane.pin_of(&summary.name)).unwrap();
        let bytes = bytes(&map);
        sum += bytes;
        writeln!(
            told,
            "{:12} {:>9} of {:>9} entries {:>10} bytes",
            summary.name, summary.entries, summary.max_entries, bytes
        )
        .unwrap();
    }
    for array in [
        flow::RING_NAME,
        flow::RING_NAME6,
        filter::NAME,
        front::PLACES_NAME,
        front::NODES_NAME,
        front::LINKS_NAME,
        neighbor::NAME,
    ] {
        let bytes = bytes(&MapData::from_pin(dataplane.pin_of(array)).unwrap());
        sum += bytes;
        writeln!(told, "{array:12} {bytes:>42} bytes").unwrap();
    }
    println!("{told}{sum} bytes, {} MiB", sum >> 20);
    let flows = dataplane.summaries().unwrap();
    let flows = flows.iter().find(|summary| summary.name == flow::NAME).unwrap();
    assert_eq!(flows.entries, u64::from(2 * CONNECTIONS));
    assert!(sum <= MOST_BYTES, "{told}{sum} bytes");
}
