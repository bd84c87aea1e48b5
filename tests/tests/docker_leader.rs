//! A weft node in a real Docker swarm of three managers, whose leader stands still.

use nix::sys::signal::Signal;
use weft_tests::docker::{Engine, Engines, PATIENCE};
use weft_tests::rig::{Error, Options, Result, Rig, wait_until};
use weft_tests::story::{SOON, ask, diagnose, equal};
use weft_tests::traffic::ping;

/// weft's host; the three before it have engines.
const WEFT: usize = 3;

#[test]
fn a_frozen_leader_is_left_for_the_next_one() -> Result<()> {
    let mut rig = Rig::new(Options {
        hosts: 4,
        ..Options::default()
    })?;
    rig.hosts[WEFT].start()?;
    diagnose(&mut rig.hosts[WEFT])?;
    let engines = Engines::start(&rig, &[0, 1, 2])?;
    let [leader, second, third] = &engines.0[..] else {
        return Err(Error::new("three engines"));
    };
    leader.init_swarm(&[])?;
    let (token, at) = (leader.token("manager")?, leader.address().to_string());
    for engine in [second, third] {
        engine.docker(&["swarm", "join", "--token", &token, &at])?;
    }
    // Any manager will do: this one hands everything on to the leader.
    let (token, at) = (leader.token("worker")?, third.address().to_string());
    rig.hosts[WEFT].weft(&["swarm", "join", "--token", &token, &at])?;
    leader.docker(&["network", "create", "-d", "overlay", "--attachable", "n1"])?;
    let other = second.container("c2", "n1")?;
    let early = rig.container(WEFT, "early")?;
    early.connect("n1", None)?;
    equal(ping(&early, other.address, 56).map_err(Error::new)?, other.address)?;
    wait_until(SOON, "weft's node knows all three managers", || {
        let status = rig.hosts[WEFT].weft(&["swarm", "status"])?;
        equal(status.matches(":2377,").count(), 2).map_err(|error| Error::new(format!("{error}: {status}")))
    })?;

    leader.signal(Signal::SIGSTOP)?;
    let outcome = with_the_next_leader(&rig, second, third);
    leader.signal(Signal::SIGCONT)?;
    outcome?;
    equal(ping(&early, other.address, 56).map_err(Error::new)?, other.address)?;
    wait_until(PATIENCE, "all four are in the gossip again", || {
        equal(
            ask(&rig.hosts[WEFT], "/clusterpeers")?.lines().nth(1),
            Some("total entries: 4"),
        )
    })
}

fn with_the_next_leader(rig: &Rig, second: &Engine, third: &Engine) -> Result<()> {
    let late = rig.container(WEFT, "late")?;
    wait_until(PATIENCE, "an endpoint is connected through the next leader", || {
        let states = second.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}"])?;
        let next = ["node2 Ready Leader", "node3 Ready Leader"];
        let is_next = states.lines().any(|line| next.contains(&line));
        equal(is_next, true).map_err(|error| Error::new(format!("{error}: {states}")))?;
        late.connect("n1", None)
    })?;
    let status = rig.hosts[WEFT].weft(&["swarm", "status"])?;
    println!("{}\n{}", second.docker(&["node", "ls"])?, status.trim());
    let asked = [second, third].map(|engine| format!(" Manager: {}:2377", engine.address()));
    equal(
        status.lines().any(|line| asked.iter().any(|manager| manager == line)),
        true,
    )?;
    wait_until(PATIENCE, "the next leader sees weft's node", || {
        let states = third.docker(&["node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}}"])?;
        equal(states.lines().any(|line| line == "node4 Ready Drain"), true)
    })?;
    late.disconnect("n1").map(drop)
}
