use super::*;

/// All fields filled (`spec/service-discovery-lb.md` 5.1).
const ENDPOINT: &str = "0a097765622e312e61626312037765621a06737663696431220831302e302e312e322a0831302e302e312e333205185020903f320c0a03646e731001183520e9293a06616c6961733142097461736b616c6961734801";
const PEER: &str = "0a0b31302e302e312e332f3234121130323a34323a30613a30303a30313a30331a0b3139322e3136382e302e35";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn records_print_as_docker_prints_them() {
    assert_eq!(
        Record::decode(Table::Endpoints, &bytes(ENDPOINT)).to_string(),
        "{Name:web.1.abc ServiceName:web ServiceID:svcid1 VirtualIP:10.0.1.2 EndpointIP:10.0.1.3 \
         IngressPorts:[&PortConfig{Name:,Protocol:TCP,TargetPort:80,PublishedPort:8080,} \
         &PortConfig{Name:dns,Protocol:UDP,TargetPort:53,PublishedPort:5353,}] Aliases:[alias1] TaskAliases:[taskalias] \
         ServiceDisabled:true}"
    );
    assert_eq!(
        Record::decode(Table::Peers, &bytes(PEER)).to_string(),
        "{EndpointIP:10.0.1.3/24 EndpointMAC:02:42:0a:00:01:03 TunnelEndpointIP:192.168.0.5}"
    );
}

#[test]
fn what_decodes_before_an_error_is_kept() {
    let mut cut = bytes(PEER);
    cut.truncate(20);
    assert_eq!(
        Record::decode(Table::Peers, &cut).to_string(),
        "{EndpointIP:10.0.1.3/24 EndpointMAC: TunnelEndpointIP:}"
    );
    assert_eq!(
        Record::decode(Table::Endpoints, b"\xff\xff\xff").to_string(),
        "{Name: ServiceName: ServiceID: VirtualIP: EndpointIP: IngressPorts:[] Aliases:[] TaskAliases:[] ServiceDisabled:false}"
    );
    assert_eq!(
        Record::decode(Table::Peers, b"\x0a\x02a\xff").to_string(),
        "{EndpointIP:a\u{fffd} EndpointMAC: TunnelEndpointIP:}"
    );
}

#[test]
fn unknown_protocols_print_as_numbers() {
    let port = PortConfig {
        protocol: 7,
        ..PortConfig::default()
    };
    assert_eq!(
        port_text(&port),
        "&PortConfig{Name:,Protocol:7,TargetPort:0,PublishedPort:0,}"
    );
}

#[test]
fn no_bytes_make_it_panic() {
    for base in [bytes(ENDPOINT), bytes(PEER)] {
        for at in 0..base.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = base.clone();
                changed[at] ^= flip;
                for table in [Table::Endpoints, Table::Peers] {
                    assert!(Record::decode(table, &changed).to_string().starts_with('{'));
                }
            }
        }
    }
}
