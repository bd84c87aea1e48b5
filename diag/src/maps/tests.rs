use super::*;
use weft_dataplane::abi::{Connected, NamespaceKey, Seat, mapped};

fn dump(name: &str, entries: Vec<(Vec<u8>, Vec<u8>)>) -> MapView {
    MapView::new(MapDump {
        name: name.to_owned(),
        max_entries: 100,
        entries,
        truncated: false,
    })
}

fn raw<K: MapType, V: MapType>(key: K, value: V) -> (Vec<u8>, Vec<u8>) {
    (key.as_bytes().to_vec(), value.as_bytes().to_vec())
}

fn lines(view: &MapView) -> Vec<String> {
    view.text().lines().skip(1).map(str::to_owned).collect()
}

const IP: [u8; 4] = [10, 0, 1, 3];
const MAC: [u8; 6] = [2, 0x42, 10, 0, 1, 3];
const ADDRESS: OverlayAddress = OverlayAddress { vni: 4097, ip: IP };

#[test]
fn each_map_prints_its_entries() {
    let gateway = [10, 0, 1, 1];
    let gateway_mac = [2, 0x42, 10, 0, 1, 1];
    let attached = Attachment {
        vni: 4097,
        ip: IP,
        gateway,
        mac: MAC,
        gateway_mac,
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    };
    let network = Network {
        gateway,
        gateway_mac,
        prefix_len: 24,
        padding: 0,
    };
    let vtep = mapped([192, 168, 0, 2]);
    let node = Node {
        next_hop: mapped([192, 168, 0, 254]),
        source: mapped([192, 168, 0, 1]),
        ifindex: 3,
        mtu: 1500,
        family: node::IPV4,
        padding: 0,
    };
    let service = Service {
        backend_count: 2,
        policy: service::POLICY_ROUND_ROBIN,
        affinity_seconds: 0,
    };
    let slot = BackendKey {
        vni: 4097,
        vip: IP,
        slot: 1,
    };
    let member = MemberKey {
        vip: IP,
        ip: [10, 0, 1, 9],
        vni: 4097,
    };
    let affinity = Affinity {
        backend: [10, 0, 1, 4],
        last_seen: 1000,
        padding: 0,
    };
    let table = MaglevTable {
        name: 0xab,
        size: 4093,
        padding: 0,
    };
    let of_table = MaglevKey {
        name: 0xab,
        index: 2,
        padding: 0,
    };
    for (name, entry, line) in [
        (
            "attachments",
            raw(7u32, attached),
            "ifindex 7 -> vni 4097 10.0.1.3 mac 02:42:0a:00:01:03 gateway 10.0.1.1 mac 02:42:0a:00:01:01",
        ),
        (
            "networks",
            raw(4097u32, network),
            "vni 4097 -> gateway 10.0.1.1/24 mac 02:42:0a:00:01:01",
        ),
        (
            "endpoints",
            raw(
                ADDRESS,
                Endpoint {
                    ifindex: 7,
                    mac: MAC,
                    flags: 0,
                },
            ),
            "vni 4097 10.0.1.3 -> ifindex 7 mac 02:42:0a:00:01:03",
        ),
        (
            "peers",
            raw(
                ADDRESS,
                Peer {
                    vtep,
                    mac: MAC,
                    flags: 0,
                },
            ),
            "vni 4097 10.0.1.3 -> vtep 192.168.0.2 mac 02:42:0a:00:01:03",
        ),
        (
            "nodes",
            raw(vtep, node),
            "vtep 192.168.0.2 -> next hop 192.168.0.254 ifindex 3 source 192.168.0.1 mtu 1500",
        ),
        (
            "services",
            raw(ADDRESS, service),
            "vni 4097 vip 10.0.1.3 -> 2 backends, round-robin",
        ),
        (
            "backends",
            raw(slot, Backend { ip: [10, 0, 1, 9] }),
            "vni 4097 vip 10.0.1.3 slot 1 -> 10.0.1.9",
        ),
        (
            "rotations",
            raw(ADDRESS, 17u32),
            "vni 4097 vip 10.0.1.3 -> 17 connections balanced",
        ),
        (
            "loads",
            raw(member, 12u32),
            "vni 4097 vip 10.0.1.3 backend 10.0.1.9 -> 12 open connections",
        ),
        (
            "weights",
            raw(member, 3u32),
            "vni 4097 vip 10.0.1.3 backend 10.0.1.9 -> 3 times the weight of others",
        ),
        (
            "affinities",
            raw(member, affinity),
            "vni 4097 vip 10.0.1.3 client 10.0.1.9 -> 10.0.1.4, last seen 16.777 s after boot",
        ),
        (
            "maglev_tables",
            raw(ADDRESS, table),
            "vni 4097 vip 10.0.1.3 -> table 00000000000000ab of 4093 entries",
        ),
        (
            "maglev_members",
            raw(of_table, Backend { ip: [10, 0, 1, 9] }),
            "table 00000000000000ab member 2 -> 10.0.1.9",
        ),
        (
            "namespaces",
            raw(
                NamespaceKey {
                    cookie: 4711,
                    slot: 1,
                    padding: 0,
                },
                Seat {
                    vni: 4097,
                    ip: IP,
                    ip6: V6::new([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
                },
            ),
            "namespace 4711 slot 1 -> vni 4097 10.0.1.3 ip6 fd00::3",
        ),
        (
            "sockets",
            raw(
                12u64,
                Connected {
                    vip: mapped(IP),
                    backend: mapped([10, 0, 1, 9]),
                },
            ),
            "socket 12 vip 10.0.1.3 -> 10.0.1.9",
        ),
        (
            "answers",
            raw(5u32, 12_345_600_000u64),
            "ifindex 5 -> ICMP errors paid until 12.345 s after boot",
        ),
    ] {
        assert_eq!(lines(&dump(name, vec![entry])), [line], "{name}");
    }
}

#[test]
fn flows_print_both_directions() {
    let key = FlowKey {
        network: flow::network(4097, 6),
        source: IP,
        destination: [10, 0, 1, 2],
        source_port: 40000u16.to_be_bytes(),
        destination_port: 80u16.to_be_bytes(),
        reserved: flow::RESERVED,
    };
    let flow = Flow {
        last_seen: flow::ticks(12_034_567_890),
        flags: flow::REPLY | flow::ESTABLISHED,
        source: IP,
        destination: [10, 0, 1, 9],
        source_port: 40000u16.to_be_bytes(),
        destination_port: 81u16.to_be_bytes(),
        slot: 0,
    };
    let view = dump("flows", vec![raw(key, flow)]);
    let line = "vni 4097 tcp 10.0.1.3:40000 to 10.0.1.2:80 -> 10.0.1.3:40000 to 10.0.1.9:81, reply, established, last seen 12.029 s after boot";
    assert_eq!(lines(&view), [line]);
    let json = String::from_utf8(view.json().compact()).unwrap();
    assert!(
        json.contains(r#""source_port":40000,"destination":"10.0.1.2","destination_port":80"#),
        "{json}"
    );
}

#[test]
fn every_named_counter_is_printed() {
    let index = Counter::DropNoRoute as u32;
    let bytes = |n: u64| n.to_ne_bytes().to_vec();
    let view = dump(
        "counters",
        vec![
            (index.as_bytes().to_vec(), bytes(5)),
            (60u32.as_bytes().to_vec(), bytes(1)),
            (61u32.as_bytes().to_vec(), bytes(0)),
        ],
    );
    let lines = lines(&view);
    assert_eq!(lines.len(), Counter::ALL.len() + 1);
    assert_eq!(
        lines[0],
        " 0 encapsulated                        0  sent to another node in VXLAN"
    );
    assert!(lines.contains(
        &"27 drop_no_route                       5  dropped: the underlay has no route to the VTEP".to_owned()
    ));
    assert_eq!(
        lines.last().unwrap(),
        "60 unnamed                             1  counted by a newer data plane"
    );
}

#[test]
fn entries_are_sorted_by_value_of_the_key() {
    let peer = |vni| {
        raw(
            OverlayAddress { vni, ip: IP },
            Peer {
                vtep: mapped(IP),
                mac: MAC,
                flags: 0,
            },
        )
    };
    let view = dump("peers", vec![peer(256), peer(1), peer(4097)]);
    let vnis: Vec<String> = lines(&view)
        .iter()
        .map(|line| line.split(' ').nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(vnis, ["1", "256", "4097"]);
}

#[test]
fn bytes_that_do_not_fit_are_shown_in_hex() {
    let view = dump("peers", vec![(vec![1, 0xff], vec![2])]);
    assert_eq!(lines(&view), ["undecoded key 01ff value 02"]);
    assert_eq!(
        lines(&dump("counters", vec![(vec![1], vec![2])])).last().unwrap(),
        "undecoded key 01 value 02"
    );
}

#[test]
fn the_first_line_counts() {
    let mut dump = MapDump {
        name: "peers".to_owned(),
        max_entries: 9,
        entries: Vec::new(),
        truncated: false,
    };
    assert_eq!(MapView::new(dump.clone()).text(), "total entries: 0, limit 9\n");
    let empty = MapView::new(dump.clone()).json().compact();
    assert_eq!(
        empty,
        br#"{"name":"peers","size":0,"limit":9,"truncated":false,"entries":null}"#
    );
    dump.truncated = true;
    assert_eq!(
        MapView::new(dump).text(),
        "total entries: 0, limit 9, more are in the map\n"
    );
}

#[test]
fn an_unknown_name_is_told_the_known_ones() {
    assert_eq!(
        check_name("peer"),
        Err(
            "map \"peer\" does not exist, there are: affinities, affinities6, answers, attachments, backends, backends6, \
             clamps, counters, endpoints, endpoints6, flows, flows6, fragments, fragments6, loads, loads6, maglev, \
             maglev_members, maglev_members6, maglev_tables, maglev_tables6, namespaces, networks, nodes, peers, peers6, rotations, \
             rotations6, services, services6, sockets, weights, weights6"
                .to_owned()
        )
    );
    assert_eq!(check_name("peers"), Ok(()));
}
