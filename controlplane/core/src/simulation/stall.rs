//! A slow process: it sleeps, and when it runs it finds all that came meanwhile.

use super::{Happening, Simulation};
use crate::networkdb::Input;
use crate::time::{Duration, Instant};
use std::collections::VecDeque;

/// What waits for a node that is not scheduled.
#[derive(Clone, Debug)]
pub(super) struct Stall {
    /// The longest sleep.
    longest: Duration,
    pub(super) waiting: VecDeque<Input>,
    next: Instant,
}

impl Simulation {
    /// From now on a node gets to run only now and then, at most `longest` apart: all its inputs and timers are late by up to that.
    pub fn stall(&mut self, node: usize, longest: Duration) {
        if let Some(stall) = &mut self.nodes[node].stall {
            stall.longest = longest;
            return;
        }
        let next = self.now + self.random.stagger(longest);
        self.nodes[node].timer = None;
        self.nodes[node].stall = Some(Stall {
            longest,
            waiting: VecDeque::new(),
            next,
        });
        self.agenda.push(next, Happening::Wake(node));
    }

    /// The node keeps up again, once it has worked through what waits.
    pub fn end_stall(&mut self, node: usize) {
        let Some(stall) = self.nodes[node].stall.take() else {
            return;
        };
        self.work_through(node, stall.waiting);
        self.settle(node);
    }

    /// Whether a node is slow.
    pub fn stalled(&self, node: usize) -> bool {
        self.nodes[node].stall.is_some()
    }

    pub(super) fn wake(&mut self, node: usize) {
        let now = self.now;
        let Some(stall) = self.nodes[node].stall.as_mut().filter(|stall| stall.next <= now) else {
            return;
        };
        let longest = stall.longest;
        let waiting = std::mem::take(&mut stall.waiting);
        self.work_through(node, waiting);
        // Never twice at the same instant.
        let next = now + Duration::from_millis(1) + self.random.stagger(longest);
        if let Some(stall) = &mut self.nodes[node].stall {
            stall.next = next;
            self.agenda.push(next, Happening::Wake(node));
        }
    }

    /// Inputs in their order, the timers somewhere among them: the daemon's loop takes whichever is ready, by chance.
    fn work_through(&mut self, node: usize, waiting: VecDeque<Input>) {
        let mut timers_done = false;
        for input in waiting {
            while !timers_done && self.random.below(2) == 0 {
                self.call(node);
                timers_done = true;
            }
            let now = self.clock_of(node);
            self.nodes[node].db.handle(now, input);
            self.perform_all(node);
        }
        self.call(node);
        self.perform_all(node);
    }

    fn perform_all(&mut self, node: usize) {
        while let Some(effect) = self.nodes[node].db.poll_effect() {
            self.perform(node, effect);
        }
    }
}
