use super::*;
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

fn link(name: &str, kind: InfoKind) -> Vec<u8> {
    bytes(RouteNetlinkMessage::NewLink(message(name, kind)))
}

fn removed(name: &str, kind: InfoKind) -> Vec<u8> {
    bytes(RouteNetlinkMessage::DelLink(message(name, kind)))
}

fn message(name: &str, kind: InfoKind) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.into()));
    link.attributes
        .push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
    link
}

fn route() -> Vec<u8> {
    bytes(RouteNetlinkMessage::DelRoute(Default::default()))
}

fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn own_interfaces_do_not_matter_and_all_else_does() {
    let own = [link("weft012345678", InfoKind::Veth), link(GRO_DEVICE, InfoKind::Vxlan)].concat();
    assert!(!matters(&own));
    assert!(matters(&link("eth0", InfoKind::Veth)));
    assert!(matters(&link("weftbr", InfoKind::Bridge)));
    assert!(matters(&route()));
    assert!(matters(&[own.clone(), route()].concat()));
    assert!(matters(&[route(), own].concat()));
}

#[test]
fn the_end_of_an_endpoint_matters() {
    assert!(matters(&removed("weft012345678", InfoKind::Veth)));
    assert!(!matters(&removed(GRO_DEVICE, InfoKind::Vxlan)));
}

#[test]
fn what_cannot_be_read_matters() {
    let own = link("weft012345678", InfoKind::Veth);
    assert!(matters(&own[..own.len() - 4]));
    assert!(matters(&own[..7]));
    assert!(matters(&[0; 64]));
    assert!(matters(&[0xff; 64]));
    assert!(!matters(&[]));
}
