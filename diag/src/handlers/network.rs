//! One network's membership.

use super::{Call, Outcome};
use crate::reply::Details;
use crate::{NetworkStats, Request};

/// What is printed of a network that the node is not attached to.
const NOT_ATTACHED: NetworkStats = NetworkStats {
    entries: -1,
    queue_len: -1,
};

/// The nodes that take part.
pub(crate) async fn peers(call: Call) -> Outcome {
    let network = call.text("nid");
    call.ask(|reply| Request::NetworkPeers(network, reply))
        .await
        .map(Details::Peers)
}

/// This node takes part.
pub(crate) async fn join(call: Call) -> Outcome {
    let network = call.text("nid");
    call.ask(|reply| Request::JoinNetwork(network, reply)).await??;
    Ok(Details::None)
}

/// This node takes part no more.
pub(crate) async fn leave(call: Call) -> Outcome {
    let network = call.text("nid");
    call.ask(|reply| Request::LeaveNetwork(network, reply)).await??;
    Ok(Details::None)
}

/// How much is stored and queued.
pub(crate) async fn stats(call: Call) -> Outcome {
    let network = call.text("nid");
    let stats = call.ask(|reply| Request::NetworkStats(network, reply)).await?;
    Ok(Details::Stats(stats.unwrap_or(NOT_ATTACHED)))
}
