//! The daemon `weftd` and the command `weft`: sockets, timers, netlink, loading. Performs what the core decides.

pub mod api;
pub mod client;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod gossip;
pub mod lock;
pub mod netlink;
pub mod netns;
pub mod resolver;
pub mod store;
pub mod swarm;
pub mod usage;
