//! What each route does: parameters to a request of the daemon, its answer to details.

pub(crate) mod cluster;
pub(crate) mod entry;
pub(crate) mod map;
pub(crate) mod network;

use crate::forms::Form;
use crate::reply::{Details, Format};
use crate::server::Ask;
use crate::{ReplyTo, Request};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long a request may wait for the daemon. `/joinnetwork` waits for a bulk sync with each peer, up to 30 s a peer
/// (`spec/diag-api.md` 1.5); ten peers that do not answer are the worst that is worth waiting for.
const ANSWER_TIME_LIMIT: Duration = Duration::from_secs(300);

/// A call of a route whose required parameters are there.
pub(crate) struct Call {
    pub(crate) ask: Ask,
    pub(crate) form: Form,
    pub(crate) format: Format,
    /// What follows the route's path, for a route that is a prefix.
    pub(crate) rest: String,
}

/// What a handler returns: details of an `OK`, or the error of a `FAIL`.
pub(crate) type Outcome = Result<Details, String>;

/// A handler in flight.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

impl Call {
    /// A parameter that the route requires.
    fn text(&self, name: &str) -> String {
        self.form.text(name)
    }

    /// Asks the daemon and waits for its answer.
    async fn ask<T: Send>(&self, request: impl FnOnce(ReplyTo<T>) -> Request) -> Result<T, String> {
        let (reply, answer) = oneshot::channel();
        let asking = async {
            if !self.ask.send(request(reply)).await {
                return None;
            }
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER_TIME_LIMIT, asking).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err("the daemon is stopping".to_owned()),
            Err(_) => Err(format!(
                "the daemon did not answer within {} s",
                ANSWER_TIME_LIMIT.as_secs()
            )),
        }
    }
}
