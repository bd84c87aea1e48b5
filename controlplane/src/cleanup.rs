//! `weftd --cleanup`: what weft did to this host is undone, whether a weftd is there to do it or not.

use weft::config::Config;
use weft::dataplane;
use weft::netlink::{GRO_DEVICE, Netlink};
use weft::store::NodeStore;

/// Removes programs, pins, queueing disciplines and interfaces; says what. What the node knows of its cluster stays in `data-dir`.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(config: &Config) -> Result<(), String> {
    dataplane::check_host().map_err(|error| error.to_string())?;
    let netlink = Netlink::open().map_err(|error| error.to_string())?;
    // Both are locked by a weftd that runs. A node that never was has no store, and gets none.
    let endpoints = if config.data_dir.join(NodeStore::FILE).exists() {
        let store = NodeStore::open(&config.data_dir).map_err(|error| format!("data-dir: {error}"))?;
        store.endpoints().map_err(|error| error.to_string())?
    } else {
        Vec::new()
    };
    let removed = dataplane::clean_up(&config.bpf_pin_dir).map_err(|error| error.to_string())?;
    let mut done = Vec::new();
    for (hook, ifindex) in removed.attached {
        let name = netlink.ifname(ifindex).await.map_err(|error| error.to_string())?;
        let place = name.unwrap_or_else(|| format!("interface {ifindex}, which is gone"));
        done.push(format!("program {} detached from {place}", hook.program()));
    }
    for ifindex in removed.filters {
        done.push(format!("XDP program detached from interface {ifindex}"));
    }
    if removed.sockets {
        done.push("programs that see sockets detached from the host's root cgroup".to_owned());
    }
    for ifindex in removed.disciplines {
        if netlink
            .remove_empty_clsact(ifindex)
            .await
            .map_err(|error| error.to_string())?
        {
            done.push(format!("queueing discipline clsact removed from interface {ifindex}"));
        }
    }
    if removed.pins {
        done.push(format!("{} removed", config.bpf_pin_dir.display()));
    }
    for endpoint in endpoints {
        let name = &endpoint.host_interface;
        if netlink
            .link_by_name(name)
            .await
            .map_err(|error| error.to_string())?
            .is_some()
        {
            netlink.remove_endpoint(name).await.map_err(|error| error.to_string())?;
            done.push(format!(
                "interface {name} of endpoint {} removed",
                endpoint.allocation.name
            ));
        }
    }
    let gro = netlink
        .link_by_name(GRO_DEVICE)
        .await
        .map_err(|error| error.to_string())?;
    if gro.is_some() {
        netlink.remove_gro_device().await.map_err(|error| error.to_string())?;
        done.push(format!("interface {GRO_DEVICE} removed"));
    }
    if done.is_empty() {
        done.push(format!(
            "nothing of weft is in bpf-pin-dir {} and data-dir {}",
            config.bpf_pin_dir.display(),
            config.data_dir.display()
        ));
    }
    done.iter().for_each(|line| println!("{line}"));
    Ok(())
}
