//! What happens when: a queue of future events that stays cheap with hundreds of thousands of them.

use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Future events in order of time, and of entry where times are equal. The heap moves small keys; the events stay in place.
#[derive(Clone, Debug)]
pub(super) struct Agenda<T> {
    heap: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    events: Vec<Option<T>>,
    free: Vec<u32>,
    entered: u64,
}

impl<T> Agenda<T> {
    pub(super) fn new() -> Self {
        Agenda {
            heap: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            entered: 0,
        }
    }

    pub(super) fn push(&mut self, at: Instant, event: T) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                u32::try_from(self.events.len() - 1).expect("fewer than 2^32 events under way")
            }
        };
        self.entered += 1;
        self.heap.push(Reverse((at, self.entered, place)));
    }

    /// The next event up to `end`.
    pub(super) fn pop(&mut self, end: Instant) -> Option<(Instant, T)> {
        let Reverse((at, ..)) = self.heap.peek()?;
        if *at > end {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        let event = self.events[place as usize].take().expect("an event at its place");
        self.free.push(place);
        Some((at, event))
    }
}
