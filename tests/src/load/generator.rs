//! The load: one thread, one epoll, many connections, each with one pipeline under way.
//!
//! A connection writes a pipeline in one call, counts the replies as they arrive ([`Skipper`]) and, when the last one is
//! there, writes the next. A run ends with every reply received, so that requests and server time belong together.
//!
//! A *probe* is a connection of its own that sends one request at a time and notes the longest wait. It lives in the same
//! loop and not in a second thread: two threads on the generator's core would wait for each other for longer than the
//! pauses that are looked for, whereas a turn of this loop takes some ten microseconds per connection.
//!
//! *Listeners* are connections that say one thing at first and then only read: subscribers.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::now;
use super::skipper::Skipper;
use super::template::Template;

/// Silence after which a server has failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// The most bytes of one read: a pipeline of 100 replies of 16 KiB is read in a few calls.
const INPUT_BYTES: usize = 512 * 1024;
const PROBE: Token = Token(usize::MAX - 1);
/// The token of the first listener; connections are fewer.
const LISTENERS: usize = 1 << 32;

/// Connections to one server, idle between two runs.
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    connections: Vec<Connection>,
    probe: Option<Probe>,
    listeners: Vec<TcpStream>,
    input: Vec<u8>,
}

/// End of a run: whichever limit is reached first.
#[derive(Clone, Copy)]
pub(crate) struct Limit {
    /// Requests sent by the connections, not counting a probe's.
    pub(crate) requests: u64,
    /// Time since the start of the run.
    pub(crate) time: Duration,
}

/// Result of a run.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// Requests answered, a probe's not counted.
    pub(crate) requests: u64,
    /// Nulls among the replies.
    pub(crate) nulls: u64,
    /// From the first write to the last reply.
    pub(crate) elapsed: Duration,
    /// The longest wait of the probe.
    pub(crate) longest: Duration,
}

struct Connection {
    stream: TcpStream,
    skipper: Skipper,
    /// Replies still to come.
    awaiting: usize,
    /// Bytes that the socket has not accepted: at most one pipeline.
    unsent: Vec<u8>,
}

struct Probe {
    connection: Connection,
    template: Template,
    sent: Instant,
    /// All waits so far.
    waits: Vec<Duration>,
}

impl Limit {
    /// As many requests as fit into `time`.
    pub(crate) fn time(time: Duration) -> Self {
        Self {
            requests: u64::MAX,
            time,
        }
    }

    /// `requests`, however long they take.
    pub(crate) fn requests(requests: u64) -> Self {
        Self {
            requests,
            time: Duration::MAX,
        }
    }
}

impl Generator {
    /// Opens `connections` to the server at `address`; with `probe`, a probe that sends this template's commands.
    pub(crate) fn connect(
        address: SocketAddr,
        connections: usize,
        probe: Option<Template>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let open = |token| Connection::open(address, &poll, token);
        let probe = match probe {
            Some(template) => Some(Probe {
                connection: open(PROBE)?,
                template,
                sent: now(),
                waits: Vec::new(),
            }),
            None => None,
        };
        let connections = (0..connections)
            .map(|index| open(Token(index)))
            .collect::<io::Result<Vec<_>>>()?;
        let events = Events::with_capacity(connections.len() + 1);
        Ok(Self {
            poll,
            events,
            connections,
            probe,
            listeners: Vec::new(),
            input: vec![0; INPUT_BYTES],
        })
    }

    /// Opens further connections that send `command` now and are read for as long as runs go on.
    ///
    /// # Errors
    /// The errors of the sockets.
    pub(crate) fn add_listeners(
        &mut self,
        address: SocketAddr,
        count: usize,
        command: &[u8],
    ) -> io::Result<()> {
        for _ in 0..count {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.write_all(command)?;
            // The first answer: what is sent from now on, it gets.
            stream.set_read_timeout(Some(PATIENCE))?;
            if stream.read(&mut self.input)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            let token = Token(LISTENERS + self.listeners.len());
            self.poll
                .registry()
                .register(&mut stream, token, Interest::READABLE)?;
            self.listeners.push(stream);
        }
        Ok(())
    }

    /// Sends pipelines of `work` over every connection until `limit`, then waits for the replies still missing.
    ///
    /// # Errors
    /// An error reply, a lost connection, a server that has fallen silent. The connections are of no use afterwards.
    pub(crate) fn run(&mut self, work: &mut Template, limit: Limit) -> io::Result<Run> {
        let Self {
            poll,
            events,
            connections,
            probe,
            listeners,
            input,
        } = self;
        let nulls_before = nulls(connections);
        let mut run = Run::default();
        let start = now();
        let mut unsent = limit.requests;
        let mut waiting = 0;
        for connection in connections.iter_mut() {
            waiting += usize::from(connection.send_next(work, &mut unsent)?);
        }
        if let Some(probe) = probe {
            probe.send()?;
        }
        while waiting > 0 || probe.as_ref().is_some_and(|probe| probe.connection.awaiting > 0) {
            wait(poll, events)?;
            let over = now() - start >= limit.time;
            for event in &*events {
                if event.token() == PROBE {
                    let Some(probe) = probe else { continue };
                    if probe.turn(event, input, &mut run.longest)? {
                        let work_done = waiting == 0 && !connections.is_empty();
                        if !over && !work_done {
                            probe.send()?;
                        }
                    }
                    continue;
                }
                if let Some(listener) = event.token().0.checked_sub(LISTENERS) {
                    read_away(&mut listeners[listener], input)?;
                    continue;
                }
                let connection = &mut connections[event.token().0];
                let replies = connection.turn(event, input)?;
                run.requests += replies as u64;
                if replies > 0
                    && connection.awaiting == 0
                    && (over || !connection.send_next(work, &mut unsent)?)
                {
                    waiting -= 1;
                }
            }
        }
        run.elapsed = now() - start;
        run.nulls = nulls(connections) - nulls_before;
        Ok(run)
    }

    /// Takes the waits of the probe in all runs so far.
    pub(crate) fn take_waits(&mut self) -> Vec<Duration> {
        let probe = self.probe.as_mut();
        probe
            .map(|probe| std::mem::take(&mut probe.waits))
            .unwrap_or_default()
    }

    /// Runs the probe alone for `time` and returns its longest wait.
    pub(crate) fn run_probe(&mut self, time: Duration) -> io::Result<Duration> {
        let Some(probe) = &mut self.probe else {
            return Ok(Duration::ZERO);
        };
        let mut longest = Duration::ZERO;
        let start = now();
        probe.send()?;
        loop {
            wait(&mut self.poll, &mut self.events)?;
            for event in self.events.iter().filter(|event| event.token() == PROBE) {
                if probe.turn(event, &mut self.input, &mut longest)? {
                    if now() - start >= time {
                        return Ok(longest);
                    }
                    probe.send()?;
                }
            }
        }
    }
}

fn nulls(connections: &[Connection]) -> u64 {
    connections
        .iter()
        .map(|connection| connection.skipper.nulls())
        .sum()
}

/// Reads what a listener has got. As in `Connection::receive`, a read that does not fill the buffer was the last.
fn read_away(listener: &mut TcpStream, input: &mut [u8]) -> io::Result<()> {
    loop {
        match listener.read(input) {
            Ok(0) => {
                return Err(Error::new(
                    ErrorKind::UnexpectedEof,
                    "the server closed a listener's connection",
                ));
            }
            Ok(count) if count == input.len() => {}
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for the next events.
fn wait(poll: &mut Poll, events: &mut Events) -> io::Result<()> {
    loop {
        match poll.poll(events, Some(PATIENCE)) {
            Ok(()) if events.is_empty() => {
                return Err(Error::new(
                    ErrorKind::TimedOut,
                    format!("no reply within {PATIENCE:?}"),
                ));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Connection {
    fn open(address: SocketAddr, poll: &Poll, token: Token) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry()
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            skipper: Skipper::new(),
            awaiting: 0,
            unsent: Vec::new(),
        })
    }

    /// Writes the next pipeline, or what is left of the budget; false if nothing is.
    fn send_next(&mut self, work: &mut Template, budget: &mut u64) -> io::Result<bool> {
        let commands = usize::try_from(*budget)
            .unwrap_or(usize::MAX)
            .min(work.pipeline());
        *budget -= commands as u64;
        if commands > 0 {
            self.send(work.next(commands), commands)?;
        }
        Ok(commands > 0)
    }

    fn send(&mut self, bytes: &[u8], commands: usize) -> io::Result<()> {
        self.awaiting = commands;
        let written = write_some(&mut self.stream, bytes)?;
        self.unsent.extend_from_slice(&bytes[written..]);
        Ok(())
    }

    /// Does what `event` allows and returns how many replies have arrived.
    fn turn(&mut self, event: &mio::event::Event, input: &mut [u8]) -> io::Result<usize> {
        if event.is_writable() && !self.unsent.is_empty() {
            let written = write_some(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..written);
        }
        if event.is_readable() && self.awaiting > 0 {
            self.receive(input)
        } else {
            Ok(0)
        }
    }

    /// Reads what is there. A read that does not fill the buffer has emptied the socket, and epoll reports anything
    /// later anew; so a pipeline usually costs one read.
    fn receive(&mut self, input: &mut [u8]) -> io::Result<usize> {
        let mut replies = 0;
        loop {
            match self.stream.read(input) {
                Ok(0) => {
                    return Err(Error::new(
                        ErrorKind::UnexpectedEof,
                        "the server closed a connection",
                    ));
                }
                Ok(count) => {
                    replies += self.skipper.advance(&input[..count])?;
                    if count < input.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.awaiting = self.awaiting.checked_sub(replies).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidData,
                "the server sent more replies than it got requests",
            )
        })?;
        Ok(replies)
    }
}

/// Writes until the socket is full; returns the number of bytes written.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

impl Probe {
    fn send(&mut self) -> io::Result<()> {
        self.sent = now();
        self.connection.send(self.template.next(1), 1)
    }

    /// True once the reply is there; `longest` has then been brought up to date.
    fn turn(
        &mut self,
        event: &mio::event::Event,
        input: &mut [u8],
        longest: &mut Duration,
    ) -> io::Result<bool> {
        let replied = self.connection.turn(event, input)? > 0;
        if replied {
            let wait = now() - self.sent;
            *longest = (*longest).max(wait);
            self.waits.push(wait);
        }
        Ok(replied)
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A server that answers each line `PING` with `reply`, in pieces of seven bytes.
    fn answering(reply: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                thread::spawn(move || {
                    let lines = io::BufReader::new(stream.try_clone().unwrap()).lines();
                    for _ in lines.map_while(Result::ok).filter(|line| line == "PING") {
                        for piece in reply.as_bytes().chunks(7) {
                            if stream.write_all(piece).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_counted_run_sends_exactly_that_much() {
        let mut generator = Generator::connect(answering("*2\r\n+PONG\r\n$-1\r\n"), 3, None).unwrap();
        let mut ping = Template::random("PING", 4).unwrap();
        for requests in [1, 50, 121] {
            let run = generator.run(&mut ping, Limit::requests(requests)).unwrap();
            assert_eq!((run.requests, run.nulls), (requests, requests));
        }
    }

    #[test]
    fn listeners_are_read_while_others_talk() {
        let address = answering("+PONG\r\n");
        let mut generator = Generator::connect(address, 2, None).unwrap();
        generator.add_listeners(address, 3, b"PING\r\n").unwrap();
        let mut ping = Template::random("PING", 4).unwrap();
        let run = generator.run(&mut ping, Limit::requests(400)).unwrap();
        assert_eq!((run.requests, generator.listeners.len()), (400, 3));
    }

    #[test]
    fn a_timed_run_ends_and_probes() {
        let probe = Template::random("PING", 1).unwrap();
        let mut generator = Generator::connect(answering("+PONG\r\n"), 2, Some(probe)).unwrap();
        let mut ping = Template::random("PING", 4).unwrap();
        let run = generator
            .run(&mut ping, Limit::time(Duration::from_millis(50)))
            .unwrap();
        assert!(run.requests >= 8 && run.longest > Duration::ZERO, "{run:?}");
        assert!(generator.run_probe(Duration::from_millis(10)).unwrap() > Duration::ZERO);
    }

    #[test]
    fn an_error_reply_ends_the_run() {
        let mut generator = Generator::connect(answering("-ERR busy\r\n"), 1, None).unwrap();
        let mut ping = Template::random("PING", 1).unwrap();
        let error = generator.run(&mut ping, Limit::requests(1)).unwrap_err();
        assert_eq!(error.to_string(), "-ERR busy");
    }

    #[test]
    fn requests_larger_than_the_socket_buffers_arrive() {
        let mut generator = Generator::connect(answering("+PONG\r\n"), 1, None).unwrap();
        let mut big = Template::random("{value:20000000} PING", 1).unwrap();
        assert_eq!(generator.run(&mut big, Limit::requests(2)).unwrap().requests, 2);
    }
}
