//! Base64 (RFC 4648 section 4) that accepts and refuses what Go's standard encoding does, in the same words.
//!
//! Line ends between the letters are skipped and unused trailing bits may be anything; a strict decoder refuses both.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Where the text stopped being base64: offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal base64 data at input byte {0}")]
pub(crate) struct IllegalBase64(usize);

/// Standard alphabet, padded.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes groups of four letters, the last of them padded.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, IllegalBase64> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let mut group = [0u8; 4];
    let mut filled = 0;
    for (at, &letter) in text.iter().enumerate() {
        match letter {
            b'\r' | b'\n' => {}
            b'=' => {
                check_padding(text, at, filled)?;
                push_group(&mut bytes, group, filled);
                return Ok(bytes);
            }
            _ => {
                group[filled] = six_bits(letter).ok_or(IllegalBase64(at))?;
                filled += 1;
                if filled == 4 {
                    push_group(&mut bytes, group, 4);
                    (group, filled) = ([0; 4], 0);
                }
            }
        }
    }
    if filled == 0 {
        Ok(bytes)
    } else {
        Err(IllegalBase64(text.len() - filled))
    }
}

/// Checks the rest of the text, whose first `=` is at `at`, after `filled` letters of the last group.
fn check_padding(text: &[u8], at: usize, filled: usize) -> Result<(), IllegalBase64> {
    let after_line_ends = |from: usize| (from..text.len()).find(|&i| !matches!(text[i], b'\r' | b'\n'));
    let mut next = after_line_ends(at + 1);
    match filled {
        0 | 1 => return Err(IllegalBase64(at)),
        2 => match next {
            None => return Err(IllegalBase64(text.len())),
            Some(second) if text[second] == b'=' => next = after_line_ends(second + 1),
            Some(second) => return Err(IllegalBase64(second - 1)),
        },
        _ => {}
    }
    next.map_or(Ok(()), |garbage| Err(IllegalBase64(garbage)))
}

/// Appends the bytes that `letters` letters of a group carry.
fn push_group(bytes: &mut Vec<u8>, group: [u8; 4], letters: usize) {
    let [a, b, c, d] = group;
    let three = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
    bytes.extend_from_slice(&three[..letters.saturating_sub(1)]);
}

fn six_bits(letter: u8) -> Option<u8> {
    match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}
