//! Loading, attaching, pinning: what a restart finds, what is left behind, and what refusals say.
#![allow(clippy::unwrap_used)]

use aya::programs::SchedClassifier;
use aya::programs::TcAttachType;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use weft::dataplane::{AttachMode, Config, Dataplane, Forced, Hook, Removed, clean_up};
use weft_core::reconcile::{Entry, EntryKey, Step};
use weft_dataplane::abi::{ABI_MARK, ABI_VERSION, Attachment, Counter, Network, V6, attachment};
use weft_tests::namespace::{Namespace, eventually, run, unique};
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, CAROL, GATEWAY, Lab, Loaded, NOBODY, VIP, VNI, config, object};

fn interface() -> Namespace {
    let namespace = Namespace::new("wl");
    namespace.ip("link add one type veth peer name other");
    namespace
}

fn attach(dataplane: &mut Dataplane, namespace: &Namespace, ifindex: u32) {
    namespace
        .enter(|| dataplane.attach(Hook::Endpoint, ifindex))
        .unwrap_or_else(|error| panic!("{error}"));
}

/// Identifiers of the programs on the interface's tcx ingress.
fn programs_at(namespace: &Namespace, interface: &str) -> Vec<u32> {
    namespace.enter(|| {
        let (_, programs) = SchedClassifier::query_tcx(interface, TcAttachType::Ingress).unwrap();
        programs.iter().map(aya::programs::ProgramInfo::id).collect()
    })
}

fn network() -> Step {
    Step::Put(Entry::Network(
        VNI,
        Network {
            gateway: GATEWAY.1,
            gateway_mac: GATEWAY.0,
            prefix_len: 24,
            padding: 0,
        },
    ))
}

#[test]
fn a_restart_takes_over_maps_and_links() {
    let (namespace, config) = (interface(), config());
    let ifindex = namespace.ifindex("one");
    let mut first = Loaded::new(&config);
    assert_eq!(first.features().attach_mode(), AttachMode::Tcx);
    first.apply(&[network()]).unwrap();
    attach(&mut first, &namespace, ifindex);
    let present = first.present().unwrap();
    let before = programs_at(&namespace, "one");
    assert_eq!(before.len(), 1);
    first.leave();
    assert_eq!(
        programs_at(&namespace, "one"),
        before,
        "the program stays while no daemon runs"
    );

    let mut second = Loaded::new(&config);
    assert_eq!(second.present().unwrap(), present);
    assert_eq!(second.attached().unwrap(), [(Hook::Endpoint, ifindex)]);
    attach(&mut second, &namespace, ifindex);
    let after = programs_at(&namespace, "one");
    assert_eq!(after.len(), 1);
    assert_ne!(after, before, "the link has the new program");
    attach(&mut second, &namespace, ifindex);
    assert_eq!(programs_at(&namespace, "one"), after);

    second.detach(Hook::Endpoint, ifindex).unwrap();
    assert_eq!(second.attached().unwrap(), []);
    eventually("the program is detached", || programs_at(&namespace, "one").is_empty());
    second.detach(Hook::Endpoint, ifindex).unwrap();
}

#[test]
fn a_new_interface_with_the_index_of_a_lost_one_is_attached() {
    let (namespace, config) = (interface(), config());
    let ifindex = namespace.ifindex("one");
    let mut dataplane = Loaded::new(&config);
    attach(&mut dataplane, &namespace, ifindex);
    namespace.ip("link del one");
    namespace.ip(&format!("link add one index {ifindex} type veth peer name other"));
    assert_eq!(programs_at(&namespace, "one"), Vec::<u32>::new());
    attach(&mut dataplane, &namespace, ifindex);
    assert_eq!(programs_at(&namespace, "one").len(), 1);
}

#[test]
fn an_interface_that_is_gone_is_named_and_can_be_detached() {
    let (namespace, config) = (interface(), config());
    let ifindex = namespace.ifindex("one");
    let mut dataplane = Loaded::new(&config);
    attach(&mut dataplane, &namespace, ifindex);
    namespace.ip("link del one");
    let error = namespace
        .enter(|| dataplane.attach(Hook::Endpoint, ifindex))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no interface has index {ifindex} to attach overlay_egress to")
    );
    dataplane.detach(Hook::Endpoint, ifindex).unwrap();
    assert_eq!(dataplane.attached().unwrap(), []);
}

#[test]
fn a_filter_is_replaced_by_a_restart_and_removed_by_detach() {
    let (namespace, mut config) = (interface(), config());
    config.features = Forced::only(&[("attach", "clsact")]).unwrap();
    let ifindex = namespace.ifindex("one");
    let filters = || {
        let shown = run(
            "tc",
            &["-n", namespace.name(), "filter", "show", "dev", "one", "ingress"],
        );
        shown
            .lines()
            .filter(|line| line.contains("overlay_egress"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut first = Loaded::new(&config);
    assert_eq!(first.features().attach_mode(), AttachMode::Clsact);
    attach(&mut first, &namespace, ifindex);
    let before = filters();
    assert_eq!(before.len(), 1);
    first.leave();
    assert_eq!(filters(), before);

    let mut second = Loaded::new(&config);
    attach(&mut second, &namespace, ifindex);
    let after = filters();
    assert_eq!(after.len(), 1);
    assert_ne!(after, before, "the filter has the new program");
    assert_eq!(second.attached().unwrap(), [(Hook::Endpoint, ifindex)]);
    namespace.enter(|| second.detach(Hook::Endpoint, ifindex)).unwrap();
    assert_eq!(filters(), Vec::<String>::new());
    assert_eq!(second.attached().unwrap(), []);
}

/// The queueing disciplines of an interface that are `clsact`.
fn disciplines(namespace: &Namespace) -> usize {
    let shown = run("tc", &["-n", namespace.name(), "qdisc", "show", "dev", "one"]);
    shown.lines().filter(|line| line.contains("clsact")).count()
}

#[test]
fn what_another_tool_detached_is_put_back() {
    for mode in ["tcx", "clsact"] {
        let (namespace, mut config) = (interface(), config());
        config.features = Forced::only(&[("attach", mode)]).unwrap();
        let ifindex = namespace.ifindex("one");
        let mut dataplane = namespace.enter(|| Loaded::new(&config));
        attach(&mut dataplane, &namespace, ifindex);
        let ensure = |dataplane: &mut Loaded| namespace.enter(|| dataplane.ensure(Hook::Endpoint, ifindex)).unwrap();
        assert!(!ensure(&mut dataplane), "it is there");
        if mode == "clsact" {
            for removed in ["filter del dev one ingress", "qdisc del dev one clsact"] {
                let arguments: Vec<&str> = ["-n", namespace.name()].into_iter().chain(removed.split(' ')).collect();
                run("tc", &arguments);
                assert!(ensure(&mut dataplane), "{removed}");
                assert!(!ensure(&mut dataplane), "{removed}");
            }
        } else {
            std::fs::remove_file(config.pin_directory.join(format!("overlay_egress-{ifindex}"))).unwrap();
            eventually("the program is detached", || programs_at(&namespace, "one").is_empty());
            assert!(ensure(&mut dataplane));
            assert_eq!(programs_at(&namespace, "one").len(), 1);
            assert!(!ensure(&mut dataplane));
        }
        namespace.enter(|| dataplane.detach(Hook::Endpoint, ifindex)).unwrap();
    }
}

#[test]
fn cleaning_up_removes_what_a_dead_daemon_left_but_no_filter_of_others() {
    let (namespace, mut config) = (interface(), config());
    config.features = Forced::only(&[("attach", "clsact")]).unwrap();
    let ifindex = namespace.ifindex("one");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let remove = || {
        namespace.enter(|| {
            runtime.block_on(async {
                let netlink = weft::netlink::Netlink::open().unwrap();
                netlink.remove_empty_clsact(ifindex).await.unwrap()
            })
        })
    };
    let mut dataplane = namespace.enter(|| Loaded::new(&config));
    attach(&mut dataplane, &namespace, ifindex);
    assert!(!remove(), "our filter is there");
    dataplane.leave();
    let removed = namespace.enter(|| clean_up(&config.pin_directory)).unwrap();
    assert_eq!(removed.attached, [(Hook::Endpoint, ifindex)]);
    assert_eq!(removed.disciplines, [ifindex]);
    assert!(!config.pin_directory.exists());
    assert_eq!(disciplines(&namespace), 1);
    // A classic program that takes nothing.
    run(
        "tc",
        &[
            "-n",
            namespace.name(),
            "filter",
            "add",
            "dev",
            "one",
            "egress",
            "bpf",
            "bytecode",
            "1,6 0 0 0",
        ],
    );
    assert!(!remove(), "somebody else's filter is there");
    run("tc", &["-n", namespace.name(), "filter", "del", "dev", "one", "egress"]);
    assert!(remove());
    assert_eq!(disciplines(&namespace), 0);
    assert_eq!(clean_up(&config.pin_directory).unwrap(), Removed::default());
}

#[test]
fn a_pin_directory_with_pins_of_others_is_not_cleaned() {
    let config = config();
    let dataplane = Loaded::new(&config);
    dataplane.leave();
    let other = config.pin_directory.join("theirs");
    std::fs::create_dir(&other).unwrap();
    let refusal = clean_up(&config.pin_directory).unwrap_err().to_string();
    assert!(
        refusal.contains("\"theirs\"") && refusal.contains("nothing was removed"),
        "{refusal}"
    );
    std::fs::remove_dir(&other).unwrap();
    assert!(clean_up(&config.pin_directory).unwrap().pins);
}

#[test]
fn removing_leaves_nothing() {
    let (namespace, config) = (interface(), config());
    let ifindex = namespace.ifindex("one");
    let mut dataplane = Dataplane::load(&config).unwrap();
    attach(&mut dataplane, &namespace, ifindex);
    assert!(dataplane.pin_of("flows").exists());
    dataplane.remove().unwrap();
    assert!(!config.pin_directory.exists());
    // The kernel lets go of a link a moment after its last pin is gone.
    eventually("the program is detached", || programs_at(&namespace, "one").is_empty());
}

#[test]
fn a_full_map_is_named_with_its_limit_and_the_other_steps_are_done() {
    let config = config();
    let mut dataplane = Loaded::new(&config);
    let attachment = Attachment {
        vni: VNI,
        ip: ALICE.1,
        gateway: GATEWAY.1,
        mac: ALICE.0,
        gateway_mac: GATEWAY.0,
        ip6: V6::UNSPECIFIED,
        gateway6: V6::UNSPECIFIED,
    };
    let mut steps: Vec<Step> = (1..=attachment::MAX_ENTRIES + 2)
        .map(|ifindex| Step::Put(Entry::Attachment(ifindex, attachment)))
        .collect();
    steps.push(network());
    let total = steps.len();
    let error = dataplane.apply(&steps).unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "2 of {total} map steps failed, the first: map attachments is full: it holds 4096 entries at most; max-endpoints sets more"
        )
    );
    let present = dataplane.present().unwrap();
    assert_eq!((present.attachments.len(), present.networks.len()), (4096, 1));
    dataplane
        .apply(&[
            Step::Remove(EntryKey::Attachment(1)),
            Step::Remove(EntryKey::Attachment(1)),
        ])
        .unwrap();
    assert_eq!(dataplane.present().unwrap().attachments.len(), 4095);
}

#[test]
fn maps_are_dumped_and_summed_up() {
    let lab = Lab::new();
    lab.from_alice(&Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes());
    lab.from_alice(&Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Udp(1, 2, vec![])).bytes());
    let sizes: Vec<(String, u64)> = lab
        .dataplane
        .summaries()
        .unwrap()
        .into_iter()
        .map(|summary| (summary.name, summary.entries))
        .collect();
    let expected = [
        ("attachments", 2),
        ("networks", 1),
        ("clamps", 0),
        ("endpoints", 2),
        ("endpoints6", 0),
        ("peers", 3),
        ("peers6", 0),
        ("nodes", 1),
        ("services", 3),
        ("services6", 0),
        ("backends", 4),
        ("backends6", 0),
        ("rotations", 1),
        ("rotations6", 0),
        ("maglev_tables", 0),
        ("maglev_tables6", 0),
        ("maglev", 0),
        ("maglev_members", 0),
        ("maglev_members6", 0),
        ("weights", 0),
        ("weights6", 0),
        ("loads", 0),
        ("loads6", 0),
        ("affinities", 0),
        ("affinities6", 0),
        ("flows", 2),
        ("flows6", 0),
        ("fragments", 0),
        ("fragments6", 0),
        ("answers", 0),
        ("namespaces", 0),
        ("sockets", 0),
        ("counters", Counter::ALL.len() as u64),
    ];
    assert_eq!(sizes, expected.map(|(name, entries)| (name.to_owned(), entries)));
    for (name, entries) in expected {
        let dump = lab.dataplane.dump(name).unwrap();
        assert_eq!((dump.entries.len() as u64, dump.truncated), (entries, false), "{name}");
    }
    let sent = lab.dataplane.dump("counters").unwrap().entries[Counter::Encapsulated as usize].clone();
    assert_eq!(sent, (0_u32.to_ne_bytes().to_vec(), 2_u64.to_ne_bytes().to_vec()));
    assert_eq!(
        lab.dataplane.dump("flow").unwrap_err().to_string(),
        "no map is named \"flow\": there are attachments, networks, clamps, endpoints, endpoints6, peers, peers6, nodes, services, services6, backends, backends6, rotations, rotations6, maglev_tables, maglev_tables6, maglev, maglev_members, maglev_members6, weights, weights6, loads, loads6, affinities, affinities6, flows, flows6, fragments, fragments6, answers, namespaces, sockets, counters"
    );
}

#[test]
fn removing_a_virtual_ip_removes_its_turn() {
    let mut lab = Lab::new();
    lab.from_alice(&Datagram::new(ALICE, (GATEWAY.0, VIP), Payload::Udp(1, 2, vec![])).bytes());
    assert_eq!(lab.dataplane.dump("rotations").unwrap().entries.len(), 1);
    lab.apply(&[Step::Remove(EntryKey::Service(weft_tests::programs::at(VIP)))]);
    assert_eq!(lab.dataplane.dump("rotations").unwrap().entries.len(), 0);
}

/// A changed copy of the object; removed when dropped.
struct Changed(PathBuf);

impl Changed {
    fn new(change: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = std::fs::read(object()).unwrap();
        change(&mut bytes);
        let path = std::env::temp_dir().join(unique("weft-object"));
        std::fs::write(&path, bytes).unwrap();
        Changed(path)
    }

    /// What loading it says; nothing may be pinned then.
    fn refusal(&self) -> String {
        let config = Config {
            object: Some(self.0.clone()),
            ..config()
        };
        let refusal = Dataplane::load(&config).unwrap_err().to_string();
        assert!(
            !config.pin_directory.exists(),
            "{} was left behind",
            config.pin_directory.display()
        );
        refusal
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn mark(bytes: &[u8]) -> usize {
    bytes
        .windows(ABI_MARK.len())
        .position(|window| window == ABI_MARK)
        .unwrap()
}

#[test]
fn an_object_of_another_version_is_refused_in_a_line_with_both() {
    let object = Changed::new(|bytes| {
        let version = mark(bytes) + ABI_MARK.len();
        bytes[version] += 1;
    });
    assert_eq!(
        object.refusal(),
        format!(
            "eBPF object {} has contract version {}, this weftd has {ABI_VERSION}: build both from the same source",
            object.0.display(),
            ABI_VERSION + 1
        )
    );
}

#[test]
fn a_file_that_is_no_object_is_refused() {
    let unmarked = Changed::new(|bytes| {
        let mark = mark(bytes);
        bytes[mark] ^= 1;
    });
    assert!(
        unmarked.refusal().contains("is no eBPF object of weft"),
        "{}",
        unmarked.refusal()
    );
    let cut = Changed::new(|bytes| {
        let mark = mark(bytes);
        bytes.drain(..mark);
    });
    let refusal = cut.refusal();
    assert!(
        refusal.starts_with("eBPF object ") && refusal.contains(" cannot be loaded: "),
        "{refusal}"
    );
    assert!(!refusal.contains('\n'), "{refusal}");
}

#[test]
fn what_the_verifier_refuses_is_told_in_its_own_words() {
    let object = Changed::new(|bytes| {
        let text = section(bytes, "classifier");
        // The first instruction of the first program becomes `r0 = r9`, which has no value yet.
        bytes[text..text + 8].copy_from_slice(&[0xbf, 0x90, 0, 0, 0, 0, 0, 0]);
    });
    let refusal = object.refusal();
    assert!(refusal.contains("the kernel's verifier refused program "), "{refusal}");
    assert!(
        refusal.ends_with("R9 !read_ok (Permission denied (os error 13)); `--log-level debug` shows its whole log"),
        "{refusal}"
    );
    assert!(!refusal.contains('\n'), "{refusal}");
}

/// Where the content of an ELF file's section starts (ELF-64, gABI chapter 4).
fn section(elf: &[u8], name: &str) -> usize {
    let number = |at: usize, length: usize| {
        elf[at..at + length]
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (table, size, count, names) = (number(40, 8), number(58, 2), number(60, 2), number(62, 2));
    let content = |index: usize| number(table + index * size + 24, 8);
    (0..count)
        .find(|index| {
            let start = content(names) + number(table + index * size, 4);
            elf[start..].starts_with(name.as_bytes()) && elf[start + name.len()] == 0
        })
        .map(content)
        .unwrap()
}

#[test]
fn a_pin_directory_elsewhere_is_refused() {
    let config = Config {
        pin_directory: PathBuf::from("/proc/weft"),
        ..config()
    };
    assert_eq!(
        Dataplane::load(&config).unwrap_err().to_string(),
        "pin directory /proc/weft is not on a BPF filesystem: choose one below /sys/fs/bpf"
    );
}

/// Keeps the texts of events.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "weft::programs"
    }

    fn new_span(&self, _span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _span: &tracing::span::Id, _values: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _span: &tracing::span::Id, _follows: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text<'a>(&'a mut Vec<String>);
        impl tracing::field::Visit for Text<'_> {
            fn record_debug(&mut self, _field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push(format!("{value:?}"));
            }
        }
        event.record(&mut Text(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _span: &tracing::span::Id) {}

    fn exit(&self, _span: &tracing::span::Id) {}
}

#[test]
fn drops_are_logged_at_trace_if_that_is_wanted() {
    let namespace = interface();
    let ifindex = namespace.ifindex("one");
    let packet = Datagram::new(ALICE, NOBODY, Payload::Echo(1)).bytes();
    let mut silent = Loaded::new(&config());
    assert!(silent.take_log().is_none());
    let mut loaded = Loaded::new(&Config {
        log_drops: true,
        ..config()
    });
    let mut log = loaded.take_log().unwrap();
    namespace
        .enter(|| loaded.test_run(Hook::Endpoint, ifindex, &packet))
        .unwrap();
    let recorder = Recorder::default();
    tracing::subscriber::with_default(recorder.clone(), || log.flush());
    assert_eq!(
        *recorder.0.lock().unwrap(),
        [format!(
            "dropped: counter={} ifindex={ifindex} length={}",
            Counter::DropNotAttached as u32,
            packet.len()
        )]
    );
}
