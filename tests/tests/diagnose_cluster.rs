//! The diagnostic servers of three hosts: what is changed through one is told by all, and is what the kernels' maps have.

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use weft_tests::misuse::{DIAGNOSTIC_PORT, SOON, get, is, switch_on};
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, program, wait_until};
use weft_tests::traffic::Place;

/// The two tables that the data plane follows.
const TABLES: [&str; 2] = ["overlay_peer_table", "endpoint_table"];

/// All maps of the data plane.
const MAPS: [&str; 33] = [
    "affinities",
    "affinities6",
    "answers",
    "attachments",
    "backends",
    "backends6",
    "clamps",
    "counters",
    "endpoints",
    "endpoints6",
    "flows",
    "flows6",
    "fragments",
    "fragments6",
    "loads",
    "loads6",
    "maglev",
    "maglev_members",
    "maglev_members6",
    "maglev_tables",
    "maglev_tables6",
    "namespaces",
    "networks",
    "nodes",
    "peers",
    "peers6",
    "rotations",
    "rotations6",
    "services",
    "services6",
    "sockets",
    "weights",
    "weights6",
];

/// Three hosts; `a` on the first and `b` on the second are tasks of `web` on network `n1`, the third has no endpoint.
struct Cluster {
    // Containers are dropped before the rig that they are in.
    containers: [Container; 2],
    rig: Rig,
    network: String,
}

impl Cluster {
    fn start() -> Result<Cluster> {
        let mut rig = Rig::new(Options {
            hosts: 3,
            ..Options::default()
        })?;
        // Docker's engine, too, looks at the port only when it is told to.
        rig.hosts[0].set("network-diagnostic-port", DIAGNOSTIC_PORT)?;
        rig.start_cluster()?;
        assert!(
            get(&rig.hosts[0], "/ready").is_err(),
            "the port takes effect at SIGHUP only"
        );
        let network = rig.hosts[0].weft(&["network", "create", "--subnet", "10.1.0.0/24", "n1"])?;
        rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", "n1"])?;
        let containers = [rig.container(0, "a")?, rig.container(1, "b")?];
        for container in &containers {
            container.connect("n1", Some("web"))?;
        }
        for host in &mut rig.hosts {
            switch_on(host)?;
        }
        let cluster = Cluster {
            containers,
            rig,
            network: network.trim().to_owned(),
        };
        for host in &cluster.rig.hosts[..2] {
            cluster.until_rows(host, TABLES[0], 2)?;
            cluster.until_rows(host, TABLES[1], 2)?;
        }
        Ok(cluster)
    }

    fn rows(&self, host: &Host, table: &str) -> Result<Vec<Value>> {
        entries(host, &format!("/gettable?nid={}&tname={table}", self.network))
    }

    fn until_rows(&self, host: &Host, table: &str, count: usize) -> Result<Vec<Value>> {
        wait_until(SOON, &format!("{} has {count} rows in {table}", host.name()), || {
            let rows = self.rows(host, table)?;
            if rows.len() == count {
                Ok(rows)
            } else {
                Err(Error::new(format!("{rows:?}")))
            }
        })
    }

    /// The path of a call on one entry of `overlay_peer_table`.
    fn entry(&self, call: &str, key: &str, value: Option<&str>) -> String {
        let value = value.map(|value| format!("&value={value}&unsafe")).unwrap_or_default();
        format!("/{call}?nid={}&tname=overlay_peer_table&key={key}{value}", self.network)
    }

    /// Whether all of the hosts show the key with this owner in the table, and this line in the map `peers`.
    fn until_all_have(&self, hosts: &[usize], key: &str, owner: &str, peer: &str) -> Result<()> {
        for host in hosts.iter().map(|index| &self.rig.hosts[*index]) {
            wait_until(SOON, &format!("{} has {key} of {owner} as {peer}", host.name()), || {
                let rows = self.rows(host, TABLES[0])?;
                let maps = get(host, "/maps/peers")?;
                let row = rows.iter().any(|row| row["key"] == key && row["owner"] == owner);
                if row && maps.contains(peer) {
                    Ok(())
                } else {
                    Err(Error::new(format!("{rows:?}\n{maps}")))
                }
            })?;
        }
        Ok(())
    }

    /// Whether none of the hosts shows the key in the table any more, or the address in the map `peers`.
    fn until_none_has(&self, hosts: &[usize], key: &str, address: &str) -> Result<()> {
        for host in hosts.iter().map(|index| &self.rig.hosts[*index]) {
            wait_until(SOON, &format!("{} lost {key}", host.name()), || {
                let rows = self.rows(host, TABLES[0])?;
                let maps = get(host, "/maps/peers")?;
                let gone = rows.iter().all(|row| row["key"] != key) && !maps.contains(address);
                if gone {
                    Ok(())
                } else {
                    Err(Error::new(format!("{rows:?}\n{maps}")))
                }
            })?;
        }
        Ok(())
    }
}

/// The JSON reply.
fn json(host: &Host, path: &str) -> Result<Value> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let text = get(host, &format!("{path}{separator}json"))?;
    serde_json::from_str(&text).map_err(|error| Error::new(format!("{path}: {error} in {text:?}")))
}

/// The entries of a JSON reply.
fn entries(host: &Host, path: &str) -> Result<Vec<Value>> {
    let reply = json(host, path)?;
    assert_eq!(reply["message"], "OK", "{path}: {reply}");
    let entries = reply["details"]["entries"].as_array().cloned().unwrap_or_default();
    assert_eq!(reply["details"]["size"], entries.len(), "{path}: {reply}");
    Ok(entries)
}

/// The host's name in the gossip.
fn gossip_name(host: &Host) -> Result<String> {
    let info = host.weft(&["info"])?;
    let name = info.lines().find_map(|line| line.strip_prefix("Gossip Name: "));
    name.map(str::to_owned).ok_or_else(|| Error::new(info.clone()))
}

/// A record of `overlay_peer_table` (protobuf: address, MAC, VTEP), escaped for a query.
fn peer_record(address: &str, mac: &str, vtep: &str) -> String {
    let fields = [(0x0a, address), (0x12, mac), (0x1a, vtep)];
    let bytes = fields
        .iter()
        .flat_map(|(tag, text)| [*tag, text.len() as u8].into_iter().chain(text.bytes()));
    bytes.map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn an_entry_reaches_all_tables_and_maps_and_goes_with_its_owner() -> Result<()> {
    let cluster = Cluster::start()?;
    let [first, second, third] = &cluster.rig.hosts[..] else {
        return Err(Error::new("not three hosts"));
    };
    let all = [0, 1, 2];
    // The third takes part without an endpoint.
    let stats = format!("/networkstats?nid={}", cluster.network);
    is("OK\nentries: -1, qlen: -1\n", &get(third, &stats)?)?;
    is("OK", &get(third, &format!("/joinnetwork?nid={}", cluster.network))?)?;
    cluster.until_rows(third, TABLES[0], 2)?;

    let record = |vtep| peer_record("10.1.0.77/24", "02:42:0a:01:00:4d", vtep);
    is(
        "OK",
        &get(
            first,
            &cluster.entry("createentry", "k1", Some(&record("192.168.50.1"))),
        )?,
    )?;
    let peer = |vtep: &str| format!("10.1.0.77 -> vtep {vtep} mac 02:42:0a:01:00:4d");
    // An own VTEP is no peer of the node itself.
    cluster.until_all_have(&[1, 2], "k1", &gossip_name(first)?, &peer("192.168.50.1"))?;
    let again = get(second, &cluster.entry("createentry", "k1", Some("x")))?;
    assert!(
        again.starts_with("FAIL\nError: cannot create entry in table overlay_peer_table with network id "),
        "{again}"
    );
    assert!(again.ends_with(" and key k1, already exists"), "{again}");

    is(
        "OK",
        &get(
            second,
            &cluster.entry("updateentry", "k1", Some(&record("192.168.50.3"))),
        )?,
    )?;
    cluster.until_all_have(&[0, 1], "k1", &gossip_name(second)?, &peer("192.168.50.3"))?;

    is("OK", &get(first, &cluster.entry("deleteentry", "k1", None))?)?;
    cluster.until_none_has(&all, "k1", "10.1.0.77")?;
    let gone = get(third, &cluster.entry("getentry", "k1", None))?;
    assert!(
        gone.ends_with(" and key k1 deleted and pending garbage collection"),
        "{gone}"
    );

    // What is no record is in the tables, and in no map.
    let before = get(third, "/maps/peers")?;
    is("OK", &get(first, &cluster.entry("createentry", "odd", Some("%FF%FF")))?)?;
    cluster.until_all_have(&all, "odd", &gossip_name(first)?, "")?;
    is(&before, &get(third, "/maps/peers")?)?;

    // The second leaves the gossip: all that it owns goes, and comes back with it but for what was made by hand.
    is(
        "OK",
        &get(
            second,
            &cluster.entry("createentry", "k2", Some(&record("192.168.50.2"))),
        )?,
    )?;
    cluster.until_all_have(&[0, 2], "k2", &gossip_name(second)?, &peer("192.168.50.2"))?;
    is("OK", &get(second, "/leave?members=192.168.50.2")?)?;
    cluster.until_none_has(&[0, 2], "k2", "10.1.0.77")?;
    cluster.until_rows(first, TABLES[1], 1)?;
    is("OK", &get(second, "/join?members=192.168.50.1,192.168.50.3")?)?;
    for host in [first, second, third] {
        wait_until(SOON, &format!("{} knows all three", host.name()), || {
            let peers = entries(host, "/clusterpeers")?;
            if peers.len() == 3 {
                Ok(())
            } else {
                Err(Error::new(format!("{peers:?}")))
            }
        })?;
        cluster.until_rows(host, TABLES[1], 2)?;
    }

    // The third, without endpoints, takes part no more.
    is("OK", &get(third, &format!("/leavenetwork?nid={}", cluster.network))?)?;
    wait_until(SOON, "the others see it", || {
        let peers = entries(first, &format!("/networkpeers?nid={}", cluster.network))?;
        if peers.len() == 2 {
            Ok(())
        } else {
            Err(Error::new(format!("{peers:?}")))
        }
    })?;
    is(
        "OK\ntotal entries: 0\n",
        &get(third, &format!("/gettable?nid={}&tname={}", cluster.network, TABLES[0]))?,
    )?;
    // A network that was left still answers until it is reaped.
    is("OK\nentries: 0, qlen: 0\n", &get(third, &stats)?)
}

/// Sends what a virtual IP does not speak, so that it says so.
fn speak_sctp(container: &Container, vip: Ipv4Addr) -> Result<()> {
    const SCTP: i32 = 132;
    let sent = container.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(SCTP)))?;
        socket.send_to(&[0; 32], &SocketAddr::from((vip, 0)).into())
    });
    sent.map(drop).map_err(|error| Error::new(error.to_string()))
}

/// A datagram that does not fit into one packet.
fn speak_in_fragments(container: &Container, vip: Ipv4Addr) -> Result<()> {
    let sent = container.enter(|| std::net::UdpSocket::bind("0.0.0.0:0")?.send_to(&[0; 4000], (vip, 9)));
    sent.map(drop).map_err(|error| Error::new(error.to_string()))
}

#[test]
fn every_map_is_told_in_text_and_json() -> Result<()> {
    let mut cluster = Cluster::start()?;
    for container in &mut cluster.containers {
        container.serve(&["http-serve", "--name", "web"])?;
    }
    let services = entries(&cluster.rig.hosts[0], "/maps/services")?;
    let vip = services
        .first()
        .and_then(|service| service["vip"].as_str())
        .unwrap_or("none");
    wait_until(SOON, "both tasks answer at the VIP", || {
        cluster.containers[0].tool(&["http-get", "-n", "4", &format!("http://{vip}/")])
    })?;
    let address = vip.parse().map_err(|error| Error::new(format!("{vip:?}: {error}")))?;
    speak_sctp(&cluster.containers[0], address)?;
    speak_in_fragments(&cluster.containers[0], address)?;
    let host = &cluster.rig.hosts[0];
    let listed = entries(host, "/maps")?;
    let mut names: Vec<&str> = listed.iter().filter_map(|map| map["name"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, MAPS);
    for map in MAPS {
        let text = get(host, &format!("/maps/{map}"))?;
        let reply = json(host, &format!("/maps/{map}"))?;
        assert_eq!(reply["message"], "OK", "{reply}");
        let found = reply["details"]["entries"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        // No network of this cluster has IPv6, or wants its connections clamped; its services take turns, and no socket is asked.
        let policies = [
            "affinities",
            "clamps",
            "loads",
            "maglev",
            "maglev_members",
            "maglev_tables",
            "namespaces",
            "sockets",
            "weights",
        ];
        let empty = map.ends_with('6') || policies.contains(&map);
        assert_eq!(found.is_empty(), empty, "{map} after traffic: {reply}");
        assert!(
            found
                .iter()
                .all(|entry| entry.as_object().is_some_and(|fields| fields.len() >= 2)),
            "{reply}"
        );
        let head = format!("OK\ntotal entries: {}", found.len());
        assert!(text.starts_with(&head), "{map}: no {head:?} in {text}");
    }
    for path in ["/maps/nosuch", "/maps/nosuch?json"] {
        let told = get(host, path)?;
        assert!(
            told.contains("nosuch") && MAPS.iter().all(|map| told.contains(map)),
            "{told}"
        );
    }
    Ok(())
}

/// The replies of a Docker engine (`golden/docker-20.10-diag.txt`) that do not depend on what is in the tables.
#[test]
fn replies_are_those_of_docker() -> Result<()> {
    let cluster = Cluster::start()?;
    let host = &cluster.rig.hosts[0];
    let nid = &cluster.network;
    let entry = format!("nid={nid}&tname=test_table");
    let missing = |path: &str, usage: &str| (path.to_owned(), format!("missing parameter\nUsage: {usage}"));
    let fails = |path: String, error: String| (path, format!("FAIL\nError: {error}"));
    let ok = |path: String| (path, "OK".to_owned());
    for (path, reply) in [
        ("/ready".to_owned(), "OK\nOK".to_owned()),
        ("/nosuch".to_owned(), "not implemented\nUsage: URL path: /nosuch no method implemented check /help\n".to_owned()),
        missing("/networkpeers", "/networkpeers?nid=test"),
        missing("/networkstats", "/networkstats?nid=test"),
        missing("/joinnetwork", "/joinnetwork?nid=network_id"),
        missing("/leavenetwork", "/leavenetwork?nid=network_id"),
        missing("/join", "/join?members=ip1,ip2,..."),
        missing("/leave", "/leave?members=ip1,ip2,..."),
        missing("/gettable?nid=n", "/gettable?tname=table_name&nid=network_id"),
        missing("/getentry?nid=n&key=k", "/getentry?tname=table_name&nid=network_id&key=k"),
        missing("/createentry?nid=n&tname=t", "/createentry?tname=table_name&nid=network_id&key=k&value=v"),
        missing("/updateentry?nid=n&tname=t&key=k", "/updateentry?tname=table_name&nid=network_id&key=k&value=v"),
        missing("/deleteentry?nid=n&tname=t", "/deleteentry?tname=table_name&nid=network_id&key=k"),
        ("/networkpeers?nid=nope".to_owned(), "OK\ntotal entries: 0\n".to_owned()),
        (format!("/gettable?nid={nid}&tname=nope"), "OK\ntotal entries: 0\n".to_owned()),
        ("/gettable?nid=nope&tname=endpoint_table".to_owned(), "OK\ntotal entries: 0\n".to_owned()),
        fails(
            format!("/getentry?nid={nid}&tname=endpoint_table&key=zz"),
            format!("could not get entry in table endpoint_table with network id {nid} and key zz"),
        ),
        ok(format!("/createentry?{entry}&key=k1&value=aGVsbG8=")),
        ok(format!("/createentry?{entry}&key=k2&value=hello&unsafe")),
        fails(
            format!("/createentry?{entry}&key=k3&value=not*base64"),
            "illegal base64 data at input byte 3".to_owned(),
        ),
        fails(
            format!("/createentry?{entry}&key=k1&value=aGVsbG8="),
            format!("cannot create entry in table test_table with network id {nid} and key k1, already exists"),
        ),
        (format!("/getentry?{entry}&key=k1"), "OK\n0) k:`k1` -> v:`aGVsbG8=` owner:``\n".to_owned()),
        (format!("/getentry?{entry}&key=k2&unsafe"), "OK\n0) k:`k2` -> v:`hello` owner:``\n".to_owned()),
        ok(format!("/updateentry?{entry}&key=k1&value=d29ybGQ=")),
        fails(
            format!("/updateentry?{entry}&key=k9&value=d29ybGQ="),
            format!("cannot update entry as the entry in table test_table with network id {nid} and key k9 does not exist"),
        ),
        ok(format!("/deleteentry?{entry}&key=k1")),
        fails(
            format!("/deleteentry?{entry}&key=k1"),
            format!("cannot delete entry test_table with network id {nid} and key k1 does not exist or is already being deleted"),
        ),
        fails(
            format!("/getentry?{entry}&key=k1"),
            format!("entry in table test_table network id {nid} and key k1 deleted and pending garbage collection"),
        ),
        fails(
            "/join?members=".to_owned(),
            "/join error in the DB join could not join node to memberlist: 1 error occurred:\n\t* Failed to resolve : lookup : no \
             such host\n\n"
                .to_owned(),
        ),
        fails(
            "/join?members=127.0.0.9".to_owned(),
            "/join error in the DB join could not join node to memberlist: 1 error occurred:\n\t* Failed to join 127.0.0.9: dial tcp \
             127.0.0.9:7946: connect: connection refused\n\n"
                .to_owned(),
        ),
        ok("/joinnetwork?nid=testnet".to_owned()),
        (
            "/networkpeers?nid=testnet".to_owned(),
            format!("OK\ntotal entries: 1\n0) {} -> 192.168.50.1\n", gossip_name(host)?),
        ),
        ok("/leavenetwork?nid=testnet".to_owned()),
        fails("/leavenetwork?nid=never".to_owned(), "could not find network never while trying to leave".to_owned()),
    ] {
        is(&reply, &get(host, &path)?).map_err(|error| Error::new(format!("{path}: {error}")))?;
    }
    replies_in_json(&cluster, host)
}

fn replies_in_json(cluster: &Cluster, host: &Host) -> Result<()> {
    let nid = &cluster.network;
    for (path, reply) in [
        ("/ready?json".to_owned(), r#"{"message":"OK","details":{"info":"OK"}}"#.to_owned()),
        (
            "/nosuch?json".to_owned(),
            r#"{"message":"not implemented","details":{"usage":"URL path: /nosuch no method implemented check /help\n"}}"#.to_owned(),
        ),
        (
            "/networkpeers?json&nid=nope".to_owned(),
            r#"{"message":"OK","details":{"size":0,"entries":null}}"#.to_owned(),
        ),
        (
            "/networkstats?json&nid=nope".to_owned(),
            r#"{"message":"OK","details":{"entries":-1,"QueueLen":-1}}"#.to_owned(),
        ),
        (
            format!("/getentry?json&nid={nid}&tname=test_table&key=k2&unsafe"),
            r#"{"message":"OK","details":{"key":"k2","value":"hello","owner":""}}"#.to_owned(),
        ),
        (
            format!("/deleteentry?json&nid={nid}&tname=test_table&key=zz"),
            format!(
                r#"{{"message":"FAIL","details":{{"error":"cannot delete entry test_table with network id {nid} and key zz does not exist or is already being deleted"}}}}"#
            ),
        ),
        ("/joinnetwork?json&nid=testnet2".to_owned(), r#"{"message":"OK","details":null}"#.to_owned()),
        ("/leavenetwork?json&nid=testnet2".to_owned(), r#"{"message":"OK","details":null}"#.to_owned()),
    ] {
        is(&reply, &get(host, &path)?).map_err(|error| Error::new(format!("{path}: {error}")))?;
    }
    let peers = json(host, "/clusterpeers")?;
    let own = gossip_name(host)?;
    let listed = peers["details"]["entries"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    assert!(
        listed
            .iter()
            .any(|peer| peer["-=name"] == own.as_str() && peer["ip"] == "192.168.50.1"),
        "{peers}"
    );
    assert_eq!(listed.len(), 3, "{peers}");
    let help = get(host, "/help")?;
    for path in ["/", "/leave", "/gettable", "/maps", "/updateentry"] {
        assert!(help.lines().any(|line| line == path), "no {path} in {help}");
    }
    Ok(())
}

#[test]
fn the_client_prints_decoded_rows() -> Result<()> {
    let cluster = Cluster::start()?;
    let client = |host: &Host, arguments: &[&str]| -> Result<String> {
        let mut command = host.netns().command(program("diagnosticClient")?);
        // Docker's client, too, joins only where it is told that this harms nobody.
        let output = command
            .env("DIND_CLIENT", "1")
            .args(arguments)
            .stdin(Stdio::null())
            .output();
        let output = output.map_err(|error| Error::new(error.to_string()))?;
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        Ok(told)
    };
    let vips = entries(&cluster.rig.hosts[0], "/maps/services")?;
    let vip = vips
        .first()
        .and_then(|service| service["vip"].as_str())
        .unwrap_or("none");
    for host in &cluster.rig.hosts[..2] {
        for (container, at) in cluster.containers.iter().zip(&cluster.rig.hosts) {
            let (name, address, owner) = (container.name(), container.address()?, gossip_name(at)?);
            let told = client(host, &["-v", "-net", &cluster.network, "-t", "sd"])?;
            let row = told
                .lines()
                .find(|line| line.contains(&format!("value:{{Name:{name} ServiceName:web ")));
            let row = row.unwrap_or_else(|| panic!("no {name} in {told}"));
            assert!(
                row.contains(&format!("VirtualIP:{vip} EndpointIP:{address} ")) && row.contains(&owner),
                "{row}"
            );
            let told = client(
                host,
                &[
                    "-port",
                    "2000",
                    "-ip",
                    "127.0.0.1",
                    "-t",
                    "overlay",
                    "-v",
                    "-net",
                    &cluster.network,
                ],
            )?;
            let record = format!("value:{{EndpointIP:{address}/24 EndpointMAC:02:42:");
            let row = told.lines().find(|line| line.contains(&record));
            let row = row.unwrap_or_else(|| panic!("no {record} in {told}"));
            assert!(
                row.contains(&format!("TunnelEndpointIP:{}}}", at.address())) && row.contains(&owner),
                "{row}"
            );
        }
    }
    // -a joins for the look, and leaves again.
    let third = &cluster.rig.hosts[2];
    let told = client(third, &["-a", "-v", "-net", &cluster.network, "-t", "overlay"])?;
    assert_eq!(told.matches("value:{EndpointIP:10.1.0.").count(), 2, "{told}");
    wait_until(SOON, "the third has left", || {
        let peers = entries(&cluster.rig.hosts[0], &format!("/networkpeers?nid={}", cluster.network))?;
        let left = peers.iter().all(|peer| peer["ip"] != "192.168.50.3");
        if left {
            Ok(())
        } else {
            Err(Error::new(format!("{peers:?}")))
        }
    })
}
