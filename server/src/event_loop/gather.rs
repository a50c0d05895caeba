//! Commands that every shard, or every loop, does by itself; the loop of the connection makes one reply of the parts.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shardis_protocol::{Arguments, Encoder};

use super::turn::count_memory;
use super::{EventLoop, Work};
use crate::commands::registry;
use crate::connection::Hold;
use crate::dispatch::run::{finish, run_part};
use crate::dispatch::serve::serve_ready;
use crate::error::ReplyError;
use crate::exec::client::Queued;
use crate::exec::view::Held;
use crate::exec::{Clients, Closing, OwnedRequest, Part, Session};
use crate::shard::inbox::{Gather, Message};
use crate::spec::{Registered, Runs};

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

impl EventLoop {
    /// Gathers what a transaction needs of all loops before it can run. False when there is nothing to gather.
    pub(super) fn gather_for_exec(&mut self, number: usize, exec: Arguments<'_>) -> bool {
        let Some(transaction) = &self.connections[number].client.transaction else {
            return false;
        };
        let lacking = |queued: &Queued| {
            matches!(registry().row(queued.command.id).row.runs, Runs::OnEveryLoop(..))
                && queued.parts.is_none()
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
        let shards = self.mesh.len();
        let connection = &mut self.connections[number];
        connection.hold = Hold::UnderWay;
        let entry = self.gatherings.vacant_entry();
        let gather = Arc::new(Gather {
            origin: self.index,
            gathering: entry.key(),
            command,
            request: OwnedRequest::copy(args),
            db: connection.client.db,
            resp: connection.client.resp,
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
            self.mesh.send(shard, Message::Gather(Arc::clone(&gather)));
        }
        self.take_part(gather);
    }

    /// Does this shard's or loop's part.
    pub(super) fn take_part(&mut self, gather: Arc<Gather>) {
        match gather.command.row.runs {
            Runs::OnEveryShard(..) => self.work(Work::Gather(gather)),
            Runs::OnEveryLoop(handler, _) => {
                let begin_ns = self.node.clock.elapsed_ns();
                let poll = &self.poll;
                let clients = self.connections.iter_mut().map(|(number, connection)| {
                    connection.measure(poll.holds(number));
                    &mut connection.client
                });
                let part = handler(&mut Clients {
                    args: gather.request.arguments(),
                    asker: gather.client,
                    clients: Box::new(clients),
                    now_ms: self.now_us / 1000,
                });
                self.close_killed();
                self.answer_unblocked_clients();
                self.hand_in(&gather, part, self.node.clock.elapsed_ns() - begin_ns);
            }
            _ => unreachable!("only commands on every shard or loop are gathered"),
        }
    }

    /// Clients that a command has marked are closed with the turn.
    fn close_killed(&mut self) {
        let killed = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.client.closing == Closing::Now);
        self.closing.extend(killed.map(|(number, _)| number));
    }

    /// Does this shard's part. False when its partition is lent.
    pub(super) fn run_part(&mut self, gather: &Gather) -> bool {
        let mesh = Arc::clone(&self.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return false;
        };
        let environment = self.environment();
        let begin_ns = self.node.clock.elapsed_ns();
        let part = count_memory(held.get(), &self.node, |partition| {
            catch_unwind(AssertUnwindSafe(|| {
                let args = gather.request.arguments();
                let part = run_part(
                    Held::One(partition),
                    gather.command,
                    args,
                    gather.db,
                    gather.resp,
                    &environment,
                );
                serve_ready(Held::One(partition), &environment);
                part
            }))
            .unwrap_or(Err(ReplyError::Internal))
        });
        drop(held);
        self.hand_in(gather, part, self.node.clock.elapsed_ns() - begin_ns);
        true
    }

    /// Hands in a part that took so many nanoseconds.
    fn hand_in(&mut self, gather: &Gather, part: Result<Part, ReplyError>, nanos: u64) {
        if gather.origin == self.index {
            self.gathered(gather.gathering, self.index, part, nanos);
        } else {
            let gathering = gather.gathering;
            self.mesh.send(
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
        let Some(gathering) = self.gatherings.get_mut(number) else {
            return;
        };
        gathering.parts[from] = Some(part);
        gathering.longest_ns = gathering.longest_ns.max(nanos);
        gathering.missing -= 1;
        if gathering.missing > 0 {
            return;
        }
        let gathering = self.gatherings.remove(number);
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
        let (Runs::OnEveryShard(_, merge) | Runs::OnEveryLoop(_, merge)) = command.row.runs else {
            return;
        };
        let Some(connection) = self.connections.get_mut(number) else {
            return;
        };
        if connection.client.id != client {
            return;
        }
        connection.hold = Hold::None;
        let parts: Result<Vec<Part>, ReplyError> = parts.into_iter().flatten().collect();
        let sequence = match purpose {
            Purpose::Reply { sequence } => sequence,
            Purpose::Exec { index, exec } => {
                connection.client.keep_parts(index, parts);
                self.request(number, exec.arguments(), None);
                return self.wake_if_it_may_go_on(number);
            }
        };
        let begin_ns = self.node.clock.elapsed_ns();
        let resp = connection.client.resp;
        let out = connection.output.begin(sequence);
        let start = out.len();
        let result = parts.and_then(|parts| {
            let mut session = Session {
                args: gather.request.arguments(),
                reply: Encoder::new(out, resp),
                client: &mut connection.client,
                node: &self.node,
                journal: self.journal.as_ref(),
                now_ms: self.now_us / 1000,
            };
            merge(&mut session, &parts)
        });
        if let Err(error) = &result {
            self.node.stats[self.index].failed(command.id, &error.line());
        }
        finish(result, start, connection.output.begin(sequence), resp);
        connection.mute(sequence, start);
        connection.output.end(sequence, start);
        self.mark_dirty(number);
        // Shards and loops do their parts beside each other: what it took is the longest of them, and the merge.
        let nanos = longest_ns + self.node.clock.elapsed_ns() - begin_ns;
        self.account_for(number, command, gather.request.arguments(), nanos);
        self.wake_if_it_may_go_on(number);
    }
}
