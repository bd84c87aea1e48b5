//! The rules of `spec/networkdb.md` 3.4, one member at a time, and the formulas of 3.2.

mod health;
mod hearsay;
mod packets;

use super::queue::{Queue, retransmit_limit};
use super::timing::{expected_confirmations, push_pull_interval, suspicion_bounds, suspicion_timeout};
use super::{Config, Keyring, Membership, Output, StreamId};
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::wire::message::{Accusation, Alive, IndirectPing, Message, Ping, Source, VERSIONS};
use crate::wire::packet::unpack;
use crate::wire::stream::{self, NodeState, PushPull, StreamMessage};
use std::net::SocketAddr;

const SELF: &str = "nodeaaaaaaaa";
const OTHER: &str = "nodebbbbbbbb";

fn id(text: &str) -> NodeId {
    NodeId::new(text).expect("node id")
}

fn at(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 7946))
}

fn after(millis: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(millis))
}

fn membership() -> Membership {
    let keyring = Keyring::default();
    Membership::new(
        Instant::ZERO,
        Config {
            name: id(SELF),
            advertise: at(1),
            seed: 1,
            packet_budget: 1400,
            keyring,
            meta: Vec::new(),
        },
    )
}

fn alive(node: &str, incarnation: u32, last: u8) -> Message {
    let (node, address) = (id(node), at(last));
    Message::Alive(Alive {
        incarnation,
        node,
        address,
        meta: Vec::new(),
        versions: VERSIONS,
    })
}

fn accusation(node: &str, incarnation: u32, from: &str) -> Accusation {
    Accusation {
        incarnation,
        node: id(node),
        from: id(from),
    }
}

fn outputs(membership: &mut Membership) -> Vec<Output> {
    std::iter::from_fn(|| membership.poll_output())
        .filter(|output| !matches!(output, Output::Log(..)))
        .collect()
}

fn receive(membership: &mut Membership, now: Instant, message: &Message) -> Vec<Output> {
    membership.handle_datagram(now, at(9), &message.encode());
    outputs(membership)
}

/// The messages sent, with their receivers.
fn sent(outputs: &[Output]) -> Vec<(SocketAddr, Message)> {
    let datagrams = outputs.iter().filter_map(|output| match output {
        Output::Datagram { to, bytes } => Some((*to, unpack(bytes).messages)),
        _ => None,
    });
    datagrams
        .flat_map(|(to, messages)| messages.into_iter().map(move |message| (to, message)))
        .collect()
}

fn state(membership: &Membership, node: &str) -> Option<(NodeState, u32)> {
    membership
        .member(&id(node))
        .map(|member| (member.state, member.incarnation))
}

/// Calls at each deadline up to `end`, and gathers what comes out.
fn run(membership: &mut Membership, end: Instant) -> Vec<Output> {
    let mut all = Vec::new();
    while let Some(next) = membership.poll_timeout().filter(|next| *next <= end) {
        membership.handle_timeout(next);
        all.extend(outputs(membership));
    }
    all
}

#[test]
fn formulas_are_memberlists() {
    assert_eq!([0, 1, 2, 9, 10, 99, 100].map(retransmit_limit), [0, 4, 4, 4, 8, 8, 12]);
    let seconds = |members| push_pull_interval(members).as_secs();
    assert_eq!(
        [1, 32, 33, 64, 65, 128, 1000].map(seconds),
        [30, 30, 60, 60, 90, 90, 180]
    );
    assert_eq!([1, 3, 4, 100].map(expected_confirmations), [0, 0, 2, 2]);
    let millis = |members| suspicion_bounds(members).0.as_millis();
    assert_eq!([0, 3, 10, 100, 500].map(millis), [4000, 4000, 4000, 8000, 10792]);
    let (shortest, longest) = suspicion_bounds(10);
    let timeout = |confirmed| suspicion_timeout(confirmed, 2, shortest, longest).as_millis();
    assert_eq!([0, 1, 2].map(timeout), [24_000, 11_381, 4000]);
    assert_eq!(suspicion_timeout(0, 0, shortest, longest), shortest);
}

#[test]
fn the_queue_gives_least_told_first_then_longest_then_newest() {
    let mut queue: Queue<u32> = Queue::new(10);
    for (key, bytes) in [(1, "aa"), (2, "bbbb"), (3, "cc"), (4, "dddddddd")] {
        queue.push(Some(key), bytes.as_bytes().to_vec());
    }
    let mut take = |mut budget: usize| {
        let taken = queue.take(2, &mut budget, 255, 2);
        taken
            .into_iter()
            .map(|bytes| String::from_utf8(bytes).expect("text"))
            .collect::<Vec<_>>()
    };
    // 8 bytes do not fit beside 2 of overhead, so the next longest go; of equal length the newest.
    assert_eq!(take(9), ["bbbb"]);
    assert_eq!(take(8), ["cc", "aa"]);
    assert_eq!(take(100), ["dddddddd", "bbbb", "cc", "aa"]);
    // Told twice, they are forgotten; the long one was told once.
    assert_eq!(take(100), ["dddddddd"]);
    assert_eq!(take(100), Vec::<String>::new());
}

#[test]
fn the_queue_keeps_the_newest_of_a_key_and_no_more_than_its_limit() {
    let mut queue: Queue<u32> = Queue::new(3);
    queue.push(Some(1), vec![1]);
    queue.push(Some(1), vec![2, 2]);
    assert_eq!(queue.len(), 1);
    let mut budget = 100;
    assert_eq!(queue.take(0, &mut budget, 255, 9), [vec![2, 2]]);
    assert_eq!(budget, 98);
    for key in 2..5 {
        queue.push(Some(key), vec![key as u8; 3]);
    }
    // The one told already went.
    assert!(!queue.contains(&1));
    assert_eq!(queue.len(), 3);
}

#[test]
fn what_each_message_makes_of_each_state() {
    use NodeState::{Alive, Dead, Left, Suspect};
    let suspect = |inc| Message::Suspect(accusation(OTHER, inc, "x"));
    let dead = |inc| Message::Dead(accusation(OTHER, inc, "x"));
    let left = |inc| Message::Dead(accusation(OTHER, inc, OTHER));
    let alive = |inc, last| self::alive(OTHER, inc, last);
    // How incarnation 5 gets into a state, what is heard then, and what it is after.
    type Case = (Vec<Message>, Message, Option<(NodeState, u32)>);
    let cases: Vec<Case> = vec![
        (vec![], suspect(5), None),
        (vec![], dead(5), None),
        (vec![], alive(5, 2), Some((Alive, 5))),
        (vec![], alive(0, 2), None),
        (vec![alive(5, 2)], alive(4, 2), Some((Alive, 5))),
        (vec![alive(5, 2)], alive(6, 2), Some((Alive, 6))),
        (vec![alive(5, 2)], alive(6, 3), Some((Alive, 5))),
        (vec![alive(5, 2)], suspect(4), Some((Alive, 5))),
        (vec![alive(5, 2)], suspect(5), Some((Suspect, 5))),
        (vec![alive(5, 2)], dead(4), Some((Alive, 5))),
        (vec![alive(5, 2)], dead(5), Some((Dead, 5))),
        (vec![alive(5, 2)], left(5), Some((Left, 5))),
        (vec![alive(5, 2), suspect(5)], alive(5, 2), Some((Suspect, 5))),
        (vec![alive(5, 2), suspect(5)], alive(6, 2), Some((Alive, 6))),
        (vec![alive(5, 2), suspect(5)], dead(5), Some((Dead, 5))),
        (vec![alive(5, 2), dead(5)], alive(5, 2), Some((Dead, 5))),
        (vec![alive(5, 2), dead(5)], alive(6, 2), Some((Alive, 6))),
        (vec![alive(5, 2), dead(5)], alive(6, 3), Some((Dead, 5))),
        (vec![alive(5, 2), dead(5)], suspect(6), Some((Dead, 5))),
        (vec![alive(5, 2), dead(5)], left(6), Some((Dead, 5))),
        (vec![alive(5, 2), left(5)], alive(1, 3), Some((Alive, 1))),
        (vec![alive(5, 2), left(5)], alive(5, 2), Some((Left, 5))),
    ];
    for (before, heard, expected) in cases {
        let mut membership = membership();
        for message in &before {
            receive(&mut membership, after(1), message);
        }
        receive(&mut membership, after(2), &heard);
        assert_eq!(state(&membership, OTHER), expected, "{before:?} then {heard:?}");
    }
}

#[test]
fn coming_and_going_is_told_once() {
    let mut membership = membership();
    let up = receive(&mut membership, after(1), &alive(OTHER, 1, 2));
    assert_eq!(up, [Output::Up(id(OTHER), at(2))]);
    assert_eq!(receive(&mut membership, after(2), &alive(OTHER, 2, 2)), []);
    let dead = Message::Dead(accusation(OTHER, 2, "x"));
    assert_eq!(receive(&mut membership, after(3), &dead), [Output::Down(id(OTHER))]);
    assert_eq!(receive(&mut membership, after(4), &dead), []);
    assert_eq!(
        receive(&mut membership, after(5), &alive(OTHER, 3, 2)),
        [Output::Up(id(OTHER), at(2))]
    );
}

#[test]
fn accusations_against_this_node_are_refuted_with_a_greater_incarnation() {
    for message in [
        Message::Suspect(accusation(SELF, 7, "x")),
        Message::Dead(accusation(SELF, 7, "x")),
        {
            let Message::Alive(mut other) = alive(SELF, 7, 1) else {
                return;
            };
            other.meta = vec![1];
            Message::Alive(other)
        },
    ] {
        let mut membership = membership();
        receive(&mut membership, after(1), &alive(OTHER, 1, 2));
        receive(&mut membership, after(2), &message);
        assert_eq!(state(&membership, SELF), Some((NodeState::Alive, 8)), "{message:?}");
        assert_eq!(membership.health_score(), 1);
        let told = sent(&run(&mut membership, after(450)));
        assert!(told.contains(&(at(2), alive(SELF, 8, 1))), "{told:?}");
    }
}

#[test]
fn pings_are_answered_where_they_say_they_come_from() {
    let mut membership = membership();
    let ping = |node: &str, source| {
        Message::Ping(Ping {
            sequence: 5,
            node: node.into(),
            source,
        })
    };
    assert_eq!(
        sent(&receive(&mut membership, after(1), &ping(SELF, None))),
        [(at(9), Message::Ack(5))]
    );
    let source = Some(Source {
        address: at(4),
        node: OTHER.into(),
    });
    assert_eq!(
        sent(&receive(&mut membership, after(1), &ping(SELF, source))),
        [(at(4), Message::Ack(5))]
    );
    assert_eq!(sent(&receive(&mut membership, after(1), &ping(OTHER, None))), []);
    let request = |node: &str| Message::encode(&ping(node, None));
    membership.handle_request(after(1), StreamId(1), at(9), &request(SELF));
    membership.handle_request(after(1), StreamId(2), at(9), &request(OTHER));
    let reply = Output::Reply {
        stream: StreamId(1),
        bytes: Message::Ack(5).encode(),
    };
    assert_eq!(outputs(&mut membership), [reply, Output::Close { stream: StreamId(2) }]);
}

fn indirect(membership: &mut Membership) -> u32 {
    let (node, target) = (OTHER.to_owned(), at(2));
    let request = IndirectPing {
        sequence: 70,
        node,
        target,
        nack: true,
        source: None,
    };
    match &*sent(&receive(membership, after(1), &Message::IndirectPing(request))) {
        [(to, Message::Ping(ping))] if *to == at(2) && ping.node == OTHER => ping.sequence,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_indirect_ping_ends_with_the_ack_or_a_nack_under_the_askers_number() {
    let mut first = membership();
    let sequence = indirect(&mut first);
    assert_eq!(
        sent(&receive(&mut first, after(2), &Message::Ack(sequence))),
        [(at(9), Message::Ack(70))]
    );
    assert_eq!(sent(&run(&mut first, after(900))), []);
    let mut second = membership();
    indirect(&mut second);
    assert_eq!(sent(&run(&mut second, after(500))), []);
    assert_eq!(sent(&run(&mut second, after(501))), [(at(9), Message::Nack(70))]);
}

#[test]
fn a_silent_member_is_probed_directly_then_by_others_then_suspected_then_dead() {
    let mut membership = membership();
    for (node, last) in [(OTHER, 2), ("nodecccccccc", 3)] {
        receive(&mut membership, after(0), &alive(node, 1, last));
    }
    // The third node answers everything, the second nothing.
    let (mut asked, mut by_stream) = (false, false);
    let mut suspected = None;
    let mut dead = None;
    while dead.is_none() {
        let now = membership.poll_timeout().expect("a deadline");
        assert!(now < after(20_000), "not dead in time");
        membership.handle_timeout(now);
        let done = outputs(&mut membership);
        for (to, message) in sent(&done) {
            match message {
                Message::Ping(ping) if to == at(3) => {
                    receive(&mut membership, now, &Message::Ack(ping.sequence));
                }
                Message::IndirectPing(request) => {
                    assert_eq!((to, request.target, request.nack), (at(3), at(2), true));
                    asked = true;
                    receive(&mut membership, now, &Message::Nack(request.sequence));
                }
                _ => {}
            }
        }
        by_stream |= done
            .iter()
            .any(|output| matches!(output, Output::OpenStream { to, .. } if *to == at(2)));
        if suspected.is_none() && matches!(state(&membership, OTHER), Some((NodeState::Suspect, 1))) {
            suspected = Some(now);
        }
        dead = done.contains(&Output::Down(id(OTHER))).then_some(now);
    }
    assert!(asked && by_stream);
    // Three members: a suspicion lasts four seconds. The nack says that the fault is not here.
    assert_eq!(
        dead.expect("dead").saturating_since(suspected.expect("suspected")),
        Duration::from_secs(4)
    );
    assert_eq!(membership.health_score(), 0);
}

#[test]
fn an_answer_by_tcp_alone_counts() {
    let mut membership = membership();
    receive(&mut membership, after(0), &alive(OTHER, 1, 2));
    let opened = loop {
        let now = membership.poll_timeout().expect("a deadline");
        assert!(now < after(3000), "no stream in time");
        membership.handle_timeout(now);
        let opened = outputs(&mut membership).into_iter().find_map(|output| match output {
            Output::OpenStream { stream, bytes, .. } => Some((now, stream, bytes)),
            _ => None,
        });
        if let Some(opened) = opened {
            break opened;
        }
    };
    let (now, stream, bytes) = opened;
    let Ok(StreamMessage::Ping(ping)) = stream::decode(&bytes) else {
        panic!("{bytes:?}")
    };
    membership.handle_reply(now, stream, &Message::Ack(ping.sequence).encode());
    // To the end of the probe; nobody answers the next one.
    run(&mut membership, now + Duration::from_millis(500));
    assert_eq!(state(&membership, OTHER), Some((NodeState::Alive, 1)));
}

#[test]
fn a_push_pull_takes_the_dead_of_others_for_suspects_only() {
    let mut membership = membership();
    receive(&mut membership, after(1), &alive(OTHER, 1, 2));
    let Message::Alive(other) = alive(OTHER, 1, 2) else {
        return;
    };
    let Message::Alive(new) = alive("nodecccccccc", 4, 3) else {
        return;
    };
    let nodes = vec![
        stream::PushNode {
            alive: other,
            state: NodeState::Dead,
        },
        stream::PushNode {
            alive: new,
            state: NodeState::Alive,
        },
    ];
    let theirs = PushPull {
        join: true,
        nodes,
        user_state: b"theirs".to_vec(),
    };
    membership.handle_request(after(1), StreamId(3), at(3), &stream::encode_push_pull(&theirs));
    let asked = outputs(&mut membership);
    assert_eq!(asked, [Output::PushPullAsked(StreamId(3), at(3), theirs.clone())]);
    membership.answer_push_pull(after(2), StreamId(3), at(3), theirs, b"ours".to_vec());
    let done = outputs(&mut membership);
    let [Output::Reply { bytes, .. }, rest @ ..] = &*done else {
        panic!("{done:?}")
    };
    let Ok(StreamMessage::PushPull(ours)) = stream::decode(bytes) else {
        panic!("{bytes:?}")
    };
    assert_eq!(
        (ours.join, ours.nodes.len(), ours.user_state),
        (true, 2, b"ours".to_vec())
    );
    assert_eq!(
        rest,
        [
            Output::Up(id("nodecccccccc"), at(3)),
            Output::UserState(b"theirs".to_vec())
        ]
    );
    assert_eq!(state(&membership, OTHER), Some((NodeState::Suspect, 1)));
}

#[test]
fn a_peer_that_speaks_another_protocol_is_refused_whole() {
    let mut membership = membership();
    let Message::Alive(mut new) = alive(OTHER, 1, 2) else {
        return;
    };
    new.versions = [6, 7, 7, 0, 0, 0];
    let nodes = vec![stream::PushNode {
        alive: new,
        state: NodeState::Alive,
    }];
    let stream = membership.push_pull(after(1), at(2), true, Vec::new());
    outputs(&mut membership);
    let bytes = stream::encode_push_pull(&PushPull {
        join: true,
        nodes,
        user_state: Vec::new(),
    });
    membership.handle_reply(after(2), stream, &bytes);
    let done = outputs(&mut membership);
    assert!(matches!(&*done, [Output::PushPullDone(_, Err(_))]), "{done:?}");
    assert_eq!(state(&membership, OTHER), None);
}
