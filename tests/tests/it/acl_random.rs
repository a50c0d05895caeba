//! Random users and random requests: shardis and the real servers agree on what is permitted, beforehand and in fact.
//!
//! `SHARDIS_DIFF_STEPS` makes the run longer, `SHARDIS_DIFF_SEED` repeats one.

use std::env;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use shardis_tests::client::{Client, split};
use shardis_tests::generate::Generator;
use shardis_tests::process::Process;
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Users in an ordinary run.
const USERS: usize = 60;

/// Requests that are tried with each.
const REQUESTS: usize = 40;

/// Words of rules, some of which do not go together.
const RULES: &[&str] = &[
    "on",
    "off",
    "nopass",
    ">pw",
    "<pw",
    "resetpass",
    "reset",
    "~*",
    "~k*",
    "~key:*",
    "%R~*",
    "%W~*",
    "%R~k*",
    "%W~key:1",
    "%RW~a*",
    "resetkeys",
    "allkeys",
    "&*",
    "&news",
    "&n*",
    "resetchannels",
    "+@all",
    "-@all",
    "+@read",
    "+@write",
    "-@write",
    "+@string",
    "-@string",
    "+@hash",
    "+@list",
    "-@list",
    "+@set",
    "+@sortedset",
    "+@stream",
    "+@geo",
    "-@slow",
    "+@fast",
    "-@dangerous",
    "+@keyspace",
    "+@connection",
    "+@pubsub",
    "-@read",
    "+get",
    "-get",
    "+set",
    "+mget",
    "-mset",
    "+config",
    "-config",
    "+config|get",
    "-config|get",
    "+client|id",
    "-client",
    "+object",
    "+select|0",
    "-select",
    "+xinfo|stream",
    "nonsense",
    "+nonsense",
    "(+@all ~key:*)",
    "(+get %R~*)",
    "(+@write %W~k*)",
    "(+publish &n*)",
    "(+@read ~* -get)",
    "clearselectors",
    "(+set ~x) (+get ~x)",
];

/// Requests beside those of the generator, which draws none that are about channels or the server.
const REQUESTS_OF_OWN: &[&str] = &[
    "PUBLISH news x",
    "PUBLISH other x",
    "SPUBLISH n x",
    "SELECT 0",
    "SELECT 1",
    "CONFIG GET port",
    "CONFIG GET maxmemory",
    "CLIENT ID",
    "CLIENT GETNAME",
    "OBJECT ENCODING key:1",
    "OBJECT HELP",
    "XINFO STREAM key:1",
    "SORT key:1 BY w_*",
    "SORT key:1 GET # STORE k",
    "SORT_RO a1 GET k*",
    "GEORADIUS key:1 1 1 1 m STORE k2",
    "LCS k1 a1",
    "COPY key:1 key:2",
    "BITOP AND k1 key:1 a1",
    "DBSIZE",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "PING",
    "ECHO x",
    "COMMAND COUNT",
    "ACL WHOAMI",
    "ACL LIST",
    "XREAD STREAMS key:1 k2 0 0",
    "ZUNIONSTORE k1 2 key:1 a1",
    "SINTERCARD 2 k1 key:1",
    "LMPOP 2 key:1 a1 LEFT",
    "SET key:1 v GET",
    "SET key:1 v",
    "GETEX key:1",
    "BITFIELD key:1 GET u8 0",
    "BITFIELD key:1 SET u8 0 1",
    "MEMORY USAGE key:1",
    "TOUCH k1 a1",
    "EXISTS k1 a1",
    "INFO",
];

struct Side {
    admin: Client,
    user: Client,
}

impl Side {
    fn new(server: &Process) -> Self {
        Self {
            admin: server.connect(),
            user: server.connect(),
        }
    }
}

/// Whether a reply is the refusal of a request by rules, in the words of any version.
fn is_refusal(reply: &Reply) -> bool {
    let text = reply.text();
    text.starts_with("NOPERM") || text.contains("denied due to insufficient ACL permissions")
}

/// A reply of ACL DRYRUN, without the words that differ between versions.
fn verdict(reply: &Reply) -> String {
    match reply {
        Reply::Bulk(_) => {
            let text = reply.text();
            let object = text.split('\'').nth(1).unwrap_or_default().to_owned();
            format!("no: {object}")
        }
        other => other.to_string(),
    }
}

/// Whether a real server finds no key in a request, or drops those that it has found, because the request is incomplete or counts
/// its keys wrongly. It then checks none, and the command fails or works on the keys all the same.
fn has_keys_that_are_dropped(admin: &mut Client, request: &[Vec<u8>]) -> bool {
    let mut words = split("COMMAND GETKEYS");
    words.extend(request.iter().cloned());
    admin.call(&words).text().contains("Invalid arguments specified")
}

/// Whether 7.0 finds too few words in a request, before it looks at rules: there COMMAND GETKEYS needs more than a name.
fn is_too_short_for_7_0(request: &[Vec<u8>]) -> bool {
    let [command, subcommand, _] = request else {
        return false;
    };
    command.eq_ignore_ascii_case(b"COMMAND") && subcommand.to_ascii_uppercase().starts_with(b"GETKEYS")
}

/// Whether a request may wait, or change what happens to later ones.
fn may_wait_or_queue(request: &[Vec<u8>]) -> bool {
    let names = [
        "MULTI", "EXEC", "DISCARD", "RESET", "WAIT", "AUTH", "HELLO", "QUIT",
    ];
    let is = |word: &[u8], name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    let name = request[0].to_ascii_uppercase();
    names.iter().any(|known| is(&name, known))
        || name.starts_with(b"BL")
        || name.starts_with(b"BR")
        || name.starts_with(b"BZ")
        || name.ends_with(b"SUBSCRIBE")
        || request.iter().any(|word| is(word, "BLOCK"))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Gives all sides the same random users and requests.
fn compare(shards: usize) {
    let seed = number("SHARDIS_DIFF_SEED").unwrap_or_else(rand::random);
    let users = number("SHARDIS_DIFF_STEPS").map_or(USERS, |steps| steps as usize / REQUESTS + 1);
    let servers = [node::start(shards), redis::start(), redis::start_peer()];
    let mut sides = servers.each_ref().map(Side::new);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut generator = Generator::new(seed);
    for index in 0..users {
        let name = format!("user{index}");
        let mut rules: Vec<&str> = vec!["on", "nopass"];
        rules.extend((0..random.random_range(0..9)).filter_map(|_| RULES.choose(&mut random)));
        for rule in &rules {
            let mut words = split(&format!("ACL SETUSER {name}"));
            words.extend(rule.split(' ').map(|word| word.as_bytes().to_vec()));
            let replies = sides.each_mut().map(|side| side.admin.call(&words).to_string());
            assert!(
                replies[0] == replies[1] && replies[0] == replies[2],
                "seed {seed}: {rules:?}: {rule}: {replies:?}"
            );
        }
        let lines = sides.each_mut().map(|side| side.admin.line("ACL LIST"));
        let line = |reply: &Reply| {
            let lines = reply.items().iter().map(Reply::text);
            let found = lines
                .into_iter()
                .find(|line| line.starts_with(&format!("user {name} ")));
            // Valkey leaves the mark out that 7.2 prints.
            found.expect("the user's line").replace(" sanitize-payload", "")
        };
        assert_eq!(line(&lines[0]), line(&lines[2]), "seed {seed}: {rules:?}");
        let logins = sides.each_mut().map(|side| {
            side.user.line("RESET");
            side.user.call(&["AUTH", &name, "pw"]).to_string()
        });
        assert!(
            logins[0] == logins[1] && logins[0] == logins[2],
            "seed {seed}: {rules:?}: {logins:?}"
        );
        for _ in 0..REQUESTS {
            let request = if random.random_bool(0.3) {
                split(REQUESTS_OF_OWN.choose(&mut random).expect("there are some"))
            } else {
                generator.command().words
            };
            if may_wait_or_queue(&request) {
                continue;
            }
            let mut trial = split(&format!("ACL DRYRUN {name}"));
            trial.extend(request.clone());
            let about = || {
                format!(
                    "seed {seed}: {rules:?}: {}",
                    shardis_tests::client::shown(&request)
                )
            };
            let trials = sides.each_mut().map(|side| side.admin.call(&trial));
            if trials.iter().any(|reply| reply.text().contains("not found")) {
                // One of the servers does not have the command.
                continue;
            }
            let verdicts = trials.each_ref().map(verdict);
            let is_stricter = verdicts[0].starts_with("no: ") && verdicts[2] == "+OK";
            if is_stricter && has_keys_that_are_dropped(&mut sides[2].admin, &request) {
                continue;
            }
            assert!(verdicts[0] == verdicts[2], "{}: {verdicts:?}", about());
            assert_eq!(trials[0].to_string(), trials[2].to_string(), "{}", about());
            if logins[0] != "+OK" {
                continue;
            }
            let refused = sides.each_mut().map(|side| is_refusal(&side.user.call(&request)));
            assert!(
                refused[0] == refused[2] && (refused[0] == refused[1] || is_too_short_for_7_0(&request)),
                "{}: {refused:?}",
                about()
            );
        }
        for side in &mut sides {
            side.admin.line("FLUSHALL");
        }
    }
}

#[test]
fn random_users_with_one_shard() {
    compare(1);
}

#[test]
fn random_users_with_four_shards() {
    compare(4);
}
