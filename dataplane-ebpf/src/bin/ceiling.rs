//! The programs of the bench only: forwarding without any overlay, and the instruments to count and to compare with.
//!
//! They are never loaded by the daemon. On the host this is an empty `main`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code))]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::{
        BPF_F_ADJ_ROOM_FIXED_GSO, TC_ACT_OK, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, xdp_action::XDP_DROP,
    };
    use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
    use aya_ebpf::helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns};
    use aya_ebpf::macros::{classifier, map, xdp};
    use aya_ebpf::maps::{Array, DevMap, HashMap, PerCpuArray, ProgramArray};
    use aya_ebpf::programs::{TcContext, XdpContext};

    /// Destination and source MAC, then the EtherType.
    const ETHERNET_LEN: usize = 14;
    /// Offset of the destination address in an Ethernet frame with IPv4 (RFC 791 section 3.1).
    const IPV4_DESTINATION: usize = ETHERNET_LEN + 16;
    /// An Ethernet frame with the shortest IPv4 header.
    const HEADERS_LEN: usize = ETHERNET_LEN + 20;
    /// EtherType of IPv4 as it stands in the frame.
    const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();

    /// Addresses on either side of the bench: a handful.
    const MAX_ROUTES: u32 = 64;

    /// Where a frame for an address goes: 16 bytes, as the bench writes them.
    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Route {
        /// Device to send from, or host side of the veth to deliver to.
        ifindex: u32,
        /// New destination MAC, then new source MAC.
        macs: [u8; 12],
    }

    /// Destination address -> [`Route`].
    #[map(name = "routes")]
    static ROUTES: HashMap<[u8; 4], Route> = HashMap::with_max_entries(MAX_ROUTES, 0);

    /// Slot 0: the device that `generate` feeds.
    #[map(name = "outlet")]
    static OUTLET: DevMap = DevMap::with_max_entries(1, 0);

    /// Slot 0: frames that `count_and_drop` saw.
    #[map(name = "arrived")]
    static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

    /// Out of a container to the other host: one look-up, new MACs, redirect.
    #[classifier]
    fn ceiling_egress(ctx: TcContext) -> i32 {
        match route(&ctx) {
            // SAFETY: the helper takes two integers. Needed because aya-ebpf has no safe form of it.
            Some(ifindex) => unsafe { bpf_redirect(ifindex, 0) as i32 },
            None => TC_ACT_OK,
        }
    }

    /// From the other host into a container: one look-up, new MACs, straight to the peer of the veth.
    #[classifier]
    fn ceiling_ingress(ctx: TcContext) -> i32 {
        match route(&ctx) {
            // SAFETY: the helper takes two integers. Needed because aya-ebpf has no safe form of it.
            Some(ifindex) => unsafe { bpf_redirect_peer(ifindex, 0) as i32 },
            None => TC_ACT_OK,
        }
    }

    /// The cost of running any program at all.
    #[classifier]
    fn noop(_ctx: TcContext) -> i32 {
        TC_ACT_OK
    }

    /// The end of the path for injected frames.
    #[classifier]
    fn count_and_drop(_ctx: TcContext) -> i32 {
        if let Some(count) = ARRIVED.get_ptr_mut(0) {
            // SAFETY: the pointer is this CPU's own slot, and a program is not interrupted by itself. Needed because the
            // counter is written in place.
            unsafe { *count += 1 };
        }
        TC_ACT_SHOT
    }

    /// Sends each test-run frame out of the device in the outlet.
    #[xdp]
    fn generate(_ctx: XdpContext) -> u32 {
        OUTLET.redirect(0, 0).unwrap_or(XDP_DROP)
    }

    /// Offset of the header checksum of IPv4, of its destination, and of the source port behind it.
    const SPREAD_OFFSETS: [usize; 3] = [ETHERNET_LEN + 10, IPV4_DESTINATION, HEADERS_LEN];
    /// Bytes of a frame.
    const FRAME_LEN: usize = 64;

    /// What [`generate_spread`] sends: 96 bytes, as the bench writes them.
    #[repr(C)]
    struct Spread {
        /// The frame, with a destination of zeros and the IPv4 checksum that is right for it.
        frame: [u64; FRAME_LEN / 8],
        /// Frames that were sent in order.
        sent: u64,
        /// The first destination, host order.
        first: u32,
        /// How many destinations.
        destinations: u32,
        /// The first source port.
        first_port: u32,
        /// How many source ports.
        ports: u32,
        /// 1: one after the other, all destinations before the next port; 0: at random.
        in_order: u32,
        padding: u32,
    }

    /// Slot 0.
    #[map(name = "spread")]
    static SPREAD: Array<Spread> = Array::with_max_entries(1, 0);

    /// Sends frames to many destinations, from many ports.
    #[xdp]
    fn generate_spread(ctx: XdpContext) -> u32 {
        match SPREAD.get_ptr_mut(0) {
            // SAFETY: one generator runs at a time, and its memory is the map's. Needed because the count is written in place.
            Some(spread) => write_spread(&ctx, unsafe { &mut *spread }).unwrap_or(XDP_DROP),
            None => XDP_DROP,
        }
    }

    #[inline(always)]
    fn write_spread(ctx: &XdpContext, spread: &mut Spread) -> Option<u32> {
        let start = ctx.data();
        if start + FRAME_LEN > ctx.data_end() || spread.destinations == 0 || spread.ports == 0 {
            return None;
        }
        let (destination, port) = if spread.in_order == 1 {
            let sent = spread.sent;
            spread.sent += 1;
            (sent as u32 % spread.destinations, sent as u32 / spread.destinations)
        } else {
            (random() % spread.destinations, random() % spread.ports)
        };
        let destination = (spread.first + destination).to_be();
        let port = ((spread.first_port + port) as u16).to_be();
        let [checksum_at, destination_at, port_at] = SPREAD_OFFSETS;
        let frame = start as *mut u8;
        // SAFETY: the bytes up to `FRAME_LEN` are inside the packet (checked above), and accesses do not need alignment. Needed because
        // packets are raw memory.
        unsafe {
            frame.cast::<[u64; FRAME_LEN / 8]>().write_unaligned(spread.frame);
            let checksum = frame.add(checksum_at).cast::<u16>();
            let sum = u32::from(!checksum.read_unaligned()) + (destination & 0xffff) + (destination >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            let sum = (sum & 0xffff) + (sum >> 16);
            checksum.write_unaligned(!(sum as u16));
            frame.add(destination_at).cast::<u32>().write_unaligned(destination);
            frame.add(port_at).cast::<u16>().write_unaligned(port);
        }
        OUTLET.redirect(0, 0).ok()
    }

    #[inline(always)]
    fn random() -> u32 {
        // SAFETY: the helper has no arguments. Needed because it is foreign code.
        unsafe { bpf_get_prandom_u32() }
    }

    /// What VXLAN over IPv4 adds (RFC 7348 section 5).
    const OVERHEAD: i32 = 50;
    /// Frames up to this length are not encapsulated: those of the bench have 64 bytes.
    const PLAIN_LEN: u32 = 80;

    /// Slot 0: what runs on a frame that is not encapsulated; slot 1: on one that is.
    #[map(name = "turns")]
    static TURNS: ProgramArray = ProgramArray::with_max_entries(2, 0);

    /// How a frame begins before encapsulation, all of it.
    #[map(name = "plain_head")]
    static PLAIN_HEAD: Array<[u64; 8]> = Array::with_max_entries(1, 0);

    /// How it begins afterwards.
    #[map(name = "encapsulated_head")]
    static ENCAPSULATED_HEAD: Array<[u64; 13]> = Array::with_max_entries(1, 0);

    /// Nanoseconds: for [`restore_encapsulated`], for [`restore_plain`], for nothing.
    #[map(name = "clocked")]
    static CLOCKED: PerCpuArray<u64> = PerCpuArray::with_max_entries(3, 0);

    /// The two programs in `turns` take turns, each with what the other left: a test run with a repeat count keeps the packet.
    #[classifier]
    fn take_turns(ctx: TcContext) -> i32 {
        // SAFETY: the context is the kernel's. Needed because the helper does not return.
        let _ = unsafe { TURNS.tail_call(&ctx, u32::from(ctx.len() > PLAIN_LEN)) };
        TC_ACT_SHOT
    }

    /// Makes a frame what it was before encapsulation.
    #[classifier]
    fn make_plain(ctx: TcContext) -> i32 {
        restore_plain(&ctx);
        TC_ACT_OK
    }

    /// Makes a frame what it was after encapsulation.
    #[classifier]
    fn make_encapsulated(ctx: TcContext) -> i32 {
        restore_encapsulated(&ctx);
        TC_ACT_OK
    }

    /// Tells what the two cost by the clock, because in turns only their sum with another program shows.
    #[classifier]
    fn clock(ctx: TcContext) -> i32 {
        let start = now();
        restore_encapsulated(&ctx);
        let middle = now();
        restore_plain(&ctx);
        let end = now();
        let after = now();
        for (slot, span) in [(0, middle - start), (1, end - middle), (2, after - end)] {
            if let Some(sum) = CLOCKED.get_ptr_mut(slot) {
                // SAFETY: as in `count_and_drop`.
                unsafe { *sum += span };
            }
        }
        TC_ACT_OK
    }

    #[inline(always)]
    fn now() -> u64 {
        // SAFETY: the helper has no arguments. Needed because it is foreign code.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn restore_plain(ctx: &TcContext) {
        adjust(ctx, -OVERHEAD);
        if let Some(head) = PLAIN_HEAD.get(0) {
            write(ctx, head);
        }
    }

    #[inline(always)]
    fn restore_encapsulated(ctx: &TcContext) {
        adjust(ctx, OVERHEAD);
        if let Some(head) = ENCAPSULATED_HEAD.get(0) {
            write(ctx, head);
        }
    }

    /// Makes or takes room. Not marked as encapsulation: the kernel refuses that the second time.
    #[inline(always)]
    fn adjust(ctx: &TcContext, bytes: i32) {
        let flags = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO);
        let _ = ctx.adjust_room(bytes, BPF_ADJ_ROOM_MAC, flags);
    }

    /// Writes the first bytes of the frame, as far as they are reachable.
    #[inline(always)]
    fn write<const WORDS: usize>(ctx: &TcContext, head: &[u64; WORDS]) {
        let start = ctx.data();
        if start + WORDS * size_of::<u64>() > ctx.data_end() {
            return;
        }
        // SAFETY: the bytes are inside the packet, as just checked, and writes do not need alignment. Needed because packets are raw
        // memory.
        unsafe { (start as *mut [u64; WORDS]).write_unaligned(*head) };
    }

    #[inline(always)]
    fn route(ctx: &TcContext) -> Option<u32> {
        let start = ctx.data();
        if start + HEADERS_LEN > ctx.data_end() {
            return None;
        }
        let frame = start as *mut u8;
        // SAFETY: the bytes up to `HEADERS_LEN` are inside the packet (checked above, and again by the verifier), and reads and
        // writes do not need alignment. The entry outlives the program run under RCU. Needed because packets are raw memory.
        unsafe {
            if frame.add(12).cast::<u16>().read_unaligned() != ETHERTYPE_IPV4 {
                return None;
            }
            let destination = frame.add(IPV4_DESTINATION).cast::<[u8; 4]>().read_unaligned();
            let route = ROUTES.get(destination)?;
            frame.cast::<[u8; 12]>().write_unaligned(route.macs);
            Some(route.ifindex)
        }
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
