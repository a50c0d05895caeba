//! Templates of random commands for streams.
//!
//! No id comes from a clock, because the clocks of two servers differ. Since 7.2 a consumer is created by its first
//! request, so that replies with the list of consumers are not compared.

use super::Reply::{Milliseconds, Random, Same, Told, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (24, Same, "XADD stream next field+"),
    (6, Same, "XADD stream next name value number integer"),
    (
        6,
        Same,
        "XADD stream |NOMKSTREAM MAXLEN |=|about small |LIMIT~count next field",
    ),
    (
        4,
        Same,
        "XADD stream MINID |=|about entry |LIMIT~count next field",
    ),
    (4, Same, "XADD stream entry field"),
    (3, Same, "XLEN stream"),
    (5, Same, "XRANGE stream low high |COUNT~count"),
    (5, Same, "XREVRANGE stream high low |COUNT~count"),
    (5, Same, "XDEL stream entry+"),
    (4, Same, "XTRIM stream MAXLEN |=|about small |LIMIT~count"),
    (3, Same, "XTRIM stream MINID |=|about entry |LIMIT~count"),
    (
        2,
        Same,
        "XSETID stream entry |ENTRIESADDED~small |MAXDELETEDID~entry",
    ),
    (5, Unharmed, "XREAD |COUNT~count STREAMS stream after"),
    (
        3,
        Unharmed,
        "XREAD |COUNT~count |BLOCK~5 STREAMS stream stream after after",
    ),
    (
        8,
        Same,
        "XGROUP CREATE stream group entry|0|$|x |MKSTREAM |ENTRIESREAD~read",
    ),
    (2, Same, "XGROUP SETID stream group entry|0|$ |ENTRIESREAD~read"),
    (1, Same, "XGROUP DESTROY stream group"),
    (2, Random, "XGROUP CREATECONSUMER stream group consumer"),
    (1, Same, "XGROUP DELCONSUMER stream group consumer"),
    (
        12,
        Unharmed,
        "XREADGROUP GROUP group consumer |COUNT~count |NOACK STREAMS stream >",
    ),
    (
        5,
        Unharmed,
        "XREADGROUP GROUP group consumer |COUNT~count STREAMS stream after",
    ),
    (
        3,
        Unharmed,
        "XREADGROUP GROUP group consumer |BLOCK~5 STREAMS stream stream >|0 >",
    ),
    (6, Same, "XACK stream group entry+"),
    (4, Same, "XPENDING stream group"),
    (
        4,
        Milliseconds,
        "XPENDING stream group |IDLE~0|IDLE~100000000 low high count |consumer",
    ),
    (
        6,
        Same,
        "XCLAIM stream group consumer 0|0|100000000 entry+ |FORCE |JUSTID |RETRYCOUNT~small |LASTID~entry",
    ),
    (
        5,
        Same,
        "XAUTOCLAIM stream group consumer 0|0|100000000 low |COUNT~count |JUSTID",
    ),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (
        4,
        Same,
        "XADD stream *NOMKSTREAM|MAXLEN~small|MINID~=~entry|MAXLEN~about~small|LIMIT~count next|entry|x|0-0|1-2-3|-1 field+ |value",
    ),
    (
        3,
        Same,
        "XTRIM stream *MAXLEN~small|MINID~=~entry|MAXLEN~about~small|LIMIT~count|MINID",
    ),
    (
        3,
        Same,
        "XSETID stream entry|x|0-0 *ENTRIESADDED~small|MAXDELETEDID~entry|MAXDELETEDID",
    ),
    (
        3,
        Unharmed,
        "XREAD *COUNT~count|COUNT STREAMS stream stream |stream after after |after",
    ),
    (
        3,
        Unharmed,
        "XREADGROUP *GROUP~group~consumer|COUNT~count|NOACK STREAMS stream stream >|after >|after|$",
    ),
    (
        2,
        Unharmed,
        "XREADGROUP GROUP group consumer BLOCK 1|-1|x *COUNT~count|NOACK STREAMS stream after",
    ),
    (
        3,
        Same,
        "XGROUP CREATE stream group entry|0|$|- *MKSTREAM|ENTRIESREAD~read|ENTRIESREAD",
    ),
    (
        2,
        Same,
        "XGROUP SETID stream group entry|0|$|x *ENTRIESREAD~read|MKSTREAM",
    ),
    (
        4,
        Same,
        "XCLAIM stream group consumer 0|-1|x entry+ *FORCE|JUSTID|RETRYCOUNT~small|LASTID~entry|LASTID~x|IDLE~0|IDLE~x|TIME~x|RETRYCOUNT",
    ),
    (
        3,
        Same,
        "XAUTOCLAIM stream group consumer 0|-1|x low *COUNT~count|JUSTID|COUNT",
    ),
    (
        3,
        Milliseconds,
        "XPENDING stream group *IDLE~0|IDLE~x|IDLE low high count *consumer|consumer|IDLE",
    ),
    (3, Same, "XRANGE stream low high *COUNT~count|COUNT"),
    (
        1,
        Same,
        "XACK|XDEL|XLEN|XGROUP|XTRIM|XSETID|XRANGE stream word+ word+",
    ),
    (4, Told, "XINFO GROUPS|STREAM|groups|stream stream"),
    (1, Same, "XINFO GROUPS|STREAM|CONSUMERS key |word"),
    (1, Same, "XINFO CONSUMERS stream NOGROUP"),
    (
        1,
        Same,
        "XGROUP CREATE|SETID|DESTROY|DELCONSUMER|junk any word+ |word+",
    ),
];
