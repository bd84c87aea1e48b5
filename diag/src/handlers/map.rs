//! The kernel's maps.

use super::{Call, Outcome};
use crate::Request;
use crate::maps::{MapView, check_name};
use crate::reply::Details;

/// The maps there are.
pub(crate) async fn list(call: Call) -> Outcome {
    call.ask(Request::Maps).await?.map(Details::Maps)
}

/// The content of one map.
pub(crate) async fn show(call: Call) -> Outcome {
    check_name(&call.rest)?;
    let name = call.rest.clone();
    let dump = call.ask(|reply| Request::Map(name, reply)).await??;
    Ok(Details::Map(MapView::new(dump)))
}
