//! The byte vectors of the specs, and that no bytes at all can do harm.

use super::*;
use proptest::prelude::*;

/// `spec/overlay-driver.md` 4.8.
const PEER: &str = "0a0b31302e302e312e332f3234121130323a34323a30613a30303a30313a30331a0b3139322e3136382e302e35";
/// `spec/service-discovery-lb.md` 5.1.
const ENDPOINT: &str = "0a097765622e312e61626312037765621a06737663696431220831302e302e312e322a0831302e302e312e333205185\
    020903f320c0a03646e731001183520e9293a06616c6961733142097461736b616c6961734801";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

fn peer() -> PeerRecord {
    PeerRecord {
        endpoint_ip: "10.0.1.3/24".parse().unwrap(),
        endpoint_mac: "02:42:0a:00:01:03".parse().unwrap(),
        tunnel_endpoint_ip: "192.168.0.5".parse().unwrap(),
        endpoint_ip6: None,
    }
}

fn endpoint() -> EndpointRecord {
    let port = |name: &str, protocol, target_port, published_port| PortConfig {
        name: name.to_owned(),
        protocol,
        target_port,
        published_port,
    };
    EndpointRecord {
        name: "web.1.abc".to_owned(),
        service_name: "web".to_owned(),
        service_id: "svcid1".to_owned(),
        virtual_ip: Some(Ipv4Addr::new(10, 0, 1, 2)),
        endpoint_ip: Ipv4Addr::new(10, 0, 1, 3),
        ingress_ports: vec![port("", Protocol::Tcp, 80, 8080), port("dns", Protocol::Udp, 53, 5353)],
        aliases: vec!["alias1".to_owned()],
        task_aliases: vec!["taskalias".to_owned()],
        service_disabled: true,
        endpoint_ip6: None,
        virtual_ip6: None,
        policy: Policy::RoundRobin,
        affinity_seconds: 0,
        weight: 1,
    }
}

#[test]
fn the_peer_record_of_the_spec_reads_and_writes_byte_for_byte() {
    assert_eq!(PeerRecord::decode(&bytes(PEER)), Ok(peer()));
    assert_eq!(peer().encode(), bytes(PEER));
}

#[test]
fn the_endpoint_record_of_the_spec_reads_and_writes_byte_for_byte() {
    assert_eq!(EndpointRecord::decode(&bytes(ENDPOINT)), Ok(endpoint()));
    assert_eq!(endpoint().encode(), bytes(ENDPOINT));
}

#[test]
fn no_virtual_ip_is_written_as_nil_and_read_in_both_spellings() {
    let plain = EndpointRecord {
        virtual_ip: None,
        ..endpoint()
    };
    let written = plain.encode();
    assert_eq!(RawEndpointRecord::lenient(&written).virtual_ip, "<nil>");
    assert_eq!(EndpointRecord::decode(&written), Ok(plain.clone()));
    let mut raw = RawEndpointRecord::lenient(&written);
    raw.virtual_ip = String::new();
    assert_eq!(EndpointRecord::decode(&wire::encode_endpoint(&raw)), Ok(plain));
}

#[test]
fn errors_name_record_field_and_value() {
    let mut raw = RawPeerRecord::lenient(&bytes(PEER));
    raw.endpoint_ip = "10.0.1.3".to_owned();
    assert_eq!(
        PeerRecord::decode(&wire::encode_peer(&raw)).unwrap_err().to_string(),
        "PeerRecord field endpoint_ip is \"10.0.1.3\": it should be an IPv4 address with a prefix length, as 10.0.1.3/24"
    );
    let mut raw = RawEndpointRecord::lenient(&bytes(ENDPOINT));
    raw.ingress_ports[1].published_port = 70_000;
    assert_eq!(
        EndpointRecord::decode(&wire::encode_endpoint(&raw))
            .unwrap_err()
            .to_string(),
        "EndpointRecord field ingress_ports.published_port is \"70000\": it should be a port from 0 to 65535"
    );
    raw.ingress_ports[0].protocol = 7;
    let refused = EndpointRecord::decode(&wire::encode_endpoint(&raw))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("ingress_ports.protocol is \"7\""), "{refused}");
    raw.name.clear();
    let refused = EndpointRecord::decode(&wire::encode_endpoint(&raw))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("field name is \"\""), "{refused}");
    let refused = PeerRecord::decode(&[0x0a, 0xff]).unwrap_err().to_string();
    assert!(refused.starts_with("PeerRecord is not readable: "), "{refused}");
}

#[test]
fn a_text_that_is_no_utf8_is_refused_strictly_and_shown_leniently() {
    let broken = [
        0x0a, 0x02, b'w', 0xff, 0x2a, 0x07, b'1', b'.', b'2', b'.', b'3', b'.', b'4',
    ];
    let refused = EndpointRecord::decode(&broken).unwrap_err().to_string();
    assert!(
        refused.starts_with("EndpointRecord field name is \"w\u{fffd}\""),
        "{refused}"
    );
    assert_eq!(RawEndpointRecord::lenient(&broken).name, "w\u{fffd}");
}

#[test]
fn the_lenient_decoder_keeps_what_comes_before_the_error() {
    let whole = bytes(ENDPOINT);
    let cut = RawEndpointRecord::lenient(&whole[..20]);
    assert_eq!(
        (cut.name.as_str(), cut.service_name.as_str(), cut.service_id.as_str()),
        ("web.1.abc", "web", "")
    );
    assert_eq!(RawPeerRecord::lenient(b"\xff\xff\xff"), RawPeerRecord::default());
}

#[test]
fn ipv6_stands_in_fields_of_weft_s_own_behind_docker_s() {
    let with = PeerRecord {
        endpoint_ip6: Some("fd00:1::3/64".parse().unwrap()),
        ..peer()
    };
    let written = with.encode();
    // Docker's bytes, and behind them field 101 with 12 bytes, which an engine skips.
    assert_eq!(written[..bytes(PEER).len()], bytes(PEER));
    assert_eq!(written[bytes(PEER).len()..], *b"\xaa\x06\x0cfd00:1::3/64");
    assert_eq!(PeerRecord::decode(&written), Ok(with));
    let with = EndpointRecord {
        endpoint_ip6: Some("fd00:1::3".parse().unwrap()),
        virtual_ip6: Some("fd00:1::2".parse().unwrap()),
        ..endpoint()
    };
    let written = with.encode();
    assert_eq!(written[..bytes(ENDPOINT).len()], bytes(ENDPOINT));
    assert_eq!(EndpointRecord::decode(&written), Ok(with));
    let mut raw = RawPeerRecord::lenient(&bytes(PEER));
    raw.endpoint_ip6 = "10.0.1.3/24".to_owned();
    assert_eq!(
        PeerRecord::decode(&wire::encode_peer(&raw)).unwrap_err().to_string(),
        "PeerRecord field endpoint_ip6 is \"10.0.1.3/24\": it should be an IPv6 address with a prefix length, as fd00::3/64, or nothing"
    );
}

#[test]
fn the_policy_stands_in_fields_of_weft_s_own_behind_docker_s() {
    let with = EndpointRecord {
        policy: Policy::LeastConnections,
        affinity_seconds: 300,
        weight: 3,
        ..endpoint()
    };
    let written = with.encode();
    assert_eq!(written[..bytes(ENDPOINT).len()], bytes(ENDPOINT));
    // Fields 103, 104 and 105, each a number.
    assert_eq!(
        written[bytes(ENDPOINT).len()..],
        [0xb8, 0x06, 2, 0xc0, 0x06, 0xac, 0x02, 0xc8, 0x06, 3]
    );
    assert_eq!(EndpointRecord::decode(&written), Ok(with));
}

#[test]
fn a_policy_of_a_later_version_and_numbers_too_large_are_taken_as_far_as_they_are_known() {
    let mut raw = RawEndpointRecord::lenient(&bytes(ENDPOINT));
    (raw.policy, raw.affinity_seconds, raw.weight) = (9, u32::MAX, 5000);
    let read = EndpointRecord::decode(&wire::encode_endpoint(&raw)).unwrap();
    assert_eq!(
        (read.policy, read.affinity_seconds, read.weight),
        (Policy::RoundRobin, 86_400, 100)
    );
}

#[test]
fn unknown_fields_are_skipped() {
    let mut longer = bytes(PEER);
    longer.extend([0x22, 0x01, b'x', 0x28, 0x05]);
    assert_eq!(PeerRecord::decode(&longer), Ok(peer()));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = PeerRecord::decode(&garbage);
        let _ = EndpointRecord::decode(&garbage);
        let _ = RawPeerRecord::lenient(&garbage);
        let _ = RawEndpointRecord::lenient(&garbage);
    }

    #[test]
    fn a_flipped_byte_is_survived(at in 0..80usize, flip in 1..=255u8) {
        let mut record = bytes(ENDPOINT);
        let at = at % record.len();
        record[at] ^= flip;
        if let Ok(read) = EndpointRecord::decode(&record) {
            prop_assert_eq!(EndpointRecord::decode(&read.encode()), Ok(read));
        }
    }

    #[test]
    fn what_was_written_reads_back(
        ip in any::<u32>(), prefix in 0..=32u8, mac in any::<[u8; 6]>(), vtep in any::<u32>(), name in "\\PC{1,30}",
        vip in proptest::option::of(any::<u32>()), disabled in any::<bool>(), policy in 0..3u32, weight in 1..=100u32,
        aliases in proptest::collection::vec("\\PC{0,8}", 0..4),
    ) {
        let record = PeerRecord {
            endpoint_ip: Ipv4Net::new(ip.into(), prefix).unwrap(),
            endpoint_mac: MacAddress(mac),
            tunnel_endpoint_ip: IpAddr::V4(vtep.into()),
            endpoint_ip6: None,
        };
        prop_assert_eq!(PeerRecord::decode(&record.encode()), Ok(record));
        let record = EndpointRecord {
            name,
            virtual_ip: vip.map(Ipv4Addr::from),
            endpoint_ip: ip.into(),
            aliases,
            service_disabled: disabled,
            policy: Policy::from_number(policy),
            weight,
            ..endpoint()
        };
        prop_assert_eq!(EndpointRecord::decode(&record.encode()), Ok(record));
    }
}
