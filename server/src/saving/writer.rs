//! [`Assignment`]: writes the file of a job, or a snapshot for replicas, on a thread of its own.
//!
//! The file is written under a temporary name, brought to the disk, renamed, and its directory brought to the disk: at any moment
//! there is the old file or the new one. If anything fails, the temporary file is removed, and the old one stays.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::Receiver;
use shardis_storage::entry::Entry;
use shardis_storage::keyspace::{Part, Saved as SavedBytes};
use shardis_storage::rdb::file::FileWriter;

use super::job::{Attempt, File, FileError};
use super::payload::PayloadWriter;
use super::snapshot::Piece;
use super::spill::Spill;
use super::{AtEnd, Content, Form, Job, Persistence, Plan, Purpose, SaveError, Snapshot};
use crate::clock::Clock;
use crate::limits::SYNCED_BYTES;
use crate::log::Log;

/// Size of the buffer in front of the file, bytes.
const BUFFER_BYTES: usize = 128 << 10;

/// Latency event: the removal of a file that was not completed. A name of Redis's.
const UNLINK_EVENT: &str = "rdb-unlink-temp-file";

/// The work of the thread that writes a file.
pub(crate) struct Assignment {
    pub(super) file: File,
    /// The way to replicas, in the place of the file.
    pub(super) payload: Option<PayloadWriter>,
    pub(super) at_end: Option<AtEnd>,
    pub(super) plan: Plan,
    pub(super) content: Content,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) pieces: Receiver<Piece>,
    pub(super) persistence: Arc<Persistence>,
}

impl Assignment {
    /// Writes the file. `note` takes an event for the latency monitor, and its duration in microseconds.
    pub(crate) fn run(mut self, log: &Log, clock: &Clock, note: &dyn Fn(&'static str, u64)) {
        match self.snapshot.purpose {
            Purpose::Background => log.notice(format_args!(
                "Background saving started by pid {}",
                std::process::id()
            )),
            Purpose::Replicas => log.notice(format_args!(
                "Background RDB transfer started by pid {}",
                std::process::id()
            )),
            Purpose::Command | Purpose::Flush | Purpose::Shutdown { .. } | Purpose::AofBase => {}
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.write())).unwrap_or_else(|_| {
            let error = io::Error::other("the thread that writes panicked. Please report this as a bug.");
            Err(failed(Attempt::Write)(error))
        });
        if outcome.is_err() {
            // Loops stop saving, and clear away what is left in the partitions.
            self.snapshot.give_up();
            if self.snapshot.purpose != Purpose::Replicas {
                let begin_ns = clock.elapsed_ns();
                let _ = fs::remove_file(&self.file.temporary);
                note(UNLINK_EVENT, (clock.elapsed_ns() - begin_ns) / 1000);
            }
        }
        self.report(&outcome, log);
        if let Some(at_end) = self.at_end.take() {
            at_end(outcome.as_ref().copied());
        }
        self.persistence
            .end(&self.snapshot, outcome.as_ref().copied(), clock.now_us());
    }

    fn report(&self, outcome: &Result<(), SaveError>, log: &Log) {
        let purpose = self.snapshot.purpose;
        if purpose == Purpose::Replicas {
            return match outcome {
                Ok(()) => log.notice(format_args!("Background RDB transfer terminated with success")),
                Err(SaveError::GivenUp) => log.warning(format_args!("Background transfer was given up")),
                Err(SaveError::File(failed)) => {
                    log.warning(format_args!("Background transfer error: {failed}"));
                }
            };
        }
        match outcome {
            Ok(()) if purpose == Purpose::AofBase => {}
            Ok(()) => log.notice(format_args!("DB saved on disk")),
            Err(SaveError::GivenUp) => {}
            Err(SaveError::File(failed)) => log.warning(format_args!("{}", self.file.describe(failed))),
        }
        match (purpose, outcome) {
            (Purpose::Background, _) => {}
            (Purpose::Shutdown { insists }, Err(SaveError::File(_))) => {
                let what = if insists {
                    "but exiting anyway"
                } else {
                    "can't exit"
                };
                log.warning(format_args!("Error trying to save the DB, {what}."));
                if !insists {
                    log.warning(format_args!(
                        "Errors trying to shut down the server. Check the logs for more information."
                    ));
                }
                return;
            }
            _ => return,
        }
        match outcome {
            Ok(()) => log.notice(format_args!("Background saving terminated with success")),
            Err(SaveError::GivenUp) => log.warning(format_args!("Background saving was given up")),
            Err(SaveError::File(_)) => log.warning(format_args!("Background saving error")),
        }
    }

    fn write(&mut self) -> Result<(), SaveError> {
        let payload = self.payload.take();
        let out = match payload {
            Some(payload) => Out::Payload(payload, Arc::clone(&self.snapshot)),
            None => Out::create(&self.file)?,
        };
        let mut target = Target::begin(out, &self.file, self.plan, &self.content)?;
        self.write_pieces(&mut target)?;
        let out = target.finish().map_err(failed(Attempt::Write))?;
        if self.snapshot.is_given_up() {
            return Err(SaveError::GivenUp);
        }
        match out {
            Out::File(_) => self.file.put_in_place(),
            Out::Payload(payload, _) => {
                payload.complete();
                Ok(())
            }
        }
    }

    /// Writes what the shards save, until all have saved everything.
    fn write_pieces(&mut self, target: &mut Target) -> Result<(), SaveError> {
        let mut spill = Spill::new(self.file.temporary.with_extension("spill"));
        // The shard whose value is being written in slices.
        let mut sliced: Option<usize> = None;
        let mut left = self.content.shards;
        while left > 0 {
            let (shard, saved) = match self.pieces.recv() {
                Ok(Piece::Saved(shard, saved)) => (shard, saved),
                Ok(Piece::Done) => {
                    left -= 1;
                    continue;
                }
                Ok(Piece::GivenUp) | Err(_) => return Err(SaveError::GivenUp),
            };
            let bytes = saved.bytes.len();
            // A command that waits for a large value waits for room for its slices, which this thread makes.
            target.puts_syncs_off = self.snapshot.is_awaited();
            let written = match (saved.part, sliced) {
                (Part::Whole, Some(_)) => spill.push(saved),
                (Part::Whole, None) => target.write(saved.db, &saved.bytes),
                (part, of) => {
                    debug_assert!(of.is_none_or(|of| of == shard), "one shard has the baton");
                    sliced = (part == Part::Slice).then_some(shard);
                    self.write_slice(target, &saved, of.is_none())
                        .and_then(|()| match sliced {
                            Some(_) => Ok(()),
                            None => spill.drain(|db, bytes| target.write(db, bytes)),
                        })
                }
            };
            written.map_err(failed(Attempt::Write))?;
            if self.snapshot.written(shard, bytes) {
                self.persistence.ring(shard);
            }
        }
        Ok(())
    }

    fn write_slice(&self, target: &mut Target, saved: &SavedBytes, is_first: bool) -> io::Result<()> {
        if is_first {
            target.write(saved.db, &saved.bytes)
        } else {
            target.go_on(&saved.bytes)
        }
    }
}

/// Writes the file of a job from data that the caller holds, at once and on its thread. `save` gets a function that writes an entry
/// of a database.
///
/// # Errors
/// When the file cannot be written: then the old one stays.
pub(crate) fn write_at_once(
    job: &Job,
    plan: Plan,
    content: &Content,
    save: impl FnOnce(&mut dyn FnMut(u16, &Entry)),
) -> Result<(), SaveError> {
    let file = job.file();
    let outcome = write_entries(&file, plan, content, save);
    if outcome.is_err() {
        let _ = fs::remove_file(&file.temporary);
    }
    outcome
}

fn write_entries(
    file: &File,
    plan: Plan,
    content: &Content,
    save: impl FnOnce(&mut dyn FnMut(u16, &Entry)),
) -> Result<(), SaveError> {
    let mut target = Target::begin(Out::create(file)?, file, plan, content)?;
    let (mut writer, mut bytes, mut outcome) = (plan.entry_writer(file.form), Vec::new(), Ok(()));
    save(&mut |db, entry| {
        bytes.clear();
        writer.begin(entry, &mut bytes);
        while !writer.step(entry, &mut bytes, usize::MAX) {}
        if outcome.is_ok() {
            outcome = target.write(db, &bytes);
        }
    });
    outcome
        .and_then(|()| target.finish())
        .map_err(failed(Attempt::Write))?;
    file.put_in_place()
}

impl File {
    /// Gives the file its name, when it is complete.
    fn put_in_place(&self) -> Result<(), SaveError> {
        fs::rename(&self.temporary, &self.path).map_err(failed(Attempt::Rename))?;
        // The new name is lost with the power unless the directory is on the disk as well.
        let directory = fs::File::open(self.directory());
        directory
            .and_then(|directory| directory.sync_all())
            .map_err(failed(Attempt::Rename))
    }
}

/// The error of an attempt.
fn failed(attempt: Attempt) -> impl Fn(io::Error) -> SaveError {
    move |error| SaveError::File(FileError { attempt, error })
}

/// The place that the bytes go to.
enum Out {
    /// A file.
    File(fs::File),
    /// Replicas, for as long as the snapshot is wanted.
    Payload(PayloadWriter, Arc<Snapshot>),
}

impl Out {
    /// The file of a job, under its temporary name.
    fn create(of: &File) -> Result<Self, SaveError> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&of.temporary)
            .map(Self::File)
            .map_err(failed(Attempt::Create))
    }

    /// Brings what was written to the disk, if it is a file.
    fn sync(&self, sync: impl Fn(&fs::File) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::File(file) => sync(file),
            Self::Payload(..) => Ok(()),
        }
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Payload(payload, snapshot) => {
                payload.push(bytes, || !snapshot.is_given_up())?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file, as far as it is written.
struct Target {
    file: BufWriter<Out>,
    form: Form,
    rdb: FileWriter,
    is_aof_base: bool,
    /// Number of keys, and of those that expire, of the databases that were not begun yet.
    sizes: Vec<Option<(usize, usize)>>,
    /// The database of what was written last.
    db: Option<u16>,
    /// Bytes written since the file was brought to the disk.
    unsynced: usize,
    is_synced_early: bool,
    /// The early syncs are put off.
    puts_syncs_off: bool,
    is_timed: bool,
}

impl Target {
    /// The file of a job, with all before its entries.
    fn begin(out: Out, of: &File, plan: Plan, content: &Content) -> Result<Self, SaveError> {
        let mut target = Self::new(out, of, plan, content);
        target.write_head(content).map_err(failed(Attempt::Write))?;
        Ok(target)
    }

    fn new(file: Out, of: &File, plan: Plan, content: &Content) -> Self {
        Self {
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            form: of.form,
            rdb: FileWriter::new(plan.header, plan.options, plan.is_summed),
            is_aof_base: of.is_aof_base,
            sizes: content.databases.iter().copied().map(Some).collect(),
            db: None,
            unsynced: 0,
            is_synced_early: if of.is_aof_base {
                plan.is_base_synced_early
            } else {
                plan.is_synced_early
            },
            puts_syncs_off: false,
            is_timed: plan.is_timed,
        }
    }

    fn write_head(&mut self, content: &Content) -> io::Result<()> {
        let seconds = content.now_ms / 1000;
        match self.form {
            Form::Rdb => {
                self.remark(content, seconds);
                content
                    .libraries
                    .iter()
                    .for_each(|source| self.rdb.function(source));
                self.put_collected()
            }
            Form::Commands => {
                if self.is_timed {
                    self.put(format!("#TS:{seconds}\r\n").as_bytes())?;
                }
                for source in &content.libraries {
                    let head = format!("*3\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n${}\r\n", source.len());
                    self.put(&[head.as_bytes(), source, b"\r\n"].concat())?;
                }
                Ok(())
            }
        }
    }

    /// Adds the remarks.
    fn remark(&mut self, content: &Content, seconds: i64) {
        let rdb = &mut self.rdb;
        rdb.aux(b"redis-ver", content.version.as_bytes());
        rdb.aux(b"redis-bits", usize::BITS.to_string().as_bytes());
        rdb.aux(b"ctime", seconds.to_string().as_bytes());
        rdb.aux(b"used-mem", content.used_bytes.to_string().as_bytes());
        // The base of an append-only file is followed by its own stream.
        if let Some(stream) = content.stream.as_ref().filter(|_| !self.is_aof_base) {
            rdb.aux(b"repl-stream-db", stream.db.to_string().as_bytes());
            rdb.aux(b"repl-id", stream.id.as_bytes());
            rdb.aux(b"repl-offset", stream.offset.to_string().as_bytes());
        }
        rdb.aux(b"aof-base", if self.is_aof_base { b"1" } else { b"0" });
    }

    /// Writes bytes of a database.
    fn write(&mut self, db: u16, bytes: &[u8]) -> io::Result<()> {
        if self.db != Some(db) {
            self.db = Some(db);
            self.select(db)?;
        }
        self.go_on(bytes)
    }

    fn select(&mut self, db: u16) -> io::Result<()> {
        match self.form {
            Form::Rdb => {
                match self.sizes.get_mut(usize::from(db)).and_then(Option::take) {
                    Some((keys, expires)) => self.rdb.database(u64::from(db), keys, expires),
                    None => self.rdb.select(u64::from(db)),
                }
                self.put_collected()
            }
            Form::Commands => {
                let number = db.to_string();
                let command = format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{number}\r\n", number.len());
                self.put(command.as_bytes())
            }
        }
    }

    /// Writes further bytes of the same database.
    fn go_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.form {
            Form::Rdb => self.rdb.pass(bytes),
            Form::Commands => {}
        }
        self.put(bytes)
    }

    /// Ends the file, and brings it to the disk.
    fn finish(mut self) -> io::Result<Out> {
        if self.form == Form::Rdb {
            self.rdb.end();
            self.put_collected()?;
        }
        let out = self.file.into_inner().map_err(|error| error.into_error())?;
        out.sync(fs::File::sync_all)?;
        Ok(out)
    }

    fn put_collected(&mut self) -> io::Result<()> {
        let collected = self.rdb.take();
        self.put(&collected)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.unsynced += bytes.len();
        if self.is_synced_early && !self.puts_syncs_off && self.unsynced >= SYNCED_BYTES {
            self.unsynced = 0;
            self.file.flush()?;
            self.file.get_ref().sync(fs::File::sync_data)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assignment")
            .field("file", &self.file)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}
