//! Random packets through the programs and through the model of them: `cargo xtask differential` runs it.

use clap::Parser;
use std::process::ExitCode;
use std::time::Instant;
use weft_tests::differential;

/// Send random packets on random maps through the programs and through the model, and compare all that comes of them.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask differential", bin_name = "cargo xtask differential")]
struct Arguments {
    /// How many packets
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// The first sequence's seed; each sequence after it has the next
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Progress is told after each so many packets.
const TOLD: u64 = 100_000;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let mut told = 0;
    let outcome = differential::run(arguments.seed, arguments.packets, |summary| {
        if summary.packets / TOLD > told {
            told = summary.packets / TOLD;
            println!("{} packets, {:.0} s", summary.packets, start.elapsed().as_secs_f64());
        }
    });
    match outcome {
        Ok(summary) => {
            for (counter, count) in &summary.counted {
                println!("  {:<28} {count:>9}", counter.name());
            }
            println!("{} packets, no difference", summary.packets);
            ExitCode::SUCCESS
        }
        Err(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
    }
}
