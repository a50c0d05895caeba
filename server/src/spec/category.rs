//! ACL categories of commands, explicit and implied.

use super::Flags;

bitflags::bitflags! {
    /// The ACL categories of a command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Category: u32 {
        /// `@keyspace`
        const KEYSPACE = 1 << 0;
        /// `@read`
        const READ = 1 << 1;
        /// `@write`
        const WRITE = 1 << 2;
        /// `@set`
        const SET = 1 << 3;
        /// `@sortedset`
        const SORTEDSET = 1 << 4;
        /// `@list`
        const LIST = 1 << 5;
        /// `@hash`
        const HASH = 1 << 6;
        /// `@string`
        const STRING = 1 << 7;
        /// `@bitmap`
        const BITMAP = 1 << 8;
        /// `@hyperloglog`
        const HYPERLOGLOG = 1 << 9;
        /// `@geo`
        const GEO = 1 << 10;
        /// `@stream`
        const STREAM = 1 << 11;
        /// `@pubsub`
        const PUBSUB = 1 << 12;
        /// `@admin`
        const ADMIN = 1 << 13;
        /// `@fast`
        const FAST = 1 << 14;
        /// `@slow`
        const SLOW = 1 << 15;
        /// `@blocking`
        const BLOCKING = 1 << 16;
        /// `@dangerous`
        const DANGEROUS = 1 << 17;
        /// `@connection`
        const CONNECTION = 1 << 18;
        /// `@transaction`
        const TRANSACTION = 1 << 19;
        /// `@scripting`
        const SCRIPTING = 1 << 20;
    }
}

impl Category {
    /// The categories that a command's flags imply.
    pub(crate) fn implied_by(flags: Flags) -> Self {
        let mut implied = if flags.contains(Flags::FAST) {
            Self::FAST
        } else {
            Self::SLOW
        };
        for (flag, categories) in [
            (Flags::WRITE, Self::WRITE),
            (Flags::ADMIN, Self::ADMIN.union(Self::DANGEROUS)),
            (Flags::PUBSUB, Self::PUBSUB),
            (Flags::BLOCKING, Self::BLOCKING),
        ] {
            if flags.contains(flag) {
                implied |= categories;
            }
        }
        if flags.contains(Flags::READONLY) {
            implied |= Self::READ;
        }
        implied
    }

    /// Names of the set categories, with their `@`.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(category, _)| self.contains(*category))
            .map(|(_, name)| *name)
    }

    /// The category of a name without its `@`, ignoring case.
    pub(crate) fn by_name(name: &[u8]) -> Option<Self> {
        NAMES
            .iter()
            .find(|(_, known)| known.as_bytes()[1..].eq_ignore_ascii_case(name))
            .map(|(category, _)| *category)
    }
}

const NAMES: &[(Category, &str)] = &[
    (Category::KEYSPACE, "@keyspace"),
    (Category::READ, "@read"),
    (Category::WRITE, "@write"),
    (Category::SET, "@set"),
    (Category::SORTEDSET, "@sortedset"),
    (Category::LIST, "@list"),
    (Category::HASH, "@hash"),
    (Category::STRING, "@string"),
    (Category::BITMAP, "@bitmap"),
    (Category::HYPERLOGLOG, "@hyperloglog"),
    (Category::GEO, "@geo"),
    (Category::STREAM, "@stream"),
    (Category::PUBSUB, "@pubsub"),
    (Category::ADMIN, "@admin"),
    (Category::FAST, "@fast"),
    (Category::SLOW, "@slow"),
    (Category::BLOCKING, "@blocking"),
    (Category::DANGEROUS, "@dangerous"),
    (Category::CONNECTION, "@connection"),
    (Category::TRANSACTION, "@transaction"),
    (Category::SCRIPTING, "@scripting"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_category_has_a_name_and_is_found_by_it() {
        for category in Category::all().iter() {
            let name = category.names().next().unwrap();
            assert_eq!(Category::by_name(&name.as_bytes()[1..]), Some(category));
        }
        assert_eq!(Category::by_name(b"nonsense"), None);
    }
}
