//! The veth pair that connects a namespace to the overlay.

use super::error::{errno, refused};
use super::link::check_name;
use super::{Link, MTU_MAX, MTU_MIN, Netlink, NetlinkError};
use crate::netns::Netns;
use ipnet::{Ipv4Net, Ipv6Net};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use weft_core::id::{EndpointId, MacAddress};

/// With what the names of our host-side interfaces begin.
pub const HOST_INTERFACE_PREFIX: &str = "weft";

/// How many `eth<n>` are tried. A container has one interface a network, and Docker's users have a few; more is a leak.
const CONTAINER_INTERFACES: usize = 128;

/// How often another free name is tried when somebody else took the one just found.
const NAME_ATTEMPTS: usize = 8;

const KIND: &str = "veth";

/// What to connect.
#[derive(Debug)]
pub struct EndpointLinkSpec<'a> {
    /// Name of the end on the host; see [`host_interface_name`].
    pub host_interface: String,
    /// Name of the end in the namespace; the first free `eth<n>` if none is given.
    pub container_interface: Option<String>,
    /// The namespace.
    pub netns: &'a Netns,
    /// The endpoint's address and its subnet's prefix length.
    pub ip: Ipv4Net,
    /// Its IPv6 address beside it.
    pub ip6: Option<Ipv6Net>,
    /// The endpoint's MAC.
    pub mac: MacAddress,
    /// MTU of both ends, bytes.
    pub mtu: u32,
    /// The namespace's default route leads there, if given.
    pub default_gateway: Option<Ipv4Addr>,
}

/// What was connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLinks {
    /// Index of the end on the host.
    pub host_ifindex: u32,
    /// Name of the end in the namespace.
    pub container_interface: String,
}

/// The host-side interface of an endpoint: `weft` and the first 9 hex digits of its id, 13 characters of the 15 that fit.
pub fn host_interface_name(endpoint: &EndpointId) -> String {
    format!("{HOST_INTERFACE_PREFIX}{:.9}", endpoint.as_str())
}

impl Netlink {
    /// Connects a namespace: a veth pair, one end in the namespace with name, MAC, MTU and address, both ends and the namespace's
    /// loopback up. All or nothing: on an error neither end is left.
    pub async fn create_endpoint(&self, spec: &EndpointLinkSpec<'_>) -> Result<EndpointLinks, NetlinkError> {
        check(spec)?;
        let inside = Netlink::open_in(spec.netns)?;
        inside.check_free(spec).await?;
        let container_interface = self.create_pair(&inside, spec).await?;
        match self.furnish(&inside, spec, &container_interface).await {
            Ok(host_ifindex) => Ok(EndpointLinks {
                host_ifindex,
                container_interface,
            }),
            Err(error) => {
                if let Err(left) = self.remove_endpoint(&spec.host_interface).await {
                    tracing::warn!(interface = spec.host_interface, error = %left, "half-made endpoint could not be removed");
                }
                Err(error)
            }
        }
    }

    /// Removes an endpoint's pair by the name of its host end; one that is gone already is no error.
    pub async fn remove_endpoint(&self, host_interface: &str) -> Result<(), NetlinkError> {
        match self.link_by_name(host_interface).await? {
            Some(link) if link.kind == KIND => self.remove_link(link.ifindex, host_interface).await,
            Some(_) => Err(NetlinkError::WrongKind {
                name: host_interface.to_owned(),
                kind: KIND,
            }),
            None => Ok(()),
        }
    }

    /// The host ends there are, by name: those veth devices whose name begins with `prefix`.
    pub async fn list_endpoints(&self, prefix: &str) -> Result<Vec<(String, u32)>, NetlinkError> {
        let ours =
            |link: Link| (link.kind == KIND && link.name.starts_with(prefix)).then_some((link.name, link.ifindex));
        let mut endpoints: Vec<(String, u32)> = self.links().await?.into_iter().filter_map(ours).collect();
        endpoints.sort();
        Ok(endpoints)
    }

    /// Makes the pair and answers the name inside. The kernel makes both ends or none.
    async fn create_pair(&self, inside: &Netlink, spec: &EndpointLinkSpec<'_>) -> Result<String, NetlinkError> {
        for _ in 0..NAME_ATTEMPTS {
            let name = match &spec.container_interface {
                Some(name) => name.clone(),
                None => inside.free_name(spec).await?,
            };
            let added = self.handle.link().add(pair_message(spec, &name)).execute().await;
            let Err(error) = added else { return Ok(name) };
            if errno(&error) != Some(Errno::EEXIST) {
                return Err(refused(format!(
                    "create veth pair {:?} and {name:?}",
                    spec.host_interface
                ))(error));
            }
            self.explain_taken(spec).await?;
        }
        Err(no_free_name(spec))
    }

    /// After the kernel said that a name exists: the error that tells which, or none if another name inside is worth a try.
    async fn explain_taken(&self, spec: &EndpointLinkSpec<'_>) -> Result<(), NetlinkError> {
        let (name, place) = if self.link_by_name(&spec.host_interface).await?.is_some() {
            (&spec.host_interface, "the host".to_owned())
        } else if let Some(name) = &spec.container_interface {
            (name, place(spec))
        } else {
            return Ok(());
        };
        Err(NetlinkError::InterfaceTaken {
            name: name.clone(),
            place,
        })
    }

    /// Gives the pair all that it was not born with, and answers the index of its host end.
    async fn furnish(&self, inside: &Netlink, spec: &EndpointLinkSpec<'_>, name: &str) -> Result<u32, NetlinkError> {
        let host = &spec.host_interface;
        let host_ifindex = self.ifindex(host).await?;
        let ifindex = inside.ifindex(name).await?;
        self.no_ipv6_address(host_ifindex, host).await?;
        inside.no_ipv6_address(ifindex, name).await?;
        inside.add_address(ifindex, name, spec.ip.into(), &place(spec)).await?;
        if let Some(ip6) = spec.ip6 {
            only_given_ipv6(spec.netns, name)?;
            inside.add_address(ifindex, name, ip6.into(), &place(spec)).await?;
        }
        inside.link_up(ifindex, name).await?;
        self.link_up(host_ifindex, host).await?;
        if let Some(gateway) = spec.default_gateway {
            inside.add_default_route(ifindex, gateway, &place(spec)).await?;
        }
        inside.loopback_up().await?;
        Ok(host_ifindex)
    }

    async fn check_free(&self, spec: &EndpointLinkSpec<'_>) -> Result<(), NetlinkError> {
        let mut held = None;
        for ip in [Some(spec.ip.addr().into()), spec.ip6.map(|net| net.addr().into())] {
            let Some(ip): Option<IpAddr> = ip else { continue };
            held = held.or(self.holder_of(ip).await?.map(|holder| (ip, holder)));
        }
        let Some((ip, holder)) = held else {
            return Ok(());
        };
        let interface = self.ifname(holder).await?.unwrap_or_default();
        Err(NetlinkError::AddressExists {
            ip,
            interface,
            place: place(spec),
        })
    }

    async fn free_name(&self, spec: &EndpointLinkSpec<'_>) -> Result<String, NetlinkError> {
        let links = self.links().await?;
        let mut names = (0..CONTAINER_INTERFACES).map(|n| format!("eth{n}"));
        names
            .find(|name| links.iter().all(|link| link.name != *name))
            .ok_or_else(|| no_free_name(spec))
    }
}

/// The interface takes the address that it is given, and no other one from routers that it may hear of.
fn only_given_ipv6(netns: &Netns, interface: &str) -> Result<(), NetlinkError> {
    let refused = |source: std::io::Error| NetlinkError::Kernel {
        action: format!("let interface {interface:?} have an IPv6 address"),
        source,
    };
    let written = netns.run(|| {
        ["disable_ipv6", "accept_ra"]
            .iter()
            .try_for_each(|key| std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{key}"), "0"))
    });
    written
        .map_err(|error| refused(std::io::Error::other(error)))
        .and_then(|written| written.map_err(refused))
}

fn no_free_name(spec: &EndpointLinkSpec<'_>) -> NetlinkError {
    NetlinkError::NoFreeName {
        last: CONTAINER_INTERFACES - 1,
        place: place(spec),
    }
}

fn place(spec: &EndpointLinkSpec<'_>) -> String {
    spec.netns.spec().to_string()
}

fn pair_message(spec: &EndpointLinkSpec<'_>, container_interface: &str) -> LinkMessage {
    let peer = LinkMessageBuilder::<LinkUnspec>::default()
        .name(container_interface)
        .mtu(spec.mtu)
        .address(spec.mac.0.to_vec())
        .setns_by_fd(spec.netns.as_fd().as_raw_fd())
        .build();
    LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
        .name(&spec.host_interface)
        .mtu(spec.mtu)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build()
}

fn check(spec: &EndpointLinkSpec<'_>) -> Result<(), NetlinkError> {
    check_name(&spec.host_interface)?;
    spec.container_interface.as_deref().map_or(Ok(()), check_name)?;
    if !(MTU_MIN..=MTU_MAX).contains(&spec.mtu) {
        return Err(NetlinkError::MtuOutOfRange { mtu: spec.mtu });
    }
    let multicast = spec.mac.0[0] & 1 == 1;
    if multicast || spec.mac.0 == [0; 6] {
        return Err(NetlinkError::InvalidMac { mac: spec.mac });
    }
    match spec.default_gateway {
        Some(gateway) if gateway == spec.ip.addr() || !spec.ip.contains(&gateway) => {
            Err(NetlinkError::InvalidGateway {
                gateway,
                subnet: spec.ip.trunc(),
            })
        }
        _ => Ok(()),
    }
}
