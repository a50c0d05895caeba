//! [`Libraries`]: sources of function libraries that files have brought. This version does not run them; it keeps them, and saves
//! them again, so that a node of another version finds them.

use std::sync::Arc;

/// Sources of function libraries, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Libraries {
    sources: Arc<Vec<Vec<u8>>>,
}

impl Libraries {
    /// Adds a library, in the place of that of the same name.
    pub(crate) fn add(&mut self, source: &[u8]) {
        self.remove(name_of(source));
        Arc::make_mut(&mut self.sources).push(source.to_vec());
    }

    /// Adds all of another node.
    pub(crate) fn add_all(&mut self, others: &Self) {
        others.sources().iter().for_each(|source| self.add(source));
    }

    /// Removes the library of this name, if there is one.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        Arc::make_mut(&mut self.sources).retain(|source| name_of(source) != name);
    }

    /// The sources.
    pub(crate) fn sources(&self) -> &[Vec<u8>] {
        &self.sources
    }
}

/// The name of a library: its first line is `#!engine name=...`. A source without one is its own name.
fn name_of(source: &[u8]) -> &[u8] {
    let line = source.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.split(|byte| byte.is_ascii_whitespace());
    words
        .find_map(|word| word.strip_prefix(b"name="))
        .unwrap_or(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_replaces_the_one_of_its_name() {
        let mut libraries = Libraries::default();
        let kept = libraries.clone();
        for source in [
            "#!lua name=a\nx",
            "#!lua engine=b name=b\r\ny",
            "no header",
            "#!lua name=a\nz",
        ] {
            libraries.add(source.as_bytes());
        }
        libraries.remove(b"none");
        let texts = libraries
            .sources()
            .iter()
            .map(|source| String::from_utf8_lossy(source));
        let texts: Vec<_> = texts.collect();
        assert_eq!(
            texts,
            ["#!lua engine=b name=b\r\ny", "no header", "#!lua name=a\nz"]
        );
        libraries.remove(b"b");
        assert_eq!((libraries.sources().len(), kept.sources().len()), (2, 0));
    }
}
