//! Links, addresses and routes against the kernel. Needs root.
#![allow(clippy::unwrap_used)]

mod netns_guard;

use netns_guard::{DEADLINE, NetnsGuard, eventually};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use weft::netlink::{
    EncapDevice, EndpointLinkSpec, GRO_DEVICE, GroDevice, Netlink, NetlinkError, RouteError, UnderlayRoute,
    host_interface_name, watch_underlay,
};
use weft::netns::Netns;
use weft_core::id::{EndpointId, MacAddress};

fn spec<'a>(netns: &'a Netns, host: &str) -> EndpointLinkSpec<'a> {
    let ip = Ipv4Addr::new(10, 0, 1, 3);
    EndpointLinkSpec {
        host_interface: host.into(),
        container_interface: None,
        netns,
        ip: ipnet::Ipv4Net::new(ip, 24).unwrap(),
        ip6: None,
        mac: MacAddress::from_ipv4(ip),
        mtu: 1450,
        default_gateway: None,
    }
}

mod endpoints {
    use super::*;

    #[test]
    fn the_name_comes_from_the_id_and_fits() {
        let id = EndpointId::new("0123456789abcdef".repeat(4)).unwrap();
        assert_eq!(host_interface_name(&id), "weft012345678");
    }

    #[test]
    fn a_pair_has_name_mac_mtu_address_and_is_up() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        container.ip("link set lo down");
        host.block_on(async || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            let links = netlink.create_endpoint(&spec(&netns, "weft000000001")).await.unwrap();
            assert_eq!(links.container_interface, "eth0");
            assert_eq!(netlink.ifindex("weft000000001").await.unwrap(), links.host_ifindex);
            assert_eq!(netlink.interface_addresses("weft000000001").await.unwrap(), []);
            let inside = Netlink::open_in(&netns).unwrap();
            assert_eq!(
                inside.interface_addresses("eth0").await.unwrap(),
                ["10.0.1.3/24".parse().unwrap()]
            );
            for (netlink, name) in [(&netlink, "weft000000001"), (&inside, "eth0"), (&inside, "lo")] {
                let link = netlink.link_by_name(name).await.unwrap().unwrap();
                assert!(link.up, "{link:?}");
                assert!(link.loopback || link.mtu == 1450, "{link:?}");
            }
        });
        let shown = container.ip("-o link show eth0");
        assert!(shown.contains("02:42:0a:00:01:03"), "{shown}");
        assert_eq!(
            container.ip("route").trim(),
            "10.0.1.0/24 dev eth0 proto kernel scope link src 10.0.1.3"
        );
        for (guard, interface) in [(&host, "weft000000001"), (&container, "eth0")] {
            let offloads = guard.exec(&format!("ethtool -k {interface}"));
            for feature in [
                "tcp-segmentation-offload: on",
                "generic-segmentation-offload: on",
                "tx-checksumming: on",
            ] {
                assert!(offloads.contains(feature), "{interface}: {offloads}");
            }
        }
    }

    /// Also where the namespace has no IPv6 until then; it can be used at once, and nothing else is there.
    #[test]
    fn an_ipv6_address_beside_the_other_is_all_that_there_is_of_ipv6() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        container.exec("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv6.conf.default.accept_ra=1");
        host.block_on(async || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            let mut spec = spec(&netns, "weft000000001");
            spec.ip6 = Some("fd00:1::3/64".parse().unwrap());
            netlink.create_endpoint(&spec).await.unwrap();
            assert_eq!(netlink.interface_addresses("weft000000001").await.unwrap(), []);
            let twice = spec.ip6;
            let mut again = self::spec(&netns, "weft000000002");
            again.ip = "10.0.2.3/24".parse().unwrap();
            again.ip6 = twice;
            let refused = netlink.create_endpoint(&again).await.unwrap_err().to_string();
            assert!(refused.contains("fd00:1::3") && refused.contains("eth0"), "{refused}");
        });
        let shown = container.ip("-o -6 addr show dev eth0");
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(
            shown.contains("fd00:1::3/64") && !shown.contains("tentative"),
            "{shown}"
        );
        assert_eq!(container.exec("sysctl -n net.ipv6.conf.eth0.accept_ra").trim(), "0");
        let routes = container.ip("-6 route show dev eth0");
        assert!(
            routes.contains("fd00:1::/64") && !routes.contains("default"),
            "{routes}"
        );
    }

    #[test]
    fn a_second_network_takes_the_next_name() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        container.ip("link add eth1 type bridge");
        host.block_on(async || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            let mut names = Vec::new();
            for n in 1..=3u8 {
                let ip = Ipv4Addr::new(10, 0, n, 3);
                let mut spec = spec(&netns, &format!("weft00000000{n}"));
                spec.ip = ipnet::Ipv4Net::new(ip, 24).unwrap();
                names.push(netlink.create_endpoint(&spec).await.unwrap().container_interface);
            }
            assert_eq!(names, ["eth0", "eth2", "eth3"]);
            let listed: Vec<String> = netlink
                .list_endpoints("weft")
                .await
                .unwrap()
                .into_iter()
                .map(|e| e.0)
                .collect();
            assert_eq!(listed, ["weft000000001", "weft000000002", "weft000000003"]);
            netlink.remove_endpoint("weft000000002").await.unwrap();
            netlink.remove_endpoint("weft000000002").await.unwrap();
            assert_eq!(netlink.list_endpoints("weft").await.unwrap().len(), 2);
            assert_eq!(
                Netlink::open_in(&netns).unwrap().link_by_name("eth2").await.unwrap(),
                None
            );
        });
    }

    #[test]
    fn the_default_route_leads_to_the_gateway() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        host.block_on(async || {
            let netns = container.open();
            let mut spec = spec(&netns, "weft000000001");
            spec.default_gateway = Some(Ipv4Addr::new(10, 0, 1, 1));
            spec.container_interface = Some("overlay0".into());
            let links = Netlink::open().unwrap().create_endpoint(&spec).await.unwrap();
            assert_eq!(links.container_interface, "overlay0");
        });
        let routes = container.ip("route show default");
        assert!(routes.starts_with("default via 10.0.1.1 dev overlay0"), "{routes}");
    }

    /// A change to the spec that makes it fail.
    type Spoil = fn(&mut EndpointLinkSpec<'_>);

    #[test]
    fn a_refused_endpoint_leaves_nothing() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        host.ip("link add weft0000taken type bridge");
        container.ip("link add have0 type bridge");
        container.ip("address add 10.9.0.1/16 dev have0");
        container.ip("link set have0 up");
        container.ip("route add default via 10.9.0.2");
        container.ip("link set lo down");
        let place = format!("network namespace \"{}\"", container.name);
        let cases: [(Spoil, String); 10] = [
            (|s| s.mtu = 67, "MTU 67 is not valid: 68 to 65535 bytes".into()),
            (|s| s.mtu = 65536, "MTU 65536 is not valid: 68 to 65535 bytes".into()),
            (
                |s| s.host_interface = "weft000000000001".into(),
                "interface name \"weft000000000001\" is not valid: 1 to 15 characters without '/', ':' and white \
                 space, and not . or .."
                    .into(),
            ),
            (
                |s| s.container_interface = Some("a b".into()),
                "interface name \"a b\" is not valid: 1 to 15 characters without '/', ':' and white space, and \
                 not . or .."
                    .into(),
            ),
            (
                |s| s.host_interface = "weft0000taken".into(),
                "interface \"weft0000taken\" exists already in the host: choose another name or remove it".into(),
            ),
            (
                |s| s.container_interface = Some("have0".into()),
                format!("interface \"have0\" exists already in {place}: choose another name or remove it"),
            ),
            (
                |s| s.ip = "10.9.0.1/24".parse().unwrap(),
                format!("address 10.9.0.1 exists already on interface \"have0\" in {place}"),
            ),
            (
                |s| s.mac = MacAddress([1, 0, 0, 0, 0, 1]),
                "MAC address 01:00:00:00:00:01 is not valid for an interface: it must be unicast and not zero".into(),
            ),
            (
                |s| s.default_gateway = Some(Ipv4Addr::new(10, 0, 2, 1)),
                "default gateway 10.0.2.1 is not an address of 10.0.1.0/24 other than the endpoint's own".into(),
            ),
            (
                |s| s.default_gateway = Some(Ipv4Addr::new(10, 0, 1, 1)),
                format!(
                    "a default route exists already in {place}: connect without a default gateway, or remove the route"
                ),
            ),
        ];
        host.block_on(async || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            let inside = Netlink::open_in(&netns).unwrap();
            let before = (netlink.links().await.unwrap(), inside.links().await.unwrap());
            for (spoil, expected) in cases {
                let mut spec = spec(&netns, "weft000000001");
                spoil(&mut spec);
                let error = netlink.create_endpoint(&spec).await.unwrap_err();
                assert_eq!(error.to_string(), expected);
                let after = (netlink.links().await.unwrap(), inside.links().await.unwrap());
                assert_eq!(after, before, "left behind by: {expected}");
            }
        });
    }

    #[test]
    fn only_pairs_are_removed() {
        let host = NetnsGuard::new();
        host.ip("link add weft000000001 type bridge");
        host.block_on(async || {
            let error = Netlink::open()
                .unwrap()
                .remove_endpoint("weft000000001")
                .await
                .unwrap_err();
            assert!(matches!(error, NetlinkError::WrongKind { .. }), "{error}");
        });
        host.ip("link show weft000000001");
    }

    #[test]
    fn both_ends_go_with_the_namespace() {
        let (host, container) = (NetnsGuard::new(), NetnsGuard::new());
        host.block_on(async move || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            netlink.create_endpoint(&spec(&netns, "weft000000001")).await.unwrap();
            drop((netns, container));
            eventually("the host end is gone", async || {
                netlink
                    .link_by_name("weft000000001")
                    .await
                    .unwrap()
                    .is_none()
                    .then_some(())
            })
            .await;
            netlink.remove_endpoint("weft000000001").await.unwrap();
        });
    }
}

mod gro {
    use super::*;

    #[test]
    fn the_device_holds_the_port_and_takes_no_vni() {
        let host = NetnsGuard::new();
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            let GroDevice::Created { ifindex } = netlink.ensure_gro_device(4789).await.unwrap() else {
                panic!()
            };
            assert_eq!(
                netlink.ensure_gro_device(4789).await.unwrap(),
                GroDevice::Present { ifindex }
            );
            assert!(host.exec("ss -lun").contains("0.0.0.0:4789"));
            let shown = host.ip(&format!("-d link show {GRO_DEVICE}"));
            assert!(shown.contains("external vnifilter") && shown.contains(",UP"), "{shown}");
            assert!(shown.contains(" mtu 65535 "), "{shown}");
            let moved = netlink.ensure_gro_device(4790).await.unwrap();
            assert!(matches!(moved, GroDevice::Created { .. }), "{moved:?}");
            let sockets = host.exec("ss -lun");
            assert!(
                sockets.contains("0.0.0.0:4790") && !sockets.contains("0.0.0.0:4789"),
                "{sockets}"
            );
            netlink.remove_gro_device().await.unwrap();
            netlink.remove_gro_device().await.unwrap();
            assert!(!host.exec("ss -lun").contains("0.0.0.0:4790"));
        });
    }

    #[test]
    fn another_vxlan_device_will_do() {
        let host = NetnsGuard::new();
        host.ip("link add vx0 type vxlan id 7 dstport 4789 dev lo");
        host.ip("link set vx0 up");
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            let served = netlink.ensure_gro_device(4789).await.unwrap();
            assert_eq!(served, GroDevice::AlreadyServed { name: "vx0".into() });
            assert_eq!(netlink.link_by_name(GRO_DEVICE).await.unwrap(), None);
            let error = netlink.ensure_encap_device(4789, None).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                r#"UDP port 4789 is that of the vxlan device "vx0": remove it, or choose another data-path-port"#
            );
            let ours = netlink.ensure_encap_device(4790, None).await.unwrap();
            assert!(ours.created);
            assert_eq!(
                netlink.ensure_encap_device(4790, None).await.unwrap(),
                EncapDevice { created: false, ..ours }
            );
        });
    }

    #[test]
    fn what_another_tool_does_to_the_device_is_mended() {
        let host = NetnsGuard::new();
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            assert!(netlink.mend_vxlan_device(4789, None).await.unwrap());
            assert!(!netlink.mend_vxlan_device(4789, None).await.unwrap());
            let ifindex = netlink.ifindex(GRO_DEVICE).await.unwrap();
            for harm in ["set down", "del"] {
                host.ip(&format!("link {harm} dev {GRO_DEVICE}"));
                assert!(netlink.mend_vxlan_device(4789, Some(ifindex)).await.unwrap(), "{harm}");
                assert!(!netlink.mend_vxlan_device(4789, Some(ifindex)).await.unwrap(), "{harm}");
            }
            assert_eq!(netlink.ifindex(GRO_DEVICE).await.unwrap(), ifindex);

            host.ip(&format!("link del {GRO_DEVICE}"));
            host.ip(&format!("link add other index {ifindex} type bridge"));
            let error = netlink.mend_vxlan_device(4789, Some(ifindex)).await.unwrap_err();
            assert!(matches!(error, NetlinkError::IndexTaken { .. }), "{error}");
            host.ip("link add vx0 type vxlan id 7 dstport 4789 dev lo");
            host.ip("link set vx0 up");
            assert!(!netlink.mend_vxlan_device(4789, None).await.unwrap());
        });
    }

    #[test]
    fn a_taken_port_is_told_and_leaves_nothing() {
        let host = NetnsGuard::new();
        let socket = host.open().udp_socket("0.0.0.0:4789".parse().unwrap()).unwrap();
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            let error = netlink.ensure_gro_device(4789).await.unwrap_err();
            assert!(matches!(error, NetlinkError::PortTaken { port: 4789 }), "{error}");
            assert_eq!(netlink.link_by_name(GRO_DEVICE).await.unwrap(), None);
            drop(socket);
            // Not at once: a child process that is just being forked holds a copy of the socket.
            let made = eventually("the port is free", async || netlink.ensure_gro_device(4789).await.ok()).await;
            assert!(matches!(made, GroDevice::Created { .. }), "{made:?}");
        });
    }

    #[test]
    fn a_device_of_another_kind_is_left_alone() {
        let host = NetnsGuard::new();
        host.ip(&format!("link add {GRO_DEVICE} type bridge"));
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            for error in [
                netlink.ensure_gro_device(4789).await.err(),
                netlink.remove_gro_device().await.err(),
            ] {
                assert!(matches!(error, Some(NetlinkError::WrongKind { .. })), "{error:?}");
            }
        });
    }

    /// Runs itself as nobody, to see what an unprivileged daemon would say.
    #[test]
    fn a_missing_privilege_is_named() {
        const AS_NOBODY: &str = "WEFT_TEST_AS_NOBODY";
        if std::env::var_os(AS_NOBODY).is_some() {
            assert!(!nix::unistd::geteuid().is_root());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let error = runtime.block_on(async { Netlink::open().unwrap().ensure_gro_device(4789).await.unwrap_err() });
            assert_eq!(error.to_string(), "missing capability CAP_NET_ADMIN: run weftd as root");
            return;
        }
        // Not by its path, for nobody need not be able to walk there.
        let output = Command::new("/proc/self/exe")
            .args(["--exact", "gro::a_missing_privilege_is_named"])
            .env(AS_NOBODY, "1")
            .current_dir("/")
            .gid(65534)
            .uid(65534)
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && shown.contains("1 passed"), "{shown}");
    }
}

mod routes {
    use super::*;

    fn host() -> NetnsGuard {
        let host = NetnsGuard::new();
        for words in [
            "link add up0 type veth peer name up1",
            "link set up0 mtu 9000",
            "address add 192.168.7.1/24 dev up0",
            "address add 192.168.8.1/24 dev up0",
            "link set up0 up",
            "link set up1 up",
        ] {
            host.ip(words);
        }
        // The kernel tells later that the carrier is there; that is a change of the underlay as well.
        let deadline = Instant::now() + DEADLINE;
        while host.ip("-o link").matches("state UP").count() < 2 {
            assert!(Instant::now() < deadline, "{}", host.ip("-o link"));
            std::thread::yield_now();
        }
        host
    }

    #[test]
    fn the_kernel_answers_next_hop_source_device_and_mtu() {
        let host = host();
        for words in [
            "route add 10.1.0.0/16 via 192.168.7.254",
            "route add 10.2.0.0/16 via 192.168.8.254 src 192.168.8.1 mtu 1400",
            "route add 10.3.0.0/16 dev up0 mtu lock 9999",
            "route add unreachable 10.4.0.0/16",
            "route add prohibit 10.5.0.0/16",
            "route add blackhole 10.6.0.0/16",
            "route add 10.7.0.0/16 via inet6 fe80::1 dev up0",
        ] {
            host.ip(words);
        }
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            let ifindex = netlink.ifindex("up0").await.unwrap();
            let expected = [
                ("192.168.7.9", "192.168.7.9", "192.168.7.1", 9000),
                ("10.1.2.3", "192.168.7.254", "192.168.7.1", 9000),
                ("10.2.2.3", "192.168.8.254", "192.168.8.1", 1400),
                ("10.3.2.3", "10.3.2.3", "192.168.7.1", 9000),
            ];
            for (to, next_hop, source, mtu) in expected {
                let route = netlink.route_to(to.parse().unwrap()).await.unwrap();
                let (next_hop, source) = (next_hop.parse().unwrap(), source.parse().unwrap());
                assert_eq!(
                    route,
                    UnderlayRoute {
                        next_hop,
                        source,
                        ifindex,
                        ifname: "up0".into(),
                        mtu
                    },
                    "{to}"
                );
            }
            let refused = [
                (
                    "10.4.0.1",
                    "the route to 10.4.0.1 is of type unreachable: packets there are refused",
                ),
                (
                    "10.5.0.1",
                    "the route to 10.5.0.1 is of type prohibit: packets there are refused",
                ),
                (
                    "10.6.0.1",
                    "the route to 10.6.0.1 is of type blackhole: packets there are refused",
                ),
                (
                    "10.7.0.1",
                    "the route to 10.7.0.1 has the IPv6 gateway fe80::1: an IPv4 one is wanted",
                ),
                (
                    "10.8.0.1",
                    "no route to 10.8.0.1: `ip route get 10.8.0.1` shows what the kernel would do",
                ),
                (
                    "192.168.7.1",
                    "192.168.7.1 is an address of this host: a peer needs another one",
                ),
                ("192.168.7.255", "192.168.7.255 is not the address of a single host"),
            ];
            for (to, expected) in refused {
                assert_eq!(
                    netlink.route_to(to.parse().unwrap()).await.unwrap_err().to_string(),
                    expected
                );
            }
        });
    }

    #[test]
    fn the_uplink_is_where_the_address_or_the_default_route_is() {
        let host = host();
        host.block_on(async || {
            let netlink = Netlink::open().unwrap();
            let none = netlink.default_uplink(None).await.unwrap_err();
            assert!(matches!(none, RouteError::NoDefaultRoute { .. }), "{none}");
            let given = netlink
                .default_uplink(Some("192.168.8.1".parse().unwrap()))
                .await
                .unwrap();
            assert_eq!((given.ifname.as_str(), given.mtu), ("up0", 9000));
            let wrong = netlink
                .default_uplink(Some("192.168.9.1".parse().unwrap()))
                .await
                .unwrap_err();
            assert_eq!(
                wrong.to_string(),
                "no interface has the address 192.168.9.1; this host has 192.168.7.1, 192.168.8.1"
            );
            host.ip("route add default via 192.168.7.254 metric 50");
            host.ip("route add default via 192.168.8.254 metric 10");
            let found = netlink.default_uplink(None).await.unwrap();
            assert_eq!(
                (found.ifname.as_str(), found.address),
                ("up0", "192.168.8.1".parse().unwrap())
            );
            let absent = netlink.interface_addresses("up9").await.unwrap_err();
            assert_eq!(
                absent.to_string(),
                "interface \"up9\" does not exist: `ip link` lists them"
            );
        });
    }

    #[test]
    fn a_change_of_the_underlay_is_noticed_and_of_our_own_only_a_removal() {
        let (host, container) = (host(), NetnsGuard::new());
        host.block_on(async || {
            let netns = container.open();
            let netlink = Netlink::open().unwrap();
            let mut notices = watch_underlay().unwrap();
            netlink.create_endpoint(&spec(&netns, "weft000000001")).await.unwrap();
            netlink.ensure_gro_device(4789).await.unwrap();
            // A notice would come within the quiet time; a slow machine can only make this pass, not fail.
            let own = tokio::time::timeout(Duration::from_millis(500), notices.recv()).await;
            assert!(own.is_err(), "{own:?}");
            netlink.remove_endpoint("weft000000001").await.unwrap();
            let removed = tokio::time::timeout(DEADLINE, notices.recv()).await;
            assert!(matches!(removed, Ok(Some(_))), "{removed:?}");
            for change in [
                "route add 10.1.0.0/16 via 192.168.7.254",
                "address add 192.168.9.1/24 dev up0",
                "link set up0 mtu 1500",
            ] {
                host.ip(change);
                let noticed = tokio::time::timeout(DEADLINE, notices.recv()).await;
                assert!(matches!(noticed, Ok(Some(_))), "{change}: {noticed:?}");
            }
        });
    }

    #[test]
    fn a_flood_of_changes_makes_few_notices() {
        let host = host();
        host.block_on(async || {
            let mut notices = watch_underlay().unwrap();
            let batch: String = (0..2000)
                .map(|n| format!("route add 10.{}.{}.0/24 dev up0\n", n / 250, n % 250))
                .collect();
            let path = std::env::temp_dir().join(format!("weft-routes-{}", std::process::id()));
            std::fs::write(&path, batch).unwrap();
            host.ip(&format!("-batch {}", path.display()));
            std::fs::remove_file(&path).unwrap();
            let first = tokio::time::timeout(DEADLINE, notices.recv()).await.unwrap();
            assert!(first.is_some());
            let routes = host.ip("route").lines().count();
            assert_eq!(routes, 2002);
            assert!(notices.len() <= 1);
        });
    }
}
