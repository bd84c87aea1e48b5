//! The API over its unix socket: the socket, networks and endpoints, shapes as Docker's (`spec/ipam.md` 6.5).
#![allow(clippy::unwrap_used)]

mod small_daemon;

use serde_json::{Value, json};
use small_daemon::http::{call, furnished, get, http, keys};
use small_daemon::{Directory, SmallDaemon, within};
use std::os::unix::fs::PermissionsExt;
use weft::client::{Client, ClientError};

mod the_socket {
    use super::*;

    #[test]
    fn is_for_owner_and_group() {
        let daemon = SmallDaemon::outside();
        let mode = std::fs::metadata(daemon.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
    }

    #[test]
    fn in_use_is_told_and_stays_in_use() {
        let daemon = SmallDaemon::outside();
        let error = within(async { weft::api::bind(&daemon.socket()).await.unwrap_err().to_string() });
        assert!(
            error.contains(daemon.socket().to_str().unwrap()) && error.contains("another weftd"),
            "{error}"
        );
        assert_eq!(http(&daemon, "GET", "/_ping", ""), (200, "OK".to_owned()));
    }

    #[test]
    fn that_a_dead_daemon_left_is_replaced() {
        let directory = Directory::new();
        let path = directory.0.join("weft.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        within(async {
            let listener = weft::api::bind(&path).await.unwrap();
            let client = tokio::net::UnixStream::connect(&path);
            let (accepted, connected) = tokio::join!(listener.accept(), client);
            accepted.unwrap();
            connected.unwrap();
        });
    }

    #[test]
    fn what_is_no_socket_is_kept() {
        let directory = Directory::new();
        let path = directory.0.join("precious");
        std::fs::write(&path, "precious").unwrap();
        let error = within(async { weft::api::bind(&path).await.unwrap_err().to_string() });
        let told = error.contains(path.to_str().unwrap()) && error.contains("no socket");
        assert!(told, "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn nobody_there_is_told_as_docker_does() {
        let directory = Directory::new();
        let client = Client::new(directory.0.join("weft.sock"));
        let error = within(async { client.get::<Value>("/info").await.unwrap_err() });
        assert!(matches!(error, ClientError::Connect { .. }));
        let line = error.to_string();
        assert!(
            line.starts_with("Cannot connect to the weft daemon at unix:///"),
            "{line}"
        );
        assert!(line.ends_with("Is weftd running?"), "{line}");
    }
}

mod networks {
    use super::*;

    #[test]
    fn a_network_with_ipv6_shows_both_families() {
        let daemon = furnished();
        let body = json!({
            "Name": "both",
            "EnableIPv6": true,
            "IPAM": { "Config": [{ "Subnet": "fd00:1::/64", "Gateway": "fd00:1::9" }, { "Subnet": "10.77.0.0/24" }] },
        });
        assert_eq!(call(&daemon, "POST", "/networks/create", body).0, 201);
        let network = get(&daemon, "/networks/both");
        assert_eq!(network["EnableIPv6"], true);
        let config = json!([
            { "Subnet": "10.77.0.0/24", "Gateway": "10.77.0.1" },
            { "Subnet": "fd00:1::/64", "Gateway": "fd00:1::9" },
        ]);
        assert_eq!(network["IPAM"]["Config"], config);
        let connect = json!({ "Netns": "c", "Name": "c6" });
        let (status, connected) = call(&daemon, "POST", "/networks/both/connect", connect);
        assert_eq!(status, 200, "{connected}");
        assert!(
            connected.to_string().contains("\"IPv6Address\":\"fd00:1::2/64\""),
            "{connected}"
        );
        assert_eq!(get(&daemon, "/networks/net1")["EnableIPv6"], false);
    }

    #[test]
    fn inspect_has_dockers_fields_in_dockers_order() {
        let daemon = furnished();
        let network = get(&daemon, "/networks/net1");
        let golden = [
            "Name",
            "Id",
            "Created",
            "Scope",
            "Driver",
            "EnableIPv6",
            "IPAM",
            "Internal",
            "Attachable",
            "Ingress",
            "ConfigFrom",
            "ConfigOnly",
            "Containers",
            "Options",
            "Labels",
            "Peers",
        ];
        // EnableIPv4 came later (API 1.48).
        let shown: Vec<&str> = keys(&network).into_iter().filter(|key| *key != "EnableIPv4").collect();
        assert_eq!(shown, golden);
        assert_eq!(network["Scope"], "swarm");
        assert_eq!(network["Id"].as_str().unwrap().len(), 25);
        assert_eq!(network["Created"], "2026-01-01T00:00:01Z");
        let ipam =
            json!({"Driver": "default", "Options": null, "Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}]});
        assert_eq!(network["IPAM"].to_string(), ipam.to_string());
        assert_eq!(
            network["Options"],
            json!({"com.docker.network.driver.overlay.vxlanid_list": "4096"})
        );
        assert_eq!(network["Labels"], json!({"tier": "front"}));
        assert_eq!(network["Peers"], json!([{"Name": "4a027258ed3e", "IP": "127.0.0.1"}]));
    }

    #[test]
    fn inspect_shows_the_endpoints_of_this_node() {
        let daemon = furnished();
        let network = get(&daemon, "/networks/net1");
        let containers = network["Containers"].as_object().unwrap();
        assert_eq!(containers.len(), 2);
        let c1 = containers.values().find(|container| container["Name"] == "c1").unwrap();
        assert_eq!(
            keys(c1),
            ["Name", "EndpointID", "MacAddress", "IPv4Address", "IPv6Address"]
        );
        assert_eq!(c1["EndpointID"].as_str().unwrap().len(), 64);
        let address = c1["IPv4Address"].as_str().unwrap();
        let last: u8 = address
            .strip_prefix("10.0.0.")
            .unwrap()
            .strip_suffix("/24")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(c1["MacAddress"], format!("02:42:0a:00:00:{last:02x}"));
        assert_eq!(c1["IPv6Address"], "");
    }

    #[test]
    fn without_endpoints_here_there_are_no_peers() {
        let daemon = SmallDaemon::manager();
        call(&daemon, "POST", "/networks/create", json!({"Name": "net1"}));
        let network = get(&daemon, "/networks/net1");
        assert_eq!(network["Containers"], json!({}));
        assert_eq!(network.get("Peers"), None);
    }

    #[test]
    fn the_list_is_by_name_and_any_unique_name_finds_one() {
        let daemon = SmallDaemon::manager();
        for name in ["b", "a"] {
            let (status, answer) = call(&daemon, "POST", "/networks/create", json!({ "Name": name }));
            assert_eq!((status, keys(&answer)), (201, vec!["Id", "Warning"]));
        }
        let list = get(&daemon, "/networks");
        assert_eq!((&list[0]["Name"], &list[1]["Name"]), (&json!("a"), &json!("b")));
        let id = list[0]["Id"].as_str().unwrap();
        assert_eq!(get(&daemon, &format!("/networks/{id}"))["Name"], "a");
    }

    #[test]
    fn what_was_asked_for_is_what_is_there() {
        let daemon = SmallDaemon::manager();
        let body = json!({
            "Name": "net1",
            "IPAM": {"Config": [{"Subnet": "192.168.7.0/24", "Gateway": "192.168.7.9"}]},
            "Options": {"com.docker.network.driver.overlay.vxlanid_list": "5000"},
        });
        assert_eq!(call(&daemon, "POST", "/networks/create", body).0, 201);
        let network = get(&daemon, "/networks/net1");
        assert_eq!(
            network["IPAM"]["Config"],
            json!([{"Subnet": "192.168.7.0/24", "Gateway": "192.168.7.9"}])
        );
        assert_eq!(
            network["Options"]["com.docker.network.driver.overlay.vxlanid_list"],
            "5000"
        );
    }

    #[test]
    fn removed_ones_are_gone_and_used_ones_stay() {
        let daemon = furnished();
        let (status, answer) = call(&daemon, "DELETE", "/networks/net1", Value::Null);
        assert_eq!(status, 409, "{answer}");
        call(&daemon, "POST", "/networks/create", json!({"Name": "net2"}));
        assert_eq!(call(&daemon, "DELETE", "/networks/net2", Value::Null).0, 204);
        assert_eq!(call(&daemon, "GET", "/networks/net2", Value::Null).0, 404);
    }
}

mod endpoints {
    use super::*;

    #[test]
    fn connect_takes_the_address_that_was_asked_for_and_tells_where() {
        let daemon = furnished();
        let body = json!({"Path": "/run/netns/x", "Name": "c2", "Aliases": ["db"], "IPv4Address": "10.0.0.77"});
        let (status, connected) = call(&daemon, "POST", "/networks/net1/connect", body);
        assert_eq!(status, 200, "{connected}");
        assert_eq!(connected["IPv4Address"], "10.0.0.77/24");
        assert_eq!(connected["Interface"], "eth0");
        assert_eq!(connected["ResolvConf"], "/run/weft/resolv.conf");
    }

    #[test]
    fn disconnect_frees_the_address() {
        let daemon = furnished();
        let again = json!({"Netns": "x", "Name": "c9", "IPv4Address": "10.0.0.77"});
        assert_eq!(call(&daemon, "POST", "/networks/net1/connect", again.clone()).0, 200);
        assert_eq!(call(&daemon, "POST", "/networks/net1/connect", again).0, 409);
        assert_eq!(
            call(&daemon, "POST", "/networks/net1/disconnect", json!({"Endpoint": "c9"})).0,
            200
        );
        let containers = get(&daemon, "/networks/net1")["Containers"].clone();
        assert!(
            containers
                .as_object()
                .unwrap()
                .values()
                .all(|container| container["Name"] != "c9"),
            "{containers}"
        );
    }

    #[test]
    fn exactly_one_namespace_is_wanted() {
        let daemon = furnished();
        for body in [
            json!({"Name": "c3"}),
            json!({"Name": "c3", "Netns": "a", "Pid": 1}),
            json!({"Name": "c3", "Netns": "a", "Path": "/b"}),
        ] {
            let (status, answer) = call(&daemon, "POST", "/networks/net1/connect", body);
            assert_eq!(status, 400);
            assert!(
                answer["message"]
                    .as_str()
                    .unwrap()
                    .contains("exactly one of Netns, Path and Pid"),
                "{answer}"
            );
        }
    }
}
