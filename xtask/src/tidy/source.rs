//! A Rust source with comments and literals blanked out, so that a rule about code does not stumble over words.

/// A source file, line by line, in three views of the same shape.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Path from the root of the workspace.
    pub(crate) path: String,
    /// Lines as they stand.
    pub(crate) lines: Vec<String>,
    /// Lines with comments and the content of literals as spaces.
    pub(crate) code: Vec<String>,
    /// Line (from 0) of the first inline `#[cfg(test)]` with a body; code from there on is tests.
    tests_from: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code: Vec<String> = blank(text).lines().map(str::to_owned).collect();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let inline_tests = |window: &[String]| {
            window[0].trim() == "#[cfg(test)]"
                && window[1].trim_start().starts_with("mod ")
                && window[1].trim_end().ends_with('{')
        };
        let tests_from = code.windows(2).position(inline_tests).unwrap_or(usize::MAX);
        Source {
            path: path.to_owned(),
            lines,
            code,
            tests_from,
        }
    }

    /// Whether the file is tests as a whole.
    pub(crate) fn is_test_file(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    /// Lines of code that run outside tests, with their number counted from 1.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test_file() { 0 } else { self.tests_from };
        self.code
            .iter()
            .take(end)
            .enumerate()
            .map(|(index, line)| (index + 1, line.as_str()))
    }

    /// All lines of code, with their number counted from 1.
    pub(crate) fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code
            .iter()
            .enumerate()
            .map(|(index, line)| (index + 1, line.as_str()))
    }
}

/// Whether the line holds the words, not as part of longer words.
pub(crate) fn has_word(line: &str, words: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(words).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + words.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Replaces comments and the content of string and character literals by spaces; line breaks stay.
fn blank(text: &str) -> String {
    let mut scanner = Scanner {
        rest: text,
        out: String::with_capacity(text.len()),
    };
    while let Some(next) = scanner.rest.chars().next() {
        scanner.step(next);
    }
    scanner.out
}

struct Scanner<'a> {
    rest: &'a str,
    out: String,
}

impl Scanner<'_> {
    fn step(&mut self, next: char) {
        if self.rest.starts_with("//") {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.hide(length);
        } else if self.rest.starts_with("/*") {
            let length = block_comment(self.rest);
            self.hide(length);
        } else if let Some(length) = self.raw_string() {
            self.hide(length);
        } else if next == '"' {
            let length = quoted(self.rest);
            self.hide(length);
        } else if next == '\'' {
            match character(self.rest) {
                Some(length) => self.hide(length),
                None => self.keep(1),
            }
        } else {
            self.keep(next.len_utf8());
        }
    }

    fn keep(&mut self, length: usize) {
        let (kept, rest) = self.rest.split_at(length);
        self.out.push_str(kept);
        self.rest = rest;
    }

    fn hide(&mut self, length: usize) {
        let (hidden, rest) = self.rest.split_at(length);
        self.out
            .extend(hidden.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        self.rest = rest;
    }

    /// Length of a raw string literal that starts here; `r` must not end a longer word.
    fn raw_string(&self) -> Option<usize> {
        let after_word = self
            .out
            .chars()
            .next_back()
            .is_some_and(|c| c.is_alphanumeric() || c == '_');
        let body = self
            .rest
            .strip_prefix('r')
            .filter(|_| !after_word || self.out.ends_with('b'))?;
        let hashes = body.len() - body.trim_start_matches('#').len();
        let content = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let start = 1 + hashes + 1;
        Some(
            content
                .find(&end)
                .map_or(self.rest.len(), |position| start + position + end.len()),
        )
    }
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut position) = (0_usize, 0);
    while position < text.len() {
        let here = &text[position..];
        if here.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return position;
            }
        } else {
            position += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (position, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return position + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of a character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let body = &text[1..];
    if body.starts_with('\\') {
        let close = body.char_indices().skip(2).find(|(_, c)| *c == '\'')?.0;
        return Some(1 + close + 1);
    }
    let first = body.chars().next()?;
    body[first.len_utf8()..]
        .starts_with('\'')
        .then(|| 1 + first.len_utf8() + 1)
}
