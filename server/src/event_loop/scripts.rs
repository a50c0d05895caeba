//! Scripts that run for long, as their loop and the others see them.
//!
//! A script that has used its slice keeps its partitions, as an operation of its loop, and goes on in the next turns. What needs those
//! partitions waits; from `busy-reply-threshold` on it is told that the node is busy, also what has waited until then.
//!
//! A script may need a shard that it has not got when it has changed something already. It then waits for that shard while it keeps its
//! own, out of the order in which shards are asked for. So that nobody waits in a circle, operations that are still collecting
//! their shards *give way*: they give back what they have, and collect anew. Of two scripts that wait for each other, the younger
//! one ends with an error.

use std::sync::Arc;

use shardis_protocol::{Arguments, Encoder};

use super::EventLoop;
use super::lend::{LentFor, Operation};
use super::reach::Work;
use super::run::Issued;
use crate::connection::Gate;
use crate::dispatch::admission::any;
use crate::dispatch::plan::{Place, ShardSet, shards_of_transaction};
use crate::dispatch::script::{busy_aside, is_any_aside, shards_of_script};
use crate::error::ReplyError;
use crate::exec::client::ScriptStage;
use crate::exec::view::Lent;
use crate::exec::{Client, Modes, OwnedRequest};
use crate::limits::SCRIPT_PATIENCE_NS;
use crate::scripting::LongScript;
use crate::shard::inbox::{Batch, GiveWay, Message};
use crate::spec::{Flags, Registered};

/// Time between two requests to give way to the same script, nanoseconds.
const GIVE_WAY_NS: u64 = 1_000_000;

/// The script of a loop that is not at its end.
#[derive(Debug)]
pub(super) struct Aside {
    /// Number of its operation.
    operation: usize,
    /// Shards that it waits for; none while it can go on.
    lacks: Vec<usize>,
    /// Time since which it waits, on the node's stopwatch, nanoseconds.
    since_ns: u64,
    /// Time from which others are asked again to give way.
    asks_at_ns: u64,
}

impl EventLoop {
    /// Keeps an operation whose script is not at its end.
    pub(super) fn set_script_aside(&mut self, number: usize, mut operation: Operation) {
        let client = &mut self.clients[number].client;
        let stage = client.script.clone();
        if stage == ScriptStage::WantsAll {
            client.script = ScriptStage::None;
            let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
            self.give_back(lent);
            return self.begin_anew(number, operation);
        }
        self.clients[number].gate = Gate::UnderWay;
        let lacks = match stage {
            ScriptStage::Lacks(shards) => shards.into_vec(),
            _ => Vec::new(),
        };
        operation.missing = lacks.iter().rev().copied().collect();
        let now_ns = self.node.clock.elapsed_ns();
        let aside = Aside {
            operation: self.reach.operations.insert(operation),
            lacks,
            since_ns: now_ns,
            asks_at_ns: now_ns,
        };
        let operation = aside.operation;
        let waits = !aside.lacks.is_empty();
        self.reach.script = Some(aside);
        if waits {
            self.ask_for_next(operation);
        }
    }

    /// Begins a script again, with all shards.
    pub(super) fn begin_anew(&mut self, number: usize, mut operation: Operation) {
        self.clients[number].gate = Gate::UnderWay;
        self.node.stats[self.index].lends.add(1);
        operation.missing = (0..self.reach.mesh.len()).rev().collect();
        let operation = self.reach.operations.insert(operation);
        self.ask_for_next(operation);
    }

    /// Lets the script that was set aside run for another slice.
    pub(super) fn go_on_with_script(&mut self) {
        let Some(aside) = &self.reach.script else { return };
        if !aside.lacks.is_empty() {
            return self.ask_others_to_give_way();
        }
        let operation = aside.operation;
        self.reach.script = None;
        let operation = self.reach.operations.remove(operation);
        self.run_operation(operation);
    }

    /// Whether an operation is that of a script which waits for shards.
    pub(super) fn is_script(&self, operation: usize) -> bool {
        let aside = self.reach.script.as_ref();
        aside.is_some_and(|aside| aside.operation == operation)
    }

    /// Notes that a script has got the shards that it waited for.
    pub(super) fn script_has_all(&mut self, operation: usize) -> bool {
        let Some(aside) = &mut self.reach.script else {
            return false;
        };
        let is_it = aside.operation == operation;
        if is_it {
            aside.lacks.clear();
        }
        is_it
    }

    fn ask_others_to_give_way(&mut self) {
        let now_ns = self.node.clock.elapsed_ns();
        let Some(aside) = &mut self.reach.script else {
            return;
        };
        if now_ns < aside.asks_at_ns {
            return;
        }
        aside.asks_at_ns = now_ns + GIVE_WAY_NS;
        let operation = &self.reach.operations[aside.operation];
        let Some(&shard) = operation.missing.last() else {
            return;
        };
        let request = GiveWay {
            shard,
            holds: operation.lent.shards().collect(),
            rank: (aside.since_ns, self.index),
            is_impatient: now_ns - aside.since_ns > SCRIPT_PATIENCE_NS,
        };
        for of_loop in 0..self.reach.mesh.len() {
            if of_loop == self.index {
                self.give_way(&request);
            } else {
                self.reach
                    .send(of_loop, Message::GiveWay(Box::new(request.clone())));
            }
        }
    }

    /// Gives a shard up that an operation of this loop has, and that a script of another one needs.
    pub(super) fn give_way(&mut self, request: &GiveWay) {
        let holders: Vec<usize> = self
            .reach
            .operations
            .iter()
            .filter(|(_, operation)| operation.lent[request.shard].is_some() && !operation.missing.is_empty())
            .map(|(number, _)| number)
            .collect();
        for number in holders {
            if self
                .reach
                .script
                .as_ref()
                .is_some_and(|aside| aside.operation == number)
            {
                self.give_script_up(number, request);
            } else {
                self.collect_anew(number);
            }
        }
    }

    /// Gives back what an operation has collected. It begins again when it gets the shard that it has asked for.
    fn collect_anew(&mut self, number: usize) {
        let shards = self.reach.mesh.len();
        let operation = &mut self.reach.operations[number];
        let lent = std::mem::replace(&mut operation.lent, Lent::new(shards));
        operation.returns = operation.missing.last().copied();
        operation.missing.extend(lent.shards());
        operation.missing.sort_unstable_by(|one, other| other.cmp(one));
        self.give_back(lent);
    }

    /// Ends the script of this loop if an older one needs what it has, and the two would wait for each other.
    fn give_script_up(&mut self, number: usize, request: &GiveWay) {
        let Some(aside) = &self.reach.script else { return };
        let is_younger = (aside.since_ns, self.index) > request.rank;
        let is_mutual = aside.lacks.iter().any(|shard| request.holds.contains(shard));
        if !is_younger || !(is_mutual || request.is_impatient) {
            return;
        }
        self.reach.script = None;
        self.node.log.warning(format_args!(
            "A script was ended after it had changed data: it needed a shard of another script, which needed one of its own"
        ));
        let operation = &mut self.reach.operations[number];
        let lent = std::mem::replace(&mut operation.lent, Lent::new(self.node.shards));
        let purpose = std::mem::replace(&mut operation.purpose, LentFor::Nobody);
        // The shard that it has asked for still comes, and is given back.
        operation.returns = operation.missing.last().copied();
        operation.missing.clear();
        self.fail_script(purpose, lent);
    }

    /// Answers the command of a script that was given up; the changes that it has made so far stay.
    fn fail_script(&mut self, purpose: LentFor, mut lent: Lent) {
        let LentFor::Command {
            connection,
            sequence,
            command,
            request,
            nanos,
        } = purpose
        else {
            unreachable!("only commands have scripts");
        };
        self.clients[connection].gate = Gate::Open;
        self.clients[connection].client.script = ScriptStage::Failed;
        let issued = Issued {
            number: connection,
            sequence,
            command,
            args: request.arguments(),
        };
        let left = self.run_on_partitions(issued, &mut lent, nanos);
        debug_assert!(left.is_none(), "a script that has failed is at its end");
        self.give_back(lent);
        self.clients.wake_if_it_may_go_on(connection);
    }

    /// Whether a request has to wait for a script, or was told that one is busy.
    pub(super) fn waits_for_script(
        &mut self,
        number: usize,
        (command, args): (&'static Registered, Arguments<'_>),
        place: &Place,
    ) -> bool {
        let client = &self.clients[number].client;
        if let Some(long) = self.busy_for(client, (command, args), place) {
            let error = if command.row.runs.is_exec() {
                ReplyError::ExecRefused(Box::new(long.busy_error()))
            } else {
                long.busy_error()
            };
            self.refuse(number, args, error);
            return true;
        }
        if is_any_aside() && interprets(client, command) {
            self.put_behind_script(number, args);
            return true;
        }
        false
    }

    /// Has a command wait until a script that runs for long has ended, or has become busy.
    pub(super) fn put_behind_script(&mut self, number: usize, args: Arguments<'_>) {
        let connection = &mut self.clients[number];
        connection.busy_since_ns = None;
        connection.gate = Gate::Busy(OwnedRequest::copy(args));
        self.clients.behind_script.push(number);
    }

    /// Tries commands again that wait for scripts, if one of these has ended or become busy.
    pub(super) fn retry_behind_script(&mut self) {
        let changes = self.node.scripts.long.changes();
        if std::mem::replace(&mut self.reach.script_changes, changes) != changes {
            let numbers = std::mem::take(&mut self.clients.behind_script);
            self.try_again(numbers);
            let operations = std::mem::take(&mut self.reach.operations_behind_script);
            self.begin_again(operations);
        }
    }

    /// Whether the command of an operation needs the interpreter of this loop, and another script has that.
    pub(super) fn waits_for_interpreter(&self, operation: &Operation) -> bool {
        let LentFor::Command {
            connection, command, ..
        } = &operation.purpose
        else {
            return false;
        };
        let client = &self.clients[*connection].client;
        is_any_aside() && !client.script.is_under_way() && interprets(client, command)
    }

    /// The busy script that has what a request needs.
    fn busy_for(
        &self,
        client: &Client,
        (command, args): (&'static Registered, Arguments<'_>),
        place: &Place,
    ) -> Option<Arc<LongScript>> {
        let long = &self.node.scripts.long;
        if !long.any_busy() || client.is_primary || command.row.flags.contains(Flags::ALLOW_BUSY) {
            return None;
        }
        if interprets(client, command)
            && let Some(busy) = busy_aside()
        {
            return Some(busy);
        }
        let shards = self.node.shards;
        let needed = match place {
            Place::Session | Place::EveryLoop => return None,
            Place::Shard { shard, .. } => return long.find_busy(|script| script.holds(*shard)),
            Place::Lend(set) | Place::LendToSession(set) => set.clone(),
            Place::Exec => shards_of_transaction(client, self.node.hashing),
            Place::Script(kind) => shards_of_script(*kind, args, (&self.node, self.index)),
            Place::EveryShard | Place::From(_) => ShardSet::all(shards),
        };
        long.find_busy(|script| needed.iter().any(|shard| script.holds(shard)))
    }

    /// Tells the commands that wait for the partition of this shard that a script is busy with it.
    pub(super) fn answer_busy(&mut self) {
        if !self.node.scripts.long.any_busy() || self.reach.waiting.is_empty() {
            return;
        }
        let own = self.index;
        let Some(long) = self.node.scripts.long.find_busy(|script| script.holds(own)) else {
            return;
        };
        let error = long.busy_error();
        for work in std::mem::take(&mut self.reach.waiting) {
            match work {
                Work::Run(batch) if !is_of_primary(&batch) => self.refuse_batch(batch, &error),
                other => self.reach.waiting.push_back(other),
            }
        }
    }

    /// Answers all commands of a batch with an error.
    fn refuse_batch(&mut self, mut batch: Box<Batch>, error: &ReplyError) {
        let stats = &self.node.stats[self.index];
        let Batch {
            tasks, replies, ends, ..
        } = &mut *batch;
        for task in tasks {
            stats.refused(Some(task.command.id), &error.line());
            Encoder::new(replies, task.modes.resp()).error(error.line());
            ends.push(replies.len());
        }
        self.send_back(batch);
    }
}

/// Whether a command uses the interpreter of its loop. EXEC does if a queued command does.
fn interprets(client: &Client, command: &Registered) -> bool {
    any(client, command, |command| {
        command.row.flags.contains(Flags::INTERPRETS)
    })
}

fn is_of_primary(batch: &Batch) -> bool {
    batch.tasks.iter().any(|task| task.modes.contains(Modes::PRIMARY))
}
