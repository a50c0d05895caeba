//! [`Audit`]: the audit log of a node. It tells who was denied what, who logged in, and who changed users, the configuration or the
//! topology.
//!
//! Whoever notices an event asks for [`Room`] before the event takes effect, and fills it with an [`Entry`] afterwards. A thread of the
//! audit log turns entries into lines of JSON and writes them (`audit/writer.rs`); nobody else waits for the file. There is room for
//! `AUDIT_ENTRIES_MAX` entries. While the file is slow or cannot be written, further events are dropped, and counted; the next line
//! that can be written tells how many. Under `audit-strict` an entry waits until it can be written, and a command that there is no room
//! for is refused before it acts.
//!
//! Only rows that are audited and requests that are denied come here: permitted commands pay nothing.

mod entry;
mod file;
mod writer;

pub(crate) use self::entry::{Actor, Entry, Outcome};
pub(crate) use self::writer::Writer;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use self::file::AuditFile;
use crate::config::{AuditEvents, Settings};
use crate::limits::{AUDIT_ENTRIES_MAX, AUDIT_FAREWELL};
use crate::log::Log;

/// The value of `audit-log` that names the log instead of a file.
const TO_LOG: &str = "log";

/// The audit log of a node.
pub(crate) struct Audit {
    /// Kinds of events that are recorded; none while there is no sink.
    events: AtomicU8,
    sink: ArcSwapOption<Sink>,
    shared: Arc<Shared>,
    mail: Sender<Mail>,
    /// The other end of `mail`, until the thread that reads it is there.
    unread: Mutex<Option<Receiver<Mail>>>,
    spawn: OnceLock<Box<Spawn>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Function that starts a thread for a writer.
type Spawn = dyn Fn(Writer) -> io::Result<JoinHandle<()>> + Send + Sync;

/// State that the audit log shares with its thread.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The directive `audit-strict`.
    is_strict: AtomicBool,
    /// The node is being stopped.
    is_ending: AtomicBool,
    /// Rooms that are taken: those of entries that are not written yet, and of events that are under way.
    waiting: AtomicUsize,
    figures: Figures,
}

/// Counters of the audit log, as INFO shows them.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Lines written.
    pub(crate) written: AtomicU64,
    /// Events that no line tells of.
    pub(crate) dropped: AtomicU64,
    /// Commands that were refused because they could not be recorded.
    pub(crate) refused: AtomicU64,
    /// Writes that failed.
    pub(crate) errors: AtomicU64,
}

/// Destination of lines.
#[derive(Debug)]
pub(crate) struct Sink {
    place: Place,
    /// The last write has failed.
    is_failing: AtomicBool,
}

#[derive(Debug)]
enum Place {
    /// The log of the node.
    Log,
    /// A file. Only its writer locks it, once it has been opened.
    File(PathBuf, Mutex<AuditFile>),
}

/// Message to the writer.
#[derive(Debug)]
enum Mail {
    /// An entry, and the sink that was there when its event began.
    Entry(Arc<Sink>, Box<Entry>),
    /// The node is being stopped.
    End,
}

/// A command that cannot be recorded, and must not run for that reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unrecordable;

/// Room for the entry of an event that is about to take effect.
#[derive(Debug)]
pub(crate) struct Room {
    sink: Arc<Sink>,
    shared: Arc<Shared>,
    mail: Sender<Mail>,
    /// The room is one of the `AUDIT_ENTRIES_MAX`: without it, the entry is dropped.
    is_real: bool,
}

impl Default for Audit {
    /// An audit log without a sink.
    fn default() -> Self {
        let (mail, unread) = unbounded();
        Self {
            events: AtomicU8::new(0),
            sink: ArcSwapOption::empty(),
            shared: Arc::default(),
            mail,
            unread: Mutex::new(Some(unread)),
            spawn: OnceLock::new(),
            thread: Mutex::new(None),
        }
    }
}

impl Audit {
    /// Sets the function that starts the thread of the audit log; once, at the start of the node.
    pub(crate) fn connect(
        &self,
        spawn: impl Fn(Writer) -> io::Result<JoinHandle<()>> + Send + Sync + 'static,
    ) {
        let _ = self.spawn.set(Box::new(spawn));
    }

    /// Follows the directives. After an error nothing has changed.
    ///
    /// # Errors
    /// When the file cannot be opened, or the thread not be started.
    pub(crate) fn configure(&self, settings: &Settings, log: &Arc<Log>) -> io::Result<()> {
        let path = settings.path(&settings.audit_log);
        let place = match path {
            None => None,
            Some(_) if settings.audit_log == TO_LOG => Some(Place::Log),
            Some(path) => Some(Place::File(path, Mutex::default())),
        };
        let before = self.sink.load_full();
        let is_same = before.as_ref().map(|sink| sink.path()) == place.as_ref().map(Place::path);
        if !is_same {
            if let Some(Place::File(path, file)) = &place {
                file.lock().open(path)?;
            }
            self.begin_to_write(place.is_some(), log)?;
            self.sink.store(place.map(|place| Arc::new(Sink::new(place))));
        }
        self.shared
            .is_strict
            .store(settings.audit_strict, Ordering::Relaxed);
        let events = match settings.audit_log.is_empty() {
            true => AuditEvents::empty(),
            false => settings.audit_events,
        };
        self.events.store(events.bits(), Ordering::Release);
        Ok(())
    }

    /// Starts the thread, when it is needed for the first time.
    fn begin_to_write(&self, is_needed: bool, log: &Arc<Log>) -> io::Result<()> {
        let mut unread = self.unread.lock();
        let (true, Some(mail), Some(spawn)) = (is_needed, unread.as_ref(), self.spawn.get()) else {
            return Ok(());
        };
        let writer = Writer::new(mail.clone(), Arc::clone(&self.shared), Arc::clone(log));
        *self.thread.lock() = Some(spawn(writer)?);
        *unread = None;
        Ok(())
    }

    /// Whether events of one of these kinds are recorded.
    #[inline]
    pub(crate) fn records(&self, events: AuditEvents) -> bool {
        self.events.load(Ordering::Acquire) & events.bits() != 0
    }

    /// Finds room for the entry of a command that is about to run; none if it is not recorded.
    ///
    /// # Errors
    /// When the command must not run, because it could not be recorded.
    pub(crate) fn begin(&self, events: AuditEvents) -> Result<Option<Room>, Unrecordable> {
        let room = self.room(events);
        let is_strict = || self.shared.is_strict.load(Ordering::Relaxed);
        match &room {
            Some(room) if !room.can_be_trusted() && is_strict() => {
                self.shared.figures.refused.fetch_add(1, Ordering::Relaxed);
                Err(Unrecordable)
            }
            _ => Ok(room),
        }
    }

    /// Records an event that has happened, or a command that was refused for want of room.
    pub(crate) fn record(&self, events: AuditEvents, entry: impl FnOnce() -> Entry) {
        if let Some(room) = self.room(events) {
            if room.is_real {
                room.fill(entry());
            } else {
                room.shared.note_dropped(1);
            }
        }
    }

    fn room(&self, events: AuditEvents) -> Option<Room> {
        if !self.records(events) {
            return None;
        }
        Some(Room {
            sink: self.sink.load_full()?,
            shared: Arc::clone(&self.shared),
            mail: self.mail.clone(),
            is_real: self.shared.take_room(),
        })
    }

    /// Counters.
    pub(crate) fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Entries that are not written yet.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Whether the last write has failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.sink.load().as_ref().is_some_and(|sink| sink.is_failing())
    }

    /// Has the thread write what waits, and end. One that is held up by its file is left behind: a node ends all the same.
    pub(crate) fn stop(&self, log: &Log) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        self.shared.is_ending.store(true, Ordering::Release);
        // It ends when it has read this; if it has ended already, there is nothing to say.
        let _ = self.mail.send(Mail::End);
        let mut patience = AUDIT_FAREWELL;
        while !thread.is_finished() && !patience.is_zero() {
            let step = Duration::from_millis(2).min(patience);
            std::thread::sleep(step);
            patience -= step;
        }
        if thread.is_finished() {
            // A panic was reported when it happened.
            let _ = thread.join();
        } else {
            log.warning(format_args!(
                "The audit log cannot be written: {} of its lines are lost.",
                self.waiting()
            ));
        }
    }
}

impl Shared {
    /// Takes one of the rooms; false if all are taken.
    fn take_room(&self) -> bool {
        let take = |taken| (taken < AUDIT_ENTRIES_MAX).then_some(taken + 1);
        self.waiting
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, take)
            .is_ok()
    }

    fn give_back(&self, rooms: usize) {
        let before = self.waiting.fetch_sub(rooms, Ordering::AcqRel);
        debug_assert!(before >= rooms, "a room is given back once");
    }

    fn note_dropped(&self, count: usize) {
        self.figures.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }
}

impl Sink {
    fn new(place: Place) -> Self {
        Self {
            place,
            is_failing: AtomicBool::new(false),
        }
    }

    fn path(&self) -> Option<&PathBuf> {
        self.place.path()
    }

    fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Acquire)
    }
}

impl Place {
    /// The path of the file; none for the log.
    fn path(&self) -> Option<&PathBuf> {
        match self {
            Self::Log => None,
            Self::File(path, _) => Some(path),
        }
    }
}

impl Room {
    /// Whether the entry is certain to be written, as far as anybody can know.
    fn can_be_trusted(&self) -> bool {
        self.is_real && !self.sink.is_failing()
    }

    /// Hands the entry to the writer.
    pub(crate) fn fill(mut self, entry: Entry) {
        let mail = Mail::Entry(Arc::clone(&self.sink), Box::new(entry));
        let is_kept = self.is_real && self.mail.send(mail).is_ok();
        if is_kept {
            // The writer gives the room back.
            self.is_real = false;
        } else {
            self.shared.note_dropped(1);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.is_real {
            self.shared.give_back(1);
        }
    }
}

#[cfg(test)]
mod tests;
