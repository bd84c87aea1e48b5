//! Bad input at the start of `weftd`: one clear line, and nothing is left attached, pinned, listening or written.

use serde_json::{Value, json};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use weft_dataplane::abi::{ABI_MARK, ABI_VERSION};
use weft_tests::misuse::{SOON, enter, get, refused, state, switch_on, weft_refuses};
use weft_tests::rig::{Error, Host, Options, Result, Rig, object, program, wait_until};

/// `weftd` as the host's configuration has it, by way of `wrapper`.
fn weftd(host: &Host, wrapper: &[&str]) -> Command {
    let weftd = program("weftd").expect("weftd is built");
    let mut command = match wrapper {
        [] => host.netns().command(weftd),
        [first, rest @ ..] => {
            let mut command = host.netns().command(first);
            command.args(rest).arg(weftd);
            command
        }
    };
    command.arg("--config").arg(host.config_file());
    command
}

/// What a failed start must leave alone: files, pins, links.
fn traces(host: &Host) -> String {
    let files = [
        host.socket(),
        host.pins().to_path_buf(),
        host.folder().join("weftd.pid"),
    ];
    let present: Vec<_> = files.iter().filter(|path| path.exists()).collect();
    let links = host.netns().ip("-br link").expect("links are shown");
    let names: Vec<_> = links
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let filters = host.run("bpftool", &["-j", "net"]).unwrap_or_default();
    format!("{present:?} {names:?} {filters}")
}

fn one_host() -> Result<Rig> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.hosts[0].set("bpf-object", json!(object()?))?;
    Ok(rig)
}

#[test]
fn starts_that_cannot_be_leave_nothing() -> Result<()> {
    let mut rig = one_host()?;
    let host = &mut rig.hosts[0];
    let clean = traces(host);
    let folder = host.folder().to_path_buf();
    let cases: Vec<(&str, Value, Vec<String>)> = vec![
        ("uplink", json!("nosuch0"), words(&["uplink", "\"nosuch0\"", "ip link"])),
        (
            "advertise-addr",
            json!("192.0.2.1"),
            words(&["advertise-addr", "192.0.2.1", "192.168.50.1"]),
        ),
        (
            "data-path-addr",
            json!("192.0.2.1"),
            words(&["data-path-addr", "192.0.2.1", "192.168.50.1"]),
        ),
        ("listen-addr", json!("192.0.2.1"), words(&["listen-addr", "192.0.2.1"])),
        ("data-dir", json!("/proc/weft"), words(&["data-dir", "/proc/weft"])),
        (
            "api-socket",
            json!("/proc/weft.sock"),
            words(&["api-socket", "/proc/weft.sock"]),
        ),
        (
            "pidfile",
            json!("/proc/weftd.pid"),
            words(&["pidfile", "/proc/weftd.pid"]),
        ),
        (
            "bpf-pin-dir",
            json!(folder.join("pins")),
            words(&["pin directory", "/pins", "/sys/fs/bpf"]),
        ),
        (
            "bpf-object",
            json!("/nonexistent.o"),
            words(&["eBPF object /nonexistent.o", "No such file"]),
        ),
        ("bpf-object", json!("/tmp"), words(&["eBPF object /tmp"])),
        (
            "bpf-object",
            json!("/etc/passwd"),
            words(&["/etc/passwd", "no eBPF object of weft", "build-ebpf"]),
        ),
    ];
    for (key, value, words) in cases {
        let right = setting(host, key)?;
        host.set(key, value)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(&mut weftd(host, &[]), &words);
        assert_eq!(traces(host), clean, "{key}");
        host.set(key, right)?;
    }
    host.start()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A setting as it is in the host's file; null if it is not there.
fn setting(host: &Host, key: &str) -> Result<Value> {
    let text = std::fs::read_to_string(host.config_file()).map_err(|error| Error::new(error.to_string()))?;
    let config: Value = serde_json::from_str(&text).map_err(|error| Error::new(error.to_string()))?;
    Ok(config.get(key).cloned().unwrap_or(Value::Null))
}

#[test]
fn objects_of_others_are_refused() -> Result<()> {
    let mut rig = one_host()?;
    let host = &mut rig.hosts[0];
    let clean = traces(host);
    let read = |path: &Path| std::fs::read(path).expect("it is there");
    let mut other = read(&object()?);
    let mark = other
        .windows(ABI_MARK.len())
        .position(|window| window == ABI_MARK)
        .expect("the object has a mark");
    let version = mark + ABI_MARK.len();
    other[version..version + 4].copy_from_slice(&(ABI_VERSION + 1).to_le_bytes());
    let path = host.folder().join("other.o");
    let refuse = |host: &mut Host, bytes: &[u8], words: &[&str]| -> Result<()> {
        std::fs::write(&path, bytes).expect("it is written");
        host.set("bpf-object", json!(path))?;
        refused(&mut weftd(host, &[]), words);
        assert_eq!(traces(host), clean);
        Ok(())
    };
    let (found, own) = (format!("version {}", ABI_VERSION + 1), format!("has {ABI_VERSION}"));
    refuse(
        host,
        &other,
        &["other.o", &found, &own, "build both from the same source"],
    )?;
    let right = read(&object()?);
    // Cut off behind the mark, and with a hole where the programs are.
    refuse(host, &right[..version + 4], &["other.o"])?;
    let mut holed = right;
    holed[64..4096].fill(0);
    refuse(host, &holed, &["other.o"])?;
    refuse(host, b"", &["other.o", "no eBPF object of weft"])?;
    host.start()
}

#[test]
fn missing_privileges_are_named() -> Result<()> {
    let rig = one_host()?;
    let host = &rig.hosts[0];
    let clean = traces(host);
    for (bounding, missing) in [
        ("--bounding-set=-all", "lacks both"),
        ("--bounding-set=-all,+net_admin", "lacks CAP_BPF"),
        ("--bounding-set=-all,+cap_39", "lacks CAP_NET_ADMIN"),
    ] {
        let wrapper = ["setpriv", bounding, "--inh-caps=-all"];
        refused(&mut weftd(host, &wrapper), &["CAP_BPF and CAP_NET_ADMIN", missing]);
        assert_eq!(traces(host), clean, "{bounding}");
    }
    Ok(())
}

#[test]
fn ports_in_use_are_named() -> Result<()> {
    let mut rig = one_host()?;
    let host = &mut rig.hosts[0];
    let clean = traces(host);
    let udp = enter(host.netns(), || UdpSocket::bind("192.168.50.1:7946")).expect("the port is free");
    refused(
        &mut weftd(host, &[]),
        &["gossip-port", "UDP 192.168.50.1:7946", "in use", "choose another"],
    );
    drop(udp);
    let tcp = enter(host.netns(), || TcpListener::bind("192.168.50.1:7946")).expect("the port is free");
    refused(
        &mut weftd(host, &[]),
        &["gossip-port", "TCP 192.168.50.1:7946", "in use", "choose another"],
    );
    drop(tcp);
    // Without a device that encapsulates, VXLAN's port could be anybody's: only packets merged on receive would be missed.
    let data_path = enter(host.netns(), || UdpSocket::bind("0.0.0.0:4789")).expect("the port is free");
    host.set("features", json!({"encap": "collect_md"}))?;
    refused(
        &mut weftd(host, &[]),
        &["encap=collect_md", "UDP port 4789", "in use", "ss -lunp"],
    );
    drop(data_path);
    host.set("features", json!({"balance": "connect"}))?;
    refused(
        &mut weftd(
            host,
            &[
                "unshare",
                "--mount",
                "sh",
                "-c",
                "umount -a -l -t cgroup2; exec \"$@\"",
                "sh",
            ],
        ),
        &["balance=connect", "cgroup2", "mount -t cgroup2", "balance=packet"],
    );
    host.set("features", Value::Null)?;
    assert_eq!(traces(host), clean);
    host.start()?;

    // The port of the manager is wanted when the cluster begins.
    let manager = enter(host.netns(), || TcpListener::bind("192.168.50.1:2377")).expect("the port is free");
    weft_refuses(
        host,
        "cluster init",
        &["cluster-port", "TCP 192.168.50.1:2377", "in use", "choose another"],
    );
    weft_refuses(host, "network ls", &["not part of a cluster", "weft cluster init"]);
    drop(manager);
    host.weft(&["cluster", "init", "-q"])?;

    // The diagnostic server's is wanted at SIGHUP, which nobody waits for: the log tells.
    let taken = enter(host.netns(), || TcpListener::bind("127.0.0.1:2000")).expect("the port is free");
    host.set("network-diagnostic-port", 2000)?;
    host.hangup()?;
    wait_until(SOON, "the log tells that port 2000 is taken", || {
        let log = std::fs::read_to_string(host.log()).unwrap_or_default();
        let told = log
            .lines()
            .any(|line| line.contains("listen tcp 127.0.0.1:2000: bind: ") && line.contains("in use"));
        if told { Ok(()) } else { Err(log) }
    })?;
    drop(taken);
    switch_on(host)?;

    // A second daemon on the same socket, and on the same data.
    let before = state(host);
    let right = setting(host, "gossip-port")?;
    host.set("gossip-port", 7999)?;
    host.set("data-dir", json!(host.folder().join("data2")))?;
    refused(
        &mut weftd(host, &[]),
        &["api-socket", "weft.sock", "another weftd answers there"],
    );
    host.set("data-dir", json!(host.folder().join("data")))?;
    host.set("api-socket", json!(host.folder().join("other.sock")))?;
    refused(&mut weftd(host, &[]), &["data-dir", "node.redb"]);
    host.set("gossip-port", right)?;
    assert_eq!(state(host), before);
    assert!(get(host, "/ready")?.starts_with("OK"));
    Ok(())
}

#[test]
fn wrong_configurations_are_refused() -> Result<()> {
    let rig = one_host()?;
    let host = &rig.hosts[0];
    let clean = traces(host);
    let file = host.folder().join("wrong.json");
    let weftd = || {
        let mut command = host.netns().command(program("weftd").expect("weftd is built"));
        command.arg("--config").arg(&file);
        command
    };
    for (text, words) in [
        ("{", &["wrong.json", "JSON"][..]),
        ("[]", &["wrong.json", "object"]),
        (
            "{\"gossip-prt\": 7946}",
            &["wrong.json", "\"gossip-prt\"", "gossip-port"],
        ),
        ("{\"gossip-port\": 0}", &["gossip-port", "0", "1 to 65535"]),
        ("{\"gossip-port\": \"7946\"}", &["wrong.json", "gossip-port"]),
        ("{\"data-path-port\": 65536}", &["data-path-port", "65536", "65535"]),
        (
            "{\"network-diagnostic-port\": -1}",
            &["network-diagnostic-port", "-1", "0 and 65535"],
        ),
        ("{\"advertise-addr\": \"banana\"}", &["advertise-addr", "banana"]),
        ("{\"advertise-addr\": \"224.0.0.1\"}", &["advertise-addr", "224.0.0.1"]),
        ("{\"node-name\": \"a b\"}", &["node-name", "a b"]),
        ("{\"log-level\": \"loud\"}", &["log-level", "loud", "trace"]),
        (
            "{\"default-addr-pools\": [{\"base\": \"banana\", \"size\": 24}]}",
            &["default-addr-pools", "banana"],
        ),
        (
            "{\"default-addr-pools\": [{\"base\": \"10.0.0.0/8\", \"size\": 31}]}",
            &["default-addr-pools", "31"],
        ),
    ] {
        std::fs::write(&file, text).map_err(|error| Error::new(error.to_string()))?;
        let checked = refused(weftd().arg("--validate"), words);
        assert_eq!(refused(&mut weftd(), words), checked, "{text}");
    }
    std::fs::write(&file, "{\"node-name\": \"a\"}").map_err(|error| Error::new(error.to_string()))?;
    refused(weftd().args(["--node-name", "b"]), &["node-name", "flag", "wrong.json"]);
    refused(weftd().arg("--frob"), &["weftd: ", "'--frob'", "`weftd --help`"]);
    refused(weftd().args(["--gossip-port", "many"]), &["many", "--gossip-port"]);
    let valid = weftd()
        .arg("--validate")
        .output()
        .map_err(|error| Error::new(error.to_string()))?;
    assert!(valid.status.success());
    std::fs::remove_file(&file).map_err(|error| Error::new(error.to_string()))?;
    refused(&mut weftd(), &["wrong.json", "No such file"]);
    assert_eq!(traces(host), clean);
    Ok(())
}
