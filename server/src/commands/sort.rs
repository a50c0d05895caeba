//! SORT and SORT_RO: the elements of a list, set or sorted set in another order, or values that other keys hold for
//! them.
//!
//! The names of those other keys are made of patterns and elements, so that they can be on any shard: the rows tell
//! which requests have such keys, and these get the partitions of all shards. All elements are copied before any
//! other key is looked up. Rows first, then handlers in the order of the rows.

use std::cmp::Ordering;
use std::ops::Range;

use shardis_protocol::Arguments;
use shardis_storage::entry::Entry;
use shardis_storage::number::parse_decimal_f64;
use shardis_storage::value::hash::Hash;
use shardis_storage::value::list::{Direction, End, List};
use shardis_storage::value::sorted_set::Order;
use shardis_storage::value::{CollectionRef, INT_TEXT_MAX, StringRef};

use super::lists;
use super::strings::bulk;
use crate::config::KeyspaceEvents;
use crate::error::ReplyError;
use crate::exec::arguments::is;
use crate::exec::{CommandResult, Context, Options, View};
use crate::spec::{Arg, Arity, Category, Command, Derivation, Doc, Flags, KeySpec, Runs};

const COMPLEXITY: &str =
    "O(N+M*log(M)) for N elements, of which M are returned; O(N) where they are not sorted.";

const CATEGORIES: Category = Category::SET
    .union(Category::SORTEDSET)
    .union(Category::LIST)
    .union(Category::DANGEROUS);

const SORTED_KEY: KeySpec = KeySpec::at(1).read_only().access();

/// The keys that BY and GET name, with the check for a user who may not read all keys.
const fn derived(check: fn(Arguments<'_>) -> CommandResult) -> KeySpec {
    KeySpec::derived(Derivation {
        exists: derives_keys,
        check,
    })
    .read_only()
    .access()
    .notes("Keys that BY and GET name by patterns: their names come out of the elements")
}

const ORDERS: &[Arg] = &[Arg::flag("asc", "ASC"), Arg::flag("desc", "DESC")];

const KEY: Arg = Arg::key("key", 0);
const BY: Arg = Arg::key_pattern("by-pattern", 1).token("BY").optional();
const LIMIT: Arg = Arg::block("limit", &[Arg::integer("offset"), Arg::integer("count")])
    .token("LIMIT")
    .optional();
const GET: Arg = Arg::key_pattern("get-pattern", 1)
    .token("GET")
    .optional()
    .multiple()
    .multiple_token();
const ORDER: Arg = Arg::one_of("order", ORDERS).optional();
const SORTING: Arg = Arg::flag("sorting", "ALPHA").optional();

/// The commands of this family.
pub(crate) static COMMANDS: &[Command] = &[
    Command {
        name: "sort",
        arity: Arity::AtLeast(2),
        flags: Flags::WRITE.union(Flags::DENYOOM),
        acl: CATEGORIES,
        keys: &[
            SORTED_KEY,
            derived(check_sort),
            KeySpec::told(destination_of)
                .overwrite()
                .update()
                .notes("The key that follows STORE, wherever that stands"),
        ],
        runs: Runs::OnKeysLong(sort),
        doc: &Doc {
            since: "1.0.0",
            complexity: COMPLEXITY,
            summary: "Returns or stores the elements of a list, set or sorted set in order.",
            args: &[
                KEY,
                BY,
                LIMIT,
                GET,
                ORDER,
                SORTING,
                Arg::key("destination", 2).token("STORE").optional(),
            ],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
    Command {
        name: "sort_ro",
        arity: Arity::AtLeast(2),
        flags: Flags::READONLY,
        acl: CATEGORIES,
        keys: &[SORTED_KEY, derived(check_sort_ro)],
        runs: Runs::OnKeysLong(sort_ro),
        doc: &Doc {
            since: "7.0.0",
            complexity: COMPLEXITY,
            summary: "Returns the elements of a list, set or sorted set in order.",
            args: &[KEY, BY, LIMIT, GET, ORDER, SORTING],
            ..Doc::BLANK
        },
        ..Command::BLANK
    },
];

/// Whether a request names keys by patterns. A false positive costs speed, not correctness.
fn derives_keys(args: Arguments<'_>) -> bool {
    let names_pattern = |word: &[u8]| is(word, "BY") || is(word, "GET");
    args.iter()
        .zip(args.iter().skip(1))
        .skip(2)
        .any(|(word, value)| names_pattern(word) && value.contains(&b'*'))
}

/// Checks SORT for a user who may not read all keys.
fn check_sort(args: Arguments<'_>) -> CommandResult {
    Request::parse(args, true, Readable::NamedKeys).map(drop)
}

/// Checks SORT_RO for a user who may not read all keys.
fn check_sort_ro(args: Arguments<'_>) -> CommandResult {
    Request::parse(args, false, Readable::NamedKeys).map(drop)
}

/// Keys that a client may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readable {
    /// All keys.
    All,
    /// The keys that its request names.
    NamedKeys,
    /// The keys of one slot: the node is one of a cluster.
    OneSlot,
}

impl Readable {
    /// The keys that a client may read on the node of a command.
    fn on(ctx: &Context<'_>) -> Self {
        if ctx.settings.cluster_enabled {
            Self::OneSlot
        } else {
            Self::All
        }
    }

    /// Fails for an option that reads keys which the request does not name.
    fn permit(self, option: &'static str) -> CommandResult {
        match self {
            Self::All => Ok(()),
            Self::OneSlot => Err(ReplyError::Text(format!(
                "ERR {option} option of SORT denied in Cluster mode."
            ))),
            Self::NamedKeys => Err(ReplyError::Text(format!(
                "ERR {option} option of SORT denied due to insufficient ACL permissions."
            ))),
        }
    }
}

/// Index of the argument that is the key to store to; the last one counts.
fn destination_of(args: Arguments<'_>) -> Option<usize> {
    let mut destination = None;
    let mut options = Options::new(args, 2);
    while let Some(word) = options.word() {
        let values = match word {
            word if is(word, "LIMIT") => 2,
            word if is(word, "BY") || is(word, "GET") => 1,
            word if is(word, "STORE") => {
                let at = options.position();
                destination = if at < args.len() { Some(at) } else { destination };
                1
            }
            _ => 0,
        };
        for _ in 0..values {
            options.word();
        }
    }
    destination
}

/// A pattern that makes the name of a key out of an element, optionally followed by a field of the hash there:
/// `before*after` or `before*after->field`.
struct Pattern<'a> {
    before: &'a [u8],
    after: &'a [u8],
    field: Option<&'a [u8]>,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern; none if it has no `*`.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let star = text.iter().position(|byte| *byte == b'*')?;
        let (before, after) = (&text[..star], &text[star + 1..]);
        let arrow = after.windows(2).position(|pair| pair == b"->");
        // An arrow without a field is part of the name.
        let (after, field) = match arrow.filter(|at| at + 2 < after.len()) {
            Some(at) => (&after[..at], Some(&after[at + 2..])),
            None => (after, None),
        };
        Some(Self { before, after, field })
    }

    /// Value of the key that a pattern leads to; none if that does not exist or is of another type. `name` is a
    /// buffer for the key's name.
    fn value<'v>(
        &self,
        element: &[u8],
        keyspace: &'v mut View<'_>,
        name: &mut Vec<u8>,
    ) -> Option<StringRef<'v>> {
        name.clear();
        for part in [self.before, element, self.after] {
            name.extend_from_slice(part);
        }
        let key = keyspace.key(name);
        let now_ms = keyspace.stamp.now_ms;
        let entry = keyspace.read(&key)?;
        match self.field {
            None => entry.string(),
            Some(field) => entry.get::<Hash>()?.get(field, now_ms),
        }
    }
}

/// A column of the reply.
enum Column<'a> {
    /// The element itself: `#`.
    Element,
    /// The value that a pattern leads to.
    Value(Pattern<'a>),
    /// Null: the pattern has no `*`.
    Nothing,
}

impl<'a> Column<'a> {
    fn parse(text: &'a [u8]) -> Self {
        if text == b"#" {
            Self::Element
        } else {
            Pattern::parse(text).map_or(Self::Nothing, Self::Value)
        }
    }
}

/// Options of a request.
#[derive(Default)]
struct Request<'a> {
    descending: bool,
    /// Elements are compared as texts; as numbers otherwise.
    alpha: bool,
    /// Elements keep their order.
    unsorted: bool,
    by: Option<Pattern<'a>>,
    /// Number of elements to skip.
    offset: i64,
    /// Number of elements to return; all if negative.
    count: i64,
    /// Columns of the reply; the elements themselves if empty.
    outputs: Vec<Column<'a>>,
    /// Index of the argument that is the key to store to.
    destination: Option<usize>,
}

impl<'a> Request<'a> {
    fn parse(args: Arguments<'a>, stores: bool, readable: Readable) -> Result<Self, ReplyError> {
        let mut request = Self {
            count: -1,
            ..Self::default()
        };
        let mut options = Options::new(args, 2);
        while let Some(word) = options.word() {
            match word {
                word if is(word, "ASC") => request.descending = false,
                word if is(word, "DESC") => request.descending = true,
                word if is(word, "ALPHA") => request.alpha = true,
                word if is(word, "LIMIT") && options.position() + 1 < args.len() => {
                    request.offset = options.int()?;
                    request.count = options.int()?;
                }
                word if is(word, "STORE") && stores => {
                    request.destination = Some(options.position());
                    options.value()?;
                }
                word if is(word, "BY") => {
                    request.by = Pattern::parse(options.value()?);
                    if request.by.is_some() {
                        readable.permit("BY")?;
                    }
                    // A constant pattern gives all elements the same weight, so that there is nothing to sort; a
                    // later BY does not change that.
                    request.unsorted |= request.by.is_none();
                }
                word if is(word, "GET") => {
                    request.outputs.push(Column::parse(options.value()?));
                    readable.permit("GET")?;
                }
                _ => return Err(ReplyError::Syntax),
            }
        }
        Ok(request)
    }

    /// Makes the members of a set, which have no order, be sorted by their texts, so that every replica stores the
    /// same result.
    fn settle_order(&mut self, is_set: bool) {
        if self.unsorted && is_set && self.destination.is_some() {
            self.unsorted = false;
            self.alpha = true;
            self.by = None;
        }
    }

    /// The range of elements to return, of `len` sorted ones.
    fn window(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset).unwrap_or(0).min(len);
        let count = usize::try_from(self.count).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }
}

/// Weight by which an element is sorted.
#[derive(Clone)]
enum Weight {
    /// A number; equal ones are sorted by the element.
    Number(f64),
    /// A text that another key holds, if any.
    Text(Option<Range<usize>>),
    /// The text of the element itself.
    Element,
}

/// An element to be sorted, as ranges of the texts in [`Elements`].
struct Item {
    element: Range<usize>,
    weight: Weight,
}

/// Elements with all their texts in one allocation.
#[derive(Default)]
struct Elements {
    texts: Vec<u8>,
    items: Vec<Item>,
}

impl Elements {
    fn text(&mut self, text: StringRef<'_>) -> Range<usize> {
        let start = self.texts.len();
        self.texts
            .extend_from_slice(text.as_bytes(&mut [0; INT_TEXT_MAX]));
        start..self.texts.len()
    }

    fn push(&mut self, element: StringRef<'_>) {
        let element = self.text(element);
        self.items.push(Item {
            element,
            weight: Weight::Element,
        });
    }

    /// Copies the elements of a collection that are in a window, in their own order or backwards; members of a set
    /// have no order. Complexity: O(elements copied), for a set O(elements up to there).
    fn copy(&mut self, source: CollectionRef<'_>, window: Range<usize>, backwards: bool) {
        match source {
            CollectionRef::List(list) => {
                let (start, direction) = if backwards {
                    (list.len().wrapping_sub(window.start + 1), Direction::Backward)
                } else {
                    (window.start, Direction::Forward)
                };
                list.range(start, direction, window.len(), |element| self.push(element));
            }
            CollectionRef::SortedSet(set) => {
                let (ranks, order) = if backwards {
                    (
                        set.len() - window.end..set.len() - window.start,
                        Order::Descending,
                    )
                } else {
                    (window, Order::Ascending)
                };
                set.range(ranks, order).for_each(|(member, _)| self.push(member));
            }
            CollectionRef::Set(set) => {
                let members = set.iter().skip(window.start).take(window.len());
                members.for_each(|member| self.push(member));
            }
            CollectionRef::Hash(_) | CollectionRef::Stream(_) => {}
        }
    }

    /// Determines the weights of the elements.
    ///
    /// # Errors
    /// When a weight should be a number and is none.
    fn weigh(&mut self, request: &Request<'_>, keyspace: &mut View<'_>) -> CommandResult {
        if request.alpha && request.by.is_none() {
            return Ok(());
        }
        let mut name = Vec::new();
        for index in 0..self.items.len() {
            let element = &self.texts[self.items[index].element.clone()];
            let weight = match &request.by {
                None => number(StringRef::Bytes(element)).map(Weight::Number),
                Some(pattern) => {
                    let value = pattern.value(element, keyspace, &mut name);
                    if request.alpha {
                        Some(Weight::Text(value.map(|value| self.text(value))))
                    } else {
                        value.map_or(Some(0.0), number).map(Weight::Number)
                    }
                }
            };
            self.items[index].weight = weight.ok_or(ReplyError::SortNotNumbers)?;
        }
        Ok(())
    }

    /// Sorts the elements in the window and drops the others. Complexity: O(N + M log M) for M of N elements up to
    /// the end of the window.
    fn sort(&mut self, descending: bool, window: Range<usize>) {
        let texts = &self.texts;
        let compare = |a: &Item, b: &Item| {
            let order = a.compare(b, texts);
            let order = if descending { order.reverse() } else { order };
            // Equal elements keep their order.
            order.then_with(|| (a.element.start, a.element.end).cmp(&(b.element.start, b.element.end)))
        };
        if window.end < self.items.len() {
            self.items.select_nth_unstable_by(window.end, compare);
            self.items.truncate(window.end);
        }
        self.items.sort_unstable_by(compare);
        self.items.drain(..window.start);
    }

    fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.items.iter().map(|item| &self.texts[item.element.clone()])
    }
}

impl Item {
    fn compare(&self, other: &Self, texts: &[u8]) -> Ordering {
        let own_texts = || texts[self.element.clone()].cmp(&texts[other.element.clone()]);
        match (&self.weight, &other.weight) {
            (Weight::Number(a), Weight::Number(b)) => {
                // No weight is NaN.
                a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(own_texts)
            }
            (Weight::Text(a), Weight::Text(b)) => {
                let text = |range: &Option<Range<usize>>| range.clone().map(|range| &texts[range]);
                text(a).cmp(&text(b))
            }
            _ => own_texts(),
        }
    }
}

/// Reads a decimal number; an empty text is 0, and a NUL ends the number.
fn number(value: StringRef<'_>) -> Option<f64> {
    let text = match value {
        StringRef::Int(int) => return Some(int as f64),
        StringRef::Bytes(bytes) => bytes.split(|byte| *byte == 0).next().unwrap_or_default(),
    };
    if text.is_empty() {
        return Some(0.0);
    }
    parse_decimal_f64(text)
}

fn sort(ctx: &mut Context<'_>) -> CommandResult {
    let mut request = Request::parse(ctx.args, true, Readable::on(ctx))?;
    let elements = sorted(ctx, &mut request)?;
    match request.destination {
        Some(position) => {
            let destination = ctx.key(position);
            let list = result_list(ctx, &request, &elements);
            let len = list.len();
            ctx.effects.changed(len.saturating_sub(1) as u64);
            ctx.store(&destination, list, len, (KeyspaceEvents::LIST, "sortstore"));
        }
        None => reply(ctx, &request, &elements),
    }
    Ok(())
}

fn sort_ro(ctx: &mut Context<'_>) -> CommandResult {
    let mut request = Request::parse(ctx.args, false, Readable::on(ctx))?;
    let elements = sorted(ctx, &mut request)?;
    reply(ctx, &request, &elements);
    Ok(())
}

/// The elements that a request returns, in its order.
fn sorted(ctx: &mut Context<'_>, request: &mut Request<'_>) -> Result<Elements, ReplyError> {
    let key = ctx.key(1);
    let mut elements = Elements::default();
    let Some(source) = ctx.keyspace.read(&key).map(sortable).transpose()? else {
        return Ok(elements);
    };
    let len = match source {
        CollectionRef::List(list) => list.len(),
        CollectionRef::Set(set) => set.len(),
        CollectionRef::SortedSet(set) => set.len(),
        CollectionRef::Hash(_) | CollectionRef::Stream(_) => 0,
    };
    request.settle_order(matches!(source, CollectionRef::Set(_)));
    let window = request.window(len);
    if request.unsorted {
        elements.copy(source, window, request.descending);
    } else {
        elements.copy(source, 0..len, false);
        elements.weigh(request, &mut ctx.keyspace)?;
        elements.sort(request.descending, window);
    }
    Ok(elements)
}

/// The sortable collection of an entry.
fn sortable(entry: &Entry) -> Result<CollectionRef<'_>, ReplyError> {
    entry
        .collection()
        .filter(|value| !matches!(value, CollectionRef::Hash(_) | CollectionRef::Stream(_)))
        .ok_or(ReplyError::WrongType)
}

/// Replies with the columns of each element.
fn reply(ctx: &mut Context<'_>, request: &Request<'_>, elements: &Elements) {
    let Context { reply, keyspace, .. } = ctx;
    reply.array(elements.items.len() * request.outputs.len().max(1));
    let mut name = Vec::new();
    for element in elements.iter() {
        if request.outputs.is_empty() {
            reply.bulk(element);
        }
        for output in &request.outputs {
            match output {
                Column::Element => reply.bulk(element),
                Column::Nothing => reply.null(),
                Column::Value(pattern) => match pattern.value(element, keyspace, &mut name) {
                    Some(value) => bulk(reply, value),
                    None => reply.null(),
                },
            }
        }
    }
}

/// A list of the columns of each element, in which a missing value is empty.
fn result_list(ctx: &mut Context<'_>, request: &Request<'_>, elements: &Elements) -> List {
    let limits = lists::limits(ctx.settings);
    let (mut list, mut name) = (List::new(), Vec::new());
    let mut push = |value: StringRef<'_>| list.push(End::Back, value, &limits);
    for element in elements.iter() {
        if request.outputs.is_empty() {
            push(StringRef::Bytes(element));
        }
        for output in &request.outputs {
            let value = match output {
                Column::Element => Some(StringRef::Bytes(element)),
                Column::Nothing => None,
                Column::Value(pattern) => pattern.value(element, &mut ctx.keyspace, &mut name),
            };
            push(value.unwrap_or(StringRef::Bytes(b"")));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::testing::Shell;

    const SYNTAX: &str = "-ERR syntax error";
    const NOT_NUMBERS: &str = "-ERR One or more scores can't be converted into double";
    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";

    #[test]
    fn elements_are_sorted_by_number_and_by_text() {
        let mut shell = Shell::new();
        shell.run("RPUSH l 3 1 2 10");
        shell.run("RPUSH t b a c");
        shell.run("SADD s 3 1 2");
        shell.run("ZADD z 3 c 1 a 2 b");
        shell.check(&[
            ("SORT l", "[\"1\", \"2\", \"3\", \"10\"]"),
            ("SORT l desc limit 1 2", "[\"3\", \"2\"]"),
            ("SORT l ALPHA", "[\"1\", \"10\", \"2\", \"3\"]"),
            ("SORT l LIMIT -5 1", "[\"1\"]"),
            ("SORT l LIMIT 3 -1", "[\"10\"]"),
            ("SORT l LIMIT 9 9", "[]"),
            ("SORT l LIMIT 9223372036854775807 9223372036854775807", "[]"),
            ("SORT t", NOT_NUMBERS),
            ("SORT_RO t ALPHA DESC", "[\"c\", \"b\", \"a\"]"),
            ("SORT s DESC", "[\"3\", \"2\", \"1\"]"),
            ("SORT z ALPHA", "[\"a\", \"b\", \"c\"]"),
            ("SORT z BY nosort DESC LIMIT 0 2", "[\"c\", \"b\"]"),
            ("SORT t BY nosort DESC LIMIT 1 5", "[\"a\", \"b\"]"),
            ("SORT none", "[]"),
        ]);
    }

    #[test]
    fn weights_and_values_are_found_on_any_shard() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.run("RPUSH l 1 2 3 4");
            shell.run("MSET w_1 40 w_2 30 w_3 20");
            shell.run("HSET h_1 f a g 1");
            shell.run("HSET h_3 f c g 2");
            shell.check(&[
                ("SORT l BY w_*", "[\"4\", \"3\", \"2\", \"1\"]"),
                ("SORT l BY w_* GET w_* LIMIT 0 2", "[nil, \"20\"]"),
                (
                    "SORT l BY h_*->f ALPHA DESC GET # GET h_*->g LIMIT 0 3",
                    "[\"3\", \"2\", \"1\", \"1\", \"2\", nil]",
                ),
                ("SORT l BY h_*->f", NOT_NUMBERS),
                ("SORT l GET h_*-> GET nothing LIMIT 0 1", "[nil, nil]"),
                ("SORT l BY none BY w_*", "[\"1\", \"2\", \"3\", \"4\"]"),
            ]);
        }
    }

    #[test]
    fn results_are_stored() {
        for shards in [1, 4] {
            let mut shell = Shell::over(shards);
            shell.run("RPUSH l 2 1");
            shell.run("SADD s b a");
            shell.run("MSET w_1 one d x");
            let watched = shell.watch("d");
            shell.check_effects(&[
                (
                    "SORT l GET w_* GET # STORE d",
                    ":4",
                    &["SORT l GET w_* GET # STORE d"],
                ),
                ("LRANGE d 0 -1", "[\"one\", \"1\", \"\", \"2\"]", &[]),
                (
                    "SORT l STORE other STORE l",
                    ":2",
                    &["SORT l STORE other STORE l"],
                ),
                ("LRANGE l 0 -1", "[\"1\", \"2\"]", &[]),
                ("EXISTS other", ":0", &[]),
                ("SORT s BY nosort STORE d", ":2", &["SORT s BY nosort STORE d"]),
                ("LRANGE d 0 -1", "[\"a\", \"b\"]", &[]),
                ("SORT l LIMIT 5 5 STORE d", ":0", &["SORT l LIMIT 5 5 STORE d"]),
                ("EXISTS d", ":0", &[]),
                ("SORT none STORE d", ":0", &[]),
                ("SORT l", "[\"1\", \"2\"]", &[]),
            ]);
            assert!(watched.is_touched());
        }
    }

    #[test]
    fn requests_are_checked() {
        let mut shell = Shell::new();
        shell.run("HSET h f v");
        shell.run("SET str v");
        shell.check(&[
            ("SORT h", WRONG_TYPE),
            ("SORT str STORE d", WRONG_TYPE),
            ("SORT str NONSENSE", SYNTAX),
            ("SORT l BY", SYNTAX),
            ("SORT l GET", SYNTAX),
            ("SORT l STORE", SYNTAX),
            ("SORT l LIMIT 0", SYNTAX),
            ("SORT l LIMIT x 1", "-ERR value is not an integer or out of range"),
            ("SORT_RO l STORE d", SYNTAX),
            ("COMMAND GETKEYS SORT l BY STORE GET w* STORE d", "[\"l\", \"d\"]"),
            ("COMMAND GETKEYS SORT l LIMIT STORE d", "[\"l\"]"),
            ("COMMAND GETKEYS SORT l STORE d STORE", "[\"l\", \"d\"]"),
        ]);
    }

    #[test]
    fn weights_are_decimal_numbers() {
        for (text, expected) in [
            (&b"1.5"[..], Some(1.5)),
            (b" -2", None),
            (b"", Some(0.0)),
            (b" ", None),
            (b"2 ", None),
            (b"0x10", None),
            (b"inf", Some(f64::INFINITY)),
            (b"nan", None),
            (b"7\0x", Some(7.0)),
            (b"1e999", None),
            (b"1e-310", Some(1e-310)),
        ] {
            assert_eq!(number(StringRef::Bytes(text)), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_window_is_that_of_the_whole_order(
            numbers in prop::collection::vec(-20_i64..20, 0..60),
            offset in -3_i64..70,
            count in -2_i64..70,
            descending: bool,
        ) {
            let mut elements = Elements::default();
            for number in &numbers {
                elements.push(StringRef::Int(*number));
                if let Some(item) = elements.items.last_mut() {
                    item.weight = Weight::Number(*number as f64);
                }
            }
            let request = Request { offset, count, ..Request::default() };
            elements.sort(descending, request.window(numbers.len()));
            let mut expected = numbers;
            expected.sort_unstable();
            if descending {
                expected.reverse();
            }
            let take = usize::try_from(count).unwrap_or(usize::MAX);
            let expected: Vec<_> = expected
                .iter()
                .skip(usize::try_from(offset).unwrap_or(0))
                .take(take)
                .map(|number| number.to_string().into_bytes())
                .collect();
            prop_assert_eq!(elements.iter().map(<[u8]>::to_vec).collect::<Vec<_>>(), expected);
        }
    }
}
