//! The program around a node: command line, log, background, supervisor, pid file, exit code. It starts like
//! redis-server.
//!
//! Start, in order: 1. the configuration is read, and stops the start if it is wrong, or if its directory or log file
//! cannot be used: up to here errors go to the terminal; 2. the process goes to the background, while it has one
//! thread; 3. the log opens, which reports all further errors; 4. the process is prepared (title, crash reports, huge
//! pages); 5. the node starts; 6. the pid file is written. At the end, the node stops, and then the pid file is
//! removed.

mod arguments;
mod checks;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use self::arguments::Invocation;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, ConfigSource, Settings};
use crate::daemon::{self, Branch, Daemon, Supervisor, Title};
use crate::feed::SlowListener;
use crate::log::{Lines, Log, LogOutput, Syslog};
use crate::node::{Initial, Parts, Running, StartError};
use crate::state::{REDIS_VERSION, SHARDIS_VERSION, Seed};

/// The pid file of a server in the background whose configuration names none.
const PID_FILE: &str = "/var/run/redis.pid";

/// Runs the program until it is told to end. Returns the exit code: 0 after an orderly end, 1 when it did not start.
/// The first argument is the program's name.
pub fn run(args: &[String]) -> u8 {
    let (name, args) = match args {
        [name, args @ ..] => (name.as_str(), args),
        [] => ("shardis-server", args),
    };
    match arguments::read(args) {
        Invocation::Print(text) => say(&text),
        Invocation::CheckSystem => check_system(),
        Invocation::Serve(source) => match serve(name, &source) {
            Ok(()) => 0,
            Err(message) => {
                // The log has the message, or could not be opened.
                let _ = writeln!(io::stderr(), "{message}");
                1
            }
        },
    }
}

fn say(text: &str) -> u8 {
    let _ = io::stdout().write_all(text.as_bytes());
    0
}

/// Prints the results of the system checks. The exit code is 1 if one of them found a problem.
fn check_system() -> u8 {
    let findings = checks::check(&Settings::default());
    let lines = findings.iter().map(|(name, finding)| match finding {
        None => format!("[{name}]...OK\n"),
        Some(text) => format!("[{name}]...WARNING:\n{text}\n"),
    });
    say(&lines.collect::<String>());
    u8::from(findings.iter().any(|(_, finding)| finding.is_some()))
}

fn serve(name: &str, source: &ConfigSource) -> Result<(), String> {
    let mut config = Config::load(source).map_err(|error| error.to_string())?;
    let settings = config.settings();
    let log_file = log_file(&settings)?;
    std::env::set_current_dir(settings.dir.path())
        .map_err(|error| format!("Can't chdir to '{}': {error}", settings.dir.path().display()))?;
    match go_to_background(&settings)? {
        ProcessPlace::Foreground => {}
        ProcessPlace::Left => return Ok(()),
        ProcessPlace::Background if settings.pidfile.is_empty() => config
            .assign("pidfile", PID_FILE.as_bytes())
            .map_err(|error| error.to_string())?,
        ProcessPlace::Background => {}
    }
    let clock = Arc::new(Clock::real());
    let log = open_log(&settings, log_file.clone(), Arc::clone(&clock))?;
    greet(&config, &log);
    allow_clients(&mut config, &log)?;
    let daemon = prepare(name, &config, &log, log_file);
    let mut running = start(config, clock, daemon).map_err(|error| {
        log.warning(format_args!("{error}"));
        error.to_string()
    })?;
    let pid_file = write_pid_file(&running);
    running.wait();
    let log = &running.state.log;
    if let Some(path) = pid_file {
        log.notice(format_args!("Removing the pid file."));
        let _ = std::fs::remove_file(path);
    }
    if running.state.has_failed() {
        return Err("The node has ended because of an error: see its log.".to_owned());
    }
    log.warning(format_args!("shardis is now ready to exit, bye bye..."));
    Ok(())
}

/// The absolute path of the log file, none for standard output. A file that cannot be written stops the start,
/// because later errors would be lost.
fn log_file(settings: &Settings) -> Result<Option<PathBuf>, String> {
    let Some(path) = settings.path(&settings.logfile) else {
        return Ok(None);
    };
    match OpenOptions::new().create(true).append(true).open(&path) {
        Ok(_) => Ok(Some(path)),
        Err(error) => {
            let reason = format!("Can't open the log file '{}': {error}", path.display());
            Err(ConfigError::Whole(reason).to_string())
        }
    }
}

/// Location of a process after `daemonize`.
enum ProcessPlace {
    /// In the terminal that it was started from.
    Foreground,
    /// In the background.
    Background,
    /// In the terminal, with nothing left to do: another process runs in the background.
    Left,
}

/// Leaves the terminal if configured. A supervised process stays, because the supervisor waits for this very process.
fn go_to_background(settings: &Settings) -> Result<ProcessPlace, String> {
    if !settings.daemonize || Supervisor::is_expected(settings.supervised) {
        return Ok(ProcessPlace::Foreground);
    }
    match daemon::fork_to_background() {
        Ok(Branch::Child) => Ok(ProcessPlace::Background),
        Ok(Branch::Parent) => Ok(ProcessPlace::Left),
        Err(error) => Err(format!("Can't go to the background: {error}")),
    }
}

/// Opens the log for all events of this process, at the configured destination.
fn open_log(settings: &Settings, file: Option<PathBuf>, clock: Arc<Clock>) -> Result<Log, String> {
    let output = file.map_or(LogOutput::Stdout, LogOutput::File);
    let syslog = settings
        .syslog_enabled
        .then(|| Syslog::new(&settings.syslog_ident, settings.syslog_facility));
    tracing::dispatcher::set_global_default(Lines::new(output, syslog, clock).into_dispatch())
        .map_err(|error| error.to_string())?;
    Ok(Log::new(settings.loglevel.into()))
}

/// Logs the first lines: version, process and configuration.
fn greet(config: &Config, log: &Log) {
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
}

/// Makes sure that there are file descriptors for all clients, or lowers `maxclients`.
fn allow_clients(config: &mut Config, log: &Log) -> Result<(), String> {
    let settings = config.settings();
    let loops = settings.shard_count();
    let Err(possible) = daemon::allow_descriptors(settings.maxclients, loops, log) else {
        return Ok(());
    };
    if possible == 0 {
        let reason = "The limit of open files ('ulimit -n') is not enough for the server to start. Raise it.";
        log.warning(format_args!("{reason}"));
        return Err(reason.to_owned());
    }
    log.warning(format_args!(
        "maxclients has been reduced to {possible} to compensate for low ulimit. If you need higher maxclients increase \
         'ulimit -n'."
    ));
    config
        .assign("maxclients", possible.to_string().as_bytes())
        .map_err(|error| error.to_string())
}

/// Applies the configuration to the process.
fn prepare(name: &str, config: &Config, log: &Log, log_file: Option<PathBuf>) -> Daemon {
    let settings = config.settings();
    let supervisor = Supervisor::find(settings.supervised, log);
    supervisor.tell_starting(log);
    if let Err(error) = daemon::report_crashes(log_file) {
        log.warning(format_args!("Crashes cannot be reported: {error}"));
    }
    for text in checks::check(&settings).into_iter().filter_map(|(_, text)| text) {
        log.warning(format_args!("{text}"));
    }
    let title = settings.set_proc_title.then(Title::claim).flatten();
    let config_file = config.file().map(|path| path.display().to_string());
    let daemon = Daemon::new(
        title,
        name.to_owned(),
        config_file.unwrap_or_default(),
        supervisor,
    );
    daemon.begin(&settings, log);
    daemon
}

fn start(config: Config, clock: Arc<Clock>, daemon: Daemon) -> Result<Running, StartError> {
    let notices = config.notices();
    let running = Running::start(Parts {
        log: Log::new(config.settings().loglevel.into()),
        config,
        clock,
        seed: Seed::random(),
        effects: None,
        events: None,
        slow_listener: SlowListener::default(),
        any_port: false,
        any_tls_port: false,
        initial: Initial::Saved,
        daemon: Some(daemon),
    })?;
    for notice in notices {
        running.state.log.warning(format_args!("{notice}"));
    }
    Ok(running)
}

/// Writes the process id to the pid file. Returns the file, to be removed at the end.
fn write_pid_file(running: &Running) -> Option<PathBuf> {
    let settings = running.state.settings.load();
    let path = settings.path(&settings.pidfile)?;
    match std::fs::write(&path, format!("{}\n", std::process::id())) {
        Ok(()) => Some(path),
        Err(error) => {
            running.state.log.warning(format_args!(
                "Failed to write PID file {}: {error}",
                path.display()
            ));
            None
        }
    }
}
