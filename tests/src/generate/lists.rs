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
    (6, Same, "LPOS list member |RANK~index |COUNT~count |MAXLEN~small"),
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
];
