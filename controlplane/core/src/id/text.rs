//! The text of an identifier, in place when it is short: a cluster's tables compare and copy names a million times.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

/// How long a text in place is at most: names of nodes have 12 bytes.
const IN_PLACE: usize = 22;

/// A text that does not change.
#[derive(Clone)]
pub(super) enum Text {
    /// Length and bytes, zeros behind them.
    InPlace(u8, [u8; IN_PLACE]),
    Elsewhere(Box<str>),
}

impl Text {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Text::InPlace(length, bytes) => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Text::Elsewhere(text) => text.as_bytes(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            // It was made of a text, so it is one.
            Text::InPlace(..) => std::str::from_utf8(self.as_bytes()).unwrap_or_default(),
            Text::Elsewhere(text) => text,
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = [0; IN_PLACE];
        match bytes.get_mut(..text.len()) {
            Some(place) => {
                place.copy_from_slice(text.as_bytes());
                Text::InPlace(text.len() as u8, bytes)
            }
            None => Text::Elsewhere(text.into_boxed_str()),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Text::InPlace(length, bytes), Text::InPlace(others, other)) => length == others && bytes == other,
            (Text::Elsewhere(text), Text::Elsewhere(other)) => text == other,
            // Which it is depends on the length.
            _ => false,
        }
    }
}

impl Eq for Text {}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // The zeros behind a text that is the beginning of another come before all of that one's bytes, but for its own zeros.
            (Text::InPlace(length, bytes), Text::InPlace(others, other)) => bytes.cmp(other).then(length.cmp(others)),
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Text;

    #[test]
    fn texts_compare_as_texts_do_wherever_they_are() {
        let long = "a".repeat(30);
        let texts = [
            "",
            "a",
            "a\0",
            "a\0b",
            "ab",
            "b",
            "é",
            &long[..22],
            &long[..23],
            &long,
            "abcdefghijklmnopqrstuvw",
        ];
        for one in texts {
            assert_eq!(Text::from(one.to_owned()).as_str(), one);
            for other in texts {
                let (a, b) = (Text::from(one.to_owned()), Text::from(other.to_owned()));
                assert_eq!(a.cmp(&b), one.cmp(other), "{one:?} {other:?}");
                assert_eq!(a == b, one == other, "{one:?} {other:?}");
            }
        }
    }
}
