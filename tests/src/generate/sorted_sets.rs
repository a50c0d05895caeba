//! Templates of random commands for sorted sets.

use super::Reply::{Draw, Same, Sorted, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (16, Same, "ZADD zset scored+"),
    (8, Same, "ZADD zset scored+ scored+"),
    (
        10,
        Same,
        "ZADD zset |NX|XX|GT|LT |CH |GT|LT|XX||| |INCR||| scored+",
    ),
    (8, Same, "ZINCRBY zset score member"),
    (6, Same, "ZREM zset member+"),
    (2, Same, "ZCARD zset"),
    (4, Same, "ZSCORE zset member"),
    (3, Same, "ZMSCORE zset member+"),
    (5, Same, "ZRANK|ZREVRANK zset member"),
    (4, Same, "ZCOUNT zset bound bound"),
    (6, Same, "ZRANGE|ZREVRANGE zset index index |WITHSCORES"),
    (
        6,
        Same,
        "ZRANGEBYSCORE|ZREVRANGEBYSCORE zset bound bound |WITHSCORES |LIMIT~index~index",
    ),
    (
        5,
        Same,
        "ZRANGE zset bound bound BYSCORE |REV |LIMIT~index~index |WITHSCORES",
    ),
    (3, Same, "ZRANGESTORE zset zset index index |REV"),
    (
        3,
        Same,
        "ZRANGESTORE zset zset bound bound BYSCORE |REV |LIMIT~index~index",
    ),
    (3, Same, "ZREMRANGEBYRANK zset index index"),
    (3, Same, "ZREMRANGEBYSCORE zset bound bound"),
    (5, Same, "ZPOPMIN|ZPOPMAX zset |count"),
    (4, Same, "ZMPOP 1|2|2|0|x zset zset MIN|MAX|LEFT |COUNT~count"),
    (1, Unharmed, "BZPOPMIN|BZPOPMAX zset zset 0.01|-1|x"),
    (1, Unharmed, "BZMPOP 0.01 2 zset zset MIN|MAX |COUNT~count"),
    (4, Draw, "ZRANDMEMBER zset"),
    (5, Draw, "ZRANDMEMBER zset draws |WITHSCORES|WITHSCORES|NONSENSE"),
    (
        8,
        Same,
        "ZUNION|ZINTER 2|2|2|1|3 zset zset|set |WEIGHTS~score~score |AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX |WITHSCORES",
    ),
    (4, Same, "ZDIFF 2|2|1 zset zset|set |WITHSCORES"),
    (
        6,
        Same,
        "ZUNIONSTORE|ZINTERSTORE zset 2 zset zset|set |WEIGHTS~score~score |AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX",
    ),
    (3, Same, "ZDIFFSTORE zset 2 zset zset|set"),
    (3, Same, "ZINTERCARD 2|2|1|x zset zset|set |LIMIT~small"),
    (4, Sorted, "ZSCAN zset 0 |MATCH~pattern |COUNT~small"),
    // Ranges of names mean something only among equal scores: those sets are kept apart.
    (6, Unharmed, "ZADD equals 0 member 0 member 0 member"),
    (3, Same, "ZREM equals member+"),
    (3, Same, "ZLEXCOUNT equals lex lex"),
    (
        5,
        Same,
        "ZRANGEBYLEX|ZREVRANGEBYLEX equals lex lex |LIMIT~index~index",
    ),
    (
        4,
        Same,
        "ZRANGE equals lex lex BYLEX |REV |LIMIT~index~index |WITHSCORES",
    ),
    (
        2,
        Same,
        "ZRANGESTORE equals equals lex lex BYLEX |REV |LIMIT~index~index",
    ),
    (2, Same, "ZREMRANGEBYLEX equals lex lex"),
];
