//! TLS: the certificates that a node shows, those it trusts, and its sessions with clients.
//!
//! [`Contexts`] are made from the directives and the files that these name. They never change: [`Tls`] publishes the current ones, and
//! a connection keeps those that it began with. A change of a directive reads all files anew, also when the directive keeps its
//! value, since this is how certificates are renewed; if any file cannot be used, the old contexts stay.
//!
//! - `files.rs`: certificates, keys and authorities in PEM files.
//! - `suites.rs`: the names that OpenSSL and Redis give to ciphers and versions.
//! - `verifiers.rs`: which certificates of a peer are good.
//! - `sessions.rs`: sessions that clients can resume.
//! - `names.rs`: the name that a certificate gives to its owner.
//!
//! The session of a connection is in `shard/session.rs`.

mod files;
mod names;
mod sessions;
mod suites;
mod verifiers;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

pub(crate) use self::names::name_in_certificate;
use self::sessions::Sessions;
use self::suites::Choice;
use crate::clock::Clock;
use crate::config::{Secret, Settings, TlsClientAuth};

/// Directives of which a change, and also a CONFIG SET to the present value, makes new contexts.
const OF_CONTEXTS: [&str; 19] = [
    "tls-port",
    "tls-cert-file",
    "tls-key-file",
    "tls-key-file-pass",
    "tls-client-cert-file",
    "tls-client-key-file",
    "tls-client-key-file-pass",
    "tls-ca-cert-file",
    "tls-ca-cert-dir",
    "tls-auth-clients",
    "tls-replication",
    "tls-cluster",
    "tls-protocols",
    "tls-ciphers",
    "tls-ciphersuites",
    "tls-prefer-server-ciphers",
    "tls-session-caching",
    "tls-session-cache-size",
    "tls-session-cache-timeout",
];

/// Whether a change of this directive makes new contexts.
pub(crate) fn is_of_contexts(directive: &str) -> bool {
    OF_CONTEXTS.contains(&directive)
}

/// The published contexts of a node; none while nothing of it uses TLS.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    current: ArcSwapOption<Contexts>,
}

impl Tls {
    /// The contexts for a connection that begins now.
    pub(crate) fn contexts(&self) -> Option<Arc<Contexts>> {
        self.current.load_full()
    }

    /// Publishes other contexts, and returns the former ones.
    pub(crate) fn publish(&self, contexts: Option<Arc<Contexts>>) -> Option<Arc<Contexts>> {
        self.current.swap(contexts)
    }
}

/// Reason for which contexts cannot be made, as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsError(String);

impl TlsError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

/// Everything that a node's connections need of its configuration.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// For clients.
    server: Arc<ServerConfig>,
    /// For other nodes that connect to the bus, which must show a certificate; none without authorities.
    bus: Option<Arc<ServerConfig>>,
    /// For connections to other nodes; none without authorities.
    client: Option<Arc<ClientConfig>>,
}

impl Contexts {
    /// The contexts of a configuration; none if nothing in it uses TLS.
    ///
    /// # Errors
    /// The first file or value that cannot be used.
    pub(crate) fn from_settings(
        settings: &Settings,
        clock: &Arc<Clock>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        if settings.tls_port == 0 && !settings.tls_replication && !settings.tls_cluster {
            return Ok(None);
        }
        let material = Material::read(settings)?;
        let needs_authorities = settings.tls_auth_clients != TlsClientAuth::No
            || settings.tls_replication
            || settings.tls_cluster;
        if needs_authorities && material.authorities.is_none() {
            return Err(TlsError::new(
                "Either tls-ca-cert-file or tls-ca-cert-dir must be specified when tls-cluster, tls-replication or \
                 tls-auth-clients are enabled!",
            ));
        }
        material.contexts(settings, clock).map(Arc::new).map(Some)
    }

    /// The context of a client that connects now.
    pub(crate) fn for_clients(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// The context of another node that connects to the bus now, which must show a certificate whatever `tls-auth-clients` says.
    ///
    /// # Errors
    /// Without authorities.
    pub(crate) fn for_bus(&self) -> io::Result<Arc<ServerConfig>> {
        self.bus.clone().ok_or_else(no_authorities)
    }

    /// The context of a connection that is opened to another node now. The peer's certificate must come from one of the authorities;
    /// as in Redis, its names are not compared with anything.
    ///
    /// # Errors
    /// Without authorities.
    pub(crate) fn for_nodes(&self) -> io::Result<Arc<ClientConfig>> {
        self.client.clone().ok_or_else(no_authorities)
    }
}

fn no_authorities() -> io::Error {
    io::Error::other("connections to other nodes over TLS need tls-ca-cert-file or tls-ca-cert-dir")
}

/// The name that a connection to this host announces. An address is not announced, and neither is a name that is not one of DNS.
pub(crate) fn announced_name(host: &str) -> ServerName<'static> {
    ServerName::try_from(host.to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
}

/// Contents of the files that a configuration names.
struct Material {
    provider: Arc<CryptoProvider>,
    choice: Choice,
    own: Arc<CertifiedKey>,
    /// The certificate for connections to other nodes.
    as_client: Arc<CertifiedKey>,
    authorities: Option<Arc<RootCertStore>>,
}

impl Material {
    fn read(settings: &Settings) -> Result<Self, TlsError> {
        let path = |configured: &str| settings.path(configured);
        let own_certificate =
            path(&settings.tls_cert_file).ok_or_else(|| TlsError::new("No tls-cert-file configured!"))?;
        let own_key =
            path(&settings.tls_key_file).ok_or_else(|| TlsError::new("No tls-key-file configured!"))?;
        let choice = Choice::of(settings)?;
        let provider = Arc::new(CryptoProvider {
            cipher_suites: choice.suites.clone(),
            ..aws_lc_rs::default_provider()
        });
        let own = certified(&provider, &own_certificate, &own_key, &settings.tls_key_file_pass)?;
        let as_client = match path(&settings.tls_client_cert_file) {
            None => Arc::clone(&own),
            Some(certificate) => {
                let key = path(&settings.tls_client_key_file)
                    .ok_or_else(|| TlsError::new("tls-client-cert-file needs tls-client-key-file as well"))?;
                certified(&provider, &certificate, &key, &settings.tls_client_key_file_pass)?
            }
        };
        let (file, directory) = (path(&settings.tls_ca_cert_file), path(&settings.tls_ca_cert_dir));
        let authorities = match (file, directory) {
            (None, None) => None,
            (file, directory) => Some(Arc::new(files::authorities(
                file.as_deref(),
                directory.as_deref(),
            )?)),
        };
        Ok(Self {
            provider,
            choice,
            own,
            as_client,
            authorities,
        })
    }

    fn contexts(&self, settings: &Settings, clock: &Arc<Clock>) -> Result<Contexts, TlsError> {
        let bus = match &self.authorities {
            Some(_) => Some(Arc::new(self.server(TlsClientAuth::Yes)?)),
            None => None,
        };
        let mut server = self.server(settings.tls_auth_clients)?;
        server.ignore_client_order = settings.tls_prefer_server_ciphers;
        if settings.tls_session_caching {
            server.session_storage = Arc::new(Sessions::new(settings, Arc::clone(clock)));
            // As many as clients take from OpenSSL.
            server.send_tls13_tickets = 2;
        }
        Ok(Contexts {
            server: Arc::new(server),
            bus,
            client: self.client()?.map(Arc::new),
        })
    }

    /// A server's side, without sessions that could be resumed.
    fn server(&self, auth: TlsClientAuth) -> Result<ServerConfig, TlsError> {
        let verifier = verifiers::of_clients(auth, self.authorities.as_ref(), &self.provider)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.choice.versions)
            .map_err(unusable)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.own))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// A client's side; none without authorities, since it could trust nobody.
    fn client(&self) -> Result<Option<ClientConfig>, TlsError> {
        let Some(authorities) = &self.authorities else {
            return Ok(None);
        };
        let verifier = verifiers::Chain::new(Arc::clone(authorities), &self.provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.choice.versions)
            .map_err(unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&self.as_client))));
        // Links last long, and each time a node is connected to, it shows its certificate.
        config.resumption = Resumption::disabled();
        Ok(Some(config))
    }
}

fn unusable(error: rustls::Error) -> TlsError {
    TlsError::new(format!(
        "The values of tls-protocols, tls-ciphers and tls-ciphersuites do not go together: {error}"
    ))
}

/// A certificate with its key.
fn certified(
    provider: &CryptoProvider,
    certificate: &Path,
    key: &Path,
    password: &Secret,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = files::certificates(certificate).map_err(|why| {
        TlsError::new(format!(
            "Failed to load certificate: {}: {why}",
            certificate.display()
        ))
    })?;
    let bad_key = |why: &dyn fmt::Display| {
        TlsError::new(format!("Failed to load private key: {}: {why}", key.display()))
    };
    let secret = files::private_key(key, password.get()).map_err(|why| bad_key(&why))?;
    let secret = provider
        .key_provider
        .load_private_key(secret)
        .map_err(|why| bad_key(&why))?;
    let certified = CertifiedKey::new(chain, secret);
    match certified.keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
            Err(bad_key(&"it does not belong to the certificate"))
        }
        // A certificate of an old version cannot be looked into, but peers that know it may accept it.
        _ => Ok(Arc::new(certified)),
    }
}
