//! The way of effects to the file, the time at which replies may leave, and faults.

use std::fs::{self, OpenOptions};
use std::path::Path;

use super::*;
use crate::journal::Recorder;
use crate::journal::manifest::Part;
use crate::log::Level;

/// A journal that is written to files of a directory.
struct Scene {
    directory: tempfile::TempDir,
    clock: Arc<Clock>,
    journal: Arc<Journal>,
    recorder: Recorder,
    log: Log,
}

impl Scene {
    fn new(policy: AppendFsync) -> Self {
        let clock = Arc::new(Clock::manual(Duration::from_secs(1000)));
        let journal = Arc::new(Journal::new(Arc::clone(&clock)));
        let scene = Self {
            directory: tempfile::tempdir().unwrap(),
            recorder: Recorder::new(Arc::clone(&journal)),
            clock,
            journal,
            log: Log::new(Level::Nothing),
        };
        let first = scene.file("1");
        scene.journal.fill(first, policy);
        scene
    }

    fn file(&self, name: &str) -> Arc<Increment> {
        self.open(&self.directory.path().join(name))
    }

    fn open(&self, path: &Path) -> Arc<Increment> {
        let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
        Arc::new(Increment::new(file, Part::increment("a", 1), 0))
    }

    fn text(&self, name: &str) -> String {
        let bytes = fs::read(self.directory.path().join(name)).unwrap();
        String::from_utf8(bytes).unwrap().replace("\r\n", " ")
    }

    fn add(&self, db: u16, word: &str) {
        self.recorder.unit().add(db, std::iter::once(word.as_bytes()));
        self.recorder.hand_over();
    }

    fn reporter(&self) -> Reporter<'_> {
        Reporter {
            log: &self.log,
            note: &|_, _| {},
        }
    }

    fn settle(&self) -> Position {
        self.journal.settle(&self.reporter())
    }

    fn keep(&self, is_tick: bool) -> Result<(), FatalError> {
        self.journal.keep(is_tick, true, &self.reporter(), || {})
    }
}

#[test]
fn a_turn_ends_with_its_effects_in_the_file() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.add(0, "a");
    assert_eq!(scene.text("1"), "");
    assert_eq!(scene.settle(), Position::default());
    assert_eq!(scene.text("1"), "*2 $6 SELECT $1 0 *1 $1 a ");
    scene.add(0, "b");
    scene.add(3, "c");
    scene.settle();
    assert_eq!(
        scene.text("1"),
        "*2 $6 SELECT $1 0 *1 $1 a *1 $1 b *2 $6 SELECT $1 3 *1 $1 c "
    );
    assert!(!scene.journal.has_synced(scene.recorder.position()));
    scene.journal.aof.complete(true);
    scene.keep(true).unwrap();
    assert!(scene.journal.has_synced(scene.recorder.position()));
}

#[test]
fn files_are_switched_exactly_at_the_cut_and_each_selects_its_database() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.add(2, "a");
    let second = scene.file("2");
    scene.journal.fill(second, AppendFsync::EverySecond);
    scene.add(2, "b");
    scene.settle();
    scene.keep(false).unwrap();
    assert_eq!(scene.text("1"), "*2 $6 SELECT $1 2 *1 $1 a ");
    assert_eq!(scene.text("2"), "*2 $6 SELECT $1 2 *1 $1 b ");
}

#[test]
fn the_next_file_is_not_written_before_the_one_before_it_is_on_disk() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.add(0, "a");
    scene.settle();
    let second = scene.file("2");
    scene.journal.fill(second, AppendFsync::EverySecond);
    scene.add(0, "b");
    scene.settle();
    assert_eq!(scene.text("2"), "");
    scene.keep(false).unwrap();
    assert_eq!(scene.text("2"), "*2 $6 SELECT $1 0 *1 $1 b ");
    // A write that can be put off no longer is made after a sync, on whatever thread.
    let third = scene.file("3");
    scene.journal.fill(third, AppendFsync::EverySecond);
    scene.add(0, "c");
    scene.settle();
    assert_eq!(scene.text("3"), "");
    scene.clock.advance(Duration::from_secs(3));
    scene.settle();
    assert_eq!(scene.text("3"), "*2 $6 SELECT $1 0 *1 $1 c ");
    let writer = scene.journal.aof.writer.lock();
    assert!(
        writer.unsynced.len() == 1 && !writer.has_unsynced_before(&scene.journal.increment().unwrap()),
        "the second file is on disk"
    );
}

#[test]
fn a_switch_of_files_syncs_the_old_one_even_while_nothing_is_to_be_synced() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.add(0, "a");
    scene.settle();
    let second = scene.file("2");
    scene.journal.fill(second, AppendFsync::EverySecond);
    scene.add(0, "b");
    scene.settle();
    // As with `no-appendfsync-on-rewrite`.
    scene.journal.keep(true, false, &scene.reporter(), || {}).unwrap();
    assert_eq!(scene.text("2"), "*2 $6 SELECT $1 0 *1 $1 b ");
    assert!(!scene.journal.has_synced(scene.recorder.position()));
}

#[test]
fn what_is_for_replicas_only_counts_and_is_not_in_the_file() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.journal.aof.complete(true);
    let publish = |unit: &crate::journal::Unit<'_>| {
        let spans = [shardis_protocol::Span::new(0, 7).unwrap()];
        unit.repeat_on_replicas(0, shardis_protocol::Arguments::new(b"PUBLISH", &spans, &[]));
    };
    publish(&scene.recorder.unit());
    scene.recorder.hand_over();
    scene.settle();
    assert_eq!(scene.text("1"), "");
    scene.keep(true).unwrap();
    assert!(scene.recorder.position() > Position::default());
    assert!(scene.journal.has_synced(scene.recorder.position()));
    // A unit that has one effect for the file is no transaction there.
    let before = scene.recorder.position();
    let unit = scene.recorder.unit();
    publish(&unit);
    unit.add(0, std::iter::once(b"a".as_slice()));
    drop(unit);
    scene.recorder.hand_over();
    scene.settle();
    assert_eq!(scene.text("1"), "*2 $6 SELECT $1 0 *1 $1 a ");
    let with_marks = "*1 $5 MULTI *1 $7 PUBLISH *1 $1 a *1 $4 EXEC ".replace(' ', "\r\n");
    assert_eq!(scene.recorder.position().0 - before.0, with_marks.len() as u64);
}

#[test]
fn under_always_replies_wait_for_the_sync_whatever_they_tell_of() {
    let scene = Scene::new(AppendFsync::Always);
    assert_eq!(scene.settle(), Position::default());
    scene.add(0, "a");
    let barrier = scene.settle();
    assert_eq!(barrier, scene.recorder.position());
    assert!(!scene.journal.has_reached(barrier));
    // One who only reads waits, too.
    assert_eq!(scene.settle(), barrier);
    scene.keep(false).unwrap();
    assert!(scene.journal.has_reached(barrier));
    assert_eq!(scene.settle(), Position::default());
    assert_eq!(scene.text("1"), "*2 $6 SELECT $1 0 *1 $1 a ");
}

#[test]
fn writes_are_put_off_while_a_sync_runs_but_not_for_ever() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.journal.aof.is_syncing.store(true, Ordering::SeqCst);
    scene.add(0, "a");
    scene.settle();
    scene.clock.advance(Duration::from_millis(1900));
    scene.settle();
    assert_eq!(scene.text("1"), "");
    assert!(scene.journal.write_figures().buffered > 0);
    scene.clock.advance(Duration::from_millis(200));
    scene.settle();
    assert_eq!(scene.text("1"), "*2 $6 SELECT $1 0 *1 $1 a ");
    let figures = scene.journal.write_figures();
    assert_eq!((figures.delayed, figures.buffered), (1, 0));
}

#[test]
fn annotations_tell_the_time_once_a_second() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.journal.aof.configure(AppendFsync::EverySecond, true);
    scene.add(0, "a");
    scene.add(0, "b");
    scene.clock.advance(Duration::from_secs(2));
    scene.add(0, "c");
    scene.settle();
    assert_eq!(
        scene.text("1"),
        "#TS:1000 *2 $6 SELECT $1 0 *1 $1 a *1 $1 b #TS:1002 *1 $1 c "
    );
}

#[test]
fn what_cannot_be_written_is_kept_and_the_error_known() {
    let scene = Scene::new(AppendFsync::EverySecond);
    let full = scene.open(Path::new("/dev/full"));
    scene.journal.fill(full, AppendFsync::EverySecond);
    scene.add(0, "a");
    scene.settle();
    assert_eq!(scene.journal.aof.error(), Some(libc::ENOSPC));
    assert!(scene.journal.write_figures().is_failing);
    let before = scene.journal.write_figures().buffered;
    scene.add(0, "b");
    scene.keep(true).unwrap();
    assert!(scene.journal.write_figures().buffered > before);
    // Switching it off ends the error.
    scene.journal.stop_filling();
    assert!(scene.journal.aof.error().is_none());
    assert!(!scene.recorder.is_on());
}

#[test]
fn under_always_a_failed_write_is_the_end_and_lets_nothing_pass() {
    let scene = Scene::new(AppendFsync::Always);
    let full = scene.open(Path::new("/dev/full"));
    scene.journal.fill(full, AppendFsync::Always);
    scene.add(0, "a");
    let barrier = scene.settle();
    assert!(scene.keep(false).is_err());
    assert!(!scene.journal.has_reached(barrier));
}

#[test]
fn a_failed_sync_is_not_trusted_again() {
    let scene = Scene::new(AppendFsync::EverySecond);
    scene.journal.aof.complete(true);
    // It takes bytes, and cannot be synced.
    let null = scene.open(Path::new("/dev/null"));
    scene.journal.fill(null, AppendFsync::EverySecond);
    scene.add(0, "a");
    scene.settle();
    scene.keep(true).unwrap();
    assert!(scene.journal.aof.is_distrusted() && scene.journal.aof.error().is_some());
    let second = scene.file("2");
    scene.journal.fill(second, AppendFsync::EverySecond);
    scene.add(0, "b");
    scene.settle();
    scene.keep(true).unwrap();
    assert!(!scene.journal.has_synced(scene.recorder.position()));
    scene.journal.aof.trust();
    scene.keep(true).unwrap();
    assert!(scene.journal.has_synced(scene.recorder.position()));
    assert!(scene.journal.aof.error().is_none());
}

#[test]
fn without_syncs_a_switch_of_files_holds_nothing_up() {
    let scene = Scene::new(AppendFsync::Never);
    scene.journal.aof.complete(true);
    scene.add(0, "a");
    scene.settle();
    let second = scene.file("2");
    scene.journal.fill(second, AppendFsync::Never);
    scene.add(0, "b");
    scene.settle();
    assert_eq!(scene.text("2"), "*2 $6 SELECT $1 0 *1 $1 b ");
    // The old file is synced all the same.
    scene.keep(false).unwrap();
    assert!(scene.journal.has_synced(scene.recorder.position()));
}
