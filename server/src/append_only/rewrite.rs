//! Rewrites: asked for by commands, by growth, or by a file that is not trusted any more; done step by step.

use std::fs;
use std::io;
use std::mem::take;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::status::Phase;
use super::{AppendOnly, Files};
use crate::config::Settings;
use crate::journal::Journal;
use crate::journal::aof::{Faults, Reporter};
use crate::journal::directory::Directory;
use crate::journal::manifest::{BaseForm, Manifest, Part};
use crate::journal::tap::Increment;
use crate::limits::{AOF_FAILURES_FREE, AOF_RETRY_MINUTES_MAX};
use crate::log::Log;
use crate::saving::{Form, Job, Purpose, SaveError, Selection};

/// Latency event: the renaming of the files that a rewrite puts in place. A name of Redis's.
const RENAME_EVENT: &str = "aof-rename";

/// Answer to a request for a rewrite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requested {
    /// The rewrite begins.
    Started,
    /// The rewrite begins when something else has ended.
    Scheduled,
    /// There is one already.
    UnderWay,
}

/// A rewrite whose base is being written.
#[derive(Debug)]
pub(super) struct Rewrite {
    base: Part,
    /// The increment that follows the base; none while the append-only file is off.
    increment: Option<Arc<Increment>>,
    /// The name of that increment until the base is there, if it has another one.
    temporary: Option<String>,
    /// Faults of what stood before the cut.
    faults: Arc<Mutex<Faults>>,
    /// The end of the job that writes the base.
    verdict: Arc<Mutex<Option<Verdict>>>,
}

impl Rewrite {
    /// The part of the data that its increment is.
    fn part(&self) -> Option<&Part> {
        self.increment.as_ref().map(|increment| &increment.part)
    }
}

/// The end of the job that wrote a base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The base is there.
    Written,
    /// There is none.
    Failed,
    /// There is none because nobody wants it any more.
    GivenUp,
}

/// Passes the end of a job on, however it ends.
struct Messenger {
    verdict: Arc<Mutex<Option<Verdict>>>,
    journal: Arc<Journal>,
    message: Verdict,
}

impl Drop for Messenger {
    fn drop(&mut self) {
        *self.verdict.lock() = Some(self.message);
        self.journal.aof.call();
    }
}

impl Messenger {
    fn tell(mut self, outcome: Result<(), &SaveError>) {
        self.message = match outcome {
            Ok(()) => Verdict::Written,
            Err(SaveError::GivenUp) => Verdict::GivenUp,
            Err(SaveError::File(_)) => Verdict::Failed,
        };
    }
}

impl AppendOnly {
    /// Asks for a rewrite. It only waits for others if it must not begin `now`, or something else is being saved.
    pub(crate) fn request(&self, must_wait: bool) -> Requested {
        let mut status = self.status.lock();
        if status.rewriting_since_us.is_some() {
            return Requested::UnderWay;
        }
        status.failures = 0;
        status.delay_minutes = 0;
        if must_wait || self.persistence.purpose().is_some() {
            status.is_scheduled = true;
            return Requested::Scheduled;
        }
        status.is_scheduled = false;
        status.rewriting_since_us = Some(self.clock.now_us());
        drop(status);
        self.journal.aof.call();
        Requested::Started
    }

    /// Whether a rewrite waits for something else to end.
    pub(crate) fn has_scheduled(&self) -> bool {
        self.status.lock().is_scheduled
    }

    /// Does what there is to do with the files; `is_tick` once a second. For the thread of the append-only file.
    pub(crate) fn tend(&self, settings: &Settings, is_tick: bool, reporter: &Reporter<'_>) {
        self.end_rewrite(settings, reporter);
        self.begin_scheduled();
        if is_tick {
            self.begin_by_itself(settings, reporter.log);
        }
        let is_wanted = self.status.lock().rewriting_since_us.is_some();
        let mut files = self.files.lock();
        if is_wanted && files.rewrite.is_none() {
            self.begin_rewrite(&mut files, settings, reporter.log);
        }
    }

    /// Begins a scheduled rewrite if nothing is being saved.
    fn begin_scheduled(&self) {
        let mut status = self.status.lock();
        let now_us = self.clock.now_us();
        let may_begin = status.rewriting_since_us.is_none() && now_us >= status.retry_us;
        if status.is_scheduled && may_begin && self.persistence.purpose().is_none() {
            status.is_scheduled = false;
            status.rewriting_since_us = Some(now_us);
        }
    }

    /// Begins a rewrite because the file has grown, or is not trusted.
    fn begin_by_itself(&self, settings: &Settings, log: &Log) {
        let bytes = self.bytes();
        let mut status = self.status.lock();
        let now_us = self.clock.now_us();
        let is_idle = status.rewriting_since_us.is_none() && self.persistence.purpose().is_none();
        if status.phase != Phase::On || !is_idle || now_us < status.retry_us {
            return;
        }
        let growth = growth_percent(bytes, status.rewritten_bytes);
        let is_large = bytes > settings.auto_aof_rewrite_min_size;
        let has_grown = settings.auto_aof_rewrite_percentage > 0
            && is_large
            && growth >= u64::from(settings.auto_aof_rewrite_percentage);
        if has_grown {
            log.notice(format_args!(
                "Starting automatic rewriting of AOF on {growth}% growth"
            ));
        } else if self.journal.aof.is_distrusted() {
            log.warning(format_args!(
                "The AOF file could not be synced, and is not trusted any more: it is replaced by a new one. Writes are refused \
                 until then."
            ));
        } else if self.journal.aof.faults().torn > status.torn_mended {
            log.warning(format_args!(
                "The AOF file lacks changes: it is replaced by a new one"
            ));
        } else {
            return;
        }
        status.rewriting_since_us = Some(now_us);
    }

    /// Steps 1 and 2: prepares the files, and has the snapshot begin.
    fn begin_rewrite(&self, files: &mut Files, settings: &Settings, log: &Log) {
        let phase = self.status.lock().phase;
        let rewrite = match self.prepare(files, phase, settings, log) {
            Ok(rewrite) => rewrite,
            Err(error) => {
                log.warning(format_args!("Can't prepare the rewrite of the AOF: {error}"));
                return self.note_failure(log);
            }
        };
        let Some(directory) = &files.directory else { return };
        let job = self.job(&rewrite, directory, settings);
        self.status.lock().replaced = self.journal.increment();
        match self.persistence.begin(job, self.clock.now_us()) {
            Ok(_) => {
                log.notice(format_args!("Background append only file rewriting started"));
                self.status.lock().rewrites += 1;
                files.rewrite = Some(rewrite);
            }
            Err(_) => {
                // Something else was quicker.
                files.prepared = rewrite.increment.filter(|_| rewrite.temporary.is_none());
                let mut status = self.status.lock();
                status.replaced = None;
                status.rewriting_since_us = None;
                status.is_scheduled = true;
            }
        }
    }

    /// Creates the increment that follows the base, and has the manifest name it unless it is the first one.
    fn prepare(
        &self,
        files: &mut Files,
        phase: Phase,
        settings: &Settings,
        log: &Log,
    ) -> io::Result<Rewrite> {
        if files.directory.is_none() {
            let directory = Directory::of(settings);
            directory.make()?;
            files.manifest = directory
                .read_manifest()
                .map_err(io::Error::other)?
                .unwrap_or_default();
            files.directory = Some(directory);
        }
        let Files {
            directory: Some(directory),
            manifest,
            prepared,
            ..
        } = files
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let form = if settings.aof_use_rdb_preamble {
            BaseForm::Rdb
        } else {
            BaseForm::Commands
        };
        let base = manifest.next_base(directory.prefix(), form);
        let temporary = (phase == Phase::First).then(|| directory.temporary_increment());
        let increment = match (phase, &temporary) {
            (Phase::Off, _) => None,
            (_, Some(name)) => Some(first_increment(directory, manifest, name, log)?),
            (_, None) => Some(match prepared.take() {
                Some(prepared) => prepared,
                None => next_increment(directory, manifest, log)?,
            }),
        };
        Ok(Rewrite {
            base,
            increment,
            temporary,
            faults: Arc::default(),
            verdict: Arc::default(),
        })
    }

    fn job(&self, rewrite: &Rewrite, directory: &Directory, settings: &Settings) -> Job {
        let messenger = Messenger {
            verdict: Arc::clone(&rewrite.verdict),
            journal: Arc::clone(&self.journal),
            message: Verdict::Failed,
        };
        let (journal, increment) = (Arc::clone(&self.journal), rewrite.increment.clone());
        let (faults, policy) = (Arc::clone(&rewrite.faults), settings.appendfsync);
        let at_cut = move || {
            *faults.lock() = journal.aof.faults();
            if let Some(increment) = increment {
                journal.fill(increment, policy);
            }
        };
        Job {
            purpose: Purpose::AofBase,
            form: if settings.aof_use_rdb_preamble {
                Form::Rdb
            } else {
                Form::Commands
            },
            selection: Selection::ALL,
            dialect: None,
            path: directory.path_of(&rewrite.base.name),
            temporary: directory.temporary_base(),
            payload: None,
            at_cut: Some(Box::new(at_cut)),
            at_end: Some(Box::new(move |outcome| messenger.tell(outcome))),
        }
    }

    /// Ends the rewrite that was under way, if its base is there or will not be.
    fn end_rewrite(&self, settings: &Settings, reporter: &Reporter<'_>) {
        let mut files = self.files.lock();
        let verdict = files
            .rewrite
            .as_ref()
            .and_then(|rewrite| rewrite.verdict.lock().take());
        let (Some(verdict), Some(rewrite)) = (verdict, files.rewrite.take_if(|_| verdict.is_some())) else {
            return;
        };
        let ended = match verdict {
            Verdict::Written => {
                reporter
                    .log
                    .notice(format_args!("Background AOF rewrite terminated with success"));
                self.rebase(&mut files, &rewrite, settings, reporter)
            }
            Verdict::Failed => {
                reporter
                    .log
                    .warning(format_args!("Background AOF rewrite terminated with error"));
                Err(None)
            }
            Verdict::GivenUp => {
                // Who reads of it in the log may ask for the next one.
                self.measure(&files);
                self.note_given_up();
                reporter
                    .log
                    .warning(format_args!("Background AOF rewrite given up"));
                return;
            }
        };
        match ended {
            Ok(()) => {
                self.note_success();
                reporter
                    .log
                    .notice(format_args!("Background AOF rewrite finished successfully"));
            }
            Err(error) => {
                if let Some(error) = error {
                    reporter.log.warning(format_args!(
                        "The rewritten AOF could not be put in place: {error}"
                    ));
                }
                self.measure(&files);
                self.note_failure(reporter.log);
            }
        }
    }

    /// Step 4 and 5: the manifest names the base, and what it has replaced is removed.
    fn rebase(
        &self,
        files: &mut Files,
        rewrite: &Rewrite,
        settings: &Settings,
        reporter: &Reporter<'_>,
    ) -> Result<(), Option<io::Error>> {
        let Files {
            directory: Some(directory),
            manifest,
            ..
        } = files
        else {
            return Err(None);
        };
        if rewrite.increment.is_some() {
            // The bytes of the increment so far are to be no less safe than the base that they follow.
            self.journal.sync(reporter);
        }
        let mut new = manifest.clone();
        let begin_ns = self.clock.elapsed_ns();
        if let (Some(name), Some(increment)) = (&rewrite.temporary, &rewrite.increment) {
            directory.rename(name, &increment.part.name)?;
            reporter.log.notice(format_args!(
                "Successfully renamed the temporary AOF incr file {name} into {}",
                increment.part.name.display()
            ));
            new.increments.push(increment.part.clone());
        }
        let first = rewrite.part().map_or(u64::MAX, |part| part.sequence);
        new.rebase(rewrite.base.clone(), first);
        directory.replace_manifest(&new)?;
        *manifest = new;
        (reporter.note)(RENAME_EVENT, (self.clock.elapsed_ns() - begin_ns) / 1000);
        if !settings.aof_disable_auto_gc {
            remove_history(directory, manifest, reporter.log);
        }
        {
            let mut status = self.status.lock();
            status.measure(directory, manifest, rewrite.part());
            if status.phase == Phase::First {
                status.phase = Phase::On;
                self.journal.aof.complete(true);
            }
        }
        let rewritten = self.bytes();
        self.status.lock().rewritten_bytes = rewritten;
        let before = *rewrite.faults.lock();
        if self.journal.aof.faults().failed_syncs == before.failed_syncs {
            self.journal.aof.trust();
        }
        self.status.lock().torn_mended = before.torn;
        Ok(())
    }

    fn note_success(&self) {
        let mut status = self.status.lock();
        status.failures = 0;
        status.delay_minutes = 0;
        status.retry_us = 0;
        status.has_failed = false;
        self.note_end_in(&mut status, false);
    }

    /// Notes a failure. After some of them, rewrites that begin by themselves wait longer and longer.
    fn note_failure(&self, log: &Log) {
        let mut status = self.status.lock();
        status.has_failed = true;
        status.failures += 1;
        if status.failures >= AOF_FAILURES_FREE {
            status.delay_minutes = (status.delay_minutes * 2).clamp(1, AOF_RETRY_MINUTES_MAX);
            status.retry_us = self.clock.now_us() + status.delay_minutes * 60_000_000;
            log.warning(format_args!(
                "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {} minutes",
                status.delay_minutes
            ));
        }
        let is_first = status.phase == Phase::First;
        self.note_end_in(&mut status, is_first);
    }

    /// Notes that a rewrite was given up. The first one is still wanted.
    fn note_given_up(&self) {
        let mut status = self.status.lock();
        let is_first = status.phase == Phase::First;
        self.note_end_in(&mut status, is_first);
    }

    fn note_end_in(&self, status: &mut super::Status, is_wanted_still: bool) {
        if let Some(since_us) = status.rewriting_since_us.take() {
            status.last_rewrite_s = (self.clock.now_us() - since_us) / 1_000_000;
        }
        status.is_scheduled |= is_wanted_still;
    }

    /// Gives up the rewrite that is under way, if one is.
    pub(super) fn abandon_rewrite(&self) {
        self.status.lock().is_scheduled = false;
        let path = {
            let mut files = self.files.lock();
            let rewrite = files.rewrite.take();
            let path = rewrite.as_ref().map(|rewrite| rewrite.base.name.clone());
            path.zip(files.directory.as_ref())
                .map(|(name, directory)| directory.path_of(name))
        };
        self.persistence.give_up(|purpose| purpose == Purpose::AofBase);
        {
            let mut status = self.status.lock();
            status.rewriting_since_us = None;
            status.replaced = None;
        }
        // It may have been complete already.
        if let Some(path) = path {
            remove_unless_missing(&path);
        }
    }
}

/// Creates the first increment, which gets its name when the base is there.
fn first_increment(
    directory: &Directory,
    manifest: &Manifest,
    name: &str,
    log: &Log,
) -> io::Result<Arc<Increment>> {
    let part = manifest.next_increment(directory.prefix());
    // Another try has maybe left one, which is still being written to.
    directory.remove(name)?;
    let file = directory.create(name)?;
    log.notice(format_args!(
        "Creating AOF incr file {name} on background rewrite"
    ));
    Ok(Arc::new(Increment::new(file, part, 0)))
}

/// Creates the next increment, and has the manifest name it.
fn next_increment(directory: &Directory, manifest: &mut Manifest, log: &Log) -> io::Result<Arc<Increment>> {
    let part = manifest.next_increment(directory.prefix());
    let file = directory.create(&part.name)?;
    log.notice(format_args!(
        "Creating AOF incr file {} on background rewrite",
        part.name.display()
    ));
    let mut named = manifest.clone();
    named.increments.push(part.clone());
    directory.replace_manifest(&named)?;
    *manifest = named;
    Ok(Arc::new(Increment::new(file, part, 0)))
}

/// Removes what no data is made of any more, and then its lines in the manifest.
fn remove_history(directory: &Directory, manifest: &mut Manifest, log: &Log) {
    if manifest.history.is_empty() {
        return;
    }
    for part in take(&mut manifest.history) {
        log.notice(format_args!(
            "Removing the history file {} in the background",
            part.name.display()
        ));
        if directory.remove(&part.name).is_err() {
            manifest.history.push(part);
        }
    }
    if let Err(error) = directory.replace_manifest(manifest) {
        log.warning(format_args!(
            "The AOF manifest still names removed history files: {error}"
        ));
    }
}

fn remove_unless_missing(path: &PathBuf) {
    let _ = fs::remove_file(path);
}

/// Growth of the files since they were rewritten, percent.
fn growth_percent(bytes: u64, rewritten: u64) -> u64 {
    let base = rewritten.max(1);
    u64::try_from(u128::from(bytes) * 100 / u128::from(base))
        .map_or(u64::MAX, |percent| percent.saturating_sub(100))
}
