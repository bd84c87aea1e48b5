//! Tables in, maps out.

use super::*;
use crate::id::{NodeId, Vni};
use crate::overlay::PeerRow;
use crate::record::{EndpointRecord, PeerRecord};
use crate::service::EndpointRow;
use weft_dataplane::abi::service::POLICY_ROUND_ROBIN;

mod balancing;

/// All inputs, owned.
#[derive(Clone, Default)]
struct World {
    networks: BTreeMap<NetworkId, cluster::Network>,
    joined: BTreeSet<NetworkId>,
    attachments: Vec<LocalAttachment>,
    peers: Vec<PeerRow>,
    tasks: Vec<EndpointRow>,
    routes: BTreeMap<IpAddr, Node>,
}

fn id(network: &str) -> NetworkId {
    NetworkId::new(network).unwrap()
}

fn owner() -> NodeId {
    NodeId::new("4a027258ed3e").unwrap()
}

fn ip(net: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, net, last)
}

fn vtep(last: u8) -> IpAddr {
    Ipv4Addr::new(192, 168, 0, last).into()
}

fn at(net: u8, last: u8) -> OverlayAddress {
    OverlayAddress {
        vni: 4096 + u32::from(net),
        ip: ip(net, last).octets(),
    }
}

fn ip6(net: u8, last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, last.into())
}

fn at6(net: u8, last: u8) -> OverlayAddress<V6> {
    OverlayAddress::new(4096 + u32::from(net), v6(ip6(net, last)))
}

fn route(last: u8) -> Node {
    Node {
        next_hop: sixteen_bytes(vtep(last)),
        source: sixteen_bytes(vtep(1)),
        ifindex: 2,
        mtu: 1500,
        family: abi::node::IPV4,
        padding: 0,
    }
}

impl World {
    /// Network `name` is 10.0.`net`.0/24 with VNI 4096 + `net`.
    fn network(mut self, name: &str, net: u8) -> Self {
        let network = cluster::Network {
            id: id(name),
            name: name.to_owned(),
            created: 1,
            vni: Vni::new(4096 + u32::from(net)).unwrap(),
            subnet: ipnet::Ipv4Net::new(ip(net, 0), 24).unwrap(),
            gateway: ip(net, 1),
            ipv6: None,
            mtu: 1450,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        };
        self.networks.insert(id(name), network);
        self
    }

    /// The same with fd00:`net`::/64 beside it.
    fn network6(mut self, name: &str, net: u8) -> Self {
        self = self.network(name, net);
        let subnet = ipnet::Ipv6Net::new(ip6(net, 0), 64).unwrap();
        let gateway = ip6(net, 1);
        self.networks.get_mut(&id(name)).unwrap().ipv6 = Some(cluster::Ipv6Range { subnet, gateway });
        self
    }

    fn attach(mut self, name: &str, ifindex: u32, ip: Ipv4Addr) -> Self {
        self.attachments.push(LocalAttachment {
            endpoint: EndpointId::new(format!("{ifindex:064x}")).unwrap(),
            network: id(name),
            ifindex,
            ip,
            mac: MacAddress::from_ipv4(ip),
        });
        self
    }

    fn peer(mut self, name: &str, ip: Ipv4Addr, behind: u8) -> Self {
        let network = self.networks.get(&id(name));
        let endpoint_ip6 = network.and_then(|network| network.ipv6_net_of(ip));
        self.peers.push(PeerRow {
            network: id(name),
            endpoint: ip.to_string(),
            owner: owner(),
            record: PeerRecord {
                endpoint_ip: ipnet::Ipv4Net::new(ip, 24).unwrap(),
                endpoint_mac: MacAddress::from_ipv4(ip),
                tunnel_endpoint_ip: vtep(behind),
                endpoint_ip6,
            },
        });
        self
    }

    fn task(mut self, name: &str, service: &str, ip: Ipv4Addr, vip: Option<Ipv4Addr>, disabled: bool) -> Self {
        let network = self.networks.get(&id(name));
        let beside = |ip: Option<Ipv4Addr>| network?.ipv6_of(ip?);
        let (endpoint_ip6, virtual_ip6) = (beside(Some(ip)), beside(vip));
        self.tasks.push(EndpointRow {
            network: id(name),
            endpoint: ip.to_string(),
            owner: owner(),
            record: EndpointRecord {
                name: ip.to_string(),
                service_name: service.to_owned(),
                service_id: service.to_owned(),
                virtual_ip: vip,
                endpoint_ip: ip,
                ingress_ports: vec![],
                aliases: vec![],
                task_aliases: vec![],
                service_disabled: disabled,
                endpoint_ip6,
                virtual_ip6,
                policy: crate::service::Policy::RoundRobin,
                affinity_seconds: 0,
                weight: 1,
            },
        });
        self
    }

    fn with<T>(&self, look: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let overlay = Overlay::new(self.peers.clone(), &[vtep(1)].into());
        let services = Services::new(self.tasks.clone());
        look(&Inputs {
            networks: &self.networks,
            joined: &self.joined,
            attachments: &self.attachments,
            overlay: &overlay,
            services: &services,
            routes: &self.routes,
        })
    }

    fn wanted(&self) -> MapContents {
        let wanted = self.with(|inputs| wanted(inputs, &Sizes::DEFAULT, &mut Tables::default()));
        assert_eq!(wanted.overflows, []);
        wanted.contents
    }

    fn within(&self, limits: Limits) -> Wanted {
        self.with(|inputs| build(inputs, limits, &mut Tables::default()))
    }
}

fn backends(contents: &MapContents, vip: OverlayAddress) -> Vec<u8> {
    let count = contents.services[&vip].backend_count;
    (0..count)
        .map(|slot| {
            contents.backends[&BackendKey {
                vni: vip.vni,
                vip: vip.ip,
                slot,
            }]
                .ip[3]
        })
        .collect()
}

#[test]
fn a_local_endpoint_a_peer_and_a_service_fill_all_maps() {
    let mut world = World::default()
        .network("app", 1)
        .attach("app", 7, ip(1, 3))
        .peer("app", ip(1, 5), 2)
        .task("app", "web", ip(1, 5), Some(ip(1, 4)), false)
        .task("app", "web", ip(1, 3), Some(ip(1, 4)), false);
    world.routes.insert(vtep(2), route(2));
    let gateway_mac = [2, 0x42, 10, 0, 1, 1];
    let gateway = [10, 0, 1, 1];
    let mac = [2, 0x42, 10, 0, 1, 3];
    let expected = MapContents {
        attachments: [(
            7,
            Attachment {
                vni: 4097,
                ip: [10, 0, 1, 3],
                gateway,
                mac,
                gateway_mac,
                ip6: V6::UNSPECIFIED,
                gateway6: V6::UNSPECIFIED,
            },
        )]
        .into(),
        networks: [(
            4097,
            Network {
                gateway,
                gateway_mac,
                prefix_len: 24,
                padding: 0,
            },
        )]
        .into(),
        endpoints: [(
            at(1, 3),
            Endpoint {
                ifindex: 7,
                mac,
                flags: abi::peer::BACKEND,
            },
        )]
        .into(),
        peers: [(
            at(1, 5),
            Peer {
                vtep: mapped([192, 168, 0, 2]),
                mac: [2, 0x42, 10, 0, 1, 5],
                flags: abi::peer::BACKEND,
            },
        )]
        .into(),
        nodes: [(mapped([192, 168, 0, 2]), route(2))].into(),
        services: [(
            at(1, 4),
            Service {
                backend_count: 2,
                policy: POLICY_ROUND_ROBIN,
                affinity_seconds: 0,
            },
        )]
        .into(),
        backends: [
            (
                BackendKey {
                    vni: 4097,
                    vip: [10, 0, 1, 4],
                    slot: 0,
                },
                Backend { ip: [10, 0, 1, 3] },
            ),
            (
                BackendKey {
                    vni: 4097,
                    vip: [10, 0, 1, 4],
                    slot: 1,
                },
                Backend { ip: [10, 0, 1, 5] },
            ),
        ]
        .into(),
        ..MapContents::default()
    };
    assert_eq!(world.wanted(), expected);
    world.peers.reverse();
    world.tasks.reverse();
    assert_eq!(world.wanted(), expected);
}

#[test]
fn ipv6_stands_beside_ipv4_in_maps_of_its_own() {
    let world = World::default()
        .network6("app", 1)
        .network("plain", 2)
        .attach("app", 7, ip(1, 3))
        .attach("plain", 8, ip(2, 3))
        .peer("app", ip(1, 5), 2)
        .peer("plain", ip(2, 5), 2)
        .task("app", "web", ip(1, 5), Some(ip(1, 4)), false)
        .task("app", "web", ip(1, 3), Some(ip(1, 4)), false)
        .task("app", "web", ip(1, 9), Some(ip(1, 4)), false)
        .task("plain", "db", ip(2, 3), Some(ip(2, 4)), false);
    let contents = world.wanted();
    let addresses = |ifindex: u32| {
        let Attachment { ip6, gateway6, .. } = contents.attachments[&ifindex];
        (ip6, gateway6)
    };
    assert_eq!(addresses(7), (v6(ip6(1, 3)), v6(ip6(1, 1))));
    assert_eq!(
        addresses(8),
        (V6::UNSPECIFIED, V6::UNSPECIFIED),
        "a network without IPv6"
    );
    assert_eq!(contents.endpoints6, [(at6(1, 3), contents.endpoints[&at(1, 3)])].into());
    assert_eq!(contents.peers6, [(at6(1, 5), contents.peers[&at(1, 5)])].into());
    assert_eq!(contents.endpoints6[&at6(1, 3)].flags, abi::peer::BACKEND);
    assert_eq!(contents.peers6[&at6(1, 5)].flags, abi::peer::BACKEND);
    assert_eq!(contents.services6, [(at6(1, 4), contents.services[&at(1, 4)])].into());
    let backend = |slot: u32, last: u8| {
        let key = BackendKey {
            vip: v6(ip6(1, 4)),
            vni: 4097,
            slot,
        };
        (key, Backend { ip: v6(ip6(1, last)) })
    };
    assert_eq!(
        contents.backends6,
        [backend(0, 3), backend(1, 5)].into(),
        "of 9 nobody knows where it lives"
    );
}

#[test]
fn claims_of_ipv6_that_cannot_be_are_left_out() {
    let mut world = World::default()
        .network6("app", 1)
        .network("plain", 2)
        .attach("app", 7, ip(1, 3))
        .attach("plain", 8, ip(2, 3))
        .task("app", "a", ip(1, 3), Some(ip(1, 1)), false)
        .task("app", "b", ip(1, 6), Some(ip(1, 4)), false)
        .task("plain", "c", ip(2, 3), Some(ip(2, 4)), false);
    for (row, claimed) in [(ip(1, 20), ip6(1, 3)), (ip(1, 21), ip6(9, 5)), (ip(1, 22), ip6(1, 22))] {
        world = world.peer("app", row, 2);
        let peer = world.peers.last_mut().unwrap();
        peer.record.endpoint_ip6 = Some(ipnet::Ipv6Net::new(claimed, 64).unwrap());
    }
    world = world.peer("plain", ip(2, 22), 2);
    world.peers.last_mut().unwrap().record.endpoint_ip6 = Some(ipnet::Ipv6Net::new(ip6(2, 22), 64).unwrap());
    world.tasks[1].record.virtual_ip6 = Some(ip6(9, 4));
    world.tasks[2].record.virtual_ip6 = Some(ip6(2, 4));
    let contents = world.wanted();
    assert_eq!(
        contents.peers6.keys().collect::<Vec<_>>(),
        [&at6(1, 22)],
        "neither an own address, nor one outside of the subnet, nor any where the network has no IPv6"
    );
    assert_eq!(
        contents.services6,
        BTreeMap::new(),
        "no VIP on the gateway, outside, or without a subnet"
    );
    assert_eq!(contents.services.keys().collect::<Vec<_>>(), [&at(1, 4), &at(2, 4)]);
}

#[test]
fn only_networks_that_the_node_takes_part_in_are_in_the_maps() {
    let mut world = World::default()
        .network("app", 1)
        .network("far", 2)
        .attach("app", 7, ip(1, 3))
        .peer("far", ip(2, 5), 2)
        .peer("unknown", ip(3, 5), 3)
        .task("far", "web", ip(2, 5), Some(ip(2, 4)), false);
    let contents = world.wanted();
    assert_eq!(contents.networks.keys().collect::<Vec<_>>(), [&4097]);
    assert!(contents.peers.is_empty() && contents.services.is_empty());
    assert_eq!(world.with(vteps), [].into());
    world.joined = [id("far"), id("unknown")].into();
    let contents = world.wanted();
    assert_eq!(contents.networks.keys().collect::<Vec<_>>(), [&4097, &4098]);
    assert_eq!(backends(&contents, at(2, 4)), [5]);
    assert_eq!(world.with(vteps), [vtep(2)].into());
    assert_eq!(
        contents.nodes,
        BTreeMap::new(),
        "no route is known yet, but the peer is there"
    );
    assert_eq!(contents.peers.len(), 1);
}

#[test]
fn an_endpoint_of_an_unknown_network_or_a_foreign_address_is_not_attached() {
    let contents = World::default()
        .network("app", 1)
        .attach("gone", 7, ip(1, 3))
        .attach("app", 8, ip(9, 9))
        .wanted();
    assert_eq!((contents.attachments.len(), contents.endpoints.len()), (0, 0));
}

#[test]
fn only_enabled_and_reachable_tasks_are_backends() {
    let world = World::default()
        .network("app", 1)
        .attach("app", 7, ip(1, 3))
        .peer("app", ip(1, 5), 2)
        .peer("app", ip(1, 6), 2)
        .task("app", "web", ip(1, 3), Some(ip(1, 4)), false)
        .task("app", "web", ip(1, 5), Some(ip(1, 4)), true)
        .task("app", "web", ip(1, 6), Some(ip(1, 4)), false)
        .task("app", "web", ip(1, 99), Some(ip(1, 4)), false);
    assert_eq!(
        backends(&world.wanted(), at(1, 4)),
        [3, 6],
        "5 drains, of 99 nobody knows where it lives"
    );
}

#[test]
fn a_service_whose_tasks_all_drain_stays_without_backends_and_then_goes() {
    let base = World::default().network("app", 1).attach("app", 7, ip(1, 3));
    let draining = base.clone().task("app", "web", ip(1, 3), Some(ip(1, 4)), true).wanted();
    assert_eq!(
        draining.services,
        [(
            at(1, 4),
            Service {
                backend_count: 0,
                policy: POLICY_ROUND_ROBIN,
                affinity_seconds: 0
            }
        )]
        .into()
    );
    assert_eq!(base.wanted().services, BTreeMap::new());
    let dnsrr = base.task("app", "rr", ip(1, 3), None, false).wanted();
    assert_eq!(dnsrr.services, BTreeMap::new());
}

#[test]
fn claims_that_cannot_be_are_left_out() {
    let contents = World::default()
        .network("app", 1)
        .attach("app", 8, ip(1, 3))
        .attach("app", 7, ip(1, 3))
        .peer("app", ip(1, 3), 2)
        .peer("app", ip(9, 9), 2)
        .task("app", "a", ip(1, 3), Some(ip(1, 4)), false)
        .task("app", "b", ip(1, 4), Some(ip(1, 4)), false)
        .task("app", "c", ip(1, 5), Some(ip(1, 1)), false)
        .task("app", "d", ip(1, 6), Some(ip(2, 1)), false)
        .wanted();
    assert_eq!(
        contents.attachments.keys().collect::<Vec<_>>(),
        [&7],
        "the smaller interface index counts"
    );
    assert_eq!(contents.endpoints[&at(1, 3)].ifindex, 7);
    assert_eq!(
        contents.peers,
        BTreeMap::new(),
        "an own address is no peer, nor is one outside of the subnet"
    );
    assert_eq!(
        contents.services.keys().collect::<Vec<_>>(),
        [&at(1, 4)],
        "no VIP on the gateway or outside"
    );
    assert_eq!(
        backends(&contents, at(1, 4)),
        [3],
        "of two services with one VIP the smaller id counts"
    );
}

#[test]
fn of_two_networks_with_one_vni_the_smaller_id_counts() {
    let contents = World::default()
        .network("a", 1)
        .network("b", 1)
        .attach("b", 7, ip(1, 3))
        .attach("a", 8, ip(1, 4))
        .wanted();
    assert_eq!(contents.attachments.keys().collect::<Vec<_>>(), [&8]);
}

#[test]
fn what_does_not_fit_is_left_out_and_reported_and_nothing_points_at_it() {
    let mut world = World::default()
        .network6("app", 1)
        .network("more", 2)
        .network("most", 3);
    world.joined = world.networks.keys().cloned().collect();
    for last in 10..15 {
        world = world
            .attach("app", u32::from(last), ip(1, last))
            .peer("app", ip(1, last + 10), last);
        world.routes.insert(vtep(last), route(last));
        let vip = Some(ip(1, 100 + last % 3));
        world = world.task("app", &format!("s{}", last % 3), ip(1, last), vip, false);
        world = world.task("app", &format!("s{}", last % 3), ip(1, last + 10), vip, false);
    }
    let limits = Limits {
        attachments: 3,
        networks: 2,
        peers: 4,
        nodes: 2,
        services: 2,
        backends: 4,
        maglev_parts: 100,
        loads: 100,
    };
    let Wanted {
        contents, overflows, ..
    } = world.within(limits);
    assert_eq!(
        overflows.iter().map(|o| (o.map, o.wanted, o.limit)).collect::<Vec<_>>(),
        [
            ("attachments", 5, 3),
            ("networks", 3, 2),
            ("endpoints", 5, 3),
            ("endpoints6", 5, 3),
            ("peers", 5, 4),
            ("peers6", 5, 4),
            ("nodes", 5, 2),
            ("services", 3, 2),
            ("services6", 3, 2),
            ("backends", 5, 4),
            ("backends6", 5, 4),
        ]
    );
    assert_eq!(contents.attachments.keys().collect::<Vec<_>>(), [&10, &11, &12]);
    assert_eq!(
        (contents.networks.len(), contents.peers.len(), contents.nodes.len()),
        (2, 4, 2)
    );
    assert_eq!(contents.backends.len(), 4);
    for vip in contents.services.keys() {
        for last in backends(&contents, *vip) {
            assert!(contents.endpoints.contains_key(&at(1, last)) || contents.peers.contains_key(&at(1, last)));
        }
    }
    let of_ipv4 = (contents.endpoints.values(), contents.peers.values());
    let of_ipv6 = (contents.endpoints6.values(), contents.peers6.values());
    assert!(of_ipv4.0.eq(of_ipv6.0) && of_ipv4.1.eq(of_ipv6.1));
    assert!(contents.services.values().eq(contents.services6.values()));
    assert_eq!(contents.backends6.len(), 4);
    assert_eq!(world.within(Limits::of(&Sizes::DEFAULT)).overflows, []);
}
