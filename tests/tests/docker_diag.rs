//! `diagnosticClient` against a real Docker engine: a swarm of one node with a container on an overlay network.

use serde_json::Value;
use weft_diag::client::{Console, run};
use weft_tests::docker::{EngineContainer, Engines};
use weft_tests::misuse::get;
use weft_tests::rig::{Options, Result, Rig};
use weft_tests::story::inside;

/// A swarm of one engine.
struct Swarm {
    engines: Engines,
    rig: Rig,
}

impl Swarm {
    fn get(&self, path: &str) -> String {
        get(&self.rig.hosts[0], path).expect("the engine answers")
    }

    /// The command with `-json` inside the engine's namespace: its exit code, what it found, and its log.
    fn diagnose(&self, args: &[&str]) -> Ran {
        let line: Vec<String> = ["diagnosticClient", "-json"]
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect();
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let task = || {
            let console = Console {
                input: &mut std::io::empty(),
                output: &mut output,
                log: &mut log,
                log_is_terminal: false,
                may_join: false,
            };
            run(&line, console)
        };
        let code = inside(self.rig.hosts[0].netns(), task).expect("the namespace is there");
        let log = String::from_utf8(log).expect("text");
        let found = serde_json::from_slice(&output).unwrap_or_else(|error| panic!("no JSON: {error}\n{log}"));
        Ran { code, found, log }
    }
}

/// What a run of the command left.
struct Ran {
    code: u8,
    found: Value,
    log: String,
}

#[test]
fn the_client_reads_a_docker_engine() -> Result<()> {
    let rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    let engines = Engines::start(&rig, &[0])?;
    let swarm = Swarm { engines, rig };
    let engine = &swarm.engines.0[0];
    engine.init_swarm(&[])?;
    let network = engine.docker(&["network", "create", "-d", "overlay", "--attachable", "n1"])?;
    let container = engine.container("c1", "n1")?;

    peers_are_read(&swarm, &network);
    tables_are_read(&swarm, &network, &container);
    an_entry_without_record_is_read(&swarm, &network);
    a_wrong_network_is_told(&swarm);
    refusals_are_told(&swarm);
    Ok(())
}

/// `/clusterpeers` and `/networkpeers`: the engine itself.
fn peers_are_read(swarm: &Swarm, network: &str) {
    let ran = swarm.diagnose(&["-net", network]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    let peers = ran.found["clusterPeers"].as_array().expect("a list");
    assert_eq!(peers.len(), 1, "{}", ran.found);
    assert_eq!(peers[0]["ip"], swarm.rig.hosts[0].address().to_string());
    assert_eq!(peers[0]["name"].as_str().map(str::len), Some(12), "{}", ran.found);
    assert_eq!(ran.found["networkPeers"], ran.found["clusterPeers"]);
    assert_eq!(swarm.get("/clusterpeers").lines().nth(1), Some("total entries: 1"));
}

/// `/gettable`: the container's record is in both tables, and has an owner.
fn tables_are_read(swarm: &Swarm, network: &str, container: &EngineContainer) {
    let EngineContainer { endpoint, address, .. } = container;
    for (table, member, value) in [
        ("sd", "endpointIP", address.to_string()),
        ("overlay", "endpointIP", format!("{address}/24")),
    ] {
        let ran = swarm.diagnose(&["-v", "-net", network, "-t", table]);
        assert_eq!(ran.code, 0, "{}", ran.log);
        let entries = ran.found["entries"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["key"] == **endpoint);
        let entry = entry.unwrap_or_else(|| panic!("no {endpoint} in {}", ran.found));
        assert_eq!(entry["record"][member], value, "{}", ran.found);
        assert_eq!(
            (&entry["networkOrphan"], &entry["clusterOrphan"]),
            (&false.into(), &false.into())
        );
        assert_eq!(entry["owner"], ran.found["clusterPeers"][0]["name"]);
        assert!(!ran.log.contains("does not belong"), "{}", ran.log);
    }
    let ran = swarm.diagnose(&["-v", "-net", network, "-t", "sd"]);
    let shown = format!("key:{endpoint} value:{{Name:c1 ServiceName: ServiceID: VirtualIP:<nil> EndpointIP:{address} ");
    assert!(ran.log.contains(&shown), "{}", ran.log);
}

/// An entry whose value is no record is shown empty, and the engine lets it be deleted again.
fn an_entry_without_record_is_read(swarm: &Swarm, network: &str) {
    let at = format!("nid={network}&tname=overlay_peer_table&key=odd");
    assert_eq!(swarm.get(&format!("/createentry?{at}&value=%2F%2F%2F%2F")), "OK");
    let ran = swarm.diagnose(&["-v", "-net", network, "-t", "overlay"]);
    let shown = "key:odd value:{EndpointIP: EndpointMAC: TunnelEndpointIP:} owner:";
    assert!(ran.log.contains(shown), "{}", ran.log);
    assert_eq!(swarm.get(&format!("/deleteentry?{at}")), "OK");
    let after = swarm.diagnose(&["-net", network, "-t", "overlay"]);
    assert!(
        after.found["entries"]
            .as_array()
            .is_some_and(|entries| entries.iter().all(|entry| entry["key"] != "odd"))
    );
}

fn a_wrong_network_is_told(swarm: &Swarm) {
    let ran = swarm.diagnose(&["-net", "no such&network", "-t", "sd"]);
    assert_eq!(
        (ran.code, &ran.found["entries"]),
        (0, &serde_json::json!([])),
        "{}",
        ran.log
    );
    assert!(
        ran.log
            .contains(r#"There is no peer on network \"no such&network\", check the network ID"#),
        "{}",
        ran.log
    );
}

/// The engine's own refusals are those that weft's server answers with.
fn refusals_are_told(swarm: &Swarm) {
    for (path, body) in [
        ("/networkpeers", "missing parameter\nUsage: /networkpeers?nid=test"),
        (
            "/leave?members=1",
            "not implemented\nUsage: URL path: /leave no method implemented check /help\n",
        ),
        (
            "/createentry?nid=n&tname=t&key=k&value=aGVsb",
            "FAIL\nError: illegal base64 data at input byte 4",
        ),
        (
            "/createentry?nid=n&tname=t&key=k&value=aa%3Da",
            "FAIL\nError: illegal base64 data at input byte 2",
        ),
        (
            "/joinnetwork?nid=%zz",
            "missing parameter\nUsage: /joinnetwork?nid=network_id",
        ),
    ] {
        assert_eq!(swarm.get(path), body, "{path}");
    }
}
