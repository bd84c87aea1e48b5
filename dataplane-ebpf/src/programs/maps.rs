//! Every map, behind a safe look-up.
//!
//! A look-up borrows the value where it lies: its memory stays for the whole run of a program, which cannot keep anything longer. The
//! control plane may replace an entry meanwhile, and the kernel may give the memory to another entry of the same map at once; then what
//! is read may mix old and new. Each value is valid with any bytes, and the next packet reads the new ones.
#![allow(unsafe_code)]

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_ANY, BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray};
use aya_ebpf::programs::TcContext;
use weft_dataplane::abi::flow::Timeouts;
use weft_dataplane::abi::front::{LinkSlot, NodeSlot, PlaceSlot};
use weft_dataplane::abi::{
    Attachment, Backend, BackendKey, Clamp, Counter, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Ip, Neighbor,
    Network, Node, OverlayAddress, Peer, Service, V4, V6, VXLAN_PORT, answer, attachment, backend, clamp, counter,
    endpoint, flow, fragment, front, jump, neighbor, network, node, peer, scratch, service,
};

/// UDP port of the data path; the loader sets it.
#[unsafe(no_mangle)]
static DATA_PATH_PORT: Global<u16> = Global::new(VXLAN_PORT);

macro_rules! timeouts {
    ($($ident:ident = $default:ident;)+) => {
        $(
            #[unsafe(no_mangle)]
            static $ident: Global<u32> = Global::new(Timeouts::DEFAULT.$default);
        )+
    };
}

// In ticks; the loader sets them.
timeouts! {
    TCP_OPENING_TICKS = tcp_opening;
    TCP_ESTABLISHED_TICKS = tcp_established;
    TCP_FINISHED_TICKS = tcp_finished;
    TCP_RESET_TICKS = tcp_reset;
    UDP_TICKS = udp;
    UDP_ANSWERED_TICKS = udp_answered;
}

/// The time-outs of flows.
#[inline(always)]
pub(super) fn timeouts() -> Timeouts {
    Timeouts {
        tcp_opening: TCP_OPENING_TICKS.load(),
        tcp_established: TCP_ESTABLISHED_TICKS.load(),
        tcp_finished: TCP_FINISHED_TICKS.load(),
        tcp_reset: TCP_RESET_TICKS.load(),
        udp: UDP_TICKS.load(),
        udp_answered: UDP_ANSWERED_TICKS.load(),
    }
}

/// Size of the ring of flows; the loader sets it with the size of the map.
#[unsafe(no_mangle)]
static RING_SIZE: Global<u32> = Global::new(flow::RING_ENTRIES);
/// The same for IPv6.
#[unsafe(no_mangle)]
static RING_SIZE6: Global<u32> = Global::new(flow::RING_ENTRIES);

/// Size of a family's ring of flows, at least 1.
#[inline(always)]
fn ring_size(set: &Global<u32>) -> u32 {
    match set.load() {
        0 => 1,
        size => size,
    }
}

macro_rules! maps {
    ($($name:literal is $constant:path, $ident:ident: $type:ty = $value:expr;)+) => {
        $(
            const _: () = assert!($crate::programs::maps::same($name, $constant));

            #[map(name = $name)]
            static $ident: $type = $value;
        )+
    };
}

pub(super) use maps;

/// Whether the name in the object is the name in the contract.
pub(super) const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

/// Hash maps take the memory of an entry when it comes: their limits are for clusters a hundred times larger than most.
pub(super) const AS_NEEDED: u32 = BPF_F_NO_PREALLOC;

maps! {
    "attachments" is attachment::NAME, ATTACHMENTS: HashMap<u32, Attachment> = HashMap::with_max_entries(attachment::MAX_ENTRIES, AS_NEEDED);
    "networks" is network::NAME, NETWORKS: HashMap<u32, Network> = HashMap::with_max_entries(network::MAX_ENTRIES, AS_NEEDED);
    "clamps" is clamp::NAME, CLAMPS: HashMap<u32, Clamp> = HashMap::with_max_entries(clamp::MAX_ENTRIES, AS_NEEDED);
    "endpoints" is endpoint::NAME, ENDPOINTS: HashMap<OverlayAddress<V4>, Endpoint> = HashMap::with_max_entries(endpoint::MAX_ENTRIES, AS_NEEDED);
    "endpoints6" is endpoint::NAME6, ENDPOINTS6: HashMap<OverlayAddress<V6>, Endpoint> = HashMap::with_max_entries(endpoint::MAX_ENTRIES, AS_NEEDED);
    "peers" is peer::NAME, PEERS: HashMap<OverlayAddress<V4>, Peer> = HashMap::with_max_entries(peer::MAX_ENTRIES, AS_NEEDED);
    "peers6" is peer::NAME6, PEERS6: HashMap<OverlayAddress<V6>, Peer> = HashMap::with_max_entries(peer::MAX_ENTRIES, AS_NEEDED);
    "nodes" is node::NAME, NODES: HashMap<V6, Node> = HashMap::with_max_entries(node::MAX_ENTRIES, AS_NEEDED);
    "services" is service::NAME, SERVICES: HashMap<OverlayAddress<V4>, Service> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "services6" is service::NAME6, SERVICES6: HashMap<OverlayAddress<V6>, Service> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "backends" is backend::NAME, BACKENDS: HashMap<BackendKey<V4>, Backend<V4>> = HashMap::with_max_entries(backend::MAX_ENTRIES, AS_NEEDED);
    "backends6" is backend::NAME6, BACKENDS6: HashMap<BackendKey<V6>, Backend<V6>> = HashMap::with_max_entries(backend::MAX_ENTRIES, AS_NEEDED);
    "rotations" is service::ROTATION_NAME, ROTATIONS: HashMap<OverlayAddress<V4>, u32> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "rotations6" is service::ROTATION_NAME6, ROTATIONS6: HashMap<OverlayAddress<V6>, u32> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "flows" is flow::NAME, FLOWS: HashMap<FlowKey<V4>, Flow<V4>> = HashMap::with_max_entries(flow::MAX_ENTRIES, AS_NEEDED);
    "flows6" is flow::NAME6, FLOWS6: HashMap<FlowKey<V6>, Flow<V6>> = HashMap::with_max_entries(flow::MAX_ENTRIES, AS_NEEDED);
    "flow_ring" is flow::RING_NAME, FLOW_RING: Array<FlowKey<V4>> = Array::with_max_entries(flow::RING_ENTRIES, 0);
    "flow_ring6" is flow::RING_NAME6, FLOW_RING6: Array<FlowKey<V6>> = Array::with_max_entries(flow::RING_ENTRIES, 0);
    "flow_hands" is flow::HAND_NAME, FLOW_HANDS: Array<u32> = Array::with_max_entries(flow::HAND_ENTRIES, 0);
    "fragments" is fragment::NAME, FRAGMENTS: LruHashMap<FragmentKey<V4>, FragmentPorts> = LruHashMap::with_max_entries(fragment::MAX_ENTRIES, 0);
    "fragments6" is fragment::NAME6, FRAGMENTS6: LruHashMap<FragmentKey<V6>, FragmentPorts> = LruHashMap::with_max_entries(fragment::MAX_ENTRIES, 0);
    "answers" is answer::NAME, ANSWERS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(answer::MAX_ENTRIES, 0);
    "jumps" is jump::NAME, JUMPS: ProgramArray = ProgramArray::with_max_entries(jump::MAX_ENTRIES, 0);
    "scratch" is scratch::NAME, SCRATCH: PerCpuArray<Scratch<V4>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
    "scratch6" is scratch::NAME6, SCRATCH6: PerCpuArray<Scratch<V6>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
    "new_flow" is scratch::NEW_FLOW_NAME, NEW_FLOW: PerCpuArray<Flow<V4>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
    "new_flow6" is scratch::NEW_FLOW_NAME6, NEW_FLOW6: PerCpuArray<Flow<V6>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
    "front_places" is front::PLACES_NAME, FRONT_PLACES: Array<PlaceSlot> = Array::with_max_entries(front::PLACES, 0);
    "front_nodes" is front::NODES_NAME, FRONT_NODES: Array<NodeSlot> = Array::with_max_entries(front::NODES, 0);
    "front_links" is front::LINKS_NAME, FRONT_LINKS: Array<LinkSlot> = Array::with_max_entries(front::LINKS, 0);
    "neighbors" is neighbor::NAME, NEIGHBORS: Array<Neighbor> = Array::with_max_entries(neighbor::MAX_ENTRIES, 0);
    "counters" is counter::NAME, COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::MAX_ENTRIES, 0);
}

macro_rules! look_up {
    ($(#[doc = $doc:literal])+ $name:ident, $map:ident, $key:ty => $value:ty) => {
        $(#[doc = $doc])+
        #[inline(always)]
        pub(super) fn $name(key: &$key) -> Option<&'static $value> {
            // SAFETY: see the module's documentation. Needed because a look-up gives a pointer.
            $map.get_ptr(key).map(|value| unsafe { &*value })
        }
    };
}

look_up! {
    /// Whether the VNI is weft's.
    network, NETWORKS, u32 => Network
}

/// What fits into a network that wants new TCP connections to know.
#[inline(always)]
pub(super) fn clamp(vni: &u32) -> Option<&'static Clamp> {
    // SAFETY: as in `look_up!`.
    CLAMPS.get_ptr(vni).map(|value| unsafe { &*value })
}

look_up! {
    /// The overlay of an interface.
    attachment, ATTACHMENTS, u32 => Attachment
}
look_up! {
    /// The way to a VTEP.
    node, NODES, V6 => Node
}

// Only the programs that carry the load look into the fronts of these two: each doubles what the verifier walks through behind it.

/// The overlay of an interface, by its slot if that holds it.
#[inline(always)]
pub(super) fn attachment_by_slot(ifindex: &u32) -> Option<&'static Attachment> {
    // SAFETY: as in `look_up!`.
    let slot = FRONT_LINKS
        .get_ptr(front::link_of(*ifindex))
        .map(|slot| unsafe { &*slot });
    match slot {
        Some(slot) if slot.ifindex == *ifindex => Some(&slot.attachment),
        _ => attachment(ifindex),
    }
}

/// The way to a VTEP, by its slot if that holds it.
#[inline(always)]
pub(super) fn node_by_slot(vtep: &V6) -> Option<&'static Node> {
    // SAFETY: as in `look_up!`.
    let slot = FRONT_NODES.get_ptr(front::node_of(vtep)).map(|slot| unsafe { &*slot });
    match slot {
        Some(slot) if slot.vtep == *vtep => Some(&slot.node),
        _ => node(vtep),
    }
}

/// The link addresses on the way to a VTEP over IPv4 by this device, while they are known.
#[inline(always)]
pub(super) fn neighbor(vtep: &V6, ifindex: u32, now: u32) -> Option<&'static Neighbor> {
    // SAFETY: as in `look_up!`.
    let slot = NEIGHBORS
        .get_ptr(neighbor::slot_of(vtep))
        .map(|slot| unsafe { &*slot })?;
    slot.holds(vtep.last_four(), ifindex, now).then_some(slot)
}

/// What an address is, if it is one thing and its slot holds it.
#[inline(always)]
pub(super) fn place(key: &OverlayAddress<V4>) -> Option<PlaceSlot> {
    // SAFETY: as in `look_up!`.
    let slot = FRONT_PLACES
        .get_ptr(front::place_of(key))
        .map(|slot| unsafe { *slot })?;
    slot.is_of(key).then_some(slot)
}

/// IPv6 addresses have no front.
#[inline(always)]
fn no_place(_key: &OverlayAddress<V6>) -> Option<PlaceSlot> {
    None
}

/// Room for keys and values on their way into a map.
#[repr(C, align(8))]
pub(super) struct Scratch<A: Ip> {
    /// The key of a flow's other direction.
    pub(super) twin_key: FlowKey<A>,
    /// What that becomes.
    pub(super) twin: Flow<A>,
    /// The key of another flow.
    pub(super) other: FlowKey<A>,
    /// The network of a packet that another program goes on with.
    pub(super) vni: u64,
}

/// The maps of one family of addresses.
pub(super) trait FamilyMaps {
    /// Its addresses.
    type Ip: Ip;

    /// A local endpoint.
    fn endpoint(key: &OverlayAddress<Self::Ip>) -> Option<&'static Endpoint>;
    /// A remote endpoint.
    fn peer(key: &OverlayAddress<Self::Ip>) -> Option<&'static Peer>;
    /// A virtual IP.
    fn service(key: &OverlayAddress<Self::Ip>) -> Option<&'static Service>;
    /// A slot of a virtual IP.
    fn backend(key: &BackendKey<Self::Ip>) -> Option<&'static Backend<Self::Ip>>;
    /// How many connections to a virtual IP there were before this one; `None` if the map is full.
    fn next_rotation(vip: &OverlayAddress<Self::Ip>) -> Option<u32>;
    /// A balanced connection.
    fn flow(key: &FlowKey<Self::Ip>) -> Option<FlowEntry<Self::Ip>>;
    /// Remembers a connection; false if the map refused.
    fn put_flow(key: &FlowKey<Self::Ip>, flow: &Flow<Self::Ip>) -> bool;
    /// Forgets a connection.
    fn remove_flow(key: &FlowKey<Self::Ip>);
    /// The connection in a slot of the ring.
    fn ring(slot: u32) -> Option<&'static FlowKey<Self::Ip>>;
    /// Puts a connection into a slot of the ring.
    fn put_ring(slot: u32, key: &FlowKey<Self::Ip>);
    /// The ring's next position.
    fn next_slot() -> Option<u32>;
    /// The ports of a packet in fragments.
    fn fragment(key: &FragmentKey<Self::Ip>) -> Option<FragmentPorts>;
    /// A connection about to be remembered, or what a packet is translated to where that is in no map.
    fn new_flow() -> Option<&'static mut Flow<Self::Ip>>;
    /// Room for what a program's stack has none for.
    fn scratch() -> Option<&'static mut Scratch<Self::Ip>>;
    /// Remembers the ports of a packet in fragments.
    fn put_fragment(key: &FragmentKey<Self::Ip>, ports: &FragmentPorts);
}

macro_rules! family_maps {
    ($family:ty, $ip:ty, $place:ident, $hand:literal, $ring_size:ident, $endpoints:ident, $peers:ident, $services:ident, $backends:ident, $rotations:ident, $flows:ident, $ring:ident, $fragments:ident, $scratch:ident, $new_flow:ident) => {
        impl FamilyMaps for $family {
            type Ip = $ip;

            #[inline(always)]
            fn endpoint(key: &OverlayAddress<$ip>) -> Option<&'static Endpoint> {
                if $place(key).is_some_and(|slot| slot.kind() != front::ENDPOINT) {
                    return None;
                }
                // SAFETY: as in `look_up!`.
                $endpoints.get_ptr(key).map(|value| unsafe { &*value })
            }

            #[inline(always)]
            fn peer(key: &OverlayAddress<$ip>) -> Option<&'static Peer> {
                if $place(key).is_some_and(|slot| slot.kind() != front::PEER) {
                    return None;
                }
                // SAFETY: as in `look_up!`.
                $peers.get_ptr(key).map(|value| unsafe { &*value })
            }

            #[inline(always)]
            fn service(key: &OverlayAddress<$ip>) -> Option<&'static Service> {
                if $place(key).is_some_and(|slot| slot.kind() != front::SERVICE) {
                    return None;
                }
                // SAFETY: as in `look_up!`.
                $services.get_ptr(key).map(|value| unsafe { &*value })
            }

            #[inline(always)]
            fn backend(key: &BackendKey<$ip>) -> Option<&'static Backend<$ip>> {
                // SAFETY: as in `look_up!`.
                $backends.get_ptr(key).map(|value| unsafe { &*value })
            }

            #[inline(always)]
            fn next_rotation(vip: &OverlayAddress<$ip>) -> Option<u32> {
                let position = match $rotations.get_ptr_mut(vip) {
                    Some(position) => position,
                    None => {
                        let _ = $rotations.insert(vip, 0, u64::from(BPF_NOEXIST));
                        $rotations.get_ptr_mut(vip)?
                    }
                };
                Some(fetch_add(position))
            }

            #[inline(always)]
            fn flow(key: &FlowKey<$ip>) -> Option<FlowEntry<$ip>> {
                $flows.get_ptr_mut(key).map(|entry| FlowEntry { entry })
            }

            #[inline(always)]
            fn put_flow(key: &FlowKey<$ip>, flow: &Flow<$ip>) -> bool {
                $flows.insert(key, flow, u64::from(BPF_ANY)).is_ok()
            }

            #[inline(always)]
            fn remove_flow(key: &FlowKey<$ip>) {
                let _ = $flows.remove(key);
            }

            #[inline(always)]
            fn ring(slot: u32) -> Option<&'static FlowKey<$ip>> {
                // SAFETY: as in `look_up!`; a key half written is that of no flow.
                $ring.get_ptr(slot).map(|key| unsafe { &*key })
            }

            #[inline(always)]
            fn put_ring(slot: u32, key: &FlowKey<$ip>) {
                if let Some(place) = $ring.get_ptr_mut(slot) {
                    // SAFETY: the slot's memory is the map's and stays; two writers at once leave a key of no flow, or of one of
                    // theirs. Needed because an array's value is written in place.
                    unsafe { *place = *key };
                }
            }

            #[inline(always)]
            fn next_slot() -> Option<u32> {
                FLOW_HANDS
                    .get_ptr_mut($hand)
                    .map(|hand| fetch_add(hand) % ring_size(&$ring_size))
            }

            #[inline(always)]
            fn new_flow() -> Option<&'static mut Flow<$ip>> {
                // SAFETY: as in `scratch`.
                $new_flow.get_ptr_mut(0).map(|flow| unsafe { &mut *flow })
            }

            #[inline(always)]
            fn scratch() -> Option<&'static mut Scratch<$ip>> {
                // SAFETY: the memory is this CPU's own, on which programs of this kind do not interrupt each other, and one run asks
                // for it where no earlier answer is in use. Needed because a look-up gives a pointer.
                $scratch.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch })
            }

            #[inline(always)]
            fn fragment(key: &FragmentKey<$ip>) -> Option<FragmentPorts> {
                // SAFETY: as in `look_up!`.
                $fragments.get_ptr(key).map(|value| unsafe { *value })
            }

            #[inline(always)]
            fn put_fragment(key: &FragmentKey<$ip>, ports: &FragmentPorts) {
                let _ = $fragments.insert(key, ports, u64::from(BPF_ANY));
            }
        }
    };
}

family_maps!(
    super::family::Inet,
    V4,
    place,
    0,
    RING_SIZE,
    ENDPOINTS,
    PEERS,
    SERVICES,
    BACKENDS,
    ROTATIONS,
    FLOWS,
    FLOW_RING,
    FRAGMENTS,
    SCRATCH,
    NEW_FLOW
);
family_maps!(
    super::family::Inet6,
    V6,
    no_place,
    1,
    RING_SIZE6,
    ENDPOINTS6,
    PEERS6,
    SERVICES6,
    BACKENDS6,
    ROTATIONS6,
    FLOWS6,
    FLOW_RING6,
    FRAGMENTS6,
    SCRATCH6,
    NEW_FLOW6
);

/// An entry of `flows`, in its place.
#[derive(Clone, Copy)]
pub(super) struct FlowEntry<A: Ip> {
    entry: *mut Flow<A>,
}

impl<A: Ip> FlowEntry<A> {
    /// The entry, as it was when it was found. Its translation is written once.
    #[inline(always)]
    pub(super) fn get(&self) -> &'static Flow<A> {
        // SAFETY: see the module's documentation. What is written in place meanwhile, by `see` and `add`, is read before. Needed because
        // a look-up gives a pointer.
        unsafe { &*self.entry }
    }

    /// When its last packet was seen.
    #[inline(always)]
    pub(super) fn see(&self, now: u32) {
        // SAFETY: as in `get`; a word is written whole. Needed because the entry is written in place.
        unsafe { (&raw mut (*self.entry).last_seen).write(now) };
    }

    /// Takes the flag away; whether it was there. Of several who ask, one is told so.
    #[inline(always)]
    pub(super) fn take(&self, flag: u32) -> bool {
        // SAFETY: as in `get`. Needed because the entry is written in place.
        unsafe { fetch_and(&raw mut (*self.entry).flags, !flag) & flag != 0 }
    }

    /// Adds flags to those that it has.
    #[inline(always)]
    pub(super) fn add(&self, flags: u32) {
        // SAFETY: as in `get`. Needed because the entry is written in place.
        unsafe { atomic_or(&raw mut (*self.entry).flags, flags) };
    }
}

/// The same number, of which the verifier knows nothing any more.
#[inline(always)]
pub(super) fn unknown(place: &mut u64, number: u32) -> u32 {
    let place: *mut u64 = place;
    // SAFETY: the place is borrowed for the whole call. Needed because the compiler would leave out an ordinary write and read.
    unsafe {
        place.write_volatile(u64::from(number));
        place.read_volatile() as u32
    }
}

/// Adds one, and gives what was there before.
#[inline(always)]
pub(super) fn fetch_add(word: *mut u32) -> u32 {
    add(word, 1)
}

/// Takes one away, if there is one: of two at once the second may find none, so what wraps is put back.
#[inline(always)]
pub(super) fn take_one(word: *mut u32) {
    if add(word, u32::MAX) == 0 {
        add(word, 1);
    }
}

#[inline(always)]
fn add(word: *mut u32, number: u32) -> u32 {
    let mut turn = u64::from(number);
    // SAFETY: the word is in a map's entry, whose memory stays mapped for the whole run of the program, and is aligned to 4 bytes; all
    // writers use this instruction. Needed because the BPF target of Rust has no 32-bit atomics, while the kernel has them
    // since 5.12.
    unsafe {
        core::arch::asm!(
            "w2 = atomic_fetch_add((u32 *)(r1 + 0), w2)",
            inout("r2") turn,
            in("r1") word,
        );
    }
    turn as u32
}

/// Leaves only these bits, and gives what was there before.
///
/// # Safety
///
/// The word is in a map's entry and aligned to 4 bytes.
#[inline(always)]
unsafe fn fetch_and(word: *mut u32, bits: u32) -> u32 {
    let mut before = u64::from(bits);
    // SAFETY: as in `add`.
    unsafe {
        core::arch::asm!(
            "w2 = atomic_fetch_and((u32 *)(r1 + 0), w2)",
            inout("r2") before,
            in("r1") word,
        );
    }
    before as u32
}

/// Sets bits.
///
/// # Safety
///
/// The word is in a map's entry and aligned to 4 bytes.
#[inline(always)]
unsafe fn atomic_or(word: *mut u32, bits: u32) {
    // SAFETY: as in `add`.
    unsafe {
        core::arch::asm!(
            "lock *(u32 *)(r1 + 0) |= w2",
            in("r2") u64::from(bits),
            in("r1") word,
        );
    }
}

/// Sets bits of a word of eight bytes.
///
/// # Safety
///
/// The word is in a map's entry and aligned.
#[inline(always)]
pub(super) unsafe fn atomic_or_64(word: *mut u64, bits: u64) {
    // SAFETY: as in `add`.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)(r1 + 0) |= r2",
            in("r2") bits,
            in("r1") word,
        );
    }
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

/// The same for programs that may interrupt each other.
#[inline(always)]
pub(super) fn count_shared(counter: Counter) {
    if let Some(number) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the word is in a map's entry and aligned. Needed because the BPF target of Rust has no instruction of its own for it.
        unsafe {
            core::arch::asm!(
                "lock *(u64 *)(r1 + 0) += r2",
                in("r2") 1_u64,
                in("r1") number,
            );
        }
    }
}

/// Goes on with the program at `index`; comes back only if there is none.
#[inline(always)]
pub(super) fn jump(context: &TcContext, index: u32) {
    // SAFETY: the context is the kernel's. Needed because the helper is foreign code that does not return.
    let _ = unsafe { JUMPS.tail_call(context, index) };
}

/// UDP port of the data path, network order.
#[inline(always)]
pub(super) fn data_path_port() -> [u8; 2] {
    DATA_PATH_PORT.load().to_be_bytes()
}
