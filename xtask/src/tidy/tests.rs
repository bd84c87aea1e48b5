//! The checks find what they are for, and nothing else.

use super::*;

fn file(path: &str, text: &str) -> File {
    File {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}

/// Findings in one file, as `line: rule`.
fn findings(path: &str, text: &str) -> Vec<String> {
    check(&[file(path, text)])
        .iter()
        .map(|finding| format!("{}: {}", finding.line, finding.rule))
        .collect()
}

fn assert_one(path: &str, text: &str, line: usize, part: &str) {
    let found = findings(path, text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with(&format!("{line}: ")) && found[0].contains(part),
        "{found:#?}"
    );
}

const CORE: &str = "controlplane/core/src/node.rs";

#[test]
fn this_workspace_has_the_rules_own_files() {
    let folders = top_level_folders(Workspace::here().root()).unwrap();
    assert_eq!(shape::check_top_level(&folders), []);
}

#[test]
fn the_core_has_no_hands() {
    for line in [
        "use std::time::{Duration, Instant, SystemTime};",
        "let now = Instant::now();",
        "use std::net::UdpSocket;",
        "let text = std::fs::read(path);",
        "let lock = Mutex::new(1);",
        "std::thread::spawn(f);",
        "let rng = rand::thread_rng();",
        "use std::collections::HashMap;",
    ] {
        assert_one(CORE, &format!("//! What it is.\n{line}\n"), 2, "core must not");
        assert_eq!(
            findings("controlplane/src/gossip.rs", &format!("//! What it is.\n{line}\n")),
            [""; 0],
            "the shell may: {line}"
        );
    }
}

#[test]
fn words_in_comments_literals_and_tests_are_no_code() {
    let text = "//! What it is: no std::fs, no unsafe.\n\
                /* Mutex /* RwLock */ SystemTime */\n\
                const A: &str = \"std::fs \\\" Mutex\";\n\
                const B: &str = r#\"unsafe \" Mutex\"#;\n\
                const C: [char; 2] = ['\"', '\\''];\n\
                fn f<'a>(x: &'a str) -> &'a str { x }\n\
                #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    assert_eq!(findings(CORE, text), [""; 0]);
}

#[test]
fn code_after_a_literal_is_code_again() {
    assert_one(
        CORE,
        "//! What it is.\nlet c = '\"'; let m = Mutex::new(\"\");\n",
        2,
        "`Mutex`",
    );
    assert_one(
        CORE,
        "//! What it is.\nlet c = r\"\\\"; let m = Mutex::new(());\n",
        2,
        "`Mutex`",
    );
}

#[test]
fn a_longer_word_is_another_word() {
    assert_eq!(
        findings(CORE, "//! What it is.\nstruct MutexLike; fn tokio_free() {}\n"),
        [""; 0]
    );
}

#[test]
fn unsafe_has_its_places_and_its_reasons() {
    assert_one(
        "diag/src/lib.rs",
        "//! What it is.\nunsafe { f() }\n",
        2,
        "unsafe belongs",
    );
    assert_one(
        "controlplane/src/netns.rs",
        "//! What it is.\nunsafe { f() }\n",
        2,
        "SAFETY",
    );
    let argued = "//! What it is.\n// SAFETY: sound and needed, because.\nunsafe { f() }\n";
    assert_eq!(findings("controlplane/src/netns.rs", argued), [""; 0]);
    assert_eq!(
        findings("diag/src/lib.rs", "//! What it is.\n#![forbid(unsafe_code)]\n"),
        [""; 0]
    );
}

#[test]
fn maps_have_one_writer() {
    let text = "//! What it is.\nuse aya::maps::HashMap;\nfn f() { map.insert(k, v, 0); }\n";
    assert_one("controlplane/src/dataplane/object.rs", text, 3, "writes maps");
    assert_eq!(findings("controlplane/src/dataplane/maps.rs", text), [""; 0]);
    let tree = "//! What it is.\nfn f() { tree.insert(k, v); }\n";
    assert_eq!(findings("controlplane/src/api/mod.rs", tree), [""; 0]);
    assert_one(
        "dataplane-ebpf/src/programs/encap.rs",
        "//! What it is.\n#[map]\nstatic M: A = A;\n",
        2,
        "declared in",
    );
}

#[test]
fn modules_say_what_they_are() {
    assert_one("diag/src/a.rs", "use std::fmt;\n", 1, "opens with");
    assert_one("diag/src/a.rs", "\n//! x\nuse std::fmt;\n", 2, "opens with");
    assert_one("diag/src/a.rs", "", 1, "opens with");
    assert_eq!(
        findings("diag/src/a/tests.rs", "use super::*;\n"),
        [""; 0],
        "its module says what it is"
    );
}

#[test]
fn files_stay_short() {
    let text = format!("//! What it is.\n{}", "fn f() {}\n".repeat(600));
    assert_one("diag/src/a.rs", &text, 600, "601 lines");
    let text = format!("//! What it is.\n{}", "fn f() {}\n".repeat(599));
    assert_eq!(findings("diag/src/a.rs", &text), [""; 0]);
}

#[test]
fn unfinished_work_is_found() {
    assert_one("diag/src/a.rs", "//! What it is.\nfn f() { todo!() }\n", 2, "todo!");
    assert_one("diag/src/a.rs", "//! What it is.\n#[ignore]\nfn f() {}\n", 2, "ignored");
    assert_one(
        "diag/src/a.rs",
        &format!("//! What it is.\nfn f() {{}} // {}: more\n", concat!("TO", "DO")),
        2,
        "unfinished",
    );
    assert_eq!(
        findings("diag/src/a.rs", "//! What it is.\nconst A: &str = \"// todo!\";\n"),
        [""; 0]
    );
}

#[test]
fn dependencies_keep_to_the_line() {
    assert_one(
        "controlplane/core/Cargo.toml",
        "[dependencies]\nserde.workspace = true\ntokio.workspace = true\n",
        3,
        "`tokio`",
    );
    assert_one(
        "diag/Cargo.toml",
        "[dependencies]\naya = { workspace = true }\n",
        2,
        "`aya`",
    );
    assert_one(
        "diag/Cargo.toml",
        "[dependencies.weft]\npath = \"../controlplane\"\n",
        1,
        "`weft`",
    );
    assert_one(
        "xtask/Cargo.toml",
        "[dev-dependencies]\nweft-core.workspace = true\n",
        2,
        "xtask must build",
    );
    assert_eq!(
        findings(
            "diag/Cargo.toml",
            "[package]\naya = 1\n[dependencies]\nweft-core.workspace = true\n"
        ),
        [""; 0]
    );
}

#[test]
fn counters_have_unique_names_and_drops_are_called_drops() {
    let path = "dataplane-ebpf/src/abi/counter.rs";
    let head = "//! What it is.\nA = 0, \"sent\";\n";
    assert_eq!(findings(path, &format!("{head}B = 16, \"drop_a\";\n")), [""; 0]);
    assert_one(
        path,
        &format!("{head}B = 17, \"sent\";\nC = 18, \"drop_a\";\n").replace("B = 17", "B = 1"),
        3,
        "twice",
    );
    assert_one(path, &format!("{head}B = 16, \"lost\";\n"), 3, "start at 16");
    assert_one(path, &format!("{head}B = 15, \"drop_a\";\n"), 3, "start at 16");
    assert_one(path, "//! What it is.\n", 1, "every drop has a name");
}

#[test]
fn folders_at_the_top_are_the_agreed_ones() {
    let folders: Vec<String> = ["bench", "controlplane", "diag", "docs", "tests", "xtask"]
        .iter()
        .map(|name| (*name).to_owned())
        .collect();
    let found = shape::check_top_level(&folders);
    let paths: Vec<&str> = found.iter().map(|finding| finding.path.as_str()).collect();
    assert_eq!(paths, ["docs", "dataplane-ebpf"]);
}

#[test]
fn documents_link_to_what_is_there() {
    let there = file("dataplane-ebpf/src/abi/mod.rs", "//! What it is.\n");
    let good = file(
        "dataplane-ebpf/README.md",
        "[a](src/abi/mod.rs#x) [b](../dataplane-ebpf) [c](https://a.b/c) [d](#part)\n",
    );
    assert_eq!(check(&[there.clone(), good]), []);
    let bad = file("README.md", "# A\n[a](dataplane-ebpf/src/abi/none.rs)\n");
    let found = check(&[there, bad]);
    assert_eq!(
        found,
        [Finding::new(
            "README.md",
            2,
            "links to \"dataplane-ebpf/src/abi/none.rs\", which is not there."
        )]
    );
}
