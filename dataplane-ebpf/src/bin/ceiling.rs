//! The programs of the bench only: forwarding without any overlay, and the instruments to count and to compare with.
//!
//! They are never loaded by the daemon. On the host this is an empty `main`.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", allow(unsafe_code))]

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action::XDP_DROP};
    use aya_ebpf::helpers::generated::{bpf_redirect, bpf_redirect_peer};
    use aya_ebpf::macros::{classifier, map, xdp};
    use aya_ebpf::maps::{DevMap, HashMap, PerCpuArray};
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
