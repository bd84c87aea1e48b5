//! What others do to the interfaces, programs and pins of a host while `weftd` runs: noticed, named, and put right where that is possible.

use aya::maps::{Array, Map, MapData};
use nix::sys::signal::{Signal, kill};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use weft_dataplane::abi::Neighbor;
use weft_tests::misuse::{enter, refused};
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, object, program, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, entries, equal, wait_names};
use weft_tests::traffic::{UdpEcho, ping, udp_ask};

/// Two hosts with a container each.
struct Pair {
    alice: Container,
    bob: Container,
    // Containers are dropped before it.
    cluster: Cluster,
}

impl Pair {
    fn start() -> Result<Pair> {
        let cluster = Cluster::start(2)?;
        let (alice, bob) = (cluster.container(0, "alice", None)?, cluster.container(1, "bob", None)?);
        wait_names(&alice, "bob", &[bob.address()?])?;
        let pair = Pair { alice, bob, cluster };
        pair.reach()?;
        Ok(pair)
    }

    fn host(&self) -> &Host {
        &self.cluster.rig.hosts[0]
    }

    /// Each reaches the other, sooner or later.
    fn reach(&self) -> Result<()> {
        for (from, to) in [(&self.alice, self.bob.address()?), (&self.bob, self.alice.address()?)] {
            wait_until(SOON, "the other answers", || ping(from, to, 56))?;
        }
        Ok(())
    }

    /// Waits until the log of the first host has a line with all of these.
    fn told(&self, words: &[&str]) -> Result<()> {
        told(self.host(), words)
    }

    fn restore_default_route(&self) -> Result<()> {
        let router = Ipv4Addr::new(192, 168, 50, 254);
        self.host()
            .netns()
            .ip(&format!("route replace default via {router}"))
            .map(drop)
    }
}

fn told(host: &Host, words: &[&str]) -> Result<()> {
    wait_until(SOON, &format!("the log tells {words:?}"), || {
        let log = std::fs::read_to_string(host.log()).map_err(|error| error.to_string())?;
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        if log.lines().any(has) { Ok(()) } else { Err(log) }
    })
}

/// The MTU of the way to the other host, as the programs have it.
fn mtu(host: &Host) -> Result<u64> {
    let nodes = entries(host, "/maps/nodes")?;
    let mtu = nodes.first().and_then(|node| node["mtu"].as_u64());
    mtu.ok_or_else(|| Error::new(format!("no MTU in {nodes:?}")))
}

/// The MAC with which the programs send to other nodes while the kernel knows it.
fn neighbor(host: &Host) -> Result<Option<[u8; 6]>> {
    let generations = std::fs::read_dir(host.pins()).map_err(|error| Error::new(error.to_string()))?;
    for generation in generations.flatten() {
        let Ok(data) = MapData::from_pin(generation.path().join(weft_dataplane::abi::neighbor::NAME)) else {
            continue;
        };
        let map = Array::<_, Neighbor>::try_from(Map::Array(data)).map_err(|error| Error::new(error.to_string()))?;
        let found = map.iter().flatten().find(|slot| slot.ifindex != 0);
        return Ok(found.map(|slot| slot.destination));
    }
    Err(Error::new("no map of neighbours is pinned".to_owned()))
}

#[test]
fn another_hosts_mac_may_change() -> Result<()> {
    let pair = Pair::start()?;
    let server = SocketAddr::from((pair.bob.address()?, 9000));
    let _echo = UdpEcho::start(&pair.bob, server, b"bob");
    let other = pair.cluster.rig.hosts[1].netns();
    for last in [0xa1, 0xa2] {
        let mac = [2, 0, 0, 0, 9, last];
        let text = mac.map(|byte| format!("{byte:02x}")).join(":");
        other.ip(&format!("link set eth0 address {text}"))?;
        wait_until(SOON, "the programs send to the new MAC", || {
            // Whoever is asked for an answer by a host takes its MAC over.
            udp_ask(&pair.alice, server, 100).map_err(Error::new)?;
            equal(neighbor(pair.host())?, Some(mac))
        })?;
        equal(udp_ask(&pair.alice, server, 100), Ok(b"bob".to_vec()))?;
    }
    Ok(())
}

#[test]
fn an_uplink_may_be_renamed_and_its_mtu_and_address_change() -> Result<()> {
    let pair = Pair::start()?;
    let netns = pair.host().netns();
    equal(mtu(pair.host())?, 1500)?;
    netns.ip("link set eth0 mtu 1400")?;
    wait_until(SOON, "the maps have the new MTU", || equal(mtu(pair.host())?, 1400))?;
    netns.ip("link set eth0 mtu 1500")?;
    wait_until(SOON, "the maps have the old MTU", || equal(mtu(pair.host())?, 1500))?;

    netns.ip("link set eth0 down")?;
    netns.ip("link set eth0 name wan0")?;
    netns.ip("link set wan0 up")?;
    pair.restore_default_route()?;
    pair.told(&["renamed", "eth0", "wan0"])?;
    pair.reach()?;
    let info = pair.host().weft(&["info"])?;
    assert!(info.contains("Uplink: wan0"), "{info}");

    let address = pair.host().address();
    netns.ip(&format!("addr del {address}/24 dev wan0"))?;
    pair.told(&["VTEP address", &address.to_string(), "ip addr add", "wan0"])?;
    netns.ip(&format!("addr add {address}/24 dev wan0"))?;
    pair.restore_default_route()?;
    pair.told(&["no longer so", "VTEP address"])?;
    pair.reach()
}

#[test]
fn an_uplink_that_comes_back_gets_its_program() -> Result<()> {
    let pair = Pair::start()?;
    pair.host().netns().ip("link del eth0")?;
    pair.told(&["uplink \"eth0\" is gone"])?;
    pair.cluster.rig.new_uplink(0)?;
    pair.told(&["the uplink is another interface now", "eth0"])?;
    pair.reach()
}

#[test]
fn an_uplink_is_no_port_of_another_device() -> Result<()> {
    let mut rig = Rig::new(Options::default())?;
    let address = rig.hosts[0].address();
    let netns = rig.hosts[0].netns();
    netns.ip("link add br0 type bridge forward_delay 0")?;
    netns.ip("link set eth0 master br0")?;
    netns.ip(&format!("addr del {address}/24 dev eth0"))?;
    netns.ip(&format!("addr add {address}/24 dev br0"))?;
    netns.ip("link set br0 up")?;
    rig.hosts[0].set("bpf-object", object()?.display().to_string())?;
    rig.hosts[0].set("uplink", "eth0")?;
    let mut command = rig.hosts[0].netns().command(program("weftd")?);
    command.arg("--config").arg(rig.hosts[0].config_file());
    refused(
        &mut command,
        &["uplink", "\"eth0\" is a port of the bridge \"br0\"", "name \"br0\""],
    );
    assert!(!rig.hosts[0].pins().exists());
    // Its master carries the overlay, but has no driver.
    rig.hosts[0].set("uplink", serde_json::Value::Null)?;
    rig.hosts[0].set("features", json!({"early-drop": "xdp", "balance": "connect"}))?;
    let mut command = rig.hosts[0].netns().command(program("weftd")?);
    command.arg("--config").arg(rig.hosts[0].config_file());
    refused(&mut command, &["overlay_filter", "br0", "native XDP", "early-drop=tc"]);
    assert!(!rig.hosts[0].pins().exists());
    rig.hosts[0].set("features", serde_json::Value::Null)?;
    rig.start_cluster()?;
    rig.hosts[0].weft(&["network", "create", NETWORK])?;
    let (alice, bob) = (rig.container(0, "alice")?, rig.container(1, "bob")?);
    alice.connect(NETWORK, None)?;
    bob.connect(NETWORK, None)?;
    for (from, to) in [(&alice, bob.address()?), (&bob, alice.address()?)] {
        wait_until(SOON, "the other answers", || ping(from, to, 56))?;
    }
    let info = rig.hosts[0].weft(&["info"])?;
    assert!(info.contains("Uplink: br0\n"), "{info}");
    assert!(
        info.contains(" attach: tcx (kernel ") || info.contains(" attach: clsact (kernel "),
        "{info}"
    );
    // A device that becomes a port while the daemon runs is told.
    rig.hosts[1].netns().ip("link add br0 type bridge forward_delay 0")?;
    rig.hosts[1].netns().ip("link set eth0 master br0")?;
    told(&rig.hosts[1], &["uplink \"eth0\" is a port of the bridge \"br0\""])
}

/// The pinned links of a host.
fn links(host: &Host) -> Result<Vec<std::path::PathBuf>> {
    let entries = std::fs::read_dir(host.pins()).map_err(|error| Error::new(error.to_string()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    Ok(paths.filter(|path| path.is_file()).collect())
}

#[test]
fn programs_that_another_tool_detached_are_attached_again() -> Result<()> {
    let pair = Pair::start()?;
    let links = links(pair.host())?;
    assert_eq!(links.len(), 2, "{links:?}");
    for link in links {
        // The pin holds the link: without it the kernel detaches the program.
        std::fs::remove_file(&link).map_err(|error| Error::new(error.to_string()))?;
        let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (program, _) = name.rsplit_once('-').unwrap_or_default();
        pair.told(&["was detached by another tool", program])?;
        wait_until(SOON, "its link is pinned again", || {
            if link.exists() { Ok(()) } else { Err("it is not") }
        })?;
        pair.reach()?;
    }
    Ok(())
}

/// The index of the vxlan device.
fn vxlan_device(host: &Host) -> Result<String> {
    let link = host.netns().ip("-o link show weft-gro")?;
    Ok(link.split(':').next().unwrap_or_default().to_owned())
}

#[test]
fn the_vxlan_device_is_made_again() -> Result<()> {
    let mut pair = Pair::start()?;
    pair.host().netns().ip("link del weft-gro")?;
    pair.told(&["weft-gro", "is again"])?;
    let sockets = pair.host().run("ss", &["-lun"])?;
    assert!(sockets.contains(":4789 "), "{sockets}");

    let host = &mut pair.cluster.rig.hosts[0];
    host.set("features", json!({"encap": "collect_md"}))?;
    host.stop()?;
    host.start()?;
    pair.reach()?;
    let before = vxlan_device(pair.host())?;
    pair.host().netns().ip("link del weft-gro")?;
    wait_until(SOON, "the device that packets are sent to is there again", || {
        equal(vxlan_device(pair.host())?, before.clone())
    })?;
    pair.reach()
}

#[test]
fn a_vxlan_device_of_somebody_else_is_named() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.hosts[0]
        .netns()
        .ip("link add vx7 type vxlan id 7 dstport 4789 local 192.168.50.1")?;
    rig.hosts[0].netns().ip("link set vx7 up")?;
    rig.hosts[0].start()?;
    told(
        &rig.hosts[0],
        &["UDP port 4789", "vxlan device \"vx7\"", "keeps its VNIs"],
    )
}

#[test]
fn two_daemons_share_neither_pins_nor_data() -> Result<()> {
    let mut rig = Rig::new(Options::default())?;
    rig.hosts[0].start()?;
    let pid = format!("process {}", rig.hosts[0].pid().unwrap_or_default());
    let (pins, data) = (rig.hosts[0].pins().to_path_buf(), rig.hosts[0].folder().join("data"));
    for (key, value, words) in [
        ("bpf-pin-dir", pins, ["bpf-pin-dir", &pid, "its own"]),
        ("data-dir", data, ["data-dir", &pid, "of its own"]),
    ] {
        let other = &mut rig.hosts[1];
        other.set("bpf-object", object()?.display().to_string())?;
        let before = std::fs::read_to_string(other.config_file()).map_err(|error| Error::new(error.to_string()))?;
        other.set(key, value.display().to_string())?;
        let mut command = other.netns().command(program("weftd")?);
        refused(command.arg("--config").arg(other.config_file()), &words);
        std::fs::write(other.config_file(), before).map_err(|error| Error::new(error.to_string()))?;
    }
    assert!(rig.hosts[0].is_running());
    Ok(())
}

/// What the kernel holds of a host: numbers of programs and maps.
fn held(host: &Host) -> Result<(Vec<u32>, Vec<u32>)> {
    let mut maps = Vec::new();
    let mut folders = vec![host.pins().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .map_err(|error| Error::new(error.to_string()))?
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(info) = aya::maps::MapInfo::from_pin(&path) {
                maps.push(info.id());
            }
        }
    }
    let uses = |program: &aya::programs::ProgramInfo| {
        let used = program.map_ids().ok().flatten().unwrap_or_default();
        used.iter().any(|id| maps.contains(id))
    };
    let programs = aya::programs::loaded_programs().flatten();
    let programs = programs.filter(uses).map(|program| program.id()).collect();
    Ok((programs, maps))
}

fn cleanup(host: &Host) -> std::process::Command {
    let mut command = host.netns().command(program("weftd").expect("it is built"));
    command.arg("--config").arg(host.config_file()).arg("--cleanup");
    command
}

#[test]
fn the_drivers_program_follows_the_uplink_and_is_cleaned_up() -> Result<()> {
    let mut pair = Pair::start()?;
    let host = &mut pair.cluster.rig.hosts[0];
    host.stop()?;
    host.set("features", json!({"early-drop": "xdp", "balance": "connect"}))?;
    host.start()?;
    pair.reach()?;
    let has_xdp = |pair: &Pair| Ok::<_, Error>(pair.host().netns().ip("link show dev eth0")?.contains("xdp"));
    let info = pair.host().weft(&["info"])?;
    assert!(info.contains("early-drop: xdp (as configured)"), "{info}");
    assert!(has_xdp(&pair)?, "{}", pair.host().netns().ip("-d link show")?);

    pair.host().netns().ip("link del eth0")?;
    pair.told(&["uplink \"eth0\" is gone"])?;
    pair.cluster.rig.new_uplink(0)?;
    pair.told(&["the uplink is another interface now", "eth0"])?;
    // A kernel does not believe in another address of a neighbour within a second of the last (`locktime`), and then not for half a minute.
    pair.cluster.rig.hosts[1].netns().ip("neigh flush dev eth0")?;
    pair.reach()?;
    assert!(has_xdp(&pair)?);

    pair.cluster.rig.hosts[0].kill()?;
    assert!(has_xdp(&pair)?, "it stays while no weftd runs");
    let printed = weft_tests::rig::run(&mut cleanup(pair.host()))?;
    for words in [
        "XDP program detached from interface",
        "programs that see sockets detached from the host's root cgroup",
    ] {
        assert!(printed.contains(words), "{printed}");
    }
    assert!(!has_xdp(&pair)?);
    assert!(!pair.host().pins().exists());
    Ok(())
}

#[test]
fn cleaning_up_leaves_nothing_of_a_killed_daemon() -> Result<()> {
    let mut pair = Pair::start()?;
    let pid = pair.host().pid().unwrap_or_default();
    refused(
        &mut cleanup(pair.host()),
        &["cleanup", "in use", &format!("process {pid}")],
    );
    pair.reach()?;
    let (programs, maps) = held(pair.host())?;
    assert!(programs.len() >= 2 && maps.len() >= 10, "{programs:?} {maps:?}");
    pair.cluster.rig.hosts[0].kill()?;
    let printed = weft_tests::rig::run(&mut cleanup(pair.host()))?;
    for words in [
        "overlay_ingress detached from eth0",
        "overlay_egress detached",
        "weft-gro removed",
        "alice",
    ] {
        assert!(printed.contains(words), "{printed}");
    }
    assert!(!pair.host().pins().exists());
    wait_until(SOON, "the kernel has let go of programs and maps", || {
        let programs_left = aya::programs::loaded_programs()
            .flatten()
            .filter(|p| programs.contains(&p.id()));
        let maps_left = aya::maps::loaded_maps()
            .flatten()
            .filter(|map| maps.contains(&map.id()));
        equal((programs_left.count(), maps_left.count()), (0, 0))
    })?;
    let left = pair.host().netns().ip("-br link")?;
    assert!(!left.lines().any(|line| line.starts_with("weft")), "{left}");
    assert!(
        enter(pair.host().netns(), || weft_tests::rig::run(
            std::process::Command::new("tc").args(["qdisc", "show"])
        ))
        .is_ok_and(|shown| !shown.contains("clsact"))
    );
    let again = weft_tests::rig::run(&mut cleanup(pair.host()))?;
    let nothing = format!("nothing of weft is in bpf-pin-dir {} and", pair.host().pins().display());
    assert!(again.starts_with(&nothing), "{again}");
    // What it knows of its cluster is there: it starts again, and the container can be connected anew.
    pair.cluster.rig.hosts[0].start()?;
    told(pair.host(), &["interface is gone, endpoint forgotten", "alice"])?;
    wait_until(SOON, "alice is connected again", || pair.alice.connect(NETWORK, None))?;
    pair.reach()
}

#[test]
fn a_stop_in_the_middle_of_a_start_leaves_all_as_it_was() -> Result<()> {
    let mut pair = Pair::start()?;
    let before = held(pair.host())?.1;
    pair.cluster.rig.hosts[0].kill()?;
    let mut command = pair.host().netns().command(program("weftd")?);
    let mut started = command
        .arg("--config")
        .arg(pair.host().config_file())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(|error| Error::new(error.to_string()))?;
    kill(nix::unistd::Pid::from_raw(started.id().cast_signed()), Signal::SIGKILL).expect("it runs");
    started.wait().map_err(|error| Error::new(error.to_string()))?;
    pair.cluster.rig.hosts[0].start()?;
    // The kernel frees what the killed one had a little later.
    wait_until(SOON, "the maps are those of before", || {
        equal(held(pair.host())?.1, before.clone())
    })?;
    pair.reach()
}
