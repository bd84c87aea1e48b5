//! What the stories of whole clusters share: a cluster that can be asked, and what its containers see.

use crate::rig::{Container, Error, Host, Options, Result, Rig, wait_until};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Where the diagnostic servers listen, each on its own host's loopback.
const DIAGNOSTIC_PORT: u16 = 2000;

/// Gossip tells news within a second or two; a busy machine gets ten times that.
pub const SOON: Duration = Duration::from_secs(30);

/// The network that a [`Cluster`] begins with.
pub const NETWORK: &str = "n1";

/// A cluster with one network. Containers are dropped before it: declare them after it.
#[derive(Debug)]
pub struct Cluster {
    /// Its hosts; the first is the manager.
    pub rig: Rig,
    /// Id of the network [`NETWORK`].
    pub network: String,
}

impl Cluster {
    /// So many hosts, all of them `Ready`, with their diagnostic servers on.
    pub fn start(hosts: usize) -> Result<Cluster> {
        Cluster::start_on(Options {
            hosts,
            ..Options::default()
        })
    }

    /// The same on such an underlay.
    pub fn start_on(options: Options) -> Result<Cluster> {
        let hosts = options.hosts;
        let mut rig = Rig::new(options)?;
        rig.start_cluster()?;
        let network = rig.hosts[0].weft(&["network", "create", NETWORK])?.trim().to_owned();
        for host in &mut rig.hosts {
            diagnose(host)?;
        }
        let cluster = Cluster { rig, network };
        cluster.wait_ready(hosts)?;
        Ok(cluster)
    }

    /// Waits until so many nodes are `Ready`.
    pub fn wait_ready(&self, nodes: usize) -> Result<()> {
        wait_until(SOON, &format!("{nodes} nodes are Ready"), || {
            let listed = self.rig.hosts[0].weft(&["node", "ls"])?;
            equal(listed.matches("Ready").count(), nodes).map_err(|error| Error::new(format!("{error}\n{listed}")))
        })
    }

    /// A container on the host with this index, connected to [`NETWORK`] as a task of a service if one is named.
    pub fn container(&self, host: usize, name: &str, service: Option<&str>) -> Result<Container> {
        let container = self.rig.container(host, name)?;
        container.connect(NETWORK, service)?;
        Ok(container)
    }

    /// Rows of a table on a host: key and owner.
    pub fn rows(&self, host: usize, table: &str) -> Result<BTreeMap<String, String>> {
        let path = format!("/gettable?nid={}&tname={table}", self.network);
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let rows = entries(&self.rig.hosts[host], &path)?;
        Ok(rows.iter().map(|row| (text(row, "key"), text(row, "owner"))).collect())
    }

    /// Waits until both tables of a host have so many rows.
    pub fn wait_rows(&self, host: usize, rows: usize) -> Result<()> {
        let what = format!("{} has {rows} rows in both tables", self.rig.hosts[host].name());
        wait_until(SOON, &what, || {
            equal(self.rows(host, "overlay_peer_table")?.len(), rows)?;
            equal(self.rows(host, "endpoint_table")?.len(), rows)
        })
    }

    /// The overlay addresses in a map of a host, sorted: of `peers`, `endpoints`, `attachments` or `backends`.
    pub fn map(&self, host: usize, name: &str) -> Result<Vec<Ipv4Addr>> {
        let entries = entries(&self.rig.hosts[host], &format!("/maps/{name}"))?;
        let mut addresses = Vec::new();
        for entry in &entries {
            let address = entry["ip"].as_str().and_then(|ip| ip.parse().ok());
            addresses.push(address.ok_or_else(|| Error::new(format!("map {name}: no address in {entry}")))?);
        }
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// Waits until a map of a host holds exactly these overlay addresses.
    pub fn wait_map(&self, host: usize, name: &str, wanted: &[Ipv4Addr]) -> Result<()> {
        let mut wanted = wanted.to_vec();
        wanted.sort_unstable();
        let what = format!("map {name} of {} holds {wanted:?}", self.rig.hosts[host].name());
        wait_until(SOON, &what, || equal(self.map(host, name)?, wanted.clone()))
    }

    /// All that the maps of a host hold on where packets go, as text.
    pub fn maps(&self, host: usize) -> Result<String> {
        [
            "networks",
            "attachments",
            "endpoints",
            "peers",
            "nodes",
            "services",
            "backends",
        ]
        .map(|map| ask(&self.rig.hosts[host], &format!("/maps/{map}")))
        .into_iter()
        .collect()
    }
}

/// Switches the diagnostic server of a host on.
pub fn diagnose(host: &mut Host) -> Result<()> {
    host.set("network-diagnostic-port", DIAGNOSTIC_PORT)?;
    host.hangup()?;
    let what = format!("the diagnostic server on {} is ready", host.name());
    wait_until(SOON, &what, || ask(host, "/ready")).map(drop)
}

/// `GET path` of the diagnostic server, asked on the host itself; an error unless the answer begins with `OK`.
pub fn ask(host: &Host, path: &str) -> Result<String> {
    let url = format!("http://127.0.0.1:{DIAGNOSTIC_PORT}{path}");
    let answer = inside(host.netns(), || {
        ureq::get(&url)
            .call()
            .and_then(|mut reply| reply.body_mut().read_to_string())
    })?;
    let answer = answer.map_err(|error| Error::new(format!("on {}: GET {url}: {error}", host.name())))?;
    if answer.contains("FAIL") {
        return Err(Error::new(format!("on {}: GET {url}: {answer}", host.name())));
    }
    Ok(answer)
}

/// The entries of a table or map, as JSON.
pub fn entries(host: &Host, path: &str) -> Result<Vec<Value>> {
    let separator = if path.contains('?') { '&' } else { '?' };
    let text = ask(host, &format!("{path}{separator}json"))?;
    let reply: Value = serde_json::from_str(&text).map_err(|error| Error::new(format!("{path}: {error} in {text}")))?;
    match &reply["details"]["entries"] {
        Value::Array(entries) => Ok(entries.clone()),
        Value::Null => Ok(Vec::new()),
        other => Err(Error::new(format!("{path}: entries are {other}"))),
    }
}

/// Runs something on a thread of its own inside a namespace.
pub fn inside<T: Send>(netns: &crate::rig::Netns, task: impl FnOnce() -> T + Send) -> Result<T> {
    let explain = |error: &dyn std::fmt::Display| Error::new(format!("enter {}: {error}", netns.name()));
    let file = File::open(netns.path()).map_err(|error| explain(&error))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| setns(file, CloneFlags::CLONE_NEWNET).map(|()| task()));
        match thread.join() {
            Ok(done) => done.map_err(|error| explain(&error)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// An answer of a container's resolver: response code, and the data of each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As `No Error`.
    pub code: String,
    /// Addresses or names, in their order.
    pub data: Vec<String>,
}

/// Asks a container's resolver; `options` as `weft-test-tool dns-query` takes them.
pub fn dns(container: &Container, name: &str, options: &[&str]) -> Result<Answer> {
    let text = container.tool(&[&["dns-query", name], options].concat())?;
    let mut lines = text.lines();
    let code = lines.next().unwrap_or_default().to_owned();
    let data = lines
        .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
        .collect();
    Ok(Answer { code, data })
}

/// Waits until a name has exactly these addresses, in any order.
pub fn wait_names(container: &Container, name: &str, wanted: &[Ipv4Addr]) -> Result<()> {
    let mut wanted: Vec<String> = wanted.iter().map(Ipv4Addr::to_string).collect();
    wanted.sort();
    wait_until(
        SOON,
        &format!("{} finds {name} at {wanted:?}", container.name()),
        || {
            let mut found = dns(container, name, &[])?.data;
            found.sort();
            equal(found, wanted.clone())
        },
    )
}

/// Fetches `http://host/` so often, each time on a new connection, and counts who answered.
pub fn fetch(container: &Container, host: &str, times: usize) -> Result<BTreeMap<String, usize>> {
    let text = container.tool(&["http-get", "-n", &times.to_string(), &format!("http://{host}/")])?;
    let mut answers = BTreeMap::new();
    for line in text.lines() {
        *answers
            .entry(line.split(' ').next().unwrap_or_default().to_owned())
            .or_insert(0) += 1;
    }
    Ok(answers)
}

/// Waits until [`fetch`] is answered by exactly these, equally often.
pub fn wait_spread(container: &Container, host: &str, wanted: &[&str]) -> Result<()> {
    let even: BTreeMap<String, usize> = wanted.iter().map(|name| ((*name).to_owned(), 2)).collect();
    let what = format!("{host} is served evenly by {wanted:?} to {}", container.name());
    wait_until(SOON, &what, || {
        equal(fetch(container, host, 2 * wanted.len())?, even.clone())
    })
}

/// An error that shows both unless they are equal.
pub fn equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> Result<()> {
    if found == wanted {
        Ok(())
    } else {
        Err(Error::new(format!("found {found:?}, wanted {wanted:?}")))
    }
}
