//! [`ScriptCache`]: the scripts that a node knows, by their digests.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::LoadError;
use crate::limits::{EVALUATED_SCRIPTS_MAX, SOURCE_BYTES_MAX};
use crate::shebang::{self, Header};

/// SHA-1 of a script, as forty digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; Digest::DIGITS]);

impl Digest {
    /// Length of the text.
    pub const DIGITS: usize = 40;

    /// The digest of a source.
    #[must_use]
    pub fn of(source: &[u8]) -> Digest {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; Self::DIGITS];
        for (pair, byte) in digits
            .chunks_exact_mut(2)
            .zip(sha1_smol::Sha1::from(source).digest().bytes())
        {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        Digest(digits)
    }

    /// The digest that a client names, in upper or lower case. Whatever is no digest names no script.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Digest> {
        let mut digits: [u8; Self::DIGITS] = text.try_into().ok()?;
        digits.make_ascii_lowercase();
        digits.iter().all(u8::is_ascii_hexdigit).then_some(Digest(digits))
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|&digit| write!(f, "{}", char::from(digit)))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A script. Copies share its source.
#[derive(Clone, Debug)]
pub struct Script {
    /// Digest of the source.
    pub digest: Digest,
    /// The source, its first line included.
    pub source: Arc<[u8]>,
    /// Declarations of the first line.
    pub header: Header,
}

impl Script {
    /// A script with this source.
    ///
    /// # Errors
    /// If its first line is invalid, or if it is too long.
    pub fn new(source: &[u8]) -> Result<Script, LoadError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(LoadError::TooLong);
        }
        Ok(Script {
            digest: Digest::of(source),
            source: source.into(),
            header: shebang::parse_script(source)?,
        })
    }
}

/// Origin of a script in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// EVAL: one of the scripts of which the oldest give way.
    Evaluated,
    /// SCRIPT LOAD: it stays until SCRIPT FLUSH.
    Loaded,
}

/// Counters of a cache, for INFO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Scripts.
    pub scripts: usize,
    /// Memory of their sources, bytes.
    pub bytes: usize,
    /// Scripts of EVAL that gave way to newer ones.
    pub evicted: u64,
}

/// A script in a cache, with what its owner notes about it. Engines share it, and ask it whether the cache still knows it.
#[derive(Debug)]
pub struct Cached<N> {
    /// The script.
    pub script: Script,
    /// Whatever the owner of the cache keeps with it.
    pub note: N,
    /// The script has run since the cache last looked for one to give up.
    is_used: AtomicBool,
    /// The cache does not know the script any more.
    is_forgotten: AtomicBool,
}

impl<N> Cached<N> {
    /// Notes that the script runs.
    #[inline]
    pub fn note_use(&self) {
        // A line of memory that all loops read is written to only when that changes something.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the cache does not know the script any more.
    #[inline]
    #[must_use]
    pub fn is_forgotten(&self) -> bool {
        self.is_forgotten.load(Ordering::Acquire)
    }

    fn forget(&self) {
        self.is_forgotten.store(true, Ordering::Release);
    }
}

/// Scripts by their digests.
#[derive(Debug)]
pub struct ScriptCache<N> {
    scripts: HashMap<Digest, (Arc<Cached<N>>, Origin)>,
    /// Digests of the scripts of EVAL, the oldest first. Those that were used meanwhile are passed over once.
    evaluated: VecDeque<Digest>,
    bytes: usize,
    evicted: u64,
}

impl<N> Default for ScriptCache<N> {
    fn default() -> Self {
        ScriptCache {
            scripts: HashMap::new(),
            evaluated: VecDeque::new(),
            bytes: 0,
            evicted: 0,
        }
    }
}

impl<N: Default> ScriptCache<N> {
    /// The script with a digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<&Arc<Cached<N>>> {
        self.scripts.get(digest).map(|(script, _)| script)
    }

    /// Adds a script that has been compiled, and returns it as the cache knows it. Another one may give way to it.
    pub fn insert(&mut self, script: Script, origin: Origin) -> Arc<Cached<N>> {
        let digest = script.digest;
        if let Some((cached, known)) = self.scripts.get_mut(&digest) {
            if *known == Origin::Evaluated && origin == Origin::Loaded {
                *known = Origin::Loaded;
                self.evaluated.retain(|evaluated| *evaluated != digest);
            }
            return Arc::clone(cached);
        }
        self.bytes += script.source.len();
        let cached = Arc::new(Cached {
            script,
            note: N::default(),
            is_used: AtomicBool::new(false),
            is_forgotten: AtomicBool::new(false),
        });
        self.scripts.insert(digest, (Arc::clone(&cached), origin));
        if origin == Origin::Evaluated {
            self.evaluated.push_back(digest);
            self.make_room();
        }
        cached
    }

    /// Gives the oldest script of EVAL up that has not been used since the last look at it, if there are too many.
    fn make_room(&mut self) {
        while self.evaluated.len() > EVALUATED_SCRIPTS_MAX {
            let Some(oldest) = self.evaluated.pop_front() else {
                return;
            };
            let is_used =
                |(cached, _): &(Arc<Cached<N>>, Origin)| cached.is_used.swap(false, Ordering::Relaxed);
            if self.scripts.get(&oldest).is_some_and(is_used) {
                self.evaluated.push_back(oldest);
                continue;
            }
            if let Some((cached, _)) = self.scripts.remove(&oldest) {
                cached.forget();
                self.bytes -= cached.script.source.len();
                self.evicted += 1;
            }
        }
    }

    /// Forgets all scripts. The counter of those that gave way goes on.
    pub fn clear(&mut self) {
        self.scripts.drain().for_each(|(_, (cached, _))| cached.forget());
        self.evaluated.clear();
        self.bytes = 0;
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            scripts: self.scripts.len(),
            bytes: self.bytes,
            evicted: self.evicted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(source: &str) -> Script {
        Script::new(source.as_bytes()).expect("valid")
    }

    #[test]
    fn digests_are_those_of_sha1() {
        assert_eq!(
            Digest::of(b"return 1").to_string(),
            "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
        );
        let upper = b"E0E1F9FABFC9D4800C877A703B823AC0578FF8DB";
        assert_eq!(Digest::parse(upper), Some(Digest::of(b"return 1")));
        assert_eq!(Digest::parse(b"e0e1"), None);
        assert_eq!(Digest::parse(&[b'x'; 40]), None);
    }

    #[test]
    fn the_oldest_scripts_of_eval_give_way_unless_they_are_used() {
        let mut cache = ScriptCache::<()>::default();
        let loaded = cache.insert(script("return 'loaded'"), Origin::Loaded);
        let used = cache.insert(script("return 'used'"), Origin::Evaluated);
        let first = cache.insert(script("return 0"), Origin::Evaluated);
        used.note_use();
        for number in 2..=EVALUATED_SCRIPTS_MAX {
            cache.insert(script(&format!("return {number}")), Origin::Evaluated);
        }
        assert!(first.is_forgotten() && cache.get(&first.script.digest).is_none());
        assert!(!used.is_forgotten() && cache.get(&used.script.digest).is_some());
        assert!(cache.get(&loaded.script.digest).is_some());
        let stats = cache.stats();
        assert_eq!((stats.scripts, stats.evicted), (EVALUATED_SCRIPTS_MAX + 1, 1));
        let sources = cache
            .scripts
            .values()
            .map(|(cached, _)| cached.script.source.len());
        assert_eq!(stats.bytes, sources.sum::<usize>());
    }

    #[test]
    fn a_script_that_is_loaded_as_well_stays() {
        let mut cache = ScriptCache::<()>::default();
        let kept = cache.insert(script("return 0"), Origin::Evaluated);
        cache.insert(script("return 0"), Origin::Loaded);
        for number in 1..=2 * EVALUATED_SCRIPTS_MAX {
            cache.insert(script(&format!("return {number}")), Origin::Evaluated);
        }
        assert!(cache.get(&kept.script.digest).is_some());
        cache.clear();
        assert_eq!(cache.stats().bytes, 0);
        assert!(kept.is_forgotten());
    }
}
