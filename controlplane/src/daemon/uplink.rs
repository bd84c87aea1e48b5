//! Whether the uplink and the vxlan device are what they were, and the programs where they were put: told once, and put right where that is
//! possible.

use super::{Command, Daemon};
use crate::dataplane::Hook;
use crate::netlink::{Enslaved, GRO_DEVICE, Netlink, NetlinkError, RouteError};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The device that carries the overlay, as the daemon knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// The configuration names it, so no other one is chosen.
    pub named: bool,
}

/// What the host has now.
#[derive(Clone, Debug)]
pub struct UplinkSeen {
    /// The name of the interface with the uplink's index.
    name: Option<String>,
    /// The index of the interface with the uplink's name.
    ifindex: Option<u32>,
    /// The interface with the VTEP address: name and index.
    holder: Option<(String, u32)>,
    /// Whose port the uplink is.
    enslaved: Option<Enslaved>,
    /// Whether the vxlan device had to be put right, or why that failed.
    mended: Result<bool, String>,
}

/// The vxlan device that should be there.
#[derive(Clone, Copy, Debug)]
struct VxlanDevice {
    /// Its UDP port.
    port: u16,
    /// Its index, if the programs send to it.
    encap: Option<u32>,
}

async fn look(netlink: &Netlink, uplink: &Uplink, vtep: IpAddr, device: VxlanDevice) -> Result<UplinkSeen, String> {
    let text = |error: NetlinkError| error.to_string();
    let holder = match netlink.default_uplink(Some(vtep)).await {
        Ok(holder) => Some(holder),
        Err(RouteError::NoSuchAddress { .. }) => None,
        // What could not be found out is no complaint.
        Err(error) => return Err(error.to_string()),
    };
    Ok(UplinkSeen {
        name: netlink.ifname(uplink.ifindex).await.map_err(text)?,
        ifindex: netlink
            .link_by_name(&uplink.name)
            .await
            .map_err(text)?
            .map(|link| link.ifindex),
        holder: holder.map(|holder| (holder.ifname, holder.ifindex)),
        enslaved: netlink.enslaved(uplink.ifindex).await.map_err(text)?,
        mended: netlink.mend_vxlan_device(device.port, device.encap).await.map_err(text),
    })
}

/// What is wrong, so that each is told once.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: BTreeSet<String>,
    current: BTreeSet<String>,
}

impl Complaints {
    fn add(&mut self, complaint: String) {
        if self.is_new(&complaint) {
            tracing::error!("{complaint}");
        }
    }

    /// The same for what takes nothing but speed.
    fn add_slow(&mut self, complaint: String) {
        if self.is_new(&complaint) {
            tracing::warn!("{complaint}");
        }
    }

    fn is_new(&mut self, complaint: &str) -> bool {
        self.current.insert(complaint.to_owned());
        self.told.insert(complaint.to_owned())
    }

    /// Forgets what is not wrong any more.
    fn end_round(&mut self) {
        for complaint in self.told.difference(&self.current) {
            tracing::info!("no longer so: {complaint}");
        }
        self.told = std::mem::take(&mut self.current);
    }
}

impl Daemon {
    /// Asks what the host has, for [`Daemon::uplink_seen`].
    pub(super) fn look_at_uplink(&self) {
        let (handle, netlink) = (self.handle.clone(), self.netlink.clone());
        let (uplink, vtep) = (self.uplink.clone(), self.vtep);
        let device = VxlanDevice {
            port: self.config.data_path_port,
            encap: self.encap_device,
        };
        tokio::spawn(async move {
            match look(&netlink, &uplink, vtep, device).await {
                Ok(seen) => {
                    handle.tell(Command::UplinkSeen(seen)).await;
                }
                Err(error) => tracing::warn!(%error, "uplink not looked at"),
            }
        });
    }

    pub(super) fn uplink_seen(&mut self, seen: UplinkSeen) {
        let known = self.uplink.clone();
        let moved = match (&seen.name, seen.ifindex, &seen.holder) {
            // Without a name to go by, the uplink is the device with the address.
            (_, _, Some((name, ifindex))) if !known.named && *ifindex != known.ifindex => {
                Some((name.clone(), *ifindex))
            }
            (Some(name), _, _) => {
                if *name != known.name {
                    tracing::warn!(
                        before = known.name,
                        now = name,
                        "the uplink was renamed, and stays the uplink"
                    );
                    self.uplink.name.clone_from(name);
                }
                None
            }
            (None, Some(ifindex), _) => Some((known.name.clone(), ifindex)),
            (None, None, _) => {
                self.complaints.add(format!(
                    "uplink {:?} is gone: nothing reaches other nodes until an interface of that name is there",
                    known.name
                ));
                None
            }
        };
        if let Some((name, ifindex)) = moved {
            self.move_uplink(name, ifindex);
        }
        if seen.holder.is_none() && (seen.name.is_some() || seen.ifindex.is_some()) {
            self.complaints.add(format!(
                "no interface has this node's VTEP address {0} any more: give it back (`ip addr add {0} dev {1}`), or start weftd again with another advertise-addr",
                self.vtep, self.uplink.name
            ));
        }
        if let Some(enslaved) = seen.enslaved {
            self.complaints.add(format!("uplink {enslaved}"));
        }
        self.vxlan_device_seen(seen.mended);
        self.check_attached();
        self.complaints.end_round();
    }

    fn vxlan_device_seen(&mut self, mended: Result<bool, String>) {
        match (mended, self.encap_device) {
            (Ok(false), _) => {}
            (Ok(true), _) => tracing::warn!("vxlan device {GRO_DEVICE:?} was not there or not up, and is again"),
            (Err(error), Some(_)) => self.complaints.add(format!("nothing reaches other nodes: {error}")),
            // A vxlan device in another namespace may hold the port, and does as well.
            (Err(error), None) => self.complaints.add_slow(format!(
                "no vxlan device of weft's for receive offload, bulk traffic may be slower: {error}"
            )),
        }
    }

    fn move_uplink(&mut self, name: String, ifindex: u32) {
        if let Err(error) = self.dataplane.attach(Hook::Uplink, ifindex) {
            self.complaints.add(format!("uplink {name:?}: {error}"));
            return;
        }
        tracing::warn!(
            before = self.uplink.name,
            now = name,
            ifindex,
            "the uplink is another interface now, and has its program"
        );
        if let Err(error) = self.dataplane.detach(Hook::Uplink, self.uplink.ifindex) {
            tracing::warn!(%error, "program not detached from the earlier uplink");
        }
        (self.uplink.name, self.uplink.ifindex) = (name, ifindex);
        self.find_routes(self.node.vteps().clone());
    }

    /// Puts programs back that another tool detached.
    pub(super) fn check_attached(&mut self) {
        let places: Vec<(Hook, u32, String)> =
            std::iter::once((Hook::Uplink, self.uplink.ifindex, self.uplink.name.clone()))
                .chain(
                    self.endpoints
                        .interfaces()
                        .map(|(ifindex, name)| (Hook::Endpoint, ifindex, name)),
                )
                .collect();
        for (hook, ifindex, name) in places {
            match self.dataplane.ensure(hook, ifindex) {
                Ok(false) => {}
                Ok(true) => {
                    let program = hook.program();
                    tracing::warn!(
                        program,
                        interface = name,
                        "program was detached by another tool, and is attached again"
                    );
                }
                // An interface that is gone is told elsewhere.
                Err(crate::dataplane::AttachError::NoInterface { .. }) => {}
                Err(error) => self.complaints.add(error.to_string()),
            }
        }
        match self.dataplane.ensure_sockets() {
            Ok(false) => {}
            Ok(true) => {
                tracing::warn!("programs that see sockets were detached by another tool, and are attached again");
            }
            Err(error) => self.complaints.add(error.to_string()),
        }
    }
}
