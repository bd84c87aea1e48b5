//! Every map, behind a safe look-up. Values are copied out, so no reference into a map outlives its entry.
#![allow(unsafe_code)]

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Counter, Endpoint, Flow, FlowKey, Network, Node, OverlayAddress, Peer, Service,
    VXLAN_PORT, answer, attachment, backend, counter, endpoint, flow, network, node, peer, service,
};

/// UDP port of the data path; the loader sets it.
#[unsafe(no_mangle)]
static DATA_PATH_PORT: Global<u16> = Global::new(VXLAN_PORT);

macro_rules! maps {
    ($($name:literal is $constant:path, $ident:ident: $type:ty = $value:expr;)+) => {
        $(
            const _: () = assert!(same($name, $constant));

            #[map(name = $name)]
            static $ident: $type = $value;
        )+
    };
}

/// Whether the name in the object is the name in the contract.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

maps! {
    "attachments" is attachment::NAME, ATTACHMENTS: HashMap<u32, Attachment> = HashMap::with_max_entries(attachment::MAX_ENTRIES, 0);
    "networks" is network::NAME, NETWORKS: HashMap<u32, Network> = HashMap::with_max_entries(network::MAX_ENTRIES, 0);
    "endpoints" is endpoint::NAME, ENDPOINTS: HashMap<OverlayAddress, Endpoint> = HashMap::with_max_entries(endpoint::MAX_ENTRIES, 0);
    "peers" is peer::NAME, PEERS: HashMap<OverlayAddress, Peer> = HashMap::with_max_entries(peer::MAX_ENTRIES, 0);
    "nodes" is node::NAME, NODES: HashMap<[u8; 4], Node> = HashMap::with_max_entries(node::MAX_ENTRIES, 0);
    "services" is service::NAME, SERVICES: HashMap<OverlayAddress, Service> = HashMap::with_max_entries(service::MAX_ENTRIES, 0);
    "backends" is backend::NAME, BACKENDS: HashMap<BackendKey, Backend> = HashMap::with_max_entries(backend::MAX_ENTRIES, 0);
    "rotations" is service::ROTATION_NAME, ROTATIONS: HashMap<OverlayAddress, u32> = HashMap::with_max_entries(service::MAX_ENTRIES, 0);
    "flows" is flow::NAME, FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(flow::MAX_ENTRIES, 0);
    "answers" is answer::NAME, ANSWERS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(answer::MAX_ENTRIES, 0);
    "counters" is counter::NAME, COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::MAX_ENTRIES, 0);
}

macro_rules! look_up {
    ($(#[doc = $doc:literal])+ $name:ident, $map:ident, $key:ty => $value:ty) => {
        $(#[doc = $doc])+
        #[inline(always)]
        pub(super) fn $name(key: &$key) -> Option<$value> {
            // SAFETY: an entry's memory stays mapped for the whole run of the program. The control plane may replace the entry
            // meanwhile, then the copy may mix old and new bytes; each value is valid with any bytes, and the next packet reads
            // the new ones. Needed because a look-up gives a pointer.
            $map.get_ptr(key).map(|value| unsafe { *value })
        }
    };
}

look_up! {
    /// The overlay that an interface belongs to.
    attachment, ATTACHMENTS, u32 => Attachment
}
look_up! {
    /// A network that this node takes part in.
    network, NETWORKS, u32 => Network
}
look_up! {
    /// A local endpoint.
    endpoint, ENDPOINTS, OverlayAddress => Endpoint
}
look_up! {
    /// A remote endpoint.
    peer, PEERS, OverlayAddress => Peer
}
look_up! {
    /// The way to a VTEP.
    node, NODES, [u8; 4] => Node
}
look_up! {
    /// A virtual IP.
    service, SERVICES, OverlayAddress => Service
}
look_up! {
    /// A slot of a virtual IP.
    backend, BACKENDS, BackendKey => Backend
}
look_up! {
    /// A balanced connection.
    flow, FLOWS, FlowKey => Flow
}

/// Remembers a connection, or what changed of it; false if the map refused.
#[inline(always)]
pub(super) fn put_flow(key: &FlowKey, flow: &Flow) -> bool {
    FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_ok()
}

/// Forgets a connection.
#[inline(always)]
pub(super) fn remove_flow(key: &FlowKey) {
    let _ = FLOWS.remove(key);
}

/// How many connections to a virtual IP there were before this one; `None` if the map is full.
#[inline(always)]
pub(super) fn next_rotation(vip: &OverlayAddress) -> Option<u32> {
    let position = match ROTATIONS.get_ptr_mut(vip) {
        Some(position) => position,
        None => {
            let _ = ROTATIONS.insert(vip, 0, u64::from(BPF_NOEXIST));
            ROTATIONS.get_ptr_mut(vip)?
        }
    };
    let mut turn = 1_u64;
    // SAFETY: an entry's memory stays mapped for the whole run of the program and is aligned to 8 bytes; all writers use this
    // instruction. Needed because the BPF target of Rust has no 32-bit atomics, while the kernel has them since 5.12.
    unsafe {
        core::arch::asm!(
            "w2 = atomic_fetch_add((u32 *)(r1 + 0), w2)",
            inout("r2") turn,
            in("r1") position,
        );
    }
    Some(turn as u32)
}

/// Whether one more ICMP error may be sent to the container behind `ifindex`; if so it is on the account. Two processors at once may
/// send one more.
#[inline(always)]
pub(super) fn admit_answer(ifindex: u32, now_ns: u64) -> bool {
    // SAFETY: as in `look_up!`.
    let paid = ANSWERS.get_ptr(&ifindex).map_or(0, |paid| unsafe { *paid });
    match answer::admit(paid, now_ns) {
        Some(paid) => ANSWERS.insert(&ifindex, &paid, u64::from(BPF_ANY)).is_ok(),
        None => false,
    }
}

/// Counts a packet.
#[inline(always)]
pub(super) fn count(counter: Counter) {
    if let Some(packets) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the slot belongs to this CPU, on which programs of this kind do not interrupt each other. Needed because a look-up
        // gives a pointer.
        unsafe { *packets += 1 };
    }
}

/// UDP port of the data path, network order.
#[inline(always)]
pub(super) fn data_path_port() -> [u8; 2] {
    DATA_PATH_PORT.load().to_be_bytes()
}
