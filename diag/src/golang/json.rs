//! JSON as Go's `encoding/json` writes it: members in order, HTML characters escaped, bytes that are no UTF-8 replaced.

use super::encode_base64;

/// A JSON value whose texts may be any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Number(i128),
    /// A string.
    Text(Vec<u8>),
    /// An array.
    List(Vec<Json>),
    /// An object; members stay in this order.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A string.
    pub(crate) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into().into_bytes())
    }

    /// Bytes in base64.
    pub(crate) fn base64(bytes: &[u8]) -> Json {
        Json::text(encode_base64(bytes))
    }

    /// `null` for an empty list, as Go writes a list that was never filled.
    pub(crate) fn list_or_null(values: Vec<Json>) -> Json {
        if values.is_empty() {
            Json::Null
        } else {
            Json::List(values)
        }
    }

    /// Without spaces.
    pub(crate) fn compact(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, None);
        out
    }

    /// Indented by two spaces.
    pub(crate) fn pretty(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out, Some(0));
        out
    }

    /// `depth` is the indentation of the line that the value starts on; `None` writes everything on one line.
    fn write(&self, out: &mut Vec<u8>, depth: Option<usize>) {
        match self {
            Json::Null => out.extend(b"null"),
            Json::Bool(value) => out.extend(value.to_string().bytes()),
            Json::Number(value) => out.extend(value.to_string().bytes()),
            Json::Text(bytes) => write_text(out, bytes),
            Json::List(values) => write_group(out, depth, b"[]", values, |out, value, depth| value.write(out, depth)),
            Json::Object(members) => write_group(out, depth, b"{}", members, |out, (name, value), depth| {
                write_text(out, name.as_bytes());
                out.extend(if depth.is_some() { b": ".as_slice() } else { b":" });
                value.write(out, depth);
            }),
        }
    }
}

fn write_group<T>(
    out: &mut Vec<u8>,
    depth: Option<usize>,
    [open, close]: &[u8; 2],
    items: &[T],
    write: impl Fn(&mut Vec<u8>, &T, Option<usize>),
) {
    let inside = depth.map(|depth| depth + 1);
    out.push(*open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        new_line(out, inside);
        write(out, item, inside);
    }
    if !items.is_empty() {
        new_line(out, depth);
    }
    out.push(*close);
}

fn new_line(out: &mut Vec<u8>, depth: Option<usize>) {
    if let Some(depth) = depth {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b"  ".as_slice(), depth).flatten());
    }
}

fn write_text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            write_char(out, c);
        }
        for _ in chunk.invalid() {
            out.extend(br"\ufffd");
        }
    }
    out.push(b'"');
}

fn write_char(out: &mut Vec<u8>, c: char) {
    match c {
        '"' => out.extend(br#"\""#),
        '\\' => out.extend(br"\\"),
        '\u{8}' => out.extend(br"\b"),
        '\u{c}' => out.extend(br"\f"),
        '\n' => out.extend(br"\n"),
        '\r' => out.extend(br"\r"),
        '\t' => out.extend(br"\t"),
        '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
            out.extend(format!("\\u{:04x}", u32::from(c)).bytes());
        }
        _ => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
    }
}
