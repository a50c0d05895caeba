//! [`Context`]: what a handler on keys gets. Its parts are separate fields, so that a handler can hold a value of the
//! keyspace while it writes its reply.

use shardis_cluster::slot::shard_of_key;
use shardis_protocol::{Arguments, Encoder};
use shardis_storage::key::Key;
use shardis_storage::memory::Buffer;
use shardis_storage::value::Collection;

use super::effect::Effects;
use super::view::View;
use super::waiter::{Waiting, Wish};
use crate::config::KeyspaceEvents;
use crate::config::Settings;
use crate::error::ReplyError;

/// Everything a command on keys may see and do.
pub(crate) struct Context<'a> {
    /// The request; argument 0 is the command's name.
    pub(crate) args: Arguments<'a>,
    /// Where the reply goes.
    pub(crate) reply: Encoder<'a>,
    /// The databases it may touch.
    pub(crate) keyspace: View<'a>,
    /// What it did, for replicas and the append-only file.
    pub(crate) effects: &'a mut Effects,
    /// The running configuration.
    pub(crate) settings: &'a Settings,
    /// How many shards the node has.
    pub(crate) shards: usize,
    /// The key that routed the request, hashed already: (argument index, hash, slot).
    pub(crate) routed: Option<(usize, u64, u16)>,
    /// A big argument that was read into a buffer of its own and may be kept: (argument index, buffer). The argument
    /// itself then reads as empty; take it with [`Context::value`].
    pub(crate) adopted: Option<(usize, Buffer)>,
    /// Whether the command may wait for its keys.
    pub(crate) waiting: Waiting<'a>,
}

/// The bytes of a string about to be stored.
#[derive(Debug)]
pub(crate) enum NewString<'a> {
    /// To be copied.
    Bytes(&'a [u8]),
    /// To be kept as they are.
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
    /// The key at an argument, hashed at most once per request where routing already did.
    ///
    /// # Panics
    /// When the request is shorter; handlers ask for positions that their arity guarantees.
    #[inline]
    pub(crate) fn key(&self, index: usize) -> Key<'a> {
        let bytes = self.args.at(index);
        match self.routed {
            Some((routed, hash, slot)) if routed == index => Key { bytes, hash, slot },
            _ => self.keyspace.key(bytes),
        }
    }

    /// The value to store from an argument: its own buffer where it has one, else its bytes.
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

    /// Marks a key as changed: watchers, statistics and the journal learn of it.
    #[inline]
    pub(crate) fn modified(&mut self, key: &Key<'_>) {
        self.keyspace.modified(key, self.effects);
    }

    /// As [`modified`](Self::modified), for something that counts as so many changes to the dataset; as none where it is
    /// nothing that is to be repeated.
    #[inline]
    pub(crate) fn changed(&mut self, key: &Key<'_>, changes: u64) {
        self.effects.changed(changes);
        self.keyspace.signal(key);
    }

    /// As [`changed`](Self::changed), for so many elements that were removed from a collection; the key goes when none is
    /// left.
    #[inline]
    pub(crate) fn removed(&mut self, key: &Key<'_>, count: u64, left: usize) {
        self.changed(key, count);
        if left == 0 {
            self.keyspace.settle(key);
        }
    }

    /// Stores the elements that a command computed in place of whatever a key held, which becomes known by this event, and
    /// replies with how many they are. None are stored as nothing: the key goes.
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

    /// Removes what stands where the result of a command would, be its time over or not.
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

    /// Whether the key at an argument is at hand. One that is not belongs to a command that waited and runs again: there is
    /// nothing for it in that key, as far as its ticket knows.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when its ticket knows that the key holds what it cannot work with.
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

    /// Waits for what there is not yet. False when the command must not wait: it then says that there is nothing.
    pub(crate) fn wait(&self, wish: Wish) -> bool {
        match self.waiting {
            Waiting::Denied => false,
            Waiting::Allowed(place) => {
                *place.borrow_mut() = Some(wish);
                true
            }
            // It stays where it is.
            Waiting::Served(_) => true,
        }
    }

    /// The time that this command runs at, Unix milliseconds.
    #[inline]
    pub(crate) fn now_ms(&self) -> i64 {
        self.keyspace.stamp.now_ms
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("words", &self.args.len())
            .finish_non_exhaustive()
    }
}
