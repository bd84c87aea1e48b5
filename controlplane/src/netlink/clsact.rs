//! The `clsact` queueing discipline, where kernels without tcx links have their filters.

use super::error::refused;
use super::{Netlink, NetlinkError};
use futures_util::TryStreamExt;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

const KIND: &str = "clsact";

impl Netlink {
    /// Removes the discipline from an interface if it has no filter; whether it was there to be removed.
    pub async fn remove_empty_clsact(&self, ifindex: u32) -> Result<bool, NetlinkError> {
        if self.link_by_index(ifindex).await?.is_none() {
            return Ok(false);
        }
        let index = ifindex.cast_signed();
        let _listing = self.listing.lock().await;
        let failed = |what: &str| refused(format!("{what} of interface {ifindex}"));
        let disciplines: Vec<TcMessage> = self
            .handle
            .qdisc()
            .get()
            .index(index)
            .execute()
            .try_collect()
            .await
            .map_err(failed("list the queueing disciplines"))?;
        let is_clsact = |message: &&TcMessage| {
            message.header.index == index
                && message
                    .attributes
                    .iter()
                    .any(|attribute| matches!(attribute, TcAttribute::Kind(kind) if kind == KIND))
        };
        if disciplines.iter().find(is_clsact).is_none() {
            return Ok(false);
        }
        let filters = self.handle.traffic_filter(index).get();
        for filters in [filters.clone().ingress(), filters.egress()] {
            let filters: Vec<TcMessage> = filters
                .execute()
                .try_collect()
                .await
                .map_err(failed("list the filters"))?;
            if !filters.is_empty() {
                return Ok(false);
            }
        }
        let mut deletion = self.handle.qdisc().del(index);
        deletion.message_mut().header.parent = TcHandle::CLSACT;
        let deleted = deletion.execute().await;
        deleted.map_err(failed("remove the clsact queueing discipline"))?;
        Ok(true)
    }
}
