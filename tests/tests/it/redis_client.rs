//! The `redis` crate, a client library that many programs use, against four shards.

use std::collections::HashSet;

use redis::{Commands as _, Connection, RedisResult};

use shardis_tests::node;
use shardis_tests::process::Process;

/// A connection as a program would open it.
fn connect(server: &Process, options: &str) -> Connection {
    let client =
        redis::Client::open(format!("redis://127.0.0.1:{}/{options}", server.port())).expect("a valid URL");
    client.get_connection().expect("a server that accepts")
}

/// Everything below, under one protocol.
fn use_it(options: &str) -> RedisResult<()> {
    let server = node::start(4);
    let mut connection = connect(&server, options);

    let _: () = connection.set("k", "v")?;
    assert_eq!(connection.get::<_, Option<String>>("k")?.as_deref(), Some("v"));
    assert_eq!(connection.get::<_, Option<String>>("missing")?, None);
    assert_eq!(connection.incr::<_, _, i64>("n", 5)?, 5);
    let _: () = connection.set_ex("fleeting", 1, 1000)?;
    assert!((990..=1000).contains(&connection.ttl::<_, i64>("fleeting")?));
    let _: () = connection.mset(&[("a", 1), ("b", 2), ("c", 3)])?;
    assert_eq!(
        connection.mget::<_, Vec<Option<i64>>>(&["a", "b", "missing", "c"])?,
        [Some(1), Some(2), None, Some(3)]
    );

    let (one, two, text): (i64, i64, String) = redis::pipe()
        .incr("a", 10)
        .incr("b", 10)
        .set("x", "y")
        .ignore()
        .get("x")
        .query(&mut connection)?;
    assert_eq!((one, two, text.as_str()), (11, 12, "y"));

    let (sum,): (i64,) = redis::transaction(&mut connection, &["a", "b"], |connection, pipe| {
        let a: i64 = connection.get("a")?;
        let b: i64 = connection.get("b")?;
        pipe.set("sum", a + b).ignore().get("sum").query(connection)
    })?;
    assert_eq!(sum, 23);

    for i in 0..500 {
        let _: () = connection.set(format!("scan:{i}"), i)?;
    }
    let found: HashSet<String> = connection.scan_match("scan:*")?.collect::<RedisResult<_>>()?;
    assert_eq!(found.len(), 500);

    let error = connection.incr::<_, _, i64>("k", 1).expect_err("not a number");
    assert_eq!(error.detail(), Some("value is not an integer or out of range"));
    assert_eq!(connection.del::<_, i64>(&["a", "b", "missing"])?, 2);
    Ok(())
}

#[test]
fn the_redis_crate_under_resp2() {
    use_it("").expect("no error");
}

#[test]
fn the_redis_crate_under_resp3() {
    use_it("?protocol=resp3").expect("no error");
}
