//! The kernel's neighbour table, as the programs are to know it.

use super::{Command, Daemon, Handle};
use crate::dataplane::Neighborhood;
use crate::netlink::Netlink;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

/// How often the table is read while nothing changes: what the programs know of it holds for
/// [`SECONDS`](weft_dataplane::abi::neighbor::SECONDS), and is written anew in time.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// The shortest time from one reading to the next: each of a thousand neighbours changes its state every half a minute or so.
const PAUSE: Duration = Duration::from_millis(200);

/// Reads the table whenever it has changed, and tells the daemon, until the daemon stops.
pub(super) async fn follow(netlink: Netlink, mut changes: mpsc::Receiver<()>, handle: Handle) {
    let mut failed = false;
    loop {
        match netlink.neighborhood().await {
            Ok(known) => {
                failed = false;
                if !handle.tell(Command::Neighbors(known)).await {
                    return;
                }
            }
            // Without it the kernel looks each packet's neighbour up.
            Err(error) if !failed => {
                failed = true;
                tracing::warn!(%error, "neighbours not read");
            }
            Err(_) => {}
        }
        sleep(PAUSE).await;
        // A watcher that ended leaves the interval.
        if let Ok(None) = timeout(READ_INTERVAL, changes.recv()).await {
            sleep(READ_INTERVAL).await;
        }
    }
}

impl Daemon {
    /// Packets to other nodes are sent with what the kernel knows of their neighbours.
    pub(super) fn neighbors(&mut self, known: &Neighborhood) {
        if let Err(error) = self.dataplane.refresh_neighbors(known) {
            tracing::warn!(%error, "neighbours not written");
        }
    }
}
