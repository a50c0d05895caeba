//! [`Introduction`]: what a replica says about itself before it asks for data, and [`SyncRequest`], by which it asks.

use crate::saving::Selection;

/// Statements of a client, by REPLCONF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Introduction {
    /// The port on which it listens itself; 0 if it did not say.
    pub(crate) port: i64,
    /// The address at which it can be reached, where that is not the one that it connects from.
    pub(crate) address: Option<String>,
    /// The replica knows the end of a snapshot by a mark, so that the length need not be known before.
    pub(crate) knows_mark: bool,
    /// The replica can go on with another id of the history.
    pub(crate) knows_ids: bool,
    /// The replica wants a snapshot, and nothing behind it.
    pub(crate) is_snapshot_only: bool,
    /// Parts of the data that it wants.
    pub(crate) selection: Selection,
    /// The replica reads hashes with fields that expire in the form of Valkey, as its version tells.
    pub(crate) is_valkey: bool,
}

impl Default for Introduction {
    fn default() -> Self {
        Self {
            port: 0,
            address: None,
            knows_mark: false,
            knows_ids: false,
            is_snapshot_only: false,
            selection: Selection::ALL,
            is_valkey: false,
        }
    }
}

/// The first version of Valkey with fields that expire.
const VALKEY_WITH_FIELD_EXPIRY: u32 = 9;

/// Whether a version is one of Valkey that knows fields that expire. None if it is no version.
pub(crate) fn reads_valkey_form(version: &[u8]) -> Option<bool> {
    let parts: Vec<u32> = std::str::from_utf8(version)
        .ok()?
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    (parts.len() == 3).then(|| parts[0] >= VALKEY_WITH_FIELD_EXPIRY)
}

/// The parts of the data that the argument of `rdb-filter-only` names.
///
/// # Errors
/// The first word that names none.
pub(crate) fn parse_filter(words: &[u8]) -> Result<Selection, &[u8]> {
    let mut selection = Selection {
        keys: false,
        functions: false,
    };
    for word in words.split(|&byte| byte == b' ').filter(|word| !word.is_empty()) {
        if !word.eq_ignore_ascii_case(b"functions") {
            return Err(word);
        }
        selection.functions = true;
    }
    Ok(selection)
}

/// A request for the data and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyncRequest {
    /// SYNC: all data.
    Full,
    /// PSYNC: what follows in a history, or all data.
    Partial {
        /// Id of the history that the replica has; `?` for none.
        id: String,
        /// Number of the next byte that it lacks, counted from 1.
        next: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_the_form() {
        let expected: [(&[u8], _); 6] = [
            (b"9.1.2", Some(true)),
            (b"8.0.1", Some(false)),
            (b"255.255.255", Some(true)),
            (b"9.1", None),
            (b"x", None),
            (b"", None),
        ];
        for (version, form) in expected {
            assert_eq!(reads_valkey_form(version), form, "{}", version.escape_ascii());
        }
    }

    #[test]
    fn filters_name_parts() {
        let selection = |keys, functions| Ok(Selection { keys, functions });
        assert_eq!(parse_filter(b""), selection(false, false));
        assert_eq!(parse_filter(b"Functions "), selection(false, true));
        assert_eq!(parse_filter(b"functions keys"), Err(b"keys".as_slice()));
    }
}
