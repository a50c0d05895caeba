//! The command line of `scripts/bench`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
Usage: scripts/bench [options]

Measures server CPU per operation, memory and pauses of shardis beside redis-server, CPU also beside Valkey.

  --section NAME   cpu, shards, memory, pauses, expiry or all (default all; may be repeated)
  --rows TEXT      only rows whose name contains TEXT, in any case
  --rounds N       interleaved rounds, whose median counts (default 5)
  --seconds S      length of one measurement (default 1.5)
  --quick          3 rounds of 0.4 s; memory and pauses with 1 M keys only, one repetition
  --shardis PATH   the server to measure (default: shardis-server beside this program)
  --redis PATH     the reference (default: redis-server from the search path)
  --peer PATH      a second reference for the CPU rows, a Valkey (default: the one of scripts/peer); none: without it
  --before PATH    an older shardis-server, measured in turn with the others

CPU is printed as user + system time in microseconds per operation. The first target of a row is for all of it beside
redis, the second for user time beside the peer: the kernel's part is the same for both.
In short, for one change:  scripts/bench --section cpu --rows 'get -p' --quick --before OLD
";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Cpu,
    Shards,
    Memory,
    Pauses,
    Expiry,
}

/// What was asked for.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) sections: Vec<Section>,
    /// In lower case.
    pub(crate) rows: String,
    pub(crate) rounds: usize,
    pub(crate) time: Duration,
    pub(crate) quick: bool,
    pub(crate) shardis: Option<PathBuf>,
    pub(crate) redis: PathBuf,
    pub(crate) peer: Peer,
    pub(crate) before: Option<PathBuf>,
}

/// The second reference of the CPU rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The one that `scripts/peer` finds or fetches.
    Usual,
    Path(PathBuf),
    None,
}

/// Why the command line could not be read, or that it only asked for help.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoOptions {
    Help,
    Bad(String),
}

impl fmt::Display for NoOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Help => out.write_str(USAGE),
            Self::Bad(reason) => write!(out, "{reason}\n\n{USAGE}"),
        }
    }
}

impl Options {
    /// Reads the arguments behind the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, NoOptions> {
        let mut arguments = arguments.into_iter();
        let mut sections = Vec::new();
        let (mut rounds, mut time) = (None, None);
        let mut options = Self {
            sections: Vec::new(),
            rows: String::new(),
            rounds: 0,
            time: Duration::ZERO,
            quick: false,
            shardis: None,
            redis: PathBuf::from("redis-server"),
            peer: Peer::Usual,
            before: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .ok_or_else(|| NoOptions::Bad(format!("{name} needs a value")))
            };
            match name.as_str() {
                "--help" | "-h" => return Err(NoOptions::Help),
                "--quick" => options.quick = true,
                "--section" => sections.extend(read_sections(&value()?)?),
                "--rows" => options.rows = value()?.to_lowercase(),
                "--rounds" => rounds = Some(read_rounds(&value()?)?),
                "--seconds" => time = Some(read_seconds(&value()?)?),
                "--shardis" => options.shardis = Some(value()?.into()),
                "--redis" => options.redis = value()?.into(),
                "--peer" => options.peer = read_peer(value()?),
                "--before" => options.before = Some(value()?.into()),
                _ => return Err(NoOptions::Bad(format!("unknown option {name}"))),
            }
        }
        options.sections = if sections.is_empty() {
            ALL.to_vec()
        } else {
            sections
        };
        options.rounds = rounds.unwrap_or(if options.quick { 3 } else { 5 });
        options.time = time.unwrap_or(Duration::from_millis(if options.quick { 400 } else { 1500 }));
        Ok(options)
    }

    /// Whether the row called `name` is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.rows)
    }
}

const ALL: [Section; 5] = [
    Section::Cpu,
    Section::Shards,
    Section::Memory,
    Section::Pauses,
    Section::Expiry,
];

fn read_sections(name: &str) -> Result<Vec<Section>, NoOptions> {
    match name {
        "cpu" => Ok(vec![Section::Cpu]),
        "shards" => Ok(vec![Section::Shards]),
        "memory" => Ok(vec![Section::Memory]),
        "pauses" => Ok(vec![Section::Pauses]),
        "expiry" => Ok(vec![Section::Expiry]),
        "all" => Ok(ALL.to_vec()),
        _ => Err(NoOptions::Bad(format!("unknown section {name}"))),
    }
}

fn read_peer(text: String) -> Peer {
    if text == "none" {
        Peer::None
    } else {
        Peer::Path(text.into())
    }
}

fn read_rounds(text: &str) -> Result<usize, NoOptions> {
    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
    rounds.ok_or_else(|| NoOptions::Bad(format!("--rounds needs a number from 1, not {text}")))
}

fn read_seconds(text: &str) -> Result<Duration, NoOptions> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.05..=3600.0).contains(seconds));
    let seconds =
        seconds.ok_or_else(|| NoOptions::Bad(format!("--seconds needs 0.05 to 3600, not {text}")))?;
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, NoOptions> {
        Options::parse(line.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn defaults_and_quick() {
        let options = parse("").unwrap();
        assert_eq!((options.sections.len(), options.rounds), (5, 5));
        let quick = parse("--quick --seconds 2").unwrap();
        assert_eq!((quick.rounds, quick.time), (3, Duration::from_secs(2)));
    }

    #[test]
    fn rows_are_chosen_in_any_case() {
        let options = parse("--rows get --section cpu").unwrap();
        assert!(options.wants("GET -P 1") && !options.wants("SET -P 1"));
        assert_eq!(options.sections, [Section::Cpu]);
    }

    #[test]
    fn the_second_reference_can_be_named_and_left_out() {
        let peer = |line| parse(line).unwrap().peer;
        assert_eq!(peer(""), Peer::Usual);
        assert_eq!(peer("--peer none"), Peer::None);
        assert_eq!(peer("--peer /v"), Peer::Path("/v".into()));
    }

    #[test]
    fn mistakes_are_named() {
        for bad in [
            "--rounds",
            "--rounds 0",
            "--seconds 0",
            "--seconds nan",
            "--section x",
            "--what",
        ] {
            assert!(matches!(parse(bad), Err(NoOptions::Bad(_))), "{bad}");
        }
        assert_eq!(parse("--help"), Err(NoOptions::Help));
    }
}
