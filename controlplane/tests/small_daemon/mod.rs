//! A daemon without a kernel: the real messages, the real declared state and the real API, for tests of what users talk to.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod http;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use weft::cluster::{Authority, JoinToken};
use weft::daemon::{
    Admission, Command, Connect, Handle, Info, JoinRequest, LocalEndpoint, MapUse, NetworkView, NodeView, Refused,
    RefusedKind, ReplyTo, SettingsCommand,
};
use weft::dataplane::{Choice, Feature};
use weft_core::cluster::keys::{GossipKeys, KeySet};
use weft_core::cluster::settings::Settings;
use weft_core::cluster::{Member, Refusal, RefusalKind, Reply, Request, Role, State};
use weft_core::id::EndpointId;
use weft_core::networkdb::{Key, Stats};
use weft_dataplane::abi::flow::Timeouts;

/// How long a condition may take to come true on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The secret of the daemon's join token.
pub(crate) const SECRET: &str = "00112233445566778899aabbccddeeff";

/// The name of the daemon's node.
pub(crate) const NODE: &str = "node1";

/// Waits until the condition is true.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < until, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a future to its end, or fails after the deadline.
pub(crate) fn within<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let outcome = runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await });
    runtime.shutdown_background();
    outcome.expect("no end within the deadline")
}

/// A directory that goes with its owner.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "weft-test-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The daemon and its socket, in a thread of their own until dropped.
pub(crate) struct SmallDaemon {
    directory: Directory,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    /// The joins that it was asked for.
    pub(crate) joins: Arc<Mutex<Vec<JoinRequest>>>,
}

impl SmallDaemon {
    /// A daemon that is the manager of a cluster of one.
    pub(crate) fn manager() -> SmallDaemon {
        SmallDaemon::start(true)
    }

    /// A daemon outside any cluster.
    pub(crate) fn outside() -> SmallDaemon {
        SmallDaemon::start(false)
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.0.join("run").join("weft.sock")
    }

    fn start(manager: bool) -> SmallDaemon {
        let directory = Directory::new();
        let socket = directory.0.join("run").join("weft.sock");
        let joins = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let seen = Arc::clone(&joins);
        let thread = std::thread::spawn(move || serve(&socket, manager, seen, stopped, &ready));
        is_ready.recv_timeout(DEADLINE).expect("the small daemon did not start");
        SmallDaemon {
            directory,
            stop: Some(stop),
            thread: Some(thread),
            joins,
        }
    }
}

impl Drop for SmallDaemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    socket: &Path,
    manager: bool,
    joins: Arc<Mutex<Vec<JoinRequest>>>,
    stopped: oneshot::Receiver<()>,
    ready: &std::sync::mpsc::Sender<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = weft::api::bind(socket).await.unwrap();
        let (handle, queue) = Handle::new();
        let mut mind = Mind::new(joins);
        if manager {
            mind.init().unwrap();
        }
        let daemon = tokio::spawn(mind.run(queue));
        let (stop_api, api_stopped) = oneshot::channel::<()>();
        let api = tokio::spawn(weft::api::serve(listener, handle, async {
            let _ = api_stopped.await;
        }));
        ready.send(()).unwrap();
        let _ = stopped.await;
        daemon.abort();
        drop(stop_api);
        let _ = tokio::time::timeout(DEADLINE, api).await;
    });
}

/// What the small daemon knows.
pub(crate) struct Mind {
    state: State,
    authority: Authority,
    in_cluster: bool,
    clock: u64,
    endpoints: Vec<LocalEndpoint>,
    joins: Arc<Mutex<Vec<JoinRequest>>>,
    waiting: Vec<(String, ReplyTo<Result<Settings, Refused>>)>,
}

impl Mind {
    pub(crate) fn new(joins: Arc<Mutex<Vec<JoinRequest>>>) -> Mind {
        Mind {
            state: State::new(vec!["10.0.0.0/8".parse().unwrap()], 24).unwrap(),
            authority: Authority::create().unwrap(),
            in_cluster: false,
            // 2026-01-01T00:00:00.5Z, and half a second more with each request.
            clock: 1_767_225_600_000_000_000,
            endpoints: Vec::new(),
            joins,
            waiting: Vec::new(),
        }
    }

    /// With this authority, as the manager.
    pub(crate) fn with_authority(authority: Authority) -> Mind {
        let mut mind = Mind {
            authority,
            ..Mind::new(Arc::default())
        };
        mind.init().unwrap();
        mind
    }

    /// Answers commands until all handles are gone.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(command) = queue.recv().await {
            self.answer(command);
        }
    }

    fn answer(&mut self, command: Command) {
        match command {
            Command::Manager(request, reply) => drop(reply.send(self.ask(&request))),
            Command::FromNode { node, request, reply } => drop(reply.send(self.forwarded(&node, &request))),
            Command::Admit {
                secret,
                name,
                address,
                csr,
                reply,
            } => drop(reply.send(self.admit(&secret, name, address, &csr))),
            Command::Connect(wanted, reply) => drop(reply.send(self.connect(wanted))),
            Command::Disconnect {
                network,
                endpoint,
                reply,
            } => drop(reply.send(self.disconnect(&network, &endpoint))),
            Command::View(network, reply) => {
                let endpoints: Vec<_> = self
                    .endpoints
                    .iter()
                    .filter(|e| e.network == network)
                    .cloned()
                    .collect();
                let peers = if endpoints.is_empty() {
                    vec![]
                } else {
                    vec![("4a027258ed3e".to_owned(), address())]
                };
                drop(reply.send(NetworkView { endpoints, peers }));
            }
            Command::ClusterInit(None, reply) => drop(reply.send(self.init())),
            Command::ClusterToken(reply) => drop(reply.send(self.must_be_inside().map(|()| self.token()))),
            Command::ClusterJoin(request, reply) => {
                self.joins.lock().unwrap().push(request);
                drop(reply.send(Ok(())));
            }
            Command::ClusterLeave { force, reply } => drop(reply.send(self.leave(force))),
            Command::Nodes(reply) => drop(reply.send(self.nodes())),
            Command::Settings(SettingsCommand::Follow { node, version, reply }) => self.follow(node, version, reply),
            Command::Info(reply) => drop(reply.send(self.info())),
            other => panic!("the API sends no {other:?}"),
        }
    }

    /// Answers at once, or after the next request that changes something.
    fn follow(&mut self, node: String, version: Option<u64>, reply: ReplyTo<Result<Settings, Refused>>) {
        if version == Some(self.state.settings_version(&node)) {
            self.waiting.push((node, reply));
        } else {
            drop(reply.send(Ok(self.state.settings_of(&node))));
        }
    }

    fn must_be_inside(&self) -> Result<(), Refused> {
        let message = "this node is not in a cluster".to_owned();
        self.in_cluster.then_some(()).ok_or(Refused {
            kind: RefusedKind::Unavailable,
            message,
        })
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, Refused> {
        self.must_be_inside()?;
        self.clock += 500_000_000;
        let mut entropy = [0; 32];
        for (at, byte) in entropy.iter_mut().enumerate() {
            *byte = (self.clock / 500_000_000).to_le_bytes()[at % 8]
                .wrapping_mul(31)
                .wrapping_add(at as u8);
        }
        let (reply, changes) = self.state.decide(self.clock, entropy, request).map_err(refused)?;
        self.state.apply(&changes);
        if matches!(request, Request::ServiceUpdate { .. }) {
            for (node, reply) in std::mem::take(&mut self.waiting) {
                drop(reply.send(Ok(self.state.settings_of(&node))));
            }
        }
        Ok(reply)
    }

    fn forwarded(&mut self, node: &str, request: &Request) -> Result<Reply, Refused> {
        match request {
            Request::Allocate { node: claimed, .. } if claimed != node => Err(Refused {
                kind: RefusedKind::Invalid,
                message: format!("node {node} may speak for itself only"),
            }),
            _ => self.ask(request),
        }
    }

    fn init(&mut self) -> Result<String, Refused> {
        if self.in_cluster {
            let message = "this node is in a cluster already".to_owned();
            return Err(Refused {
                kind: RefusedKind::Conflict,
                message,
            });
        }
        self.in_cluster = true;
        self.ask(&Request::MemberAdd {
            name: NODE.to_owned(),
            address: address(),
            role: Role::Manager,
        })?;
        Ok(self.token())
    }

    fn token(&self) -> String {
        token(&self.authority)
    }

    fn admit(&mut self, secret: &str, name: String, address: IpAddr, csr: &str) -> Result<Admission, Refused> {
        if secret != SECRET {
            let message = "the join token's secret is wrong".to_owned();
            return Err(Refused {
                kind: RefusedKind::Invalid,
                message,
            });
        }
        let certificate = self.authority.sign(csr, &name);
        let certificate = certificate.map_err(|error| Refused {
            kind: RefusedKind::Invalid,
            message: error.to_string(),
        })?;
        let member = self.ask(&Request::MemberAdd {
            name,
            address,
            role: Role::Worker,
        })?;
        let Reply::Member(member) = member else {
            panic!("{member:?} is no member")
        };
        Ok(Admission {
            certificate,
            gossip: vec!["127.0.0.1:7946".to_owned()],
            member,
            keys: keys(),
        })
    }

    fn connect(&mut self, wanted: Connect) -> Result<LocalEndpoint, Refused> {
        let id = EndpointId::new(format!("{:064x}", self.clock)).unwrap();
        let reply = self.ask(&Request::Allocate {
            endpoint: id.clone(),
            network: wanted.network,
            node: NODE.to_owned(),
            name: wanted.name,
            service: wanted.service,
            aliases: wanted.aliases,
            ip: wanted.ip,
            weight: wanted.weight,
        })?;
        let Reply::Allocated {
            network, allocation, ..
        } = reply
        else {
            panic!("{reply:?} is no allocation")
        };
        let endpoint = LocalEndpoint {
            id,
            network: network.id.clone(),
            name: allocation.name,
            ip: ipnet::Ipv4Net::new(allocation.ip, network.subnet.prefix_len()).unwrap(),
            ip6: network.ipv6_net_of(allocation.ip),
            mac: allocation.mac,
            netns: wanted.netns,
            interface: "eth0".to_owned(),
            host_interface: "weft000000001".to_owned(),
            resolv_conf: "/run/weft/resolv.conf".into(),
        };
        self.endpoints.push(endpoint.clone());
        Ok(endpoint)
    }

    fn disconnect(&mut self, network: &str, endpoint: &str) -> Result<(), Refused> {
        let found = self.ask(&Request::NetworkInspect {
            network: network.to_owned(),
        })?;
        let Reply::Network(found) = found else {
            panic!("{found:?} is no network")
        };
        let at = self
            .endpoints
            .iter()
            .position(|e| e.network == found.id && (e.name == endpoint || e.id.as_str() == endpoint));
        let Some(at) = at else {
            let message = format!("endpoint {endpoint} not found on network {}", found.name);
            return Err(Refused {
                kind: RefusedKind::NotFound,
                message,
            });
        };
        let endpoint = self.endpoints.remove(at);
        self.ask(&Request::Release { endpoint: endpoint.id }).map(drop)
    }

    fn leave(&mut self, force: bool) -> Result<(), Refused> {
        self.must_be_inside()?;
        if !force {
            let message = "this node is the manager: leaving with force drops the cluster's state".to_owned();
            return Err(Refused {
                kind: RefusedKind::Conflict,
                message,
            });
        }
        self.in_cluster = false;
        Ok(())
    }

    fn nodes(&mut self) -> Result<Vec<NodeView>, Refused> {
        let reply = self.ask(&Request::MemberList)?;
        let Reply::Members(members) = reply else {
            panic!("{reply:?} are no members")
        };
        let view = |member: Member| NodeView {
            ready: member.name == NODE,
            this: member.name == NODE,
            member,
        };
        Ok(members.into_iter().map(view).collect())
    }

    fn info(&self) -> Info {
        Info {
            node_name: NODE.to_owned(),
            role: self.in_cluster.then_some(Role::Manager),
            manager: self.in_cluster.then(|| "127.0.0.1:2377".to_owned()),
            swarm_node_id: None,
            gossip_name: "4a027258ed3e".to_owned(),
            gossip_peers: 1,
            endpoints: self.endpoints.len(),
            gossip_keys: vec!["00112233".to_owned()],
            gossip: Stats {
                refused_plaintext: 1,
                refused_keys: 2,
                dropped_messages: 3,
                comparisons: 4,
                differences: 5,
                repaired: 6,
                ..Stats::default()
            },
            features: vec![Choice {
                feature: Feature::Attach,
                better: true,
                why: "kernel 6.18 has tcx links".to_owned(),
            }],
            uplink: "eth0".to_owned(),
            maps: [("peers", "max-peers", 2, 3, 4), ("flows", "max-flows", 8, 8, 0)]
                .map(|(name, setting, entries, limit, left_out)| MapUse {
                    name: name.to_owned(),
                    setting,
                    entries,
                    limit,
                    left_out,
                })
                .to_vec(),
            timeouts: Timeouts::DEFAULT_SECONDS,
            flows_refused: 7,
        }
    }
}

/// The gossip keys that a node gets when it joins.
pub(crate) fn keys() -> KeySet {
    let [primary, reserve] = [[1; 32], [2; 32]].map(|bytes| Key::new(&bytes).unwrap());
    GossipKeys::create(weft_core::time::Instant::ZERO, 1, primary, reserve).set()
}

/// The token for an authority and [`SECRET`].
pub(crate) fn token(authority: &Authority) -> String {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let der = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).unwrap();
    JoinToken::new(&der, SECRET).to_string()
}

fn address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}

fn refused(refusal: Refusal) -> Refused {
    let kind = match refusal.kind {
        RefusalKind::Invalid => RefusedKind::Invalid,
        RefusalKind::NotFound => RefusedKind::NotFound,
        RefusalKind::Conflict => RefusedKind::Conflict,
    };
    Refused {
        kind,
        message: refusal.message,
    }
}
