//! Arguments of handlers that work on a client or on the node rather than on keys.

use shardis_protocol::{Arguments, Encoder};

use super::CommandResult;
use super::client::{BufferSizes, Client};
use super::reload::Reload;
use crate::acl::Users;
use crate::journal::Recorder;
use crate::state::Node;

/// One client with its request, and the node it is connected to.
pub(crate) struct Session<'a> {
    /// The request; argument 0 is the command's name.
    pub(crate) args: Arguments<'a>,
    /// Encoder of the reply.
    pub(crate) reply: Encoder<'a>,
    /// The client.
    pub(crate) client: &'a mut Client,
    /// The state that all loops of the node share.
    pub(crate) node: &'a Node,
    /// The recorder of its effects.
    pub(crate) recorder: &'a Recorder,
    /// Reads the node's files again; none where that is impossible.
    pub(crate) reload: Option<&'a dyn Reload>,
    /// Unix time in milliseconds.
    pub(crate) now_ms: i64,
}

impl Session<'_> {
    /// Reports the request itself as an effect on replicas, which is no change of the data.
    pub(crate) fn repeat_on_replicas(&self) {
        if self.recorder.is_on() {
            self.recorder.unit().repeat_on_replicas(self.client.db, self.args);
        }
    }

    /// Replies to HELP of a container command: the first line names the command as the client sent it, the last two
    /// lines are about HELP.
    pub(crate) fn help(&mut self, lines: &[&str]) -> CommandResult {
        let command = String::from_utf8_lossy(self.args.at(0)).to_ascii_uppercase();
        self.reply.array(lines.len() + 3);
        self.reply.simple(format!(
            "{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
        ));
        for line in lines.iter().chain(&["HELP", "    Print this help."]) {
            self.reply.simple(line);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Session<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client.id)
            .finish_non_exhaustive()
    }
}

/// The connections of one loop, for a command that goes over all of them.
pub(crate) struct Roster<'a> {
    /// The request.
    pub(crate) args: Arguments<'a>,
    /// Id of the client that sent the command.
    pub(crate) asker: u64,
    /// The users of the node.
    pub(crate) users: &'a Users,
    /// The connections that this loop carries.
    pub(crate) clients: Box<dyn Iterator<Item = Carried<'a>> + 'a>,
    /// Unix time in milliseconds.
    pub(crate) now_ms: i64,
}

/// A client and the sizes of its connection's buffers, as the loop of the connection sees them.
#[derive(Debug)]
pub(crate) struct Carried<'a> {
    /// The client.
    pub(crate) client: &'a mut Client,
    /// Sizes of the buffers of its connection.
    pub(crate) buffers: BufferSizes,
}

impl Carried<'_> {
    /// Line of CLIENT LIST for the client, see [`Client::describe`].
    pub(crate) fn describe(&self, now_ms: i64, argument_bytes: usize) -> String {
        self.client.describe(&self.buffers, now_ms, argument_bytes)
    }
}

impl std::ops::Deref for Carried<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl std::ops::DerefMut for Carried<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client
    }
}

impl std::fmt::Debug for Roster<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Roster")
            .field("asker", &self.asker)
            .finish_non_exhaustive()
    }
}
