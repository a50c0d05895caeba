//! Runs scripts and functions: EVAL, EVALSHA, FCALL and their kin, alone or in a transaction.
//!
//! A script runs on a stack of its own (`scripting/run.rs`) and asks for its commands, which run here like those of a
//! transaction (`calls.rs`). All that it changes is one unit of the journal, and all its commands have one time.
//!
//! A script that runs for longer than a slice of time is *set aside*: its loop goes on with other work, and lets it run for
//! further slices in the turns that follow, until it ends. Meanwhile it keeps its partitions. In the same way a script is set aside
//! that needs a shard which it has not got, once it has changed something. Before that it begins anew, with all shards.

mod calls;
mod checks;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use shardis_protocol::Arguments;
use shardis_storage::number::parse_i64;
use smallvec::SmallVec;

use super::account;
use super::execution::{Call, Caller, Environment};
use super::plan::ShardSet;
use crate::error::ReplyError;
use crate::exec::CommandResult;
use crate::exec::client::{CommandTag, ScriptStage};
use crate::exec::view::Lent;
use crate::journal::{Record, Unit};
use crate::limits::{SCRIPT_SLICE_NS, SCRIPT_SLICE_PAUSES};
use crate::scripting::Flags as ScriptFlags;
use crate::scripting::{
    Answer, Ask, Called, Digest, Given, LoadError, LongScript, Noted, Origin, Outcome, ScriptRun, Step, Stop,
    Targets, level, parse_script, with_local,
};
use crate::spec::{Flags, Registered, ScriptKind};
use crate::state::Node;
pub(crate) use checks::Declared;

/// The word of a script's request that is the number of its keys.
const KEY_COUNT: usize = 2;

thread_local! {
    /// The script of this loop that is set aside.
    static ASIDE: RefCell<Option<Box<Run>>> = const { RefCell::new(None) };

    /// The command that a script of this loop called last. The next script often begins with the same.
    static LAST_CALLED: Cell<Option<CommandTag>> = const { Cell::new(None) };
}

bitflags::bitflags! {
    /// Rights and past of a script that runs.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct State: u8 {
        /// The script must not write.
        const READS_ONLY = 1;
        /// The script may take memory although there is none left.
        const ALLOWS_OOM = 2;
        /// Memory exceeded `maxmemory` when it began.
        const OUT_OF_MEMORY = 4;
        /// The script has called a command that writes.
        const HAS_WRITTEN = 8;
        /// Others know what it has done: it cannot begin anew.
        const IS_BOUND = 16;
        /// Keys may be in several slots.
        const ALLOWS_CROSS_SLOT = 32;
        /// The script belongs to a transaction.
        const IN_TRANSACTION = 64;
        /// The script has touched a key outside the slots of declared ones.
        const STRAYS = 128;
    }
}

/// A script that runs or is set aside.
#[derive(Debug)]
struct Run {
    script: ScriptRun,
    called: Called,
    state: State,
    /// Database that it has selected.
    db: u16,
    /// Unix time of all its commands, milliseconds.
    now_ms: i64,
    /// The same in microseconds, once a command has asked for it or the script has used a slice.
    now_us: Option<i64>,
    /// Receivers of the effects of its next commands.
    targets: Targets,
    /// Slots of its declared keys.
    declared: SmallVec<[u16; 8]>,
    /// Slot of its keys, in a cluster, if they must be in one: of those that are declared, else of the first one touched.
    slot: Option<u16>,
    /// Its last command, or that of the script before it, whose name the next one is compared with.
    last: Option<CommandTag>,
    /// State of the generator of random numbers before it began.
    random: u64,
    /// Offset of its first line for the monitors.
    lines_at: usize,
    /// Its beginning, on the node's stopwatch, nanoseconds.
    began_ns: u64,
    /// Answer that it waits for.
    answer: Answer,
    /// Question that was not answered because a shard was missing.
    unanswered: Option<Ask>,
    /// Its effects so far, while it is set aside.
    record: Record,
    /// Description for other clients, once it has run for long.
    long: Option<Arc<LongScript>>,
}

/// State in which a script leaves its loop.
enum Left {
    /// At its end.
    Ended(Result<Outcome, LoadError>),
    /// At the end of a slice.
    AfterSlice,
    /// For lack of these shards.
    Lacks(ShardSet),
}

/// Whether a script of this loop is set aside, or is to run again.
pub(crate) fn is_any_aside() -> bool {
    ASIDE.with_borrow(Option::is_some)
}

/// Drops the script that is set aside, at the end of its loop.
pub(crate) fn abandon() {
    drop(ASIDE.take());
}

/// The script of this loop that is set aside, if it has run for longer than `busy-reply-threshold`.
pub(crate) fn busy_aside() -> Option<Arc<LongScript>> {
    ASIDE.with_borrow(|aside| {
        let long = aside.as_ref()?.long.clone()?;
        long.is_busy().then_some(long)
    })
}

/// Runs a script, or goes on with the one of this client that was set aside.
///
/// # Errors
/// When there is no such script, or it may not run.
pub(crate) fn run(
    kind: ScriptKind,
    call: &Call<'_>,
    caller: &mut Caller<'_>,
    partitions: &mut Lent,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) -> CommandResult {
    let stage = std::mem::take(&mut caller.client.script);
    if stage == ScriptStage::Failed {
        return Err(give_up(environment));
    }
    let aside = if stage.is_under_way() { ASIDE.take() } else { None };
    let (run, slice_began_ns) = match aside {
        Some(run) => (run, environment.clock.elapsed_ns()),
        None => {
            let run = begin(kind, call, caller, environment)?;
            let began_ns = run.began_ns;
            (run, began_ns)
        }
    };
    if environment.stamp.is_at(run.now_ms) {
        return go_on(run, slice_began_ns, call, caller, partitions, out, environment);
    }
    let environment = &Environment {
        stamp: environment.stamp.at(run.now_ms, environment.settings),
        ..*environment
    };
    go_on(run, slice_began_ns, call, caller, partitions, out, environment)
}

/// Lets a script run for a slice, at its time, which is that of the environment.
fn go_on(
    mut run: Box<Run>,
    slice_began_ns: u64,
    call: &Call<'_>,
    caller: &mut Caller<'_>,
    partitions: &mut Lent,
    out: &mut Vec<u8>,
    environment: &Environment<'_>,
) -> CommandResult {
    caller.now_ms = run.now_ms;
    let records = environment.recorder.is_on() && !run.state.contains(State::IN_TRANSACTION);
    let unit = records.then(|| {
        let record = std::mem::take(&mut run.record);
        environment.recorder.resume(record)
    });
    let until_ns = slice_began_ns + SCRIPT_SLICE_NS;
    let left = run.go_on(until_ns, call, caller, partitions, environment);
    match left {
        Left::Ended(ended) => {
            drop(unit);
            run.end(ended, call.command, caller, out, environment)
        }
        Left::AfterSlice => {
            run.time_us(environment);
            run.note_long(call, caller, partitions, environment);
            caller.client.script = ScriptStage::Aside;
            run.set_aside(unit);
            Ok(())
        }
        Left::Lacks(shards) if run.state.contains(State::IS_BOUND) => {
            run.called.habits().note_stray();
            run.note_long(call, caller, partitions, environment);
            caller.client.script = ScriptStage::Lacks(shards.iter().collect());
            run.set_aside(unit);
            Ok(())
        }
        Left::Lacks(_) => {
            drop(unit);
            run.begin_anew(caller);
            Ok(())
        }
    }
}

/// The script or function that a request calls.
///
/// # Errors
/// When there is none.
fn find(kind: ScriptKind, args: Arguments<'_>, node: &Node) -> Result<Called, ReplyError> {
    let scripts = &node.scripts;
    match kind {
        ScriptKind::Source => with_local(|local| local.add(scripts, args.at(1), Origin::Evaluated))
            .map(Called::Script)
            .map_err(|error| ReplyError::Text(error.to_string())),
        ScriptKind::Digest => with_local(|local| local.find_named(scripts, args.at(1)))
            .map(Called::Script)
            .ok_or(ReplyError::NoScript),
        ScriptKind::Function => with_local(|local| local.find_function(scripts, args.at(1)))
            .ok_or(ReplyError::Fixed("ERR Function not found")),
    }
}

/// Conditions that the script of a request declares, whether it is known already or not; `None` if it declares none.
pub(crate) fn declared_flags(kind: ScriptKind, args: Arguments<'_>, node: &Node) -> Option<ScriptFlags> {
    match kind {
        ScriptKind::Source => parse_script(args.get(1)?).ok()?.flags,
        ScriptKind::Digest | ScriptKind::Function => find_known(kind, args, node)?.flags(),
    }
}

/// The script of a request, if it is known already.
fn find_known(kind: ScriptKind, args: Arguments<'_>, node: &Node) -> Option<Called> {
    let scripts = &node.scripts;
    let word = args.get(1)?;
    with_local(|local| match kind {
        ScriptKind::Source => {
            let digest = local.digest_of(word);
            local.find(scripts, &digest).map(Called::Script)
        }
        ScriptKind::Digest => local.find_named(scripts, word).map(Called::Script),
        ScriptKind::Function => local.find_function(scripts, word),
    })
}

/// The number of keys of a request, which has so many words behind it.
fn key_count(kind: ScriptKind, args: Arguments<'_>) -> Result<usize, ReplyError> {
    let count = parse_i64(args.at(KEY_COUNT)).ok_or(match kind {
        ScriptKind::Function => ReplyError::Fixed("ERR Bad number of keys provided"),
        ScriptKind::Source | ScriptKind::Digest => ReplyError::NotInteger,
    })?;
    if count > (args.len() - KEY_COUNT - 1) as i64 {
        return Err(ReplyError::Fixed(
            "ERR Number of keys can't be greater than number of args",
        ));
    }
    usize::try_from(count).map_err(|_| ReplyError::Fixed("ERR Number of keys can't be negative"))
}

/// Prepares the run of a script.
fn begin(
    kind: ScriptKind,
    call: &Call<'_>,
    caller: &mut Caller<'_>,
    environment: &Environment<'_>,
) -> Result<Box<Run>, ReplyError> {
    let (args, node) = (call.args, environment.node);
    if kind == ScriptKind::Digest && args.at(1).len() != Digest::DIGITS {
        return Err(ReplyError::NoScript);
    }
    let is_function = kind == ScriptKind::Function;
    let early = is_function.then(|| find(kind, args, node)).transpose()?;
    let keys = key_count(kind, args)?;
    let called = match early {
        Some(called) => called,
        None => find(kind, args, node)?,
    };
    let reads_only = call.command.row.flags.contains(Flags::READONLY);
    checks::check_declared(called.flags(), reads_only, caller.client, environment)?;
    let lines_at = show(call, caller, environment);
    let given = Given {
        words: args.tail(KEY_COUNT + 1),
        keys,
    };
    let reply = (caller.client.resp, environment.reply_bytes_max);
    let (script, random) = with_local(|local| {
        let random = local.random();
        (local.begin(called.clone(), given, reply, &node.clock), random)
    });
    let tracks = environment.shards > 1 && !called.habits().has_strayed();
    let declared = given.words.iter().take(if tracks { keys } else { 0 });
    let declared = declared.map(|key| environment.hashing.slot(key)).collect();
    let is_in_cluster = environment.slots.is_some();
    let first = given.words.iter().take(keys).next().filter(|_| is_in_cluster);
    let slot = first.map(|key| environment.hashing.slot(key));
    let transaction_us = caller.client.transaction_us;
    if transaction_us.is_none() {
        // What is set aside with a script is nothing but its own.
        environment.hand_over();
    }
    Ok(Box::new(Run {
        script,
        state: checks::state(called.flags(), reads_only, transaction_us.is_some(), environment),
        called,
        db: caller.client.db,
        now_ms: transaction_us.map_or(environment.stamp.wall_ms, |us| us / 1000),
        now_us: transaction_us,
        targets: Targets::all(),
        declared,
        slot,
        last: LAST_CALLED.get(),
        random,
        lines_at,
        began_ns: environment.clock.elapsed_ns(),
        answer: Answer::GoOn,
        unanswered: None,
        record: Record::default(),
        long: None,
    }))
}

/// Shows a script to the monitors before the commands that it calls. Returns where its lines begin.
fn show(call: &Call<'_>, caller: &mut Caller<'_>, environment: &Environment<'_>) -> usize {
    let Some(lines) = &mut caller.lines else {
        return 0;
    };
    let at = lines.len();
    account::show_always(lines, environment.node, caller.client, call.command, call.args);
    at
}

impl Run {
    /// Lets the script run until it leaves its loop, and answers its questions. Its slice ends at `until_ns`.
    fn go_on(
        &mut self,
        until_ns: u64,
        call: &Call<'_>,
        caller: &mut Caller<'_>,
        partitions: &mut Lent,
        environment: &Environment<'_>,
    ) -> Left {
        let mut pauses = 0;
        let mut step = match self.unanswered.take() {
            Some(ask) => Step::Asks(ask),
            None => self.script.resume(self.answer),
        };
        loop {
            let ask = match step {
                Step::Ended(ended) => return Left::Ended(ended),
                Step::Asks(ask) => ask,
            };
            self.answer = match ask {
                Ask::Pause => {
                    pauses += 1;
                    if self.is_to_stop(environment) {
                        Answer::Stop(Stop::Killed)
                    } else if pauses >= SCRIPT_SLICE_PAUSES || environment.clock.elapsed_ns() >= until_ns {
                        self.answer = Answer::GoOn;
                        return Left::AfterSlice;
                    } else {
                        Answer::GoOn
                    }
                }
                Ask::Call(resp) => match self.command(resp, call, caller, partitions, environment) {
                    Ok(()) => Answer::GoOn,
                    Err(shards) => {
                        self.unanswered = Some(ask);
                        return Left::Lacks(shards);
                    }
                },
                Ask::MayRun => Answer::May(self.may_run(caller.client, environment)),
                Ask::Log(of_level) => {
                    self.state |= State::IS_BOUND;
                    let words = self.script.exchange.words.borrow();
                    let line = String::from_utf8_lossy(words.arguments().at(0));
                    environment
                        .node
                        .log
                        .write(level(of_level), format_args!("{line}"));
                    Answer::GoOn
                }
                Ask::ReplicateTo(targets) => {
                    self.targets = targets;
                    Answer::GoOn
                }
            };
            step = self.script.resume(self.answer);
        }
    }

    /// Time of all its commands. It is looked at when the first one asks for it, as few do, but not much later than the script began.
    fn time_us(&mut self, environment: &Environment<'_>) -> i64 {
        let least_us = self.now_ms * 1000;
        *self
            .now_us
            .get_or_insert_with(|| environment.clock.now_us().max(least_us))
    }

    /// Whether the script is to end: a client wants that, or the node stops.
    fn is_to_stop(&self, environment: &Environment<'_>) -> bool {
        let is_killed = self.long.as_ref().is_some_and(|long| long.is_killed());
        is_killed || environment.node.shutdown.is_requested()
    }

    /// Makes the script known to other clients, and to the log when it has run for too long.
    fn note_long(
        &mut self,
        call: &Call<'_>,
        caller: &Caller<'_>,
        partitions: &Lent,
        environment: &Environment<'_>,
    ) {
        let node = environment.node;
        self.called.habits().note_slow();
        let long = self.long.get_or_insert_with(|| {
            node.scripts.long.note(Noted {
                is_function: self.called.is_function(),
                name: self.called.name(),
                words: call.args.iter().map(Box::from).collect(),
                began_ns: self.began_ns,
                is_of_primary: caller.client.is_primary,
                shards: environment.shards,
            })
        });
        partitions.shards().for_each(|shard| long.hold(shard));
        if self.state.contains(State::HAS_WRITTEN) {
            long.note_write();
        }
        let elapsed_ms = (environment.clock.elapsed_ns() - self.began_ns) / 1_000_000;
        let threshold_ms = environment.settings.busy_reply_threshold;
        if threshold_ms == 0 || elapsed_ms < threshold_ms || long.is_busy() {
            return;
        }
        node.scripts.long.note_busy(long);
        node.log.warning(format_args!(
            "Slow script detected: still in execution after {elapsed_ms} milliseconds. You can try killing the script using \
             the {} command. Script name is: {}.",
            if long.is_function { "FUNCTION KILL" } else { "SCRIPT KILL" },
            long.name.escape_ascii()
        ));
        node.ring_all();
    }

    /// Leaves the script where it is, with its effects so far.
    fn set_aside(mut self: Box<Self>, unit: Option<Unit<'_>>) {
        self.record = unit.map(Unit::suspend).unwrap_or_default();
        ASIDE.set(Some(self));
    }

    /// Ends a script that lacks a shard and has changed nothing. It begins anew with all shards, as if it had never run.
    fn begin_anew(mut self: Box<Self>, caller: &mut Caller<'_>) {
        self.called.habits().note_stray();
        self.answer = Answer::Stop(Stop::Host);
        while let Step::Asks(_) = self.script.resume(self.answer) {}
        if let Some(lines) = &mut caller.lines {
            lines.truncate(self.lines_at);
        }
        let Self { script, random, .. } = *self;
        with_local(|local| {
            local.end(script);
            local.set_random(random);
        });
        caller.client.script = ScriptStage::WantsAll;
    }

    /// Passes the reply of a script on that has ended.
    fn end(
        self: Box<Self>,
        ended: Result<Outcome, LoadError>,
        command: &Registered,
        caller: &mut Caller<'_>,
        out: &mut Vec<u8>,
        environment: &Environment<'_>,
    ) -> CommandResult {
        if environment.shards > 1 && ended.is_ok() {
            let habits = self.called.habits();
            if self.state.contains(State::STRAYS) {
                habits.note_stray();
            } else {
                habits.note_clean();
            }
        }
        if let Some(long) = &self.long {
            environment.node.scripts.long.remove(long);
            environment.node.ring_all();
        }
        let reply = self.script.exchange.out.borrow();
        out.extend_from_slice(&reply);
        if let Ok(Outcome::Failed { is_counted }) = ended {
            count_failure(command, &reply, is_counted, environment);
        }
        drop(reply);
        LAST_CALLED.set(self.last);
        with_local(|local| local.end(self.script));
        debug_assert!(caller.client.script == ScriptStage::None);
        ended
            .map(drop)
            .map_err(|error| ReplyError::Text(error.to_string()))
    }
}

/// Counts a script that has failed. An error of a command was counted with the command.
#[cold]
fn count_failure(command: &Registered, reply: &[u8], is_counted: bool, environment: &Environment<'_>) {
    if is_counted {
        environment.stats.failed_as_counted(command.id);
    } else {
        let line = reply.strip_prefix(b"-").unwrap_or(reply);
        environment.stats.failed(command.id, line.trim_ascii_end());
    }
}

/// The shards that a script is begun with: those of its declared keys if it is trusted, else all.
pub(crate) fn shards_of_script(
    kind: ScriptKind,
    args: Arguments<'_>,
    (node, of_loop): (&Node, usize),
) -> ShardSet {
    let (shards, hashing) = (node.shards, node.hashing);
    if shards == 1 {
        return ShardSet::all(1);
    }
    let is_trusted = find_known(kind, args, node).is_some_and(|called| called.habits().is_trusted());
    let Some(keys) = key_count(kind, args).ok().filter(|_| is_trusted) else {
        return ShardSet::all(shards);
    };
    let mut set = ShardSet::none(shards);
    for key in args.tail(KEY_COUNT + 1).iter().take(keys) {
        set.insert(hashing.shard_of(hashing.slot(key)));
    }
    if set.len() == 0 {
        set.insert(of_loop);
    }
    set
}

/// Whether a script is known to take little time: it may hold the cells of its shards.
pub(crate) fn is_short(kind: ScriptKind, args: Arguments<'_>, node: &Node) -> bool {
    node.shards == 1 || find_known(kind, args, node).is_some_and(|called| !called.habits().is_slow())
}

/// Ends a script that is set aside and cannot go on. Its changes so far stay, as those of a script that fails.
#[cold]
fn give_up(environment: &Environment<'_>) -> ReplyError {
    if let Some(mut run) = ASIDE.take() {
        if !run.state.contains(State::IN_TRANSACTION) {
            drop(environment.recorder.resume(std::mem::take(&mut run.record)));
        }
        if let Some(long) = &run.long {
            environment.node.scripts.long.remove(long);
        }
    }
    ReplyError::Fixed(
        "ERR Script needs a key of a shard which is held by another script that needs a key of this one; its changes so far stay",
    )
}
