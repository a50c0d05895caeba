//! Requests that are encoded once and then only have their numbers changed.
//!
//! A row's command is written as words: `SET key:{rand:1000000} {value:64}`. It is encoded as RESP as often as the
//! pipeline is deep, in one buffer; before each write the digits of every `{rand:N}` are overwritten in place. All
//! commands of a template therefore have the same length, a prefix of the buffer is a shorter pipeline, and a request
//! costs the generator two small copies. (A ring of ready-made pipelines was the alternative: as many cycles, since it
//! is read from memory each time, and it would push the server's data out of a shared cache.)
//!
//! | in a word | becomes |
//! |---|---|
//! | `{key}` | `key:` and a number below one million in twelve digits: sixteen bytes |
//! | `{rand:N}` | a number below N (at most 10^12), in twelve digits |
//! | `{value:N}` | N bytes |
//! | `[ words ]*N` | the words N times, each with numbers of its own |

use std::fmt;
use std::iter::repeat_n;

/// Number of keys that `{key}` chooses from.
pub(crate) const KEYS: u64 = 1_000_000;
/// Every number has as many digits.
const DIGITS: usize = 12;

/// A pipeline of one command, ready to be written.
pub(crate) struct Template {
    bytes: Vec<u8>,
    command_bytes: usize,
    pipeline: usize,
    /// The numbers of the first command; those of command `i` lie `i * command_bytes` further.
    slots: Vec<Slot>,
    numbers: Numbers,
}

/// Position and range of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    offset: usize,
    below: u64,
}

/// Source of a template's numbers.
enum Numbers {
    /// Uniform, from the state of a SplitMix64 generator (Steele, Lea, Flood 2014).
    Random(u64),
    /// 0, 1, 2… for command after command, each taken modulo the slot's bound: this is how a keyspace is filled.
    Counting(u64),
}

/// Reason for which a command is no valid template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadTemplate(String);

impl fmt::Display for BadTemplate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "bad command template: {}", self.0)
    }
}

impl std::error::Error for BadTemplate {}

impl Template {
    /// `command` with random numbers (the same sequence in every run), `pipeline` times.
    pub(crate) fn random(command: &str, pipeline: usize) -> Result<Self, BadTemplate> {
        Self::new(command, pipeline, Numbers::Random(0x5EED))
    }

    /// `command` with the numbers 0, 1, 2…, `pipeline` times.
    pub(crate) fn counting(command: &str, pipeline: usize) -> Result<Self, BadTemplate> {
        Self::new(command, pipeline, Numbers::Counting(0))
    }

    fn new(command: &str, pipeline: usize, numbers: Numbers) -> Result<Self, BadTemplate> {
        let words = unroll(command)?;
        let mut one = format!("*{}\r\n", words.len()).into_bytes();
        let mut slots = Vec::new();
        for word in words {
            let (text, word_slots) = expand(word)?;
            one.extend_from_slice(format!("${}\r\n", text.len()).as_bytes());
            slots.extend(word_slots.iter().map(|slot| Slot {
                offset: one.len() + slot.offset,
                ..*slot
            }));
            one.extend_from_slice(&text);
            one.extend_from_slice(b"\r\n");
        }
        Ok(Self {
            command_bytes: one.len(),
            bytes: one.repeat(pipeline),
            pipeline,
            slots,
            numbers,
        })
    }

    /// Commands in a full pipeline.
    pub(crate) fn pipeline(&self) -> usize {
        self.pipeline
    }

    /// The next `commands` requests, at most a full pipeline of them.
    pub(crate) fn next(&mut self, commands: usize) -> &[u8] {
        let used = &mut self.bytes[..commands * self.command_bytes];
        if !self.slots.is_empty() {
            for command in used.chunks_exact_mut(self.command_bytes) {
                for slot in &self.slots {
                    let number = self.numbers.below(slot.below);
                    write_digits(
                        &mut command[slot.offset..slot.offset + DIGITS],
                        number,
                        slot.below,
                    );
                }
                self.numbers.command_done();
            }
        }
        used
    }
}

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        match self {
            Self::Random(state) => {
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mut mixed = *state;
                mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^= mixed >> 31;
                // Multiply and shift in place of a division; the bias is below 2^-24 for every bound allowed.
                ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
            }
            Self::Counting(count) => *count % bound,
        }
    }

    fn command_done(&mut self) {
        if let Self::Counting(count) = self {
            *count += 1;
        }
    }
}

/// `000` to `999`.
static TRIPLES: [[u8; 3]; 1000] = {
    let mut table = [[0; 3]; 1000];
    let mut number = 0;
    while number < 1000 {
        table[number] = [
            b'0' + (number / 100) as u8,
            b'0' + (number / 10 % 10) as u8,
            b'0' + (number % 10) as u8,
        ];
        number += 1;
    }
    table
};

/// Writes `number` into twelve digits, leaving alone the leading ones that no number below `bound` reaches.
fn write_digits(digits: &mut [u8], mut number: u64, bound: u64) {
    let mut reach = bound - 1;
    for triple in digits.rchunks_exact_mut(3) {
        triple.copy_from_slice(&TRIPLES[(number % 1000) as usize]);
        number /= 1000;
        reach /= 1000;
        if reach == 0 {
            break;
        }
    }
}

/// The words of a command, with every `[ … ]*N` written out.
fn unroll(command: &str) -> Result<Vec<&str>, BadTemplate> {
    let mut words = Vec::new();
    let mut group_start = None;
    for word in command.split_ascii_whitespace() {
        if word == "[" && group_start.is_none() {
            group_start = Some(words.len());
        } else if let Some(times) = word.strip_prefix("]*") {
            let start = group_start
                .take()
                .ok_or_else(|| BadTemplate(format!("{word} closes nothing")))?;
            let group = words.split_off(start);
            words.extend(repeat_n(group, parse(times)?).flatten());
        } else {
            words.push(word);
        }
    }
    match group_start {
        Some(_) => Err(BadTemplate("[ is not closed".to_owned())),
        None if words.is_empty() => Err(BadTemplate("no words".to_owned())),
        None => Ok(words),
    }
}

/// One word with its placeholders replaced, and the places of its numbers.
fn expand(word: &str) -> Result<(Vec<u8>, Vec<Slot>), BadTemplate> {
    let mut text = Vec::new();
    let mut slots = Vec::new();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once('{') {
        let (placeholder, remaining) = after
            .split_once('}')
            .ok_or_else(|| BadTemplate(format!("{{ is not closed in {word}")))?;
        text.extend_from_slice(before.as_bytes());
        let (name, number) = placeholder.split_once(':').unwrap_or((placeholder, ""));
        match name {
            "key" => {
                text.extend_from_slice(b"key:");
                push_number(&mut text, &mut slots, KEYS);
            }
            "rand" => push_number(&mut text, &mut slots, parse(number)?),
            "value" => text.extend((b'a'..=b'z').cycle().take(parse(number)?)),
            _ => return Err(BadTemplate(format!("unknown placeholder {{{placeholder}}}"))),
        }
        rest = remaining;
    }
    text.extend_from_slice(rest.as_bytes());
    match slots
        .iter()
        .find(|slot| slot.below == 0 || slot.below > 10_u64.pow(DIGITS as u32))
    {
        Some(slot) => Err(BadTemplate(format!(
            "no number below {} in twelve digits",
            slot.below
        ))),
        None => Ok((text, slots)),
    }
}

fn push_number(text: &mut Vec<u8>, slots: &mut Vec<Slot>, below: u64) {
    slots.push(Slot {
        offset: text.len(),
        below,
    });
    text.extend_from_slice(&[b'0'; DIGITS]);
}

fn parse<N: std::str::FromStr>(digits: &str) -> Result<N, BadTemplate> {
    digits
        .parse()
        .map_err(|_| BadTemplate(format!("{digits:?} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(template: &mut Template, commands: usize) -> String {
        String::from_utf8(template.next(commands).to_vec()).unwrap()
    }

    #[test]
    fn a_plain_command_is_resp() {
        let mut template = Template::random("GET key:{value:2}", 2).unwrap();
        assert_eq!(text(&mut template, 1), "*2\r\n$3\r\nGET\r\n$6\r\nkey:ab\r\n");
        assert_eq!(text(&mut template, 2).len(), 2 * text(&mut template, 1).len());
    }

    #[test]
    fn counting_goes_on_from_pipeline_to_pipeline_and_wraps() {
        let mut template = Template::counting("GET {rand:3}", 2).unwrap();
        let keys: Vec<_> = (0..2)
            .flat_map(|_| {
                text(&mut template, 2)
                    .split("\r\n")
                    .map(str::to_owned)
                    .collect::<Vec<_>>()
            })
            .filter(|word| word.len() == DIGITS)
            .collect();
        assert_eq!(
            keys,
            ["000000000000", "000000000001", "000000000002", "000000000000"]
        );
    }

    #[test]
    fn groups_repeat_with_numbers_of_their_own() {
        let mut template = Template::random("MSET [ {key} {value:1} ]*3", 1).unwrap();
        let encoded = text(&mut template, 1);
        assert!(
            encoded.starts_with("*7\r\n$4\r\nMSET\r\n$16\r\nkey:"),
            "{encoded}"
        );
        let keys: std::collections::HashSet<_> = encoded
            .split("\r\n")
            .filter(|word| word.starts_with("key:"))
            .collect();
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn random_numbers_stay_below_their_bound_and_spread() {
        let mut numbers = Numbers::Random(1);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[numbers.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn digits_of_large_numbers() {
        let mut digits = *b"000000000000";
        write_digits(&mut digits, 987_654_321_012, 10_u64.pow(12));
        assert_eq!(&digits, b"987654321012");
        write_digits(&mut digits, 7, 1000);
        assert_eq!(&digits, b"987654321007");
    }

    #[test]
    fn bad_templates_are_refused() {
        for bad in [
            "",
            "GET {key",
            "GET {what}",
            "GET {rand:0}",
            "GET {rand:x}",
            "A [ b",
            "A b ]*2",
        ] {
            assert!(Template::random(bad, 1).is_err(), "{bad}");
        }
    }
}
