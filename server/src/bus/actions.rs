//! Actions that change what this node is for its clients, and the facts about it that the machine cannot know.

use std::sync::Arc;
use std::time::Duration;

use shardis_cluster::event::{Action, Facts, Level as Importance};
use shardis_cluster::node::Address;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::driver::{Driver, News};
use crate::cluster::now;
use crate::config::Primary;
use crate::loading::install::try_clear;
use crate::log::Level;
use crate::replication::LinkStage;
use crate::state::PauseCauses;

/// Time between two tries to do something for which shards are needed that are taken.
const RETRY: Duration = Duration::from_millis(1);

/// Age of a replica's data, as far as the driver has seen it.
#[derive(Debug, Default)]
pub(super) struct Role {
    /// Version of what the node is to follow.
    version: u64,
    /// Time of the last byte from the primary, as the link has noted it.
    heard_us: i64,
    /// The same by the machine's clock; none before the link has been in order.
    as_of_ms: Option<u64>,
    /// Whether the data are of another shard than the primary's: its stream has not been followed since the node left that shard.
    is_foreign: bool,
}

impl Driver {
    /// Carries out an action that concerns this node alone.
    pub(super) async fn act(&mut self, action: Action) {
        let node = &self.node;
        match action {
            Action::Replicate {
                address, is_foreign, ..
            } => {
                self.role.is_foreign |= is_foreign;
                self.follow(address);
            }
            Action::Promote if node.replication.following.is_replica() => {
                node.audit_topology("takes the place of its primary in the cluster");
                node.follow(None, false);
            }
            Action::PauseWrites { .. } => self.pause_writes(),
            Action::ResumeWrites => {
                node.pause.release(PauseCauses::FAILOVER);
                node.ring_all();
            }
            Action::DropAll => self.drop_all().await,
            // They are doomed already: loops delete them by and by.
            Action::DropKeys(_) => node.ring_all(),
            Action::Deliver {
                is_sharded,
                channel,
                message,
            } => {
                if is_sharded {
                    node.pubsub.publish_on_shard(&channel, &message);
                } else {
                    node.pubsub.publish(&channel, &message);
                }
            }
            Action::Log(importance, text) => node.log.write(level(importance), format_args!("{text}")),
            // The others were carried out by the caller.
            _ => {}
        }
    }

    /// Has the node follow the primary at this address, unless it does so already.
    fn follow(&self, address: Address) {
        let node = &self.node;
        let primary = Primary {
            host: address.ip.to_string(),
            port: address.client_port(self.uses_tls),
        };
        if address.ip.is_empty() || node.replication.following.link().primary.as_ref() == Some(&primary) {
            return;
        }
        node.audit_topology(&format!(
            "follows {}:{} in the cluster",
            primary.host, primary.port
        ));
        node.follow(Some(primary), true);
    }

    /// Has a replica follow its primary as soon as the address of that is known, and anew at its other port when `tls-replication` has
    /// changed.
    pub(super) fn see_to_role(&mut self) {
        let former = std::mem::replace(&mut self.uses_tls, self.node.settings.load().tls_replication);
        if self.node.replication.following.is_replica() && former == self.uses_tls {
            return;
        }
        let address = self.cluster().read(|machine, _| {
            let view = machine.view();
            let primary = view.me().primary.filter(|_| view.me().is_replica());
            primary.map(|primary| view[primary].address)
        });
        if let Some(address) = address {
            self.follow(address);
        }
    }

    /// Admits no more writes, and tells the driver when those that were admitted have ended.
    fn pause_writes(&self) {
        let (node, news) = (Arc::clone(&self.node), self.sender());
        node.pause.hold(PauseCauses::FAILOVER);
        let number = node.fence.ask();
        node.ring_all();
        spawn_local(async move {
            node.fence.passed(number).await;
            let _ = news.send(News::WritesPaused).await;
        });
    }

    /// Deletes all data, when the node is a primary in every respect.
    async fn drop_all(&self) {
        let following = &self.node.replication.following;
        while following.is_changing() || !try_clear(&self.node, &self.mesh) {
            sleep(RETRY).await;
        }
    }

    /// Facts about this node as of now.
    pub(super) fn facts(&mut self) -> Facts {
        let node = &self.node;
        let (following, end) = (&node.replication.following, node.journal.end().offset());
        if !following.is_replica() {
            return Facts {
                replication_offset: end,
                data_as_of_ms: None,
            };
        }
        let (link, version, heard_us) = (following.link(), following.version(), following.heard_us());
        if version != self.role.version {
            self.role = Role {
                version,
                is_foreign: self.role.is_foreign,
                ..Role::default()
            };
        }
        self.role.is_foreign &= !link.has_followed;
        let has_heard = link.stage == LinkStage::Connected && heard_us != self.role.heard_us;
        // A link that was in order between two looks only has brought the data all the same.
        if has_heard || link.has_followed && self.role.as_of_ms.is_none() {
            self.role.heard_us = heard_us;
            self.role.as_of_ms = Some(now(&node.clock).monotonic_ms);
        }
        let has_data = link.is_resumable && link.stage != LinkStage::Transfer && !self.role.is_foreign;
        Facts {
            // Without the primary's data it must lose every election. The offset of another history may be greater than any of this one.
            replication_offset: if has_data { end } else { 0 },
            data_as_of_ms: self.role.as_of_ms,
        }
    }
}

fn level(importance: Importance) -> Level {
    match importance {
        Importance::Debug => Level::Debug,
        Importance::Verbose => Level::Verbose,
        Importance::Notice => Level::Notice,
        Importance::Warning => Level::Warning,
    }
}
