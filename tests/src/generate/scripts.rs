//! Templates of random scripts: over keys of any type, declared or not, with errors before and behind effects.

use super::Reply::Unharmed;
use super::Template;

/// See [`Template`].
pub(super) const TEMPLATES: &[Template] = &[
    (8, Unharmed, "EVAL script 1 any member"),
    (4, Unharmed, "EVAL script 2 any any member"),
    (3, Unharmed, "EVAL_RO script 1 any member"),
    (2, Unharmed, "EVAL script 1 any integer"),
    (1, Unharmed, "EVAL script 0 member"),
    (1, Unharmed, "EVALSHA|EVALSHA_RO digest 1 any member"),
    (1, Unharmed, "SCRIPT EXISTS digest digest"),
];

/// Digests: of scripts that are known only if they ran before, or of none.
pub(super) const DIGESTS: &[&str] = &[
    "ffffffffffffffffffffffffffffffffffffffff",
    "e0e1f9fabfc9d4800c877a703b823ac0578ff8db",
    "E0E1F9FABFC9D4800C877A703B823AC0578FF8DB",
    "short",
];

/// Sources. None of them draws anything at random, or tells an order that servers do not share.
pub(super) const SOURCES: &[&str] = &[
    "return 1",
    "return {KEYS, ARGV}",
    "return redis.call('TYPE', KEYS[1]).ok",
    "return redis.pcall('GET', KEYS[1])",
    "return redis.call('GET', KEYS[1])",
    "return redis.pcall('INCRBY', KEYS[1], ARGV[1])",
    "redis.call('SET', KEYS[1], ARGV[1]) redis.call('LPUSH', KEYS[1], 'x') return 1",
    "local r = redis.pcall('LPUSH', KEYS[1], ARGV[1]) if type(r) == 'table' then return r.err end return redis.call('LLEN', KEYS[1])",
    "redis.call('RENAME', KEYS[1], ARGV[1]) return redis.call('TYPE', ARGV[1]).ok",
    "return redis.call('EXISTS', KEYS[1] or 'a', ARGV[1] or 'b', 'a', 'b', '{a}1')",
    "for i = 1, 3 do redis.call('SET', 'made:' .. i, ARGV[1] or i) end return redis.call('MGET', 'made:1', 'made:2', KEYS[1] or 'a')",
    "redis.call('DEL', 'made:1', 'made:2') return redis.call('COPY', 'made:3', 'made:1', 'REPLACE')",
    "redis.call('SELECT', 1) redis.call('SET', 'other', ARGV[1]) return redis.call('GET', 'other')",
    "local values = {} for i, key in ipairs(KEYS) do values[i] = redis.pcall('STRLEN', key) end return values",
    "redis.call('HSET', 'made:hash', ARGV[1], KEYS[1]) return redis.call('HGET', 'made:hash', ARGV[1])",
    "return {redis.pcall('nosuch', 1).err, redis.pcall('GET').err, redis.pcall('SET', KEYS[1]).err}",
    "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('PERSIST', KEYS[1]) end return redis.status_reply('NONE')",
    "return redis.error_reply('MY ' .. #ARGV)",
    "return tonumber(ARGV[1]) and tonumber(ARGV[1]) * 2 or false",
    "error({err = 'CODE ' .. #KEYS})",
];
