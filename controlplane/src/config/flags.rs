//! The flags of `weftd`.

use super::file::Pool;
use super::tuning::Tuning;
use std::path::PathBuf;

/// The weft daemon: one per host, as root.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Parser)]
#[command(name = "weftd", version, about, after_help = super::file::HELP)]
pub struct Flags {
    /// Configuration file, JSON [default: /etc/weft/daemon.json, which need not exist]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check the configuration and exit
    #[arg(long)]
    pub validate: bool,
    /// Detach and unpin everything that a weftd with this configuration left on this host, and exit; refused while it runs
    #[arg(long, conflicts_with = "validate")]
    pub cleanup: bool,
    /// Name of this node, unique in its cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Directory for the daemon's state [default: /var/lib/weft]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address that gossip and cluster listen on [default: 0.0.0.0, or :: if the advertised one is of IPv6]
    #[arg(long, value_name = "IP")]
    pub listen_addr: Option<String>,
    /// Address that other nodes reach this one at [default: the source of the default route]
    #[arg(long, value_name = "IP")]
    pub advertise_addr: Option<String>,
    /// Address for VXLAN traffic [default: the advertised one]
    #[arg(long, value_name = "IP")]
    pub data_path_addr: Option<String>,
    /// UDP port of VXLAN, the same on all nodes [default: 4789]
    #[arg(long, value_name = "PORT")]
    pub data_path_port: Option<u32>,
    /// TCP and UDP port of the gossip [default: 7946]
    #[arg(long, value_name = "PORT")]
    pub gossip_port: Option<u32>,
    /// TCP port of the manager [default: 2377]
    #[arg(long, value_name = "PORT")]
    pub cluster_port: Option<u32>,
    /// Device that carries the overlay [default: the one with the advertised address]
    #[arg(long, value_name = "DEVICE")]
    pub uplink: Option<String>,
    /// Address pool for networks without a subnet, may be given again [default: base=10.0.0.0/8,size=24]
    #[arg(long, value_name = "base=CIDR,size=N")]
    pub default_addr_pools: Vec<Pool>,
    /// Port of the diagnostic server on 127.0.0.1; takes effect at SIGHUP
    #[arg(long, value_name = "PORT")]
    pub network_diagnostic_port: Option<i64>,
    /// Unix socket of the API [default: /run/weft/weft.sock]
    #[arg(long, value_name = "FILE")]
    pub api_socket: Option<PathBuf>,
    /// eBPF object in place of the embedded one
    #[arg(long, value_name = "FILE")]
    pub bpf_object: Option<PathBuf>,
    /// Directory on bpffs for pinned programs and maps [default: /sys/fs/bpf/weft]
    #[arg(long, value_name = "DIR")]
    pub bpf_pin_dir: Option<PathBuf>,
    /// File for the process id
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// trace, debug, info, warn or error [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// What of the kernel is used, whatever a trial says of it; may be given again: attach=tcx|clsact,
    /// handover=redirect_peer|redirect, encap=adjust_room|collect_md, decap-l3=flag|change_proto,
    /// csum-ipv6=flag|plain, map-reads=batch|single, balance=connect|packet, early-drop=xdp|tc
    /// [default: what the trial says; balance=packet, early-drop=tc]
    #[arg(long, value_name = "NAME=CHOICE")]
    pub features: Vec<String>,
    /// Sizes and time-outs.
    #[command(flatten)]
    pub tuning: Tuning,
}
