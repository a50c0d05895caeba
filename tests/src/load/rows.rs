//! What is measured, and how much of the reference's cost it may need: a new row is one line here.
//!
//! Commands are written as templates (`template.rs`). Rows that follow each other with the same fill share their
//! servers, so keep them together.

/// How many connections send the load.
pub(crate) const CLIENTS: usize = 50;
/// One key that every client asks for.
const HOT: &str = "GET key:000000004711";

/// What is in the keyspace before a row is measured: `count` times `command`, with its numbers counting from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fill {
    pub(crate) count: u64,
    pub(crate) command: &'static str,
}

/// One command at one depth of pipeline.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) command: &'static str,
    pub(crate) pipeline: usize,
    pub(crate) fill: Fill,
    /// The target: CPU per operation, at most so many times that of the reference.
    pub(crate) at_most: f64,
}

/// One command on one key, and how unevenly the shards may share its cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HotRow {
    pub(crate) name: &'static str,
    pub(crate) command: &'static str,
    pub(crate) pipeline: usize,
    pub(crate) fill: Fill,
    pub(crate) shards: usize,
    /// The target: the busiest thread's part of the CPU time of the process.
    pub(crate) share_at_most: f64,
}

const STRINGS: Fill = Fill {
    count: 1_000_000,
    command: "SET {key} {value:64}",
};
const COUNTERS: Fill = Fill {
    count: 1_000_000,
    command: "SET counter:{rand:1000000} 1",
};
const LARGE: Fill = Fill {
    count: 10_000,
    command: "SET large:{rand:10000} {value:16384}",
};

const GET: &str = "GET {key}";
const SET: &str = "SET {key} {value:64}";

/// One shard against redis-server.
#[rustfmt::skip] // A row is a line, however long.
pub(crate) const CPU: &[Row] = &[
    row("GET -P 1", GET, 1, STRINGS, 0.80),
    row("SET -P 1", SET, 1, STRINGS, 0.80),
    row("GET -P 16", GET, 16, STRINGS, 0.40),
    row("SET -P 16", SET, 16, STRINGS, 0.35),
    row("GET -P 100", GET, 100, STRINGS, 0.25),
    row("SET -P 100", SET, 100, STRINGS, 0.25),
    row("GET hot key -P 16", HOT, 16, STRINGS, 0.60),
    row("MSET of 10 -P 16", "MSET [ {key} {value:64} ]*10", 16, STRINGS, 0.38),
    row("INCR -P 16", "INCR counter:{rand:1000000}", 16, COUNTERS, 0.45),
    row("GET 16 KiB -P 1", "GET large:{rand:10000}", 1, LARGE, 0.90),
    row("SET 16 KiB -P 1", "SET large:{rand:10000} {value:16384}", 1, LARGE, 0.90),
];

/// Two shards against one.
pub(crate) const SHARDS: &[Row] = &[
    row("GET -P 1, 2 shards", GET, 1, STRINGS, 1.20),
    row("SET -P 1, 2 shards", SET, 1, STRINGS, 1.20),
    row("GET -P 16, 2 shards", GET, 16, STRINGS, 1.15),
    row("SET -P 16, 2 shards", SET, 16, STRINGS, 1.15),
];

/// One hot key and several shards.
pub(crate) const HOT_KEY: &[HotRow] = &[
    hot("GET hot key -P 16, 2 shards", HOT, 16, 2, 0.60),
    hot("GET hot key -P 16, 6 shards", HOT, 16, 6, 0.25),
];

const fn row(name: &'static str, command: &'static str, pipeline: usize, fill: Fill, at_most: f64) -> Row {
    Row {
        name,
        command,
        pipeline,
        fill,
        at_most,
    }
}

const fn hot(
    name: &'static str,
    command: &'static str,
    pipeline: usize,
    shards: usize,
    share_at_most: f64,
) -> HotRow {
    HotRow {
        name,
        command,
        pipeline,
        fill: STRINGS,
        shards,
        share_at_most,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::load::template::Template;

    #[test]
    fn every_row_can_be_encoded_and_has_a_name_of_its_own() {
        let rows: Vec<_> = CPU.iter().chain(SHARDS).collect();
        for row in &rows {
            assert!(Template::random(row.command, row.pipeline).is_ok(), "{row:?}");
            assert!(Template::counting(row.fill.command, 1).is_ok(), "{row:?}");
            assert!(row.at_most > 0.0, "{row:?}");
        }
        for row in HOT_KEY {
            assert!(Template::random(row.command, row.pipeline).is_ok(), "{row:?}");
            assert!(row.share_at_most < 1.0 && row.shards > 1, "{row:?}");
        }
        let names = CPU
            .iter()
            .chain(SHARDS)
            .map(|row| row.name)
            .chain(HOT_KEY.iter().map(|row| row.name));
        assert_eq!(names.clone().collect::<HashSet<_>>().len(), names.count());
    }
}
