//! Serving connections: requests to commands, commands to shards, replies to connections.

use shardis_protocol::{Arguments, Encoder, Limits};
use shardis_storage::memory;
use slab::Slab;
use smallvec::SmallVec;

use super::{EventLoop, Turn, Work};
use crate::connection::input::{Reading, Received};
use crate::connection::{Connection, Hold};
use crate::dispatch::admission::{Admitted, Conditions, admit, named};
use crate::dispatch::plan::{self, Routed, place};
use crate::dispatch::run::{Replies, finish, run_batch};
use crate::error::ReplyError;
use crate::exec::Modes;
use crate::exec::client::Queued;
use crate::exec::{Closing, OwnedRequest, Partition, ReplyMode, Session};
use crate::limits::BORROW_TRIES;
use crate::shard::inbox::{Batch, Message, Place, Task};
use crate::spec::{Flags, Registered, Runs};
use crate::state::Node;

impl EventLoop {
    /// Steps 2 and 3: serves the connections of the queue and runs their commands, until none can go on.
    pub(super) fn serve_and_execute(&mut self) {
        let mut again = Vec::new();
        while !self.queue.is_empty() {
            let queue = std::mem::take(&mut self.queue);
            for &number in &queue {
                if self.serve(number) == Served::MoreToRead {
                    again.push(number);
                }
            }
            self.execute();
            self.keep_input(&queue);
        }
        // They have had their read of this turn.
        again.into_iter().for_each(|number| self.enqueue(number));
        self.end_reading();
    }

    /// Takes requests of one connection, reading once where nothing unparsed is left.
    fn serve(&mut self, number: usize) -> Served {
        let Some(connection) = self.connections.get_mut(number) else {
            return Served::Done;
        };
        connection.is_queued = false;
        if connection.ends && matches!(connection.hold, Hold::Blocked) {
            // Whatever it still sent would come after what it no longer waits for.
            self.disconnect(number);
            return Served::Done;
        }
        if let Hold::Drain(_) = connection.hold
            && connection.output.in_flight() == 0
        {
            let Hold::Drain(request) = std::mem::take(&mut connection.hold) else {
                return Served::Done;
            };
            self.request(number, request.arguments(), None);
        }
        self.take_requests(number);
        let Some(connection) = self.connections.get_mut(number) else {
            return Served::Done;
        };
        if !connection.may_go_on() || !connection.readable || connection.input.has_unparsed() {
            return Served::Done;
        }
        self.read(number)
    }

    fn read(&mut self, number: usize) -> Served {
        let connection = &mut self.connections[number];
        let Turn {
            source, filled, pool, ..
        } = &mut self.turn;
        connection.input.keep(&mut source.chunks);
        let mut reading = Reading {
            chunks: &mut source.chunks,
            filled,
            pool,
        };
        match connection
            .input
            .receive(&mut self.poll.link(&mut connection.socket, number), &mut reading)
        {
            Received::Bytes { count, more } => {
                let more = more || connection.ends;
                connection.readable = more;
                connection.client.active_ms = self.now_us / 1000;
                let stats = &self.node.stats[self.index];
                stats.bytes_in.add(count as u64);
                stats.reads.add(1);
                if self.is_over_query_limit(number) {
                    return Served::Done;
                }
                self.take_requests(number);
                if more { Served::MoreToRead } else { Served::Done }
            }
            Received::Nothing => {
                connection.readable = false;
                Served::Done
            }
            Received::Closed => {
                connection.readable = false;
                self.disconnect(number);
                Served::Done
            }
        }
    }

    fn is_over_query_limit(&mut self, number: usize) -> bool {
        let connection = &mut self.connections[number];
        let limit = self.settings.client_query_buffer_limit as usize;
        if connection.input.bytes() <= limit {
            return false;
        }
        self.node.stats[self.index].query_limit_closes.add(1);
        self.node.log.warning(format_args!(
            "Closing client that reached max query buffer length: id={} addr={}",
            connection.client.id,
            connection.client.peer.remote()
        ));
        self.disconnect(number);
        true
    }

    /// Takes complete requests from what was read, as long as the connection may go on.
    fn take_requests(&mut self, number: usize) {
        // Requests are looked at where they lie, while the loop's other parts change.
        let mut requests = std::mem::take(&mut self.turn.requests);
        let mut source = std::mem::take(&mut self.turn.source);
        self.connections[number].input.expose(&mut source.chunks);
        while let Some(connection) = self.connections.get_mut(number)
            && connection.may_go_on()
        {
            let limits = Limits {
                bulk_bytes_max: self.settings.proto_max_bulk_len as usize,
                authenticated: connection.client.authenticated,
                ..Limits::default()
            };
            match connection
                .input
                .next_request(&mut source.chunks, &limits, &mut requests)
            {
                Ok(Some(chunk)) => {
                    let place = source.add(chunk, requests.spans(), connection.input.take_detached());
                    let buffers: SmallVec<[&[u8]; 4]> = source.buffers(place).collect();
                    let pushed = self.request(number, source.arguments_at(place, &buffers), Some(place));
                    drop(buffers);
                    if !pushed {
                        source.remove_last(place);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    let mut line = b"ERR Protocol error: ".to_vec();
                    error.append_to(&mut line);
                    self.last_words(number, &line);
                    break;
                }
            }
        }
        requests.shrink_to(4096);
        self.turn.requests = requests;
        self.turn.source = source;
    }

    /// Answers with an error that ends the connection.
    fn last_words(&mut self, number: usize, line: &[u8]) {
        let connection = &mut self.connections[number];
        let sequence = connection.output.issue();
        let out = connection.output.begin(sequence);
        let start = out.len();
        Encoder::new(out, connection.client.resp).error(line);
        connection.output.end(sequence, start);
        connection.client.closing = Closing::AfterReply;
        self.node.stats[self.index].answered_error(line);
        self.mark_dirty(number);
    }

    /// One request: checks it, and runs it, queues it, sends it on its way, or holds it. True when it became a task over
    /// the memory at `place_in`.
    pub(super) fn request(&mut self, number: usize, args: Arguments<'_>, place_in: Option<Place>) -> bool {
        let now_ms = self.now_ms();
        let connection = &mut self.connections[number];
        let conditions = Conditions {
            renames: &self.node.renames,
            out_of_memory: self.out_of_memory,
            pause: self.node.pause.active(now_ms).map(|(mode, _)| mode),
            debugging: self.settings.enable_debug_command,
        };
        let command = match admit(&connection.client, args, &conditions) {
            Ok(Admitted::Run(command)) => command,
            Ok(Admitted::Queue(command)) => {
                self.queue_in_transaction(number, command, args);
                return false;
            }
            Ok(Admitted::Wait) => {
                connection.hold = Hold::Pause(OwnedRequest::copy(args));
                self.paused.push(number);
                return false;
            }
            Err(error) => {
                self.refuse(number, args, error);
                return false;
            }
        };
        connection.client.last_command = Some(command.tag());
        match place(command, args, self.node.hasher, self.mesh.len()) {
            Ok(plan::Place::Session) => {
                self.run_session_in_order(number, command, args);
                false
            }
            Ok(plan::Place::Shard { shard, key }) => {
                self.push_task(number, command, args, shard, key, place_in)
            }
            Ok(place) => {
                self.run_alone(number, command, args, place);
                false
            }
            Err(error) => {
                let stats = &self.node.stats[self.index];
                stats.ran(command.id, 1, 0, false);
                stats.failed(command.id, &error.line());
                self.reply(number, |reply| reply.error(error.line()));
                false
            }
        }
    }

    /// Answers a request that may not run, and sees to what that means for the client's transaction.
    fn refuse(&mut self, number: usize, args: Arguments<'_>, error: ReplyError) {
        let client = &mut self.connections[number].client;
        if matches!(error, ReplyError::ExecRefused(_)) {
            client.transaction = None;
            client.watching = None;
        } else if let Some(transaction) = &mut client.transaction {
            transaction.failed = true;
        }
        if matches!(error, ReplyError::UnknownCommand(_)) && is_http(args.at(0)) {
            self.node.log.warning(format_args!(
                "Possible SECURITY ATTACK detected: the client at {} speaks HTTP (POST or Host:), as a browser does that a \
                 hostile page has send commands; its connection was closed and nothing of it was run.",
                client.peer.remote()
            ));
            return self.disconnect(number);
        }
        let command = named(args, &self.node.renames).map(|command| command.id);
        self.node.stats[self.index].refused(command, &error.line());
        self.reply(number, |reply| reply.error(error.line()));
    }

    fn queue_in_transaction(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let connection = &mut self.connections[number];
        if let Some(transaction) = &mut connection.client.transaction {
            let request = OwnedRequest::copy(args);
            transaction.bytes += request.size();
            transaction.queue.push(Queued {
                command: command.tag(),
                request,
                parts: None,
            });
        }
        self.reply(number, |reply| reply.simple("QUEUED"));
    }

    /// Answers a request of a connection right away (in its place in the order).
    pub(super) fn reply(&mut self, number: usize, write: impl FnOnce(&mut Encoder<'_>)) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let sequence = connection.output.issue();
        self.reply_to(number, sequence, write);
    }

    /// Answers the command with this number.
    pub(super) fn reply_to(&mut self, number: usize, sequence: u32, write: impl FnOnce(&mut Encoder<'_>)) {
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let out = connection.output.begin(sequence);
        let start = out.len();
        write(&mut Encoder::new(out, connection.client.resp));
        connection.mute(sequence, start);
        connection.output.end(sequence, start);
        self.mark_dirty(number);
    }

    /// Runs a command on the client's and the node's state, as soon as it may.
    fn run_session_in_order(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        if !command.row.flags.contains(Flags::PUBSUB) {
            return self.run_session_quietly(number, command, args);
        }
        // Others see what it does: it must not overtake what its client did before.
        let connection = &mut self.connections[number];
        if connection.output.in_flight() > 0 {
            connection.hold = Hold::Drain(OwnedRequest::copy(args));
            return;
        }
        self.run_session_quietly(number, command, args);
        self.deliver_published();
    }

    /// Runs such a command while nobody publishes, if its reply must be the last that its client hears of some channel.
    fn run_session_quietly(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        if self.leaves_channels(number, command) {
            let node = std::sync::Arc::clone(&self.node);
            let _hush = self.hush(&node);
            self.run_session(number, command, args);
        } else {
            self.run_session(number, command, args);
        }
    }

    /// Runs a command on the client's and the node's state.
    fn run_session(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let Runs::OnSession(handler) = command.row.runs else {
            return;
        };
        let now_ms = self.now_ms();
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        let sequence = connection.output.issue();
        let out = connection.output.begin(sequence);
        let start = out.len();
        let (resp, was_monitor) = (connection.client.resp, connection.client.monitor);
        let mut session = Session {
            args,
            reply: Encoder::new(out, resp),
            client: &mut connection.client,
            node: &self.node,
            journal: self.journal.as_ref(),
            now_ms,
        };
        let begin_ns = self.node.clock.elapsed_ns();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| handler(&mut session)));
        let result = outcome.unwrap_or_else(|_| {
            connection.client.closing = Closing::AfterReply;
            Err(ReplyError::Internal)
        });
        let nanos = self.node.clock.elapsed_ns() - begin_ns;
        if let Err(error) = &result {
            self.node.stats[self.index].failed(command.id, &error.line());
        }
        let out = connection.output.begin(sequence);
        finish(result, start, out, resp);
        if command.row.flags.contains(Flags::PUSHES) {
            connection.count_reply_mode();
        } else {
            connection.mute(sequence, start);
        }
        connection.output.end(sequence, start);
        let monitor_changed = connection.client.monitor != was_monitor;
        self.mark_dirty(number);
        if command.row.flags.contains(Flags::ADMIN) {
            // What it changed holds for what follows it, and for what becomes known of itself.
            self.take_settings();
        }
        self.account_for(number, command, args, nanos);
        if monitor_changed {
            self.monitor_changed(number);
        }
    }

    /// Puts a command on its way to a shard. True unless its arguments had to be copied.
    fn push_task(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        shard: usize,
        key: Routed,
        place_in: Option<Place>,
    ) -> bool {
        self.show(number, command, args);
        let copied = place_in.is_none();
        // A request that was held lies in memory of its own.
        let place_in = place_in.unwrap_or_else(|| self.turn.source.copy(args));
        let connection = &mut self.connections[number];
        let modes = connection.modes();
        connection.count_reply_mode();
        self.turn.long[shard] |= !matches!(command.row.runs, Runs::OnKeys(_));
        self.turn.tasks[shard].push(Task {
            command,
            hash: key.hash,
            connection: number as u32,
            client: connection.client.id as u32,
            sequence: connection.output.issue(),
            first_span: place_in.first_span,
            spans: place_in.spans,
            detached: place_in.detached,
            chunk: place_in.chunk,
            slot: key.slot,
            db: connection.client.db,
            key: key.index,
            modes,
        });
        !copied
    }

    /// Step 3: runs what was sorted, shard by shard, its own first.
    fn execute(&mut self) {
        let own = self.index;
        self.execute_here(own);
        for shard in 0..self.turn.tasks.len() {
            if shard != own && !self.turn.tasks[shard].is_empty() {
                self.execute_there(shard);
            }
        }
        self.turn.long.fill(false);
    }

    fn execute_here(&mut self, own: usize) {
        if self.turn.tasks[own].is_empty() {
            return;
        }
        if self.waiting.is_empty() && self.run_tasks(own, Hire::Own) {
            return;
        }
        let batch = self.pack(own);
        self.waiting.push_back(Work::Run(batch));
    }

    /// Commands for another shard: borrowed if they are short and nothing is ahead of them, else sent.
    fn execute_there(&mut self, shard: usize) {
        let may_borrow = self.under_way[shard] == 0 && !self.turn.long[shard];
        if may_borrow && self.run_tasks(shard, Hire::Borrow) {
            self.node.stats[self.index].batches_borrowed.add(1);
            return;
        }
        let batch = self.pack(shard);
        self.under_way[shard] += 1;
        self.node.stats[self.index].batches_sent.add(1);
        self.mesh.send(shard, Message::Run(batch));
    }

    /// Runs the turn's commands for a shard on this thread, if its partition can be had.
    fn run_tasks(&mut self, shard: usize, hire: Hire) -> bool {
        let mesh = std::sync::Arc::clone(&self.mesh);
        let held = match hire {
            Hire::Own => mesh.cell(shard).own(),
            Hire::Borrow => mesh.cell(shard).borrow(BORROW_TRIES),
        };
        let Some(mut held) = held else { return false };
        let environment = environment!(self);
        let Turn {
            tasks,
            source,
            scratch,
            ..
        } = &mut self.turn;
        let mut replies = ToConnections {
            connections: &mut self.connections,
            dirty: &mut self.dirty,
            scratch,
        };
        let tasks = &mut tasks[shard];
        let report = count_memory(held.get(), &self.node, |partition| {
            run_batch(partition, tasks, source, &mut replies, &environment)
        });
        drop(held);
        tasks.clear();
        self.report(&report.panicked);
        self.enter_slow(report.slow);
        true
    }

    /// Tells the operator of commands that were stopped by a panic.
    pub(super) fn report(&self, panicked: &[Task]) {
        for task in panicked {
            self.node.log.warning(format_args!(
                "a handler of '{}' panicked: the command was answered with an error, and what it had changed so far \
                 stays; please report this as a bug",
                task.command.full_name
            ));
        }
    }

    fn pack(&mut self, shard: usize) -> Box<Batch> {
        let mut batch = self.turn.batches.pop().unwrap_or_default();
        batch.pack(
            self.index,
            shard,
            &mut self.turn.tasks[shard],
            &mut self.turn.source,
        );
        batch
    }

    /// Runs a batch on this shard's partition and sends it back. False when the partition is lent: the batch waits.
    pub(super) fn run_sent(&mut self, batch: &mut Batch) -> bool {
        let mesh = std::sync::Arc::clone(&self.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return false;
        };
        let Batch {
            tasks,
            source,
            replies,
            ends,
            slow,
            ..
        } = batch;
        let mut sink = ToBatch { replies, ends };
        let environment = self.environment();
        let report = count_memory(held.get(), &self.node, |partition| {
            run_batch(partition, tasks, source, &mut sink, &environment)
        });
        drop(held);
        self.report(&report.panicked);
        // Who sent them is known where they come from.
        *slow = report.slow;
        true
    }

    /// Replies have come back from another shard.
    pub(super) fn deliver(&mut self, mut batch: Box<Batch>) {
        if batch.target != self.index {
            // It no longer keeps later batches in line.
            self.under_way[batch.target] -= 1;
        }
        let mut start = 0;
        for (task, &end) in batch.tasks.iter().zip(&batch.ends) {
            let reply = &batch.replies[start..end];
            start = end;
            let number = task.connection as usize;
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            if connection.client.id as u32 != task.client {
                continue;
            }
            let reply = if task.modes.contains(Modes::MUTE) {
                &[]
            } else {
                reply
            };
            connection.output.deliver(task.sequence, reply);
            self.mark_dirty(number);
            self.wake_if_it_may_go_on(number);
        }
        self.enter_slow(batch.slow.drain(..));
        let pool = &mut self.turn.pool;
        batch.clear(|chunk| pool.put(chunk));
        if self.turn.batches.len() < 32 {
            self.turn.batches.push(batch);
        }
    }

    /// Serves a connection again if something in its input waits and now may run.
    pub(super) fn wake_if_it_may_go_on(&mut self, number: usize) {
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        let waits = match connection.hold {
            Hold::Drain(_) => connection.output.in_flight() == 0,
            Hold::None => {
                connection.output.has_room() && (connection.readable || connection.input.has_unparsed())
            }
            Hold::Busy(_) | Hold::Pause(_) | Hold::UnderWay | Hold::Blocked => false,
        };
        if waits {
            self.enqueue(number);
        }
    }

    /// Commands that found a shard taken try again.
    pub(super) fn retry_busy(&mut self) {
        if self.busy.is_empty() {
            return;
        }
        if self.queue.is_empty() {
            // Whoever holds the shard may need this core to be done with it.
            std::thread::yield_now();
        }
        for number in std::mem::take(&mut self.busy) {
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            if let Hold::Busy(request) = std::mem::take(&mut connection.hold) {
                self.request(number, request.arguments(), None);
                self.enqueue(number);
            }
        }
    }

    /// Connections whose pause is over are checked again.
    pub(super) fn resume_paused(&mut self) {
        if self.paused.is_empty() || self.node.pause.active(self.now_ms()).is_some() {
            return;
        }
        for number in std::mem::take(&mut self.paused) {
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            if let Hold::Pause(request) = std::mem::take(&mut connection.hold) {
                self.request(number, request.arguments(), None);
                self.enqueue(number);
            }
        }
    }

    /// Chunks go with the turn: what connections have not parsed moves to memory of their own.
    fn keep_input(&mut self, numbers: &[usize]) {
        for &number in numbers {
            let Some(connection) = self.connections.get_mut(number) else {
                continue;
            };
            connection.input.keep(&mut self.turn.source.chunks);
            let drained = matches!(connection.hold, Hold::Drain(_)) && connection.output.in_flight() == 0;
            let unparsed = connection.may_go_on() && connection.input.has_unparsed();
            if drained || unparsed {
                self.enqueue(number);
            }
        }
    }

    fn end_reading(&mut self) {
        let Turn {
            pool, source, filled, ..
        } = &mut self.turn;
        *filled = None;
        source.clear(|chunk| pool.put(chunk));
    }
}

/// Whether a request is a line of HTTP: a web page that has a browser send it must not get its body executed.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

/// Whether a connection has more to read than a turn gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    Done,
    MoreToRead,
}

/// How a partition is come by.
#[derive(Clone, Copy, Debug)]
enum Hire {
    Own,
    Borrow,
}

/// Runs something on a partition and books what it allocates to it.
pub(super) fn count_memory<R>(
    partition: &mut Partition,
    node: &Node,
    run: impl FnOnce(&mut Partition) -> R,
) -> R {
    let before = memory::thread_balance();
    let result = run(partition);
    partition.memory_bytes += memory::thread_balance() - before;
    node.memory[partition.shard].set(partition.memory_bytes.max(0) as u64);
    node.garbage[partition.shard].set(partition.keyspace.pending_release() as u64);
    result
}

impl Connection {
    /// Drops a reply that CLIENT REPLY keeps from being sent. The command that turns replies on again is answered, the one
    /// that turns them off is not.
    pub(super) fn mute(&mut self, sequence: u32, start: usize) {
        if self.client.reply_mode != ReplyMode::On {
            self.output.begin(sequence).truncate(start);
        }
        self.count_reply_mode();
    }

    /// CLIENT REPLY SKIP lasts for one command after the one that asked for it.
    pub(super) fn count_reply_mode(&mut self) {
        self.client.reply_mode = match self.client.reply_mode {
            ReplyMode::SkipNext => ReplyMode::Skip,
            ReplyMode::Skip => ReplyMode::On,
            mode => mode,
        };
    }
}

/// Replies that go straight to connections of this loop.
struct ToConnections<'a> {
    connections: &'a mut Slab<Connection>,
    dirty: &'a mut Vec<usize>,
    scratch: &'a mut Vec<u8>,
}

impl Replies for ToConnections<'_> {
    #[inline]
    fn begin(&mut self, task: &Task) -> &mut Vec<u8> {
        match self.connections.get_mut(task.connection as usize) {
            Some(connection) if !task.modes.contains(Modes::MUTE) => connection.output.begin(task.sequence),
            _ => self.scratch,
        }
    }

    #[inline]
    fn end(&mut self, task: &Task, start: usize) {
        self.scratch.clear();
        let Some(connection) = self.connections.get_mut(task.connection as usize) else {
            return;
        };
        let start = if task.modes.contains(Modes::MUTE) {
            connection.output.begin(task.sequence).len()
        } else {
            start
        };
        connection.output.end(task.sequence, start);
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(task.connection as usize);
        }
    }
}

/// Replies that travel back with their batch.
struct ToBatch<'a> {
    replies: &'a mut Vec<u8>,
    ends: &'a mut Vec<usize>,
}

impl Replies for ToBatch<'_> {
    #[inline]
    fn begin(&mut self, _: &Task) -> &mut Vec<u8> {
        self.replies
    }

    #[inline]
    fn end(&mut self, _: &Task, _: usize) {
        self.ends.push(self.replies.len());
    }
}
