//! Whose sockets get their backend when they connect: those of the namespaces that this node's endpoints are in.

use super::Daemon;
use crate::netns::Netns;
use weft_core::wanted::sixteen_bytes;
use weft_dataplane::abi::{Seat, V6};

impl Daemon {
    /// The cookie of a namespace; `None` if it is of no use, or the kernel does not tell it.
    pub(super) fn cookie_of(&self, netns: &Netns) -> Option<u64> {
        if !self.dataplane.balances_sockets() {
            return None;
        }
        netns
            .cookie()
            .inspect_err(|error| tracing::warn!(%error, "sockets of the namespace are balanced packet by packet"))
            .ok()
    }

    /// Tells the programs that see sockets which endpoints there are.
    pub(super) fn tell_namespaces(&mut self) {
        if !self.dataplane.balances_sockets() {
            return;
        }
        let seats = self.endpoints.seats(|network, allocation| Seat {
            vni: network.vni.into(),
            ip: allocation.ip.octets(),
            ip6: network
                .ipv6_net_of(allocation.ip)
                .map_or(V6::UNSPECIFIED, |net| sixteen_bytes(net.addr().into())),
        });
        if let Err(error) = self.dataplane.put_namespaces(&seats) {
            tracing::error!(%error, "sockets of containers not told of, their packets are balanced one by one");
        }
    }
}
