//! What taking many rows costs: one node hands its table to a newcomer, in real time, and what the newcomer's memory grows by.

use super::cost::resident_bytes;
use crate::error::{Context, Error, Result};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant as Clock};
use weft_core::id::{NetworkId, NodeId};
use weft_core::networkdb::{Config, Effect, Event, Input, NetworkDb, StreamId};
use weft_core::time::Instant;

/// A record of Docker's has about this many bytes.
const VALUE_BYTES: usize = 100;

/// In virtual time the rows are there long before.
const PATIENCE: Duration = Duration::from_secs(120);

/// Two nodes, and what is on its way to each.
struct Pair {
    nodes: [NetworkDb; 2],
    addresses: [SocketAddr; 2],
    inbox: VecDeque<(usize, Input)>,
    /// Who opened each stream, and under which number, if an answer is read.
    opened: Vec<Option<(usize, StreamId)>>,
    rows: usize,
    spent: Duration,
    longest: Duration,
}

/// Prints how long the newcomer took for `rows` rows.
pub(super) fn run(rows: usize) -> Result<()> {
    let net = NetworkId::new("net1").context(|| "a network's id".to_owned())?;
    let mut pair = Pair::new()?;
    let mut now = Instant::ZERO;
    for node in &mut pair.nodes {
        node.join_network(now, &net).context(|| "cannot join".to_owned())?;
    }
    for row in 0..rows {
        pair.nodes[0]
            .create_entry(
                now,
                "endpoint_table",
                &net,
                &format!("{row:064x}"),
                vec![7; VALUE_BYTES],
            )
            .context(|| format!("cannot write row {row}"))?;
    }
    // Alone, it has nobody to gossip them to: all go by bulk sync.
    now = now + Duration::from_secs(1);
    pair.nodes[0].handle_timeout(now);
    while pair.nodes[0].poll_effect().is_some() {}
    let before = resident_bytes()?;
    pair.nodes[1].join(now, &pair.addresses[..1]);
    while pair.rows < rows {
        if now.since_origin() > PATIENCE {
            return Err(Error::new(format!("{} of {rows} rows arrived", pair.rows)));
        }
        now = now + Duration::from_millis(10);
        for node in &mut pair.nodes {
            if node.poll_timeout().is_some_and(|due| due <= now) {
                node.handle_timeout(now);
            }
        }
        pair.settle(now);
    }
    println!(
        "{rows} rows of {VALUE_BYTES} bytes taken in {:.1} ms, {:.1} ms of it for the largest message; memory grew by {:.1} MiB",
        pair.spent.as_secs_f64() * 1000.0,
        pair.longest.as_secs_f64() * 1000.0,
        resident_bytes()?.saturating_sub(before) as f64 / f64::from(1 << 20),
    );
    Ok(())
}

impl Pair {
    fn new() -> Result<Pair> {
        let addresses = [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 7946)));
        let node = |place: usize, name: &str| -> Result<NetworkDb> {
            let name = NodeId::new(name).context(|| "a node's name".to_owned())?;
            Ok(NetworkDb::new(
                Instant::ZERO,
                Config::new(name, addresses[place], place as u64),
            ))
        };
        Ok(Pair {
            nodes: [node(0, "aaaaaaaaaaaa")?, node(1, "bbbbbbbbbbbb")?],
            addresses,
            inbox: VecDeque::new(),
            opened: Vec::new(),
            rows: 0,
            spent: Duration::ZERO,
            longest: Duration::ZERO,
        })
    }

    /// Delivers until nothing is on its way. The time that the newcomer takes for messages is added up.
    fn settle(&mut self, now: Instant) {
        self.collect();
        while let Some((node, input)) = self.inbox.pop_front() {
            let start = Clock::now();
            self.nodes[node].handle(now, input);
            let took = start.elapsed();
            if node == 1 {
                self.spent += took;
                self.longest = self.longest.max(took);
            }
            self.collect();
        }
    }

    fn collect(&mut self) {
        for node in 0..2 {
            while let Some(effect) = self.nodes[node].poll_effect() {
                self.perform(node, effect);
            }
        }
    }

    fn perform(&mut self, node: usize, effect: Effect) {
        let from = self.addresses[node];
        match effect {
            Effect::Datagram { bytes, .. } => self.inbox.push_back((1 - node, Input::Datagram { from, bytes })),
            Effect::OpenStream {
                stream,
                bytes,
                expects_reply,
                ..
            } => {
                let accepted = StreamId(self.opened.len() as u64);
                self.opened.push(expects_reply.then_some((node, stream)));
                let request = Input::StreamRequest {
                    stream: accepted,
                    from,
                    bytes,
                };
                self.inbox.push_back((1 - node, request));
            }
            Effect::Reply { stream, bytes } => {
                if let Some(Some((opener, stream))) = self.opened.get(stream.0 as usize).copied() {
                    self.inbox.push_back((opener, Input::StreamReply { stream, bytes }));
                }
            }
            Effect::Event(Event::EntrySet { .. }) if node == 1 => self.rows += 1,
            Effect::Event(_) | Effect::Close { .. } | Effect::Joined { .. } | Effect::Left | Effect::Log { .. } => {}
        }
    }
}
