//! Templates of random commands for geographic indexes.

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
        "GEOSEARCH geo FROMLONLAT longitude latitude BYRADIUS distance unit |ASC|DESC |COUNT~small |WITHCOORD |WITHDIST |WITHHASH",
    ),
    (
        6,
        Same,
        "GEOSEARCH geo FROMLONLAT longitude latitude BYBOX distance distance unit |ASC|DESC |COUNT~small |WITHDIST",
    ),
    (
        4,
        Same,
        "GEOSEARCH geo FROMMEMBER member BYRADIUS distance unit |COUNT~small~ANY |WITHCOORD",
    ),
    (
        4,
        Scores,
        "GEOSEARCHSTORE geo geo FROMLONLAT longitude latitude BYRADIUS distance unit |STOREDIST |COUNT~small",
    ),
    (
        3,
        Same,
        "GEORADIUS|GEORADIUS_RO geo longitude latitude distance unit |WITHDIST |ASC",
    ),
    (
        2,
        Scores,
        "GEORADIUS geo longitude latitude distance unit STORE|STOREDIST geo",
    ),
    (
        3,
        Same,
        "GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO geo member distance unit |WITHDIST |COUNT~small",
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
        "GEOSEARCH geo *FROMMEMBER~member|FROMLONLAT~longitude~latitude|BYRADIUS~distance~unit|BYBOX~distance~distance~unit|ASC|DESC|COUNT~small|WITHDIST|WITHCOORD *FROMMEMBER~member|BYRADIUS~distance~unit|ASC|ANY|STOREDIST|STORE",
    ),
    (
        5,
        Same,
        "GEOSEARCH geo FROMMEMBER~member|FROMLONLAT~longitude~latitude BYRADIUS~distance~unit|BYBOX~distance~distance~unit *ASC|DESC|COUNT~small|COUNT~small~ANY|WITHDIST|WITHCOORD|WITHHASH|ANY",
    ),
    (
        4,
        Scores,
        "GEOSEARCHSTORE geo geo FROMMEMBER~member|FROMLONLAT~longitude~latitude BYRADIUS~distance~unit|BYBOX~distance~distance~unit *ASC|DESC|COUNT~small|COUNT~small~ANY|STOREDIST|WITHDIST",
    ),
    (
        4,
        Scores,
        "GEORADIUS|GEORADIUS_RO geo longitude latitude distance unit *ASC|DESC|COUNT~small|COUNT~small~ANY|WITHDIST|WITHCOORD|WITHHASH|STORE~geo|STOREDIST~geo|ANY",
    ),
    (
        3,
        Scores,
        "GEORADIUSBYMEMBER|GEORADIUSBYMEMBER_RO geo member distance unit *ASC|DESC|COUNT~small|WITHDIST|WITHHASH|STORE~geo|STOREDIST~geo",
    ),
    (2, Same, "GEOPOS|GEOHASH|GEODIST geo |member+ |member |word"),
];
