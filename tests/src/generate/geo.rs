//! Templates of random commands for geographic indexes.
//!
//! Of members that are equally far away Redis returns some or others, in any order. So searches look only where hardly any
//! are: at keys that no other family of commands knows and where no distances are stored.

use super::Reply::{Same, Scores};
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (10, Scores, "GEOADD geo longitude latitude member"),
    (
        6,
        Scores,
        "GEOADD geo |NX|XX |CH| longitude latitude member longitude latitude member",
    ),
    (3, Same, "GEODIST geo member member |unit"),
    (2, Same, "GEOHASH geo member+"),
    (3, Same, "GEOPOS geo member+"),
    (
        8,
        Same,
        "GEOSEARCH spot FROMLONLAT longitude latitude BYRADIUS distance unit |ASC|DESC |COUNT~small |WITHCOORD |WITHDIST |WITHHASH",
    ),
    (
        6,
        Same,
        "GEOSEARCH spot FROMLONLAT longitude latitude BYBOX distance distance unit |ASC|DESC |COUNT~small |WITHDIST",
    ),
    (
        4,
        Same,
        "GEOSEARCH spot FROMMEMBER member BYRADIUS distance unit |COUNT~small~ANY |WITHCOORD",
    ),
    (
        4,
        Scores,
        "GEOSEARCHSTORE zset spot FROMLONLAT longitude latitude BYRADIUS distance unit |STOREDIST |COUNT~small",
    ),
    (
        3,
        Same,
        "GEORADIUS|GEORADIUS_RO spot longitude latitude distance unit |WITHDIST |ASC",
    ),
    (
        2,
        Scores,
        "GEORADIUS spot longitude latitude distance unit STORE|STOREDIST zset",
    ),
    (
        3,
        Same,
        "GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO spot member distance unit |WITHDIST |COUNT~small",
    ),
    (2, Scores, "ZRANGE geo 0 -1 WITHSCORES"),
    (1, Scores, "ZADD geo score member"),
    (1, Scores, "ZREM geo member"),
    (1, Scores, "DEL geo"),
    // Options in any order, again and again, and numbers at the ends of their ranges.
    (
        4,
        Scores,
        "GEOADD geo *NX|XX|CH longitude latitude member |longitude",
    ),
    (
        6,
        Same,
        "GEOSEARCH spot *FROMMEMBER~member|FROMLONLAT~longitude~latitude|BYRADIUS~distance~unit|BYBOX~distance~distance~unit|ASC|DESC|COUNT~small|WITHDIST|WITHCOORD *FROMMEMBER~member|BYRADIUS~distance~unit|ASC|ANY|STOREDIST|STORE",
    ),
    (
        5,
        Same,
        "GEOSEARCH spot FROMMEMBER~member|FROMLONLAT~longitude~latitude BYRADIUS~distance~unit|BYBOX~distance~distance~unit *ASC|DESC|COUNT~small|COUNT~small~ANY|WITHDIST|WITHCOORD|WITHHASH|ANY",
    ),
    (
        4,
        Scores,
        "GEOSEARCHSTORE zset spot FROMMEMBER~member|FROMLONLAT~longitude~latitude BYRADIUS~distance~unit|BYBOX~distance~distance~unit *ASC|DESC|COUNT~small|COUNT~small~ANY|STOREDIST|WITHDIST",
    ),
    (
        4,
        Scores,
        "GEORADIUS|GEORADIUS_RO spot longitude latitude distance unit *ASC|DESC|COUNT~small|COUNT~small~ANY|WITHDIST|WITHCOORD|WITHHASH|STORE~geo|STOREDIST~zset|ANY",
    ),
    (
        3,
        Scores,
        "GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO spot member distance unit *ASC|DESC|COUNT~small|WITHDIST|WITHHASH|STORE~geo|STOREDIST~zset",
    ),
    (2, Same, "GEOPOS|GEOHASH|GEODIST geo |member+ |member |word"),
];
