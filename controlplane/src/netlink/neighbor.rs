//! The kernel's neighbour table (RFC 826).

use super::error::refused;
use super::{Netlink, NetlinkError};
use crate::dataplane::{LinkAddresses, Neighborhood};
use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

impl Netlink {
    /// The IPv4 neighbours on Ethernet that the kernel would send to without asking first (`NUD_CONNECTED`).
    pub async fn neighborhood(&self) -> Result<Neighborhood, NetlinkError> {
        let links = self.links().await?;
        let own: BTreeMap<u32, [u8; 6]> = links
            .iter()
            .filter_map(|link| Some((link.ifindex, link.address?)))
            .collect();
        let _listing = self.listing.lock().await;
        let neighbors = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute();
        let neighbors: Vec<NeighbourMessage> = neighbors.try_collect().await.map_err(refused("list the neighbours"))?;
        let connected = neighbors.iter().filter_map(connected);
        Ok(connected
            .filter_map(|(ifindex, ip, destination)| {
                let source = *own.get(&ifindex)?;
                Some(((ifindex, ip), LinkAddresses { destination, source }))
            })
            .collect())
    }
}

fn connected(neighbor: &NeighbourMessage) -> Option<(u32, Ipv4Addr, [u8; 6])> {
    if !matches!(
        neighbor.header.state,
        NeighbourState::Reachable | NeighbourState::Permanent
    ) {
        return None;
    }
    let (mut ip, mut address) = (None, None);
    for attribute in &neighbor.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(destination)) => ip = Some(*destination),
            NeighbourAttribute::LinkLayerAddress(bytes) => address = <[u8; 6]>::try_from(bytes.as_slice()).ok(),
            _ => {}
        }
    }
    Some((neighbor.header.ifindex, ip?, address?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbor(state: NeighbourState, address: &[u8]) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 7;
        message.header.state = state;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([192, 168, 50, 2].into())),
            NeighbourAttribute::LinkLayerAddress(address.to_vec()),
        ];
        message
    }

    #[test]
    fn only_what_the_kernel_would_send_to_unasked_counts() {
        let address = [2, 0, 0, 0, 0, 1];
        let found = Some((7, [192, 168, 50, 2].into(), address));
        for (state, expected) in [
            (NeighbourState::Reachable, found),
            (NeighbourState::Permanent, found),
            (NeighbourState::Stale, None),
            (NeighbourState::Delay, None),
            (NeighbourState::Probe, None),
            (NeighbourState::Incomplete, None),
            (NeighbourState::Failed, None),
        ] {
            assert_eq!(connected(&neighbor(state, &address)), expected, "{state:?}");
        }
        // InfiniBand's are of 20 bytes.
        assert_eq!(connected(&neighbor(NeighbourState::Reachable, &[0; 20])), None);
    }
}
