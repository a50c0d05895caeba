//! The output of a connection: replies in the order of its commands, and the bytes not written yet.
//!
//! Commands of one connection may finish in any order over the shards. The reply that is next in order is encoded
//! directly into the output; one that comes early is parked until those before it are complete.

use std::io;

use shardis_protocol::Resp;

use super::parked::Parked;
use crate::limits::{IN_FLIGHT_MAX, LARGE_OUTPUT_BYTES, OUTPUT_TURN_BYTES, WRITE_BYTES_MAX};
use crate::shard::outgoing::Outgoing;
use crate::shard::poll::Link;

/// The replies of one connection.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Replies in order.
    unsent: Outgoing,
    /// Bytes left unsent by the last write.
    left: usize,
    /// Number of commands so far. The low bits are the sequence number of the next one.
    commands: u64,
    /// Sequence number of the command whose reply comes next.
    next_reply: u32,
    /// Replies that came early.
    parked: Option<Box<Parked>>,
    /// The most bytes that waited at the end of a turn since the peak was reset.
    peak: usize,
}

/// Progress of an output: commands so far, and replies to come. It stands still only while nothing is answered.
pub(crate) type Progress = (u64, u32);

/// Result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything was written.
    All,
    /// The socket accepts no more now.
    Blocked,
    /// The socket may accept more, but other connections have their turn first.
    More,
}

impl Output {
    /// Takes the next sequence number for a command.
    #[inline]
    pub(crate) fn issue(&mut self) -> u32 {
        let sequence = self.commands as u32;
        self.commands += 1;
        sequence
    }

    /// Number of commands that have not been answered.
    #[inline]
    pub(crate) fn in_flight(&self) -> u32 {
        (self.commands as u32).wrapping_sub(self.next_reply)
    }

    /// Number of commands that have been answered.
    pub(crate) fn answered(&self) -> u64 {
        if self.parked.as_ref().is_some_and(|parked| parked.is_refused()) {
            return self.commands;
        }
        self.commands - u64::from(self.in_flight())
    }

    /// Whether further commands may be taken before the next write.
    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        self.room() > 0
    }

    /// Number of further commands that may be taken before the next write. Unsent output keeps no command waiting: many
    /// clients send all of a pipeline before they read, so that both sides would wait. `client-output-buffer-limit`
    /// bounds the output.
    #[inline]
    pub(crate) fn room(&self) -> usize {
        if self.unsent.len() < self.left + OUTPUT_TURN_BYTES {
            // Refused output has more replies to come than any other.
            IN_FLIGHT_MAX.saturating_sub(self.in_flight()) as usize
        } else {
            0
        }
    }

    /// The buffer that the reply of a command is appended to.
    #[inline]
    pub(crate) fn begin(&mut self, sequence: u32) -> &mut Vec<u8> {
        self.begin_to_pass(sequence).0
    }

    /// The buffer of [`begin`](Self::begin), and how many bytes at its front have been sent, if the reply may be sent at once,
    /// past the buffer. To be followed by [`settle`](Self::settle) if it was.
    #[inline]
    pub(crate) fn begin_to_pass(&mut self, sequence: u32) -> (&mut Vec<u8>, Option<&mut usize>) {
        if sequence == self.next_reply {
            self.unsent.tail_and_sent()
        } else {
            (self.parked.get_or_insert_default().tail(), None)
        }
    }

    /// Frees what has been sent ahead of the end of the turn.
    pub(crate) fn settle(&mut self) {
        self.unsent.settle();
        self.left = self.left.min(self.unsent.len());
    }

    /// Whether a part of the next reply, which starts at `start` of its buffer, has been sent.
    pub(crate) fn has_sent_beyond(&self, start: usize) -> bool {
        self.unsent.has_sent_beyond(start)
    }

    /// The buffer of [`begin`](Self::begin), and the offset at which the reply starts.
    pub(crate) fn begin_at(&mut self, sequence: u32) -> (&mut Vec<u8>, usize) {
        let out = self.begin(sequence);
        let start = out.len();
        (out, start)
    }

    /// Completes the reply of a command, which starts at `start` of the buffer from `begin`. True when the output has
    /// grown so much that its limits must be checked.
    #[inline]
    pub(crate) fn end(&mut self, sequence: u32, start: usize) -> bool {
        if sequence != self.next_reply {
            return self.park(sequence, start);
        }
        self.next_reply = sequence.wrapping_add(1);
        let is_large = self.unsent.close_if_full(self.unsent.tail_len() - start);
        if self.parked.is_some() {
            return self.unpark();
        }
        is_large
    }

    /// Appends a reply that was encoded elsewhere. True under the same condition as for [`end`](Self::end).
    pub(crate) fn deliver(&mut self, sequence: u32, reply: &[u8]) -> bool {
        if sequence != self.next_reply {
            self.parked.get_or_insert_default().make_room(reply.len());
        }
        let place = self.begin(sequence);
        let start = place.len();
        place.extend_from_slice(reply);
        self.end(sequence, start)
    }

    /// Drops all replies, present and future: the connection is about to be closed, and nothing more is sent.
    pub(crate) fn refuse(&mut self) {
        self.unsent = Outgoing::default();
        self.left = 0;
        self.parked = Some(Box::new(Parked::refused()));
        // No command has this number, so that all further replies come early and are dropped.
        self.next_reply = (self.commands as u32).wrapping_add(1 << 31);
    }

    /// Appends a message that no command asked for, encoded for RESP2. It precedes all replies that have not come
    /// yet, and never splits one: the output ends with a complete reply whenever no command is encoding into it. True
    /// under the same condition as for [`end`](Self::end).
    #[inline]
    pub(crate) fn push(&mut self, message: &[u8], resp: Resp) -> bool {
        let tail = self.unsent.tail();
        let start = tail.len();
        tail.extend_from_slice(message);
        if let (Resp::V3, Some(kind)) = (resp, tail.get_mut(start)) {
            *kind = b'>';
        }
        self.unsent.close_if_full(message.len())
    }

    /// Appends a message like [`push`](Self::push), in two parts that are encoded for the client's protocol.
    pub(crate) fn push_parts(&mut self, head: &[u8], body: &[u8]) -> bool {
        let tail = self.unsent.tail();
        tail.extend_from_slice(head);
        tail.extend_from_slice(body);
        self.unsent.close_if_full(head.len() + body.len())
    }

    /// Has a message follow the replies to all commands so far, some of which have not come yet.
    pub(crate) fn push_behind(&mut self, head: &[u8], body: &[u8]) {
        let in_flight = self.in_flight();
        debug_assert!(in_flight > 0, "a message that need not wait is pushed");
        self.parked
            .get_or_insert_default()
            .put_message(in_flight as usize, [head, body].concat());
    }

    /// The present progress.
    pub(crate) fn progress(&self) -> Progress {
        (self.commands, self.in_flight())
    }

    fn park(&mut self, sequence: u32, start: usize) -> bool {
        let index = sequence.wrapping_sub(self.next_reply) as usize;
        self.parked.get_or_insert_default().park(index, start)
    }

    /// Moves parked replies whose turn has come to the output.
    fn unpark(&mut self) -> bool {
        let Some(parked) = &mut self.parked else {
            return false;
        };
        self.unsent.settle();
        let moved = parked.unpark(&mut self.unsent);
        self.next_reply = self.next_reply.wrapping_add(moved);
        if parked.is_empty() && parked.is_large() {
            self.parked = None;
        }
        self.unsent.len() >= LARGE_OUTPUT_BYTES
    }

    /// Writes as much as the socket accepts, within the bound of a turn. Adds the number of bytes to `written`.
    ///
    /// # Errors
    /// The error of the socket, except that it would block.
    pub(crate) fn write(&mut self, socket: &mut Link<'_>, written: &mut u64) -> io::Result<Written> {
        self.peak = self.peak.max(self.unsent.len());
        let outcome = self.write_unsent(socket, written);
        self.left = self.unsent.len();
        outcome
    }

    fn write_unsent(&mut self, socket: &mut Link<'_>, written: &mut u64) -> io::Result<Written> {
        let mut count = 0;
        while !self.unsent.is_empty() {
            if count >= WRITE_BYTES_MAX {
                return Ok(Written::More);
            }
            let before = self.unsent.len();
            match socket.write(&mut self.unsent) {
                Ok(()) => {
                    let taken = before - self.unsent.len();
                    count += taken;
                    *written += taken as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(match socket.flush()? {
            true => Written::All,
            false => Written::Blocked,
        })
    }

    /// Whether there are bytes to write.
    #[inline]
    pub(crate) fn is_pending(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Bytes that wait to be written, including those of parked replies.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        self.unsent.len() + self.parked.as_ref().map_or(0, |parked| parked.bytes())
    }

    /// The chunks that wait to be written.
    pub(crate) fn unsent(&self) -> &Outgoing {
        &self.unsent
    }

    /// The most bytes that waited at the end of a turn since [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// Resets the peak.
    pub(crate) fn forget_peak(&mut self) {
        self.peak = self.unsent.len();
    }

    /// Bytes allocated for parked replies.
    pub(crate) fn parked_memory(&self) -> usize {
        self.parked.as_ref().map_or(0, |parked| parked.memory())
    }

    /// Bytes allocated for the output.
    #[inline]
    pub(crate) fn memory(&self) -> usize {
        self.unsent.memory() + self.parked_memory()
    }

    /// Frees memory while the connection is idle.
    pub(crate) fn release(&mut self) {
        if !self.is_pending() && self.in_flight() == 0 {
            self.unsent.release();
            self.parked = None;
        }
    }

    #[cfg(test)]
    fn text(&self) -> String {
        let slices = self.unsent.slices();
        slices
            .iter()
            .map(|slice| String::from_utf8_lossy(slice))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order replies come, they are sent in the order of their commands.
        #[test]
        fn replies_leave_in_command_order(order in Just((0..40_u32).collect::<Vec<_>>()).prop_shuffle(), waves in 1..5_u32) {
            let mut output = Output::default();
            for wave in 0..waves {
                let sequences: Vec<u32> = order.iter().map(|_| output.issue()).collect();
                for &index in &order {
                    let _ = output.deliver(sequences[index as usize], format!("{wave}-{index};").as_bytes());
                }
                prop_assert_eq!(output.in_flight(), 0);
            }
            let expected: String =
                (0..waves).flat_map(|wave| (0..40).map(move |index| format!("{wave}-{index};"))).collect();
            prop_assert_eq!(output.text(), expected);
        }
    }

    /// All that is unsent, as if it were sent.
    fn drained(output: &mut Output) -> Vec<u8> {
        let mut bytes = Vec::new();
        while output.is_pending() {
            let before = bytes.len();
            output
                .unsent
                .slices()
                .iter()
                .for_each(|slice| bytes.extend_from_slice(slice));
            output.unsent.advance(bytes.len() - before);
        }
        bytes
    }

    proptest! {
        /// Replies of any size, too; and when all have left, nothing of them stays.
        #[test]
        fn long_replies_leave_in_command_order(
            sizes in prop::collection::vec(prop_oneof![0..100_usize, 0..200_000_usize], 1..40),
            seed in any::<u64>(),
        ) {
            let mut output = Output::default();
            let mut order: Vec<(u32, u8, usize)> = (0_u8..)
                .zip(&sizes)
                .map(|(number, &size)| (output.issue(), number, size))
                .collect();
            let expected: Vec<u8> = order
                .iter()
                .flat_map(|&(_, number, size)| std::iter::repeat_n(number, size))
                .collect();
            order.sort_by_key(|&(_, number, _)| u64::from(number).wrapping_mul(seed | 1));
            let mut sent = Vec::new();
            for (turn, &(sequence, number, size)) in order.iter().enumerate() {
                let _ = output.deliver(sequence, &vec![number; size]);
                if turn % 3 == 0 {
                    sent.extend(drained(&mut output));
                }
            }
            sent.extend(drained(&mut output));
            prop_assert!(sent == expected);
            prop_assert_eq!(output.bytes(), 0);
            prop_assert!(output.parked_memory() <= 2 * LARGE_OUTPUT_BYTES + 1024);
        }
    }

    #[test]
    fn an_empty_reply_behind_a_long_one_is_early_too() {
        let mut output = Output::default();
        let sequences: Vec<u32> = (0..3).map(|_| output.issue()).collect();
        for (sequence, reply) in [
            (sequences[1], &[b'x'; LARGE_OUTPUT_BYTES][..]),
            (sequences[2], b""),
            (sequences[0], b"+OK"),
        ] {
            let _ = output.deliver(sequence, reply);
        }
        assert_eq!(drained(&mut output).len(), LARGE_OUTPUT_BYTES + 3);
        assert_eq!(output.in_flight(), 0);
    }

    #[test]
    fn early_replies_take_their_own_size_once() {
        const SIZE: usize = 100_000;
        let mut output = Output::default();
        let sequences: Vec<u32> = (0..200).map(|_| output.issue()).collect();
        for &sequence in &sequences[1..] {
            let _ = output.deliver(sequence, &[b'x'; SIZE]);
        }
        let most = 200 * SIZE + 200 * 1024;
        assert!(output.memory() <= most, "{}", output.memory());
        let _ = output.deliver(sequences[0], &[b'x'; SIZE]);
        assert!(output.memory() <= most + 2 * SIZE, "{}", output.memory());
        assert_eq!(drained(&mut output).len(), 200 * SIZE);
    }

    #[test]
    fn messages_do_not_wait_for_replies_and_keep_them_whole() {
        let mut output = Output::default();
        let (first, second) = (output.issue(), output.issue());
        output.deliver(second, b"+two\r\n");
        output.push(b"*1\r\n$1\r\na\r\n", Resp::V2);
        output.deliver(first, b"+one\r\n");
        output.push(b"*1\r\n$1\r\nb\r\n", Resp::V3);
        assert_eq!(
            output.text(),
            "*1\r\n$1\r\na\r\n+one\r\n+two\r\n>1\r\n$1\r\nb\r\n"
        );
    }

    #[test]
    fn a_message_can_follow_replies_that_have_not_come() {
        let mut output = Output::default();
        let sequences: Vec<u32> = (0..4).map(|_| output.issue()).collect();
        output.deliver(sequences[1], b"+two\r\n");
        output.push_behind(b">1\r\n", b"+all\r\n");
        let last = output.issue();
        output.deliver(last, b"+last\r\n");
        output.deliver(sequences[3], b"+four\r\n");
        output.deliver(sequences[0], b"+one\r\n");
        assert_eq!(output.text(), "+one\r\n+two\r\n");
        output.push_parts(b">1\r\n", b"+now\r\n");
        output.deliver(sequences[2], b"+three\r\n");
        let behind = "+three\r\n+four\r\n>1\r\n+all\r\n+last\r\n";
        assert_eq!(output.text(), format!("+one\r\n+two\r\n>1\r\n+now\r\n{behind}"));
        assert_eq!(
            (output.in_flight(), output.parked.as_ref().unwrap().bytes()),
            (0, 0)
        );
    }

    #[test]
    fn what_is_refused_is_gone_and_nothing_follows() {
        let mut output = Output::default();
        let sequences: Vec<u32> = (0..5).map(|_| output.issue()).collect();
        output.deliver(sequences[0], b"+one\r\n");
        output.deliver(sequences[3], b"+four\r\n");
        output.refuse();
        for &sequence in &sequences[1..] {
            output.deliver(sequence, &[0; 100_000]);
        }
        assert_eq!(
            (output.text().as_str(), output.bytes(), output.is_pending()),
            ("", 0, false)
        );
        assert!(!output.has_room());
    }

    #[test]
    fn a_connection_with_too_much_in_flight_has_no_room() {
        let mut output = Output::default();
        for _ in 0..IN_FLIGHT_MAX {
            assert!(output.has_room());
            output.issue();
        }
        assert!(!output.has_room());
        output.deliver(0, b"x");
        assert!(output.has_room());
    }
}
