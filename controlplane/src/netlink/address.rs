//! Addresses of interfaces.

use super::error::{errno, refused};
use super::{Netlink, NetlinkError};
use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr};

/// An address and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InterfaceAddress {
    pub(super) ifindex: u32,
    pub(super) address: IpNet,
}

impl Netlink {
    /// The addresses of an interface with their prefix lengths, in the kernel's order: the first of a family is its primary one.
    pub async fn interface_addresses(&self, name: &str) -> Result<Vec<IpNet>, NetlinkError> {
        let ifindex = self.ifindex(name).await?;
        let all = self.addresses().await?;
        Ok(all
            .into_iter()
            .filter(|item| item.ifindex == ifindex)
            .map(|item| item.address)
            .collect())
    }

    /// All addresses of the namespace.
    pub(super) async fn addresses(&self) -> Result<Vec<InterfaceAddress>, NetlinkError> {
        let messages: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(refused("list the addresses"))?;
        Ok(messages.iter().filter_map(read).collect())
    }

    pub(super) async fn add_address(
        &self,
        ifindex: u32,
        name: &str,
        address: Ipv4Net,
        place: &str,
    ) -> Result<(), NetlinkError> {
        let request = self
            .handle
            .address()
            .add(ifindex, IpAddr::V4(address.addr()), address.prefix_len());
        request.execute().await.map_err(|error| match errno(&error) {
            Some(Errno::EEXIST) => NetlinkError::AddressExists {
                ip: address.addr(),
                interface: name.to_owned(),
                place: place.to_owned(),
            },
            _ => refused(format!("add address {address} to interface {name:?}"))(error),
        })
    }

    /// The index of the interface that has the address, if one has.
    pub(super) async fn holder_of(&self, ip: Ipv4Addr) -> Result<Option<u32>, NetlinkError> {
        let all = self.addresses().await?;
        Ok(all
            .iter()
            .find(|item| item.address.addr() == IpAddr::V4(ip))
            .map(|item| item.ifindex))
    }
}

fn read(message: &AddressMessage) -> Option<InterfaceAddress> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the far end; IPv6 otherwise sends no `Local`.
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(InterfaceAddress {
        ifindex: message.header.index,
        address,
    })
}
