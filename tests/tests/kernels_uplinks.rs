//! Uplinks that are no device of their own: a VLAN, and a bond. Only the guests of `cargo xtask test kernels` run this: it takes modules
//! that not every kernel has.
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use weft_tests::namespace::Namespace;
use weft_tests::wired::*;

/// Makes a device on top of the wire the uplink, with the wire's address.
fn put_on_top(host: &Namespace, address: [u8; 4], kind: &str) {
    let address = Ipv4Addr::from(address);
    for command in [
        &format!("addr del {address}/24 dev uplink"),
        "link set uplink down",
        "link set uplink name wire",
    ] {
        host.ip(command);
    }
    let commands: &[&str] = match kind {
        "vlan" => &["link set wire up", "link add link wire name uplink type vlan id 5"],
        "bond" => &[
            "link add uplink type bond mode active-backup miimon 100",
            "link set wire master uplink",
            "link set wire up",
        ],
        other => panic!("{other}"),
    };
    for command in commands {
        host.ip(command);
    }
    host.ip(&format!("addr add {address}/24 dev uplink"));
    host.ip("link set uplink up");
}

/// Whether or not the programs look the neighbour up.
#[test]
fn a_vlan_and_a_bond_carry_the_overlay() {
    for kind in ["vlan", "bond"] {
        println!("{kind}");
        let (first, second) = two_hosts();
        put_on_top(&first, UNDERLAY[0], kind);
        put_on_top(&second, UNDERLAY[1], kind);
        let Scene {
            mut first,
            mut second,
            alice,
            bob,
            ..
        } = Scene::on((first, second), DEFAULT);
        all_kinds_of_traffic(&[&first, &second], &alice, &bob, MEGABYTE);
        first.know(&second);
        second.know(&first);
        all_kinds_of_traffic(&[&first, &second], &alice, &bob, MEGABYTE);
    }
}
