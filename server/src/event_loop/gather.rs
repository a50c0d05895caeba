//! Commands that every shard, or every loop, does by itself; the loop of the connection makes one reply of the parts.

use std::sync::Arc;

use shardis_protocol::Arguments;

use super::EventLoop;
use super::batches::count_memory;
use super::reach::Work;
use super::run::Issued;
use crate::commands::registry;
use crate::connection::Gate;
use crate::dispatch::execution::{Call, PartAccess, run_part};
use crate::dispatch::plan::Routed;
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::view::Held;
use crate::exec::waiter::Waiting;
use crate::exec::{Carried, OwnedRequest, Part, Roster};
use crate::shard::inbox::{Gather, Message};
use crate::spec::Registered;

/// A command whose parts are being gathered.
#[derive(Debug)]
pub(super) struct Gathering {
    connection: usize,
    client: u64,
    purpose: Purpose,
    command: &'static Registered,
    gather: Arc<Gather>,
    /// What has come, by shard or loop.
    parts: Vec<Option<Result<Part, ReplyError>>>,
    missing: usize,
    /// How long the part took that took longest, nanoseconds.
    longest_ns: u64,
}

/// What becomes of the parts.
#[derive(Debug)]
enum Purpose {
    /// They make the reply to the command with this number.
    Reply { sequence: u32 },
    /// They wait in the client's transaction, with the command at this index, and EXEC is tried again.
    Exec { index: usize, exec: OwnedRequest },
}

impl Gather {
    /// The command, for whoever does a part of it.
    fn call(&self) -> Call<'_> {
        Call {
            command: self.command,
            args: self.request.arguments(),
            db: self.db,
            modes: self.modes,
            routed: Routed::default(),
            waiting: Waiting::Denied,
        }
    }
}

impl EventLoop {
    /// Gathers what a transaction needs of all loops before it can run. False when there is nothing to gather.
    pub(super) fn gather_for_exec(&mut self, number: usize, exec: Arguments<'_>) -> bool {
        let Some(transaction) = &self.clients[number].client.transaction else {
            return false;
        };
        let lacking = |queued: &Queued| {
            registry().row(queued.command.id).row.runs.is_on_every_loop() && queued.parts.is_none()
        };
        let Some(index) = transaction.queue.iter().position(lacking) else {
            return false;
        };
        if transaction.failed {
            return false;
        }
        let command = registry().row(transaction.queue[index].command.id);
        let request = transaction.queue[index].request.clone();
        let exec = OwnedRequest::copy(exec);
        self.begin_gathering(number, command, request.arguments(), Some((index, exec)));
        true
    }

    /// Asks all shards or loops for their parts of a command: for its own reply, or for that of an EXEC.
    pub(super) fn begin_gathering(
        &mut self,
        number: usize,
        command: &'static Registered,
        args: Arguments<'_>,
        for_exec: Option<(usize, OwnedRequest)>,
    ) {
        let shards = self.reach.mesh.len();
        let connection = &mut self.clients[number];
        connection.gate = Gate::UnderWay;
        let entry = self.reach.gatherings.vacant_entry();
        let gather = Arc::new(Gather {
            origin: self.index,
            gathering: entry.key(),
            command,
            request: OwnedRequest::copy(args),
            db: connection.client.db,
            modes: connection.modes(),
            client: connection.client.id,
        });
        entry.insert(Gathering {
            connection: number,
            client: connection.client.id,
            purpose: match for_exec {
                Some((index, exec)) => Purpose::Exec { index, exec },
                None => Purpose::Reply {
                    sequence: connection.output.issue(),
                },
            },
            command,
            gather: Arc::clone(&gather),
            parts: (0..shards).map(|_| None).collect(),
            missing: shards,
            longest_ns: 0,
        });
        for shard in (0..shards).filter(|&shard| shard != self.index) {
            self.reach.send(shard, Message::Gather(Arc::clone(&gather)));
        }
        self.take_part(gather);
    }

    /// Does this shard's or loop's part.
    pub(super) fn take_part(&mut self, gather: Arc<Gather>) {
        if !gather.command.row.runs.is_on_every_loop() {
            return self.work(Work::Gather(gather));
        }
        let begin_ns = self.node.clock.elapsed_ns();
        let part = self.part_of_loop(&gather);
        self.clients.disconnect_marked();
        self.answer_unblocked_clients();
        self.hand_in(&gather, part, begin_ns);
    }

    fn part_of_loop(&mut self, gather: &Gather) -> Result<Part, ReplyError> {
        let poll = &self.poll;
        let clients = self.clients.connections.iter_mut();
        let clients = clients.map(|(number, connection)| Carried {
            buffers: connection.measure(poll.holds(number)),
            client: &mut connection.client,
        });
        let roster = Roster {
            args: gather.request.arguments(),
            asker: gather.client,
            clients: Box::new(clients),
            now_ms: self.stamp.now_ms,
        };
        let environment = self.reach.environment(&self.node, &self.settings, self.stamp);
        run_part(&gather.call(), PartAccess::Roster(roster), &environment)
    }

    /// Does this shard's part. False when its partition is lent.
    pub(super) fn take_part_of_shard(&mut self, gather: &Gather) -> bool {
        let environment = self.environment();
        let Some(mut held) = environment.mesh.cell(self.index).own() else {
            return false;
        };
        let begin_ns = environment.clock.elapsed_ns();
        let part = count_memory(held.get(), &self.node, |partition| {
            let part = run_part(&gather.call(), PartAccess::Partition(partition), &environment);
            serve_ready(Held::One(partition), &environment);
            part
        });
        drop(held);
        self.hand_in(gather, part, begin_ns);
        true
    }

    /// Hands in a part that was begun then.
    fn hand_in(&mut self, gather: &Gather, part: Result<Part, ReplyError>, begin_ns: u64) {
        if matches!(part, Err(ReplyError::Internal)) {
            self.report_panic(gather.command);
        }
        let nanos = self.node.clock.elapsed_ns() - begin_ns;
        if gather.origin == self.index {
            self.gathered(gather.gathering, self.index, part, nanos);
        } else {
            let gathering = gather.gathering;
            self.reach.send(
                gather.origin,
                Message::Gathered {
                    gathering,
                    from: self.index,
                    part,
                    nanos,
                },
            );
        }
    }

    /// A part has come that took so many nanoseconds; with the last one, the reply is made.
    pub(super) fn gathered(
        &mut self,
        number: usize,
        from: usize,
        part: Result<Part, ReplyError>,
        nanos: u64,
    ) {
        let Some(gathering) = self.reach.gatherings.get_mut(number) else {
            return;
        };
        gathering.parts[from] = Some(part);
        gathering.longest_ns = gathering.longest_ns.max(nanos);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let gathering = self.reach.gatherings.remove(number);
        self.merge(gathering);
    }

    fn merge(&mut self, gathering: Gathering) {
        let Gathering {
            connection: number,
            client,
            purpose,
            command,
            gather,
            parts,
            longest_ns,
            ..
        } = gathering;
        let Some(connection) = self.clients.get_mut(number) else {
            return;
        };
        if connection.client.id != client {
            return;
        }
        connection.gate = Gate::Open;
        let parts: Result<Vec<Part>, ReplyError> = parts.into_iter().flatten().collect();
        let sequence = match purpose {
            Purpose::Reply { sequence } => sequence,
            Purpose::Exec { index, exec } => {
                connection.client.keep_parts(index, parts);
                self.request(number, exec.arguments(), None);
                return self.clients.wake_if_it_may_go_on(number);
            }
        };
        let issued = Issued {
            connection: number,
            sequence,
            command,
            args: gather.request.arguments(),
        };
        // Shards and loops do their parts beside each other: what it took is the longest of them, and the merge.
        self.run_merge(issued, &parts, longest_ns);
        self.clients.wake_if_it_may_go_on(number);
    }
}
