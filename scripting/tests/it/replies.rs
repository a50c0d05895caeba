//! Replies of commands as values of Lua, and values of Lua as replies, in both versions.

use proptest::prelude::*;
use shardis_protocol::{ReplyParser, Resp, Value, ValueLimits};

use super::world::World;

#[test]
fn replies_of_commands_become_values() {
    for (reply, resp, shown) in [
        (":5", 2, "number 5"),
        ("$3\r\nabc", 2, "string abc"),
        ("$-1", 2, "boolean false"),
        ("*-1", 2, "boolean false"),
        ("+OK", 2, "ok=OK"),
        ("*2\r\n:1\r\n$-1", 2, "1=1 2=false"),
        ("*0", 2, ""),
        ("_", 3, "nil nil"),
        ("#t", 3, "boolean true"),
        ("#f", 3, "boolean false"),
        (",1.5", 3, "double=1.5"),
        (",inf", 3, "double=inf"),
        ("(123", 3, "big_number=123"),
        ("=7\r\ntxt:abc", 3, "verbatim_string=table"),
        ("%1\r\n$1\r\na\r\n:1", 3, "map=table"),
        ("~1\r\n$1\r\na", 3, "set=table"),
        ("*3\r\n_\r\n:1\r\n_", 3, "2=1"),
        ("|1\r\n+k\r\n+v\r\n:7", 3, "number 7"),
        ("*1\r\n-ERR inner", 3, "1=table"),
        ("!5\r\nERR x", 3, "err=ERR x ignore_error_stats_update=true"),
    ] {
        let mut world = World::new();
        world.notes.reply = format!("{reply}\r\n").into_bytes();
        let script = format!(
            "redis.setresp({resp}) local r = redis.pcall('x')
             if type(r) ~= 'table' then return type(r) .. ' ' .. tostring(r) end
             local t = {{}} for k, v in pairs(r) do t[#t + 1] = k .. '=' .. (type(v) == 'table' and 'table' or tostring(v)) end
             table.sort(t) return table.concat(t, ' ')"
        );
        assert_eq!(
            world.eval(&script),
            format!("${}\\r\\n{shown}\\r\\n", shown.len()),
            "{reply:?}"
        );
    }
}

#[test]
fn nested_replies_keep_their_shape() {
    let mut world = World::new();
    world.notes.reply = b"%2\r\n+a\r\n*2\r\n:1\r\n~1\r\n:2\r\n$1\r\nb\r\n,0.5\r\n".to_vec();
    let script = "redis.setresp(3) return redis.call('x')";
    let reply = world.eval_with(script, Resp::V3, &[], &[]);
    // A key that is a status is a table: none equals another, and it is encoded as it came.
    assert!(reply.starts_with("%2\\r\\n"), "{reply}");
    assert!(
        reply.contains("+a\\r\\n*2\\r\\n:1\\r\\n~1\\r\\n:2\\r\\n"),
        "{reply}"
    );
    assert!(reply.contains("$1\\r\\nb\\r\\n,0.5\\r\\n"), "{reply}");
}

#[test]
fn plain_replies_of_any_size_and_depth_come_back_as_they_were() {
    let mut replies = vec![
        [b"$100000\r\n".to_vec(), vec![b'x'; 100_000], b"\r\n".to_vec()].concat(),
        [b"*20000\r\n".to_vec(), b"$3\r\nabc\r\n:-7\r\n".repeat(10_000)].concat(),
        b"*3\r\n*0\r\n*1\r\n*0\r\n$0\r\n\r\n".to_vec(),
        b"*2\r\n+a status\r\n$-1\r\n".to_vec(),
    ];
    for depth in 1..20 {
        let inner = b"*3\r\n:1\r\n$2\r\n\xff\0\r\n".repeat(depth);
        replies.push([inner, b"$-1\r\n".to_vec()].concat());
    }
    for elements in 249..253 {
        let header = format!("*{elements}\r\n").into_bytes();
        replies.push([header, b"$1\r\na\r\n".repeat(elements)].concat());
    }
    for bytes in 4095..4098 {
        let header = format!("*2\r\n:1\r\n${bytes}\r\n").into_bytes();
        replies.push([header, vec![b'x'; bytes], b"\r\n".to_vec()].concat());
    }
    let mut world = World::new();
    for reply in replies {
        world.notes.reply.clone_from(&reply);
        let shown = reply.escape_ascii().to_string();
        for script in ["return redis.call('x')", "return redis.pcall('x', 1)"] {
            assert!(
                world.eval(script) == shown,
                "{}...",
                &shown[..shown.len().min(100)]
            );
        }
    }
}

#[test]
fn deep_and_huge_replies_of_commands_are_errors() {
    let mut world = World::new();
    world.notes.reply = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
    assert!(
        world
            .eval("return redis.call('x')")
            .starts_with("-ERR reached lua stack limit")
    );
    world.notes.reply = [b"*1\r\n".repeat(900), b":1\r\n".to_vec()].concat();
    assert_eq!(
        world.eval("return redis.call('x')"),
        ["*1\\r\\n".repeat(900).as_str(), ":1\\r\\n"].concat()
    );
}

#[test]
fn values_become_replies_in_both_versions() {
    for (value, v2, v3) in [
        ("1", ":1\\r\\n", ":1\\r\\n"),
        ("nil", "$-1\\r\\n", "_\\r\\n"),
        ("true", ":1\\r\\n", ":1\\r\\n"),
        ("{double = 1.5}", "$3\\r\\n1.5\\r\\n", ",1.5\\r\\n"),
        (
            "{map = {a = 1}}",
            "*2\\r\\n$1\\r\\na\\r\\n:1\\r\\n",
            "%1\\r\\n$1\\r\\na\\r\\n:1\\r\\n",
        ),
        (
            "{set = {a = true}}",
            "*1\\r\\n$1\\r\\na\\r\\n",
            "~1\\r\\n$1\\r\\na\\r\\n",
        ),
        ("{map = {}}", "*0\\r\\n", "%0\\r\\n"),
        ("{big_number = '12'}", "$2\\r\\n12\\r\\n", "(12\\r\\n"),
        (
            "{verbatim_string = {format = 'txt', string = 'a'}}",
            "$1\\r\\na\\r\\n",
            "=5\\r\\ntxt:a\\r\\n",
        ),
        (
            "{1, {2, {}}, 'x'}",
            "*3\\r\\n:1\\r\\n*2\\r\\n:2\\r\\n*0\\r\\n$1\\r\\nx\\r\\n",
            "*3\\r\\n:1\\r\\n*2\\r\\n:2\\r\\n*0\\r\\n$1\\r\\nx\\r\\n",
        ),
    ] {
        let mut world = World::new();
        let script = format!("return {value}");
        assert_eq!(world.eval_with(&script, Resp::V2, &[], &[]), v2, "{value}");
        assert_eq!(world.eval_with(&script, Resp::V3, &[], &[]), v3, "{value}");
    }
    let mut world = World::new();
    assert_eq!(
        world.eval_with("redis.setresp(3) return true", Resp::V3, &[], &[]),
        "#t\\r\\n"
    );
    assert_eq!(
        world.eval_with("redis.setresp(3) return false", Resp::V2, &[], &[]),
        ":0\\r\\n"
    );
}

/// Values that JSON and MessagePack keep: no null, no empty table.
fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (-1_000_000_000_i64..1_000_000_000).prop_map(Value::Integer),
        "[ -~äé\\n\\t\"/\\\\]{0,12}".prop_map(|text| Value::Bulk(text.into_bytes())),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop::collection::vec(inner, 1..6).prop_map(Value::Array)
    })
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Integer(integer) => out.extend_from_slice(format!(":{integer}\r\n").as_bytes()),
        Value::Bulk(bytes) => {
            out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Value::Array(items) => {
            out.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
            items.iter().for_each(|item| encode(item, out));
        }
        other => panic!("{other:?} is no value of the strategy"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn values_survive_every_way_through_a_script(value in tree()) {
        let mut world = World::new();
        encode(&value, &mut world.notes.reply);
        let sent = world.notes.reply.clone();
        for script in [
            "return redis.call('x')",
            "return cjson.decode(cjson.encode(redis.call('x')))",
            "return cmsgpack.unpack(cmsgpack.pack(redis.call('x')))",
            "return cjson.decode(cjson.encode(cmsgpack.unpack(cmsgpack.pack({redis.call('x')}))))[1]",
        ] {
            let reply = world.eval_bytes(script.as_bytes(), Resp::V2, &[], &[]);
            prop_assert_eq!(reply.escape_ascii().to_string(), sent.escape_ascii().to_string(), "{}", script);
        }
    }

    #[test]
    fn decoders_survive_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new();
        for script in [
            "return {pcall(cjson.decode, ARGV[1])}",
            "return {pcall(cmsgpack.unpack, ARGV[1])}",
            "return {pcall(struct.unpack, ARGV[1], ARGV[1])}",
            "return {pcall(struct.pack, ARGV[1], 1, 2, 'x')}",
            "return {pcall(string.find, ARGV[1], ARGV[1])}",
            "return {pcall(string.gsub, ARGV[1], ARGV[1], ARGV[1])}",
            "return {pcall(loadstring, ARGV[1])}",
            "return {pcall(string.format, ARGV[1], 1, 2, 'x')}",
        ] {
            let reply = world.eval_bytes(script.as_bytes(), Resp::V2, &[], &[&bytes]);
            let parsed = ReplyParser::new(ValueLimits::default()).parse(&reply);
            prop_assert!(matches!(parsed, Ok(Some((_, len))) if len == reply.len()), "{}: {}", script, reply.escape_ascii());
        }
    }

    #[test]
    fn the_parser_survives_any_source(source in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new();
        world.notes.stop_at = Some((50, shardis_scripting::Stop::Killed));
        let reply = world.eval_bytes(&source, Resp::V2, &[], &[]);
        prop_assert!(!reply.is_empty());
    }
}
