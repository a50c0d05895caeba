//! Templates of random commands for strings and bits.

use super::Reply::Same;
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (20, Same, "SET key value"),
    (
        20,
        Same,
        "SET key value |NX|XX |GET |EX~seconds|PX~milliseconds|KEEPTTL|EXAT~at|PXAT~at_ms",
    ),
    (
        4,
        Same,
        "SET key value |NX|XX|GET|KEEPTTL |NX|XX|GET|KEEPTTL |EX~seconds|PX~milliseconds EX~seconds|",
    ),
    (20, Same, "GET key"),
    (
        6,
        Same,
        "GETEX key |PERSIST|EX~seconds|PX~milliseconds|EXAT~at|PXAT~at_ms",
    ),
    (3, Same, "GETDEL key"),
    (4, Same, "GETSET key value"),
    (4, Same, "SETNX key value"),
    (3, Same, "SETEX key seconds value"),
    (3, Same, "PSETEX key milliseconds value"),
    (4, Same, "MSET pair+"),
    (4, Same, "MSETNX pair+"),
    (4, Same, "MGET key+"),
    (10, Same, "APPEND key value"),
    (4, Same, "STRLEN key"),
    (8, Same, "SETRANGE key offset value"),
    (8, Same, "GETRANGE|SUBSTR key index index"),
    (8, Same, "INCR|DECR key"),
    (8, Same, "INCRBY|DECRBY key integer"),
    (10, Same, "INCRBYFLOAT key float"),
    (5, Same, "LCS key key |LEN|IDX |WITHMATCHLEN |MINMATCHLEN~small"),
    (8, Same, "SETBIT key bit 0|1|2"),
    (6, Same, "GETBIT key bit"),
    (
        8,
        Same,
        "BITCOUNT present |index~index~BIT|index~index~BYTE|index~index",
    ),
    (
        8,
        Same,
        "BITPOS present 0|1 |index|index~index|index~index~BIT|index~index~BYTE",
    ),
    (8, Same, "BITOP AND|OR|XOR|NOT key key+"),
    (8, Same, "BITFIELD key operation+"),
    (4, Same, "BITFIELD_RO key GET~encoding~place GET~encoding~place|"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (
        5,
        Same,
        "SET key value *NX|XX|GET|KEEPTTL|EX~seconds|PX~milliseconds|EXAT~at|PXAT~at_ms|EX",
    ),
    (
        3,
        Same,
        "GETEX key *PERSIST|EX~seconds|PX~milliseconds|EXAT~at|PXAT~at_ms|PX",
    ),
    (
        3,
        Same,
        "LCS key key *LEN|IDX|WITHMATCHLEN|MINMATCHLEN~small|MINMATCHLEN",
    ),
    (2, Same, "BITCOUNT key index index *BIT|BYTE|x"),
    (2, Same, "BITPOS key 0|1|2|x *index|BIT|BYTE"),
    (2, Same, "BITOP AND|OR|XOR|NOT|NAND key |key+"),
    (2, Same, "BITFIELD_RO key *operation"),
    (1, Same, "MSET|MSETNX key value |key |pair"),
];
