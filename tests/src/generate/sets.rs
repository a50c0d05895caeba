//! Templates of random commands for sets.

use super::Reply::{Draw, Same, Sorted};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (20, Same, "SADD set member+"),
    (10, Same, "SADD set number+ number+"),
    (3, Same, "SADD set value"),
    (8, Same, "SREM set member+"),
    (3, Same, "SCARD set"),
    (4, Same, "SISMEMBER set member"),
    (4, Same, "SMISMEMBER set member+"),
    (5, Sorted, "SMEMBERS set"),
    (6, Same, "SMOVE set set member"),
    (5, Draw, "SPOP set"),
    (5, Draw, "SPOP set count"),
    (3, Draw, "SRANDMEMBER set"),
    (5, Draw, "SRANDMEMBER set draws"),
    (8, Sorted, "SINTER|SUNION|SDIFF set+"),
    (8, Same, "SINTERSTORE|SUNIONSTORE|SDIFFSTORE set set+"),
    (5, Same, "SINTERCARD 1|2|2|3|0|x set set |LIMIT~small"),
    (4, Sorted, "SSCAN set 0 |MATCH~pattern |COUNT~small"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (
        4,
        Same,
        "SINTERCARD keys set set *LIMIT~small|LIMIT~index|LIMIT|set",
    ),
    (1, Same, "SMOVE|SREM|SISMEMBER set word+ word+ word"),
    (
        3,
        Same,
        "SINTERSTORE|SUNIONSTORE|SDIFFSTORE set set|zset set|zset |set",
    ),
];
