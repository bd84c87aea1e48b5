//! The maps by which sockets are balanced when they connect.

use super::{Entry, ip, number};
use crate::golang::Json;
use std::fmt::Write as _;
use weft_dataplane::abi::{Connected, NamespaceKey, Seat, V6};

pub(super) fn namespace(key: &NamespaceKey, seat: &Seat) -> Entry {
    let NamespaceKey { cookie, slot, .. } = key;
    let (vni, address) = (seat.vni, ip(seat.ip));
    let mut line = format!("namespace {cookie} slot {slot} -> vni {vni} {address}");
    let mut fields = vec![
        ("cookie", number(*cookie)),
        ("slot", number(*slot)),
        ("vni", number(vni)),
        ("ip", Json::text(address)),
    ];
    if seat.ip6 != V6::UNSPECIFIED {
        let address = ip(seat.ip6);
        let _ = write!(line, " ip6 {address}");
        fields.push(("ip6", Json::text(address)));
    }
    Entry { line, fields }
}

pub(super) fn socket(cookie: &u64, connected: &Connected) -> Entry {
    let (vip, backend) = (ip(connected.vip), ip(connected.backend));
    Entry {
        line: format!("socket {cookie} vip {vip} -> {backend}"),
        fields: vec![
            ("cookie", number(*cookie)),
            ("vip", Json::text(vip)),
            ("backend", Json::text(backend)),
        ],
    }
}
