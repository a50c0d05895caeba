//! Templates of random commands for streams.
//!
//! No id comes from a clock, for the clocks of two servers differ. Since 7.2 a consumer is known as soon as it asks for
//! something, so what tells who is known is not compared.

use super::Reply::{Milliseconds, Random, Same, Unharmed};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (24, Same, "XADD stream next field+"),
    (6, Same, "XADD stream next name value number integer"),
    (
        6,
        Same,
        "XADD stream |NOMKSTREAM MAXLEN |=|~ small |LIMIT~count next field",
    ),
    (4, Same, "XADD stream MINID |=|~ entry |LIMIT~count next field"),
    (4, Same, "XADD stream entry field"),
    (3, Same, "XLEN stream"),
    (5, Same, "XRANGE stream low high |COUNT~count"),
    (5, Same, "XREVRANGE stream high low |COUNT~count"),
    (5, Same, "XDEL stream entry+"),
    (4, Same, "XTRIM stream MAXLEN |=|~ small |LIMIT~count"),
    (3, Same, "XTRIM stream MINID |=|~ entry |LIMIT~count"),
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
        "XGROUP CREATE stream group entry|0|$|x |MKSTREAM |ENTRIESREAD~small",
    ),
    (2, Same, "XGROUP SETID stream group entry|0|$ |ENTRIESREAD~small"),
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
];
