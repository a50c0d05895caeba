//! [`Execution`]: one command from its call to its reply, for every way in which commands run: in a batch, alone on
//! the partitions it needs, in a transaction, or served to a client that waited.
//!
//! [`Execution::run`] holds the only `match` on where a row runs, [`run_part`] its counterpart for commands that
//! every shard or loop runs a part of. A panic in a handler ends only that command: its client gets an error, and the
//! loop continues.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shardis_protocol::{Arguments, Bypass, Encoder, Resp};
use shardis_storage::memory::Buffer;

use super::plan::{self, Routed};
use super::{auditing, script, transaction};
use crate::clock::Clock;
use crate::cluster::{SeenMap, SlotMap};
use crate::config::Settings;
use crate::error::ReplyError;
use crate::exec::client::AwaitedSave;
use crate::exec::effect::Outcome;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Outbox, Waiting};
use crate::exec::{
    Client, CommandResult, Context, Effects, Handler, Modes, Origin, Part, Partition, Reload, Roster,
    Session, ShardHandler, Stamp, View, Walk, WalkHandler, WalkReply, Written,
};
use crate::hashing::Hashing;
use crate::journal::{Position, Recorder, Unit};
use crate::limits::{LOOK_SHARED_NS, TIMED_EACH_BELOW_NS};
use crate::observe::stats::LoopStats;
use crate::saving::{Job, Purpose};
use crate::shard::Mesh;
use crate::spec::key_spec::{KeyFlags, keys_of};
use crate::spec::{Flags, Registered, Runs};
use crate::state::Node;

/// Data shared by the commands of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Environment<'a> {
    /// The hashing of keys.
    pub(crate) hashing: Hashing,
    /// Time and rules of access.
    pub(crate) stamp: Stamp,
    /// The settings in effect.
    pub(crate) settings: &'a Settings,
    /// Number of shards of the node.
    pub(crate) shards: usize,
    /// The node.
    pub(crate) node: &'a Node,
    /// The map of slots, in a cluster.
    pub(crate) slots: Option<SeenMap<'a>>,
    /// Time of the look at the clock behind `stamp`, on the node's stopwatch, nanoseconds.
    pub(crate) looked_ns: u64,
    /// Clock that measures how long commands take.
    pub(crate) clock: &'a Clock,
    /// Counters of the loop that runs the commands.
    pub(crate) stats: &'a LoopStats,
    /// Duration from which a command is slow, nanoseconds.
    pub(crate) slow_from_ns: u64,
    /// All shards of the node, for commands that have to borrow one.
    pub(crate) mesh: &'a Mesh,
    /// Reads the node's files again; none where that is impossible.
    pub(crate) reload: Option<&'a dyn Reload>,
    /// Collects the results of serving tickets.
    pub(crate) outbox: &'a RefCell<Outbox>,
    /// Records effects.
    pub(crate) recorder: &'a Recorder,
    /// Stands in for it where effects are not recorded: they are in the primary's stream.
    pub(crate) silent: &'a Recorder,
    /// Size from which a reply is too long for any client, bytes.
    pub(crate) reply_bytes_max: usize,
}

impl Environment<'_> {
    /// Whether each command is timed by itself: the threshold of the slow log is so low that an average over a batch
    /// would not do.
    pub(crate) fn times_each(&self) -> bool {
        self.slow_from_ns < TIMED_EACH_BELOW_NS
    }

    /// The newest map of slots, if there is one after that of this environment. A look at it that is taken while a partition is
    /// held is good for all commands on that partition, until it is let go of.
    #[inline]
    pub(crate) fn newer_slots(&self) -> Option<Arc<SlotMap>> {
        let (cluster, slots) = (self.node.cluster.as_ref()?, self.slots?);
        (cluster.version() != slots.number()).then(|| cluster.map())
    }

    /// Hands the recorded effects to the journal. To be called before a partition that they changed is let go of.
    #[inline]
    pub(crate) fn hand_over(&self) {
        if self.recorder.hand_over() {
            let position = self.recorder.position();
            // A client that was served has its part in what was handed over first after that.
            for served in &mut self.outbox.borrow_mut().served {
                served.position.get_or_insert(position);
            }
        }
    }

    /// Takes over a look at the clock: the next command begins at `now_ns` on the node's stopwatch.
    pub(crate) fn look(&mut self, now_ns: u64) {
        self.looked_ns = now_ns;
        self.stamp = Stamp::on(self.node, self.settings, self.clock.now_us() / 1000);
    }

    /// Looks at the clock unless the last look is recent: short commands share one.
    #[inline]
    pub(crate) fn keep_fresh(&mut self, now_ns: u64) {
        if now_ns - self.looked_ns >= LOOK_SHARED_NS {
            self.look(now_ns);
        }
    }
}

/// A command that is about to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// Its row.
    pub(crate) command: &'static Registered,
    /// Its arguments.
    pub(crate) args: Arguments<'a>,
    /// The database that its client selected.
    pub(crate) db: u16,
    /// Low bits of its client's id; 0 if no client has sent it.
    pub(crate) client: u32,
    /// Modes of its client.
    pub(crate) modes: Modes,
    /// The end of the effects of its client's commands in the journal, for a command that may wait, or is in a transaction.
    pub(crate) wrote_to: Position,
    /// The key that routed the command.
    pub(crate) routed: Routed,
    /// On whose behalf it runs.
    pub(crate) origin: Origin,
    /// Permission of the command to wait.
    pub(crate) waiting: Waiting<'a>,
}

/// The client and node that a command without keys works on.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// The client.
    pub(crate) client: &'a mut Client,
    /// Its node.
    pub(crate) node: &'a Node,
    /// The recorder of effects.
    pub(crate) recorder: &'a Recorder,
    /// Unix time in milliseconds.
    pub(crate) now_ms: i64,
    /// Lines for the monitors about the commands of a transaction; none when there are no monitors.
    pub(crate) lines: Option<&'a mut Vec<u8>>,
}

impl Caller<'_> {
    /// The client together with one of its requests.
    fn session<'s>(
        &'s mut self,
        args: Arguments<'s>,
        reply: Encoder<'s>,
        reload: Option<&'s dyn Reload>,
    ) -> Session<'s> {
        Session {
            args,
            reply,
            reload,
            client: self.client,
            node: self.node,
            recorder: self.recorder,
            now_ms: self.now_ms,
        }
    }
}

/// The resources gathered for a command, besides its client.
pub(crate) enum Access<'a> {
    /// None: the command works on its client and the node.
    Nothing,
    /// Partitions: the one of its shard, or those of all shards that it needs.
    Partitions(Held<'a>),
    /// The parts that shards or loops have run, to be merged into one reply.
    Parts(&'a Result<Vec<Part>, ReplyError>),
}

/// A running command and its reply.
#[derive(Debug)]
pub(crate) struct Execution<'a> {
    call: Call<'a>,
    /// A big argument that the command may keep instead of copying it.
    adopted: Option<(usize, Buffer)>,
    out: &'a mut Vec<u8>,
    /// Offset of its reply in `out`.
    start: usize,
    /// The way for a large reply past `out`, if there is one.
    bypass: Option<&'a mut dyn Bypass>,
    /// The command has removed all data.
    has_flushed_all: bool,
}

impl<'a> Execution<'a> {
    /// Begins a command whose reply is appended to `out`.
    #[inline]
    pub(crate) fn begin(call: Call<'a>, adopted: Option<(usize, Buffer)>, out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self {
            call,
            adopted,
            out,
            start,
            bypass: None,
            has_flushed_all: false,
        }
    }

    /// The same command, whose reply may go past the buffer.
    #[inline]
    pub(crate) fn with_bypass(self, bypass: Option<&'a mut dyn Bypass>) -> Self {
        Self { bypass, ..self }
    }

    /// Runs the command, and completes its reply or replaces it by its error. The caller catches panics.
    #[inline]
    pub(crate) fn run(
        &mut self,
        caller: Option<&mut Caller<'_>>,
        access: Access<'_>,
        environment: &Environment<'_>,
    ) {
        if self.call.origin == Origin::Primary {
            return self.run_for_primary(caller, access, environment);
        }
        if let Err(error) = self.run_row(caller, access, environment) {
            self.fail(&error, environment);
        }
    }

    /// Runs a command of the primary's stream. Nothing has expired for it, and its effects are not recorded: they are in the stream.
    fn run_for_primary(
        &mut self,
        caller: Option<&mut Caller<'_>>,
        access: Access<'_>,
        environment: &Environment<'_>,
    ) {
        let environment = &Environment {
            stamp: environment.stamp.of_primary(),
            recorder: environment.silent,
            ..*environment
        };
        let result = match caller {
            Some(caller) => {
                let caller = &mut Caller {
                    client: &mut *caller.client,
                    recorder: environment.silent,
                    lines: caller.lines.as_deref_mut(),
                    ..*caller
                };
                self.run_row(Some(caller), access, environment)
            }
            None => self.run_row(None, access, environment),
        };
        if let Err(error) = result {
            self.fail(&error, environment);
            report_to_primary(environment.node, self.call.command, &error);
        }
    }

    /// Runs the command like [`run`](Self::run), and catches a panic; false if there was one.
    pub(crate) fn run_guarded(
        &mut self,
        caller: Option<&mut Caller<'_>>,
        access: Access<'_>,
        environment: &Environment<'_>,
    ) -> bool {
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run(caller, access, environment)));
        if outcome.is_err() {
            self.fail(&ReplyError::Internal, environment);
        }
        outcome.is_ok()
    }

    /// Ends the command with an error instead of running it.
    pub(crate) fn refuse(&mut self, error: &ReplyError, environment: &Environment<'_>) {
        self.fail(error, environment);
    }

    fn fail(&mut self, error: &ReplyError, environment: &Environment<'_>) {
        let (command, resp) = (self.call.command, self.call.modes.resp());
        fail(command, error, self.out, self.start, resp, environment);
    }

    /// Calls the handler of the command's row with what that kind of row gets.
    #[inline(always)]
    fn run_row(
        &mut self,
        caller: Option<&mut Caller<'_>>,
        access: Access<'_>,
        environment: &Environment<'_>,
    ) -> CommandResult {
        let (command, args, db) = (self.call.command, self.call.args, self.call.db);
        match (command.row.runs, access, caller) {
            (
                Runs::OnKeys(handler)
                | Runs::OnKeysLong(handler)
                | Runs::OnSlot(handler)
                | Runs::Blocking(handler),
                Access::Partitions(held),
                _,
            ) => self.run_on_keys(handler, held, environment),
            (Runs::OnAllShards(handler), Access::Partitions(held), caller) => {
                let result = self.run_on_keys(handler, held, environment);
                if self.has_flushed_all {
                    save_emptied(caller, environment);
                }
                result
            }
            (Runs::OnCursorShards(handler, reply), access, _) => {
                self.answer_walk(handler, reply, access, environment)
            }
            (Runs::OnSession(handler), _, Some(caller)) => self.run_on_session(caller, environment, handler),
            (
                Runs::OnSessionAndKeys(handler) | Runs::OnSessionAndAllShards(handler),
                Access::Partitions(mut held),
                Some(caller),
            ) => {
                held.note_writer(self.call.client);
                let recording = Recording::begin(environment.recorder, db, args);
                let mut view = View::new(held.reborrow(), environment.hashing, &environment.stamp, db);
                let run = |session: &mut Session<'_>| handler(session, &mut view);
                let result = self.run_on_session(caller, environment, run);
                recording.end(held);
                result
            }
            (Runs::Exec, Access::Partitions(Held::Many(partitions)), Some(caller)) => {
                transaction::exec(caller, partitions, self.out, environment)
            }
            (Runs::Script(kind), Access::Partitions(Held::Many(partitions)), Some(caller)) => {
                script::run(kind, &self.call, caller, partitions, self.out, environment)
            }
            (
                Runs::OnEveryShard(_, merge) | Runs::OnEveryLoop(_, merge),
                Access::Parts(parts),
                Some(caller),
            ) => merge(
                &mut self.session(caller, environment),
                parts.as_ref().map_err(Clone::clone)?,
            ),
            (Runs::OnEveryShard(each, merge), Access::Partitions(Held::Many(partitions)), Some(caller)) => {
                let parts = self.parts_of(each, partitions, environment)?;
                merge(&mut self.session(caller, environment), &parts)
            }
            _ => unreachable!("a command is run with what its row needs"),
        }
    }

    /// Runs a handler on the client with this request, and has the audit log tell of that if the row says so.
    #[inline]
    fn run_on_session(
        &mut self,
        caller: &mut Caller<'_>,
        environment: &Environment<'_>,
        run: impl FnOnce(&mut Session<'_>) -> CommandResult,
    ) -> CommandResult {
        let Call { command, args, .. } = self.call;
        let Some(audited) = command.row.audited else {
            return run(&mut self.session(caller, environment));
        };
        let begun = auditing::begin(caller.node, caller.client, command, audited, args)?;
        let result = run(&mut self.session(caller, environment));
        if let Some(begun) = begun {
            auditing::end(begun, caller.node, command, args, &result);
        }
        result
    }

    /// The client with this request.
    fn session<'s>(
        &'s mut self,
        caller: &'s mut Caller<'_>,
        environment: &'s Environment<'_>,
    ) -> Session<'s> {
        let args = self.call.args;
        caller.session(args, self.encoder(environment), environment.reload)
    }

    fn encoder(&mut self, environment: &Environment<'_>) -> Encoder<'_> {
        let cut_at = self.start.saturating_add(environment.reply_bytes_max);
        Encoder::new(self.out, self.call.modes.resp()).cut_at(cut_at)
    }

    /// The parts of a command over every shard, run in a transaction that holds all partitions.
    fn parts_of(
        &self,
        each: ShardHandler,
        partitions: &mut Lent,
        environment: &Environment<'_>,
    ) -> Result<Vec<Part>, ReplyError> {
        let mut parts = Vec::new();
        for shard in 0..partitions.len() {
            if let Some(partition) = partitions.turn_to(shard) {
                parts.push(part_of_shard(each, partition, &self.call, environment)?);
            }
        }
        Ok(parts)
    }

    /// Replies with what a walk has found, or finds now.
    fn answer_walk(
        &mut self,
        handler: WalkHandler,
        reply: WalkReply,
        access: Access<'_>,
        environment: &Environment<'_>,
    ) -> CommandResult {
        match access {
            Access::Parts(parts) => {
                let parts = parts.as_ref().map_err(Clone::clone)?;
                parts
                    .iter()
                    .for_each(|found| reply(&mut self.encoder(environment), found));
            }
            Access::Partitions(held) => {
                let found = self.walk(handler, held, environment)?;
                reply(&mut self.encoder(environment), &found);
            }
            Access::Nothing => unreachable!("a walk is run with partitions, or has been"),
        }
        Ok(())
    }

    /// Runs one call of a walk with all shards that it may reach.
    fn walk(
        &self,
        handler: WalkHandler,
        mut held: Held<'_>,
        environment: &Environment<'_>,
    ) -> Result<Part, ReplyError> {
        let mut walk = Walk::at(self.call.args.at(1), environment.shards)?;
        loop {
            let partition = match &mut held {
                Held::Many(partitions) => partitions.turn_to(walk.shard),
                held => held.first(),
            };
            let partition = partition.expect("the shards from the cursor's on are at hand");
            step_of_walk(handler, partition, &mut walk, &self.call, environment)?;
            if !walk.advance(environment.shards) {
                return Ok(walk.end(environment.shards));
            }
        }
    }

    /// Runs a handler on the partitions, and hands its effects to the journal, if there is one.
    #[inline(always)]
    fn run_on_keys(
        &mut self,
        handler: Handler,
        mut held: Held<'_>,
        environment: &Environment<'_>,
    ) -> CommandResult {
        count_on_shards(&mut held, &self.call, environment);
        held.note_writer(self.call.client);
        let tracks = self.call.modes.contains(Modes::TRACKS);
        match held {
            Held::One(partition) if !environment.recorder.is_on() && !tracks => {
                let mut effects = Effects::new(false);
                let held = Held::One(&mut *partition);
                let result = self.call_handler(handler, held, &mut effects, environment);
                partition.door.figures.changes += effects.changes();
                result
            }
            held => self.run_recorded(handler, held, environment),
        }
    }

    fn run_recorded(
        &mut self,
        handler: Handler,
        mut held: Held<'_>,
        environment: &Environment<'_>,
    ) -> CommandResult {
        let mut recording = Recording::begin(environment.recorder, self.call.db, self.call.args);
        let result = self.call_handler(handler, held.reborrow(), &mut recording.effects, environment);
        held.end_command();
        if self.call.modes.contains(Modes::TRACKS) {
            remember_reads(&mut held, &self.call, environment);
        }
        self.has_flushed_all = recording.effects.has_flushed_all();
        recording.end(held);
        result
    }

    #[inline(always)]
    fn call_handler(
        &mut self,
        handler: Handler,
        held: Held<'_>,
        effects: &mut Effects,
        environment: &Environment<'_>,
    ) -> CommandResult {
        let Call {
            args,
            db,
            modes,
            wrote_to,
            routed,
            waiting,
            ..
        } = self.call;
        let cut_at = self.start.saturating_add(environment.reply_bytes_max);
        let mut view = View::new(held, environment.hashing, &environment.stamp, db);
        view.no_touch = modes.contains(Modes::NO_TOUCH);
        let bypass = self
            .bypass
            .as_mut()
            .map(|bypass| &mut **bypass as &mut dyn Bypass);
        handler(&mut Context {
            args,
            reply: Encoder::new(self.out, modes.resp())
                .cut_at(cut_at)
                .with_bypass(bypass),
            keyspace: view,
            effects,
            settings: environment.settings,
            shards: environment.shards,
            routed: (routed.index > 0).then_some((usize::from(routed.index), routed.hash, routed.slot)),
            adopted: self.adopted.take(),
            waiting,
            written: Written::new(environment.node, wrote_to),
        })
    }
}

/// Notes that a command of the primary's stream has failed, which it did not there.
#[cold]
fn report_to_primary(node: &Node, command: &Registered, error: &ReplyError) {
    node.note_divergence(&error.line(), &command.full_name);
}

/// Replies with an error, replacing what the command has written from `start` on.
#[cold]
pub(crate) fn fail(
    command: &Registered,
    error: &ReplyError,
    out: &mut Vec<u8>,
    start: usize,
    resp: Resp,
    environment: &Environment<'_>,
) {
    environment.stats.failed(command.id, &error.line());
    out.truncate(start);
    Encoder::new(out, resp).error(error.line());
}

/// Gives up what is being saved of data that was removed, and saves that there is none if there are save points. The reply of the
/// command that removed it waits for that.
fn save_emptied(caller: Option<&mut Caller<'_>>, environment: &Environment<'_>) {
    let (persistence, settings) = (&environment.node.persistence, environment.settings);
    let is_of_data = |purpose| matches!(purpose, Purpose::Background | Purpose::Command | Purpose::Flush);
    if settings.save.0.is_empty() {
        persistence.give_up(is_of_data);
        return;
    }
    let job = Job::dump(Purpose::Flush, settings);
    let begun = persistence.begin_instead(job, environment.clock.now_us(), is_of_data);
    if let (Ok(number), Some(caller)) = (begun, caller) {
        caller.client.awaits_save = Some(AwaitedSave {
            number,
            failure: None,
        });
    }
}

/// The resources for one shard's or loop's part of a command.
pub(crate) enum PartAccess<'a> {
    /// The partition of the shard.
    Partition(&'a mut Partition),
    /// The connections of the loop.
    Roster(Roster<'a>),
}

/// Runs one shard's or loop's part of a command. A panic is reported as [`ReplyError::Internal`].
///
/// # Errors
///
/// The error of the handler.
pub(crate) fn run_part(
    call: &Call<'_>,
    access: PartAccess<'_>,
    environment: &Environment<'_>,
) -> Result<Part, ReplyError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| match (call.command.row.runs, access) {
        (Runs::OnEveryShard(each, _), PartAccess::Partition(partition)) => {
            part_of_shard(each, partition, call, environment)
        }
        (Runs::OnEveryLoop(each, _), PartAccess::Roster(mut roster)) => each(&mut roster),
        _ => unreachable!("only commands on every shard or loop have parts, each of their own kind"),
    }));
    outcome.unwrap_or(Err(ReplyError::Internal))
}

/// Does what one call of a walk has to do on the shard that it has come to. One that panics has failed with
/// [`ReplyError::Internal`].
///
/// # Errors
/// The error of the handler.
pub(crate) fn run_walk(
    call: &Call<'_>,
    partition: &mut Partition,
    walk: &mut Walk,
    environment: &Environment<'_>,
) -> CommandResult {
    let outcome = catch_unwind(AssertUnwindSafe(|| match call.command.row.runs {
        Runs::OnCursorShards(handler, _) => step_of_walk(handler, partition, walk, call, environment),
        _ => unreachable!("only a walk goes from shard to shard"),
    }));
    outcome.unwrap_or(Err(ReplyError::Internal))
}

fn step_of_walk(
    handler: WalkHandler,
    partition: &mut Partition,
    walk: &mut Walk,
    call: &Call<'_>,
    environment: &Environment<'_>,
) -> CommandResult {
    partition.door.figures.commands += 1;
    let mut bytes = std::mem::take(&mut walk.found.bytes);
    on_shard(partition, call, &mut bytes, environment, |ctx| handler(ctx, walk))?;
    walk.found.is_cut = bytes.len() >= environment.reply_bytes_max;
    walk.found.bytes = bytes;
    Ok(())
}

fn part_of_shard(
    each: ShardHandler,
    partition: &mut Partition,
    call: &Call<'_>,
    environment: &Environment<'_>,
) -> Result<Part, ReplyError> {
    let mut bytes = Vec::new();
    let count = on_shard(partition, call, &mut bytes, environment, each)?;
    let is_cut = bytes.len() >= environment.reply_bytes_max;
    Ok(Part {
        count,
        bytes,
        is_cut,
        ..Part::default()
    })
}

/// Runs a part of a command on one partition; what it encodes goes behind what is in `bytes`.
fn on_shard<T>(
    partition: &mut Partition,
    call: &Call<'_>,
    bytes: &mut Vec<u8>,
    environment: &Environment<'_>,
    run: impl FnOnce(&mut Context<'_>) -> Result<T, ReplyError>,
) -> Result<T, ReplyError> {
    let mut held = Held::One(partition);
    let mut recording = Recording::begin(environment.recorder, call.db, call.args);
    let result = run(&mut Context {
        args: call.args,
        reply: Encoder::new(bytes, call.modes.resp()).cut_at(environment.reply_bytes_max),
        keyspace: View::new(held.reborrow(), environment.hashing, &environment.stamp, call.db),
        effects: &mut recording.effects,
        settings: environment.settings,
        shards: environment.shards,
        routed: None,
        adopted: None,
        waiting: Waiting::Denied,
        written: Written::new(environment.node, Position::default()),
    });
    recording.end(held);
    result
}

/// Counts a command on the shards of its keys: of the partitions lent for a transaction, a command may touch only
/// some. A command that is served after it waited was counted when it arrived.
#[inline]
fn count_on_shards(held: &mut Held<'_>, call: &Call<'_>, environment: &Environment<'_>) {
    if !call.origin.counts_on_shards() {
        return;
    }
    match held {
        Held::One(partition) => partition.door.figures.commands += 1,
        Held::Two(both, _) => both
            .iter_mut()
            .for_each(|partition| partition.door.figures.commands += 1),
        Held::Many(partitions) => {
            let shards = plan::shards_of(call.command, call.args, environment.hashing);
            for shard in shards.iter() {
                if let Some(partition) = partitions.get_mut(shard).and_then(Option::as_mut) {
                    partition.door.figures.commands += 1;
                }
            }
        }
    }
}

/// Has the partitions remember that a tracker has read the keys of a command. They are still held: no change in between goes untold.
#[cold]
fn remember_reads(held: &mut Held<'_>, call: &Call<'_>, environment: &Environment<'_>) {
    if !call.command.row.flags.contains(Flags::READONLY) {
        return;
    }
    // The keys of a command that may run have been found before.
    let _ = keys_of(call.command.row.keys, call.args, |index, flags| {
        if !flags.contains(KeyFlags::NOT_KEY)
            && let Some(name) = call.args.get(index)
        {
            held.remember_read(&environment.hashing.key(name), call.client);
        }
    });
}

/// Collector for the effects of a running command. When the command panics, the effects reported before still enter
/// the journal, and the history is marked as broken: other changes of the command are not known.
struct Recording<'a> {
    effects: Effects,
    /// The unit of the command; none when nothing is recorded.
    unit: Option<Unit<'a>>,
    db: u16,
    args: Arguments<'a>,
}

impl<'a> Recording<'a> {
    #[inline]
    fn begin(recorder: &'a Recorder, db: u16, args: Arguments<'a>) -> Self {
        Self {
            effects: Effects::new(recorder.is_on()),
            unit: recorder.is_on().then(|| recorder.unit()),
            db,
            args,
        }
    }

    /// Records the effects as one unit, after the removals of expired keys that the command found.
    #[inline]
    fn end(mut self, mut held: Held<'_>) {
        if let Some(partition) = held.first() {
            partition.door.figures.changes += self.effects.changes();
        }
        if let Some(unit) = self.unit.take() {
            held.each(|partition| unit.add_all(partition.door.removals.drain(..)));
            self.record(&unit);
        }
    }

    fn record(&mut self, unit: &Unit<'_>) {
        match self.effects.take() {
            Outcome::Nothing => {}
            Outcome::Verbatim => unit.repeat(self.db, self.args),
            Outcome::Commands(commands) => unit.append(self.db, &commands),
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if let Some(unit) = self.unit.take()
            && std::thread::panicking()
        {
            self.record(&unit);
            unit.tear();
        }
    }
}
