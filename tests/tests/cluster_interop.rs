//! A host of the underlay that weft does not run on, with the kernel's own vxlan device, exchanges traffic with weft's endpoints.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use weft_core::id::MacAddress;
use weft_core::record::{PEER_TABLE, PeerRecord};
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, ask, diagnose, entries, equal};
use weft_tests::traffic::{UdpEcho, ping, tcp_both_ways, udp_ask};

/// Bytes of the transfer each way.
const BULK: usize = 10_000_000;

/// Where the foreign device is in the network's 10.0.0.0/24.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 200);

/// Its MAC, in Docker's range for overlay addresses.
const FOREIGN_MAC: MacAddress = MacAddress([0x02, 0x42, 10, 0, 0, 200]);

fn traffic<T>(result: Result<T, String>) -> Result<T> {
    result.map_err(Error::new)
}

/// Two hosts with weft; the third one is plain.
fn cluster() -> Result<Cluster> {
    let mut rig = Rig::new(Options {
        hosts: 3,
        ..Options::default()
    })?;
    for host in &mut rig.hosts[..2] {
        host.start()?;
    }
    let token = rig.hosts[0].weft(&["cluster", "init", "-q"])?.trim().to_owned();
    let manager = rig.hosts[0].address().to_string();
    rig.hosts[1].weft(&["cluster", "join", "--token", &token, &manager])?;
    let create = ["network", "create", "--subnet", "10.0.0.0/24", NETWORK];
    let network = rig.hosts[0].weft(&create)?.trim().to_owned();
    for host in &mut rig.hosts[..2] {
        diagnose(host)?;
    }
    let cluster = Cluster { rig, network };
    cluster.wait_ready(2)?;
    Ok(cluster)
}

/// The network's VNI, as the kernel's map has it.
fn vni(host: &Host) -> Result<u64> {
    let networks = entries(host, "/maps/networks")?;
    let vni = networks.first().and_then(|network| network["vni"].as_u64());
    vni.ok_or_else(|| Error::new(format!("no VNI in {networks:?}")))
}

fn mac(container: &Container) -> Result<String> {
    let link = container.netns().ip("-o link show eth0")?;
    let mac = link.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next());
    mac.map(str::to_owned)
        .ok_or_else(|| Error::new(format!("no MAC in {link:?}")))
}

/// A vxlan device without learning: who is where is told by hand.
fn foreign_device(host: &Host, vni: u64, endpoints: &[(&Container, Ipv4Addr)]) -> Result<()> {
    let netns = host.netns();
    netns.ip(&format!(
        "link add vx0 mtu 1450 address {FOREIGN_MAC} type vxlan id {vni} dstport 4789 local {} nolearning dev eth0",
        host.address()
    ))?;
    netns.ip(&format!("addr add {FOREIGN}/24 dev vx0"))?;
    netns.ip("link set vx0 up")?;
    for (endpoint, vtep) in endpoints {
        let mac = mac(endpoint)?;
        netns.ip(&format!(
            "neigh add {} lladdr {mac} dev vx0 nud permanent",
            endpoint.address()?
        ))?;
        host.run(
            "bridge",
            &["fdb", "append", &mac, "dev", "vx0", "dst", &vtep.to_string()],
        )?;
    }
    Ok(())
}

/// The row that tells weft of it, as a parameter of the diagnostic server.
fn row(network: &str, vtep: Ipv4Addr) -> Result<String> {
    let endpoint_ip = format!("{FOREIGN}/24")
        .parse()
        .map_err(|error| Error::new(format!("{FOREIGN}/24: {error}")))?;
    let record = PeerRecord {
        endpoint_ip,
        endpoint_mac: FOREIGN_MAC,
        tunnel_endpoint_ip: IpAddr::V4(vtep),
        endpoint_ip6: None,
    };
    let mut value = String::new();
    for byte in record.encode() {
        let _ = write!(value, "%{byte:02X}");
    }
    Ok(format!(
        "tname={PEER_TABLE}&nid={network}&key=foreign&value={value}&unsafe"
    ))
}

#[test]
fn a_kernel_vxlan_device_and_weft_exchange_traffic() -> Result<()> {
    let cluster = cluster()?;
    let alice = cluster.container(0, "alice", None)?;
    let bob = cluster.container(1, "bob", None)?;
    let (a, b) = (alice.address()?, bob.address()?);
    cluster.wait_map(0, "peers", &[b])?;
    let [one, two, foreign] = &cluster.rig.hosts[..] else {
        return Err(Error::new("not three hosts"));
    };
    foreign_device(foreign, vni(one)?, &[(&alice, one.address()), (&bob, two.address())])?;
    // Nobody told weft yet: its endpoints send nothing there, and what comes from an unknown VTEP is not delivered.
    equal(
        alice
            .tool(&["udp-ping", &format!("{FOREIGN}:7001"), "--timeout", "200"])
            .is_err(),
        true,
    )?;
    ask(
        two,
        &format!("/createentry?{}", row(&cluster.network, foreign.address())?),
    )?;
    cluster.wait_map(0, "peers", &[b, FOREIGN])?;
    cluster.wait_map(1, "peers", &[a, FOREIGN])?;
    for (container, address) in [(&alice, a), (&bob, b)] {
        for size in [56, 1422] {
            equal(traffic(ping(container, FOREIGN, size))?, FOREIGN)?;
            equal(traffic(ping(foreign.netns(), address, size))?, address)?;
        }
        let there = SocketAddr::from((FOREIGN, 7000));
        let here = SocketAddr::from((address, 7000));
        // Whoever begins, 10 MB go each way.
        equal(
            traffic(tcp_both_ways(foreign.netns(), there, container, there, BULK))?.ip(),
            address.into(),
        )?;
        equal(
            traffic(tcp_both_ways(container, here, foreign.netns(), here, BULK))?.ip(),
            FOREIGN.into(),
        )?;
        let _echo = UdpEcho::start(foreign.netns(), there, b"kernel");
        equal(traffic(udp_ask(container, there, 8000))?, b"kernel".to_vec())?;
    }
    goes_with_its_owner(&cluster, &alice, b)
}

/// The row is the second host's, so it goes when that host leaves.
fn goes_with_its_owner(cluster: &Cluster, alice: &Container, bob: Ipv4Addr) -> Result<()> {
    let owner = cluster.rows(0, PEER_TABLE)?.remove("foreign");
    let peers = entries(&cluster.rig.hosts[0], "/clusterpeers")?;
    let second = cluster.rig.hosts[1].address().to_string();
    let owners = peers.iter().find(|peer| peer["ip"] == second.as_str());
    equal(owner.as_deref(), owners.and_then(|peer| peer["-=name"].as_str()))?;
    cluster.rig.hosts[1].weft(&["cluster", "leave", "--force"])?;
    cluster.wait_map(0, "peers", &[])?;
    cluster.wait_rows(0, 1)?;
    for address in [FOREIGN, bob] {
        let unreached = || match alice.tool(&["udp-ping", &format!("{address}:7001"), "--timeout", "200"]) {
            Ok(answer) => Err(Error::new(answer)),
            Err(_) => Ok(()),
        };
        wait_until(SOON, &format!("{address} is reached no more"), unreached)?;
    }
    Ok(())
}
