//! Any bytes of a swarm's manager are its messages or not, and what they ask for is understood or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use weft_core::swarm::keys::{gossip_keys, keyring};
use weft_core::swarm::network::{address, name, network, reserved};
use weft_core::swarm::proto::{
    AssignmentsMessage, AttachNetworkResponse, IssueNodeCertificateResponse, Network, NodeCertificateStatusResponse,
    SessionMessage,
};
use weft_core::swarm::tasks::{Tasks, order};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(session) = SessionMessage::decode(bytes) {
        let keys = gossip_keys(&session.network_bootstrap_keys);
        let _ = keyring(&keys);
        if let Some(node) = session.node {
            let _ = reserved(&node.attachments, "net1").map(address);
        }
    }
    if let Ok(message) = AssignmentsMessage::decode(bytes) {
        let mut tasks = Tasks::default();
        let _ = tasks.apply(message);
        tasks.iter().for_each(|task| {
            let _ = order(task);
        });
    }
    if let Ok(told) = Network::decode(bytes) {
        let _ = name(&told);
        let _ = network(&told);
    }
    let _ = AttachNetworkResponse::decode(bytes);
    let _ = IssueNodeCertificateResponse::decode(bytes);
    let _ = NodeCertificateStatusResponse::decode(bytes);
});
