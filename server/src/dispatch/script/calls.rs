//! The commands that a script calls: each is checked as its caller's, and runs like one of a transaction.

use std::rc::Rc;

use shardis_protocol::{Arguments, Encoder, Resp};
use shardis_storage::key::Key;
use smallvec::SmallVec;

use super::checks::{check_command, check_redirect};
use super::{Run, State};
use crate::dispatch::account;
use crate::dispatch::admission::{find, named};
use crate::dispatch::execution::{Access, Call, Caller, Environment, Execution};
use crate::dispatch::plan::{Place, Routed, ShardSet, place};
use crate::dispatch::rights::check_client;
use crate::error::ReplyError;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::Waiting;
use crate::exec::{Client, Modes, Origin};
use crate::journal::Audience;
use crate::scripting::Targets;
use crate::spec::key_spec::keys_of;
use crate::spec::{Flags, KeyShape, Registered};

impl Run {
    /// Runs the command in the words of the exchange; its reply is there as well.
    ///
    /// # Errors
    /// The shards that it needs and that are not held. Then nothing has happened.
    pub(super) fn command(
        &mut self,
        resp: Resp,
        call: &Call<'_>,
        caller: &mut Caller<'_>,
        partitions: &mut Lent,
        environment: &Environment<'_>,
    ) -> Result<(), ShardSet> {
        let exchange = Rc::clone(&self.script.exchange);
        let words = exchange.words.borrow();
        let args = words.arguments();
        let mut reply = exchange.reply.borrow_mut();
        reply.clear();
        let command = match self.permitted(args, caller.client, environment) {
            Ok(command) => command,
            Err(error) => {
                let id = named(args, &environment.node.renames).map(|command| command.id);
                refuse(id, &error, resp, &mut reply, environment);
                return Ok(());
            }
        };
        let place = match place(command, args, environment.hashing) {
            Ok(place) => place,
            Err(error) => {
                refuse(Some(command.id), &error, resp, &mut reply, environment);
                return Ok(());
            }
        };
        check_held(&place, partitions, environment)?;
        if let Err(error) = self.check_slot((command, args), caller.client, partitions, environment) {
            refuse(Some(command.id), &error, resp, &mut reply, environment);
            return Ok(());
        }
        self.note(&place, (command, args), environment);
        if let Some(lines) = &mut caller.lines {
            account::show_of_script(lines, environment.node, self.db, command, args);
        }
        let begin_ns = environment.clock.elapsed_ns();
        let inner = Call {
            command,
            args,
            db: self.db,
            client: call.client,
            modes: modes(caller.client, resp),
            wrote_to: call.wrote_to,
            routed: Routed::default(),
            origin: if caller.client.is_primary {
                Origin::Primary
            } else {
                Origin::Script
            },
            waiting: Waiting::Denied,
        };
        self.perform(inner, place, caller, partitions, &mut reply, environment);
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        let tracked = environment.settings.latency_tracking;
        environment.stats.ran(command.id, 1, nanos, tracked);
        Ok(())
    }

    /// Runs a command that has passed all checks.
    fn perform(
        &mut self,
        inner: Call<'_>,
        place: Place,
        caller: &mut Caller<'_>,
        partitions: &mut Lent,
        reply: &mut Vec<u8>,
        environment: &Environment<'_>,
    ) {
        let narrowed;
        let environment = if self.targets.is_empty() {
            narrowed = Environment {
                recorder: environment.silent,
                ..*environment
            };
            &narrowed
        } else {
            environment
        };
        environment.recorder.address(audience(self.targets));
        let went_well = match place {
            Place::Shard { shard, key } => {
                let inner = Call { routed: key, ..inner };
                partitions.alone(shard, |partition| {
                    partition.door.figures.commands += 1;
                    let access = Access::Partitions(Held::One(partition));
                    Execution::begin(inner, None, reply).run_guarded(None, access, environment)
                })
            }
            place => self.perform_as_caller(inner, &place, caller, partitions, reply, environment),
        };
        environment.recorder.address(Audience::All);
        if !went_well {
            environment.node.log.warning(format_args!(
                "A handler of '{}' panicked in a script. Please report this as a bug.",
                inner.command.full_name
            ));
        }
    }

    /// Runs a command that works on its client, or on several shards. The client has the database and the version of replies of the
    /// script meanwhile, and is answered at once.
    fn perform_as_caller(
        &mut self,
        inner: Call<'_>,
        place: &Place,
        caller: &mut Caller<'_>,
        partitions: &mut Lent,
        reply: &mut Vec<u8>,
        environment: &Environment<'_>,
    ) -> bool {
        let now_us = self.time_us(environment);
        let client = &mut *caller.client;
        let before = (client.db, client.resp, client.transaction_us);
        (client.db, client.resp) = (self.db, inner.modes.resp());
        client.transaction_us = Some(now_us);
        let access = match place {
            Place::Session => Access::Nothing,
            _ => Access::Partitions(Held::Many(partitions)),
        };
        let caller = &mut Caller {
            client: &mut *caller.client,
            node: caller.node,
            recorder: environment.recorder,
            now_ms: caller.now_ms,
            lines: None,
        };
        let went_well =
            Execution::begin(inner, None, reply).run_guarded(Some(&mut *caller), access, environment);
        let client = &mut *caller.client;
        self.db = client.db;
        (client.db, client.resp, client.transaction_us) = before;
        went_well
    }

    /// Whether the caller may run a command; `None` if there is no such command.
    pub(super) fn may_run(&self, client: &Client, environment: &Environment<'_>) -> Option<bool> {
        let words = self.script.exchange.words.borrow();
        let args = words.arguments();
        let command = find(args, None, &environment.node.renames).ok()?;
        Some(check_client(client, command, args).is_ok())
    }

    /// The command of a request, if the script may run it.
    fn permitted(
        &mut self,
        args: Arguments<'_>,
        client: &mut Client,
        environment: &Environment<'_>,
    ) -> Result<&'static Registered, ReplyError> {
        let renames = &environment.node.renames;
        let Ok(command) = find(args, self.last, renames) else {
            return Err(ReplyError::Fixed(match named(args, renames) {
                Some(_) => "ERR Wrong number of args calling Redis command from script",
                None => "ERR Unknown Redis command called from script",
            }));
        };
        self.last = Some(command.tag());
        check_command((command, args), self.state, client, environment)?;
        Ok(command)
    }

    /// Notes what a command does that is about to run: whether the script can still begin anew, and whether it touches only what it
    /// has declared.
    fn note(
        &mut self,
        place: &Place,
        (command, args): (&Registered, Arguments<'_>),
        environment: &Environment<'_>,
    ) {
        let flags = command.row.flags;
        if flags.contains(Flags::WRITE) && !self.state.contains(State::HAS_WRITTEN) {
            self.state |= State::HAS_WRITTEN;
            if let Some(long) = &self.long {
                long.note_write();
            }
        }
        if flags.intersects(Flags::WRITE | Flags::MAY_REPLICATE) {
            self.state |= State::IS_BOUND;
        }
        if environment.shards > 1
            && !self.state.contains(State::STRAYS)
            && !self.declares(place, (command, args), environment)
        {
            self.state |= State::STRAYS;
        }
    }

    /// Whether a command touches only keys in slots of declared ones.
    fn declares(
        &self,
        place: &Place,
        (command, args): (&Registered, Arguments<'_>),
        environment: &Environment<'_>,
    ) -> bool {
        let is_declared = |slot: u16| self.declared.contains(&slot);
        match place {
            Place::Session => true,
            Place::Shard { key, .. } if matches!(command.keys, KeyShape::One(_)) => is_declared(key.slot),
            Place::Shard { .. } | Place::Lend(_) | Place::LendToSession(_) => {
                let (mut all, mut any) = (true, false);
                let found = keys_of(command.row.keys, args, |index, _| {
                    any = true;
                    all &= is_declared(environment.hashing.slot(args.at(index)));
                });
                let is_of_keys = any || matches!(place, Place::Shard { .. });
                let derives = command.row.keys.iter().any(|spec| spec.derives_keys(args));
                found.is_ok() && is_of_keys && all && !derives
            }
            _ => false,
        }
    }

    /// Checks that this node of a cluster serves the keys of a command, and that the script may touch their slot.
    fn check_slot(
        &mut self,
        (command, args): (&'static Registered, Arguments<'_>),
        client: &Client,
        partitions: &Lent,
        environment: &Environment<'_>,
    ) -> Result<(), ReplyError> {
        if environment.slots.is_none() || client.is_primary || command.keys == KeyShape::None {
            return Ok(());
        }
        let has = |key: &Key<'_>| {
            let partition = partitions[environment.hashing.shard_of(key.slot)].as_deref();
            partition.is_some_and(|partition| partition.has(key))
        };
        check_redirect((command, args), client, has, environment)?;
        if self.state.contains(State::ALLOWS_CROSS_SLOT) {
            return Ok(());
        }
        let mut slots = SmallVec::<[u16; 4]>::new();
        // A number of keys that is wrong is for the handler to tell.
        let _ = keys_of(command.row.keys, args, |index, _| {
            slots.push(environment.hashing.slot(args.at(index)));
        });
        for slot in slots {
            if *self.slot.get_or_insert(slot) != slot {
                return Err(ReplyError::Fixed(
                    "ERR Script attempted to access keys that do not hash to the same slot",
                ));
            }
        }
        Ok(())
    }
}

/// Puts an error in the place of the reply to a command that does not run.
#[cold]
fn refuse(
    id: Option<u16>,
    error: &ReplyError,
    resp: Resp,
    reply: &mut Vec<u8>,
    environment: &Environment<'_>,
) {
    environment.stats.refused(id, &error.line());
    Encoder::new(reply, resp).error(error.line());
}

/// Checks that the shards of a command are held.
///
/// # Errors
/// Those that are not.
fn check_held(place: &Place, partitions: &Lent, environment: &Environment<'_>) -> Result<(), ShardSet> {
    if environment.shards == 1 {
        return Ok(());
    }
    let mut lacking = ShardSet::none(environment.shards);
    let mut need = |shard: usize| {
        if partitions[shard].is_none() {
            lacking.insert(shard);
        }
    };
    match place {
        Place::Session => {}
        Place::Shard { shard, .. } => need(*shard),
        Place::Lend(shards) | Place::LendToSession(shards) => shards.iter().for_each(need),
        _ => (0..environment.shards).for_each(need),
    }
    if lacking.len() == 0 { Ok(()) } else { Err(lacking) }
}

/// Modes of a command that a client's script calls.
fn modes(client: &Client, resp: Resp) -> Modes {
    let mut modes = Modes::empty();
    modes.set(Modes::RESP3, resp == Resp::V3);
    modes.set(Modes::NO_TOUCH, client.no_touch);
    modes.set(Modes::PRIMARY, client.is_primary);
    modes.set(Modes::TRACKS, client.notes_reads());
    modes
}

/// Readers of the journal that these targets stand for.
fn audience(targets: Targets) -> Audience {
    match (
        targets.contains(Targets::APPEND_ONLY_FILE),
        targets.contains(Targets::REPLICAS),
    ) {
        (true, false) => Audience::File,
        (false, true) => Audience::Replicas,
        _ => Audience::All,
    }
}
