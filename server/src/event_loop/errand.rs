//! Errands: a command over all shards leaves work that takes very long to a thread, with the partitions. Meanwhile this loop
//! goes on, as others do while a long command has their partitions.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use parking_lot::Mutex;

use super::EventLoop;
use super::lend::{LentFor, Operation};
use super::run::Issued;
use crate::connection::Gate;
use crate::error::ReplyError;
use crate::exec::view::{Held, Lent};
use crate::exec::{Errand, Reload};
use crate::shard::inbox::{Back, Message};
use crate::state::Node;

impl EventLoop {
    /// Sends a thread on an errand with the partitions of an operation, which waits until they are back.
    pub(super) fn send_on_errand(&mut self, mut operation: Operation, errand: Errand) {
        let Some(reload) = self.reach.reload.clone() else {
            unreachable!("the loops of a node can have its files read");
        };
        if let Some(connection) = operation.connection() {
            self.clients[connection].gate = Gate::UnderWay;
        }
        let lent = std::mem::replace(&mut operation.lent, Lent::new(self.reach.mesh.len()));
        let number = self.reach.operations.insert(operation);
        let (node, mesh, own) = (Arc::clone(&self.node), Arc::clone(&self.reach.mesh), self.index);
        // A closure that becomes no thread is lost with all that it has taken along.
        let bag = Arc::new(Mutex::new(Some((lent, errand))));
        let (packed, reader) = (Arc::clone(&bag), Arc::clone(&reload));
        let spawned = thread::Builder::new().name("errand".to_owned()).spawn(move || {
            if node.daemon.is_some() {
                crate::daemon::guard_thread();
            }
            let _entered = node.threads.enter();
            if let Some((lent, errand)) = packed.lock().take() {
                let back = Box::new(perform(&node, &*reader, lent, errand));
                mesh.send(
                    own,
                    Message::Back {
                        operation: number,
                        back,
                    },
                );
            }
        });
        if spawned.is_err()
            && let Some((lent, errand)) = bag.lock().take()
        {
            let back = perform(&self.node, &*reload, lent, errand);
            self.came_back(number, back);
        }
    }

    /// Ends a command whose errand is done.
    pub(super) fn came_back(&mut self, number: usize, back: Back) {
        let Back {
            mut lent,
            result,
            nanos,
        } = back;
        let LentFor::Command {
            connection,
            sequence,
            command,
            request,
            nanos: before,
        } = self.reach.operations.remove(number).purpose
        else {
            unreachable!("only commands have errands");
        };
        self.clients[connection].gate = Gate::Open;
        let issued = Issued {
            number: connection,
            sequence,
            command,
            args: request.arguments(),
        };
        self.end_errand(issued, &result, before + nanos, &mut lent);
        self.give_back(lent);
        self.clients.wake_if_it_may_go_on(connection);
    }
}

/// Does an errand on partitions, all of which this thread has.
fn perform(node: &Node, reload: &dyn Reload, mut lent: Lent, errand: Errand) -> Back {
    let begin_ns = node.clock.elapsed_ns();
    lent.begin();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        errand.run(node, reload, &mut Held::Many(&mut lent))
    }));
    lent.settle();
    Back {
        lent,
        result: outcome.unwrap_or(Err(ReplyError::Internal)),
        nanos: node.clock.elapsed_ns() - begin_ns,
    }
}
