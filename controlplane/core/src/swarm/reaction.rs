//! What an error of the managers means for the session (`spec/swarm-agent.md` 8.15).

use crate::time::Duration;

/// gRPC status codes.
const UNKNOWN: i32 = 2;
const INVALID_ARGUMENT: i32 = 3;
const NOT_FOUND: i32 = 5;
const PERMISSION_DENIED: i32 = 7;
const UNAVAILABLE: i32 = 14;

/// More than three registrations within this time are refused.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(8);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Another connection, to another manager if there is one, and the same session.
    Reconnect,
    /// Another connection, and a new session: this one is not known any more.
    Register,
    /// As [`Reaction::Reconnect`], but not before this time.
    Wait(Duration),
    /// The node does not exist any more: its identity is of no use.
    Removed,
    /// The identity belongs to another swarm.
    Foreign,
}

/// What to do about a failed call or an ended stream. The permission texts come wrapped, so parts of them are looked for.
pub fn reaction(code: i32, message: &str) -> Reaction {
    let says = |part: &str| message.contains(part);
    match code {
        PERMISSION_DENIED if says("was removed from swarm") => Reaction::Removed,
        PERMISSION_DENIED if says("remote certificate not part of organization") => Reaction::Foreign,
        UNKNOWN if says("node not found") => Reaction::Removed,
        NOT_FOUND if says("not found when attempting to renew certificate") => Reaction::Removed,
        NOT_FOUND if says("node not registered") => Reaction::Register,
        INVALID_ARGUMENT if says("session invalid") => Reaction::Register,
        UNAVAILABLE if says("exceeded rate limit") => Reaction::Wait(REGISTRATION_LIMIT),
        _ => Reaction::Reconnect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_managers_words_are_understood() {
        for (code, message, wanted) in [
            (
                7,
                "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = node n was removed from swarm",
                Reaction::Removed,
            ),
            (2, "node not found", Reaction::Removed),
            (
                5,
                "node n not found when attempting to renew certificate",
                Reaction::Removed,
            ),
            (
                7,
                "Permission denied: remote certificate not part of organization: abc",
                Reaction::Foreign,
            ),
            (3, "session invalid", Reaction::Register),
            (5, "node not registered", Reaction::Register),
            (
                14,
                "node n exceeded rate limit count of registrations",
                Reaction::Wait(Duration::from_secs(8)),
            ),
            (
                14,
                "connection error: desc = \"transport: Error while dialing: connection refused\"",
                Reaction::Reconnect,
            ),
            (10, "node must disconnect", Reaction::Reconnect),
            (10, "dispatcher is stopped", Reaction::Reconnect),
            (
                2,
                "The swarm does not have a leader. It's possible that too few managers are online.",
                Reaction::Reconnect,
            ),
            (4, "deadline", Reaction::Reconnect),
            // The same words under another code are somebody else's.
            (2, "was removed from swarm", Reaction::Reconnect),
        ] {
            assert_eq!(reaction(code, message), wanted, "{code} {message}");
        }
    }
}
