//! The commands that make a stream: its entries, the figures about them, its groups with their consumers and what is pending.

use super::Lines;
use crate::value::stream::{Group, Order, Stream, StreamId};

/// Entries, or pending ones, in a part.
const ENTRIES_PER_PART: usize = 16;

/// The id of an entry that is added to an empty stream and trimmed at once, so that there is a stream.
const FIRST_POSSIBLE: StreamId = StreamId::new(0, 1);

/// The part of a stream that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The creation of an empty stream, or the first entries.
    Start,
    /// The entries from this id on.
    Entries(StreamId),
    /// The figures.
    Figures,
    /// The creation of this group and its consumers.
    Group(usize),
    /// Pending entries of a group, from this id on.
    Pending(usize, StreamId),
}

/// Writes the part at a place; returns the place of the next one, none at the end.
pub(super) fn part(place: Place, key: &[u8], stream: &Stream, lines: &mut Lines<'_>) -> Option<Place> {
    match place {
        Place::Start if stream.is_empty() => {
            lines.begin(7);
            lines.words(&[b"XADD", key, b"MAXLEN", b"0"]);
            lines.display(FIRST_POSSIBLE);
            lines.words(&[b"x", b"y"]);
            Some(Place::Figures)
        }
        Place::Start => Some(entries(StreamId::MIN, key, stream, lines)),
        Place::Entries(from) => Some(entries(from, key, stream, lines)),
        Place::Figures => {
            figures(key, stream, lines);
            next_group(stream, 0)
        }
        Place::Group(number) => {
            make_group(group(stream, number), key, lines);
            Some(Place::Pending(number, StreamId::MIN))
        }
        Place::Pending(number, from) => match pending(group(stream, number), from, key, lines) {
            Some(next) => Some(Place::Pending(number, next)),
            None => next_group(stream, number + 1),
        },
    }
}

fn group(stream: &Stream, number: usize) -> &Group {
    stream
        .group_at(number)
        .expect("a stream that is written does not change")
}

fn next_group(stream: &Stream, number: usize) -> Option<Place> {
    (number < stream.groups().len()).then_some(Place::Group(number))
}

fn entries(from: StreamId, key: &[u8], stream: &Stream, lines: &mut Lines<'_>) -> Place {
    let mut items = stream.log().range(from, StreamId::MAX, Order::Ascending);
    for item in items.by_ref().take(ENTRIES_PER_PART) {
        lines.begin(3 + 2 * item.len());
        lines.words(&[b"XADD", key]);
        lines.display(item.id);
        for (name, value) in item.fields() {
            lines.text(name);
            lines.text(value);
        }
    }
    items
        .next()
        .map_or(Place::Figures, |item| Place::Entries(item.id))
}

fn figures(key: &[u8], stream: &Stream, lines: &mut Lines<'_>) {
    let log = stream.log();
    lines.begin(7);
    lines.words(&[b"XSETID", key]);
    lines.display(log.last_id());
    lines.word(b"ENTRIESADDED");
    // A command takes no more.
    lines.display(log.entries_added().min(i64::MAX as u64));
    lines.word(b"MAXDELETEDID");
    lines.display(log.max_deleted_id());
}

fn make_group(group: &Group, key: &[u8], lines: &mut Lines<'_>) {
    lines.begin(7);
    lines.words(&[b"XGROUP", b"CREATE", key, group.name()]);
    lines.display(group.last_id);
    lines.word(b"ENTRIESREAD");
    lines.display(group.entries_read_in_command());
    for (_, consumer) in group.consumers() {
        lines.begin(5);
        lines.words(&[b"XGROUP", b"CREATECONSUMER", key, group.name(), consumer.name()]);
    }
}

/// Writes some pending entries; returns the id from which to go on, if there are more.
fn pending(group: &Group, from: StreamId, key: &[u8], lines: &mut Lines<'_>) -> Option<StreamId> {
    let mut entries = group.pending_from(from);
    for entry in entries.by_ref().take(ENTRIES_PER_PART) {
        let owner = group.consumer(entry.consumer);
        let owner = owner.expect("what is pending is so with a consumer");
        lines.begin(12);
        lines.words(&[b"XCLAIM", key, group.name(), owner.name(), b"0"]);
        lines.display(entry.id);
        lines.word(b"TIME");
        lines.int(entry.delivered_ms);
        lines.word(b"RETRYCOUNT");
        lines.display(entry.deliveries);
        lines.words(&[b"JUSTID", b"FORCE"]);
    }
    entries.next().map(|entry| entry.id)
}
