//! Tests of rules and of what they permit. Expected lines are those of Redis 7.2.

use proptest::prelude::*;

use super::*;
use crate::acl::{Known, Reason, Rights};

/// A few commands: `config` has subcommands, `get` and `set` are in categories.
#[derive(Debug)]
pub(in crate::acl) struct Few;

const NAMES: [(&str, u16, std::ops::Range<u16>); 6] = [
    ("get", 0, 1..1),
    ("set", 1, 2..2),
    ("config", 2, 3..5),
    ("select", 5, 6..6),
    ("client", 6, 7..9),
    ("publish", 9, 10..10),
];

const PARTS: [&str; 4] = ["get", "set", "id", "list"];

impl Catalogue for Few {
    fn len(&self) -> usize {
        10
    }

    fn command(&self, name: &[u8]) -> Option<Known> {
        let named =
            |entry: &&(&str, u16, std::ops::Range<u16>)| entry.0.as_bytes().eq_ignore_ascii_case(name);
        NAMES.iter().find(named).map(|(_, id, subcommands)| Known {
            id: *id,
            subcommands: subcommands.clone(),
        })
    }

    fn subcommand(&self, command: &Known, name: &[u8]) -> Option<u16> {
        let first = if command.id == 2 { 0 } else { 2 };
        let word = PARTS[first..first + command.subcommands.len()]
            .iter()
            .position(|part| part.as_bytes().eq_ignore_ascii_case(name))?;
        Some(command.subcommands.start + word as u16)
    }

    fn category(&self, name: &[u8]) -> Option<Vec<u16>> {
        match name.to_ascii_lowercase().as_slice() {
            b"read" => Some(vec![0]),
            b"write" => Some(vec![1]),
            b"dangerous" => Some(vec![3, 4, 8]),
            _ => None,
        }
    }
}

pub(in crate::acl) const DEFAULTS: UserDefaults = UserDefaults {
    has_all_channels: false,
};

fn made(rules: &str) -> Result<User, BadRule> {
    let words = rules
        .split(' ')
        .filter(|word| !word.is_empty())
        .map(str::as_bytes);
    User::new(b"u", DEFAULTS, &Few).with(words, DEFAULTS, &Few)
}

fn line(rules: &str) -> String {
    String::from_utf8(made(rules).unwrap().describe()).unwrap()
}

fn error(rules: &str) -> RuleError {
    match made(rules) {
        Err(BadRule::Word(_, error)) => error,
        other => panic!("{rules}: {other:?}"),
    }
}

/// Whether a request is permitted: the number of its command, its first argument, its keys with their rights, its channels.
fn check(user: &User, command: u16, keys: &[(&str, Rights)], channels: &[&str]) -> Result<(), Denied> {
    let keys: Vec<_> = keys
        .iter()
        .enumerate()
        .map(|(index, (key, rights))| (index + 1, key.as_bytes(), *rights))
        .collect();
    let channels: Vec<_> = channels
        .iter()
        .enumerate()
        .map(|(index, channel)| (index + 1, channel.as_bytes()))
        .collect();
    user.check(&Access {
        command,
        is_open: false,
        first_argument: Some(b"0"),
        keys: &keys,
        reads_other_keys: false,
        channels: &channels,
        are_patterns: false,
    })
}

#[test]
fn rules_are_printed_in_their_normal_form() {
    for (rules, expected) in [
        ("", "off resetchannels -@all"),
        (
            "nopass allkeys allchannels allcommands on",
            "on nopass ~* &* +@all",
        ),
        ("%R~x %W~x ~y &c &c &d", "off ~x ~y resetchannels &c &d -@all"),
        (
            "allkeys resetkeys ~x %R~x %W~z",
            "off ~x %W~z resetchannels -@all",
        ),
        (
            "+@all -get +client|id -client -client|list +select|0 +select|1",
            "off resetchannels +@all -get -client -client|list +select|0 +select|1",
        ),
        ("+select|0 +select", "off resetchannels -@all +select"),
        ("+get +GET -get +@READ", "off resetchannels -@all -get +@read"),
        (
            "+config|get +config|set +config -config|get",
            "off resetchannels -@all +config -config|get",
        ),
        ("+@all -@all +get", "off resetchannels -@all +get"),
        ("+@all +@read -@read -get", "off resetchannels +@all -@read -get"),
        ("+get on reset", "off sanitize-payload resetchannels -@all"),
        (
            "(+get ~a) (+set %W~b &x)",
            "off resetchannels -@all (~a resetchannels -@all +get) (%W~b resetchannels &x -@all +set)",
        ),
        (
            "(  +get   ~a )",
            "off resetchannels -@all (~a resetchannels -@all +get)",
        ),
        ("()", "off resetchannels -@all (resetchannels -@all)"),
        ("(+get) (+set) clearselectors", "off resetchannels -@all"),
        (
            "nopass >a >b <a >b",
            "off #3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d resetchannels -@all",
        ),
    ] {
        assert_eq!(line(rules), format!("user u {expected}"), "{rules}");
    }
}

#[test]
fn rules_that_cannot_be_applied_say_why() {
    for (rules, expected) in [
        ("foo", RuleError::Syntax),
        ("%X~a", RuleError::Syntax),
        ("%~a", RuleError::Syntax),
        ("%Ra", RuleError::Syntax),
        ("~a\tb", RuleError::Syntax),
        ("(on)", RuleError::Syntax),
        ("(+get (+set))", RuleError::Syntax),
        ("+", RuleError::UnknownCommand),
        ("+nosuch", RuleError::UnknownCommand),
        ("-@nosuch", RuleError::UnknownCommand),
        ("+get|x|y", RuleError::UnknownCommand),
        ("-get|x", RuleError::UnknownCommand),
        ("+config|nosuch", RuleError::UnknownCommand),
        ("+config|get|x", RuleError::TooDeep),
        ("~* ~x", RuleError::KeysExist),
        ("~* %R~x", RuleError::KeysExist),
        ("&* &x", RuleError::ChannelsExist),
        ("<x", RuleError::NoSuchPassword),
        ("#zz", RuleError::BadHash),
        ("!ABCDEF", RuleError::BadHash),
    ] {
        assert_eq!(error(rules), expected, "{rules}");
    }
    assert_eq!(made("on (+get +set"), Err(BadRule::Unmatched(b"(+get".to_vec())));
}

#[test]
fn commands_keys_and_channels_are_checked_together() {
    let user = made("%R~r* %W~w* ~k* &news +get +config|get +select|0 (+set ~s) (+publish &*)").unwrap();
    let denied = |reason, position| Err(Denied { reason, position });
    let (read, write, both) = (Rights::READ, Rights::WRITE, Rights::all());
    for (command, keys, channels, expected) in [
        (0, vec![("r1", read)], vec![], Ok(())),
        (0, vec![("k", both)], vec![], Ok(())),
        (0, vec![("w1", read)], vec![], denied(Reason::Key, 1)),
        (0, vec![("r1", read), ("x", read)], vec![], denied(Reason::Key, 2)),
        (1, vec![("s", write)], vec![], Ok(())),
        // No selector has both the command and the key; the key is the nearer one.
        (1, vec![("k", write)], vec![], denied(Reason::Key, 1)),
        (3, vec![], vec![], Ok(())),
        (4, vec![], vec![], denied(Reason::Command, 0)),
        (5, vec![], vec![], Ok(())),
        (6, vec![], vec![], denied(Reason::Command, 0)),
        (9, vec![], vec!["any"], Ok(())),
        (0, vec![], vec!["news"], Ok(())),
        (0, vec![], vec!["news", "other"], denied(Reason::Channel, 2)),
    ] {
        assert_eq!(
            check(&user, command, &keys, &channels),
            expected,
            "{command} {keys:?}"
        );
    }
}

#[test]
fn a_subscription_to_a_pattern_needs_that_very_pattern() {
    let user = made("&news.* +get").unwrap();
    assert!(user.permits_channel(b"news.a", false));
    assert!(user.permits_channel(b"news.*", true));
    assert!(!user.permits_channel(b"news.a*", true));
    assert!(made("allchannels").unwrap().permits_channel(b"*", true));
}

#[test]
fn keys_that_are_not_in_the_request_need_all_of_them() {
    for (rules, permits) in [
        ("+get ~*", true),
        ("+get %R~*", true),
        ("+get %W~*", false),
        ("+get ~k*", false),
    ] {
        let access = Access {
            command: 0,
            is_open: false,
            first_argument: None,
            keys: &[],
            reads_other_keys: true,
            channels: &[],
            are_patterns: false,
        };
        assert_eq!(made(rules).unwrap().check(&access).is_ok(), permits, "{rules}");
    }
}

#[test]
fn passwords_open_what_is_enabled() {
    let user = made("on >one >two").unwrap();
    assert!(user.accepts(b"one") && user.accepts(b"two") && !user.accepts(b"three") && !user.accepts(b""));
    assert!(made("on nopass").unwrap().accepts(b"anything"));
    assert!(!made("off nopass >one").unwrap().accepts(b"one"));
    assert!(!made("on").unwrap().accepts(b""));
}

proptest! {
    /// The normal form has the same effect, and is its own normal form.
    #[test]
    fn the_normal_form_makes_the_same_user(words in prop::collection::vec(prop::sample::select(&[
        "on", "off", "nopass", "resetpass", ">a", ">b", "~a*", "%R~a*", "%W~b", "~*", "resetkeys", "&c", "&*", "resetchannels",
        "+@all", "-@all", "+get", "-get", "+config", "-config|get", "+config|set", "+select|0", "-select", "+@read", "-@dangerous",
        "(+get ~x)", "(+@all -set %R~y &z)", "clearselectors", "reset", "sanitize-payload",
    ][..]), 0..25)) {
        let mut user = User::new(b"u", DEFAULTS, &Few);
        for word in &words {
            // Some do not go together.
            if let Ok(next) = user.with(word.split(' ').map(str::as_bytes), DEFAULTS, &Few) {
                user = next;
            }
        }
        let line = user.describe();
        let rules = line.strip_prefix(b"user u ").unwrap();
        let again = User::new(b"u", DEFAULTS, &Few).with(rules.split(|&byte| byte == b' '), DEFAULTS, &Few).unwrap();
        prop_assert_eq!(again.describe(), line.clone());
        for command in 0..10 {
            for key in ["a1", "b", "x", "y"] {
                for rights in [Rights::READ, Rights::WRITE] {
                    prop_assert_eq!(
                        check(&user, command, &[(key, rights)], &["c"]),
                        check(&again, command, &[(key, rights)], &["c"]),
                        "{}", String::from_utf8_lossy(&line)
                    );
                }
            }
        }
    }
}

#[test]
fn a_request_on_one_key_is_judged_alike_in_both_ways() {
    let users = [
        "on ~* +@all",
        "on ~a* +get (~b* +set) (%R~longer-than-eight:* +@all)",
        "on %W~a +set (%R~a +get) -@all",
        "on ~longer-than-eight:? +get +select|a",
        "on +@all",
    ];
    let keys: [&[u8]; 7] = [
        b"",
        b"a",
        b"ab",
        b"b",
        b"longer-than-eight:x",
        b"longer-t",
        b"a\0b",
    ];
    for rules in users {
        let user = made(rules).unwrap();
        for (key, command, needed) in keys
            .iter()
            .flat_map(|key| [0, 1, 5].map(|command| (*key, command)))
            .flat_map(|(key, command)| {
                [Rights::empty(), Rights::READ, Rights::all()].map(|needed| (key, command, needed))
            })
        {
            let on_key = OnKey {
                command,
                first_argument: Some(key),
                key,
                needed,
            };
            let access = Access {
                command,
                is_open: false,
                first_argument: Some(key),
                keys: &[(1, key, needed)],
                reads_other_keys: false,
                channels: &[],
                are_patterns: false,
            };
            let permits = user.check(&access).is_ok();
            assert_eq!(user.permits_on_key(&on_key), permits, "{rules}: {on_key:?}");
        }
    }
}
