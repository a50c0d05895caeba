//! Serving commands that wait: right after the command, or the transaction, that made their keys ready.

use std::sync::Arc;

use shardis_storage::key::Key;
use shardis_storage::value::Kind;

use super::execution::{Access, Call, Environment, Execution};
use super::plan::Routed;
use crate::commands::registry;
use crate::exec::Partition;
use crate::exec::held::Account;
use crate::exec::view::Held;
use crate::exec::waiter::{Ready, Served, Serving, Ticket, Waiting};
use crate::limits::BORROW_TRIES;

/// What came of a try to serve a ticket.
enum Tried {
    /// Its client is answered.
    Served,
    /// There is nothing in the key for it.
    Nothing,
    /// It needs another shard, which is taken.
    Stuck,
}

/// Looks at all keys that are ready in these partitions, and serves who waits for them: first come, first served.
///
/// Serving can make further keys ready; they are looked at as well. A key whose first ticket needs a shard that is taken
/// stays for later, and whoever waits behind it waits on.
pub(crate) fn serve_ready(mut held: Held<'_>, environment: &Environment<'_>) {
    while let Some(ready) = next_ready(&mut held) {
        let slot = shardis_cluster::slot::slot_of(&ready.key).number();
        let mut from = 0;
        while let Some((place, ticket)) = candidate(&mut held, slot, &ready, from, environment) {
            match serve(&mut held, slot, &ready, &ticket, environment) {
                Tried::Served => from = place,
                Tried::Nothing => from = place + 1,
                Tried::Stuck => {
                    if let Some(partition) = held.find(slot) {
                        environment.outbox.borrow_mut().unserved.push(partition.shard);
                        partition.waiters.set_aside(ready);
                    }
                    break;
                }
            }
        }
    }
}

/// Takes the key that has been ready for longest.
fn next_ready(held: &mut Held<'_>) -> Option<Ready> {
    let mut first: Option<u64> = None;
    held.each(|partition| {
        let order = partition.waiters.first_ready();
        first = first.into_iter().chain(order).min();
    });
    let mut taken = None;
    held.each(|partition| {
        if taken.is_none() && first.is_some() && partition.waiters.first_ready() == first {
            taken = partition.waiters.take_ready();
        }
    });
    taken
}

fn candidate(
    held: &mut Held<'_>,
    slot: u16,
    ready: &Ready,
    from: usize,
    environment: &Environment<'_>,
) -> Option<(usize, Arc<Ticket>)> {
    let partition = held.find(slot)?;
    let kind = kind_of(partition, slot, ready, environment);
    partition.waiters.candidate(ready, from, kind)
}

/// The kind of the value of a key; none when there is none, or its time is over.
fn kind_of(partition: &Partition, slot: u16, ready: &Ready, environment: &Environment<'_>) -> Option<Kind> {
    let key = Key {
        bytes: &ready.key,
        hash: environment.hasher.hash(&ready.key),
        slot,
    };
    let entry = partition.keyspace.database(usize::from(ready.db)).peek(&key)?;
    (!entry.is_expired(environment.stamp.now_ms)).then(|| entry.kind())
}

/// Runs the command of a ticket for the key that is ready, borrowing the other shard that it needs.
fn serve(
    held: &mut Held<'_>,
    slot: u16,
    ready: &Ready,
    ticket: &Arc<Ticket>,
    environment: &Environment<'_>,
) -> Tried {
    let missing = ticket.other_shard.filter(|&other| !holds(held, other));
    let Some(other) = missing else {
        return attempt(held.reborrow(), slot, ready, ticket, environment);
    };
    let Some(mut borrowed) = environment.mesh.cell(other).borrow(BORROW_TRIES) else {
        return Tried::Stuck;
    };
    let Some(partition) = held.find(slot) else {
        return Tried::Nothing;
    };
    let mut account = Account::begin(environment.shards);
    let both = Held::Two([partition, borrowed.get()], &mut account);
    let tried = attempt(both, slot, ready, ticket, environment);
    // Whatever was put there may be waited for in its turn.
    account.turn_to(Some(other));
    serve_ready(Held::One(borrowed.get()), environment);
    account.end_command();
    // The rest is booked by whoever holds the partition of the key.
    let taken = account.take(other);
    borrowed.get().memory_bytes += taken;
    held.leave_out(taken);
    tried
}

fn holds(held: &mut Held<'_>, shard: usize) -> bool {
    let mut found = false;
    held.each(|partition| found |= partition.shard == shard);
    found
}

fn attempt(
    mut held: Held<'_>,
    slot: u16,
    ready: &Ready,
    ticket: &Arc<Ticket>,
    environment: &Environment<'_>,
) -> Tried {
    let args = ticket.request.arguments();
    let Some(position) = ticket.keys.clone().find(|&index| args.at(index) == &*ready.key) else {
        return Tried::Nothing;
    };
    let serving = Serving::new(ticket, position);
    let begin_ns = environment.clock.elapsed_ns();
    let mut reply = Vec::new();
    let call = Call {
        command: registry().row(ticket.command.id),
        args,
        db: ticket.db,
        modes: ticket.modes,
        routed: Routed::default(),
        waiting: Waiting::Served(&serving),
    };
    let access = Access::Partitions(held.reborrow());
    if !Execution::begin(call, None, &mut reply).run_guarded(None, access, environment) {
        serving.claim();
    }
    if !serving.is_won() {
        return Tried::Nothing;
    }
    held.each(|partition| partition.waiters.remove(ticket));
    let shard = held.find(slot).map_or(0, |partition| partition.shard);
    environment.outbox.borrow_mut().served.push(Served {
        ticket: Arc::clone(ticket),
        shard,
        reply,
        nanos: environment.clock.elapsed_ns() - begin_ns,
    });
    Tried::Served
}
