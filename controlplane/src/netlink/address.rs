//! Addresses of interfaces.

use super::error::{errno, refused};
use super::{Netlink, NetlinkError};
use futures_util::TryStreamExt;
use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use nix::errno::Errno;
use std::net::IpAddr;

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
        let _listing = self.listing.lock().await;
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
        address: IpNet,
        place: &str,
    ) -> Result<(), NetlinkError> {
        let addresses = self.handle.address();
        let mut request = addresses.add(ifindex, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            // The manager gives each address once: waiting until nobody objects would only make the first packets fail.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
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
    pub(super) async fn holder_of(&self, ip: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let all = self.addresses().await?;
        Ok(all
            .iter()
            .find(|item| item.address.addr() == ip)
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
