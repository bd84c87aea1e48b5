//! Good and bad configurations.

use super::*;
use clap::Parser;
use std::path::Path;

fn load(json: &str, flags: &[&str]) -> Result<Config, String> {
    let flags = Flags::try_parse_from(std::iter::once(&"weftd").chain(flags)).map_err(|error| error.to_string())?;
    let path = PathBuf::from("daemon.json");
    let file = File::parse(json)?;
    file.refuse_twice(&flags, &path).map_err(|error| error.to_string())?;
    Config::combine(file, &flags, path, true).map_err(|error| error.to_string())
}

fn refusal(json: &str, flags: &[&str]) -> String {
    load(json, flags).expect_err("must be refused")
}

#[test]
fn defaults_are_dockers() {
    let config = load(r#"{"node-name": "n1"}"#, &[]).unwrap();
    assert_eq!(
        (config.data_path_port, config.gossip_port, config.cluster_port),
        (4789, 7946, 2377)
    );
    assert_eq!(config.default_addr_pools, AddressPools::default());
    assert_eq!(config.network_diagnostic_port, 0);
    let listen = |advertise: &str| config.listen_on(advertise.parse().unwrap()).unwrap().to_string();
    assert_eq!(
        (listen("10.1.1.1").as_str(), listen("fd00::1").as_str()),
        ("0.0.0.0", "::")
    );
}

#[test]
fn every_documented_key_is_accepted() {
    let json = r#"{"node-name":"n","data-dir":"/d","listen-addr":"127.0.0.1","advertise-addr":"10.1.1.1","data-path-addr":"10.1.1.2",
        "data-path-port":4790,"gossip-port":1,"cluster-port":2,"uplink":"eth9","network-diagnostic-port":2000,"api-socket":"/s",
        "bpf-object":"/o","bpf-pin-dir":"/p","pidfile":"/f","log-level":"debug","default-addr-pools":[{"base":"10.10.0.0/16","size":24}],
        "max-endpoints":10,"max-networks":11,"max-nodes":12,"max-peers":13,"max-services":14,"max-backends":15,"max-flows":16,
        "max-flows6":17,"max-fragments":18,"max-maglev-parts":19,"max-affinities":20,"max-loads":21,"max-sockets":22,"preallocate-flows":true,"tcp-opening-timeout":1,"tcp-established-timeout":2,
        "tcp-finished-timeout":3,"tcp-reset-timeout":4,"udp-timeout":5,"udp-answered-timeout":6,
        "features":{"attach":"clsact"}}"#;
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap();
    let mut given: Vec<&str> = parsed.as_object().unwrap().keys().map(String::as_str).collect();
    given.sort_unstable();
    assert_eq!(given, keys(), "the list that errors print is the list that is read");
    let config = load(json, &[]).unwrap();
    assert_eq!(config.uplink.as_deref(), Some("eth9"));
    assert_eq!(config.data_path_port, 4790);
    let sizes = Sizes {
        endpoints: 10,
        networks: 11,
        nodes: 12,
        peers: 13,
        services: 14,
        backends: 15,
        flows: 16,
        flows6: 17,
        fragments: 18,
        maglev_parts: 19,
        affinities: 20,
        loads: 21,
        sockets: 22,
        preallocate_flows: true,
    };
    let timeouts = Timeouts {
        tcp_opening: 1,
        tcp_established: 2,
        tcp_finished: 3,
        tcp_reset: 4,
        udp: 5,
        udp_answered: 6,
    };
    assert_eq!((config.sizes, config.timeouts), (sizes, timeouts));
    assert_eq!(config.features, Forced::only(&[("attach", "clsact")]).unwrap());
}

#[test]
fn sizes_and_timeouts_come_from_either_place_and_have_bounds() {
    let config = load(
        r#"{"max-peers": 7}"#,
        &["--max-flows", "9", "--udp-timeout=31", "--preallocate-flows"],
    )
    .unwrap();
    let sizes = Sizes {
        peers: 7,
        flows: 9,
        preallocate_flows: true,
        ..Sizes::DEFAULT
    };
    assert_eq!(config.sizes, sizes);
    assert_eq!((config.timeouts.udp, config.timeouts.tcp_established), (31, 432_000));
    for (json, flags, expected) in [
        (
            r#"{"max-peers": 0}"#,
            &[][..],
            r#"max-peers "0": a number from 1 to 4194304 is wanted"#,
        ),
        (
            "{}",
            &["--max-nodes", "65537"],
            r#"max-nodes "65537": a number from 1 to 65536 is wanted"#,
        ),
        (
            r#"{"max-flows": 99999999999}"#,
            &[],
            r#"max-flows "99999999999": a number from 1 to 4194304 is wanted"#,
        ),
        (
            r#"{"tcp-established-timeout": 31536001}"#,
            &[],
            r#"tcp-established-timeout "31536001": a number from 1 to 31536000 is wanted"#,
        ),
        (
            r#"{"max-peers": 8, "udp-timeout": 1}"#,
            &["--udp-timeout", "2", "--max-peers", "8"],
            "max-peers, udp-timeout set both as a flag and in daemon.json: remove one of the two",
        ),
    ] {
        assert_eq!(refusal(json, flags), expected);
    }
}

#[test]
fn a_value_of_another_type_is_told_with_what_would_be_right() {
    for (json, expected) in [
        (
            r#"{"max-flows": "ten"}"#,
            r#"max-flows "ten": a number from 1 to 4194304 is wanted"#,
        ),
        (
            r#"{"max-nodes": -1}"#,
            "max-nodes -1: a number from 1 to 65536 is wanted",
        ),
        (
            r#"{"max-peers": 1.5}"#,
            "max-peers 1.5: a number from 1 to 4194304 is wanted",
        ),
        (
            r#"{"udp-timeout": "30s"}"#,
            r#"udp-timeout "30s": a number from 1 to 31536000 is wanted"#,
        ),
        (
            r#"{"preallocate-flows": 1}"#,
            "preallocate-flows 1: true or false is wanted",
        ),
        (
            r#"{"gossip-port": "x"}"#,
            r#"gossip-port "x": a port from 1 to 65535 is wanted"#,
        ),
        (
            r#"{"data-path-port": -1}"#,
            "data-path-port -1: a port from 1 to 65535 is wanted",
        ),
        (
            r#"{"network-diagnostic-port": "2000"}"#,
            r#"network-diagnostic-port "2000": a port from 1 to 65535 is wanted, or 0, which turns the server off"#,
        ),
        (r#"{"node-name": 7}"#, "node-name 7: a text in quotes is wanted"),
        (
            r#"{"advertise-addr": ["10.0.0.1"]}"#,
            r#"advertise-addr ["10.0.0.1"]: an IP address in quotes is wanted, as "192.168.0.1""#,
        ),
        (
            r#"{"log-level": 5}"#,
            "log-level 5: trace, debug, info, warn or error in quotes is wanted",
        ),
        (
            r#"{"default-addr-pools": ["10.0.0.0/8"]}"#,
            r#"default-addr-pools ["10.0.0.0/8"]: a list of pools is wanted, as [{"base": "10.0.0.0/8", "size": 24}]"#,
        ),
        (
            r#"{"features": "clsact"}"#,
            r#"features "clsact": an object of names and choices is wanted, as {"attach": "clsact"}"#,
        ),
    ] {
        assert_eq!(refusal(json, &[]), expected);
    }
    // Every key says something of its own, and in one line.
    for key in keys() {
        let message = refusal(&format!(r#"{{"{key}": {{"a": {{}}}}}}"#), &[]);
        let value = r#"{"a":{}}"#;
        assert!(
            message.starts_with(&format!("{key} {value}: ")) && message.ends_with(|end: char| end != ' '),
            "{message}"
        );
        assert!(
            message.contains(" wanted") && !message.contains("invalid type") && !message.contains('\n'),
            "{message}"
        );
    }
}

#[test]
fn features_come_from_either_place() {
    let json = r#"{"features": {"attach": "clsact", "handover": "redirect"}}"#;
    let flags = ["--features", "attach=clsact", "--features=handover=redirect"];
    let wanted = Forced::only(&[("attach", "clsact"), ("handover", "redirect")]).unwrap();
    for config in [load(json, &[]), load("{}", &flags)] {
        assert_eq!(config.unwrap().features, wanted);
    }
    assert_eq!(
        refusal(json, &flags),
        "features set both as a flag and in daemon.json: remove one of the two"
    );
    for (json, flags, expected) in [
        (
            r#"{"features": {"attach": "xdp"}}"#,
            &[][..],
            r#"features "attach=xdp": tcx or clsact is wanted"#,
        ),
        (
            "{}",
            &["--features", "clsact"],
            r#"features "clsact": NAME=CHOICE is wanted, as attach=clsact"#,
        ),
        (
            "{}",
            &["--features", "tcx=on"],
            r#"features "tcx=on": there is no such feature, but there are attach, handover, encap, decap-l3, csum-ipv6, map-reads, balance, early-drop"#,
        ),
    ] {
        assert_eq!(refusal(json, flags), expected);
    }
}

#[test]
fn unknown_keys_are_named() {
    let message = refusal(r#"{"gossip_port": 7946}"#, &[]);
    assert!(
        message.contains(r#""gossip_port""#) && message.contains("gossip-port"),
        "{message}"
    );
}

#[test]
fn wrong_types_and_values_name_key_and_value() {
    for (json, words) in [
        (r#"{"gossip-port": "x"}"#, ["gossip-port", "x"]),
        (r#"{"gossip-port": 0}"#, ["gossip-port", "0"]),
        (r#"{"data-path-port": 70000}"#, ["data-path-port", "70000"]),
        (r#"{"network-diagnostic-port": -1}"#, ["network-diagnostic-port", "-1"]),
        (
            r#"{"network-diagnostic-port": 65536}"#,
            ["network-diagnostic-port", "65536"],
        ),
        (r#"{"advertise-addr": "300.1.1.1"}"#, ["advertise-addr", "300.1.1.1"]),
        (r#"{"advertise-addr": "0.0.0.0"}"#, ["advertise-addr", "0.0.0.0"]),
        (r#"{"advertise-addr": "fe80::1"}"#, ["advertise-addr", "fe80::1"]),
        (r#"{"data-path-addr": "ff02::1"}"#, ["data-path-addr", "ff02::1"]),
        (r#"{"data-path-addr": "::"}"#, ["data-path-addr", "\"::\""]),
        (r#"{"node-name": "a/b"}"#, ["node-name", "a/b"]),
        (r#"{"node-name": ""}"#, ["node-name", "1 to 64"]),
        (r#"{"log-level": "loud"}"#, ["log-level", "loud"]),
        (
            r#"{"default-addr-pools": [{"base": "10.0.0.1/8", "size": 24}]}"#,
            ["10.0.0.1/8", "10.0.0.0/8"],
        ),
        (
            r#"{"default-addr-pools": [{"base": "10.0.0.0/8", "size": 30}]}"#,
            ["size 30", "29"],
        ),
        (
            r#"{"default-addr-pools": [{"base": "10.0.0.0/8", "size": 4}]}"#,
            ["size 4", "8"],
        ),
        (
            r#"{"default-addr-pools": [{"base": "10.0.0.0/8", "size": 24}, {"base": "10.1.0.0/16", "size": 24}]}"#,
            ["10.1.0.0/16", "overlaps"],
        ),
    ] {
        let message = refusal(json, &[]);
        assert!(words.iter().all(|word| message.contains(word)), "{json}: {message}");
    }
    assert!(refusal("{", &[]).contains("not JSON"));
    assert!(refusal("[]", &[]).contains("object"));
}

#[test]
fn nodes_are_reached_where_they_listen() {
    let json =
        r#"{"node-name": "n", "listen-addr": "0.0.0.0", "advertise-addr": "fd00::1", "data-path-addr": "fd00::2"}"#;
    let config = load(json, &[]).unwrap();
    let advertise = config.advertise_addr.unwrap();
    assert_eq!(advertise.to_string(), "fd00::1");
    assert_eq!(
        config.listen_on(advertise).unwrap_err().to_string(),
        "listen-addr \"0.0.0.0\": an address of the family of advertise-addr fd00::1 is wanted, as ::"
    );
}

#[test]
fn a_key_given_twice_is_refused() {
    let message = refusal(r#"{"node-name": "a", "gossip-port": 1}"#, &["--node-name", "a"]);
    assert!(
        message.contains("node-name") && !message.contains("gossip-port"),
        "{message}"
    );
}

#[test]
fn pools_come_from_flags_as_dockerd_has_them() {
    let pools = [
        "--default-addr-pools",
        "base=10.20.0.0/16,size=26",
        "--default-addr-pools",
        "base=10.10.0.0/16,size=26",
    ];
    let config = load(r#"{"node-name": "n"}"#, &pools).unwrap();
    let subnets: Vec<String> = config
        .default_addr_pools
        .subnets
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        (subnets, config.default_addr_pools.mask_length),
        (vec!["10.10.0.0/16".to_owned(), "10.20.0.0/16".to_owned()], 26)
    );
    for wrong in [
        "10.0.0.0/8",
        "base=10.0.0.0/8",
        "base=10.0.0.0/8,size=x",
        "base=1,size=2,size=3",
    ] {
        let message = refusal("{}", &["--default-addr-pools", wrong]);
        assert!(
            message.contains(wrong) && message.contains("base=CIDR,size=N"),
            "{message}"
        );
    }
    let twice = r#"{"default-addr-pools": [{"base": "10.0.0.0/8", "size": 24}]}"#;
    assert!(refusal(twice, &["--default-addr-pools", "base=10.0.0.0/8,size=24"]).contains("default-addr-pools"));
}

#[test]
fn a_missing_file_matters_only_when_named() {
    let missing = Path::new("/nonexistent/daemon.json");
    assert!(File::read(missing, false).is_ok());
    let message = File::read(missing, true).expect_err("named").to_string();
    assert!(message.contains("/nonexistent/daemon.json"), "{message}");
}

#[test]
fn a_file_without_end_is_refused() {
    let message = File::read(Path::new("/dev/zero"), true)
        .expect_err("endless")
        .to_string();
    assert!(
        message.contains("/dev/zero") && message.contains("at most 1048576 bytes"),
        "{message}"
    );
    let longest = std::env::temp_dir().join(format!("weft-config-{}", std::process::id()));
    for (bytes, is_read) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        std::fs::write(&longest, format!("{{{}}}", " ".repeat(bytes - 2))).unwrap();
        assert_eq!(File::read(&longest, true).is_ok(), is_read, "{bytes} bytes");
    }
    std::fs::remove_file(&longest).unwrap();
}

#[test]
fn two_servers_cannot_have_one_port() {
    for (json, words) in [
        (r#"{"gossip-port": 2377}"#, ["cluster-port", "gossip-port"]),
        (r#"{"gossip-port": 4789}"#, ["data-path-port", "gossip-port"]),
        (
            r#"{"network-diagnostic-port": 7946}"#,
            ["network-diagnostic-port", "gossip-port"],
        ),
        (
            r#"{"network-diagnostic-port": 2377}"#,
            ["network-diagnostic-port", "cluster-port"],
        ),
    ] {
        let message = refusal(json, &[]);
        assert!(words.iter().all(|word| message.contains(word)), "{json}: {message}");
    }
}

/// A file that goes with its owner.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn reading_again_keeps_the_flags_and_takes_good_files_only() {
    let file = TemporaryFile(std::env::temp_dir().join(format!("weft-reload-{}.json", std::process::id())));
    let write = |json: &str| std::fs::write(&file.0, json).unwrap();
    write("{}");
    let path = file.0.to_str().unwrap();
    let load = |more: &[&str]| {
        let words = ["weftd", "--config", path, "--node-name", "n"];
        Config::load(&Flags::try_parse_from(words.iter().chain(more)).unwrap()).unwrap()
    };
    let (plain, flagged) = (load(&[]), load(&["--network-diagnostic-port", "3000"]));
    assert_eq!(flagged.reload().unwrap().network_diagnostic_port, 3000);
    write(r#"{"network-diagnostic-port": 2000}"#);
    assert_eq!(plain.reload().unwrap().network_diagnostic_port, 2000);
    assert!(
        flagged
            .reload()
            .unwrap_err()
            .to_string()
            .contains("network-diagnostic-port")
    );
    write(r#"{"network-diagnostic-port": 2000, "gossip-port": 70000}"#);
    assert!(plain.reload().unwrap_err().to_string().contains("70000"));
}
