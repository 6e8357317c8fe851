//! The hash of a server's certificate that SCRAM binds a login to (RFC 5929, `tls-server-end-point`).

use ring::digest::{Algorithm, SHA256, SHA384, SHA512, digest};

/// The hash; `None` where the certificate's signature names none, as with Ed25519.
#[must_use]
pub fn end_point_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(digest(algorithm(certificate)?, certificate).as_ref().to_vec())
}

/// The hash of the signature: `Certificate ::= SEQUENCE { tbs SEQUENCE, algorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }`.
fn algorithm(certificate: &[u8]) -> Option<&'static Algorithm> {
    let (inside, _) = element(certificate)?;
    let (_, after_tbs) = element(inside)?;
    let (algorithm, _) = element(after_tbs)?;
    let (oid, _) = element(algorithm)?;
    match oid {
        // RSA with MD5 and SHA-1, ECDSA with SHA-1: SHA-256 stands in for what is too weak.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05 | 0x0b]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => Some(&SHA256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => Some(&SHA384),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d]
        | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04] => Some(&SHA512),
        _ => None,
    }
}

/// The content of the first DER element, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[_, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (digits, rest) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::{element, end_point_hash};

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let signed = rcgen::generate_simple_self_signed(vec!["db".to_owned()]).unwrap();
        let der = signed.cert.der();
        let expected = ring::digest::digest(&ring::digest::SHA256, der);
        assert_eq!(end_point_hash(der).unwrap(), expected.as_ref());
        assert_eq!(end_point_hash(b"nonsense"), None);
        assert_eq!(end_point_hash(&[]), None);
        assert_eq!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
