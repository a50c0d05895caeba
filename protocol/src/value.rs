//! The client's side: an incremental parser of replies, RESP2 and RESP3, and the values it makes.
//!
//! It serves links to other servers and tests, where a reply is wanted as one value. Promises: no byte is looked at
//! twice, however small the pieces in which a reply arrives; nesting is not recursion; lengths, depth and the number of
//! elements are bounded ([`ValueLimits`]), and nothing is reserved for what was merely announced.

use std::fmt;

use crate::error::ValueError;
use crate::integer;
use crate::limits::ValueLimits;

/// One reply. Strings are bytes: they need not be text.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`: a short word such as `OK`.
    Simple(Vec<u8>),
    /// `-`, or `!` in RESP3: an error, its code first.
    Error(Vec<u8>),
    /// `:`
    Integer(i64),
    /// `$`: a string.
    Bulk(Vec<u8>),
    /// `_`, or `$-1` in RESP2.
    Null,
    /// `*-1`, in RESP2 only.
    NullArray,
    /// `,`
    Double(f64),
    /// `#`
    Boolean(bool),
    /// `(`: an integer of any size, as text.
    BigNumber(Vec<u8>),
    /// `=`: a text to be shown as it is.
    Verbatim {
        /// Format of the text.
        format: [u8; 3],
        /// The text.
        text: Vec<u8>,
    },
    /// `*`
    Array(Vec<Value>),
    /// `%`: keys and values, in the order in which they came.
    Map(Vec<(Value, Value)>),
    /// `~`
    Set(Vec<Value>),
    /// `>`: a push message.
    Push(Vec<Value>),
    /// `|`: keys and values about the value that follows.
    Attribute {
        /// In the order in which they came.
        attributes: Vec<(Value, Value)>,
        /// The value they describe.
        value: Box<Value>,
    },
}

impl Value {
    /// The bytes of a string of any kind.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Simple(bytes) | Value::Bulk(bytes) | Value::BigNumber(bytes) => Some(bytes),
            Value::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// The parser of the replies that come over one connection.
#[derive(Debug, Default)]
pub struct ReplyParser {
    limits: ValueLimits,
    /// Number of bytes of the current reply that have become values.
    at: usize,
    /// Number of bytes from `at` on that do not contain the end of the line.
    searched: usize,
    /// Number of values the current reply has announced.
    elements: usize,
    /// The incomplete aggregates, the outermost first.
    open: Vec<Open>,
}

/// An aggregate with missing elements.
#[derive(Debug)]
struct Open {
    kind: Kind,
    /// Number of elements still to come, at least one.
    missing: usize,
    elements: Vec<Value>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Array,
    Map,
    Set,
    Push,
    /// The last element is the value that the others describe.
    Attribute,
}

/// Item that begins at a place in the input.
enum Item {
    Value(Value),
    /// An aggregate of so many elements, at least one.
    Aggregate(Kind, usize),
}

impl ReplyParser {
    /// A parser at the beginning of a connection.
    #[must_use]
    pub fn new(limits: ValueLimits) -> Self {
        ReplyParser {
            limits,
            ..ReplyParser::default()
        }
    }

    /// Parses the reply at the front of `input`, and returns it with its number of bytes. `None` if it is incomplete:
    /// then all of `input` must be presented again, followed by newer bytes.
    ///
    /// # Errors
    /// At the first byte that violates the protocol. The connection must be closed then.
    pub fn parse(&mut self, input: &[u8]) -> Result<Option<(Value, usize)>, ValueError> {
        while let Some((item, end)) = self.item(input)? {
            (self.at, self.searched) = (end, end);
            let complete = match item {
                Item::Value(value) => self.complete(value),
                Item::Aggregate(kind, missing) => {
                    if self.open.len() >= self.limits.depth_max {
                        return Err(ValueError::TooDeep);
                    }
                    self.open.push(Open {
                        kind,
                        missing,
                        elements: Vec::new(),
                    });
                    None
                }
            };
            if let Some(value) = complete {
                (self.at, self.searched, self.elements) = (0, 0, 0);
                return Ok(Some((value, end)));
            }
        }
        Ok(None)
    }

    /// Adds `value` to the innermost aggregate. Returns the reply if that completes it.
    fn complete(&mut self, mut value: Value) -> Option<Value> {
        while let Some(mut open) = self.open.pop() {
            open.elements.push(value);
            open.missing -= 1;
            if open.missing > 0 {
                self.open.push(open);
                return None;
            }
            value = open.kind.value(open.elements);
        }
        Some(value)
    }

    /// Reads the item at the current position, and returns it with the position of the next one.
    fn item(&mut self, input: &[u8]) -> Result<Option<(Item, usize)>, ValueError> {
        let rest = input.get(self.at..).unwrap_or(&[]);
        let Some(cr) = self.line_end(rest)? else {
            return Ok(None);
        };
        let (kind, text, line_bytes) = (rest[0], &rest[1..cr], cr + 2);
        let value = match kind {
            b'+' => Value::Simple(text.to_vec()),
            b'-' => Value::Error(text.to_vec()),
            b':' => Value::Integer(integer::parse(text).ok_or(ValueError::InvalidScalar)?),
            b',' => Value::Double(double(text)?),
            b'#' => Value::Boolean(boolean(text)?),
            b'(' => Value::BigNumber(big_number(text)?),
            b'_' if text.is_empty() => Value::Null,
            b'_' => return Err(ValueError::InvalidScalar),
            b'$' if text == b"-1" => Value::Null,
            b'*' if text == b"-1" => Value::NullArray,
            b'$' | b'!' | b'=' => {
                let len = length(text, self.limits.bulk_bytes_max)?;
                let Some(payload) = payload(&rest[line_bytes..], len)? else {
                    return Ok(None);
                };
                let end = self.at + line_bytes + len + 2;
                return Ok(Some((Item::Value(bulk(kind, payload)?), end)));
            }
            b'*' | b'%' | b'~' | b'>' | b'|' => {
                let item = self.aggregate(kind, text)?;
                return Ok(Some((item, self.at + line_bytes)));
            }
            other => return Err(ValueError::UnknownType(other)),
        };
        Ok(Some((Item::Value(value), self.at + line_bytes)))
    }

    /// Finds the carriage return that ends the line at the front of `rest`.
    fn line_end(&mut self, rest: &[u8]) -> Result<Option<usize>, ValueError> {
        let window = &rest[..rest.len().min(self.limits.line_bytes_max)];
        let searched = (self.searched - self.at).min(window.len());
        let cr = memchr::memchr(b'\r', &window[searched..]).map(|index| searched + index);
        match cr {
            // A line has a type byte at least.
            Some(0) => Err(ValueError::InvalidLine),
            Some(cr) if rest.get(cr + 1) == Some(&b'\n') => {
                self.searched = self.at + cr;
                Ok(Some(cr))
            }
            Some(cr) if cr + 1 == rest.len() => {
                self.searched = self.at + cr;
                Ok(None)
            }
            None if rest.len() < self.limits.line_bytes_max => {
                self.searched = self.at + rest.len();
                Ok(None)
            }
            _ => Err(ValueError::InvalidLine),
        }
    }

    /// The aggregate whose length is `text`; an empty one is complete.
    fn aggregate(&mut self, kind: u8, text: &[u8]) -> Result<Item, ValueError> {
        let (kind, width, extra) = match kind {
            b'*' => (Kind::Array, 1, 0),
            b'~' => (Kind::Set, 1, 0),
            b'>' => (Kind::Push, 1, 0),
            b'%' => (Kind::Map, 2, 0),
            _ => (Kind::Attribute, 2, 1),
        };
        let missing = length(text, usize::MAX / 2 - 1)? * width + extra;
        self.elements = self.elements.saturating_add(missing);
        if self.elements > self.limits.elements_max {
            return Err(ValueError::TooManyElements);
        }
        Ok(if missing == 0 {
            Item::Value(kind.value(Vec::new()))
        } else {
            Item::Aggregate(kind, missing)
        })
    }
}

impl Kind {
    fn value(self, mut elements: Vec<Value>) -> Value {
        match self {
            Kind::Array => Value::Array(elements),
            Kind::Set => Value::Set(elements),
            Kind::Push => Value::Push(elements),
            Kind::Map => Value::Map(pairs(elements)),
            Kind::Attribute => {
                let value = Box::new(elements.pop().unwrap_or(Value::Null));
                Value::Attribute {
                    attributes: pairs(elements),
                    value,
                }
            }
        }
    }
}

fn pairs(elements: Vec<Value>) -> Vec<(Value, Value)> {
    let mut elements = elements.into_iter();
    let mut pairs = Vec::with_capacity(elements.len() / 2);
    while let (Some(key), Some(value)) = (elements.next(), elements.next()) {
        pairs.push((key, value));
    }
    pairs
}

fn length(text: &[u8], max: usize) -> Result<usize, ValueError> {
    integer::parse(text)
        .and_then(|length| usize::try_from(length).ok())
        .filter(|&length| length <= max)
        .ok_or(ValueError::InvalidLength)
}

/// The `len` bytes at the front of `rest`, once they and the end of the line behind them have arrived.
fn payload(rest: &[u8], len: usize) -> Result<Option<&[u8]>, ValueError> {
    match rest.split_at_checked(len) {
        Some((payload, [b'\r', b'\n', ..])) => Ok(Some(payload)),
        Some((_, [b'\r'] | [])) | None => Ok(None),
        Some(_) => Err(ValueError::UnterminatedBulk),
    }
}

/// The value of a string with a length.
fn bulk(kind: u8, payload: &[u8]) -> Result<Value, ValueError> {
    match (kind, payload) {
        (b'$', _) => Ok(Value::Bulk(payload.to_vec())),
        (b'!', _) => Ok(Value::Error(payload.to_vec())),
        (_, [a, b, c, b':', text @ ..]) => Ok(Value::Verbatim {
            format: [*a, *b, *c],
            text: text.to_vec(),
        }),
        _ => Err(ValueError::InvalidScalar),
    }
}

fn double(text: &[u8]) -> Result<f64, ValueError> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(ValueError::InvalidScalar)
}

fn boolean(text: &[u8]) -> Result<bool, ValueError> {
    match text {
        b"t" => Ok(true),
        b"f" => Ok(false),
        _ => Err(ValueError::InvalidScalar),
    }
}

fn big_number(text: &[u8]) -> Result<Vec<u8>, ValueError> {
    let digits = text
        .strip_prefix(b"-")
        .or_else(|| text.strip_prefix(b"+"))
        .unwrap_or(text);
    let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if valid {
        Ok(text.to_vec())
    } else {
        Err(ValueError::InvalidScalar)
    }
}

/// Readable, in the manner of a command line client: strings in quotes, elements numbered, nesting by indentation.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_at(f, 0)
    }
}

impl Value {
    fn fmt_at(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Value::Simple(text) => write!(f, "{}", text.escape_ascii()),
            Value::Error(line) => write!(f, "(error) {}", line.escape_ascii()),
            Value::Integer(value) => write!(f, "(integer) {value}"),
            Value::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Value::Null => f.write_str("(nil)"),
            Value::NullArray => f.write_str("(nil array)"),
            Value::Double(value) => write!(f, "(double) {value}"),
            Value::Boolean(value) => write!(f, "({value})"),
            Value::BigNumber(digits) => write!(f, "(big number) {}", digits.escape_ascii()),
            Value::Verbatim { format, text } => {
                write!(f, "({}) \"{}\"", format.escape_ascii(), text.escape_ascii())
            }
            Value::Array(elements) => fmt_list(f, indent, "array", ")", elements),
            Value::Set(elements) => fmt_list(f, indent, "set", "~", elements),
            Value::Push(elements) => fmt_list(f, indent, "push", ">", elements),
            Value::Map(pairs) => fmt_pairs(f, indent, "hash", "#", pairs),
            Value::Attribute { attributes, value } => {
                fmt_pairs(f, indent, "attribute", "|", attributes)?;
                new_line(f, indent)?;
                value.fmt_at(f, indent)
            }
        }
    }
}

/// The width of the numbers in front of `len` elements.
fn number_width(len: usize) -> usize {
    len.checked_ilog10().map_or(1, |digits| digits as usize + 1)
}

fn new_line(f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
    write!(f, "\n{:indent$}", "")
}

fn fmt_list(
    f: &mut fmt::Formatter<'_>,
    indent: usize,
    name: &str,
    mark: &str,
    elements: &[Value],
) -> fmt::Result {
    if elements.is_empty() {
        return write!(f, "(empty {name})");
    }
    let width = number_width(elements.len());
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            new_line(f, indent)?;
        }
        write!(f, "{:width$}{mark} ", index + 1)?;
        element.fmt_at(f, indent + width + 2)?;
    }
    Ok(())
}

fn fmt_pairs(
    f: &mut fmt::Formatter<'_>,
    indent: usize,
    name: &str,
    mark: &str,
    pairs: &[(Value, Value)],
) -> fmt::Result {
    if pairs.is_empty() {
        return write!(f, "(empty {name})");
    }
    let width = number_width(pairs.len());
    for (index, (key, value)) in pairs.iter().enumerate() {
        if index > 0 {
            new_line(f, indent)?;
        }
        write!(f, "{:width$}{mark} ", index + 1)?;
        key.fmt_at(f, indent + width + 2)?;
        f.write_str(" => ")?;
        value.fmt_at(f, indent + width + 2)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::{Encoder, Resp};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn parse(input: &[u8]) -> Result<Option<(Value, usize)>, ValueError> {
        ReplyParser::default().parse(input)
    }

    fn text(text: &str) -> Value {
        Value::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn every_type_is_understood() {
        for (input, value) in [
            (&b"+OK\r\n"[..], Value::Simple(b"OK".to_vec())),
            (b"-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
            (b"!6\r\nERR no\r\n", Value::Error(b"ERR no".to_vec())),
            (b":-7\r\n", Value::Integer(-7)),
            (b"$2\r\n\r\n\r\n", text("\r\n")),
            (b"$-1\r\n", Value::Null),
            (b"*-1\r\n", Value::NullArray),
            (b"_\r\n", Value::Null),
            (b",1e+22\r\n", Value::Double(1e22)),
            (b",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
            (b"#t\r\n", Value::Boolean(true)),
            (b"(-123\r\n", Value::BigNumber(b"-123".to_vec())),
            (
                b"=5\r\ntxt:a\r\n",
                Value::Verbatim {
                    format: *b"txt",
                    text: b"a".to_vec(),
                },
            ),
            (b"*0\r\n", Value::Array(vec![])),
            (
                b"*2\r\n*1\r\n:1\r\n_\r\n",
                Value::Array(vec![Value::Array(vec![Value::Integer(1)]), Value::Null]),
            ),
            (b"~1\r\n:1\r\n", Value::Set(vec![Value::Integer(1)])),
            (b">1\r\n:1\r\n", Value::Push(vec![Value::Integer(1)])),
            (
                b"%1\r\n:1\r\n:2\r\n",
                Value::Map(vec![(Value::Integer(1), Value::Integer(2))]),
            ),
            (
                b"|1\r\n+k\r\n:1\r\n*0\r\n",
                Value::Attribute {
                    attributes: vec![(Value::Simple(b"k".to_vec()), Value::Integer(1))],
                    value: Box::new(Value::Array(vec![])),
                },
            ),
        ] {
            let mut more = input.to_vec();
            more.extend_from_slice(b"+more");
            assert_eq!(
                parse(&more),
                Ok(Some((value, input.len()))),
                "{}",
                input.escape_ascii()
            );
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (input, error) in [
            (&b"?\r\n"[..], ValueError::UnknownType(b'?')),
            (b"\r\n", ValueError::InvalidLine),
            (b"+a\rb\r\n", ValueError::InvalidLine),
            (b":x\r\n", ValueError::InvalidScalar),
            (b":01\r\n", ValueError::InvalidScalar),
            (b"_x\r\n", ValueError::InvalidScalar),
            (b"#x\r\n", ValueError::InvalidScalar),
            (b",x\r\n", ValueError::InvalidScalar),
            (b"(1x\r\n", ValueError::InvalidScalar),
            (b"(-\r\n", ValueError::InvalidScalar),
            (b"=3\r\ntxt\r\n", ValueError::InvalidScalar),
            (b"$-2\r\n", ValueError::InvalidLength),
            (b"%-1\r\n", ValueError::InvalidLength),
            (b"*9223372036854775807\r\n", ValueError::InvalidLength),
            (b"*2147483648\r\n", ValueError::TooManyElements),
            (b"$1\r\nabc", ValueError::UnterminatedBulk),
        ] {
            assert_eq!(parse(input), Err(error), "{}", input.escape_ascii());
        }
    }

    #[test]
    fn limits_hold() {
        let limits = ValueLimits {
            bulk_bytes_max: 3,
            line_bytes_max: 5,
            elements_max: 4,
            depth_max: 2,
        };
        for (input, outcome) in [
            (&b"$3\r\nabc\r\n"[..], Ok(true)),
            (b"$4\r\n", Err(ValueError::InvalidLength)),
            (b"+abcd\r\n", Err(ValueError::InvalidLine)),
            (b"+abc\r\n", Ok(true)),
            (b"+abcd", Err(ValueError::InvalidLine)),
            (b"+abc", Ok(false)),
            (b"*1\r\n*1\r\n:1\r\n", Ok(true)),
            (b"*1\r\n*1\r\n*1\r\n", Err(ValueError::TooDeep)),
            (b"*3\r\n:1\r\n*2\r\n", Err(ValueError::TooManyElements)),
        ] {
            let got = ReplyParser::new(limits).parse(input).map(|reply| reply.is_some());
            assert_eq!(got, outcome, "{}", input.escape_ascii());
        }
    }

    #[test]
    fn values_are_shown_as_a_command_line_client_does() {
        let value = Value::Array(vec![
            Value::Integer(1),
            Value::Array(vec![text("a\"\n"), Value::Array(vec![])]),
            Value::Map(vec![
                (text("k"), Value::Null),
                (text("l"), Value::Set(vec![Value::Boolean(true)])),
            ]),
            Value::Attribute {
                attributes: vec![(text("k"), Value::Double(0.5))],
                value: Box::new(Value::NullArray),
            },
        ]);
        let shown = "\
1) (integer) 1
2) 1) \"a\\\"\\n\"
   2) (empty array)
3) 1# \"k\" => (nil)
   2# \"l\" => 1~ (true)
4) 1| \"k\" => (double) 0.5
   (nil array)";
        assert_eq!(value.to_string(), shown);
        let ten = Value::Array(vec![Value::Error(b"ERR".to_vec()); 10]).to_string();
        assert!(ten.starts_with(" 1) (error) ERR\n 2) "), "{ten}");
        assert!(ten.ends_with("\n10) (error) ERR"), "{ten}");
    }

    /// Writes `value` as a handler would.
    fn encode(value: &Value, encoder: &mut Encoder<'_>) {
        let all = |values: &[Value], encoder: &mut Encoder<'_>| {
            values.iter().for_each(|value| encode(value, encoder));
        };
        let both = |pairs: &[(Value, Value)], encoder: &mut Encoder<'_>| {
            for (key, value) in pairs {
                encode(key, encoder);
                encode(value, encoder);
            }
        };
        match value {
            Value::Simple(text) => encoder.simple(text),
            Value::Error(line) => encoder.error(line),
            Value::Integer(value) => encoder.integer(*value),
            Value::Bulk(bytes) => encoder.bulk(bytes),
            Value::Null => encoder.null(),
            Value::NullArray => encoder.null_array(),
            Value::Double(value) => encoder.double(format!("{value:?}").as_bytes()),
            Value::Boolean(value) => encoder.boolean(*value),
            Value::BigNumber(digits) => encoder.big_number(std::str::from_utf8(digits).unwrap()),
            Value::Verbatim { format, text } => encoder.verbatim(*format, text),
            Value::Array(elements) => {
                encoder.array(elements.len());
                all(elements, encoder);
            }
            Value::Set(elements) => {
                let set = encoder.deferred_set(0);
                all(elements, encoder);
                encoder.close(set, elements.len());
            }
            Value::Push(elements) => {
                encoder.push(elements.len());
                all(elements, encoder);
            }
            Value::Map(pairs) => {
                let map = encoder.deferred_map(1000);
                both(pairs, encoder);
                encoder.close(map, pairs.len());
            }
            Value::Attribute { attributes, value } => {
                if encoder.attribute(attributes.len()) {
                    both(attributes, encoder);
                }
                encode(value, encoder);
            }
        }
    }

    /// Form of `value` after it has travelled as RESP2.
    fn plain(value: &Value) -> Value {
        let flat = |pairs: &[(Value, Value)]| pairs.iter().flat_map(|(k, v)| [plain(k), plain(v)]).collect();
        match value {
            Value::Double(value) => Value::Bulk(format!("{value:?}").into_bytes()),
            Value::Boolean(value) => Value::Integer(i64::from(*value)),
            Value::BigNumber(text) | Value::Verbatim { text, .. } => Value::Bulk(text.clone()),
            Value::Array(elements) | Value::Set(elements) | Value::Push(elements) => {
                Value::Array(elements.iter().map(plain).collect())
            }
            Value::Map(pairs) => Value::Array(flat(pairs)),
            Value::Attribute { value, .. } => plain(value),
            other => other.clone(),
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let line = || "[ -~]{0,12}".prop_map(String::into_bytes);
        let leaf = prop_oneof![
            line().prop_map(Value::Simple),
            line().prop_map(Value::Error),
            any::<i64>().prop_map(Value::Integer),
            vec(any::<u8>(), 0..150).prop_map(Value::Bulk),
            Just(Value::Null),
            any::<f64>()
                .prop_filter("equal to itself", |value| !value.is_nan())
                .prop_map(Value::Double),
            any::<bool>().prop_map(Value::Boolean),
            "-?[1-9][0-9]{0,40}".prop_map(|digits| Value::BigNumber(digits.into_bytes())),
            (any::<[u8; 3]>(), vec(any::<u8>(), 0..20))
                .prop_map(|(format, text)| Value::Verbatim { format, text }),
        ];
        leaf.prop_recursive(4, 60, 12, |inner| {
            let pairs = || vec((inner.clone(), inner.clone()), 0..7);
            prop_oneof![
                vec(inner.clone(), 0..12).prop_map(Value::Array),
                vec(inner.clone(), 0..12).prop_map(Value::Set),
                vec(inner.clone(), 0..12).prop_map(Value::Push),
                pairs().prop_map(Value::Map),
                (pairs(), inner.clone()).prop_map(|(attributes, value)| Value::Attribute {
                    attributes,
                    value: Box::new(value)
                }),
            ]
        })
    }

    /// Feeds `input` in the given pieces (a byte at a time once they are used up), and returns what comes first.
    fn trickle(input: &[u8], pieces: &[usize]) -> Result<Option<(Value, usize)>, ValueError> {
        let mut parser = ReplyParser::default();
        let mut end = 0;
        let mut pieces = pieces.iter();
        while end < input.len() {
            end = (end + pieces.next().copied().unwrap_or(1)).min(input.len());
            if let Some(reply) = parser.parse(&input[..end])? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    proptest! {
        #[test]
        fn what_was_encoded_reads_back(value in any_value(), pieces in vec(1usize..40, 0..40)) {
            for (resp, expected) in [(Resp::V2, plain(&value)), (Resp::V3, value.clone())] {
                let mut bytes = Vec::new();
                encode(&value, &mut Encoder::new(&mut bytes, resp));
                prop_assert_eq!(parse(&bytes), Ok(Some((expected.clone(), bytes.len()))));
                prop_assert_eq!(trickle(&bytes, &pieces), Ok(Some((expected, bytes.len()))));
                prop_assert_eq!(parse(&bytes[..bytes.len() - 1]), Ok(None));
            }
        }

        #[test]
        fn garbage_gives_one_answer_however_it_arrives(
            bytes in vec(prop_oneof![
                any::<u8>(), Just(b'\r'), Just(b'\n'), b'0'..=b'3',
                proptest::sample::select(&b"+-:$_,#(!=*%~>|"[..]),
            ], 0..60),
            pieces in vec(1usize..10, 0..20),
        ) {
            let whole = parse(&bytes);
            if let Ok(Some((_, consumed))) = whole {
                prop_assert!(consumed <= bytes.len());
            }
            // Debug output, because a double may be no number.
            prop_assert_eq!(format!("{:?}", trickle(&bytes, &pieces)), format!("{:?}", whole));
        }
    }
}
