//! Templates of random commands for sorted sets.

use super::Reply::{Draw, Scores, SortedScores, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (16, Scores, "ZADD zset scored+"),
    (8, Scores, "ZADD zset scored+ scored+"),
    (
        10,
        Scores,
        "ZADD zset |NX|XX|GT|LT |CH |GT|LT|XX||| |INCR||| scored+",
    ),
    (8, Scores, "ZINCRBY zset score member"),
    (6, Scores, "ZREM zset member+"),
    (2, Scores, "ZCARD zset"),
    (4, Scores, "ZSCORE zset member"),
    (3, Scores, "ZMSCORE zset member+"),
    // A third argument is no longer too many in 7.2, so none is added by chance.
    (5, Unharmed, "ZRANK|ZREVRANK zset member"),
    (4, Scores, "ZCOUNT zset bound bound"),
    (6, Scores, "ZRANGE|ZREVRANGE zset index index |WITHSCORES"),
    (
        6,
        Scores,
        "ZRANGEBYSCORE|ZREVRANGEBYSCORE zset bound bound |WITHSCORES |LIMIT~index~index",
    ),
    (
        5,
        Scores,
        "ZRANGE zset bound bound BYSCORE |REV |LIMIT~index~index |WITHSCORES",
    ),
    (3, Scores, "ZRANGESTORE zset zset index index |REV"),
    (
        3,
        Scores,
        "ZRANGESTORE zset zset bound bound BYSCORE |REV |LIMIT~index~index",
    ),
    (3, Scores, "ZREMRANGEBYRANK zset index index"),
    (3, Scores, "ZREMRANGEBYSCORE zset bound bound"),
    (5, Scores, "ZPOPMIN|ZPOPMAX zset |count"),
    (4, Scores, "ZMPOP 1|2|2|0|x zset zset MIN|MAX|LEFT |COUNT~count"),
    (1, Unharmed, "BZPOPMIN|BZPOPMAX zset zset 0.01|-1|x"),
    (1, Unharmed, "BZMPOP 0.01 2 zset zset MIN|MAX |COUNT~count"),
    (4, Draw, "ZRANDMEMBER zset"),
    (5, Draw, "ZRANDMEMBER zset draws |WITHSCORES|WITHSCORES|NONSENSE"),
    (
        8,
        Scores,
        "ZUNION|ZINTER 2|2|2|1|3 zset zset|set |WEIGHTS~score~score |AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX |WITHSCORES",
    ),
    (4, Scores, "ZDIFF 2|2|1 zset zset|set |WITHSCORES"),
    (
        6,
        Scores,
        "ZUNIONSTORE|ZINTERSTORE zset 2 zset zset|set |WEIGHTS~score~score |AGGREGATE~SUM|AGGREGATE~MIN|AGGREGATE~MAX",
    ),
    (3, Scores, "ZDIFFSTORE zset 2 zset zset|set"),
    (3, Scores, "ZINTERCARD 2|2|1|x zset zset|set |LIMIT~small"),
    (4, SortedScores, "ZSCAN zset 0 |MATCH~pattern |COUNT~small"),
    // Ranges of names mean something only among equal scores: those sets are kept apart.
    (6, Unharmed, "ZADD equals 0 member 0 member 0 member"),
    (3, Scores, "ZREM equals member+"),
    (3, Scores, "ZLEXCOUNT equals lex lex"),
    (
        5,
        Scores,
        "ZRANGEBYLEX|ZREVRANGEBYLEX equals lex lex |LIMIT~index~index",
    ),
    (
        4,
        Scores,
        "ZRANGE equals lex lex BYLEX |REV |LIMIT~index~index |WITHSCORES",
    ),
    (
        2,
        Scores,
        "ZRANGESTORE equals equals lex lex BYLEX |REV |LIMIT~index~index",
    ),
    (2, Scores, "ZREMRANGEBYLEX equals lex lex"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (6, Scores, "ZADD zset *NX|XX|GT|LT|CH|INCR scored+ |score"),
    (2, Scores, "ZINCRBY zset score|NX|INCR member |member"),
    (
        5,
        Scores,
        "ZRANGE zset index|bound index|bound *BYSCORE|REV|LIMIT~index~index|WITHSCORES|LIMIT",
    ),
    (
        4,
        Scores,
        "ZRANGE equals lex|index lex|index *BYLEX|BYLEX|BYSCORE|REV|LIMIT~index~index|WITHSCORES",
    ),
    (
        3,
        Scores,
        "ZRANGESTORE zset zset index|bound index|bound *BYSCORE|REV|LIMIT~index~index|WITHSCORES",
    ),
    (
        4,
        Scores,
        "ZRANGEBYSCORE|ZREVRANGEBYSCORE zset bound bound *WITHSCORES|LIMIT~index~index|LIMIT|REV",
    ),
    (
        3,
        Scores,
        "ZRANGEBYLEX|ZREVRANGEBYLEX equals lex lex *LIMIT~index~index|WITHSCORES",
    ),
    (
        2,
        Scores,
        "ZRANGE|ZREVRANGE zset index index *WITHSCORES|REV|BYSCORE",
    ),
    (
        6,
        Scores,
        "ZUNION|ZINTER|ZDIFF keys zset zset|set |zset *WEIGHTS~score~score|WEIGHTS~score~score~score|AGGREGATE~MIN|AGGREGATE~x|WITHSCORES|LIMIT~1",
    ),
    (
        6,
        Scores,
        "ZUNIONSTORE|ZINTERSTORE|ZDIFFSTORE zset keys zset|set zset |zset *WEIGHTS~score~score|WEIGHTS~score~score~score|AGGREGATE~MAX|WITHSCORES",
    ),
    (
        3,
        Scores,
        "ZINTERCARD keys zset zset|set *LIMIT~small|LIMIT~index|LIMIT",
    ),
    (
        3,
        Scores,
        "ZMPOP keys zset zset MIN|MAX|LEFT|zset *COUNT~count|COUNT|MIN",
    ),
    (1, Unharmed, "BZPOPMIN|BZPOPMAX zset zset timeout"),
    (
        2,
        Unharmed,
        "BZMPOP timeout keys zset zset MIN|MAX *COUNT~count|COUNT",
    ),
    (1, Scores, "ZPOPMIN|ZPOPMAX zset count |count"),
    (1, Scores, "ZREM|ZSCORE|ZMSCORE|ZCARD|ZCOUNT|ZINCRBY zset word+"),
];
