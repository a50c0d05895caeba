//! Ways out of the sandbox, each of which must be closed, and what one script can leave for another: nothing.

use shardis_protocol::{Encoder, Resp};
use shardis_scripting::Outcome;

use super::world::World;

/// Checks that each script fails with a reply that contains its text, and that the next script finds the world as it
/// was.
fn refused(rows: &[(&str, &str)]) {
    let mut world = World::new();
    for (script, text) in rows {
        let reply = world.eval(script);
        assert!(
            reply.starts_with('-') && reply.contains(text),
            "{script}: {reply}"
        );
        assert_intact(&mut world, script);
    }
}

/// A script that looks at everything that scripts share.
const WITNESS: &str = "
    local names = {}
    for _, shared in ipairs { _G, redis, string, table, math, cjson, cmsgpack, bit, struct, os, coroutine, getmetatable('') } do
        for name, value in pairs(shared) do names[#names + 1] = tostring(name) .. type(value) end
        for name in pairs({}) do names[#names + 1] = name end
        names[#names + 1] = tostring(#shared)
        for _, field in ipairs { 'planted', 'x', 1 } do
            names[#names + 1] = tostring(select(2, pcall(function() return shared[field] end)))
        end
    end
    names[#names + 1] = tostring(getmetatable(1)) .. tostring(getmetatable(nil)) .. tostring(getmetatable(true))
    names[#names + 1] = tostring(getmetatable(print_nothing == nil)) .. tostring(getmetatable(type))
    names[#names + 1] = ('x'):upper() .. tostring((''):len()) .. tostring(rawget(string, 'planted')) .. tostring(rawget(_G, 'x'))
    table.sort(names)
    return redis.sha1hex(table.concat(names, ','))";

fn witness(world: &mut World) -> String {
    world.eval(&WITNESS.replace("print_nothing == nil", "nil"))
}

fn assert_intact(world: &mut World, after: &str) {
    let fresh = witness(&mut World::new());
    assert!(fresh.starts_with("$40"), "{fresh}");
    assert_eq!(witness(world), fresh, "after {after}");
}

#[test]
fn shared_tables_cannot_be_changed() {
    let read_only = "Attempt to modify a readonly table";
    refused(&[
        ("x = 1", read_only),
        ("_G.x = 1", read_only),
        ("redis.x = 1", read_only),
        ("redis.call = nil", read_only),
        ("string.format = nil", read_only),
        ("string.planted = 1", read_only),
        ("getmetatable('').__index = nil", read_only),
        ("getmetatable('').planted = 1", read_only),
        ("getmetatable('').__index.planted = 1", read_only),
        ("getmetatable(_G).__index = nil", read_only),
        ("getmetatable(_G).planted = 1", read_only),
        ("rawset(_G, 'x', 1)", read_only),
        ("rawset(string, 'planted', 1)", read_only),
        ("rawset(getmetatable(''), 'planted', 1)", read_only),
        ("rawset(getmetatable('').__index, 'planted', 1)", read_only),
        ("setmetatable(_G, {})", read_only),
        ("setmetatable(string, {})", read_only),
        ("setmetatable(redis, nil)", read_only),
        ("setmetatable(getmetatable(''), {})", read_only),
        ("table.insert(redis, 1)", read_only),
        ("table.insert(string, 1, 1)", read_only),
        ("pcall(rawset, _G, 'x', 1) x = 1", read_only),
        ("coroutine.wrap(function() x = 1 end)()", read_only),
        ("loadstring('x = 1')()", read_only),
        ("loadstring('rawset(_G, \"x\", 1)')()", read_only),
        ("local env = _G._G._G env.x = 1", read_only),
        ("server.x = 1", read_only),
        ("local _, t = pairs(string) t.planted = 1", read_only),
        ("local f, t, k = pairs(string) rawset(t, 'planted', 1)", read_only),
        ("cjson.encode = nil", read_only),
        ("os.clock = nil", read_only),
        ("coroutine.create = nil", read_only),
    ]);
}

#[test]
fn calls_that_change_nothing_leave_nothing() {
    let mut world = World::new();
    for script in [
        "return pcall(rawset, _G, 'x', 1)",
        "return pcall(rawset, string, 'planted', 1)",
        "return pcall(setmetatable, string, {})",
        "table.sort(string)",
        "table.remove(string)",
        "table.remove(string, 1)",
        "return pcall(table.setn, string, 5)",
        "return pcall(table.insert, string, 'x')",
        "return table.foreach(string, function() end)",
        "return next(string)",
        "return error(string)",
        "error(redis)",
        "return pcall(error, redis)",
        "return xpcall(function() error(string) end, function(e) return rawset(e, 'planted', 1) end)",
        "KEYS[1] = 'x' ARGV.x = 1",
        "setmetatable(KEYS, {__index = string})",
        "setmetatable({}, {__index = string}).planted = 1",
        "setmetatable({}, {__newindex = string}).planted = 1",
        "cjson.encode_max_depth(1)",
        "cjson.encode_sparse_array(true)",
        "collectgarbage('stop')",
        "collectgarbage('setpause', 1)",
        "redis.setresp(3)",
        "return redis",
        "return _G",
        "return {redis, string, map = string}",
    ] {
        world.eval(script);
        assert_intact(&mut world, script);
    }
    assert_eq!(
        world.eval("return {cjson.encode_max_depth(), cjson.encode_sparse_array()}"),
        "*4\\r\\n:1000\\r\\n$-1\\r\\n:2\\r\\n:10\\r\\n"
    );
    assert_eq!(world.eval("return collectgarbage('setpause', 200)"), ":200\\r\\n");
    world.notes.versions.clear();
    world.eval("redis.call('get', 'x')");
    assert_eq!(world.notes.versions, [Resp::V2]);
}

/// A face that a script could write to would keep the value: `next` without the prelude would find it.
#[test]
fn writing_through_a_metatable_is_refused() {
    refused(&[
        (
            "setmetatable({}, {__newindex = string}).planted = 1",
            "Attempt to modify a readonly table",
        ),
        (
            "setmetatable({}, {__newindex = _G}).x = 1",
            "Attempt to modify a readonly table",
        ),
    ]);
}

#[test]
fn globals_are_those_of_the_list() {
    let mut world = World::new();
    let names = world
        .eval("local t = {} for k in pairs(_G) do t[#t+1] = k end table.sort(t) return table.concat(t, ' ')");
    assert_eq!(
        names.split("\\r\\n").nth(1),
        Some(
            "ARGV KEYS _G _VERSION assert bit cjson cmsgpack collectgarbage coroutine error gcinfo getmetatable ipairs load \
             loadstring math next os pairs pcall rawequal rawget rawset redis select server setmetatable string struct table \
             tonumber tostring type unpack xpcall"
        )
    );
    for name in [
        "dofile", "loadfile", "print", "require", "module", "package", "debug", "io", "getfenv", "setfenv",
        "newproxy",
    ] {
        let reply = world.eval(&format!("return {name}"));
        let text = format!("Script attempted to access nonexistent global variable \\'{name}\\'");
        assert!(reply.contains(&text), "{reply}");
        assert_eq!(world.eval(&format!("return rawget(_G, '{name}')")), "$-1\\r\\n");
        let reply = world.eval(&format!("return loadstring('return {name}')()"));
        assert!(reply.contains(&text), "{reply}");
        let reply = world.eval(&format!("return coroutine.wrap(function() return {name} end)()"));
        assert!(reply.contains(&text), "{reply}");
    }
    assert_eq!(
        world.eval("local t = {} for k in pairs(os) do t[#t+1] = k end return t"),
        "*1\\r\\n$5\\r\\nclock\\r\\n"
    );
    assert_eq!(world.eval("return string.dump"), "$-1\\r\\n");
}

#[test]
fn metatables_of_basic_types_are_out_of_reach() {
    let mut world = World::new();
    for value in [
        "1",
        "nil",
        "true",
        "type",
        "redis",
        "string",
        "coroutine.create(function() end)",
        "cjson.null",
    ] {
        assert_eq!(
            world.eval(&format!("return getmetatable({value})")),
            "$-1\\r\\n",
            "{value}"
        );
    }
    for value in ["1", "''", "nil", "true", "type", "cjson.null"] {
        let reply = world.eval(&format!("setmetatable({value}, {{}})"));
        assert!(reply.contains("bad argument #1 to \\'setmetatable\\'"), "{reply}");
    }
}

#[test]
fn bytecode_is_a_syntax_error() {
    let mut world = World::new();
    let error = "unexpected symbol near \\'char(27)\\'";
    for script in [
        "return select(2, loadstring('\\27Lua'))",
        "return select(2, loadstring('\\27LuaQ\\0\\1\\4\\8\\4\\8\\0'))",
        "local n = 0 return select(2, load(function() n = n + 1 return n < 3 and '\\27Lua' or nil end))",
    ] {
        assert!(world.eval(script).contains(error), "{script}");
    }
    let reply = world.eval_bytes(b"\x1bLuaQ\x00\x01\x04\x08\x04\x08\x00", Resp::V2, &[], &[]);
    assert!(reply.escape_ascii().to_string().contains(error));
}

#[test]
fn keys_and_arguments_end_with_the_script() {
    let mut world = World::new();
    let echo = "return {KEYS[1], ARGV[1], #KEYS, #ARGV}";
    assert_eq!(
        world.eval_with(echo, Resp::V2, &[b"k\0"], &[b"a", b"\xff"]),
        "*4\\r\\n$2\\r\\nk\\x00\\r\\n$1\\r\\na\\r\\n:1\\r\\n:2\\r\\n"
    );
    world.eval(
        "KEYS[1] = 'planted' KEYS.x = 1 setmetatable(ARGV, {__index = function() return 'planted' end})",
    );
    assert_eq!(
        world.eval("return {#KEYS, KEYS[1] == nil, KEYS.x == nil, ARGV[7] == nil}"),
        "*4\\r\\n:0\\r\\n:1\\r\\n:1\\r\\n:1\\r\\n"
    );
}

/// A script that tells all about its keys and arguments.
const SHOW_WORDS: &str = "
    local lines = {}
    for _, words in ipairs { KEYS, ARGV } do
        lines[#lines + 1] = #words .. ' ' .. tostring(getmetatable(words)) .. ' ' .. tostring(words.planted)
        for key, value in pairs(words) do lines[#lines + 1] = tostring(key) .. '=' .. tostring(value) end
    end
    return table.concat(lines, ' ')";

#[test]
fn whatever_a_script_does_to_its_words_the_next_one_gets_its_own() {
    let mut world = World::new();
    let show = |world: &mut World, keys: &[&[u8]], arguments: &[&[u8]]| {
        world.eval_with(SHOW_WORDS, Resp::V2, keys, arguments)
    };
    let shown = "$31\\r\\n2 nil nil 1=a 2=b 1 nil nil 1=c\\r\\n";
    assert_eq!(show(&mut world, &[b"a", b"b"], &[b"c"]), shown);
    for script in [
        "return 1",
        "KEYS[1] = 'x' ARGV[1] = {}",
        "KEYS[2] = nil ARGV[1] = nil",
        "KEYS[1] = nil",
        "KEYS[1] = nil KEYS.planted = 1",
        "KEYS[3] = 'x' ARGV[2] = 'y' ARGV[100] = 'z'",
        "for i = 1, 100 do KEYS[i] = i end for i = 3, 100 do KEYS[i] = nil end",
        "KEYS.planted = 1 ARGV[0] = 'x' ARGV[-1] = 'x' ARGV[1.5] = 'x'",
        "setmetatable(KEYS, {__index = function() return 'x' end}) setmetatable(ARGV, {__newindex = error})",
        "table.insert(KEYS, 'x') table.remove(ARGV)",
        "table.sort(KEYS, function(a, b) return a > b end)",
        "KEYS.planted = true error('on purpose')",
    ] {
        let reply = world.eval_with(script, Resp::V2, &[b"1", b"2"], &[b"3"]);
        assert!(!reply.contains("planted"), "{script}: {reply}");
        assert_eq!(show(&mut world, &[b"a", b"b"], &[b"c"]), shown, "after {script}");
    }
    let reply = show(&mut world, &[], &[]);
    assert_eq!(reply, "$19\\r\\n0 nil nil 0 nil nil\\r\\n");
    // A function may keep what it is given.
    let library = "#!lua name=keeper
        local kept
        redis.register_function('keep', function(keys) kept = kept or keys return kept end)";
    let library = world.engine.load_library(library.as_bytes(), &mut world.notes);
    let library = library.expect("a valid library");
    for key in [b"a", b"b"] {
        let mut out = Vec::new();
        let mut reply = Encoder::new(&mut out, Resp::V2);
        let keys = [&key[..]].into_iter();
        let call = world
            .engine
            .call((&library, 0), keys, [].into_iter(), &mut world.notes, &mut reply);
        assert_eq!(call, Ok(Outcome::Replied));
        assert_eq!(out, b"*1\r\n$1\r\na\r\n");
    }
}

#[test]
fn random_numbers_are_a_sequence_of_the_engine() {
    let script = "return {math.random(1000000), math.random(1000000)}";
    let (mut one, mut other) = (World::new(), World::new());
    let first = one.eval(script);
    assert_ne!(one.eval(script), first);
    assert_eq!(other.eval(script), first, "every engine begins alike");
    let state = other.engine.random();
    let second = other.eval(script);
    other.engine.set_random(state);
    assert_eq!(
        other.eval(script),
        second,
        "a script that is run again gets the same numbers"
    );
}
