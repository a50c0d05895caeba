//! Commands of which every shard, or every loop, runs a part; the loop of the connection merges the parts into one
//! reply.

use std::sync::Arc;

use shardis_protocol::Arguments;

use super::EventLoop;
use super::batches::count_memory;
use super::reach::Work;
use super::run::Issued;
use crate::commands::registry;
use crate::connection::Gate;
use crate::dispatch::execution::{Call, PartAccess, run_part, run_walk};
use crate::dispatch::plan::Routed;
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::exec::{Carried, OwnedRequest, Part, Roster, Walk};
use crate::journal::Position;
use crate::shard::inbox::{Gather, Message, PartRun, Walking};
use crate::spec::Registered;

/// A command whose parts are being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    connection: usize,
    purpose: Purpose,
    /// Parts that have arrived, by shard or loop.
    parts: Vec<Option<Result<Part, ReplyError>>>,
    missing: usize,
    /// Duration of the longest part, nanoseconds.
    longest_ns: u64,
    /// The end of the effects of the parts so far in the journal.
    end: Position,
}

/// Purpose for which parts are gathered.
#[derive(Debug)]
enum Purpose {
    /// They are merged into the reply of a command, with this sequence number.
    Reply { gather: Arc<Gather>, sequence: u32 },
    /// They are kept in the client's transaction, with the queued command at this index, and its operation continues.
    Exec { operation: usize, index: usize },
    /// They confirm that everything admitted before a command has run: the command then gets this reply, with this
    /// sequence number.
    Fence { reply: Vec<u8>, sequence: u32 },
}

impl Gather {
    /// The call of the command, for the shard or loop that runs a part.
    fn call(&self) -> Call<'_> {
        Call {
            command: self.command,
            args: self.request.arguments(),
            db: self.db,
            client: self.client as u32,
            modes: self.modes,
            wrote_to: Position::default(),
            routed: Routed::default(),
            origin: self.modes.origin(),
            waiting: Waiting::Denied,
        }
    }
}

impl EventLoop {
    /// Asks all loops for their parts of the command that a client's suspended transaction has come to.
    pub(super) fn gather_for_exec(&mut self, number: usize, operation: usize) {
        let transaction = self.clients[number].client.transaction.as_ref();
        let next = transaction.and_then(|transaction| {
            let index = transaction.suspended.as_ref()?.next;
            Some((index, &transaction.queue[index]))
        });
        let (index, queued) = next.expect("the transaction of a suspended operation is suspended");
        let (command, request) = (registry().row(queued.command.id), queued.request.clone());
        self.gather(number, command, request, |_, _| Purpose::Exec {
            operation,
            index,
        });
    }

    /// Asks all shards or loops for their parts of a command.
    pub(super) fn begin_gathering(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
    ) {
        let request = OwnedRequest::copy(args);
        self.gather(number, command, request, |gather, sequence| Purpose::Reply {
            gather: Arc::clone(gather),
            sequence: sequence(),
        });
    }

    /// Begins one call of a walk over the shards, at the one in its cursor.
    pub(super) fn begin_walk(&mut self, number: usize, command: &'static Registered, args: Arguments<'_>) {
        let request = OwnedRequest::copy(args);
        let walk = Walk::at(args.at(1), self.reach.mesh.len()).expect("its place was told from its cursor");
        let reply = |gather: &Arc<Gather>, sequence: &mut dyn FnMut() -> u32| Purpose::Reply {
            gather: Arc::clone(gather),
            sequence: sequence(),
        };
        let gather = self.prepare(number, command, request, 1, reply);
        self.send_walk(Box::new(Walking {
            gather,
            walk,
            nanos: 0,
            end: Position::default(),
        }));
    }

    /// Sends a walk to the shard that it has reached.
    fn send_walk(&mut self, walking: Box<Walking>) {
        match walking.walk.shard {
            shard if shard == self.index => self.work(Work::Walk(walking)),
            shard => self.reach.send(shard, Message::Walk(walking)),
        }
    }

    /// Runs the part of a walk on this shard, and sends the walk on: to the next shard, or back when the call is
    /// finished. Returns it when the partition is lent.
    pub(super) fn walk_on(&mut self, mut walking: Box<Walking>) -> Option<Box<Walking>> {
        let mut environment = self.environment();
        let Some(mut held) = environment.mesh.cell(self.index).own() else {
            return Some(walking);
        };
        let begin_ns = environment.clock.elapsed_ns();
        environment.look(begin_ns);
        let recorded = environment.recorder.recorded();
        let result = count_memory(held.get(), &environment, |partition| {
            let call = walking.gather.call();
            let result = run_walk(&call, partition, &mut walking.walk, &environment);
            serve_ready(Held::One(partition), &environment);
            result
        });
        drop(held);
        walking.end = walking.end.max(environment.recorder.end_since(recorded));
        walking.nanos += self.node.clock.elapsed_ns() - begin_ns;
        if result.is_ok() && walking.walk.advance(self.reach.mesh.len()) {
            self.send_walk(walking);
            return None;
        }
        let Walking {
            gather,
            walk,
            nanos,
            end,
        } = *walking;
        let result = result.map(|()| walk.end(self.reach.mesh.len()));
        self.hand_in(&gather, PartRun { result, nanos, end });
        None
    }

    fn gather(
        &mut self,
        number: usize,
        command: &'static Registered,
        request: OwnedRequest,
        purpose: impl FnOnce(&Arc<Gather>, &mut dyn FnMut() -> u32) -> Purpose,
    ) {
        let gather = self.prepare(number, command, request, self.reach.mesh.len(), purpose);
        for shard in (0..self.reach.mesh.len()).filter(|&shard| shard != self.index) {
            self.reach.send(shard, Message::Gather(Arc::clone(&gather)));
        }
        self.take_part(gather);
    }

    /// Notes that so many parts of a command are awaited.
    fn prepare(
        &mut self,
        number: usize,
        command: &'static Registered,
        request: OwnedRequest,
        missing: usize,
        purpose: impl FnOnce(&Arc<Gather>, &mut dyn FnMut() -> u32) -> Purpose,
    ) -> Arc<Gather> {
        let connection = &mut self.clients[number];
        connection.gate = Gate::UnderWay;
        let gather = Arc::new(Gather {
            origin: self.index,
            gathering: self.reach.gatherings.vacant_key(),
            command,
            request,
            db: connection.client.db,
            modes: connection.modes(),
            client: connection.client.id,
        });
        let purpose = purpose(&gather, &mut || connection.output.issue());
        self.begin(number, purpose, missing);
        gather
    }

    fn begin(&mut self, connection: usize, purpose: Purpose, missing: usize) -> usize {
        let shards = self.reach.mesh.len();
        self.reach.gatherings.insert(Gathering {
            connection,
            purpose,
            parts: (0..shards).map(|_| None).collect(),
            missing,
            longest_ns: 0,
            end: Position::default(),
        })
    }

    /// Notes that the reports of all loops to a fence are awaited, for which a command's reply waits.
    pub(super) fn gather_for_fence(&mut self, number: usize, sequence: u32, reply: Vec<u8>) -> usize {
        self.begin(number, Purpose::Fence { reply, sequence }, self.reach.mesh.len())
    }

    /// Runs this shard's or loop's part.
    pub(super) fn take_part(&mut self, gather: Arc<Gather>) {
        if !gather.command.row.runs.is_on_every_loop() {
            return self.work(Work::Gather(gather));
        }
        let begin_ns = self.node.clock.elapsed_ns();
        let result = self.part_of_loop(&gather);
        self.clients.disconnect_marked(&self.node.pubsub);
        if self.index == 0 {
            self.links.end_killed();
        }
        self.answer_unblocked_clients();
        let nanos = self.node.clock.elapsed_ns() - begin_ns;
        // It is about connections, and has no effects.
        let end = Position::default();
        self.hand_in(&gather, PartRun { result, nanos, end });
    }

    fn part_of_loop(&mut self, gather: &Gather) -> Result<Part, ReplyError> {
        self.look_at_clock();
        let poll = &self.poll;
        let clients = self.clients.connections.iter_mut();
        let clients = clients.map(|(number, connection)| Carried {
            buffers: connection.measure(poll.holds(number)),
            client: &mut connection.client,
        });
        // Links are on no loop: this one speaks for them.
        let links = if self.index == 0 {
            self.links.all()
        } else {
            Vec::new()
        };
        let mut linked: Vec<_> = links.iter().map(|link| (link.lock(), link.measure())).collect();
        let linked = linked.iter_mut().map(|(client, buffers)| Carried {
            client: &mut *client,
            buffers: *buffers,
        });
        let users = self.node.acl.users();
        let roster = Roster {
            args: gather.request.arguments(),
            asker: gather.client,
            users: &users,
            clients: Box::new(clients.chain(linked)),
            now_ms: self.stamp.now_ms,
        };
        let looked = (self.stamp, self.looked_ns);
        let environment = self.reach.environment(&self.node, &self.settings, looked);
        run_part(&gather.call(), PartAccess::Roster(roster), &environment)
    }

    /// Runs this shard's part. False when the partition is lent.
    pub(super) fn take_part_of_shard(&mut self, gather: &Gather) -> bool {
        let mut environment = self.environment();
        let Some(mut held) = environment.mesh.cell(self.index).own() else {
            return false;
        };
        let begin_ns = environment.clock.elapsed_ns();
        environment.look(begin_ns);
        let recorded = environment.recorder.recorded();
        let result = count_memory(held.get(), &environment, |partition| {
            let part = run_part(&gather.call(), PartAccess::Partition(partition), &environment);
            serve_ready(Held::One(partition), &environment);
            part
        });
        drop(held);
        let end = environment.recorder.end_since(recorded);
        let nanos = environment.clock.elapsed_ns() - begin_ns;
        self.hand_in(gather, PartRun { result, nanos, end });
        true
    }

    /// Sends a part to the loop that gathers, and logs a panic.
    fn hand_in(&mut self, gather: &Gather, part: PartRun) {
        if matches!(part.result, Err(ReplyError::Internal)) {
            self.report_panic(gather.command);
        }
        self.send_part(gather.origin, gather.gathering, part);
    }

    /// Sends a part to the loop that gathers.
    pub(super) fn send_part(&mut self, origin: usize, gathering: usize, part: PartRun) {
        if origin == self.index {
            return self.gathered(gathering, self.index, part);
        }
        self.reach.send(
            origin,
            Message::Gathered {
                gathering,
                from: self.index,
                part,
            },
        );
    }

    /// Takes in a part; the last one completes the gathering.
    pub(super) fn gathered(&mut self, number: usize, from: usize, part: PartRun) {
        let Some(gathering) = self.reach.gatherings.get_mut(number) else {
            return;
        };
        gathering.parts[from] = Some(part.result);
        gathering.longest_ns = gathering.longest_ns.max(part.nanos);
        gathering.end = gathering.end.max(part.end);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let gathering = self.reach.gatherings.remove(number);
        self.complete(gathering);
    }

    /// Uses the parts for their purpose. The connection still exists: it is closed only after its command has run.
    fn complete(&mut self, gathering: Gathering) {
        let number = gathering.connection;
        self.clients[number].client.note_written(gathering.end);
        let parts: Result<Vec<Part>, ReplyError> = gathering.parts.into_iter().flatten().collect();
        match gathering.purpose {
            Purpose::Reply { gather, sequence } => {
                self.clients[number].gate = Gate::Open;
                let issued = Issued {
                    number,
                    sequence,
                    command: gather.command,
                    args: gather.request.arguments(),
                };
                // Shards and loops run their parts in parallel: the command took as long as the longest part, plus
                // the merge.
                self.run_merge(issued, &parts, gathering.longest_ns);
            }
            Purpose::Exec { operation, index } => {
                self.clients[number].client.keep_parts(index, parts);
                return self.ask_for_next(operation);
            }
            Purpose::Fence { reply, sequence } => {
                self.clients[number].gate = Gate::Open;
                self.clients[number].output.deliver(sequence, &reply);
                self.clients.mark_dirty(number);
            }
        }
        self.clients.wake_if_it_may_go_on(number);
    }
}
