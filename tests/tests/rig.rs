//! The rig: hosts reach each other, commands run where they should, and nothing stays.

use std::path::Path;
use std::time::Duration;
use weft_tests::rig::{Options, Rig, program, wait_until};

/// Long enough for a server to listen on a busy machine.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn hosts_reach_each_other_unless_unplugged() {
    let rig = Rig::new(Options {
        hosts: 3,
        mtu: 1600,
        ..Options::default()
    })
    .unwrap();
    let tool = program("weft-test-tool").unwrap();
    let tool = tool.to_str().unwrap();
    let _server = rig.hosts[0].spawn(Path::new(tool), &["udp-echo"]).unwrap();
    let ping = |host: usize, size: &str| rig.hosts[host].run(tool, &["udp-ping", "192.168.50.1:7001", "--size", size]);
    wait_until(SOON, "node2 reaches node1", || ping(1, "64")).unwrap();
    assert_eq!(
        ping(2, "1572").unwrap(),
        "1 of 1 came back\n",
        "1572 bytes and headers fill an MTU of 1600"
    );
    let link = rig.hosts[2].run("ip", &["-o", "link", "show", "eth0"]).unwrap();
    assert!(link.contains(" mtu 1600 "), "{link}");
    let route = rig.hosts[2].run("ip", &["route", "show", "default"]).unwrap();
    assert!(route.starts_with("default via 192.168.50.254 dev eth0"), "{route}");
    rig.unplug(1).unwrap();
    assert!(ping(1, "64").unwrap_err().to_string().contains("does not answer"));
    rig.plug(1).unwrap();
    wait_until(SOON, "node2 reaches node1 again", || ping(1, "64")).unwrap();
}

#[test]
fn servers_and_clients_of_the_tool_work() {
    let rig = Rig::new(Options::default()).unwrap();
    let tool = program("weft-test-tool").unwrap();
    let run = |arguments: &[&str]| rig.hosts[1].run(tool.to_str().unwrap(), arguments);
    let _web = rig.hosts[0].spawn(&tool, &["http-serve", "--name", "web.1"]).unwrap();
    let _sink = rig.hosts[0].spawn(&tool, &["tcp-sink"]).unwrap();
    let answer = wait_until(SOON, "web.1 answers", || {
        run(&["http-get", "-n", "2", "http://192.168.50.1/"])
    })
    .unwrap();
    assert_eq!(answer, "web.1 at 192.168.50.1 answers 192.168.50.2\n".repeat(2));
    let sent = wait_until(SOON, "the sink listens", || {
        run(&["tcp-send", "192.168.50.1:7000", "--bytes", "1000000"])
    })
    .unwrap();
    assert_eq!(sent, "1000000 bytes\n");
    let error = run(&["dns-query", "my-web", "--resolver", "127.0.0.1:1", "--timeout", "1"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("ask 127.0.0.1:1 for \"my-web\""), "{error}");
}

#[test]
fn nothing_stays() {
    let rig = Rig::new(Options::default()).unwrap();
    let mut container = rig.container(1, "web").unwrap();
    container.serve(&["udp-echo"]).unwrap();
    let namespaces = [
        rig.hosts[0].netns().path(),
        rig.hosts[1].netns().path(),
        container.netns().path(),
    ];
    let folder = rig.hosts[0].folder().to_path_buf();
    assert!(namespaces.iter().all(|path| path.exists()) && folder.exists());
    assert!(
        container.addresses().unwrap().is_empty(),
        "a container that is not connected has no address"
    );
    let inside = container
        .run("ip", &["netns", "pids", container.netns().name()])
        .unwrap();
    assert!(!inside.trim().is_empty(), "the server runs inside");
    let pids: Vec<String> = inside.split_whitespace().map(str::to_owned).collect();
    drop(container);
    drop(rig);
    assert!(!namespaces.iter().any(|path| path.exists()) && !folder.exists());
    for pid in pids {
        assert!(
            !Path::new("/proc").join(&pid).join("exe").exists(),
            "process {pid} of the container still runs"
        );
    }
}

#[test]
fn a_killed_run_is_swept_by_the_next() {
    // A namespace with the name that a rig of a process which is gone would have.
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let name = format!("weft{}_0-node1", gone.id());
    let added = std::process::Command::new("ip")
        .args(["netns", "add", &name])
        .status()
        .unwrap();
    assert!(added.success());
    let rig = Rig::new(Options {
        hosts: 1,
        ..Options::default()
    })
    .unwrap();
    let path = Path::new("/run/netns").join(&name);
    // Another rig may be sweeping it at this moment.
    let swept = || if path.exists() { Err("it is there") } else { Ok(()) };
    wait_until(SOON, "the namespace is gone", swept).unwrap();
    assert!(rig.hosts[0].netns().path().exists());
}
