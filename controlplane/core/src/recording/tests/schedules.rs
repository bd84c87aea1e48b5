//! Nodes of random schedules are recorded: whatever they live through, the replay does the same.

use super::{Ending, Verdict, replay};
use crate::simulation::schedule::{generate, run_in};
use crate::simulation::{CALM, Simulation, secs};

#[test]
fn nodes_of_random_schedules_are_replayed() {
    let (mut recorded, mut happenings) = (0, 0);
    for seed in 0..60 {
        let schedule = generate(seed);
        let mut simulation = Simulation::new(schedule.seed, CALM);
        // From its first breath, or from the middle of its life.
        let node = (seed % 4) as usize;
        simulation.records = Some((node, crate::time::Instant::ZERO + secs(seed % 3 * 7)));
        let (_, mut simulation) = run_in(simulation, &schedule);
        let Some(node) = simulation
            .nodes
            .get(node)
            .filter(|node| node.db.is_recording())
            .map(|_| node)
        else {
            continue;
        };
        let now = simulation.clock_of(node);
        let bytes = simulation.nodes[node].db.finish_recording(now, Ending::Asked, true);
        let (replay, ..) = replay(&bytes);
        assert_eq!(replay.verdict(), Verdict::Same, "seed {seed}, node {node}");
        recorded += 1;
        happenings += replay.happenings();
    }
    assert!(
        recorded > 40 && happenings > 20_000,
        "{recorded} nodes, {happenings} happenings"
    );
}
