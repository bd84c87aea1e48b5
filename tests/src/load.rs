//! Steady traffic whose every packet is accounted for: what was sent, what arrived, and what the receiving host had no room for.

use crate::traffic::Place;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a datagram.
const SIZE: usize = 64;

/// Every so many datagrams one is answered.
const ANSWERED: u64 = 10;

/// Room for a second of packets at full rate, so that a receiver that does not get the CPU loses none.
const BUFFER: usize = 64 << 20;

/// How often a sender looks at the clock, and how much it makes up at once: a burst would overrun the host's own queues.
const TICK: Duration = Duration::from_millis(1);
const BURST: u64 = 64;

/// After so long without another packet, what has not arrived is lost.
const QUIET: Duration = Duration::from_millis(500);

/// How long a connection may take for its steps before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which sequence numbers arrived.
#[derive(Debug, Default)]
struct Arrived {
    bits: Vec<u64>,
    count: u64,
}

impl Arrived {
    fn add(&mut self, sequence: u64) {
        let (word, bit) = ((sequence / 64) as usize, sequence % 64);
        // A number far beyond anything is no packet of ours.
        if word >= self.bits.len() {
            self.bits.resize((word + 1).min(1 << 24), 0);
        }
        if let Some(word) = self.bits.get_mut(word)
            && *word >> bit & 1 == 0
        {
            *word |= 1 << bit;
            self.count += 1;
        }
    }

    fn has(&self, sequence: u64) -> bool {
        let word = self.bits.get((sequence / 64) as usize);
        word.is_some_and(|word| word >> (sequence % 64) & 1 == 1)
    }
}

/// What became of a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Datagrams that were sent.
    pub sent: u64,
    /// Datagrams that arrived.
    pub arrived: u64,
    /// Answers that were sent.
    pub answers: u64,
    /// Answers that arrived.
    pub answers_arrived: u64,
    /// Datagrams and answers that the receiving socket had no room for.
    pub no_room: u64,
    /// Datagrams per second.
    pub rate: u64,
    /// What was lost: first and last number of each gap, and when it was sent after the load's start.
    pub gaps: Vec<(u64, u64, Duration)>,
}

impl Account {
    /// What was lost on the way.
    pub fn lost(&self) -> u64 {
        (self.sent - self.arrived + self.answers - self.answers_arrived).saturating_sub(self.no_room)
    }
}

/// Datagrams from one place to another at a steady rate.
#[derive(Debug)]
pub struct UdpLoad {
    start: Instant,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sender: JoinHandle<(u64, BTreeMap<u64, Duration>)>,
    receiver: JoinHandle<(Arrived, u64)>,
    answers: JoinHandle<Arrived>,
    sockets: [Watched; 2],
    _open: [UdpSocket; 2],
}

impl UdpLoad {
    /// Begins to send `rate` datagrams a second from `from` to `to`, which `server` receives at `port`.
    pub fn start(from: &impl Place, server: &impl Place, to: SocketAddr, rate: u64) -> Self {
        let receiver = server.enter(|| UdpSocket::bind(("0.0.0.0", to.port())).expect("a free port"));
        let sender = from.enter(|| UdpSocket::bind("0.0.0.0:0").expect("a free port"));
        sender.connect(to).expect("a route");
        for socket in [&receiver, &sender] {
            setsockopt(socket, sockopt::RcvBufForce, &BUFFER).expect("root");
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .expect("a timeout");
        }
        let sockets = [Watched::new(server, &receiver), Watched::new(from, &sender)];
        let open = [
            receiver.try_clone().expect("a descriptor"),
            sender.try_clone().expect("a descriptor"),
        ];
        let answered = sender.try_clone().expect("a descriptor");
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let received = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let (stopped, ending, ending_too, count) = (stop.clone(), ended.clone(), ended.clone(), received.clone());
        UdpLoad {
            start,
            stop,
            ended,
            received,
            sender: std::thread::spawn(move || send(&sender, rate, start, &stopped)),
            receiver: std::thread::spawn(move || receive(&receiver, &ending, &count)),
            answers: std::thread::spawn(move || take_answers(&answered, &ending_too)),
            sockets,
            _open: open,
        }
    }

    /// How many datagrams arrived so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// How long it has been sending.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Stops, waits for what is on its way, and says what became of all.
    pub fn finish(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        let (sent, times) = self.sender.join().expect("the sender ends");
        let seconds = self.start.elapsed().as_secs_f64();
        let (mut last, mut since) = (self.received.load(Ordering::Relaxed), Instant::now());
        while since.elapsed() < QUIET {
            std::thread::park_timeout(TICK);
            let now = self.received.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        self.ended.store(true, Ordering::Relaxed);
        let (arrived, answers) = self.receiver.join().expect("the receiver ends");
        let answers_arrived = self.answers.join().expect("the reader ends");
        Account {
            sent,
            arrived: arrived.count,
            answers,
            answers_arrived: answers_arrived.count,
            no_room: self.sockets.iter().map(Watched::no_room).sum(),
            rate: (sent as f64 / seconds) as u64,
            gaps: gaps(sent, &arrived, &times),
        }
    }
}

fn send(socket: &UdpSocket, rate: u64, start: Instant, stop: &AtomicBool) -> (u64, BTreeMap<u64, Duration>) {
    let mut packet = [0; SIZE];
    let (mut sent, mut skipped) = (0_u64, 0_u64);
    let mut times = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_micros() as u64 * rate / 1_000_000).saturating_sub(sent + skipped);
        times.insert(sent, start.elapsed());
        for _ in 0..due.min(BURST) {
            packet[..8].copy_from_slice(&sent.to_be_bytes());
            // A datagram that the socket did not take was not sent.
            if socket.send(&packet).is_ok() {
                sent += 1;
            } else {
                skipped += 1;
            }
        }
        skipped += due.saturating_sub(BURST);
        std::thread::park_timeout(TICK);
    }
    (sent, times)
}

fn receive(socket: &UdpSocket, ended: &AtomicBool, received: &AtomicU64) -> (Arrived, u64) {
    let (mut arrived, mut answers) = (Arrived::default(), 0);
    let mut packet = [0; SIZE];
    while !ended.load(Ordering::Relaxed) {
        let Ok((SIZE, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        let sequence = sequence(&packet);
        arrived.add(sequence);
        received.store(arrived.count, Ordering::Relaxed);
        if sequence.is_multiple_of(ANSWERED) && socket.send_to(&packet, from).is_ok() {
            answers += 1;
        }
    }
    (arrived, answers)
}

fn take_answers(socket: &UdpSocket, ended: &AtomicBool) -> Arrived {
    let mut arrived = Arrived::default();
    let mut packet = [0; SIZE];
    while !ended.load(Ordering::Relaxed) {
        if let Ok(SIZE) = socket.recv(&mut packet) {
            arrived.add(sequence(&packet) / ANSWERED);
        }
    }
    arrived
}

fn sequence(packet: &[u8; SIZE]) -> u64 {
    packet
        .first_chunk()
        .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes))
}

/// A socket and the namespace that it is in.
#[derive(Debug)]
struct Watched {
    namespace: File,
    inode: u64,
    before: u64,
}

impl Watched {
    fn new(place: &impl Place, socket: &UdpSocket) -> Self {
        let namespace = place.enter(|| File::open("/proc/thread-self/ns/net").expect("a namespace"));
        let inode = nix::sys::stat::fstat(socket).expect("an open socket").st_ino;
        let mut watched = Watched {
            namespace,
            inode,
            before: 0,
        };
        watched.before = watched.no_room();
        watched
    }

    /// What the socket had no room for, as `SO_RXQ_OVFL` would tell it with each packet: the last column of the kernel's table.
    fn no_room(&self) -> u64 {
        let namespace = self.namespace.try_clone().expect("a descriptor");
        let read = std::thread::spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root");
            std::fs::read_to_string("/proc/thread-self/net/udp").expect("the kernel's table")
        });
        let table = read.join().expect("it is read");
        let inode = self.inode.to_string();
        let line = table
            .lines()
            .find(|line| line.split_whitespace().nth(9) == Some(&inode));
        let drops = line.and_then(|line| line.split_whitespace().last()?.parse::<u64>().ok());
        drops.expect("the socket is in the kernel's table") - self.before
    }
}

fn gaps(sent: u64, arrived: &Arrived, times: &BTreeMap<u64, Duration>) -> Vec<(u64, u64, Duration)> {
    let mut gaps: Vec<(u64, u64, Duration)> = Vec::new();
    for sequence in (0..sent).filter(|sequence| !arrived.has(*sequence)) {
        match gaps.last_mut() {
            Some((_, last, _)) if *last + 1 == sequence => *last = sequence,
            _ => {
                let at = times.range(..=sequence).next_back().map(|(_, at)| *at);
                gaps.push((sequence, sequence, at.unwrap_or_default()));
            }
        }
    }
    gaps
}

/// New connections, one after the other, each used for a round and closed.
#[derive(Debug)]
pub struct NewConnections {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Vec<String>)>,
}

impl NewConnections {
    /// Connects to an echo server again and again.
    pub fn start(from: &impl Place, to: SocketAddr, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let begin = Instant::now();
        let namespace = from.enter(|| File::open("/proc/thread-self/ns/net").expect("a namespace"));
        let thread = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("root");
            let (mut made, mut failed) = (0, Vec::new());
            while !stopped.load(Ordering::Relaxed) {
                made += 1;
                let at = begin.elapsed();
                if let Err(error) = round(to) {
                    failed.push(format!("begun at {:.3} s: {error}", at.as_secs_f32()));
                }
                std::thread::park_timeout(pause);
            }
            (made, failed)
        });
        NewConnections { stop, thread }
    }

    /// Stops; how many there were, and what the failed ones said.
    pub fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client ends")
    }
}

/// Connects, says something and hears it again. The error tells how far that got.
fn round(to: SocketAddr) -> Result<(), String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| format!("not connected: {error}"))?;
    let port = stream.local_addr().map(|local| local.port()).unwrap_or_default();
    let mut talk = || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"hello")?;
        stream.read_exact(&mut [0; 5])
    };
    talk().map_err(|error: std::io::Error| format!("connected from port {port} and then: {error}"))
}
