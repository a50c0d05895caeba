//! Certificates, made for one test each, and servers and clients that use them.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Launch, Process, free_port};

/// An authority, and the files of the certificates that it has issued.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// Certificate to be issued.
pub struct Subject<'a> {
    /// Its common name.
    pub name: &'a str,
    /// Its URIs.
    pub uris: &'a [&'a str],
    /// The certificate is not valid any more.
    pub is_expired: bool,
}

impl<'a> Subject<'a> {
    /// A valid certificate with a common name.
    #[must_use]
    pub fn named(name: &'a str) -> Self {
        Self {
            name,
            uris: &[],
            is_expired: false,
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("directory", &self.directory.path())
            .finish_non_exhaustive()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new authority, with a certificate for servers in `server.crt` and `server.key`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let mut params = params_for("test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Self {
            issuer,
            directory: TempDir::new().expect("a temporary directory"),
        };
        fs::write(authority.file("ca.crt"), authority.issuer.pem()).expect("a file");
        authority.issue("server", &Subject::named("server"));
        authority
    }

    /// Issues a certificate, and writes it and its key into `<file>.crt` and `<file>.key`.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn issue(&self, file: &str, subject: &Subject<'_>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params_of(subject)
            .signed_by(&key, &self.issuer)
            .expect("a certificate");
        fs::write(self.file(&format!("{file}.crt")), certificate.pem()).expect("a file");
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).expect("a file");
    }

    /// Writes a certificate that only its own key has signed.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn self_sign(&self, file: &str, subject: &Subject<'_>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params_of(subject).self_signed(&key).expect("a certificate");
        fs::write(self.file(&format!("{file}.crt")), certificate.pem()).expect("a file");
        fs::write(self.file(&format!("{file}.key")), key.serialize_pem()).expect("a file");
    }

    /// The path of a file of this authority.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of a file as text.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }

    /// Options of a server, of shardis and of Redis, that shows a certificate of this authority.
    #[must_use]
    pub fn options(&self, tls_port: u16) -> Vec<String> {
        [
            ("--tls-port", tls_port.to_string()),
            ("--tls-cert-file", self.path("server.crt")),
            ("--tls-key-file", self.path("server.key")),
            ("--tls-ca-cert-file", self.path("ca.crt")),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Options of redis-cli and its kin for a server of this authority, with the certificate of a client.
    #[must_use]
    pub fn tool_options(&self, client: &str) -> Vec<String> {
        [
            ("--cacert", self.path("ca.crt")),
            ("--cert", self.path(&format!("{client}.crt"))),
            ("--key", self.path(&format!("{client}.key"))),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .chain(["--tls".to_owned()])
        .collect()
    }

    /// The configuration of clients that trust this authority, and show a certificate if they have one.
    #[must_use]
    pub fn client(&self, certificate: Option<&str>) -> Arc<ClientConfig> {
        self.client_of(self, certificate)
    }

    /// The same with a certificate of another authority.
    ///
    /// # Panics
    /// When a file is missing.
    #[must_use]
    pub fn client_of(&self, other: &Authority, certificate: Option<&str>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a usable authority");
        let config = config_of(&[&rustls::version::TLS12, &rustls::version::TLS13]);
        let config = config.with_root_certificates(roots);
        let Some(name) = certificate else {
            return Arc::new(config.with_no_client_auth());
        };
        let (chain, key) = other.identity(name);
        Arc::new(
            config
                .with_client_auth_cert(chain, key)
                .expect("a usable certificate"),
        )
    }

    /// The configuration of clients without a certificate that speak one version.
    ///
    /// # Panics
    /// Never, with a version that exists.
    #[must_use]
    pub fn client_speaking(&self, version: &'static rustls::SupportedProtocolVersion) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a usable authority");
        Arc::new(
            config_of(&[version])
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.file(&format!("{name}.crt")));
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{name}.key")));
        (
            vec![certificate.expect("a certificate")],
            key.expect("a private key"),
        )
    }
}

fn config_of(
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions that the provider has")
}

fn params_for(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn params_of(subject: &Subject<'_>) -> CertificateParams {
    let mut params = params_for(subject.name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let uris = subject
        .uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().expect("a URI")));
    params.subject_alt_names = vec![
        SanType::DnsName("localhost".try_into().expect("a name")),
        SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
    ];
    params.subject_alt_names.extend(uris);
    if subject.is_expired {
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    params
}

/// A server that serves a plain port and one for TLS.
pub struct Secured {
    /// The process; its port is the plain one.
    pub process: Process,
    /// The port for TLS.
    pub tls_port: u16,
    /// The authority of its certificate, and of its clients'.
    pub authority: Authority,
}

impl Secured {
    /// Starts a server with further options.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(launch: Launch, options: &[&str]) -> Self {
        Self::start_with(Authority::new(), launch, options)
    }

    /// The same with the certificates of an authority.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start_with(authority: Authority, launch: Launch, options: &[&str]) -> Self {
        let tls_port = free_port();
        let process = launch.with(&authority.options(tls_port)).with(options).serve();
        Self {
            process,
            tls_port,
            authority,
        }
    }

    /// Address of the port for TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.tls_port).into()
    }

    /// A client over TLS that shows this certificate, if any.
    ///
    /// # Panics
    /// When it cannot connect.
    #[must_use]
    pub fn connect(&self, certificate: Option<&str>) -> Client {
        Client::connect_tls(self.address(), &self.authority.client(certificate))
            .unwrap_or_else(|error| panic!("connect to {}: {error}\n{}", self.address(), self.process.log()))
    }
}

/// Copies a file over another one.
///
/// # Panics
/// When it cannot.
pub fn replace(file: &Path, by: &Path) {
    fs::copy(by, file).expect("the file is replaced");
}
