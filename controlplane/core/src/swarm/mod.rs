//! What a member of a Docker swarm decides (`spec/swarm-agent.md`): what the managers' messages mean, and how to answer them.
//!
//! The shell's `swarm` module holds the connections and performs what is decided here.

pub mod asked;
pub mod keys;
pub mod managers;
pub mod network;
pub mod proto;
pub mod reaction;
pub mod renewal;
pub mod tasks;
