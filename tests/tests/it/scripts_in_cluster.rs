//! Scripts on a node of a cluster, reply by reply beside redis-server 7.0: the slots of declared keys and of those that they touch.

use super::cluster_redirects::{agree_on, await_state, primary, servers};

/// A server of each kind whose cluster works although nobody has the last slots.
const PARTLY: &[&str] = &["--cluster-require-full-coverage", "no"];

#[test]
fn declared_keys_decide_where_a_script_runs() {
    let (servers, _folders) = servers(&primary(), PARTLY);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree_on(
        &servers,
        &[
            "EVAL|return redis.call('SET', KEYS[1], 1)|1|$m",
            "EVAL|return redis.call('GET', KEYS[1])|1|$o",
            "EVAL|return redis.call('GET', KEYS[1])|1|$u",
            "EVAL|return 1|2|$m|$n",
            "EVAL|return 1|2|$o|$p",
            "EVAL|return 1|2|{$m}a|{$m}b",
            "EVAL_RO|return redis.call('GET', KEYS[1])|1|$m",
            "EVAL_RO|return redis.call('GET', KEYS[1])|1|$o",
            "EVAL_RO|return redis.call('SET', KEYS[1], 1)|1|$m",
            "EVALSHA|0000000000000000000000000000000000000000|1|$o",
            "EVALSHA|0000000000000000000000000000000000000000|1|$m",
            "FUNCTION|LOAD|#!lua name=l\nredis.register_function('f', function(k, a) return redis.call('GET', k[1] or a[1]) end)",
            "FCALL|f|1|$m",
            "FCALL|f|1|$o",
            "FCALL|f|0|$o",
            "FCALL|f|2|$m|$n",
            "EVAL|#!lua flags=no-cluster\nreturn 1|0",
            "EVAL|#!lua flags=no-cluster\nreturn 1|1|$o",
        ],
        "|",
    );
}

#[test]
fn keys_that_a_script_touches_are_in_the_slot_of_its_declared_ones() {
    let (servers, _folders) = servers(&primary(), PARTLY);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree_on(
        &servers,
        &[
            // Scripts without a first line that says otherwise may touch any slot of the node.
            "EVAL|redis.call('SET', '$m', 1) return redis.call('SET', '$n', 2)|1|$m",
            "EVAL|redis.call('SET', '$m', 1) return redis.call('SET', '$n', 2)|0",
            "EVAL|return redis.call('GET', '$o')|0",
            "EVAL|return redis.call('GET', '$o')|1|$m",
            "EVAL|return redis.pcall('GET', '$o').err|1|$m",
            "EVAL|return redis.call('MGET', '{$m}a', '$m')|1|$m",
            // Others are kept to one.
            "EVAL|#!lua\nredis.call('SET', '$m', 3) return redis.call('SET', '$n', 4)|1|$m",
            "EVAL|#!lua\nreturn redis.call('SET', '$n', 5)|1|$m",
            "EVAL|#!lua\nreturn redis.call('SET', '{$m}a', 5)|1|$m",
            "EVAL|#!lua\nredis.call('SET', '$m', 6) return redis.call('SET', '$n', 7)|0",
            "EVAL|#!lua flags=allow-cross-slot-keys\nredis.call('SET', '$m', 8) return redis.call('SET', '$n', 9)|1|$m",
            "EVAL|#!lua flags=allow-cross-slot-keys\nreturn redis.call('SET', '$o', 2)|1|$m",
            "EVAL|#!lua flags=allow-cross-slot-keys\nreturn 1|2|$m|$n",
            "GET|$m",
            "GET|$n",
        ],
        "|",
    );
}

#[test]
fn scripts_meet_slots_that_move() {
    let (servers, _folders) = servers(&primary(), PARTLY);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree_on(
        &servers,
        &[
            "SET|$m|v",
            "CLUSTER|SETSLOT|$M|MIGRATING|$other",
            "EVAL|return redis.call('GET', KEYS[1])|1|$m",
            "EVAL|return redis.call('GET', KEYS[1])|1|{$m}absent",
            "EVAL|return redis.call('GET', '{$m}absent')|0",
            "EVAL|return redis.call('MGET', '{$m}absent', '$m')|1|$m",
            "CLUSTER|SETSLOT|$M|STABLE",
            "CLUSTER|SETSLOT|$O|IMPORTING|$other",
            "EVAL|return redis.call('GET', '$o')|0",
            "ASKING",
            "EVAL|return redis.call('SET', KEYS[1], 5)|1|$o",
            "EVAL|return redis.call('GET', KEYS[1])|1|$o",
            "ASKING",
            "EVAL|return redis.call('GET', KEYS[1])|1|$o",
            "ASKING",
            "EVAL|return redis.call('MGET', '$o', '{$o}2')|1|$o",
        ],
        "|",
    );
}

#[test]
fn scripts_in_transactions_are_routed_with_them() {
    let (servers, _folders) = servers(&primary(), PARTLY);
    servers.iter().for_each(|server| await_state(server, "ok"));
    agree_on(
        &servers,
        &[
            "MULTI",
            "EVAL|return redis.call('SET', KEYS[1], 1)|1|$m",
            "GET|$m",
            "EXEC",
            "MULTI",
            "EVAL|return redis.call('SET', KEYS[1], 1)|1|$o",
            "EXEC",
            "MULTI",
            "EVAL|return redis.call('SET', KEYS[1], 1)|1|$m",
            "EVAL|return redis.call('SET', KEYS[1], 1)|1|$n",
            "EXEC",
        ],
        "|",
    );
}
