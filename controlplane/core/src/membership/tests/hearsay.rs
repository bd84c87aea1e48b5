//! What others say of others: one slow node's suspicions stay one voice, and a restarted node hears that it is looked for.

use super::{OTHER, accusation, after, alive, at, id, membership, outputs, receive, sent, state};
use crate::membership::{Membership, Output};
use crate::time::Instant;
use crate::wire::message::{Alive, Message, Ping, Source};
use crate::wire::stream::{self, NodeState, PushPull};

const SLOW: &str = "nodecccccccc";

fn known(node: &str, incarnation: u32, last: u8) -> Alive {
    match alive(node, incarnation, last) {
        Message::Alive(alive) => alive,
        other => panic!("{other:?}"),
    }
}

/// `at` exchanges views with this node and suspects the other one.
fn exchange(membership: &mut Membership, now: Instant, peer: &str, last: u8) {
    let node = |alive, state| stream::PushNode { alive, state };
    let view = PushPull {
        join: false,
        nodes: vec![
            node(known(OTHER, 1, 2), NodeState::Suspect),
            node(known(peer, 1, last), NodeState::Alive),
        ],
        user_state: Vec::new(),
    };
    let stream = membership.push_pull(now, at(last), false, Vec::new());
    membership.handle_reply(now, stream, &stream::encode_push_pull(&view));
    outputs(membership);
}

fn met() -> Membership {
    let mut membership = membership();
    for (node, last) in [(OTHER, 2), (SLOW, 3), ("nodedddddddd", 4), ("nodeeeeeeeee", 5)] {
        receive(&mut membership, after(1), &alive(node, 1, last));
    }
    membership
}

#[test]
fn views_of_one_member_are_one_accuser() {
    let mut membership = met();
    exchange(&mut membership, after(10), SLOW, 3);
    assert_eq!(state(&membership, OTHER), Some((NodeState::Suspect, 1)));
    let end = membership.suspicions.next_end().expect("a suspicion runs");
    receive(
        &mut membership,
        after(20),
        &Message::Suspect(accusation(OTHER, 1, SLOW)),
    );
    exchange(&mut membership, after(30), SLOW, 3);
    assert_eq!(membership.suspicions.next_end(), Some(end), "nobody else accuses");
    exchange(&mut membership, after(40), "nodedddddddd", 4);
    let sooner = membership.suspicions.next_end().expect("a suspicion runs");
    assert!(sooner < end, "another member does");
}

#[test]
fn an_answer_to_a_view_names_the_asker_as_accuser() {
    let mut membership = met();
    let view = PushPull {
        join: false,
        nodes: vec![
            stream::PushNode {
                alive: known(OTHER, 1, 2),
                state: NodeState::Dead,
            },
            stream::PushNode {
                alive: known(SLOW, 1, 3),
                state: NodeState::Alive,
            },
        ],
        user_state: Vec::new(),
    };
    let from = std::net::SocketAddr::new(at(3).ip(), 50123);
    membership.answer_push_pull(after(10), crate::membership::StreamId(1), from, view, Vec::new());
    outputs(&mut membership);
    let end = membership.suspicions.next_end().expect("a suspicion runs");
    receive(
        &mut membership,
        after(20),
        &Message::Suspect(accusation(OTHER, 1, SLOW)),
    );
    assert_eq!(membership.suspicions.next_end(), Some(end));
}

#[test]
fn who_looks_for_an_earlier_life_at_this_address_is_told_of_if_it_is_a_stranger() {
    let mut membership = met();
    let ping = |source: &str, last: u8| {
        Message::Ping(Ping {
            sequence: 5,
            node: "nodezzzzzzzz".into(),
            source: Some(Source {
                address: at(last),
                node: source.into(),
            }),
        })
    };
    assert_eq!(
        receive(&mut membership, after(10), &ping("nodeyyyyyyyy", 7)),
        [Output::Sought(at(7))]
    );
    assert_eq!(receive(&mut membership, after(20), &ping(SLOW, 3)), [], "a member");
    let gone = Message::Dead(accusation(SLOW, 1, "nodedddddddd"));
    assert_eq!(receive(&mut membership, after(30), &gone), [Output::Down(id(SLOW))]);
    assert_eq!(
        receive(&mut membership, after(40), &ping(SLOW, 3)),
        [Output::Sought(at(3))],
        "a member that was taken as dead"
    );
    let answered = receive(&mut membership, after(50), &ping("nodeyyyyyyyy", 7));
    assert!(
        sent(&answered).is_empty(),
        "nobody answers for another node: {answered:?}"
    );
}
