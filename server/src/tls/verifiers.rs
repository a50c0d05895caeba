//! Verifiers of a peer's certificate, which must lead to one of the configured authorities.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::TlsError;
use crate::config::TlsClientAuth;

/// The verifier of clients' certificates.
///
/// # Errors
/// Without authorities, if certificates are asked for.
pub(super) fn of_clients(
    auth: TlsClientAuth,
    authorities: Option<&Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (TlsClientAuth::Yes | TlsClientAuth::Optional, Some(authorities)) = (auth, authorities) else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), Arc::clone(provider))
        // Clients are not told whose certificates would do: a list of many authorities makes each handshake longer.
        .clear_root_hint_subjects();
    let verifier = match auth {
        TlsClientAuth::Optional => verifier.allow_unauthenticated(),
        _ => verifier,
    };
    verifier.build().map_err(|error| TlsError::new(error.to_string()))
}

/// The verifier of servers' certificates, which looks at the chain and at no name, as Redis does: nodes know each other by addresses
/// that change.
#[derive(Debug)]
pub(super) struct Chain {
    authorities: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Chain {
    /// A verifier that trusts these authorities.
    pub(super) fn new(authorities: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Self {
            authorities,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.authorities,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
