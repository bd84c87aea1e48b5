//! How a worker follows what its manager hands out.

use super::{Refused, RefusedKind};
use std::time::Duration;

/// How soon a worker asks again after its manager did not answer, at first and at last.
const RETRY: Duration = Duration::from_millis(500);
const RETRY_AT_MOST: Duration = Duration::from_secs(5);
/// How soon it asks again where the manager is of a version that has nothing of the kind to tell.
const RETRY_OLDER: Duration = Duration::from_secs(60);

/// Asks the manager for another version than the last one, again and again; for whatever it has if there is none yet.
///
/// `ask` answers when there is another version, or at its own deadline with none. `take` says whether the version is in force now, or
/// `None` if nobody is there to take it: then this ends. `trouble` is logged once each time the manager does not answer.
pub(super) async fn follow<T, A, B>(
    mut version: Option<u64>,
    trouble: &'static str,
    ask: impl Fn(Option<u64>) -> A,
    take: impl Fn(T) -> B,
) where
    A: Future<Output = Result<Option<(u64, T)>, Refused>>,
    B: Future<Output = Option<bool>>,
{
    let mut retry = RETRY;
    let mut away = false;
    loop {
        match ask(version).await {
            Ok(told) => {
                (away, retry) = (false, RETRY);
                let Some((next, told)) = told else { continue };
                match take(told).await {
                    Some(true) => version = Some(next),
                    Some(false) => tokio::time::sleep(RETRY_AT_MOST).await,
                    None => return,
                }
            }
            Err(error) => {
                if !away {
                    tracing::warn!(%error, "{trouble}");
                }
                away = true;
                let is_older = error.kind == RefusedKind::NotFound;
                tokio::time::sleep(if is_older { RETRY_OLDER } else { retry }).await;
                retry = (retry * 2).min(RETRY_AT_MOST);
            }
        }
    }
}
