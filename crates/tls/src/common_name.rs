//! The common name of a certificate, as libpq takes it: where the certificate has no alternative name of the kind that
//! was called, and with `*` for one label at its left.

use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Whether the common name is that of `called`, and may count.
pub(crate) fn fits(certificate: &CertificateDer<'_>, called: &ServerName<'_>) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let mut alternatives = alternatives.iter().flat_map(|names| &names.value.general_names);
    let by_address = matches!(called, ServerName::IpAddress(_));
    let counts = !alternatives.any(|name| match name {
        GeneralName::DNSName(_) => !by_address,
        GeneralName::IPAddress(_) => by_address,
        _ => false,
    });
    let called = called.to_str();
    let names = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    counts && names.last().is_some_and(|name| same(name, &called, by_address))
}

fn same(name: &str, called: &str, by_address: bool) -> bool {
    match name.strip_prefix("*.").filter(|_| !by_address) {
        Some(rest) => called
            .split_once('.')
            .is_some_and(|(label, after)| !label.is_empty() && after.eq_ignore_ascii_case(rest)),
        None => name.eq_ignore_ascii_case(called),
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn a_star_is_one_label() {
        for (name, called, fits) in [
            ("db1", "DB1", true),
            ("db1", "db2", false),
            ("*.example.org", "db1.example.org", true),
            ("*.example.org", "a.db1.example.org", false),
            ("*.example.org", "example.org", false),
            ("*.org", "example.org", true),
            ("*", "db1", false),
        ] {
            assert_eq!(same(name, called, false), fits, "{name} {called}");
        }
        assert!(same("10.0.0.1", "10.0.0.1", true) && !same("*.0.0.1", "10.0.0.1", true));
    }
}
