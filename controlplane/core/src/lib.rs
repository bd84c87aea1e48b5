//! What the daemon decides, without hands.
//!
//! Everything here is pure: no clock, socket, file, thread, lock or randomness of its own. Time and a random seed come in as
//! arguments, bytes and requests come in as [inputs](node::Input), and what is to be done goes out as [effects](node::Effect).
//!
//! | module | decides |
//! |---|---|
//! | [`membership`] | who is alive: SWIM as memberlist speaks it |
//! | [`networkdb`] | what everybody knows: tables per network, owned entries, tombstones, bulk sync |
//! | [`record`] | what the bytes in a table mean |
//! | [`wire`] | how both are written as bytes |
//! | [`ipam`] | pools, subnets, addresses, VNIs |
//! | [`cluster`] | what users declared: networks, services, allocations |
//! | [`overlay`] | where each address lives |
//! | [`service`] | services, backends, names |
//! | [`dns`] | the answer to a question |
//! | [`recording`] | how what entered a node's gossip is written down and run again |
//! | [`swarm`] | what a member of a Docker swarm answers its managers |
//! | [`wanted`], [`reconcile`] | what the kernel's maps should hold, and the steps there |
#![forbid(unsafe_code)]

pub mod cluster;
pub mod dns;
mod hash;
pub mod id;
pub mod ipam;
pub mod membership;
pub mod networkdb;
pub mod node;
pub mod overlay;
pub mod reconcile;
pub mod record;
pub mod recording;
pub mod service;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
pub mod swarm;
pub mod time;
pub mod wanted;
pub mod wire;
