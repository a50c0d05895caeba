//! Tests of trackers and the messages to them, without loops.

use super::*;
use crate::limits::INVALIDATIONS_UNDER_WAY_BYTES;

const LOOPS: usize = 3;

/// A client with this number, on a loop of the same number but for the loops that there are.
fn seat(number: u32) -> Seat {
    Seat::new(number as usize % LOOPS, number as usize, u64::from(number))
}

fn wish(modes: TrackingModes) -> Wish<'static> {
    Wish {
        modes,
        redirect: None,
        prefixes: &[],
    }
}

fn join(tracking: &Tracking, number: u32, modes: TrackingModes) {
    tracking.join(seat(number), None, &wish(modes)).unwrap();
}

/// The messages that wait for all loops: trackers, with what each is told.
fn mail(tracking: &Tracking) -> Vec<(u32, Route, String)> {
    let mut told = Vec::new();
    for of_loop in 0..LOOPS {
        for notice in tracking.mailbox(of_loop).take().notices {
            for receiver in notice.receivers {
                assert_eq!(receiver.subscriber.connection as usize % LOOPS, of_loop);
                let text = match &notice.content {
                    Content::Key { array, .. } => array.escape_ascii().to_string(),
                    Content::Keys(changes) => changes.array().escape_ascii().to_string(),
                    Content::All { .. } => "all".to_owned(),
                };
                told.push((receiver.tracker, receiver.route, text.replace("\\r\\n", " ")));
            }
        }
        assert!(!tracking.mailbox(of_loop).has_mail());
    }
    told
}

#[test]
fn readers_are_told_once() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    join(&tracking, 4, TrackingModes::default());
    join(&tracking, 5, TrackingModes::NOLOOP);
    join(&tracking, 6, TrackingModes::default());
    assert!(!partition.concern_somebody());
    for reader in [4, 5, 6, 6, 7] {
        partition.remember(b"k", reader);
    }
    let figures = tracking.figures();
    assert_eq!((figures.clients, figures.keys, figures.items), (3, 1, 4));
    partition.changed(b"other", 5);
    assert!(!partition.are_raised());
    partition.changed(b"k", 5);
    partition.changed(b"k", 5);
    assert!(
        mail(&tracking).is_empty(),
        "nothing is told before the partition is let go of"
    );
    partition.hand_out();
    let told = "*1 $1 k ";
    let mut mail_of_k = mail(&tracking);
    mail_of_k.sort_by_key(|(tracker, ..)| *tracker);
    assert_eq!(
        mail_of_k,
        [(4, Route::Own, told.to_owned()), (6, Route::Own, told.to_owned())]
    );
    assert_eq!((tracking.figures().keys, tracking.figures().items), (0, 0));
    partition.hand_out();
    assert!(mail(&tracking).is_empty());
}

#[test]
fn who_has_left_or_broadcasts_is_not_told_of_reads() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    join(&tracking, 1, TrackingModes::default());
    join(&tracking, 2, TrackingModes::default());
    partition.remember(b"k", 1);
    partition.remember(b"k", 2);
    tracking.leave(seat(1));
    tracking.leave(seat(2));
    let wish = Wish {
        prefixes: &[b"x"],
        ..wish(TrackingModes::BCAST)
    };
    tracking.join(seat(2), None, &wish).unwrap();
    partition.changed(b"k", 0);
    partition.hand_out();
    assert!(mail(&tracking).is_empty());
}

#[test]
fn new_prefixes_count_from_the_next_change_on() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    let wish = |prefixes| Wish {
        prefixes,
        ..wish(TrackingModes::BCAST)
    };
    partition.changed(b"ab", 0);
    let state = tracking.join(seat(1), None, &wish(&[b"a"])).unwrap();
    partition.changed(b"ac", 0);
    tracking.join(seat(1), Some(state), &wish(&[b"b"])).unwrap();
    partition.changed(b"ad", 0);
    partition.changed(b"bb", 0);
    tracking.leave(seat(1));
    assert!(!partition.concern_somebody());
    partition.changed(b"bc", 0);
    partition.hand_out();
    let told: Vec<String> = mail(&tracking).into_iter().map(|(.., text)| text).collect();
    assert_eq!(told, ["*1 $2 ac ", "*1 $2 ad ", "*1 $2 bb "]);
}

#[test]
fn messages_go_to_the_client_that_was_named() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    let redirect = Redirect {
        client: 8,
        seat: seat(8),
    };
    let wish = Wish {
        redirect: Some(redirect),
        ..wish(TrackingModes::default())
    };
    let state = tracking.join(seat(1), None, &wish).unwrap();
    partition.remember(b"k", 1);
    partition.changed(b"k", 1);
    partition.hand_out();
    assert_eq!(mail(&tracking), [(1, Route::Redirected, "*1 $1 k ".to_owned())]);
    tracking.lost_target(1);
    assert!(state.is_broken());
    assert_eq!(mail(&tracking), [(1, Route::Broken, "all".to_owned())]);
    partition.remember(b"k", 1);
    partition.changed(b"k", 1);
    partition.hand_out();
    assert_eq!(mail(&tracking)[0].1, Route::Broken);
}

#[test]
fn the_table_is_bounded() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    join(&tracking, 1, TrackingModes::default());
    tracking.bound_keys(10);
    for number in 0..100_u8 {
        partition.remember(&[number], 1);
        assert!(tracking.figures().keys <= 10);
    }
    partition.hand_out();
    assert_eq!(mail(&tracking).len(), 90);
    tracking.bound_keys(3);
    partition.drop_excess();
    partition.hand_out();
    assert_eq!((tracking.figures().keys, mail(&tracking).len()), (3, 7));
    partition.all_changed(0);
    partition.hand_out();
    assert_eq!((tracking.figures().keys, tracking.figures().items), (0, 0));
    assert_eq!(mail(&tracking), [(1, Route::Own, "all".to_owned())]);
}

#[test]
fn partitions_that_drop_keys_together_drop_only_the_excess() {
    for _ in 0..200 {
        let tracking = Arc::new(Tracking::new(LOOPS));
        join(&tracking, 1, TrackingModes::default());
        let mut partitions: Vec<_> = (0..LOOPS)
            .map(|_| Invalidations::new(Arc::clone(&tracking)))
            .collect();
        for partition in &mut partitions {
            for number in 0..100_u8 {
                partition.remember(&[number], 1);
            }
        }
        tracking.bound_keys(7);
        let start = std::sync::Barrier::new(LOOPS);
        std::thread::scope(|scope| {
            for partition in &mut partitions {
                scope.spawn(|| {
                    start.wait();
                    partition.drop_excess();
                    partition.hand_out();
                });
            }
        });
        assert_eq!((tracking.figures().keys, mail(&tracking).len()), (7, 293));
    }
}

#[test]
fn a_mailbox_is_bounded() {
    let tracking = Arc::new(Tracking::new(LOOPS));
    let mut partition = Invalidations::new(Arc::clone(&tracking));
    join(&tracking, 1, TrackingModes::default());
    let key = vec![b'k'; INVALIDATIONS_UNDER_WAY_BYTES / 4];
    for _ in 0..6 {
        partition.remember(&key, 1);
        partition.changed(&key, 0);
        partition.hand_out();
    }
    let mail = tracking.mailbox(1).take();
    assert!(mail.has_lost);
    assert_eq!(mail.notices.len(), 4);
    assert_eq!(tracking.receivers_on(1).len(), 1);
}
