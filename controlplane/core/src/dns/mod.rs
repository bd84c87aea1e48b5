//! The answer to a question (`spec/service-discovery-lb.md` 5.8).

use std::net::Ipv4Addr;

/// What a container asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// IPv4 addresses of a name. Names are without the trailing dot, in any case.
    A(String),
    /// IPv6 addresses of a name.
    Aaaa(String),
    /// Mail exchangers of a name.
    Mx(String),
    /// The name of an IPv4 address.
    Ptr(Ipv4Addr),
    /// Anything else.
    Other(String),
}

/// What it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// These addresses, in this order.
    Addresses(Vec<Ipv4Addr>),
    /// The name exists, but has no such record: no error, no data.
    NoData,
    /// The name of the address, without the trailing dot.
    Name(String),
    /// Not ours: ask the host's resolvers.
    Forward,
}
