//! `cjson.decode`, without recursion.

use mlua::{LightUserData, Lua, Result, Value};

use crate::error::plain;
use crate::library::build::{Builder, Form};
use crate::library::json_encode::{Progress, Settings};
use crate::limits::JSON_DEPTH_MAX;

/// The smallest unit of a text with a meaning.
#[derive(Debug, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Error(&'static str),
}

impl Token {
    /// Name of the token in errors.
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Error(text) => text,
        }
    }
}

/// Tokens that may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Value,
    /// A value or the end of an array that has just begun.
    FirstItem,
    /// A key or the end of an object that has just begun.
    FirstKey,
    Key,
    Separator,
}

struct Decoder<'a, P> {
    text: &'a [u8],
    at: usize,
    /// Place of the last token, from 0.
    token_at: usize,
    settings: &'a Settings,
    progress: &'a P,
}

/// Decodes a text.
pub(crate) fn decode<P: Progress>(
    lua: &Lua,
    text: &[u8],
    settings: &Settings,
    progress: &P,
) -> Result<Value> {
    // UTF-16 and UTF-32 have zero bytes among the first two characters.
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(plain("JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut decoder = Decoder {
        text,
        at: 0,
        token_at: 0,
        settings,
        progress,
    };
    decoder.document(lua)
}

impl<P: Progress> Decoder<'_, P> {
    fn document(&mut self, lua: &Lua) -> Result<Value> {
        let mut builder = Builder::new(lua);
        let mut wanted = Wanted::Value;
        loop {
            self.progress.progressed(0)?;
            let token = self.token();
            let done = match (wanted, token) {
                (Wanted::FirstKey, Token::ObjectEnd) | (Wanted::FirstItem, Token::ArrayEnd) => {
                    builder.close()?
                }
                (Wanted::FirstKey | Wanted::Key, token) => {
                    self.key(lua, &mut builder, token)?;
                    wanted = Wanted::Value;
                    continue;
                }
                (Wanted::Separator, token) => match self.separator(&builder, &token)? {
                    Some(next) => {
                        wanted = next;
                        continue;
                    }
                    None => builder.close()?,
                },
                (Wanted::Value | Wanted::FirstItem, Token::ObjectBegin) => {
                    self.descend(&builder)?;
                    builder.open(Form::Map)?;
                    wanted = Wanted::FirstKey;
                    continue;
                }
                (Wanted::Value | Wanted::FirstItem, Token::ArrayBegin) => {
                    self.descend(&builder)?;
                    builder.open(Form::Sequence)?;
                    wanted = Wanted::FirstItem;
                    continue;
                }
                (Wanted::Value | Wanted::FirstItem, token) => builder.put(self.scalar(lua, token)?)?,
            };
            if let Some(document) = done {
                return self.end(document);
            }
            wanted = Wanted::Separator;
        }
    }

    /// Reads a key with its colon.
    fn key(&mut self, lua: &Lua, builder: &mut Builder<'_>, token: Token) -> Result<()> {
        let Token::Text(key) = token else {
            return Err(self.unexpected("object key string", &token));
        };
        builder.put(Value::String(lua.create_string(&key)?))?;
        match self.token() {
            Token::Colon => Ok(()),
            other => Err(self.unexpected("colon", &other)),
        }
    }

    /// Tokens that may come after a separator; `None` if it ends the innermost table.
    fn separator(&self, builder: &Builder<'_>, token: &Token) -> Result<Option<Wanted>> {
        match (builder.form(), token) {
            (Some(Form::Sequence), Token::Comma) => Ok(Some(Wanted::Value)),
            (Some(Form::Map), Token::Comma) => Ok(Some(Wanted::Key)),
            (Some(Form::Sequence), Token::ArrayEnd) | (Some(Form::Map), Token::ObjectEnd) => Ok(None),
            (Some(Form::Sequence), other) => Err(self.unexpected("comma or array end", other)),
            (_, other) => Err(self.unexpected("comma or object end", other)),
        }
    }

    fn scalar(&self, lua: &Lua, token: Token) -> Result<Value> {
        Ok(match token {
            Token::Text(text) => Value::String(lua.create_string(&text)?),
            Token::Number(number) => Value::Number(number),
            Token::Boolean(boolean) => Value::Boolean(boolean),
            Token::Null => Value::LightUserData(LightUserData(std::ptr::null_mut())),
            other => return Err(self.unexpected("value", &other)),
        })
    }

    fn end(&mut self, document: Value) -> Result<Value> {
        match self.token() {
            Token::End => Ok(document),
            other => Err(self.unexpected("the end", &other)),
        }
    }

    fn descend(&self, builder: &Builder<'_>) -> Result<()> {
        let depth = builder.depth() + 1;
        let bound = usize::try_from(self.settings.decode_depth.get()).unwrap_or(usize::MAX);
        if depth <= bound.min(JSON_DEPTH_MAX) {
            return Ok(());
        }
        Err(plain(format!(
            "Found too many nested data structures ({depth}) at character {}",
            self.at
        )))
    }

    fn unexpected(&self, wanted: &str, found: &Token) -> mlua::Error {
        plain(format!(
            "Expected {wanted} but found {} at character {}",
            found.name(),
            self.token_at + 1
        ))
    }

    /// The byte at a place; zero behind the end, as behind the strings of C.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    /// Reads the next token.
    fn token(&mut self) -> Token {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let single = match self.byte(self.at) {
            0 => return Token::End,
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'"' => return self.string(),
            _ => return self.word(),
        };
        self.at += 1;
        single
    }

    /// Reads a number or a name.
    fn word(&mut self) -> Token {
        let rest = &self.text[self.at..];
        let accepts_invalid = self.settings.decode_invalid.get();
        if rest[0] == b'-' || rest[0].is_ascii_digit() {
            return if !accepts_invalid && is_invalid_number(rest) {
                Token::Error("invalid number")
            } else {
                self.number()
            };
        }
        for (name, token) in [
            (&b"true"[..], Token::Boolean(true)),
            (b"false", Token::Boolean(false)),
            (b"null", Token::Null),
        ] {
            if rest.starts_with(name) {
                self.at += name.len();
                return token;
            }
        }
        let may_be_number = matches!(rest[0], b'+' | b'i' | b'I' | b'n' | b'N');
        if accepts_invalid && may_be_number && is_invalid_number(rest) {
            self.number()
        } else {
            Token::Error("invalid token")
        }
    }

    fn number(&mut self) -> Token {
        match number_prefix(&self.text[self.at..]) {
            Some((number, len)) => {
                self.at += len;
                Token::Number(number)
            }
            None => Token::Error("invalid number"),
        }
    }

    fn string(&mut self) -> Token {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            match self.byte(self.at) {
                b'"' => break,
                0 => return self.error_here("unexpected end of string"),
                b'\\' => match self.escape(&mut text) {
                    Ok(len) => self.at += len,
                    Err(error) => return self.error_here(error),
                },
                byte => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        Token::Text(text)
    }

    fn error_here(&mut self, text: &'static str) -> Token {
        self.token_at = self.at;
        Token::Error(text)
    }

    /// Reads an escape; returns its length.
    fn escape(&self, text: &mut Vec<u8>) -> std::result::Result<usize, &'static str> {
        let plain = match self.byte(self.at + 1) {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'b' => 0x08,
            b't' => b'\t',
            b'n' => b'\n',
            b'f' => 0x0c,
            b'r' => b'\r',
            b'u' => return self.unicode(text).ok_or("invalid unicode escape code"),
            _ => return Err("invalid escape code"),
        };
        text.push(plain);
        Ok(2)
    }

    /// Reads four hexadecimal digits, or two times four for a character beyond 16 bits.
    fn unicode(&self, text: &mut Vec<u8>) -> Option<usize> {
        let first = self.hex4(self.at + 2)?;
        let (code, len) = if first & 0xF800 == 0xD800 {
            if first & 0x400 != 0 || self.byte(self.at + 6) != b'\\' || self.byte(self.at + 7) != b'u' {
                return None;
            }
            let second = self.hex4(self.at + 8).filter(|low| low & 0xFC00 == 0xDC00)?;
            (0x1_0000 + ((first & 0x3FF) << 10 | (second & 0x3FF)), 12)
        } else {
            (first, 6)
        };
        let character = char::from_u32(code)?;
        text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        Some(len)
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        (at..at + 4).try_fold(0, |code, at| {
            let digit = char::from(self.byte(at)).to_digit(16)?;
            Some(code << 4 | digit)
        })
    }
}

/// Whether a number is one that JSON does not know: hexadecimal, with a plus or a zero in front, infinite or not a
/// number.
fn is_invalid_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return true;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let begins = |word: &[u8]| {
        digits
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    match (digits.first(), digits.get(1)) {
        (Some(b'0'), Some(next)) => matches!(next, b'x' | b'X') || next.is_ascii_digit(),
        (Some(first), _) if *first <= b'9' => false,
        _ => begins(b"inf") || begins(b"nan"),
    }
}

/// The number at the beginning of a text, as C's `strtod` reads it, and its length.
fn number_prefix(text: &[u8]) -> Option<(f64, usize)> {
    let sign_len = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let is_negative = text.first() == Some(&b'-');
    let digits = &text[sign_len..];
    let begins = |word: &[u8]| {
        digits
            .get(..word.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(word))
    };
    let (magnitude, len) = if begins(b"infinity") {
        (f64::INFINITY, 8)
    } else if begins(b"inf") {
        (f64::INFINITY, 3)
    } else if begins(b"nan") {
        (f64::NAN, 3)
    } else if begins(b"0x") && digits.get(2).is_some_and(u8::is_ascii_hexdigit) {
        hexadecimal_prefix(digits)
    } else {
        decimal_prefix(digits)?
    };
    Some((if is_negative { -magnitude } else { magnitude }, sign_len + len))
}

fn decimal_prefix(text: &[u8]) -> Option<(f64, usize)> {
    let digits_from = |at: usize| text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits_from(0);
    let mut len = whole;
    if text.get(len) == Some(&b'.') {
        let fraction = digits_from(len + 1);
        if whole + fraction == 0 {
            return None;
        }
        len += 1 + fraction;
    } else if whole == 0 {
        return None;
    }
    if matches!(text.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(len + 1), Some(b'-' | b'+')));
        let exponent = text
            .get(len + 1 + sign)
            .map_or(0, |_| digits_from(len + 1 + sign));
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    let number = std::str::from_utf8(&text[..len]).ok()?.parse().ok()?;
    Some((number, len))
}

/// A hexadecimal number with optional fraction and binary exponent. Its caller has seen the first digit.
fn hexadecimal_prefix(text: &[u8]) -> (f64, usize) {
    let (mut value, mut scale, mut len) = (0.0_f64, 0_i32, 2);
    let mut is_fraction = false;
    while let Some(&byte) = text.get(len) {
        match char::from(byte).to_digit(16) {
            Some(digit) => {
                value = value * 16.0 + f64::from(digit);
                scale -= if is_fraction { 4 } else { 0 };
            }
            None if byte == b'.' && !is_fraction => is_fraction = true,
            None => break,
        }
        len += 1;
    }
    if matches!(text.get(len), Some(b'p' | b'P'))
        && let Some((exponent, exponent_len)) = decimal_exponent(&text[len + 1..])
    {
        scale = scale.saturating_add(exponent);
        len += 1 + exponent_len;
    }
    (value * f64::from(scale).exp2(), len)
}

fn decimal_exponent(text: &[u8]) -> Option<(i32, usize)> {
    let sign = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = text[sign..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let exponent = std::str::from_utf8(&text[..sign + digits]).ok()?.parse().ok()?;
    Some((exponent, sign + digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_in_c() {
        for (text, number, len) in [
            ("12,", 12.0, 2),
            ("-1.5e3]", -1500.0, 6),
            ("1e", 1.0, 1),
            ("1.", 1.0, 2),
            ("0x10", 16.0, 4),
            ("0x1.8p1", 3.0, 7),
            ("0x", 0.0, 1),
            ("-inf", f64::NEG_INFINITY, 4),
            ("01", 1.0, 2),
        ] {
            assert_eq!(number_prefix(text.as_bytes()), Some((number, len)), "{text}");
        }
        assert_eq!(number_prefix(b"-"), None);
        assert_eq!(number_prefix(b"."), None);
    }
}
