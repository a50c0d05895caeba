//! Templates of random commands for hashes.

use super::Reply::{Draw, Pairs, Same, Sorted};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (20, Same, "HSET hash field+"),
    (4, Same, "HMSET hash field+"),
    (4, Same, "HSETNX hash field"),
    (6, Same, "HGET hash member"),
    (6, Same, "HMGET hash member+"),
    (4, Pairs, "HGETALL hash"),
    (3, Sorted, "HKEYS|HVALS hash"),
    (3, Same, "HLEN hash"),
    (6, Same, "HDEL hash member+"),
    (4, Same, "HEXISTS|HSTRLEN hash member"),
    (8, Same, "HINCRBY hash member integer"),
    (8, Same, "HINCRBYFLOAT hash member float"),
    (4, Draw, "HRANDFIELD hash"),
    (6, Draw, "HRANDFIELD hash draws |WITHVALUES|WITHVALUES|NONSENSE"),
    (4, Sorted, "HSCAN hash 0 |MATCH~pattern |COUNT~small"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (1, Same, "HSET|HMSET|HMGET|HDEL hash word+ word+"),
    (2, Same, "HINCRBY|HINCRBYFLOAT hash member word"),
    (1, Draw, "HRANDFIELD hash draws WITHVALUES|WITHSCORES|x |x"),
];
