//! The packet, and the one place that makes pointers into it.
//!
//! A [`Cursor`] hands out headers one after the other, each checked against the packet's end and none overlapping another. It borrows
//! the [`Packet`] mutably, so whatever moves the packet's bytes (all that takes `&mut Packet`) ends the life of its headers first.
#![allow(unsafe_code)]

use super::maps;
use super::verdict::Verdict;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::programs::TcContext;
use core::marker::PhantomData;
use weft_dataplane::abi::Counter;
use weft_dataplane::packet::Header;

/// `skb->pkt_type` of a frame that is addressed to this host.
const PACKET_HOST: u32 = 0;

/// The packet that a program runs for: one a run.
pub(super) struct Packet {
    pub(super) skb: *mut __sk_buff,
}

macro_rules! field {
    ($(#[doc = $doc:literal])+ $name:ident) => {
        $(#[doc = $doc])+
        #[inline(always)]
        pub(super) fn $name(&self) -> u32 {
            // SAFETY: the kernel gives a valid context and rewrites this access into one of the skb; a packet is made of such a
            // context only. Needed because the context is a raw pointer.
            unsafe { (*self.skb).$name }
        }
    };
}

impl Packet {
    /// The packet of a program's context.
    #[inline(always)]
    pub(super) fn new(context: TcContext) -> Self {
        Packet { skb: context.skb.skb }
    }

    /// Goes on with another program, which has the packet as it is now.
    #[inline(always)]
    pub(super) fn go_on(&mut self, program: u32) -> Verdict {
        maps::jump(&TcContext::new(self.skb), program);
        Verdict::Drop(Counter::DropNoProgram)
    }

    /// Leaves the packet, as it came, to a program of the generation before; goes on if there is none.
    #[inline(always)]
    pub(super) fn leave_to(&mut self, program: u32) {
        maps::jump(&TcContext::new(self.skb), program);
    }

    field! {
        /// Length with its Ethernet header in bytes.
        len
    }
    field! {
        /// The interface that it came in by.
        ifindex
    }
    field! {
        /// Payload bytes of each segment that it will be cut into; 0 if it will not be cut.
        gso_size
    }
    field! {
        /// The hash of its flow, if its socket or its device knew it; else 0.
        hash
    }
    field! {
        /// Whether the device took a VLAN tag out of it: then it belongs to that VLAN's device.
        vlan_present
    }
    field! {
        /// Whom the frame was addressed to.
        pkt_type
    }

    /// Whether the frame was addressed to this host.
    #[inline(always)]
    pub(super) fn is_for_host(&self) -> bool {
        self.pkt_type() == PACKET_HOST
    }

    /// Makes the first `length` bytes reachable, or all if there are fewer. What still is not there is found out by [`Cursor::next`].
    #[inline(always)]
    pub(super) fn pull(&mut self, length: usize) {
        // SAFETY: as in `field!`. Needed to see where the linear part of the packet ends.
        let (start, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        if start + length > end {
            self.pull_tail(length as u32);
        }
    }

    #[inline(always)]
    fn pull_tail(&mut self, length: u32) {
        let length = if length < self.len() { length } else { self.len() };
        // SAFETY: the context is valid; no header is alive, because this takes `&mut self`. On failure the packet is as it was.
        // Needed because headers may lie in fragments.
        unsafe { bpf_skb_pull_data(self.skb, length) };
    }

    /// Its headers, from the Ethernet header on.
    #[inline(always)]
    pub(super) fn headers(&mut self) -> Cursor<'_> {
        // SAFETY: as in `field!`. Needed because the headers lie between these two pointers.
        let (position, end) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        Cursor {
            position,
            end,
            packet: PhantomData,
        }
    }
}

/// Walks over the headers of a packet.
pub(super) struct Cursor<'packet> {
    position: usize,
    end: usize,
    packet: PhantomData<&'packet mut Packet>,
}

impl<'packet> Cursor<'packet> {
    /// The next header; `None` if the reachable part of the packet ends before it does.
    #[inline(always)]
    pub(super) fn next<H: Header>(&mut self) -> Option<&'packet mut H> {
        let start = self.position;
        if start + H::LENGTH > self.end {
            return None;
        }
        self.position = start + H::LENGTH;
        // SAFETY: the bytes are inside the packet (just checked, and the verifier checks the same); a header has alignment 1 and any
        // bytes are valid for it; the position only grows, so no other header covers them; nothing moves them while the
        // packet is borrowed. Needed because the packet is known by two pointers only.
        Some(unsafe { &mut *(start as *mut H) })
    }

    /// Passes over some bytes.
    #[inline(always)]
    pub(super) fn skip(&mut self, bytes: usize) {
        self.position += bytes;
    }
}
