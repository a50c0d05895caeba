//! The names that OpenSSL and Redis give to ciphers and versions, and what they stand for here.
//!
//! There are three suites of TLS 1.3 and six of TLS 1.2, all with forward secrecy and authenticated encryption. A name that OpenSSL
//! knows and that is none of them is an error, since a node must not seem to offer what it cannot; only where a name is excluded
//! (`!RC4`), there is nothing to exclude.

use rustls::crypto::aws_lc_rs::cipher_suite as suite;
use rustls::version::{TLS12, TLS13};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion};

use super::TlsError;
use crate::config::Settings;

/// Versions and ciphers that a configuration allows.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Versions.
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Ciphers of these versions, the preferred first.
    pub(super) suites: Vec<SupportedCipherSuite>,
}

impl Choice {
    /// The choice of a configuration.
    ///
    /// # Errors
    /// A name that stands for nothing here.
    pub(super) fn of(settings: &Settings) -> Result<Self, TlsError> {
        let versions = versions(&settings.tls_protocols)?;
        let mut suites = modern(&settings.tls_ciphersuites)?;
        suites.extend(classic(&settings.tls_ciphers)?);
        suites.retain(|suite| versions.contains(&suite.version()));
        Ok(Self { versions, suites })
    }
}

/// The versions of `tls-protocols`; an empty text allows all.
fn versions(text: &str) -> Result<Vec<&'static SupportedProtocolVersion>, TlsError> {
    let mut versions = Vec::new();
    for word in text.split_ascii_whitespace() {
        match word.to_ascii_lowercase().as_str() {
            "tlsv1.2" => versions.push(&TLS12),
            "tlsv1.3" => versions.push(&TLS13),
            "tlsv1" | "tlsv1.1" => {
                return Err(TlsError::new(format!(
                    "tls-protocols: {word} is too old to be safe and does not exist here. Use 'TLSv1.2' and 'TLSv1.3'."
                )));
            }
            _ => {
                return Err(TlsError::new(
                    "Invalid tls-protocols specified. Use a combination of 'TLSv1.2' and 'TLSv1.3'.",
                ));
            }
        }
    }
    if versions.is_empty() {
        versions = vec![&TLS12, &TLS13];
    }
    Ok(versions)
}

const MODERN: [(&str, SupportedCipherSuite); 3] = [
    ("TLS_AES_256_GCM_SHA384", suite::TLS13_AES_256_GCM_SHA384),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        suite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_AES_128_GCM_SHA256", suite::TLS13_AES_128_GCM_SHA256),
];

/// The suites of `tls-ciphersuites`, for TLS 1.3; an empty text allows all.
fn modern(text: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen = Vec::new();
    for name in names(text) {
        let found = MODERN.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, suite) = found.ok_or_else(|| {
            TlsError::new(format!(
                "tls-ciphersuites: '{name}' does not exist here. There are {}.",
                MODERN.map(|(known, _)| known).join(", ")
            ))
        })?;
        chosen.push(*suite);
    }
    Ok(if chosen.is_empty() {
        MODERN.map(|(_, suite)| suite).to_vec()
    } else {
        chosen
    })
}

/// A suite of TLS 1.2: the name that OpenSSL gives to it, and the groups that OpenSSL counts it among.
struct Classic {
    name: &'static str,
    suite: SupportedCipherSuite,
    groups: &'static [&'static str],
}

/// All suites of TLS 1.2, in the order of preference.
const CLASSIC: [Classic; 6] = [
    Classic {
        name: "ECDHE-ECDSA-AES256-GCM-SHA384",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        groups: &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Classic {
        name: "ECDHE-RSA-AES256-GCM-SHA384",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        groups: &["aRSA", "AES", "AES256", "AESGCM", "SHA384"],
    },
    Classic {
        name: "ECDHE-ECDSA-CHACHA20-POLY1305",
        suite: suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["aECDSA", "ECDSA", "CHACHA20", "SHA256"],
    },
    Classic {
        name: "ECDHE-RSA-CHACHA20-POLY1305",
        suite: suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        groups: &["aRSA", "CHACHA20", "SHA256"],
    },
    Classic {
        name: "ECDHE-ECDSA-AES128-GCM-SHA256",
        suite: suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        groups: &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
    Classic {
        name: "ECDHE-RSA-AES128-GCM-SHA256",
        suite: suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        groups: &["aRSA", "AES", "AES128", "AESGCM", "SHA256"],
    },
];

/// Groups that all of these suites belong to.
const OF_ALL: [&str; 9] = [
    "DEFAULT",
    "ALL",
    "HIGH",
    "ECDHE",
    "EECDH",
    "kECDHE",
    "kEECDH",
    "TLSv1.2",
    "COMPLEMENTOFDEFAULT",
];

impl Classic {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.groups.contains(&name) || OF_ALL.contains(&name)
    }
}

/// The suites of `tls-ciphers`, for TLS 1.2: a list of OpenSSL. Words add suites, `-` and `!` take them away (`!` for good), `+`
/// moves them to the end, and `A+B` are the suites that are in both groups. An empty text allows all.
fn classic(text: &str) -> Result<Vec<SupportedCipherSuite>, TlsError> {
    let mut chosen: Vec<usize> = Vec::new();
    let mut banned: Vec<usize> = Vec::new();
    for word in names(text).filter(|word| !word.starts_with('@')) {
        let (sign, name) = match word.as_bytes()[0] {
            sign @ (b'!' | b'-' | b'+') => (sign, &word[1..]),
            _ => (b' ', word),
        };
        let parts: Vec<&str> = name.split('+').collect();
        let meant: Vec<usize> = (0..CLASSIC.len())
            .filter(|&index| parts.iter().all(|part| CLASSIC[index].is(part)))
            .collect();
        match sign {
            b'!' | b'-' => {
                chosen.retain(|index| !meant.contains(index));
                if sign == b'!' {
                    banned.extend(meant);
                }
            }
            b'+' => {
                let moved: Vec<usize> = chosen
                    .iter()
                    .copied()
                    .filter(|index| meant.contains(index))
                    .collect();
                chosen.retain(|index| !meant.contains(index));
                chosen.extend(moved);
            }
            _ if meant.is_empty() => {
                return Err(TlsError::new(format!(
                    "tls-ciphers: '{word}' does not exist here. There are {}.",
                    CLASSIC.map(|known| known.name).join(", ")
                )));
            }
            _ => {
                let new = meant.into_iter().filter(|index| !banned.contains(index));
                let new: Vec<usize> = new.filter(|index| !chosen.contains(index)).collect();
                chosen.extend(new);
            }
        }
    }
    match (names(text).next(), chosen.is_empty()) {
        (None, _) => chosen = (0..CLASSIC.len()).collect(),
        (Some(_), true) => return Err(TlsError::new("tls-ciphers: the list leaves no cipher")),
        (Some(_), false) => {}
    }
    Ok(chosen.into_iter().map(|index| CLASSIC[index].suite).collect())
}

/// The words of a list of ciphers.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split([':', ',', ' ']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(suites: &[SupportedCipherSuite]) -> Vec<&'static str> {
        let name = |suite: &SupportedCipherSuite| {
            let modern = MODERN
                .iter()
                .find(|(_, known)| known == suite)
                .map(|(name, _)| *name);
            let classic = CLASSIC.iter().find(|known| known.suite == *suite);
            modern.or(classic.map(|known| known.name)).unwrap()
        };
        suites.iter().map(name).collect()
    }

    #[test]
    fn lists_of_openssl_mean_what_they_mean_there() {
        let of = |text: &str| shown(&classic(text).unwrap());
        assert_eq!(of("").len(), 6);
        assert_eq!(of("DEFAULT:!MEDIUM").len(), 6);
        assert_eq!(
            of("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-CHACHA20-POLY1305"]
        );
        assert_eq!(
            of("ECDHE+AESGCM:!aECDSA"),
            ["ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES128-GCM-SHA256"]
        );
        assert_eq!(of("CHACHA20:ALL").first(), Some(&"ECDHE-ECDSA-CHACHA20-POLY1305"));
        assert_eq!(
            of("HIGH:+CHACHA20:@STRENGTH").last(),
            Some(&"ECDHE-RSA-CHACHA20-POLY1305")
        );
        assert_eq!(
            of("!AES:ALL:aRSA"),
            ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"]
        );
        assert_eq!(of("ALL:-AES:AES128").len(), 4);
    }

    #[test]
    fn what_does_not_exist_is_an_error_that_says_so() {
        for text in [
            "AES256-SHA",
            "DHE-RSA-AES128-GCM-SHA256:ALL",
            "kRSA",
            "nonsense",
            "ECDHE+RC4",
        ] {
            let error = classic(text).unwrap_err().to_string();
            assert!(error.contains("does not exist here"), "{text}: {error}");
        }
        assert!(classic("ALL:!ALL").unwrap_err().to_string().contains("no cipher"));
        assert!(modern("TLS_AES_128_CCM_SHA256").is_err());
        assert_eq!(
            shown(&modern("TLS_AES_128_GCM_SHA256").unwrap()),
            ["TLS_AES_128_GCM_SHA256"]
        );
    }

    #[test]
    fn versions_are_named_as_in_redis() {
        assert_eq!(versions("").unwrap().len(), 2);
        assert_eq!(versions("TLSv1.3").unwrap(), [&TLS13]);
        assert_eq!(versions("tlsv1.2 TLSV1.3").unwrap(), [&TLS12, &TLS13]);
        assert!(versions("TLSv1.1 TLSv1.2").is_err() && versions("SSLv3").is_err());
    }
}
