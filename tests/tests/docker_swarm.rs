//! A weft node in a real Docker swarm of one manager: joining, the gossip's tables on both sides, restarts, leaving, and being removed.

use std::collections::BTreeSet;
use std::fmt::Write;
use weft_tests::docker::{Engines, PATIENCE};
use weft_tests::misuse::{get, refused, weft_refuses};
use weft_tests::rig::{Container, Error, Host, Options, Result, Rig, wait_until};
use weft_tests::story::{SOON, ask, diagnose, equal};
use weft_tests::traffic::ping;

/// The engine's host and weft's.
const MANAGER: usize = 0;
const NODE: usize = 1;

/// Not the usual one, so that it matters.
const DATA_PATH_PORT: u16 = 5789;

/// One manager, and one host with `weftd`.
struct Swarm {
    engines: Engines,
    rig: Rig,
}

impl Swarm {
    fn start() -> Result<Swarm> {
        let mut rig = Rig::new(Options::default())?;
        rig.hosts[NODE].start()?;
        diagnose(&mut rig.hosts[NODE])?;
        let engines = Engines::start(&rig, &[MANAGER])?;
        engines.0[0].init_swarm(&["--data-path-port", &DATA_PATH_PORT.to_string()])?;
        Ok(Swarm { engines, rig })
    }

    fn docker(&self, arguments: &[&str]) -> Result<String> {
        self.engines.0[0].docker(arguments)
    }

    fn weft(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.rig.hosts[NODE].weft(arguments)?.trim().to_owned())
    }

    fn node(&self) -> &Host {
        &self.rig.hosts[NODE]
    }

    fn manager(&self) -> String {
        self.engines.0[0].address().to_string()
    }

    /// Joins; the node's id.
    fn join(&self) -> Result<String> {
        let token = self.engines.0[0].token("worker")?;
        let told = self.weft(&["swarm", "join", "--token", &token, &self.manager()])?;
        let id = told.trim_end_matches('.').rsplit(' ').next().unwrap_or_default();
        Ok(id.to_owned())
    }

    /// Name, state, availability and kind of manager of each node, sorted.
    fn nodes(&self) -> Result<Vec<String>> {
        let format = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}";
        let text = self.docker(&["node", "ls", "--format", format])?;
        let mut nodes: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        nodes.sort();
        Ok(nodes)
    }

    /// A field of `weft swarm status`.
    fn status(&self, field: &str) -> Result<String> {
        let text = self.weft(&["swarm", "status"])?;
        let found = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&format!("{field}: ")));
        found
            .map(str::to_owned)
            .ok_or_else(|| Error::new(format!("no {field} in {text}")))
    }

    fn wait_status(&self, state: &str) -> Result<()> {
        wait_until(PATIENCE, &format!("the swarm is {state} on weft's node"), || {
            equal(self.status("Swarm")?, state.to_owned())
        })
    }

    /// Waits until both sides print the same lines, numbers and order aside; what they print.
    fn same(&self, path: &str, lines: usize) -> Result<String> {
        wait_until(SOON, &format!("both sides answer {path} alike"), || {
            let (docker, weft) = (ask(&self.rig.hosts[MANAGER], path)?, ask(self.node(), path)?);
            equal(rows(&weft), rows(&docker))?;
            equal(rows(&weft).len(), lines)?;
            let mut shown = String::new();
            for (who, text) in [("dockerd", docker), ("weftd", weft)] {
                writeln!(shown, "GET {path}  ({who})\n{}", text.trim_end())
                    .map_err(|error| Error::new(error.to_string()))?;
            }
            Ok::<_, Error>(shown)
        })
    }
}

/// The rows of a table as printed, without their numbers, which follow no order.
fn rows(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.split_once(") "))
        .map(|(_, row)| row.to_owned())
        .collect()
}

#[test]
fn a_weft_node_is_a_full_member_of_a_swarm() -> Result<()> {
    let mut swarm = Swarm::start()?;
    a_cluster_s_node_is_no_swarm_s(&swarm)?;
    bad_joins_are_refused(&swarm)?;
    let node_id = swarm.join()?;
    println!("{}", swarm.docker(&["node", "ls"])?);
    println!("{}", swarm.weft(&["swarm", "status"])?);
    it_is_drained_and_gets_no_tasks(&swarm)?;
    commands_of_a_cluster_are_refused(&swarm);

    let network = swarm.docker(&["network", "create", "-d", "overlay", "--attachable", "n1"])?;
    let on_docker = swarm.engines.0[0].container("c1", "n1")?;
    let on_weft = swarm.rig.container(NODE, "w1")?;
    the_swarm_s_port_is_to_be_set(&mut swarm, &on_weft)?;
    on_weft.connect("n1", None)?;
    let address = on_weft.address()?;
    for (path, lines) in [
        ("/clusterpeers".to_owned(), 2),
        (format!("/networkpeers?nid={network}"), 2),
        // Docker's engine has an endpoint of its own on each network, for load balancing, which has no name.
        (format!("/gettable?nid={network}&tname=endpoint_table"), 2),
        (format!("/gettable?nid={network}&tname=overlay_peer_table"), 3),
    ] {
        println!("{}", swarm.same(&path, lines)?);
    }
    equal(
        ping(&on_weft, on_docker.address, 56).map_err(Error::new)?,
        on_docker.address,
    )?;
    equal(ping(&on_docker.netns, address, 56).map_err(Error::new)?, address)?;
    entries_travel_both_ways(&swarm, &network)?;
    println!("{}", swarm.weft(&["network", "ls"])?);
    println!("{}", swarm.weft(&["network", "inspect", "n1"])?);
    only_attachable_plain_networks_are_attached(&swarm, on_weft.netns().name())?;

    a_restart_takes_everything_up_again(&mut swarm, &node_id, &network)?;
    equal(on_weft.address()?, address)?;
    a_root_rotation_completes(&swarm)?;
    what_a_crash_leaves_is_given_back(&mut swarm)?;
    what_was_asked_for_in_vain_is_given_back(&mut swarm, &node_id)?;

    leaving_leaves_nothing_behind(&swarm, &network, &node_id)?;
    drop(on_docker);
    wait_until(PATIENCE, "the network is free to go", || {
        swarm.docker(&["rm", "-f", "c1"])?;
        swarm.docker(&["network", "rm", "n1"])
    })?;
    a_removed_node_says_so(&mut swarm)
}

fn a_cluster_s_node_is_no_swarm_s(swarm: &Swarm) -> Result<()> {
    swarm.weft(&["cluster", "init"])?;
    let join = format!(
        "swarm join --token {} {}",
        swarm.engines.0[0].token("worker")?,
        swarm.manager()
    );
    weft_refuses(
        swarm.node(),
        &join,
        &["already part of the cluster of", "`weft cluster leave` leaves it"],
    );
    weft_refuses(swarm.node(), "swarm leave", &["not part of a Docker swarm"]);
    equal(swarm.status("Swarm")?, "inactive".to_owned())?;
    swarm.weft(&["cluster", "leave", "--force"])?;
    weft_refuses(
        swarm.node(),
        &join.replace("swarm join", "cluster join"),
        &["`weft swarm join` joins it"],
    );
    Ok(())
}

/// One line each, and no trace: nothing on this side, and no node with the managers but the one that a manager's token makes.
fn bad_joins_are_refused(swarm: &Swarm) -> Result<()> {
    let (worker, manager) = (
        swarm.engines.0[0].token("worker")?,
        swarm.engines.0[0].token("manager")?,
    );
    let (digest, secret) = worker[9..].split_once('-').unwrap_or_default();
    let at = swarm.manager();
    let other_digest = format!("SWMTKN-1-{:0>50}-{secret}", 1);
    let other_secret = format!("SWMTKN-1-{digest}-{}", "0".repeat(25));
    let join = |token: &str, at: &str, words: &[&str]| {
        let mut command = swarm.node().weft_command().expect("weft is built");
        let line = refused(command.args(["swarm", "join", "--token", token, at]), words);
        assert!(!line.contains(secret), "{line}");
        println!("{line}");
    };
    join(
        "SWMTKN-1-short",
        &at,
        &["\"SWMTKN-1-short\" is malformed", "docker swarm join-token worker"],
    );
    join(&worker.to_uppercase(), &at, &["is malformed"]);
    join(&other_digest, &at, &["remote CA does not match fingerprint"]);
    join(&other_secret, &at, &["the join token is not valid for this swarm"]);
    let own = swarm.node().address().to_string();
    join(&worker, &own, &[&format!("manager {own}:2377 is away"), "refused"]);
    join(&worker, "192.168.50.99", &["manager 192.168.50.99:2377 is away"]);
    join(&worker, &format!("{at}:7946"), &["no swarm manager answers there"]);
    join(&worker, "no host", &["HOST or HOST:PORT"]);
    equal(swarm.nodes()?.len(), 1)?;
    join(
        &manager,
        &at,
        &["the join token is for managers", "docker node rm --force"],
    );
    equal(swarm.status("Swarm")?, "inactive".to_owned())?;
    let nodes = swarm.docker(&["node", "ls", "--format", "{{.ID}} {{.Status}}"])?;
    let ghost = nodes.lines().find_map(|line| line.strip_suffix(" Unknown"));
    swarm.docker(&["node", "rm", "--force", ghost.unwrap_or_default()])?;
    equal(swarm.nodes()?.len(), 1)
}

fn it_is_drained_and_gets_no_tasks(swarm: &Swarm) -> Result<()> {
    let wanted = vec!["node1 Ready Active Leader".to_owned(), "node2 Ready Drain".to_owned()];
    wait_until(SOON, "both nodes are ready", || equal(swarm.nodes()?, wanted.clone()))?;
    let service = [
        "service",
        "create",
        "--no-resolve-image",
        "--mode",
        "global",
        "--name",
        "everywhere",
    ];
    let command = [weft_tests::docker::IMAGE, "/bin/busybox", "sleep", "600"];
    // It returns when the service has converged: it would never, were a task of it placed on weft's node.
    swarm.docker(&[&service[..], &command].concat())?;
    let tasks = swarm.docker(&["service", "ps", "--format", "{{.Node}} {{.CurrentState}}", "everywhere"])?;
    println!("{tasks}");
    assert!(
        tasks.starts_with("node1 Running") && tasks.lines().count() == 1,
        "{tasks}"
    );
    swarm.docker(&["service", "rm", "everywhere"]).map(drop)
}

fn commands_of_a_cluster_are_refused(swarm: &Swarm) {
    for (command, words) in [
        ("cluster init", "part of a Docker swarm; `weft swarm leave`"),
        (
            "cluster join --token WFTKN-1-0-0 192.168.50.1",
            "part of a Docker swarm",
        ),
        ("cluster leave --force", "part of a Docker swarm"),
        ("cluster join-token", "part of a Docker swarm"),
        ("swarm join --token SWMTKN-1-0-0 192.168.50.1", "part of a Docker swarm"),
        ("network create n2", "`docker network` on one of them"),
        ("network rm n1", "`docker network` on one of them"),
        (
            "service create --name s --network n1",
            "`docker service` on one of them",
        ),
        ("service ls", "`docker service` on one of them"),
        ("node ls", "`docker node` on one of them"),
        ("network inspect n1", "network n1 not found"),
    ] {
        weft_refuses(swarm.node(), command, &[words]);
    }
}

fn the_swarm_s_port_is_to_be_set(swarm: &mut Swarm, container: &Container) -> Result<()> {
    let command = format!("network connect n1 --netns {} --name w1", container.netns().name());
    weft_refuses(swarm.node(), &command, &["data-path-port 4789: the swarm's is 5789"]);
    println!("{}", swarm.status("Error")?);
    swarm.rig.hosts[NODE].stop()?;
    swarm.rig.hosts[NODE].set("data-path-port", DATA_PATH_PORT)?;
    swarm.rig.hosts[NODE].start()?;
    diagnose(&mut swarm.rig.hosts[NODE])?;
    swarm.wait_status("active")
}

fn entries_travel_both_ways(swarm: &Swarm, network: &str) -> Result<()> {
    let create = |host: &Host, key: &str| {
        let path = format!("/createentry?tname=notes&nid={network}&key={key}&value=aGVsbG8=");
        get(host, &path).and_then(|body| equal(body, "OK".to_owned()))
    };
    create(swarm.node(), "from-weft")?;
    create(&swarm.rig.hosts[MANAGER], "from-docker")?;
    let path = format!("/gettable?nid={network}&tname=notes");
    println!("{}", swarm.same(&path, 2)?);
    // Deleted by the other side, too.
    let delete = format!("/deleteentry?tname=notes&nid={network}&key=");
    get(swarm.node(), &format!("{delete}from-docker")).and_then(|body| equal(body, "OK".to_owned()))?;
    get(&swarm.rig.hosts[MANAGER], &format!("{delete}from-weft")).and_then(|body| equal(body, "OK".to_owned()))?;
    swarm.same(&path, 0).map(drop)
}

fn only_attachable_plain_networks_are_attached(swarm: &Swarm, netns: &str) -> Result<()> {
    let connect = |arguments: &str, words: &[&str]| {
        let command = format!("network connect {arguments} --netns {netns}");
        let mut weft = swarm.node().weft_command().expect("weft is built");
        println!("{}", refused(weft.args(command.split_whitespace()), words));
    };
    swarm.docker(&["network", "create", "-d", "overlay", "closed"])?;
    swarm.docker(&[
        "network",
        "create",
        "-d",
        "overlay",
        "--attachable",
        "--opt",
        "encrypted",
        "secret",
    ])?;
    connect("nowhere --name a", &["network nowhere not found in the swarm"]);
    connect("closed --name a", &["network closed is not attachable", "--attachable"]);
    connect("ingress --name a", &["network ingress is not attachable"]);
    connect("secret --name a", &["network secret is encrypted", "does not do yet"]);
    connect("n1 --name w1", &["endpoint with name w1 already exists in network n1"]);
    connect("n1 --name a --service web", &["service web", "leave --service out"]);
    connect("n1 --name a --ip 10.99.0.1", &["do not give address 10.99.0.1"]);
    connect("n1 --name -", &["invalid endpoint name"]);
    // A refused endpoint holds nothing: its network can go.
    swarm.docker(&["network", "rm", "closed", "secret"]).map(drop)
}

fn a_restart_takes_everything_up_again(swarm: &mut Swarm, node_id: &str, network: &str) -> Result<()> {
    let before = get(swarm.node(), "/clusterpeers")?;
    swarm.rig.hosts[NODE].stop()?;
    swarm.rig.hosts[NODE].start()?;
    diagnose(&mut swarm.rig.hosts[NODE])?;
    swarm.wait_status("active")?;
    equal(swarm.status("NodeID")?, node_id.to_owned())?;
    // A fresh gossip name in place of the old one, and the same endpoint.
    swarm.same("/clusterpeers", 2)?;
    assert_ne!(rows(&get(swarm.node(), "/clusterpeers")?), rows(&before));
    swarm.same(&format!("/gettable?nid={network}&tname=endpoint_table"), 2)?;
    equal(swarm.nodes()?.len(), 2)
}

/// It would never end if weft's node did not renew, or did not tell whose certificate it has.
fn a_root_rotation_completes(swarm: &Swarm) -> Result<()> {
    let before = swarm.docker(&["swarm", "ca"])?;
    let after = swarm.docker(&["swarm", "ca", "--rotate"])?;
    assert!(!after.ends_with(&before), "{after}");
    wait_until(PATIENCE, "all certificates are of the new root", || {
        let states = swarm.docker(&["node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"])?;
        let mut states: Vec<&str> = states.lines().collect();
        states.sort_unstable();
        equal(states, vec!["node1 Ready", "node2 Ready"])
    })?;
    swarm.wait_status("active")
}

/// The daemon is killed, and the container of one of its endpoints ends before it comes back.
fn what_a_crash_leaves_is_given_back(swarm: &mut Swarm) -> Result<()> {
    swarm.docker(&["network", "create", "-d", "overlay", "--attachable", "n2"])?;
    let doomed = swarm.rig.container(NODE, "doomed")?;
    doomed.connect("n2", None)?;
    swarm.rig.hosts[NODE].kill()?;
    drop(doomed);
    let in_use = swarm.docker(&["network", "rm", "n2"]);
    assert!(in_use.is_err(), "an attachment should hold the network: {in_use:?}");
    swarm.rig.hosts[NODE].start()?;
    diagnose(&mut swarm.rig.hosts[NODE])?;
    swarm.wait_status("active")?;
    wait_until(PATIENCE, "the attachment is given back", || {
        swarm.docker(&["network", "rm", "n2"])
    })
    .map(drop)
}

/// The manager does what it was asked, but its answer never comes, and the daemon is killed: nobody told it the attachment's id.
fn what_was_asked_for_in_vain_is_given_back(swarm: &mut Swarm, node_id: &str) -> Result<()> {
    swarm.docker(&["network", "create", "-d", "overlay", "--attachable", "n3"])?;
    let container = swarm.rig.container(NODE, "w3")?;
    let connect = format!("network connect n3 --netns {} --name w3", container.netns().name());
    let node = format!("{}/32", swarm.node().address());
    swarm.rig.hosts[MANAGER].run("ip", &["route", "add", "blackhole", &node])?;
    weft_refuses(swarm.node(), &connect, &["the swarm's manager: no answer within 5 s"]);
    swarm.rig.hosts[NODE].kill()?;
    swarm.rig.hosts[MANAGER].run("ip", &["route", "del", "blackhole", &node])?;
    swarm.rig.hosts[NODE].start()?;
    diagnose(&mut swarm.rig.hosts[NODE])?;
    wait_until(PATIENCE, "the managers are seen to hold something", || {
        let line = swarm.status("Error")?;
        equal(line.contains("network n3: the managers hold an address"), true)
    })?;
    println!("{}", swarm.status("Error")?);
    let in_use = swarm.docker(&["network", "rm", "n3"]);
    assert!(in_use.is_err(), "an attachment should hold the network: {in_use:?}");
    // What the line says helps.
    swarm.docker(&["node", "update", "--availability", "active", node_id])?;
    wait_until(PATIENCE, "the attachment is given back", || {
        swarm.docker(&["network", "rm", "n3"])
    })?;
    wait_until(PATIENCE, "nothing is wrong any more", || {
        equal(swarm.status("Error").is_err(), true)
    })?;
    swarm.docker(&["node", "update", "--availability", "drain", node_id])?;
    wait_until(PATIENCE, "the node is drained again", || {
        equal(swarm.status("Availability")?, "drain".to_owned())
    })
}

fn leaving_leaves_nothing_behind(swarm: &Swarm, network: &str, node_id: &str) -> Result<()> {
    weft_refuses(
        swarm.node(),
        "swarm leave",
        &["1 endpoints of this node are still connected"],
    );
    println!("{}", swarm.weft(&["swarm", "leave", "--force"])?);
    equal(swarm.status("Swarm")?, "inactive".to_owned())?;
    weft_refuses(swarm.node(), "swarm leave", &["not part of a Docker swarm"]);
    let manager = &swarm.rig.hosts[MANAGER];
    for (path, left) in [
        ("/clusterpeers".to_owned(), 1),
        (format!("/networkpeers?nid={network}"), 1),
        (format!("/gettable?nid={network}&tname=endpoint_table"), 1),
        (format!("/gettable?nid={network}&tname=overlay_peer_table"), 2),
    ] {
        wait_until(SOON, &format!("{path} of the engine forgets weft's node"), || {
            equal(rows(&ask(manager, &path)?).len(), left)
        })?;
    }
    wait_until(
        PATIENCE,
        "the managers see that the node is down, so that it can be removed",
        || swarm.docker(&["node", "rm", node_id]),
    )
    .map(drop)
}

fn a_removed_node_says_so(swarm: &mut Swarm) -> Result<()> {
    let node_id = swarm.join()?;
    swarm.docker(&["node", "rm", "--force", &node_id])?;
    swarm.wait_status("inactive")?;
    let line = swarm.status("Error")?;
    println!("{line}");
    assert!(
        line.contains(&format!("this node ({node_id}) was removed from the swarm")),
        "{line}"
    );
    // Nothing is left to come back with; only a token brings it back.
    swarm.rig.hosts[NODE].stop()?;
    swarm.rig.hosts[NODE].start()?;
    equal(swarm.status("Swarm")?, "inactive".to_owned())?;
    let again = swarm.join()?;
    assert_ne!(again, node_id);
    // The same while its daemon is down.
    swarm.rig.hosts[NODE].stop()?;
    swarm.docker(&["node", "rm", "--force", &again])?;
    swarm.rig.hosts[NODE].start()?;
    swarm.wait_status("inactive")?;
    equal(
        swarm
            .status("Error")?
            .contains(&format!("this node ({again}) was removed")),
        true,
    )
}
