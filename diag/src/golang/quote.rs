//! Quoted strings, as Go's `%q` prints them.

use std::fmt::Write as _;

/// Double quotes around the text; what does not print is escaped.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        chunk.valid().chars().for_each(|c| push_char(&mut out, c));
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

fn push_char(out: &mut String, c: char) {
    // Writing to a String cannot fail.
    let _ = match c {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\u{7}' => out.write_str("\\a"),
        '\u{8}' => out.write_str("\\b"),
        '\u{c}' => out.write_str("\\f"),
        '\n' => out.write_str("\\n"),
        '\r' => out.write_str("\\r"),
        '\t' => out.write_str("\\t"),
        '\u{b}' => out.write_str("\\v"),
        '\0'..='\u{1f}' | '\u{7f}' => write!(out, "\\x{:02x}", u32::from(c)),
        _ if prints(c) => out.write_char(c),
        '\u{10000}'.. => write!(out, "\\U{:08x}", u32::from(c)),
        _ => write!(out, "\\u{:04x}", u32::from(c)),
    };
}

/// Letters, marks, digits, punctuation, symbols and the plain space.
fn prints(c: char) -> bool {
    // The quotes that `escape_debug` also escapes are ASCII; marks it escapes only at the start of a text.
    c.is_ascii() || (!c.is_whitespace() && format!("a{c}").escape_debug().count() == 2)
}
