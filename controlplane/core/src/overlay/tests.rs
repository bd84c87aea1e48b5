//! One address, one place, whatever the order of the rows.

use super::*;
use proptest::prelude::*;

fn row(network: &str, endpoint: &str, ip: &str, vtep: &str) -> PeerRow {
    let ip: Ipv4Addr = ip.parse().unwrap();
    PeerRow {
        network: NetworkId::new(network).unwrap(),
        endpoint: endpoint.to_owned(),
        owner: NodeId::new("4a027258ed3e").unwrap(),
        record: PeerRecord {
            endpoint_ip: ipnet::Ipv4Net::new(ip, 24).unwrap(),
            endpoint_mac: MacAddress::from_ipv4(ip),
            tunnel_endpoint_ip: vtep.parse().unwrap(),
            endpoint_ip6: None,
        },
    }
}

fn overlay(rows: &[PeerRow]) -> Overlay {
    Overlay::new(rows.to_vec(), &["192.168.0.1".parse().unwrap()].into())
}

#[test]
fn a_remote_record_says_where_its_address_lives() {
    let net = NetworkId::new("net").unwrap();
    let got = overlay(&[
        row("net", "e1", "10.0.0.2", "192.168.0.2"),
        row("other", "e2", "10.0.0.2", "192.168.0.3"),
    ]);
    let location = got.locate(&net, Ipv4Addr::new(10, 0, 0, 2)).unwrap();
    assert_eq!(
        (location.endpoint.as_str(), location.vtep),
        ("e1", IpAddr::from([192, 168, 0, 2]))
    );
    assert_eq!(got.locate(&net, Ipv4Addr::new(10, 0, 0, 3)), None);
    assert_eq!(got.skipped, []);
}

#[test]
fn records_of_this_node_are_left_out_silently() {
    assert_eq!(
        overlay(&[row("net", "e1", "10.0.0.2", "192.168.0.1")]),
        Overlay::default()
    );
}

#[test]
fn who_claims_one_address_is_named_and_the_node_that_has_it_prefers_its_own() {
    let mine = row("net", "bbb", "10.0.0.2", "192.168.0.1");
    let mut theirs = row("net", "aaa", "10.0.0.2", "192.168.0.2");
    theirs.owner = NodeId::new("5b027258ed3e").unwrap();
    let elsewhere = row("other", "ccc", "10.0.0.2", "192.168.0.3");
    let unusable = row("net", "ddd", "10.0.0.2", "224.0.0.1");
    let got = overlay(&[theirs.clone(), mine.clone(), elsewhere, unusable]);
    let lines: Vec<String> = got.contested.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "address 10.0.0.2 of network net is claimed by 2 endpoints: bbb of node 4a027258ed3e, which counts; \
             aaa of node 5b027258ed3e. Disconnect all but one"
        ]
    );
    // Whoever has neither takes the smaller endpoint id.
    let others = Overlay::new([theirs, mine], &BTreeSet::new());
    assert_eq!(
        others.contested[0].claims[0],
        ("aaa".to_owned(), NodeId::new("5b027258ed3e").unwrap())
    );
}

#[test]
fn of_two_records_for_an_address_the_smaller_endpoint_id_counts() {
    let (a, b) = (
        row("net", "aaa", "10.0.0.2", "192.168.0.2"),
        row("net", "bbb", "10.0.0.2", "192.168.0.3"),
    );
    let got = overlay(&[b.clone(), a.clone()]);
    assert_eq!(got, overlay(&[a.clone(), b.clone()]));
    assert_eq!(
        got.locate(&a.network, Ipv4Addr::new(10, 0, 0, 2)).unwrap().endpoint,
        "aaa"
    );
    assert_eq!(got.skipped.len(), 1);
    assert_eq!(
        (got.skipped[0].endpoint.as_str(), &got.skipped[0].reason),
        ("bbb", &Reason::Conflict { with: "aaa".into() })
    );
    assert_eq!(overlay(&[b]).peers.len(), 1, "when the first goes, the other counts");
}

#[test]
fn what_cannot_be_sent_to_is_named() {
    let got = overlay(&[
        row("net", "e1", "10.0.0.2", "fe80::2"),
        row("net", "e2", "10.0.0.3", "0.0.0.0"),
        row("net", "e3", "224.0.0.1", "192.168.0.2"),
        row("net", "e4", "10.0.0.4", "::ffff:192.168.0.2"),
        row("net", "e5", "10.0.0.5", "fd00::2"),
    ]);
    let skipped: Vec<_> = got
        .skipped
        .iter()
        .map(|s| (s.endpoint.as_str(), s.reason.clone()))
        .collect();
    assert_eq!(
        skipped,
        [
            ("e1", Reason::Vtep("fe80::2".parse().unwrap())),
            ("e2", Reason::Vtep("0.0.0.0".parse().unwrap())),
            ("e3", Reason::Address),
        ]
    );
    let vteps = |peers: &BTreeMap<Ipv4Addr, Location>| peers.values().map(|peer| peer.vtep.to_string()).collect();
    let vteps: Vec<String> = got
        .peers
        .values()
        .flat_map(|peers| -> Vec<String> { vteps(peers) })
        .collect();
    assert_eq!(vteps, ["192.168.0.2", "fd00::2"]);
}

proptest! {
    #[test]
    fn the_order_of_rows_does_not_matter(
        rows in proptest::collection::vec((0..2u8, 0..5u8, 0..4u8, 1..4u8), 0..20), seed in any::<prop::sample::Index>(),
    ) {
        let rows: Vec<_> = rows.into_iter().map(|(network, endpoint, ip, vtep)| {
            row(&format!("n{network}"), &format!("e{endpoint}"), &format!("10.0.0.{}", ip + 2), &format!("192.168.0.{vtep}"))
        }).collect();
        let mut turned = rows.clone();
        if !turned.is_empty() {
            turned.rotate_left(seed.index(rows.len()));
            turned.reverse();
        }
        prop_assert_eq!(overlay(&rows).skipped.len(), overlay(&turned).skipped.len());
        let endpoints = |o: &Overlay| o.peers.values().flatten().map(|(ip, l)| (*ip, l.endpoint.clone())).collect::<Vec<_>>();
        prop_assert_eq!(endpoints(&overlay(&rows)), endpoints(&overlay(&turned)));
    }
}

#[test]
fn ipv6_addresses_live_where_the_record_that_counts_says() {
    let with = |endpoint: &str, ip: &str, vtep: &str, ip6: &str| {
        let mut row = row("net", endpoint, ip, vtep);
        row.record.endpoint_ip6 = Some(format!("{ip6}/64").parse().unwrap());
        row
    };
    let got = overlay(&[
        with("e1", "10.0.0.2", "192.168.0.2", "fd00:1::2"),
        // A conflict: it does not count in either family.
        with("e2", "10.0.0.2", "192.168.0.3", "fd00:1::3"),
        with("e3", "10.0.0.4", "192.168.0.3", "fd00:1::2"),
        with("e4", "10.0.0.5", "192.168.0.3", "fe80::5"),
        with("e5", "10.0.0.6", "192.168.0.1", "fd00:1::6"),
        row("net", "e6", "10.0.0.7", "192.168.0.3"),
    ]);
    let found: Vec<(String, &str)> = got.peers6[&NetworkId::new("net").unwrap()]
        .iter()
        .map(|(ip, location)| (ip.to_string(), location.endpoint.as_str()))
        .collect();
    assert_eq!(found, [("fd00:1::2".to_owned(), "e1")]);
    assert_eq!(got.peers[&NetworkId::new("net").unwrap()].len(), 4);
}
