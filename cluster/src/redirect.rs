//! Decides by the slots of its keys whether a node serves a command, and which redirect the client gets if it does
//! not.
//!
//! The decision is a pure function of the node's view of the cluster ([`SlotView`]) and of the client's state
//! ([`Asker`]). The texts of [`Redirect`] are part of the protocol: cluster clients act on them.
//!
//! While a slot moves it is open on both sides. Its owner still serves the keys that it has and sends clients to the
//! new node for the others (`ASK`); the new node serves only clients that announce that they were sent (`ASKING`). A
//! command whose keys are on both sides must wait (`TRYAGAIN`).

use std::fmt;

use crate::slot::Slot;

/// Address at which clients reach a node. IPv6 addresses stand without brackets; an empty host means the one that the
/// client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// An address or a name.
    pub host: &'a str,
    /// The port for clients.
    pub port: u16,
}

impl fmt::Display for Endpoint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Owner of a slot, as this node believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// This node.
    Me,
    /// The primary that this node is a replica of.
    MyPrimary(Endpoint<'a>),
    /// Any other node.
    Other(Endpoint<'a>),
    /// No node that is known.
    Nobody,
}

/// Whether a slot is on the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer<'a> {
    /// The slot is not being moved.
    Settled,
    /// From this node to another.
    Migrating(Endpoint<'a>),
    /// From another node to this one.
    Importing,
}

/// State of one slot, as this node believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState<'a> {
    /// Its owner.
    pub owner: Owner<'a>,
    /// Whether it moves. Only its owner can migrate it, so with any other owner `Migrating` means nothing.
    pub transfer: Transfer<'a>,
}

/// The cluster as this node believes it to be.
pub trait SlotView {
    /// About one slot.
    fn slot(&self, slot: Slot) -> SlotState<'_>;

    /// Whether the cluster as a whole can work: a majority is reachable, and all slots are served if they have to be.
    fn is_healthy(&self) -> bool;

    /// Whether reads are served although it cannot (`cluster-allow-reads-when-down`).
    fn serves_reads_when_down(&self) -> bool;

    /// Whether sharded publish and subscribe go on although it cannot (`cluster-allow-pubsubshard-when-down`).
    fn serves_shard_channels_when_down(&self) -> bool;
}

/// The client that asks, as far as the decision depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// The command, or one in the transaction, may write.
    pub writes: bool,
    /// The connection has said `READONLY`: a replica may answer it.
    pub reads_replicas: bool,
    /// The connection has just said `ASKING`, or the command implies it.
    pub asking: bool,
    /// The keys are sharded channels: they exist wherever their slot does.
    pub shard_channels: bool,
    /// The command is `MIGRATE`, which works on whatever is here while a slot is open.
    pub migrates: bool,
}

/// Presence of a command's keys on this node. Asked for only while a slot is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysHere {
    /// Keys that exist, each as often as it is named.
    pub present: usize,
    /// Keys that do not, likewise.
    pub missing: usize,
    /// Whether two of them differ.
    pub several: bool,
}

/// Reason for which a node does not serve a command. `Display` gives the line of the error, its code first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redirect<'a> {
    /// Another node owns the slot, now and later.
    Moved {
        /// The slot.
        slot: Slot,
        /// Its owner.
        to: Endpoint<'a>,
    },
    /// Another node serves this one command, if it is told `ASKING`.
    Ask {
        /// The slot.
        slot: Slot,
        /// The node it moves to.
        to: Endpoint<'a>,
    },
    /// Some of the keys are on one side of a move, others on the other side.
    TryAgain,
    /// The keys are not all in one slot.
    CrossSlot,
    /// The slot has no owner.
    Unserved,
    /// The cluster cannot work.
    Down,
    /// The cluster cannot work; what only reads is served.
    DownForWrites,
}

impl fmt::Display for Redirect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Redirect::Moved { slot, to } => return write!(f, "MOVED {slot} {to}"),
            Redirect::Ask { slot, to } => return write!(f, "ASK {slot} {to}"),
            Redirect::TryAgain => "TRYAGAIN Multiple keys request during rehashing of slot",
            Redirect::CrossSlot => "CROSSSLOT Keys in request don't hash to the same slot",
            Redirect::Unserved => "CLUSTERDOWN Hash slot not served",
            Redirect::Down => "CLUSTERDOWN The cluster is down",
            Redirect::DownForWrites => "CLUSTERDOWN The cluster is down and only accepts read commands",
        })
    }
}

impl std::error::Error for Redirect<'_> {}

/// Decides whether this node serves a command whose keys are in `slots`, one for each key. A command without keys is
/// always served. `keys_here` is called at most once, and only if the slot is open.
///
/// # Errors
/// The error for the client. If there are several, the first of these: an unserved slot (of the first key), keys in
/// several slots, a cluster that is down, the state of an open slot, the wrong node.
#[inline]
pub fn decide<'a, V: SlotView>(
    slots: impl IntoIterator<Item = Slot>,
    view: &'a V,
    asker: Asker,
    keys_here: impl FnOnce() -> KeysHere,
) -> Result<(), Redirect<'a>> {
    let mut slots = slots.into_iter();
    let Some(slot) = slots.next() else {
        return Ok(());
    };
    let state = view.slot(slot);
    if state.owner == Owner::Nobody {
        return Err(Redirect::Unserved);
    }
    if slots.any(|other| other != slot) {
        return Err(Redirect::CrossSlot);
    }
    if !view.is_healthy() {
        serve_when_down(view, asker)?;
    }
    match (state.transfer, state.owner) {
        (Transfer::Settled, _) => {}
        (Transfer::Migrating(to), Owner::Me) => return serve_migrating(slot, to, asker, keys_here),
        (Transfer::Migrating(_), _) => {}
        (Transfer::Importing, _) if asker.migrates => return Ok(()),
        (Transfer::Importing, _) if asker.asking => return serve_importing(asker, keys_here),
        (Transfer::Importing, _) => {}
    }
    match state.owner {
        Owner::Me => Ok(()),
        Owner::MyPrimary(_) if (asker.reads_replicas || asker.shard_channels) && !asker.writes => Ok(()),
        Owner::MyPrimary(to) | Owner::Other(to) => Err(Redirect::Moved { slot, to }),
        Owner::Nobody => Err(Redirect::Unserved),
    }
}

/// Decides whether a command runs while the cluster as a whole cannot work.
fn serve_when_down<'a, V: SlotView>(view: &V, asker: Asker) -> Result<(), Redirect<'a>> {
    if asker.shard_channels {
        return if view.serves_shard_channels_when_down() {
            Ok(())
        } else {
            Err(Redirect::Down)
        };
    }
    match (view.serves_reads_when_down(), asker.writes) {
        (true, false) => Ok(()),
        (true, true) => Err(Redirect::DownForWrites),
        (false, _) => Err(Redirect::Down),
    }
}

/// The slot is this node's, and moves to another: keys that are missing here may be there already.
fn serve_migrating<'a>(
    slot: Slot,
    to: Endpoint<'a>,
    asker: Asker,
    keys_here: impl FnOnce() -> KeysHere,
) -> Result<(), Redirect<'a>> {
    if asker.migrates || asker.shard_channels {
        return Ok(());
    }
    match keys_here() {
        KeysHere { missing: 0, .. } => Ok(()),
        KeysHere { present: 0, .. } => Err(Redirect::Ask { slot, to }),
        _ => Err(Redirect::TryAgain),
    }
}

/// Decides for a slot that moves to this node: clients that were sent here are served. A single key may be created
/// here; several keys must all have arrived, as the missing ones may still be at the old owner.
fn serve_importing<'a>(asker: Asker, keys_here: impl FnOnce() -> KeysHere) -> Result<(), Redirect<'a>> {
    if asker.shard_channels {
        return Ok(());
    }
    match keys_here() {
        KeysHere {
            several: true,
            missing: 1..,
            ..
        } => Err(Redirect::TryAgain),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: Endpoint<'_> = Endpoint {
        host: "127.0.0.1",
        port: 6381,
    };
    const NEXT: Endpoint<'_> = Endpoint {
        host: "::1",
        port: 7000,
    };

    /// One slot's state stands for all slots'.
    struct View {
        state: SlotState<'static>,
        healthy: bool,
        reads_when_down: bool,
        channels_when_down: bool,
    }

    impl SlotView for View {
        fn slot(&self, _slot: Slot) -> SlotState<'_> {
            self.state
        }
        fn is_healthy(&self) -> bool {
            self.healthy
        }
        fn serves_reads_when_down(&self) -> bool {
            self.reads_when_down
        }
        fn serves_shard_channels_when_down(&self) -> bool {
            self.channels_when_down
        }
    }

    fn view(owner: Owner<'static>, transfer: Transfer<'static>) -> View {
        let state = SlotState { owner, transfer };
        View {
            state,
            healthy: true,
            reads_when_down: false,
            channels_when_down: false,
        }
    }

    const READ: Asker = Asker {
        writes: false,
        reads_replicas: false,
        asking: false,
        shard_channels: false,
        migrates: false,
    };
    const WRITE: Asker = Asker { writes: true, ..READ };
    const READONLY: Asker = Asker {
        reads_replicas: true,
        ..READ
    };
    const ASKING: Asker = Asker {
        asking: true,
        ..WRITE
    };
    const MIGRATE: Asker = Asker {
        migrates: true,
        ..WRITE
    };
    const CHANNEL: Asker = Asker {
        shard_channels: true,
        ..READ
    };

    const MOVED: &str = "MOVED 3999 127.0.0.1:6381";
    const ASK: &str = "ASK 3999 ::1:7000";
    const TRY_AGAIN: &str = "TRYAGAIN Multiple keys request during rehashing of slot";
    const SERVED: &str = "";

    /// Text a client gets for keys in slot 3999; empty if they are served.
    fn told(view: &View, asker: Asker, keys: KeysHere) -> String {
        let slot = Slot::new(3999).unwrap();
        let slots = std::iter::repeat_n(slot, keys.present + keys.missing);
        decide(slots, view, asker, || keys).map_or_else(|redirect| redirect.to_string(), |()| String::new())
    }

    fn keys(present: usize, missing: usize) -> KeysHere {
        KeysHere {
            present,
            missing,
            several: present + missing > 1,
        }
    }

    #[test]
    fn settled_slots_are_served_by_their_owner() {
        for (owner, asker, expected) in [
            (Owner::Me, READ, SERVED),
            (Owner::Me, ASKING, SERVED),
            (Owner::Other(ELSEWHERE), READ, MOVED),
            (Owner::Other(ELSEWHERE), READONLY, MOVED),
            (Owner::Other(ELSEWHERE), ASKING, MOVED),
            (Owner::Other(ELSEWHERE), MIGRATE, MOVED),
            (Owner::Other(ELSEWHERE), CHANNEL, MOVED),
            (Owner::MyPrimary(ELSEWHERE), READ, MOVED),
            (Owner::MyPrimary(ELSEWHERE), WRITE, MOVED),
            (Owner::MyPrimary(ELSEWHERE), READONLY, SERVED),
            (
                Owner::MyPrimary(ELSEWHERE),
                Asker {
                    writes: true,
                    ..READONLY
                },
                MOVED,
            ),
            (Owner::MyPrimary(ELSEWHERE), CHANNEL, SERVED),
            (Owner::Nobody, READ, "CLUSTERDOWN Hash slot not served"),
        ] {
            let view = view(owner, Transfer::Settled);
            assert_eq!(told(&view, asker, keys(0, 2)), expected, "{owner:?} {asker:?}");
        }
    }

    #[test]
    fn open_slots_are_served_by_both_sides() {
        let migrating = view(Owner::Me, Transfer::Migrating(NEXT));
        let importing = view(Owner::Other(ELSEWHERE), Transfer::Importing);
        let taken_over = view(Owner::Me, Transfer::Importing);
        let stale = view(Owner::Other(ELSEWHERE), Transfer::Migrating(NEXT));
        let twice = KeysHere {
            present: 0,
            missing: 2,
            several: false,
        };
        for (view, asker, keys, expected) in [
            (&migrating, READ, keys(1, 0), SERVED),
            (&migrating, WRITE, keys(2, 0), SERVED),
            (&migrating, READ, keys(0, 1), ASK),
            (&migrating, ASKING, keys(0, 2), ASK),
            (&migrating, READ, keys(1, 1), TRY_AGAIN),
            (&migrating, MIGRATE, keys(1, 1), SERVED),
            (&migrating, CHANNEL, keys(0, 1), SERVED),
            (&importing, WRITE, keys(1, 0), MOVED),
            (&importing, ASKING, keys(0, 1), SERVED),
            (&importing, ASKING, twice, SERVED),
            (&importing, ASKING, keys(2, 0), SERVED),
            (&importing, ASKING, keys(1, 1), TRY_AGAIN),
            (&importing, ASKING, keys(0, 2), TRY_AGAIN),
            (&importing, MIGRATE, keys(0, 2), SERVED),
            (&importing, CHANNEL, keys(0, 1), MOVED),
            (
                &importing,
                Asker {
                    asking: true,
                    ..CHANNEL
                },
                keys(0, 2),
                SERVED,
            ),
            (&taken_over, READ, keys(0, 2), SERVED),
            (&stale, READ, keys(1, 0), MOVED),
            (&stale, MIGRATE, keys(1, 0), MOVED),
        ] {
            assert_eq!(
                told(view, asker, keys),
                expected,
                "{:?} {asker:?} {keys:?}",
                view.state
            );
        }
    }

    #[test]
    fn a_cluster_that_is_down_may_still_read() {
        const DOWN: &str = "CLUSTERDOWN The cluster is down";
        const DOWN_FOR_WRITES: &str = "CLUSTERDOWN The cluster is down and only accepts read commands";
        for (reads, channels, asker, expected) in [
            (false, false, READ, DOWN),
            (false, true, WRITE, DOWN),
            (true, false, READ, SERVED),
            (true, false, WRITE, DOWN_FOR_WRITES),
            (true, false, CHANNEL, DOWN),
            (false, true, CHANNEL, SERVED),
        ] {
            let mut view = view(Owner::Me, Transfer::Settled);
            (view.healthy, view.reads_when_down, view.channels_when_down) = (false, reads, channels);
            assert_eq!(
                told(&view, asker, keys(1, 0)),
                expected,
                "{reads} {channels} {asker:?}"
            );
            assert_eq!(told(&view, asker, keys(0, 0)), SERVED, "a command without keys");
        }
        // A reader is sent on to the owner all the same.
        let mut view = view(Owner::Other(ELSEWHERE), Transfer::Settled);
        (view.healthy, view.reads_when_down) = (false, true);
        assert_eq!(told(&view, READ, keys(1, 0)), MOVED);
    }

    #[test]
    fn keys_must_share_a_slot() {
        let slots = [1, 1, 2].map(|number| Slot::new(number).unwrap());
        let unseen = || -> KeysHere { panic!("nobody need look for keys") };
        let mut elsewhere = view(Owner::Other(ELSEWHERE), Transfer::Importing);
        elsewhere.healthy = false;
        let redirect = decide(slots, &elsewhere, READ, unseen).unwrap_err();
        assert_eq!(
            redirect.to_string(),
            "CROSSSLOT Keys in request don't hash to the same slot"
        );
        let unowned = view(Owner::Nobody, Transfer::Settled);
        assert_eq!(decide(slots, &unowned, READ, unseen), Err(Redirect::Unserved));
    }
}
