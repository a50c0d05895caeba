//! Encodings: the structures that collections are stored in, without knowledge of keys or commands.

pub mod intset;
pub mod listpack;
pub(crate) mod member_table;
pub(crate) mod order_tree;
pub(crate) mod quicklist;
pub(crate) mod scored_table;
