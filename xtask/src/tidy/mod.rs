//! `tidy`: what a machine can check of ARCHITECTURE.md, part 6, and of the house rules.

mod documents;
mod manifests;
mod purity;
mod shape;
mod source;
#[cfg(test)]
mod tests;

use crate::process::{Done, Failure};
use crate::workspace::{Workspace, read};
use clap::Args;
use source::Source;
use std::fmt;
use std::path::Path;

/// Check what a machine can check of ARCHITECTURE.md: purity of the core, who may know whom, where unsafe stands, file lengths.
#[derive(Debug, Args)]
pub(crate) struct Arguments {}

/// A rule broken at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    rule: String,
}

impl Finding {
    fn new(path: &str, line: usize, rule: impl Into<String>) -> Self {
        Finding {
            path: path.to_owned(),
            line,
            rule: rule.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

/// A file of the workspace: its path from the root, and its text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    path: String,
    text: String,
}

pub(crate) fn run(workspace: &Workspace, _arguments: &Arguments) -> Done {
    let mut files = Vec::new();
    collect(workspace.root(), "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut findings = check(&files);
    findings.extend(shape::check_top_level(&top_level_folders(workspace.root())?));
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files, nothing to say.", files.len());
            Ok(())
        }
        1 => Err(Failure::new("tidy: 1 finding")),
        many => Err(Failure::new(format!("tidy: {many} findings"))),
    }
}

/// All findings in these files, in order of place.
fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        if file.path.ends_with(".rs") {
            let source = Source::new(&file.path, &file.text);
            findings.extend(purity::check(&source));
            findings.extend(shape::check(&source));
        } else if file.path.ends_with("Cargo.toml") {
            findings.extend(manifests::check(file));
        } else if file.path.ends_with(".md") {
            findings.extend(documents::check(file, files));
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Reads all sources, manifests and documents; folders of tools and of cargo's output are left out.
fn collect(root: &Path, below: &str, files: &mut Vec<File>) -> Done {
    for name in entries(&root.join(below))? {
        if name.starts_with('.') || (name == "target" && (below.is_empty() || below.ends_with("/fuzz"))) {
            continue;
        }
        let path = if below.is_empty() {
            name.clone()
        } else {
            format!("{below}/{name}")
        };
        let full = root.join(&path);
        if full.is_dir() {
            collect(root, &path, files)?;
        } else if [".rs", ".md", "Cargo.toml"].iter().any(|suffix| name.ends_with(suffix)) {
            files.push(File {
                text: read(&full)?,
                path,
            });
        } else {
            // Named, so that documents may link to it.
            files.push(File {
                text: String::new(),
                path,
            });
        }
    }
    Ok(())
}

fn top_level_folders(root: &Path) -> Done<Vec<String>> {
    let names = entries(root)?;
    Ok(names
        .into_iter()
        .filter(|name| !name.starts_with('.') && name != "target" && root.join(name).is_dir())
        .collect())
}

fn entries(folder: &Path) -> Done<Vec<String>> {
    let explain = |error| Failure::new(format!("cannot read folder {}: {error}", folder.display()));
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(explain)? {
        names.push(entry.map_err(explain)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
