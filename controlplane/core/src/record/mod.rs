//! What the bytes in a table mean: the records of `overlay_peer_table` and `endpoint_table`.
//!
//! The strict decoders ([`PeerRecord::decode`], [`EndpointRecord::decode`]) give only values that the rest may rely on, and an
//! error that names field and value otherwise. The raw ones ([`RawPeerRecord::lenient`], [`RawEndpointRecord::lenient`]) are for
//! diagnostics: they keep whatever was readable before the first error, as Docker's own tool prints it.

mod declared;
mod wire;

#[cfg(test)]
mod tests;

pub use wire::{RawEndpointRecord, RawPeerRecord, RawPortConfig};

use crate::id::MacAddress;
use crate::service::{MAX_AFFINITY_SECONDS, Policy};
use ipnet::{Ipv4Net, Ipv6Net};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use weft_dataplane::abi::load::MAX_WEIGHT;

/// Name of the table of [`PeerRecord`]s (`spec/overlay-driver.md` 4.8).
pub const PEER_TABLE: &str = "overlay_peer_table";

/// Name of the table of [`EndpointRecord`]s (`spec/service-discovery-lb.md` 5.1).
pub const ENDPOINT_TABLE: &str = "endpoint_table";

/// What Go prints for a nil IP, and so what Docker writes where a record has no virtual IP.
const NIL_IP: &str = "<nil>";

/// Why the bytes of a row are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are no protobuf message of this shape.
    #[error("{record} is not readable: {cause}")]
    Unreadable {
        /// `PeerRecord` or `EndpointRecord`.
        record: &'static str,
        /// What the protobuf decoder says.
        cause: prost::DecodeError,
    },
    /// A field holds something else than it should.
    #[error("{record} field {field} is {value:?}: it should be {rule}")]
    Field {
        /// `PeerRecord` or `EndpointRecord`.
        record: &'static str,
        /// The field, as the protobuf names it.
        field: &'static str,
        /// What it holds; bytes that are no UTF-8 show as U+FFFD.
        value: String,
        /// What would be right.
        rule: &'static str,
    },
}

/// Where an endpoint lives: a row of `overlay_peer_table` (`spec/overlay-driver.md` 4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// The endpoint's address, host bits kept, with the prefix length of its subnet.
    pub endpoint_ip: Ipv4Net,
    /// The endpoint's MAC.
    pub endpoint_mac: MacAddress,
    /// The VTEP behind which it lives.
    pub tunnel_endpoint_ip: IpAddr,
    /// Its IPv6 address beside the other, with the prefix length of that subnet.
    pub endpoint_ip6: Option<Ipv6Net>,
}

impl PeerRecord {
    /// The bytes of the row.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode_peer(&RawPeerRecord {
            endpoint_ip: self.endpoint_ip.to_string(),
            endpoint_mac: self.endpoint_mac.to_string(),
            tunnel_endpoint_ip: self.tunnel_endpoint_ip.to_string(),
            endpoint_ip6: text_of(self.endpoint_ip6.as_ref()),
        })
    }

    /// Reads the bytes of a row; on error nothing of it may be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const RECORD: &str = "PeerRecord";
        let raw = wire::decode_peer(bytes).map_err(|cause| RecordError::Unreadable { record: RECORD, cause })?;
        let field = |field, bytes| Field {
            record: RECORD,
            field,
            bytes,
        };
        Ok(PeerRecord {
            endpoint_ip: field("endpoint_ip", &raw.endpoint_ip)
                .parse("an IPv4 address with a prefix length, as 10.0.1.3/24")?,
            endpoint_mac: field("endpoint_mac", &raw.endpoint_mac).parse("a MAC address, as 02:42:0a:00:01:03")?,
            tunnel_endpoint_ip: field("tunnel_endpoint_ip", &raw.tunnel_endpoint_ip).parse("an IP address")?,
            endpoint_ip6: field("endpoint_ip6", &raw.endpoint_ip6)
                .optional("an IPv6 address with a prefix length, as fd00::3/64, or nothing")?,
        })
    }
}

/// Transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, number 0.
    Tcp,
    /// UDP, number 1.
    Udp,
    /// SCTP, number 2.
    Sctp,
}

impl Protocol {
    const ALL: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

    fn from_wire(number: i32) -> Option<Self> {
        usize::try_from(number)
            .ok()
            .and_then(|index| Self::ALL.get(index).copied())
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// A port published in the ingress mesh (`spec/service-discovery-lb.md` 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// Name of the port; usually empty.
    pub name: String,
    /// Its transport.
    pub protocol: Protocol,
    /// Port inside the container.
    pub target_port: u16,
    /// Port on every node.
    pub published_port: u16,
}

/// A name and the service behind it: a row of `endpoint_table` (`spec/service-discovery-lb.md` 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointRecord {
    /// Primary DNS name, never empty.
    pub name: String,
    /// Name of the service; empty for a plain container.
    pub service_name: String,
    /// Id of the service; empty for a plain container. Docker's are 25 characters, others are not refused.
    pub service_id: String,
    /// The service's VIP on this network; `None` in dnsrr mode and for a plain container.
    pub virtual_ip: Option<Ipv4Addr>,
    /// The endpoint's address.
    pub endpoint_ip: Ipv4Addr,
    /// Published ports; filled on an ingress network only.
    pub ingress_ports: Vec<PortConfig>,
    /// Further names of the service on this network.
    pub aliases: Vec<String>,
    /// Further names of the endpoint.
    pub task_aliases: Vec<String>,
    /// The task is draining: it takes no new connections.
    pub service_disabled: bool,
    /// The endpoint's IPv6 address beside the other.
    pub endpoint_ip6: Option<Ipv6Addr>,
    /// The service's IPv6 VIP beside the other.
    pub virtual_ip6: Option<Ipv6Addr>,
    /// How the service's backends are chosen.
    pub policy: Policy,
    /// So long a client of the service keeps its backend; 0: each connection is on its own.
    pub affinity_seconds: u32,
    /// The task's weight among the others, 1 to [`MAX_WEIGHT`]. Who takes nothing is [disabled](Self::service_disabled).
    pub weight: u32,
}

impl EndpointRecord {
    /// The bytes of the row. A missing VIP is written as `<nil>`, as Docker does.
    pub fn encode(&self) -> Vec<u8> {
        wire::encode_endpoint(&RawEndpointRecord {
            name: self.name.clone(),
            service_name: self.service_name.clone(),
            service_id: self.service_id.clone(),
            virtual_ip: self.virtual_ip.map_or_else(|| NIL_IP.to_owned(), |ip| ip.to_string()),
            endpoint_ip: self.endpoint_ip.to_string(),
            ingress_ports: self.ingress_ports.iter().map(PortConfig::to_raw).collect(),
            aliases: self.aliases.clone(),
            task_aliases: self.task_aliases.clone(),
            service_disabled: self.service_disabled,
            endpoint_ip6: text_of(self.endpoint_ip6.as_ref()),
            virtual_ip6: text_of(self.virtual_ip6.as_ref()),
            policy: self.policy.number(),
            affinity_seconds: self.affinity_seconds,
            // What is as everywhere takes no byte.
            weight: if self.weight == 1 { 0 } else { self.weight },
        })
    }

    /// Reads the bytes of a row; on error nothing of it may be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        const RECORD: &str = "EndpointRecord";
        let raw = wire::decode_endpoint(bytes).map_err(|cause| RecordError::Unreadable { record: RECORD, cause })?;
        let field = |field, bytes| Field {
            record: RECORD,
            field,
            bytes,
        };
        let name = field("name", &raw.name);
        if raw.name.is_empty() {
            return Err(name.error("the endpoint's name"));
        }
        Ok(EndpointRecord {
            name: name.text()?,
            service_name: field("service_name", &raw.service_name).text()?,
            service_id: field("service_id", &raw.service_id).text()?,
            virtual_ip: match raw.virtual_ip.as_slice() {
                b"" | b"<nil>" => None,
                text => Some(field("virtual_ip", text).parse("an IPv4 address, <nil> or nothing")?),
            },
            endpoint_ip: field("endpoint_ip", &raw.endpoint_ip).parse("an IPv4 address")?,
            ingress_ports: raw.ingress_ports.iter().map(port_from_wire).collect::<Result<_, _>>()?,
            aliases: texts(RECORD, "aliases", &raw.aliases)?,
            task_aliases: texts(RECORD, "task_aliases", &raw.task_aliases)?,
            service_disabled: raw.service_disabled,
            endpoint_ip6: field("endpoint_ip6", &raw.endpoint_ip6).optional("an IPv6 address or nothing")?,
            virtual_ip6: field("virtual_ip6", &raw.virtual_ip6).optional("an IPv6 address or nothing")?,
            // A later version may know more: its tasks are backends all the same.
            policy: Policy::from_number(raw.policy),
            affinity_seconds: raw.affinity_seconds.min(MAX_AFFINITY_SECONDS),
            weight: raw.weight.clamp(1, MAX_WEIGHT),
        })
    }

    /// Whether it is a task of a service, and not a plain container.
    pub fn is_task(&self) -> bool {
        !self.service_id.is_empty()
    }
}

impl PortConfig {
    fn to_raw(&self) -> RawPortConfig {
        RawPortConfig {
            name: self.name.clone(),
            protocol: self.protocol as i32,
            target_port: self.target_port.into(),
            published_port: self.published_port.into(),
        }
    }
}

fn port_from_wire(raw: &wire::PortConfig) -> Result<PortConfig, RecordError> {
    const RECORD: &str = "EndpointRecord";
    let invalid = |field, value: String, rule| RecordError::Field {
        record: RECORD,
        field,
        value,
        rule,
    };
    let port = |field, number: u32| {
        u16::try_from(number).map_err(|_| invalid(field, number.to_string(), "a port from 0 to 65535"))
    };
    Ok(PortConfig {
        name: Field {
            record: RECORD,
            field: "ingress_ports.name",
            bytes: &raw.name,
        }
        .text()?,
        protocol: Protocol::from_wire(raw.protocol).ok_or_else(|| {
            invalid(
                "ingress_ports.protocol",
                raw.protocol.to_string(),
                "0 (TCP), 1 (UDP) or 2 (SCTP)",
            )
        })?,
        target_port: port("ingress_ports.target_port", raw.target_port)?,
        published_port: port("ingress_ports.published_port", raw.published_port)?,
    })
}

/// Nothing is written as nothing, which takes no byte.
fn text_of(value: Option<&impl ToString>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

fn texts(record: &'static str, field: &'static str, list: &[Vec<u8>]) -> Result<Vec<String>, RecordError> {
    list.iter().map(|bytes| Field { record, field, bytes }.text()).collect()
}

/// A text field as it came in, and what to call it in an error.
struct Field<'a> {
    record: &'static str,
    field: &'static str,
    bytes: &'a [u8],
}

impl Field<'_> {
    fn text(&self) -> Result<String, RecordError> {
        std::str::from_utf8(self.bytes)
            .map(str::to_owned)
            .map_err(|_| self.error("UTF-8 text"))
    }

    fn parse<T: FromStr>(&self, rule: &'static str) -> Result<T, RecordError> {
        let text = std::str::from_utf8(self.bytes).map_err(|_| self.error(rule))?;
        text.parse().map_err(|_| self.error(rule))
    }

    fn optional<T: FromStr>(&self, rule: &'static str) -> Result<Option<T>, RecordError> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        self.parse(rule).map(Some)
    }

    fn error(&self, rule: &'static str) -> RecordError {
        let value = String::from_utf8_lossy(self.bytes).into_owned();
        RecordError::Field {
            record: self.record,
            field: self.field,
            value,
            rule,
        }
    }
}
