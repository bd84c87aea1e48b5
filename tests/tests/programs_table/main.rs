//! The packet tables: what goes into the programs, and exactly what comes of it, readable as a specification.
#![allow(clippy::unwrap_used)]

mod answers;
mod arp;
mod clamp;
mod egress;
mod ingress;
mod services;

use weft_tests::table::{Case, check};

/// How many cases there are at least.
const CASES: usize = 250;

type Table = fn() -> Vec<Case>;

const TABLES: [Table; 6] = [
    arp::cases,
    egress::cases,
    ingress::cases,
    services::cases,
    answers::cases,
    clamp::cases,
];

#[test]
fn are_long_enough() {
    let cases: usize = TABLES.iter().map(|table| table().len()).sum();
    println!("{cases} cases");
    assert!(cases >= CASES, "{cases} cases");
}

#[test]
fn arp_requests() {
    check(&arp::cases());
}

#[test]
fn out_of_a_container() {
    check(&egress::cases());
}

#[test]
fn out_of_the_overlay() {
    check(&ingress::cases());
}

#[test]
fn virtual_ips() {
    check(&services::cases());
}

#[test]
fn errors_about_virtual_ips() {
    check(&services::errors());
}

#[test]
fn virtual_ips_after_a_long_silence() {
    check(&services::after_silence());
}

#[test]
fn what_is_dropped_for_good_is_answered() {
    check(&answers::cases());
}

#[test]
fn the_mss_of_new_connections() {
    check(&clamp::cases());
}
