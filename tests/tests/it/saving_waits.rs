//! Commands that wait for a large value which a snapshot has still to save: all that would change it, whatever way they take to it.

use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use shardis_storage::key::KeyHasher;
use shardis_storage::rdb::Limits;
use shardis_storage::rdb::file::{FileReader, Item};
use shardis_tests::client::{Client, words};
use shardis_tests::info::figure;
use shardis_tests::process::Process;
use shardis_tests::wait::{await_blocked, wait_until};

use super::saving_pressure::start;

const MOMENT: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Values of each kind: a snapshot that is held up has saved some of them already.
const OF_A_KIND: usize = 6;
const ELEMENTS: i64 = 3000;

/// Has a save write to a pipe that nobody reads, and waits until it is held up.
fn hold_up_a_save(server: &Process, client: &mut Client) -> PathBuf {
    let path = server.directory().join(format!("temp-{}.rdb", server.pid()));
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    client.line("BGSAVE");
    let (mut before, mut alike) = (None, 0);
    wait_until("nothing more is saved", || {
        let now = figure(client, "current_save_keys_processed");
        alike = if before == Some(now) { alike + 1 } else { 0 };
        before = Some(now);
        sleep(Duration::from_millis(20));
        now > 0 && alike > 10
    });
    path
}

fn drain(path: PathBuf) -> JoinHandle<Vec<u8>> {
    spawn(move || {
        let mut bytes = Vec::new();
        let mut pipe = std::fs::File::open(path).expect("the pipe");
        pipe.read_to_end(&mut bytes).expect("the server writes");
        bytes
    })
}

/// Stores a list of some hundred kibibytes.
fn store_list(client: &mut Client, key: &str) {
    let element = "e".repeat(100);
    let mut request = words(&["RPUSH", key]);
    request.extend((0..ELEMENTS).map(|_| element.clone().into_bytes()));
    client.pipeline(&[request]);
}

fn store_stream(client: &mut Client, key: &str) {
    let value = "v".repeat(100);
    let entries: Vec<_> = (0..ELEMENTS)
        .map(|_| words(&["XADD", key, "*", "f", &value]))
        .collect();
    client.pipeline(&entries);
    client.call(&["XGROUP", "CREATE", key, "group", "0"]);
}

/// A way to a large value: what is stored, the requests that change it, and what a waiting client has sent before.
struct Way {
    name: &'static str,
    store: fn(&mut Client, usize),
    before: fn(usize) -> Option<String>,
    requests: fn(usize) -> Vec<String>,
}

const WAYS: [Way; 5] = [
    Way {
        name: "a reader of a group",
        store: |client, n| store_stream(client, &format!("stream:{n}")),
        before: |_| None,
        requests: |n| vec![format!("XREADGROUP GROUP group c COUNT 1 STREAMS stream:{n} >")],
    },
    Way {
        name: "a copy to another database",
        store: |client, n| {
            client.line("SELECT 1");
            store_list(client, &format!("copied:{n}"));
            client.line("SELECT 0");
            client.line(&format!("SET {{copied:{n}}}small v"));
        },
        before: |_| None,
        requests: |n| vec![format!("COPY {{copied:{n}}}small copied:{n} DB 1 REPLACE")],
    },
    Way {
        name: "a move to another database",
        store: |client, n| {
            client.line("SELECT 1");
            store_list(client, &format!("moved:{n}"));
            client.line("SELECT 0");
            client.line(&format!("SET moved:{n} v"));
        },
        before: |_| None,
        requests: |n| vec![format!("MOVE moved:{n} 1")],
    },
    Way {
        name: "a transaction that chooses another database",
        store: |client, n| {
            client.line("SELECT 1");
            store_list(client, &format!("pushed:{n}"));
            client.line("SELECT 0");
        },
        before: |_| None,
        requests: |n| {
            vec![
                "MULTI".into(),
                "SELECT 1".into(),
                format!("RPUSH pushed:{n} e"),
                "EXEC".into(),
            ]
        },
    },
    Way {
        name: "a waiting move that is served",
        store: |client, n| store_list(client, &format!("into:{n}")),
        before: |n| Some(format!("BLMOVE from:{n} into:{n} LEFT RIGHT 0")),
        requests: |n| vec![format!("RPUSH from:{n} e")],
    },
];

#[test]
fn whatever_leads_to_a_large_value_waits() {
    for shards in [1, 2] {
        let server = start(shards);
        let mut client = server.connect();
        for way in &WAYS {
            (0..OF_A_KIND).for_each(|n| (way.store)(&mut client, n));
        }
        // Most of the data: of the values of each kind, hardly ever all are among the megabytes that are saved before the hold-up.
        client.line("DEBUG POPULATE 120000 key 300");
        let numbers = || WAYS.iter().flat_map(|way| (0..OF_A_KIND).map(move |n| (way, n)));
        let mut changers: Vec<Client> = numbers()
            .map(|(way, n)| {
                let mut changer = server.connect();
                if let Some(line) = (way.before)(n) {
                    changer.send(&line.split(' ').collect::<Vec<_>>()).expect("sent");
                }
                changer
            })
            .collect();
        await_blocked(&mut client, OF_A_KIND);
        let pipe = hold_up_a_save(&server, &mut client);
        let mut waiting = Vec::new();
        for (changer, (way, n)) in changers.iter_mut().zip(numbers()) {
            let requests = (way.requests)(n);
            let (last, first) = requests.split_last().expect("a request");
            let line: Vec<_> = last.split(' ').collect();
            if (way.before)(n).is_some() {
                assert_eq!(client.call(&line).integer(), Some(1));
            } else {
                first.iter().for_each(|line| drop(changer.line(line)));
                changer.send(&line).expect("sent");
            }
            let reply = changer.read_within(MOMENT);
            assert!(!reply.as_ref().is_ok_and(|reply| reply.is_error()), "{reply:?}");
            if reply.is_err() {
                waiting.push((way.name, n));
            }
        }
        for way in &WAYS {
            assert!(
                waiting.iter().any(|(name, _)| *name == way.name),
                "{}: none waits, {shards} shards",
                way.name
            );
        }
        assert_eq!(
            client.line("LLEN into:0").integer().map(|len| len / 10),
            Some(ELEMENTS / 10)
        );
        let drained = drain(pipe);
        for (changer, (way, n)) in changers.iter_mut().zip(numbers()) {
            if waiting.contains(&(way.name, n)) {
                let reply = changer.read_within(PATIENCE).expect("an answer");
                assert!(!reply.is_error(), "{}: {reply:?}", way.name);
            }
        }
        for n in 0..OF_A_KIND {
            assert_eq!(
                client.line(&format!("LLEN into:{n}")).integer(),
                Some(ELEMENTS + 1)
            );
        }
        let bytes = drained.join().expect("the pipe is read");
        assert_eq!(
            lengths_of_lists(&bytes),
            [ELEMENTS as usize; 4 * OF_A_KIND],
            "as they were"
        );
    }
}

fn lengths_of_lists(bytes: &[u8]) -> Vec<usize> {
    let reader = FileReader::open(bytes, Limits::defaults(KeyHasher::new(1))).expect("a file");
    reader
        .filter_map(|item| match item.expect("a whole file") {
            Item::Key(record) if !record.key.starts_with(b"stream:") => {
                record.value.entry().collection().map(|list| list.len())
            }
            _ => None,
        })
        .collect()
}
