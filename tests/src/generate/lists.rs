//! Templates of random commands for lists, and SORT.

use super::Reply::{Same, Sorted, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (20, Same, "LPUSH|RPUSH list member+"),
    (10, Same, "RPUSH list member+ member+ member+"),
    (4, Same, "LPUSHX|RPUSHX list member+"),
    (3, Same, "RPUSH list value"),
    (8, Same, "LPOP|RPOP list |count"),
    (3, Same, "LLEN list"),
    (8, Same, "LRANGE list index index"),
    (5, Same, "LINDEX list index"),
    (6, Same, "LSET list index member|value"),
    (5, Same, "LREM list index member"),
    (4, Same, "LTRIM list index index"),
    (
        6,
        Same,
        "LINSERT list BEFORE|AFTER|before|UNDER member member|value",
    ),
    (6, Same, "LPOS list member |RANK~rank |COUNT~count |MAXLEN~small"),
    (6, Same, "LMOVE list list LEFT|RIGHT|UP LEFT|RIGHT"),
    (4, Same, "RPOPLPUSH list list"),
    (5, Same, "LMPOP 1|2|2|0|x list list LEFT|RIGHT|UP |COUNT~count"),
    // Waits as short as these end by themselves, and in a transaction there are none.
    (1, Unharmed, "BLPOP|BRPOP list list 0.01|-1|x"),
    (1, Unharmed, "BLMOVE list list LEFT|RIGHT LEFT|RIGHT 0.01"),
    (1, Unharmed, "BRPOPLPUSH list list 0.01"),
    (1, Unharmed, "BLMPOP 0.01 2 list list LEFT|RIGHT |COUNT~count"),
    (
        4,
        Same,
        "SORT|SORT_RO list|zset |ALPHA |ASC|DESC |LIMIT~index~index |GET~# |GET~n* |GET~h*->1|GET~h*",
    ),
    (
        4,
        Same,
        "SORT list |BY~n*|BY~h*->1|BY~h*->a|BY~none* |DESC |LIMIT~index~index |GET~# |GET~n*",
    ),
    (3, Same, "SORT any |ALPHA |DESC STORE list"),
    // Elements whose weights are equal as texts come in no order.
    (2, Sorted, "SORT list|zset|set BY~n*|BY~h*->2 ALPHA |DESC"),
    (2, Sorted, "SORT list|zset|set BY nosort |GET~#"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (
        3,
        Same,
        "LPOS list member *RANK~rank|COUNT~count|MAXLEN~small|RANK|COUNT",
    ),
    (
        3,
        Same,
        "LMPOP keys list list LEFT|RIGHT|UP|list *COUNT~count|COUNT|LEFT",
    ),
    (1, Unharmed, "BLPOP|BRPOP list list timeout"),
    (
        1,
        Unharmed,
        "BLMOVE list list LEFT|RIGHT|UP LEFT|RIGHT|UP timeout",
    ),
    (1, Unharmed, "BRPOPLPUSH list list timeout"),
    (
        2,
        Unharmed,
        "BLMPOP timeout keys list list LEFT|RIGHT|UP *COUNT~count|COUNT",
    ),
    (
        4,
        Same,
        "SORT|SORT_RO list|zset *ALPHA|ASC|DESC|LIMIT~index~index|GET~#|GET~n*|LIMIT|STORE~list",
    ),
    (
        4,
        Same,
        "SORT|SORT_RO list|zset BY~n*|BY~h*->1|BY~h*-> *ASC|DESC|LIMIT~index~index|GET~#|GET~h*->a|STORE~list|GET~*|GET~*->",
    ),
    (
        3,
        Unharmed,
        "SORT|SORT_RO equals BY nosort *DESC|ASC|LIMIT~index~index|GET~#",
    ),
    (
        2,
        Unharmed,
        "SORT set BY nosort *DESC|ALPHA|LIMIT~index~index STORE list",
    ),
    (1, Same, "LSET|LTRIM|LREM|LINSERT|LMOVE|LINDEX list word+ word+"),
];
