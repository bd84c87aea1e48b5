use super::*;
use weft_dataplane::abi::{Network, Node as Route, Peer, Service, V6, mapped, node};

const OURS: u32 = 4096;
const LEFT: u32 = 4097;

fn address(vni: u32) -> OverlayAddress {
    OverlayAddress { vni, ip: [10, 0, 0, 2] }
}

fn peer(vtep: u8) -> Peer {
    Peer {
        vtep: mapped([192, 168, 50, vtep]),
        mac: [2, 66, 10, 0, 0, 2],
        flags: 0,
    }
}

fn route(vtep: u8) -> (V6, Route) {
    let vtep = mapped([192, 168, 50, vtep]);
    let route = Route {
        next_hop: vtep,
        source: mapped([192, 168, 50, 1]),
        ifindex: 2,
        mtu: 1500,
        family: node::IPV4,
        padding: 0,
    };
    (vtep, route)
}

#[test]
fn what_the_kernel_knows_of_others_stays_on_the_networks_of_this_node_only() {
    let service = Service {
        backend_count: 0,
        policy: 0,
        affinity_seconds: 0,
    };
    let present = MapContents {
        peers: [(address(OURS), peer(2)), (address(LEFT), peer(3))].into(),
        nodes: [route(2), route(3)].into(),
        services: [(address(OURS), service), (address(LEFT), service)].into(),
        ..MapContents::default()
    };
    let network = Network {
        gateway: [10, 0, 0, 1],
        gateway_mac: [2, 66, 10, 0, 0, 1],
        prefix_len: 24,
        padding: 0,
    };
    let wanted = MapContents {
        networks: [(OURS, network)].into(),
        ..MapContents::default()
    };
    let kept = keep_others(wanted.clone(), &present);
    let expected = MapContents {
        peers: [(address(OURS), peer(2))].into(),
        nodes: [route(2)].into(),
        services: [(address(OURS), service)].into(),
        ..wanted
    };
    assert_eq!(kept, expected);
    assert_eq!(keep_others(MapContents::default(), &present), MapContents::default());
}
