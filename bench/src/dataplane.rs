//! weft's own object, without a daemon: loaded and filled by the bench.

use crate::error::{Context, Error, Result};
use crate::object;
use crate::options::Options;
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::{Ebpf, EbpfLoader, Pod};
use aya_obj::generated::{
    BPF_ADJ_ROOM_ENCAP_L2_SHIFT, BPF_F_ADJ_ROOM_ENCAP_L2_ETH, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
    BPF_F_ADJ_ROOM_ENCAP_L4_UDP, BPF_F_ADJ_ROOM_FIXED_GSO,
};
use std::path::PathBuf;
use weft_dataplane::abi::front::{self, LinkSlot, NodeSlot, PlaceSlot};
use weft_dataplane::abi::{
    self, Attachment, Endpoint, Flow, FlowKey, Node, OverlayAddress, Peer, Service, Sizes, V6, global, jump,
};

/// Loads weft's object with the default port, and the programs that others go on in.
pub fn load(options: &Options) -> Result<Ebpf> {
    load_bytes(options, &read(options)?)
}

/// [`load`], but the programs do not mark a packet as encapsulated: the kernel refuses that the second time, and packets of a test run
/// with a repeat count stay.
pub fn load_unmarked(options: &Options) -> Result<Ebpf> {
    let mut bytes = read(options)?;
    let marked = u64::from(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH)
        | u64::from(BPF_F_ADJ_ROOM_ENCAP_L3_IPV4)
        | 14 << (BPF_ADJ_ROOM_ENCAP_L2_SHIFT as u32);
    if replace_constant(&mut bytes, marked, u64::from(BPF_F_ADJ_ROOM_FIXED_GSO)) == 0 {
        let path = options.dataplane_object.display();
        return Err(Error::new(format!("{path}: no program in it encapsulates over IPv4")));
    }
    load_bytes(options, &bytes)
}

/// Replaces a constant in each instruction that loads all of its 64 bits (`BPF_LD | BPF_IMM | BPF_DW`: 16 bytes, RFC 9669 section 5.4);
/// tells how many there were.
fn replace_constant(object: &mut [u8], old: u64, new: u64) -> usize {
    const LENGTH: usize = 16;
    const LOAD: u8 = 0x18;
    let halves = |value: u64| [(value as u32).to_ne_bytes(), ((value >> 32) as u32).to_ne_bytes()];
    let ([old_low, old_high], [new_low, new_high]) = (halves(old), halves(new));
    let mut count = 0;
    for start in (0..object.len().saturating_sub(LENGTH - 1)).step_by(8) {
        let instruction = &mut object[start..start + LENGTH];
        if instruction[0] == LOAD
            && instruction[1] < 0x10
            && instruction[4..8] == old_low
            && instruction[8..12] == [0; 4]
            && instruction[12..] == old_high
        {
            instruction[4..8].copy_from_slice(&new_low);
            instruction[12..].copy_from_slice(&new_high);
            count += 1;
        }
    }
    count
}

fn read(options: &Options) -> Result<Vec<u8>> {
    let path = &options.dataplane_object;
    std::fs::read(path).context(|| format!("cannot read {} (cargo xtask build-ebpf makes it)", path.display()))
}

/// A map that a loader finds by its pin. The pin is removed when this is dropped.
struct Pinned(PathBuf);

impl Pinned {
    /// A map of IPv4 connections that has its memory from the start, as `preallocate-flows` makes it.
    fn flows(entries: u32) -> Result<Pinned> {
        let path = PathBuf::from(format!("/sys/fs/bpf/weft-bench-{}-flows", std::process::id()));
        let map = HashMap::<MapData, FlowKey, Flow>::create(entries, 0)
            .context(|| "cannot make a map of connections".to_owned())?;
        map.pin(&path).context(|| format!("cannot pin {}", path.display()))?;
        Ok(Pinned(path))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Nothing can be done about a pin that stays; the next run of this process id says so.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// [`load`] with maps of these sizes, and connections that last.
pub fn load_sized(options: &Options, sizes: &Sizes) -> Result<Ebpf> {
    const LONG: u32 = abi::flow::ticks_of_seconds(24 * 3600);
    let bytes = read(options)?;
    let flows = Pinned::flows(sizes.flows * 2)?;
    let mut loader = EbpfLoader::new();
    loader.map_pin_path(abi::flow::NAME, &flows.0);
    for (map, entries) in sizes.maps() {
        loader.map_max_entries(map, entries);
    }
    loader
        .override_global(global::RING_SIZE, &sizes.flows, true)
        .override_global(global::RING_SIZE6, &sizes.flows6, true)
        .override_global(global::UDP_TICKS, &LONG, true);
    load_with(options, &mut loader, &bytes)
}

/// [`load`] on a node with this VTEP.
pub fn load_for(options: &Options, vtep: V6) -> Result<Ebpf> {
    let bytes = read(options)?;
    let [high, low] = vtep.halves();
    let mut loader = EbpfLoader::new();
    loader
        .override_global(global::OWN_VTEP_HIGH, &high, true)
        .override_global(global::OWN_VTEP_LOW, &low, true);
    load_with(options, &mut loader, &bytes)
}

fn load_bytes(options: &Options, bytes: &[u8]) -> Result<Ebpf> {
    load_with(options, &mut EbpfLoader::new(), bytes)
}

fn load_with(options: &Options, loader: &mut EbpfLoader<'_>, bytes: &[u8]) -> Result<Ebpf> {
    let mut object = loader
        .override_global(global::DATA_PATH_PORT, &abi::VXLAN_PORT, true)
        .load(bytes)
        .context(|| format!("cannot load {}", options.dataplane_object.display()))?;
    for (index, name) in jump::PROGRAMS {
        set_program(&mut object, jump::NAME, index, name)?;
    }
    Ok(object)
}

/// Puts a program of an object into one of its program arrays. The array stays the object's: the kernel empties one that nobody holds.
fn set_program(object: &mut Ebpf, array: &str, index: u32, name: &str) -> Result<()> {
    let program = object::classifier(object, name)?;
    let fd = program.fd().context(|| format!("program {name:?} is not loaded"))?;
    let fd = fd.try_clone().context(|| format!("program {name:?}"))?;
    let map = object
        .map_mut(array)
        .context(|| format!("map {array:?} is not in the object"))?;
    let mut map = ProgramArray::try_from(map).context(|| format!("map {array:?}"))?;
    map.set(index, &fd, 0)
        .context(|| format!("program {name:?} in {array:?}"))
}

/// Writes one entry of a hash map.
pub fn put<K: Pod, V: Pod>(object: &mut Ebpf, name: &str, key: K, value: V) -> Result<()> {
    let map = object
        .map_mut(name)
        .context(|| format!("map {name:?} is not in the object"))?;
    let mut map: HashMap<_, K, V> = HashMap::try_from(map).context(|| format!("map {name:?}"))?;
    map.insert(key, value, 0).context(|| format!("map {name:?}"))
}

/// Puts a half of the filter before the flow table in force.
pub fn set_filter(object: &mut Ebpf, half: u32) -> Result<()> {
    set_slot(object, abi::filter::STATE_NAME, 0, half)
}

/// Writes a slot of a front, as the daemon does.
fn set_slot<S: Pod>(object: &mut Ebpf, name: &str, slot: u32, content: S) -> Result<()> {
    let map = object
        .map_mut(name)
        .context(|| format!("map {name:?} is not in the object"))?;
    let mut map: Array<_, S> = Array::try_from(map).context(|| format!("map {name:?}"))?;
    map.set(slot, content, 0).context(|| format!("map {name:?}"))
}

/// An overlay's interface.
pub fn put_attachment(object: &mut Ebpf, ifindex: u32, attachment: Attachment) -> Result<()> {
    put(object, abi::attachment::NAME, ifindex, attachment)?;
    let content = LinkSlot {
        ifindex,
        padding: 0,
        attachment,
    };
    set_slot(object, front::LINKS_NAME, front::link_of(ifindex), content)
}

/// The way to a VTEP.
pub fn put_node(object: &mut Ebpf, vtep: V6, node: Node) -> Result<()> {
    put(object, abi::node::NAME, vtep, node)?;
    set_slot(
        object,
        front::NODES_NAME,
        front::node_of(&vtep),
        NodeSlot { vtep, node },
    )
}

/// A remote endpoint.
pub fn put_peer(object: &mut Ebpf, key: OverlayAddress, peer: Peer) -> Result<()> {
    put(object, abi::peer::NAME, key, peer)?;
    set_place(object, &key, PlaceSlot::of_peer(key, &peer))
}

/// A local endpoint.
pub fn put_endpoint(object: &mut Ebpf, key: OverlayAddress, endpoint: Endpoint) -> Result<()> {
    put(object, abi::endpoint::NAME, key, endpoint)?;
    set_place(object, &key, PlaceSlot::of_endpoint(key, &endpoint))
}

/// A virtual IP.
pub fn put_service(object: &mut Ebpf, key: OverlayAddress, service: Service) -> Result<()> {
    put(object, abi::service::NAME, key, service)?;
    set_place(object, &key, Some(PlaceSlot::of_service(key)))
}

fn set_place(object: &mut Ebpf, key: &OverlayAddress, content: Option<PlaceSlot>) -> Result<()> {
    match content {
        Some(content) => set_slot(object, front::PLACES_NAME, front::place_of(key), content),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_replaced_in_instructions_that_load_it_and_nowhere_else() {
        let load = |register: u8, value: u64| {
            let mut bytes = vec![0x18, register, 0, 0];
            bytes.extend((value as u32).to_ne_bytes());
            bytes.extend([0; 4]);
            bytes.extend(((value >> 32) as u32).to_ne_bytes());
            bytes
        };
        let (old, new): (u64, u64) = (14 << 56 | 0x35, 1);
        let data = [old.to_ne_bytes(), old.to_ne_bytes()].concat();
        let mut object = [load(3, old), data.clone(), load(4, old + 1), load(5, old)].concat();
        assert_eq!(replace_constant(&mut object, old, new), 2);
        assert_eq!(object, [load(3, new), data, load(4, old + 1), load(5, new)].concat());
    }
}
