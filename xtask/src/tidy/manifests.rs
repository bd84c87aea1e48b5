//! Who may know whom: the dependency line of ARCHITECTURE.md part 1.

use super::{File, Finding};

/// What a package may not depend on, and why.
struct Line {
    manifest: &'static str,
    forbidden: &'static [&'static str],
    reason: &'static str,
}

const LINES: [Line; 5] = [
    Line {
        manifest: "dataplane-ebpf/Cargo.toml",
        forbidden: &["weft-core", "weft-diag", "weft", "tokio", "axum"],
        reason: "the contract stands at the bottom and knows nobody",
    },
    Line {
        manifest: "controlplane/core/Cargo.toml",
        forbidden: &[
            "weft-diag",
            "weft",
            "aya",
            "axum",
            "getrandom",
            "hyper",
            "hyper-util",
            "libc",
            "mio",
            "nix",
            "parking_lot",
            "rand",
            "redb",
            "rtnetlink",
            "socket2",
            "tokio",
            "ureq",
        ],
        reason: "the core is pure",
    },
    Line {
        manifest: "diag/Cargo.toml",
        forbidden: &["weft", "aya", "nix", "rtnetlink", "libc"],
        reason: "diag only asks",
    },
    Line {
        manifest: "controlplane/Cargo.toml",
        forbidden: &["weft-tests", "weft-bench", "xtask"],
        reason: "products do not know their tests",
    },
    Line {
        manifest: "xtask/Cargo.toml",
        forbidden: &[
            "weft-dataplane",
            "weft-core",
            "weft-diag",
            "weft",
            "weft-tests",
            "weft-bench",
        ],
        reason: "xtask must build when they do not",
    },
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(rules) = LINES.iter().find(|line| line.manifest == file.path) else {
        return findings;
    };
    for (number, name) in dependencies(&file.text) {
        if rules.forbidden.contains(&name) {
            let rule = format!("must not depend on `{name}`: {}.", rules.reason);
            findings.push(Finding::new(&file.path, number, rule));
        }
    }
    findings
}

/// Names of all dependencies, of every kind and target, with the line of each.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = header.ends_with("dependencies");
            let single = header.rsplit_once("dependencies.").map(|(_, name)| name);
            found.extend(single.map(|name| (index + 1, name)));
        } else if inside && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().filter(|name| !name.is_empty());
            found.extend(name.map(|name| (index + 1, name)));
        }
    }
    found
}
