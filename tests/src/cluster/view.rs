//! Views: what a node says about its cluster, in CLUSTER NODES, SLOTS, SHARDS and INFO, and whether two nodes say the same.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::client::Client;
use crate::replication::member::Member;
use crate::reply::Reply;
use crate::slot::SLOTS;

/// A line of CLUSTER NODES.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeLine {
    /// Its id.
    pub id: String,
    /// Port of its clients.
    pub port: u16,
    /// Port of its bus, as it is announced.
    pub bus_port: u16,
    /// The words of its flags, without `myself`.
    pub flags: BTreeSet<String>,
    /// Id of its primary.
    pub primary: Option<String>,
    /// Its configuration epoch; that of its primary for a replica.
    pub epoch: u64,
    /// Its slots.
    pub slots: Vec<(u16, u16)>,
}

impl NodeLine {
    /// Reads a line; the slots on their way, which only a node itself shows, come beside it.
    ///
    /// # Errors
    /// The line, if it is none.
    pub fn parse(line: &str) -> Result<(NodeLine, Vec<String>), String> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [id, address, flags, primary, _, _, epoch, _, slots @ ..] = &words[..] else {
            return Err(format!("no line of a node: {line}"));
        };
        let address = address.split(',').next().unwrap_or_default();
        let ports = address
            .rsplit_once(':')
            .and_then(|(_, ports)| ports.split_once('@'));
        let parsed = ports.and_then(|(port, bus)| Some((port.parse().ok()?, bus.parse().ok()?)));
        let Some((port, bus_port)) = parsed else {
            return Err(format!("no address: {line}"));
        };
        let is_open = |word: &&&str| word.starts_with('[');
        let range = |word: &&str| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            first.parse().ok().zip(last.parse().ok())
        };
        let owned: Option<Vec<(u16, u16)>> = slots.iter().filter(|word| !is_open(word)).map(range).collect();
        let line = NodeLine {
            id: (*id).to_owned(),
            port,
            bus_port,
            flags: flags
                .split(',')
                .filter(|flag| *flag != "myself")
                .map(str::to_owned)
                .collect(),
            primary: (*primary != "-").then(|| (*primary).to_owned()),
            epoch: epoch.parse().map_err(|_| format!("no epoch: {line}"))?,
            slots: owned.ok_or_else(|| format!("no slots: {line}"))?,
        };
        let open = slots.iter().filter(is_open).map(|word| (*word).to_owned());
        Ok((line, open.collect()))
    }

    /// Whether the node is up, and known by its name.
    #[must_use]
    pub fn is_well(&self) -> bool {
        ["fail", "fail?", "handshake", "noaddr"]
            .iter()
            .all(|flag| !self.flags.contains(*flag))
    }

    /// The slots, as ranges.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.slots.iter().map(|&(first, last)| first..=last)
    }
}

/// A view of a cluster: one node's replies, without what is true for that node alone.
#[derive(Clone, Debug)]
pub struct View {
    /// Lines of CLUSTER NODES, in the order of ids.
    pub lines: Vec<NodeLine>,
    /// Slots on their way from or to the node that was asked.
    pub open: Vec<String>,
    /// Ranges of CLUSTER SLOTS.
    slots: Vec<String>,
    /// Shards of CLUSTER SHARDS.
    shards: Vec<String>,
    /// Reply to CLUSTER INFO.
    info: String,
}

impl View {
    /// Asks a node.
    ///
    /// # Errors
    /// The reason for which it did not answer, or the line that is none.
    pub fn of(member: &Member) -> Result<View, String> {
        let mut client = Client::connect(member.address()).map_err(|error| error.to_string())?;
        let mut ask = |what: &str| {
            let reply = client
                .try_call(&["CLUSTER", what])
                .map_err(|error| error.to_string())?;
            match reply.is_error() {
                true => Err(format!("CLUSTER {what}: {reply}")),
                false => Ok(reply),
            }
        };
        let (mut lines, mut open) = (Vec::new(), Vec::new());
        for line in ask("NODES")?.text().lines() {
            let (line, of_line) = NodeLine::parse(line)?;
            lines.push(line);
            open.extend(of_line);
        }
        lines.sort();
        Ok(View {
            lines,
            open,
            slots: slots(&ask("SLOTS")?),
            shards: shards(&ask("SHARDS")?),
            info: ask("INFO")?.text(),
        })
    }

    /// The line of a node's id.
    #[must_use]
    pub fn line(&self, id: &str) -> Option<&NodeLine> {
        self.lines.iter().find(|line| line.id == id)
    }

    /// The line of the node that owns a slot.
    #[must_use]
    pub fn owner(&self, slot: u16) -> Option<&NodeLine> {
        let owns = |line: &&NodeLine| line.ranges().any(|range| range.contains(&slot));
        self.lines.iter().find(owns)
    }

    /// A figure of CLUSTER INFO.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<&str> {
        let mut lines = self.info.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    }

    /// Whether all nodes are up, and each slot has exactly one owner.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn is_whole(&self) -> Result<(), String> {
        if let Some(line) = self.lines.iter().find(|line| !line.is_well()) {
            return Err(format!("a node is not well: {line:?}"));
        }
        self.is_served()
    }

    /// Whether each slot has exactly one owner that is up.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn is_served(&self) -> Result<(), String> {
        let mut owned = vec![0_u8; SLOTS.into()];
        for line in self.lines.iter().filter(|line| !line.slots.is_empty()) {
            if !line.is_well() {
                return Err(format!("an owner is not well: {line:?}"));
            }
            for slot in line.ranges().flatten() {
                owned[usize::from(slot)] += 1;
            }
        }
        if let Some(slot) = owned.iter().position(|&owners| owners != 1) {
            return Err(format!("slot {slot} has {} owners", owned[slot]));
        }
        match self.figure("cluster_state") {
            Some("ok") => Ok(()),
            state => Err(format!("the state is {state:?}")),
        }
    }

    /// Whether another node says the same.
    ///
    /// # Errors
    /// The difference.
    pub fn agrees_with(&self, other: &View) -> Result<(), String> {
        same("CLUSTER NODES", &self.lines, &other.lines)?;
        same("CLUSTER SLOTS", &self.slots, &other.slots)?;
        same("CLUSTER SHARDS", &self.shards, &other.shards)?;
        for name in [
            "cluster_state",
            "cluster_known_nodes",
            "cluster_size",
            "cluster_slots_assigned",
        ] {
            same(name, &[self.figure(name)], &[other.figure(name)])?;
        }
        Ok(())
    }
}

/// Compares parts of two views.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: &[T], other: &[T]) -> Result<(), String> {
    if one.len() != other.len() {
        return Err(format!(
            "{what}: {} and {} parts: {one:?} {other:?}",
            one.len(),
            other.len()
        ));
    }
    match one.iter().zip(other).find(|(one, other)| one != other) {
        None => Ok(()),
        Some((one, other)) => Err(format!("{what}: {one:?} is not {other:?}")),
    }
}

/// The ranges of CLUSTER SLOTS; the replicas of each, which come in any order, sorted.
fn slots(reply: &Reply) -> Vec<String> {
    let range = |range: &Reply| match range.items() {
        [first, last, primary, replicas @ ..] => {
            let mut replicas: Vec<String> = replicas.iter().map(Reply::to_string).collect();
            replicas.sort();
            format!("{first}-{last} {primary} {replicas:?}")
        }
        _ => format!("no range: {range}"),
    };
    let mut ranges: Vec<String> = reply.items().iter().map(range).collect();
    ranges.sort();
    ranges
}

/// The shards of CLUSTER SHARDS, without offsets; they and their nodes sorted.
fn shards(reply: &Reply) -> Vec<String> {
    let node = |node: &Reply| {
        let fields = node.pairs().into_iter();
        let fields = fields.filter(|(name, _)| name.bytes() != b"replication-offset");
        let mut fields: Vec<String> = fields.map(|(name, value)| format!("{name}={value}")).collect();
        fields.sort();
        fields.join(" ")
    };
    let shard = |shard: &Reply| {
        let (Some(slots), Some(nodes)) = (shard.field("slots"), shard.field("nodes")) else {
            return format!("no shard: {shard}");
        };
        let mut nodes: Vec<String> = nodes.items().iter().map(node).collect();
        nodes.sort();
        format!("{slots} {nodes:?}")
    };
    let mut shards: Vec<String> = reply.items().iter().map(shard).collect();
    shards.sort();
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let text = "07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,host myself,slave,fail? \
                    e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected 1 5-7 [77->-abc]";
        let (line, open) = NodeLine::parse(text).unwrap();
        assert_eq!((line.port, line.bus_port, line.epoch), (30004, 31004, 4));
        assert_eq!(line.flags.iter().collect::<Vec<_>>(), ["fail?", "slave"]);
        assert_eq!(line.slots, [(1, 1), (5, 7)]);
        assert_eq!(open, ["[77->-abc]"]);
        assert!(!line.is_well());
        assert!(NodeLine::parse("07c37 127.0.0.1 master").is_err());
    }
}
