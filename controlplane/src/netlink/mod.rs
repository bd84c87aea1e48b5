//! Links, addresses and routes: what the daemon asks of the kernel over rtnetlink.
//!
//! A [`Netlink`] speaks to the namespace of the thread that opened it. The daemon opens one at its start, so a daemon that was
//! started inside a namespace works there like anywhere else.

mod address;
mod clsact;
mod endpoint;
mod error;
mod gro;
mod link;
mod neighbor;
mod route;
mod watch;

pub use endpoint::{EndpointLinkSpec, EndpointLinks, HOST_INTERFACE_PREFIX, host_interface_name};
pub use error::NetlinkError;
pub use gro::{EncapDevice, GRO_DEVICE, GroDevice};
pub use link::{Enslaved, Link, MTU_MAX, MTU_MIN};
pub use route::{RouteError, UnderlayRoute, Uplink};
pub use watch::{UnderlayChanged, watch_neighbors, watch_underlay};

use crate::netns::Netns;
use std::io;
use std::sync::Arc;
use tokio::sync::Mutex;

/// A connection to the kernel's rtnetlink in one namespace; cheap to clone. It closes with its last clone.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: rtnetlink::Handle,
    /// Held by whoever lists something: the kernel answers one listing a socket at a time, and refuses a second (`EBUSY`).
    listing: Arc<Mutex<()>>,
    /// Held by whoever looks after the vxlan device: a second would find it half made.
    vxlan_device: Arc<Mutex<()>>,
    _connection: Arc<Connection>,
}

/// The task that moves messages between handles and socket.
#[derive(Debug)]
struct Connection(tokio::task::AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Netlink {
    /// Opens a connection in the namespace of the calling thread. Needs a tokio runtime.
    pub fn open() -> Result<Netlink, NetlinkError> {
        let runtime = runtime()?;
        Netlink::connect(&runtime).map_err(NetlinkError::Open)
    }

    /// Opens a connection inside `netns`, for use outside. Needs a tokio runtime.
    pub fn open_in(netns: &Netns) -> Result<Netlink, NetlinkError> {
        let runtime = runtime()?;
        netns.run(|| Netlink::connect(&runtime))?.map_err(NetlinkError::Open)
    }

    fn connect(runtime: &tokio::runtime::Handle) -> io::Result<Netlink> {
        let _context = runtime.enter();
        let (connection, handle, _unsolicited) = rtnetlink::new_connection()?;
        let task = runtime.spawn(connection);
        Ok(Netlink {
            handle,
            listing: Arc::default(),
            vxlan_device: Arc::default(),
            _connection: Arc::new(Connection(task.abort_handle())),
        })
    }
}

fn runtime() -> Result<tokio::runtime::Handle, NetlinkError> {
    tokio::runtime::Handle::try_current().map_err(|error| NetlinkError::Open(io::Error::other(error)))
}
