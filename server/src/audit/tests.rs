//! Tests of the audit log without a node.

use std::path::Path;

use super::*;
use crate::log::Level;

fn audit() -> Audit {
    let audit = Audit::default();
    audit.connect(|writer| Ok(std::thread::spawn(move || writer.run())));
    audit
}

fn settings(file: &Path, is_strict: bool) -> Settings {
    Settings {
        audit_log: file.display().to_string(),
        audit_strict: is_strict,
        ..Settings::default()
    }
}

fn entry(event: &'static str) -> Entry {
    Entry {
        time_us: 0,
        event,
        outcome: Outcome::Done,
        reason: None,
        object: None,
        actor: None,
        command: Vec::new(),
    }
}

fn log() -> Arc<Log> {
    Arc::new(Log::new(Level::Nothing))
}

/// Waits until something is so, which it will be soon.
fn wait_until(is_so: impl Fn() -> bool) {
    let looks = (0..20_000).find(|_| {
        std::thread::sleep(Duration::from_millis(1));
        is_so()
    });
    assert!(looks.is_some(), "it never was so");
}

fn events(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| {
            let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
            parsed["event"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn what_is_chosen_is_written_and_an_event_under_way_goes_where_it_began() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let (audit, log) = (audit(), log());
    assert!(audit.begin(AuditEvents::USERS).unwrap().is_none());
    let chosen = Settings {
        audit_events: AuditEvents::USERS,
        ..settings(&first, false)
    };
    audit.configure(&chosen, &log).unwrap();
    assert!(!audit.records(AuditEvents::CONFIG) && audit.records(AuditEvents::CONFIG | AuditEvents::USERS));
    let room = audit.begin(AuditEvents::USERS).unwrap().unwrap();
    audit.configure(&settings(&second, false), &log).unwrap();
    room.fill(entry("users"));
    audit.record(AuditEvents::CONFIG, || entry("config"));
    audit.configure(&Settings::default(), &log).unwrap();
    audit.record(AuditEvents::CONFIG, || unreachable!("nothing is recorded"));
    audit.stop(&log);
    assert_eq!(
        (events(&first), events(&second)),
        (vec!["users".to_owned()], vec!["config".to_owned()])
    );
    assert_eq!(
        (audit.waiting(), audit.figures().written.load(Ordering::Relaxed)),
        (0, 2)
    );
}

#[test]
fn a_file_that_cannot_be_opened_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, log) = (audit(), log());
    audit.configure(&settings(&file, false), &log).unwrap();
    assert!(
        audit
            .configure(&settings(&directory.path().join("none/audit"), false), &log)
            .is_err()
    );
    audit.record(AuditEvents::CONFIG, || entry("config"));
    audit.stop(&log);
    assert_eq!(events(&file), ["config"]);
}

/// Has a writer that does not begin before it is told to.
fn held_up(file: &Path, is_strict: bool) -> (Audit, Sender<()>) {
    let audit = Audit::default();
    let (go, wait) = unbounded();
    audit.connect(move |writer| {
        let wait = wait.clone();
        Ok(std::thread::spawn(move || {
            let _ = wait.recv();
            writer.run();
        }))
    });
    audit.configure(&settings(file, is_strict), &log()).unwrap();
    (audit, go)
}

#[test]
fn what_finds_no_room_is_dropped_and_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, go) = held_up(&file, false);
    for _ in 0..AUDIT_ENTRIES_MAX + 5 {
        audit
            .begin(AuditEvents::DENIED)
            .unwrap()
            .unwrap()
            .fill(entry("denied"));
    }
    assert_eq!(audit.waiting(), AUDIT_ENTRIES_MAX);
    assert_eq!(audit.figures().dropped.load(Ordering::Relaxed), 5);
    drop(go);
    wait_until(|| audit.waiting() == 0);
    audit.stop(&log());
    let events = events(&file);
    assert_eq!((events[0].as_str(), events.len()), ("gap", AUDIT_ENTRIES_MAX + 1));
}

#[test]
fn a_strict_log_refuses_what_finds_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("audit");
    let (audit, go) = held_up(&file, true);
    let rooms: Vec<_> = (0..AUDIT_ENTRIES_MAX)
        .map(|_| audit.begin(AuditEvents::USERS).unwrap().unwrap())
        .collect();
    assert_eq!(audit.begin(AuditEvents::USERS).unwrap_err(), Unrecordable);
    assert_eq!(audit.figures().refused.load(Ordering::Relaxed), 1);
    // Events that did not happen give their room back.
    drop(rooms);
    assert_eq!(audit.waiting(), 0);
    assert!(audit.begin(AuditEvents::USERS).is_ok());
    drop(go);
    audit.stop(&log());
}

#[test]
fn a_strict_log_keeps_its_lines_until_they_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("place");
    std::fs::create_dir(&place).unwrap();
    let file = place.join("audit");
    let (audit, log) = (audit(), log());
    audit.configure(&settings(&file, true), &log).unwrap();
    std::fs::remove_dir_all(&place).unwrap();
    audit.record(AuditEvents::USERS, || entry("users"));
    wait_until(|| audit.is_failing());
    assert_eq!(audit.begin(AuditEvents::USERS).unwrap_err(), Unrecordable);
    std::fs::create_dir(&place).unwrap();
    wait_until(|| audit.waiting() == 0);
    assert!(!audit.is_failing() && audit.begin(AuditEvents::USERS).is_ok());
    audit.stop(&log);
    assert_eq!(events(&file), ["users"]);
}
