//! Replies: Docker's envelope of message and details, as text or as JSON (`spec/diag-api.md` 1.3).

use crate::forms::Form;
use crate::golang::{Json, encode_base64};
use crate::maps::MapView;
use crate::{MapSummary, NetworkStats, OwnerState, Peer, Row};

/// How the caller wants the reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    /// JSON instead of text.
    pub(crate) json: bool,
    /// JSON on many lines.
    pub(crate) pretty: bool,
    /// Values of tables raw instead of in base64.
    pub(crate) raw_values: bool,
}

impl Format {
    /// Out of the parameters `json` and `unsafe`.
    pub(crate) fn of(form: &Form) -> Format {
        Format {
            json: form.has("json"),
            pretty: form.bytes("json") == Some(b"pretty"),
            raw_values: form.has("unsafe"),
        }
    }
}

/// A message and its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) message: &'static str,
    pub(crate) details: Details,
}

/// What a reply carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Details {
    /// Nothing.
    None,
    /// A text.
    Info(String),
    /// Why it failed.
    Error(String),
    /// How it is to be called.
    Usage(String),
    /// Nodes.
    Peers(Vec<Peer>),
    /// Rows of a table.
    Rows(Vec<Row>),
    /// Rows of a table, and how their writers stand.
    MarkedRows(Vec<(Row, OwnerState)>),
    /// One value, under its key.
    Entry(Row),
    /// Numbers of a network.
    Stats(NetworkStats),
    /// The kernel's maps.
    Maps(Vec<MapSummary>),
    /// One of them.
    Map(MapView),
}

impl Reply {
    /// `OK`.
    pub(crate) fn ok(details: Details) -> Reply {
        Reply { message: "OK", details }
    }

    /// `FAIL`.
    pub(crate) fn fail(error: impl Into<String>) -> Reply {
        Reply {
            message: "FAIL",
            details: Details::Error(error.into()),
        }
    }

    /// `missing parameter`.
    pub(crate) fn missing_parameter(usage: String) -> Reply {
        Reply {
            message: "missing parameter",
            details: Details::Usage(usage),
        }
    }

    /// `not implemented`.
    pub(crate) fn not_implemented(path: &str) -> Reply {
        let usage = format!("URL path: {path} no method implemented check /help\n");
        Reply {
            message: "not implemented",
            details: Details::Usage(usage),
        }
    }

    /// The body, and the content type that Go gives it.
    pub(crate) fn render(&self, format: Format) -> (Vec<u8>, &'static str) {
        if format.json {
            let json = Json::Object(vec![
                ("message", Json::text(self.message)),
                ("details", self.details.json(format)),
            ]);
            let body = if format.pretty { json.pretty() } else { json.compact() };
            return (body, "application/json");
        }
        let mut body = self.message.as_bytes().to_vec();
        if self.details != Details::None {
            body.push(b'\n');
            body.extend(self.details.text(format));
        }
        let content_type = sniff(&body);
        (body, content_type)
    }
}

impl Details {
    /// As the text body has it; also the field `response` of the audit log.
    pub(crate) fn text(&self, format: Format) -> Vec<u8> {
        match self {
            Details::None => Vec::new(),
            Details::Info(text) => text.clone().into_bytes(),
            Details::Error(error) => format!("Error: {error}").into_bytes(),
            Details::Usage(usage) => format!("Usage: {usage}").into_bytes(),
            Details::Peers(peers) => peers_text(peers),
            Details::Rows(rows) => rows_text(rows, format),
            Details::MarkedRows(rows) => marked_rows_text(rows, format),
            Details::Entry(row) => row_text(0, row, format),
            Details::Stats(stats) => format!("entries: {}, qlen: {}\n", stats.entries, stats.queue_len).into_bytes(),
            Details::Maps(maps) => maps_text(maps),
            Details::Map(map) => map.text().into_bytes(),
        }
    }

    fn json(&self, format: Format) -> Json {
        match self {
            Details::None => Json::Null,
            Details::Info(text) => Json::Object(vec![("info", Json::text(text))]),
            Details::Error(error) => Json::Object(vec![("error", Json::text(error))]),
            Details::Usage(usage) => Json::Object(vec![("usage", Json::text(usage))]),
            Details::Peers(peers) => table_json(peers.iter().map(peer_json).collect()),
            Details::Rows(rows) => table_json(rows.iter().map(|row| row_json(row, format)).collect()),
            Details::MarkedRows(rows) => table_json(
                rows.iter()
                    .map(|(row, state)| marked_row_json(row, *state, format))
                    .collect(),
            ),
            Details::Entry(row) => row_json(row, format),
            Details::Stats(stats) => Json::Object(vec![
                ("entries", Json::Number(stats.entries.into())),
                // The name that Docker's server writes, by mistake, and that its clients therefore read.
                ("QueueLen", Json::Number(stats.queue_len.into())),
            ]),
            Details::Maps(maps) => table_json(maps.iter().map(map_json).collect()),
            Details::Map(map) => map.json(),
        }
    }
}

fn peers_text(peers: &[Peer]) -> Vec<u8> {
    let mut text = format!("total entries: {}\n", peers.len());
    for (index, peer) in peers.iter().enumerate() {
        let ip = peer.ip.map_or_else(|| "invalid IP".to_owned(), |ip| ip.to_string());
        text.push_str(&format!("{index}) {} -> {ip}\n", peer.name));
    }
    text.into_bytes()
}

fn peer_json(peer: &Peer) -> Json {
    Json::Object(vec![
        // The name that Docker's server writes, by mistake, and that its clients therefore read.
        ("-=name", Json::text(&peer.name)),
        ("ip", Json::text(peer.ip.map_or_else(String::new, |ip| ip.to_string()))),
    ])
}

fn rows_text(rows: &[Row], format: Format) -> Vec<u8> {
    let mut text = format!("total entries: {}\n", rows.len()).into_bytes();
    for (index, row) in rows.iter().enumerate() {
        text.extend(row_text(index, row, format));
    }
    text
}

fn row_text(index: usize, row: &Row, format: Format) -> Vec<u8> {
    let mut text = format!("{index}) k:`{}` -> v:`", row.key).into_bytes();
    if format.raw_values {
        text.extend(&row.value);
    } else {
        text.extend(encode_base64(&row.value).bytes());
    }
    text.extend(format!("` owner:`{}`\n", row.owner).bytes());
    text
}

fn marked_rows_text(rows: &[(Row, OwnerState)], format: Format) -> Vec<u8> {
    let mut text = format!("total entries: {}\n", rows.len()).into_bytes();
    for (index, (row, state)) in rows.iter().enumerate() {
        text.extend(row_text(index, row, format));
        text.pop();
        text.extend(format!(" state:`{}`\n", state_text(*state)).bytes());
    }
    text
}

fn state_text(state: OwnerState) -> &'static str {
    match state {
        OwnerState::Alive => "alive",
        OwnerState::Suspect => "suspect",
        OwnerState::Failed => "failed",
        OwnerState::Replaced => "replaced",
    }
}

fn row_json(row: &Row, format: Format) -> Json {
    Json::Object(row_fields(row, format))
}

fn marked_row_json(row: &Row, state: OwnerState, format: Format) -> Json {
    let mut fields = row_fields(row, format);
    fields.push(("state", Json::text(state_text(state))));
    Json::Object(fields)
}

fn row_fields(row: &Row, format: Format) -> Vec<(&'static str, Json)> {
    let value = if format.raw_values {
        Json::Text(row.value.clone())
    } else {
        Json::base64(&row.value)
    };
    vec![
        ("key", Json::text(&row.key)),
        ("value", value),
        ("owner", Json::text(&row.owner)),
    ]
}

fn maps_text(maps: &[MapSummary]) -> Vec<u8> {
    let mut text = format!("total entries: {}\n", maps.len());
    for map in maps {
        let full = match map.left_out {
            0 if is_full(map) => ", full".to_owned(),
            0 => String::new(),
            more => format!(", full, {more} left out"),
        };
        text.push_str(&format!(
            "{:<12} {} of {} entries{full}\n",
            map.name, map.entries, map.max_entries
        ));
    }
    text.into_bytes()
}

fn is_full(map: &MapSummary) -> bool {
    map.entries >= u64::from(map.max_entries) || map.left_out > 0
}

fn map_json(map: &MapSummary) -> Json {
    Json::Object(vec![
        ("name", Json::text(&map.name)),
        ("entries", Json::Number(map.entries.into())),
        ("limit", Json::Number(map.max_entries.into())),
        ("full", Json::Bool(is_full(map))),
        ("left_out", Json::Number(map.left_out.into())),
    ])
}

fn table_json(entries: Vec<Json>) -> Json {
    let size = i128::try_from(entries.len()).unwrap_or(i128::MAX);
    Json::Object(vec![
        ("size", Json::Number(size)),
        ("entries", Json::list_or_null(entries)),
    ])
}

/// What a body without a declared type is: binary if one of its first 512 bytes is a control character that no text has
/// (WHATWG MIME Sniffing section 7.1, which Go's server follows). Replies begin with a word, so no other type can match.
fn sniff(body: &[u8]) -> &'static str {
    let is_binary = |b: &u8| matches!(b, 0x00..=0x08 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if body.iter().take(512).any(is_binary) {
        "application/octet-stream"
    } else {
        "text/plain; charset=utf-8"
    }
}
