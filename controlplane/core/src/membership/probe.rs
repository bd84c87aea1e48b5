//! Probing members, and answering probes (`spec/networkdb.md` 3.4).

use super::timing::{INDIRECT_CHECKS, PROBE_INTERVAL, PROBE_TIMEOUT};
use super::{Exchange, LogLevel, Member, Membership, Output, StreamId};
use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::{Accusation, IndirectPing, Message, Ping, Source};
use crate::wire::stream::NodeState;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How many indirect pings are served at once. A member asks for a handful a second; more are a flood.
pub(super) const MAX_RELAYS: usize = 1024;

/// The probe that runs; there is one at a time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Probe {
    node: NodeId,
    address: SocketAddr,
    sequence: u32,
    /// When others are to be asked; `None` once they are.
    direct_until: Option<Instant>,
    end: Instant,
    nacks_expected: u32,
    nacks: u32,
    stream: Option<StreamId>,
    answered_by_stream: bool,
}

/// A ping that somebody else asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Relay {
    requester: SocketAddr,
    checksum: bool,
    sequence: u32,
    nack: bool,
    end: Instant,
}

impl Probe {
    /// Whether reckoning on with the numbers is safe.
    pub(super) fn is_plausible(&self) -> bool {
        self.nacks <= self.nacks_expected && self.nacks_expected <= INDIRECT_CHECKS as u32
    }
}

impl Membership {
    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn source(&self) -> Option<Source> {
        Some(Source {
            address: self.config.advertise,
            node: self.config.name.to_string(),
        })
    }

    fn ping(&self, node: &str, sequence: u32) -> Ping {
        Ping {
            sequence,
            node: node.to_owned(),
            source: self.source(),
        }
    }

    pub(super) fn probe_timeout(&self) -> Option<Instant> {
        if self.leaving.is_some() {
            return None;
        }
        Some(match &self.probe {
            Some(probe) => probe.direct_until.unwrap_or(probe.end),
            None => self.probe_at,
        })
    }

    pub(super) fn advance_probe(&mut self, now: Instant) {
        if self.leaving.is_some() {
            return;
        }
        if let Some(probe) = &mut self.probe {
            if probe.end <= now {
                self.conclude_probe(now);
            } else if probe.direct_until.is_some_and(|until| until <= now) {
                probe.direct_until = None;
                self.probe_indirectly(now);
            }
        }
        if self.probe.is_none() && self.probe_at <= now {
            // Ticks that passed during a slow probe are not made up for.
            self.probe_at = now + PROBE_INTERVAL;
            self.start_probe(now);
        }
    }

    fn start_probe(&mut self, now: Instant) {
        let Some(node) = self.next_to_probe(now) else { return };
        let Some(member) = self.roster.get(&node).cloned() else {
            return;
        };
        let (address, suspect) = (member.address, member.state == NodeState::Suspect);
        let sequence = self.next_sequence();
        let mut parts = vec![Message::Ping(self.ping(node.as_str(), sequence)).encode()];
        if suspect {
            // The suspect learns at once what it has to refute.
            let (incarnation, from) = (member.incarnation, self.config.name.clone());
            parts.push(
                Message::Suspect(Accusation {
                    incarnation,
                    node: node.clone(),
                    from,
                })
                .encode(),
            );
        }
        // Engines send probes without a checksum, and take them with one. UDP's own can be left out or miss a change, and one wrong
        // byte in the name of who is asked, or in the kind of the answer, would make a dead member live.
        self.send(address, &parts, member.takes_checksum());
        self.probe = Some(Probe {
            node,
            address,
            sequence,
            direct_until: Some(now + PROBE_TIMEOUT),
            end: now + self.probe_interval(),
            nacks_expected: 0,
            nacks: 0,
            stream: None,
            answered_by_stream: false,
        });
    }

    /// No answer in time: others try, and TCP does.
    fn probe_indirectly(&mut self, now: Instant) {
        let Some(Probe {
            node,
            address,
            sequence,
            ..
        }) = self.probe.clone()
        else {
            return;
        };
        let own = &self.config.name;
        let helps =
            |other: &NodeId, member: &Member| other != own && *other != node && member.state == NodeState::Alive;
        let helpers = self.roster.pick(&mut self.random, INDIRECT_CHECKS, helps);
        let mut nacks_expected = 0;
        for (_, helper) in helpers {
            let nack = helper.sends_nack();
            nacks_expected += u32::from(nack);
            let source = self.source();
            let request = IndirectPing {
                sequence,
                node: node.to_string(),
                target: address,
                nack,
                source,
            };
            self.send(
                helper.address,
                &[Message::IndirectPing(request).encode()],
                helper.takes_checksum(),
            );
        }
        let bytes = Message::Ping(self.ping(node.as_str(), sequence)).encode();
        let stream = self.open(bytes, Exchange::probe(now, address, sequence));
        if let Some(probe) = &mut self.probe {
            probe.nacks_expected = nacks_expected;
            probe.stream = Some(stream);
        }
    }

    /// The time of the probe is over without an ack.
    fn conclude_probe(&mut self, now: Instant) {
        let Some(probe) = self.probe.take() else { return };
        if probe.answered_by_stream {
            self.change_health(-1);
            let message = format!(
                "Was able to connect to {} over TCP but UDP probes failed, network may be misconfigured",
                probe.node
            );
            self.log(LogLevel::Warn, message);
            return;
        }
        self.counters.failed_probes += 1;
        let missed = probe.nacks_expected.saturating_sub(probe.nacks);
        self.change_health(if probe.nacks_expected > 0 { missed.into() } else { 1 });
        let Some(incarnation) = self.roster.get(&probe.node).map(|member| member.incarnation) else {
            return;
        };
        self.log(
            LogLevel::Info,
            format!("Suspect {} has failed, no acks received", probe.node),
        );
        self.suspect(
            now,
            Accusation {
                incarnation,
                node: probe.node,
                from: self.config.name.clone(),
            },
        );
    }

    pub(super) fn handle_ping(&mut self, from: SocketAddr, ping: Ping) {
        if !ping.node.is_empty() && ping.node != self.config.name.as_str() {
            let message = format!("ping from {from} for another node {:?}", ping.node);
            self.log(LogLevel::Debug, message);
            let stranger = |source: &Source| {
                let member = NodeId::new(&*source.node).ok();
                member.is_none_or(|node| self.roster.get(&node).is_none_or(Member::gone))
            };
            if let Some(source) = ping.source.filter(stranger) {
                self.outputs.push_back(Output::Sought(source.address));
            }
            return;
        }
        let checksum = self.takes_checksum(ping.source.as_ref());
        let to = ping.source.map_or(from, |source| source.address);
        self.send(to, &[Message::Ack(ping.sequence).encode()], checksum);
    }

    pub(super) fn handle_indirect_ping(&mut self, now: Instant, from: SocketAddr, request: IndirectPing) {
        // What cannot be a member's name would only make a packet large that goes to whom the request likes.
        if self.relays.len() >= MAX_RELAYS || request.target.port() == 0 || NodeId::new(&*request.node).is_err() {
            return;
        }
        let sequence = self.next_sequence();
        let ping = self.ping(&request.node, sequence);
        let target = NodeId::new(&*request.node).ok().and_then(|node| self.roster.get(&node));
        let checksum = target.is_some_and(Member::takes_checksum);
        self.send(request.target, &[Message::Ping(ping).encode()], checksum);
        let relay = Relay {
            checksum: self.takes_checksum(request.source.as_ref()),
            requester: request.source.map_or(from, |source| source.address),
            sequence: request.sequence,
            nack: request.nack,
            end: now + PROBE_TIMEOUT,
        };
        self.relays.insert(sequence, relay);
    }

    /// Whether who asks takes a checksum; one that is not known as a member gets none.
    fn takes_checksum(&self, source: Option<&Source>) -> bool {
        let node = source.and_then(|source| NodeId::new(&*source.node).ok());
        node.and_then(|node| self.roster.get(&node))
            .is_some_and(Member::takes_checksum)
    }

    /// Asks a member to answer under its name, for it came at another one's address. [`Output::There`] follows when it does, now or to
    /// a later probe.
    pub fn ask_whether_there(&mut self, node: &NodeId) {
        let Some(member) = self.roster.get(node) else { return };
        let (address, checksum) = (member.address, member.takes_checksum());
        // Beyond the bound they are believed.
        if self.doubted.len() >= MAX_RELAYS {
            self.outputs.push_back(Output::There(node.clone()));
            return;
        }
        let sequence = self.next_sequence();
        let ping = Message::Ping(self.ping(node.as_str(), sequence));
        self.send(address, &[ping.encode()], checksum);
        self.doubted.insert(node.clone(), sequence);
    }

    /// A member is gone or has answered.
    pub(super) fn doubt_no_more(&mut self, node: &NodeId) -> bool {
        self.doubted.remove(node).is_some()
    }

    pub(super) fn handle_ack(&mut self, sequence: u32) {
        let answered = if let Some(relay) = self.relays.remove(&sequence) {
            self.send(
                relay.requester,
                &[Message::Ack(relay.sequence).encode()],
                relay.checksum,
            );
            None
        } else if let Some(probe) = self.probe.take_if(|probe| probe.sequence == sequence) {
            self.change_health(-1);
            // An answer to what was asked before the doubt may come from one that has ended since.
            let asked_since = |asked: &u32| probe.sequence.wrapping_sub(*asked) < u32::MAX / 2;
            self.doubted
                .get(&probe.node)
                .is_some_and(asked_since)
                .then_some(probe.node)
        } else {
            let doubted = self.doubted.iter().find(|(_, asked)| **asked == sequence);
            doubted.map(|(node, _)| node.clone())
        };
        if let Some(node) = answered {
            self.doubt_no_more(&node);
            self.outputs.push_back(Output::There(node));
        }
    }

    pub(super) fn handle_nack(&mut self, sequence: u32) {
        if let Some(probe) = self.probe.as_mut().filter(|probe| probe.sequence == sequence) {
            probe.nacks = (probe.nacks + 1).min(probe.nacks_expected);
        }
    }

    /// The member answered by TCP what it did not answer by UDP.
    pub(super) fn handle_stream_ack(&mut self, stream: StreamId, sequence: u32) {
        if let Some(probe) = &mut self.probe
            && probe.stream == Some(stream)
            && probe.sequence == sequence
        {
            probe.answered_by_stream = true;
        }
    }

    pub(super) fn answer_stream_ping(&mut self, stream: StreamId, ping: &Ping) {
        if ping.node == self.config.name.as_str() {
            self.reply(stream, Message::Ack(ping.sequence).encode());
        } else {
            self.outputs.push_back(Output::Close { stream });
        }
    }

    pub(super) fn relay_timeout(&self) -> Option<Instant> {
        self.relays.values().map(|relay| relay.end).min()
    }

    /// Tells those who asked that the pinged node did not answer.
    pub(super) fn expire_relays(&mut self, now: Instant) {
        let late: Vec<_> = self.relays.extract_if(.., |_, relay| relay.end <= now).collect();
        for (_, relay) in late.into_iter().filter(|(_, relay)| relay.nack) {
            self.send(
                relay.requester,
                &[Message::Nack(relay.sequence).encode()],
                relay.checksum,
            );
        }
    }
}
