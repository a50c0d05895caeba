//! Templates of random commands for keys of any type, transactions and the server.

use super::Reply::{Encoding, Milliseconds, Random, Same, Scores, Seconds, Sorted, Told, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (6, Same, "DEL|UNLINK|EXISTS|TOUCH any+"),
    (3, Same, "TYPE any"),
    (4, Same, "RENAME|RENAMENX any any"),
    (5, Same, "COPY any any |REPLACE |DB~database"),
    (3, Same, "MOVE any database"),
    (1, Same, "SWAPDB database database"),
    (8, Same, "EXPIRE any seconds |NX|XX|GT|LT |NX|XX|GT|LT"),
    (4, Same, "PEXPIRE any milliseconds |NX|XX|GT|LT"),
    (4, Same, "EXPIREAT any at |NX|XX|GT|LT"),
    (4, Same, "PEXPIREAT any at_ms |NX|XX|GT|LT"),
    (4, Same, "PERSIST any"),
    (5, Seconds, "TTL|EXPIRETIME any"),
    (5, Milliseconds, "PTTL|PEXPIRETIME any"),
    (4, Sorted, "KEYS pattern"),
    (
        4,
        Sorted,
        "SCAN 0 |MATCH~pattern |COUNT~small |TYPE~STRING|TYPE~LIST|TYPE~HASH|TYPE~SET|TYPE~ZSET",
    ),
    (2, Random, "RANDOMKEY"),
    (8, Encoding, "OBJECT ENCODING any"),
    // Redis shares small integers: such keys count their sharing, and one key's use is that of all.
    (1, Random, "OBJECT REFCOUNT any"),
    (1, Random, "OBJECT IDLETIME any"),
    // Not in transactions: the duel first looks expired keys up, see `generate::look_at_all`.
    (3, Told, "DBSIZE"),
    (1, Same, "FLUSHDB |ASYNC|SYNC"),
    (3, Same, "SELECT database"),
    (6, Same, "WATCH any+"),
    (2, Same, "UNWATCH"),
    (6, Same, "MULTI"),
    (6, Scores, "EXEC"),
    (1, Same, "DISCARD"),
    (2, Same, "PING |value"),
    (2, Same, "ECHO value"),
    (1, Same, "COMMAND GETKEYS SET|MSET|BITOP|COPY|LCS|DEL word+"),
    (
        1,
        Same,
        "COMMAND GETKEYSANDFLAGS SET|MSET|BITOP|COPY|LCS|BITFIELD word+",
    ),
    (1, Same, "word word+"),
    (1, Same, "CLIENT|CONFIG|OBJECT|COMMAND junk"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (3, Same, "EXPIRE any seconds *NX|XX|GT|LT|x"),
    (3, Same, "COPY any any *REPLACE|DB~database|DB"),
    (2, Same, "SWAPDB database database"),
    (1, Same, "OBJECT FREQ|ENCODING|REFCOUNT|freq none"),
    (1, Same, "OBJECT FREQ any"),
    // Malformed requests are not compared: there Redis reports what the command itself would refuse.
    (
        3,
        Unharmed,
        "COMMAND GETKEYS|GETKEYSANDFLAGS ZUNION|ZINTER|ZDIFF|ZINTERCARD|SINTERCARD|LMPOP|ZMPOP keys key key |key",
    ),
    (
        2,
        Unharmed,
        "COMMAND GETKEYS|GETKEYSANDFLAGS BLMPOP~0~keys|BZMPOP~0~keys|ZUNIONSTORE~key~2|ZDIFFSTORE~key~1|BITOP~NOT|SORT~key~STORE|PFMERGE key key LEFT",
    ),
    (
        2,
        Unharmed,
        "COMMAND GETKEYS|GETKEYSANDFLAGS XREAD|XREADGROUP~GROUP~g~c |COUNT~1 STREAMS key key 0 0",
    ),
    (
        2,
        Unharmed,
        "COMMAND GETKEYS|GETKEYSANDFLAGS GEORADIUS~key~1~1~1~m~STORE|GEOSEARCHSTORE~key|OBJECT~ENCODING|MEMORY~USAGE|PING|NOSUCH|XGROUP~CREATE|BLMOVE~key key x x x x |x",
    ),
    // These keys expire without an access: the duel waits for that.
    (5, Unharmed, "PEXPIRE any 1"),
    (1, Unharmed, "SET key value PX 1"),
    (1, Random, "HELLO |2|3|4|x"),
    (1, Same, "CLIENT SETNAME member |member"),
    (1, Same, "CLIENT GETNAME"),
    (1, Same, "RESET"),
    (
        1,
        Same,
        "FLUSHDB|FLUSHALL|DBSIZE|PING|ECHO|UNWATCH|DISCARD word word",
    ),
];
