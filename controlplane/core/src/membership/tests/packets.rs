//! Which packets have a checksum (`spec/networkdb.md` 3.3.6). Engines check one on probes too, which they send without.

use super::*;
use crate::wire::kind;

/// A member that speaks up to this protocol.
fn member(name: &str, last: u8, greatest: u8) -> Message {
    let mut versions = VERSIONS;
    versions[1] = greatest;
    Message::Alive(Alive {
        incarnation: 1,
        node: id(name),
        address: at(last),
        meta: Vec::new(),
        versions,
    })
}

#[test]
fn gossip_and_probes_have_a_checksum_for_who_checks_it() {
    for greatest in [5, 4] {
        let checks = greatest == 5;
        let mut membership = membership();
        receive(&mut membership, Instant::ZERO, &member(OTHER, 2, greatest));
        let (mut pings, mut gossip) = (0, 0);
        for output in run(&mut membership, after(3000)) {
            let Output::Datagram { to, bytes } = output else {
                continue;
            };
            assert_eq!(to, at(2));
            let messages = unpack(&bytes).messages;
            match &messages[..] {
                [Message::Ping(_)] => {
                    assert_eq!(bytes[0], if checks { kind::HAS_CRC } else { kind::PING });
                    pings += 1;
                }
                [Message::Alive(_)] => {
                    assert_eq!(bytes[0], if checks { kind::HAS_CRC } else { kind::ALIVE });
                    gossip += 1;
                }
                _ => {}
            }
        }
        assert!(pings > 0 && gossip > 0, "{pings} pings, {gossip} of gossip");
    }
}

#[test]
fn answers_to_probes_have_no_checksum() {
    let mut membership = membership();
    receive(&mut membership, Instant::ZERO, &member(OTHER, 2, 5));
    let ping = Message::Ping(crate::wire::message::Ping {
        sequence: 7,
        node: SELF.to_owned(),
        source: None,
    });
    let outputs = receive(&mut membership, Instant::ZERO, &ping);
    let answer = outputs.iter().find_map(|output| match output {
        Output::Datagram { to, bytes } if *to == at(9) => Some(bytes),
        _ => None,
    });
    assert_eq!(answer, Some(&Message::Ack(7).encode()));
}
