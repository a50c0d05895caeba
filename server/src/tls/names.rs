//! The name that a certificate gives to its owner, for `tls-auth-clients-user`.

use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::config::TlsClientUser;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Names of the certificate's owner in the field that decides about the user: the common name of its subject, or the URIs among its
/// alternative names. They are whole, whatever bytes are in them: a name with a zero byte is not the name before that.
pub(crate) fn name_in_certificate(certificate: &[u8], field: TlsClientUser) -> Vec<Vec<u8>> {
    let Ok(certificate) = Certificate::from_der(certificate) else {
        return Vec::new();
    };
    match field {
        TlsClientUser::Off => Vec::new(),
        TlsClientUser::CommonName => common_name(&certificate).into_iter().collect(),
        TlsClientUser::Uri => uris(&certificate),
    }
}

fn common_name(certificate: &Certificate) -> Option<Vec<u8>> {
    let subject = certificate.tbs_certificate().subject();
    let name = &subject
        .iter()
        .find(|attribute| attribute.oid == COMMON_NAME)?
        .value;
    // Other kinds of text have two or four bytes to a character, and are used by nobody.
    let is_of_bytes = matches!(
        name.tag(),
        Tag::Utf8String | Tag::PrintableString | Tag::TeletexString | Tag::Ia5String
    );
    is_of_bytes.then(|| name.value().to_vec())
}

fn uris(certificate: &Certificate) -> Vec<Vec<u8>> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = names else {
        return Vec::new();
    };
    let uri = |name: &GeneralName| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_bytes().to_vec()),
        _ => None,
    };
    names.iter().filter_map(uri).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common_name: &str, uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "shardis");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        params
            .self_signed(&KeyPair::generate().unwrap())
            .unwrap()
            .der()
            .to_vec()
    }

    #[test]
    fn names_are_whole() {
        let plain = certificate("orders", &["spiffe://shop/orders", "urn:second"]);
        assert_eq!(
            name_in_certificate(&plain, TlsClientUser::CommonName),
            [b"orders"]
        );
        assert_eq!(
            name_in_certificate(&plain, TlsClientUser::Uri),
            [&b"spiffe://shop/orders"[..], b"urn:second"]
        );
        assert!(name_in_certificate(&plain, TlsClientUser::Off).is_empty());
        let cut = certificate("admin\0.example", &[]);
        assert_eq!(
            name_in_certificate(&cut, TlsClientUser::CommonName),
            [b"admin\0.example"]
        );
        assert!(name_in_certificate(&cut, TlsClientUser::Uri).is_empty());
        assert!(name_in_certificate(b"no certificate", TlsClientUser::CommonName).is_empty());
    }
}
