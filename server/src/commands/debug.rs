//! DEBUG: commands for tests of the server. Refused unless `enable-debug-command` allows it.

mod digest;
mod reload;

use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardis_protocol::{Arguments, Resp};
use shardis_storage::encoding::listpack::Listpack;
use shardis_storage::glob;
use shardis_storage::keyspace::Expiry;
use shardis_storage::keyspace::eviction::lru;
use shardis_storage::rdb;
use shardis_storage::table::TableStats;
use shardis_storage::value::list::{Contents, List};
use shardis_storage::value::{CollectionRef, INT_TEXT_MAX, StringRef};

use crate::commands::dump;
use crate::config::{Requester, Scope};
use crate::error::ReplyError;
use crate::exec::arguments::{bad_subcommand, int, is};
use crate::exec::context::NewString;
use crate::exec::{CommandResult, Session, View};
use crate::log::Log;
use crate::spec::{Arity, Command, Doc, Flags, Group, Runs};

pub(crate) static COMMANDS: &[Command] = &[Command {
    name: "debug",
    arity: Arity::AtLeast(2),
    flags: Flags::ADMIN
        .union(Flags::NOSCRIPT)
        .union(Flags::LOADING)
        .union(Flags::STALE)
        .union(Flags::PROTECTED),
    runs: Runs::OnSessionAndAllShards(debug),
    doc: &Doc {
        since: "1.0.0",
        group: Group::Server,
        complexity: "That of the subcommand",
        summary: "Groups what tests do to a server, and what they look up in it.",
        system: true,
        ..Doc::BLANK
    },
    ..Command::BLANK
}];

/// Handler of a subcommand.
type Action = fn(&mut Session<'_>, &mut View<'_>) -> CommandResult;

/// A subcommand, and the number of words of its requests, DEBUG and its own name included.
struct Subcommand {
    name: &'static str,
    words_min: usize,
    words_max: usize,
    run: Action,
}

const fn exactly(name: &'static str, words: usize, run: Action) -> Subcommand {
    between(name, words, words, run)
}

const fn between(name: &'static str, words_min: usize, words_max: usize, run: Action) -> Subcommand {
    Subcommand {
        name,
        words_min,
        words_max,
        run,
    }
}

/// The subcommands. They are no rows of their own: for COMMAND, DEBUG is one command.
const SUBCOMMANDS: &[Subcommand] = &[
    exactly("AOF-FLUSH-SLEEP", 3, pause_before_writes),
    exactly("ASSERT", 2, abort),
    exactly("CHANGE-REPL-ID", 2, change_replication_id),
    exactly("CONFIG-REWRITE-FORCE-ALL", 2, rewrite),
    exactly("DIGEST", 2, digest_of_all),
    between("DIGEST-VALUE", 2, usize::MAX, digest_of_values),
    exactly("ERROR", 3, error),
    exactly("HELP", 2, help),
    between("HTSTATS", 3, 4, table_stats),
    between("HTSTATS-KEY", 3, 4, table_stats_of_key),
    exactly("LISTPACK", 3, listpack),
    exactly("LOADAOF", 2, reload::load_append_only),
    exactly("LOG", 3, log),
    between("OBJECT", 3, 4, object),
    exactly("OOM", 2, run_out_of_memory),
    exactly("PANIC", 2, abort),
    exactly("PAUSE-CRON", 3, pause_cron),
    between("POPULATE", 3, 5, populate),
    exactly("PROTOCOL", 3, protocol),
    between("QUICKLIST", 3, 4, quicklist),
    exactly("QUICKLIST-PACKED-THRESHOLD", 3, packed_threshold),
    exactly("REPLYBUFFER", 4, reply_buffer),
    between("RELOAD", 2, usize::MAX, reload::reload),
    between("REPLICATE", 3, usize::MAX, replicate),
    exactly("SEGFAULT", 2, segfault),
    exactly("SET-ACTIVE-EXPIRE", 3, set_active_expire),
    exactly("SLEEP", 3, sleep),
    exactly("STRINGMATCH-LEN", 4, match_pattern),
];

fn debug(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let (word, words) = (session.args.at(1), session.args.len());
    let subcommand = SUBCOMMANDS
        .iter()
        .find(|known| is(word, known.name) && (known.words_min..=known.words_max).contains(&words))
        .ok_or_else(|| bad_subcommand(session.args))?;
    (subcommand.run)(session, keyspace)
}

/// Whether an argument is followed by this option; any other word there is an error.
fn is_chosen(args: Arguments<'_>, option: &str) -> Result<bool, ReplyError> {
    match args.get(3) {
        None => Ok(false),
        Some(word) if is(word, option) => Ok(true),
        Some(_) => Err(bad_subcommand(args)),
    }
}

/// Whether a word is a number other than 0. Like in C, a text that is no number counts as 0.
fn is_set(word: &[u8]) -> bool {
    int(word).unwrap_or(0) != 0
}

/// DEBUG SLEEP seconds: stops all loops for so long.
fn sleep(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let text = String::from_utf8_lossy(session.args.at(2));
    let seconds = text.parse::<f64>().unwrap_or(0.0);
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    let node = session.node;
    if node.clock.is_real() {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        node.debug.stall(node.clock.elapsed_ns().saturating_add(nanos));
        node.ring_all();
    }
    std::thread::sleep(duration);
    session.reply.ok();
    Ok(())
}

/// DEBUG AOF-FLUSH-SLEEP microseconds: pauses before each write to the append-only file.
fn pause_before_writes(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let us = u64::try_from(int(session.args.at(2))?).map_err(|_| ReplyError::NotPositive)?;
    session.node.journal.aof.pause_us.store(us, Ordering::Relaxed);
    session.reply.ok();
    Ok(())
}

fn set_active_expire(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let is_on = is_set(session.args.at(2));
    session
        .node
        .debug
        .lazy_expiry_only
        .store(!is_on, Ordering::Relaxed);
    session.reply.ok();
    Ok(())
}

fn change_replication_id(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let fresh = session.node.ids.fresh();
    session.node.replication.history.lock().change(fresh);
    session.reply.ok();
    Ok(())
}

fn pause_cron(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let is_paused = is_set(session.args.at(2));
    session.node.debug.cron_paused.store(is_paused, Ordering::Relaxed);
    session.reply.ok();
    Ok(())
}

/// DEBUG REPLYBUFFER PEAK-RESET-TIME ms | NEVER | RESET, or RESIZING 0 | 1
fn reply_buffer(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let (what, value) = (session.args.at(2), session.args.at(3));
    let debugging = &session.node.debug;
    if is(what, "PEAK-RESET-TIME") {
        let ms = match value {
            word if is(word, "NEVER") => i64::MAX,
            word if is(word, "RESET") => 0,
            word => int(word)?,
        };
        debugging.set_peak_ms(ms);
    } else if is(what, "RESIZING") {
        debugging.buffers_kept.store(!is_set(value), Ordering::Relaxed);
    } else {
        return Err(bad_subcommand(session.args));
    }
    session.reply.ok();
    Ok(())
}

fn log(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let text = String::from_utf8_lossy(session.args.at(2));
    session.node.log.warning(format_args!("DEBUG LOG: {text}"));
    session.reply.ok();
    Ok(())
}

fn error(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    Err(ReplyError::Bytes(session.args.at(2).to_vec()))
}

/// Crashes the process by an access to an invalid address.
fn segfault(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    signal_hook::low_level::raise(signal_hook::consts::SIGSEGV)
        .map_err(|error| ReplyError::Text(format!("ERR {error}")))?;
    session.reply.ok();
    Ok(())
}

/// Aborts the process, like a failed assertion.
fn abort(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let word = String::from_utf8_lossy(session.args.at(1)).to_ascii_uppercase();
    session.node.log.warning(format_args!(
        "DEBUG {word}: the process aborts as after a failed assertion"
    ));
    signal_hook::low_level::raise(signal_hook::consts::SIGABRT)
        .map_err(|error| ReplyError::Text(format!("ERR {error}")))?;
    session.reply.ok();
    Ok(())
}

/// Allocates more memory than there is, which aborts the process.
fn run_out_of_memory(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let bytes = isize::MAX as usize;
    std::hint::black_box(Vec::<u8>::with_capacity(bytes));
    session.reply.ok();
    Ok(())
}

fn rewrite(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    session
        .node
        .config
        .lock()
        .rewrite(&[], Scope::Everything)
        .map_err(|error| {
            let reason = error.to_string();
            let reason = reason.strip_prefix("ERR ").unwrap_or(&reason);
            ReplyError::Text(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {reason}"))
        })?;
    session.reply.ok();
    Ok(())
}

/// DEBUG REPLICATE word [word ...]: reports the words as an effect, without running them.
fn replicate(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    if session.recorder.is_on() {
        let words = session.args.tail(2);
        session.recorder.unit().add(session.client.db, words.iter());
    }
    session.reply.ok();
    Ok(())
}

/// DEBUG STRINGMATCH-LEN pattern text
fn match_pattern(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let is_match = glob::matches(session.args.at(2), session.args.at(3), false);
    session.reply.integer(i64::from(is_match));
    Ok(())
}

/// DEBUG PROTOCOL type
fn protocol(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let reply = &mut session.reply;
    let kind = String::from_utf8_lossy(session.args.at(2)).to_ascii_lowercase();
    match &*kind {
        "string" => reply.bulk(b"Hello World"),
        "integer" => reply.integer(12345),
        "double" => reply.double(b"3.141"),
        "bignum" => reply.big_number("1234567999999999999999999999999999999"),
        "null" => reply.null(),
        "array" => {
            reply.array(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        "set" => {
            reply.set(3);
            (0..3).for_each(|number| reply.integer(number));
        }
        "map" => {
            reply.map(3);
            for number in 0..3 {
                reply.integer(number);
                reply.boolean(number == 1);
            }
        }
        "attrib" => {
            if reply.attribute(1) {
                reply.bulk(b"key-popularity");
                reply.array(2);
                reply.bulk(b"key:123");
                reply.integer(90);
            }
            reply.bulk(b"Some real reply following the attribute");
        }
        "push" => {
            if reply.resp() == Resp::V2 {
                return Err(ReplyError::Fixed("ERR RESP2 is not supported by this command"));
            }
            reply.push(2);
            reply.bulk(b"server-cpu-usage");
            reply.integer(42);
            reply.bulk(b"Some real reply following the push reply");
        }
        "verbatim" => reply.verbatim(*b"txt", b"This is a verbatim\nstring"),
        "true" => reply.boolean(true),
        "false" => reply.boolean(false),
        _ => {
            return Err(ReplyError::Fixed(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

/// DEBUG POPULATE count [prefix] [size]: existing keys stay as they are.
fn populate(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let positive = |index: usize| match session.args.get(index).map(int) {
        None => Ok(None),
        Some(Ok(number)) if number >= 0 => Ok(Some(number)),
        Some(_) => Err(ReplyError::NotPositive),
    };
    let count = positive(2)?.unwrap_or(0);
    let prefix = session.args.get(3).unwrap_or(b"key");
    let size = positive(4)?;
    let size_max = session.node.settings.load().proto_max_bulk_len;
    if size.is_some_and(|size| size as u64 > size_max) {
        return Err(ReplyError::StringTooLong);
    }
    for number in 0..count {
        let name = [prefix, format!(":{number}").as_bytes()].concat();
        let key = keyspace.key(&name);
        if keyspace.peek(&key).is_some() {
            continue;
        }
        let mut value = format!("value:{number}").into_bytes();
        if let Some(size) = size {
            value.resize(size as usize, 0);
        }
        keyspace.set_string(&key, NewString::Bytes(&value), Expiry::Clear);
        keyspace.signal(&key);
    }
    session.reply.ok();
    Ok(())
}

/// DEBUG OBJECT key [fast]: the fast form leaves out figures that take time proportional to the value.
fn object(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let options = dump::write_options(&session.node.settings.load());
    let (key, now_ms) = (keyspace.key(session.args.at(2)), keyspace.stamp.now_ms);
    let entry = keyspace.stored(&key).ok_or(ReplyError::NoSuchKey)?;
    let is_fast = is_chosen(session.args, "fast")?;
    let mut text = format!(
        "Value at:{:p} refcount:1 encoding:{}",
        std::ptr::from_ref(entry).cast::<u8>(),
        entry.encoding().name(),
    );
    if !is_fast {
        let _ = write!(text, " serializedlength:{}", rdb::len(entry, options));
    }
    let clock = entry.clock();
    let idle_s = lru::idle_seconds(clock, now_ms);
    let _ = write!(text, " lru:{clock} lru_seconds_idle:{idle_s}");
    if let Some(list) = entry.get::<List>().filter(|_| !is_fast) {
        describe_nodes(list, &mut text);
    }
    session.reply.simple(text);
    Ok(())
}

/// Appends a description of a list's nodes.
fn describe_nodes(list: &List, text: &mut String) {
    let Some((limit, compresses)) = list.node_rules() else {
        return;
    };
    let mut bytes = 0;
    list.visit_nodes(|contents| {
        bytes += match contents {
            Contents::Pack(pack) => pack.byte_len(),
            Contents::Plain(element) => element.len(),
        };
    });
    let nodes = list.nodes();
    let average = list.len() as f64 / nodes as f64;
    // Writing to a `String` cannot fail.
    let _ = write!(
        text,
        " ql_nodes:{nodes} ql_avg_node:{average:.2} ql_listpack_max:{limit} ql_compressed:{} ql_uncompressed_size:{bytes}",
        u8::from(compresses)
    );
}

/// The most elements of a pack that are logged.
const LOGGED_ELEMENTS_MAX: usize = 1000;
/// The most bytes of an element that are logged.
const LOGGED_BYTES_MAX: usize = 40;

/// DEBUG LISTPACK key: logs the content of a pack.
fn listpack(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let key = keyspace.key(session.args.at(2));
    let entry = keyspace.peek(&key).ok_or(ReplyError::NoSuchKey)?;
    let pack = entry
        .collection()
        .and_then(CollectionRef::as_listpack)
        .ok_or(ReplyError::Fixed("ERR Not a listpack encoded object."))?;
    let log = &session.node.log;
    log.warning(format_args!(
        "DEBUG LISTPACK: {} bytes, {} elements",
        pack.byte_len(),
        pack.len()
    ));
    log_elements(log, pack);
    session.reply.simple("Listpack structure printed on stdout");
    Ok(())
}

/// Logs the content of a pack, up to a bound.
fn log_elements(log: &Log, pack: &Listpack) {
    let mut scratch = [0; INT_TEXT_MAX];
    for (number, element) in pack.iter().take(LOGGED_ELEMENTS_MAX).enumerate() {
        let kind = match element {
            StringRef::Int(_) => "integer",
            StringRef::Bytes(_) => "string",
        };
        let text = element.as_bytes(&mut scratch);
        let shown = text[..text.len().min(LOGGED_BYTES_MAX)].escape_ascii();
        log.warning(format_args!(
            "{number:>6}: {kind} of {} bytes: {shown}",
            text.len()
        ));
    }
}

/// DEBUG QUICKLIST key [0|1]: logs the nodes of a list; with 1 also their elements.
fn quicklist(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let key = keyspace.key(session.args.at(2));
    let entry = keyspace.peek(&key).ok_or(ReplyError::NoSuchKey)?;
    let list = entry
        .get::<List>()
        .filter(|list| list.node_rules().is_some())
        .ok_or(ReplyError::Fixed("ERR Not a quicklist encoded object."))?;
    let shows_elements = session.args.get(3).is_some_and(is_set);
    let log = &session.node.log;
    log.warning(format_args!(
        "DEBUG QUICKLIST: {} nodes, {} elements",
        list.nodes(),
        list.len()
    ));
    let mut number = 0;
    list.visit_nodes(|contents| {
        if number < LOGGED_ELEMENTS_MAX {
            log_node(log, number, &contents, shows_elements);
        }
        number += 1;
    });
    session.reply.simple("Quicklist structure printed on stdout");
    Ok(())
}

/// Logs the content of a node of a quicklist.
fn log_node(log: &Log, number: usize, contents: &Contents<'_>, shows_elements: bool) {
    match contents {
        Contents::Pack(pack) => {
            log.warning(format_args!(
                "node {number}: {} bytes, {} elements",
                pack.byte_len(),
                pack.len()
            ));
            if shows_elements {
                log_elements(log, pack);
            }
        }
        Contents::Plain(element) => log.warning(format_args!(
            "node {number}: an element of {} bytes by itself",
            element.len()
        )),
    }
}

/// DEBUG QUICKLIST-PACKED-THRESHOLD size: from how many bytes on elements of lists are not put into packs; 0 for as many
/// as usual.
fn packed_threshold(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    let size = match session.args.at(2) {
        b"0" => b"1gb",
        size => size,
    };
    let requester = Requester {
        local: true,
        loading: session.node.loading.is_under_way(),
    };
    session
        .node
        .change_settings(&[(b"list-packed-threshold", size)], requester)
        .map_err(|_| {
            ReplyError::Fixed("ERR argument must be a memory value bigger than 1 and smaller than 4gb")
        })?;
    session.reply.ok();
    Ok(())
}

/// DEBUG HTSTATS db [full]. Nothing that is told here takes long, so it is always told in full.
fn table_stats(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    is_chosen(session.args, "full")?;
    let index = int(session.args.at(2))?;
    let databases = session.node.settings.load().databases as usize;
    let db = usize::try_from(index)
        .ok()
        .filter(|&db| db < databases)
        .ok_or(ReplyError::Fixed("ERR Out of range database"))?;
    let (mut keys, mut volatile) = (TableStats::default(), TableStats::default());
    let add = |sum: &mut TableStats, part: TableStats| {
        sum.entries += part.entries;
        sum.buckets += part.buckets;
        sum.overflow_buckets += part.overflow_buckets;
        sum.bytes += part.bytes;
    };
    keyspace.held().each(|partition| {
        let database = partition.keyspace.database(db);
        add(&mut keys, database.table_stats());
        add(&mut volatile, database.volatile_table_stats());
    });
    let text = format!(
        "[Dictionary HT]\n{}[Expires HT]\n{}",
        describe(keys),
        describe(volatile)
    );
    session.reply.verbatim(*b"txt", text.as_bytes());
    Ok(())
}

/// Entries that a bucket of a table has places for.
const BUCKET_PLACES: usize = 8;

/// A table in words, in the manner in which Redis describes its own.
fn describe(stats: TableStats) -> String {
    let head = "Hash table 0 stats (main hash table):\n";
    if stats.entries == 0 {
        return format!("{head}No stats available for empty dictionaries\n");
    }
    format!(
        "{head} table size: {}\n number of elements: {}\n buckets: {}\n overflow buckets: {}\n bytes: {}\n",
        stats.buckets * BUCKET_PLACES,
        stats.entries,
        stats.buckets,
        stats.overflow_buckets,
        stats.bytes
    )
}

/// DEBUG HTSTATS-KEY key [full]
fn table_stats_of_key(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    is_chosen(session.args, "full")?;
    let key = keyspace.key(session.args.at(2));
    let entry = keyspace.peek(&key).ok_or(ReplyError::NoSuchKey)?;
    let stats = entry
        .collection()
        .and_then(CollectionRef::table_stats)
        .ok_or(ReplyError::Fixed(
            "ERR The value stored at the specified key is not represented using an hash table",
        ))?;
    session.reply.verbatim(*b"txt", describe(stats).as_bytes());
    Ok(())
}

fn digest_of_all(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let databases = session.node.settings.load().databases as usize;
    let digest = digest::of_all(keyspace, databases);
    session.reply.simple(digest.to_string());
    Ok(())
}

fn digest_of_values(session: &mut Session<'_>, keyspace: &mut View<'_>) -> CommandResult {
    let keys = session.args.tail(2);
    session.reply.array(keys.len());
    for bytes in keys.iter() {
        let key = keyspace.key(bytes);
        let now_ms = keyspace.stamp.now_ms;
        let digest = keyspace
            .peek(&key)
            .map(|entry| digest::of_value(entry, now_ms))
            .unwrap_or_default();
        session.reply.simple(digest.to_string());
    }
    Ok(())
}

fn help(session: &mut Session<'_>, _: &mut View<'_>) -> CommandResult {
    session.help(&[
        "AOF-FLUSH-SLEEP <microseconds>",
        "    Pause before each write to the append-only file.",
        "ASSERT",
        "    End the process as a failed check does.",
        "CHANGE-REPL-ID",
        "    Give the history of the data another name.",
        "CONFIG-REWRITE-FORCE-ALL",
        "    As CONFIG REWRITE, and write directives at their defaults, too.",
        "DIGEST",
        "    A digest of all data; equal data has equal ones.",
        "DIGEST-VALUE <key> [<key> ...]",
        "    A digest of the value of each key.",
        "ERROR <string>",
        "    Answer with this error.",
        "HTSTATS <dbid> [full]",
        "    Describe the tables of a database.",
        "HTSTATS-KEY <key> [full]",
        "    Describe the table of a value.",
        "LISTPACK <key>",
        "    Write to the log what is in a listpack.",
        "LOADAOF",
        "    Write what there is to the append-only file, and replace the data by what the file holds.",
        "LOG <message>",
        "    Write a line to the server's log.",
        "OBJECT <key> [fast]",
        "    Describe how a value is stored; fast: without what takes time.",
        "OOM",
        "    Ask for more memory than there is, which ends the process.",
        "PANIC",
        "    End the process as a failed check does.",
        "PAUSE-CRON <0|1>",
        "    Stop what the server does now and then, or let it go on.",
        "POPULATE <count> [<prefix>] [<size>]",
        "    Make so many keys <prefix>:<number>, where they are not there, of values of that size.",
        "PROTOCOL <type>",
        "    Answer with a value of that type: string, integer, double, bignum, null, array, set, map, attrib, push,",
        "    verbatim, true, false.",
        "QUICKLIST <key> [<0|1>]",
        "    Write to the log which nodes a list has, with 1 also their elements.",
        "QUICKLIST-PACKED-THRESHOLD <size>",
        "    Elements of lists of so many bytes get a node to themselves; 0 for as many as usual.",
        "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
        "    Load the data from its file, saved before (not with NOSAVE); NOFLUSH keeps what is there, MERGE replaces keys.",
        "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|time>",
        "    For how many milliseconds the peak of an output buffer is remembered.",
        "REPLYBUFFER RESIZING <0|1>",
        "    Whether output buffers of idle connections are given back.",
        "REPLICATE <string> [<string> ...]",
        "    Hand a command to those who repeat our changes.",
        "SEGFAULT",
        "    Crash.",
        "SET-ACTIVE-EXPIRE <0|1>",
        "    Whether expired keys are removed that nobody comes across.",
        "SLEEP <seconds>",
        "    Do nothing for so long. Decimals are understood.",
        "STRINGMATCH-LEN <pattern> <string>",
        "    Whether the pattern fits.",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Shell;
    use std::sync::Arc;

    use crate::journal::{Journal, Recorder};

    #[test]
    fn every_type_of_reply_under_both_protocols() {
        for (kind, resp2, resp3) in [
            ("string", "\"Hello World\"", "\"Hello World\""),
            ("Integer", ":12345", ":12345"),
            ("double", "\"3.141\"", ",3.141"),
            (
                "bignum",
                "\"1234567999999999999999999999999999999\"",
                "(1234567999999999999999999999999999999",
            ),
            ("null", "nil", "nil"),
            ("array", "[:0, :1, :2]", "[:0, :1, :2]"),
            ("set", "[:0, :1, :2]", "~[:0, :1, :2]"),
            ("map", "[:0, :0, :1, :1, :2, :0]", "{:0: #f, :1: #t, :2: #f}"),
            ("true", ":1", "#t"),
            ("false", ":0", "#f"),
        ] {
            let line = format!("DEBUG PROTOCOL {kind}");
            assert_eq!(Shell::new().run(&line).reply, resp2, "{kind}");
            assert_eq!(Shell::new().resp3().run(&line).reply, resp3, "{kind}");
        }
        Shell::new().check(&[(
            "DEBUG PROTOCOL push",
            "-ERR RESP2 is not supported by this command",
        )]);
        let wrong = Shell::new().run("DEBUG PROTOCOL x").reply;
        assert!(wrong.starts_with("-ERR Wrong protocol type name."), "{wrong}");
    }

    #[test]
    fn describes_values() {
        let mut shell = Shell::over(2);
        shell.run("MSET small 1 int 123456 text abc");
        for (key, shown) in [
            ("small", " refcount:1 encoding:int serializedlength:2 lru:"),
            ("int", " refcount:1 encoding:int serializedlength:5 lru:"),
            ("text", " refcount:1 encoding:embstr serializedlength:4 lru:"),
        ] {
            let reply = shell.run(&format!("DEBUG OBJECT {key}")).reply;
            assert!(
                reply.starts_with("+Value at:0x") && reply.contains(shown),
                "{reply}"
            );
        }
        shell.check(&[("DEBUG OBJECT nokey", "-ERR no such key")]);
    }

    #[test]
    fn makes_keys() {
        let mut shell = Shell::over(3);
        shell.run("SET pre:1 mine");
        shell.check(&[
            ("DEBUG POPULATE 3 pre 10", "+OK"),
            (
                "MGET pre:0 pre:1 pre:2 pre:3",
                "[\"value:0\\x00\\x00\\x00\", \"mine\", \"value:2\\x00\\x00\\x00\", nil]",
            ),
            ("DEBUG POPULATE 2", "+OK"),
            ("MGET key:0 key:1", "[\"value:0\", \"value:1\"]"),
            ("DEBUG POPULATE x", "-ERR value is out of range, must be positive"),
            (
                "DEBUG POPULATE -1",
                "-ERR value is out of range, must be positive",
            ),
            (
                "DEBUG POPULATE 1 a x",
                "-ERR value is out of range, must be positive",
            ),
        ]);
    }

    #[test]
    fn switches_and_refusals() {
        let mut shell = Shell::new();
        shell.check(&[
            ("DEBUG SET-ACTIVE-EXPIRE 0", "+OK"),
            ("DEBUG PAUSE-CRON 1", "+OK"),
            ("DEBUG REPLYBUFFER RESIZING 0", "+OK"),
            ("DEBUG REPLYBUFFER PEAK-RESET-TIME 20", "+OK"),
            (
                "DEBUG REPLYBUFFER PEAK-RESET-TIME x",
                "-ERR value is not an integer or out of range",
            ),
            ("DEBUG SLEEP x", "+OK"),
            ("DEBUG LOG text", "+OK"),
            ("DEBUG ERROR \"MINE is it\"", "-MINE is it"),
            ("DEBUG STRINGMATCH-LEN a*b axxb", ":1"),
            ("DEBUG STRINGMATCH-LEN a*b ax", ":0"),
            ("DEBUG HTSTATS 99", "-ERR Out of range database"),
            ("DEBUG HTSTATS x", "-ERR value is not an integer or out of range"),
            ("DEBUG HTSTATS-KEY nokey", "-ERR no such key"),
        ]);
        let debugging = &shell.node.debug;
        assert!(debugging.lazy_expiry_only.load(Ordering::Relaxed));
        assert!(debugging.cron_paused.load(Ordering::Relaxed));
        assert!(debugging.buffers_kept.load(Ordering::Relaxed));
        assert_eq!(debugging.peak_ms(), 20);
        for line in [
            "DEBUG foo",
            "DEBUG SLEEP",
            "DEBUG HELP x",
            "DEBUG REPLYBUFFER foo 1",
        ] {
            let reply = shell.run(line).reply;
            assert!(
                reply.starts_with("-ERR unknown subcommand or wrong number of arguments for '")
                    && reply.ends_with("'. Try DEBUG HELP."),
                "{line}: {reply}"
            );
        }
    }

    #[test]
    fn describes_tables() {
        let mut shell = Shell::over(2);
        let empty = "Hash table 0 stats (main hash table):\\nNo stats available for empty dictionaries\\n";
        shell.check(&[(
            "DEBUG HTSTATS 0",
            &format!("\"[Dictionary HT]\\n{empty}[Expires HT]\\n{empty}\""),
        )]);
        shell.run("MSET a 1 b 2 c 3");
        assert!(
            shell
                .run("DEBUG HTSTATS 0")
                .reply
                .contains(" number of elements: 3\\n")
        );
    }

    #[test]
    fn what_is_replicated_goes_to_listeners() {
        let (journal, receiver) = Journal::unbounded();
        let mut shell = Shell::new();
        shell.recorder = Recorder::new(Arc::new(journal));
        shell.check(&[("DEBUG REPLICATE DEL k", "+OK")]);
        assert!(shell.recorder.hand_over());
        assert_eq!(
            receiver.try_recv().unwrap().words,
            [b"DEL".to_vec(), b"k".to_vec()]
        );
    }
}
