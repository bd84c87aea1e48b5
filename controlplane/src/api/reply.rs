//! Answers: JSON, or Docker's `{"message": …}` with the status that fits.

use crate::daemon::{Command, Handle, Refused, RefusedKind, ReplyTo};
use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use weft_core::cluster::{Reply, Request as ClusterRequest, UnixNanos};

/// A refusal as a response.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) Refused);

impl Refusal {
    pub(super) fn not_found(message: String) -> Refusal {
        Refusal(Refused {
            kind: RefusedKind::NotFound,
            message,
        })
    }

    pub(super) fn invalid(message: String) -> Refusal {
        Refusal(Refused {
            kind: RefusedKind::Invalid,
            message,
        })
    }

    pub(super) fn unexpected(reply: &Reply) -> Refusal {
        Refusal(Refused {
            kind: RefusedKind::Failed,
            message: format!("unexpected answer of the manager: {reply:?}"),
        })
    }

    fn stopping() -> Refusal {
        Refusal(Refused {
            kind: RefusedKind::Unavailable,
            message: "the daemon is stopping".to_owned(),
        })
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(json!({ "message": self.0.message }))).into_response()
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        Refusal(refused)
    }
}

/// A JSON body, whose faults are told as refusals.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(Refusal::invalid(
                "a body with Content-Type application/json is wanted".to_owned(),
            )),
            Err(rejection) => Err(Refusal::invalid(in_words(&rejection.body_text()))),
        }
    }
}

/// The parameters of the address, whose faults are told as refusals.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read = Query::<T>::from_request_parts(parts, state).await;
        read.map(|Query(params)| Params(params))
            .map_err(|rejection| Refusal::invalid(rejection.body_text()))
    }
}

/// The text of a rejection with what a number may be in place of Rust's name for its type.
fn in_words(text: &str) -> String {
    let types = [
        ("u8", u64::from(u8::MAX)),
        ("u16", u64::from(u16::MAX)),
        ("u32", u64::from(u32::MAX)),
        ("u64", u64::MAX),
    ];
    types.iter().fold(text.to_owned(), |text, (name, largest)| {
        text.replace(
            &format!(", expected {name} "),
            &format!(", a number from 0 to {largest} is wanted "),
        )
    })
}

/// Asks the daemon for something that may be refused.
pub(super) async fn ask<T>(
    handle: &Handle,
    command: impl FnOnce(ReplyTo<Result<T, Refused>>) -> Command,
) -> Result<T, Refusal> {
    handle
        .ask(command)
        .await
        .ok_or_else(Refusal::stopping)?
        .map_err(Refusal)
}

/// Asks the daemon for something that it always has.
pub(super) async fn ask_plain<T>(handle: &Handle, command: impl FnOnce(ReplyTo<T>) -> Command) -> Result<T, Refusal> {
    handle.ask(command).await.ok_or_else(Refusal::stopping)
}

/// Asks the manager, through the daemon.
pub(super) async fn ask_manager(handle: &Handle, request: ClusterRequest) -> Result<Reply, Refusal> {
    ask(handle, |reply| Command::Manager(request, reply)).await
}

const RFC3339_NANOS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");

/// Go's RFC3339Nano in UTC: trailing zeros of the fraction are left out.
pub(super) fn timestamp(nanos: UnixNanos) -> String {
    let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(nanos))
        .ok()
        .and_then(|at| at.format(RFC3339_NANOS).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00.000000000Z".to_owned());
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

#[cfg(test)]
mod tests {
    use super::{in_words, timestamp};

    #[test]
    fn timestamps_are_gos() {
        assert_eq!(timestamp(1_795_322_293_999_007_763), "2026-11-22T04:38:13.999007763Z");
        assert_eq!(timestamp(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(timestamp(20_000_000_000), "1970-01-01T00:00:20Z");
    }

    #[test]
    fn numbers_out_of_range_are_told_with_the_range() {
        assert_eq!(
            in_words("Weight: invalid value: integer `70000`, expected u16 at line 1 column 15"),
            "Weight: invalid value: integer `70000`, a number from 0 to 65535 is wanted at line 1 column 15"
        );
        let other = "Name: invalid type: integer `1`, expected a string at line 1 column 9";
        assert_eq!(in_words(other), other);
    }
}
