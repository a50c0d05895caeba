//! The file of nodes, nodes.conf, in the format of Redis 7.2.
//!
//! One line for each node: name, address, flags, primary or `-`, time of the unanswered ping and of the last pong,
//! epoch, state of the link, slots; then a line with the epochs of this node. The address is `ip:port@bus port` with a
//! host name (which may be empty) and auxiliary fields behind commas. Nodes in handshake are not in it.

use std::collections::HashMap;
use std::fmt::{self, Write};

use crate::event::Now;
use crate::node::{Address, Flags, Node, NodeId, ShardId, host, is_hostname, is_human_name};
use crate::slot::Slot;
use crate::view::{NODES_MAX, View};

/// Prints the file of a view, in O(nodes + slots). `is_tls` says which port stands in the address; the other one is a field of its own.
#[must_use]
pub fn print(view: &View, now: Now, is_tls: bool) -> String {
    let mut text = String::new();
    let ranges = view.ranges_by_node();
    for (key, node) in view.nodes().filter(|(_, node)| !node.is_in_handshake()) {
        print_address(&mut text, node, view.shard_of(key), is_tls).expect("a string takes everything");
        view.write_rest(&mut text, key, &ranges[usize::from(key.0)], now);
    }
    writeln!(
        text,
        "vars currentEpoch {} lastVoteEpoch {}",
        view.current_epoch, view.last_vote_epoch
    )
    .expect("a string takes everything");
    text
}

fn print_address(text: &mut String, node: &Node, shard: ShardId, is_tls: bool) -> fmt::Result {
    let Address {
        ip,
        tcp_port,
        tls_port,
        bus_port,
    } = node.address;
    let (port, other, other_port) = if is_tls {
        (tls_port, "tcp-port", tcp_port)
    } else {
        (tcp_port, "tls-port", tls_port)
    };
    write!(
        text,
        "{} {ip}:{port}@{bus_port},{},{other}={other_port}",
        node.id, node.hostname
    )?;
    if !node.human_name.is_empty() {
        write!(text, ",nodename={}", node.human_name)?;
    }
    write!(text, ",shard-id={shard}")
}

/// A fault in the file: the node does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Number of the line, from 1.
    pub line: usize,
    /// The fault.
    pub fault: &'static str,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of the file of nodes: {}", self.line, self.fault)
    }
}

impl std::error::Error for FileError {}

/// One line, its references not yet resolved.
struct Line<'a> {
    number: usize,
    node: Node,
    primary: Option<NodeId>,
    slots: Vec<&'a str>,
}

/// Reads the file. `None` if it is empty, as it is on a node's first start. `is_tls` says which port stands in the address of a file
/// that does not tell, as those of Redis 7.0.
///
/// # Errors
/// If the file is not what [`print`] or a Redis server writes.
pub fn parse(text: &str, now: Now, is_tls: bool, hash_seed: u64) -> Result<Option<View>, FileError> {
    let mut lines = Vec::new();
    let mut vars = None;
    for (index, text) in text
        .lines()
        .enumerate()
        .filter(|(_, text)| !text.trim().is_empty())
    {
        let number = index + 1;
        let fault = |fault| FileError { line: number, fault };
        match text.strip_prefix("vars ") {
            Some(text) => vars = Some(parse_vars(text).map_err(fault)?),
            None => lines.push(parse_line(number, text, now, is_tls).map_err(fault)?),
        }
    }
    if lines.is_empty() && vars.is_none() {
        return Ok(None);
    }
    if lines.len() > NODES_MAX {
        return Err(FileError {
            line: NODES_MAX,
            fault: "too many nodes",
        });
    }
    let mut view = assemble(lines, hash_seed)?;
    let (current_epoch, last_vote_epoch) = vars.unwrap_or_default();
    view.current_epoch = current_epoch;
    view.current_epoch = view.max_epoch();
    view.last_vote_epoch = last_vote_epoch;
    Ok(Some(view))
}

/// Pairs of names and values; unknown names are of later versions.
fn parse_vars(text: &str) -> Result<(u64, u64), &'static str> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let mut values = HashMap::new();
    for pair in words.chunks(2) {
        let &[name, value] = pair else {
            return Err("a variable without a value");
        };
        values.insert(name, value.parse().map_err(|_| "a variable is no number")?);
    }
    let mut take = |name| values.remove(name).unwrap_or_default();
    Ok((take("currentEpoch"), take("lastVoteEpoch")))
}

fn parse_line(number: usize, text: &str, now: Now, is_tls: bool) -> Result<Line<'_>, &'static str> {
    let mut words = text.split_ascii_whitespace();
    let mut word = || words.next().ok_or("a field is missing");
    let id = word()?.parse().map_err(|_| "malformed name")?;
    let address = word()?;
    let flags = Flags::from_words(word()?).ok_or("unknown flag")?;
    let primary = match word()? {
        "-" => None,
        name => Some(name.parse().map_err(|_| "malformed name of a primary")?),
    };
    let mut node = Node::new(id, flags, Address::default(), now.monotonic_ms);
    parse_address(&mut node, address, is_tls)?;
    let _ping: u64 = word()?.parse().map_err(|_| "malformed time of a ping")?;
    let _pong: u64 = word()?.parse().map_err(|_| "malformed time of a pong")?;
    let epoch: u64 = word()?.parse().map_err(|_| "malformed epoch")?;
    let _link = word()?;
    // The epoch in a replica's line is its primary's: were it taken for its own, it would count as a claim.
    node.config_epoch = if node.is_replica() { 0 } else { epoch };
    if node.is_failed() {
        node.failed_ms = now.monotonic_ms;
    }
    Ok(Line {
        number,
        node,
        primary,
        slots: words.collect(),
    })
}

fn parse_address(node: &mut Node, text: &str, is_tls: bool) -> Result<(), &'static str> {
    let mut parts = text.split(',');
    let endpoint = parts.next().unwrap_or_default();
    let (client, bus) = endpoint
        .split_once('@')
        .ok_or("an address without a port of the bus")?;
    let (ip, port) = client.rsplit_once(':').ok_or("an address without a port")?;
    let port: u16 = port.parse().map_err(|_| "malformed port")?;
    node.address.ip = host(ip).ok_or("malformed address")?;
    node.address.bus_port = bus.parse().map_err(|_| "malformed port of the bus")?;
    let hostname = parts.next().unwrap_or_default();
    if !is_hostname(hostname) {
        return Err("malformed host name");
    }
    node.hostname = Box::from(hostname);
    let mut is_tls_first = is_tls;
    for field in parts {
        let (name, value) = field
            .split_once('=')
            .ok_or("an auxiliary field without a value")?;
        parse_field(node, name, value)?;
        // The field tells which port is not in the address, whatever the directives were when the file was written.
        is_tls_first = match name {
            "tcp-port" => true,
            "tls-port" => false,
            _ => is_tls_first,
        };
    }
    *if is_tls_first {
        &mut node.address.tls_port
    } else {
        &mut node.address.tcp_port
    } = port;
    Ok(())
}

/// Fields of other versions are skipped: unlike flags they change nothing of what a node is.
fn parse_field(node: &mut Node, name: &str, value: &str) -> Result<(), &'static str> {
    let port = || value.parse().map_err(|_| "malformed port");
    match name {
        "shard-id" => node.shard = Some(value.parse().map_err(|_| "malformed shard")?),
        "nodename" if is_human_name(value) => node.human_name = Box::from(value),
        "nodename" => return Err("malformed name for people"),
        "tcp-port" => node.address.tcp_port = port()?,
        "tls-port" => node.address.tls_port = port()?,
        _ => {}
    }
    Ok(())
}

/// Makes a view of the lines: first all nodes, then what refers to them.
fn assemble(mut lines: Vec<Line<'_>>, hash_seed: u64) -> Result<View, FileError> {
    let whole_file = |fault| FileError { line: 1, fault };
    let mine = lines
        .iter()
        .position(|line| line.node.flags.contains(Flags::MYSELF));
    lines.swap(0, mine.ok_or(whole_file("no node is this one"))?);
    let mut nodes = lines.iter().map(|line| (line.number, line.node.clone()));
    let (_, me) = nodes.next().ok_or(whole_file("no nodes"))?;
    let mut view = View::new(me, hash_seed);
    for (line, node) in nodes {
        let is_me = node.flags.contains(Flags::MYSELF);
        if is_me || view.insert(node).is_none() {
            return Err(FileError {
                line,
                fault: "a node stands there twice",
            });
        }
    }
    for line in &lines {
        resolve(&mut view, line).map_err(|fault| FileError {
            line: line.number,
            fault,
        })?;
    }
    Ok(view)
}

fn resolve(view: &mut View, line: &Line<'_>) -> Result<(), &'static str> {
    let key = view.find(&line.node.id).ok_or("unknown node")?;
    if let Some(primary) = line.primary {
        let primary = view.find(&primary).ok_or("unknown primary")?;
        if primary == key || !line.node.is_replica() {
            return Err("a primary that has a primary");
        }
        view.set_primary(key, Some(primary));
    }
    for word in &line.slots {
        match word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            Some(open) if key == view.my_key() => resolve_open(view, open)?,
            Some(_) => {}
            None => {
                let (start, end) = word.split_once('-').unwrap_or((word, word));
                let (start, end) = (slot(start)?, slot(end)?);
                if line.node.is_replica() || start > end {
                    return Err("malformed range of slots");
                }
                for number in start.number()..=end.number() {
                    view.set_owner(Slot::new(number).ok_or("no such slot")?, Some(key));
                }
            }
        }
    }
    Ok(())
}

fn resolve_open(view: &mut View, open: &str) -> Result<(), &'static str> {
    let (text, name, is_leaving) = match (open.split_once("->-"), open.split_once("-<-")) {
        (Some((text, name)), _) => (text, name, true),
        (_, Some((text, name))) => (text, name, false),
        _ => return Err("malformed open slot"),
    };
    let slot = slot(text)?;
    let other = name.parse().map_err(|_| "malformed name at an open slot")?;
    let other = view.find(&other).ok_or("unknown node at an open slot")?;
    if is_leaving {
        view.set_migrating(slot, Some(other));
    } else {
        view.set_importing(slot, Some(other));
    }
    Ok(())
}

fn slot(text: &str) -> Result<Slot, &'static str> {
    let number = text.parse().map_err(|_| "malformed slot")?;
    Slot::new(number).ok_or("no such slot")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now {
        monotonic_ms: 5_000,
        unix_ms: 1_700_000_000_000,
    };

    /// Lines as redis-server 7.0.15 writes them: a host name, a replica, a slot that leaves and one that comes.
    const STOCK_7_0: &str = "\
4de779c2744715dec15756afffa5443233a46908 127.0.0.1:21313@31313 slave 55eeb1892a74b2edf61bd8deb258cb07923bebf8 0 1795893729417 3 connected
64126686da48d91a3334470fd6c3f4e8b3904c59 127.0.0.1:21311@31311,host-1.example master - 0 1795893729000 2 connected 5001-10000
5a210cbbfc4aae1ff7c557ae649068816c5d3ceb 127.0.0.1:21310@31310 myself,master - 0 1795893729000 1 connected 0-5000 [5001-<-64126686da48d91a3334470fd6c3f4e8b3904c59] [93->-64126686da48d91a3334470fd6c3f4e8b3904c59]
0123456789abcdef0123456789abcdef01234567 127.0.0.1:21320@31320 master - 1795893735577 1795893729513 0 connected
55eeb1892a74b2edf61bd8deb258cb07923bebf8 127.0.0.1:21312@31312 master - 0 1795893728992 3 connected 10001-16383
vars currentEpoch 3 lastVoteEpoch 2
";

    /// With the fields of 7.2, ports of both kinds, and an address that is not known.
    const STOCK_7_2: &str = "\
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca ::1:30001@31001,,tls-port=30101,nodename=first,shard-id=69bc080733d1355567173199cff4a6a039a2f024 myself,slave,nofailover 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 0 0 2 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 :0@0,h.example,tls-port=0,shard-id=69bc080733d1355567173199cff4a6a039a2f024 master,fail,noaddr - 0 0 2 disconnected 0-16383
vars currentEpoch 2 lastVoteEpoch 0
";

    fn read(text: &str) -> View {
        parse(text, NOW, false, 1).unwrap().unwrap()
    }

    #[test]
    fn files_of_other_servers_are_read() {
        let view = read(STOCK_7_0);
        assert_eq!((view.len(), view.current_epoch, view.last_vote_epoch), (5, 3, 2));
        assert_eq!(
            (view.me().slots, view.migrating().len(), view.importing().len()),
            (5_001, 1, 1)
        );
        let third = view
            .find(&"55eeb1892a74b2edf61bd8deb258cb07923bebf8".parse().unwrap())
            .unwrap();
        assert_eq!((view.replicas(third).count(), view[third].config_epoch), (1, 3));
        let view = read(STOCK_7_2);
        let me = view.me();
        assert_eq!((me.address.ip.as_str(), me.address.tls_port), ("::1", 30_101));
        assert_eq!(
            (&*me.human_name, me.config_epoch),
            ("first", 0),
            "a replica claims nothing"
        );
        assert!(me.flags.contains(Flags::NOFAILOVER) && me.is_replica());
    }

    #[test]
    fn what_is_printed_is_read_as_the_same() {
        for text in [STOCK_7_0, STOCK_7_2] {
            let first = print(&read(text), NOW, false);
            let again = print(&read(&first), NOW, false);
            assert_eq!(first, again);
        }
        assert!(
            print(&read(STOCK_7_2), NOW, false)
                .contains(" ::1:30001@31001,,tls-port=30101,nodename=first,shard-id=")
        );
    }

    #[test]
    fn the_file_itself_tells_which_port_is_which() {
        let ports = |text: &str, is_tls| {
            let view = parse(text, NOW, is_tls, 1).unwrap().unwrap();
            (view.me().address.tcp_port, view.me().address.tls_port)
        };
        let of_tls = print(&read(STOCK_7_2), NOW, true);
        assert!(of_tls.contains(" ::1:30101@31001,,tcp-port=30001,"), "{of_tls}");
        for is_tls in [false, true] {
            // `tls-cluster` may have changed since the file was written.
            assert_eq!(ports(STOCK_7_2, is_tls), (30_001, 30_101));
            assert_eq!(ports(&of_tls, is_tls), (30_001, 30_101));
        }
        assert_eq!(ports(STOCK_7_0, false), (21_310, 0));
        assert_eq!(ports(STOCK_7_0, true), (0, 21_310));
    }

    #[test]
    fn an_empty_file_is_a_first_start() {
        assert!(parse("", NOW, false, 1).unwrap().is_none());
        assert!(parse("\n", NOW, false, 1).unwrap().is_none());
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line() {
        let line = "e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:1@2 myself,master - 0 0 1 connected";
        for (text, fault) in [
            (line.replace("myself,", ""), "no node is this one"),
            (line.replace("master", "boss"), "unknown flag"),
            (line.replace("connected", ""), "a field is missing"),
            (line.replace("e7d1", "E7D1"), "malformed name"),
            (line.replace("@2", ""), "an address without a port of the bus"),
            (format!("{line} 16384"), "no such slot"),
            (format!("{line} 7-5"), "malformed range of slots"),
            (
                format!("{line} [5->-67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1]"),
                "unknown node at an open slot",
            ),
            (
                line.replace(" - ", " 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 "),
                "unknown primary",
            ),
            (format!("{line}\n{line}"), "a node stands there twice"),
            (format!("{line}\nvars currentEpoch"), "a variable without a value"),
            (format!("{line}\nvars currentEpoch x"), "a variable is no number"),
        ] {
            let error = parse(&text, NOW, false, 1).map(|_| ()).unwrap_err();
            assert_eq!(error.fault, fault, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(cut in 0usize..900, at in 0usize..900, byte in 32u8..127) {
            let mut bytes = STOCK_7_0.as_bytes().to_vec();
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(len - cut % len);
            let _ = parse(&String::from_utf8_lossy(&bytes), NOW, false, 1);
        }
    }
}
