//! `/help`, `/ready`, and the gossip cluster as a whole.

use super::{Call, Outcome};
use crate::Request;
use crate::reply::Details;
use crate::routes;

/// The paths there are, a line each.
pub(crate) async fn help(_: Call) -> Outcome {
    Ok(Details::Info(routes::help()))
}

/// The server answers.
pub(crate) async fn ready(_: Call) -> Outcome {
    Ok(Details::Info("OK".to_owned()))
}

/// Joins the cluster by the members in `members`.
pub(crate) async fn join(call: Call) -> Outcome {
    let members = call.text("members").split(',').map(str::to_owned).collect();
    call.ask(|reply| Request::Join(members, reply)).await??;
    Ok(Details::None)
}

/// Leaves the cluster. Which members `members` names does not matter: they learn it by gossip.
pub(crate) async fn leave(call: Call) -> Outcome {
    call.ask(Request::Leave).await??;
    Ok(Details::None)
}

/// The live nodes.
pub(crate) async fn peers(call: Call) -> Outcome {
    call.ask(Request::ClusterPeers).await.map(Details::Peers)
}
