//! Crashes: clients write while the server is killed, by `kill -9` at a random moment, at a chosen operation on a file, or
//! with a loss of power, which takes what was not synced. The next server on the same files must have everything that it had
//! promised to keep, nothing that never was, and no part of a unit.
//!
//! Every client goes through the steps of its [`work::Work`] in order and notes when each was sent and answered, so that
//! the state found tells the last step that survived. That step must not lie before the last one that the policy
//! promises. Over all clients, what survived must be a past moment of the whole: if a step is lost, so is every step that
//! was sent after its reply.

mod work;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::client::{Client, encode};
use crate::faults::{Act, Fault, Faults, Operation};
use crate::info::figure;
use crate::process::{Launch, Process};
use crate::wait::wait_until;
use work::{Seen, Work};

/// Clients of each kind of work.
const CLIENTS_PER_KIND: usize = 2;
/// Keys that no client touches: they make saves take a while, and must all be there.
const BYSTANDERS: usize = 20_000;
/// Longest time for a server to die at a chosen operation; then it is killed.
const POINT_PATIENCE: Duration = Duration::from_millis(1500);
/// Longest time for a server to end after it was killed.
const END_PATIENCE: Duration = Duration::from_secs(20);
/// Time between two steps of a client.
const PAUSE: Duration = Duration::from_micros(300);

/// Promise of a server about what it has acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// `appendfsync always`.
    Always,
    /// `appendfsync everysec`.
    EverySecond,
    /// `appendfsync no`.
    No,
    /// No append-only file: what SAVE has saved.
    Saves,
}

/// End of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// `kill -9`.
    Kill,
    /// A loss of power.
    Power,
}

/// A series of crashes.
pub struct Plan<'a> {
    /// The server, with the options of the policy.
    pub launch: &'a dyn Fn() -> Launch,
    /// Its promise.
    pub policy: Policy,
    /// Number of crashes.
    pub rounds: u32,
    /// The longest time between start and crash.
    pub round_max: Duration,
    /// Loss of power besides kills.
    pub with_power: bool,
    /// Seed of everything that is random.
    pub seed: u64,
}

/// Figures of a series without a fault.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Steps that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged steps that were lost, as the policy allows.
    pub lost: u64,
    /// Crashes at a chosen operation on a file.
    pub at_points: u64,
    /// Bytes that losses of power took.
    pub power_bytes: u64,
}

impl Policy {
    /// All policies.
    pub const ALL: [Policy; 4] = [Policy::Always, Policy::EverySecond, Policy::No, Policy::Saves];

    /// The options of a server with this policy.
    #[must_use]
    pub fn options(self) -> Vec<&'static str> {
        let fsync = match self {
            Policy::Always => "always",
            Policy::EverySecond => "everysec",
            Policy::No => "no",
            Policy::Saves => return vec!["--appendonly", "no", "--save", ""],
        };
        vec!["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]
    }

    /// Age up to which an acknowledged step may be lost; none if any may.
    fn may_lose(self, crash: Crash) -> Option<Duration> {
        match (self, crash) {
            (Policy::Always, _) | (Policy::No, Crash::Kill) => Some(Duration::ZERO),
            // A write is held back while a sync is under way.
            (Policy::EverySecond, Crash::Kill) => Some(Duration::from_secs(2)),
            (Policy::EverySecond, Crash::Power) => Some(Duration::from_secs(3)),
            (Policy::No, Crash::Power) | (Policy::Saves, _) => None,
        }
    }

    /// Commands that write files of their own meanwhile.
    fn savers(self) -> &'static [&'static str] {
        match self {
            Policy::Saves => &["SAVE", "BGSAVE"],
            _ => &["BGREWRITEAOF", "BGREWRITEAOF", "BGSAVE"],
        }
    }

    /// Operations at which a server is killed: part of the file's name, and the highest number of the operation.
    fn points(self) -> &'static [(Operation, &'static str, u64)] {
        match self {
            Policy::Saves => &[
                (Operation::Open, "rdb", 2),
                (Operation::Write, "rdb", 20),
                (Operation::Sync, "rdb", 2),
                (Operation::Rename, "rdb", 2),
                (Operation::SyncDirectory, "*", 2),
            ],
            _ => &[
                (Operation::Write, "incr", 300),
                (Operation::Write, "incr", 10),
                (Operation::Sync, "incr", 10),
                (Operation::Open, "incr", 2),
                (Operation::Open, "manifest", 3),
                (Operation::Write, "manifest", 3),
                (Operation::Sync, "manifest", 3),
                (Operation::Rename, "manifest", 3),
                (Operation::Rename, "base", 2),
                (Operation::Rename, "incr", 2),
                (Operation::Sync, "temp", 4),
                (Operation::SyncDirectory, "*", 4),
                (Operation::Unlink, "*", 3),
            ],
        }
    }
}

/// One step of a client.
#[derive(Clone, Copy)]
struct Step {
    sent: Instant,
    /// Time at which its effect was known to somebody.
    acknowledged: Option<Instant>,
}

/// A client: its work, and its steps so far, of which step 1 is the first.
struct Worker {
    work: Work,
    steps: Vec<Step>,
    /// Error that the server sent in reply to a step.
    error: Option<String>,
}

/// The end of a round.
struct End {
    crash: Crash,
    at: Instant,
    /// Time before which everything was saved.
    saved: Option<Instant>,
}

/// Runs a series of crashes.
///
/// # Errors
/// The faults of the round that had some.
///
/// # Panics
/// When a server does not start again.
pub fn run(plan: &Plan<'_>) -> Result<Outcome, String> {
    let faults = Faults::new();
    let mut rng = SmallRng::seed_from_u64(plan.seed);
    let mut outcome = Outcome::default();
    let mut workers: Vec<Worker> = (0..CLIENTS_PER_KIND)
        .flat_map(|number| Work::all(number).map(Worker::new))
        .collect();
    let mut end = None;
    for round in 0..=plan.rounds {
        faults.clear();
        let mut server = faults.apply((plan.launch)()).serve();
        let mut client = server.connect();
        if let Some(end) = &end {
            let found = examine(&mut workers, end, plan.policy, &mut client, &mut outcome);
            found.map_err(|fault| format!("round {round}, {:?} {:?}: {fault}", plan.policy, end.crash))?;
        } else {
            fill(&mut client, plan.policy);
        }
        if round < plan.rounds {
            end = Some(run_round(
                plan,
                &mut server,
                &faults,
                &mut workers,
                &mut rng,
                &mut outcome,
            ));
            if let Some(worker) = workers.iter().find(|worker| worker.error.is_some()) {
                return Err(format!("round {round}: {worker}"));
            }
        }
    }
    Ok(outcome)
}

/// Stores the keys that no client touches.
fn fill(client: &mut Client, policy: Policy) {
    let mut requests = Vec::new();
    for number in 0..BYSTANDERS {
        encode(&mut requests, &["SET", &format!("bystander:{number}"), "value"]);
    }
    client.write(&requests).expect("the server reads");
    for _ in 0..BYSTANDERS {
        assert_eq!(client.read().expect("a reply").text(), "OK");
    }
    // They must be on disk: what has just been written may be lost by any policy but `always`.
    match policy {
        Policy::Saves => assert_eq!(client.call(&["SAVE"]).text(), "OK"),
        Policy::Always => {}
        Policy::EverySecond | Policy::No => {
            client.call(&["BGREWRITEAOF"]);
            wait_until("the base is written", || {
                figure(client, "aof_rewrite_in_progress") == 0
            });
        }
    }
}

/// Has the clients work until the server is dead.
fn run_round(
    plan: &Plan<'_>,
    server: &mut Process,
    faults: &Faults,
    workers: &mut [Worker],
    rng: &mut SmallRng,
    outcome: &mut Outcome,
) -> End {
    let (address, policy) = (server.address(), plan.policy);
    let (is_over, saved) = (AtomicBool::new(false), Mutex::new(None));
    let round_ms = rng.random_range(20..=plan.round_max.as_millis() as u64);
    let mut seeds = SmallRng::seed_from_u64(rng.random());
    // Without syncs nothing is promised for a loss of power, not even that the files can be read.
    let crash = if plan.with_power && policy != Policy::No && rng.random_bool(0.5) {
        Crash::Power
    } else {
        Crash::Kill
    };
    let at = scope(|scope| {
        for worker in workers.iter_mut() {
            scope.spawn(move || worker.run(address));
        }
        let (is_over, saved) = (&is_over, &saved);
        scope.spawn(move || save_randomly(address, policy, &mut seeds, is_over, saved));
        sleep(Duration::from_millis(round_ms));
        let at = kill(policy, server, faults, rng, outcome);
        is_over.store(true, Ordering::Relaxed);
        at
    });
    if crash == Crash::Power {
        outcome.power_bytes += faults.lose_power(rng);
    }
    let saved = saved.into_inner().ok().flatten();
    End { crash, at, saved }
}

/// Kills the server, now or at an operation on a file. Returns the time before which it was alive.
fn kill(
    policy: Policy,
    server: &mut Process,
    faults: &Faults,
    rng: &mut SmallRng,
    outcome: &mut Outcome,
) -> Instant {
    if rng.random_bool(0.6) {
        let (operation, file, most) = *policy.points().choose(rng).expect("there are points");
        let act = if rng.random() {
            Act::KillBefore
        } else {
            Act::KillAfter
        };
        faults.set(&[Fault::once(operation, file, rng.random_range(1..=most), act)]);
        if server.wait(POINT_PATIENCE).is_some() {
            outcome.at_points += 1;
            return Instant::now();
        }
    }
    let at = Instant::now();
    server.signal(libc::SIGKILL);
    server.wait(END_PATIENCE).expect("it was killed");
    at
}

/// Has the server write its files anew now and then, and notes the beginning of each SAVE that succeeded.
fn save_randomly(
    address: SocketAddr,
    policy: Policy,
    rng: &mut SmallRng,
    is_over: &AtomicBool,
    saved: &Mutex<Option<Instant>>,
) {
    let Ok(mut client) = Client::connect(address) else {
        return;
    };
    while !is_over.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(5..150)));
        let command = *policy.savers().choose(rng).expect("there are some");
        let begin = Instant::now();
        // Refused while another one runs; there is no reply any more when the server is dead.
        match client.try_call(&[command]) {
            Ok(reply) if command == "SAVE" && reply.text() == "OK" => {
                if let Ok(mut saved) = saved.lock() {
                    *saved = Some(begin);
                }
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

impl Worker {
    fn new(work: Work) -> Self {
        Self {
            work,
            steps: Vec::new(),
            error: None,
        }
    }

    /// Takes step after step, until the server is gone.
    fn run(&mut self, address: SocketAddr) {
        let Ok(mut client) = Client::connect(address) else {
            return;
        };
        while self.error.is_none() && self.step(&mut client).is_ok() {
            sleep(PAUSE);
        }
    }

    fn step(&mut self, client: &mut Client) -> std::io::Result<()> {
        let commands = self.work.step(self.steps.len() as u64 + 1);
        let mut requests = Vec::new();
        commands.iter().for_each(|words| encode(&mut requests, words));
        self.steps.push(Step {
            sent: Instant::now(),
            acknowledged: None,
        });
        client.write(&requests)?;
        for words in &commands {
            let reply = client.read()?;
            if reply.is_error() || reply.is_null() {
                self.error = Some(format!("{words:?}: {reply}"));
            }
        }
        if let Some(step) = self.steps.last_mut() {
            step.acknowledged = Some(Instant::now());
        }
        Ok(())
    }

    /// Number of the last step that was acknowledged before a time.
    fn acknowledged_before(&self, time: Instant) -> u64 {
        let is_so = |step: &Step| step.acknowledged.is_some_and(|at| at <= time);
        self.steps.iter().rposition(is_so).map_or(0, |at| at as u64 + 1)
    }

    /// Step of that number.
    fn numbered(&self, number: u64) -> Option<&Step> {
        self.steps.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Accepts that the first `survived` steps have had an effect and the others have not.
    fn settle(&mut self, survived: u64, now: Instant) {
        self.steps.truncate(survived as usize);
        for step in self.steps.iter_mut().rev() {
            if step.acknowledged.is_some() {
                break;
            }
            // It was seen now, which is as good as a reply.
            step.acknowledged = Some(now);
        }
    }
}

impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.work)?;
        match &self.error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// Compares what is there after a crash with what was promised, and takes it as the clients' new state.
fn examine(
    workers: &mut [Worker],
    end: &End,
    policy: Policy,
    client: &mut Client,
    outcome: &mut Outcome,
) -> Result<(), String> {
    let keys = (0..BYSTANDERS).map(|number| format!("bystander:{number}"));
    let request: Vec<String> = std::iter::once("EXISTS".to_owned()).chain(keys).collect();
    let present = client.call(&request).integer();
    if present != Some(BYSTANDERS as i64) {
        return Err(format!(
            "of {BYSTANDERS} keys that nobody touched there are {present:?}"
        ));
    }
    let promised_until = match policy.may_lose(end.crash) {
        Some(age) => end.at.checked_sub(age),
        None => end.saved,
    };
    let mut survived = Vec::new();
    for worker in workers.iter() {
        let seen = worker
            .work
            .look(client)
            .map_err(|fault| format!("{worker}: {fault}"))?;
        let promised = promised_until.map_or(0, |time| worker.acknowledged_before(time));
        survived.push(worker.survivor(seen, promised)?);
    }
    check_moment(workers, &survived)?;
    let now = Instant::now();
    for (worker, (_, last)) in workers.iter_mut().zip(survived) {
        outcome.acknowledged += last;
        outcome.lost += worker
            .steps
            .iter()
            .skip(last as usize)
            .filter(|step| step.acknowledged.is_some())
            .count() as u64;
        worker.settle(last, now);
    }
    Ok(())
}

impl Worker {
    /// The first and the last step that the state found may be the state after.
    fn survivor(&self, seen: Seen, promised: u64) -> Result<(u64, u64), String> {
        let sent = self.steps.len() as u64;
        let fault = || format!("{self}: {seen:?}, of {sent} steps sent, {promised} of them promised");
        match seen {
            Seen::Step(step) if (promised..=sent).contains(&step) => Ok((step, step)),
            Seen::Step(_) => Err(fault()),
            Seen::MultipleOf(cycle) => {
                let first = promised.next_multiple_of(cycle);
                let last = sent / cycle * cycle;
                if first > last {
                    Err(fault())
                } else {
                    Ok((first, last))
                }
            }
        }
    }
}

/// Checks that what survived is what was there at one moment: no step survived that was sent after the reply to one that did not.
fn check_moment(workers: &[Worker], survived: &[(u64, u64)]) -> Result<(), String> {
    let pairs = || workers.iter().zip(survived);
    let lost = pairs().filter_map(|(worker, &(_, last))| {
        let at = worker.numbered(last + 1)?.acknowledged?;
        Some((at, worker, last + 1))
    });
    let kept =
        pairs().filter_map(|(worker, &(first, _))| Some((worker.numbered(first)?.sent, worker, first)));
    let (Some(lost), Some(kept)) = (
        lost.min_by_key(|(at, ..)| *at),
        kept.max_by_key(|(sent, ..)| *sent),
    ) else {
        return Ok(());
    };
    if lost.0 < kept.0 {
        return Err(format!(
            "step {} of {} was lost, and step {} of {} survived, which was sent {:?} after the reply to that one",
            lost.2,
            lost.1,
            kept.2,
            kept.1,
            kept.0 - lost.0
        ));
    }
    Ok(())
}
