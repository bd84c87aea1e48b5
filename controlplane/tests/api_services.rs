//! The API over its unix socket: services, tasks and the cluster (`spec/ipam.md` 6.6), and all refusals.
#![allow(clippy::unwrap_used)]

mod small_daemon;

use serde_json::{Value, json};
use small_daemon::http::{call, furnished, get, http, keys};
use small_daemon::{DEADLINE, SmallDaemon, within};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use weft::client::{Client, ClientError, segment};

mod services {
    use super::*;

    #[test]
    fn a_service_has_a_vip_on_each_network() {
        let daemon = furnished();
        let service = get(&daemon, "/services/web");
        assert_eq!(
            keys(&service),
            ["ID", "Version", "CreatedAt", "UpdatedAt", "Spec", "Endpoint"]
        );
        assert_eq!(service["Spec"]["Name"], "web");
        let balanced = json!({"Mode": "vip", "Policy": "round-robin", "Affinity": 0});
        assert_eq!(service["Spec"]["EndpointSpec"], balanced);
        let network = get(&daemon, "/networks/net1");
        assert_eq!(
            service["Spec"]["TaskTemplate"]["Networks"],
            json!([{"Target": network["Id"]}])
        );
        assert_eq!(service["Endpoint"]["Spec"], balanced);
        let vips = service["Endpoint"]["VirtualIPs"].as_array().unwrap();
        assert_eq!(vips.len(), 1);
        assert_eq!(keys(&vips[0]), ["NetworkID", "Addr"]);
        assert_eq!(vips[0]["NetworkID"], network["Id"]);
        assert!(vips[0]["Addr"].as_str().unwrap().ends_with("/24"), "{}", vips[0]);
        assert_eq!(get(&daemon, "/services"), json!([service]));
    }

    #[test]
    fn in_dnsrr_mode_there_is_none() {
        let daemon = furnished();
        let body = json!({"Name": "rr", "TaskTemplate": {"Networks": [{"Target": "net1"}]}, "EndpointSpec": {"Mode": "dnsrr"}});
        assert_eq!(call(&daemon, "POST", "/services/create", body).0, 201);
        let service = get(&daemon, "/services/rr");
        assert_eq!(
            service["Endpoint"],
            json!({"Spec": {"Mode": "dnsrr"}, "VirtualIPs": []})
        );
    }

    #[test]
    fn tasks_are_the_endpoints_of_services_and_can_be_asked_for_by_service() {
        let daemon = furnished();
        let tasks = get(&daemon, "/tasks");
        assert_eq!(tasks.as_array().unwrap().len(), 1, "c1 is of no service: {tasks}");
        assert_eq!(
            (&tasks[0]["Name"], &tasks[0]["Node"]),
            (&json!("web.1"), &json!("node1"))
        );
        assert_eq!(tasks[0]["State"], "running");
        assert_eq!(tasks[0]["ServiceID"], get(&daemon, "/services/web")["ID"]);
        assert_eq!(get(&daemon, "/tasks?service=web"), tasks);
        assert_eq!(call(&daemon, "GET", "/tasks?service=nope", Value::Null).0, 404);
    }

    #[test]
    fn policy_and_affinity_are_created_shown_and_updated() {
        let daemon = furnished();
        let body = json!({"Name": "db", "TaskTemplate": {"Networks": [{"Target": "net1"}]},
            "EndpointSpec": {"Policy": "maglev", "Affinity": 60}});
        assert_eq!(call(&daemon, "POST", "/services/create", body).0, 201);
        let before = get(&daemon, "/services/db");
        let spec = |policy: &str, affinity: u32| json!({"Mode": "vip", "Policy": policy, "Affinity": affinity});
        assert_eq!(before["Spec"]["EndpointSpec"], spec("maglev", 60));
        assert_eq!(before["CreatedAt"], before["UpdatedAt"]);
        let body = json!({"EndpointSpec": {"Policy": "least-connections"}});
        assert_eq!(
            call(&daemon, "POST", "/services/db/update", body),
            (200, json!({"Warnings": []}))
        );
        let after = get(&daemon, "/services/db");
        assert_eq!(after["Spec"]["EndpointSpec"], spec("least-connections", 60));
        assert_eq!(after["Endpoint"]["Spec"], spec("least-connections", 60));
        assert!(after["Version"]["Index"].as_u64() > before["Version"]["Index"].as_u64());
        assert_eq!(after["CreatedAt"], before["CreatedAt"]);
        assert!(after["UpdatedAt"].as_str() > before["UpdatedAt"].as_str(), "{after}");
    }

    #[test]
    fn an_update_of_an_earlier_version_is_refused() {
        let daemon = furnished();
        let seen = get(&daemon, "/services/web")["Version"]["Index"].as_u64().unwrap();
        let update = |version: &str, policy: &str| {
            let body = json!({"EndpointSpec": {"Policy": policy}});
            call(
                &daemon,
                "POST",
                &format!("/services/web/update?version={version}"),
                body,
            )
        };
        assert_eq!(update(&seen.to_string(), "maglev").0, 200);
        let now = get(&daemon, "/services/web")["Version"]["Index"].as_u64().unwrap();
        for (version, status, told) in [
            (
                seen.to_string(),
                409,
                format!(
                    "service web has changed: its version is {now}, and the update is of version {seen}; look at it again"
                ),
            ),
            (
                "new".to_owned(),
                400,
                "version \"new\" is no number: Version.Index of the service is wanted".to_owned(),
            ),
        ] {
            assert_eq!(update(&version, "round-robin"), (status, json!({"message": told})));
        }
        let (status, answer) = update("1&version=2", "round-robin");
        let told = answer["message"].as_str().unwrap();
        assert!(status == 400 && told.contains("duplicate field `version`"), "{answer}");
        let spec = &get(&daemon, "/services/web")["Spec"]["EndpointSpec"];
        assert_eq!(spec["Policy"], "maglev");
    }

    #[test]
    fn tasks_have_weights() {
        let daemon = furnished();
        assert_eq!(get(&daemon, "/tasks")[0]["Weight"], 1);
        let body = json!({"Weights": {"web.1": 0}});
        assert_eq!(call(&daemon, "POST", "/services/web/update", body).0, 200);
        assert_eq!(get(&daemon, "/tasks")[0]["Weight"], 0);
        let body = json!({"Netns": "c9", "Name": "web.9", "Service": "web", "Weight": 9});
        assert_eq!(call(&daemon, "POST", "/networks/net1/connect", body).0, 200);
        let tasks = get(&daemon, "/tasks?service=web");
        let weights: Vec<_> = tasks.as_array().unwrap().iter().map(|task| &task["Weight"]).collect();
        assert_eq!(weights, [0, 9]);
    }

    #[test]
    fn updates_that_cannot_be_are_refused() {
        let daemon = furnished();
        for (path, body, status, words) in [
            (
                "nope",
                json!({"EndpointSpec": {"Affinity": 1}}),
                404,
                "service nope not found",
            ),
            (
                "web",
                json!({"Weights": {"web.7": 1}}),
                404,
                "it should be one of its tasks (web.1)",
            ),
            ("web", json!({"Weights": {"web.1": 101}}), 400, "it should be 1 to 100"),
            (
                "web",
                json!({"Weights": {"web.1": -1}}),
                400,
                "a number from 0 to 4294967295 is wanted",
            ),
            (
                "web",
                json!({"EndpointSpec": {"Affinity": 86_401}}),
                400,
                "it should be 1 to 86400",
            ),
            (
                "web",
                json!({"EndpointSpec": {"Policy": "random"}}),
                400,
                "`least-connections`",
            ),
            ("web", json!({"Policy": "maglev"}), 400, "Policy"),
        ] {
            let (told, answer) = call(&daemon, "POST", &format!("/services/{path}/update"), body.clone());
            let message = answer["message"].as_str().unwrap_or_default();
            assert!(told == status && message.contains(words), "{body}: {told} {answer}");
        }
    }

    #[test]
    fn one_with_tasks_stays_and_one_without_goes() {
        let daemon = furnished();
        assert_eq!(call(&daemon, "DELETE", "/services/web", Value::Null).0, 409);
        assert_eq!(
            call(
                &daemon,
                "POST",
                "/networks/net1/disconnect",
                json!({"Endpoint": "web.1"})
            )
            .0,
            200
        );
        assert_eq!(call(&daemon, "DELETE", "/services/web", Value::Null).0, 200);
        assert_eq!(call(&daemon, "GET", "/services/web", Value::Null).0, 404);
    }
}

mod clusters {
    use super::*;

    #[test]
    fn outside_one_what_needs_it_is_refused() {
        let daemon = SmallDaemon::outside();
        for path in [
            "/networks",
            "/services",
            "/tasks",
            "/nodes",
            "/cluster/token",
            "/networks/x",
        ] {
            let (status, answer) = call(&daemon, "GET", path, Value::Null);
            assert_eq!(status, 503, "{path}: {answer}");
            assert_eq!(answer, json!({"message": "this node is not in a cluster"}));
        }
        assert_eq!(get(&daemon, "/info")["Role"], Value::Null);
    }

    #[test]
    fn init_gives_the_token_that_is_given_later_too() {
        let daemon = SmallDaemon::outside();
        let (status, first) = call(&daemon, "POST", "/cluster/init", json!({}));
        assert_eq!(status, 200, "{first}");
        assert!(first["JoinToken"].as_str().unwrap().starts_with("WFTKN-1-"), "{first}");
        assert_eq!(get(&daemon, "/cluster/token"), first);
        assert_eq!(call(&daemon, "POST", "/cluster/init", json!({})).0, 409);
        let nodes = get(&daemon, "/nodes");
        assert_eq!(nodes[0]["Hostname"], "node1");
        assert_eq!(
            (&nodes[0]["Status"], &nodes[0]["Role"], &nodes[0]["Self"]),
            (&json!("ready"), &json!("manager"), &json!(true))
        );
    }

    #[test]
    fn join_hands_over_what_was_given() {
        let daemon = SmallDaemon::outside();
        let body = json!({"JoinToken": "t", "RemoteAddr": "192.0.2.1:2377"});
        assert_eq!(call(&daemon, "POST", "/cluster/join", body).0, 200);
        let joins = daemon.joins.lock().unwrap();
        assert_eq!(
            (joins[0].token.as_str(), joins[0].manager.as_str()),
            ("t", "192.0.2.1:2377")
        );
    }

    #[test]
    fn leave_is_not_forced_unless_said() {
        let daemon = SmallDaemon::manager();
        assert_eq!(call(&daemon, "POST", "/cluster/leave", json!({})).0, 409);
        assert_eq!(call(&daemon, "POST", "/cluster/leave", json!({"Force": true})).0, 200);
        assert_eq!(get(&daemon, "/info")["Role"], Value::Null);
    }
}

mod refusals {
    use super::*;

    /// Status and message of what must be refused.
    fn refusal(daemon: &SmallDaemon, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = http(daemon, method, path, body);
        let answer: Value =
            serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{method} {path} {body}: {status} {answer:?}"));
        assert_eq!(keys(&answer), ["message"]);
        let message = answer["message"].as_str().unwrap().to_owned();
        assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
        (status, message)
    }

    #[test]
    fn have_a_status_and_one_line() {
        let daemon = furnished();
        let create = "/networks/create";
        for (method, path, body, status, words) in [
            (
                "POST",
                create,
                r#"{"Name": "net1"}"#,
                409,
                "network with name net1 already exists",
            ),
            ("POST", create, r#"{"Name": "a b"}"#, 400, "a b"),
            ("POST", create, r#"{"Name": ""}"#, 400, "network name"),
            ("POST", create, r#"{"Name": "n", "Driver": "macvlan"}"#, 400, "macvlan"),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.9.5/24"}]}}"#,
                400,
                "10.0.9.0/24",
            ),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "10.0.0.0/25"}]}}"#,
                409,
                "overlaps",
            ),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "x"}, {"Subnet": "y"}]}}"#,
                400,
                "several IPv4 subnets",
            ),
            (
                "POST",
                create,
                r#"{"Name": "n", "Options": {"encrypted": ""}}"#,
                400,
                "encrypted",
            ),
            ("POST", create, r#"{"Name": 7}"#, 400, "Name"),
            ("POST", create, r#"{}"#, 400, "Name"),
            ("POST", create, "{", 400, "JSON"),
            ("POST", create, "", 400, "JSON"),
            ("POST", create, r#"{"Name": "n", "Internal": true}"#, 400, "Internal"),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "fd00:1::/64"}]}}"#,
                400,
                "subnet fd00:1::/64: it is of IPv6, which should be asked for (--ipv6, EnableIPv6 true)",
            ),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"Subnet": "10.1.0.0/24", "Gateway": "fd00:1::1"}]}}"#,
                400,
                "gateway fd00:1::1: it should be of the family of its subnet 10.1.0.0/24",
            ),
            (
                "POST",
                create,
                r#"{"Name": "n", "EnableIPv6": true, "IPAM": {"Config": [{"Subnet": "fd00:1::/64"}, {"Subnet": "fd00:2::/64"}]}}"#,
                400,
                "several IPv6 subnets were given",
            ),
            ("POST", create, r#"{"Name": "n", "Ingress": true}"#, 400, "Ingress"),
            (
                "POST",
                create,
                r#"{"Name": "n", "IPAM": {"Config": [{"IPRange": "10.0.9.0/25"}]}}"#,
                400,
                "IPRange",
            ),
            (
                "POST",
                "/networks/net1/connect",
                r#"{"Netns": "a", "Name": "c", "IPAMConfig": {}}"#,
                400,
                "IPAMConfig",
            ),
            ("POST", "/cluster/leave", r#"{"Forced": true}"#, 400, "Forced"),
            ("GET", "/networks/nope", "", 404, "nope"),
            ("DELETE", "/networks/nope", "", 404, "nope"),
            (
                "POST",
                "/networks/nope/connect",
                r#"{"Netns": "a", "Name": "c"}"#,
                404,
                "nope",
            ),
            (
                "POST",
                "/networks/net1/connect",
                r#"{"Netns": "a", "Name": "c", "IPv4Address": "10.9.9.9"}"#,
                400,
                "10.9.9.9",
            ),
            (
                "POST",
                "/networks/net1/connect",
                r#"{"Netns": "a", "Name": "c", "IPv4Address": "x"}"#,
                400,
                "IPv4Address",
            ),
            (
                "POST",
                "/networks/net1/connect",
                r#"{"Netns": "a", "Name": "c", "Service": "nope"}"#,
                404,
                "nope",
            ),
            (
                "POST",
                "/networks/net1/connect",
                r#"{"Pid": -1, "Name": "c"}"#,
                400,
                "Pid",
            ),
            (
                "POST",
                "/networks/net1/disconnect",
                r#"{"Endpoint": "nope"}"#,
                404,
                "nope",
            ),
            (
                "POST",
                "/services/create",
                r#"{"Name": "web", "TaskTemplate": {"Networks": [{"Target": "net1"}]}}"#,
                409,
                "web",
            ),
            (
                "POST",
                "/services/create",
                r#"{"Name": "s", "TaskTemplate": {"Networks": [{"Target": "nope"}]}}"#,
                404,
                "nope",
            ),
            (
                "POST",
                "/services/create",
                r#"{"Name": "s", "TaskTemplate": {"Networks": []}}"#,
                400,
                "network",
            ),
            (
                "POST",
                "/services/create",
                r#"{"Name": "s", "TaskTemplate": {"Networks": [{"Target": "net1"}]}, "EndpointSpec": {"Mode": "x"}}"#,
                400,
                "Mode",
            ),
            ("GET", "/nonsense", "", 404, "/nonsense"),
            ("PUT", "/networks", "", 400, "PUT"),
        ] {
            let (got, message) = refusal(&daemon, method, path, body);
            assert!(
                got == status && message.contains(words),
                "{method} {path} {body}: {got} {message}"
            );
        }
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused() {
        let daemon = SmallDaemon::manager();
        let body = format!(r#"{{"Name": "{}"}}"#, "n".repeat(2 << 20));
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let head = format!(
            "POST /networks/create HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        // The daemon may have had enough before all of it is sent.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(get(&daemon, "/networks"), json!([]));
    }

    #[test]
    fn odd_names_reach_the_daemon_whole() {
        let daemon = SmallDaemon::manager();
        let client = Client::new(daemon.socket());
        for name in ["a/b", "a?b#c", "ü", "%41", "a b", "..", "\u{1}"] {
            let error = within(async {
                client
                    .get::<Value>(&format!("/networks/{}", segment(name)))
                    .await
                    .unwrap_err()
            });
            let ClientError::Refused { status, message } = error else {
                panic!("{name:?}: {error}")
            };
            assert_eq!(status, 404, "{message}");
            assert!(
                message.contains(name) || message.contains(&format!("{name:?}")),
                "{name:?}: {message}"
            );
        }
    }
}
