//! A machine in one cluster with real redis-server processes: it is met, it votes for them, they vote for it.
//!
//! The driver here is the smallest one that works: a thread for each connection, and one that handles events in order.
//! The servers need the program `redis-server`; each test has its own ports and folder.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "these are tests, and real processes live in real time"
)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shardis_cluster::event::{Action, Actions, Command, Event, Facts, Now, Options, Peer, Reply, TICK_MS};
use shardis_cluster::node::{LinkId, NodeId, host};
use shardis_cluster::wire::{PREFIX_BYTES, Packet, frame_len};
use shardis_cluster::{Machine, Slot, nodes_file};

/// Node timeout of all nodes.
const TIMEOUT_MS: u64 = 2_000;

/// Longest wait for anything: the machine may be busy.
const WAIT: Duration = Duration::from_secs(60);

/// A real node, killed when it is dropped.
struct Stock {
    process: Child,
    port: u16,
}

impl Stock {
    fn start(folder: &std::path::Path, port: u16) -> Stock {
        let folder = folder.join(port.to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let process = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args([
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                &TIMEOUT_MS.to_string(),
            ])
            .args(["--logfile", "log", "--dir"])
            .arg(&folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need redis-server");
        let stock = Stock { process, port };
        wait("a server answers", || stock.try_call(&["PING"]).is_some());
        stock
    }

    fn try_call(&self, words: &[&str]) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        writeln!(stream, "{}", words.join(" ")).ok()?;
        let mut reply = Vec::new();
        let mut buffer = [0; 65_536];
        while !is_whole(&reply) {
            let read = stream.read(&mut buffer).ok().filter(|&read| read > 0)?;
            reply.extend_from_slice(&buffer[..read]);
        }
        Some(String::from_utf8_lossy(&reply).into_owned())
    }

    /// The reply to a command without arrays in it, as it is on the wire.
    fn call(&self, words: &[&str]) -> String {
        let reply = self.try_call(words).expect("the server answers");
        assert!(!reply.starts_with('-'), "{words:?}: {reply}");
        reply
    }

    fn id(&self) -> String {
        let reply = self.call(&["CLUSTER", "MYID"]);
        reply.lines().nth(1).unwrap_or_default().to_owned()
    }

    /// The line about a node in this one's CLUSTER NODES.
    fn line(&self, id: &str) -> Option<String> {
        let reply = self.try_call(&["CLUSTER", "NODES"])?;
        reply.lines().find(|line| line.starts_with(id)).map(str::to_owned)
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a reply that is a line or a bulk string has come whole.
fn is_whole(reply: &[u8]) -> bool {
    let Some(end) = reply.windows(2).position(|pair| pair == b"\r\n") else {
        return false;
    };
    let len = std::str::from_utf8(&reply[1..end])
        .ok()
        .and_then(|text| text.parse::<usize>().ok());
    reply[0] != b'$' || len.is_none_or(|len| reply.len() == end + 4 + len)
}

fn wait(what: &str, is_so: impl FnMut() -> bool) {
    let mut is_so = is_so;
    let end = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "not within {WAIT:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Something that the threads of connections tell the driver.
enum News {
    Accepted(TcpStream),
    Connected(u64, Option<TcpStream>),
    Packet(LinkId, Peer, Box<Packet>),
    Ended(LinkId),
}

/// A machine with sockets.
struct Driver {
    machine: Machine,
    actions: Actions,
    start: Instant,
    news: Receiver<News>,
    sender: Sender<News>,
    streams: HashMap<LinkId, TcpStream>,
    accepted: u64,
    next_tick: Instant,
    replies: Vec<Reply>,
    /// Whether the data are those of a primary that works.
    has_data: bool,
}

impl Driver {
    fn start(port: u16) -> Driver {
        let bus_port = port + 10_000;
        let listener = TcpListener::bind(("127.0.0.1", bus_port)).unwrap();
        let (sender, news) = channel();
        let accepts = sender.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepts.send(News::Accepted(stream)).is_err() {
                    return;
                }
            }
        });
        let mut options = Options {
            node_timeout_ms: TIMEOUT_MS,
            ..Options::default()
        };
        options.announced.tcp_port = port;
        options.announced.bus_port = bus_port;
        let start = Instant::now();
        let seed = u64::from(std::process::id()) << 16 | u64::from(port);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut name = || {
            let mut bits = [0; 20];
            random.fill(&mut bits);
            NodeId::new(bits)
        };
        let machine = Machine::new(name(), name(), options, now(start), seed);
        Driver {
            machine,
            actions: Actions::new(),
            start,
            news,
            sender,
            streams: HashMap::new(),
            accepted: 0,
            next_tick: start,
            replies: Vec::new(),
            has_data: false,
        }
    }

    fn id(&self) -> String {
        self.machine.view().me().id.to_string()
    }

    /// Runs until something is so.
    fn run_until(&mut self, what: &str, is_so: impl Fn(&Driver) -> bool) {
        let end = Instant::now() + WAIT;
        while !is_so(self) {
            let text = || self.machine.view().nodes_text(now(self.start), false);
            assert!(Instant::now() < end, "not within {WAIT:?}: {what}\n{}", text());
            self.step();
        }
    }

    fn step(&mut self) {
        let left = self.next_tick.saturating_duration_since(Instant::now());
        match self.news.recv_timeout(left) {
            Ok(news) => self.note(news),
            Err(RecvTimeoutError::Timeout) => {
                self.next_tick = Instant::now() + Duration::from_millis(TICK_MS);
                let facts = Facts {
                    replication_offset: 100,
                    data_as_of_ms: self.has_data.then(|| now(self.start).monotonic_ms),
                };
                self.handle(Event::Facts(facts));
                self.handle(Event::Tick);
            }
            Err(RecvTimeoutError::Disconnected) => unreachable!("the driver has a sender"),
        }
    }

    fn note(&mut self, news: News) {
        match news {
            News::Accepted(stream) => {
                self.accepted += 1;
                self.adopt(LinkId::Inbound(self.accepted), stream);
            }
            News::Connected(number, Some(stream)) => {
                self.adopt(LinkId::Outbound(number), stream);
                self.handle(Event::LinkUp(number));
            }
            News::Connected(number, None) => self.handle(Event::LinkDown(LinkId::Outbound(number))),
            News::Packet(link, peer, packet) => self.handle(Event::Packet { link, peer, packet }),
            News::Ended(link) => {
                self.streams.remove(&link);
                self.handle(Event::LinkDown(link));
            }
        }
    }

    fn adopt(&mut self, link: LinkId, stream: TcpStream) {
        let (sender, reader) = (self.sender.clone(), stream.try_clone().unwrap());
        thread::spawn(move || {
            let _ = read_packets(link, reader, &sender);
            let _ = sender.send(News::Ended(link));
        });
        self.streams.insert(link, stream);
    }

    fn order(&mut self, command: Command) {
        self.handle(Event::Command { tag: 0, command });
        assert_eq!(self.replies.pop(), Some(Reply::Ok));
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(now(self.start), event, &mut self.actions);
        let batch: Vec<Action> = self.actions.drain().collect();
        batch.into_iter().for_each(|action| self.act(action));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect { number, ip, bus_port } => {
                let sender = self.sender.clone();
                thread::spawn(move || {
                    let stream = TcpStream::connect((ip.as_str(), bus_port)).ok();
                    let _ = sender.send(News::Connected(number, stream));
                });
            }
            Action::Close(link) => {
                if let Some(stream) = self.streams.remove(&link) {
                    let _ = stream.shutdown(std::net::Shutdown::Both);
                }
            }
            Action::Send { link, packet } => self.send(&[link], &packet),
            Action::Broadcast { links, packet } => self.send(&links, &packet),
            Action::Reply { reply, .. } => self.replies.push(reply),
            _ => {}
        }
    }

    fn send(&mut self, links: &[LinkId], packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(&mut bytes);
        for link in links {
            if let Some(stream) = self.streams.get_mut(link) {
                let _ = stream.write_all(&bytes);
            }
        }
    }
}

fn now(start: Instant) -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Now {
        monotonic_ms: 1_000 + start.elapsed().as_millis() as u64,
        unix_ms: unix.as_millis() as u64,
    }
}

fn read_packets(link: LinkId, mut stream: TcpStream, sender: &Sender<News>) -> std::io::Result<()> {
    let ip = |address: std::net::SocketAddr| host(&address.ip().to_string()).expect("an address");
    let peer = Peer {
        remote_ip: ip(stream.peer_addr()?),
        local_ip: ip(stream.local_addr()?),
    };
    loop {
        let mut prefix = [0; PREFIX_BYTES];
        stream.read_exact(&mut prefix)?;
        let len = frame_len(&prefix, 1 << 20).expect("a real node sends real frames");
        let mut frame = vec![0; len];
        frame[..PREFIX_BYTES].copy_from_slice(&prefix);
        stream.read_exact(&mut frame[PREFIX_BYTES..])?;
        let packet = Packet::decode(&frame).expect("a real node sends real packets");
        if sender.send(News::Packet(link, peer, Box::new(packet))).is_err() {
            return Ok(());
        }
    }
}

/// First of so many neighbouring ports that are free, as are those of the bus.
fn free_ports(count: u16) -> u16 {
    let mut random = fastrand::Rng::with_seed(u64::from(std::process::id()) + u64::from(count));
    loop {
        let first = random.u16(20_000..40_000);
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + count).all(|port| is_free(port) && is_free(port + 10_000)) {
            return first;
        }
    }
}

/// A folder for a test, removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("shardis-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Real nodes with slots and epochs, and a machine that has met them all.
fn cluster(folder: &Folder, ranges: &[Option<(u16, u16)>], first_port: u16) -> (Vec<Stock>, Driver) {
    let ports = first_port..first_port + ranges.len() as u16;
    let stocks: Vec<Stock> = ports.map(|port| Stock::start(&folder.0, port)).collect();
    for (index, (stock, range)) in stocks.iter().zip(ranges).enumerate() {
        if let Some((start, end)) = range {
            stock.call(&["CLUSTER", "ADDSLOTSRANGE", &start.to_string(), &end.to_string()]);
        }
        stock.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
    }
    let mut driver = Driver::start(first_port + ranges.len() as u16);
    for stock in &stocks {
        driver.order(Command::Meet {
            ip: host("127.0.0.1").unwrap(),
            port: stock.port,
            bus_port: stock.port + 10_000,
        });
    }
    let nodes = stocks.len() + 1;
    driver.run_until("the machine knows all nodes", |driver| {
        let view = driver.machine.view();
        view.len() == nodes && view.nodes().all(|(_, node)| !node.is_in_handshake())
    });
    let id = driver.id();
    driver.run_until("the real nodes know each other and the machine", |_| {
        stocks.iter().all(|stock| {
            let known = |id: &str| stock.line(id).is_some_and(|line| !line.contains("handshake"));
            known(&id) && stocks.iter().all(|other| known(&other.id()))
        })
    });
    (stocks, driver)
}

/// A real primary dies; its real replica needs the machine's vote.
#[test]
fn a_machine_votes_for_a_real_replica() {
    let folder = Folder::new("votes");
    let ranges = [Some((0, 5_000)), Some((5_001, 10_000)), None];
    let (mut stocks, mut driver) = cluster(&folder, &ranges, free_ports(4));
    let slot = |number| Slot::new(number).unwrap();
    driver.order(Command::AddSlots(vec![slot(10_001)..=Slot::LAST]));
    let (dead, replica) = (stocks[1].id(), stocks[2].id());
    stocks[2].call(&["CLUSTER", "REPLICATE", &dead]);
    driver.run_until("all nodes hold the cluster for whole", |driver| {
        let is_ok = |stock: &Stock| stock.call(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
        let view = driver.machine.view();
        view.is_ok && stocks.iter().all(is_ok) && view.nodes().any(|(_, node)| node.primary.is_some())
    });
    // A replica of 7.0 may run only if it has had its primary's data.
    driver.run_until("the replica has its data", |_| {
        stocks[2]
            .call(&["INFO", "replication"])
            .contains("master_link_status:up")
    });
    drop(stocks.remove(1));
    driver.run_until("the replica takes over", |driver| {
        let view = driver.machine.view();
        let owner = view.owner(slot(5_001)).map(|key| view[key].id.to_string());
        owner.as_deref() == Some(&replica) && view.is_ok
    });
    let real = stocks[1].line(&replica).unwrap();
    assert!(
        real.contains("myself,master") && real.ends_with("5001-10000"),
        "{real}"
    );
    assert_ne!(driver.machine.view().last_vote_epoch, 0, "the machine has voted");
    let file = nodes_file::print(driver.machine.view(), now(driver.start), false);
    assert!(nodes_file::parse(&file, now(driver.start), false, 1).is_ok());
}

/// The machine is a replica of a real primary that dies; the real ones elect it.
#[test]
fn real_nodes_vote_for_a_machine() {
    let folder = Folder::new("elects");
    let ranges = [Some((0, 5_000)), Some((5_001, 10_000)), Some((10_001, 16_383))];
    let (mut stocks, mut driver) = cluster(&folder, &ranges, free_ports(5));
    let primary = stocks[0].id();
    driver.order(Command::Replicate {
        primary: primary.parse().unwrap(),
        has_keys: false,
    });
    driver.has_data = true;
    let id = driver.id();
    driver.run_until("the real nodes see a replica", |driver| {
        let sees = |stock: &Stock| {
            stock
                .line(&id)
                .is_some_and(|line| line.contains(&format!("slave {primary}")))
        };
        driver.machine.view().is_ok && stocks.iter().all(sees)
    });
    drop(stocks.remove(0));
    driver.run_until("the machine takes over", |driver| {
        driver.machine.view().me().is_primary()
    });
    driver.run_until("the real nodes hold it for the owner", |driver| {
        let sees = |stock: &Stock| stock.line(&id).is_some_and(|line| line.ends_with(" 0-5000"));
        driver.machine.view().is_ok && stocks.iter().all(sees)
    });
}
