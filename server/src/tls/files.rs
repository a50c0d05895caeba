//! Certificates, private keys and authorities in PEM files.

use std::fs;
use std::io;
use std::path::Path;

use pkcs8::EncryptedPrivateKeyInfoRef;
use pkcs8::der::SecretDocument;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TlsError;
use crate::error::describe;

/// The certificates of a file, in its order: that of its owner first, then those that lead to an authority.
///
/// # Errors
/// When the file cannot be read, or has no certificate.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::new("it has no certificate in PEM form")),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::new(error.to_string())),
    }
}

/// The private key of a file, which may be encrypted with a password.
///
/// # Errors
/// When the file cannot be read, has no key, or one that the password does not open.
pub(super) fn private_key(path: &Path, password: Option<&[u8]>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    if let Some(encrypted) = encrypted_section(&text)? {
        let password =
            password.ok_or_else(|| TlsError::new("it is encrypted, and no password is configured for it"))?;
        return decrypt(encrypted, password);
    }
    if text
        .windows(OLD_ENCRYPTION.len())
        .any(|part| part == OLD_ENCRYPTION)
    {
        return Err(TlsError::new(
            "it is encrypted in the old form of OpenSSL; 'openssl pkcs8 -topk8' writes it in the present one",
        ));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => TlsError::new("it has no private key in PEM form"),
        error => TlsError::new(error.to_string()),
    })
}

const OLD_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";
const ENCRYPTED_BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const ENCRYPTED_END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// The part of a file that is an encrypted key, if there is one.
fn encrypted_section(text: &[u8]) -> Result<Option<&str>, TlsError> {
    let Ok(text) = std::str::from_utf8(text) else {
        return Ok(None);
    };
    let Some(begin) = text.find(ENCRYPTED_BEGIN) else {
        return Ok(None);
    };
    let rest = &text[begin..];
    let length = rest
        .find(ENCRYPTED_END)
        .ok_or_else(|| TlsError::new("its encrypted key has no end"))?;
    Ok(Some(&rest[..length + ENCRYPTED_END.len()]))
}

fn decrypt(section: &str, password: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let malformed =
        |error: &dyn std::fmt::Display| TlsError::new(format!("its encrypted key is malformed: {error}"));
    let (_, encoded) = SecretDocument::from_pem(section).map_err(|error| malformed(&error))?;
    let encrypted =
        EncryptedPrivateKeyInfoRef::try_from(encoded.as_bytes()).map_err(|error| malformed(&error))?;
    let key = encrypted
        .decrypt(password)
        .map_err(|error| TlsError::new(format!("its password does not open it ({error})")))?;
    Ok(PrivatePkcs8KeyDer::from(key.as_bytes().to_vec()).into())
}

/// The authorities of a file and of all files in a directory.
///
/// # Errors
/// When one of both cannot be read, or has no usable certificate.
pub(super) fn authorities(file: Option<&Path>, directory: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = file {
        let failed = |why: &dyn std::fmt::Display| {
            TlsError::new(format!(
                "Failed to configure CA certificate(s) file: {}: {why}",
                path.display()
            ))
        };
        for certificate in certificates(path).map_err(|why| failed(&why))? {
            store.add(certificate).map_err(|why| failed(&why))?;
        }
    }
    if let Some(path) = directory {
        let failed = |why: &str| {
            TlsError::new(format!(
                "Failed to configure CA certificate(s) directory: {}: {why}",
                path.display()
            ))
        };
        let found = all_in(path).map_err(|error| failed(&describe(&error)))?;
        // As a directory of the system has files of all sorts, those that cannot be used are passed over.
        let (added, _) = store.add_parsable_certificates(found);
        if added == 0 {
            return Err(failed("it has no usable certificate"));
        }
    }
    Ok(store)
}

/// The certificates in all files of a directory.
fn all_in(directory: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_file() {
            found.extend(certificates(&path).unwrap_or_default());
        }
    }
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::new(describe(&error)))
}
