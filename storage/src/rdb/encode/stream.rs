//! The parts of a stream: its blocks, the figures about them, then for each group what is pending and its consumers.

use super::super::opcode::UNKNOWN;
use super::super::writer::{Sink, id_bytes};
use crate::value::stream::{Consumer, Group, Stream, StreamId};

/// Pending entries in a part.
const PENDING_PER_PART: usize = 64;

/// The part of a stream that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The number of blocks.
    Start,
    /// The first block from this id on.
    Block(StreamId),
    /// The figures, and the number of groups.
    Figures,
    /// Name and figures of this group.
    Group(usize),
    /// Pending entries of a group from this id on.
    Pending(usize, StreamId),
    /// The number of a group's consumers.
    Consumers(usize),
    /// Name and figures of a consumer of a group.
    Consumer(usize, usize),
    /// Pending entries of a consumer of a group from this id on.
    Owned(usize, usize, StreamId),
}

/// Writes the part at a place; returns the place of the next one, none at the end.
pub(super) fn part(place: Place, stream: &Stream, sink: &mut Sink<'_>) -> Option<Place> {
    match place {
        Place::Start => {
            sink.count(stream.log().blocks());
            Some(Place::Block(StreamId::MIN))
        }
        Place::Block(from) => Some(block(from, stream, sink)),
        Place::Figures => {
            figures(stream, sink);
            next_group(stream, 0)
        }
        Place::Group(number) => {
            head_of_group(group(stream, number), sink);
            Some(Place::Pending(number, StreamId::MIN))
        }
        Place::Pending(number, from) => Some(match pending(group(stream, number), from, sink) {
            Some(next) => Place::Pending(number, next),
            None => Place::Consumers(number),
        }),
        Place::Consumers(number) => {
            let consumers = group(stream, number).consumers_len();
            sink.count(consumers);
            next_consumer(stream, number, 0)
        }
        Place::Consumer(number, index) => {
            head_of_consumer(consumer(stream, number, index), sink);
            Some(Place::Owned(number, index, StreamId::MIN))
        }
        Place::Owned(number, index, from) => match owned(consumer(stream, number, index), from, sink) {
            Some(next) => Some(Place::Owned(number, index, next)),
            None => next_consumer(stream, number, index + 1),
        },
    }
}

fn group(stream: &Stream, number: usize) -> &Group {
    stream
        .group_at(number)
        .expect("a stream that is written does not change")
}

fn consumer(stream: &Stream, number: usize, index: usize) -> &Consumer {
    group(stream, number)
        .consumer_at(index)
        .expect("a stream that is written does not change")
}

fn next_group(stream: &Stream, number: usize) -> Option<Place> {
    (number < stream.groups().len()).then_some(Place::Group(number))
}

fn next_consumer(stream: &Stream, number: usize, index: usize) -> Option<Place> {
    if index < group(stream, number).consumers_len() {
        Some(Place::Consumer(number, index))
    } else {
        next_group(stream, number + 1)
    }
}

fn block(from: StreamId, stream: &Stream, sink: &mut Sink<'_>) -> Place {
    let Some((id, pack)) = stream.log().block_from(from) else {
        return Place::Figures;
    };
    sink.text_of(&id_bytes(id));
    sink.pack(pack);
    id.next().map_or(Place::Figures, Place::Block)
}

fn figures(stream: &Stream, sink: &mut Sink<'_>) {
    let log = stream.log();
    sink.count(log.len());
    sink.split_id(log.last_id());
    sink.split_id(log.first_id());
    sink.split_id(log.max_deleted_id());
    sink.number(log.entries_added());
    sink.count(stream.groups().len());
}

fn head_of_group(group: &Group, sink: &mut Sink<'_>) {
    sink.text_of(group.name());
    sink.split_id(group.last_id);
    sink.number(group.entries_read.unwrap_or(UNKNOWN));
    sink.count(group.pending_len());
}

/// Writes some pending entries; returns the id from which to go on, if there are more.
fn pending(group: &Group, from: StreamId, sink: &mut Sink<'_>) -> Option<StreamId> {
    let mut entries = group.pending_from(from);
    for entry in entries.by_ref().take(PENDING_PER_PART) {
        sink.id(entry.id);
        sink.long(entry.delivered_ms);
        sink.number(entry.deliveries);
    }
    entries.next().map(|entry| entry.id)
}

fn head_of_consumer(consumer: &Consumer, sink: &mut Sink<'_>) {
    sink.text_of(consumer.name());
    sink.long(consumer.seen_ms);
    sink.count(consumer.pending_len());
}

fn owned(consumer: &Consumer, from: StreamId, sink: &mut Sink<'_>) -> Option<StreamId> {
    let mut ids = consumer.pending_from(from);
    for id in ids.by_ref().take(PENDING_PER_PART) {
        sink.id(id);
    }
    ids.next()
}
