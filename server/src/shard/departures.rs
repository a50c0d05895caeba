//! [`Departures`]: the way of keys that leave for another node, from loops to the control thread.

use parking_lot::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::exec::departure::Cargo;

/// Keys to be sent to another node, and who waits for that. A connection waits for one at most, which bounds their number.
#[derive(Debug)]
pub(crate) struct Shipment {
    /// The loop of the client.
    pub(crate) origin: usize,
    /// The loop's number for the operation that goes on afterwards.
    pub(crate) operation: usize,
    /// The commands that are sent.
    pub(crate) cargo: Cargo,
}

/// The queue of shipments.
#[derive(Debug)]
pub(crate) struct Departures {
    sender: UnboundedSender<Shipment>,
    /// The end for the control thread, until that has taken it.
    receiver: Mutex<Option<UnboundedReceiver<Shipment>>>,
}

impl Default for Departures {
    fn default() -> Self {
        let (sender, receiver) = unbounded_channel();
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Departures {
    /// Sends keys on their way. After the end of the control thread, when the node stops, nothing happens.
    pub(crate) fn send(&self, shipment: Shipment) {
        let _ = self.sender.send(shipment);
    }

    /// The end for the control thread, once.
    pub(crate) fn take_receiver(&self) -> Option<UnboundedReceiver<Shipment>> {
        self.receiver.lock().take()
    }
}
