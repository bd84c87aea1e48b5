//! Virtual IPs, seen from a socket: it connects to a backend, and its packets need no translation.
//!
//! Programs of this kind may be preempted, by each other and by those that see packets: what they work with is on their stacks, and what
//! they count is counted atomically. Whatever is not as they know it stays as the user said it, and its packets are balanced one by one.
#![allow(unsafe_code)]

use super::cursor::Packet;
use super::family::{Family, Inet, Inet6};
use super::maps::{self, AS_NEEDED};
use super::members::Choosing;
use super::{helper, policy};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, map};
use aya_ebpf::maps::HashMap;
use aya_ebpf::programs::{SockAddrContext, SockContext};
use weft_dataplane::abi::service::POLICY_LEAST_CONNECTIONS;
use weft_dataplane::abi::{
    Affinity, Backend, Connected, Counter, FlowKey, Ip, MemberKey, NamespaceKey, OverlayAddress, Seat, V4, V6,
    attachment, flow, mapped, socket,
};
use weft_dataplane::packet::ipv4;

maps::maps! {
    "namespaces" is socket::NAMESPACES_NAME, NAMESPACES: HashMap<NamespaceKey, Seat> = HashMap::with_max_entries(attachment::MAX_ENTRIES, AS_NEEDED);
    "sockets" is socket::SOCKETS_NAME, SOCKETS: HashMap<u64, Connected> = HashMap::with_max_entries(socket::MAX_SOCKETS, AS_NEEDED);
}

/// What all of these programs say: the kernel goes on.
const GO_ON: i32 = 1;

/// A socket of IPv4 connects.
#[cgroup_sock_addr(connect4)]
pub(super) fn overlay_connect4(context: SockAddrContext) -> i32 {
    let mut call = Call { context };
    if call.is_tcp()
        && let Some(backend) = choose::<Inet>(&call, call.ip4())
    {
        call.set_ip4(backend);
    }
    GO_ON
}

/// A socket of IPv6 connects, perhaps to an IPv4 address.
#[cgroup_sock_addr(connect6)]
pub(super) fn overlay_connect6(context: SockAddrContext) -> i32 {
    let mut call = Call { context };
    if !call.is_tcp() {
        return GO_ON;
    }
    match call.mapped_ip4() {
        Some(ip) => {
            if let Some(backend) = choose::<Inet>(&call, ip) {
                call.set_ip6(mapped(backend));
            }
        }
        None => {
            if let Some(backend) = choose::<Inet6>(&call, call.ip6()) {
                call.set_ip6(backend);
            }
        }
    }
    GO_ON
}

/// A socket of IPv4 is asked who is at its other end: the virtual IP, if that is what it asked for.
#[cgroup_sock_addr(getpeername4)]
pub(super) fn overlay_getpeername4(context: SockAddrContext) -> i32 {
    let mut call = Call { context };
    if call.is_tcp()
        && let Some(vip) = asked_for(&call, mapped(call.ip4()))
    {
        call.set_ip4(vip.last_four());
    }
    GO_ON
}

/// The same of a socket of IPv6.
#[cgroup_sock_addr(getpeername6)]
pub(super) fn overlay_getpeername6(context: SockAddrContext) -> i32 {
    let mut call = Call { context };
    if call.is_tcp()
        && let Some(vip) = asked_for(&call, call.ip6())
    {
        call.set_ip6(vip);
    }
    GO_ON
}

/// A socket is closed.
#[cgroup_sock(sock_release)]
pub(super) fn overlay_release(context: SockContext) -> i32 {
    // SAFETY: the kernel gives a valid context and rewrites this access into one of the socket. Needed because it is a raw pointer.
    let protocol = unsafe { (*context.sock).protocol };
    if protocol == u32::from(ipv4::TCP) {
        // SAFETY: the context is that of this program's kind. Needed because the helper is foreign code.
        let cookie = unsafe { bpf_get_socket_cookie(context.as_ptr()) };
        let _ = SOCKETS.remove(cookie);
    }
    GO_ON
}

/// A call of the user that names an address.
struct Call {
    context: SockAddrContext,
}

impl Call {
    #[inline(always)]
    fn address(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    #[inline(always)]
    fn is_tcp(&self) -> bool {
        // SAFETY: as in `overlay_release`.
        unsafe { (*self.address()).protocol == u32::from(ipv4::TCP) }
    }

    /// Network order.
    #[inline(always)]
    fn port(&self) -> [u8; 2] {
        // SAFETY: as in `overlay_release`.
        let port = unsafe { (&raw const (*self.address()).user_port).read_volatile() };
        (port as u16).to_ne_bytes()
    }

    #[inline(always)]
    fn ip4(&self) -> V4 {
        // SAFETY: as in `overlay_release`.
        unsafe { (*self.address()).user_ip4 }.to_ne_bytes()
    }

    #[inline(always)]
    fn set_ip4(&mut self, ip: V4) {
        // SAFETY: as in `overlay_release`; the kernel lets programs of this kind write the field.
        unsafe { (*self.address()).user_ip4 = u32::from_ne_bytes(ip) };
    }

    /// A word at a time, as every kernel takes it.
    #[inline(always)]
    fn word(&self, index: usize) -> u32 {
        // SAFETY: as in `overlay_release`.
        unsafe { (&raw const (*self.address()).user_ip6[index]).read_volatile() }
    }

    #[inline(always)]
    fn ip6(&self) -> V6 {
        let [a, b, c, d] = self.word(0).to_ne_bytes();
        let [e, f, g, h] = self.word(1).to_ne_bytes();
        let [i, j, k, l] = self.word(2).to_ne_bytes();
        let [m, n, o, p] = self.word(3).to_ne_bytes();
        V6::new([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The IPv4 address that a socket of IPv6 means (RFC 4291 section 2.5.5.2).
    #[inline(always)]
    fn mapped_ip4(&self) -> Option<V4> {
        let is_mapped = self.word(0) == 0 && self.word(1) == 0 && self.word(2) == 0xffff_u32.to_be();
        is_mapped.then(|| self.word(3).to_ne_bytes())
    }

    #[inline(always)]
    fn set_ip6(&mut self, ip: V6) {
        let [high, low] = ip.halves();
        let words = [high as u32, (high >> 32) as u32, low as u32, (low >> 32) as u32];
        for (index, word) in words.into_iter().enumerate() {
            // SAFETY: as in `set_ip4`.
            unsafe { (&raw mut (*self.address()).user_ip6[index]).write_volatile(word) };
        }
    }

    /// The cookie of the socket.
    #[inline(always)]
    fn socket(&self) -> u64 {
        // SAFETY: as in `overlay_release`.
        unsafe { bpf_get_socket_cookie(self.context.as_ptr()) }
    }

    /// The cookie of its namespace.
    #[inline(always)]
    fn namespace(&self) -> u64 {
        // SAFETY: as in `overlay_release`.
        unsafe { bpf_get_netns_cookie(self.context.as_ptr()) }
    }
}

/// The backend of a new connection to `vip`, if that is a virtual IP of a network that the socket's namespace is on.
#[inline(always)]
fn choose<F: Family>(call: &Call, vip: F::Ip) -> Option<F::Ip> {
    let mut key = NamespaceKey {
        cookie: call.namespace(),
        slot: 0,
        padding: 0,
    };
    while key.slot < socket::SEATS {
        let seat = NAMESPACES.get_ptr(&key)?;
        // SAFETY: as in `maps::look_up!`.
        let seat = unsafe { &*seat };
        let address = OverlayAddress::new(seat.vni, vip);
        if F::service(&address).is_some() {
            let backend = choose_of::<F>(seat, vip, call.port())?;
            let connected = Connected {
                vip: vip.mapped(),
                backend: backend.mapped(),
            };
            SOCKETS.insert(call.socket(), connected, u64::from(BPF_ANY)).ok()?;
            maps::count_shared(Counter::SocketBalanced);
            return Some(backend);
        }
        key.slot += 1;
    }
    None
}

/// A backend that is there. Open connections are counted where packets pass, so whoever balances by them looks at packets.
#[inline(always)]
fn choose_of<F: Family>(seat: &Seat, vip: F::Ip, port: [u8; 2]) -> Option<F::Ip> {
    let service = F::service(&OverlayAddress::new(seat.vni, vip))?;
    if service.backend_count == 0 || service.policy == POLICY_LEAST_CONNECTIONS {
        return None;
    }
    let key = FlowKey {
        network: flow::network(seat.vni, ipv4::TCP),
        source: F::of_seat(seat),
        destination: vip,
        // The kernel chooses the socket's port later.
        source_port: (helper::random() as u16).to_ne_bytes(),
        destination_port: port,
        reserved: flow::RESERVED,
    };
    let mut choosing = Choosing {
        member: MemberKey {
            vip,
            ip: vip,
            vni: seat.vni.into(),
        },
        affinity: Affinity {
            backend: vip,
            last_seen: 0,
            padding: 0,
        },
        backend: Backend { ip: vip },
    };
    if !policy::choose::<F>(&mut choosing, seat.vni, service, &key, helper::now_ticks()) {
        return None;
    }
    let backend = choosing.backend.ip;
    let address = OverlayAddress::new(seat.vni, backend);
    let is_there = F::peer(&address).is_some() || F::endpoint(&address).is_some();
    is_there.then_some(backend)
}

/// The virtual IP that a socket asked for, if it is connected to what it got.
#[inline(always)]
fn asked_for(call: &Call, other_end: V6) -> Option<V6> {
    let connected = SOCKETS.get_ptr(call.socket())?;
    // SAFETY: as in `maps::look_up!`.
    let connected = unsafe { &*connected };
    (connected.backend == other_end).then_some(connected.vip)
}

/// Whether the packet is of a socket of this host that got `backend` for a virtual IP.
#[inline(always)]
pub(super) fn is_connected_to<A: Ip>(packet: &mut Packet, backend: &A) -> bool {
    // SAFETY: the packet's context is the kernel's. Needed because the helper is foreign code.
    let cookie = unsafe { bpf_get_socket_cookie(packet.skb.cast()) };
    match SOCKETS.get_ptr(cookie) {
        // SAFETY: as in `maps::look_up!`.
        Some(connected) => unsafe { (*connected).backend == backend.mapped() },
        None => false,
    }
}
