//! What the programs cost the verifier, as a table, against the budget.
#![allow(clippy::unwrap_used)]

use weft_tests::programs::object;
use weft_tests::verifier::{BUDGET, costs};

#[test]
fn every_program_is_within_its_budget() {
    let costs = costs(&std::fs::read(object()).unwrap());
    // The harness has begun a line.
    println!();
    println!("{:<28} {:>9} {:>9} {:>6}", "program", "verified", "jitted", "stack");
    for cost in &costs {
        println!("{cost}");
    }
    println!(
        "{:<28} {:>9} {:>9} {:>6}",
        "budget", BUDGET.verified, BUDGET.jitted, BUDGET.stack
    );
    assert!(costs.len() >= 4, "both programs, in both ways");
    let excess: Vec<String> = costs.iter().flat_map(|cost| cost.excess(&BUDGET)).collect();
    assert!(excess.is_empty(), "{}", excess.join("\n"));
}
