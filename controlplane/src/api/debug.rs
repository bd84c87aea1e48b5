//! `/debug/recording`: what enters the gossip, to read along.

use super::reply::{Body, Refusal, ask};
use super::types::Record;
use crate::daemon::{Command, Handle, RecordCommand};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::convert::Infallible;

/// Answers with the recording as it comes about.
pub(super) async fn record(
    State(handle): State<Handle>,
    Body(Record { seconds }): Body<Record>,
) -> Result<Response, Refusal> {
    let start = |reply| Command::Record(RecordCommand::Start { seconds, reply });
    let recorded = ask(&handle, start).await?;
    let pieces = stream::unfold(recorded, async |mut recorded| {
        let piece = recorded.next().await?;
        Some((Ok::<_, Infallible>(piece), recorded))
    });
    let body = axum::body::Body::from_stream(pieces);
    Ok(([(CONTENT_TYPE, "application/octet-stream")], body).into_response())
}

pub(super) async fn stop(State(handle): State<Handle>) -> Result<(), Refusal> {
    ask(&handle, |reply| Command::Record(RecordCommand::Stop(reply))).await
}
