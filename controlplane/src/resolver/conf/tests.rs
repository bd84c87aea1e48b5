use super::*;

#[test]
fn a_containers_conf_has_our_server_and_the_hosts_search_list() {
    let cases = [
        ("", "nameserver 127.0.0.11\noptions ndots:0\n"),
        (
            "# made by hand\nnameserver 192.0.2.1\nsearch a.example b.example ; near\noptions edns0 trust-ad\n",
            "nameserver 127.0.0.11\nsearch a.example b.example\noptions edns0 trust-ad ndots:0\n",
        ),
        (
            "options ndots:2\noptions timeout:1\n",
            "nameserver 127.0.0.11\noptions ndots:2 timeout:1\n",
        ),
        (
            "search a\ndomain b c\n",
            "nameserver 127.0.0.11\nsearch b\noptions ndots:0\n",
        ),
        (
            "domain b\nsearch a c",
            "nameserver 127.0.0.11\nsearch a c\noptions ndots:0\n",
        ),
        (
            "search\noptions\n\0\u{fffd}",
            "nameserver 127.0.0.11\noptions ndots:0\n",
        ),
    ];
    for (host, expected) in cases {
        assert_eq!(resolv_conf(host), expected, "{host:?}");
    }
}

#[test]
fn servers_are_read_in_order_without_our_own() {
    let text = "nameserver 127.0.0.11\nnameserver ::ffff:127.0.0.11\nnameserver nonsense\nnameserver\n\
                nameserver\t127.0.0.53\n  nameserver 2001:db8::1 # v6\nnameserver fe80::1%3\nnameserver 192.0.2.9\n";
    let servers: Vec<String> = name_servers(text).iter().map(SocketAddr::to_string).collect();
    assert_eq!(servers, ["127.0.0.53:53", "[2001:db8::1]:53", "[fe80::1%3]:53"]);
    let scope = nix::net::if_::if_nametoindex("lo").unwrap();
    let zoned: SocketAddr = SocketAddrV6::new("fe80::2".parse().unwrap(), 53, 0, scope).into();
    assert_eq!(
        name_servers("nameserver fe80::2%lo\nnameserver fe80::2%weft-nowhere\n"),
        [zoned]
    );
    assert_eq!(name_servers("search x\n"), []);
}
