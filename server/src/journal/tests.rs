//! Units enter the journal whole, in order, and reach a listener whole or not at all.

use crossbeam_channel::{Receiver, bounded};

use super::*;

fn add(recorder: &Recorder, words: &[&str]) {
    let unit = recorder.unit();
    for word in words {
        unit.add(0, std::iter::once(word.as_bytes()));
    }
}

fn names(effects: &Receiver<Effect>) -> Vec<String> {
    effects
        .try_iter()
        .map(|effect| String::from_utf8(effect.words.concat()).unwrap())
        .collect()
}

fn with_bound(bound: usize, slow: SlowListener) -> (Arc<Journal>, Recorder, Receiver<Effect>) {
    let (sender, receiver) = bounded(bound);
    let state = FeedState::new(slow, Arc::default());
    let journal = Arc::new(Journal::new(Arc::new(Clock::manual(Duration::ZERO))));
    journal.listen(sender, Arc::new(state));
    let recorder = Recorder::new(Arc::clone(&journal));
    (journal, recorder, receiver)
}

fn dropped(journal: &Journal) -> u64 {
    journal.stream.lock().listener.as_ref().unwrap().dropped()
}

/// Bytes of a SELECT of a database with one digit.
const SELECT: u64 = 23;

#[test]
fn units_are_whole_whoever_appends_meanwhile() {
    let (journal, receiver) = Journal::unbounded();
    let journal = Arc::new(journal);
    let recorders = [(); 2].map(|()| Recorder::new(Arc::clone(&journal)));
    let unit = recorders[0].unit();
    add(&recorders[0], &["a"]);
    add(&recorders[1], &["x"]);
    assert!(recorders[1].hand_over());
    let first = recorders[1].position();
    add(&recorders[0], &["b", "c"]);
    drop(unit);
    add(&recorders[0], &["d"]);
    add(&recorders[0], &[]);
    assert_eq!(recorders[0].recorded(), 2);
    assert!(recorders[0].hand_over() && !recorders[0].hand_over());
    assert!(recorders[0].position() > first);
    assert_eq!(names(&receiver), ["x", "MULTI", "a", "b", "c", "EXEC", "d"]);
    assert_eq!(journal.broken_from(), None);
}

#[test]
fn positions_count_what_replicas_would_read() {
    let (journal, _receiver) = Journal::unbounded();
    let recorder = Recorder::new(Arc::new(journal));
    add(&recorder, &["a"]);
    recorder.hand_over();
    assert_eq!(recorder.position(), Position(SELECT + 11));
    add(&recorder, &["b", "c"]);
    recorder.hand_over();
    assert_eq!(recorder.position(), Position(SELECT + 11 + 15 + 11 + 11 + 14));
    let before = recorder.position();
    let unit = recorder.unit();
    unit.add(1, std::iter::once(b"d".as_slice()));
    unit.add(0, std::iter::once(b"e".as_slice()));
    drop(unit);
    add(&recorder, &["f"]);
    recorder.hand_over();
    assert_eq!(
        recorder.position().0 - before.0,
        SELECT + 15 + 11 + SELECT + 11 + 14 + 11
    );
}

#[test]
fn history_breaks_where_the_torn_unit_begins() {
    let (journal, receiver) = Journal::unbounded();
    let journal = Arc::new(journal);
    let recorder = Recorder::new(Arc::clone(&journal));
    add(&recorder, &["a"]);
    let unit = recorder.unit();
    recorder.unit().tear();
    drop(unit);
    add(&recorder, &["b"]);
    recorder.hand_over();
    assert_eq!(journal.broken_from(), Some(Position(SELECT + 11)));
    assert_eq!(names(&receiver), ["a", "b"]);
}

#[test]
fn what_finds_no_room_is_dropped_whole() {
    let (journal, recorder, receiver) = with_bound(4, SlowListener::Drop);
    add(&recorder, &["a"]);
    recorder.hand_over();
    add(&recorder, &["b", "c"]);
    add(&recorder, &["d"]);
    recorder.hand_over();
    assert!(journal.has_reached(recorder.position()));
    assert_eq!(names(&receiver), ["a", "d"]);
    assert_eq!(journal.broken_from(), Some(Position(SELECT + 11)));
    assert_eq!(dropped(&journal), 4);
}

#[test]
fn a_unit_that_is_larger_than_the_channel_arrives_whole() {
    let (journal, recorder, receiver) = with_bound(2, SlowListener::Drop);
    add(&recorder, &["a", "b", "c"]);
    recorder.hand_over();
    // Nothing comes between, and nothing waits where it is to be dropped.
    add(&recorder, &["x"]);
    recorder.hand_over();
    assert!(journal.has_reached(recorder.position()));
    let thread = serve(&journal);
    let seen: Vec<Vec<u8>> = receiver
        .iter()
        .take(5)
        .map(|effect| effect.words.concat())
        .collect();
    assert_eq!(
        seen,
        ["MULTI", "a", "b", "c", "EXEC"].map(|word| word.as_bytes().to_vec())
    );
    end(&journal, thread);
}

#[test]
fn replies_wait_until_the_listener_has_what_they_tell_of() {
    let (journal, recorder, receiver) = with_bound(1, SlowListener::Wait(Duration::from_secs(3600)));
    let thread = serve(&journal);
    add(&recorder, &["a"]);
    recorder.hand_over();
    let first = recorder.position();
    assert!(journal.has_reached(first));
    add(&recorder, &["b"]);
    recorder.hand_over();
    let second = recorder.position();
    assert!(!journal.has_reached(second));
    assert_eq!(receiver.recv().unwrap().words, [b"a".to_vec()]);
    assert_eq!(receiver.recv().unwrap().words, [b"b".to_vec()]);
    while !journal.has_reached(second) {
        std::thread::yield_now();
    }
    assert_eq!(journal.broken_from(), None);
    end(&journal, thread);
}

#[test]
fn a_listener_that_takes_nothing_is_given_up_for_once() {
    let (journal, recorder, receiver) = with_bound(1, SlowListener::Wait(Duration::from_millis(20)));
    let thread = serve(&journal);
    for word in ["a", "b", "c"] {
        add(&recorder, &[word]);
        recorder.hand_over();
    }
    let end_of_all = recorder.position();
    while !journal.has_reached(end_of_all) {
        std::thread::yield_now();
    }
    assert_eq!(journal.broken_from(), Some(Position(SELECT + 11)));
    // It does not wait again.
    add(&recorder, &["d"]);
    recorder.hand_over();
    assert!(journal.has_reached(recorder.position()));
    assert_eq!(names(&receiver), ["a"]);
    add(&recorder, &["e"]);
    recorder.hand_over();
    assert_eq!(names(&receiver), ["e"]);
    assert_eq!(dropped(&journal), 3);
    end(&journal, thread);
}

fn serve(journal: &Arc<Journal>) -> std::thread::JoinHandle<()> {
    let journal = Arc::clone(journal);
    std::thread::spawn(move || journal.serve_listener(|| {}))
}

fn end(journal: &Journal, thread: std::thread::JoinHandle<()>) {
    journal.stream.lock().listener.as_ref().unwrap().end();
    journal.stop_listening();
    thread.join().unwrap();
}

#[test]
fn a_backlog_that_lacks_changes_is_known() {
    let journal = Arc::new(Journal::new(Arc::new(Clock::manual(Duration::ZERO))));
    let bounds = BacklogBounds::new(&crate::config::Settings::default());
    journal.open_backlog(bounds);
    let recorder = Recorder::new(Arc::clone(&journal));
    add(&recorder, &["a"]);
    recorder.hand_over();
    assert!(!journal.has_broken_backlog());
    let unit = recorder.unit();
    unit.tear();
    drop(unit);
    recorder.hand_over();
    assert!(journal.has_broken_backlog());
    journal.close_backlog();
    journal.open_backlog(bounds);
    assert!(!journal.has_broken_backlog(), "what follows a new cut is whole");
}
