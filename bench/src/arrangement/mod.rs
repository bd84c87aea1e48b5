//! Two hosts, one client's container on the first, two servers' on the second, and something that joins them.
//!
//! Every arrangement has the same underlay, the same containers and the same MTU inside them; only what carries a packet from
//! one container to the other differs.

pub mod ceiling;
pub mod docker_like;
pub mod maps;
pub mod weft;

use crate::error::{Context, Error, Result};
use crate::load;
use crate::netns::{self, Link, Netns, format_mac};
use crate::options::Options;
use std::net::Ipv4Addr;
use std::sync::Arc;
use weft_dataplane::abi::front::mac_of;

/// Address of the first host on the underlay.
pub const HOST_A: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 1);
/// Address of the second host on the underlay.
pub const HOST_B: Ipv4Addr = Ipv4Addr::new(192, 168, 50, 2);
/// What VXLAN over IPv4 adds to a packet: Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 section 5).
pub const OVERLAY_HEADERS: u32 = 50;
/// Address range of the containers.
pub const SUBNET: &str = "10.0.1.0/24";

/// One way to join the containers, built and ready for load.
pub trait Arrangement {
    /// How `--arrangements` and the table name it.
    fn id(&self) -> &'static str;
    /// What it is, in a line.
    fn description(&self) -> String;
    /// What must be known to judge its figures.
    fn facts(&self) -> &[String];
    /// Who can be measured.
    fn topology(&self) -> &Topology;
}

/// Who talks to whom.
#[derive(Debug)]
pub struct Topology {
    /// The container on the first host.
    pub client: Container,
    /// The other end of its veth.
    pub client_host_side: HostSide,
    /// Containers on the second host.
    pub servers: Vec<Container>,
    /// A virtual IP with all servers behind it.
    pub vip: Option<Vip>,
    /// Both ends of the link between the hosts.
    pub uplinks: [HostSide; 2],
}

impl Topology {
    /// The server that is addressed directly.
    pub fn server(&self) -> Result<&Container> {
        self.servers
            .first()
            .context(|| "the arrangement has no server".to_owned())
    }
}

/// A container, as far as the network knows it.
#[derive(Debug)]
pub struct Container {
    /// Its namespace.
    pub netns: Arc<Netns>,
    /// Its interface on the overlay.
    pub interface: String,
    /// Its address there.
    pub address: Ipv4Addr,
    /// Its MAC there.
    pub mac: [u8; 6],
    /// Its MTU there.
    pub mtu: u64,
}

impl Container {
    /// Looks at a connected namespace.
    pub fn inspect(netns: Arc<Netns>, interface: &str) -> Result<Self> {
        let link = netns.link(interface)?;
        let address = ipv4_of(&link).context(|| format!("{interface} in {} has no IPv4 address", netns.name()))?;
        Ok(Container {
            netns,
            interface: interface.to_owned(),
            address,
            mac: link.mac,
            mtu: link.mtu,
        })
    }
}

fn ipv4_of(link: &Link) -> Option<Ipv4Addr> {
    let addresses = link.json["addr_info"].as_array()?;
    let ipv4 = addresses.iter().find(|a| a["family"] == "inet")?;
    ipv4["local"].as_str()?.parse().ok()
}

/// An interface of a host.
#[derive(Debug)]
pub struct HostSide {
    /// The namespace that it is in.
    pub netns: Arc<Netns>,
    /// Its name.
    pub interface: String,
}

impl HostSide {
    /// Turns segmentation in hardware off, and receive offload on, or both back: a veth pair passes segments whole, a card does not.
    pub fn set_nic_like(&self, nic_like: bool) -> Result<()> {
        let (segment, receive) = if nic_like { ("off", "on") } else { ("on", "off") };
        for feature in ["tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tso"] {
            self.netns.run("ethtool", &["-K", &self.interface, feature, segment])?;
        }
        let arguments = ["-K", &self.interface, "gso", "on", "gro", receive];
        self.netns.run("ethtool", &arguments).map(drop)
    }
}

/// A virtual IP, and from where it can be reached.
#[derive(Debug)]
pub struct Vip {
    /// The namespace to connect from.
    pub client: Arc<Netns>,
    /// The virtual IP.
    pub address: Ipv4Addr,
}

/// The two hosts, joined by a veth pair that stands for the network between them.
#[derive(Debug)]
pub struct Hosts {
    prefix: &'static str,
    /// The client's host.
    pub a: Arc<Netns>,
    /// The servers' host.
    pub b: Arc<Netns>,
    /// MTU of the underlay, bytes.
    pub mtu: u32,
}

/// Name of the link between the hosts, on the first.
pub const UPLINK_A: &str = "uA";
/// Name of the link between the hosts, on the second.
pub const UPLINK_B: &str = "uB";

impl Hosts {
    /// Creates both.
    pub fn create(prefix: &'static str, options: &Options) -> Result<Self> {
        let mtu = options.underlay_mtu;
        let hosts = Hosts {
            prefix,
            a: Arc::new(Netns::create(&format!("{prefix}-hA"))?),
            b: Arc::new(Netns::create(&format!("{prefix}-hB"))?),
            mtu,
        };
        let name_b = hosts.b.name();
        hosts.a.ip(&format!(
            "link add {UPLINK_A} mtu {mtu} type veth peer name {UPLINK_B} mtu {mtu} netns {name_b}"
        ))?;
        hosts
            .a
            .ip(&format!("addr add {HOST_A}/24 dev {UPLINK_A}\nlink set {UPLINK_A} up"))?;
        hosts
            .b
            .ip(&format!("addr add {HOST_B}/24 dev {UPLINK_B}\nlink set {UPLINK_B} up"))?;
        if options.nic_like {
            hosts
                .uplinks()
                .iter()
                .try_for_each(|uplink| uplink.set_nic_like(true))?;
        }
        Ok(hosts)
    }

    /// Both ends of the link between the hosts.
    pub fn uplinks(&self) -> [HostSide; 2] {
        [self.side(&self.a, UPLINK_A), self.side(&self.b, UPLINK_B)]
    }

    /// An interface of a host.
    pub fn side(&self, host: &Arc<Netns>, interface: &str) -> HostSide {
        HostSide {
            netns: Arc::clone(host),
            interface: interface.to_owned(),
        }
    }

    /// A further namespace of this arrangement.
    pub fn namespace(&self, suffix: &str) -> Result<Arc<Netns>> {
        Ok(Arc::new(Netns::create(&format!("{}-{suffix}", self.prefix))?))
    }

    /// MTU inside the containers.
    pub fn container_mtu(&self) -> u32 {
        self.mtu - OVERLAY_HEADERS
    }

    /// A container whose veth's other end, `host_side`, is in `host`.
    pub fn container(&self, suffix: &str, host: &Netns, host_side: &str, address: Ipv4Addr) -> Result<Container> {
        let netns = self.namespace(suffix)?;
        let (mtu, name) = (self.container_mtu(), netns.name());
        // As Docker and weft give it one.
        let mac = format_mac(mac_of(address.octets()));
        host.ip(&format!(
            "link add {host_side} mtu {mtu} type veth peer name eth0 address {mac} mtu {mtu} netns {name}"
        ))?;
        host.ip(&format!("link set {host_side} up"))?;
        netns.ip(&format!("addr add {address}/24 dev eth0\nlink set eth0 up"))?;
        Container::inspect(netns, "eth0")
    }
}

/// Removes what benches left behind that are no longer running.
pub fn sweep() -> Result<()> {
    for name in netns::sweep()? {
        eprintln!("weft-bench: removed namespace {name} of a bench that is gone");
    }
    weft::sweep();
    Ok(())
}

/// Builds the arrangement with this id and waits until its client reaches everybody.
pub fn ready(id: &str, options: &Options) -> Result<Box<dyn Arrangement>> {
    eprintln!("building {id}");
    let arrangement = build(id, options)?;
    let topology = arrangement.topology();
    let reach = |client: &Netns, server: &Container, address| {
        load::wait_connected(client, &server.netns, address, weft::patience()).context(|| format!("arrangement {id}"))
    };
    for server in &topology.servers {
        reach(&topology.client.netns, server, server.address)?;
    }
    if let Some(vip) = &topology.vip {
        for server in &topology.servers {
            reach(&vip.client, server, vip.address)?;
        }
    }
    Ok(arrangement)
}

fn build(id: &str, options: &Options) -> Result<Box<dyn Arrangement>> {
    let built: Result<Box<dyn Arrangement>> = match id {
        "a" | "an" | "aq" | "anq" => docker_like::build(id, options).map(|a| Box::new(a) as _),
        "e2" => ceiling::build(options).map(|a| Box::new(a) as _),
        "maps" => maps::build(options).map(|a| Box::new(a) as _),
        "weft" | weft::BY_SOCKETS => weft::build(id, options).map(|a| Box::new(a) as _),
        _ => Err(Error::new(format!(
            "no arrangement {id:?}: choose from {}",
            IDS.join(", ")
        ))),
    };
    built.context(|| format!("arrangement {id}"))
}

/// All arrangements.
pub const IDS: &[&str] = &["a", "an", "aq", "anq", "e2", "maps", "weft", weft::BY_SOCKETS];
