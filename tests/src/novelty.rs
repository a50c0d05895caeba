//! Intended differences of the two references from shardis: the list of exceptions for random commands.
//!
//! shardis follows Redis 7.2 and what its successors, Redis 8 and Valkey 9, agree on. So 7.0 is older in some replies, and
//! Valkey has some of its own. A command whose effect differs is not played beside that reference at all, since the two
//! keyspaces would be different from then on; where only the reply differs, the pair of replies is known. Dialogues say such
//! things line by line, see `dialogue`.

use crate::redis::Reference;
use crate::reply::Reply;
use crate::score;

/// True when the effect of a command beside that reference would differ.
#[must_use]
pub fn is_unfit(reference: Reference, words: &[Vec<u8>], in_transaction: bool) -> bool {
    let name = words[0].to_ascii_lowercase();
    match reference {
        Reference::Redis => is_newer_than_7_0(&name, words),
        Reference::Valkey => is_other_in_valkey(&name, &words[1..], in_transaction),
    }
}

/// Changes after 7.0: bounds of scores and weights of SORT are decimal numbers, LREM refuses a count that cannot be negated, XSETID respects the largest deleted id.
fn is_newer_than_7_0(name: &[u8], words: &[Vec<u8>]) -> bool {
    match name {
        b"xsetid" => true,
        b"lrem" => words.get(2).is_some_and(|count| count == b"-9223372036854775808"),
        b"sort" => words.iter().any(|word| word.eq_ignore_ascii_case(b"store")),
        name if name.starts_with(b"z") && (contains(name, b"range") || name == b"zcount") => {
            words.iter().any(|word| is_odd_number(word))
        }
        _ => false,
    }
}

/// Valkey's own: scores cannot be hexadecimal, MULTI and WATCH spoil a transaction, BITCOUNT takes a start alone,
/// LTRIM that removes nothing is no change to who watches, and LIMIT counts a negative offset from the end. And faults of all
/// since 7.2: LSET takes the low half of an index, a client's name is checked up to a zero byte only. Errors of scripts have words of
/// its own, and what they store is never kept as a number.
fn is_other_in_valkey(name: &[u8], arguments: &[Vec<u8>], in_transaction: bool) -> bool {
    match name {
        b"multi" | b"watch" => in_transaction,
        b"lset" => arguments.get(1).is_some_and(|index| index.len() > 9),
        b"sort" => arguments.iter().any(|word| word.eq_ignore_ascii_case(b"store")),
        b"bitcount" => arguments.len() == 2,
        b"ltrim" | b"eval" | b"eval_ro" | b"evalsha" | b"evalsha_ro" => true,
        b"client" | b"hello" => arguments.iter().any(|word| word.contains(&0)),
        name if name.starts_with(b"z") || name.starts_with(b"geo") => {
            arguments.iter().any(|word| is_odd_number(word)) || has_negative_offset(arguments)
        }
        _ => false,
    }
}

fn has_negative_offset(arguments: &[Vec<u8>]) -> bool {
    arguments
        .windows(2)
        .any(|pair| pair[0].eq_ignore_ascii_case(b"limit") && pair[1].starts_with(b"-"))
}

/// A number that only some servers read: hexadecimal, or after a blank, also as the end of a range.
fn is_odd_number(word: &[u8]) -> bool {
    let number = word.strip_prefix(b"(").unwrap_or(word);
    let unsigned = number
        .strip_prefix(b"-")
        .or(number.strip_prefix(b"+"))
        .unwrap_or(number);
    matches!(unsigned, [b' ', ..] | [b'0', b'x' | b'X', ..])
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// True when these two replies to one command are both right, or would be as elements of EXEC's.
#[must_use]
pub fn is_known(reference: Reference, subject: &Reply, oracle: &Reply) -> bool {
    if let (Reply::Array(subjects), Reply::Array(oracles)) = (subject, oracle) {
        // Beside it may be scores, which 7.0 prints otherwise.
        let is_right = |subject: &Reply, oracle: &Reply| {
            subject == oracle
                || *subject == score::as_7_2(&score::with_one_zero(oracle))
                || is_known(reference, subject, oracle)
        };
        let mut pairs = subjects.iter().zip(oracles);
        return subjects.len() == oracles.len() && pairs.all(|(subject, oracle)| is_right(subject, oracle));
    }
    let (subject, oracle) = (subject.to_string(), oracle.to_string());
    let pairs = match reference {
        Reference::Redis => OLDER,
        Reference::Valkey => OWN,
    };
    pairs
        .iter()
        .any(|(ours, theirs)| crate::diff::wildcard(ours, &subject) && crate::diff::wildcard(theirs, &oracle))
}

/// Replies of shardis, and those of 7.0 that are older.
const OLDER: &[(&str, &str)] = &[
    // BITCOUNT and BITPOS look at the key before their range, and at none when the key is missing.
    ("-ERR syntax error", ":*"),
    ("-ERR value is not an integer or out of range", ":*"),
    ("-ERR syntax error", "-WRONGTYPE*"),
    ("-ERR value is not an integer or out of range", "-WRONGTYPE*"),
    // Cursors are read by `strtoul`.
    ("-ERR invalid cursor", "*"),
    // Weights of SORT are read by `strtod`.
    ("-ERR One or more scores can't be converted into double", "[*"),
    ("[*", "-ERR One or more scores can't be converted into double"),
    (
        "-ERR Unbalanced 'xread* list of streams*",
        "-ERR Unbalanced XREAD list of streams*",
    ),
    ("-ERR timeout is out of range", "-ERR timeout is negative"),
    // COMMAND GETKEYS needs more than a name.
    ("-ERR *", "-ERR wrong number of arguments for 'command|getkeys*"),
    ("-ERR value is out of range, value must between*", "*"),
];

/// Replies of shardis, and Valkey's own.
const OWN: &[(&str, &str)] = &[
    // GETEX looks at its options before the key.
    ("nil", "-ERR invalid expire time in 'getex' command"),
    ("nil", "-ERR value is not an integer or out of range"),
    ("-WRONGTYPE*", "-ERR invalid expire time in 'getex' command"),
    ("-WRONGTYPE*", "-ERR value is not an integer or out of range"),
    (
        "-ERR exactly one of BYRADIUS and BYBOX can be specified for*",
        "-ERR exactly one of BYRADIUS, BYBOX and BYPOLYGON can be specified for*",
    ),
    (
        "-ERR could not decode requested zset member",
        "-ERR member * does not exist",
    ),
    // BITCOUNT reads the unit before the end.
    (
        "-ERR value is not an integer or out of range",
        "-ERR syntax error",
    ),
    // Short strings are kept with longer keys.
    ("\"raw\"", "\"embstr\""),
    ("\"embstr\"", "\"raw\""),
    // A weight of SORT that is empty or too large for a double.
    ("[*", "-ERR One or more scores can't be converted into double"),
    ("[]", "-ERR unknown type name *"),
    (
        "*",
        "-ERR Insufficient memory, failed allocating transient memory, COUNT too high.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn commands_are_left_out_beside_one_reference_only() {
        for (line, beside_redis, beside_valkey) in [
            ("ZADD z 0x10 a", false, true),
            ("ZADD z 10 a", false, false),
            ("ZRANGEBYSCORE z (0x1 2", true, true),
            ("SORT l ALPHA", false, false),
            ("XSETID x 1-1", true, false),
            ("ZRANGEBYLEX z - + LIMIT -1 5", false, true),
        ] {
            let words = words(line);
            assert_eq!(is_unfit(Reference::Redis, &words, false), beside_redis, "{line}");
            assert_eq!(
                is_unfit(Reference::Valkey, &words, false),
                beside_valkey,
                "{line}"
            );
        }
        assert!(is_unfit(Reference::Valkey, &words("MULTI"), true));
        assert!(!is_unfit(Reference::Valkey, &words("MULTI"), false));
    }

    #[test]
    fn known_pairs_are_known_within_a_transaction_too() {
        let error = |text: &str| Reply::Error(text.into());
        let own = (
            error("ERR could not decode requested zset member"),
            error("ERR member a does not exist"),
        );
        assert!(is_known(Reference::Valkey, &own.0, &own.1));
        assert!(!is_known(Reference::Redis, &own.0, &own.1));
        let exec = |reply: &Reply| Reply::Array(vec![Reply::Integer(1), reply.clone()]);
        assert!(is_known(Reference::Valkey, &exec(&own.0), &exec(&own.1)));
        assert!(!is_known(
            Reference::Valkey,
            &Reply::Array(vec![Reply::Integer(2), own.0.clone()]),
            &exec(&own.1)
        ));
        let score = |text: &str| Reply::Bulk(text.into());
        assert!(is_known(
            Reference::Redis,
            &Reply::Array(vec![error("ERR syntax error"), score("0.1")]),
            &Reply::Array(vec![Reply::Integer(0), score("0.10000000000000001")])
        ));
    }
}
