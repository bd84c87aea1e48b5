//! Taking over what another version pinned: maps that changed are converted beside the old, and a refusal touches nothing.
#![allow(clippy::unwrap_used)]

use aya::maps::{HashMap, MapData, MapInfo};
use std::path::{Path, PathBuf};
use weft::dataplane::{Config, Dataplane, Hook, clean_up};
use weft_dataplane::abi::{ABI_VERSION, Flow, FlowKey, flow};
use weft_tests::namespace::{Namespace, eventually, run};
use weft_tests::programs::{ALICE, Loaded, VIP, config};

/// A key and a value that a newer version made longer.
const LONGER_KEY: usize = size_of::<FlowKey>() + 4;
const LONGER: usize = size_of::<Flow>() + 8;

/// The pinned maps below the pin directory, by path, with the kernel's number of each.
fn pinned(directory: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(info) = MapInfo::from_pin(&path) {
                found.push((path, info.id()));
            }
        }
    }
    found.sort();
    found
}

/// The directory of the only generation.
fn generation(directory: &Path) -> PathBuf {
    let found: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("maps-"))
        .collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

fn rename(generation: &Path, to: &str) -> PathBuf {
    let renamed = generation.with_file_name(to);
    std::fs::rename(generation, &renamed).unwrap();
    renamed
}

/// Entries of a map, as bytes.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// A daemon that has left, with two flows in its map, of which one was looked at.
fn left_behind(config: &Config) -> (Namespace, Entries) {
    let namespace = Namespace::new("wu");
    namespace.ip("link add one type veth peer name other");
    let mut dataplane = Loaded::new(config);
    let ifindex = namespace.ifindex("one");
    namespace.enter(|| dataplane.attach(Hook::Endpoint, ifindex)).unwrap();
    let mut flows: HashMap<MapData, FlowKey, Flow> = flows(&dataplane.pin_of("flows"));
    for port in [1000_u16, 2000] {
        let key = FlowKey {
            network: flow::network(4097, 6),
            source: ALICE.1,
            destination: VIP,
            source_port: port.to_be_bytes(),
            destination_port: [0, 80],
            reserved: flow::RESERVED,
        };
        let value = Flow {
            last_seen: u32::from(port),
            flags: 0,
            source: ALICE.1,
            destination: [10, 0, 1, 7],
            source_port: port.to_be_bytes(),
            destination_port: [0, 80],
            slot: 0,
        };
        flows.insert(key, value, 0).unwrap();
    }
    let kept = dataplane.dump("flows").unwrap().entries;
    assert_eq!(kept.len(), 2);
    dataplane.leave();
    (namespace, kept)
}

fn flows<V: aya::Pod>(path: &Path) -> HashMap<MapData, FlowKey, V> {
    let map = MapData::from_pin(path).unwrap();
    let map = aya::maps::Map::from_map_data(map).unwrap();
    map.try_into().unwrap()
}

/// Which program is on the interface: by a link, or by a filter where the kernel has no links.
fn program(namespace: &Namespace) -> Vec<u32> {
    namespace.enter(
        || match aya::programs::SchedClassifier::query_tcx("one", aya::programs::TcAttachType::Ingress) {
            Ok((_, programs)) => programs.iter().map(aya::programs::ProgramInfo::id).collect(),
            Err(_) => programs_of_filters("one"),
        },
    )
}

/// As `tc` tells: `... direct-action not_in_hw id 7 name overlay_egress ...`.
fn programs_of_filters(interface: &str) -> Vec<u32> {
    if !run("tc", &["qdisc", "show", "dev", interface]).contains("clsact") {
        return Vec::new();
    }
    let shown = run("tc", &["filter", "show", "dev", interface, "ingress"]);
    let mut words = shown.split_whitespace();
    let mut ids = Vec::new();
    while let Some(word) = words.next() {
        if word == "id" {
            ids.extend(words.next().and_then(|id| id.parse::<u32>().ok()));
        }
    }
    ids
}

fn refusal(config: &Config) -> String {
    let refusal = Dataplane::load(config).unwrap_err().to_string();
    assert!(!refusal.contains('\n'), "{refusal}");
    refusal
}

#[test]
fn an_ordinary_restart_keeps_the_generation_and_replaces_the_program_at_once() {
    let config = config();
    let (namespace, kept) = left_behind(&config);
    let (before, old) = (pinned(&config.pin_directory), program(&namespace));
    // Filters are found where the interface is.
    let second = namespace.enter(|| Loaded::new(&config));
    assert_eq!(pinned(&config.pin_directory), before);
    assert_eq!(second.dump("flows").unwrap().entries, kept);
    let new = program(&namespace);
    assert_eq!(new.len(), 1);
    assert_ne!(new, old, "the link has the new program when loading is done");
}

#[test]
fn maps_of_a_version_that_nobody_knows_are_refused_before_anything_is_touched() {
    let config = config();
    let (namespace, _) = left_behind(&config);
    let unknown = ABI_VERSION + 7;
    let name = format!("maps-4-abi-{unknown}-{}", unknown - 1);
    let directory = rename(&generation(&config.pin_directory), &name);
    let before = (pinned(&config.pin_directory), program(&namespace));
    assert_eq!(
        refusal(&config),
        format!(
            "the maps in {} obey contract version {unknown}, this weftd has {ABI_VERSION} and cannot convert them: start a weftd of that version again, or `weftd --cleanup`, which ends all overlay connections of this host, and then this one",
            directory.display()
        )
    );
    assert_eq!((pinned(&config.pin_directory), program(&namespace)), before);
    rename(&directory, &format!("maps-4-abi-{ABI_VERSION}-{ABI_VERSION}"));
    drop(Loaded::new(&config));
}

#[test]
fn a_map_that_is_not_as_its_version_has_it_is_named_and_nothing_is_touched() {
    let config = config();
    let (namespace, _) = left_behind(&config);
    let directory = generation(&config.pin_directory);
    std::fs::remove_file(directory.join("networks")).unwrap();
    std::fs::hard_link(directory.join("peers"), directory.join("networks")).unwrap();
    let before = (pinned(&config.pin_directory), program(&namespace));
    let refusal = refusal(&config);
    let path = directory.join("networks").display().to_string();
    assert!(
        refusal.starts_with(&format!("pinned map {path} has keys of ")) && refusal.contains("weftd --cleanup"),
        "{refusal}"
    );
    assert_eq!((pinned(&config.pin_directory), program(&namespace)), before);
    namespace.enter(|| clean_up(&config.pin_directory)).unwrap();
    assert!(!config.pin_directory.exists());
    eventually("the program is detached", || program(&namespace).is_empty());
}

#[test]
fn a_newer_version_whose_values_grew_is_gone_back_from() {
    let config = config();
    let (_namespace, kept) = left_behind(&config);
    let name = format!("maps-4-abi-{}-{ABI_VERSION}", ABI_VERSION + 1);
    let directory = rename(&generation(&config.pin_directory), &name);
    let before = pinned(&config.pin_directory);
    std::fs::remove_file(directory.join("flows")).unwrap();
    let mut longer: HashMap<MapData, [u8; LONGER_KEY], [u8; LONGER]> = HashMap::create(1000, 0).unwrap();
    for (key, value) in &kept {
        let (mut key, mut value) = (key.clone(), value.clone());
        key.resize(LONGER_KEY, 0);
        value.resize(LONGER, 0xee);
        let key: [u8; LONGER_KEY] = key.try_into().unwrap();
        let value: [u8; LONGER] = value.try_into().unwrap();
        longer.insert(key, value, 0).unwrap();
    }
    longer.pin(directory.join("flows")).unwrap();
    let back = Loaded::new(&config);
    assert_eq!(back.dump("flows").unwrap().entries, kept);
    let after = pinned(&config.pin_directory);
    let generation = generation(&config.pin_directory);
    assert_eq!(
        generation.file_name().unwrap().to_str().unwrap(),
        format!("maps-5-abi-{ABI_VERSION}-{ABI_VERSION}")
    );
    // Only what changed was made anew.
    for ((old, old_id), (new, new_id)) in before.iter().zip(&after) {
        assert_eq!(old.file_name(), new.file_name());
        // What refers to programs is each generation's own.
        let changed = new.ends_with("flows") || new.ends_with("jumps");
        assert_eq!(old_id == new_id, !changed, "{}", new.display());
    }
}

#[test]
fn what_a_killed_start_left_is_brought_to_its_end() {
    let config = config();
    let (namespace, kept) = left_behind(&config);
    let old = generation(&config.pin_directory);
    // A start that was killed after it had named the new generation: shared maps, and a flows map that lacks an entry.
    let new = old.with_file_name(format!("maps-2-abi-{ABI_VERSION}-{ABI_VERSION}"));
    std::fs::create_dir(&new).unwrap();
    std::fs::create_dir(old.with_file_name("maps-new")).unwrap();
    for (path, _) in pinned(&old) {
        if !path.ends_with("flows") {
            std::fs::hard_link(&path, new.join(path.file_name().unwrap())).unwrap();
        }
    }
    let third = Loaded::new(&config);
    assert_eq!(third.dump("flows").unwrap().entries, kept);
    let named = generation(&config.pin_directory);
    assert!(named > old, "{} is the only one", named.display());
    assert_eq!(program(&namespace).len(), 1);
}

#[test]
fn one_pin_directory_has_one_daemon() {
    let config = config();
    let first = Loaded::new(&config);
    assert_eq!(
        refusal(&config),
        format!(
            "bpf-pin-dir {} is in use by another weftd, process {}: give each weftd of a host its own",
            config.pin_directory.display(),
            std::process::id()
        )
    );
    first.leave();
    drop(Loaded::new(&config));
}
