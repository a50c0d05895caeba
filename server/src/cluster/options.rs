//! The directives `cluster-*` as the machine of a node takes them.

use shardis_cluster::event::{EndpointKind, Options};
use shardis_cluster::node::{Address, host};

use crate::config::{EndpointType, Settings};

/// The ports that a node really listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For clients.
    pub(crate) client: u16,
    /// For the bus.
    pub(crate) bus: u16,
}

/// Whether a change of this directive concerns the machine.
pub(crate) fn concerns_machine(directive: &str) -> bool {
    let is_of_others = matches!(
        directive,
        "port" | "tls-port" | "tls-cluster" | "repl-ping-replica-period"
    );
    is_of_others || directive.starts_with("cluster-")
}

/// The options of the machine under these directives.
#[allow(
    clippy::needless_update,
    reason = "a feature of the crate for its own tests adds a field"
)]
pub(crate) fn options(settings: &Settings, ports: Ports) -> Options {
    let told = |announced: u16, real: u16| if announced == 0 { real } else { announced };
    Options {
        node_timeout_ms: settings.cluster_node_timeout,
        replica_ping_period_ms: u64::from(settings.repl_ping_replica_period) * 1_000,
        replica_validity_factor: u64::from(settings.cluster_replica_validity_factor),
        replica_no_failover: settings.cluster_replica_no_failover,
        migration_barrier: settings.cluster_migration_barrier as usize,
        allow_replica_migration: settings.cluster_allow_replica_migration,
        require_full_coverage: settings.cluster_require_full_coverage,
        allow_reads_when_down: settings.cluster_allow_reads_when_down,
        allow_pubsubshard_when_down: settings.cluster_allow_pubsubshard_when_down,
        preferred_endpoint: match settings.cluster_preferred_endpoint_type {
            EndpointType::Ip => EndpointKind::Ip,
            EndpointType::Hostname => EndpointKind::Hostname,
            EndpointType::UnknownEndpoint => EndpointKind::Unknown,
        },
        is_tls: settings.tls_cluster,
        announced: Address {
            // The directive takes nothing that is no host.
            ip: host(&settings.cluster_announce_ip).unwrap_or_default(),
            tcp_port: told(settings.cluster_announce_port, ports.client),
            tls_port: told(settings.cluster_announce_tls_port, settings.tls_port),
            bus_port: told(settings.cluster_announce_bus_port, ports.bus),
        },
        hostname: settings.cluster_announce_hostname.as_str().into(),
        human_name: settings.cluster_announce_human_nodename.as_str().into(),
        ..Options::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_stands_in_for_what_is_real() {
        let ports = Ports {
            client: 7_000,
            bus: 17_000,
        };
        let mut settings = Settings::default();
        let announced = options(&settings, ports).announced;
        assert_eq!(
            (announced.ip.as_str(), announced.tcp_port, announced.bus_port),
            ("", 7_000, 17_000)
        );
        settings.cluster_announce_ip = "10.0.0.1".to_owned();
        settings.cluster_announce_port = 1;
        settings.cluster_announce_bus_port = 2;
        let announced = options(&settings, ports).announced;
        assert_eq!(
            (announced.ip.as_str(), announced.tcp_port, announced.bus_port),
            ("10.0.0.1", 1, 2)
        );
    }

    #[test]
    fn the_ports_for_tls_are_the_machines_concern() {
        let ports = Ports {
            client: 0,
            bus: 17_001,
        };
        let mut settings = Settings {
            tls_port: 7_001,
            tls_cluster: true,
            ..Settings::default()
        };
        let told = options(&settings, ports);
        assert!(told.is_tls);
        assert_eq!((told.announced.tcp_port, told.announced.tls_port), (0, 7_001));
        settings.cluster_announce_tls_port = 3;
        assert_eq!(options(&settings, ports).announced.tls_port, 3);
        for directive in ["tls-port", "tls-cluster", "port", "cluster-announce-tls-port"] {
            assert!(concerns_machine(directive), "{directive}");
        }
        assert!(!concerns_machine("tls-replication"), "the links follow it");
    }
}
