//! Serves connections: reads and parses their input, checks each request, and runs it, queues it, sends it to its
//! shard or holds it.

use shardis_protocol::{Arguments, Encoder, Limits, Requests};
use smallvec::SmallVec;

use super::EventLoop;
use super::evict::Room;
use super::turn::Turn;
use crate::connection::input::{Parsed, Reading, Received};
use crate::connection::{Connection, Gate};
use crate::dispatch::admission::{Admitted, Conditions, admit, admit_plainly, is_unrestricted, named};
use crate::dispatch::plan::{Place, Routed, place, place_of_one_key};
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::{Closing, OwnedRequest};
use crate::limits::SERVE_NS;
use crate::shard::inbox::{Location, Source};
use crate::spec::Registered;

impl EventLoop {
    /// Steps 2 and 3: serves the queued connections and runs their commands, until none of them can go on in this
    /// turn. The rest of the queue is served in the next turn.
    pub(super) fn serve_and_execute(&mut self) {
        let mut again = Vec::new();
        while !self.clients.queue.is_empty() && !self.turn.source.is_full() {
            let queue = std::mem::take(&mut self.clients.queue);
            for &number in &queue {
                if self.serve(number) {
                    again.push(number);
                }
            }
            self.execute();
            self.keep_input(&queue);
            if self.is_turn_over() {
                break;
            }
        }
        // These connections have been read in this turn already.
        again.into_iter().for_each(|number| self.clients.enqueue(number));
        self.turn.end_reading();
    }

    /// Takes requests of one connection, reading once if it has no unparsed input. True when it has more to read than
    /// a turn allows.
    fn serve(&mut self, number: usize) -> bool {
        let Some(connection) = self.clients.get_mut(number) else {
            return false;
        };
        connection.is_queued = false;
        if connection.client.closing == Closing::Now {
            self.clients.disconnect(number);
            return false;
        }
        if self.turn.source.is_full() {
            return true;
        }
        if connection.ends && matches!(connection.gate, Gate::Blocked) {
            // The client has gone: its further input is ignored.
            self.clients.disconnect(number);
            return false;
        }
        if let Gate::Drain(_) = connection.gate
            && connection.output.in_flight() == 0
        {
            let Gate::Drain(request) = std::mem::take(&mut connection.gate) else {
                return false;
            };
            self.request(number, request.arguments(), None);
        }
        if self
            .clients
            .get(number)
            .is_some_and(|connection| connection.input.has_unparsed())
        {
            self.take_requests(number);
        }
        let Some(connection) = self.clients.get_mut(number) else {
            return false;
        };
        if !connection.may_go_on() || !connection.readable || connection.input.has_unparsed() {
            return false;
        }
        self.read(number)
    }

    fn read(&mut self, number: usize) -> bool {
        let connection = &mut self.clients[number];
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
                connection.bytes_in += count as u64;
                self.ledger.note_input(connection.input.bytes(), stats);
                stats.reads.add(1);
                if self.enforce_input_limit(number) {
                    return false;
                }
                self.take_requests(number);
                more
            }
            Received::Nothing => {
                connection.readable = false;
                false
            }
            Received::Closed => {
                connection.readable = false;
                self.clients.disconnect(number);
                false
            }
        }
    }

    /// Takes complete requests from the input, as long as the connection may go on.
    fn take_requests(&mut self, number: usize) {
        let until_ns = self.looked_ns + SERVE_NS;
        // The requests are moved out so that they can be read while other parts of the loop change.
        let mut requests = std::mem::take(&mut self.turn.requests);
        let mut source = std::mem::take(&mut self.turn.source);
        self.clients[number].input.expose(&mut source.chunks);
        while let Some(connection) = self.clients.get_mut(number)
            && connection.may_go_on()
        {
            let limits = Limits {
                bulk_bytes_max: self.settings.proto_max_bulk_len as usize,
                authenticated: connection.client.authenticated,
                ..Limits::default()
            };
            match connection
                .input
                .next_requests(&mut source.chunks, &limits, &mut requests)
            {
                Ok(Some(parsed)) => {
                    let taken = self.take_parsed((number, until_ns), parsed, &requests, &mut source);
                    if let Some(connection) = self.clients.get_mut(number) {
                        connection.input.put_back(parsed, &requests, taken);
                    }
                    if self.looked_ns >= until_ns {
                        // Commands that run at once have taken the time of this connection.
                        break;
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

    /// Takes requests that were parsed together, as long as the connection may go on and has time. The caller has checked
    /// that for the first one. Returns the number of requests taken.
    fn take_parsed(
        &mut self,
        (number, until_ns): (usize, u64),
        parsed: Parsed,
        requests: &Requests,
        source: &mut Source,
    ) -> usize {
        let first_span = source.add(requests);
        let buffers = self.clients[number].input.take_detached();
        let detached = if buffers.is_empty() {
            0
        } else {
            source.add_buffers(buffers)
        };
        let mut is_unrestricted = None;
        // Neighbours are mostly alike.
        let mut may_be_plain = true;
        for index in 0..requests.len() {
            let may_go_on = || self.clients.get(number).is_some_and(Connection::may_go_on);
            if index > 0 && (self.looked_ns >= until_ns || !may_go_on()) {
                return index;
            }
            let (first, spans) = requests.spans_range(index);
            let location = Location {
                chunk: parsed.chunk,
                first_span: first_span + first,
                spans,
                detached,
            };
            if detached > 0 {
                if !self.request_with_buffers(number, source, location) {
                    source.drop_buffers();
                }
                continue;
            }
            let args = source.arguments_at(location, &[]);
            // The client's state changes only with commands that run on no single shard.
            let is_plain = may_be_plain
                && *is_unrestricted.get_or_insert_with(|| self.is_unrestricted(number))
                && self.push_plain(number, args, location);
            if !is_plain {
                may_be_plain = self.request(number, args, Some(location));
                is_unrestricted = None;
            }
        }
        requests.len()
    }

    /// Whether requests of a connection need no other checks than those of their rows. That holds until a command has run
    /// that is not on a single shard.
    fn is_unrestricted(&self, number: usize) -> bool {
        let pause = self.node.pause.active(self.now_ms());
        let client = &self.clients[number].client;
        let is_loading = self.node.loading.is_under_way();
        is_unrestricted(client, pause.map(|(mode, _)| mode), is_loading)
            && self.node.excess_bytes() == 0
            && self.node.denial(&self.settings).is_none()
    }

    /// Makes a request of an unrestricted client a task for its shard. False when its command is not one on a single key.
    #[inline]
    fn push_plain(&mut self, number: usize, args: Arguments<'_>, location: Location) -> bool {
        let client = &mut self.clients[number].client;
        let Some(command) = admit_plainly(args, client.last_command, &self.node.renames) else {
            return false;
        };
        let Some(target) = place_of_one_key(command, args, self.node.hashing) else {
            return false;
        };
        client.last_command = Some(command.tag());
        self.push_task(number, command, args, target, Some(location));
        true
    }

    /// Handles a request that has arguments in buffers of their own; see [`request`](Self::request).
    #[cold]
    fn request_with_buffers(&mut self, number: usize, source: &Source, location: Location) -> bool {
        let buffers: SmallVec<[&[u8]; 4]> = source.buffers(location).collect();
        self.request(number, source.arguments_at(location, &buffers), Some(location))
    }

    /// Replies with an error, and ends the connection.
    fn last_words(&mut self, number: usize, line: &[u8]) {
        let connection = &mut self.clients[number];
        let sequence = connection.output.issue();
        let out = connection.output.begin(sequence);
        let start = out.len();
        Encoder::new(out, connection.client.resp).error(line);
        connection.output.end(sequence, start);
        connection.client.closing = Closing::AfterReply;
        self.node.stats[self.index].answered_error(line);
        self.clients.mark_dirty(number);
    }

    /// Checks a request, and runs it, queues it, sends it to its shard or holds it. True when it became a task that
    /// refers to the memory at `location`.
    pub(super) fn request(&mut self, number: usize, args: Arguments<'_>, location: Option<Location>) -> bool {
        let now_ms = self.now_ms();
        let out_of_memory = self.make_room() == Room::None;
        let connection = &mut self.clients[number];
        let conditions = Conditions {
            renames: &self.node.renames,
            out_of_memory,
            denial: self.node.denial(&self.settings),
            is_loading: self.node.loading.is_under_way(),
            pause: self.node.pause.active(now_ms).map(|(mode, _)| mode),
            debugging: self.settings.enable_debug_command,
            modules: self.settings.enable_module_command,
        };
        let command = match admit(&connection.client, args, &conditions) {
            Ok(Admitted::Run(command)) => command,
            Ok(Admitted::Queue(command)) => {
                connection.client.last_command = Some(command.tag());
                self.queue_in_transaction(number, command, args);
                return false;
            }
            Ok(Admitted::Wait(command)) => {
                connection.client.last_command = Some(command.tag());
                connection.client.is_paused = true;
                connection.gate = Gate::Pause(OwnedRequest::copy(args));
                self.clients.paused.push(number);
                self.count_blocked();
                return false;
            }
            Err(error) => {
                self.refuse(number, args, error);
                return false;
            }
        };
        connection.client.last_command = Some(command.tag());
        match place(command, args, self.node.hashing) {
            Ok(Place::Session) => {
                self.run_session(number, command, args);
                false
            }
            Ok(Place::Shard { shard, key }) => self.push_task(number, command, args, (shard, key), location),
            Ok(place) => {
                self.begin_spanning(number, command, args, place);
                false
            }
            Err(error) => {
                let stats = &self.node.stats[self.index];
                stats.ran(command.id, 1, 0, false);
                stats.failed(command.id, &error.line());
                self.clients.reply(number, |reply| reply.error(error.line()));
                false
            }
        }
    }

    /// Makes a command a task for its shard. True unless its arguments had to be copied.
    #[inline]
    fn push_task(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        target: (usize, Routed),
        location: Option<Location>,
    ) -> bool {
        self.show(number, command, args);
        let connection = (number, &mut self.clients[number]);
        self.turn.push(connection, command, args, target, location)
    }

    /// Replies with the error for a request that may not run, and marks the client's transaction as failed where that
    /// is the rule.
    fn refuse(&mut self, number: usize, args: Arguments<'_>, error: ReplyError) {
        let client = &mut self.clients[number].client;
        if matches!(error, ReplyError::ExecRefused(_)) {
            client.transaction = None;
            client.watching = None;
        } else if let Some(transaction) = &mut client.transaction {
            transaction.failed = true;
        }
        if matches!(error, ReplyError::UnknownCommand(_)) && is_http(args.at(0)) {
            self.node.log.warning(format_args!(
                "Possible SECURITY ATTACK detected: the client at {} sent HTTP (POST or Host:), probably a browser that \
                 a hostile page makes send commands. Its connection was closed, and none of the commands was run.",
                client.peer.remote()
            ));
            return self.clients.disconnect(number);
        }
        let command = named(args, &self.node.renames);
        client.last_command = command.map(Registered::tag);
        self.node.stats[self.index].refused(command.map(|command| command.id), &error.line());
        self.clients.reply(number, |reply| reply.error(error.line()));
    }

    fn queue_in_transaction(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let client = &mut self.clients[number].client;
        let watching = client.watching.as_ref();
        let has_changed = watching.is_some_and(|watching| watching.token.is_touched());
        // A transaction that cannot run any more takes no more memory.
        if let Some(transaction) = &mut client.transaction
            && !transaction.failed
            && !has_changed
        {
            let request = OwnedRequest::copy(args);
            transaction.bytes += request.size();
            transaction.queue.push(Queued {
                command: command.tag(),
                request,
                parts: None,
            });
        }
        self.clients.reply(number, |reply| reply.simple("QUEUED"));
    }

    /// Tries commands again that found a shard taken.
    pub(super) fn retry_busy(&mut self) {
        if self.clients.busy.is_empty() {
            return;
        }
        if self.clients.queue.is_empty() {
            // The thread that holds the shard may need this core to finish.
            std::thread::yield_now();
        }
        let busy = std::mem::take(&mut self.clients.busy);
        self.try_again(busy);
    }

    /// Takes the requests of connections again that found a shard taken, or wait for a snapshot.
    pub(super) fn try_again(&mut self, numbers: Vec<usize>) {
        for number in numbers {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            if let Gate::Busy(request) = connection.gate.take_if(|gate| matches!(gate, Gate::Busy(_))) {
                self.request(number, request.arguments(), None);
                self.clients.enqueue(number);
            }
        }
    }

    /// Checks the requests of connections again whose pause is over.
    pub(super) fn resume_paused(&mut self) {
        if self.clients.paused.is_empty() || self.node.pause.active(self.now_ms()).is_some() {
            return;
        }
        for number in std::mem::take(&mut self.clients.paused) {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            if let Gate::Pause(request) = connection.gate.take_if(|gate| matches!(gate, Gate::Pause(_))) {
                connection.client.is_paused = false;
                self.request(number, request.arguments(), None);
                self.clients.enqueue(number);
            }
        }
        self.count_blocked();
    }

    /// Moves unparsed input of connections to memory of their own, because the turn's chunks are reused.
    fn keep_input(&mut self, numbers: &[usize]) {
        for &number in numbers {
            let Some(connection) = self.clients.get_mut(number) else {
                continue;
            };
            connection.input.keep(&mut self.turn.source.chunks);
            if connection.input.holds_memory() {
                let stats = &self.node.stats[self.index];
                self.ledger.book(connection, self.poll.allocated(number), stats);
            }
            if connection.client.closing == Closing::Now {
                // The connection is closed whatever it waits for: if it were served again, this would repeat for
                // ever.
                self.clients.disconnect(number);
                continue;
            }
            let drained = matches!(connection.gate, Gate::Drain(_)) && connection.output.in_flight() == 0;
            let unparsed = connection.may_go_on() && connection.input.has_unparsed();
            if drained || unparsed {
                self.clients.enqueue(number);
            }
        }
    }
}

/// Whether a request is a line of HTTP. Its connection is closed, so that a web page cannot make a browser send
/// commands in the body of a request.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
