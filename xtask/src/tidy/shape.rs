//! The shape of files and folders: opening lines, lengths, leftovers, names of counters.

use super::Finding;
use super::source::{Source, has_word};
use std::collections::BTreeSet;

/// Past about 500 lines a file has found a second reason to exist; the rest is room to finish a thought.
const MAX_FILE_LINES: usize = 600;

/// The code folders, and no other.
const TOP_LEVEL: [&str; 6] = ["bench", "controlplane", "dataplane-ebpf", "diag", "tests", "xtask"];

/// Macros that mark unfinished or forgotten work.
const LEFTOVERS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];

/// Words that mark it in comments. Joined here, so that this file does not find itself.
const MARKS: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Where every counter has its name.
const COUNTERS: &str = "dataplane-ebpf/src/abi/counter.rs";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    // A file `tests.rs` tests the module that declares it, which says what it is.
    let speaks_for_itself = source.path.ends_with("/tests.rs");
    let first = source
        .lines
        .iter()
        .position(|line| !line.trim().is_empty())
        .unwrap_or(0);
    let opens = |line: &String| line.starts_with("//! ") && line.len() > "//! x".len();
    if !speaks_for_itself && !source.lines.get(first).is_some_and(opens) {
        findings.push(Finding::new(
            &source.path,
            first + 1,
            "a module opens with a `//!` line that says what it is.",
        ));
    }
    if source.lines.len() > MAX_FILE_LINES {
        let rule = format!(
            "{} lines: past {MAX_FILE_LINES} a file has a second reason to exist; find it.",
            source.lines.len()
        );
        findings.push(Finding::new(&source.path, MAX_FILE_LINES, rule));
    }
    findings.extend(check_leftovers(source));
    if source.path == COUNTERS {
        findings.extend(check_counters(source));
    }
    findings
}

fn check_leftovers(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.code_lines() {
        if let Some(name) = LEFTOVERS.iter().find(|name| holds_macro(line, name)) {
            findings.push(Finding::new(
                &source.path,
                number,
                format!("`{name}` is unfinished work."),
            ));
        }
        if line.trim_start().starts_with("#[ignore") {
            findings.push(Finding::new(
                &source.path,
                number,
                "a test that is ignored proves nothing.",
            ));
        }
        let original = &source.lines[number - 1];
        let comment = original
            .find("//")
            .filter(|start| line.get(*start..).is_none_or(|code| code.trim().is_empty()));
        if let Some(mark) = comment.and_then(|start| MARKS.iter().find(|mark| has_word(&original[start..], mark))) {
            findings.push(Finding::new(
                &source.path,
                number,
                format!("`{mark}` is unfinished work."),
            ));
        }
    }
    findings
}

fn holds_macro(line: &str, name: &str) -> bool {
    let word = name.trim_end_matches('!');
    line.contains(name) && has_word(line, word)
}

/// Lines `Variant = 16, "drop_name";`: names are unique, and a drop is called one.
fn check_counters(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut names = BTreeSet::new();
    for (index, line) in source.lines.iter().enumerate() {
        let Some((value, name)) = read_counter(line) else {
            continue;
        };
        if !names.insert(name.to_owned()) {
            findings.push(Finding::new(
                &source.path,
                index + 1,
                format!("the counter name {name:?} stands twice."),
            ));
        }
        if name.starts_with("drop_") != (value >= 16) {
            let rule = format!("counter {name:?} has index {value}: drops are called drop_... and start at 16.");
            findings.push(Finding::new(&source.path, index + 1, rule));
        }
    }
    if names.is_empty() {
        findings.push(Finding::new(
            &source.path,
            1,
            "no line `Variant = INDEX, \"name\";` found: every drop has a name here.",
        ));
    }
    findings
}

fn read_counter(line: &str) -> Option<(u32, &str)> {
    let (_, rest) = line.trim().strip_suffix("\";")?.split_once(" = ")?;
    let (value, name) = rest.split_once(", \"")?;
    Some((value.parse().ok()?, name))
}

/// The folders at the top are exactly the agreed ones.
pub(super) fn check_top_level(folders: &[String]) -> Vec<Finding> {
    let added = folders.iter().filter(|folder| !TOP_LEVEL.contains(&folder.as_str()));
    let missing = TOP_LEVEL
        .iter()
        .filter(|agreed| !folders.iter().any(|folder| folder == *agreed));
    added
        .map(|folder| {
            Finding::new(
                folder,
                1,
                "no folder at the top but the agreed ones (ARCHITECTURE.md part 1).",
            )
        })
        .chain(
            missing.map(|folder| Finding::new(folder, 1, "this folder belongs at the top (ARCHITECTURE.md part 1).")),
        )
        .collect()
}
