//! The program around a node: command line, signals, pid file, exit code. Started as redis-server is.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};
use signal_hook::iterator::Signals;

use crate::clock::Clock;
use crate::config::{Config, Settings, Source};
use crate::log::{Lines, Log, Output, Syslog};
use crate::node::{Parts, Running};
use crate::state::{REDIS_VERSION, SHARDIS_VERSION};

/// Runs the program until it is told to end. Returns the exit code: 0 after an orderly end, 1 when it did not start.
pub fn run(args: &[String]) -> u8 {
    if let [only] = args {
        match only.as_str() {
            "-v" | "--version" => return say(&version()),
            "-h" | "--help" => return say(HELP),
            _ => {}
        }
    }
    match serve(args) {
        Ok(()) => 0,
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "{message}");
            1
        }
    }
}

fn say(text: &str) -> u8 {
    let _ = writeln!(std::io::stdout(), "{text}");
    0
}

fn version() -> String {
    format!(
        "Redis server v={REDIS_VERSION} sha=00000000:0 malloc={} bits={} build=shardis-{SHARDIS_VERSION} \
         shardis_version={SHARDIS_VERSION}",
        shardis_storage::memory::allocator_name(),
        usize::BITS
    )
}

const HELP: &str = "\
Usage: shardis-server [/path/to/redis.conf] [--directive value ...]
       shardis-server -                 reads the configuration from standard input
       shardis-server -v | --version
       shardis-server -h | --help

Every directive of redis.conf can be given as an option, and one of our own:
       --shards N                       shards, each a thread; as many as there are cores by default

Examples:
       shardis-server                   port 6379, one shard per core
       shardis-server --port 7777 --shards 2
       shardis-server /etc/redis/redis.conf --loglevel verbose";

fn serve(args: &[String]) -> Result<(), String> {
    let config = Config::load(&Source::from_args(args)).map_err(|error| error.to_string())?;
    let settings = config.settings();
    if settings.daemonize {
        return go_to_background(args);
    }
    std::env::set_current_dir(settings.dir.path())
        .map_err(|error| format!("Can't chdir to '{}': {error}", settings.dir.path().display()))?;
    // Blocked in every thread that starts from here on, and taken by the one below.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGPIPE]).map_err(|error| error.to_string())?;
    let clock = Arc::new(Clock::real());
    let log = open_log(&settings, Arc::clone(&clock))?;
    greet(&config, &settings, &log);
    let notices = config.notices();
    let mut running = Running::start(Parts {
        config,
        clock,
        log,
        seed: rand::random(),
        journal: None,
        events: None,
        any_port: false,
    })
    .map_err(|error| error.to_string())?;
    for notice in notices {
        running.state.log.warning(format_args!("{notice}"));
    }
    let pid_file = write_pid_file(&settings, &running);
    listen_for_signals(signals, &running);
    running.wait();
    running
        .state
        .log
        .warning(format_args!("shardis is now ready to exit, bye bye..."));
    if let Some(path) = pid_file {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// Starts this program again as a process of its own, away from the terminal, and leaves the rest to it.
fn go_to_background(args: &[String]) -> Result<(), String> {
    let program =
        std::env::current_exe().map_err(|error| format!("Can't find this program to start it: {error}"))?;
    Command::new(program)
        .args(args)
        .args(["--daemonize", "no"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map(|_| ())
        .map_err(|error| format!("Can't go to the background: {error}"))
}

/// Has everything that this process logs written where the configuration says.
fn open_log(settings: &Settings, clock: Arc<Clock>) -> Result<Log, String> {
    let output = match settings.logfile.as_str() {
        "" => Output::Stdout,
        path => Output::File(settings.dir.path().join(path)),
    };
    let syslog = settings
        .syslog_enabled
        .then(|| Syslog::new(&settings.syslog_ident, settings.syslog_facility));
    tracing::dispatcher::set_global_default(Lines::new(output, syslog, clock).into_dispatch())
        .map_err(|error| error.to_string())?;
    Ok(Log::new(settings.loglevel.into()))
}

/// The first lines of the log: who this is.
fn greet(config: &Config, settings: &Settings, log: &Log) {
    let shards = match settings.shards {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count as usize,
    };
    log.notice(format_args!("oO0OoO0OoO0Oo shardis is starting oO0OoO0OoO0Oo"));
    log.notice(format_args!(
        "shardis version={SHARDIS_VERSION}, Redis compatible={REDIS_VERSION}, bits={}, pid={}, just started",
        usize::BITS,
        std::process::id()
    ));
    match config.file() {
        Some(path) => log.notice(format_args!("Configuration loaded from {}", path.display())),
        None => log.warning(format_args!(
            "Warning: no config file specified, using the default config. In order to specify a config file use \
             shardis-server /path/to/redis.conf"
        )),
    }
    log.notice(format_args!(
        "Running mode={}, port={}, shards={shards}.",
        if settings.cluster_enabled {
            "cluster"
        } else {
            "standalone"
        },
        settings.port
    ));
    if !settings.save.0.is_empty() {
        log.warning(format_args!(
            "Data lives in memory only in this version: nothing is saved, whatever 'save' says ('--save \"\"' ends this line)"
        ));
    }
    log.notice(format_args!(" PID: {}", std::process::id()));
    log.notice(format_args!("Server initialized"));
}

fn write_pid_file(settings: &Settings, running: &Running) -> Option<String> {
    let path = settings.pidfile.clone();
    if path.is_empty() {
        return None;
    }
    match std::fs::write(&path, format!("{}\n", std::process::id())) {
        Ok(()) => Some(path),
        Err(error) => {
            running
                .state
                .log
                .warning(format_args!("Failed to write PID file {path}: {error}"));
            None
        }
    }
}

/// Ends the node at the first signal that asks for it.
fn listen_for_signals(mut signals: Signals, running: &Running) {
    let state = Arc::clone(&running.state);
    // The thread waits for signals as long as the process lives; nothing joins it.
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGINT => "SIGINT",
                _ => continue,
            };
            state
                .log
                .warning(format_args!("Received {name} scheduling shutdown..."));
            state.shutdown.request();
            state.ring_all();
        }
    });
}
