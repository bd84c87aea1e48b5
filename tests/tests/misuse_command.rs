//! Bad input at the command line of a running node: each gets one clear line, and leaves everything as it was.

use std::net::{TcpListener, UdpSocket};
use weft_tests::misuse::SOON;
use weft_tests::misuse::{enter, refused, state, switch_on, weft_refuses};
use weft_tests::rig::{Container, Error, Options, Result, Rig, wait_until};

/// One host, its own manager, with the network `n1` at 10.1.0.0/24 and the diagnostic server on.
fn manager() -> Result<Rig> {
    let mut rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })?;
    rig.start_cluster()?;
    rig.hosts[0].weft(&["network", "create", "--subnet", "10.1.0.0/24", "n1"])?;
    switch_on(&mut rig.hosts[0])?;
    Ok(rig)
}

#[test]
fn wrong_networks_and_services_are_refused() -> Result<()> {
    let rig = manager()?;
    let host = &rig.hosts[0];
    host.weft(&["service", "create", "--name", "web", "--network", "n1"])?;
    let before = state(host);
    const MTU: &str = "com.docker.network.driver.mtu";
    for (arguments, words) in [
        // Subnets.
        (
            "network create --subnet 10.1.0.128/25 n2",
            &["10.1.0.128/25", "overlaps", "10.1.0.0/24", "n1"][..],
        ),
        (
            "network create --subnet 10.0.0.0/8 n2",
            &["10.0.0.0/8", "overlaps", "10.1.0.0/24", "n1"],
        ),
        (
            "network create --subnet banana n2",
            &["invalid subnet banana", "10.1.0.0/24"],
        ),
        (
            "network create --subnet 10.2.0.0 n2",
            &["invalid subnet 10.2.0.0", "10.1.0.0/24"],
        ),
        (
            "network create --subnet 10.2.0.0/33 n2",
            &["invalid subnet 10.2.0.0/33"],
        ),
        (
            "network create --subnet 10.2.0.0/30 n2",
            &["invalid subnet 10.2.0.0/30", "/8 to /29"],
        ),
        (
            "network create --subnet 10.2.0.7/24 n2",
            &["invalid subnet 10.2.0.7/24", "10.2.0.0/24"],
        ),
        (
            "network create --subnet 127.1.0.0/24 n2",
            &["invalid subnet 127.1.0.0/24", "loopback"],
        ),
        (
            "network create --subnet 239.1.0.0/24 n2",
            &["invalid subnet 239.1.0.0/24", "multicast"],
        ),
        (
            "network create --subnet fd00::/64 n2",
            &["invalid subnet fd00::/64", "--ipv6"],
        ),
        (
            "network create --subnet 10.2.0.0/24 --gateway 10.3.0.1 n2",
            &["gateway 10.3.0.1", "10.2.0.0/24"],
        ),
        ("network create --gateway 10.3.0.1 n2", &["gateway 10.3.0.1", "subnet"]),
        (
            "network create --subnet 10.2.0.0/24 --gateway banana n2",
            &["banana", "--gateway", "--help"],
        ),
        // Names and options.
        ("network create n1", &["network with name n1 already exists"]),
        ("network create N1", &["already exists"]),
        ("network create n/2", &["\"n/2\"", "[a-zA-Z0-9]"]),
        ("network create --driver bridge n2", &["bridge", "overlay"]),
        ("network create --opt nosuch=1 n2", &["\"nosuch\"", MTU]),
        ("network create --opt =1 n2", &["=1", "KEY=VALUE"]),
        (
            "network create --opt com.docker.network.driver.mtu=117 n2",
            &[MTU, "\"117\"", "118 to 65535"],
        ),
        (
            "network create --opt com.docker.network.driver.mtu=65536 n2",
            &[MTU, "\"65536\"", "118 to 65535"],
        ),
        (
            "network create --opt com.docker.network.driver.mtu=many n2",
            &[MTU, "\"many\"", "118 to 65535"],
        ),
        (
            "network create --opt com.docker.network.driver.overlay.vxlanid_list=0 n2",
            &["vxlanid_list", "0"],
        ),
        (
            "network create --opt com.docker.network.driver.overlay.vxlanid_list=16777216 n2",
            &["16777216"],
        ),
        (
            "network create --opt com.docker.network.driver.overlay.vxlanid_list=4096 n2",
            &["4096", "n1"],
        ),
        // Unknown things, and things in use.
        ("network rm nosuch", &["network nosuch not found"]),
        ("network rm n1", &["n1", "in use by service web"]),
        ("network disconnect n1 nosuch", &["endpoint nosuch", "network n1"]),
        ("network disconnect nosuch web", &["nosuch"]),
        (
            "service create --name s --network nosuch",
            &["network nosuch not found"],
        ),
        (
            "service create --name web --network n1",
            &["service with name web already exists"],
        ),
        ("service create --name a/b --network n1", &["\"a/b\"", "[a-zA-Z0-9]"]),
        (
            "service create --name s --network n1 --endpoint-mode none",
            &["none", "vip, dnsrr"],
        ),
        ("service rm nosuch", &["service nosuch not found"]),
        ("service ps nosuch", &["service nosuch not found"]),
        ("service inspect nosuch", &["service nosuch not found"]),
        // The cluster.
        (
            "cluster init",
            &["already part of the cluster of 192.168.50.1:2377", "weft cluster leave"],
        ),
        (
            "cluster join --token x 192.168.50.9",
            &["already part of the cluster", "weft cluster leave"],
        ),
        ("cluster leave", &["manager", "--force"]),
        // The command line itself.
        ("frobnicate", &["weft: ", "'frobnicate'", "`weft --help`"]),
        ("network ls --frob", &["weft: ", "'--frob'", "`weft network ls --help`"]),
        ("network create", &["<NAME>", "`weft network create --help`"]),
        (
            "network connect n1 --name c",
            &["--netns", "`weft network connect --help`"],
        ),
        ("network connect n1 --netns a --pid 1 --name c", &["--netns", "--pid"]),
        ("network connect n1 --netns a --name c --ip 10.1.0", &["10.1.0", "--ip"]),
        ("network connect n1 --pid many --name c", &["many", "--pid"]),
    ] {
        weft_refuses(host, arguments, words);
    }
    let no_daemon = &["--socket", "/nonexistent/weft.sock", "network", "ls"];
    let mut command = host.netns().command(weft_tests::rig::program("weft")?);
    refused(
        command.args(no_daemon),
        &["/nonexistent/weft.sock", "Is weftd running?"],
    );
    assert_eq!(state(host), before);
    Ok(())
}

#[test]
fn connects_that_fail_leave_nothing() -> Result<()> {
    let rig = manager()?;
    let host = &rig.hosts[0];
    let (web, other) = (rig.container(0, "web")?, rig.container(0, "other")?);
    web.connect("n1", None)?;
    let address = web.address()?.to_string();
    let taken = format!("--ip {address}");
    let before = (state(host), links(&other));
    let netns = format!("--netns {}", other.netns().name());
    let own = format!("--netns {}", host.netns().name());
    for (network, namespace, rest, words) in [
        ("nosuch", netns.as_str(), "", &["network nosuch not found"][..]),
        (
            "n1",
            "--netns nosuch",
            "",
            &["network namespace \"nosuch\" does not exist", "ip netns add"],
        ),
        (
            "n1",
            "--netns /nonexistent/ns",
            "",
            &["/nonexistent/ns", "does not exist"],
        ),
        (
            "n1",
            "--netns /etc/passwd",
            "",
            &["/etc/passwd", "is not a network namespace", "/run/netns/NAME"],
        ),
        (
            "n1",
            "--netns /proc/self/ns/mnt",
            "",
            &["/proc/self/ns/mnt", "is not a network namespace"],
        ),
        ("n1", "--netns /tmp", "", &["/tmp", "is not a network namespace"]),
        ("n1", "--pid 4194305", "", &["no process with pid 4194305"]),
        ("n1", "--pid 0", "", &["no process with pid 0"]),
        ("n1", own.as_str(), "", &["the daemon itself runs in"]),
        (
            "n1",
            netns.as_str(),
            taken.as_str(),
            &["Address already in use", address.as_str(), "endpoint web"],
        ),
        ("n1", netns.as_str(), "--ip 10.1.0.1", &["10.1.0.1", "gateway"]),
        ("n1", netns.as_str(), "--ip 10.1.0.255", &["10.1.0.255", "broadcast"]),
        (
            "n1",
            netns.as_str(),
            "--ip 10.2.0.5",
            &["10.2.0.5", "out of range", "10.1.0.0/24"],
        ),
        ("n1", netns.as_str(), "--service nosuch", &["service nosuch not found"]),
        ("n1", netns.as_str(), "--alias a/b", &["\"a/b\"", "[a-zA-Z0-9]"]),
    ] {
        let arguments = format!("network connect {network} {namespace} --name other {rest}");
        weft_refuses(host, &arguments, words);
    }
    let same_name = format!("network connect n1 {netns} --name web");
    weft_refuses(
        host,
        &same_name,
        &["endpoint with name web already exists in network n1"],
    );
    assert_eq!((state(host), links(&other)), before);

    // Half-way: the links exist by the time that the resolver finds its port taken.
    let udp = enter(other.netns(), || UdpSocket::bind("127.0.0.11:53")).expect("the port is free");
    let connect = format!("network connect n1 {netns} --name other --ip 10.1.0.9");
    weft_refuses(
        host,
        &connect,
        &["UDP port 53 of 127.0.0.11", other.netns().name(), "in use"],
    );
    drop(udp);
    let tcp = enter(other.netns(), || TcpListener::bind("127.0.0.11:53")).expect("the port is free");
    weft_refuses(
        host,
        &connect,
        &["TCP port 53 of 127.0.0.11", other.netns().name(), "in use"],
    );
    drop(tcp);
    assert_eq!((state(host), links(&other)), before);
    let resolv_conf = format!("/etc/netns/{}", other.netns().name());
    assert!(!std::path::Path::new(&resolv_conf).exists(), "{resolv_conf} is left");
    host.weft(&connect.split_whitespace().collect::<Vec<_>>())?;
    assert_eq!(other.address()?.to_string(), "10.1.0.9");
    other.disconnect("n1")?;
    assert_eq!((state(host), links(&other)), before);
    Ok(())
}

/// Names of the links of a container.
fn links(container: &Container) -> Vec<String> {
    let shown = container.netns().ip("-br link").expect("links are shown");
    let names = shown.lines().filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn a_full_subnet_is_told() -> Result<()> {
    let rig = manager()?;
    let host = &rig.hosts[0];
    host.weft(&["network", "create", "--subnet", "10.2.0.0/29", "small"])?;
    for name in ["a", "b", "c", "d", "e"] {
        host.weft(&["service", "create", "--name", name, "--network", "small"])?;
    }
    let container = rig.container(0, "late")?;
    let before = (state(host), links(&container));
    let connect = container.connect_arguments("small", None).join(" ");
    weft_refuses(host, &connect, &["available IP", "6 of 6", "10.2.0.0/29", "small"]);
    weft_refuses(
        host,
        "service create --name f --network small",
        &["available IP", "6 of 6", "10.2.0.0/29"],
    );
    assert_eq!((state(host), links(&container)), before);
    host.weft(&["service", "rm", "c"])?;
    container.connect("small", None)?;
    assert_eq!(
        container.address()?.to_string(),
        "10.2.0.4",
        "what is released is free again"
    );
    Ok(())
}

/// Whoever wins, a namespace that goes while it is being connected leaves nothing.
#[test]
fn a_namespace_that_goes_meanwhile_leaves_nothing() -> Result<()> {
    let rig = manager()?;
    let host = &rig.hosts[0];
    let before = state(host);
    for round in 0..6 {
        let container = rig.container(0, &format!("gone{round}"))?;
        let arguments = container.connect_arguments("n1", None).join(" ");
        let mut command = host.weft_command()?;
        command.args(arguments.split_whitespace());
        let outcome = std::thread::scope(|scope| {
            let connecting = scope.spawn(move || command.output());
            // Each round strikes a little later.
            for _ in 0..round * 2 {
                let _ = container.netns().ip("link show lo");
            }
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", container.netns().name()])
                .output();
            connecting.join().expect("no panic")
        });
        let output = outcome.map_err(|error| Error::new(error.to_string()))?;
        if output.status.success() {
            // The daemon may have noticed by itself that the namespace is gone.
            let _ = container.disconnect("n1");
        } else {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(told.lines().count(), 1, "{told}");
        }
        wait_until(SOON, "nothing is left", || {
            let now = state(host);
            if now == before {
                Ok(())
            } else {
                Err(format!("before {before}\nnow {now}"))
            }
        })?;
    }
    Ok(())
}
