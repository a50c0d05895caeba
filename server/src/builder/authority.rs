//! [`TlsAuthority`]: a throw-away authority for the certificates of embedded servers and their clients.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// A throw-away authority: its key exists in this process only, and its files go with the last server that uses it.
#[derive(Clone)]
pub struct TlsAuthority(Arc<Authority>);

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The files that the directives of servers name.
    folder: TempDir,
}

/// A certificate with its key, in PEM form.
#[derive(Clone)]
pub struct TlsIdentity {
    /// The certificate.
    pub certificate: String,
    /// Its private key, in PKCS#8.
    pub key: String,
}

impl TlsAuthority {
    /// An authority with a new key.
    pub(super) fn new() -> io::Result<Self> {
        let mut params = params_for("shardis throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
        let folder = TempDir::new()?;
        let authority = Self(Arc::new(Authority { issuer, folder }));
        fs::write(authority.certificate_file(), authority.certificate())?;
        let server = authority.issue_to(
            "shardis",
            vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ],
        )?;
        fs::write(authority.file("server.crt"), server.certificate)?;
        fs::write(authority.file("server.key"), server.key)?;
        Ok(authority)
    }

    /// The authority's certificate in PEM form, which clients have to trust.
    pub fn certificate(&self) -> String {
        self.0.issuer.pem()
    }

    /// A file with that certificate, which exists as long as a server uses it.
    pub fn certificate_file(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// A certificate for a client, whose common name is `name`: with the directive `tls-auth-clients-user CN`, the client acts as the
    /// user of this name.
    ///
    /// # Errors
    /// When `name` cannot stand in a certificate.
    pub fn issue(&self, name: &str) -> io::Result<TlsIdentity> {
        self.issue_to(name, vec![ExtendedKeyUsagePurpose::ClientAuth])
    }

    fn issue_to(&self, name: &str, usages: Vec<ExtendedKeyUsagePurpose>) -> io::Result<TlsIdentity> {
        let mut params = params_for(name);
        params.extended_key_usages = usages;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let localhost = Ia5String::try_from("localhost").map_err(io::Error::other)?;
        params.subject_alt_names = vec![
            SanType::DnsName(localhost),
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
        ];
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let certificate = params.signed_by(&key, &self.0.issuer).map_err(io::Error::other)?;
        Ok(TlsIdentity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.folder.path().join(name)
    }

    /// Lines of the configuration by which a server shows a certificate of this authority.
    pub(super) fn lines(&self) -> Vec<u8> {
        let files = [
            ("tls-cert-file", "server.crt"),
            ("tls-key-file", "server.key"),
            ("tls-ca-cert-file", "ca.crt"),
        ];
        let mut text = b"tls-auth-clients no\n".to_vec();
        for (directive, name) in files {
            text.extend_from_slice(directive.as_bytes());
            text.push(b' ');
            text.extend(crate::config::quote(
                self.file(name).display().to_string().as_bytes(),
            ));
            text.push(b'\n');
        }
        text
    }
}

fn params_for(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl fmt::Debug for TlsAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsAuthority")
            .field("folder", &self.0.folder.path())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TlsIdentity {
    /// Does not show the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}
