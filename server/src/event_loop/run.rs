//! Runs one command of a connection of this loop, on the resources gathered for it, and replies.

use std::cell::RefCell;
use std::sync::Arc;

use shardis_protocol::{Arguments, Encoder};

use super::EventLoop;
use super::expire::tell_owner;
use crate::commands::registry;
use crate::connection::Gate;
use crate::daemon::call_commands;
use crate::dispatch::execution::{Access, Call, Caller, Execution};
use crate::dispatch::plan::Routed;
use crate::dispatch::room::publish_all;
use crate::dispatch::serve::serve_ready;
use crate::dispatch::witness::Running;
use crate::error::ReplyError;
use crate::exec::client::ScriptStage;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Waiting, Wish};
use crate::exec::{CommandResult, OwnedRequest, Part};
use crate::spec::{Flags, Registered};

/// Whether a command takes so little time that it shares a look at the clock with others.
fn is_quick(command: &Registered) -> bool {
    command.row.runs.is_on_session() && !command.row.flags.contains(Flags::ADMIN)
}

/// A command of a connection that has a place in the order of replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued<'a> {
    /// Number of the connection.
    pub(super) number: usize,
    /// Sequence number of its reply.
    pub(super) sequence: u32,
    /// Its row.
    pub(super) command: &'static Registered,
    /// Its arguments.
    pub(super) args: Arguments<'a>,
}

/// Result of running a command.
#[derive(Debug)]
struct Ran {
    /// Offset of its reply in the output.
    start: usize,
    /// The reply grew beyond the longest one that can be sent, and is incomplete.
    is_cut: bool,
    nanos: u64,
    /// The command found nothing, and waits for its keys.
    wish: Option<Wish>,
    /// The reply may be sent only when everything admitted before the command has run.
    is_fence: bool,
}

impl EventLoop {
    /// Runs a command on the client's and the node's state, once its place in the order allows.
    pub(super) fn run_session(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let is_ordered = command.row.flags.contains(Flags::ORDERED);
        let connection = &mut self.clients[number];
        if is_ordered && connection.output.in_flight() > 0 {
            connection.gate = Gate::Drain(OwnedRequest::copy(args));
            return;
        }
        let issued = Issued {
            number,
            sequence: connection.output.issue(),
            command,
            args,
        };
        let was_monitor = connection.client.monitor;
        let ran = self.run_quietly(issued, Access::Nothing);
        self.answer_ran(issued, &ran);
        if self.clients[number].client.monitor != was_monitor {
            self.monitor_changed(number);
        }
        if is_ordered {
            self.deliver_published();
        }
    }

    /// Runs a command on the partitions that it needs.
    ///
    /// Returns the time that it has run so far, `before` included, if it is a transaction that is suspended, or leaves its work to a
    /// thread.
    pub(super) fn run_on_partitions(
        &mut self,
        issued: Issued<'_>,
        partitions: &mut Lent,
        before: u64,
    ) -> Option<u64> {
        if self.redirect_lent(issued, partitions) {
            return None;
        }
        partitions.begin();
        self.delete_doomed_in(partitions);
        let mut ran = self.run_quietly(issued, Access::Partitions(Held::Many(partitions)));
        ran.nanos += before;
        let client = &self.clients[issued.number].client;
        let transaction = client.transaction.as_ref();
        let is_suspended = client.script != ScriptStage::None
            || client.errand.is_some()
            || client.departs()
            || transaction.is_some_and(|transaction| transaction.suspended.is_some());
        match ran.wish {
            _ if is_suspended => {}
            Some(wish) => self.block(issued, wish, ran.nanos, partitions),
            None => {
                // Commands that are served next already run under settings that this command changed.
                self.answer_ran(issued, &ran);
                self.serve_in(partitions);
            }
        }
        self.end_use(partitions);
        is_suspended.then_some(ran.nanos)
    }

    /// Serves the tickets whose keys a command has made ready, if there are any.
    fn serve_in(&self, partitions: &mut Lent) {
        let mut held = partitions.iter().flatten();
        if held.any(|partition| partition.door.waiters.has_ready()) {
            serve_ready(Held::Many(partitions), &self.environment());
        }
    }

    /// Ends the use of partitions: books what was allocated for them, and hands their effects over.
    fn end_use(&mut self, partitions: &mut Lent) {
        partitions.settle();
        self.environment().hand_over();
        publish_all(partitions.iter_mut().filter_map(Option::as_deref_mut), &self.node);
        for partition in partitions.iter_mut().flatten() {
            if partition.shard != self.index {
                tell_owner(partition, &self.node, &self.reach.mesh);
            }
        }
    }

    /// Replies to a command whose errand is done, and serves who waited for what it has brought.
    pub(super) fn end_errand(
        &mut self,
        issued: Issued<'_>,
        result: &CommandResult,
        nanos: u64,
        partitions: &mut Lent,
    ) {
        if matches!(result, Err(ReplyError::Internal)) {
            self.report_panic(issued.command);
        }
        partitions.begin();
        let connection = &mut self.clients[issued.number];
        let resp = connection.client.resp;
        let (out, start) = connection.output.begin_at(issued.sequence);
        match result {
            Ok(()) => Encoder::new(out, resp).ok(),
            Err(error) => {
                self.node.stats[self.index].failed(issued.command.id, &error.line());
                Encoder::new(out, resp).error(error.line());
            }
        }
        let ran = Ran {
            start,
            is_cut: false,
            nanos,
            wish: None,
            is_fence: false,
        };
        self.answer_ran(issued, &ran);
        self.serve_in(partitions);
        self.end_use(partitions);
    }

    /// Merges the parts of a command into one reply. The parts took `longest_ns`.
    pub(super) fn run_merge(
        &mut self,
        issued: Issued<'_>,
        parts: &Result<Vec<Part>, ReplyError>,
        nanos: u64,
    ) {
        let mut ran = self.run_quietly(issued, Access::Parts(parts));
        ran.nanos += nanos;
        ran.is_cut |= parts.iter().flatten().any(|part| part.is_cut);
        self.answer_ran(issued, &ran);
    }

    /// Runs a command. If it may unsubscribe, nobody can publish meanwhile, as its reply must be the last that the
    /// client gets from a channel.
    fn run_quietly(&mut self, issued: Issued<'_>, access: Access<'_>) -> Ran {
        if !self.leaves_channels(issued.number, issued.command) {
            return self.run_issued(issued, access);
        }
        let node = Arc::clone(&self.node);
        let _hush = self.hush(&node);
        self.run_issued(issued, access)
    }

    fn run_issued(&mut self, issued: Issued<'_>, access: Access<'_>) -> Ran {
        let may_fence = self.may_fence(issued);
        let users = self.node.acl.version();
        let (begin_ns, looked) = (self.node.clock.elapsed_ns(), (self.stamp, self.looked_ns));
        let mut environment = self.reach.environment(&self.node, &self.settings, looked);
        if is_quick(issued.command) {
            environment.keep_fresh(begin_ns);
        } else {
            environment.look(begin_ns);
        }
        let connection = &mut self.clients[issued.number];
        let wish = RefCell::new(None);
        let modes = connection.modes();
        let call = Call {
            command: issued.command,
            args: issued.args,
            db: connection.client.db,
            client: connection.client.seat.subscriber.client,
            modes,
            wrote_to: connection.client.wrote_to,
            routed: Routed::default(),
            origin: modes.origin(),
            waiting: Waiting::Allowed(&wish),
        };
        let mut caller = Caller {
            client: &mut connection.client,
            node: &self.node,
            recorder: &self.reach.recorder,
            now_ms: environment.stamp.now_ms,
            lines: self.node.monitors.are_there().then_some(&mut self.turn.lines),
        };
        let running = Running {
            client: caller.client.id,
            command: issued.command,
            args: issued.args,
        };
        let _witness = call_commands(&raw const running, std::slice::from_ref(&()));
        let recorded = environment.recorder.recorded();
        let (out, start) = connection.output.begin_at(issued.sequence);
        let went_well =
            Execution::begin(call, None, out).run_guarded(Some(&mut caller), access, &environment);
        environment.hand_over();
        connection
            .client
            .note_written(environment.recorder.end_since(recorded));
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        let length = connection.output.begin(issued.sequence).len() - start;
        (self.stamp, self.looked_ns) = (environment.stamp, environment.looked_ns);
        if !went_well {
            // The transaction that may have been running is over.
            connection.client.transaction_us = None;
            self.report_panic(issued.command);
        }
        Ran {
            start,
            is_cut: length >= environment.reply_bytes_max,
            nanos,
            wish: wish.into_inner().filter(|_| went_well),
            is_fence: may_fence && self.needs_fence(users),
        }
    }

    /// Whether a command that has run has to wait: it has begun a pause, or changed the users of this version.
    fn needs_fence(&self, users: u64) -> bool {
        self.node.pause.active(self.stamp.now_ms).is_some() || self.node.acl.version() != users
    }

    /// Whether a command may have to wait for commands of other loops that were admitted before it.
    fn may_fence(&self, issued: Issued<'_>) -> bool {
        let fences = |command: &Registered| command.row.flags.contains(Flags::FENCES);
        match &self.clients[issued.number].client.transaction {
            Some(transaction) if issued.command.row.runs.is_exec() => transaction
                .queue
                .iter()
                .any(|queued| fences(registry().row(queued.command.id))),
            _ => fences(issued.command),
        }
    }

    /// Completes the reply of a command that has run, and accounts for it.
    fn answer_ran(&mut self, issued: Issued<'_>, ran: &Ran) {
        let Issued {
            number,
            sequence,
            command,
            args,
        } = issued;
        self.log_refusals(number);
        if ran.is_cut {
            self.close_for_output(number);
        }
        let connection = &mut self.clients[number];
        if command.row.flags.contains(Flags::PUSHES) {
            connection.count_reply_mode();
        } else {
            connection.mute(sequence, ran.start);
        }
        if let Some(save) = connection.client.awaits_save.take() {
            let reply = connection.output.begin(sequence).split_off(ran.start);
            self.wait_for_save(save, (number, sequence), reply);
        } else if let Some(decided) = connection.client.awaits_bus.take() {
            let reply = connection.output.begin(sequence).split_off(ran.start);
            self.wait_for_bus(decided, (number, sequence), reply);
        } else if ran.is_fence {
            let reply = connection.output.begin(sequence).split_off(ran.start);
            self.begin_fence(number, sequence, reply);
        } else if self.clients.conclude(number, sequence, ran.start) {
            self.enforce_output_limit(number);
        }
        if let Some(request) = self.clients[number].client.sync_request.take() {
            self.begin_hand_over(number, request);
        }
        if command.row.flags.contains(Flags::ADMIN) || command.row.runs.is_exec() {
            // A changed directive applies to the commands after it, and to the accounting of this one.
            self.take_settings();
        }
        self.account_for(number, command, args, ran.nanos);
    }
}
