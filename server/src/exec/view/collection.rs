//! Look-ups and creation of collections for handlers.
//!
//! A handler that changed a collection ends with [`View::settle`], so that no empty collection stays under a key.

use rand::rngs::SmallRng;
use shardis_storage::entry::Entry;
use shardis_storage::key::Key;
use shardis_storage::keyspace::Expiry;
use shardis_storage::value::{Collection, InPlace};

use super::View;
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::change::Look;

/// The collection of an entry.
#[inline]
fn typed<T: InPlace>(entry: &Entry) -> Result<&T, ReplyError> {
    entry.get().ok_or(ReplyError::WrongType)
}

impl View<'_> {
    /// Looks a collection up for reading; see [`read`](View::read).
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn read_as<T: InPlace>(&mut self, key: &Key<'_>) -> Result<Option<&T>, ReplyError> {
        self.read(key).map(typed).transpose()
    }

    /// Looks a collection up for changing it; see [`write`](View::write).
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn write_as<T: InPlace>(&mut self, key: &Key<'_>) -> Result<Option<&mut T>, ReplyError> {
        let found = self.write_with_rng(key)?;
        Ok(found.map(|(value, _)| value))
    }

    /// Looks a collection up for a command that both reads and changes it: counts a hit or a miss, unlike
    /// [`write_as`](View::write_as).
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    pub(crate) fn read_to_change<T: InPlace>(&mut self, key: &Key<'_>) -> Result<Option<&mut T>, ReplyError> {
        let look = Look {
            counts: true,
            tells: true,
            touches: !self.no_touch,
        };
        let (stamp, db) = (self.stamp, self.db);
        let found = self.turn_to(key).look_up_to_change(stamp, db, key, look);
        found
            .map(|(entry, _)| entry.get_mut().ok_or(ReplyError::WrongType))
            .transpose()
    }

    /// Looks a collection up like [`write_as`](View::write_as), and also returns the shard's source of random
    /// numbers.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn write_with_rng<T: InPlace>(
        &mut self,
        key: &Key<'_>,
    ) -> Result<Option<(&mut T, &mut SmallRng)>, ReplyError> {
        let look = Look {
            counts: false,
            tells: false,
            touches: !self.no_touch,
        };
        let (stamp, db) = (self.stamp, self.db);
        let found = self.turn_to(key).look_up_to_change(stamp, db, key, look);
        let Some((entry, rng)) = found else {
            return Ok(None);
        };
        match entry.get_mut() {
            Some(value) => Ok(Some((value, rng))),
            None => Err(ReplyError::WrongType),
        }
    }

    /// Looks a collection up like [`read_as`](View::read_as), and also returns the shard's source of random numbers.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn read_with_rng<T: InPlace>(
        &mut self,
        key: &Key<'_>,
    ) -> Result<Option<(&T, &mut SmallRng)>, ReplyError> {
        let look = Look {
            counts: true,
            tells: true,
            touches: !self.no_touch,
        };
        let found = self.look_up_with_rng(key, look);
        found.map(|(entry, rng)| Ok((typed(entry)?, rng))).transpose()
    }

    /// Looks a collection up to add elements to it, and creates an empty one under a missing key. The flag says
    /// whether it was created.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    #[inline]
    pub(crate) fn make<T: InPlace>(&mut self, key: &Key<'_>) -> Result<(&mut T, bool), ReplyError> {
        let made = self.write(key).is_none();
        if made {
            self.notify_if_new(key);
        }
        let (db, clock) = (self.db, self.stamp.clock);
        let entry = self.turn_to(key).open(db).entry_or_empty::<T>(key, clock);
        match entry.get_mut() {
            Some(value) => Ok((value, made)),
            None => Err(ReplyError::WrongType),
        }
    }

    /// The collection of a key that this command has looked up before. Several can be held at a time.
    ///
    /// # Errors
    /// [`ReplyError::WrongType`] when the key holds something else.
    pub(crate) fn found_as<T: InPlace>(&self, key: &Key<'_>) -> Result<Option<&T>, ReplyError> {
        self.found(key).map(typed).transpose()
    }

    /// Removes the key if its collection is empty, which raises an event of its own. True if so. Handlers call it
    /// after they changed a collection and raised the event of the change.
    #[inline]
    pub(crate) fn settle(&mut self, key: &Key<'_>) -> bool {
        let is_gone = self.change(key, |database| database.settle(key));
        if is_gone {
            self.notify(KeyspaceEvents::GENERIC, "del", key);
        }
        is_gone
    }

    /// Stores a collection under a key, replacing any value; the old value is freed as `lazyfree-lazy-server-del`
    /// says. The expiry is removed.
    pub(crate) fn set_collection(&mut self, key: &Key<'_>, value: impl Into<Collection>) {
        self.make_way(key);
        let (clock, lazily, value) = (self.stamp.clock, self.stamp.lazy_server_del, value.into());
        self.held.carry(key.slot, value.as_ref().memory() as i64);
        self.change(key, |database| {
            if !lazily {
                database.remove(key);
            }
            database
                .set_collection(key, value, Expiry::Clear, clock)
                .set_clock(clock);
        });
    }
}
