//! `weft debug`: what entered a node's gossip, recorded and run again.

mod told;

use crate::Failure;
use crate::output::line;
use clap::Subcommand;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use weft::api::types::Record;
use weft::client::{Client, Streamed};
use weft::daemon::MAX_RECORDING_SECONDS;
use weft_core::recording::{Ending, Frame, Reader, Replay, Verdict};
use weft_core::time::Instant;

/// Only its owner reads a recording: names, addresses and rows are in it.
const FILE_MODE: u32 = 0o600;

/// How much of a file is read at once.
const READ_BYTES: usize = 64 << 10;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Record what enters this node's gossip, and the state before it; names, addresses and rows are in it, keys are not
    Record {
        /// Where to; a file that does not exist yet
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
        /// For how long; Ctrl-C ends it earlier
        #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=MAX_RECORDING_SECONDS))]
        seconds: u64,
    },
    /// Run a recording through the same core, and tell what happened
    Replay {
        /// What `weft debug record` wrote
        file: PathBuf,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) async fn run(client: &Client, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Record { output, seconds } => record(client, &output, seconds).await,
        Verb::Replay { file, json } => replay(&file, json),
    }
}

/// An error about a file: one line.
fn about(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("{}: {error}", path.display()))
}

async fn record(client: &Client, path: &Path, seconds: u64) -> Result<(), Failure> {
    let mut file = create(path)?;
    let streamed = match client.stream("/debug/recording", &Record { seconds }).await {
        Ok(streamed) => streamed,
        Err(error) => {
            // Nothing is in it.
            let _ = std::fs::remove_file(path);
            return Err(error.into());
        }
    };
    let mut written = Written::default();
    let outcome = follow(client, streamed, &mut file, path, &mut written).await;
    let synced = file.sync_all().map_err(|error| about(path, error));
    outcome.and(synced)?;
    let (bytes, happenings) = (written.bytes, written.happenings);
    let length = written.length.as_secs_f64();
    let path = path.display();
    let told = format!(
        "{happenings} happenings in {length:.1} s, {bytes} bytes, in {path}; run them again with: weft debug replay {path}"
    );
    match written.ending {
        Some(Ending::Asked | Ending::Time) => line(&format!("Recorded {told}")),
        Some(ending) => Err(Failure::Input(format!("the recording ended early, {ending}: {told}"))),
        None => Err(Failure::Input(format!(
            "the recording has no end, the daemon is gone or ended it: {told}"
        ))),
    }
}

fn create(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(FILE_MODE);
    options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            about(path, "the file exists, and nothing is written over; name another one")
        }
        _ => about(path, error),
    })
}

/// What has been written.
#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    happenings: u64,
    began: Instant,
    length: std::time::Duration,
    ending: Option<Ending>,
}

impl Written {
    fn frame(&mut self, frame: &Frame) {
        match frame {
            Frame::Start(start) => {
                self.began = start.at;
                eprintln!("Recording the gossip of {}; Ctrl-C ends it.", start.node);
            }
            Frame::Happened(at, _) => {
                self.happenings += 1;
                self.length = at.saturating_since(self.began);
            }
            Frame::End(end) => {
                self.length = end.at.saturating_since(self.began);
                self.ending = Some(end.why);
            }
            Frame::State(_) | Frame::Check(..) => {}
        }
    }
}

async fn follow(
    client: &Client,
    mut streamed: Streamed,
    file: &mut File,
    path: &Path,
    written: &mut Written,
) -> Result<(), Failure> {
    let mut reader = Reader::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut stopping = false;
    loop {
        tokio::select! {
            piece = streamed.next() => {
                // A daemon that is gone has not sent the end of the recording.
                let Ok(Some(piece)) = piece else { return Ok(()) };
                file.write_all(&piece).map_err(|error| about(path, error))?;
                written.bytes += piece.len() as u64;
                reader.push(&piece);
                while let Some(frame) = reader.next_frame().map_err(|error| about(path, error))? {
                    written.frame(&frame);
                }
            }
            _ = interrupt.recv() => {
                if std::mem::replace(&mut stopping, true) {
                    return Ok(());
                }
                // If it has ended meanwhile, its end is on its way.
                let _ = client.tell("/debug/recording/stop", &()).await;
            }
            _ = terminate.recv() => {
                if std::mem::replace(&mut stopping, true) {
                    return Ok(());
                }
                let _ = client.tell("/debug/recording/stop", &()).await;
            }
        }
    }
}

fn replay(path: &Path, json: bool) -> Result<(), Failure> {
    let mut file = File::open(path).map_err(|error| about(path, error))?;
    let mut reader = Reader::new();
    let mut replay = Replay::new();
    let mut output = told::Output::new(json);
    let outcome = feed(&mut file, path, &mut reader, &mut replay, &mut output);
    if replay.gossip().is_none() {
        outcome?;
        let error = match reader.frames() + reader.unread() as u64 {
            0 => "the file is empty, and no recording",
            _ => "the recording is cut off before there is anything to run",
        };
        return Err(about(path, error));
    }
    output.end(&replay, reader.unread())?;
    outcome?;
    match replay.verdict() {
        Verdict::Differs(_) => Err(Failure::Told),
        Verdict::Same | Verdict::Unknown => Ok(()),
    }
}

/// Runs all that can be read.
fn feed(
    file: &mut File,
    path: &Path,
    reader: &mut Reader,
    replay: &mut Replay,
    output: &mut told::Output,
) -> Result<(), Failure> {
    let mut piece = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut piece).map_err(|error| about(path, error))?;
        if length == 0 {
            return Ok(());
        }
        reader.push(piece.get(..length).unwrap_or_default());
        while let Some(frame) = reader.next_frame().map_err(|error| about(path, error))? {
            let told = replay.feed(frame).map_err(|error| about(path, error))?;
            output.tell(replay, told)?;
        }
    }
}
