//! Command flags: properties of commands and conditions on running them, with the names in COMMAND INFO.

bitflags::bitflags! {
    /// The flags of a command row.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Flags: u32 {
        /// May change the keyspace.
        const WRITE = 1 << 0;
        /// Reads keys and changes nothing.
        const READONLY = 1 << 1;
        /// Refused while memory is above `maxmemory` and nothing can be evicted.
        const DENYOOM = 1 << 2;
        /// For operators.
        const ADMIN = 1 << 3;
        /// Belongs to publish and subscribe.
        const PUBSUB = 1 << 4;
        /// Not callable from a script.
        const NOSCRIPT = 1 << 5;
        /// Blocks the client when there is nothing to answer with.
        const BLOCKING = 1 << 6;
        /// Allowed while the dataset is being loaded.
        const LOADING = 1 << 7;
        /// Allowed on a replica whose data is stale.
        const STALE = 1 << 8;
        /// Not shown by MONITOR.
        const SKIP_MONITOR = 1 << 9;
        /// Not entered in the slow log.
        const SKIP_SLOWLOG = 1 << 10;
        /// Runs as if ASKING had been sent before it.
        const ASKING = 1 << 11;
        /// Of constant or logarithmic cost.
        const FAST = 1 << 12;
        /// Allowed before authentication.
        const NO_AUTH = 1 << 13;
        /// May replicate although it is no write command. Not shown to clients, as in Redis.
        const MAY_REPLICATE = 1 << 14;
        /// Its keys may be absent although it has key specifications.
        const NO_MANDATORY_KEYS = 1 << 15;
        /// Not allowed while the dataset is being loaded in the background.
        const NO_ASYNC_LOADING = 1 << 16;
        /// Not allowed inside MULTI.
        const NO_MULTI = 1 << 17;
        /// Allowed while a script runs for too long.
        const ALLOW_BUSY = 1 << 18;
        /// Its keys are not at fixed places: derived from the key specifications, never declared.
        const MOVABLE_KEYS = 1 << 19;
        /// Runs at once inside MULTI: it is about the transaction or the connection itself. Not shown to clients.
        const NOT_QUEUED = 1 << 20;
        /// Refused unless `enable-debug-command` allows it. Not shown to clients.
        const PROTECTED = 1 << 21;
        /// A RESP2 client that has subscribed may send it. Not shown to clients.
        const WHILE_SUBSCRIBED = 1 << 22;
        /// Its reply is a message like a published one, which CLIENT REPLY does not suppress. Not shown to clients.
        const PUSHES = 1 << 23;
        /// Ends subscriptions: no message that was published before may follow its reply. Not shown to clients.
        const LEAVES = 1 << 24;
        /// Changes the node in a way that others see, so that it must not overtake earlier commands of its client: it
        /// runs when those have been answered. Not shown to clients.
        const ORDERED = 1 << 25;
        /// Refused unless `enable-module-command` allows it. Not shown to clients.
        const MODULES = 1 << 26;
        /// Answered when all commands that were admitted before it have run, on every loop. Not shown to clients.
        const FENCES = 1 << 27;
        /// Fails like a write while data cannot be saved, so that whoever watches the node learns of it. Not shown to clients.
        const TELLS_HEALTH = 1 << 28;
        /// Its keys may be in another database than its client's. Not shown to clients.
        const ELSEWHERE = 1 << 29;
        /// Moves keys to another node: works on those that are here while their slot moves. Not shown to clients.
        const MIGRATES = 1 << 30;
        /// Uses the interpreter of its loop: waits while a script has that. Not shown to clients.
        const INTERPRETS = 1 << 31;
    }
}

impl Flags {
    /// Names of the set flags, as COMMAND INFO shows them.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .iter()
            .filter(move |(flag, _)| self.contains(*flag))
            .map(|(_, name)| *name)
    }
}

const NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::SKIP_SLOWLOG, "skip_slowlog"),
    (Flags::ASKING, "asking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLE_KEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_a_name_of_its_own() {
        let hidden = Flags::NOT_QUEUED
            | Flags::PROTECTED
            | Flags::MAY_REPLICATE
            | Flags::WHILE_SUBSCRIBED
            | Flags::PUSHES
            | Flags::LEAVES
            | Flags::ORDERED
            | Flags::MODULES
            | Flags::FENCES
            | Flags::TELLS_HEALTH
            | Flags::ELSEWHERE
            | Flags::MIGRATES
            | Flags::INTERPRETS;
        for flag in Flags::all().difference(hidden).iter() {
            assert_eq!(flag.names().count(), 1, "{flag:?}");
        }
    }
}
