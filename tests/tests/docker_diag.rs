//! `diagnosticClient` against a real Docker engine: a swarm of one node with a container on an overlay network.
//!
//! The engine lives in namespaces of its own, which end with it.

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use weft_diag::client::{Console, run};

/// The longest that the engine may take for one step.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long an engine may take to stop its container and leave the swarm.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// Where the engine's diagnostic server listens, in its own network namespace.
const DIAGNOSTIC_PORT: u16 = 2000;

/// A dockerd with its files; ended and removed when dropped.
struct Engine {
    folder: PathBuf,
    process: Child,
}

impl Engine {
    fn start() -> Engine {
        let folder = std::env::temp_dir().join(format!("weft-dd-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder of its own");
        fs::write(
            folder.join("daemon.json"),
            format!("{{\"network-diagnostic-port\": {DIAGNOSTIC_PORT}}}"),
        )
        .expect("the configuration is written");
        // A swarm wants a default route; the far end of the pair answers nobody.
        let script = "set -e; ip link set lo up; ip link add up0 type veth peer name up1; ip address add 192.0.2.1/24 dev up0; \
             ip link set up0 up; ip link set up1 up; ip route add default via 192.0.2.2; hostname weft-dd; exec dockerd \
             --config-file $1/daemon.json --data-root $1/data --exec-root $1/exec --pidfile $1/pid -H unix://$1/sock \
             --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /$2";
        let log = File::create(folder.join("log")).expect("a log file");
        let process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "TERM",
                "unshare",
                "--mount",
                "--uts",
                "--net",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(&folder)
            .arg(cgroup())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("setpriv starts (package util-linux)");
        let mut engine = Engine { folder, process };
        let sock = engine.folder.join("sock");
        engine.wait_for("the engine's answer", |engine| {
            sock.exists() && engine.try_docker(&["version"]).is_ok()
        });
        engine
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Polls, with a deadline, until `reached`; the engine must live on.
    fn wait_for(&mut self, what: &str, reached: impl Fn(&Engine) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !reached(self) {
            let ended = self.process.try_wait().expect("its own child");
            assert!(
                ended.is_none(),
                "dockerd ended ({ended:?}; it needs root and docker.io):\n{}",
                self.log()
            );
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; the engine's log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_docker(&self, args: &[&str]) -> Result<String, String> {
        let mut host = std::ffi::OsString::from("unix://");
        host.push(self.folder.join("sock"));
        let output = Command::new("docker")
            .arg("-H")
            .arg(host)
            .args(args)
            .output()
            .expect("docker starts (package docker.io)");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn docker(&self, args: &[&str]) -> String {
        self.try_docker(args)
            .unwrap_or_else(|error| panic!("docker {args:?}: {error}\nthe engine's log:\n{}", self.log()))
    }

    /// An image with nothing but a busybox.
    fn import_image(&self) {
        let root = self.folder.join("image/bin");
        fs::create_dir_all(&root).expect("a folder");
        fs::copy("/bin/busybox", root.join("busybox")).expect("a static busybox (package busybox-static)");
        let tar = self.folder.join("image.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(self.folder.join("image"))
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(packed.expect("tar starts").success());
        self.docker(&["import", &tar.to_string_lossy(), "bb:1"]);
    }

    /// Has the engine read its configuration, which starts the diagnostic server.
    fn reload(&mut self) {
        let pid = i32::try_from(self.process.id()).expect("a pid");
        kill(Pid::from_raw(pid), Signal::SIGHUP).expect("its own child");
        self.wait_for("the diagnostic server", |engine| {
            engine.try_get("/ready").is_ok_and(|body| body == "OK\nOK")
        });
    }

    /// Runs `task` on a thread inside the engine's network namespace.
    fn inside<T: Send>(&self, task: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/proc/{}/ns/net", self.process.id())).expect("the engine lives");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter");
                task()
            });
            thread.join().expect("the task did not panic")
        })
    }

    fn try_get(&self, path: &str) -> Result<String, ureq::Error> {
        let url = format!("http://127.0.0.1:{DIAGNOSTIC_PORT}{path}");
        self.inside(|| ureq::get(&url).call()?.body_mut().read_to_string())
    }

    fn get(&self, path: &str) -> String {
        self.try_get(path)
            .unwrap_or_else(|error| panic!("GET {path}: {error}\nthe engine's log:\n{}", self.log()))
    }

    /// The command with `-json` inside the engine's namespace: its exit code, what it found, and its log.
    fn diagnose(&self, args: &[&str]) -> Ran {
        let line: Vec<String> = ["diagnosticClient", "-json"]
            .iter()
            .chain(args)
            .map(|arg| (*arg).to_owned())
            .collect();
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let code = self.inside(|| {
            let console = Console {
                input: &mut std::io::empty(),
                output: &mut output,
                log: &mut log,
                log_is_terminal: false,
                may_join: false,
            };
            run(&line, console)
        });
        let log = String::from_utf8(log).expect("text");
        let found = serde_json::from_slice(&output).unwrap_or_else(|error| panic!("no JSON: {error}\n{log}"));
        Ran { code, found, log }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Each step is tried whether or not the one before succeeded: what can be removed is removed.
        let _ = self.try_docker(&["rm", "-f", "c1"]);
        let _ = self.try_docker(&["swarm", "leave", "-f"]);
        if let Ok(pid) = i32::try_from(self.process.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_PATIENCE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        remove(&self.folder);
        remove_cgroups();
    }
}

/// The control group above those of the engine's containers.
fn cgroup() -> String {
    format!("weft-dd-{}", std::process::id())
}

/// Removes the control group, in version 2 and in each hierarchy of version 1.
fn remove_cgroups() {
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root]) {
        let group = hierarchy.join(cgroup());
        if group.is_dir()
            && let Err(error) = fs::remove_dir(&group)
        {
            eprintln!("{} is left behind: {error}", group.display());
        }
    }
}

/// Removes a folder; says so if it cannot be.
fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        eprintln!("{} is left behind: {error}", folder.display());
    }
}

/// What a run of the command left.
struct Ran {
    code: u8,
    found: Value,
    log: String,
}

#[test]
fn the_client_reads_a_docker_engine() {
    let mut engine = Engine::start();
    engine.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"]);
    engine.import_image();
    let network = engine.docker(&["network", "create", "-d", "overlay", "--attachable", "n1"]);
    engine.docker(&[
        "run",
        "-d",
        "--init=false",
        "--name",
        "c1",
        "--network",
        "n1",
        "bb:1",
        "/bin/busybox",
        "sleep",
        "600",
    ]);
    let address = engine.docker(&["inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "c1"]);
    let endpoint = engine.docker(&["inspect", "-f", "{{.NetworkSettings.Networks.n1.EndpointID}}", "c1"]);
    engine.reload();

    peers_are_read(&engine, &network);
    tables_are_read(&engine, &network, &endpoint, &address);
    an_entry_without_record_is_read(&engine, &network);
    a_wrong_network_is_told(&engine);
    refusals_are_told(&engine);
}

/// `/clusterpeers` and `/networkpeers`: the engine itself.
fn peers_are_read(engine: &Engine, network: &str) {
    let ran = engine.diagnose(&["-net", network]);
    assert_eq!(ran.code, 0, "{}", ran.log);
    let peers = ran.found["clusterPeers"].as_array().expect("a list");
    assert_eq!(peers.len(), 1, "{}", ran.found);
    assert_eq!(peers[0]["ip"], "127.0.0.1");
    assert_eq!(peers[0]["name"].as_str().map(str::len), Some(12), "{}", ran.found);
    assert_eq!(ran.found["networkPeers"], ran.found["clusterPeers"]);
    assert_eq!(engine.get("/clusterpeers").lines().nth(1), Some("total entries: 1"));
}

/// `/gettable`: the container's record is in both tables, and has an owner.
fn tables_are_read(engine: &Engine, network: &str, endpoint: &str, address: &str) {
    for (table, member, value) in [
        ("sd", "endpointIP", address.to_owned()),
        ("overlay", "endpointIP", format!("{address}/24")),
    ] {
        let ran = engine.diagnose(&["-v", "-net", network, "-t", table]);
        assert_eq!(ran.code, 0, "{}", ran.log);
        let entries = ran.found["entries"].as_array().expect("a list");
        let entry = entries.iter().find(|entry| entry["key"] == endpoint);
        let entry = entry.unwrap_or_else(|| panic!("no {endpoint} in {}", ran.found));
        assert_eq!(entry["record"][member], value, "{}", ran.found);
        assert_eq!(
            (&entry["networkOrphan"], &entry["clusterOrphan"]),
            (&false.into(), &false.into())
        );
        assert_eq!(entry["owner"], ran.found["clusterPeers"][0]["name"]);
        assert!(!ran.log.contains("does not belong"), "{}", ran.log);
    }
    let ran = engine.diagnose(&["-v", "-net", network, "-t", "sd"]);
    let shown = format!("key:{endpoint} value:{{Name:c1 ServiceName: ServiceID: VirtualIP:<nil> EndpointIP:{address} ");
    assert!(ran.log.contains(&shown), "{}", ran.log);
}

/// An entry whose value is no record is shown empty, and the engine lets it be deleted again.
fn an_entry_without_record_is_read(engine: &Engine, network: &str) {
    let at = format!("nid={network}&tname=overlay_peer_table&key=odd");
    assert_eq!(engine.get(&format!("/createentry?{at}&value=%2F%2F%2F%2F")), "OK");
    let ran = engine.diagnose(&["-v", "-net", network, "-t", "overlay"]);
    let shown = "key:odd value:{EndpointIP: EndpointMAC: TunnelEndpointIP:} owner:";
    assert!(ran.log.contains(shown), "{}", ran.log);
    assert_eq!(engine.get(&format!("/deleteentry?{at}")), "OK");
    let after = engine.diagnose(&["-net", network, "-t", "overlay"]);
    assert!(
        after.found["entries"]
            .as_array()
            .is_some_and(|entries| entries.iter().all(|entry| entry["key"] != "odd"))
    );
}

fn a_wrong_network_is_told(engine: &Engine) {
    let ran = engine.diagnose(&["-net", "no such&network", "-t", "sd"]);
    assert_eq!(
        (ran.code, &ran.found["entries"]),
        (0, &serde_json::json!([])),
        "{}",
        ran.log
    );
    assert!(
        ran.log
            .contains(r#"There is no peer on network \"no such&network\", check the network ID"#),
        "{}",
        ran.log
    );
}

/// The engine's own refusals are those that weft's server answers with.
fn refusals_are_told(engine: &Engine) {
    for (path, body) in [
        ("/networkpeers", "missing parameter\nUsage: /networkpeers?nid=test"),
        (
            "/leave?members=1",
            "not implemented\nUsage: URL path: /leave no method implemented check /help\n",
        ),
        (
            "/createentry?nid=n&tname=t&key=k&value=aGVsb",
            "FAIL\nError: illegal base64 data at input byte 4",
        ),
        (
            "/createentry?nid=n&tname=t&key=k&value=aa%3Da",
            "FAIL\nError: illegal base64 data at input byte 2",
        ),
        (
            "/joinnetwork?nid=%zz",
            "missing parameter\nUsage: /joinnetwork?nid=network_id",
        ),
    ] {
        assert_eq!(engine.get(path), body, "{path}");
    }
}
