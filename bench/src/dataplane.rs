//! weft's own object, without a daemon: loaded and filled by the bench.

use crate::error::{Context, Result};
use crate::options::Options;
use aya::maps::HashMap;
use aya::{Ebpf, EbpfLoader, Pod};
use weft_dataplane::abi::{self, global};

/// Loads weft's object with the default port.
pub fn load(options: &Options) -> Result<Ebpf> {
    let path = &options.dataplane_object;
    EbpfLoader::new()
        .override_global(global::DATA_PATH_PORT, &abi::VXLAN_PORT, true)
        .load_file(path)
        .context(|| format!("cannot load {} (cargo xtask build-ebpf makes it)", path.display()))
}

/// Writes one entry of a hash map.
pub fn put<K: Pod, V: Pod>(object: &mut Ebpf, name: &str, key: K, value: V) -> Result<()> {
    let map = object
        .map_mut(name)
        .context(|| format!("map {name:?} is not in the object"))?;
    let mut map: HashMap<_, K, V> = HashMap::try_from(map).context(|| format!("map {name:?}"))?;
    map.insert(key, value, 0).context(|| format!("map {name:?}"))
}
