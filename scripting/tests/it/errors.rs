//! Errors: what a script catches, what its caller gets, and what is counted.

use shardis_protocol::Resp;
use shardis_scripting::{Digest, LogLevel, Outcome, Stop, Targets};

use super::world::World;

const WRONG_TYPE: &[u8] = b"-WRONGTYPE Operation against a key\r\n";

#[test]
fn an_error_names_script_and_line() {
    let mut world = World::new();
    for (script, error) in [
        ("error('x')", "ERR user_script:1: x"),
        ("error({err = 'CODE y'})", "CODE y"),
        ("error({err = 5})", "5"),
        ("error({})", "ERR unknown error"),
        ("error({1})", "ERR unknown error"),
        ("error({err = {}})", "ERR unknown error"),
        ("error()", "ERR nil"),
        (
            "return redis.call({})",
            "ERR Lua redis lib command arguments must be strings or integers",
        ),
        ("return redis.setresp(1)", "ERR RESP version must be 2 or 3."),
    ] {
        let digest = Digest::of(script.as_bytes());
        assert_eq!(
            world.eval(script),
            format!("-{error} script: {digest}, on @user_script:1.\\r\\n"),
            "{script}"
        );
        assert_eq!(world.outcome, Some(Outcome::Failed { is_counted: false }));
    }
    assert!(world.eval("\n\nerror('x')").contains("user_script:3: x script: "));
    assert!(
        world
            .eval("#!lua flags=no-writes\n\nerror('x')")
            .contains("user_script:3: x script: ")
    );
}

#[test]
fn an_error_of_a_command_keeps_its_code_and_is_counted_once() {
    let mut world = World::new();
    world.notes.reply = WRONG_TYPE.to_vec();
    let reply = world.eval("return redis.call('lpush', 'k', 'v')");
    assert!(
        reply.starts_with("-WRONGTYPE Operation against a key script: "),
        "{reply}"
    );
    assert_eq!(world.outcome, Some(Outcome::Failed { is_counted: true }));
    let reply = world.eval("return redis.pcall('lpush', 'k', 'v')");
    assert_eq!(reply, "-WRONGTYPE Operation against a key\\r\\n");
    assert_eq!(world.outcome, Some(Outcome::Failed { is_counted: true }));
    world.eval("return redis.error_reply('bad')");
    assert_eq!(world.outcome, Some(Outcome::Failed { is_counted: false }));
    let reply = world.eval("local _, e = pcall(redis.call, 'x') return {type(e), e}");
    assert_eq!(
        reply,
        "*2\\r\\n$6\\r\\nstring\\r\\n$33\\r\\nWRONGTYPE Operation against a key\\r\\n"
    );
    let reply = world.eval("return {xpcall(function() redis.call('x') end, function(e) return e.err end)}");
    assert_eq!(
        reply,
        "*2\\r\\n$-1\\r\\n$33\\r\\nWRONGTYPE Operation against a key\\r\\n"
    );
}

#[test]
fn pcall_gives_a_table_with_its_fields() {
    let mut world = World::new();
    world.notes.reply = WRONG_TYPE.to_vec();
    let fields = "local t = {} for k, v in pairs(redis.pcall('x')) do t[#t + 1] = k .. '=' .. tostring(v) end table.sort(t) return t";
    assert_eq!(
        world.eval(fields),
        "*2\\r\\n$37\\r\\nerr=WRONGTYPE Operation against a key\\r\\n$30\\r\\nignore_error_stats_update=true\\r\\n"
    );
}

/// A function of Lua in front of one written in C loses the line in a tail call: the text stays.
#[test]
fn functions_of_the_prelude_fail_without_a_line_in_a_tail_call() {
    let mut world = World::new();
    assert_eq!(
        world.eval("return unpack({}, 1, 1e6)"),
        "-ERR too many results to unpack\\r\\n"
    );
    assert!(
        world
            .eval("return (unpack({}, 1, 1e6))")
            .contains("user_script:1: too many results to unpack script: ")
    );
}

#[test]
fn syntax_errors_name_their_line() {
    let mut world = World::new();
    assert_eq!(
        world.eval("\nx x"),
        "-ERR Error compiling script (new function): user_script:2: \\'=\\' expected near \\'x\\'\\r\\n"
    );
    assert_eq!(
        world.eval("#!js\nreturn 1"),
        "-ERR Unexpected engine in script shebang: #!js\\r\\n"
    );
}

#[test]
fn a_killed_script_says_where_it_was() {
    let mut world = World::new();
    world.notes.stop_at = Some((1, Stop::Killed));
    let script = "\nwhile true do end";
    let digest = Digest::of(script.as_bytes());
    assert_eq!(
        world.eval(script),
        format!("-ERR Script killed by user with SCRIPT KILL. script: {digest}, on @user_script:2.\\r\\n")
    );
}

#[test]
fn the_log_and_replication_reach_the_host() {
    let mut world = World::new();
    world.eval("redis.log(redis.LOG_WARNING, 'a', 1, {}, 'b') redis.log(redis.LOG_DEBUG, 'c')");
    assert_eq!(
        world.notes.log,
        [
            (LogLevel::Warning, "a 1 b".to_owned()),
            (LogLevel::Debug, "c".to_owned())
        ]
    );
    world.eval(
        "redis.set_repl(redis.REPL_NONE) redis.set_repl(redis.REPL_ALL) redis.set_repl(redis.REPL_SLAVE)",
    );
    assert_eq!(
        world.notes.targets,
        [Targets::empty(), Targets::all(), Targets::REPLICAS]
    );
    assert_eq!(world.eval("return redis.acl_check_cmd('get', 'x')"), ":1\\r\\n");
    assert_eq!(
        world.eval("return redis.acl_check_cmd('forbidden', 'x')"),
        "$-1\\r\\n"
    );
    assert!(
        world
            .eval("return redis.acl_check_cmd('nosuch')")
            .contains("Invalid command passed to redis.acl_check_cmd()")
    );
    world.notes.now_us = 1_500_000;
    assert_eq!(world.eval("return tostring(os.clock())"), "$3\\r\\n1.5\\r\\n");
}

#[test]
fn the_words_of_commands_arrive() {
    let mut world = World::new();
    world.eval("redis.call('set', KEYS and 'k' or 1, 1, 1.5, 2^53, 1e20, -0.1, 'a b')");
    assert_eq!(
        world.notes.commands,
        ["set k 1 1.5 9007199254740992 1e+20 -0.10000000000000001 a b"]
    );
    world.eval("redis.setresp(3) redis.call('get', 'x') redis.setresp(2) redis.call('get', 'x')");
    assert_eq!(world.notes.versions, [Resp::V2, Resp::V3, Resp::V2]);
}
