//! Documents: what they link to must be there.

use super::{File, Finding};

/// Links to files of the workspace, checked from the folder of the document.
pub(super) fn check(document: &File, files: &[File]) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut findings = Vec::new();
    for (index, line) in document.text.lines().enumerate() {
        for target in links(line) {
            let path = resolve(folder, target);
            let is_there = files
                .iter()
                .any(|file| file.path == path || file.path.starts_with(&format!("{path}/")));
            if !is_there {
                findings.push(Finding::new(
                    &document.path,
                    index + 1,
                    format!("links to {target:?}, which is not there."),
                ));
            }
        }
    }
    findings
}

/// Targets of `[text](target)` that are neither addresses nor places in the same page.
fn links(line: &str) -> Vec<&str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or(target))
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

/// `a/b` and `../c/d` give `a/c/d`.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}
