//! What the user may choose.

use crate::error::{Context, Error, Result};
use crate::{arrangement, measure};
use clap::Parser;
use std::path::PathBuf;
use std::time::Duration;

/// Measures weft against Docker's arrangement and against no overlay, in interleaved rounds. Needs root, two CPUs, ip, bridge,
/// nsenter, setpriv and ethtool.
#[derive(Clone, Debug, Parser)]
#[command(name = "weft-bench", version)]
pub struct Options {
    /// Arrangements: a an aq anq (Docker's, see bench/README.md), e2 (no overlay), maps (weft's programs without daemons), weft.
    #[arg(long, value_delimiter = ',', value_name = "ID,...", default_values = ["a", "anq", "e2", "weft"])]
    pub arrangements: Vec<String>,

    /// Measures: tcp1 tcp4 nic udp tcprr udprr conn vip vipbulk live prog growth forged; all of them without this option.
    #[arg(long, value_delimiter = ',', value_name = "MEASURE,...")]
    pub only: Vec<String>,

    /// Rounds; every other round visits the arrangements in reverse.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,

    /// Length of each load, seconds.
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds)]
    pub seconds: f64,

    /// Two rounds of 0.3 s: shows that everything runs, not how fast.
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    pub quick: bool,

    /// Writes facts, samples and summary to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draws the comparison into this file, as SVG.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,

    /// MTU between the hosts, bytes; containers have 50 less.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1280..=9000))]
    pub underlay_mtu: u32,

    /// Turns segmentation offload off between the hosts, so that frames of real size travel, as on a network card.
    #[arg(long)]
    pub nic_like: bool,

    /// The bench's eBPF object [default: weft-bench.bpf.o in target].
    #[arg(long, value_name = "FILE", default_value_os_t = target("weft-bench.bpf.o"), hide_default_value = true)]
    pub bench_object: PathBuf,

    /// weft's eBPF object, for the daemons and for the cost of its programs [default: weft-dataplane.bpf.o in target].
    #[arg(long, env = "WEFT_BPF_OBJECT", value_name = "FILE", default_value_os_t = target("weft-dataplane.bpf.o"), hide_default_value = true)]
    pub dataplane_object: PathBuf,

    /// Where weftd and weft are [default: beside this program].
    #[arg(long, env = "WEFT_BIN_DIR", value_name = "DIR", default_value_os_t = beside(), hide_default_value = true)]
    pub bin_dir: PathBuf,
}

impl Options {
    /// Reads the command line, and refuses names that do not exist.
    pub fn from_command_line() -> Result<Self> {
        Options::parse().checked()
    }

    fn checked(mut self) -> Result<Self> {
        known("arrangement", &self.arrangements, arrangement::IDS)?;
        known("measure", &self.only, &measure::names())?;
        if self.quick {
            (self.rounds, self.seconds) = (2, 0.3);
        }
        Ok(self)
    }

    /// Length of each load.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Whether a measure was chosen.
    pub fn wants(&self, measure: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == measure)
    }
}

fn known(what: &str, given: &[String], all: &[&str]) -> Result<()> {
    for (index, name) in given.iter().enumerate() {
        if !all.contains(&name.as_str()) {
            return Err(Error::new(format!(
                "no {what} {name:?}: choose from {}",
                all.join(", ")
            )));
        }
        if given[..index].contains(name) {
            return Err(Error::new(format!("{what} {name:?} is named twice")));
        }
    }
    Ok(())
}

fn parse_seconds(text: &str) -> Result<f64> {
    let seconds: f64 = text.parse().context(|| format!("{text:?} is no number of seconds"))?;
    if (0.1..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(Error::new(format!("{text:?} seconds: choose 0.1 to 60")))
    }
}

fn beside() -> PathBuf {
    let program = std::env::current_exe().unwrap_or_default();
    program.parent().map(PathBuf::from).unwrap_or_default()
}

fn target(file: &str) -> PathBuf {
    beside().parent().map(|target| target.join(file)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options> {
        let all = std::iter::once("weft-bench").chain(arguments.iter().copied());
        Options::try_parse_from(all)
            .context(|| "command line".to_owned())?
            .checked()
    }

    #[test]
    fn everything_is_measured_unless_chosen() {
        let options = parse(&[]).unwrap();
        assert!(measure::names().iter().all(|name| options.wants(name)));
        assert_eq!(options.arrangements, ["a", "anq", "e2", "weft"]);
        let options = parse(&["--only", "tcp1,udp"]).unwrap();
        assert!(options.wants("tcp1") && options.wants("udp") && !options.wants("tcp4"));
    }

    #[test]
    fn wrong_names_and_numbers_are_refused_by_name() {
        for (arguments, complaint) in [
            (["--only", "tcp9"], "tcp9"),
            (["--arrangements", "a,docker"], "docker"),
            (["--arrangements", "a,a"], "twice"),
            (["--rounds", "0"], "0"),
            (["--seconds", "0.01"], "0.01"),
            (["--seconds", "NaN"], "NaN"),
            (["--underlay-mtu", "900"], "900"),
        ] {
            let error = parse(&arguments).unwrap_err().to_string();
            assert!(error.contains(complaint), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn quick_is_short() {
        let options = parse(&["--quick"]).unwrap();
        assert_eq!((options.rounds, options.seconds), (2, 0.3));
        assert!(parse(&["--quick", "--rounds", "3"]).is_err());
    }
}
