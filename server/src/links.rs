//! Links to other nodes: tasks on the control thread, which loops never wait for.

mod migration;
mod primary;
mod replica;

use std::sync::Arc;

use crate::bus::{self, Bus};
use crate::connection::handover::LinkClients;
use crate::shard::Mesh;
use crate::shard::departures::Departures;
use crate::state::Node;

/// Carries the links of a node, until the control thread ends.
pub(crate) async fn serve(
    node: Arc<Node>,
    mesh: Arc<Mesh>,
    (clients, departures): (Arc<LinkClients>, Arc<Departures>),
    bus: Option<Bus>,
) {
    tokio::join!(
        migration::serve(Arc::clone(&node), Arc::clone(&mesh), departures),
        primary::serve(Arc::clone(&node), Arc::clone(&mesh)),
        replica::serve(Arc::clone(&node), clients),
        bus::serve(node, mesh, bus)
    );
}
