//! Records of the tables, decoded leniently: what decodes is shown, the rest is empty.
//!
//! A diagnosis must show what is really there, so nothing is refused here that `weft_core::record` would refuse.

use super::flags::Table;
use prost::Message;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::fmt;

/// A value of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// Of `endpoint_table`.
    Endpoint(EndpointRecord),
    /// Of `overlay_peer_table`.
    Peer(PeerRecord),
}

/// A value of `endpoint_table` (`spec/service-discovery-lb.md` 5.1). Texts are bytes, because they may be no UTF-8.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EndpointRecord {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    service_name: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    service_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    virtual_ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    endpoint_ip: Vec<u8>,
    #[prost(message, repeated, tag = "6")]
    ingress_ports: Vec<PortConfig>,
    #[prost(bytes = "vec", repeated, tag = "7")]
    aliases: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "8")]
    task_aliases: Vec<Vec<u8>>,
    #[prost(bool, tag = "9")]
    service_disabled: bool,
}

/// A published port.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PortConfig {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int32, tag = "2")]
    protocol: i32,
    #[prost(uint32, tag = "3")]
    target_port: u32,
    #[prost(uint32, tag = "4")]
    published_port: u32,
}

/// A value of `overlay_peer_table` (`spec/overlay-driver.md` 4.8).
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PeerRecord {
    #[prost(bytes = "vec", tag = "1")]
    endpoint_ip: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    endpoint_mac: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    tunnel_endpoint_ip: Vec<u8>,
}

impl Record {
    /// What decodes of a value.
    pub(crate) fn decode(table: Table, value: &[u8]) -> Record {
        match table {
            Table::Endpoints => Record::Endpoint(lenient(value)),
            Table::Peers => Record::Peer(lenient(value)),
        }
    }

    /// All fields, named.
    pub(crate) fn json(&self) -> Value {
        match self {
            Record::Endpoint(record) => json!({
                "name": text(&record.name),
                "serviceName": text(&record.service_name),
                "serviceID": text(&record.service_id),
                "virtualIP": text(&record.virtual_ip),
                "endpointIP": text(&record.endpoint_ip),
                "ingressPorts": record.ingress_ports.iter().map(PortConfig::json).collect::<Vec<_>>(),
                "aliases": texts(&record.aliases),
                "taskAliases": texts(&record.task_aliases),
                "serviceDisabled": record.service_disabled,
            }),
            Record::Peer(record) => json!({
                "endpointIP": text(&record.endpoint_ip),
                "endpointMAC": text(&record.endpoint_mac),
                "tunnelEndpointIP": text(&record.tunnel_endpoint_ip),
            }),
        }
    }
}

/// The fields up to the first that does not decode.
fn lenient<M: Message + Default>(value: &[u8]) -> M {
    let mut record = M::default();
    // The error is of no use: what was decoded before it stays in the record.
    let _ = record.merge(value);
    record
}

impl PortConfig {
    fn protocol_name(&self) -> Cow<'static, str> {
        match self.protocol {
            0 => "TCP".into(),
            1 => "UDP".into(),
            2 => "SCTP".into(),
            unknown => unknown.to_string().into(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": text(&self.name),
            "protocol": self.protocol_name(),
            "targetPort": self.target_port,
            "publishedPort": self.published_port,
        })
    }
}

/// As Go's `%+v` prints the records.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Record::Endpoint(record) => write!(
                f,
                "{{Name:{} ServiceName:{} ServiceID:{} VirtualIP:{} EndpointIP:{} IngressPorts:[{}] Aliases:[{}] \
                 TaskAliases:[{}] ServiceDisabled:{}}}",
                text(&record.name),
                text(&record.service_name),
                text(&record.service_id),
                text(&record.virtual_ip),
                text(&record.endpoint_ip),
                record.ingress_ports.iter().map(port_text).collect::<Vec<_>>().join(" "),
                texts(&record.aliases).join(" "),
                texts(&record.task_aliases).join(" "),
                record.service_disabled
            ),
            Record::Peer(record) => write!(
                f,
                "{{EndpointIP:{} EndpointMAC:{} TunnelEndpointIP:{}}}",
                text(&record.endpoint_ip),
                text(&record.endpoint_mac),
                text(&record.tunnel_endpoint_ip)
            ),
        }
    }
}

fn port_text(port: &PortConfig) -> String {
    format!(
        "&PortConfig{{Name:{},Protocol:{},TargetPort:{},PublishedPort:{},}}",
        text(&port.name),
        port.protocol_name(),
        port.target_port,
        port.published_port
    )
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn texts(list: &[Vec<u8>]) -> Vec<Cow<'_, str>> {
    list.iter().map(|bytes| text(bytes)).collect()
}

#[cfg(test)]
mod tests;
