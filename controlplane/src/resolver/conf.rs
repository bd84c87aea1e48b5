//! The text of `resolv.conf`: the host's is read, a container's is written (resolv.conf(5)).

use super::{ADDRESS, PORT, SERVERS_MAX};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A container's `resolv.conf`: our resolver, the host's search list, and the host's options with `ndots:0` unless it has an
/// `ndots` of its own, so that single-label names are asked as they are.
pub fn resolv_conf(host_resolv_conf: &str) -> String {
    let mut search: Vec<&str> = Vec::new();
    let mut options: Vec<&str> = Vec::new();
    for (keyword, values) in lines(host_resolv_conf) {
        match keyword {
            // The last of either kind counts.
            "search" => search = values.collect(),
            "domain" => search = values.take(1).collect(),
            "options" => options.extend(values),
            _ => {}
        }
    }
    if !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0");
    }
    let mut text = format!("nameserver {ADDRESS}\n");
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    text + &format!("options {}\n", options.join(" "))
}

/// The name servers to ask, in order: at most [`SERVERS_MAX`], our own address left out, for it would ask itself.
pub(super) fn name_servers(text: &str) -> Vec<SocketAddr> {
    lines(text)
        .filter(|(keyword, _)| *keyword == "nameserver")
        .filter_map(|(_, mut values)| server(values.next()?))
        .filter(|server| server.ip().to_canonical() != IpAddr::V4(ADDRESS))
        .take(SERVERS_MAX)
        .collect()
}

fn lines(text: &str) -> impl Iterator<Item = (&str, std::str::SplitWhitespace<'_>)> {
    text.lines().filter_map(|line| {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        words.next().map(|keyword| (keyword, words))
    })
}

/// An address, of IPv6 also with a zone: `fe80::1%eth0`.
fn server(text: &str) -> Option<SocketAddr> {
    let Some((address, zone)) = text.split_once('%') else {
        return text.parse().ok().map(|ip| SocketAddr::new(ip, PORT));
    };
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = zone.parse().or_else(|_| nix::net::if_::if_nametoindex(zone)).ok()?;
    Some(SocketAddrV6::new(address, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests;
