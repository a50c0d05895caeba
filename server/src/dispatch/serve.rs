//! Serves waiting commands, immediately after the command or transaction that made their keys ready, or when a snapshot has
//! saved what they would change.

use std::sync::Arc;

use shardis_cluster::slot::shard_of;
use shardis_storage::key::Key;

use super::behind_snapshot::{any_changed_key, reached};
use super::execution::{Access, Call, Environment, Execution};
use super::plan::Routed;
use super::room::{make_room, publish};
use crate::commands::registry;
use crate::error::ReplyError;
use crate::exec::held::Account;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Found, Ready, Retry, Served, Serving, Ticket, Waiting};
use crate::exec::{Origin, Partition};
use crate::journal::Position;
use crate::limits::BORROW_TRIES;
use crate::shard::cell;
use crate::spec::Flags;

/// Result of an attempt to serve a ticket.
enum Tried {
    /// The ticket's client gets a reply.
    Served,
    /// The keys have nothing for the ticket.
    Nothing,
}

/// Reason for which the next ticket of a ready key cannot be tried now.
enum Halt {
    /// The command needs this shard, whose partition is not held.
    NeedsShard(usize),
    /// The command would change what a snapshot has still to save.
    WaitsForSnapshot,
}

/// Goes through the ready keys of these partitions, and serves the tickets that wait for them: first come, first
/// served.
///
/// Serving can make further keys ready; they are handled as well. A key whose first ticket needs a shard that is
/// taken becomes stuck, and so does one whose first ticket has to wait for a snapshot; the tickets behind it go on waiting.
pub(crate) fn serve_ready(mut held: Held<'_>, environment: &Environment<'_>) {
    if first_ready(&mut held).is_none() {
        return;
    }
    // The command or transaction that made the keys ready may have taken so long that what it stored has expired.
    let now_ms = environment.clock.now_us() / 1000;
    let environment = &Environment {
        stamp: environment.stamp.at(now_ms, environment.settings),
        ..*environment
    };
    while let Some(ready) = take_ready(&mut held) {
        match serve_key(&mut held, &ready, environment) {
            None => {}
            Some(Halt::NeedsShard(shard)) => serve_with(held.reborrow(), ready, shard, environment),
            Some(Halt::WaitsForSnapshot) => serve_later(held.reborrow(), ready, environment),
        }
    }
}

/// Place of the first ready key in the order over all shards.
fn first_ready(held: &mut Held<'_>) -> Option<u64> {
    let mut first: Option<u64> = None;
    held.each(|partition| {
        let order = partition.door.waiters.first_ready();
        first = first.into_iter().chain(order).min();
    });
    first
}

/// Takes the key that became ready first.
fn take_ready(held: &mut Held<'_>) -> Option<Ready> {
    let first = first_ready(held)?;
    let mut taken = None;
    held.each(|partition| {
        if taken.is_none() && partition.door.waiters.first_ready() == Some(first) {
            taken = partition.door.waiters.take_ready();
        }
    });
    taken
}

/// Serves the tickets of a key as long as it has something for them, or until one of them cannot be tried now.
fn serve_key(held: &mut Held<'_>, ready: &Ready, environment: &Environment<'_>) -> Option<Halt> {
    let slot = environment.hashing.slot(&ready.key);
    let mut from = 0;
    while let Some((place, ticket)) = candidate(held, slot, ready, from, environment) {
        let missing = ticket.other_shard.filter(|&other| !held.holds(other));
        if let Some(shard) = missing {
            return Some(Halt::NeedsShard(shard));
        }
        if waits_for_snapshot(held, &ticket, environment) {
            return Some(Halt::WaitsForSnapshot);
        }
        match attempt(held.reborrow(), slot, &ticket, environment) {
            Tried::Served => from = place,
            Tried::Nothing => from = place + 1,
        }
    }
    None
}

/// Whether a ticket's command would change what a snapshot has still to save, or data that was saved for the last time. Its
/// destination above all: it takes from a key that was just changed, and thus saved.
fn waits_for_snapshot(held: &mut Held<'_>, ticket: &Ticket, environment: &Environment<'_>) -> bool {
    let (mut has_snapshot, mut is_sealed) = (false, false);
    held.each(|partition| {
        has_snapshot |= partition.may_hold_back();
        is_sealed |= environment.node.is_sealed(partition.seal);
    });
    if is_sealed || !has_snapshot {
        return is_sealed;
    }
    let command = registry().row(ticket.command.id);
    let (args, reached) = (ticket.request.arguments(), reached(command, ticket.db));
    any_changed_key(command, args, environment.hashing, |key| {
        let shard = environment.hashing.shard_of(key.slot);
        let mut waits = false;
        held.each(|partition| {
            waits |= partition.shard == shard && partition.holds_back(reached, key);
        });
        waits
    })
}

/// Sets a key aside until a snapshot has saved more. Its own loop tries it again.
fn serve_later(mut held: Held<'_>, ready: Ready, environment: &Environment<'_>) {
    let slot = environment.hashing.slot(&ready.key);
    if let Some(partition) = held.beside(slot) {
        let own = partition.shard;
        set_aside(partition, ready, own, environment);
    }
}

/// Continues serving with the partition of one more shard, starting with the key that needs it. If that shard is
/// taken, the key is set aside.
fn serve_with(mut held: Held<'_>, ready: Ready, shard: usize, environment: &Environment<'_>) {
    let slot = environment.hashing.slot(&ready.key);
    let is_full = matches!(held, Held::Two(..));
    let Some(partition) = held.beside(slot) else {
        return;
    };
    // A key must not overtake others that are stuck on the same shard.
    let mut borrowed = None;
    if !is_full && !partition.door.waiters.is_stuck_on(shard) {
        borrowed = environment.mesh.cell(shard).borrow(BORROW_TRIES);
    }
    let Some(mut borrowed) = borrowed else {
        return set_aside(partition, ready, shard, environment);
    };
    partition.door.waiters.put_back(ready);
    match &mut held {
        Held::One(partition) => {
            let own = partition.shard;
            partition.book();
            let mut account = Account::begin(environment.shards);
            let both = Held::Two([partition, borrowed.get()], &mut account);
            serve_ready(both, environment);
            account.end_command();
            environment.hand_over();
            partition.memory_bytes += account.take(own);
            borrowed.get().memory_bytes += account.take(shard);
            publish(borrowed.get(), environment.node);
            // The account has booked all of it, and left out what other shards gave up to make room.
            partition.begin_use();
        }
        Held::Many(lent) => {
            let loan = Loan::begin(lent, shard, &mut borrowed);
            serve_ready(Held::Many(&mut *loan.lent), environment);
            environment.hand_over();
            drop(loan);
            publish(borrowed.get(), environment.node);
        }
        Held::Two(..) => unreachable!("no shard is borrowed beside two others"),
    }
}

/// Sets a key aside that needs a shard which is taken, and asks for a retry if none is under way.
fn set_aside(partition: &mut Partition, ready: Ready, shard: usize, environment: &Environment<'_>) {
    if partition.door.waiters.set_aside(ready, shard) {
        environment.outbox.borrow_mut().stuck.push(Retry {
            shard: partition.shard,
            needs: shard,
            since_ns: environment.clock.elapsed_ns(),
        });
    }
}

/// A borrowed partition that is temporarily among several lent ones. Dropping the loan returns it to its guard.
struct Loan<'l, 'c> {
    lent: &'l mut Lent,
    shard: usize,
    cell: &'l mut cell::Guard<'c, Partition>,
}

impl<'l, 'c> Loan<'l, 'c> {
    fn begin(lent: &'l mut Lent, shard: usize, cell: &'l mut cell::Guard<'c, Partition>) -> Self {
        lent.add(cell.take());
        Self { lent, shard, cell }
    }
}

impl Drop for Loan<'_, '_> {
    fn drop(&mut self) {
        if let Some(partition) = self.lent.remove(self.shard) {
            self.cell.put(partition);
        }
    }
}

/// The next ticket to try for a key.
fn candidate(
    held: &mut Held<'_>,
    slot: u16,
    ready: &Ready,
    from: usize,
    environment: &Environment<'_>,
) -> Option<(usize, Arc<Ticket>)> {
    let partition = held.beside(slot)?;
    let found = found(partition, slot, ready, environment);
    partition.door.waiters.candidate(ready, from, found)
}

/// The value of a key; none when it does not exist or has expired.
fn found(partition: &Partition, slot: u16, ready: &Ready, environment: &Environment<'_>) -> Option<Found> {
    let key = Key {
        bytes: &ready.key,
        hash: environment.hashing.hasher().hash(&ready.key),
        slot,
    };
    let entry = partition.keyspace.database(usize::from(ready.db)).peek(&key)?;
    (!entry.is_expired(environment.stamp.now_ms)).then(|| Found {
        kind: entry.kind(),
        until_ms: entry.expiry().unwrap_or(i64::MAX),
    })
}

/// Runs the command of a ticket over those of its keys whose partitions are held. Before it, as before every command, keys are
/// evicted if the node exceeds its limit, and a command that may take memory is refused if that is of no avail.
fn attempt(mut held: Held<'_>, slot: u16, ticket: &Arc<Ticket>, environment: &Environment<'_>) -> Tried {
    let serving = Serving::new(ticket);
    let begin_ns = environment.clock.elapsed_ns();
    let mut reply = Vec::new();
    let call = Call {
        command: registry().row(ticket.command.id),
        args: ticket.request.arguments(),
        db: ticket.db,
        client: ticket.client,
        modes: ticket.modes,
        wrote_to: Position::default(),
        routed: Routed::default(),
        origin: Origin::Waiter,
        waiting: Waiting::Served(&serving),
    };
    let has_room = make_room(held.reborrow(), environment);
    let access = Access::Partitions(held.reborrow());
    let mut execution = Execution::begin(call, None, &mut reply);
    if !has_room && call.command.row.flags.contains(Flags::DENYOOM) {
        execution.refuse(&ReplyError::OutOfMemory, environment);
    } else {
        execution.run_guarded(None, access, environment);
    }
    if !reply.is_empty() {
        // A command that fails has not claimed its ticket yet; its error is the reply.
        serving.claim();
    }
    if !serving.is_won() {
        return Tried::Nothing;
    }
    held.each(|partition| partition.door.waiters.remove(ticket));
    environment.outbox.borrow_mut().served.push(Served {
        ticket: Arc::clone(ticket),
        shard: shard_of(slot, environment.shards),
        reply,
        nanos: environment.clock.elapsed_ns() - begin_ns,
        position: None,
    });
    Tried::Served
}
