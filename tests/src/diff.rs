//! Rules for comparing the replies of two servers to one command.
//!
//! Most replies must agree to the byte. Some cannot (random choice, the clock, unordered elements), and a few must
//! not, because the reference is 7.0 and shardis is a 7.2. Each has a rule, which is always the strictest that holds.

use crate::reply::Reply;
use crate::score;

/// Relation between the replies of the two servers to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Equal, byte by byte.
    Same,
    /// Equal as sets: the elements come in no order.
    Sorted,
    /// Equal as sets of pairs: a flat list of names and values comes in no order, also within a cursor's reply.
    Pairs,
    /// The name of an encoding, where 7.2 has `listpack` for some of what was `quicklist` or `hashtable` in 7.0. And for a
    /// `skiplist`: Redis makes one of every sorted set that SORT looks at, however small.
    Encoding,
    /// Equal, but doubles are printed as 7.2 does, and zero has no sign.
    Scores,
    /// Equal but for integers, which may be this far apart.
    Near(i64),
    /// Equal except for the values after one of these names.
    Without(&'static [&'static str]),
    /// The same types and lengths of aggregates; contents may differ.
    Shape,
    /// Anything, as long as a reply comes.
    Any,
    /// The subject's reply reads exactly so; the oracle's is of no interest.
    Expect(String),
    /// The subject's reply reads so, with `*` for any text; the oracle's is of no interest.
    Match(String),
}

/// The server that a reply is compared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The server under test: expectations are checked.
    Shardis,
    /// A second reference server, see [`crate::node::is_redis`]: expectations of shardis do not concern it.
    Redis,
}

impl Rule {
    /// True when `subject` is right, given what the oracle said.
    #[must_use]
    pub fn holds(&self, kind: Subject, subject: &Reply, oracle: &Reply) -> bool {
        match self {
            Rule::Any => true,
            Rule::Expect(text) => kind == Subject::Redis || subject.to_string() == *text,
            Rule::Match(pattern) => kind == Subject::Redis || wildcard(pattern, &subject.to_string()),
            Rule::Same => subject == oracle,
            Rule::Sorted => sorted(subject) == sorted(oracle),
            Rule::Pairs => in_pairs(subject) == in_pairs(oracle),
            Rule::Scores => alike(subject, oracle, &|subject, oracle| {
                let as_told = |texts: &Reply| {
                    let unsigned = score::with_one_zero(texts);
                    *subject == unsigned || *subject == score::as_7_2(&unsigned)
                };
                subject == oracle || (kind == Subject::Shardis && as_told(oracle))
            }),
            Rule::Encoding => {
                let has_changed = [&b"quicklist"[..], b"hashtable", b"skiplist"].contains(&oracle.bytes());
                subject == oracle || (has_changed && subject.bytes() == b"listpack")
            }
            Rule::Near(distance) => alike(subject, oracle, &|a, b| match (a, b) {
                (Reply::Integer(a), Reply::Integer(b)) => a.abs_diff(*b) <= distance.unsigned_abs(),
                _ => a == b,
            }),
            Rule::Without(names) => without(subject, names) == without(oracle, names),
            Rule::Shape => alike(subject, oracle, &|a, b| {
                std::mem::discriminant(a) == std::mem::discriminant(b)
            }),
        }
    }

    /// The replies that the rule accepts, for reports.
    #[must_use]
    pub fn wanted(&self, oracle: &Reply) -> String {
        match self {
            Rule::Expect(text) => format!("{text}   (expected of shardis)"),
            Rule::Match(pattern) => format!("{pattern}   (pattern expected of shardis)"),
            Rule::Same | Rule::Any => oracle.to_string(),
            Rule::Scores => score::as_7_2(oracle).to_string(),
            rule => format!("{oracle}   ({rule:?})"),
        }
    }
}

/// The reply with its elements in order of their contents.
fn sorted(reply: &Reply) -> Reply {
    match reply.clone() {
        Reply::Array(mut items) => {
            items.sort();
            Reply::Array(items)
        }
        Reply::Set(mut items) => {
            items.sort();
            Reply::Set(items)
        }
        Reply::Map(mut pairs) => {
            pairs.sort();
            Reply::Map(pairs)
        }
        other => other,
    }
}

/// The reply with its flat list made into pairs in order; that list is the whole reply, or follows a cursor.
fn in_pairs(reply: &Reply) -> Reply {
    match reply {
        Reply::Array(items) => match &items[..] {
            [cursor @ Reply::Bulk(_), list @ Reply::Array(_)] => {
                Reply::Array(vec![cursor.clone(), in_pairs(list)])
            }
            _ if items.iter().any(|item| matches!(item, Reply::Array(_))) => sorted(reply),
            _ => {
                let pairs = items.chunks(2).map(|pair| Reply::Array(pair.to_vec()));
                sorted(&Reply::Array(pairs.collect()))
            }
        },
        other => sorted(other),
    }
}

/// The reply with nothing behind each of the names, at any depth.
fn without(reply: &Reply, names: &[&str]) -> Reply {
    let is_named = |item: &Reply| names.iter().any(|name| item.bytes() == name.as_bytes());
    match reply {
        Reply::Array(items) => {
            let mut kept: Vec<Reply> = items.iter().map(|item| without(item, names)).collect();
            for at in 1..kept.len() {
                if is_named(&kept[at - 1]) {
                    kept[at] = Reply::Null;
                }
            }
            Reply::Array(kept)
        }
        Reply::Map(pairs) => {
            let kept = |(name, value): &(Reply, Reply)| {
                let value = if is_named(name) {
                    Reply::Null
                } else {
                    without(value, names)
                };
                (name.clone(), value)
            };
            Reply::Map(pairs.iter().map(kept).collect())
        }
        other => other.clone(),
    }
}

/// Walks two replies of the same structure and asks `leaf` about each pair of scalars.
fn alike(a: &Reply, b: &Reply, leaf: &impl Fn(&Reply, &Reply) -> bool) -> bool {
    let all =
        |a: &[Reply], b: &[Reply]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b, leaf));
    match (a, b) {
        (Reply::Array(a), Reply::Array(b))
        | (Reply::Set(a), Reply::Set(b))
        | (Reply::Push(a), Reply::Push(b)) => all(a, b),
        (Reply::Map(a), Reply::Map(b)) => {
            let pair = |(a, b): (&(Reply, Reply), &(Reply, Reply))| {
                alike(&a.0, &b.0, leaf) && alike(&a.1, &b.1, leaf)
            };
            a.len() == b.len() && a.iter().zip(b).all(pair)
        }
        _ => leaf(a, b),
    }
}

/// Whether `text` matches `pattern`, in which `*` means any text and everything else itself.
#[must_use]
pub fn wildcard(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn holds(rule: &Rule, subject: &Reply, oracle: &Reply) -> bool {
        rule.holds(Subject::Shardis, subject, oracle)
    }

    #[test]
    fn order_matters_unless_the_rule_says_otherwise() {
        let (ab, ba) = (
            Reply::Array(vec![bulk("a"), bulk("b")]),
            Reply::Array(vec![bulk("b"), bulk("a")]),
        );
        assert!(!holds(&Rule::Same, &ab, &ba));
        assert!(holds(&Rule::Sorted, &ab, &ba));
        assert!(!holds(
            &Rule::Sorted,
            &ab,
            &Reply::Array(vec![bulk("a"), bulk("a")])
        ));
    }

    #[test]
    fn pairs_may_change_places_but_not_partners() {
        let list = |text: &str| Reply::Array(text.chars().map(|c| bulk(&c.to_string())).collect());
        let scanned = |text| Reply::Array(vec![bulk("0"), list(text)]);
        assert!(holds(&Rule::Pairs, &list("a1b2"), &list("b2a1")));
        assert!(!holds(&Rule::Pairs, &list("a1b2"), &list("a2b1")));
        assert!(holds(&Rule::Pairs, &scanned("a1b2"), &scanned("b2a1")));
        assert!(!holds(&Rule::Pairs, &scanned("a1b2"), &scanned("a2b1")));
        let nested = |a: &str, b: &str| Reply::Array(vec![list(a), list(b)]);
        assert!(holds(&Rule::Pairs, &nested("a1", "b2"), &nested("b2", "a1")));
        assert!(!holds(&Rule::Pairs, &nested("a1", "b2"), &nested("1a", "b2")));
    }

    #[test]
    fn encodings_may_be_as_small_as_those_of_7_2() {
        assert!(holds(&Rule::Encoding, &bulk("listpack"), &bulk("quicklist")));
        assert!(holds(&Rule::Encoding, &bulk("intset"), &bulk("intset")));
        assert!(!holds(&Rule::Encoding, &bulk("listpack"), &bulk("intset")));
        assert!(!holds(&Rule::Encoding, &bulk("quicklist"), &bulk("listpack")));
    }

    #[test]
    fn near_is_about_integers_at_any_depth() {
        let ttl = |ttl| Reply::Array(vec![bulk("k"), Reply::Integer(ttl)]);
        assert!(holds(&Rule::Near(2), &ttl(99), &ttl(100)));
        assert!(!holds(&Rule::Near(2), &ttl(97), &ttl(100)));
        assert!(!holds(&Rule::Near(2), &bulk("99"), &bulk("100")));
    }

    #[test]
    fn what_has_a_name_is_left_out_and_nothing_else() {
        let rule = Rule::Without(&["x"]);
        let list = |x, y| Reply::Array(vec![bulk("x"), Reply::Integer(x), bulk("y"), Reply::Integer(y)]);
        let map = |x, y| Reply::Array(vec![Reply::Map(vec![(bulk("x"), bulk(x)), (bulk("y"), bulk(y))])]);
        assert!(holds(&rule, &list(1, 2), &list(3, 2)));
        assert!(!holds(&rule, &list(1, 2), &list(1, 3)));
        assert!(holds(&rule, &map("1", "2"), &map("3", "2")));
        assert!(!holds(&rule, &map("1", "2"), &map("1", "3")));
    }

    #[test]
    fn each_score_may_be_told_in_its_own_way() {
        let list = |texts: &[&str]| Reply::Array(texts.iter().map(|text| bulk(text)).collect());
        let oracle = list(&["-0", "-0", "0.10000000000000001"]);
        assert!(holds(&Rule::Scores, &list(&["-0", "0", "0.1"]), &oracle));
        assert!(!holds(&Rule::Scores, &list(&["-0", "0", "0.2"]), &oracle));
        assert!(!Rule::Scores.holds(Subject::Redis, &list(&["-0", "0", "0.1"]), &oracle));
    }

    #[test]
    fn shape_tells_types_apart() {
        assert!(holds(&Rule::Shape, &bulk("a"), &bulk("b")));
        assert!(!holds(&Rule::Shape, &bulk("1"), &Reply::Integer(1)));
        assert!(!holds(
            &Rule::Shape,
            &Reply::Array(vec![]),
            &Reply::Array(vec![bulk("a")])
        ));
    }

    #[test]
    fn expectations_bind_shardis_only() {
        let rule = Rule::Expect("+OK".to_owned());
        assert!(!rule.holds(Subject::Shardis, &Reply::Null, &Reply::Null));
        assert!(rule.holds(Subject::Redis, &Reply::Null, &Reply::Null));
        assert!(rule.holds(Subject::Shardis, &Reply::Simple(b"OK".to_vec()), &Reply::Null));
    }

    #[test]
    fn wildcards() {
        for (pattern, text, matches) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(wildcard(pattern, text), matches, "{pattern} {text}");
        }
    }
}
