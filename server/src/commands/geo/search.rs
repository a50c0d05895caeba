//! Searches in geographic indexes: GEOSEARCH and the older GEORADIUS commands.
//!
//! All of these commands are one search; they differ in how they name the area and the options, see [`Form`]. Only
//! the ranges of scores that cover the area are read. Rows first, then the meaning of arguments, then handlers.

use shardis_protocol::{Arguments, Encoder};
use shardis_storage::algorithm::geohash::{Area, Point, Polygon};
use shardis_storage::value::sorted_set::{Order, ScoreBound, SortedSet, SortedSetBuilder};
use shardis_storage::value::{INT_TEXT_MAX, StringRef};

use super::super::sorted_sets::limits;
use super::super::strings::bulk;
use super::{UNIT, metres_of_unit, place, point, reply_distance, reply_point};
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::{int, is};
use crate::exec::{CommandResult, Context, Options};
use crate::spec::argument::Deprecated;
use crate::spec::{Arg, Arity, Category, Command, Doc, Flags, Group, KeySpec, Runs};

/// The commands of this file.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "geosearch",
        arity: Arity::AtLeast(7),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(geosearch),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Returns the members within a circle, a box or a polygon.",
            history: &[
                ("7.0.0", "Unit names in capitals."),
                ("9.0.0", "Option `BYPOLYGON`, as in Valkey."),
            ],
            args: &[
                Arg::key("key", 0),
                FROM,
                BY,
                ORDER,
                COUNT,
                WITHCOORD,
                WITHDIST,
                WITHHASH,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "geosearchstore",
        arity: Arity::AtLeast(8),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::GEO,
        keys: &[
            KeySpec::at(1).overwrite().update(),
            KeySpec::at(2).read_only().access(),
        ],
        runs: Runs::OnKeysLong(geosearchstore),
        doc: &Doc {
            since: "6.2.0",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Stores the members within a circle, a box or a polygon under another key.",
            history: &[
                ("7.0.0", "Unit names in capitals."),
                ("9.0.0", "Option `BYPOLYGON`, as in Valkey."),
            ],
            args: &[
                Arg::key("destination", 0),
                Arg::key("source", 1),
                FROM,
                BY,
                ORDER,
                COUNT,
                Arg::flag("storedist", "STOREDIST").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "georadius",
        arity: Arity::AtLeast(6),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::GEO,
        keys: &[
            KeySpec::at(1).read_only().access(),
            KeySpec::after("STORE", 6)
                .overwrite()
                .update()
                .located(|args| stored_at(args, 6, "STORE")),
            KeySpec::after("STOREDIST", 6)
                .overwrite()
                .update()
                .located(|args| stored_at(args, 6, "STOREDIST")),
        ],
        runs: Runs::OnKeysLong(georadius),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Returns or stores the members within a distance of a point.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` argument",
            }),
            history: &[
                ("6.2.0", "Option `ANY` of `COUNT`."),
                ("7.0.0", "Unit names in capitals."),
            ],
            args: &[
                Arg::key("key", 0),
                Arg::double("longitude"),
                Arg::double("latitude"),
                Arg::double("radius"),
                UNIT,
                WITHCOORD,
                WITHDIST,
                WITHHASH,
                COUNT_SINCE,
                ORDER,
                STORE,
                STOREDIST,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "georadius_ro",
        arity: Arity::AtLeast(6),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(georadius_ro),
        doc: &Doc {
            since: "3.2.10",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Returns the members within a distance of a point.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`GEOSEARCH` with the `BYRADIUS` argument",
            }),
            history: &[("6.2.0", "Option `ANY` of `COUNT`.")],
            args: &[
                Arg::key("key", 0),
                Arg::double("longitude"),
                Arg::double("latitude"),
                Arg::double("radius"),
                UNIT,
                WITHCOORD,
                WITHDIST,
                WITHHASH,
                COUNT_SINCE,
                ORDER,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "georadiusbymember",
        arity: Arity::AtLeast(5),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: Category::GEO,
        keys: &[
            KeySpec::at(1).read_only().access(),
            KeySpec::after("STORE", 5)
                .overwrite()
                .update()
                .located(|args| stored_at(args, 5, "STORE")),
            KeySpec::after("STOREDIST", 5)
                .overwrite()
                .update()
                .located(|args| stored_at(args, 5, "STOREDIST")),
        ],
        runs: Runs::OnKeysLong(georadiusbymember),
        doc: &Doc {
            since: "3.2.0",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Returns or stores the members within a distance of a member.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`GEOSEARCH` and `GEOSEARCHSTORE` with the `BYRADIUS` and `FROMMEMBER` arguments",
            }),
            history: &[("7.0.0", "Unit names in capitals.")],
            args: &[
                Arg::key("key", 0),
                Arg::string("member"),
                Arg::double("radius"),
                UNIT,
                WITHCOORD,
                WITHDIST,
                WITHHASH,
                COUNT,
                ORDER,
                STORE,
                STOREDIST,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "georadiusbymember_ro",
        arity: Arity::AtLeast(5),
        flags: Flags::READONLY,
        acl: Category::GEO,
        keys: &[KeySpec::at(1).read_only().access()],
        runs: Runs::OnKeysLong(georadiusbymember_ro),
        doc: &Doc {
            since: "3.2.10",
            group: Group::Geo,
            complexity: SEARCH_COMPLEXITY,
            summary: "Returns the members within a distance of a member.",
            deprecated: Some(Deprecated {
                since: "6.2.0",
                replaced_by: "`GEOSEARCH` with the `BYRADIUS` and `FROMMEMBER` arguments",
            }),
            args: &[
                Arg::key("key", 0),
                Arg::string("member"),
                Arg::double("radius"),
                UNIT,
                WITHCOORD,
                WITHDIST,
                WITHHASH,
                COUNT,
                ORDER,
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

const SEARCH_COMPLEXITY: &str =
    "O(N+log(M)) for N members in the cells of the map that cover the area, of M in all.";

const LONGITUDE_LATITUDE: &[Arg] = &[Arg::double("longitude"), Arg::double("latitude")];

const FROM: Arg = Arg::one_of(
    "from",
    &[
        Arg::string("member").token("FROMMEMBER"),
        Arg::block("fromlonlat", LONGITUDE_LATITUDE).token("FROMLONLAT"),
    ],
);

const BY: Arg = Arg::one_of(
    "by",
    &[
        Arg::block("circle", &[Arg::double("radius").token("BYRADIUS"), UNIT]),
        Arg::block(
            "box",
            &[Arg::double("width").token("BYBOX"), Arg::double("height"), UNIT],
        ),
        Arg::block(
            "polygon",
            &[
                Arg::integer("num-vertices").token("BYPOLYGON"),
                Arg::block("vertices", LONGITUDE_LATITUDE).multiple(),
            ],
        )
        .since("9.0.0"),
    ],
);

const ORDER: Arg = Arg::one_of("order", &[Arg::flag("asc", "ASC"), Arg::flag("desc", "DESC")]).optional();

const COUNT: Arg = Arg::block(
    "count-block",
    &[
        Arg::integer("count").token("COUNT"),
        Arg::flag("any", "ANY").optional(),
    ],
)
.optional();

const COUNT_SINCE: Arg = Arg::block(
    "count-block",
    &[
        Arg::integer("count").token("COUNT"),
        Arg::flag("any", "ANY").since("6.2.0").optional(),
    ],
)
.optional();

const WITHCOORD: Arg = Arg::flag("withcoord", "WITHCOORD").optional();
const WITHDIST: Arg = Arg::flag("withdist", "WITHDIST").optional();
const WITHHASH: Arg = Arg::flag("withhash", "WITHHASH").optional();
const STORE: Arg = Arg::key("storekey", 1).token("STORE").display("key").optional();
const STOREDIST: Arg = Arg::key("storedistkey", 2)
    .token("STOREDIST")
    .display("key")
    .optional();

/// Form of a search command: the way it names its area, and the options it takes for its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// GEOSEARCH: everything is an option.
    Search,
    /// GEOSEARCHSTORE: likewise, with the destination first.
    SearchStore,
    /// GEORADIUS: a circle around the point that comes first.
    Radius { may_store: bool },
    /// GEORADIUSBYMEMBER: a circle around the member that comes first.
    ByMember { may_store: bool },
}

impl Form {
    /// Index of the argument that is the key to search.
    const fn source(self) -> usize {
        match self {
            Self::SearchStore => 2,
            _ => 1,
        }
    }

    /// Index of the first option.
    const fn options(self) -> usize {
        match self {
            Self::Search => 2,
            Self::SearchStore => 3,
            Self::ByMember { .. } => 5,
            Self::Radius { .. } => 6,
        }
    }

    /// Whether the area is given by options.
    const fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }

    /// Whether the options STORE and STOREDIST exist, which name a key.
    const fn may_store(self) -> bool {
        matches!(
            self,
            Self::Radius { may_store: true } | Self::ByMember { may_store: true }
        )
    }
}

/// Argument after this word, which names the key to store under. As in the handler, the last such word counts; the
/// word may also be a name or number that belongs to another option.
fn stored_at(args: Arguments<'_>, first: usize, word: &str) -> Option<usize> {
    let mut options = Options::new(args, first);
    let mut found = None;
    while let Some(option) = options.word() {
        let position = options.position();
        if ["STORE", "STOREDIST", "COUNT"]
            .iter()
            .any(|name| is(option, name))
            && options.word().is_some()
            && is(option, word)
        {
            found = Some(position);
        }
    }
    found
}

/// Shape of an area, in metres, without its position.
#[derive(Clone, Debug)]
enum Shape {
    Circle { radius: f64 },
    Rectangle { width: f64, height: f64 },
    Polygon(Polygon),
}

/// Destination of a search that stores its results.
#[derive(Clone, Copy, Debug)]
struct Store {
    /// Index of the argument that is the key to store under.
    destination: usize,
    /// The scores are distances; geohashes otherwise.
    distances: bool,
}

/// A search.
#[derive(Debug)]
struct Query {
    form: Form,
    /// Centre of a circle or rectangle; a member's point is known only if the key exists.
    center: Option<Point>,
    from_member: bool,
    from_point: bool,
    shape: Option<Shape>,
    /// Length of the unit of distances, metres.
    unit: f64,
    with_distance: bool,
    with_hash: bool,
    with_point: bool,
    order: Option<Order>,
    count: Option<usize>,
    any: bool,
    store: Option<Store>,
}

impl Query {
    /// Reads a request; `set` is the sorted set to search.
    fn parse(args: Arguments<'_>, form: Form, set: Option<&SortedSet>) -> Result<Self, ReplyError> {
        let mut query = Self {
            form,
            center: None,
            from_member: false,
            from_point: false,
            shape: None,
            unit: 1.0,
            with_distance: false,
            with_hash: false,
            with_point: false,
            order: None,
            count: None,
            any: false,
            store: (form == Form::SearchStore).then_some(Store {
                destination: 1,
                distances: false,
            }),
        };
        match form {
            Form::Radius { .. } => {
                query.center = Some(point(args.at(2), args.at(3))?);
                query.circle(args.at(4), args.at(5))?;
            }
            // Without a set there is no such member, and Redis does not even read the distance.
            Form::ByMember { .. } if set.is_some() => {
                query.center_on_member(set, args.at(2))?;
                query.circle(args.at(3), args.at(4))?;
            }
            _ => {}
        }
        let mut options = Options::new(args, form.options());
        while let Some(word) = options.word() {
            let known = query.output_option(word, &mut options)?
                || (form.is_search() && query.area_option(word, &mut options, set)?);
            if !known {
                return Err(ReplyError::Syntax);
            }
        }
        query.check(args)?;
        Ok(query)
    }

    /// Reads an option about the results; false if the word is none.
    fn output_option(&mut self, word: &[u8], options: &mut Options<'_>) -> Result<bool, ReplyError> {
        match word {
            word if is(word, "WITHDIST") => self.with_distance = true,
            word if is(word, "WITHHASH") => self.with_hash = true,
            word if is(word, "WITHCOORD") => self.with_point = true,
            word if is(word, "ANY") => self.any = true,
            word if is(word, "ASC") => self.order = Some(Order::Ascending),
            word if is(word, "DESC") => self.order = Some(Order::Descending),
            word if is(word, "COUNT") => {
                let count = options.int()?;
                if count <= 0 {
                    return Err(ReplyError::Fixed("ERR COUNT must be > 0"));
                }
                self.count = Some(usize::try_from(count).unwrap_or(usize::MAX));
            }
            word if self.form.may_store() && (is(word, "STORE") || is(word, "STOREDIST")) => {
                self.store = Some(Store {
                    destination: options.position(),
                    distances: is(word, "STOREDIST"),
                });
                options.value()?;
            }
            word if self.form == Form::SearchStore && is(word, "STOREDIST") => {
                self.store = self.store.map(|store| Store {
                    distances: true,
                    ..store
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads an option about the area; false if the word is none, or contradicts an earlier one.
    fn area_option(
        &mut self,
        word: &[u8],
        options: &mut Options<'_>,
        set: Option<&SortedSet>,
    ) -> Result<bool, ReplyError> {
        let is_polygon = matches!(self.shape, Some(Shape::Polygon(_)));
        match word {
            word if is(word, "FROMMEMBER") && !self.from_point && !is_polygon => {
                let member = options.value()?;
                if set.is_some() {
                    self.center_on_member(set, member)?;
                }
                self.from_member = true;
            }
            word if is(word, "FROMLONLAT") && !self.from_member && !is_polygon => {
                let (longitude, latitude) = (options.value()?, options.value()?);
                self.center = Some(point(longitude, latitude)?);
                self.from_point = true;
            }
            word if is(word, "BYRADIUS") && matches!(self.shape, None | Some(Shape::Circle { .. })) => {
                let (radius, unit) = (options.value()?, options.value()?);
                self.circle(radius, unit)?;
            }
            word if is(word, "BYBOX") && matches!(self.shape, None | Some(Shape::Rectangle { .. })) => {
                let words = [options.value()?, options.value()?, options.value()?];
                self.rectangle(words)?;
            }
            word if is(word, "BYPOLYGON")
                && (is_polygon || self.shape.is_none())
                && !self.from_member
                && !self.from_point =>
            {
                self.shape = Some(Shape::Polygon(polygon(options)?));
                self.unit = 1.0;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn center_on_member(&mut self, set: Option<&SortedSet>, member: &[u8]) -> CommandResult {
        let found =
            place(set, member).ok_or(ReplyError::Fixed("ERR could not decode requested zset member"))?;
        self.center = Some(found);
        Ok(())
    }

    fn circle(&mut self, radius: &[u8], unit: &[u8]) -> CommandResult {
        let radius = length(radius, "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(ReplyError::Fixed("ERR radius cannot be negative"));
        }
        self.unit = metres_of_unit(unit)?;
        self.shape = Some(Shape::Circle {
            radius: radius * self.unit,
        });
        Ok(())
    }

    fn rectangle(&mut self, [width, height, unit]: [&[u8]; 3]) -> CommandResult {
        let width = length(width, "ERR need numeric width")?;
        let height = length(height, "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(ReplyError::Fixed("ERR height or width cannot be negative"));
        }
        self.unit = metres_of_unit(unit)?;
        self.shape = Some(Shape::Rectangle {
            width: width * self.unit,
            height: height * self.unit,
        });
        Ok(())
    }

    /// Checks that no option is missing and that none contradict each other.
    fn check(&self, args: Arguments<'_>) -> CommandResult {
        if self.store.is_some() && (self.with_distance || self.with_hash || self.with_point) {
            return Err(ReplyError::Fixed(if self.form == Form::SearchStore {
                "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            } else {
                "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            }));
        }
        let is_polygon = matches!(self.shape, Some(Shape::Polygon(_)));
        let missing = if !self.form.is_search() || is_polygon {
            None
        } else if !self.from_member && !self.from_point {
            Some("FROMMEMBER or FROMLONLAT")
        } else if self.shape.is_none() {
            Some("BYRADIUS and BYBOX")
        } else {
            None
        };
        if let Some(missing) = missing {
            let text = format!("ERR exactly one of {missing} can be specified for ");
            return Err(ReplyError::Bytes([text.as_bytes(), args.at(0)].concat()));
        }
        if self.any && self.count.is_none() {
            return Err(ReplyError::Fixed("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// Replies with the members, and for each with the details that were asked for.
    fn reply(&self, reply: &mut Encoder<'_>, found: &[Found<'_>]) {
        let details = [self.with_distance, self.with_hash, self.with_point];
        let details = details.into_iter().filter(|&wanted| wanted).count();
        reply.array(found.len());
        for found in found {
            if details > 0 {
                reply.array(1 + details);
            }
            bulk(reply, found.member);
            if self.with_distance {
                reply_distance(reply, found.distance / self.unit);
            }
            if self.with_hash {
                reply.integer(found.score as i64);
            }
            if self.with_point {
                reply_point(reply, Point::of_score(found.score));
            }
        }
    }

    /// The area, if its shape and its position are known.
    fn area(&self) -> Option<Area> {
        Some(match self.shape.clone()? {
            Shape::Circle { radius } => Area::Circle {
                center: self.center?,
                radius,
            },
            Shape::Rectangle { width, height } => Area::Rectangle {
                center: self.center?,
                width,
                height,
            },
            Shape::Polygon(polygon) => Area::Polygon(polygon),
        })
    }

    /// The members in the area, ordered and limited as requested.
    fn run<'s>(&self, set: &'s SortedSet) -> Vec<Found<'s>> {
        let Some(area) = self.area() else {
            return Vec::new();
        };
        let enough = match self.count {
            Some(count) if self.any => count,
            _ => usize::MAX,
        };
        let mut found = find(set, &area, enough);
        // A limit without an order implies ascending order, unless ANY was given.
        let order = match self.order {
            None if self.count.is_some() && !self.any => Some(Order::Ascending),
            order => order,
        };
        if let Some(order) = order {
            sort(&mut found, order, self.count);
        }
        found.truncate(self.count.unwrap_or(usize::MAX));
        found
    }
}

/// Reads a length, in any unit.
fn length(text: &[u8], otherwise: &'static str) -> Result<f64, ReplyError> {
    shardis_storage::number::parse_f64(text).ok_or(ReplyError::Fixed(otherwise))
}

/// Reads the vertices of a polygon, whose number comes first.
fn polygon(options: &mut Options<'_>) -> Result<Polygon, ReplyError> {
    const TOO_FEW: ReplyError = ReplyError::Fixed("ERR GEOSEARCH BYPOLYGON must have at least 3 vertices");
    let count = int(options.value()?)?;
    if count < 3 {
        return Err(TOO_FEW);
    }
    let mut vertices = Vec::new();
    for _ in 0..count {
        let (longitude, latitude) = (options.value()?, options.value()?);
        vertices.push(point(longitude, latitude)?);
    }
    Polygon::new(vertices).ok_or(TOO_FEW)
}

/// A member found in the area.
#[derive(Clone, Copy, Debug)]
struct Found<'s> {
    member: StringRef<'s>,
    score: f64,
    /// Distance from the centre of the area, metres.
    distance: f64,
}

/// The members of a set in an area; stops when `enough` are found.
fn find<'s>(set: &'s SortedSet, area: &Area, enough: usize) -> Vec<Found<'s>> {
    let mut found = Vec::new();
    for scores in area.ranges() {
        let bound = |score, exclusive| ScoreBound { score, exclusive };
        let ranks = set.ranks_by_score(bound(scores.start, false), bound(scores.end, true));
        let inside = set.range(ranks, Order::Ascending).filter_map(|(member, score)| {
            let distance = area.find(Point::of_score(score))?;
            Some(Found {
                member,
                score,
                distance,
            })
        });
        found.extend(inside.take(enough - found.len()));
    }
    found
}

/// Sorts the nearest members, or the farthest, to the front: at least `count` of them. Equally distant ones keep
/// their order.
fn sort(found: &mut Vec<Found<'_>>, order: Order, count: Option<usize>) {
    let compare = |one: &Found<'_>, other: &Found<'_>| match order {
        Order::Ascending => one.distance.total_cmp(&other.distance),
        Order::Descending => other.distance.total_cmp(&one.distance),
    };
    match count {
        Some(count) if count < found.len() => {
            let mut numbered: Vec<_> = found.iter().copied().enumerate().collect();
            numbered.select_nth_unstable_by(count, |one, other| {
                compare(&one.1, &other.1).then(one.0.cmp(&other.0))
            });
            numbered.truncate(count);
            numbered.sort_unstable_by(|one, other| compare(&one.1, &other.1).then(one.0.cmp(&other.0)));
            found.clear();
            found.extend(numbered.into_iter().map(|(_, found)| found));
        }
        _ => found.sort_by(compare),
    }
}

fn geosearch(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::Search)
}

fn geosearchstore(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::SearchStore)
}

fn georadius(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::Radius { may_store: true })
}

fn georadius_ro(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::Radius { may_store: false })
}

fn georadiusbymember(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::ByMember { may_store: true })
}

fn georadiusbymember_ro(ctx: &mut Context<'_>) -> CommandResult {
    search(ctx, Form::ByMember { may_store: false })
}

fn search(ctx: &mut Context<'_>, form: Form) -> CommandResult {
    let (source, limits) = (ctx.key(form.source()), limits(ctx));
    let set = ctx.keyspace.read_as::<SortedSet>(&source)?;
    let query = Query::parse(ctx.args, form, set)?;
    let found = set.map(|set| query.run(set)).unwrap_or_default();
    let Some(to) = query.store else {
        query.reply(&mut ctx.reply, &found);
        return Ok(());
    };
    let mut scratch = [0; INT_TEXT_MAX];
    let mut result = SortedSetBuilder::new(limits.hasher);
    for found in &found {
        let score = if to.distances {
            found.distance / query.unit
        } else {
            found.score
        };
        result.merge(found.member.as_bytes(&mut scratch), |_| score);
    }
    store(ctx, form, to, result.finish(&limits));
    Ok(())
}

/// Stores the members found, and replies with their number.
fn store(ctx: &mut Context<'_>, form: Form, to: Store, result: SortedSet) {
    let (key, len) = (ctx.key(to.destination), result.len());
    let event = if form == Form::SearchStore {
        "geosearchstore"
    } else {
        "georadiusstore"
    };
    ctx.effects.changed(len.saturating_sub(1) as u64);
    ctx.store(&key, result, len, (KeyspaceEvents::SORTED_SET, event));
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::Shell;

    const SYNTAX: &str = "-ERR syntax error";

    fn sicily(shards: usize) -> Shell {
        let mut shell = Shell::over(shards);
        shell.run(
            "GEOADD s 13.361389 38.115556 Palermo 15.087269 37.502669 Catania 12.758489 38.788135 west \
             17.241510 38.788135 east",
        );
        shell
    }

    #[test]
    fn circles_and_boxes_are_searched() {
        sicily(1).check(&[
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km ASC", "[\"Catania\", \"Palermo\"]"),
            (
                "GEOSEARCH s FROMLONLAT 15 37 BYBOX 400 400 km DESC",
                "[\"west\", \"east\", \"Palermo\", \"Catania\"]",
            ),
            ("GEOSEARCH s BYRADIUS 1 m FROMMEMBER Catania", "[\"Catania\"]"),
            ("GEOSEARCH s FROMMEMBER Palermo BYRADIUS 900 km COUNT 1 DESC", "[\"east\"]"),
            ("GEOSEARCH s FROMMEMBER Palermo BYRADIUS 900 km COUNT 2", "[\"Palermo\", \"west\"]"),
            ("GEORADIUS s 15 37 200 km ASC", "[\"Catania\", \"Palermo\"]"),
            ("GEORADIUS_RO s 15 37 200 km COUNT 1", "[\"Catania\"]"),
            ("GEORADIUSBYMEMBER s Catania 1 m", "[\"Catania\"]"),
            ("GEORADIUSBYMEMBER_RO s Catania 1 m", "[\"Catania\"]"),
            ("GEOSEARCH none FROMMEMBER x BYRADIUS 1 m", "[]"),
            (
                "GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km COUNT 1 WITHCOORD WITHDIST WITHHASH",
                "[[\"Catania\", \"56.4413\", :3479447370796909, [\"15.08726745843887329\", \"37.50266842333162032\"]]]",
            ),
        ]);
    }

    #[test]
    fn polygons_are_searched() {
        sicily(1).check(&[
            (
                "GEOSEARCH s BYPOLYGON 4 13 37 16 37 16 38.5 13 38.5 ASC WITHDIST",
                "[[\"Catania\", \"59093.9386\"], [\"Palermo\", \"107444.8646\"]]",
            ),
            (
                "GEOSEARCH s BYPOLYGON 2 13 37 16 37 16 38.5 13 38.5",
                "-ERR GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ),
            ("GEOSEARCH s BYPOLYGON 5 13 37 16 37 16 38.5 13 38.5", SYNTAX),
            (
                "GEOSEARCH s BYPOLYGON 3 13 37 16 37 16 38.5 FROMMEMBER Palermo",
                SYNTAX,
            ),
            (
                "GEOSEARCH s FROMMEMBER Palermo BYPOLYGON 3 13 37 16 37 16 38.5",
                SYNTAX,
            ),
            ("GEOSEARCH s BYPOLYGON 3 13 37 16 37 16 38.5 BYRADIUS 1 m", SYNTAX),
            (
                "GEOSEARCH s BYPOLYGON 3 13 37 16 37 160 98.5",
                "-ERR invalid longitude,latitude pair 160.000000,98.500000",
            ),
            (
                "GEOSEARCH s BYPOLYGON 9223372036854775807 13 37 16 37 160 38.5",
                SYNTAX,
            ),
        ]);
    }

    #[test]
    fn what_is_found_is_stored() {
        for shards in [1, 4] {
            sicily(shards).check_effects(&[
                (
                    "GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km",
                    ":2",
                    &["GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km"],
                ),
                ("ZSCORE d Palermo", "\"3479099956230698\"", &[]),
                (
                    "GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST COUNT 1",
                    ":1",
                    &["GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST COUNT 1"],
                ),
                (
                    "ZRANGE d 0 -1 WITHSCORES",
                    "[\"Catania\", \"56.4412578701582\"]",
                    &[],
                ),
                (
                    "GEORADIUS s 15 37 200 km STOREDIST other STORE d",
                    ":2",
                    &["GEORADIUS s 15 37 200 km STOREDIST other STORE d"],
                ),
                ("EXISTS other", ":0", &[]),
                (
                    "GEORADIUSBYMEMBER s Palermo 1 m STORE d STOREDIST COUNT COUNT 1",
                    ":1",
                    &["GEORADIUSBYMEMBER s Palermo 1 m STORE d STOREDIST COUNT COUNT 1"],
                ),
                ("ZRANGE COUNT 0 -1 WITHSCORES", "[\"Palermo\", \"0\"]", &[]),
                (
                    "GEORADIUS s 15 37 1 m STORE d",
                    ":0",
                    &["GEORADIUS s 15 37 1 m STORE d"],
                ),
                ("EXISTS d", ":0", &[]),
                (
                    "GEOSEARCHSTORE d none FROMLONLAT 15 37 BYRADIUS 200 km",
                    ":0",
                    &[],
                ),
                ("GEORADIUS s 15 37 1 m STORE", SYNTAX, &[]),
                ("GEORADIUS s 15 37 1 m STORE STORE", ":0", &[]),
                (
                    "GEORADIUS s 15 37 200 km STORE STORE STORE STOREDIST",
                    ":2",
                    &["GEORADIUS s 15 37 200 km STORE STORE STORE STOREDIST"],
                ),
                ("ZCARD STOREDIST", ":2", &[]),
            ]);
        }
    }

    #[test]
    fn senseless_requests_are_refused() {
        let one_of =
            |what: &str, command: &str| format!("-ERR exactly one of {what} can be specified for {command}");
        sicily(1).check(&[
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km ANY", "-ERR the ANY argument requires COUNT argument"),
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km COUNT 0", "-ERR COUNT must be > 0"),
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km COUNT", SYNTAX),
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS 200 km STOREDIST", SYNTAX),
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS -1 km", "-ERR radius cannot be negative"),
            ("GEOSEARCH s FROMLONLAT 15 37 BYRADIUS x km", "-ERR need numeric radius"),
            ("GEOSEARCH s FROMLONLAT 15 37 BYBOX 1 x km", "-ERR need numeric height"),
            ("GEOSEARCH s FROMLONLAT 15 37 BYBOX 1 -1 km", "-ERR height or width cannot be negative"),
            ("GEOSEARCH s FROMMEMBER none BYRADIUS 1 m", "-ERR could not decode requested zset member"),
            ("GEOSEARCH s ASC ASC DESC BYRADIUS 1 m", &one_of("FROMMEMBER or FROMLONLAT", "GEOSEARCH")),
            ("geosearch s FROMLONLAT 15 37 ASC DESC", &one_of("BYRADIUS and BYBOX", "geosearch")),
            (
                "GEOSEARCHSTORE d s FROMLONLAT 15 37 BYRADIUS 200 km WITHDIST",
                "-ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            ),
            (
                "GEORADIUS s 15 37 200 km WITHDIST STORE d",
                "-ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
            ),
            ("GEORADIUS_RO s 15 37 200 km STORE d", SYNTAX),
            ("GEORADIUSBYMEMBER none x y z", "[]"),
        ]);
    }
}
