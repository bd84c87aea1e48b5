use super::*;

fn queue(pieces: usize, allowed: usize) -> (Recording, Recorded) {
    let (sender, receiver) = mpsc::channel(pieces);
    let last = sender.clone().try_reserve_owned().expect("a new queue has room");
    let waiting = Arc::new(AtomicUsize::new(0));
    let recording = Recording {
        pieces: sender,
        last,
        waiting: Arc::clone(&waiting),
        allowed,
        until: Instant::ZERO,
        flush_at: Instant::ZERO,
    };
    let recorded = Recorded {
        pieces: receiver,
        waiting,
        parts: VecDeque::new(),
    };
    (recording, recorded)
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_slow_reader_misses_is_refused_and_the_end_has_its_place() {
    // By number: one of three places is the end's.
    let (recording, mut recorded) = queue(3, 1000);
    assert!(recording.push(vec![1]) && recording.push(vec![2]));
    assert!(!recording.push(vec![3]));
    recording.last.send(vec![9]);
    for wanted in [1, 2, 9] {
        assert_eq!(recorded.next().await, Some(vec![wanted]));
    }
    // By size: what was read makes room.
    let (recording, mut recorded) = queue(100, 10);
    assert!(recording.push(vec![0; 6]));
    assert!(!recording.push(vec![0; 6]));
    assert_eq!(recorded.next().await, Some(vec![0; 6]));
    assert!(recording.push(vec![0; 6]));
}

#[tokio::test(flavor = "current_thread")]
async fn a_large_piece_is_read_in_parts() {
    let bytes: Vec<u8> = (0..PIECE_BYTES * 2 + 7).map(|number| number as u8).collect();
    let (recording, mut recorded) = queue(3, usize::MAX);
    assert!(recording.push(bytes.clone()));
    drop(recording);
    let mut read = Vec::new();
    while let Some(part) = recorded.next().await {
        assert!(part.len() <= PIECE_BYTES);
        read.extend(part);
    }
    assert_eq!(read, bytes);
    assert_eq!(recorded.waiting.load(Ordering::Relaxed), 0);
}
