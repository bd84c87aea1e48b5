//! Why the kernel, or we before asking it, refused.

use super::link::{MTU_MAX, MTU_MIN};
use crate::netns::NetnsError;
use nix::errno::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Why something about links and addresses failed. Nothing is left changed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// A privilege is missing.
    #[error("missing capability CAP_NET_ADMIN: run weftd as root")]
    NotPermitted,
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The text can be no name of an interface.
    #[error(
        "interface name {name:?} is not valid: 1 to 15 characters without '/', ':' and white space, and not . or .."
    )]
    InvalidName {
        /// What was given.
        name: String,
    },
    /// No such interface.
    #[error("interface {name:?} does not exist: `ip link` lists them")]
    NoSuchInterface {
        /// What was given.
        name: String,
    },
    /// The interface is of another kind than asked for, so it is left alone.
    #[error("interface {name:?} is not a {kind} device: weft leaves it alone; remove or rename it")]
    WrongKind {
        /// Its name.
        name: String,
        /// What was expected, as `ip link add type` names it.
        kind: &'static str,
    },
    /// The name is in use.
    #[error("interface {name:?} exists already in {place}: choose another name or remove it")]
    InterfaceTaken {
        /// The name.
        name: String,
        /// `the host` or the namespace.
        place: String,
    },
    /// No free `eth<n>`.
    #[error("no interface name from eth0 to eth{last} is free in {place}: remove some or give a name")]
    NoFreeName {
        /// The last one tried.
        last: usize,
        /// The namespace.
        place: String,
    },
    /// No device of this kind can have that MTU.
    #[error("MTU {mtu} is not valid: {MTU_MIN} to {MTU_MAX} bytes")]
    MtuOutOfRange {
        /// What was given, bytes.
        mtu: u32,
    },
    /// A MAC that no interface can have.
    #[error("MAC address {mac} is not valid for an interface: it must be unicast and not zero")]
    InvalidMac {
        /// What was given.
        mac: weft_core::id::MacAddress,
    },
    /// The address is in use in the namespace.
    #[error("address {ip} exists already on interface {interface:?} in {place}")]
    AddressExists {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        interface: String,
        /// The namespace.
        place: String,
    },
    /// The namespace has a default route.
    #[error("a default route exists already in {place}: connect without a default gateway, or remove the route")]
    DefaultRouteExists {
        /// The namespace.
        place: String,
    },
    /// A gateway that cannot be reached over the link.
    #[error("default gateway {gateway} is not an address of {subnet} other than the endpoint's own")]
    InvalidGateway {
        /// What was given.
        gateway: Ipv4Addr,
        /// The endpoint's subnet.
        subnet: ipnet::Ipv4Net,
    },
    /// Somebody else holds the UDP port.
    #[error("UDP port {port} is in use by another program: `ss -lunp 'sport = :{port}'` shows it")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// Another vxlan device holds the UDP port.
    #[error("UDP port {port} is that of the vxlan device {name:?}: remove it, or choose another data-path-port")]
    PortServed {
        /// The port.
        port: u16,
        /// Its name.
        name: String,
    },
    /// The programs send to an interface that is gone, and whose index another has now.
    #[error(
        "interface {name:?} cannot be made again with the index {ifindex}, which another has now: restart weftd, whose programs then get a new one"
    )]
    IndexTaken {
        /// Its name.
        name: String,
        /// The index.
        ifindex: u32,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// The error number that the kernel answered, if it was the kernel.
pub(super) fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw(message.raw_code().saturating_abs())),
        _ => None,
    }
}

/// The same as an `io::Error`.
pub(super) fn to_io(error: rtnetlink::Error) -> io::Error {
    match errno(&error) {
        Some(errno) => errno.into(),
        None => io::Error::other(error),
    }
}

/// Turns what the kernel answered into our error; `action` completes "cannot …".
pub(super) fn refused(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |error| match errno(&error) {
        Some(Errno::EPERM | Errno::EACCES) => NetlinkError::NotPermitted,
        _ => NetlinkError::Kernel {
            action: action.into(),
            source: to_io(error),
        },
    }
}
