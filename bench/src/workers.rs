//! Work spread over all cores, results taken in the order in which they come.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

/// How many workers there are: one a core.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` for each number of the range on all cores; `take` gets the results on this thread.
pub fn each<T: Send>(range: Range<u64>, work: impl Fn(u64) -> T + Sync, mut take: impl FnMut(T)) {
    let next = AtomicU64::new(range.start);
    let (results, taken) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..count() {
            let (results, next, work) = (results.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= range.end || results.send(work(number)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(results);
        taken.into_iter().for_each(&mut take);
    });
}
