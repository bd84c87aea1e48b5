//! `diagnosticClient`: checks the tables of a node that runs the diagnostic server.

use std::io::IsTerminal;
use std::process::ExitCode;
use weft_diag::client::{Console, run};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let console = Console {
        input: &mut std::io::stdin().lock(),
        output: &mut std::io::stdout().lock(),
        log: &mut std::io::stderr().lock(),
        log_is_terminal: std::io::stderr().is_terminal(),
        may_join: std::env::var_os("DIND_CLIENT").is_some(),
    };
    ExitCode::from(run(&args, console))
}
