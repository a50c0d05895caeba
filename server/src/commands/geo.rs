//! Geographic indexes: sorted sets whose scores are points on the earth.
//!
//! `shardis_storage::algorithm::geohash` computes with points; searching is in [`search`]. Rows first, then the parts
//! that all commands of the family share, then handlers in the order of the rows.

pub(crate) mod search;

use std::io::Write as _;

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::algorithm::geohash::{DEGREES_TEXT_MAX, Point, degrees_text};
use shardis_storage::number::parse_f64;
use shardis_storage::value::sorted_set::SortedSet;

use super::sorted_sets::{AddRule, Scores, add_members, report_scores};
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context};
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "geoadd",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_write().update()],
        runs: Runs::OnKeys(geoadd),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: "O(log(N)) for each member given, N being the size of the index.",
            summary: "Gives members a place on the earth, adding those that are new.",
            history: &[("6.2.0", "Options `CH`, `NX` and `XX`.")],
            args: &[
                Arg::key("key", 0),
                Arg::one_of("condition", &[Arg::flag("nx", "NX"), Arg::flag("xx", "XX")])
                    .since("6.2.0")
                    .optional(),
                Arg::flag("change", "CH").since("6.2.0").optional(),
                Arg::block(
                    "data",
                    &[
                        Arg::double("longitude"),
                        Arg::double("latitude"),
                        Arg::string("member"),
                    ],
                )
                .multiple(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "geodist",
        arity: Arity::AtLeast(4),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(geodist),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: "O(1)",
            summary: "Returns how far two members are from each other.",
            args: &[
                Arg::key("key", 0),
                Arg::string("member1"),
                Arg::string("member2"),
                UNIT.optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "geohash",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(geohash),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: "O(N) for N members asked for.",
            summary: "Returns the places of members as standard geohash texts.",
            args: &[Arg::key("key", 0), MEMBERS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "geopos",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeys(geopos),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: "O(N) for N members asked for.",
            summary: "Returns longitude and latitude of members.",
            args: &[Arg::key("key", 0), MEMBERS],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Members that are asked for.
const MEMBERS: Arg = Arg::string("member").multiple();

/// A unit of length.
const UNIT: Arg = Arg::one_of(
    "unit",
    &[
        Arg::flag("m", "M"),
        Arg::flag("km", "KM"),
        Arg::flag("ft", "FT"),
        Arg::flag("mi", "MI"),
    ],
);

/// Length of a unit in metres.
fn metres_of_unit(word: &[u8]) -> Result<f64, ReplyError> {
    let known = [("M", 1.0), ("KM", 1000.0), ("FT", 0.3048), ("MI", 1609.34)];
    let found = known.into_iter().find(|(name, _)| is(word, name));
    found.map(|(_, metres)| metres).ok_or(ReplyError::Fixed(
        "ERR unsupported unit provided. please use M, KM, FT, MI",
    ))
}

/// Reads a point.
fn point(longitude: &[u8], latitude: &[u8]) -> Result<Point, ReplyError> {
    let degrees = |text| parse_f64(text).ok_or(ReplyError::NotFloat);
    let (longitude, latitude) = (degrees(longitude)?, degrees(latitude)?);
    Point::new(longitude, latitude).ok_or_else(|| {
        ReplyError::Text(format!(
            "ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"
        ))
    })
}

/// The point of a member.
fn place(set: Option<&SortedSet>, member: &[u8]) -> Option<Point> {
    set?.score(member).map(Point::of_score)
}

/// Replies with a point as a pair of numbers in full.
fn reply_point(reply: &mut Encoder<'_>, point: Point) {
    reply.array(2);
    for degrees in [point.longitude, point.latitude] {
        let mut text = [0; DEGREES_TEXT_MAX];
        reply.double(degrees_text(degrees, &mut text).as_bytes());
    }
}

/// Bytes reserved for a distance: half the equator in feet has eight digits before the point.
const DISTANCE_TEXT_MAX: usize = 24;

/// Replies with a distance in four decimals: a bulk string in both protocols.
fn reply_distance(reply: &mut Encoder<'_>, distance: f64) {
    let mut text = [0; DISTANCE_TEXT_MAX];
    let mut rest = &mut text[..];
    // No distance on earth exceeds the reserved bytes.
    let _ = write!(rest, "{distance:.4}");
    let len = DISTANCE_TEXT_MAX - rest.len();
    reply.bulk(&text[..len]);
}

/// Reads the options of GEOADD; returns them with the position of the first longitude.
fn add_rule(args: Arguments<'_>) -> Result<(AddRule, usize), ReplyError> {
    let mut rule = AddRule::default();
    let mut first = 2;
    while let Some(word) = args.get(first) {
        let option = match word {
            word if is(word, "NX") => &mut rule.only_new,
            word if is(word, "XX") => &mut rule.only_known,
            word if is(word, "CH") => &mut rule.count_changed,
            _ => break,
        };
        *option = true;
        first += 1;
    }
    let words = args.len() - first;
    if words == 0 || !words.is_multiple_of(3) || (rule.only_new && rule.only_known) {
        return Err(ReplyError::Syntax);
    }
    Ok((rule, first))
}

fn geoadd(ctx: &mut Context<'_>) -> CommandResult {
    let args = ctx.args;
    let (rule, first) = add_rule(args)?;
    let scores: Scores = (first..args.len())
        .step_by(3)
        .map(|at| point(args.at(at), args.at(at + 1)).map(|point| point.score() as f64))
        .collect::<Result<_, _>>()?;
    let member = |n| args.at(first + 3 * n + 2);
    let repeated = ctx.effects.is_recording().then(|| scores.clone());
    add_members(ctx, rule, scores, member)?;
    // Replicas only need the sorted set.
    if let Some(scores) = repeated {
        report_scores(ctx, (b"ZADD".as_slice(), first), &scores, member);
    }
    Ok(())
}

fn geodist(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let unit = match args.len() {
        4 => 1.0,
        5 => metres_of_unit(args.at(4))?,
        _ => return Err(ReplyError::Syntax),
    };
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    match (place(set, args.at(2)), place(set, args.at(3))) {
        (Some(one), Some(other)) => reply_distance(&mut ctx.reply, one.distance(other) / unit),
        _ => ctx.reply.null(),
    }
    Ok(())
}

fn geohash(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    ctx.reply.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match place(set, member) {
            Some(point) => ctx.reply.bulk(&point.text()),
            None => ctx.reply.null(),
        }
    }
    Ok(())
}

fn geopos(ctx: &mut Context<'_>) -> CommandResult {
    let (key, args) = (ctx.key(1), ctx.args);
    let set = ctx.keyspace.read_as::<SortedSet>(&key)?;
    ctx.reply.array(args.len() - 2);
    for member in args.iter().skip(2) {
        match place(set, member) {
            Some(point) => reply_point(&mut ctx.reply, point),
            None => ctx.reply.null_array(),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Shell;

    const SYNTAX: &str = "-ERR syntax error";

    #[test]
    fn points_are_added_as_scores() {
        let mut shell = Shell::new();
        shell.check_effects(&[
            (
                "GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania",
                ":2",
                &["ZADD s 3479099956230698 Palermo 3479447370796909 Catania"],
            ),
            ("GEOADD s 13.361389 38.115556 Palermo", ":0", &[]),
            ("GEOADD s nx 1 1 Palermo", ":0", &[]),
            (
                "GEOADD s xx ch 13 38 Palermo 1 1 other",
                ":1",
                &["ZADD s xx ch 3479065152021743 Palermo 3377822707026402 other"],
            ),
            ("ZCARD s", ":2", &[]),
            ("GEOADD s NX XX 1 1 a", SYNTAX, &[]),
            ("GEOADD s NX NX NX", SYNTAX, &[]),
            ("GEOADD s 1 1 a 1", SYNTAX, &[]),
            ("GEOADD s x 1 a", "-ERR value is not a valid float", &[]),
            (
                "GEOADD s 1 1 new 181 0 a",
                "-ERR invalid longitude,latitude pair 181.000000,0.000000",
                &[],
            ),
            ("ZSCORE s new", "nil", &[]),
        ]);
    }

    #[test]
    fn members_are_shown_in_three_ways() {
        let mut shell = Shell::new();
        shell.run("GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania");
        shell.check(&[
            ("GEODIST s Palermo Catania", "\"166274.1516\""),
            ("GEODIST s Palermo Catania mi", "\"103.3182\""),
            ("GEODIST s Palermo none", "nil"),
            ("GEODIST none a b", "nil"),
            (
                "GEODIST s a b yd",
                "-ERR unsupported unit provided. please use M, KM, FT, MI",
            ),
            ("GEODIST s a b m m", SYNTAX),
            ("GEOHASH s Palermo none", "[\"sqc8b49rny0\", nil]"),
            (
                "GEOPOS s Palermo none",
                "[[\"13.36138933897018433\", \"38.11555639549629859\"], nil*]",
            ),
            ("GEOPOS none a", "[nil*]"),
            ("GEOPOS s", "[]"),
        ]);
        shell
            .resp3()
            .check(&[("GEOPOS s Palermo", "[[,13.361389338970184, ,38.1155563954963]]")]);
    }
}
