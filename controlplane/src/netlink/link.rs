//! Interfaces.

use super::error::{errno, refused};
use super::{Netlink, NetlinkError};
use futures_util::TryStreamExt;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

/// The least MTU that carries IPv4, in bytes (RFC 791 section 3.1; the kernel refuses less).
pub const MTU_MIN: u32 = 68;

/// The largest MTU that the kernel gives a veth, in bytes.
pub const MTU_MAX: u32 = 65535;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index, unique in its namespace.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Its link address, if that is one of Ethernet's.
    pub address: Option<[u8; 6]>,
    /// Whether it was set up (`IFF_UP`).
    pub up: bool,
    /// Whether it is the loopback device.
    pub loopback: bool,
    /// `veth`, `vxlan` and so on, as `ip link add type` names it; empty for hardware.
    pub kind: String,
    /// Index of the bond, bridge or other device that it is a port of.
    pub master: Option<u32>,
    /// The UDP port of a vxlan device.
    pub(super) vxlan_port: Option<u16>,
}

impl Link {
    pub(super) fn from_message(message: &LinkMessage) -> Link {
        let flags = message.header.flags;
        let mut link = Link {
            ifindex: message.header.index,
            name: String::new(),
            mtu: 0,
            address: None,
            up: flags.contains(LinkFlags::Up),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: String::new(),
            master: None,
            vxlan_port: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Address(bytes) => link.address = bytes.as_slice().try_into().ok(),
                LinkAttribute::Controller(master) => link.master = Some(*master).filter(|master| *master > 0),
                LinkAttribute::LinkInfo(infos) => link.read_infos(infos),
                _ => {}
            }
        }
        link
    }

    fn read_infos(&mut self, infos: &[LinkInfo]) {
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => self.kind = kind.to_string(),
                LinkInfo::Data(InfoData::Vxlan(data)) => {
                    self.vxlan_port = data.iter().find_map(|item| match item {
                        InfoVxlan::Port(port) => Some(*port),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
    }
}

/// An interface whose packets are another's, so that it cannot be the uplink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{port:?} is a port of the {kind} {master:?}, which has its packets and its addresses: name {master:?} as the uplink"
)]
pub struct Enslaved {
    port: String,
    kind: String,
    master: String,
}

impl Netlink {
    /// All interfaces of the namespace, by index.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let _listing = self.listing.lock().await;
        let messages: Vec<LinkMessage> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the interfaces"))?;
        let mut links: Vec<Link> = messages.iter().map(Link::from_message).collect();
        links.sort_by_key(|link| link.ifindex);
        Ok(links)
    }

    /// The interface of that name, if there is one.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, NetlinkError> {
        check_name(name)?;
        let mut found = std::pin::pin!(self.handle.link().get().match_name(name).execute());
        missing_is_none(found.try_next().await, || format!("look up interface {name:?}"))
    }

    /// The interface of that index, if there is one.
    pub async fn link_by_index(&self, ifindex: u32) -> Result<Option<Link>, NetlinkError> {
        let mut found = std::pin::pin!(self.handle.link().get().match_index(ifindex).execute());
        missing_is_none(found.try_next().await, || format!("look up interface {ifindex}"))
    }

    /// The index of the interface of that name.
    pub async fn ifindex(&self, name: &str) -> Result<u32, NetlinkError> {
        let link = self.link_by_name(name).await?;
        link.map(|link| link.ifindex)
            .ok_or_else(|| NetlinkError::NoSuchInterface { name: name.to_owned() })
    }

    /// Whether an interface is the port of another; `None` also if it is gone.
    pub async fn enslaved(&self, ifindex: u32) -> Result<Option<Enslaved>, NetlinkError> {
        let Some(link) = self.link_by_index(ifindex).await? else {
            return Ok(None);
        };
        let Some(master) = link.master else { return Ok(None) };
        let master = self.link_by_index(master).await?;
        // A VRF only chooses the routing table; its ports keep their packets.
        Ok(master.filter(|master| master.kind != "vrf").map(|master| Enslaved {
            port: link.name,
            kind: master.kind,
            master: master.name,
        }))
    }

    /// The name of the interface of that index, if there is one.
    pub async fn ifname(&self, ifindex: u32) -> Result<Option<String>, NetlinkError> {
        Ok(self.link_by_index(ifindex).await?.map(|link| link.name))
    }

    /// Sets the loopback device up; without it nothing on 127.0.0.0/8 answers.
    pub async fn loopback_up(&self) -> Result<(), NetlinkError> {
        let loopback = self.links().await?.into_iter().find(|link| link.loopback);
        let loopback = loopback.ok_or_else(|| NetlinkError::NoSuchInterface { name: "lo".into() })?;
        if loopback.up {
            Ok(())
        } else {
            self.link_up(loopback.ifindex, &loopback.name).await
        }
    }

    pub(super) async fn link_up(&self, ifindex: u32, name: &str) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(ifindex).up().build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(|error| match errno(&error) {
            Some(Errno::ENODEV) => NetlinkError::NoSuchInterface { name: name.to_owned() },
            _ => refused(format!("set interface {name:?} up"))(error),
        })
    }

    /// Keeps IPv6 from making itself an address on the link: the overlay carries IPv4 only, and its solicitations would be counted
    /// as drops. A kernel without IPv6 has nothing to keep from.
    pub(super) async fn no_ipv6_address(&self, ifindex: u32, name: &str) -> Result<(), NetlinkError> {
        let mode = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)]);
        let message = LinkMessageBuilder::<LinkUnspec>::default()
            .index(ifindex)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![mode]))
            .build();
        let set = self.handle.link().set(message).execute().await;
        set.or_else(|error| match errno(&error) {
            Some(Errno::EAFNOSUPPORT) => Ok(()),
            _ => Err(refused(format!(
                "turn IPv6 address generation off on interface {name:?}"
            ))(error)),
        })
    }

    /// Removes an interface; one that is gone already is no error.
    pub(super) async fn remove_link(&self, ifindex: u32, name: &str) -> Result<(), NetlinkError> {
        let removed = self.handle.link().del(ifindex).execute().await;
        removed.or_else(|error| match errno(&error) {
            Some(Errno::ENODEV) => Ok(()),
            _ => Err(refused(format!("remove interface {name:?}"))(error)),
        })
    }
}

fn missing_is_none(
    found: Result<Option<LinkMessage>, rtnetlink::Error>,
    action: impl FnOnce() -> String,
) -> Result<Option<Link>, NetlinkError> {
    match found {
        Ok(message) => Ok(message.as_ref().map(Link::from_message)),
        Err(error) if errno(&error) == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(refused(action())(error)),
    }
}

/// Whether the kernel would take the name (`dev_valid_name`).
pub(super) fn check_name(name: &str) -> Result<(), NetlinkError> {
    let forbidden = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
    if (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden) {
        Ok(())
    } else {
        Err(NetlinkError::InvalidName { name: name.to_owned() })
    }
}
