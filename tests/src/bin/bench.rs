//! `scripts/bench`: shardis beside redis-server and Valkey, in server CPU per operation, memory and pauses.
//!
//! Prints one table a section. The exit code is 0 if every row could be measured, targets met or not; 1 if a row failed
//! or the machine lacks something; 2 if the command line is wrong.

#[path = "../load.rs"]
mod load;

use std::io::{self, Error, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use load::bystanders::Bystanders;
use load::options::{Options, Peer, Section};
use load::placement::{Cores, Placement};
use load::report::Report;
use load::server::Program;
use load::{
    cluster, compare, eviction, expiry, hit_ratio, log, memory, pauses, replication, saves, tls, users, waits,
};

fn main() -> ExitCode {
    let mut errors = Report::new(io::stderr());
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(instead) => {
            // Nothing is left to do if it cannot be printed.
            let _ = instead.print();
            return ExitCode::from(if instead.use_stderr() { 2 } else { 0 });
        }
    };
    let outcome = run(&options);
    if let Err(error) = &outcome {
        let _ = errors.say(&format!("bench: {error}"));
    }
    exit_code(outcome)
}

fn exit_code(outcome: Result<bool>) -> ExitCode {
    if matches!(outcome, Ok(true)) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Measures what was asked for; true if every row could be measured.
fn run(options: &Options) -> Result<bool> {
    let shardis_path = find_shardis(options)?;
    check_runs(
        &options.redis,
        "the figures are beside redis-server 7.0 (Debian: `apt-get install redis-server`), or name one with --redis PATH",
    )?;
    let redis = Program::Redis(options.redis.clone());
    let shardis = |shards| Program::Shardis(shardis_path.clone(), shards);
    let pair = [redis, shardis(1)];
    let contest = contest(options, &pair)?;
    let cores = Cores::read()?;
    let mut report = Report::new(io::stdout());
    for program in &contest {
        report.say(&format!("{}: {}", program.name(), version(program)?))?;
    }
    for section in &options.sections {
        let bystanders = Bystanders::read()?;
        match section {
            Section::Cpu => compare::cpu(options, &cores, &contest, &mut report)?,
            Section::Shards => compare::shards(options, &cores, shardis, &mut report)?,
            Section::Memory => memory::memory(options, &cores, &pair, &mut report)?,
            Section::Pauses => pauses::pauses(options, &cores, &pair, &mut report)?,
            Section::Eviction => {
                eviction::eviction(options, &cores, &pair[0], shardis, &mut report)?;
                hit_ratio::hit_ratio(options, &cores, &pair[0], shardis, &mut report)?;
            }
            Section::Expiry => expiry::expiry(options, &cores, &pair, &mut report)?,
            Section::Waits => waits::waits(options, &cores, &pair[0], shardis, &mut report)?,
            Section::Saves => saves::saves(options, &cores, &pair[0], shardis, &mut report)?,
            Section::Log => log::log(options, &cores, &pair, &mut report)?,
            Section::Replication => replication::replication(options, &cores, &pair, &mut report)?,
            Section::Cluster => cluster::cluster(options, &cores, &pair, &mut report)?,
            Section::Tls => tls::tls(options, &cores, &pair, &mut report)?,
            Section::Users => users::users(options, &cores, &pair[1], &mut report)?,
        }
        if let Some(warning) = bystanders.warning()? {
            report.say(&warning)?;
        }
    }
    report.close()
}

/// The servers of the CPU rows, in the order of their columns: the pair, and between them the other servers asked for.
fn contest(options: &Options, [redis, shardis]: &[Program; 2]) -> Result<Vec<Program>> {
    let mut programs = vec![redis.clone()];
    let peer = match &options.peer {
        Peer::None => None,
        Peer::Path(path) => Some(path.clone()),
        Peer::Usual => Some(shardis_tests::redis::peer_binary()),
    };
    if let Some(path) = peer {
        check_runs(
            &path,
            "scripts/peer fetches a Valkey, --peer PATH names one, --peer none does without",
        )?;
        programs.push(Program::Peer(path));
    }
    if let Some(path) = &options.before {
        check_runs(path, "--before names an older shardis-server")?;
        programs.push(Program::Before(path.clone(), 1));
    }
    programs.push(shardis.clone());
    Ok(programs)
}

/// Version of a server. This is also the first test that it starts at all.
fn version(program: &Program) -> Result<String> {
    let server = program.start(Placement::Free, &[])?;
    let fields = ["redis_version", "valkey_version", "shardis_version"]
        .map(|field| (field, server.info(field).unwrap_or_default()));
    let known = fields.iter().filter(|(_, version)| !version.is_empty());
    Ok(known
        .map(|(field, version)| format!("{field} {version}"))
        .collect::<Vec<_>>()
        .join(", "))
}

/// The server to measure: the one named, or the one built beside this program.
fn find_shardis(options: &Options) -> Result<PathBuf> {
    let path = match &options.shardis {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("shardis-server"),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::other(format!(
        "{} is not there: build it with `cargo build --release`, or name one with --shardis PATH",
        path.display()
    )))
}

/// Fails with `advice` when the program cannot be run.
fn check_runs(path: &Path, advice: &str) -> Result<()> {
    let started = Command::new(path)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if started.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Error::other(format!(
        "{} cannot be run: {advice}",
        path.display()
    )))
}
