//! What happens to packets and streams on their way.

use super::{Happening, Simulation, place_of};
use crate::networkdb::stream::{Completeness, completeness};
use crate::networkdb::{Input, PACKET_BUDGET_BYTES, StreamId};
use crate::time::Duration;
use std::net::SocketAddr;

/// How long a stream waits for an answer (`spec/networkdb.md` 3.2).
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);

/// By how much a straggling datagram is late at most: later than what was sent seconds after it.
pub(super) const STRAGGLER_DELAY: Duration = Duration::from_secs(3);

/// What TCP takes to send a lost segment again.
const RETRANSMISSION_DELAY: Duration = Duration::from_millis(200);

/// What happens to packets. Streams are delayed by loss, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// How many datagrams of a hundred are lost.
    pub loss_percent: usize,
    /// The shortest delay.
    pub latency_min: Duration,
    /// The longest one.
    pub latency_max: Duration,
    /// How many datagrams of a hundred arrive twice.
    pub duplicated_percent: usize,
    /// How many datagrams of a hundred are overtaken by those of the next seconds.
    pub straggling_percent: usize,
    /// How many datagrams of a hundred arrive with a wrong byte.
    pub damaged_percent: usize,
}

/// What nodes sent, whether it arrived or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes in datagrams.
    pub datagram_bytes: u64,
    /// Messages on streams, answers included.
    pub stream_messages: u64,
    /// Bytes on streams.
    pub stream_bytes: u64,
}

impl Traffic {
    /// What was sent since `earlier`.
    pub fn since(&self, earlier: &Traffic) -> Traffic {
        Traffic {
            datagrams: self.datagrams - earlier.datagrams,
            datagram_bytes: self.datagram_bytes - earlier.datagram_bytes,
            stream_messages: self.stream_messages - earlier.stream_messages,
            stream_bytes: self.stream_bytes - earlier.stream_bytes,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Delivery {
    Datagram {
        to: SocketAddr,
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    Request {
        to: SocketAddr,
        opened: Opened,
        bytes: Vec<u8>,
        expects_reply: bool,
    },
    Reply {
        from: usize,
        opened: Opened,
        bytes: Vec<u8>,
    },
    Failed {
        opened: Opened,
        error: String,
    },
}

/// A stream at the node that opened it. It ends with that node, and is not that of the next one at its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opened {
    pub(super) node: usize,
    pub(super) stream: StreamId,
}

/// A stream at the node that accepted it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accepted {
    by: usize,
    opened: Opened,
    expects_reply: bool,
}

/// What becomes of a packet or connection attempt.
enum Reach {
    Node(usize),
    Refused,
    Silence,
}

impl Simulation {
    pub(super) fn send_datagram(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let length = bytes.len();
        if self.checks_framing {
            assert!(length <= PACKET_BUDGET_BYTES, "a datagram of {length} bytes");
        }
        self.traffic.datagrams += 1;
        self.traffic.datagram_bytes += length as u64;
        if self.streams_only || self.happens(self.weather.loss_percent) {
            return;
        }
        if self.happens(self.weather.duplicated_percent) {
            let bytes = bytes.clone();
            let delay = self.datagram_delay();
            self.later(delay, Delivery::Datagram { to, from, bytes });
        }
        let delay = self.datagram_delay();
        self.later(delay, Delivery::Datagram { to, from, bytes });
    }

    pub(super) fn open_stream(&mut self, opened: Opened, to: SocketAddr, bytes: Vec<u8>, expects_reply: bool) {
        self.count_stream_message(&bytes);
        // The handshake, then the message.
        let delay = self.stream_delay() + self.stream_delay() + self.stream_delay();
        let request = Delivery::Request {
            to,
            opened,
            bytes,
            expects_reply,
        };
        self.later(delay, request);
    }

    pub(super) fn answer_stream(&mut self, stream: StreamId, bytes: Vec<u8>) {
        self.count_stream_message(&bytes);
        let accepted = self.accepted.remove(&stream).expect("an accepted stream");
        if accepted.expects_reply {
            let delay = self.stream_delay();
            let reply = Delivery::Reply {
                from: accepted.by,
                opened: accepted.opened,
                bytes,
            };
            self.later(delay, reply);
        }
    }

    pub(super) fn close_stream(&mut self, stream: StreamId) {
        let accepted = self.accepted.remove(&stream).expect("an accepted stream");
        self.break_off(accepted, "the connection was closed after 0 bytes of a message");
    }

    /// The streams that a node had accepted end with it.
    pub(super) fn reset_streams(&mut self, node: usize) {
        let reset: Vec<_> = self
            .accepted
            .extract_if(.., |_, accepted| accepted.by == node)
            .collect();
        for (_, accepted) in reset {
            self.break_off(accepted, "read: connection reset by peer");
        }
    }

    fn break_off(&mut self, accepted: Accepted, error: &str) {
        if accepted.expects_reply {
            let delay = self.stream_delay();
            let (opened, error) = (accepted.opened, error.to_owned());
            self.later(delay, Delivery::Failed { opened, error });
        }
    }

    fn count_stream_message(&mut self, bytes: &[u8]) {
        if self.checks_framing {
            let whole = Completeness::Whole(bytes.len());
            assert_eq!(completeness(bytes), whole, "a stream's message is whole");
        }
        self.traffic.stream_messages += 1;
        self.traffic.stream_bytes += bytes.len() as u64;
    }

    fn happens(&mut self, percent: usize) -> bool {
        percent > 0 && self.random.below(100) < percent
    }

    fn latency(&mut self) -> Duration {
        let Weather {
            latency_min,
            latency_max,
            ..
        } = self.weather;
        latency_min + self.random.stagger(latency_max - latency_min)
    }

    fn datagram_delay(&mut self) -> Duration {
        let straggles = self.happens(self.weather.straggling_percent);
        let more = if straggles { STRAGGLER_DELAY } else { Duration::ZERO };
        self.latency() + self.random.stagger(more)
    }

    fn stream_delay(&mut self) -> Duration {
        let mut delay = self.latency();
        let mut again = RETRANSMISSION_DELAY;
        while again < STREAM_TIMEOUT && self.happens(self.weather.loss_percent) {
            delay += again;
            again *= 2;
        }
        delay
    }

    fn later(&mut self, delay: Duration, delivery: Delivery) {
        self.agenda.push(self.now + delay, Happening::Delivery(delivery));
    }

    fn node_at(&self, address: SocketAddr) -> Option<usize> {
        self.at.get(place_of(address)?).copied().flatten()
    }

    pub(super) fn passes(&self, from: usize, to: usize) -> bool {
        let (from, to) = (self.nodes[from].side, self.nodes[to].side);
        from == to || self.one_way.contains(&(from, to))
    }

    /// Who answers at `to`, if the sender reaches it.
    fn reach(&self, sender: Option<usize>, to: SocketAddr, both_ways: bool) -> Reach {
        let Some(receiver) = self.node_at(to) else {
            return Reach::Refused;
        };
        if let Some(sender) = sender
            && (!self.passes(sender, receiver) || both_ways && !self.passes(receiver, sender))
        {
            return Reach::Silence;
        }
        if self.nodes[receiver].running {
            Reach::Node(receiver)
        } else {
            Reach::Refused
        }
    }

    fn damage(&mut self, percent: usize, bytes: &mut [u8]) {
        if !bytes.is_empty() && self.happens(percent) {
            let place = self.random.below(bytes.len());
            bytes[place] = self.random.below(256) as u8;
        }
    }

    pub(super) fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Datagram { to, from, mut bytes } => {
                if let Reach::Node(node) = self.reach(self.node_at(from), to, false) {
                    self.damage(self.weather.damaged_percent, &mut bytes);
                    self.hand(node, Input::Datagram { from, bytes });
                }
            }
            Delivery::Request {
                to,
                opened,
                mut bytes,
                expects_reply,
            } => {
                let (after, error) = match self.reach(Some(opened.node), to, true) {
                    Reach::Node(by) => {
                        self.damage(self.damaged_streams_percent, &mut bytes);
                        self.streams += 1;
                        let stream = StreamId(1 << 63 | self.streams);
                        let accepted = Accepted {
                            by,
                            opened,
                            expects_reply,
                        };
                        self.accepted.insert(stream, accepted);
                        let from = self.nodes[opened.node].address;
                        self.hand(by, Input::StreamRequest { stream, from, bytes });
                        return;
                    }
                    Reach::Refused => (Duration::ZERO, format!("dial tcp {to}: connect: connection refused")),
                    Reach::Silence => (STREAM_TIMEOUT, format!("dial tcp {to}: i/o timeout")),
                };
                self.later(after, Delivery::Failed { opened, error });
            }
            Delivery::Reply {
                from,
                opened,
                mut bytes,
            } => {
                if self.passes(from, opened.node) && self.passes(opened.node, from) {
                    self.damage(self.damaged_streams_percent, &mut bytes);
                    let stream = opened.stream;
                    self.hand(opened.node, Input::StreamReply { stream, bytes });
                } else {
                    let error = format!("read tcp {}: i/o timeout", self.nodes[from].address);
                    self.later(STREAM_TIMEOUT, Delivery::Failed { opened, error });
                }
            }
            Delivery::Failed { opened, error } => {
                let Opened { node, stream } = opened;
                self.hand(node, Input::StreamFailed { stream, error });
            }
        }
    }
}
