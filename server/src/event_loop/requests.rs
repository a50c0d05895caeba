//! Serves connections: reads and parses their input, checks each request, and runs it, queues it, sends it to its
//! shard or holds it.

use shardis_protocol::{Arguments, Encoder, Limits, ProtocolError, Requests};
use smallvec::SmallVec;

use super::EventLoop;
use super::evict::Room;
use super::turn::{Sender, Turn};
use crate::config::Settings;
use crate::connection::input::{Parsed, Reading, Received};
use crate::connection::{Connection, Gate};
use crate::dispatch::account;
use crate::dispatch::admission::{Admitted, Conditions, admit, admit_plainly, is_unrestricted, named};
use crate::dispatch::plan::{Place, Routed, place, place_of_one_key};
use crate::dispatch::redirect::is_plain;
use crate::dispatch::rights::permits_plain;
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::{Client, Closing, OwnedRequest, ReplyMode, Standing};
use crate::limits::SERVE_NS;
use crate::shard::inbox::{Location, Source};
use crate::spec::Registered;
use crate::state::{Node, PauseMode};

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
        let handshake = self.clients[number].socket.handshake_bytes();
        if handshake.is_some() && !self.handshakes.may_go_on(&self.settings) {
            return true;
        }
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
        let received = connection
            .input
            .receive(&mut self.poll.link(&mut connection.socket, number), &mut reading);
        if let Some(before) = handshake
            && !self.continue_handshake(number, before)
        {
            return false;
        }
        let connection = &mut self.clients[number];
        match received {
            Received::Bytes { count, more } => {
                let more = more || connection.ends || connection.socket.has_unread();
                connection.readable = more;
                connection.client.active_ms = self.now_us / 1000;
                let stats = &self.node.stats[self.index];
                if !connection.client.is_primary {
                    stats.bytes_in.add(count as u64);
                }
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
                // What came may have been a part of a record only, or of a handshake, with the end behind it.
                let more = connection.ends && connection.socket.session().is_some();
                connection.readable = more;
                more
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
        // What the client has sent may be what came of a change that it is to be told of first.
        self.deliver_invalidations();
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
                authenticated: connection.client.identity.standing() != Standing::Unauthenticated,
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
                Err(ProtocolError::TlsHandshake) => {
                    self.turn_away_handshake(number);
                    break;
                }
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
        let place = |index| {
            let (first, spans) = requests.spans_range(index);
            Location {
                chunk: parsed.chunk,
                first_span: first_span + first,
                spans,
                detached,
            }
        };
        if detached > 0 {
            self.clients[number].client.begin_request();
            if !self.request_with_buffers(number, source, place(0)) {
                source.drop_buffers();
            }
            return 1;
        }
        let mut index = 0;
        let mut is_unrestricted = None;
        // Neighbours are mostly alike.
        let mut may_be_plain = true;
        while index < requests.len() {
            let may_go_on = || self.clients.get(number).is_some_and(Connection::may_go_on);
            if index > 0 && (self.looked_ns >= until_ns || !may_go_on()) {
                break;
            }
            // The client's state changes only with commands that run on no single shard.
            let pushed =
                if may_be_plain && *is_unrestricted.get_or_insert_with(|| self.is_unrestricted(number)) {
                    self.push_plain(number, source, (index..requests.len()).map(place))
                } else {
                    0
                };
            index += pushed;
            if pushed == 0 {
                self.clients[number].client.begin_request();
                let location = place(index);
                may_be_plain = self.request(number, source.arguments_at(location, &[]), Some(location));
                is_unrestricted = None;
                index += 1;
            }
        }
        index
    }

    /// Whether requests of a connection need no other checks than those of their rows and their user's rules. That holds until a
    /// command has run that is not on a single shard.
    fn is_unrestricted(&mut self, number: usize) -> bool {
        if !self.follows_users(number) {
            return false;
        }
        let pause = self.node.pause.active(self.now_ms());
        let client = &self.clients[number].client;
        if client.is_primary {
            return client.transaction.is_none();
        }
        let following = &self.node.replication.following;
        let is_waiting = self.node.loading.is_under_way() || following.is_stale() || following.is_changing();
        is_unrestricted(client, pause.map(|(mode, _)| mode), is_waiting)
            && self.node.excess_bytes() == 0
            && self.node.denial(&self.settings).is_none()
            && !self.node.scripts.long.any_busy()
    }

    /// Makes requests of an unrestricted client tasks for their shards, up to the first one whose command is not one on a single key,
    /// or for which the connection has no room. Returns the number of tasks. Nothing runs meanwhile, so that what the requests
    /// have in common is looked up once.
    fn push_plain(
        &mut self,
        number: usize,
        source: &Source,
        locations: impl Iterator<Item = Location>,
    ) -> usize {
        let node = &*self.node;
        let connection = &mut self.clients[number];
        let reads_only = node.replication.following.refuses_writes() && !connection.client.is_primary;
        let is_restricted = connection.client.identity.standing() == Standing::Restricted;
        let (is_shown, is_muted) = (
            node.monitors.are_there(),
            connection.client.reply_mode != ReplyMode::On,
        );
        // Those of a cluster that are to run elsewhere are looked at closely.
        let slots = self.reach.seen_slots().filter(|_| !connection.client.is_primary);
        let reads_replicas = connection.client.reads_replicas;
        let mut sender = Sender::of(number, connection);
        let room = connection.output.room();
        let mut count = 0;
        for location in locations.take(room) {
            let args = source.arguments_at(location, &[]);
            let last = connection.client.last_command;
            let Some(command) = admit_plainly(args, last, &node.renames, reads_only) else {
                break;
            };
            let Some(target) = place_of_one_key(command, args, node.hashing) else {
                break;
            };
            if slots.is_some_and(|slots| !is_plain(slots, target.1.slot, command, reads_replicas)) {
                break;
            }
            if is_restricted && !permits_plain(&connection.client, command, args) {
                break;
            }
            connection.client.last_command = Some(command.tag());
            if is_shown {
                account::show(&mut self.turn.lines, node, &connection.client, command, args);
            }
            let sequence = connection.output.issue();
            self.turn
                .push_task((sender, sequence), command, args, target, location);
            if is_muted {
                connection.count_reply_mode();
                sender = Sender::of(number, connection);
            }
            count += 1;
        }
        if is_shown {
            self.hand_on_full_lines();
        }
        count
    }

    /// Handles a request that has arguments in buffers of their own; see [`request`](Self::request).
    #[cold]
    fn request_with_buffers(&mut self, number: usize, source: &Source, location: Location) -> bool {
        let buffers: SmallVec<[&[u8]; 4]> = source.buffers(location).collect();
        self.request(number, source.arguments_at(location, &buffers), Some(location))
    }

    /// Replies with an error, and ends the connection.
    pub(super) fn last_words(&mut self, number: usize, line: &[u8]) {
        if self.applying.is_by(number) {
            return self.break_stream();
        }
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
        if !self.follows_users(number) {
            return false;
        }
        let out_of_memory = self.make_room() == Room::None;
        let redirect = self.redirect(number, args);
        let connection = &mut self.clients[number];
        let now = (&*self.settings, self.now_us / 1000);
        let conditions = Conditions {
            redirect: redirect.as_ref(),
            ..conditions(&self.node, now, &connection.client, out_of_memory)
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
        note_admitted(&mut connection.client, command);
        let place = place(command, args, self.node.hashing);
        if let Ok(place) = &place
            && (self.reach.script.is_some() || self.node.scripts.long.any_busy())
            && self.waits_for_script(number, (command, args), place)
        {
            return false;
        }
        match place {
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
        let connection = &mut self.clients[number];
        let sender = (Sender::of(number, connection), connection.output.issue());
        connection.count_reply_mode();
        match location {
            Some(location) => self.turn.push_task(sender, command, args, target, location),
            None => self.turn.push_copy(sender, command, args, target),
        }
        location.is_some()
    }

    /// Replies with the error for a request that may not run, and marks the client's transaction as failed where that
    /// is the rule.
    pub(super) fn refuse(&mut self, number: usize, args: Arguments<'_>, error: ReplyError) {
        let client = &mut self.clients[number].client;
        let command = named(args, &self.node.renames);
        let is_redirected_exec = matches!(error, ReplyError::Redirected(_))
            && command.is_some_and(|command| command.row.runs.is_exec());
        if is_redirected_exec || matches!(error, ReplyError::ExecRefused(_)) {
            client.transaction = None;
            client.watching = None;
        } else if let Some(transaction) = &mut client.transaction {
            transaction.failed = true;
        }
        if matches!(error, ReplyError::UnknownCommand(_)) && !client.is_primary && is_http(args.at(0)) {
            self.node.log.warning(format_args!(
                "Possible SECURITY ATTACK detected: the client at {} sent HTTP (POST or Host:), probably a browser that \
                 a hostile page makes send commands. Its connection was closed, and none of the commands was run.",
                client.peer.remote()
            ));
            return self.clients.disconnect(number);
        }
        if client.is_primary {
            self.refuse_primary(args, &error);
        }
        let client = &mut self.clients[number].client;
        client.last_command = command.map(Registered::tag);
        self.note_refusal(number, &error, args);
        self.node.stats[self.index].refused(command.map(|command| command.id), &error.line());
        self.clients.reply(number, |reply| reply.error(error.line()));
    }

    /// Notes that a command of the primary's stream cannot run.
    #[cold]
    fn refuse_primary(&self, args: Arguments<'_>, error: &ReplyError) {
        let name = args.at(0).escape_ascii().to_string();
        self.node.note_divergence(&error.line(), &name);
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
        let is_paused = || self.node.pause.active(self.now_ms()).is_some();
        if self.clients.paused.is_empty() || is_paused() || self.node.replication.following.is_changing() {
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

/// Notes that a command of a client is about to run.
fn note_admitted(client: &mut Client, command: &'static Registered) {
    client.last_command = Some(command.tag());
    if let Some(tracking) = &mut client.tracking
        && command.full_name.starts_with("client|")
    {
        tracking.pass_over();
    }
}

/// State of the node that the checks of a client's request depend on. What the primary has sent is not checked.
fn conditions<'a>(
    node: &'a Node,
    (settings, now_ms): (&Settings, i64),
    client: &Client,
    out_of_memory: bool,
) -> Conditions<'a> {
    if client.is_primary {
        return Conditions::of_primary(&node.renames);
    }
    let following = &node.replication.following;
    let pause = node.pause.active(now_ms).map(|(mode, _)| mode);
    Conditions {
        renames: &node.renames,
        redirect: None,
        out_of_memory,
        denial: node.denial(settings),
        reads_only: following.refuses_writes(),
        is_stale: following.is_stale(),
        is_loading: node.loading.is_under_way(),
        is_loading_beside: node.loading.is_beside(),
        pause: pause.or(following.is_changing().then_some(PauseMode::Write)),
        debugging: settings.enable_debug_command,
        modules: settings.enable_module_command,
        scripts: Some(node),
    }
}

/// Whether a request is a line of HTTP. Its connection is closed, so that a web page cannot make a browser send
/// commands in the body of a request.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}
