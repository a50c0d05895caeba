//! [`Context`], the argument of handlers that work on keys. Its parts are separate fields, so that a handler can hold
//! a value of the keyspace while it writes its reply.

use shardis_cluster::slot::shard_of_key;
use shardis_protocol::{Arguments, Encoder};
use shardis_storage::key::Key;
use shardis_storage::memory::Buffer;
use shardis_storage::value::Collection;

use super::effect::Effects;
use super::view::View;
use super::waiter::{Waiting, Wish};
use super::written::Written;
use crate::config::KeyspaceEvents;
use crate::config::Settings;
use crate::error::ReplyError;

/// Everything that a command on keys may read and change.
pub(crate) struct Context<'a> {
    /// The request; argument 0 is the command's name.
    pub(crate) args: Arguments<'a>,
    /// Encoder of the reply.
    pub(crate) reply: Encoder<'a>,
    /// The databases that the command may touch.
    pub(crate) keyspace: View<'a>,
    /// Effects reported by the command, for replicas and the append-only file.
    pub(crate) effects: &'a mut Effects,
    /// The running configuration.
    pub(crate) settings: &'a Settings,
    /// Number of shards of the node.
    pub(crate) shards: usize,
    /// The routing key of the request, hashed already: (argument index, hash, slot).
    pub(crate) routed: Option<(usize, u64, u16)>,
    /// A big argument that was read into a buffer of its own and may be kept: (argument index, buffer). The argument
    /// itself then reads as empty; take it with [`Context::value`].
    pub(crate) adopted: Option<(usize, Buffer)>,
    /// Permission of the command to wait for its keys.
    pub(crate) waiting: Waiting<'a>,
    /// The writes of the client. Known to commands that may wait, or would if they were not in a transaction.
    pub(crate) written: Written<'a>,
}

/// The bytes of a string about to be stored.
#[derive(Debug)]
pub(crate) enum NewString<'a> {
    /// Bytes that are copied.
    Bytes(&'a [u8]),
    /// A buffer that becomes the value as it is.
    Adopted(Buffer),
}

impl NewString<'_> {
    /// The bytes.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Adopted(buffer) => buffer,
        }
    }
}

impl<'a> Context<'a> {
    /// The key at an argument. A key that routing has hashed already is not hashed again.
    ///
    /// # Panics
    /// When the request is shorter; handlers only ask for arguments that their arity guarantees.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> Key<'a> {
        let bytes = self.args.at(index);
        match self.routed {
            Some((routed, hash, slot)) if routed == index => Key { bytes, hash, slot },
            _ => self.keyspace.key(bytes),
        }
    }

    /// The value of an argument, to be stored: its own buffer where it has one, else its bytes.
    #[inline]
    pub(crate) fn value(&mut self, index: usize) -> NewString<'a> {
        match self.adopted.take() {
            Some((adopted, buffer)) if adopted == index => NewString::Adopted(buffer),
            other => {
                self.adopted = other;
                NewString::Bytes(self.args.at(index))
            }
        }
    }

    /// Announces a change of a key, which counts as one change to the dataset.
    #[inline]
    pub(crate) fn modified(&mut self, key: &Key<'_>) {
        self.keyspace.modified(key, self.effects);
    }

    /// Announces a change of a key that counts as `changes` changes to the dataset; 0 if it is not to be repeated by
    /// replicas.
    #[inline]
    pub(crate) fn changed(&mut self, key: &Key<'_>, changes: u64) {
        self.effects.changed(changes);
        self.keyspace.signal(key);
    }

    /// Announces that `count` elements were removed from a collection, and removes the key when none is `left`.
    #[inline]
    pub(crate) fn removed(&mut self, key: &Key<'_>, count: u64, left: usize) {
        self.changed(key, count);
        if left == 0 {
            self.keyspace.settle(key);
        }
    }

    /// Stores the elements that a command computed, replacing the value of a key, raises this event, and replies with
    /// their number. Without elements the key is removed.
    pub(crate) fn store(
        &mut self,
        key: &Key<'_>,
        elements: impl Into<Collection>,
        count: usize,
        (class, event): (KeyspaceEvents, &'static str),
    ) {
        if count > 0 {
            self.keyspace.set_collection(key, elements);
            self.modified(key);
            self.notify(class, event, key);
        } else {
            self.store_nothing(key);
        }
        self.reply.integer(count as i64);
    }

    /// Removes the key that an empty result would have replaced, whether it has expired or not.
    pub(crate) fn store_nothing(&mut self, key: &Key<'_>) {
        if self.keyspace.remove(key, self.keyspace.stamp.lazy_server_del) {
            self.modified(key);
            self.notify(KeyspaceEvents::GENERIC, "del", key);
        }
    }

    /// Raises a keyspace event.
    #[inline]
    pub(crate) fn notify(&mut self, class: KeyspaceEvents, name: &'static str, key: &Key<'_>) {
        self.keyspace.notify(class, name, key);
    }

    /// Whether the command holds the partition of the key at an argument. It may lack partitions only when it has
    /// waited and runs again: according to its ticket, those keys have nothing for it.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the ticket knows that the key holds a value of another type.
    #[inline]
    pub(crate) fn is_at_hand(&self, index: usize) -> Result<bool, ReplyError> {
        match self.waiting {
            Waiting::Served(serving) => {
                let shard = shard_of_key(self.args.at(index), self.shards);
                if self.keyspace.holds(shard) {
                    Ok(true)
                } else if serving.is_barred_at(index, self.now_ms()) {
                    Err(ReplyError::WrongType)
                } else {
                    Ok(false)
                }
            }
            Waiting::Denied | Waiting::Allowed(_) => Ok(true),
        }
    }

    /// Makes the command wait for what is missing. False when the command must not wait: the handler then replies
    /// that there is nothing.
    pub(crate) fn wait(&self, wish: Wish) -> bool {
        match self.waiting {
            Waiting::Denied => false,
            Waiting::Allowed(place) => {
                *place.borrow_mut() = Some(wish);
                true
            }
            // The command has waited already: its ticket stays in the queues.
            Waiting::Served(_) => true,
        }
    }

    /// Time by which keys and fields expire, Unix milliseconds: that at which the command runs, but for loading.
    #[inline]
    pub(crate) fn now_ms(&self) -> i64 {
        self.keyspace.stamp.now_ms
    }

    /// Time at which the command runs, Unix milliseconds.
    #[inline]
    pub(crate) fn wall_ms(&self) -> i64 {
        self.keyspace.stamp.wall_ms
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("words", &self.args.len())
            .finish_non_exhaustive()
    }
}
