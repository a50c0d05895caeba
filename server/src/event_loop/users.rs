//! Changes of users, as they reach the connections of a loop, and refusals on their way to the log.

use shardis_protocol::Arguments;

use super::EventLoop;
use crate::acl::Refusal;
use crate::dispatch::rights;
use crate::error::ReplyError;
use crate::exec::Closing;
use crate::exec::identity::Refused;

impl EventLoop {
    /// Has all connections take over a change of the users, if there was one: those whose user is gone, or has lost one of their
    /// channels, are closed.
    pub(super) fn follow_users(&mut self) {
        let version = self.node.acl.version();
        if version != self.users_version {
            self.users_version = version;
            self.renew_connections();
        }
    }

    #[cold]
    fn renew_connections(&mut self) {
        let control = &self.node.acl;
        for (_, connection) in &mut self.clients.connections {
            connection.client.follow_users(control, Closing::Now);
        }
        self.clients.disconnect_marked(&self.node.pubsub);
        if self.index == 0 {
            for link in self.links.all() {
                link.lock().follow_users(control, Closing::Now);
            }
            self.links.end_killed();
        }
    }

    /// Has one connection take over a change of the users before its next request. False when it is to be closed.
    #[inline]
    pub(super) fn follows_users(&mut self, number: usize) -> bool {
        let goes_on = self.clients[number]
            .client
            .follow_users(&self.node.acl, Closing::Now);
        if !goes_on {
            self.clients.disconnect(number);
        }
        goes_on
    }

    /// Enters the refusal of a request into the logs, if the rights of its client were the reason.
    #[cold]
    pub(super) fn note_refusal(&mut self, number: usize, error: &ReplyError, args: Arguments<'_>) {
        rights::note_refusal(&mut self.clients[number].client, &self.node, error, args);
        self.log_refusals(number);
    }

    /// Enters what a client was refused into the log.
    #[inline]
    pub(super) fn log_refusals(&mut self, number: usize) {
        if !self.clients[number].client.refused.is_empty() {
            self.log_all_refusals(number);
        }
    }

    #[cold]
    fn log_all_refusals(&mut self, number: usize) {
        let (now_ms, len_max) = (self.now_ms(), self.settings.acllog_max_len);
        let connection = &mut self.clients[number];
        let refused = std::mem::take(&mut connection.client.refused);
        let line = connection
            .client
            .describe(&connection.measure(self.poll.holds(number)), now_ms, 0);
        for Refused {
            reason,
            object,
            user,
            context,
        } in refused
        {
            let refusal = Refusal {
                reason,
                context,
                object,
                user,
                client: line.clone(),
            };
            self.node.acl.refuse(refusal, now_ms, len_max as usize);
        }
    }
}
