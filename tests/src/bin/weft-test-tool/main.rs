//! Small servers and clients for the inside of test containers, so that tests and the demo need no others.

mod dns;
mod http;
mod stream;
mod udp;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Small servers and clients for the inside of test containers.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Debug, Subcommand)]
enum Tool {
    HttpServe(http::Serve),
    HttpGet(http::Get),
    DnsQuery(dns::Query),
    TcpSink(stream::Sink),
    TcpSend(stream::Send),
    UdpEcho(udp::Echo),
    UdpPing(udp::Ping),
}

/// What a tool gives back: text for the user if it fails.
type Outcome = Result<(), String>;

/// Adds what was tried to an error.
fn while_trying<E: std::fmt::Display>(what: impl std::fmt::Display) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().tool {
        Tool::HttpServe(serve) => http::serve(&serve),
        Tool::HttpGet(get) => http::get(&get),
        Tool::DnsQuery(query) => dns::query(&query),
        Tool::TcpSink(sink) => stream::sink(&sink),
        Tool::TcpSend(send) => stream::send(&send),
        Tool::UdpEcho(echo) => udp::echo(&echo),
        Tool::UdpPing(ping) => udp::ping(&ping),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}
