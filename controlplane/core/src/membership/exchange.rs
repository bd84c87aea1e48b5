//! Streams: exchanging whole views, and what else is said over TCP (`spec/networkdb.md` 3.3.9 and 3.4).

use super::refusals::Reason;
use super::{LogLevel, Membership, Opened, Output, StreamId};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::wire::WireError;
use crate::wire::message::Accusation;
use crate::wire::stream::{self, NodeState, PushNode, PushPull, StreamMessage};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// When a stream that was opened is given up. The caller reports after 10 seconds; this is for a caller that does not.
const STREAM_DEADLINE: Duration = Duration::from_secs(15);

/// A stream that was opened here and expects a reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Exchange {
    /// The ping that it carries; a push/pull if none.
    ping: Option<u32>,
    to: SocketAddr,
    end: Instant,
}

impl Exchange {
    pub(super) fn probe(now: Instant, to: SocketAddr, sequence: u32) -> Self {
        Exchange {
            ping: Some(sequence),
            to,
            end: now + STREAM_DEADLINE,
        }
    }
}

impl Membership {
    /// A number for a stream that is about to be opened.
    pub fn next_stream(&mut self) -> StreamId {
        let stream = StreamId(self.next_stream);
        self.next_stream += 1;
        stream
    }

    /// Opens a stream whose reply is awaited.
    pub(super) fn open(&mut self, message: Vec<u8>, exchange: Exchange) -> StreamId {
        let stream = self.next_stream();
        let (to, bytes) = (exchange.to, self.seal_stream(message));
        self.exchanges.insert(stream, exchange);
        self.outputs.push_back(Output::OpenStream {
            stream,
            to,
            bytes,
            expects_reply: true,
        });
        stream
    }

    /// Answers an accepted stream.
    pub(super) fn reply(&mut self, stream: StreamId, message: Vec<u8>) {
        let bytes = self.seal_stream(message);
        self.outputs.push_back(Output::Reply { stream, bytes });
    }

    /// Starts an exchange of views with `to`; [`Output::PushPullDone`] follows.
    pub fn push_pull(&mut self, now: Instant, to: SocketAddr, join: bool, user_state: Vec<u8>) -> StreamId {
        let message = PushPull {
            join,
            nodes: self.roster.view(),
            user_state,
        };
        let bytes = stream::encode_push_pull(&message);
        let exchange = Exchange {
            ping: None,
            to,
            end: now + STREAM_DEADLINE,
        };
        self.open(bytes, exchange)
    }

    /// Answers a peer's view with ours, then takes over what is new in it.
    pub fn answer_push_pull(
        &mut self,
        now: Instant,
        stream: StreamId,
        from: SocketAddr,
        theirs: PushPull,
        user_state: Vec<u8>,
    ) {
        let ours = PushPull {
            join: theirs.join,
            nodes: self.roster.view(),
            user_state,
        };
        self.reply(stream, stream::encode_push_pull(&ours));
        // It came from whatever port, and a host has one member unless somebody tries things out.
        let peer = teller(&theirs, |address| address.ip() == from.ip());
        if let Err(error) = self.merge(now, theirs, peer) {
            self.log(LogLevel::Warn, format!("push/pull: {error}"));
        }
    }

    /// Handles the message on an accepted stream as it came.
    #[cfg(test)]
    pub(crate) fn handle_request(&mut self, now: Instant, stream: StreamId, from: SocketAddr, bytes: &[u8]) {
        let opened = self.config.keyring.open_stream(bytes);
        self.handle_opened_request(now, stream, from, opened);
    }

    /// Handles the message on an accepted stream, opened with this node's keys or refused by them.
    pub fn handle_opened_request(&mut self, now: Instant, stream: StreamId, from: SocketAddr, opened: Opened) {
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.refuse(now, from, &error);
                self.reply(stream, stream::encode_error(&error.to_string()));
                return;
            }
        };
        let plain = match stream::unpack(&opened) {
            Ok(plain) => plain,
            Err(error) => {
                self.refuse_stream(now, from, &error);
                self.reply(stream, stream::encode_error(&error.to_string()));
                return;
            }
        };
        match stream::decode_plain(&plain) {
            Ok(StreamMessage::PushPull(theirs)) => {
                self.outputs.push_back(Output::PushPullAsked(stream, from, theirs));
            }
            Ok(StreamMessage::User(bytes)) => {
                self.outputs.push_back(Output::Close { stream });
                self.outputs.push_back(Output::User { bytes });
            }
            Ok(StreamMessage::Ping(ping)) => self.answer_stream_ping(stream, &ping),
            Ok(StreamMessage::Ack(_)) => self.outputs.push_back(Output::Close { stream }),
            Ok(StreamMessage::Err(error)) => {
                self.outputs.push_back(Output::Close { stream });
                self.warn_rarely(now, Reason::Reported, format!("{from} reports: {error}"));
            }
            Err(error) => {
                // As memberlist does: who sent what has no meaning is not told so.
                self.refuse_stream(now, from, &error);
                self.outputs.push_back(Output::Close { stream });
            }
        }
    }

    fn refuse_stream(&mut self, now: Instant, from: SocketAddr, error: &WireError) {
        self.counters.refused_streams += 1;
        self.warn_rarely(now, Reason::Unreadable, format!("gossip stream from {from}: {error}"));
    }

    /// Handles the reply on a stream that was opened here, as it came.
    #[cfg(test)]
    pub(crate) fn handle_reply(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        let opened = self.config.keyring.open_stream(bytes);
        self.handle_opened_reply(now, stream, opened);
    }

    /// Handles the reply on a stream that was opened here, opened with this node's keys or refused by them.
    pub fn handle_opened_reply(&mut self, now: Instant, stream: StreamId, opened: Opened) {
        let Some(exchange) = self.exchanges.remove(&stream) else {
            return;
        };
        let reply = match opened {
            Ok(opened) => stream::decode(&opened).map_err(|error| {
                self.counters.refused_streams += 1;
                error.to_string()
            }),
            Err(error) => {
                self.refuse(now, exchange.to, &error);
                Err(format!("the answer of {} is refused: {error}", exchange.to))
            }
        };
        if exchange.ping.is_some() {
            if let Ok(StreamMessage::Ack(sequence)) = reply {
                self.handle_stream_ack(stream, sequence);
            }
            return;
        }
        let result = match reply {
            Ok(StreamMessage::PushPull(theirs)) => {
                let peer = teller(&theirs, |address| address == exchange.to);
                self.merge(now, theirs, peer)
            }
            Ok(StreamMessage::Err(error)) => Err(format!("remote error: {error}")),
            Ok(_) => Err("the peer answered with something else than its view".to_owned()),
            Err(error) => Err(error),
        };
        self.outputs.push_back(Output::PushPullDone(stream, result));
    }

    /// A stream that was opened here came to nothing.
    pub fn handle_failure(&mut self, stream: StreamId, error: String) {
        if let Some(Exchange { ping: None, .. }) = self.exchanges.remove(&stream) {
            self.outputs.push_back(Output::PushPullDone(stream, Err(error)));
        }
    }

    pub(super) fn exchange_timeout(&self) -> Option<Instant> {
        // Numbers are given in order of time and all wait equally long.
        self.exchanges.values().next().map(|exchange| exchange.end)
    }

    pub(super) fn expire_exchanges(&mut self, now: Instant) {
        while let Some(first) = self.exchanges.first_entry().filter(|entry| entry.get().end <= now) {
            let stream = *first.key();
            self.handle_failure(stream, "i/o timeout".to_owned());
        }
    }

    /// Takes over what is new in the view of `peer`.
    fn merge(&mut self, now: Instant, theirs: PushPull, peer: Option<NodeId>) -> Result<(), String> {
        self.check_versions(&theirs.nodes)?;
        // memberlist accuses in its own name here. If one slow node suspects a healthy one, then each that exchanges views with it
        // counts as another witness, and the suspicion is as short as if all of them had probed.
        let peer = peer.unwrap_or_else(|| self.config.name.clone());
        for PushNode { alive, state } in theirs.nodes {
            let (incarnation, node) = (alive.incarnation, alive.node.clone());
            match state {
                NodeState::Alive => self.alive(now, alive),
                NodeState::Left => self.dead(
                    now,
                    Accusation {
                        incarnation,
                        from: node.clone(),
                        node,
                    },
                ),
                // Not taken as dead on hearsay: the node gets the time to refute.
                NodeState::Dead | NodeState::Suspect => self.suspect(
                    now,
                    Accusation {
                        incarnation,
                        node,
                        from: peer.clone(),
                    },
                ),
            }
        }
        self.outputs.push_back(Output::UserState(theirs.user_state));
        Ok(())
    }

    /// All live members of both views must be able to speak with each other.
    fn check_versions(&self, theirs: &[PushNode]) -> Result<(), String> {
        let theirs = theirs
            .iter()
            .filter(|node| node.state == NodeState::Alive && node.alive.versions != [0; 6]);
        let theirs = theirs.map(|node| (&node.alive.node, node.alive.versions));
        let ours = self
            .roster
            .iter()
            .filter(|(_, member)| member.state == NodeState::Alive);
        let all: Vec<_> = ours
            .map(|(node, member)| (node, member.versions))
            .chain(theirs)
            .collect();
        let least = all.iter().map(|(_, [least, ..])| *least).max().unwrap_or_default();
        let greatest = all
            .iter()
            .map(|(_, [_, greatest, ..])| *greatest)
            .min()
            .unwrap_or_default();
        for (node, [_, _, spoken, ..]) in all {
            if !(least..=greatest).contains(&spoken) {
                return Err(format!(
                    "node {node} speaks protocol version {spoken}, and the others need one from {least} to {greatest}"
                ));
            }
        }
        Ok(())
    }
}

/// Whose view it is, by the address that it came from.
fn teller(view: &PushPull, is_there: impl Fn(SocketAddr) -> bool) -> Option<NodeId> {
    let alive = view.nodes.iter().filter(|node| node.state == NodeState::Alive);
    let mut there = alive.filter(|node| is_there(node.alive.address));
    let first = there.next()?;
    there.next().is_none().then(|| first.alive.node.clone())
}
