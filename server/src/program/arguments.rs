//! The program's command line, with the grammar of redis-server.
//!
//! The first argument determines the kind: it asks for the version, the help or the system check, or names a file, or
//! begins the options. Options follow the grammar of Redis, which is that of lines in a file: a value may begin with
//! dashes, an option may take several values or contain its value (`"--maxmemory 1gb"`). So they are passed on
//! unchanged; the table of directives documents and checks them.

use clap::{Arg, ArgAction, Command, value_parser};

use crate::config::{ConfigSource, DIRECTIVES, Directive, DirectiveFlags};
use crate::state::{REDIS_VERSION, SHARDIS_VERSION};

/// Meaning of a command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invocation {
    /// Print this text, and end.
    Print(String),
    /// Check the settings of the system, and end.
    CheckSystem,
    /// Run a server with this configuration.
    Serve(ConfigSource),
}

/// Reads the arguments after the program's name.
pub(super) fn read(args: &[String]) -> Invocation {
    // Only the first argument can ask for something else; any other command line is a configuration.
    let first = args.first().map_or(&[][..], std::slice::from_ref);
    let Ok(found) = first_argument().try_get_matches_from(first) else {
        return Invocation::Serve(ConfigSource::from_args(args));
    };
    match () {
        () if found.get_flag("version") => Invocation::Print(version()),
        () if found.get_flag("summary") => Invocation::Print(manual().render_help().to_string()),
        () if found.get_flag("help") => Invocation::Print(manual().render_long_help().to_string()),
        () if found.get_flag("check-system") => Invocation::CheckSystem,
        () => Invocation::Serve(ConfigSource::from_args(args)),
    }
}

/// Parser of the first argument, for everything but a configuration.
fn first_argument() -> Command {
    Command::new("shardis-server")
        .no_binary_name(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .arg(flag("version", Some('v'), "Prints the version"))
        .arg(
            Arg::new("summary")
                .short('h')
                .action(ArgAction::SetTrue)
                .help("Prints a summary"),
        )
        .arg(flag("help", None, "Prints this, with all directives"))
        .arg(flag(
            "check-system",
            None,
            "Looks at settings of the system that matter to a server",
        ))
}

fn flag(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    match short {
        Some(short) => arg.short(short),
        None => arg,
    }
}

/// Manual page: the command line with all directives as options.
fn manual() -> Command {
    let visible = DIRECTIVES
        .iter()
        .filter(|directive| !directive.is(DirectiveFlags::HIDDEN));
    first_argument()
        .about(format!(
            "shardis {SHARDIS_VERSION}: an in-memory server that speaks the protocol of Redis {REDIS_VERSION}, on all cores."
        ))
        .override_usage(
            "shardis-server [/path/to/redis.conf] [--directive value ...] [-]\n       \
             shardis-server -             reads the configuration from standard input",
        )
        .after_help(
            "Every directive of redis.conf can be given as an option, and those of shardis, of which the most important is\n  \
             --shards N   shards, each a thread; as many as there are cores by default\n\n\
             Examples:\n  \
             shardis-server                                      port 6379, one shard per core\n  \
             shardis-server --port 7777 --shards 2\n  \
             shardis-server /etc/redis/redis.conf --loglevel verbose\n  \
             echo 'maxmemory 128mb' | shardis-server -",
        )
        .next_help_heading("Directives")
        .args(visible.map(option))
}

/// The option of a directive.
fn option(directive: &'static Directive) -> Arg {
    let values = if directive.is(DirectiveFlags::MULTI_ARG) {
        0..=100
    } else {
        1..=1
    };
    Arg::new(directive.row.name)
        .long(directive.row.name)
        .value_name("value")
        .num_args(values)
        .value_parser(value_parser!(String))
        .hide_short_help(true)
        .help(directive.doc.trim())
}

/// The version line, by which programs that start servers recognise this one.
fn version() -> String {
    format!(
        "Redis server v={REDIS_VERSION} sha=00000000:0 malloc={} bits={} build=shardis-{SHARDIS_VERSION} \
         shardis_version={SHARDIS_VERSION}\n",
        shardis_storage::memory::allocator_name(),
        usize::BITS
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Invocation {
        read(
            &line
                .split_ascii_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_first_argument_decides() {
        for line in ["-v", "--version", "--version --port 1"] {
            assert!(
                matches!(of(line), Invocation::Print(text) if text.contains(" v=7.2.4 ")),
                "{line}"
            );
        }
        assert_eq!(of("--check-system"), Invocation::CheckSystem);
        for line in [
            "",
            "-",
            "a.conf --help",
            "--port 1 -v",
            "-x",
            "--vers",
            "--help=1",
        ] {
            let args: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
            assert_eq!(
                of(line),
                Invocation::Serve(ConfigSource::from_args(&args)),
                "{line}"
            );
        }
    }

    #[test]
    fn the_manual_is_well_formed_and_has_every_directive() {
        manual().debug_assert();
        let (short, long) = (of("-h"), of("--help"));
        let Invocation::Print(long) = long else {
            panic!("{long:?}")
        };
        for directive in DIRECTIVES
            .iter()
            .filter(|directive| !directive.is(DirectiveFlags::HIDDEN))
        {
            let option = format!("--{} ", directive.row.name);
            assert!(
                long.contains(&option) && !directive.doc.trim().is_empty(),
                "{option}"
            );
        }
        assert!(
            matches!(short, Invocation::Print(text) if text.contains("Usage:") && !text.contains("--timeout"))
        );
    }
}
