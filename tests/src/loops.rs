//! Connections by the event loop of the server that carries them.

use crate::client::Client;
use crate::info::of_shards;
use crate::process::Process;

/// Commands of a connection from which its loop is told: other clients of a test do less meanwhile.
const PINGS: u64 = 64;

/// Number of connections among which one of each loop must be; they are dealt to the loops in turn.
const TRIES_PER_LOOP: usize = 16;

/// The loop that carries a client, found by the commands that it runs.
///
/// # Panics
/// When no loop runs the client's commands.
pub fn loop_of(client: &mut Client, control: &mut Client) -> usize {
    let before = of_shards(control, "loop_commands");
    for _ in 0..PINGS {
        client.line("PING");
    }
    let after = of_shards(control, "loop_commands");
    let mut grown = before.iter().zip(&after);
    grown
        .position(|(before, after)| after - before >= PINGS)
        .expect("one loop has run the commands")
}

/// A connection that the loop of a shard carries.
///
/// # Panics
/// When none of many new connections is one.
#[must_use]
pub fn connect_to(server: &Process, shard: usize) -> Client {
    let mut control = server.connect();
    let shards = of_shards(&mut control, "loop_commands").len();
    let mut clients = (0..TRIES_PER_LOOP * shards).map(|_| server.connect());
    clients
        .find_map(|mut client| (loop_of(&mut client, &mut control) == shard).then_some(client))
        .unwrap_or_else(|| panic!("no connection came to loop {shard}"))
}

/// A connection to each loop, by loop.
///
/// # Panics
/// When a loop carries none of many new connections.
#[must_use]
pub fn connect_to_each(server: &Process) -> Vec<Client> {
    let shards = of_shards(&mut server.connect(), "loop_commands").len();
    (0..shards).map(|shard| connect_to(server, shard)).collect()
}
