//! Where the underlay sends a packet.

use super::address::InterfaceAddress;
use super::error::{errno, refused, to_io};
use super::{Netlink, NetlinkError};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The kernel's answer to how it would send to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnderlayRoute {
    /// The neighbour to hand the packet to: the gateway, or the destination itself when it is on the link.
    pub next_hop: IpAddr,
    /// The source address that the kernel would use.
    pub source: IpAddr,
    /// Index of the device to send from.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// Path MTU in bytes: what the route or path MTU discovery says, at most the device's.
    pub mtu: u32,
}

/// The device that carries the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The address to advertise.
    pub address: IpAddr,
    /// Index of the device that has it.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// Its MTU, bytes.
    pub mtu: u32,
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The table has no route.
    #[error("no route to {destination}: `ip route get {destination}` shows what the kernel would do")]
    NoRoute {
        /// Where to.
        destination: IpAddr,
    },
    /// A route that says no: unreachable, prohibit or blackhole.
    #[error("the route to {destination} is of type {kind}: packets there are refused")]
    Refused {
        /// Where to.
        destination: IpAddr,
        /// As `ip route` names it.
        kind: &'static str,
    },
    /// One of this host's own addresses.
    #[error("{destination} is an address of this host: a peer needs another one")]
    Local {
        /// Where to.
        destination: IpAddr,
    },
    /// Broadcast or multicast.
    #[error("{destination} is not the address of a single host")]
    NotUnicast {
        /// Where to.
        destination: IpAddr,
    },
    /// The gateway speaks another protocol.
    #[error("the route to {destination} has the IPv6 gateway {gateway}: an IPv4 one is wanted")]
    Ipv6Gateway {
        /// Where to.
        destination: IpAddr,
        /// The gateway.
        gateway: Ipv6Addr,
    },
    /// No interface has the address to advertise.
    #[error("no interface has the address {address}; this host has {present}")]
    NoSuchAddress {
        /// What was given.
        address: IpAddr,
        /// The addresses there are, as a list.
        present: String,
    },
    /// Nothing to choose by.
    #[error("cannot choose an address to advertise, for there is no default route: set one; this host has {present}")]
    NoDefaultRoute {
        /// The addresses there are, as a list.
        present: String,
    },
    /// The kernel's answer could not be used.
    #[error("cannot look up the route to {destination}: {source}")]
    Kernel {
        /// Where to.
        destination: IpAddr,
        /// Why.
        source: io::Error,
    },
    /// Interfaces or addresses could not be read.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl Netlink {
    /// Asks the kernel how it would send to `destination` (`RTM_GETROUTE`).
    pub async fn route_to(&self, destination: IpAddr) -> Result<UnderlayRoute, RouteError> {
        let request = match destination {
            IpAddr::V4(ip) => RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(ip, 32)
                .build(),
            IpAddr::V6(ip) => RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(ip, 128)
                .build(),
        };
        let mut answer = std::pin::pin!(self.handle.route().get(request).execute());
        let message = match answer.try_next().await {
            Ok(Some(message)) => message,
            Ok(None) => return Err(unusable(destination, "the kernel gave no answer")),
            Err(error) => return Err(no_way(destination, error)),
        };
        match message.header.kind {
            RouteType::Unicast => {}
            RouteType::Local => return Err(RouteError::Local { destination }),
            _ => return Err(RouteError::NotUnicast { destination }),
        }
        let hop = Hop::read(destination, &message)?;
        let ifindex = hop
            .ifindex
            .ok_or_else(|| unusable(destination, "the route has no device"))?;
        let source = hop
            .source
            .ok_or_else(|| unusable(destination, "the route has no source address"))?;
        let link = self.link_by_index(ifindex).await?;
        let link = link.ok_or_else(|| unusable(destination, "its device is gone"))?;
        Ok(UnderlayRoute {
            next_hop: hop.gateway.unwrap_or(destination),
            source,
            ifindex,
            ifname: link.name,
            mtu: hop.mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu)),
        })
    }

    /// The device that has the address to advertise; without one, the device and source address of the default route, of
    /// IPv4 if there is one.
    pub async fn default_uplink(&self, advertise: Option<IpAddr>) -> Result<Uplink, RouteError> {
        let (address, ifindex) = match advertise {
            Some(address) => match self.holder_of(address).await? {
                Some(ifindex) => (address, ifindex),
                None => {
                    return Err(RouteError::NoSuchAddress {
                        address,
                        present: self.present_addresses().await?,
                    });
                }
            },
            None => self.default_route_address().await?,
        };
        let destination = address;
        let link = self.link_by_index(ifindex).await?;
        let link = link.ok_or_else(|| unusable(destination, "its device is gone"))?;
        Ok(Uplink {
            address,
            ifindex,
            ifname: link.name,
            mtu: link.mtu,
        })
    }

    /// Whether an interface has the address.
    pub async fn has_address(&self, address: IpAddr) -> Result<bool, NetlinkError> {
        Ok(self.holder_of(address).await?.is_some())
    }

    /// Source address and device of the best default route of the main table.
    async fn default_route_address(&self) -> Result<(IpAddr, u32), RouteError> {
        let ipv4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let ipv6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let addresses = self.addresses().await?;
        for (request, any) in [
            (ipv4, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (ipv6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            for (_, hop) in self.default_routes(request, any).await? {
                let Some(ifindex) = hop.ifindex else { continue };
                let own: Vec<IpNet> = on_interface(&addresses, ifindex, any).collect();
                let beside = own
                    .iter()
                    .find(|net| hop.gateway.is_some_and(|gateway| net.contains(&gateway)));
                if let Some(address) = hop.source.or(beside.or(own.first()).map(IpNet::addr)) {
                    return Ok((address, ifindex));
                }
            }
        }
        Err(RouteError::NoDefaultRoute {
            present: self.present_addresses().await?,
        })
    }

    /// The default routes of one family, the best first.
    async fn default_routes(&self, request: RouteMessage, any: IpAddr) -> Result<Vec<(u32, Hop)>, RouteError> {
        let _listing = self.listing.lock().await;
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(request)
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the routes"))?;
        let mut defaults: Vec<(u32, Hop)> = Vec::new();
        for route in routes.iter().filter(|route| is_default(route)) {
            if let Ok(hop) = Hop::read(any, route) {
                defaults.push((priority(route), hop));
            }
        }
        defaults.sort_by_key(|(priority, _)| *priority);
        Ok(defaults)
    }

    pub(super) async fn add_default_route(
        &self,
        ifindex: u32,
        gateway: Ipv4Addr,
        place: &str,
    ) -> Result<(), NetlinkError> {
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .gateway(gateway)
            .output_interface(ifindex)
            .build();
        self.handle
            .route()
            .add(route)
            .execute()
            .await
            .map_err(|error| match errno(&error) {
                Some(Errno::EEXIST) => NetlinkError::DefaultRouteExists {
                    place: place.to_owned(),
                },
                _ => refused(format!("add a default route to {gateway} in {place}"))(error),
            })
    }

    async fn present_addresses(&self) -> Result<String, NetlinkError> {
        let all = self.addresses().await?;
        let shown: Vec<String> = all
            .iter()
            .map(|item| item.address.addr())
            .filter(|ip| !ip.is_loopback() && !is_link_local(*ip))
            .map(|ip| ip.to_string())
            .collect();
        Ok(if shown.is_empty() {
            "no address".into()
        } else {
            shown.join(", ")
        })
    }
}

/// What a route message tells about the next step.
struct Hop {
    gateway: Option<IpAddr>,
    source: Option<IpAddr>,
    ifindex: Option<u32>,
    mtu: Option<u32>,
}

impl Hop {
    fn read(destination: IpAddr, message: &RouteMessage) -> Result<Hop, RouteError> {
        let mut hop = Hop {
            gateway: None,
            source: None,
            ifindex: None,
            mtu: None,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop.gateway = Some((*ip).into()),
                RouteAttribute::Gateway(RouteAddress::Inet6(ip)) => hop.gateway = Some((*ip).into()),
                RouteAttribute::Via(RouteVia::Inet(ip)) => hop.gateway = Some((*ip).into()),
                RouteAttribute::Via(RouteVia::Inet6(gateway)) => {
                    return Err(RouteError::Ipv6Gateway {
                        destination,
                        gateway: *gateway,
                    });
                }
                RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => hop.source = Some((*ip).into()),
                RouteAttribute::PrefSource(RouteAddress::Inet6(ip)) => hop.source = Some((*ip).into()),
                RouteAttribute::Oif(ifindex) => hop.ifindex = Some(*ifindex),
                RouteAttribute::Metrics(metrics) => hop.mtu = mtu(metrics),
                _ => {}
            }
        }
        Ok(hop)
    }
}

/// The addresses of an interface that are of the family of `any` and not only the link's.
fn on_interface(all: &[InterfaceAddress], ifindex: u32, any: IpAddr) -> impl Iterator<Item = IpNet> {
    let own = all.iter().filter(move |item| item.ifindex == ifindex);
    own.map(|item| item.address)
        .filter(move |net| net.addr().is_ipv4() == any.is_ipv4() && !is_link_local(net.addr()))
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    })
}

fn is_default(route: &RouteMessage) -> bool {
    let main = netlink_packet_route::route::RouteHeader::RT_TABLE_MAIN;
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast && route.header.table == main
}

fn priority(route: &RouteMessage) -> u32 {
    let found = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    found.unwrap_or(0)
}

fn unusable(destination: IpAddr, why: &'static str) -> RouteError {
    RouteError::Kernel {
        destination,
        source: io::Error::other(why),
    }
}

/// What the kernel's error numbers mean for a look-up (`fib_props` in its source).
fn no_way(destination: IpAddr, error: rtnetlink::Error) -> RouteError {
    match errno(&error) {
        Some(Errno::ENETUNREACH) => RouteError::NoRoute { destination },
        Some(Errno::EHOSTUNREACH) => RouteError::Refused {
            destination,
            kind: "unreachable",
        },
        Some(Errno::EACCES) => RouteError::Refused {
            destination,
            kind: "prohibit",
        },
        Some(Errno::EINVAL) => RouteError::Refused {
            destination,
            kind: "blackhole",
        },
        _ => RouteError::Kernel {
            destination,
            source: to_io(error),
        },
    }
}
