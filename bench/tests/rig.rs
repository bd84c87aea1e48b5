//! The rig on the real kernel: namespaces come and go, every generator gets something across.
//!
//! Needs root, two CPUs and iproute2; without them it fails rather than claims success.

use clap::Parser;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use weft_bench::arrangement::{self, HOST_B, Hosts};
use weft_bench::load::{connections, request_response, tcp_stream, udp_flood, wait_connected};
use weft_bench::netns::{self, Netns};
use weft_bench::options::Options;

const SHORT: Duration = Duration::from_millis(150);

fn options() -> Options {
    Options::parse_from(["weft-bench"])
}

fn hosts(prefix: &'static str) -> Hosts {
    let hosts = Hosts::create(prefix, &options()).expect("two hosts");
    wait_connected(&hosts.a, &hosts.b, HOST_B, Duration::from_secs(10)).expect("hosts reach each other");
    hosts
}

#[test]
fn a_namespace_ends_with_its_owner() {
    let netns = Netns::create("life").unwrap();
    let path = netns.path();
    assert!(path.exists());
    assert_eq!(netns.link("lo").unwrap().index, 1);
    drop(netns);
    assert!(!path.exists());
}

#[test]
fn leftovers_of_a_dead_bench_are_swept_and_others_are_not() {
    // Beyond the largest process id that Linux knows.
    let dead = "wb4194305-left";
    let alive = Netns::create("alive").unwrap();
    assert!(
        Command::new("ip")
            .args(["netns", "add", dead])
            .status()
            .unwrap()
            .success()
    );
    let swept = netns::sweep();
    let remains = Path::new("/run/netns").join(dead).exists();
    if remains {
        assert!(
            Command::new("ip")
                .args(["netns", "delete", dead])
                .status()
                .unwrap()
                .success()
        );
    }
    assert!(swept.unwrap().contains(&dead.to_owned()));
    assert!(!remains);
    assert!(alive.path().exists());
}

#[test]
fn streams_arrive() {
    let hosts = hosts("ts");
    for streams in [1, 4] {
        let throughput = tcp_stream::run(&hosts.a, &[&hosts.b], HOST_B, streams, SHORT).unwrap();
        assert!(throughput.bytes > 1_000_000, "{throughput:?}");
        assert!(throughput.gigabits_per_second() > 0.01, "{throughput:?}");
    }
}

#[test]
fn datagrams_arrive() {
    let hosts = hosts("ud");
    let rate = udp_flood::run(&hosts.a, &hosts.b, HOST_B, 64, SHORT).unwrap();
    assert!(
        rate.sent_per_second > 1000.0 && rate.received_per_second > 1000.0,
        "{rate:?}"
    );
}

#[test]
fn answers_come_back() {
    let hosts = hosts("rr");
    let tcp = request_response::tcp(&hosts.a, &[&hosts.b], HOST_B, SHORT).unwrap();
    let udp = request_response::udp(&hosts.a, &hosts.b, HOST_B, SHORT).unwrap();
    for trips in [tcp, udp] {
        assert!(trips.per_second > 10.0, "{trips:?}");
        assert!(0.0 < trips.p50_us && trips.p50_us <= trips.p99_us, "{trips:?}");
    }
}

#[test]
fn connections_are_answered() {
    let hosts = hosts("cn");
    let trips = connections::run(&hosts.a, &[&hosts.b], &[HOST_B], SHORT).unwrap();
    assert!(trips.per_second > 10.0, "{trips:?}");
}

#[test]
fn a_path_that_is_cut_is_an_error_and_not_a_figure() {
    let hosts = hosts("ct");
    hosts.b.ip("link set uB down").unwrap();
    for error in [
        udp_flood::run(&hosts.a, &hosts.b, HOST_B, 64, SHORT).unwrap_err(),
        tcp_stream::run(&hosts.a, &[&hosts.b], HOST_B, 1, SHORT).unwrap_err(),
    ] {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn dockers_arrangement_carries_and_balances() {
    let arrangement = arrangement::ready("a", &options()).unwrap();
    let topology = arrangement.topology();
    assert_eq!(topology.client.mtu, 1450);
    assert_eq!(topology.servers.len(), 2);
    assert!(
        arrangement.facts().iter().any(|fact| fact == "outer UDP checksum on"),
        "{:?}",
        arrangement.facts()
    );
}
