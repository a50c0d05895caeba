//! shardis
