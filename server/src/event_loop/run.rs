//! Running one command for a connection of this loop, with what was brought together for it, and answering it.

use std::cell::RefCell;
use std::sync::Arc;

use shardis_protocol::Arguments;

use super::EventLoop;
use super::batches::publish_memory;
use crate::connection::Gate;
use crate::dispatch::execution::{Access, Call, Caller, Execution};
use crate::dispatch::plan::Routed;
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Waiting, Wish};
use crate::exec::{OwnedRequest, Part};
use crate::spec::{Flags, Registered};

/// A command of a connection that has its place in the order of replies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Issued<'a> {
    /// The connection.
    pub(super) connection: usize,
    /// The place of its reply.
    pub(super) sequence: u32,
    /// Its row.
    pub(super) command: &'static Registered,
    /// Its arguments.
    pub(super) args: Arguments<'a>,
}

/// What came of a command.
#[derive(Debug)]
struct Ran {
    /// Where its reply starts in the output.
    start: usize,
    /// It got too long to be sent, and is not whole.
    is_cut: bool,
    nanos: u64,
    /// It finds nothing and waits for its keys.
    wish: Option<Wish>,
}

impl EventLoop {
    /// Runs a command on the client's and the node's state, as soon as it may.
    pub(super) fn run_session(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let is_ordered = command.row.flags.contains(Flags::ORDERED);
        let connection = &mut self.clients[number];
        if is_ordered && connection.output.in_flight() > 0 {
            connection.gate = Gate::Drain(OwnedRequest::copy(args));
            return;
        }
        let issued = Issued {
            connection: number,
            sequence: connection.output.issue(),
            command,
            args,
        };
        let was_monitor = connection.client.monitor;
        let ran = self.run_quietly(issued, Access::Nothing);
        self.answer_ran(issued, &ran, ran.nanos);
        if self.clients[number].client.monitor != was_monitor {
            self.monitor_changed(number);
        }
        if is_ordered {
            self.deliver_published();
        }
    }

    /// Runs a command on the partitions that it needs.
    pub(super) fn run_on_partitions(&mut self, issued: Issued<'_>, partitions: &mut Lent) {
        partitions.begin();
        let ran = self.run_quietly(issued, Access::Partitions(Held::Many(partitions)));
        match ran.wish {
            Some(wish) => self.block(issued, wish, ran.nanos, partitions),
            None => {
                // What a command of a transaction changed holds for what follows, beginning with those who wait.
                self.answer_ran(issued, &ran, ran.nanos);
                serve_ready(Held::Many(partitions), &self.environment());
            }
        }
        partitions.settle();
        for partition in partitions.iter().flatten() {
            publish_memory(partition, &self.node);
        }
    }

    /// Makes one reply of the parts of a command that shards or loops have done, which took them so many nanoseconds.
    pub(super) fn run_merge(
        &mut self,
        issued: Issued<'_>,
        parts: &Result<Vec<Part>, ReplyError>,
        nanos: u64,
    ) {
        let ran = self.run_quietly(issued, Access::Parts(parts));
        let is_cut = parts.iter().flatten().any(|part| part.is_cut);
        let ran = Ran {
            is_cut: is_cut || ran.is_cut,
            ..ran
        };
        self.answer_ran(issued, &ran, ran.nanos + nanos);
    }

    /// Runs a command; while nobody publishes, if its reply must be the last that its client hears of some channel.
    fn run_quietly(&mut self, issued: Issued<'_>, access: Access<'_>) -> Ran {
        if !self.leaves_channels(issued.connection, issued.command) {
            return self.run_issued(issued, access);
        }
        let node = Arc::clone(&self.node);
        let _hush = self.hush(&node);
        self.run_issued(issued, access)
    }

    fn run_issued(&mut self, issued: Issued<'_>, access: Access<'_>) -> Ran {
        let environment = self.reach.environment(&self.node, &self.settings, self.stamp);
        let connection = &mut self.clients[issued.connection];
        let wish = RefCell::new(None);
        let call = Call {
            command: issued.command,
            args: issued.args,
            db: connection.client.db,
            modes: connection.modes(),
            routed: Routed::default(),
            waiting: Waiting::Allowed(&wish),
        };
        let mut caller = Caller {
            client: &mut connection.client,
            node: &self.node,
            journal: self.journal.as_ref(),
            now_ms: environment.stamp.now_ms,
            lines: self.node.monitors.are_there().then_some(&mut self.turn.lines),
        };
        let (out, start) = connection.output.begin_at(issued.sequence);
        let begin_ns = environment.clock.elapsed_ns();
        let went_well =
            Execution::begin(call, None, out).run_guarded(Some(&mut caller), access, &environment);
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        let length = connection.output.begin(issued.sequence).len() - start;
        if !went_well {
            // A transaction that was running is over.
            connection.client.denies_blocking = false;
            self.report_panic(issued.command);
        }
        Ran {
            start,
            is_cut: length >= environment.reply_bytes_max,
            nanos,
            wish: wish.into_inner().filter(|_| went_well),
        }
    }

    /// Ends the reply of a command that has run for so many nanoseconds, and accounts for it.
    fn answer_ran(&mut self, issued: Issued<'_>, ran: &Ran, nanos: u64) {
        let Issued {
            connection: number,
            sequence,
            command,
            args,
        } = issued;
        if ran.is_cut {
            self.close_for_output(number);
        }
        let (connection, start) = (&mut self.clients[number], ran.start);
        if command.row.flags.contains(Flags::PUSHES) {
            connection.count_reply_mode();
        } else {
            connection.mute(sequence, start);
        }
        if self.clients.conclude(number, sequence, start) {
            self.enforce_output_limit(number);
        }
        if command.row.flags.contains(Flags::ADMIN) || command.row.runs.is_exec() {
            // What it changed holds for what follows it, and for what becomes known of itself.
            self.take_settings();
        }
        self.account_for(number, command, args, nanos);
    }
}
