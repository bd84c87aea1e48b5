//! The command `diagnosticClient`: looks for table entries whose owner is gone, on weft's nodes and on Docker engines.
//!
//! Its log lines, flags and exit codes are Docker's (`spec/diagnostic-client.md`). Beyond them it escapes what it puts into URLs,
//! takes a reply whose message is not `OK` for a failure, accepts peers without an address, and has `-json` and `-timeout`.

mod fetch;
mod flags;
mod log;
mod record;
mod report;
#[cfg(test)]
mod tests;

use crate::golang::{decode_base64, quote};
use fetch::{Engine, NamedPeer, TableRow};
use flags::{Flags, Stop, Table};
use log::Log;
use record::Record;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, Write};

/// What `-a` refuses with: it cuts off workloads of an engine that runs any.
const JOIN_REFUSED: &str = "you are not using the client in docker in docker mode, the use of the -a flag can be disruptive, \
     please remove it (doc:https://github.com/moby/moby/blob/master/daemon/libnetwork/cmd/diagnostic/README.md)";

/// What the command reads and writes.
pub struct Console<'a> {
    /// Standard input: the answer to the question of `-r`.
    pub input: &'a mut dyn BufRead,
    /// Standard output: what `-json` prints, otherwise nothing.
    pub output: &'a mut dyn Write,
    /// Standard error: the log.
    pub log: &'a mut dyn Write,
    /// Whether the log goes to a terminal and is coloured.
    pub log_is_terminal: bool,
    /// Whether the environment has `DIND_CLIENT`, without which `-a` is refused.
    pub may_join: bool,
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console")
            .field("log_is_terminal", &self.log_is_terminal)
            .finish_non_exhaustive()
    }
}

/// Runs the command with its arguments, the program's name first, and returns its exit code: 0 also when entries without owner
/// were found, 1 when something failed, 2 when the arguments are wrong.
pub fn run(args: &[String], console: Console<'_>) -> u8 {
    let (program, args) = args
        .split_first()
        .map_or(("diagnosticClient", &[][..]), |(first, rest)| (first, rest));
    let flags = match flags::parse(args) {
        Ok(flags) => flags,
        Err(stop) => return refuse(program, &stop, console.log),
    };
    let Console {
        input,
        output,
        log,
        log_is_terminal,
        may_join,
    } = console;
    let mut log = Log::new(log, log_is_terminal, flags.verbose);
    let session = Run {
        flags: &flags,
        log: &mut log,
        input,
        may_join,
    };
    match session.run() {
        Ok(report) if flags.json => match writeln!(output, "{report}").and_then(|()| output.flush()) {
            Ok(()) => 0,
            Err(error) => {
                log.fatal("Failed writing to the standard output", Some(&error.to_string()));
                1
            }
        },
        Ok(_) => 0,
        Err(Fatal { message, error }) => {
            log.fatal(&message, error.as_deref());
            1
        }
    }
}

/// Prints the usage, after what is wrong.
fn refuse(program: &str, stop: &Stop, log: &mut dyn Write) -> u8 {
    let (line, code) = match stop {
        Stop::Help => (String::new(), 0),
        Stop::Wrong(what) => (format!("{what}\n"), 2),
    };
    // There is nowhere left to tell that standard error is closed.
    let _ = write!(log, "{line}{}", flags::usage(program));
    code
}

/// Why the run ended early: the last line of the log.
#[derive(Debug)]
struct Fatal {
    message: String,
    error: Option<String>,
}

impl Fatal {
    fn new(message: impl Into<String>) -> Fatal {
        Fatal {
            message: message.into(),
            error: None,
        }
    }

    /// The message, with an error yet to come.
    fn because(message: &str) -> impl FnOnce(String) -> Fatal {
        move |error| Fatal {
            message: message.to_owned(),
            error: Some(error),
        }
    }
}

/// Peers by name.
type Peers = BTreeMap<String, String>;

struct Run<'a, 'b> {
    flags: &'a Flags,
    log: &'a mut Log<'b>,
    input: &'a mut dyn BufRead,
    may_join: bool,
}

/// An entry of the table, judged.
pub(crate) struct Judged {
    row: TableRow,
    record: Record,
    network_orphan: bool,
    cluster_orphan: bool,
}

impl Run<'_, '_> {
    /// The steps of `spec/diagnostic-client.md` 2.3, in order; returns what `-json` prints.
    fn run(mut self) -> Result<serde_json::Value, Fatal> {
        let Flags { network, .. } = self.flags;
        if self.flags.join && !self.may_join {
            return Err(Fatal::new(JOIN_REFUSED));
        }
        let engine = Engine::new(&self.flags.ip, self.flags.port, self.flags.timeout);
        self.log.info(&format!(
            "Connecting to {}:{} checking ready",
            self.flags.ip, self.flags.port
        ));
        expect_ok(
            engine
                .get("/ready", &[])
                .map_err(Fatal::because("The connection failed"))?,
        )?;
        let cluster_peers = self.peers(&engine, "Fetch cluster peers", "/clusterpeers", &[("json", None)])?;
        let joins = self.flags.join && !network.is_empty();
        if joins {
            self.log
                .info(&format!("Joining the network:{}", quote(network.as_bytes())));
            let reply = engine.get("/joinnetwork", &[("nid", Some(network))]);
            expect_ok(reply.map_err(Fatal::because("Failed joining the network"))?)?;
        }
        let network_peers = if network.is_empty() {
            Peers::new()
        } else {
            self.network_peers(&engine)?
        };
        let judged = match self.flags.table {
            Some(table) => self.table(&engine, table, &cluster_peers, &network_peers)?,
            None => Vec::new(),
        };
        if joins {
            self.log
                .info(&format!("Leaving the network:{}", quote(network.as_bytes())));
            let reply = engine.get("/leavenetwork", &[("nid", Some(network))]);
            expect_ok(reply.map_err(Fatal::because("Failed leaving the network"))?)?;
        }
        Ok(report::report(self.flags, &cluster_peers, &network_peers, &judged))
    }

    fn network_peers(&mut self, engine: &Engine) -> Result<Peers, Fatal> {
        let network = quote(self.flags.network.as_bytes());
        let parameters = [("nid", Some(self.flags.network.as_str())), ("json", None)];
        let peers = self.peers(
            engine,
            &format!("Fetch peers network:{network}"),
            "/networkpeers",
            &parameters,
        )?;
        if peers.is_empty() {
            self.log.warning(&format!(
                "There is no peer on network {network}, check the network ID, and verify that is the non truncated version"
            ));
        }
        Ok(peers)
    }

    fn peers(&mut self, engine: &Engine, title: &str, path: &str, parameters: Parameters<'_>) -> Result<Peers, Fatal> {
        self.log.info(title);
        let body = engine
            .get(path, parameters)
            .map_err(Fatal::because("Failed fetching path"))?;
        let peers = fetch::peers(&body).map_err(Fatal::because("Failed the json unmarshalling"))?;
        self.log.debug("Parsing JSON response");
        for NamedPeer { name, ip } in &peers {
            self.log.debug(&format!("name:{name} ip:{ip}"));
        }
        Ok(peers.into_iter().map(|peer| (peer.name, peer.ip)).collect())
    }

    /// Fetches the table, warns of entries without owner, and deletes those that the network does not know if the user wants.
    fn table(&mut self, engine: &Engine, table: Table, cluster: &Peers, network: &Peers) -> Result<Vec<Judged>, Fatal> {
        self.log.info(&format!("Fetch {} table and check owners", table.name()));
        let parameters = [
            ("nid", Some(self.flags.network.as_str())),
            ("tname", Some(table.name())),
            ("json", None),
        ];
        let body = engine
            .get("/gettable", &parameters)
            .map_err(Fatal::because("Failed fetching endpoint table"))?;
        let rows = fetch::rows(&body).map_err(Fatal::because("Failed the json unmarshalling"))?;
        self.log.debug("Parsing data structures");
        let judged: Vec<Judged> = rows
            .into_iter()
            .filter_map(|row| self.judge(table, row, cluster, network))
            .collect();
        let orphans: Vec<&str> = judged
            .iter()
            .filter(|j| j.network_orphan)
            .map(|j| j.row.key.as_str())
            .collect();
        if self.flags.remediate && !orphans.is_empty() {
            self.remediate(engine, table, &orphans);
        }
        Ok(judged)
    }

    /// Decodes an entry and looks for its owner; an entry that is not base64 is skipped.
    fn judge(&mut self, table: Table, row: TableRow, cluster: &Peers, network: &Peers) -> Option<Judged> {
        let value = match decode_base64(row.value.as_bytes()) {
            Ok(value) => value,
            Err(error) => {
                self.log.error("Failed decoding entry", Some(&error.to_string()));
                return None;
            }
        };
        let record = Record::decode(table, &value);
        let TableRow { key, owner, .. } = &row;
        self.log.debug(&format!("key:{key} value:{record} owner:{owner}"));
        let (network_orphan, cluster_orphan) = (!network.contains_key(owner), !cluster.contains_key(owner));
        for (orphan, place) in [(network_orphan, "network"), (cluster_orphan, "cluster")] {
            if orphan {
                self.log.warning(&format!(
                    "The element with key:{key} does not belong to any node on this {place}"
                ));
            }
        }
        Some(Judged {
            row,
            record,
            network_orphan,
            cluster_orphan,
        })
    }

    /// Asks, and deletes on `Yes`.
    fn remediate(&mut self, engine: &Engine, table: Table, keys: &[&str]) {
        self.log.warning(&format!(
            "The following keys:[{}] results as orphan, do you want to proceed with the deletion (this operation is irreversible)? [Yes/No]",
            keys.join(" ")
        ));
        let mut answer = Vec::new();
        // An answer that cannot be read is not a yes.
        let _ = self.input.read_until(b'\n', &mut answer);
        if answer.strip_suffix(b"\n").unwrap_or(&answer) != b"Yes" {
            self.log.info("Deletion skipped");
            return;
        }
        for key in keys {
            let network = self.flags.network.as_str();
            let parameters = [
                ("nid", Some(network)),
                ("tname", Some(table.name())),
                ("key", Some(*key)),
                ("json", None),
            ];
            let failed = format!("Failed deleting entry k:{key}");
            match engine.get("/deleteentry", &parameters) {
                Ok(body) => {
                    if let Err(error) = fetch::check_message(&body) {
                        self.log.error(&failed, Some(&error));
                    }
                }
                Err(error) => {
                    self.log.error(&failed, Some(&error));
                    return;
                }
            }
        }
    }
}

/// Names and values of a query; a name without value stands alone.
type Parameters<'a> = &'a [(&'a str, Option<&'a str>)];

/// Whatever contains `OK` will do.
fn expect_ok(body: Vec<u8>) -> Result<(), Fatal> {
    if body.windows(2).any(|two| two == b"OK") {
        Ok(())
    } else {
        Err(Fatal::new(format!(
            "Server not ready {}",
            String::from_utf8_lossy(&body)
        )))
    }
}
