//! [`Directory`]: channels by name, spread over stripes with a lock each, so that loops which publish on different
//! channels do not contend.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};

use super::{Audience, Name, Seat};

/// Number of stripes; a power of two.
const STRIPES: usize = 64;

/// Names and their subscribers. A name is listed only if it has subscribers.
pub(super) type Names = HashMap<Name, Audience, FixedState>;

/// All channels of one kind.
#[derive(Debug)]
pub(super) struct Directory {
    /// Chooses the stripe.
    hasher: FixedState,
    stripes: Box<[Stripe]>,
    /// Number of names.
    count: AtomicUsize,
}

/// A part of the names, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(Mutex<Names>);

impl Directory {
    /// An empty directory. Because of the seed, clients cannot predict the stripe of a name.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            stripes: (0..STRIPES).map(|_| Stripe(Mutex::new(no_names(seed)))).collect(),
            count: AtomicUsize::new(0),
        }
    }

    /// Locks the stripe of a name.
    pub(super) fn lock(&self, name: &[u8]) -> MutexGuard<'_, Names> {
        // The map of a stripe uses other bits of the hash.
        let bits = (self.hasher.hash_one(name) >> 48) as usize;
        self.stripes[bits % STRIPES].0.lock()
    }

    pub(super) fn join(&self, name: &[u8], seat: Seat) -> Name {
        let mut names = self.lock(name);
        let before = names.len();
        let name = join(&mut names, name, seat);
        self.count.fetch_add(names.len() - before, Ordering::AcqRel);
        name
    }

    pub(super) fn leave(&self, name: &[u8], seat: Seat) {
        let mut names = self.lock(name);
        let before = names.len();
        leave(&mut names, name, seat);
        self.count.fetch_sub(before - names.len(), Ordering::AcqRel);
    }

    /// Number of names.
    #[inline]
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Calls `show` with every name, one stripe at a time.
    pub(super) fn each(&self, mut show: impl FnMut(&Name)) {
        for stripe in &self.stripes {
            stripe.0.lock().keys().for_each(&mut show);
        }
    }
}

/// An empty map of names that can grow.
pub(super) fn no_names(seed: u64) -> Names {
    Names::with_hasher(FixedState::with_seed(seed))
}

/// Adds a subscriber of a name, which must not be one yet. Returns the shared name.
pub(super) fn join(names: &mut Names, name: &[u8], seat: Seat) -> Name {
    let shared = match names.get_key_value(name) {
        Some((shared, _)) => Arc::clone(shared),
        None => Name::from(name),
    };
    names.entry(Arc::clone(&shared)).or_default().add(seat);
    shared
}

/// Removes a subscriber of a name, and the name with its last one.
pub(super) fn leave(names: &mut Names, name: &[u8], seat: Seat) {
    let Some(audience) = names.get_mut(name) else {
        return;
    };
    audience.remove(seat);
    if audience.is_empty() {
        names.remove(name);
        // Memory is freed when many names have been removed.
        if names.len() * 4 < names.capacity() {
            names.shrink_to(names.len() * 2);
        }
    }
}
