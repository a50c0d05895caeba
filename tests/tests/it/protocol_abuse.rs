//! Requests that no honest client sends, over raw sockets, to both servers: the same words, the same end.

use std::time::Duration;

use shardis_tests::client::Client;
use shardis_tests::process::Process;
use shardis_tests::procfs::resident_bytes;
use shardis_tests::reply::Reply;
use shardis_tests::{node, redis};

/// Longest time for a server to answer and, where it should, to close.
const PATIENCE: Duration = Duration::from_millis(400);

/// Outcome of sending some bytes.
#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    replies: Vec<Reply>,
    is_closed: bool,
}

/// Sends bytes on a connection of their own, then waits for what comes.
fn judge(server: &Process, bytes: &[u8]) -> Verdict {
    let mut client = server.connect();
    // A server that has closed already may refuse the rest: the read shows that.
    let _ = client.write(bytes);
    let (replies, is_closed) = client.rest(PATIENCE);
    Verdict { replies, is_closed }
}

/// Both servers get each of the byte strings, all at the same time, and must agree on every one.
fn agree(cases: &[Vec<u8>], options: &[&str]) {
    let oracle = redis::launch().with(options).serve();
    let subjects = [1, 4].map(|shards| node::launch(shards).with(options).serve());
    let judge_all = |server: &Process| -> Vec<Verdict> {
        std::thread::scope(|scope| {
            let judges: Vec<_> = cases
                .iter()
                .map(|bytes| scope.spawn(move || judge(server, bytes)))
                .collect();
            judges
                .into_iter()
                .map(|judge| judge.join().expect("a judge that returns"))
                .collect()
        })
    };
    let wanted = judge_all(&oracle);
    let mut report = String::new();
    for subject in &subjects {
        for ((bytes, wanted), got) in cases.iter().zip(&wanted).zip(judge_all(subject)) {
            if *wanted != got {
                let request = shardis_tests::reply::quoted(&bytes[..bytes.len().min(200)]);
                report += &format!("{request}\n  wanted {}\n  got    {}\n", told(wanted), told(&got));
            }
        }
        let reply = subject.connect().line("PING").text();
        assert!(
            reply == "PONG" || reply.starts_with("NOAUTH"),
            "the server lives: {reply}"
        );
    }
    assert!(report.is_empty(), "{report}");
}

/// A verdict in one line.
fn told(verdict: &Verdict) -> String {
    let replies: Vec<String> = verdict.replies.iter().map(Reply::to_string).collect();
    format!(
        "{}{}",
        replies.join(" "),
        if verdict.is_closed { " closed" } else { " open" }
    )
}

/// Byte strings from texts.
fn bytes(cases: &[&str]) -> Vec<Vec<u8>> {
    cases.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn headers_of_requests() {
    agree(
        &bytes(&[
            "*1\r\n$4\r\nPING\r\n",
            "*-1\r\nPING\r\n",
            "*0\r\nPING\r\n",
            "*-10\r\nPING\r\n",
            "*1048577\r\n",
            "*2147483648\r\n",
            "*99999999999999999999\r\n",
            "*abc\r\n",
            "*\r\n",
            "*1.5\r\n",
            "* 1\r\n",
            "*+1\r\n$4\r\nPING\r\n",
            "*01\r\n$4\r\nPING\r\n",
            "*-0\r\n",
            "*1 \r\n$4\r\nPING\r\n",
            "*1\n$4\r\nPING\r\n",
            "*1\rX$4\r\nPING\r\n",
            "*1\r\nPING\r\n",
            "*1\r\n+PING\r\n",
            "*1\r\n:4\r\n",
            "*1\r\n*1\r\n$4\r\nPING\r\n",
            "*1\r\n\x00\r\n",
            "*1\r\n\x7f\r\n",
            "*1\r\n\"\r\n",
            "*1\r\n'\r\n",
            "*1\r\n\\\r\n",
            "*1\r\n\n\r\n",
            "*1\r\n \r\n",
            "*1\r\n\r\n",
            "*2\r\n$4\r\nPING\r\n",
            "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
            "*1\r\n$4\r\nPING\r\n*x\r\n",
            "*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n",
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\nX",
        ]),
        &[],
    );
}

#[test]
fn headers_of_arguments() {
    agree(
        &bytes(&[
            "*1\r\n$-1\r\n",
            "*1\r\n$-2\r\n",
            "*1\r\n$0\r\n\r\n",
            "*2\r\n$0\r\n\r\n$0\r\n\r\n",
            "*1\r\n$abc\r\n",
            "*1\r\n$\r\n",
            "*1\r\n$ 4\r\nPING\r\n",
            "*1\r\n$+4\r\nPING\r\n",
            "*1\r\n$04\r\nPING\r\n",
            "*1\r\n$-0\r\n\r\n",
            "*1\r\n$4 \r\nPING\r\n",
            "*1\r\n$4\nPING\r\n",
            "*1\r\n$4\rXPING\r\n",
            "*1\r\n$536870913\r\n",
            "*1\r\n$536870912\r\n",
            "*1\r\n$9223372036854775807\r\n",
            "*1\r\n$9223372036854775808\r\n",
            "*1\r\n$99999999999999999999\r\n",
            "*1\r\n$4\r\nPINGXX*1\r\n$4\r\nPING\r\n",
            "*1\r\n$4\r\nPING\n\n*1\r\n$4\r\nPING\r\n",
            "*1\r\n$5\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
            "*1\r\n$3\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
            "*2\r\n$4\r\nPING\r\n$-1\r\n",
            "*2\r\n$4\r\nECHO\r\n$3\r\na",
            "*2\r\n$4\r\nECHO\r\n$7\r\n\r\n\x00\r\n\r\n\r\n",
        ]),
        &[],
    );
}

#[test]
fn inline_requests() {
    agree(
        &bytes(&[
            "PING\r\n",
            "PING\n",
            "ping hello\r\n",
            "\r\nPING\r\n",
            "\n\n\nPING\n",
            "   PING   \r\n",
            "  \r\nPING\r\n",
            "\t PING\tx \r\n",
            "PING\r",
            "PING",
            "ECHO \"a b\"\r\n",
            "ECHO 'a b'\r\n",
            "ECHO \"\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\"\r\n",
            "ECHO \"\\xzz\\x4\"\r\n",
            "ECHO 'it\\'s \\n'\r\n",
            "ECHO \"\"\r\n",
            "ECHO ''\r\n",
            "\"\"\r\n",
            "ECHO \"a\"b\r\n",
            "ECHO 'a'b\r\n",
            "ECHO a\"b\"\r\n",
            "ECHO a'b c'\r\n",
            "ECHO \"unbalanced\r\n",
            "ECHO 'unbalanced\r\n",
            "ECHO \"unbalanced\\\"\r\n",
            "PING\r\nECHO \"x\r\nPING\r\n",
            "ECHO a\x00b\r\nPING\r\n",
            "SET k v\r\nGET k\r\nGET k x\r\n",
            "$4\r\nPING\r\n",
            "+PING\r\n",
            "nosuch a b\r\n",
            "GET\r\n",
            "POST / HTTP/1.1\r\nPING\r\n",
            "Host: example.org\r\nPING\r\n",
            "host: example.org\r\n",
            "post\r\nPING\r\n",
            "\u{e4}\u{f6}\u{fc}\r\n",
            "QUIT\r\nPING\r\n",
            "QUIT",
        ]),
        &[],
    );
}

#[test]
fn requests_that_are_too_long() {
    let long = |prefix: &str, unit: &str, count: usize, end: &str| {
        format!("{prefix}{}{end}", unit.repeat(count)).into_bytes()
    };
    agree(
        &[
            long("ECHO ", "a", 65_000, "\r\n"),
            long("ECHO ", "a", 66_000, ""),
            long("ECHO ", "a", 200_000, ""),
            long("", "a ", 40_000, ""),
            long("*", "1", 66_000, ""),
            long("*", "1", 40, "\r\n"),
            long("*1\r\n$", "1", 66_000, ""),
            long("*1\r\n$", "1", 40, "\r\n"),
            long("*1\r\n", "$", 70_000, ""),
            long("*2\r\n$4\r\nECHO\r\n$100000\r\n", "a", 100_000, "\r\n"),
            long("*2001\r\n$3\r\nDEL\r\n", "$1\r\nk\r\n", 2000, ""),
            long("", "*1\r\n", 1000, "$4\r\nPING\r\n"),
            long("", "*0\r\n", 1000, "PING\r\n"),
            long("", "\r\n", 1000, "PING\r\n"),
        ],
        &[],
    );
}

/// A web page can make a browser send a form here; its headers end the connection, so that nothing in the body is
/// executed.
#[test]
fn a_browser_is_hung_up_on() {
    for server in [node::start(1), node::start(4)] {
        let verdict = judge(
            &server,
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\nSET from web\r\n",
        );
        assert!(verdict.is_closed, "{}", told(&verdict));
        assert!(server.connect().line("GET from").is_null());
    }
}

/// Before a client has given the password it is not trusted with large requests.
#[test]
fn requests_before_auth() {
    let auth = "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n";
    let eleven = format!("*11\r\n{}", "$1\r\na\r\n".repeat(11));
    let ten = format!("*10\r\n{}", "$1\r\na\r\n".repeat(10));
    let cases = [
        "*1\r\n$4\r\nPING\r\n".to_owned(),
        ten,
        eleven.clone(),
        "*11\r\n".to_owned(),
        "*1\r\n$16384\r\n".to_owned(),
        "*1\r\n$16385\r\n".to_owned(),
        "*2\r\n$4\r\nAUTH\r\n$16385\r\n".to_owned(),
        format!("{auth}{eleven}"),
        format!("{auth}*2\r\n$4\r\nECHO\r\n$17000\r\n{}\r\n", "a".repeat(17_000)),
        "PING\r\n".to_owned(),
        "AUTH wrong\r\nPING\r\nAUTH secret\r\nPING\r\n".to_owned(),
        format!("a {}\r\n", "b ".repeat(100)),
        "QUIT\r\n".to_owned(),
    ];
    agree(&cases.map(String::into_bytes), &["--requirepass", "secret"]);
}

/// One pipeline, cut in two at every byte: the same replies each time.
#[test]
fn a_pipeline_may_be_split_anywhere() {
    let pipeline = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nva\r\nl\r\nPING\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n\r\n*0\r\nECHO \"x y\"\r\n*1\r\n$4\r\nPING\r\n";
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        for cut in 0..pipeline.len() {
            client.write(&pipeline[..cut]).expect("a server that reads");
            // The pause lets the server see the first half alone, now and then at least.
            std::thread::sleep(Duration::from_micros(300));
            client.write(&pipeline[cut..]).expect("a server that reads");
            let replies: Vec<String> = (0..5)
                .map(|_| {
                    client
                        .read()
                        .map_or_else(|error| error.to_string(), |reply| reply.to_string())
                })
                .collect();
            assert_eq!(
                replies,
                ["+OK", "+PONG", r#""va\r\nl""#, r#""x y""#, "+PONG"],
                "cut after {cut} bytes"
            );
        }
    }
}

#[test]
fn a_pipeline_may_arrive_byte_by_byte() {
    let server = node::start(4);
    let mut client = server.connect();
    for byte in b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$3\r\nval\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n" {
        client.write(&[*byte]).expect("a server that reads");
        std::thread::sleep(Duration::from_micros(200));
    }
    let replies: Vec<String> = (0..3)
        .map(|_| client.read().expect("a reply").to_string())
        .collect();
    assert_eq!(replies, ["+OK", r#""val""#, "+PONG"]);
}

#[test]
fn a_long_pipeline_over_all_shards_keeps_its_order() {
    for shards in [1, 4] {
        let server = node::start(shards);
        let mut client = server.connect();
        let commands: Vec<Vec<Vec<u8>>> = (0..20_000)
            .map(|i| {
                let (name, key) = (
                    if i % 2 == 0 { "SET" } else { "GET" },
                    format!("k{}", i / 2 % 1000),
                );
                let value = (i / 2).to_string();
                let words = if i % 2 == 0 {
                    vec![name, &key, &value]
                } else {
                    vec![name, &key]
                };
                words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
            })
            .collect();
        for (i, reply) in client.pipeline(&commands).iter().enumerate() {
            let wanted = if i % 2 == 0 {
                "OK".to_owned()
            } else {
                (i / 2).to_string()
            };
            assert_eq!(reply.text(), wanted, "reply {i} of {shards} shard(s)");
        }
    }
}

#[test]
fn large_arguments() {
    let server = node::start(4);
    let mut client = server.connect();
    for size in [1 << 20, 64 << 20] {
        let value: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
        assert_eq!(client.call(&[&b"SET"[..], b"big", &value]).text(), "OK");
        assert_eq!(client.line("STRLEN big").integer(), Some(i64::from(size)));
        assert!(
            client.line("GET big").bytes() == value,
            "a value of {size} bytes comes back as it was"
        );
        assert_eq!(
            client.line("GETRANGE big 1000000 1000001").bytes(),
            &value[1_000_000..=1_000_001]
        );
    }
    let key = vec![b'k'; 1 << 20];
    assert_eq!(client.call(&[&b"SET"[..], &key, b"v"]).text(), "OK");
    assert_eq!(client.call(&[&b"GET"[..], &key]).text(), "v");
    assert_eq!(client.line("DEL big").integer(), Some(1));
}

/// Many large requests that are never finished cost a server no more than what was sent.
#[test]
fn promises_are_not_memory() {
    let server = node::start(1);
    let resident = || resident_bytes(server.pid()).expect("a running process");
    let before = resident();
    let clients: Vec<Client> = (0..50)
        .map(|_| {
            let mut client = server.connect();
            client
                .write(b"*1000000\r\n$3\r\nSET\r\n$500000000\r\nabc")
                .expect("a server that reads");
            client
        })
        .collect();
    assert_eq!(server.connect().line("PING").text(), "PONG");
    let grown = resident().saturating_sub(before);
    assert!(grown < 200 << 20, "{} promises cost {grown} bytes", clients.len());
}
