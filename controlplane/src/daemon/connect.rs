//! Making an endpoint's links and files, and undoing them.

use super::endpoints::{Made, local_ip};
use super::{Command, Connect, HOST_RESOLV_CONF, Handle, LocalEndpoint, Refused};
use crate::netlink::{EndpointLinkSpec, Netlink, host_interface_name};
use crate::netns::{Netns, NetnsSpec};
use crate::resolver::resolv_conf;
use crate::store::NodeEndpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_core::cluster::{self, Allocation, Network, Reply, Request};
use weft_core::id::EndpointId;

/// Where `ip netns exec` looks for the `resolv.conf` of a named namespace.
const ETC_NETNS: &str = "/etc/netns";

/// How soon an address that could not be given back is given back again: so that a container of the same name can be connected as
/// soon as a user sees that the manager is there again.
const RELEASE_RETRY: Duration = Duration::from_secs(2);

/// How often: a minute, in which the daemon compares anyway.
const RELEASE_TRIES: usize = 30;

/// Makes the links of one endpoint, and undoes them when it fails half-way.
pub(super) struct Maker {
    pub(super) handle: Handle,
    pub(super) netlink: Netlink,
    pub(super) node_name: String,
    pub(super) directory: PathBuf,
    pub(super) id: EndpointId,
}

impl Maker {
    pub(super) async fn connect(self, request: Connect) -> Result<LocalEndpoint, Refused> {
        let outcome = self.make_and_hand_over(request).await;
        if outcome.is_err() {
            let release = Request::Release {
                endpoint: self.id.clone(),
            };
            // What is not released now is released when the manager is back and this node compares.
            let _ = self.handle.ask(|reply| Command::Manager(release, reply)).await;
            self.handle.tell(Command::ConnectFailed(self.id)).await;
        }
        outcome
    }

    async fn make_and_hand_over(&self, request: Connect) -> Result<LocalEndpoint, Refused> {
        let netns = Netns::open(&request.netns).map_err(Refused::invalid)?;
        let (network, service, allocation) = self.allocate(&request).await?;
        let stored = NodeEndpoint {
            netns: request.netns,
            netns_inode: netns.inode(),
            interface: String::new(),
            host_interface: host_interface_name(&self.id),
            resolv_conf: self.directory.join("resolv.conf"),
            network,
            service,
            allocation,
        };
        let made = self.make(stored, netns).await?;
        let undo = made.stored.clone();
        let outcome = self
            .handle
            .ask(|reply| Command::Connected(Box::new(made), reply))
            .await
            .unwrap_or_else(|| Err(Refused::stopping()));
        if outcome.is_err() {
            remove_links_and_files(&self.netlink, &undo).await;
        }
        outcome
    }

    async fn allocate(&self, request: &Connect) -> Result<(Network, Option<cluster::Service>, Allocation), Refused> {
        let allocate = Request::Allocate {
            endpoint: self.id.clone(),
            network: request.network.clone(),
            node: self.node_name.clone(),
            name: request.name.clone(),
            service: request.service.clone(),
            aliases: request.aliases.clone(),
            ip: request.ip,
            weight: request.weight,
        };
        match self
            .handle
            .ask(|reply| Command::Manager(allocate, reply))
            .await
            .unwrap_or_else(|| Err(Refused::stopping()))?
        {
            Reply::Allocated {
                network,
                service,
                allocation,
            } => Ok((network, service, allocation)),
            other => Err(Refused::failed(format!(
                "the manager answered {other:?} where an allocation was asked for"
            ))),
        }
    }

    async fn make(&self, mut stored: NodeEndpoint, netns: Netns) -> Result<Made, Refused> {
        write_resolv_conf(&stored).map_err(Refused::failed)?;
        let spec = EndpointLinkSpec {
            host_interface: stored.host_interface.clone(),
            container_interface: None,
            netns: &netns,
            ip: local_ip(&stored),
            ip6: stored.network.ipv6_net_of(stored.allocation.ip),
            mac: stored.allocation.mac,
            mtu: stored.network.mtu,
            // As Docker's, an overlay gives no default route: other networks of the container do (`spec/overlay-driver.md` 4.7).
            default_gateway: None,
        };
        match self.netlink.create_endpoint(&spec).await {
            Ok(links) => {
                stored.interface = links.container_interface;
                Ok(Made {
                    stored,
                    ifindex: links.host_ifindex,
                    netns,
                })
            }
            Err(error) => {
                remove_files(&stored);
                Err(Refused::failed(error))
            }
        }
    }
}

/// Removes links and files, and gives the address back: now, or when the manager is there again.
pub(super) async fn clean_up(handle: &Handle, netlink: &Netlink, stored: &NodeEndpoint) {
    remove_links_and_files(netlink, stored).await;
    let endpoint = stored.allocation.endpoint.clone();
    if let Err(error) = release(handle, &endpoint).await {
        tracing::warn!(endpoint = stored.allocation.name, %error, "address not released yet; it will be when the manager answers again");
        tokio::spawn(release_later(handle.clone(), endpoint));
    }
}

async fn release(handle: &Handle, endpoint: &EndpointId) -> Result<(), Refused> {
    let release = Request::Release {
        endpoint: endpoint.clone(),
    };
    // A daemon that stops compares with the manager when it starts again.
    let outcome = handle.ask(|reply| Command::Manager(release, reply)).await;
    outcome.map_or(Ok(()), |outcome| outcome.map(drop))
}

/// Bridges a restart of the manager; after that, the daemon's comparison with the manager's record finds the endpoint.
async fn release_later(handle: Handle, endpoint: EndpointId) {
    for _ in 0..RELEASE_TRIES {
        tokio::time::sleep(RELEASE_RETRY).await;
        if release(&handle, &endpoint).await.is_ok() {
            return;
        }
    }
}

pub(super) async fn remove_links_and_files(netlink: &Netlink, stored: &NodeEndpoint) {
    if let Err(error) = netlink.remove_endpoint(&stored.host_interface).await {
        tracing::error!(interface = stored.host_interface, %error, "interface not removed");
    }
    remove_files(stored);
}

fn write_resolv_conf(stored: &NodeEndpoint) -> std::io::Result<()> {
    let host = fs::read_to_string(HOST_RESOLV_CONF).unwrap_or_default();
    let content = resolv_conf(&host);
    if let Some(directory) = stored.resolv_conf.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(&stored.resolv_conf, &content)?;
    if let Some(link) = netns_resolv_conf(&stored.netns)
        && !link.exists()
        && let Some(directory) = link.parent()
    {
        fs::create_dir_all(directory)?;
        // A link tells later that the file is ours.
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&stored.resolv_conf, &link)?;
    }
    Ok(())
}

pub(super) fn remove_files(stored: &NodeEndpoint) {
    if let Some(link) = netns_resolv_conf(&stored.netns)
        && fs::read_link(&link).is_ok_and(|target| target == stored.resolv_conf)
    {
        let _ = fs::remove_file(&link);
        // Only an empty directory goes; others may keep files there.
        let _ = link.parent().map(fs::remove_dir);
    }
    let _ = fs::remove_file(&stored.resolv_conf);
    let _ = stored.resolv_conf.parent().map(fs::remove_dir);
}

fn netns_resolv_conf(netns: &NetnsSpec) -> Option<PathBuf> {
    match netns {
        NetnsSpec::Name(name) => Some(Path::new(ETC_NETNS).join(name).join("resolv.conf")),
        NetnsSpec::Path(_) | NetnsSpec::Pid(_) => None,
    }
}
