use super::*;
use crate::id::{MacAddress, NodeId};
use weft_dataplane::abi::{self, Network, Node as Route, Peer, Service, V6, mapped, node};

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
    let kept = keep_others(wanted.clone(), &present, &Sizes::DEFAULT);
    let expected = MapContents {
        peers: [(address(OURS), peer(2))].into(),
        nodes: [route(2)].into(),
        services: [(address(OURS), service)].into(),
        ..wanted
    };
    assert_eq!(kept, expected);
    assert_eq!(
        keep_others(MapContents::default(), &present, &Sizes::DEFAULT),
        MapContents::default()
    );
}

const VIP: OverlayAddress = OverlayAddress {
    vni: OURS,
    ip: [10, 0, 0, 9],
};

/// A service with a table of one part and these backends, the first of weight 3.
fn balanced(name: u64, backends: &[u8]) -> MapContents {
    let mut contents = MapContents::default();
    let network = Network {
        gateway: [10, 0, 0, 1],
        gateway_mac: [2, 66, 10, 0, 0, 1],
        prefix_len: 24,
        padding: 0,
    };
    contents.networks.insert(OURS, network);
    let service = Service {
        backend_count: backends.len() as u32,
        policy: 1,
        affinity_seconds: 0,
    };
    contents.services.insert(VIP, service);
    let key = |index: u32| abi::MaglevKey {
        name,
        index,
        padding: 0,
    };
    for (slot, last) in (0..).zip(backends) {
        let (vni, vip, ip) = (OURS, VIP.ip, [10, 0, 0, *last]);
        contents
            .backends
            .insert(abi::BackendKey { vni, vip, slot }, abi::Backend { ip });
        contents.maglev_members.insert(key(slot), abi::Backend { ip });
        contents.weights.insert(abi::MemberKey { vni, vip, ip }, 3);
    }
    let (size, padding) = (61, 0);
    contents
        .maglev_tables
        .insert(VIP, abi::MaglevTable { name, size, padding });
    contents.maglev.insert(key(0), abi::MaglevPart { members: [0; 64] });
    contents
}

#[test]
fn a_service_that_would_have_fewer_slots_keeps_table_and_weights_too() {
    let (fewer, present) = (balanced(1, &[2]), balanced(2, &[2, 3]));
    assert_eq!(keep_others(fewer.clone(), &present, &Sizes::DEFAULT), present);
    let only_network = MapContents {
        networks: present.networks.clone(),
        ..MapContents::default()
    };
    assert_eq!(keep_others(only_network, &present, &Sizes::DEFAULT), present);
    assert_eq!(
        keep_others(present.clone(), &fewer, &Sizes::DEFAULT),
        present,
        "more count"
    );
}

#[test]
fn a_kept_table_that_is_damaged_or_has_no_room_leaves_a_service_in_turns() {
    let present = balanced(2, &[2, 3]);
    let no_room = Sizes {
        maglev_parts: 0,
        ..Sizes::DEFAULT
    };
    let mut damaged = present.clone();
    damaged.maglev.clear();
    for (present, sizes) in [(&present, &no_room), (&damaged, &Sizes::DEFAULT)] {
        let kept = keep_others(balanced(1, &[2]), present, sizes);
        assert_eq!(
            (kept.maglev.len(), kept.maglev_members.len(), kept.maglev_tables.len()),
            (0, 0, 0)
        );
        assert_eq!(kept.services[&VIP].backend_count, 2);
    }
}

#[test]
fn what_a_replaced_node_wrote_gives_way_to_any_claim() {
    let row = |endpoint: &str, ip: &str| PeerRow {
        network: NetworkId::new("net1").unwrap(),
        endpoint: endpoint.to_owned(),
        owner: NodeId::new("aaaaaaaaaaaa").unwrap(),
        record: PeerRecord {
            endpoint_ip: ip.parse().unwrap(),
            endpoint_mac: MacAddress([2, 66, 10, 0, 0, 2]),
            tunnel_endpoint_ip: "192.168.50.2".parse().unwrap(),
            endpoint_ip6: None,
        },
    };
    let mut peers = vec![row("b", "10.0.0.2/24")];
    let outgoing = vec![row("a", "10.0.0.2/24"), row("c", "10.0.0.3/24")];
    add_outgoing(&mut peers, outgoing);
    assert_eq!(peers, [row("b", "10.0.0.2/24"), row("c", "10.0.0.3/24")]);
}
