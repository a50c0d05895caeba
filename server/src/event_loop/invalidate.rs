//! Delivers messages to trackers from the loop's mailbox to the outputs of its connections.
//!
//! The mailbox is emptied whenever the loop has received something (bytes of a client, a message of another loop, what was
//! published) and before it handles that, so that what is answered then follows the messages about all changes that may have
//! caused it.

use std::borrow::Cow;
use std::sync::Arc;

use shardis_protocol::{Encoder, Resp};

use super::EventLoop;
use super::batches::count_memory;
use crate::connection::{Connection, Gate};
use crate::exec::{Client, Closing};
use crate::limits::INVALIDATIONS_OUTPUT_BYTES;
use crate::tracking::{Content, Receiver, Route};

/// Begin of a message in RESP3.
const PUSH: &[u8] = b">2\r\n$10\r\ninvalidate\r\n";

/// Begin of a message in RESP2, to a subscriber.
const MESSAGE: &[u8] = b"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";

/// Way of a message into an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Behind the replies that are there.
    Here,
    /// Behind the replies to all commands so far.
    BehindAll,
    /// In both places: it takes long until the commands are answered, one of which may have read the key.
    Both,
}

impl EventLoop {
    /// Delivers the messages to trackers that are in the mailbox of this loop.
    #[inline]
    pub(super) fn deliver_invalidations(&mut self) {
        if self.has_invalidations() {
            self.empty_invalidations();
        }
    }

    /// Whether there are messages to deliver.
    #[inline]
    pub(super) fn has_invalidations(&self) -> bool {
        self.node.tracking.mailbox(self.index).has_mail()
    }

    /// Drops keys of this shard that trackers have read, while there are too many in all.
    pub(super) fn drop_tracked_keys(&mut self) {
        if !self.node.tracking.has_excess_keys() {
            return;
        }
        let mesh = Arc::clone(&self.reach.mesh);
        let Some(mut held) = mesh.cell(self.index).own() else {
            return;
        };
        count_memory(held.get(), &self.environment(), |partition| {
            partition.door.invalidations.drop_excess();
        });
    }

    #[cold]
    fn empty_invalidations(&mut self) {
        let tracking = Arc::clone(&self.node.tracking);
        let mail = tracking.mailbox(self.index).take();
        for notice in &mail.notices {
            for receiver in &notice.receivers {
                self.invalidate(receiver, &notice.content);
            }
        }
        if mail.has_lost {
            for receiver in &tracking.receivers_on(self.index) {
                self.invalidate(receiver, &Content::All { writer: 0 });
            }
        }
    }

    /// Delivers a message to one of its receivers.
    fn invalidate(&mut self, receiver: &Receiver, content: &Content) {
        let number = receiver.subscriber.connection as usize;
        let Some(connection) = self
            .clients
            .get_mut(number)
            .filter(|connection| connection.client.id as u32 == receiver.subscriber.client)
        else {
            if receiver.route == Route::Redirected {
                self.node.tracking.lost_target(receiver.tracker);
            }
            return;
        };
        if connection.client.closing != Closing::No {
            return;
        }
        let Some((head, body)) = message(&connection.client, receiver, content) else {
            return;
        };
        let (head, body) = match connection.output.bytes() {
            ..INVALIDATIONS_OUTPUT_BYTES => {
                connection.told_all_at = None;
                (head, body)
            }
            // The client does not read. Behind what waits for it, one message will do for all changes.
            _ if receiver.route == Route::Broken
                || connection.told_all_at == Some(connection.output.progress()) =>
            {
                return;
            }
            _ => {
                connection.told_all_at = Some(connection.output.progress());
                (head, Cow::Borrowed(null(connection.client.resp)))
            }
        };
        let place = place(connection, receiver, content);
        let mut is_large = false;
        if place != Place::BehindAll {
            is_large = connection.output.push_parts(head, &body);
        }
        if place != Place::Here {
            connection.output.push_behind(head, &body);
        }
        self.note_push(number, is_large);
    }
}

/// Message of some content to a client, in its protocol: a begin, and the rest. None if the client gets none.
fn message<'m>(
    client: &Client,
    receiver: &Receiver,
    content: &'m Content,
) -> Option<(&'static [u8], Cow<'m, [u8]>)> {
    let head = match (client.resp, receiver.route) {
        (Resp::V3, Route::Broken) => return Some((b"", Cow::Owned(broken(client)?))),
        (Resp::V2, Route::Broken) => return None,
        // It may have ended its tracking meanwhile.
        (_, Route::Own) if client.tracking.is_none() => return None,
        (Resp::V3, _) => PUSH,
        (Resp::V2, Route::Redirected) if client.is_subscriber() => MESSAGE,
        // RESP2 has no messages among replies.
        (Resp::V2, _) => return None,
    };
    let body = match content {
        Content::Key { array, .. } => Cow::Borrowed(array.as_slice()),
        Content::All { .. } => Cow::Borrowed(null(client.resp)),
        Content::Keys(changes) => {
            let user = client.identity.user();
            let sees_all = user.permits_all_keys();
            let spares_own = receiver.spares_own && changes.has_writer(receiver.tracker);
            if sees_all && !spares_own {
                Cow::Borrowed(changes.array())
            } else {
                Cow::Owned(changes.array_of(|key, writer| {
                    !(spares_own && writer == receiver.tracker) && (sees_all || user.may_read(key))
                })?)
            }
        }
    };
    Some((head, body))
}

/// Message to a tracker that the client has gone which gets its messages.
fn broken(client: &Client) -> Option<Vec<u8>> {
    let redirect = client.tracking.as_ref()?.redirect?;
    let mut message = Vec::new();
    let mut encoder = Encoder::new(&mut message, Resp::V3);
    encoder.push(2);
    encoder.bulk(b"tracking-redir-broken");
    encoder.integer(redirect as i64);
    Some(message)
}

/// Null in the place of an array: all keys.
fn null(resp: Resp) -> &'static [u8] {
    match resp {
        Resp::V2 => b"$-1\r\n",
        Resp::V3 => b"_\r\n",
    }
}

/// The place of a message. It follows the reply that the tracker has read the key with, if that has not come yet: the client would take
/// the value in the reply for the present one. It follows the reply to the command that has made the change, if that is the
/// tracker's own.
fn place(connection: &Connection, receiver: &Receiver, content: &Content) -> Place {
    if receiver.route != Route::Own || connection.output.in_flight() == 0 {
        return Place::Here;
    }
    let waits_long = match &connection.gate {
        Gate::Blocked => match &connection.client.waits {
            // It has read nothing yet, and nobody knows when it will.
            Some(ticket) if !ticket.is_claimed() => return Place::Here,
            _ => true,
        },
        Gate::UnderWay => true,
        Gate::Open | Gate::Drain(_) | Gate::Busy(_) | Gate::Pause(_) | Gate::Leaving => false,
    };
    let is_own = match content {
        Content::Key { writer, .. } | Content::All { writer } => *writer == receiver.tracker,
        Content::Keys(changes) => changes.has_writer(receiver.tracker),
    };
    if waits_long && !is_own {
        Place::Both
    } else {
        Place::BehindAll
    }
}
