//! Random commands on shardis and on each reference: both tell trackers of the same changes, command by command.
//!
//! One tracker has all changes broadcast to it, another one reads all keys ahead of each command. What the replies are is compared
//! elsewhere (`differential.rs`). Commands that choose at random are left out, and those that let a key expire in a moment.

use std::collections::BTreeSet;

use shardis_tests::client::{Client, shown};
use shardis_tests::generate::{CLIENTS, Command, Generator, look_at_all};
use shardis_tests::node;
use shardis_tests::novelty;
use shardis_tests::process::Process;
use shardis_tests::redis::Reference;
use shardis_tests::reply::Reply;

/// Commands of a run.
const STEPS: usize = 3000;

/// A server with those who change its data and those who are told.
struct Side {
    players: Vec<Client>,
    broadcast: Client,
    reader: Client,
}

/// The keys that the two trackers were told of; a word in brackets stands for all keys.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    broadcast: BTreeSet<Vec<u8>>,
    read: BTreeSet<Vec<u8>>,
}

impl Side {
    fn new(server: &Process) -> Side {
        let tracker = |options: &str| {
            let mut client = server.connect();
            client.line("HELLO 3");
            assert_eq!(client.line(&format!("CLIENT TRACKING ON {options}")).text(), "OK");
            client
        };
        Side {
            players: (0..CLIENTS).map(|_| server.connect()).collect(),
            broadcast: tracker("BCAST"),
            reader: tracker(""),
        }
    }

    /// Plays a command. Returns what trackers were told by then.
    fn play(&mut self, command: &Command) -> Told {
        let mut reads = vec!["EXISTS".to_owned()];
        reads.extend(look_at_all().iter().skip(1).map(|&word| word.to_owned()));
        let mut read = ask(&mut self.reader, &reads);
        let player = &mut self.players[command.client];
        player.send(&command.words).expect("a connection");
        player
            .read()
            .unwrap_or_else(|error| panic!("{}: {error}", shown(&command.words)));
        read.extend(ask(&mut self.reader, &["PING"]));
        Told {
            broadcast: ask(&mut self.broadcast, &["PING"]),
            read,
        }
    }
}

/// Sends a request, and returns the keys in the messages ahead of its reply.
fn ask(client: &mut Client, words: &[impl AsRef<[u8]>]) -> BTreeSet<Vec<u8>> {
    client.send(words).expect("a connection");
    let mut keys = BTreeSet::new();
    loop {
        let Reply::Push(message) = client.read().expect("a reply") else {
            return keys;
        };
        if message[1].is_null() {
            keys.insert(b"(all)".to_vec());
        }
        keys.extend(message[1].items().iter().map(|key| key.bytes().to_vec()));
    }
}

/// Whether a command has the same outcome on both servers, and one reply.
fn is_fit(reference: Reference, command: &Command) -> bool {
    const OTHERS: [&[u8]; 11] = [
        b"reset",
        b"hello",
        b"multi",
        b"exec",
        b"discard",
        b"watch",
        b"subscribe",
        b"psubscribe",
        b"swapdb",
        b"quit",
        b"pfdebug",
    ];
    let name = command.words[0].to_ascii_lowercase();
    // Where nothing but the length of the string has changed, the others tell nobody.
    let may_only_grow = name == b"bitfield"
        && command
            .words
            .iter()
            .any(|word| word.eq_ignore_ascii_case(b"fail"));
    !may_only_grow
        && command.is_orderly()
        && !command.lets_expire()
        && !OTHERS.contains(&&*name)
        && !novelty::is_unfit(reference, &command.words, false)
}

fn play(shards: usize, reference: Reference) {
    let seed = rand::random();
    let (subject, oracle) = (node::start(shards), reference.start());
    let (mut ours, mut theirs) = (Side::new(&subject), Side::new(&oracle));
    let mut generator = Generator::new(seed);
    for step in 0..STEPS {
        let command = generator.command();
        if !is_fit(reference, &command) {
            continue;
        }
        let (wanted, got) = (theirs.play(&command), ours.play(&command));
        assert_eq!(
            got,
            wanted,
            "seed {seed}, step {step}, {shards} shards: {}",
            shown(&command.words)
        );
    }
}

#[test]
fn trackers_are_told_the_same_as_by_redis() {
    play(1, Reference::Redis);
    play(4, Reference::Redis);
}

#[test]
fn trackers_are_told_the_same_as_by_valkey() {
    play(4, Reference::Valkey);
}
