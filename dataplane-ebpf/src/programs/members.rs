//! The maps that policies choose backends from, behind safe look-ups, as [`maps`](super::maps).
#![allow(unsafe_code)]

use super::family::{Inet, Inet6};
use super::maps::{self, AS_NEEDED, FamilyMaps, fetch_add, take_one};
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray};
use weft_dataplane::abi::{
    Affinity, Backend, Ip, MaglevKey, MaglevPart, MaglevTable, MemberKey, OverlayAddress, V4, V6, affinity, load,
    maglev, scratch, service,
};

maps::maps! {
    "maglev_tables" is maglev::TABLES_NAME, MAGLEV_TABLES: HashMap<OverlayAddress<V4>, MaglevTable> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "maglev_tables6" is maglev::TABLES_NAME6, MAGLEV_TABLES6: HashMap<OverlayAddress<V6>, MaglevTable> = HashMap::with_max_entries(service::MAX_ENTRIES, AS_NEEDED);
    "maglev" is maglev::NAME, MAGLEV: HashMap<MaglevKey, MaglevPart> = HashMap::with_max_entries(maglev::MAX_ENTRIES, AS_NEEDED);
    "maglev_members" is maglev::MEMBERS_NAME, MAGLEV_MEMBERS: HashMap<MaglevKey, Backend<V4>> = HashMap::with_max_entries(maglev::MAX_ENTRIES, AS_NEEDED);
    "maglev_members6" is maglev::MEMBERS_NAME6, MAGLEV_MEMBERS6: HashMap<MaglevKey, Backend<V6>> = HashMap::with_max_entries(maglev::MAX_ENTRIES, AS_NEEDED);
    "loads" is load::NAME, LOADS: HashMap<MemberKey<V4>, u32> = HashMap::with_max_entries(load::MAX_ENTRIES, AS_NEEDED);
    "loads6" is load::NAME6, LOADS6: HashMap<MemberKey<V6>, u32> = HashMap::with_max_entries(load::MAX_ENTRIES, AS_NEEDED);
    "weights" is load::WEIGHTS_NAME, WEIGHTS: HashMap<MemberKey<V4>, u32> = HashMap::with_max_entries(load::MAX_ENTRIES, AS_NEEDED);
    "weights6" is load::WEIGHTS_NAME6, WEIGHTS6: HashMap<MemberKey<V6>, u32> = HashMap::with_max_entries(load::MAX_ENTRIES, AS_NEEDED);
    "affinities" is affinity::NAME, AFFINITIES: LruHashMap<MemberKey<V4>, Affinity<V4>> = LruHashMap::with_max_entries(affinity::MAX_ENTRIES, 0);
    "affinities6" is affinity::NAME6, AFFINITIES6: LruHashMap<MemberKey<V6>, Affinity<V6>> = LruHashMap::with_max_entries(affinity::MAX_ENTRIES, 0);
    "choice" is scratch::CHOICE_NAME, CHOICE: PerCpuArray<Choosing<V4>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
    "choice6" is scratch::CHOICE_NAME6, CHOICE6: PerCpuArray<Choosing<V6>> = PerCpuArray::with_max_entries(scratch::MAX_ENTRIES, 0);
}

/// What the choice of a backend works with: the stack has no room for it.
#[repr(C, align(8))]
pub(super) struct Choosing<A: Ip> {
    /// A backend or a client.
    pub(super) member: MemberKey<A>,
    /// What is remembered of the client.
    pub(super) affinity: Affinity<A>,
    /// The backend.
    pub(super) backend: Backend<A>,
}

/// The maps of one family of addresses.
pub(super) trait MemberMaps: FamilyMaps {
    /// What the choice works with. Its content outlives no packet.
    fn choosing() -> Option<&'static mut Choosing<Self::Ip>>;
    /// The Maglev table of a virtual IP.
    fn maglev_table(vip: &OverlayAddress<Self::Ip>) -> Option<&'static MaglevTable>;
    /// A member of a Maglev table.
    fn maglev_member(key: &MaglevKey) -> Option<&'static Backend<Self::Ip>>;
    /// How many connections a backend has open.
    fn load(key: &MemberKey<Self::Ip>) -> u32;
    /// One more is open. A full map leaves it uncounted.
    fn load_more(key: &MemberKey<Self::Ip>);
    /// One less is open.
    fn load_less(key: &MemberKey<Self::Ip>);
    /// The weight of a backend.
    fn weight(key: &MemberKey<Self::Ip>) -> u32;
    /// The backend that a client had last.
    fn affinity(client: &MemberKey<Self::Ip>) -> Option<AffinityEntry<Self::Ip>>;
    /// Remembers the backend of a client.
    fn put_affinity(client: &MemberKey<Self::Ip>, affinity: &Affinity<Self::Ip>);
}

/// A part of a Maglev table.
#[inline(always)]
pub(super) fn maglev_part(key: &MaglevKey) -> Option<&'static MaglevPart> {
    // SAFETY: as in `maps::look_up!`.
    MAGLEV.get_ptr(key).map(|part| unsafe { &*part })
}

/// An entry of `affinities`, in its place.
#[derive(Clone, Copy)]
pub(super) struct AffinityEntry<A: Ip> {
    entry: *mut Affinity<A>,
}

impl<A: Ip> AffinityEntry<A> {
    /// The entry.
    #[inline(always)]
    pub(super) fn get(&self) -> &'static Affinity<A> {
        // SAFETY: as in `FlowEntry::get`.
        unsafe { &*self.entry }
    }

    /// When the client's last connection began.
    #[inline(always)]
    pub(super) fn see(&self, now: u32) {
        // SAFETY: as in `FlowEntry::see`.
        unsafe { (&raw mut (*self.entry).last_seen).write(now) };
    }
}

macro_rules! member_maps {
    ($family:ty, $ip:ty, $choice:ident, $tables:ident, $members:ident, $loads:ident, $weights:ident, $affinities:ident) => {
        impl MemberMaps for $family {
            #[inline(always)]
            fn choosing() -> Option<&'static mut Choosing<$ip>> {
                // SAFETY: as in `FamilyMaps::scratch`.
                $choice.get_ptr_mut(0).map(|choosing| unsafe { &mut *choosing })
            }

            #[inline(always)]
            fn maglev_table(vip: &OverlayAddress<$ip>) -> Option<&'static MaglevTable> {
                // SAFETY: as in `maps::look_up!`.
                $tables.get_ptr(vip).map(|table| unsafe { &*table })
            }

            #[inline(always)]
            fn maglev_member(key: &MaglevKey) -> Option<&'static Backend<$ip>> {
                // SAFETY: as in `maps::look_up!`.
                $members.get_ptr(key).map(|member| unsafe { &*member })
            }

            #[inline(always)]
            fn load(key: &MemberKey<$ip>) -> u32 {
                // SAFETY: as in `maps::look_up!`.
                $loads.get_ptr(key).map_or(0, |load| unsafe { *load })
            }

            #[inline(always)]
            fn load_more(key: &MemberKey<$ip>) {
                if let Some(load) = $loads.get_ptr_mut(key) {
                    fetch_add(load);
                } else if $loads.insert(key, 1, u64::from(BPF_NOEXIST)).is_err()
                    && let Some(load) = $loads.get_ptr_mut(key)
                {
                    // Another CPU was first.
                    fetch_add(load);
                }
            }

            #[inline(always)]
            fn load_less(key: &MemberKey<$ip>) {
                if let Some(load) = $loads.get_ptr_mut(key) {
                    take_one(load);
                }
            }

            #[inline(always)]
            fn weight(key: &MemberKey<$ip>) -> u32 {
                // SAFETY: as in `maps::look_up!`.
                $weights.get_ptr(key).map_or(1, |weight| unsafe { *weight })
            }

            #[inline(always)]
            fn affinity(client: &MemberKey<$ip>) -> Option<AffinityEntry<$ip>> {
                $affinities
                    .get_ptr_mut(client)
                    .map(|entry| AffinityEntry { entry })
            }

            #[inline(always)]
            fn put_affinity(client: &MemberKey<$ip>, affinity: &Affinity<$ip>) {
                let _ = $affinities.insert(client, affinity, u64::from(BPF_ANY));
            }
        }
    };
}

member_maps!(
    Inet,
    V4,
    CHOICE,
    MAGLEV_TABLES,
    MAGLEV_MEMBERS,
    LOADS,
    WEIGHTS,
    AFFINITIES
);
member_maps!(
    Inet6,
    V6,
    CHOICE6,
    MAGLEV_TABLES6,
    MAGLEV_MEMBERS6,
    LOADS6,
    WEIGHTS6,
    AFFINITIES6
);
