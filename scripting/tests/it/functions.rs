//! Function libraries: what they may register, how they run, and that a dump is one of Redis.

use shardis_protocol::{Encoder, Resp};
use shardis_scripting::functions::RestorePolicy;
use shardis_scripting::{Engine, Flags, Functions, Library};

use super::redis::Redis;
use super::world::{World, options};

impl World {
    fn load(&mut self, code: &str) -> Result<Library, String> {
        self.engine
            .load_library(code.as_bytes(), &mut self.notes)
            .map_err(|error| error.to_string())
    }

    fn call(&mut self, library: &Library, function: usize, keys: &[&[u8]], arguments: &[&[u8]]) -> String {
        let mut out = Vec::new();
        let mut reply = Encoder::new(&mut out, Resp::V2);
        let (keys, arguments) = (keys.iter().copied(), arguments.iter().copied());
        let run = self
            .engine
            .call((library, function), keys, arguments, &mut self.notes, &mut reply);
        self.outcome = Some(run.expect("a loaded library"));
        out.escape_ascii().to_string()
    }
}

/// Libraries, the error of loading each being that of redis-server 7.0; without a text they load.
const LIBRARIES: &[&str] = &[
    "return 1",
    "#!lua",
    "#!lua\nreturn 1",
    "#!js name=x\nreturn 1",
    "#!lua name=a-b\nreturn 1",
    "#!lua name=x y=1\nreturn 1",
    "#!lua name=x name=y\nreturn 1",
    "#!lua name=x\nreturn 1",
    "#!lua name=x\nredis.call('get','x')",
    "#!lua name=x\nx = 1",
    "#!lua name=x\nx x",
    "#!lua name=x\nerror('boo')",
    "#!lua name=x\nlocal a = {} .. 'x'",
    "#!lua name=x\nreturn redis.sha1hex",
    "#!lua name=x\nreturn KEYS",
    "#!lua name=x\nredis.x = 1",
    "#!lua name=x\nredis.register_function('f')",
    "#!lua name=x\nredis.register_function(1,2)",
    "#!lua name=x\nredis.register_function({},2)",
    "#!lua name=x\nredis.register_function('f',1)",
    "#!lua name=x\nredis.register_function('f-1',function() end)",
    "#!lua name=x\nredis.register_function('',function() end)",
    "#!lua name=x\nredis.register_function('f',function() end) redis.register_function('f',function() end)",
    "#!lua name=x\nredis.register_function{function_name='f'}",
    "#!lua name=x\nredis.register_function{callback=function() end}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,flags={'zz'}}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,flags={1}}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,flags=1}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,zz=1}",
    "#!lua name=x\nredis.register_function{function_name={},callback=function() end}",
    "#!lua name=x\nredis.register_function{function_name=1,callback=function() end}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=1}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,description=1}",
    "#!lua name=x\nredis.register_function{function_name='f',callback=function() end,description={}}",
    "#!lua name=x\nredis.register_function()",
    "#!lua name=x\nredis.register_function('a','b','c')",
    "#!lua name=x\nredis.register_function{1}",
    "#!lua name=x\nredis.register_function('f',function() end)",
    "#!lua name=x\nlocal function f() end redis.register_function{function_name='f',callback=f,flags={'no-writes','allow-oom'},description='text'}",
    "#!lua name=x\nredis.log(redis.LOG_NOTICE, redis.REDIS_VERSION) redis.register_function('f',function() end)",
    "#!LUA NAME=x\nredis.register_function('f',function() end)",
];

#[test]
fn loading_is_that_of_redis() {
    let redis = Redis::start("functions");
    let mut connection = redis.connect(Resp::V2);
    for library in LIBRARIES {
        let theirs = connection.command(&[b"FUNCTION", b"LOAD", b"REPLACE", library.as_bytes()]);
        let mut out = Vec::new();
        let mut reply = Encoder::new(&mut out, Resp::V2);
        match World::new().load(library) {
            Ok(library) => reply.bulk(&library.name),
            Err(error) => reply.error(error),
        }
        assert_eq!(
            out.escape_ascii().to_string(),
            theirs.escape_ascii().to_string(),
            "{library}"
        );
    }
}

#[test]
fn functions_run_with_their_words() {
    let mut world = World::new();
    let library = world
        .load(
            "#!lua name=lib
local seen = 0
local function f(keys, arguments) seen = seen + 1 return {keys, arguments, seen, type(redis.call)} end
redis.register_function('f', f)
redis.register_function{function_name='g', callback=function() error('boo') end, flags={'no-writes'}, description='text'}
redis.register_function('h', function() return KEYS end)
redis.register_function('i', function() return redis.register_function end)
redis.register_function('j', function() x = 1 end)
redis.register_function('k', function() return redis.call('get', 'x') end)",
        )
        .expect("a valid library");
    assert_eq!(library.name, b"lib");
    let row = &library.functions[1];
    assert_eq!((row.name.as_slice(), row.flags), (&b"g"[..], Flags::NO_WRITES));
    assert_eq!(row.description.as_deref(), Some(&b"text"[..]));
    assert_eq!(
        world.call(&library, 0, &[b"a"], &[b"b", b"c"]),
        "*4\\r\\n*1\\r\\n$1\\r\\na\\r\\n*2\\r\\n$1\\r\\nb\\r\\n$1\\r\\nc\\r\\n:1\\r\\n$8\\r\\nfunction\\r\\n"
    );
    assert!(
        world.call(&library, 0, &[], &[]).contains(":2\\r\\n"),
        "variables of a library live as long as it"
    );
    assert_eq!(
        world.call(&library, 1, &[], &[]),
        "-ERR user_function:5: boo script: g, on @user_function:5.\\r\\n"
    );
    assert!(
        world
            .call(&library, 2, &[], &[])
            .contains("nonexistent global variable \\'KEYS\\'")
    );
    assert_eq!(world.call(&library, 3, &[], &[]), "$-1\\r\\n");
    assert!(
        world
            .call(&library, 4, &[], &[])
            .contains("Attempt to modify a readonly table")
    );
    assert_eq!(world.call(&library, 5, &[], &[]), "+OK\\r\\n");
    assert_eq!(world.eval("return 1"), ":1\\r\\n");
    assert_eq!(world.call(&library, 5, &[], &[]), "+OK\\r\\n");
}

#[test]
fn another_engine_loads_a_library_when_it_is_called() {
    let library = World::new()
        .load("#!lua name=lib\nredis.register_function('f', function(k, a) return a[1] end)")
        .expect("a valid library");
    let mut other = World::new();
    assert_eq!(other.call(&library, 0, &[], &[b"word"]), "$4\\r\\nword\\r\\n");
    other.engine.unload_library(&library.digest);
    assert_eq!(other.call(&library, 0, &[], &[b"word"]), "$4\\r\\nword\\r\\n");
    other.engine.retain_libraries(|_| false);
    assert_eq!(other.call(&library, 0, &[], &[b"word"]), "$4\\r\\nword\\r\\n");
}

#[test]
fn a_library_that_does_not_end_is_given_up() {
    let mut world = World::new();
    world.notes.pause_us = 100_000;
    assert_eq!(
        world.load("#!lua name=x\nwhile true do end"),
        Err("ERR Error registering functions: ERR FUNCTION LOAD timeout".to_owned())
    );
    assert!(world.notes.pauses < 10, "{} pauses of 100 ms", world.notes.pauses);
    assert_eq!(world.eval("return 1"), ":1\\r\\n");
}

#[test]
fn dumps_go_to_redis_and_back() {
    let redis = Redis::start("dump");
    let mut connection = redis.connect(Resp::V2);
    let code = |name: &str, text: &str| {
        format!("#!lua name={name}\n-- {text}\nredis.register_function('f_{name}', function() return 1 end)")
    };
    let codes = [
        code("a", "short"),
        code("b", &"long text ".repeat(100)),
        code("c", &"x".repeat(70_000)),
    ];
    let mut engine = Engine::new(&options()).expect("enough memory");
    let mut notes = World::new().notes;
    let mut functions = Functions::default();
    for code in &codes {
        let library = engine
            .load_library(code.as_bytes(), &mut notes)
            .expect("a valid library");
        functions.add(library, false).expect("new names");
    }
    let restored = connection.command(&[b"FUNCTION", b"RESTORE", &functions.dump()]);
    assert_eq!(restored, b"+OK\r\n");
    assert_eq!(connection.command(&[b"FCALL", b"f_c", b"0"]), b":1\r\n");

    let dump = connection.command(&[b"FUNCTION", b"DUMP"]);
    let start = dump.iter().position(|&byte| byte == b'\n').expect("a bulk") + 1;
    let payload = &dump[start..dump.len() - 2];
    let ours = Functions::default()
        .restored(payload, RestorePolicy::Append, |code| {
            engine.load_library(code, &mut notes)
        })
        .expect("a payload of redis");
    assert!(ours.libraries().eq(functions.libraries()));
}
