//! What code may not do where: the core has no hands, `unsafe` and map writes have their places.

use super::Finding;
use super::source::{Source, has_word};

/// The pure crate.
const CORE: &str = "controlplane/core/src/";

/// Words that the core may not say, and what it should do instead.
const NOT_IN_CORE: [(&str, &str); 22] = [
    ("std::time::Instant", "time is an argument: crate::time::Instant"),
    ("time::SystemTime", "time is an argument: crate::time::Instant"),
    ("SystemTime", "time is an argument: crate::time::Instant"),
    ("Instant::now", "time is an argument: crate::time::Instant"),
    ("TcpListener", "sockets belong to the shell"),
    ("TcpStream", "sockets belong to the shell"),
    ("UdpSocket", "sockets belong to the shell"),
    ("std::os", "the system belongs to the shell"),
    ("std::fs", "files belong to the shell"),
    ("std::env", "the environment belongs to the shell"),
    ("std::process", "processes belong to the shell"),
    ("std::thread", "threads belong to the shell"),
    ("thread_local", "threads belong to the shell"),
    ("Mutex", "one owner, no locks"),
    ("RwLock", "one owner, no locks"),
    ("RefCell", "one owner, no locks"),
    ("mpsc", "inputs and effects go through the door"),
    ("tokio", "the core is not asynchronous"),
    ("thread_rng", "the seed is an argument"),
    ("getrandom", "the seed is an argument"),
    ("RandomState", "the seed is an argument"),
    ("unsafe", "the core needs no unsafe"),
];

/// Where `unsafe` may stand.
const UNSAFE_PLACES: [&str; 11] = [
    "dataplane-ebpf/src/abi/",
    BENCH_PROGRAMS,
    "dataplane-ebpf/src/programs/cursor.rs",
    "dataplane-ebpf/src/programs/early.rs",
    "dataplane-ebpf/src/programs/helper.rs",
    "dataplane-ebpf/src/programs/maps.rs",
    "dataplane-ebpf/src/programs/filter.rs",
    "dataplane-ebpf/src/programs/members.rs",
    "dataplane-ebpf/src/programs/socket.rs",
    "controlplane/src/netns.rs",
    "controlplane/src/dataplane/raw.rs",
];

/// The programs that only the bench loads: one file, outside the daemon's object.
const BENCH_PROGRAMS: &str = "dataplane-ebpf/src/bin/ceiling.rs";

/// How many lines above an unsafe block its argument may begin.
const SAFETY_WITHIN_LINES: usize = 8;

/// The only writer of the control maps.
const MAP_WRITER: &str = "controlplane/src/dataplane/maps.rs";

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.path.starts_with(CORE) {
        findings.extend(check_core(source));
    }
    findings.extend(check_unsafe(source));
    findings.extend(check_map_writers(source));
    findings
}

fn check_core(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.product_lines() {
        if let Some((word, instead)) = NOT_IN_CORE
            .iter()
            .find(|(word, _)| has_word(line, word) && !is_attribute(line))
        {
            findings.push(Finding::new(
                &source.path,
                number,
                format!("core must not name `{word}`: {instead}."),
            ));
        }
        if has_word(line, "HashMap") || has_word(line, "HashSet") {
            let rule = "core must not use a hash map: its order is random; use BTreeMap or BTreeSet.";
            findings.push(Finding::new(&source.path, number, rule));
        }
    }
    findings
}

/// `#![forbid(unsafe_code)]` and the like speak of unsafe without using it.
fn is_attribute(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

fn check_unsafe(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allowed = UNSAFE_PLACES.iter().any(|place| source.path.starts_with(place));
    for (number, line) in source.code_lines() {
        if !has_word(line, "unsafe") || is_attribute(line) {
            continue;
        }
        if !allowed {
            let rule = "unsafe belongs into dataplane-ebpf's abi and programs/{cursor,filter,helper,maps,members}.rs and controlplane's netns.rs and dataplane/raw.rs.";
            findings.push(Finding::new(&source.path, number, rule));
        } else if !has_argument(source, number) {
            let rule = "unsafe needs a SAFETY comment right above: why it is sound and why it is needed.";
            findings.push(Finding::new(&source.path, number, rule));
        }
    }
    findings
}

/// Whether a SAFETY comment (of a block) or a `# Safety` section (of a function) stands above the line.
fn has_argument(source: &Source, number: usize) -> bool {
    let first = number.saturating_sub(SAFETY_WITHIN_LINES + 1);
    source.lines[first..number]
        .iter()
        .any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

/// Nobody but the one file writes a map; the kernel's side declares its maps in one file.
fn check_map_writers(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let shell = source.path.starts_with("controlplane/src/") || source.path.starts_with("diag/src/");
    let names_maps = source
        .product_lines()
        .any(|(_, line)| line.contains("aya::maps") || has_word(line, "MapData"));
    for (number, line) in source.product_lines() {
        let writes = names_maps && [".insert(", ".remove(", ".set("].iter().any(|call| line.contains(call));
        let by_system_call = has_word(line, "bpf_map_update_elem") || has_word(line, "bpf_map_delete_elem");
        if shell && source.path != MAP_WRITER && (writes || by_system_call) {
            let rule = format!("only {MAP_WRITER} writes maps.");
            findings.push(Finding::new(&source.path, number, rule));
        }
        let declares = line.trim_start().starts_with("#[map");
        let declare = [
            "dataplane-ebpf/src/programs/filter.rs",
            "dataplane-ebpf/src/programs/maps.rs",
            "dataplane-ebpf/src/programs/members.rs",
            "dataplane-ebpf/src/programs/socket.rs",
            BENCH_PROGRAMS,
        ];
        if declares && !declare.contains(&source.path.as_str()) {
            let rule = "maps are declared in dataplane-ebpf/src/programs/{filter,maps,members,socket}.rs only.";
            findings.push(Finding::new(&source.path, number, rule));
        }
    }
    findings
}
