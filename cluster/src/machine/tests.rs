//! Tests of one machine, packet by packet: what it believes, what it refuses, what it answers.

use std::sync::Arc;

use super::*;
use crate::event::{BrokenRule, Command, CommandError, FailoverMode, Peer, Reply, TICK_MS};
use crate::node::host;
use crate::nodes_file;
use crate::slot::{Slot, SlotSet};
use crate::wire::{Extensions, Gossip, PingKind};

/// A primary with three others and a replica of its own (5) and of the second one (4).
const PRIMARY: &str = "\
0101010101010101010101010101010101010101 10.0.0.1:1@11001 myself,master - 0 0 1 connected 0-5000
0202020202020202020202020202020202020202 10.0.0.2:2@11002 master - 0 0 2 connected 5001-10000
0303030303030303030303030303030303030303 10.0.0.3:3@11003 master - 0 0 3 connected 10001-16383
0404040404040404040404040404040404040404 10.0.0.4:4@11004 slave 0202020202020202020202020202020202020202 0 0 2 connected
0505050505050505050505050505050505050505 10.0.0.5:5@11005 slave 0101010101010101010101010101010101010101 0 0 1 connected
vars currentEpoch 3 lastVoteEpoch 0
";

/// A node between tests and a machine: its time, and what the machine has asked for.
struct Bench {
    machine: Machine,
    now: Now,
    actions: Vec<Action>,
}

fn id(number: u8) -> NodeId {
    NodeId::new([number; 20])
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn slots(start: u16, end: u16) -> SlotSet {
    (start..=end).map(slot).collect()
}

fn bench_with(file: &str, options: Options) -> Bench {
    let now = Now {
        monotonic_ms: 1_000_000,
        unix_ms: 1_700_000_000_000,
    };
    let view = nodes_file::parse(file, now, options.is_tls, 1).unwrap().unwrap();
    let mut bench = Bench {
        machine: Machine::resume(view, id(1), options, now, 1),
        now,
        actions: Vec::new(),
    };
    bench.tick();
    bench.open_all();
    // A restarted primary works after a while.
    bench.pass(2_100);
    bench.actions.clear();
    bench
}

fn bench() -> Bench {
    bench_with(PRIMARY, Options::default())
}

/// The same cluster as the replica of the second primary sees it.
fn replica() -> Bench {
    let file = PRIMARY
        .replace("myself,", "")
        .replace(" slave 02", " myself,slave 02");
    bench_with(&file, Options::default())
}

impl Bench {
    fn handle(&mut self, event: Event) {
        let mut actions = Actions::new();
        self.machine.handle(self.now, event, &mut actions);
        self.actions.extend(actions.drain());
    }

    fn tick(&mut self) {
        self.now.monotonic_ms += TICK_MS;
        self.now.unix_ms += TICK_MS;
        self.handle(Event::Tick);
    }

    fn open_all(&mut self) {
        let numbers: Vec<u64> = self.machine.outbound.keys().copied().collect();
        numbers
            .into_iter()
            .for_each(|number| self.handle(Event::LinkUp(number)));
    }

    /// Lets time pass in which every node answers.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TICK_MS {
            self.tick();
            self.answer_all();
        }
    }

    fn answer_all(&mut self) {
        for key in self.machine.view.keys().to_vec() {
            let node = &mut self.machine.view[key];
            node.ping_sent_ms = 0;
            node.pong_received_ms = self.now.monotonic_ms;
            node.data_received_ms = self.now.monotonic_ms;
        }
    }

    fn view(&self) -> &View {
        &self.machine.view
    }

    fn key(&self, number: u8) -> NodeKey {
        self.view().find(&id(number)).unwrap()
    }

    fn node(&self, number: u8) -> &Node {
        &self.view()[self.key(number)]
    }

    fn fail(&mut self, number: u8) {
        let key = self.key(number);
        self.machine.mark_failed(key, &mut Actions::new());
    }

    /// A header as that node would send it.
    fn header(&self, number: u8) -> Header {
        let (key, view) = (self.key(number), self.view());
        let node = &view[key];
        let claimant = node.primary.unwrap_or(key);
        Header {
            port: node.address.tcp_port,
            other_port: 0,
            bus_port: node.address.bus_port,
            current_epoch: view.current_epoch,
            config_epoch: view[claimant].config_epoch,
            offset: 0,
            sender: node.id,
            slots: Arc::new(view.slots_of(claimant)),
            primary: node.primary.map(|primary| view[primary].id),
            ip: node.address.ip,
            flags: node.flags & Flags::TOLD,
            is_ok: true,
            manual: ManualFlags::empty(),
        }
    }

    fn receive(&mut self, header: Header, body: Body) {
        let number = u64::from(header.sender.bits()[0]);
        let packet = Box::new(Packet { header, body });
        let peer = Peer::default();
        self.handle(Event::Packet {
            link: LinkId::Inbound(number),
            peer,
            packet,
        });
    }

    fn command(&mut self, command: Command) -> Reply {
        self.handle(Event::Command { tag: 3, command });
        match self
            .actions
            .iter()
            .rfind(|action| matches!(action, Action::Reply { .. }))
        {
            Some(Action::Reply { tag: 3, reply }) => reply.clone(),
            other => panic!("no reply: {other:?}"),
        }
    }

    /// Packets to one node so far, whose bodies fit.
    fn sent(&self, fits: impl Fn(&Body) -> bool) -> usize {
        let fits = |action: &&Action| match action {
            Action::Send { packet, .. } | Action::Broadcast { packet, .. } => fits(&packet.body),
            _ => false,
        };
        self.actions.iter().filter(fits).count()
    }

    fn logs(&self) -> Vec<&str> {
        let mut logs = Vec::new();
        for action in &self.actions {
            if let Action::Log(_, text) = action {
                logs.push(text.as_str());
            }
        }
        logs
    }
}

fn ping() -> Body {
    ping_about(Vec::new())
}

fn ping_about(gossip: Vec<Gossip>) -> Body {
    Body::Ping {
        kind: PingKind::Ping,
        gossip,
        extensions: Extensions::default(),
    }
}

fn gossip(number: u8, flags: Flags) -> Gossip {
    Gossip {
        id: id(number),
        ping_sent_s: 0,
        pong_received_s: 0,
        ip: host(&format!("10.0.0.{number}")).unwrap(),
        port: number.into(),
        bus_port: 11_000 + u16::from(number),
        flags,
        other_port: 0,
    }
}

#[test]
fn strangers_are_not_heard() {
    let bodies = [
        Body::Fail(id(2)),
        Body::AuthRequest,
        Body::AuthAck,
        Body::ManualStart,
        Body::Update {
            id: id(2),
            config_epoch: 9,
            slots: Box::new(SlotSet::all()),
        },
        Body::Publish {
            is_sharded: false,
            channel: vec![1],
            message: vec![2],
        },
        ping_about(vec![
            gossip(9, Flags::PRIMARY),
            gossip(2, Flags::PRIMARY | Flags::FAIL),
        ]),
    ];
    for body in bodies {
        let mut bench = bench();
        let before = bench.view().nodes_text(bench.now, false);
        let mut header = bench.header(2);
        header.sender = id(77);
        header.current_epoch = 50;
        bench.receive(header, body.clone());
        assert_eq!(bench.view().nodes_text(bench.now, false), before, "{body:?}");
        assert_eq!(bench.view().current_epoch, 3);
        let answers = bench.sent(|body| {
            matches!(
                body,
                Body::Ping {
                    kind: PingKind::Pong,
                    ..
                }
            )
        });
        assert_eq!(
            answers,
            usize::from(matches!(body, Body::Ping { .. })),
            "{body:?}"
        );
    }
}

#[test]
fn a_node_does_not_believe_packets_in_its_own_name() {
    let mut bench = bench();
    let mut header = bench.header(1);
    header.config_epoch = 90;
    header.current_epoch = 90;
    header.slots = Arc::default();
    bench.receive(header, ping());
    let me = bench.view().me();
    assert_eq!(
        (me.slots, me.config_epoch, bench.view().current_epoch),
        (5_001, 1, 3)
    );
}

fn request(bench: &Bench) -> Header {
    let mut header = bench.header(4);
    header.current_epoch = 4;
    header
}

#[test]
fn a_vote_is_on_disk_before_it_leaves() {
    let mut bench = bench();
    bench.fail(2);
    bench.receive(request(&bench), Body::AuthRequest);
    assert!(
        matches!(bench.actions[0], Action::Save { is_durable: true }),
        "{:?}",
        bench.actions
    );
    assert_eq!(bench.sent(|body| *body == Body::AuthAck), 1);
    assert_eq!(bench.view().last_vote_epoch, 4);
    let again = request(&bench);
    bench.receive(again, Body::AuthRequest);
    assert_eq!(
        bench.sent(|body| *body == Body::AuthAck),
        1,
        "one vote in an epoch"
    );
}

#[test]
fn a_vote_is_refused_with_a_reason() {
    type Change = fn(&mut Bench, &mut Header);
    let cases: [(&str, Change); 5] = [
        ("its master is up", |bench, _| {
            let key = bench.key(2);
            bench.machine.view[key].flags.remove(Flags::FAIL);
        }),
        ("reqEpoch (2) < curEpoch(3)", |_, header| header.current_epoch = 2),
        ("slot 5001 epoch (2) > reqEpoch (1)", |_, header| {
            header.config_epoch = 1;
        }),
        ("already voted for epoch 4", |bench, _| {
            bench.machine.view.last_vote_epoch = 4;
        }),
        ("it is a master node", |bench, header| {
            *header = Header {
                current_epoch: 4,
                ..bench.header(3)
            }
        }),
    ];
    for (reason, change) in cases {
        let mut bench = bench();
        bench.fail(2);
        let mut header = request(&bench);
        change(&mut bench, &mut header);
        bench.receive(header, Body::AuthRequest);
        assert!(
            bench.logs().iter().any(|line| line.ends_with(reason)),
            "{reason}: {:?}",
            bench.logs()
        );
        assert_eq!(bench.sent(|body| *body == Body::AuthAck), 0, "{reason}");
    }
}

#[test]
fn a_vote_for_an_old_claim_is_noticed_if_the_rule_is_broken() {
    let broken = Some(BrokenRule::NoVoteForOldClaims);
    let mut bench = bench_with(
        PRIMARY,
        Options {
            broken,
            ..Options::default()
        },
    );
    bench.fail(2);
    let mut header = request(&bench);
    header.config_epoch = 1;
    bench.receive(header, Body::AuthRequest);
    assert_eq!(bench.sent(|body| *body == Body::AuthAck), 1);
}

#[test]
fn a_forced_vote_needs_no_failure() {
    let mut bench = bench();
    let mut header = request(&bench);
    header.manual = ManualFlags::FORCE_ACK;
    bench.receive(header, Body::AuthRequest);
    assert_eq!(bench.sent(|body| *body == Body::AuthAck), 1);
}

#[test]
fn the_greater_epoch_gets_the_slot() {
    let mut bench = bench();
    let mut header = bench.header(2);
    header.slots = Arc::new(slots(5_000, 10_001));
    bench.receive(header.clone(), ping());
    // The third primary's epoch beats the second one's, this node's does not.
    assert_eq!(bench.view().owner(slot(5_000)), Some(bench.key(2)));
    assert_eq!(bench.view().owner(slot(10_001)), Some(bench.key(3)));
    let told =
        |body: &Body| matches!(body, Body::Update { id: owner, config_epoch: 3, .. } if *owner == id(3));
    assert_eq!(bench.sent(told), 1, "a beaten claim is answered");
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::DropKeys(lost) if lost.len() == 1))
    );
}

#[test]
fn a_slot_that_its_owner_gave_up_is_anybodys() {
    let mut bench = bench();
    let mut header = bench.header(3);
    header.slots = Arc::new(slots(10_002, 16_383));
    bench.receive(header, ping());
    assert_eq!(
        bench.view().owner(slot(10_001)),
        Some(bench.key(3)),
        "clients still find it"
    );
    let mut header = bench.header(2);
    header.slots = Arc::new(slots(5_001, 10_001));
    bench.receive(header, ping());
    assert_eq!(bench.view().owner(slot(10_001)), Some(bench.key(2)));
}

#[test]
fn a_slot_that_was_given_up_can_be_claimed_again() {
    let mut bench = bench();
    let whole = bench.header(3);
    let mut part = whole.clone();
    part.slots = Arc::new(slots(10_002, 16_383));
    bench.receive(part, ping());
    assert!(bench.view().is_unclaimed(slot(10_001)));
    bench.receive(whole, ping());
    assert!(!bench.view().is_unclaimed(slot(10_001)));
}

#[test]
fn a_slot_on_its_way_here_stays_with_its_owner() {
    let mut bench = bench();
    assert_eq!(
        bench.command(Command::SetSlotImporting(slot(6_000), id(2))),
        Reply::Ok
    );
    let mut header = bench.header(3);
    header.slots = Arc::new(slots(6_000, 6_000));
    bench.receive(header, ping());
    assert_eq!(bench.view().owner(slot(6_000)), Some(bench.key(2)));
}

#[test]
fn a_packet_that_was_overtaken_demotes_nobody() {
    let mut bench = bench();
    let mut late = bench.header(4);
    late.current_epoch = 3;
    let mut promoted = bench.header(4);
    (promoted.primary, promoted.config_epoch, promoted.current_epoch) = (None, 4, 4);
    bench.receive(promoted, ping());
    assert!(bench.node(4).is_voter() && bench.node(2).slots == 0);
    bench.receive(late, ping());
    assert!(
        bench.node(4).is_voter(),
        "its own late packet says that it is a replica"
    );
}

#[test]
fn the_last_slot_lost_makes_a_replica() {
    let mut bench = bench();
    let mut header = bench.header(5);
    (header.primary, header.config_epoch, header.current_epoch) = (None, 4, 4);
    bench.receive(header, ping());
    assert_eq!(bench.view().me().primary, Some(bench.key(5)));
    let follows = |action: &Action| matches!(action, Action::Replicate { primary, .. } if *primary == id(5));
    assert!(bench.actions.iter().any(follows));
    assert!(
        !bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::DropKeys(_)))
    );
}

#[test]
fn equal_epochs_part() {
    for (number, epoch) in [(2, 4), (3, 4)] {
        let mut bench = bench();
        let mut header = bench.header(number);
        header.config_epoch = 1;
        bench.receive(header, ping());
        assert_eq!(
            bench.view().me().config_epoch,
            epoch,
            "the smaller name takes a new one"
        );
    }
    let file = PRIMARY
        .replace("myself,", "")
        .replace("master - 0 0 3", "myself,master - 0 0 3");
    let mut bench = bench_with(&file, Options::default());
    let mut header = bench.header(1);
    header.config_epoch = 3;
    bench.receive(header, ping());
    assert_eq!(bench.view().me().config_epoch, 3, "the greater name waits");
}

#[test]
fn an_update_is_taken_only_if_it_is_newer() {
    for (config_epoch, owner) in [(2, 2), (3, 2), (4, 3)] {
        let mut bench = bench();
        let slots = Box::new(slots(6_000, 16_383));
        bench.receive(
            bench.header(2),
            Body::Update {
                id: id(3),
                config_epoch,
                slots,
            },
        );
        assert_eq!(
            bench.view().owner(slot(6_000)),
            Some(bench.key(owner)),
            "epoch {config_epoch}"
        );
    }
}

#[test]
fn a_majority_of_reports_fails_a_node() {
    let mut bench = bench();
    let about_3 = || ping_about(vec![gossip(3, Flags::PRIMARY | Flags::PFAIL)]);
    bench.receive(bench.header(4), about_3());
    assert_eq!(
        bench.command(Command::CountFailureReports(id(3))),
        Reply::Number(0),
        "a replica has no say"
    );
    bench.receive(bench.header(2), about_3());
    assert_eq!(
        bench.command(Command::CountFailureReports(id(3))),
        Reply::Number(1)
    );
    assert!(!bench.node(3).is_failing(), "this node hears it");
    let key = bench.key(3);
    bench.machine.suspect(key, &mut Actions::new());
    assert!(bench.node(3).is_failed());
}

#[test]
fn reports_grow_old() {
    let mut bench = bench();
    bench.receive(
        bench.header(2),
        ping_about(vec![gossip(3, Flags::PRIMARY | Flags::PFAIL)]),
    );
    bench.pass(30_100);
    assert_eq!(
        bench.command(Command::CountFailureReports(id(3))),
        Reply::Number(0)
    );
}

/// Nobody has to ask for the count before an old report stops to matter.
#[test]
fn an_old_report_fails_nobody() {
    let mut bench = bench();
    let about_3 = || ping_about(vec![gossip(3, Flags::PRIMARY | Flags::PFAIL)]);
    bench.receive(bench.header(2), about_3());
    bench.answer_all();
    bench.pass(30_100);
    let key = bench.key(3);
    bench.machine.suspect(key, &mut Actions::new());
    assert!(!bench.node(3).is_failed(), "one of three suspects it now");
    bench.receive(bench.header(2), about_3());
    assert!(bench.node(3).is_failed());
}

/// Shards that differ between a replica and its primary, on the wire or in an old file, must not stay so: clients would see a
/// primary without replicas, and messages of sharded channels would not reach them.
#[test]
fn a_replica_is_of_its_primarys_shard_whatever_it_says() {
    let mut bench = bench();
    let says = |shard| Body::Ping {
        kind: PingKind::Ping,
        gossip: Vec::new(),
        extensions: Extensions {
            shard: Some(id(shard)),
            ..Extensions::default()
        },
    };
    bench.receive(bench.header(2), says(0xaa));
    bench.receive(bench.header(4), says(0xbb));
    let shard = |bench: &Bench, number| bench.view().shard_of(bench.key(number));
    assert_eq!([2, 4].map(|number| shard(&bench, number)), [id(0xaa); 2]);
    let file = nodes_file::print(bench.view(), bench.now, false);
    assert!(!file.contains(&id(0xbb).to_string()), "{file}");
    let old = file.replacen(&id(0xaa).to_string(), &id(0xcc).to_string(), 1);
    let bench = bench_with(&old, Options::default());
    assert_eq!(shard(&bench, 2), shard(&bench, 4), "{old}");
    // A replica that is promoted keeps the shard of the others.
    let mut bench = bench;
    let shard_before = shard(&bench, 2);
    let mut promoted = bench.header(4);
    (promoted.primary, promoted.config_epoch, promoted.current_epoch) = (None, 4, 4);
    bench.receive(promoted, ping());
    assert_eq!(shard(&bench, 4), shard_before);
}

/// Data of one shard are no data of another one, whatever their offset.
#[test]
fn whoever_changes_the_shard_is_told_so() {
    let mut bench = replica();
    let foreign = |bench: &Bench| {
        bench.actions.iter().rev().find_map(|action| match action {
            Action::Replicate { is_foreign, .. } => Some(*is_foreign),
            _ => None,
        })
    };
    let order = |primary| Command::Replicate {
        primary,
        has_keys: true,
    };
    assert_eq!(bench.command(order(id(3))), Reply::Ok);
    assert_eq!(foreign(&bench), Some(true));
    // A sibling that takes the primary's place goes on with its data.
    let file = PRIMARY
        .replace("myself,", "")
        .replace(" slave 02", " myself,slave 02")
        .replace(&format!(" slave {}", id(1)), &format!(" slave {}", id(2)));
    let mut bench = bench_with(&file, Options::default());
    let in_shard = Body::Ping {
        kind: PingKind::Ping,
        gossip: Vec::new(),
        extensions: Extensions {
            shard: Some(bench.view().shard_of(bench.key(2))),
            ..Extensions::default()
        },
    };
    bench.receive(bench.header(5), in_shard.clone());
    bench.fail(2);
    let mut promoted = bench.header(5);
    (promoted.primary, promoted.config_epoch, promoted.current_epoch) = (None, 4, 4);
    bench.receive(promoted, in_shard);
    assert_eq!(bench.view().me().primary, Some(bench.key(5)));
    assert_eq!(foreign(&bench), Some(false));
}

#[test]
fn a_primary_that_is_back_is_believed_after_a_while() {
    let mut bench = bench();
    bench.fail(3);
    let key = bench.key(3);
    bench.machine.receive_pong(key, &mut Actions::new());
    assert!(bench.node(3).is_failed(), "a replica may be taking over");
    bench.pass(30_100);
    bench.machine.receive_pong(key, &mut Actions::new());
    assert!(!bench.node(3).is_failed());
}

#[test]
fn a_minority_stops_and_waits_before_it_goes_on() {
    let mut bench = bench();
    assert!(bench.view().is_ok);
    for number in [2, 3] {
        let key = bench.key(number);
        bench.machine.suspect(key, &mut Actions::new());
    }
    bench.tick();
    assert!(!bench.view().is_ok);
    for number in [2, 3] {
        let key = bench.key(number);
        bench.machine.receive_pong(key, &mut Actions::new());
    }
    bench.pass(4_900);
    assert!(!bench.view().is_ok, "others may have news");
    bench.pass(300);
    assert!(bench.view().is_ok);
}

#[test]
fn full_coverage_is_a_choice() {
    for (require_full_coverage, is_ok) in [(true, false), (false, true)] {
        let mut bench = bench_with(
            PRIMARY,
            Options {
                require_full_coverage,
                ..Options::default()
            },
        );
        bench.command(Command::DelSlots(vec![slot(0)..=slot(0)]));
        assert_eq!(bench.view().is_ok, is_ok);
    }
}

#[test]
fn a_node_that_did_not_run_stops_at_once() {
    let mut bench = bench();
    bench.now.monotonic_ms += 20_000;
    assert!(bench.machine.is_stale(bench.now));
    bench.tick();
    assert!(!bench.view().is_ok && !bench.machine.is_stale(bench.now));
    assert!(
        bench.view().nodes().all(|(_, node)| !node.is_failing()),
        "its absence is not theirs"
    );
}

#[test]
fn somebody_else_at_an_address_is_not_the_node() {
    let mut bench = bench();
    let number = bench.node(2).outbound.unwrap().number;
    let mut header = bench.header(2);
    header.sender = id(66);
    let body = Body::Ping {
        kind: PingKind::Pong,
        gossip: Vec::new(),
        extensions: Extensions::default(),
    };
    let packet = Box::new(Packet { header, body });
    bench.handle(Event::Packet {
        link: LinkId::Outbound(number),
        peer: Peer::default(),
        packet,
    });
    assert!(bench.node(2).flags.contains(Flags::NOADDR) && bench.node(2).outbound.is_none());
    // It is found again where it calls from.
    let header = Header {
        ip: host("10.9.9.9").unwrap(),
        ..bench.header(2)
    };
    bench.receive(header, ping());
    assert_eq!(bench.node(2).address.ip.as_str(), "10.9.9.9");
}

#[test]
fn handshakes_have_a_bound_and_an_end() {
    let mut bench = bench();
    let meet = Body::Ping {
        kind: PingKind::Meet,
        gossip: Vec::new(),
        extensions: Extensions::default(),
    };
    for number in 0..2_000u16 {
        let mut header = bench.header(2);
        header.sender = NodeId::new([200; 20]);
        header.ip = host(&format!("10.1.{}.{}", number / 256, number % 256)).unwrap();
        bench.receive(header, meet.clone());
    }
    assert_eq!(bench.view().len(), 5 + handshake::HANDSHAKES_MAX);
    bench.pass(15_200);
    assert_eq!(bench.view().len(), 5);
    assert_eq!(bench.machine.outbound.len(), 4);
}

#[test]
fn a_forgotten_node_is_banned_for_a_minute() {
    let mut bench = bench();
    assert_eq!(bench.command(Command::Forget(id(3))), Reply::Ok);
    let told =
        |body: &Body| matches!(body, Body::Ping { extensions, .. } if !extensions.forgotten.is_empty());
    assert!(bench.sent(told) > 0, "the others are told");
    let news = || ping_about(vec![gossip(3, Flags::PRIMARY)]);
    bench.receive(bench.header(2), news());
    assert_eq!(bench.view().find(&id(3)), None);
    assert_eq!(
        bench.command(Command::Forget(id(3))),
        Reply::Ok,
        "it is forgotten already"
    );
    bench.pass(60_100);
    bench.receive(bench.header(2), news());
    assert!(bench.view().find(&id(3)).is_some());
}

#[test]
fn commands_are_refused_with_the_texts_of_redis() {
    let range = |number| vec![slot(number)..=slot(number)];
    for (command, text) in [
        (Command::AddSlots(range(7)), "ERR Slot 7 is already busy"),
        (
            Command::DelSlots(vec![slot(1)..=slot(3), slot(2)..=slot(2)]),
            "ERR Slot 2 specified multiple times",
        ),
        (
            Command::Forget(id(1)),
            "ERR I tried hard but I can't forget myself...",
        ),
        (
            Command::Forget(id(9)),
            "ERR Unknown node 0909090909090909090909090909090909090909",
        ),
        (
            Command::SetSlotMigrating(slot(9_000), id(2)),
            "ERR I'm not the owner of hash slot 9000",
        ),
        (
            Command::SetSlotImporting(slot(1), id(2)),
            "ERR I'm already the owner of hash slot 1",
        ),
        (
            Command::SetSlotMigrating(slot(1), id(4)),
            "ERR Target node is not a master",
        ),
        (
            Command::SetSlotMigrating(slot(1), id(9)),
            "ERR I don't know about node 0909090909090909090909090909090909090909",
        ),
        (
            Command::SetSlotNode {
                slot: slot(1),
                node: id(2),
                has_keys: true,
            },
            "ERR Can't assign hashslot 1 to a different node while I still hold keys for this hash slot.",
        ),
        (
            Command::Replicate {
                primary: id(1),
                has_keys: false,
            },
            "ERR Can't replicate myself",
        ),
        (
            Command::Replicate {
                primary: id(4),
                has_keys: false,
            },
            "ERR I can only replicate a master, not a replica.",
        ),
        (
            Command::Replicate {
                primary: id(2),
                has_keys: false,
            },
            "ERR To set a master the node must be empty and without assigned slots.",
        ),
        (
            Command::Failover(FailoverMode::Agreed),
            "ERR You should send CLUSTER FAILOVER to a replica",
        ),
        (
            Command::SetConfigEpoch(7),
            "ERR The user can assign a config epoch only when the node does not know any other node.",
        ),
        (
            Command::Reset {
                hard: None,
                shard: id(8),
                has_keys: true,
            },
            "ERR CLUSTER RESET can't be called with master nodes containing keys",
        ),
        (
            Command::Meet {
                ip: host("nowhere").unwrap(),
                port: 1,
                bus_port: 2,
            },
            "ERR Invalid node address specified: nowhere:1",
        ),
        (
            Command::FlushSlots { has_keys: true },
            "ERR DB must be empty to perform CLUSTER FLUSHSLOTS.",
        ),
    ] {
        let mut bench = bench();
        let before = bench.view().nodes_text(bench.now, false);
        let reply = bench.command(command.clone());
        let Reply::Error(error) = reply else {
            panic!("{command:?}: {reply:?}")
        };
        assert_eq!(error.to_string(), text);
        assert_eq!(
            bench.view().nodes_text(bench.now, false),
            before,
            "nothing is done in part: {command:?}"
        );
    }
    let mut bench = replica();
    assert_eq!(
        bench.command(Command::SetSlotStable(slot(1))),
        Reply::Error(CommandError::SetSlotOnReplica)
    );
    assert_eq!(
        bench.command(Command::Forget(id(2))),
        Reply::Error(CommandError::ForgetsItsPrimary)
    );
}

#[test]
fn the_target_of_a_slot_takes_a_new_epoch() {
    let mut bench = bench();
    bench.command(Command::SetSlotImporting(slot(9_000), id(2)));
    let done = Command::SetSlotNode {
        slot: slot(9_000),
        node: id(1),
        has_keys: true,
    };
    assert_eq!(bench.command(done), Reply::Ok);
    let view = bench.view();
    assert_eq!(
        (view.me().config_epoch, view.current_epoch, view.importing().len()),
        (4, 4, 0)
    );
    assert!(
        bench.sent(|body| matches!(
            body,
            Body::Ping {
                kind: PingKind::Pong,
                ..
            }
        )) > 0
    );
    assert_eq!(
        bench.command(Command::BumpEpoch),
        Reply::Status("STILL 4".to_owned())
    );
}

/// As redis-cli gives a slot of two owners to one of them: the other must not hear of it before it has been told to import the slot,
/// or it would delete its keys.
#[test]
fn slots_that_are_ordered_about_are_not_told_at_once() {
    let mut bench = bench();
    let one = || vec![slot(9_000)..=slot(9_000)];
    for command in [
        Command::DelSlots(one()),
        Command::AddSlots(one()),
        Command::SetSlotStable(slot(9_000)),
        Command::BumpEpoch,
    ] {
        bench.command(command);
    }
    let view = bench.view();
    assert_eq!(
        (view.owner(slot(9_000)), view.me().config_epoch),
        (Some(view.my_key()), 4)
    );
    let is_pong = |body: &Body| {
        matches!(
            body,
            Body::Ping {
                kind: PingKind::Pong,
                ..
            }
        )
    };
    assert_eq!(bench.sent(is_pong), 0);
}

#[test]
fn a_hard_reset_makes_a_new_node() {
    let mut bench = replica();
    let reset = Command::Reset {
        hard: Some(id(8)),
        shard: id(9),
        has_keys: true,
    };
    assert_eq!(bench.command(reset), Reply::Ok);
    let view = bench.view();
    assert_eq!(
        (view.len(), view.me().id, view.current_epoch, view.me().slots),
        (1, id(8), 0, 0)
    );
    assert!(view.me().is_primary() && view.slot_ranges().is_empty());
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::DropAll))
    );
    assert!(bench.machine.outbound.is_empty());
}

#[test]
fn keys_in_slots_of_nobody_are_adopted() {
    let mut bench = bench();
    bench.command(Command::DelSlots(vec![slot(3)..=slot(3)]));
    let with_keys = [slot(2), slot(3), slot(9_000)].into_iter().collect();
    assert_eq!(bench.command(Command::AdoptSlots(Box::new(with_keys))), Reply::Ok);
    assert_eq!(bench.view().owner(slot(3)), Some(bench.view().my_key()));
    assert_eq!(
        bench.view().importing().keys().copied().collect::<Vec<_>>(),
        [slot(9_000)]
    );
}

#[test]
fn a_primary_pauses_for_a_failover_and_goes_on_if_there_is_none() {
    let mut bench = bench();
    bench.receive(bench.header(4), Body::ManualStart);
    assert!(
        bench
            .actions
            .iter()
            .all(|action| !matches!(action, Action::PauseWrites { .. })),
        "not its replica"
    );
    bench.receive(bench.header(5), Body::ManualStart);
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::PauseWrites { .. }))
    );
    let is_paused = |action: &Action| matches!(action, Action::Send { packet, .. } if packet.header.manual.contains(ManualFlags::PAUSED));
    bench.tick();
    bench.receive(bench.header(5), ping());
    assert!(
        !bench.actions.iter().any(is_paused),
        "writes are still under way: the offset is not the last one"
    );
    bench.handle(Event::WritesPaused);
    assert!(bench.actions.iter().any(is_paused), "the offset is told");
    bench.pass(5_100);
    assert!(
        bench
            .actions
            .iter()
            .any(|action| matches!(action, Action::ResumeWrites))
    );
}

#[test]
fn a_paused_primary_is_a_replica_before_it_goes_on() {
    let mut bench = bench();
    bench.receive(bench.header(5), Body::ManualStart);
    let mut header = bench.header(5);
    (header.primary, header.config_epoch, header.current_epoch) = (None, 99, 99);
    bench.receive(header, ping());
    let place = |wanted: fn(&Action) -> bool| bench.actions.iter().position(wanted);
    let follows = place(|action| matches!(action, Action::Replicate { .. }));
    let goes_on = place(|action| matches!(action, Action::ResumeWrites));
    assert!(follows.is_some() && follows < goes_on, "{follows:?} {goes_on:?}");
}

#[test]
fn a_replica_waits_for_the_offset_of_its_primary() {
    let mut bench = replica();
    let facts = |replication_offset| {
        Event::Facts(Facts {
            replication_offset,
            data_as_of_ms: Some(1_000_000),
        })
    };
    bench.handle(facts(90));
    assert_eq!(bench.command(Command::Failover(FailoverMode::Agreed)), Reply::Ok);
    assert_eq!(bench.sent(|body| *body == Body::ManualStart), 1);
    let mut header = bench.header(2);
    (header.offset, header.manual) = (100, ManualFlags::PAUSED);
    bench.receive(header, ping());
    assert_eq!(bench.sent(|body| *body == Body::AuthRequest), 0);
    bench.handle(facts(100));
    assert_eq!(bench.sent(|body| *body == Body::AuthRequest), 1);
    assert!(bench.actions.iter().any(|action| matches!(
        action,
        Action::Broadcast { packet, .. } if packet.header.manual.contains(ManualFlags::FORCE_ACK)
    )));
}

#[test]
fn a_replica_with_old_data_does_not_run() {
    for (factor, age_ms, runs) in [(10, 174_000, true), (10, 176_000, false), (0, 900_000, true)] {
        let mut bench = replica();
        bench.machine.options.replica_validity_factor = factor;
        bench.fail(2);
        let data_as_of_ms = Some(bench.now.monotonic_ms - age_ms);
        bench.handle(Event::Facts(Facts {
            replication_offset: 5,
            data_as_of_ms,
        }));
        bench.tick();
        let starts = bench
            .logs()
            .iter()
            .any(|line| line.starts_with("Start of election"));
        assert_eq!(starts, runs, "data of {age_ms} ms ago");
    }
}

#[test]
fn votes_of_a_majority_promote() {
    let mut bench = replica();
    bench.fail(2);
    let data_as_of_ms = Some(bench.now.monotonic_ms);
    bench.handle(Event::Facts(Facts {
        replication_offset: 5,
        data_as_of_ms,
    }));
    bench.pass(1_200);
    assert_eq!(bench.sent(|body| *body == Body::AuthRequest), 1);
    bench.receive(bench.header(3), Body::AuthAck);
    bench.receive(bench.header(3), Body::AuthAck);
    assert!(bench.view().me().is_replica(), "one voter has one vote");
    bench.actions.clear();
    bench.receive(bench.header(1), Body::AuthAck);
    let me = bench.view().me();
    assert_eq!((me.is_primary(), me.slots, me.config_epoch), (true, 5_000, 4));
    let place = |fits: fn(&Action) -> bool| bench.actions.iter().position(fits).unwrap();
    assert_eq!(
        place(|action| matches!(action, Action::Save { is_durable: true })),
        0
    );
    let told = place(|action| matches!(action, Action::Broadcast { .. }));
    assert!(
        told < place(|action| matches!(action, Action::Promote)),
        "told before clients can write"
    );
}

#[test]
fn siblings_with_more_data_go_first() {
    let file = format!(
        "{}0606060606060606060606060606060606060606 10.0.0.6:6@11006 slave 0202020202020202020202020202020202020202 0 0 2 connected\n",
        PRIMARY
            .replace("myself,", "")
            .replace(" slave 02", " myself,slave 02")
    );
    let mut bench = bench_with(&file, Options::default());
    let mut header = bench.header(6);
    header.offset = 50;
    bench.receive(header, ping());
    bench.fail(2);
    let data_as_of_ms = Some(bench.now.monotonic_ms);
    bench.handle(Event::Facts(Facts {
        replication_offset: 40,
        data_as_of_ms,
    }));
    bench.tick();
    assert!(
        bench
            .logs()
            .iter()
            .any(|line| line.contains("(rank #1, offset 40)")),
        "{:?}",
        bench.logs()
    );
    bench.pass(1_400);
    assert_eq!(bench.sent(|body| *body == Body::AuthRequest), 0);
    bench.pass(700);
    assert_eq!(bench.sent(|body| *body == Body::AuthRequest), 1);
}

#[test]
fn ports_stand_in_the_order_of_the_bus() {
    for (is_tls, ports) in [(false, (1, 101)), (true, (101, 1))] {
        let mut options = Options {
            is_tls,
            ..Options::default()
        };
        options.announced.tcp_port = 1;
        options.announced.tls_port = 101;
        let mut bench = bench_with(PRIMARY, options);
        let header = bench.machine.header();
        assert_eq!((header.port, header.other_port), ports);
    }
}

#[test]
fn extensions_go_to_nodes_that_know_them() {
    let mut bench = bench();
    let shards = |bench: &Bench| {
        bench.sent(|body| matches!(body, Body::Ping { extensions, .. } if extensions.shard.is_some()))
    };
    bench.receive(bench.header(2), ping());
    let first = shards(&bench);
    bench.receive(bench.header(2), ping());
    assert_eq!(
        (first, shards(&bench)),
        (1, 1),
        "its first ping had none, so it knows none"
    );
    let extensions = Extensions {
        shard: Some(id(7)),
        ..Extensions::default()
    };
    bench.receive(
        bench.header(2),
        Body::Ping {
            kind: PingKind::Ping,
            gossip: Vec::new(),
            extensions,
        },
    );
    bench.receive(bench.header(2), ping());
    assert_eq!(bench.node(2).shard, Some(id(7)));
}

#[test]
fn reports_for_clients_are_plain_data() {
    let mut bench = bench();
    let mut header = bench.header(4);
    header.offset = 12;
    bench.receive(header, ping());
    bench.fail(3);
    let view = bench.view();
    let ranges = view.slot_ranges();
    assert_eq!(ranges.len(), 3);
    assert_eq!((ranges[1].start, ranges[1].end), (slot(5_001), slot(10_000)));
    assert_eq!(ranges[1].replicas, [bench.key(4)]);
    assert!(ranges[0].replicas.is_empty(), "a replica without data is no help");
    let health: Vec<String> = view
        .shards()
        .iter()
        .flat_map(|shard| shard.nodes.iter().map(|node| node.health.to_string()))
        .collect();
    assert_eq!(health, ["online", "loading", "online", "online", "fail"]);
    let info = view.info();
    assert_eq!(
        (
            info.slots_assigned,
            info.slots_fail,
            info.size,
            info.failures_survived
        ),
        (16_384, 6_383, 3, 1)
    );
    assert_eq!(view.links().count(), 5, "four to others, one from one of them");
    let text = view.nodes_text(bench.now, false);
    assert_eq!(text.lines().count(), 5);
    assert!(
        text.lines()
            .any(|line| line.ends_with(" connected 0-5000") && line.contains("myself,master"))
    );
}
