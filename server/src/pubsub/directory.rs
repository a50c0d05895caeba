//! Channels by name. They are spread over stripes, each behind a lock of its own, so that loops which publish on different
//! channels do not meet.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foldhash::fast::FixedState;
use parking_lot::{Mutex, MutexGuard};

use super::{Audience, Name, Seat};

/// Number of stripes; a power of two.
const STRIPES: usize = 64;

/// Names with those who listen to them. A name is in it only with listeners.
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

/// On cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Stripe(Mutex<Names>);

impl Directory {
    /// One without names. The seed makes it unknown to clients where a name goes.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            hasher: FixedState::with_seed(seed),
            stripes: (0..STRIPES).map(|_| Stripe(Mutex::new(no_names(seed)))).collect(),
            count: AtomicUsize::new(0),
        }
    }

    /// The names among which this one is, or would be, for as long as the guard lives.
    pub(super) fn lock(&self, name: &[u8]) -> MutexGuard<'_, Names> {
        // Other bits than those by which the map of a stripe places the name.
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

    /// Shows every name, a stripe at a time.
    pub(super) fn each(&self, mut show: impl FnMut(&Name)) {
        for stripe in &self.stripes {
            stripe.0.lock().keys().for_each(&mut show);
        }
    }
}

/// No names, of which many can come.
pub(super) fn no_names(seed: u64) -> Names {
    Names::with_hasher(FixedState::with_seed(seed))
}

/// Adds one who does not listen to the name yet. Returns the shared name.
pub(super) fn join(names: &mut Names, name: &[u8], seat: Seat) -> Name {
    let shared = match names.get_key_value(name) {
        Some((shared, _)) => Arc::clone(shared),
        None => Name::from(name),
    };
    names.entry(Arc::clone(&shared)).or_default().add(seat);
    shared
}

/// Removes one who listens to the name, and the name with the last one.
pub(super) fn leave(names: &mut Names, name: &[u8], seat: Seat) {
    let Some(audience) = names.get_mut(name) else {
        return;
    };
    audience.remove(seat);
    if audience.is_empty() {
        names.remove(name);
        // Memory is given back when many names have gone.
        if names.len() * 4 < names.capacity() {
            names.shrink_to(names.len() * 2);
        }
    }
}
