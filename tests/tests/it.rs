//! Behaviour of a running server, seen from outside: one binary, so that everything is linked once.
//!
//! `scripts/test` builds the server and runs this; see `shardis_tests::node` for how the server is found.

#![expect(
    clippy::disallowed_methods,
    reason = "tests watch real processes, so they use the real clock"
)]

mod it {
    mod append_only;
    mod append_only_faults;
    mod append_only_load;
    mod append_only_rewrites;
    mod big_pipelines;
    mod blocking;
    mod blocking_account;
    mod blocking_random;
    mod blocking_removed;
    mod blocking_shards;
    mod client_limits;
    mod command_stats;
    mod commands;
    mod configuration;
    mod counters;
    mod crash_report;
    mod crashes;
    mod daemon;
    mod debug_command;
    mod descriptors;
    mod dialogues;
    mod differential;
    mod dump_restore;
    mod eviction_shares;
    mod exec_in_place;
    mod expiry;
    mod expiry_shards;
    mod file_faults;
    mod fresh_server;
    mod histories;
    mod info_fields;
    mod instruments;
    mod libraries;
    mod listening;
    mod load;
    mod loops;
    mod memory_limit;
    mod program;
    mod protocol_abuse;
    mod pubsub;
    mod rdb_files;
    mod redis_client;
    mod redis_py;
    mod reload;
    mod renamed_commands;
    mod reused_descriptors;
    mod saturated_shards;
    mod saving;
    mod saving_faults;
    mod saving_pressure;
    mod scan;
    mod server_replies;
    mod stock_modes;
    mod stock_tools;
    mod streams;
    mod tidy;
    mod transaction_queue;
    mod transaction_time;
    mod travelling_replies;
    mod turns;
    mod waiting_limits;
    mod waiting_memory;
}
