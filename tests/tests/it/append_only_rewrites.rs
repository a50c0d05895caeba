//! Rewrites of the append-only file, and switching it on and off.

use std::fs;
use std::path::Path;

use shardis_tests::client::{Client, words};
use shardis_tests::info::{field, figure};
use shardis_tests::process::Process;
use shardis_tests::wait::wait_until;
use tempfile::TempDir;

use super::append_only::{compare_with_others, directory, kill, launch, launch_real};
use super::dump_restore::fill;

/// A server of two shards with these options, which appends to files in a directory.
fn serve(place: &TempDir, options: &[&str]) -> Process {
    launch(2, place.path(), "everysec").with(options).serve()
}

fn await_rewrite(client: &mut Client) {
    wait_until("the rewrite has ended", || {
        figure(client, "aof_rewrite_in_progress") == 0 && figure(client, "aof_rewrite_scheduled") == 0
    });
    assert_eq!(field(client, "aof_last_bgrewrite_status"), "ok");
}

fn rewrite(client: &mut Client) {
    let reply = client.line("BGREWRITEAOF").text();
    assert_eq!(reply, "Background append only file rewriting started");
    await_rewrite(client);
}

/// The names of the files, in order.
fn files(directory: &Path) -> Vec<String> {
    let found = fs::read_dir(directory.join("appendonlydir")).expect("a directory");
    let mut names: Vec<_> = found
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    names
}

fn manifest(directory: &Path) -> String {
    fs::read_to_string(directory.join("appendonlydir/appendonly.aof.manifest")).expect("a manifest")
}

#[test]
fn a_rewrite_replaces_the_files() {
    for (shards, preamble, suffix) in [(1, "yes", "rdb"), (4, "yes", "rdb"), (4, "no", "aof")] {
        let place = directory();
        let server = launch(shards, place.path(), "everysec")
            .with(&["--aof-use-rdb-preamble", preamble])
            .serve();
        let mut client = server.connect();
        fill(&mut client);
        client.line("SELECT 5");
        client.line("SET elsewhere v");
        rewrite(&mut client);
        let base = format!("appendonly.aof.2.base.{suffix}");
        assert_eq!(
            files(place.path()),
            [
                base.as_str(),
                "appendonly.aof.2.incr.aof",
                "appendonly.aof.manifest"
            ]
        );
        assert_eq!(
            manifest(place.path()),
            format!("file {base} seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n")
        );
        assert_eq!(figure(&mut client, "aof_rewrites"), 1);
        client.line("SET after v");
        let size = fs::metadata(place.path().join("appendonlydir").join(&base))
            .expect("a base")
            .len();
        assert_eq!(figure(&mut client, "aof_base_size"), size);
        compare_with_others(server, place.path());
    }
}

/// A pair of counters in two shards, moved together under load: whatever is loaded, they are equal, and nothing acknowledged is
/// missing, although files are switched all the time.
#[test]
fn rewrites_under_load_lose_nothing_and_cut_nothing_in_half() {
    for policy in ["everysec", "always"] {
        let place = directory();
        let server = launch(4, place.path(), policy).serve();
        let mut client = server.connect();
        let filler: Vec<_> = (0..20_000)
            .map(|number| words(&["SET", &format!("key:{number}"), "v"]))
            .collect();
        client.pipeline(&filler);
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let mut client = server.connect();
                std::thread::spawn(move || {
                    let mut done = 0_i64;
                    for _ in 0..1500 {
                        for line in [
                            "MULTI",
                            &format!("INCR one:{writer}"),
                            &format!("INCR other:{{x}}:{writer}"),
                            "EXEC",
                        ] {
                            client.line(line);
                        }
                        client.line(&format!("RPUSH list:{writer} {done}"));
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            client.line("BGREWRITEAOF");
            await_rewrite(&mut client);
        }
        assert!(figure(&mut client, "aof_rewrites") > 1);
        for (number, writer) in writers.into_iter().enumerate() {
            let done = writer.join().expect("a writer");
            assert_eq!(client.line(&format!("GET one:{number}")).text(), done.to_string());
            assert_eq!(client.line(&format!("LLEN list:{number}")).integer(), Some(done));
        }
        compare_with_others(server, place.path());
    }
}

#[test]
fn it_is_switched_on_and_off_while_clients_write() {
    let place = directory();
    let server = launch(4, place.path(), "everysec")
        .with(&["--appendonly", "no"])
        .serve();
    let mut client = server.connect();
    fill(&mut client);
    for round in 0..3 {
        assert_eq!(client.line("CONFIG SET appendonly yes").text(), "OK");
        assert_eq!(field(&mut client, "aof_enabled"), "1");
        let more: Vec<_> = (0..2000)
            .map(|number| words(&["INCR", &format!("n:{}", number % 50)]))
            .collect();
        client.pipeline(&more);
        await_rewrite(&mut client);
        client.line(&format!("RPUSH rounds {round}"));
        if round < 2 {
            assert_eq!(client.line("CONFIG SET appendonly no").text(), "OK");
            assert_eq!(field(&mut client, "aof_enabled"), "0");
            client.pipeline(&more);
        }
    }
    compare_with_others(server, place.path());
}

/// A file of a real server is taken over, and goes back to it.
#[test]
fn files_go_from_a_real_server_and_back() {
    let place = directory();
    let real = launch_real(place.path()).serve();
    let mut client = real.connect();
    fill(&mut client);
    client.line("BGREWRITEAOF");
    await_rewrite(&mut client);
    client.line("SET later v");
    kill(real);
    let server = serve(&place, &[]);
    let mut client = server.connect();
    assert_eq!(client.line("GET later").text(), "v");
    client.line("SELECT 3");
    client.line("SET ours v");
    compare_with_others(server, place.path());
}

#[test]
fn growth_causes_a_rewrite() {
    let place = directory();
    let server = serve(
        &place,
        &[
            "--auto-aof-rewrite-min-size",
            "100kb",
            "--auto-aof-rewrite-percentage",
            "100",
        ],
    );
    let mut client = server.connect();
    let same: Vec<_> = (0..10_000)
        .map(|_| words(&["SET", "key", "a value of some length"]))
        .collect();
    client.pipeline(&same);
    wait_until("it was rewritten", || figure(&mut client, "aof_rewrites") > 0);
    await_rewrite(&mut client);
    assert!(server.log().contains("Starting automatic rewriting of AOF on"));
    assert!(figure(&mut client, "aof_current_size") < 10_000);
}

#[test]
fn a_snapshot_file_becomes_the_first_base() {
    let place = directory();
    let server = serve(&place, &["--appendonly", "no"]);
    let mut client = server.connect();
    fill(&mut client);
    assert_eq!(client.line("SAVE").text(), "OK");
    kill(server);
    let server = launch(4, place.path(), "everysec").serve();
    let mut client = server.connect();
    client.line("SET later v");
    assert_eq!(
        manifest(place.path()),
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    );
    // A later save leaves the base alone.
    client.line("FLUSHALL");
    client.line("SET only v");
    assert_eq!(client.line("SAVE").text(), "OK");
    compare_with_others(server, place.path());
}

#[test]
fn rewrites_are_refused_or_scheduled_as_by_redis() {
    let place = directory();
    let server = serve(&place, &["--rdb-key-save-delay", "5000"]);
    let mut client = server.connect();
    let filler: Vec<_> = (0..500)
        .map(|number| words(&["SET", &format!("key:{number}"), "v"]))
        .collect();
    client.pipeline(&filler);
    assert_eq!(client.line("BGSAVE").text(), "Background saving started");
    assert_eq!(
        client.line("BGREWRITEAOF").text(),
        "Background append only file rewriting scheduled"
    );
    assert_eq!(figure(&mut client, "aof_rewrite_scheduled"), 1);
    wait_until("the rewrite has begun", || {
        figure(&mut client, "aof_rewrite_in_progress") == 1
    });
    assert_eq!(
        client.line("BGREWRITEAOF").text(),
        "ERR Background append only file rewriting already in progress"
    );
    assert!(client.line("BGSAVE").text().contains("Use BGSAVE SCHEDULE"));
    client.line("CONFIG SET rdb-key-save-delay 0");
    await_rewrite(&mut client);
}

/// Neither the old files nor the new base hold what is written while the base is: the next increment does.
#[test]
fn writes_during_a_rewrite_survive_a_kill() {
    let place = directory();
    let server = serve(&place, &["--rdb-key-save-delay", "100000"]);
    let mut client = server.connect();
    let filler: Vec<_> = (0..500)
        .map(|number| words(&["SET", &format!("key:{number}"), "v"]))
        .collect();
    client.pipeline(&filler);
    client.line("BGREWRITEAOF");
    let next = place.path().join("appendonlydir/appendonly.aof.2.incr.aof");
    let mut count = 0;
    wait_until("the next increment is written", || {
        count += 1;
        client.line("INCR count");
        fs::metadata(&next).is_ok_and(|found| found.len() > 0)
    });
    assert_eq!(figure(&mut client, "aof_rewrite_in_progress"), 1);
    assert_eq!(client.line("GET count").text(), count.to_string());
    compare_with_others(server, place.path());
}

/// Each state of the files that a crash may leave during a rewrite is loaded.
#[test]
fn a_crash_at_any_step_of_a_rewrite_leaves_files_that_load() {
    let place = directory();
    let server = serve(&place, &["--aof-disable-auto-gc", "yes"]);
    let mut client = server.connect();
    fill(&mut client);
    rewrite(&mut client);
    client.line("SET after v");
    kill(server);
    let dir = place.path().join("appendonlydir");
    let (base, incr) = (
        "file appendonly.aof.1.base.rdb seq 1 type b\n",
        "file appendonly.aof.1.incr.aof seq 1 type i\n",
    );
    let second = "file appendonly.aof.2.incr.aof seq 2 type i\n";
    let done = manifest(place.path());
    assert!(done.contains("type h"));
    for text in [format!("{base}{incr}{second}"), done] {
        // Names that nobody knows do no harm.
        fs::write(dir.join("temp-appendonly.aof.manifest"), "half of").expect("a file");
        fs::write(dir.join("appendonly.aof.9.base.rdb"), "half of").expect("a file");
        fs::write(dir.join("appendonly.aof.manifest"), &text).expect("a manifest");
        let server = serve(&place, &["--aof-disable-auto-gc", "yes"]);
        assert_eq!(server.connect().line("GET after").text(), "v");
        compare_with_others(server, place.path());
    }
}

#[test]
fn replaced_files_stay_where_that_is_asked_for() {
    let place = directory();
    let server = serve(&place, &["--aof-disable-auto-gc", "yes"]);
    let mut client = server.connect();
    client.line("SET a 1");
    rewrite(&mut client);
    assert_eq!(files(place.path()).len(), 5);
    client.line("CONFIG SET aof-disable-auto-gc no");
    rewrite(&mut client);
    assert_eq!(files(place.path()).len(), 3);
}
