//! OpenSSL's list of ciphers, as far as the suites of this TLS can be meant by it.
//!
//! As in OpenSSL the list speaks of TLS 1.2 alone; the suites of TLS 1.3 are always there.

use crate::error::Error;
use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite};

/// The words that mean a suite of TLS 1.2: its name, then what OpenSSL calls its parts.
fn words(suite: CipherSuite) -> &'static [&'static str] {
    match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            &["ECDHE-ECDSA-AES256-GCM-SHA384", "AECDSA", "ECDSA", "AES256", "AES", "AESGCM", "SHA384"]
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            &["ECDHE-ECDSA-AES128-GCM-SHA256", "AECDSA", "ECDSA", "AES128", "AES", "AESGCM", "SHA256"]
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            &["ECDHE-ECDSA-CHACHA20-POLY1305", "AECDSA", "ECDSA", "CHACHA20", "SHA256"]
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
            &["ECDHE-RSA-AES256-GCM-SHA384", "ARSA", "AES256", "AES", "AESGCM", "SHA384"]
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            &["ECDHE-RSA-AES128-GCM-SHA256", "ARSA", "AES128", "AES", "AESGCM", "SHA256"]
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            &["ECDHE-RSA-CHACHA20-POLY1305", "ARSA", "CHACHA20", "SHA256"]
        }
        _ => &[],
    }
}

/// What OpenSSL calls all of them.
const EVERY: [&str; 8] =
    ["ALL", "DEFAULT", "COMPLEMENTOFDEFAULT", "HIGH", "ECDHE", "EECDH", "KEECDH", "TLSV1.2"];

fn is_meant(suite: CipherSuite, token: &str) -> bool {
    let token = token.to_ascii_uppercase();
    let part = |part: &str| EVERY.contains(&part) || words(suite).contains(&part);
    !words(suite).is_empty() && token.split('+').all(part)
}

/// Those of `known` that the list allows.
pub(crate) fn choose(
    wanted: &str,
    known: &[SupportedCipherSuite],
) -> Result<Vec<SupportedCipherSuite>, Error> {
    let tokens: Vec<&str> = wanted.split([':', ',', ' ']).filter(|token| !token.is_empty()).collect();
    let allowed = |suite: CipherSuite| {
        let mut allowed = false;
        for token in &tokens {
            match token.split_at_checked(1) {
                Some(("!", banned)) if is_meant(suite, banned) => return false,
                Some(("-", without)) if is_meant(suite, without) => allowed = false,
                // An order, or a setting of OpenSSL's.
                Some(("!" | "-" | "+" | "@", _)) | None => {}
                Some(_) => allowed |= is_meant(suite, token),
            }
        }
        allowed
    };
    let newest = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    let chosen: Vec<_> =
        known.iter().copied().filter(|suite| newest(suite) || allowed(suite.suite())).collect();
    if chosen.iter().all(newest) {
        return Err(Error::Ciphers { wanted: wanted.to_owned() });
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::choose;
    use tokio_rustls::rustls::crypto::ring;

    fn names(wanted: &str) -> Vec<String> {
        let chosen = choose(wanted, &ring::default_provider().cipher_suites).unwrap();
        let old = chosen.iter().map(|suite| format!("{:?}", suite.suite()));
        old.filter(|name| !name.starts_with("TLS13")).collect()
    }

    #[test]
    fn the_usual_lists_of_openssl_are_understood() {
        assert_eq!(names("ALL:!SSLv1:!SSLv2:!SSLv3:!TLSv1:!TLSv1.1").len(), 6);
        assert_eq!(names("HIGH:!aNULL:!MD5:@STRENGTH").len(), 6);
        assert_eq!(names("ECDHE-RSA-AES256-GCM-SHA384"), ["TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"]);
        assert_eq!(names("ECDHE+AESGCM:!aRSA").len(), 2);
        assert_eq!(names("HIGH:-CHACHA20").len(), 4);
    }

    #[test]
    fn a_list_that_allows_nothing_is_an_error() {
        let error = choose("AES128-SHA:DES-CBC3-SHA", &ring::default_provider().cipher_suites).unwrap_err();
        assert!(error.to_string().contains("DES-CBC3-SHA"), "{error}");
    }
}
