//! Random packets on random maps through the programs and through the model of them.

use weft_dataplane::abi::Counter;
use weft_tests::differential::run;

/// So many packets, unless the environment asks for another number.
const PACKETS: u64 = 20_000;

/// Where `cargo xtask test kernels` says how many an emulated machine shall take.
const VARIABLE: &str = "WEFT_DIFFERENTIAL_PACKETS";

#[test]
fn programs_and_model_agree() {
    let packets = std::env::var(VARIABLE).map_or(PACKETS, |text| text.parse().expect("a number of packets"));
    let summary = run(0, packets, |_| {}).unwrap_or_else(|text| panic!("{text}"));
    // It is no agreement about nothing: packets end in all the ways that can be met this way.
    let never = [
        // The interfaces of the test are always able to grow a packet, and the table to take a connection.
        Counter::DropAdjustRoom,
        Counter::DropFlowTableFull,
        Counter::AnswerSuppressed,
        // Of sockets, not of packets.
        Counter::SocketBalanced,
        // All programs are loaded, and few ports are taken.
        Counter::DropNoProgram,
        Counter::DropNoFreePort,
        // Of IPv6, which the model does not know.
        Counter::NeighborAnswered,
        Counter::DropExtensionHeaders,
        Counter::DropUnexpectedNeighbor,
        Counter::DropUnknownNeighborTarget,
    ];
    let missing: Vec<&str> = Counter::ALL
        .iter()
        .filter(|counter| !never.contains(counter) && !summary.counted.contains_key(counter))
        .map(|counter| counter.name())
        .collect();
    assert!(
        packets < PACKETS || missing.is_empty(),
        "never met: {}",
        missing.join(" ")
    );
    assert!(summary.packets >= packets && summary.counted.len() > 15, "{summary:?}");
}
