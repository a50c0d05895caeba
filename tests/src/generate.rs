//! Random commands from a seed: plausible ones, hostile ones, and damaged plausible ones.
//!
//! A command starts from a template, its blanks filled from small pools so that commands meet on the same keys;
//! one in thirty is then damaged. Expiry times lie so far away, or so clearly in the past, that no key expires
//! while two servers are compared.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::diff::Rule;

mod geo;
mod hashes;
mod hyperloglog;
mod keys;
mod lists;
mod scripts;
mod sets;
mod sorted_sets;
mod streams;
mod strings;

/// One command of a random run.
#[derive(Clone, Debug)]
pub struct Command {
    /// Client that sends it.
    pub client: usize,
    /// Name and arguments.
    pub words: Vec<Vec<u8>>,
    /// Rule for comparing the replies.
    pub rule: Rule,
}

impl Command {
    /// SCAN and its kin are not compared reply by reply but followed to their end: cursors mean nothing to others.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        let is_of =
            |name: &[u8], least| self.words.len() >= least && self.words[0].eq_ignore_ascii_case(name);
        is_of(b"scan", 2) || is_of(b"hscan", 3) || is_of(b"sscan", 3) || is_of(b"zscan", 3)
    }

    /// True when it lets a key expire in a moment.
    #[must_use]
    pub fn lets_expire(&self) -> bool {
        let is_moment = |words: &[Vec<u8>]| words[1] == b"1" && words[0].eq_ignore_ascii_case(b"px");
        match &self.words[..] {
            [name, _, time] => name.eq_ignore_ascii_case(b"pexpire") && time == b"1",
            [name, _, options @ ..] if name.eq_ignore_ascii_case(b"set") => options.windows(2).any(is_moment),
            _ => false,
        }
    }

    /// True when the reply counts keys, expired ones included.
    #[must_use]
    pub fn counts_all(&self) -> bool {
        self.words[0].eq_ignore_ascii_case(b"dbsize")
    }

    /// True when equal servers reply to it alike, in the same order.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        matches!(self.rule, Rule::Same | Rule::Scores) && !self.is_scan()
    }

    /// Elements chosen at random are compared by what can be said of them.
    #[must_use]
    pub fn is_draw(&self) -> bool {
        const NAMES: [&[u8]; 4] = [b"spop", b"srandmember", b"hrandfield", b"zrandmember"];
        self.rule == Rule::Shape && NAMES.iter().any(|name| self.words[0].eq_ignore_ascii_case(name))
    }
}

/// Commands that look every key up that a template may let expire, so that the expired ones are removed.
#[must_use]
pub fn look_at_all() -> Vec<&'static str> {
    let mut words = vec!["EXISTS"];
    words.extend(POOLS.iter().copied().flatten());
    words
}

/// Number of clients of a run: a second one gives WATCH something to notice.
pub const CLIENTS: usize = 2;

/// One command in this many is damaged.
const DAMAGE_ONE_IN: u32 = 30;

/// Rule for the replies to a template, see [`Rule`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reply {
    Same,
    /// The same, but doubles are printed as 7.2 does.
    Scores,
    /// The same, but the command is never damaged: it could wait for ever.
    Unharmed,
    /// The same, in no order and with such doubles.
    SortedScores,
    Sorted,
    Pairs,
    Encoding,
    Seconds,
    Milliseconds,
    Random,
    /// Elements chosen at random.
    Draw,
    /// The same but for what consumers there are, what nodes a tree has, and how far a group has come.
    Told,
}

use Reply::Same;

/// Weight, reply, template. Words in capitals are literal, words in small letters are blanks (see
/// [`Generator::blank`]); `A|B` is a choice, an empty choice no word at all; `A~b` is two words; `b+` one to three. A
/// place that begins with `*` is filled with up to four of its choices, in any order and with repetitions. The word
/// `~` is written `about`.
type Template = (u32, Reply, &'static str);

/// The templates of all families.
const FAMILIES: &[&[Template]] = &[
    strings::TEMPLATES,
    keys::TEMPLATES,
    lists::TEMPLATES,
    hashes::TEMPLATES,
    sets::TEMPLATES,
    sorted_sets::TEMPLATES,
    hyperloglog::TEMPLATES,
    geo::TEMPLATES,
    streams::TEMPLATES,
    scripts::TEMPLATES,
];

/// The keys: few, and one that stays absent most of the time.
const KEYS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "{a}1",
    "{a}2",
    "long-key-name-0123456789-0123456789",
    "",
    "k\x00\r\n",
    "n1",
    "n2",
];

/// The keys of each collection, found with another type only now and then.
const LISTS: &[&str] = &["l1", "l2", "{a}l", "l4", "l\x00\n"];
const HASHES: &[&str] = &["h1", "h2", "{a}h", "h4", "h\x00\n"];
const SETS: &[&str] = &["s1", "s2", "{a}s", "s4", "s\x00\n"];
const SORTED_SETS: &[&str] = &["z1", "z2", "{a}z", "z4", "z\x00\n"];
const STREAMS: &[&str] = &["x1", "x2", "{a}x", "x4"];

/// The keys that may be of any type.
const POOLS: &[&[&str]] = &[KEYS, LISTS, HASHES, SETS, SORTED_SETS, STREAMS];

/// HyperLogLogs never share keys with strings: damaged by commands on strings, PFADD would leave them half changed in
/// Redis.
const HYPERLOGLOGS: &[&str] = &["p1", "p2", "{a}p", "p4"];
const GEOS: &[&str] = &["g1", "g2", "{a}g"];

/// Sorted sets whose members all have the score 0.
const EQUALS: &[&str] = &["e1", "e2"];

/// Some names of options.
const WORDS: &[&str] = &[
    "NX",
    "XX",
    "GT",
    "LT",
    "CH",
    "INCR",
    "GET",
    "REPLACE",
    "DB",
    "EX",
    "100",
    "LEN",
    "IDX",
    "AND",
    "u8",
    "COUNT",
    "LIMIT",
    "WITHSCORES",
    "WITHVALUES",
    "BYSCORE",
    "BYLEX",
    "REV",
    "WEIGHTS",
    "AGGREGATE",
    "SUM",
    "DESC",
    "LEFT",
    "MIN",
    "MAXLEN",
    "MINID",
    "RANK",
    "=",
    "~",
    "STREAMS",
    "GROUP",
    "BEFORE",
    "WITHDIST",
    "ANY",
    "BYRADIUS",
    "FROMMEMBER",
    "km",
    "#",
    "+",
    "-",
    "0",
    "1",
    "2",
];

/// Number of words of an SADD with as many members as the duel allows in a set of integers.
const SADD_WORDS_MAX: usize = 10;

/// One key in this many is of any type.
const ANY_TYPE_ONE_IN: u32 = 14;

/// Elements, fields and members: few, so that they meet. (Redis reads an option up to a zero byte only; shardis does
/// not, and none of these is one up to there.)
const MEMBERS: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "1",
    "2",
    "3",
    "10",
    "-7",
    "007",
    "",
    "1.5",
    "300",
    "70000",
    "n\x00m",
    "a-member-of-forty-bytes-and-a-little-more-than-that",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
];

/// Values of blanks that are one of a few words.
const CHOICES: &[(&str, &[&str])] = &[
    ("script", scripts::SOURCES),
    ("digest", scripts::DIGESTS),
    (
        "distance",
        &[
            "0", "1", "10", "100", "500", "2000", "7000", "30000", "0.5", "-1", "x", "1e10",
        ],
    ),
    // 7.2 refuses the least number of all.
    (
        "rank",
        &[
            "0",
            "1",
            "-1",
            "2",
            "-2",
            "5",
            "-5",
            "100",
            "-100",
            "x",
            "",
            "9223372036854775807",
            "-9223372036854775807",
            "-9223372036854775809",
        ],
    ),
    (
        "keys",
        &[
            "2",
            "2",
            "2",
            "2",
            "2",
            "1",
            "3",
            "0",
            "-1",
            "x",
            "",
            "2147483648",
            "9223372036854775807",
            "-9223372036854775808",
        ],
    ),
    (
        "timeout",
        &[
            "0.01", "0.001", "-1", "x", "", "1e5000", "nan", " 1", "0.01x", "-inf",
        ],
    ),
    ("unit", &["m", "km", "km", "KM", "mi", "ft", "yd"]),
    (
        "score",
        &[
            "0",
            "-0",
            "1",
            "2",
            "3",
            "-1",
            "1.5",
            "-2.25",
            "1e10",
            "0.1",
            "0.2",
            "3.0",
            "inf",
            "-inf",
            "nan",
            "x",
            "",
            "1e17",
            "-3",
            "1",
            "2",
            "0",
            "0.3",
            "1e308",
            "-1e308",
            "1e400",
            "1e-300",
            "1e-400",
            "0x10",
            "+Infinity",
            " 1",
            "1 ",
        ],
    ),
    (
        "bound",
        &[
            "-inf", "+inf", "0", "(0", "1", "(1", "2", "(2.5", "-3", "1.5", "(1.5", "1e10", "x", "(", "nan",
            "", "-inf", "+inf", "(-inf", "(inf", "1e400", "(-1e400", "1e-400", "0x10", " 1", "1 ", "((1",
            "[1", "infinity",
        ],
    ),
    (
        "lex",
        &[
            "-", "+", "-", "+", "[a", "(a", "[c", "(d", "[1", "(3", "[", "(", "a", "", "--", "+a", "[+", "[-",
        ],
    ),
    (
        "count",
        &[
            "0",
            "1",
            "2",
            "3",
            "5",
            "100",
            "1",
            "2",
            "3",
            "-1",
            "x",
            "",
            "2147483648",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
        ],
    ),
    (
        "draws",
        &[
            "0",
            "1",
            "2",
            "5",
            "100",
            "-1",
            "-3",
            "-20",
            "x",
            "9223372036854775807",
            "-9223372036854775808",
        ],
    ),
    (
        "index",
        &[
            "0",
            "1",
            "-1",
            "2",
            "-2",
            "5",
            "-5",
            "7",
            "8",
            "9",
            "100",
            "-100",
            "0",
            "1",
            "-1",
            "2",
            "-2",
            "5",
            "-5",
            "x",
            "",
            "1.0",
            "2147483648",
            "9223372036854775807",
            "-9223372036854775807",
            "-9223372036854775808",
            "9223372036854775808",
        ],
    ),
    (
        "offset",
        &["0", "1", "3", "10", "40", "64", "100", "-1", "536870912", "x"],
    ),
    (
        "bit",
        &[
            "0",
            "1",
            "7",
            "8",
            "9",
            "63",
            "100",
            "1000",
            "-1",
            "4294967296",
            "x",
        ],
    ),
    ("database", &["0", "1", "2", "0", "1", "16", "-1", "x"]),
    (
        "pattern",
        &[
            "*", "a", "?", "[a-c]", "[^a]", "{a}*", "*0*", "l?ng*", "\\a", "[", "[b-", "*a*1", "",
        ],
    ),
    (
        "encoding",
        &[
            "u8", "i8", "u1", "i1", "u63", "i64", "i5", "u13", "u64", "i0", "i65", "x8", "u",
        ],
    ),
    (
        "place",
        &["0", "1", "7", "#0", "#1", "#3", "100", "-1", "#-1", "x", "#"],
    ),
    ("junk", &["nosuch", "", "get", "set", "x y", "\r\n", "-1"]),
];

/// A source of random commands.
pub struct Generator {
    rng: StdRng,
    templates: Vec<Template>,
    /// Whether each client is inside MULTI, as far as the generator can know.
    in_transaction: [bool; CLIENTS],
    /// The time of the last id of a stream's entry.
    entry_ms: u64,
}

impl Generator {
    /// The same seed gives the same commands.
    #[must_use]
    pub fn new(seed: u64) -> Generator {
        Generator {
            rng: StdRng::seed_from_u64(seed),
            templates: FAMILIES.concat(),
            in_transaction: [false; CLIENTS],
            entry_ms: 0,
        }
    }

    /// The next command.
    pub fn command(&mut self) -> Command {
        let client = usize::from(self.rng.random_ratio(1, 4));
        let (reply, template) = self.template(client);
        let mut words: Vec<Vec<u8>> = template.split(' ').flat_map(|place| self.place(place)).collect();
        if matches!(reply, Same | Reply::Scores) && self.rng.random_ratio(1, DAMAGE_ONE_IN) {
            self.damage(&mut words);
            while self.rng.random_ratio(1, 3) {
                self.damage(&mut words);
            }
            tame(&mut words);
        }
        if self.rng.random_ratio(1, 4) {
            words[0].make_ascii_lowercase();
        }
        self.note_transaction(client, &words);
        let rule = match reply {
            Same => Rule::Same,
            Reply::Scores | Reply::SortedScores | Reply::Unharmed => Rule::Scores,
            Reply::Sorted => Rule::Sorted,
            Reply::Pairs => Rule::Pairs,
            Reply::Encoding => Rule::Encoding,
            Reply::Seconds => Rule::Near(5),
            Reply::Milliseconds => Rule::Near(5000),
            Reply::Random => Rule::Any,
            Reply::Draw => Rule::Shape,
            Reply::Told => Rule::Without(&["consumers", "radix-tree-nodes", "entries-read", "lag"]),
        };
        Command { client, words, rule }
    }

    /// A template by weight. Inside a transaction only those whose replies are the same everywhere will do, since
    /// EXEC returns them; a transaction is ended more often than one is begun.
    fn template(&mut self, client: usize) -> (Reply, &'static str) {
        if self.in_transaction[client] && self.rng.random_ratio(1, 8) {
            return (Reply::Scores, "EXEC");
        }
        loop {
            let chosen = self
                .templates
                .choose_weighted(&mut self.rng, |row| row.0)
                .expect("weights are positive");
            // Redis sorts by numbers only if none read before was out of range: see `Duel::prepare`.
            if self.in_transaction[client] && chosen.2.starts_with("SORT") {
                continue;
            }
            if matches!(chosen.1, Same | Reply::Scores | Reply::Unharmed) || !self.in_transaction[client] {
                return (chosen.1, chosen.2);
            }
        }
    }

    /// Keeps track of MULTI, as well as that can be done without looking at replies. A damaged command that is
    /// taken for the end of a transaction only costs strictness: it cannot make replies differ.
    fn note_transaction(&mut self, client: usize, words: &[Vec<u8>]) {
        if words[0].eq_ignore_ascii_case(b"multi") && words.len() == 1 {
            self.in_transaction[client] = true;
        } else if [&b"exec"[..], b"discard", b"reset"]
            .iter()
            .any(|end| words[0].eq_ignore_ascii_case(end))
            && words.len() == 1
        {
            self.in_transaction[client] = false;
        }
    }

    /// The words for one place of a template.
    fn place(&mut self, place: &str) -> Vec<Vec<u8>> {
        let Some(choices) = place.strip_prefix('*') else {
            return self.choose(place);
        };
        (0..self.rng.random_range(0..=4))
            .flat_map(|_| self.choose(choices))
            .collect()
    }

    /// The words for one of several choices.
    fn choose(&mut self, choice: &str) -> Vec<Vec<u8>> {
        let choices: Vec<&str> = choice.split('|').collect();
        let chosen = self.pick(&choices);
        chosen
            .split('~')
            .filter(|word| !word.is_empty())
            .flat_map(|word| self.fill(word))
            .collect()
    }

    /// The words for one word of a template.
    fn fill(&mut self, word: &str) -> Vec<Vec<u8>> {
        if let Some(word) = word.strip_suffix('+') {
            return (0..self.rng.random_range(1..=3))
                .flat_map(|_| self.fill(word))
                .collect();
        }
        match word {
            "pair" => vec![self.blank("key"), self.blank("value")],
            "field" => vec![self.blank("member"), self.blank("content")],
            "scored" => vec![self.blank("score"), self.blank("member")],
            "operation" => match self.rng.random_range(0..7) {
                0..=2 => vec![b"GET".to_vec(), self.blank("encoding"), self.blank("place")],
                3 => vec![
                    b"SET".to_vec(),
                    self.blank("encoding"),
                    self.blank("place"),
                    self.blank("integer"),
                ],
                4..=5 => vec![
                    b"INCRBY".to_vec(),
                    self.blank("encoding"),
                    self.blank("place"),
                    self.blank("integer"),
                ],
                _ => vec![
                    b"OVERFLOW".to_vec(),
                    self.pick(&["WRAP", "SAT", "FAIL", "none"]).as_bytes().to_vec(),
                ],
            },
            _ => vec![self.blank(word)],
        }
    }

    /// One of the strings.
    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices.choose(&mut self.rng).copied().unwrap_or_default()
    }

    /// The bytes for one blank.
    fn blank(&mut self, name: &str) -> Vec<u8> {
        if let Some((_, choices)) = CHOICES.iter().find(|(known, _)| *known == name) {
            return self.pick(choices).as_bytes().to_vec();
        }
        let text = match name {
            "key" => self.key(KEYS),
            "list" => self.key(LISTS),
            "hash" => self.key(HASHES),
            "set" => self.key(SETS),
            "zset" => self.key(SORTED_SETS),
            "hll" => self.key(HYPERLOGLOGS),
            "seen" => self.rng.random_range(0..5000).to_string(),
            "geo" => self.key(GEOS),
            "spot" if self.rng.random_ratio(1, ANY_TYPE_ONE_IN) => self.pick(LISTS).to_owned(),
            "spot" => self.pick(GEOS).to_owned(),
            "longitude" => self.degrees(180.0),
            "latitude" => self.degrees(85.051_128_78),
            "stream" => self.key(STREAMS),
            "next" => self.next_entry(),
            "entry" => self.entry(),
            "after" => match self.rng.random_range(0..4) {
                0 => self.entry(),
                1 => self.pick(&["$", "x", "-", "99999999"]).to_owned(),
                _ => "0".to_owned(),
            },
            "low" => match self.rng.random_range(0..4) {
                0 => self.pick(&["(0", "+", "x", "(", "0"]).to_owned(),
                1 => format!("({}", self.entry()),
                2 => self.entry(),
                _ => "-".to_owned(),
            },
            "high" => match self.rng.random_range(0..4) {
                0 => self.pick(&["(0-0", "-", "x", "99999999"]).to_owned(),
                1 => format!("({}", self.entry()),
                2 => self.entry(),
                _ => "+".to_owned(),
            },
            "about" => "~".to_owned(),
            "group" => self.pick(&["g", "g", "h", "none"]).to_owned(),
            "consumer" => self.pick(&["alice", "bob", "carol", ""]).to_owned(),
            "equals" => self.pick(EQUALS).to_owned(),
            "any" => self.any_key(),
            "member" => self.pick(MEMBERS).to_owned(),
            // A count that Redis adds to: a greater one becomes negative, and its replicas refuse to take it.
            "read" => self.rng.random_range(-1..20).to_string(),
            "number" => self.rng.random_range(-20..20).to_string(),
            "content" => match self.rng.random_range(0..4) {
                0 => return self.value(),
                1 => self.float(),
                _ => self.pick(MEMBERS).to_owned(),
            },
            "present" => self.pick(&KEYS[..4]).to_owned(),
            "value" => return self.value(),
            "integer" => self.integer(),
            "float" => self.float(),
            "small" => match self.rng.random_range(0..16) {
                0 => self
                    .pick(&[
                        "x",
                        "",
                        "1.5",
                        "9223372036854775807",
                        "-9223372036854775808",
                        "9223372036854775808",
                    ])
                    .to_owned(),
                _ => self.rng.random_range(-1..20).to_string(),
            },
            "seconds" => self.span(10_000, 10_000_000, "9223372036854775807"),
            "milliseconds" => self.span(10_000_000, 10_000_000_000, "9223372036854775807"),
            "at" => self.span(4_000_000_000, 5_000_000_000, "9223372036854776"),
            "at_ms" => self.span(4_000_000_000_000, 5_000_000_000_000, "9223372036854775807"),
            "word" => return self.word(),
            capitals => capitals.to_owned(),
        };
        text.into_bytes()
    }

    /// One of the keys of a type, or now and then of any type.
    fn key(&mut self, keys: &[&str]) -> String {
        if self.rng.random_ratio(1, ANY_TYPE_ONE_IN) {
            self.any_key()
        } else {
            self.pick(keys).to_owned()
        }
    }

    /// A key of any type.
    fn any_key(&mut self) -> String {
        let pool = POOLS.choose(&mut self.rng).copied();
        self.pick(pool.unwrap_or(KEYS)).to_owned()
    }

    /// A coordinate: mostly of a region where members are near each other.
    fn degrees(&mut self, max: f64) -> String {
        match self.rng.random_range(0..12) {
            0 => self.float(),
            1..=3 => format!("{:.6}", self.rng.random_range(-max..max)),
            _ => format!("{:.6}", self.rng.random_range(8.0..12.0)),
        }
    }

    /// An id above all others, or its time alone, or its time and a star.
    fn next_entry(&mut self) -> String {
        self.entry_ms += self.rng.random_range(1..3);
        let ms = self.entry_ms;
        match self.rng.random_range(0..4) {
            0 => ms.to_string(),
            1 => format!("{ms}-*"),
            _ => format!("{ms}-{}", self.rng.random_range(0..300)),
        }
    }

    /// An id that may be an entry's: one of the last few hundred, with one of the sequences.
    fn entry(&mut self) -> String {
        let ms = self.entry_ms.saturating_sub(self.rng.random_range(0..200));
        match self.rng.random_range(0..6) {
            0 => format!("{ms}-{}", self.rng.random_range(0..300)),
            1 => format!("{ms}-0"),
            _ => ms.to_string(),
        }
    }

    /// A string value: numbers often, so that arithmetic has something to work on.
    fn value(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..10) {
            0..=2 => self.integer().into_bytes(),
            3 => self.float().into_bytes(),
            4 => Vec::new(),
            5 => vec![b'x'; self.rng.random_range(40..50)],
            6 => (0..self.rng.random_range(1..30))
                .map(|_| self.rng.random())
                .collect(),
            7 => vec![b'y'; self.rng.random_range(100..3000)],
            _ => (0..self.rng.random_range(1..12))
                .map(|_| *b"abcdxyz ".choose(&mut self.rng).unwrap_or(&b'a'))
                .collect(),
        }
    }

    fn integer(&mut self) -> String {
        match self.rng.random_range(0..6) {
            0 => self.rng.random_range(-10..10_i64).to_string(),
            1 => self.rng.random_range(-20_000..20_000_i64).to_string(),
            2 => self.rng.random::<i64>().to_string(),
            3 => self
                .pick(&[
                    "9223372036854775807",
                    "-9223372036854775808",
                    "9223372036854775806",
                ])
                .to_owned(),
            4 => self
                .pick(&[
                    "9223372036854775808",
                    "-9223372036854775809",
                    "01",
                    "+1",
                    "-0",
                    " 1",
                    "1 ",
                    "",
                    "1.0",
                ])
                .to_owned(),
            _ => "1".to_owned(),
        }
    }

    fn float(&mut self) -> String {
        match self.rng.random_range(0..5) {
            0 => format!("{}", self.rng.random_range(-1000..1000) as f64 / 8.0),
            1 => format!(
                "{:e}",
                self.rng.random::<f64>() * 10_f64.powi(self.rng.random_range(-12..18))
            ),
            2 => self
                .pick(&[
                    "inf", "-inf", "nan", "1e400", "abc", "", " 1", "1 ", "0x10", "+1.5", ".5", "5.",
                ])
                .to_owned(),
            3 => self
                .pick(&["0.1", "0.2", "-0.3", "3.0e3", "1e-7", "1e17", "0", "-0"])
                .to_owned(),
            _ => self.integer(),
        }
    }

    /// A time: far away mostly, else long past, or `huge`, or no time at all.
    fn span(&mut self, from: i64, to: i64, huge: &str) -> String {
        match self.rng.random_range(0..12) {
            0 => "0".to_owned(),
            1 => "-1".to_owned(),
            2 => huge.to_owned(),
            3 => "x".to_owned(),
            _ => self.rng.random_range(from..to).to_string(),
        }
    }

    /// Any word at all.
    fn word(&mut self) -> Vec<u8> {
        match self.rng.random_range(0..4) {
            0 => self.blank("key"),
            1 => self.value(),
            2 => self.pick(WORDS).as_bytes().to_vec(),
            _ => self.integer().into_bytes(),
        }
    }

    /// Spoils a command: a word lost, doubled, exchanged, moved, or in other letters.
    fn damage(&mut self, words: &mut Vec<Vec<u8>>) {
        let at = self.rng.random_range(0..words.len());
        match self.rng.random_range(0..8) {
            0 if words.len() > 1 => drop(words.remove(at.max(1))),
            1 => words.insert(at + 1, words[at].clone()),
            2 => words[at] = self.word(),
            3 => words.push(self.word()),
            4 => words.insert(at + 1, self.word()),
            5 if words.len() > 1 => {
                let other = self.rng.random_range(1..words.len());
                words.swap(at.max(1), other);
            }
            6 if words.len() > 1 => words.truncate(at.max(1)),
            _ => words[at].make_ascii_lowercase(),
        }
        // Damage must not hide what makes a reply differ by nature.
        const RISKY: &[&[u8]] = &[
            b"ttl",
            b"pttl",
            b"keys",
            b"scan",
            b"randomkey",
            b"expiretime",
            b"pexpiretime",
            b"time",
        ];
        if RISKY.iter().any(|name| words[0].eq_ignore_ascii_case(name)) || words[0].is_empty() {
            words[0] = b"EXISTS".to_vec();
        }
        // The table of commands comes in no order.
        if words.len() == 1 && words[0].eq_ignore_ascii_case(b"command") {
            words.push(b"GETKEYS".to_vec());
        }
    }
}

/// Takes from a damaged command what would make replies differ by nature.
///
/// Times that count from now are far away or past, so that no key expires while servers are compared. What a set is
/// sorted by depends on its members, which come in no order. And 7.2 refuses a rank that 7.0 does not, and chooses the
/// encoding of a new set by the number of members said, even of those said twice.
fn tame(words: &mut Vec<Vec<u8>>) {
    let is_one_of = |word: &[u8], names: &[&[u8]]| names.iter().any(|name| word.eq_ignore_ascii_case(name));
    let has_time = is_one_of(&words[0], &[b"expire", b"pexpire", b"setex", b"psetex"]);
    let sorts = is_one_of(&words[0], &[b"sort", b"sort_ro"]);
    if is_one_of(&words[0], &[b"sadd"]) {
        words.truncate(SADD_WORDS_MAX);
    }
    for at in 1..words.len() {
        let option = words[at - 1].to_ascii_lowercase();
        let number = std::str::from_utf8(&words[at])
            .ok()
            .and_then(|text| text.parse::<i64>().ok());
        let is_time = (has_time && at == 2) || is_one_of(&option, &[b"ex", b"px"]);
        if is_time && number.is_some_and(|number| (1..10_000_000).contains(&number)) {
            words[at].extend_from_slice(b"0000000");
        } else if sorts && option == b"by" && (!words[at].contains(&b'*') || words[at].contains(&0)) {
            // Redis looks for the star up to a zero byte.
            words[at] = b"n*".to_vec();
        } else if option == b"rank" && number == Some(i64::MIN) {
            words[at] = b"-9223372036854775807".to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(seed: u64) -> Vec<Command> {
        let mut generator = Generator::new(seed);
        (0..40_000).map(|_| generator.command()).collect()
    }

    #[test]
    fn a_seed_is_a_run() {
        let words = |seed| {
            some(seed)
                .into_iter()
                .map(|command| command.words)
                .collect::<Vec<_>>()
        };
        assert_eq!(words(1), words(1));
        assert_ne!(words(1), words(2));
    }

    #[test]
    fn keys_expire_in_a_moment_or_not_while_servers_are_compared() {
        let commands = some(3);
        assert!(commands.iter().any(Command::lets_expire));
        let spans: &[&[u8]] = &[b"expire", b"pexpire", b"setex", b"psetex"];
        for command in &commands {
            let [name, _, time, ..] = &command.words[..] else {
                continue;
            };
            let time = std::str::from_utf8(time).ok().and_then(|time| time.parse().ok());
            if spans.iter().any(|span| name.eq_ignore_ascii_case(span)) && !command.lets_expire() {
                assert!(
                    !time.is_some_and(|time: i64| (1..10_000).contains(&time)),
                    "{:?}",
                    command.words
                );
            }
        }
    }

    #[test]
    fn damage_is_tamed() {
        for (line, wanted) in [
            ("PEXPIRE k 5", "PEXPIRE k 50000000"),
            ("PEXPIRE k -5 NX", "PEXPIRE k -5 NX"),
            ("SET 5 5 Px 5", "SET 5 5 Px 50000000"),
            ("SADD k 1 1 1 1 1 1 1 1 1", "SADD k 1 1 1 1 1 1 1 1"),
            ("SORT k BY DESC", "SORT k BY n*"),
            (
                "LPOS l 1 RANK -9223372036854775808",
                "LPOS l 1 RANK -9223372036854775807",
            ),
        ] {
            let mut words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            tame(&mut words);
            assert_eq!(words.join(&b' '), wanted.as_bytes());
        }
    }

    #[test]
    fn every_template_comes_up_and_no_blank_is_left() {
        let commands = some(7);
        for (_, _, template) in FAMILIES.concat() {
            let names: Vec<&str> = template
                .split(' ')
                .next()
                .unwrap_or_default()
                .split('|')
                .collect();
            if names == ["word"] {
                continue;
            }
            let is_said = |command: &Command| {
                names
                    .iter()
                    .any(|name| command.words[0].eq_ignore_ascii_case(name.as_bytes()))
            };
            assert!(commands.iter().any(is_said), "{template}");
        }
        // None that is an option as well: damage makes small letters of those.
        let blanks: &[&[u8]] = &[
            b"key",
            b"value",
            b"seconds",
            b"operation",
            b"pair",
            b"place",
            b"present",
            b"list",
            b"hash",
            b"zset",
            b"member",
            b"field",
            b"scored",
            b"score",
            b"draws",
            b"next",
            b"entry",
            b"after",
            b"about",
            b"spot",
            b"timeout",
            b"consumer",
        ];
        assert!(
            commands
                .iter()
                .flat_map(|command| &command.words)
                .all(|word| !blanks.contains(&word.as_slice()))
        );
    }
}
