//! Replays an append-only file: a base, which is a snapshot or commands, and commands that have run since.
//!
//! Commands run as they did then, through the same [`Execution`], on partitions that nobody uses yet. Whatever they found
//! had not expired, so nothing expires; there is no client to be refused, to wait or to be told. What belongs to a
//! transaction runs when its EXEC has been read. The last file may be torn: it is good up to its last whole command, or up
//! to the transaction that is not whole.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use shardis_protocol::Arguments;
use shardis_storage::memory::thread_balance;

use super::commands::{CommandFile, Fault};
use super::progress::Progress;
use super::{LoadError, LoadReason, Loaded, Policy, Told, read_snapshot};
use crate::commands::registry;
use crate::config::PropagationError;
use crate::dispatch::admission::find;
use crate::dispatch::execution::{Access, Call, Environment, Execution};
use crate::dispatch::plan::Routed;
use crate::error::ReplyError;
use crate::exec::arguments::int;
use crate::exec::view::{Held, Lent};
use crate::exec::waiter::{Outbox, Waiting};
use crate::exec::{Modes, Origin, OwnedRequest, Partition, Stamp};
use crate::journal::directory::Directory;
use crate::journal::manifest::{Manifest, Part};
use crate::journal::{Position, Recorder};
use crate::observe::stats::LoopStats;
use crate::scripting::{self, Functions, Means};
use crate::shard::Mesh;
use crate::spec::{Flags, Runs};
use crate::state::{Node, Renames};

/// A file of an append-only file that consists of several.
#[derive(Clone, Debug)]
pub(crate) struct AofFile {
    /// Its path.
    pub(crate) path: PathBuf,
    /// The file is the base; else it is an increment.
    pub(crate) is_base: bool,
}

impl AofFile {
    /// The files that a manifest names, in the order in which they are loaded.
    pub(crate) fn all(directory: &Directory, manifest: &Manifest) -> Vec<Self> {
        let file = |part: &Part, is_base| Self {
            path: directory.path_of(&part.name),
            is_base,
        };
        let base = manifest.base.iter().map(|part| file(part, true));
        let increments = manifest.increments.iter().map(|part| file(part, false));
        base.chain(increments).collect()
    }
}

/// Data of an append-only file.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// The data.
    pub(crate) loaded: Loaded,
    /// The file whose end is torn, if one is. It has to be cut before anything is appended.
    pub(crate) torn: Option<Torn>,
}

/// A file with a torn end.
#[derive(Debug)]
pub(crate) struct Torn {
    /// Its path.
    pub(crate) path: PathBuf,
    /// Bytes that are good.
    pub(crate) good_bytes: u64,
}

/// Reads the files of an append-only file, in order.
///
/// # Errors
/// When something is wrong with one of them but the end of the last, or the node is to stop.
pub(crate) fn append_only(node: &Node, mesh: &Mesh, files: &[AofFile]) -> Result<Replayed, LoadError> {
    let mut sizes = Vec::new();
    for AofFile { path, .. } in files {
        let size = fs::metadata(path)
            .map_err(|error| LoadError::of(path, error))?
            .len();
        node.loading.expect(size);
        sizes.push(size);
    }
    // A rewrite names its increment before it is written to: files behind the last that has bytes do not count.
    let last = sizes.iter().rposition(|&size| size > 0);
    let started_ns = node.clock.elapsed_ns();
    let (mut data, mut torn, mut passed) = (None, None, 0);
    for (index, (file, size)) in files.iter().zip(&sizes).enumerate() {
        let begun_ns = node.clock.elapsed_ns();
        let mut one = OneFile {
            node,
            mesh,
            file,
            passed,
            is_last: last.is_none_or(|last| index >= last),
        };
        torn = one.load(&mut data)?.or(torn);
        passed += size;
        let (kind, seconds) = (
            if file.is_base { "base" } else { "incr" },
            seconds_since(node, begun_ns),
        );
        let name = file.path.file_name().unwrap_or_default().display();
        node.log.notice(format_args!(
            "DB loaded from {kind} file {name}: {seconds:.3} seconds"
        ));
    }
    let seconds = seconds_since(node, started_ns);
    node.log.notice(format_args!(
        "DB loaded from append only file: {seconds:.3} seconds"
    ));
    Ok(Replayed {
        loaded: data.unwrap_or_else(|| empty(node)),
        torn,
    })
}

fn seconds_since(node: &Node, begun_ns: u64) -> f64 {
    (node.clock.elapsed_ns() - begun_ns) as f64 / 1e9
}

/// No data.
fn empty(node: &Node) -> Loaded {
    let partitions =
        (0..node.shards).map(|shard| Partition::new(shard, node.keyspace_options(shard), 0, Arc::default()));
    Loaded {
        partitions: partitions.collect(),
        libraries: Box::default(),
        told: Told::default(),
    }
}

/// A file that is being loaded.
struct OneFile<'a> {
    node: &'a Node,
    mesh: &'a Mesh,
    file: &'a AofFile,
    /// Bytes of the files before it.
    passed: u64,
    /// Only files without bytes follow.
    is_last: bool,
}

impl OneFile<'_> {
    /// Loads the file on top of the data so far. Returns where its end is torn off.
    fn load(&mut self, data: &mut Option<Loaded>) -> Result<Option<Torn>, LoadError> {
        let path = &self.file.path;
        let mut file = File::open(path).map_err(|error| LoadError::of(path, error))?;
        let mut offset = 0;
        if data.is_none() && is_snapshot(&mut file).map_err(|error| LoadError::of(path, error))? {
            self.node
                .log
                .notice(format_args!("Reading RDB base file on AOF loading..."));
            let (loaded, end) = read_snapshot(self.node, path, &file, self.passed, Policy::BASE)?;
            *data = Some(loaded);
            offset = end;
        }
        file.seek(SeekFrom::Start(offset))
            .map_err(|error| LoadError::of(path, error))?;
        let before = data.take().unwrap_or_else(|| empty(self.node));
        let (loaded, torn) = self.replay(file, offset, before)?;
        *data = Some(loaded);
        Ok(torn)
    }

    /// Runs the commands from here to the end of the file.
    fn replay(&self, file: File, offset: u64, before: Loaded) -> Result<(Loaded, Option<Torn>), LoadError> {
        let node = self.node;
        let settings = node.settings.load_full();
        let (stats, outbox, recorder) = (
            LoopStats::new(registry().rows()),
            RefCell::new(Outbox::default()),
            Recorder::default(),
        );
        let environment = Environment {
            hashing: node.hashing,
            stamp: Stamp::new(&settings, node.clock.now_us() / 1000, false).of_loading(),
            settings: &settings,
            shards: node.shards,
            node,
            slots: None,
            looked_ns: 0,
            clock: &node.clock,
            stats: &stats,
            slow_from_ns: u64::MAX,
            mesh: self.mesh,
            reload: None,
            outbox: &outbox,
            recorder: &recorder,
            silent: &recorder,
            reply_bytes_max: usize::MAX,
        };
        let mut replay = Replay {
            environment: &environment,
            stage: Stage::new(before.partitions),
            libraries: before.libraries,
            databases: usize::try_from(settings.databases).unwrap_or(usize::MAX),
            db: 0,
            transaction: None,
            out: Vec::new(),
        };
        let mut file = CommandFile::new(file, offset);
        let mut progress = Progress::new(node, self.passed);
        let ended = self.run_all(&mut file, &mut replay, &mut progress);
        let end = match ended {
            Ok(()) if replay.transaction.is_none() => None,
            Ok(()) => {
                node.log.warning(format_args!(
                    "Revert incomplete MULTI/EXEC transaction from AOF file {}",
                    self.file.path.display()
                ));
                Some(Fault::Short)
            }
            Err(Stop::Fault(fault)) => Some(fault),
            Err(Stop::Reason(offset, reason)) => return Err(self.error(offset, reason)),
        };
        let begun = replay.transaction.as_ref();
        let good = begun.map_or(file.offset(), |begun| begun.offset);
        let torn = end.map(|fault| self.torn(fault, good, &mut file)).transpose()?;
        let loaded = Loaded {
            partitions: replay.stage.finish(),
            libraries: replay.libraries,
            told: Told::default(),
        };
        Ok((loaded, torn))
    }

    fn run_all(
        &self,
        file: &mut CommandFile<File>,
        replay: &mut Replay<'_>,
        progress: &mut Progress<'_>,
    ) -> Result<(), Stop> {
        loop {
            let offset = file.offset();
            if !file.next().map_err(Stop::Fault)? {
                return Ok(());
            }
            progress.delay();
            replay
                .take(file.arguments(), offset)
                .map_err(|reason| Stop::Reason(offset, reason))?;
            progress
                .note(file.offset())
                .map_err(|failure| Stop::Reason(offset, failure.reason))?;
        }
    }

    fn error(&self, offset: u64, reason: LoadReason) -> LoadError {
        LoadError {
            offset: Some(offset),
            ..LoadError::of(&self.file.path, reason)
        }
    }

    /// The end to be cut off, if it may be: that of the last file.
    fn torn(&self, fault: Fault, good_bytes: u64, file: &mut CommandFile<File>) -> Result<Torn, LoadError> {
        let (settings, log) = (self.node.settings.load(), &self.node.log);
        let path = &self.file.path;
        let size = fs::metadata(path)
            .map_err(|error| LoadError::of(path, error))?
            .len();
        let reason = match fault {
            Fault::Io(error) => LoadReason::Io(error),
            Fault::Short if !self.is_last => LoadReason::TornWithin,
            Fault::Short if !settings.aof_load_truncated => LoadReason::Torn,
            Fault::Short => {
                log.warning(format_args!(
                    "!!! Warning: short read while loading the AOF file {}!!!",
                    path.display()
                ));
                return Ok(self.cut_at(good_bytes));
            }
            Fault::Format if self.is_last && size - good_bytes <= settings.aof_load_corrupt_tail_max_size => {
                log.warning(format_args!(
                    "!!! Warning: the last {} bytes of the AOF file {} are no commands!!!",
                    size - good_bytes,
                    path.display()
                ));
                return Ok(self.cut_at(good_bytes));
            }
            Fault::Format => LoadReason::Damaged {
                is_zero: file.is_zero_from_here(),
            },
        };
        Err(self.error(good_bytes, reason))
    }

    fn cut_at(&self, good_bytes: u64) -> Torn {
        Torn {
            path: self.file.path.clone(),
            good_bytes,
        }
    }
}

/// Whether a file begins like a snapshot.
pub(super) fn is_snapshot(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.by_ref().take(6).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(magic.starts_with(b"REDIS") || magic == b"VALKEY")
}

/// Reason for which no further command is run.
enum Stop {
    /// The file cannot be read further.
    Fault(Fault),
    /// The command at this place cannot run, or the node is to stop.
    Reason(u64, LoadReason),
}

/// The partitions that commands run on.
enum Stage {
    /// The partition of the only shard, and the balance of this thread when it was taken.
    One(Box<Partition>, i64),
    /// The partitions of several shards.
    Many(Lent),
}

impl Stage {
    fn new(mut partitions: Vec<Partition>) -> Self {
        if partitions.len() == 1
            && let Some(only) = partitions.pop()
        {
            return Self::One(Box::new(only), thread_balance());
        }
        let mut lent = Lent::new(partitions.len());
        partitions
            .into_iter()
            .for_each(|partition| lent.add(Box::new(partition)));
        lent.begin();
        Self::Many(lent)
    }

    fn held(&mut self) -> Held<'_> {
        match self {
            Self::One(partition, _) => Held::One(partition),
            Self::Many(lent) => Held::Many(lent),
        }
    }

    /// The partitions, without garbage. What was allocated meanwhile is booked to them.
    fn finish(mut self) -> Vec<Partition> {
        self.held().each(Partition::release_all);
        match self {
            Self::One(mut partition, before) => {
                partition.memory_bytes += thread_balance() - before;
                vec![*partition]
            }
            Self::Many(mut lent) => {
                lent.settle();
                let shards = 0..lent.len();
                shards
                    .filter_map(|shard| lent.remove(shard))
                    .map(|partition| *partition)
                    .collect()
            }
        }
    }
}

/// A transaction whose EXEC has not been read yet.
struct Transaction {
    /// Place of its MULTI in the file.
    offset: u64,
    queue: Vec<OwnedRequest>,
}

/// Commands of a file on their way to the data.
struct Replay<'a> {
    environment: &'a Environment<'a>,
    stage: Stage,
    libraries: Box<Functions>,
    /// Number of databases.
    databases: usize,
    /// The database that the file has selected. Every file begins with the first one.
    db: u16,
    transaction: Option<Transaction>,
    /// The reply of the last command.
    out: Vec<u8>,
}

impl Replay<'_> {
    /// Takes the next command: it is run, or waits for the end of its transaction.
    fn take(&mut self, args: Arguments<'_>, offset: u64) -> Result<(), LoadReason> {
        let name = args.at(0);
        if name.eq_ignore_ascii_case(b"multi") {
            let queue = Vec::new();
            self.transaction = Some(Transaction { offset, queue });
        } else if name.eq_ignore_ascii_case(b"exec") {
            let queue = self.transaction.take().map(|transaction| transaction.queue);
            for request in queue.into_iter().flatten() {
                self.run(request.arguments())?;
            }
        } else if let Some(transaction) = &mut self.transaction {
            transaction.queue.push(OwnedRequest::copy(args));
        } else {
            self.run(args)?;
        }
        Ok(())
    }

    fn run(&mut self, args: Arguments<'_>) -> Result<(), LoadReason> {
        if args.at(0).eq_ignore_ascii_case(b"select") {
            return self.select(args);
        }
        if args.at(0).eq_ignore_ascii_case(b"function") {
            return self.function(args);
        }
        let node = self.environment.node;
        let command = find(args, None, &node.renames)
            // The file may come from a node that called its commands by other names.
            .or_else(|_| find(args, None, &Renames::default()))
            .map_err(|error| refused(args, &error))?;
        // A file holds effects; a command that had none when it ran would have none now. PFCOUNT has one.
        let (flags, runs) = (command.row.flags, command.row.runs);
        if runs.script().is_some() {
            return Err(LoadReason::Command {
                name: command.full_name.clone(),
                error: "the file records a script, not what that has changed, as versions before Redis 5 do"
                    .to_owned(),
            });
        }
        let may_change =
            flags.contains(Flags::MAY_REPLICATE) && matches!(runs, Runs::OnKeys(_) | Runs::OnKeysLong(_));
        if !flags.contains(Flags::WRITE) && !may_change {
            return Ok(());
        }
        self.out.clear();
        let call = Call {
            command,
            args,
            db: self.db,
            client: 0,
            modes: Modes::empty(),
            wrote_to: Position::default(),
            routed: Routed::default(),
            origin: Origin::Loading,
            waiting: Waiting::Denied,
        };
        let held = Access::Partitions(self.stage.held());
        let mut execution = Execution::begin(call, None, &mut self.out);
        if !execution.run_guarded(None, held, self.environment) {
            return Err(LoadReason::Panic);
        }
        match self.out.strip_prefix(b"-") {
            None => Ok(()),
            Some(error) => self.note_divergence(error.trim_ascii(), &command.full_name),
        }
    }

    /// Notes that a command fails which did not when it ran.
    ///
    /// # Errors
    /// When `propagation-error-behavior` has it end the load.
    fn note_divergence(&self, error: &[u8], command: &str) -> Result<(), LoadReason> {
        let node = self.environment.node;
        let error = error.escape_ascii().to_string();
        node.replication.divergence.errors.fetch_add(1, Ordering::Relaxed);
        node.log.warning(format_args!(
            "== CRITICAL == This server is sending an error to its AOF-loading-client: '{error}' after processing the command \
             '{command}'"
        ));
        if self.environment.settings.propagation_error_behavior == PropagationError::Panic {
            let name = command.to_owned();
            return Err(LoadReason::Command { name, error });
        }
        Ok(())
    }

    fn select(&mut self, args: Arguments<'_>) -> Result<(), LoadReason> {
        let found = match args.get(1).map(int) {
            Some(Ok(found)) if args.len() == 2 => found,
            _ => return Err(refused(args, &ReplyError::Syntax)),
        };
        let databases = self.databases;
        let db = usize::try_from(found).ok().filter(|&db| db < databases);
        let db = db.ok_or(LoadReason::Databases {
            databases,
            found: found.cast_unsigned(),
        })?;
        self.db = db as u16;
        Ok(())
    }
}

impl Replay<'_> {
    /// Adds a library of functions, or drops it.
    fn function(&mut self, args: Arguments<'_>) -> Result<(), LoadReason> {
        let node = self.environment.node;
        let means = Means {
            clock: &node.clock,
            log: &node.log,
        };
        scripting::repeat(&mut self.libraries, args, means).map_err(|error| LoadReason::Command {
            name: "function".to_owned(),
            error,
        })
    }
}

/// The reason for which a command of the file cannot be run at all.
fn refused(args: Arguments<'_>, error: &ReplyError) -> LoadReason {
    let name = args.at(0).escape_ascii().to_string();
    match error {
        ReplyError::UnknownCommand(_) => LoadReason::UnknownCommand(name),
        error => LoadReason::Command {
            name,
            error: error.to_string(),
        },
    }
}
