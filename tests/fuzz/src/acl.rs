//! One run over arbitrary bytes taken for the rules of a user, or for a file of users: they are refused, and nothing has changed; or they
//! are taken, and what ACL LIST then shows is taken again and shows the same.
//!
//! The same body runs under the fuzzer and, over seeded data, as a plain test of the server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use shardis::Server;

/// A server whose users are in a file of this directory.
pub(crate) fn start(directory: &Path) -> Server {
    let file = directory.join("users.acl");
    fs::write(&file, "user default on nopass ~* &* +@all\n").expect("a file");
    Server::builder()
        .directive("aclfile", file.display().to_string())
        .start()
        .expect("it starts")
}

/// Takes `data` for the rules of a user, whose words are between spaces.
pub(crate) fn check_rules(server: &Server, data: &[u8]) {
    let words: Vec<&[u8]> = data.split(|byte| *byte == b' ').take(200).collect();
    let mut request = vec![&b"ACL"[..], b"SETUSER", b"fuzzed"];
    request.extend(words);
    let before = ask(server, &[b"ACL", b"LIST"]);
    let reply = ask(server, &request);
    let after = ask(server, &[b"ACL", b"LIST"]);
    if reply.starts_with(b"-") {
        assert_eq!(before, after, "a refused rule has changed something");
    } else {
        assert_eq!(reply, b"+OK\r\n");
        // The normal form means the same: as rules of another user, who is new, it gives the same line.
        let line = line_of(&after, b"fuzzed");
        let mut again = vec![&b"ACL"[..], b"SETUSER", b"copy"];
        again.extend(words_of(&line));
        assert_eq!(
            ask(server, &again),
            b"+OK\r\n",
            "{}",
            String::from_utf8_lossy(&line)
        );
        let copied = line_of(&ask(server, &[b"ACL", b"LIST"]), b"copy");
        assert_eq!(copied, line);
        ask(server, &[b"ACL", b"GETUSER", b"fuzzed"]);
        ask(server, &[b"ACL", b"DRYRUN", b"fuzzed", b"get", b"k"]);
    }
    ask(server, &[b"ACL", b"DELUSER", b"fuzzed", b"copy"]);
}

/// Takes `data` for the file of users.
pub(crate) fn check_file(server: &Server, directory: &Path, data: &[u8]) {
    let file = directory.join("users.acl");
    // Whoever asks needs to be let in afterwards.
    let text = [data, b"\nuser default on nopass ~* &* +@all\n"].concat();
    fs::write(&file, text).expect("a file");
    let before = ask(server, &[b"ACL", b"LIST"]);
    let reply = ask(server, &[b"ACL", b"LOAD"]);
    if reply.starts_with(b"-") {
        assert_eq!(
            ask(server, &[b"ACL", b"LIST"]),
            before,
            "a refused file has changed something"
        );
        return;
    }
    let loaded = ask(server, &[b"ACL", b"LIST"]);
    assert_eq!(ask(server, &[b"ACL", b"SAVE"]), b"+OK\r\n");
    assert_eq!(
        ask(server, &[b"ACL", b"LOAD"]),
        b"+OK\r\n",
        "what is saved is loaded"
    );
    assert_eq!(ask(server, &[b"ACL", b"LIST"]), loaded);
}

/// The rules in the line of a user, as ACL LIST has it.
fn line_of(list: &[u8], user: &[u8]) -> Vec<u8> {
    let begin = [b"\nuser ", user, b" "].concat();
    let at = list
        .windows(begin.len())
        .position(|part| part == begin)
        .expect("the user is listed");
    let rest = &list[at + begin.len()..];
    let end = rest
        .windows(2)
        .position(|part| part == b"\r\n")
        .expect("a line ends");
    rest[..end].to_vec()
}

/// The words of a line; a selector is one.
fn words_of(line: &[u8]) -> Vec<&[u8]> {
    line.split(|byte| *byte == b' ').collect()
}

/// The reply to a request, on a connection of its own.
fn ask(server: &Server, words: &[&[u8]]) -> Vec<u8> {
    let mut socket = TcpStream::connect(server.address()).expect("it accepts connections");
    socket
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("a timeout");
    let mut request = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        request.extend_from_slice(word);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"*1\r\n$4\r\nQUIT\r\n");
    socket.write_all(&request).expect("it is sent");
    let mut reply = Vec::new();
    socket.read_to_end(&mut reply).expect("it answers");
    reply.truncate(reply.len() - b"+OK\r\n".len());
    reply
}
