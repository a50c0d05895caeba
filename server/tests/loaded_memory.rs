//! Memory of loaded data is booked to the partitions, and all of them together have what the allocator has counted. The test is
//! alone in its process, because that count is the process's.

use std::fs;

use redis::Connection;
use shardis::Server;
use shardis_storage::memory;

fn connect(server: &Server) -> Connection {
    let client = redis::Client::open(server.url()).expect("the URL is one that clients take");
    client.get_connection().expect("the server accepts connections")
}

#[test]
fn loaded_data_is_booked_where_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut records = vec![0xfe, 0x00];
    for number in 0..3000_u32 {
        records.extend([0x00, 0x08]);
        records.extend(format!("key:{number:04}").bytes());
        records.push(0x3f);
        records.extend([b'v'; 0x3f]);
        // A set of integers' texts, and an empty one that is left out.
        records.extend([0x02, 0x08]);
        records.extend(format!("set:{number:04}").bytes());
        records.extend(if number % 100 == 0 {
            &b"\x00"[..]
        } else {
            b"\x02\x01a\x03bcd"
        });
    }
    records.extend([0x00, 0x04]);
    records.extend(b"long\x80");
    records.extend(1_000_000_u32.to_be_bytes());
    records.extend(vec![b'x'; 1_000_000]);
    let path = directory.path().join("many.rdb");
    fs::write(
        &path,
        [b"REDIS0010", &records[..], b"\xff\0\0\0\0\0\0\0\0"].concat(),
    )
    .expect("a file");
    drop(records);
    let elsewhere = memory::process_balance();
    let server = Server::builder()
        .shards(4)
        .load(&path)
        .start()
        .expect("a good file");
    let mut connection = connect(&server);
    let mut booked = || -> Vec<i64> {
        let info: String = redis::cmd("INFO")
            .arg("shards")
            .query(&mut connection)
            .expect("INFO");
        let figures = info.lines().filter_map(|line| line.split("memory=").nth(1));
        let figures = figures.map(|rest| rest.split(',').next().unwrap_or_default());
        figures.map(|figure| figure.parse().expect("a number")).collect()
    };
    let full = booked();
    assert_eq!(full.len(), 4);
    assert!(full.iter().sum::<i64>() > 1_400_000, "{full:?}");
    assert_eq!(
        full.iter().sum::<i64>(),
        memory::process_balance() - elsewhere,
        "{full:?}"
    );
    let () = redis::cmd("FLUSHALL").query(&mut connect(&server)).expect("OK");
    let empty = booked();
    assert!(
        empty.iter().all(|&bytes| (0..20_000).contains(&bytes)),
        "{empty:?}"
    );
}
