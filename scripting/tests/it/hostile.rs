//! Scripts that mean harm: the engine answers with an error, soon, and the next script runs as ever.

use shardis_scripting::{Outcome, Stop};

use super::world::{World, options};

/// Memory of the engines in these tests.
const MEMORY_BYTES: usize = 8 << 20;

fn small_world() -> World {
    let mut options = options();
    options.memory_bytes = MEMORY_BYTES;
    World::with(&options)
}

/// Checks that a script fails with a text, and that the engine is well afterwards.
fn fails(world: &mut World, script: &str, text: &str) {
    let reply = world.eval(script);
    assert!(
        reply.starts_with('-') && reply.contains(text),
        "{script}: {}",
        &reply[..reply.len().min(300)]
    );
    assert_eq!(
        world.eval("return 'well'"),
        "$4\\r\\nwell\\r\\n",
        "after {script}"
    );
}

/// Checks that a script is stopped at a pause, whatever it does about errors.
fn is_stopped(script: &str) {
    let mut world = small_world();
    world.notes.stop_at = Some((3, Stop::Killed));
    let reply = world.eval(script);
    assert!(
        reply.starts_with("-ERR Script killed by user with SCRIPT KILL."),
        "{script}: {reply}"
    );
    assert_eq!(world.notes.pauses, 3, "{script}: it went on after it was stopped");
    assert_eq!(world.outcome, Some(Outcome::Failed { is_counted: false }));
    world.notes.stop_at = None;
    assert_eq!(world.eval("return pcall(error)"), "$-1\\r\\n", "after {script}");
}

#[test]
fn a_panic_of_the_host_passes_the_script_and_leaves_the_engine_well() {
    let mut world = small_world();
    for script in [
        "return redis.call('x')",
        "return redis.pcall('x')",
        "return pcall(redis.call, 'x')",
        "return coroutine.wrap(function() return redis.call('x') end)()",
    ] {
        world.notes.panics = true;
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.eval(script)));
        let panic = run.expect_err(script);
        assert_eq!(
            panic.downcast_ref::<&str>(),
            Some(&"a host that panics"),
            "{script}"
        );
        world.notes.panics = false;
        assert_eq!(
            world.eval("return redis.call('x')"),
            "+OK\\r\\n",
            "after {script}"
        );
    }
}

#[test]
fn a_reply_beyond_the_memory_of_the_engine_is_an_error() {
    let mut world = small_world();
    let element = b"$10\r\n0123456789\r\n";
    let element_of = |number: usize| [b"$10\r\n", format!("{number:010}").as_bytes(), b"\r\n"].concat();
    let elements: Vec<u8> = (0..200_000).flat_map(element_of).collect();
    let reply = [b"*200001\r\n".to_vec(), elements, element.to_vec()].concat();
    for script in [
        "return #redis.call('x')",
        "return #redis.pcall('x')",
        "local function f() return #redis.call('x') end local ok, e = pcall(f) error(e)",
    ] {
        world.notes.reply.clone_from(&reply);
        let answer = world.eval(script);
        assert!(
            answer.starts_with('-') && answer.contains("not enough memory"),
            "{script}: {answer}"
        );
        world.notes.reply.clear();
        assert_eq!(
            world.eval("return redis.call('x')"),
            "+OK\\r\\n",
            "after {script}"
        );
    }
}

#[test]
fn words_beyond_the_memory_of_the_engine_are_an_error() {
    let mut world = small_world();
    let script = "local s = string.rep('x', 1000000) return redis.call('x', s, s, s, s, s, s, s, s, s)";
    fails(&mut world, script, "not enough memory");
    assert_eq!(world.notes.commands.len(), 0);
    let script = "local s = string.rep('x', 1000000) redis.call('x', s, s, s, s) return 1";
    assert_eq!(world.eval(script), ":1\\r\\n");
}

#[test]
fn a_stop_cannot_be_caught() {
    for script in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function(e) return e end) end",
        "while true do xpcall(function() while true do end end, function(e) while true do end end) end",
        "while true do pcall(coroutine.wrap(function() while true do end end)) end",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "local function f() pcall(f) while true do end end f()",
        "local t = setmetatable({}, {__index = function() while true do end end}) while true do pcall(function() return t.x end) end",
        "while true do pcall(string.gsub, 'x', 'x', function() while true do end end) end",
        "while true do pcall(table.sort, {3, 2, 1}, function() while true do end end) end",
        "while true do pcall(table.foreach, {1}, function() while true do end end) end",
        "while true do pcall(string.rep) end",
        "while true do pcall(error, {}) end",
        "while true do pcall(cjson.decode, '{') end",
        "for i = 1, 1e15 do end",
        "repeat until false",
        "local function f() return f() end f()",
        "while true do local ok = pcall(pcall, error) end",
        "load(function() while true do end end)",
        "while true do loadstring('x = = 1') end",
        "while true do collectgarbage() end",
    ] {
        is_stopped(script);
    }
}

#[test]
fn loops_of_library_functions_are_stopped() {
    for script in [
        "return string.find(string.rep('a', 50), string.rep('a?', 50) .. string.rep('a', 50))",
        "return string.find(string.rep('a', 3000), '.-.-.-b')",
        "return string.gsub(string.rep('a', 3000), '.-.-.-b', '')",
        "return string.match(string.rep('(', 3000) , string.rep('%b()', 3) .. 'x') or string.find(string.rep('a', 5000), '.*.*.*b')",
        "for w in string.gmatch(string.rep('a', 3000), '.-.-.-b') do end",
    ] {
        let mut world = small_world();
        world.notes.stop_at = Some((3, Stop::Killed));
        let reply = world.eval(script);
        assert!(
            reply.starts_with("-ERR Script killed by user"),
            "{script}: {reply}"
        );
    }
}

#[test]
fn functions_written_in_c_are_counted_on_large_tables() {
    let fill = "local t = {} for i = 1, 20000 do t[i] = (i * 7919) % 20000 .. '' end";
    for work in ["table.sort(t)", "for i = 1, 200 do table.concat(t) end"] {
        let mut world = World::new();
        world.eval(fill);
        let filling = world.notes.pauses;
        let reply = world.eval(&format!("{fill} {work} return t[1]"));
        assert!(reply.starts_with('$'), "{work}: {reply}");
        assert!(
            world.notes.pauses > 2 * filling + 2,
            "{work}: {} pauses, {filling} to fill",
            world.notes.pauses
        );
    }
    let mut world = World::new();
    let sorted = "local t = {} for i = 1, 3000 do t[i] = -i end table.sort(t) return {t[1], t[2], t[3000]}";
    assert_eq!(world.eval(sorted), "*3\\r\\n:-3000\\r\\n:-2999\\r\\n:-1\\r\\n");
    let mixed = "local t = {} for i = 1, 3000 do t[i] = i % 2 == 0 and i or '' .. i end table.sort(t)";
    let reply = world.eval(mixed);
    assert!(reply.starts_with("-ERR attempt to compare "), "{reply}");
    world.notes.stop_at = Some((world.notes.pauses + 4, Stop::Killed));
    let endless = "local t = {} for i = 1, 3000 do t[i] = i end while true do pcall(table.sort, t) end";
    assert!(world.eval(endless).starts_with("-ERR Script killed by user"));
}

#[test]
fn a_stop_of_the_host_leaves_no_reply() {
    let mut world = small_world();
    world.notes.stop_at = Some((1, Stop::Host));
    assert_eq!(world.eval("while true do end"), "");
    assert_eq!(world.outcome, Some(Outcome::Stopped));
    world.notes.stop_at = None;
    world.notes.stops_commands = true;
    assert_eq!(world.eval("while true do pcall(redis.call, 'get', 'x') end"), "");
    assert_eq!(world.outcome, Some(Outcome::Stopped));
    world.notes.stops_commands = false;
    assert_eq!(world.eval("return redis.call('get', 'x')"), "+OK\\r\\n");
    assert_eq!(world.outcome, Some(Outcome::Replied));
}

#[test]
fn memory_is_bounded() {
    let mut world = small_world();
    for script in [
        "return string.rep('x', 1e9)",
        "return ('x'):rep(2147483647)",
        "local s = 'x' while true do s = s .. s end",
        "local t = {} while true do t[#t + 1] = {} end",
        "local t = {} while true do t[#t + 1] = string.rep('x', 1000) .. #t end",
        "local s = string.rep('x', 1e6) return (s:gsub('x', s))",
        "local s = string.rep('x', 1e6) return (s:gsub('x', function() return s end))",
        "local t = {} for i = 1, 22 do t = {t, t} end return cjson.encode(t)",
        "local t = {} for i = 1, 14 do t = {t, t, t, t} end return cmsgpack.pack(t)",
        "local t = {} for i = 1, 40 do t = {t, t} end return t",
        "return table.concat({string.rep('x', 2e7), string.rep('y', 2e7)})",
        "return cjson.decode('[' .. string.rep('{},', 1e6) .. '1]')",
        "return cmsgpack.unpack('\\220\\255\\255' .. string.rep('\\129\\1\\144', 65535)) or string.rep('x', 1e9)",
        "local f = 'return ' .. string.rep('{', 150) .. string.rep('}', 150) local t = {} while true do t[#t + 1] = loadstring(f) end",
        "local t = {} while true do t[#t + 1] = coroutine.create(function() end) end",
        "local t = {} while true do t[#t + 1] = string.gmatch('a', 'b') end",
    ] {
        fails(&mut world, script, "not enough memory");
    }
    assert!(
        world.engine.memory_bytes() < 2 * MEMORY_BYTES,
        "{}",
        world.engine.memory_bytes()
    );
}

#[test]
fn the_lack_of_memory_can_be_caught() {
    let mut world = small_world();
    assert_eq!(
        world.eval("return {pcall(string.rep, 'x', 1e9)}"),
        "*2\\r\\n$-1\\r\\n$17\\r\\nnot enough memory\\r\\n"
    );
    assert_eq!(
        world.eval("return select(2, pcall(function() local s = 'x' while true do s = s .. s end end))"),
        "$17\\r\\nnot enough memory\\r\\n"
    );
}

#[test]
fn garbage_of_earlier_scripts_does_not_fail_later_ones() {
    let mut world = small_world();
    for _ in 0..20 {
        let reply = world.eval("local s = string.rep('x', 3e6) return #s");
        assert_eq!(reply, ":3000000\\r\\n");
    }
}

#[test]
fn depth_is_bounded() {
    let mut options = options();
    options.memory_bytes = 8 * MEMORY_BYTES;
    let mut world = World::with(&options);
    fails(
        &mut world,
        "local function f() return 1 + f() end return f()",
        "stack overflow",
    );
    fails(
        &mut world,
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
        "stack overflow",
    );
    fails(
        &mut world,
        "local t = setmetatable({}, {}) getmetatable(t).__index = t return t.x",
        "loop in gettable",
    );
    fails(
        &mut world,
        "local function f() return coroutine.wrap(f)() end return f()",
        "C stack overflow",
    );
    fails(
        &mut world,
        "local function f() return pcall(f) end local ok, e = f() error('deep')",
        "",
    );
    fails(
        &mut world,
        "local function f(s) return s:gsub('x', f) end return f('x')",
        "stack overflow",
    );
    fails(
        &mut world,
        "return loadstring('return ' .. string.rep('(', 1000) .. string.rep(')', 1000))()",
        "nil value",
    );
    fails(
        &mut world,
        "return string.find(string.rep('a', 300000), string.rep('a?', 300000))",
        "pattern too complex",
    );
    fails(
        &mut world,
        "return string.rep('a', 10):find(string.rep('(', 40))",
        "too many captures",
    );
    fails(
        &mut world,
        "local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)",
        "excessive nesting",
    );
    fails(
        &mut world,
        "cjson.encode_max_depth(2147483647) local t = {} for i = 1, 100000 do t = {t} end return cjson.encode(t)",
        "excessive nesting",
    );
    fails(
        &mut world,
        "cjson.decode_max_depth(2147483647) return cjson.decode(string.rep('[', 100000))",
        "too many nested",
    );
    fails(
        &mut world,
        "return cmsgpack.unpack(string.rep('\\145', 100000))",
        "stack overflow",
    );
    let reply = world.eval("local t = {} t[1] = t return t");
    assert!(
        reply.contains("reached lua stack limit"),
        "a table in itself ends somewhere"
    );
    let reply = world.eval("local t = {} t.map = {x = t} return t");
    assert!(
        reply.contains("reached lua stack limit"),
        "a map in itself ends somewhere"
    );
    fails(
        &mut world,
        "local t = {} t.t = t return cjson.encode(t)",
        "excessive nesting",
    );
    assert!(
        world
            .eval("local t = {} t.t = t return cmsgpack.pack(t)")
            .starts_with('$')
    );
}

#[test]
fn numbers_that_overflow_are_refused() {
    let mut world = small_world();
    for (script, text) in [
        ("return (unpack({}, 1, 1e9))", "too many results to unpack"),
        ("return (unpack({}, 0, 2147483647))", "too many results to unpack"),
        (
            "return (unpack({}, -2147483648, 2147483647))",
            "too many results to unpack",
        ),
        (
            "return (unpack({}, -2147483647, 1))",
            "too many results to unpack",
        ),
        ("return (unpack({}, -1e300, 1e300))", "too many results to unpack"),
        ("return (unpack({}, 1, 7501))", "too many results to unpack"),
        (
            "return string.format('%99999d', 1)",
            "invalid format (width or precision too long)",
        ),
        (
            "return string.format('%0.999f', 1)",
            "invalid format (width or precision too long)",
        ),
        ("return string.format(string.rep('%d', 10000))", "bad argument"),
        ("table.insert({}, -2147483648, 1)", "position out of bounds"),
        ("table.insert({}, -1e300, 1)", "position out of bounds"),
        ("return table.concat({1, {}, 3})", "invalid value"),
        ("return table.concat({}, '', 1, 1e9)", "invalid value"),
        ("return struct.pack('i33', 1)", "limit of 32"),
        ("return struct.pack('i2147483648', 1)", "integral size overflow"),
        (
            "return struct.unpack('c2147483647', 'a')",
            "data string too short",
        ),
        (
            "return struct.unpack('i4', 'aaaa', 9223372036854775807)",
            "data string too short",
        ),
        ("return struct.unpack('i4', 'aaaa', -5)", "data string too short"),
        (
            "return struct.unpack('!1073741824 bl', 'aaaa')",
            "data string too short",
        ),
        ("return string.rep()", "bad argument #1"),
        ("return math.random(1, 2, 3)", "wrong number of arguments"),
        (
            "return cmsgpack.unpack_limit('a', 2147483647, -1)",
            "Invalid request",
        ),
    ] {
        fails(&mut world, script, text);
    }
    for script in [
        "return bit.tohex(1, -2147483648)",
        "return bit.lshift(1, 2147483647)",
        "return (unpack({}, 5, 1))",
        "return (unpack({}, 2147483647, 2147483647))",
        "return string.sub('abc', -2147483648, 2147483647)",
        "return string.byte('abc', -2147483648, 2147483647)",
        "return string.find('abc', 'b', -9223372036854775808)",
        "return math.random(-2147483648, 2147483647)",
        "return struct.size('!8 b l')",
        "return string.rep('', 2147483647)",
        "return table.maxn({[2^53] = 1})",
    ] {
        let reply = world.eval(script);
        assert!(!reply.starts_with('-'), "{script}: {reply}");
    }
}

#[test]
fn many_arguments_and_errors_exhaust_nothing() {
    let mut options = options();
    options.memory_bytes = 8 * MEMORY_BYTES;
    let mut world = World::with(&options);
    for (script, reply) in [
        (
            "local t = {} for i = 1, 7500 do t[i] = 'word' .. i end redis.call('rpush', unpack(t)) return #cmsgpack.pack(unpack(t)) > 7500",
            ":1\\r\\n",
        ),
        (
            "for i = 1, 30000 do pcall(redis.call, {}) end return 1",
            ":1\\r\\n",
        ),
        ("for i = 1, 30000 do redis.pcall() end return 1", ":1\\r\\n"),
        (
            "local t = {} for i = 1, 7499 do t[i] = 'word' .. i end return unpack(t)",
            "$5\\r\\nword1\\r\\n",
        ),
        (
            "for i = 1, 30000 do pcall(cjson.decode, '{') end return 1",
            ":1\\r\\n",
        ),
        (
            "local t = {} for i = 1, 30000 do t[i] = select(2, pcall(error, {err = 'E'})) end return #t",
            ":30000\\r\\n",
        ),
        (
            "local t = {} for i = 1, 15000 do t[i] = string.gmatch('a', 'a') end return #t",
            ":15000\\r\\n",
        ),
        (
            "local t = {} for i = 1, 10000 do t[i] = coroutine.wrap(function() redis.call({}) end) end for i = 1, #t do pcall(t[i]) end return #t",
            ":10000\\r\\n",
        ),
        (
            "local t = {} for i = 1, 200 do t[i] = cjson.new() end return #t",
            ":200\\r\\n",
        ),
    ] {
        assert_eq!(world.eval(script), reply, "{script}");
    }
    assert!(
        world.notes.commands[0].starts_with("word1 word2")
            || world.notes.commands[0].starts_with("rpush word1")
    );
}

#[test]
fn lines_of_replies_cannot_be_forged() {
    let mut world = small_world();
    for (script, reply) in [
        ("return {err = 'a\\r\\n+OK'}", "-a  +OK\\r\\n"),
        ("return {ok = 'a\\r\\n$-1'}", "+a  $-1\\r\\n"),
        ("return redis.error_reply('A b\\r\\n:1')", "-A b  :1\\r\\n"),
        ("return redis.status_reply('a\\n:1')", "+a :1\\r\\n"),
        ("return {double = 'a\\r\\n:1'}", "*0\\r\\n"),
    ] {
        assert_eq!(world.eval(script), reply, "{script}");
    }
    let reply = world.eval("error('a\\r\\n+OK')");
    assert!(
        reply.starts_with("-ERR user_script:1: a  +OK script: ") && reply.matches("\\r\\n").count() == 1,
        "{reply}"
    );
    let reply = world.eval_with(
        "return {big_number = '1\\r\\n:1'}",
        shardis_protocol::Resp::V3,
        &[],
        &[],
    );
    assert_eq!(reply, "(1  :1\\r\\n");
}
