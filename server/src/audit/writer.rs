//! [`Writer`]: the thread of the audit log, which turns entries into lines and writes them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Entry, Mail, Place, Shared, Sink, entry};
use crate::limits::{AUDIT_ENTRIES_TOGETHER, AUDIT_RETRY};
use crate::log::{AuditEvent, Log};

/// The work of the thread of an audit log.
#[derive(Debug)]
pub(crate) struct Writer {
    mail: Receiver<Mail>,
    shared: Arc<Shared>,
    log: Arc<Log>,
    /// Entries that are not written yet, in order, each with its sink.
    entries: VecDeque<(Arc<Sink>, Box<Entry>)>,
    /// Number of events that were dropped and that a line has told of.
    told: u64,
}

impl Writer {
    pub(super) fn new(mail: Receiver<Mail>, shared: Arc<Shared>, log: Arc<Log>) -> Self {
        Self {
            mail,
            shared,
            log,
            entries: VecDeque::new(),
            told: 0,
        }
    }

    /// Writes until the node is stopped.
    pub(crate) fn run(mut self) {
        let mut goes_on = true;
        while goes_on {
            goes_on = self.receive();
            while !self.entries.is_empty() && self.write() {}
        }
        self.drop_entries(self.entries.len());
    }

    /// Takes what there is, and waits for the first entry if nothing is left to be written. False when the node is being stopped.
    fn receive(&mut self) -> bool {
        let first = if self.entries.is_empty() {
            self.mail.recv().ok()
        } else {
            match self.mail.recv_timeout(AUDIT_RETRY) {
                Ok(mail) => Some(mail),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => None,
            }
        };
        let mut next = first.or(Some(Mail::End));
        while let Some(mail) = next {
            match mail {
                Mail::Entry(sink, entry) => self.entries.push_back((sink, entry)),
                Mail::End => return false,
            }
            // Those that wait in the channel have rooms like those that wait here.
            next = self.mail.try_recv().ok();
        }
        true
    }

    /// Writes the first entries, those for one sink. False when they are to be tried again later.
    fn write(&mut self) -> bool {
        let Some((sink, _)) = self.entries.front() else {
            return true;
        };
        let sink = Arc::clone(sink);
        let of_sink = |(other, _): &&(Arc<Sink>, Box<Entry>)| Arc::ptr_eq(other, &sink);
        let ready = self.entries.iter().take(AUDIT_ENTRIES_TOGETHER);
        let count = ready.take_while(of_sink).count();
        let (written, result) = self.write_to(&sink, count);
        match &result {
            Ok(()) => self.note_success(&sink),
            Err(error) => self.note_failure(&sink, error),
        }
        self.entries.drain(..written);
        let figures = &self.shared.figures;
        figures.written.fetch_add(written as u64, Ordering::Relaxed);
        // Whoever sees the rooms free sees what has become of their entries.
        self.shared.give_back(written);
        let goes_on = result.is_ok() || !self.shared.is_strict.load(Ordering::Relaxed);
        if result.is_err() && goes_on {
            self.drop_entries(count - written);
        }
        goes_on
    }

    /// Writes so many entries to a sink. Returns the number of those that were written.
    fn write_to(&mut self, sink: &Sink, count: usize) -> (usize, io::Result<()>) {
        let node = self.log.node_name().to_owned();
        let dropped = self.shared.figures.dropped.load(Ordering::Relaxed);
        let time_us = self.entries[0].1.time_us;
        let gap = (dropped > self.told).then(|| entry::gap(time_us, &node, dropped - self.told));
        let entries = self.entries.iter().take(count);
        let lines: Vec<String> = entries.map(|(_, entry)| entry.line(&node)).collect();
        let (whole, result) = match &sink.place {
            Place::Log => {
                self.tell(gap.as_deref(), &lines);
                (lines.len() + usize::from(gap.is_some()), Ok(()))
            }
            Place::File(path, file) => {
                let (mut bytes, mut ends) = (Vec::new(), Vec::new());
                for line in gap.iter().chain(&lines) {
                    bytes.extend_from_slice(line.as_bytes());
                    bytes.push(b'\n');
                    ends.push(bytes.len());
                }
                let gives_up = || self.shared.is_ending.load(Ordering::Acquire);
                file.lock().append(path, &bytes, &ends, gives_up)
            }
        };
        match gap {
            None => (whole, result),
            Some(_) if whole == 0 => (0, result),
            Some(_) => {
                self.told = dropped;
                (whole - 1, result)
            }
        }
    }

    /// Has the log tell of a gap, if there is one, and of the first entries, which have these lines.
    fn tell(&self, gap: Option<&str>, lines: &[String]) {
        if let Some(line) = gap {
            self.log.audit(AuditEvent {
                event: "gap",
                line,
                ..AuditEvent::default()
            });
        }
        for (line, (_, entry)) in lines.iter().zip(&self.entries) {
            entry.tell(line, |told| self.log.audit(told));
        }
    }

    fn note_success(&self, sink: &Sink) {
        if sink.is_failing.swap(false, Ordering::AcqRel) {
            self.log
                .notice(format_args!("The audit log can be written again."));
        }
    }

    fn note_failure(&self, sink: &Sink, error: &io::Error) {
        self.shared.figures.errors.fetch_add(1, Ordering::Relaxed);
        if !sink.is_failing.swap(true, Ordering::AcqRel) {
            let consequence = match self.shared.is_strict.load(Ordering::Relaxed) {
                true => "Commands that it has to tell of are refused until it can.",
                false => "Its lines are lost until it can.",
            };
            let path = sink.path().map(|path| path.display().to_string());
            self.log.warning(format_args!(
                "The audit log '{}' cannot be written: {error}. {consequence}",
                path.unwrap_or_default()
            ));
        }
    }

    /// Drops the first entries.
    fn drop_entries(&mut self, count: usize) {
        self.entries.drain(..count);
        self.shared.note_dropped(count);
        self.shared.give_back(count);
    }
}
