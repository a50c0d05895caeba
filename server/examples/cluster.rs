//! A cluster inside this program, one of whose primaries dies and comes back.
//!
//! Run it with `cargo run -p shardis --example cluster`.

use std::error::Error;
use std::io::Write;

use redis::Commands;
use redis::cluster::ClusterClient;

fn main() -> Result<(), Box<dyn Error>> {
    let cluster = shardis::Cluster::builder().primaries(3).replicas(1).start()?;
    let mut out = std::io::stdout();
    for node in cluster.nodes() {
        let role = if node.is_primary() { "primary" } else { "replica" };
        writeln!(out, "{role} {}", node.url())?;
    }

    let connect = || ClusterClient::new(cluster.urls()).and_then(|client| client.get_connection());
    let () = connect()?.set("seat", "ada")?;
    let primary = cluster.primary_of("seat").ok_or("no primary")?;
    let node = &cluster.nodes()[primary];
    node.stop();
    writeln!(out, "the primary of 'seat' has gone: node {primary}")?;

    if !cluster.await_whole() {
        return Err("no replica took over".into());
    }
    let heir = cluster.primary_of("seat").ok_or("no primary")?;
    // A connection from before would first try the node that has gone.
    let seat: String = connect()?.get("seat")?;
    writeln!(out, "node {heir} has taken over, and the seat is {seat}'s")?;

    node.restart()?;
    cluster.await_whole();
    let role = if node.is_primary() { "primary" } else { "replica" };
    writeln!(out, "node {primary} is back as a {role}")?;
    Ok(())
}
