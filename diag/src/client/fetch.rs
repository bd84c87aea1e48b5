//! Requests to an engine, and the JSON that it answers with.

use super::Parameters;
use crate::forms::escape;
use crate::golang::quote;
use serde_json::Value;
use std::time::Duration;

/// The largest body that is read: a table of half a million entries.
const MAX_BODY_BYTES: u64 = 256 * 1024 * 1024;

/// An engine's diagnostic server.
pub(crate) struct Engine {
    base: String,
    /// Why the address is none.
    refusal: Option<String>,
    agent: ureq::Agent,
}

impl Engine {
    /// Does not connect yet. An IPv6 address may stand with or without brackets.
    pub(crate) fn new(host: &str, port: i64, timeout: Option<Duration>) -> Engine {
        let refusal = refusal(host, port);
        let host = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(timeout)
            // The API is on loopback or an address that the user named: never the proxy's business.
            .proxy(None)
            .user_agent(concat!("diagnosticClient/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Engine {
            base: format!("http://{host}:{port}"),
            refusal,
            agent,
        }
    }

    /// The body of the reply, whatever its status. The error names the URL.
    pub(crate) fn get(&self, path: &str, parameters: Parameters<'_>) -> Result<Vec<u8>, String> {
        let url = format!("{}{path}{}", self.base, query(parameters));
        let failed = |error: &dyn std::fmt::Display| format!("Get {}: {error}", quote(url.as_bytes()));
        if let Some(refusal) = &self.refusal {
            return Err(failed(refusal));
        }
        let mut reply = self.agent.get(&url).call().map_err(|error| failed(&error))?;
        reply
            .body_mut()
            .with_config()
            .limit(MAX_BODY_BYTES)
            .read_to_vec()
            .map_err(|error| failed(&error))
    }
}

/// Why host and port are no address. The library would take a port that is none for 80, and a `/` in the host for its end.
fn refusal(host: &str, port: i64) -> Option<String> {
    let is_host = |c: char| c.is_alphanumeric() || "-._:[]%".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        Some(format!("{} is no host name or IP address", quote(host.as_bytes())))
    } else if !(1..=65_535).contains(&port) {
        Some(format!("port {port} is not between 1 and 65535"))
    } else {
        None
    }
}

fn query(parameters: Parameters<'_>) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| {
            value.map_or((*name).to_owned(), |value| {
                format!("{name}={}", escape(value.as_bytes(), b""))
            })
        })
        .collect();
    if pairs.is_empty() {
        String::new()
    } else {
        format!("?{}", pairs.join("&"))
    }
}

/// A node of a list of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedPeer {
    pub(crate) name: String,
    /// As the engine wrote it: also empty or `unknown`.
    pub(crate) ip: String,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TableRow {
    pub(crate) key: String,
    /// In base64.
    pub(crate) value: String,
    pub(crate) owner: String,
}

/// Reads a list of peers.
pub(crate) fn peers(body: &[u8]) -> Result<Vec<NamedPeer>, String> {
    // The name of the name is what Docker's server writes, by mistake.
    entries(body)?
        .iter()
        .map(|entry| {
            Ok(NamedPeer {
                name: text(entry, "-=name")?,
                ip: text(entry, "ip")?,
            })
        })
        .collect()
}

/// Reads a table.
pub(crate) fn rows(body: &[u8]) -> Result<Vec<TableRow>, String> {
    let row = |entry: &Value| {
        Ok(TableRow {
            key: text(entry, "key")?,
            value: text(entry, "value")?,
            owner: text(entry, "owner")?,
        })
    };
    entries(body)?.iter().map(row).collect()
}

/// The error of a reply whose message is not `OK`.
pub(crate) fn check_message(body: &[u8]) -> Result<(), String> {
    parse(body).map(drop)
}

/// A reply whose message is `OK`, or that has none.
fn parse(body: &[u8]) -> Result<Value, String> {
    let reply: Value = serde_json::from_slice(body).map_err(|error| {
        let start = String::from_utf8_lossy(&body[..body.len().min(100)]).into_owned();
        format!("{error}: {start:?}")
    })?;
    match member(&reply, "message").and_then(Value::as_str) {
        None | Some("OK") => Ok(reply),
        Some(message) => {
            let details = member(&reply, "details");
            let reason = |name| {
                details
                    .and_then(|details| member(details, name))
                    .and_then(Value::as_str)
            };
            let reason = reason("error").or_else(|| reason("usage")).unwrap_or_default();
            Err(format!("the server answered {message}: {}", reason.trim_end()))
        }
    }
}

/// `details.entries`; none if either is missing, or the list is `null`.
fn entries(body: &[u8]) -> Result<Vec<Value>, String> {
    let mut reply = parse(body)?;
    let Some(details) = member_mut(&mut reply, "details") else {
        return Ok(Vec::new());
    };
    if !details.is_object() {
        return Err(format!("details are {details}, an object was expected"));
    }
    match member_mut(details, "entries").map(Value::take) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(entries)) => Ok(entries),
        Some(other) => Err(format!("entries are {other}, a list was expected")),
    }
}

/// A string, empty if it is missing.
fn text(entry: &Value, name: &str) -> Result<String, String> {
    match member(entry, name) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("{name} is {other}, a string was expected")),
    }
}

/// A member, whatever the case of its name; the last one if there are several, as in Go.
fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value
        .as_object()?
        .iter()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .next_back()
}

fn member_mut<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    value
        .as_object_mut()?
        .iter_mut()
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .next_back()
}
