//! The command line of `scripts/bench`.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, Command};

/// Text that `--help` prints below the options.
const NOTES: &str = "\
CPU is printed as user + system time in microseconds per operation. The first target of a row is for all of it beside
redis, the second for user time beside the peer: the kernel's part is the same for both.
In short, for one change:  scripts/bench --section cpu --rows 'get -p' --quick --before OLD";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Cpu,
    Shards,
    Memory,
    Pauses,
    Eviction,
    Expiry,
    Waits,
    Saves,
    Log,
    Replication,
    Cluster,
    Tls,
    Users,
}

/// The parsed options.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The peer that `scripts/peer` finds or fetches.
    Usual,
    Path(PathBuf),
    None,
}

impl Options {
    /// Reads the arguments behind the program's name. The error is what to print instead, a mistake or the help.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let found = command().try_get_matches_from(arguments)?;
        let path = |name| found.get_one::<PathBuf>(name).cloned();
        let quick = found.get_flag("quick");
        let named = found.get_many::<Vec<Section>>("section").into_iter().flatten();
        let mut sections: Vec<Section> = named.flatten().copied().collect();
        if sections.is_empty() {
            sections = ALL.to_vec();
        }
        Ok(Self {
            sections,
            rows: found.get_one::<String>("rows").cloned().unwrap_or_default(),
            rounds: found
                .get_one("rounds")
                .copied()
                .unwrap_or(if quick { 3 } else { 5 }),
            time: found
                .get_one("seconds")
                .copied()
                .unwrap_or(Duration::from_millis(if quick { 400 } else { 1500 })),
            quick,
            shardis: path("shardis"),
            redis: path("redis").unwrap_or_else(|| PathBuf::from("redis-server")),
            peer: found.get_one("peer").cloned().unwrap_or(Peer::Usual),
            before: path("before"),
        })
    }

    /// Whether the row called `name` is wanted.
    pub(crate) fn wants(&self, name: &str) -> bool {
        name.to_lowercase().contains(&self.rows)
    }
}

const ALL: [Section; 13] = [
    Section::Cpu,
    Section::Shards,
    Section::Memory,
    Section::Pauses,
    Section::Eviction,
    Section::Expiry,
    Section::Waits,
    Section::Saves,
    Section::Log,
    Section::Replication,
    Section::Cluster,
    Section::Tls,
    Section::Users,
];

fn command() -> Command {
    let path = |name: &'static str| {
        let option = Arg::new(name).long(name).value_name("PATH");
        option.value_parser(clap::value_parser!(PathBuf))
    };
    Command::new("scripts/bench")
        .no_binary_name(true)
        .about("Measures server CPU per operation, memory and pauses of shardis beside redis-server, CPU also beside Valkey.")
        .after_help(NOTES)
        .arg(
            Arg::new("section")
                .long("section")
                .value_name("NAME")
                .action(ArgAction::Append)
                .value_parser(read_section)
                .help("cpu, shards, memory, pauses, eviction, expiry, waits, saves, log, replication, cluster, tls, users or all; may be repeated [default: all]"),
        )
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("TEXT")
                .value_parser(|text: &str| Ok::<_, Infallible>(text.to_lowercase()))
                .help("only rows whose name contains TEXT, in any case"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(read_rounds)
                .help("interleaved rounds, whose median counts [default: 5]"),
        )
        .arg(
            Arg::new("seconds")
                .long("seconds")
                .value_name("S")
                .value_parser(read_seconds)
                .help("length of one measurement [default: 1.5]"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("3 rounds of 0.4 s; memory and pauses with 1 M keys only, one repetition; saves with a tenth of the keys"),
        )
        .arg(path("shardis").help("the server to measure [default: shardis-server beside this program]"))
        .arg(path("redis").help("the reference [default: redis-server from the search path]"))
        .arg(
            Arg::new("peer")
                .long("peer")
                .value_name("PATH")
                .value_parser(read_peer)
                .help("a second reference for the CPU rows, a Valkey [default: the one of scripts/peer]; none: without it"),
        )
        .arg(path("before").help("an older shardis-server, measured in turn with the others"))
}

fn read_section(name: &str) -> Result<Vec<Section>, String> {
    match name {
        "cpu" => Ok(vec![Section::Cpu]),
        "shards" => Ok(vec![Section::Shards]),
        "memory" => Ok(vec![Section::Memory]),
        "pauses" => Ok(vec![Section::Pauses]),
        "eviction" => Ok(vec![Section::Eviction]),
        "expiry" => Ok(vec![Section::Expiry]),
        "waits" => Ok(vec![Section::Waits]),
        "saves" => Ok(vec![Section::Saves]),
        "log" => Ok(vec![Section::Log]),
        "replication" => Ok(vec![Section::Replication]),
        "cluster" => Ok(vec![Section::Cluster]),
        "tls" => Ok(vec![Section::Tls]),
        "users" => Ok(vec![Section::Users]),
        "all" => Ok(ALL.to_vec()),
        _ => Err(
            "it is cpu, shards, memory, pauses, eviction, expiry, waits, saves, log, replication, cluster, tls, users or all"
                .to_owned(),
        ),
    }
}

fn read_peer(text: &str) -> Result<Peer, Infallible> {
    Ok(if text == "none" {
        Peer::None
    } else {
        Peer::Path(text.into())
    })
}

fn read_rounds(text: &str) -> Result<usize, String> {
    let rounds = text.parse().ok().filter(|rounds| *rounds > 0);
    rounds.ok_or_else(|| "it is a number from 1".to_owned())
}

fn read_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text
        .parse()
        .ok()
        .filter(|seconds| (0.05..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "it is 0.05 to 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::parse(line.split_ascii_whitespace().map(str::to_owned))
    }

    #[test]
    fn defaults_and_quick() {
        let options = parse("").unwrap();
        assert_eq!((options.sections.len(), options.rounds), (13, 5));
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
            assert!(parse(bad).is_err_and(|error| error.use_stderr()), "{bad}");
        }
        assert!(parse("--help").is_err_and(|help| help.to_string().contains("--seconds <S>")));
    }
}
