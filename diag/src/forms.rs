//! Parameters of a request: the urlencoded body and the query, merged as Go's `net/http` does.

use crate::golang::quote;
use std::collections::BTreeMap;

/// Parameters in order: those of the body before those of the query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Form(Vec<(Vec<u8>, Vec<u8>)>);

impl Form {
    /// What parses of both; the rest is ignored (`spec/diag-api.md` 1.2).
    pub(crate) fn new(body: &[u8], query: &[u8]) -> Form {
        Form(parse(body).chain(parse(query)).collect())
    }

    /// The first value of that name. A parameter without a value has the empty one.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(key, _)| key == name.as_bytes())
            .map(|(_, value)| value.as_slice())
    }

    /// The first value as text, empty when it is missing.
    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8_lossy(self.bytes(name).unwrap_or_default()).into_owned()
    }

    /// Whether the parameter was given at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.bytes(name).is_some()
    }

    /// `Form["nid"] = ["net1"]`, a line for each name.
    pub(crate) fn debug_lines(&self) -> impl Iterator<Item = String> {
        let mut values: BTreeMap<&[u8], Vec<String>> = BTreeMap::new();
        for (key, value) in &self.0 {
            values.entry(key).or_default().push(quote(value));
        }
        values
            .into_iter()
            .map(|(key, values)| format!("Form[{}] = [{}]\n", quote(key), values.join(" ")))
    }
}

/// Splits `a=b&c=d`; pairs with a `;` or a broken escape are left out.
fn parse(text: &[u8]) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    text.split(|&b| b == b'&')
        .filter(|pair| !pair.is_empty() && !pair.contains(&b';'))
        .filter_map(|pair| {
            let (key, value) = match pair.iter().position(|&b| b == b'=') {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            Some((unescape(key, true)?, unescape(value, true)?))
        })
}

/// Undoes percent-encoding (RFC 3986 section 2.1); in a form `+` stands for a space. `None` when an escape is broken.
pub(crate) fn unescape(text: &[u8], is_form: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(&byte) = rest.next() {
        out.push(match byte {
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            b'+' if is_form => b' ',
            _ => byte,
        });
    }
    Some(out)
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3) and those in `keep`.
pub(crate) fn escape(text: &[u8], keep: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests;
