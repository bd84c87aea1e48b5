//! The protobuf messages, field by field.
//!
//! Texts travel as bytes here, because Go's decoder does not ask for UTF-8 and a diagnosis must show what it shows.
//!
//! Docker's overlay has no IPv6 inside, and its services know round robin only. What weft has beside that stands in fields of its own,
//! far from where Docker's next ones will be: engines skip fields that they do not know, whereas a row of another key or an address of another family would be an error in their logs.

use prost::{DecodeError, Message};

/// A [`PeerRecord`](super::PeerRecord) with its fields unchecked, as Docker's tool prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPeerRecord {
    /// Field 1.
    pub endpoint_ip: String,
    /// Field 2.
    pub endpoint_mac: String,
    /// Field 3.
    pub tunnel_endpoint_ip: String,
    /// Field 101, weft's own.
    pub endpoint_ip6: String,
}

/// A [`PortConfig`](super::PortConfig) with its fields unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawPortConfig {
    /// Field 1.
    pub name: String,
    /// Field 2: 0 TCP, 1 UDP, 2 SCTP; others stay numbers.
    pub protocol: i32,
    /// Field 3.
    pub target_port: u32,
    /// Field 4.
    pub published_port: u32,
}

/// An [`EndpointRecord`](super::EndpointRecord) with its fields unchecked, as Docker's tool prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawEndpointRecord {
    /// Field 1.
    pub name: String,
    /// Field 2.
    pub service_name: String,
    /// Field 3.
    pub service_id: String,
    /// Field 4.
    pub virtual_ip: String,
    /// Field 5.
    pub endpoint_ip: String,
    /// Field 6.
    pub ingress_ports: Vec<RawPortConfig>,
    /// Field 7.
    pub aliases: Vec<String>,
    /// Field 8.
    pub task_aliases: Vec<String>,
    /// Field 9.
    pub service_disabled: bool,
    /// Field 101, weft's own.
    pub endpoint_ip6: String,
    /// Field 102, weft's own.
    pub virtual_ip6: String,
    /// Field 103, weft's own: how the service's backends are chosen.
    pub policy: u32,
    /// Field 104, weft's own: how long a client of the service keeps its backend.
    pub affinity_seconds: u32,
    /// Field 105, weft's own: the task's weight; 0: it has none of its own, so 1.
    pub weight: u32,
}

impl RawPeerRecord {
    /// All that is readable before the first error; empty fields for garbage (`spec/diagnostic-client.md` 2.4).
    pub fn lenient(bytes: &[u8]) -> Self {
        let mut message = PeerRecord::default();
        // What was decoded before the error stays in the message, and that is the answer.
        let _ = message.merge(bytes);
        RawPeerRecord {
            endpoint_ip: text(&message.endpoint_ip),
            endpoint_mac: text(&message.endpoint_mac),
            tunnel_endpoint_ip: text(&message.tunnel_endpoint_ip),
            endpoint_ip6: text(&message.endpoint_ip6),
        }
    }
}

impl RawEndpointRecord {
    /// All that is readable before the first error; empty fields for garbage (`spec/diagnostic-client.md` 2.4).
    pub fn lenient(bytes: &[u8]) -> Self {
        let mut message = EndpointRecord::default();
        // What was decoded before the error stays in the message, and that is the answer.
        let _ = message.merge(bytes);
        let texts = |list: &[Vec<u8>]| list.iter().map(|bytes| text(bytes)).collect();
        RawEndpointRecord {
            name: text(&message.name),
            service_name: text(&message.service_name),
            service_id: text(&message.service_id),
            virtual_ip: text(&message.virtual_ip),
            endpoint_ip: text(&message.endpoint_ip),
            ingress_ports: message.ingress_ports.iter().map(RawPortConfig::from_wire).collect(),
            aliases: texts(&message.aliases),
            task_aliases: texts(&message.task_aliases),
            service_disabled: message.service_disabled,
            endpoint_ip6: text(&message.endpoint_ip6),
            virtual_ip6: text(&message.virtual_ip6),
            policy: message.policy,
            affinity_seconds: message.affinity_seconds,
            weight: message.weight,
        }
    }
}

impl RawPortConfig {
    fn from_wire(message: &PortConfig) -> Self {
        RawPortConfig {
            name: text(&message.name),
            protocol: message.protocol,
            target_port: message.target_port,
            published_port: message.published_port,
        }
    }
}

pub(super) fn encode_peer(raw: &RawPeerRecord) -> Vec<u8> {
    PeerRecord {
        endpoint_ip: raw.endpoint_ip.clone().into_bytes(),
        endpoint_mac: raw.endpoint_mac.clone().into_bytes(),
        tunnel_endpoint_ip: raw.tunnel_endpoint_ip.clone().into_bytes(),
        endpoint_ip6: raw.endpoint_ip6.clone().into_bytes(),
    }
    .encode_to_vec()
}

pub(super) fn encode_endpoint(raw: &RawEndpointRecord) -> Vec<u8> {
    let bytes = |list: &[String]| list.iter().map(|text| text.clone().into_bytes()).collect();
    EndpointRecord {
        name: raw.name.clone().into_bytes(),
        service_name: raw.service_name.clone().into_bytes(),
        service_id: raw.service_id.clone().into_bytes(),
        virtual_ip: raw.virtual_ip.clone().into_bytes(),
        endpoint_ip: raw.endpoint_ip.clone().into_bytes(),
        ingress_ports: raw
            .ingress_ports
            .iter()
            .map(|port| PortConfig {
                name: port.name.clone().into_bytes(),
                protocol: port.protocol,
                target_port: port.target_port,
                published_port: port.published_port,
            })
            .collect(),
        aliases: bytes(&raw.aliases),
        task_aliases: bytes(&raw.task_aliases),
        service_disabled: raw.service_disabled,
        endpoint_ip6: raw.endpoint_ip6.clone().into_bytes(),
        virtual_ip6: raw.virtual_ip6.clone().into_bytes(),
        policy: raw.policy,
        affinity_seconds: raw.affinity_seconds,
        weight: raw.weight,
    }
    .encode_to_vec()
}

pub(super) fn decode_peer(bytes: &[u8]) -> Result<PeerRecord, DecodeError> {
    PeerRecord::decode(bytes)
}

pub(super) fn decode_endpoint(bytes: &[u8]) -> Result<EndpointRecord, DecodeError> {
    EndpointRecord::decode(bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PeerRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) endpoint_ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) endpoint_mac: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) tunnel_endpoint_ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "101")]
    pub(super) endpoint_ip6: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PortConfig {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(int32, tag = "2")]
    pub(super) protocol: i32,
    #[prost(uint32, tag = "3")]
    pub(super) target_port: u32,
    #[prost(uint32, tag = "4")]
    pub(super) published_port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct EndpointRecord {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) service_name: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) service_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) virtual_ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) endpoint_ip: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    pub(super) ingress_ports: Vec<PortConfig>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    pub(super) aliases: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    pub(super) task_aliases: Vec<Vec<u8>>,
    #[prost(bool, tag = "9")]
    pub(super) service_disabled: bool,
    #[prost(bytes = "vec", tag = "101")]
    pub(super) endpoint_ip6: Vec<u8>,
    #[prost(bytes = "vec", tag = "102")]
    pub(super) virtual_ip6: Vec<u8>,
    #[prost(uint32, tag = "103")]
    pub(super) policy: u32,
    #[prost(uint32, tag = "104")]
    pub(super) affinity_seconds: u32,
    #[prost(uint32, tag = "105")]
    pub(super) weight: u32,
}
