//! Eviction: the choice of keys to remove when memory is short.
//!
//! Six of the eight policies rank keys by a score: time since the last use ([`lru`]), frequency of use ([`lfu`]),
//! time to expiry ([`ttl`]). Exact order would cost every write; instead a few random keys are scored at a time and
//! the worst seen so far are kept in a small pool, so that the evicted keys are close to the worst of all. The two
//! random policies take a random key ([`random`]), `noeviction` takes none.
//!
//! The same 24 bits of each entry serve as LRU or LFU clock; the policy decides which, through [`Policy::new_clock`] and
//! [`Policy::touch`].

pub mod lfu;
pub mod lru;
mod random;
mod ttl;

use std::fmt;

use rand::rngs::SmallRng;

use super::{Database, Keyspace};
use crate::entry::Entry;
use crate::key::Key;
use crate::table::Ahead;
use lfu::LfuOptions;

/// Policy of `maxmemory-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// No key is evicted: writes are refused.
    #[default]
    NoEviction,
    /// The key longest unused.
    AllKeysLru,
    /// The key longest unused of those with an expiry.
    VolatileLru,
    /// The key least often used.
    AllKeysLfu,
    /// The key least often used of those with an expiry.
    VolatileLfu,
    /// Any key.
    AllKeysRandom,
    /// Any key with an expiry.
    VolatileRandom,
    /// The key that expires first.
    VolatileTtl,
}

/// Ranking of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ranking {
    Lru,
    Lfu,
    Ttl,
    Random,
}

impl Policy {
    /// All policies.
    pub const ALL: [Self; 8] = [
        Self::NoEviction,
        Self::AllKeysLru,
        Self::VolatileLru,
        Self::AllKeysLfu,
        Self::VolatileLfu,
        Self::AllKeysRandom,
        Self::VolatileRandom,
        Self::VolatileTtl,
    ];

    /// The name `maxmemory-policy` uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::VolatileLru => "volatile-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::VolatileLfu => "volatile-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy of that name, whatever its case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// Whether only keys with an expiry may go.
    #[must_use]
    pub const fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }

    /// Whether access clocks count how often a key is used rather than when: OBJECT FREQ then works, OBJECT IDLETIME not.
    #[inline]
    #[must_use]
    pub const fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    const fn ranking(self) -> Option<Ranking> {
        match self {
            Self::NoEviction => None,
            Self::AllKeysLru | Self::VolatileLru => Some(Ranking::Lru),
            Self::AllKeysLfu | Self::VolatileLfu => Some(Ranking::Lfu),
            Self::AllKeysRandom | Self::VolatileRandom => Some(Ranking::Random),
            Self::VolatileTtl => Some(Ranking::Ttl),
        }
    }

    /// The access clock of a new key.
    #[inline]
    #[must_use]
    pub fn new_clock(self, now_ms: i64) -> u32 {
        if self.is_lfu() {
            lfu::new_clock(now_ms)
        } else {
            lru::clock(now_ms)
        }
    }

    /// The access clock of a key after a use.
    #[inline]
    #[must_use]
    pub fn touch(self, clock: u32, now_ms: i64, options: LfuOptions, rng: &mut SmallRng) -> u32 {
        if self.is_lfu() {
            lfu::touch(clock, now_ms, options, rng)
        } else {
            lru::clock(now_ms)
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Options of a choice.
#[derive(Clone, Copy, Debug)]
pub struct EvictionOptions {
    /// Policy: the keys that may be evicted, and their order.
    pub policy: Policy,
    /// `maxmemory-samples`: keys scored in each database for one choice; at least one is.
    pub samples: usize,
    /// Options of the counters of uses.
    pub lfu: LfuOptions,
}

/// A key to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Victim<'a> {
    /// The database it is in.
    pub database: usize,
    /// The key.
    pub key: &'a [u8],
}

/// Candidates kept from one choice to the next.
const POOL: usize = 16;
/// Capacity from which a candidate's copy of its key is freed, bytes.
const KEY_ROOM_MAX: usize = 1024;

struct Candidate {
    /// Score: the higher, the sooner the key is evicted.
    score: u64,
    database: usize,
    key: Vec<u8>,
    hash: u64,
    slot: u16,
}

impl Candidate {
    fn key(&self) -> Key<'_> {
        Key {
            bytes: &self.key,
            hash: self.hash,
            slot: self.slot,
        }
    }
}

/// Chooses keys to evict, and remembers the best candidates it has seen.
#[derive(Default)]
pub struct Evictor {
    /// Candidates by ascending score; the last one is evicted first.
    pool: Vec<Candidate>,
    /// The key chosen last.
    chosen: Vec<u8>,
    /// Memory for the key of a candidate.
    spare: Vec<u8>,
    /// The policy the scores are of.
    policy: Policy,
    /// Places of the next samples of each database.
    ahead: Vec<Ahead>,
}

impl Evictor {
    /// An evictor without candidates.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Chooses a key that is in the keyspace; none if the policy finds none. The caller removes it. O(samples).
    pub fn pick(
        &mut self,
        keyspace: &Keyspace,
        options: EvictionOptions,
        now_ms: i64,
        rng: &mut SmallRng,
    ) -> Option<Victim<'_>> {
        let volatile = options.policy.is_volatile();
        let ranking = options.policy.ranking()?;
        if ranking == Ranking::Random {
            let (database, entry) = random::pick(keyspace, volatile, rng)?;
            self.choose(entry.key());
            return Some(Victim {
                database,
                key: &self.chosen,
            });
        }
        if self.policy != options.policy {
            self.pool.clear();
            self.policy = options.policy;
        }
        if let Some(likely) = self.pool.last() {
            // Its bucket was asked for at the end of the last choice.
            let database = keyspace.database(likely.database);
            database.prefetch_entry(likely.hash, likely.slot);
        }
        // Another round is necessary only if a candidate does not exist any more.
        for _ in 0..=POOL {
            if !self.sample(keyspace, options, ranking, now_ms, rng) {
                return None;
            }
            while let Some(candidate) = self.pool.pop() {
                if is_present(keyspace, &candidate, volatile) {
                    self.spare = std::mem::replace(&mut self.chosen, candidate.key);
                    if let Some(next) = self.pool.last() {
                        let database = keyspace.database(next.database);
                        database.prefetch_bucket(next.hash, next.slot);
                    }
                    return Some(Victim {
                        database: candidate.database,
                        key: &self.chosen,
                    });
                }
            }
        }
        None
    }

    fn choose(&mut self, key: &[u8]) {
        self.chosen.clear();
        self.chosen.shrink_to(KEY_ROOM_MAX);
        self.chosen.extend_from_slice(key);
    }

    /// Scores some keys of each database; false if there are none.
    fn sample(
        &mut self,
        keyspace: &Keyspace,
        options: EvictionOptions,
        ranking: Ranking,
        now_ms: i64,
        rng: &mut SmallRng,
    ) -> bool {
        let mut any = false;
        self.ahead.resize(keyspace.databases(), Ahead::default());
        for index in 0..keyspace.databases() {
            let database = keyspace.database(index);
            let (count, volatile) = (options.samples.max(1), options.policy.is_volatile());
            if database.is_empty() || volatile && database.volatile_len() == 0 {
                continue;
            }
            let mut ahead = self.ahead[index];
            database.sample(count, volatile, &mut ahead, rng, |entry| {
                any = true;
                let score = match ranking {
                    Ranking::Lru => lru::score(entry, now_ms),
                    Ranking::Lfu => lfu::score(entry, now_ms, options.lfu),
                    Ranking::Ttl => ttl::score(entry),
                    Ranking::Random => 0,
                };
                self.offer(score, (index, entry.key()), keyspace);
            });
            self.ahead[index] = ahead;
        }
        any
    }

    /// Adds a key to the pool if it is worse than another one there, or if there is room.
    fn offer(&mut self, score: u64, (database, bytes): (usize, &[u8]), keyspace: &Keyspace) {
        let full = self.pool.len() == POOL;
        if full && self.pool.first().is_some_and(|lowest| lowest.score >= score) {
            return;
        }
        let key = keyspace.key(bytes);
        let is_key =
            |other: &Candidate| other.hash == key.hash && other.database == database && other.key == bytes;
        if self.pool.iter().any(is_key) {
            return;
        }
        let mut room = if full {
            self.pool.remove(0).key
        } else {
            std::mem::take(&mut self.spare)
        };
        room.clear();
        room.shrink_to(KEY_ROOM_MAX);
        room.extend_from_slice(bytes);
        let at = self.pool.partition_point(|other| other.score < score);
        self.pool.insert(
            at,
            Candidate {
                score,
                database,
                key: room,
                hash: key.hash,
                slot: key.slot,
            },
        );
    }
}

impl fmt::Debug for Evictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evictor")
            .field("policy", &self.policy)
            .field("pool", &self.pool.len())
            .finish()
    }
}

/// A random key among those that may be evicted.
fn draw<'a>(database: &'a Database, volatile: bool, rng: &mut SmallRng) -> Option<&'a Entry> {
    if volatile {
        database.random_volatile(rng)
    } else {
        database.random(rng)
    }
}

fn is_present(keyspace: &Keyspace, candidate: &Candidate, volatile: bool) -> bool {
    let entry = keyspace.database(candidate.database).peek(&candidate.key());
    entry.is_some_and(|entry| !volatile || entry.expiry().is_some())
}

#[cfg(test)]
mod tests {
    use rand::{RngExt as _, SeedableRng};

    use super::*;
    use crate::key::KeyHasher;
    use crate::keyspace::{Expiry, KeyspaceOptions, Layout};

    const KEYS: i64 = 1000;

    /// Key `n` was used `n` seconds after 0, `n / 4` times above the least, and expires at second 10,000 + `n` if even.
    fn keyspace(policy: Policy) -> Keyspace {
        let mut keyspace = Keyspace::new(KeyspaceOptions {
            databases: 2,
            layout: Layout::Single,
            hasher: KeyHasher::new(9),
            slot_of: |_| 0,
        });
        for n in 0..KEYS {
            let name = n.to_string();
            let key = keyspace.key(name.as_bytes());
            let expiry = if n % 2 == 0 {
                Expiry::At((10_000 + n) * 1000)
            } else {
                Expiry::Clear
            };
            let clock = if policy.is_lfu() {
                (n / 4) as u32
            } else {
                lru::clock(n * 1000)
            };
            keyspace
                .database_mut((n % 2) as usize)
                .set_string(&key, b"v", expiry, clock);
        }
        keyspace
    }

    fn options(policy: Policy) -> EvictionOptions {
        EvictionOptions {
            policy,
            samples: 5,
            lfu: LfuOptions {
                log_factor: 10,
                decay_minutes: 0,
            },
        }
    }

    fn evict_half(policy: Policy) -> Vec<i64> {
        let mut keyspace = keyspace(policy);
        let (mut evictor, mut rng) = (Evictor::new(), SmallRng::seed_from_u64(4));
        let options = options(policy);
        let mut gone = Vec::new();
        for _ in 0..KEYS / 2 {
            let Some(victim) = evictor.pick(&keyspace, options, KEYS * 1000, &mut rng) else {
                break;
            };
            let (database, name) = (victim.database, victim.key.to_vec());
            let key = keyspace.key(&name);
            let (hash, slot) = (key.hash, key.slot);
            let key = Key {
                bytes: &name,
                hash,
                slot,
            };
            assert!(keyspace.database_mut(database).remove(&key), "a victim is there");
            gone.push(String::from_utf8(name).unwrap().parse().unwrap());
        }
        gone
    }

    #[test]
    fn ranked_policies_evict_mostly_the_worst() {
        for policy in [Policy::AllKeysLru, Policy::AllKeysLfu] {
            let gone = evict_half(policy);
            assert_eq!(gone.len() as i64, KEYS / 2);
            let worst_half = gone.iter().filter(|n| **n < KEYS / 2).count() as i64;
            assert!(
                worst_half > KEYS / 2 * 85 / 100,
                "{policy}: {worst_half} of the worst {}",
                KEYS / 2
            );
        }
    }

    /// Keys stay as long as others of their age do, by and large: a key that outlives its turn by half is one that was hardly
    /// ever sampled.
    #[test]
    #[cfg_attr(miri, ignore = "it counts what happens to many keys")]
    fn hardly_any_key_outlives_its_turn() {
        // Keys with an expiry are drawn at random, from all windows of time, and chance leaves some out.
        for (policy, late_percent) in [(Policy::AllKeysLru, 0.1), (Policy::VolatileLru, 4.0)] {
            for capacity in [3300, 4500] {
                let (late, all) = outlive_their_turn(policy, capacity);
                let percent = late as f64 * 100.0 / all as f64;
                assert!(percent < late_percent, "{policy}, {capacity} keys: {percent} %");
            }
        }
    }

    /// Stores keys, one a second, and evicts as many beyond a capacity. Counts keys that are there when one and a half times as
    /// many others have been stored behind them, and all that have come so far.
    fn outlive_their_turn(policy: Policy, capacity: usize) -> (usize, usize) {
        let mut keyspace = Keyspace::new(KeyspaceOptions {
            databases: 1,
            layout: Layout::Single,
            hasher: KeyHasher::new(9),
            slot_of: |_| 0,
        });
        let (mut evictor, mut rng) = (Evictor::new(), SmallRng::seed_from_u64(4));
        let options = options(policy);
        let (mut late, mut all) = (0, 0);
        for n in 0..20 * capacity {
            let now_ms = n as i64 * 1000;
            let name = n.to_string();
            let key = keyspace.key(name.as_bytes());
            let expiry = Expiry::At(1 << 40 | i64::from(rng.random::<u32>()));
            keyspace
                .database_mut(0)
                .set_string(&key, b"v", expiry, lru::clock(now_ms));
            if n >= capacity {
                let victim = evictor.pick(&keyspace, options, now_ms, &mut rng).unwrap();
                let victim = victim.key.to_vec();
                let key = keyspace.key(&victim);
                assert!(keyspace.database_mut(0).remove(&key), "a victim is there");
            }
            if let Some(old) = n.checked_sub(capacity * 3 / 2) {
                all += 1;
                let name = old.to_string();
                late += usize::from(
                    keyspace
                        .database(0)
                        .peek(&keyspace.key(name.as_bytes()))
                        .is_some(),
                );
            }
        }
        (late, all)
    }

    #[test]
    fn volatile_policies_evict_volatile_keys_only() {
        let volatile = [
            Policy::VolatileLru,
            Policy::VolatileLfu,
            Policy::VolatileRandom,
            Policy::VolatileTtl,
        ];
        for policy in volatile {
            let gone = evict_half(policy);
            assert_eq!(gone.len() as i64, KEYS / 2, "{policy}");
            assert!(gone.iter().all(|n| n % 2 == 0));
        }
        let first = evict_half(Policy::VolatileTtl);
        let soon = first[..100].iter().filter(|n| **n < KEYS / 2).count();
        assert!(soon > 90, "{soon} of the first 100 expire soon");
    }

    #[test]
    fn random_policies_reach_every_database_and_noeviction_none() {
        let gone = evict_half(Policy::AllKeysRandom);
        let even = gone.iter().filter(|n| **n % 2 == 0).count() as i64;
        assert!(
            (KEYS / 2 * 4 / 10..KEYS / 2 * 6 / 10).contains(&even),
            "{even} of {}",
            KEYS / 2
        );
        assert!(evict_half(Policy::NoEviction).is_empty());
    }

    #[test]
    fn names_are_read_back() {
        for policy in Policy::ALL {
            assert_eq!(Policy::from_name(&policy.name().to_uppercase()), Some(policy));
        }
        assert_eq!(Policy::from_name("lru"), None);
    }
}
