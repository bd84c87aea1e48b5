//! Restarts, crashes and upgrades of the daemon under steady traffic: no packet is lost, no connection ends.
//!
//! The test command runs a short form; `cargo xtask hitless` runs as many as one likes and prints the table.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use weft_dataplane::abi::ABI_VERSION;
use weft_tests::load::{Account, NewConnections, UdpLoad};
use weft_tests::rig::{Container, Error, Host, Result, wait_until};
use weft_tests::story::{Cluster, NETWORK, SOON, ask, dns, wait_names};
use weft_tests::traffic::{Chat, TcpEcho};

/// Lines of a daemon's log that a failure shows.
const LOG_LINES: usize = 200;

/// How many restarts, kills and upgrades; `WEFT_HITLESS=50,20,10` in the environment says otherwise.
const SHORT: [u32; 3] = [3, 2, 2];

/// Datagrams a second, half of them to the virtual IP.
const RATE: u64 = 20_000;

/// Connections that are used all the time, a quarter of them each way and through the virtual IP.
const STREAMS: usize = 50;

/// Between two new connections: nearly always one has begun and is not yet answered.
const PAUSE: Duration = Duration::from_millis(1);

/// Where the servers listen: of TCP directly, of datagrams both ways, of TCP by the virtual IP, of new connections by it. Each its own,
/// because two connections of one client port, directly and by the virtual IP, would be the same one to a server's port.
const DIRECT: u16 = 7000;
const DATAGRAMS: [u16; 2] = [7001, 7002];
const BALANCED: u16 = 7003;
const NEW: u16 = 7004;

/// What is done to a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Restart,
    Kill,
    Upgrade,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Restart => "restart (SIGTERM)",
            Event::Kill => "kill -9",
            Event::Upgrade => "upgrade, or back",
        }
    }

    fn happen(self, host: &mut Host, number: u32) -> Result<()> {
        match self {
            Event::Restart => host.stop()?,
            Event::Kill => host.kill()?,
            Event::Upgrade => {
                host.stop()?;
                // To the next contract version and back again.
                let next = number.is_multiple_of(2);
                host.install_next_abi(next)?;
                host.start()?;
                return has_contract(host, ABI_VERSION + u32::from(next));
            }
        }
        host.start()
    }
}

/// Waits until the maps are those of this contract version alone.
fn has_contract(host: &Host, version: u32) -> Result<()> {
    wait_until(SOON, &format!("the maps obey contract version {version}"), || {
        let entries = std::fs::read_dir(host.pins()).map_err(|error| Error::new(error.to_string()))?;
        let names = entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned());
        let maps: Vec<String> = names.filter(|name| name.starts_with("maps-")).collect();
        let obeys = |name: &String| name.contains(&format!("-abi-{version}-"));
        match maps.as_slice() {
            [only] if obeys(only) => Ok(()),
            _ => Err(Error::new(format!("{maps:?}"))),
        }
    })
}

/// Clients on both hosts, and a server that is also the only task of a service.
struct Story {
    clients: [Container; 2],
    server: Container,
    _echoes: [TcpEcho; 3],
    vip: Ipv4Addr,
    direct: Ipv4Addr,
    // Containers are dropped before it.
    cluster: Cluster,
}

impl Story {
    fn start() -> Result<Story> {
        let cluster = Cluster::start(2)?;
        cluster.rig.hosts[0].weft(&["service", "create", "--name", "web", "--network", NETWORK])?;
        let server = cluster.container(1, "server", Some("web"))?;
        let clients = [cluster.container(0, "near", None)?, cluster.container(1, "far", None)?];
        let direct = server.address()?;
        for client in &clients {
            wait_names(client, "server", &[server.address()?])?;
        }
        let vip = wait_until(SOON, "web has a virtual IP", || {
            let answer = dns(&clients[0], "web", &[])?;
            let vip = answer.data.first().and_then(|vip| vip.parse().ok());
            vip.ok_or_else(|| Error::new(format!("{answer:?}")))
        })?;
        Ok(Story {
            _echoes: [DIRECT, BALANCED, NEW]
                .map(|port| TcpEcho::start(&server, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))),
            vip,
            direct,
            clients,
            server,
            cluster,
        })
    }

    /// What the daemons told of late, and what their programs counted.
    fn print_logs(&self) {
        for host in &self.cluster.rig.hosts {
            println!("{}:", host.name());
            // The diagnostic server does not outlive a restart.
            let _ = host.hangup();
            let _ = wait_until(SOON, "the diagnostic server is there", || ask(host, "/ready"));
            println!(
                "{}",
                ask(host, "/maps/counters").unwrap_or_else(|error| error.to_string())
            );
            let log = std::fs::read_to_string(host.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            println!("{}, the end of its log:", host.name());
            for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
                println!("  {line}");
            }
        }
    }

    /// Does it so often under traffic; what was lost, line by line.
    fn suffer(&mut self, event: Event, times: u32) -> Result<Row> {
        let udp = [(self.direct, DATAGRAMS[0]), (self.vip, DATAGRAMS[1])]
            .map(|to| UdpLoad::start(&self.clients[0], &self.server, to.into(), RATE / 2));
        let mut chats = Vec::new();
        for number in 0..STREAMS {
            let to = if number % 2 == 0 {
                SocketAddr::from((self.direct, DIRECT))
            } else {
                SocketAddr::from((self.vip, BALANCED))
            };
            let client = &self.clients[number / 2 % 2];
            chats.push(Chat::every(client, to, Duration::from_millis(50)).map_err(Error::new)?);
        }
        let new = SocketAddr::from((self.vip, NEW));
        let connections = NewConnections::start(&self.clients[0], new, PAUSE);
        let mut events = Vec::new();
        for number in 0..times {
            let host = (number % 2) as usize;
            let begin = udp[0].elapsed();
            event.happen(&mut self.cluster.rig.hosts[host], number / 2)?;
            events.push(format!(
                "{:.2} s to {:.2} s: {} of node{}",
                begin.as_secs_f32(),
                udp[0].elapsed().as_secs_f32(),
                event.name(),
                host + 1
            ));
            // At once, before the daemon has settled, and after: its maps must be whole each time.
            let traffic = [RATE / 8, RATE / 2, RATE * 9 / 4][(number / 2 % 3) as usize];
            go_on(&udp, traffic)?;
        }
        go_on(&udp, RATE * 5 / 2)?;
        let accounts = udp.map(UdpLoad::finish);
        let (made, failed) = connections.finish();
        let mut ended: Vec<String> = failed;
        let mut rounds = 0;
        for chat in chats {
            match chat.finish() {
                Ok(done) => rounds += done,
                Err(error) => ended.push(error),
            }
        }
        Ok(Row {
            event,
            times,
            accounts,
            rounds,
            made,
            ended,
            events,
        })
    }
}

/// Waits until each load brought so many more datagrams: half of what both send in that time.
fn go_on(loads: &[UdpLoad; 2], datagrams: u64) -> Result<()> {
    for load in loads {
        let enough = load.received() + datagrams / 2;
        wait_until(SOON, "traffic goes on", || {
            let received = load.received();
            if received >= enough {
                Ok(())
            } else {
                Err(format!("{received} of {enough} datagrams"))
            }
        })?;
    }
    Ok(())
}

/// What one kind of event cost.
struct Row {
    event: Event,
    times: u32,
    accounts: [Account; 2],
    rounds: u64,
    made: u64,
    ended: Vec<String>,
    events: Vec<String>,
}

impl Row {
    fn sum(&self, of: impl Fn(&Account) -> u64) -> u64 {
        self.accounts.iter().map(of).sum()
    }

    fn lost(&self) -> u64 {
        self.sum(Account::lost)
    }

    fn print(&self) {
        println!(
            "{:18} {:>5} {:>9} {:>8} {:>9} {:>6} {:>8} {:>7} {:>8} {:>8} {:>6}",
            self.event.name(),
            self.times,
            self.sum(|account| account.sent),
            self.sum(|account| account.rate),
            self.sum(|account| account.answers),
            self.lost(),
            self.sum(|account| account.no_room),
            STREAMS,
            self.rounds,
            self.made,
            self.ended.len()
        );
        for (account, way) in self.accounts.iter().zip(["direct", "virtual IP"]) {
            for (first, last, at) in account.gaps.iter().take(10) {
                println!("  {way}: {first} to {last} lost, sent at {:.3} s", at.as_secs_f32());
            }
        }
        if self.lost() > 0 || !self.ended.is_empty() {
            self.events.iter().for_each(|event| println!("  {event}"));
        }
        self.ended.iter().take(10).for_each(|error| println!("  {error}"));
    }
}

fn times() -> Result<[u32; 3]> {
    let Ok(text) = std::env::var("WEFT_HITLESS") else {
        return Ok(SHORT);
    };
    let numbers: Vec<u32> = text.split(',').filter_map(|number| number.parse().ok()).collect();
    numbers
        .try_into()
        .map_err(|_| Error::new(format!("WEFT_HITLESS={text}: three numbers are wanted, as 50,20,10")))
}

#[test]
fn nothing_is_lost_by_restarts_kills_and_upgrades() -> Result<()> {
    let mut story = Story::start()?;
    let mut rows = Vec::new();
    for (event, times) in [Event::Restart, Event::Kill, Event::Upgrade].into_iter().zip(times()?) {
        let row = story.suffer(event, times)?;
        if row.lost() > 0 || !row.ended.is_empty() {
            story.print_logs();
        }
        rows.push(row);
    }
    println!(
        "\n{:18} {:>5} {:>9} {:>8} {:>9} {:>6} {:>8} {:>7} {:>8} {:>8} {:>6}",
        "event", "times", "datagrams", "per s", "answers", "lost", "no room", "streams", "rounds", "connects", "failed"
    );
    rows.iter().for_each(Row::print);
    for row in &rows {
        assert!(row.sum(|account| account.arrived) > 0 && row.rounds > 0 && row.made > 0);
        assert_eq!((row.lost(), row.ended.len()), (0, 0), "{}", row.event.name());
    }
    Ok(())
}
