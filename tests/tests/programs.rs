//! Packet in, packet out, verdict, counters: the programs as a table, through the kernel's own test run.

use weft_dataplane::abi::Counter;
use weft_tests::packet::{Datagram, Payload};
use weft_tests::programs::{ALICE, Action, CAROL, Lab};

#[test]
fn plain() {
    let lab = Lab::new();
    let packet = Datagram::new(ALICE, CAROL, Payload::Echo(1)).bytes();
    let out = lab.from_alice(&packet).is(Action::Redirect, &[Counter::Encapsulated]);
    println!("{:#?}", weft_tests::packet::fields(&out.packet));
}
