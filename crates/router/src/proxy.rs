//! PROXY protocol, version 2: who the client is, said by a load balancer before us or by us to a pooler.
//!
//! ```text
//!   12 bytes of signature │ version 2, command │ family, protocol │ length │ addresses │ more, which is skipped
//! ```
//! No message of PostgreSQL begins like the signature, so a trusted load balancer may also connect without a header.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt};

pub(crate) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The most that may follow the fixed part: addresses and what a balancer adds to them.
const LONGEST: usize = 2048;

/// Why a header is not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Bad {
    #[error("the connection ended within its PROXY header")]
    Closed(#[source] io::Error),
    #[error("it begins like a PROXY header and is none of version 2")]
    NotVersion2,
    #[error("its PROXY header has {0} bytes, which is too much")]
    TooLong(usize),
    #[error("its PROXY header is too short for its addresses")]
    TooShort,
}

/// Reads a header; the address of the client, or `None` where the balancer speaks for itself.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, Bad> {
    let mut fixed = [0; 16];
    stream.read_exact(&mut fixed).await.map_err(Bad::Closed)?;
    let [signature @ .., version, family, high, low] = fixed;
    if signature != SIGNATURE || version >> 4 != 2 {
        return Err(Bad::NotVersion2);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Bad::TooLong(length));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await.map_err(Bad::Closed)?;
    match version & 0xF {
        0 => Ok(None),
        1 => source(family, &rest),
        _ => Err(Bad::NotVersion2),
    }
}

fn source(family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, Bad> {
    match family >> 4 {
        1 => {
            let [a, b, c, d, _, _, _, _, high, low, ..] = *rest else { return Err(Bad::TooShort) };
            Ok(Some((Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])).into()))
        }
        2 => {
            let ip: Option<[u8; 16]> = rest.get(..16).and_then(|bytes| bytes.try_into().ok());
            let port: Option<[u8; 2]> = rest.get(32..34).and_then(|bytes| bytes.try_into().ok());
            let (ip, port) = ip.zip(port).ok_or(Bad::TooShort)?;
            Ok(Some((Ipv6Addr::from(ip), u16::from_be_bytes(port)).into()))
        }
        // A socket of the balancer's own host, or nothing said.
        _ => Ok(None),
    }
}

/// The header that says who the client is and which address it called.
pub(crate) fn header(client: SocketAddr, called: SocketAddr) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.push(0x21);
    match (client.ip().to_canonical(), called.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            bytes.extend_from_slice(&[0x11, 0, 12]);
            bytes.extend_from_slice(&from.octets());
            bytes.extend_from_slice(&to.octets());
        }
        (from, to) => {
            bytes.extend_from_slice(&[0x21, 0, 36]);
            for ip in [from, to] {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                bytes.extend_from_slice(&ip.octets());
            }
        }
    }
    bytes.extend_from_slice(&client.port().to_be_bytes());
    bytes.extend_from_slice(&called.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::{SIGNATURE, header, read};
    use proptest::prelude::{any, proptest};
    use std::net::SocketAddr;

    fn parse(bytes: &[u8]) -> (Result<Option<SocketAddr>, String>, usize) {
        let mut rest = bytes;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(read(&mut rest)).map_err(|why| why.to_string());
        (found, bytes.len() - rest.len())
    }

    fn raw(head: [u8; 4], rest: &[u8]) -> Vec<u8> {
        [SIGNATURE.as_slice(), &head, rest].concat()
    }

    #[test]
    fn what_we_write_we_read() {
        for (client, called, read_as) in [
            ("10.1.2.3:4567", "10.0.0.1:5433", "10.1.2.3:4567"),
            ("[fd00::1]:4567", "[fd00::2]:5433", "[fd00::1]:4567"),
            ("10.1.2.3:4567", "[fd00::2]:5433", "[::ffff:10.1.2.3]:4567"),
            ("[::ffff:10.1.2.3]:4567", "10.0.0.1:5433", "10.1.2.3:4567"),
        ] {
            let mut bytes = header(client.parse().unwrap(), called.parse().unwrap());
            let length = bytes.len();
            bytes.extend_from_slice(b"\0\0\0\x08");
            assert_eq!(parse(&bytes), (Ok(Some(read_as.parse().unwrap())), length), "{client}");
        }
    }

    #[test]
    fn a_balancer_may_speak_for_itself_and_add_what_it_likes() {
        assert_eq!(parse(&raw([0x20, 0, 0, 0], b"")), (Ok(None), 16));
        assert_eq!(parse(&raw([0x21, 0, 0, 0], b"")), (Ok(None), 16), "no family");
        let with_more = raw([0x21, 0x11, 0, 15], &[10, 0, 0, 9, 10, 0, 0, 1, 1, 0, 2, 0, 3, 0, 0]);
        assert_eq!(parse(&with_more), (Ok(Some("10.0.0.9:256".parse().unwrap())), 31));
    }

    #[test]
    fn bad_ones_are_refused() {
        for (bytes, why) in [
            (raw([0x11, 0x11, 0, 0], b""), "version 2"),
            (raw([0x22, 0x11, 0, 0], b""), "version 2"),
            (raw([0x21, 0x11, 0, 4], &[0; 4]), "too short"),
            (raw([0x21, 0x21, 0, 12], &[0; 12]), "too short"),
            (raw([0x21, 0x11, 0xFF, 0xFF], b""), "too much"),
            (raw([0x21, 0x11, 0, 12], &[0; 3]), "ended"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".to_vec(), "version 2"),
        ] {
            let (found, _) = parse(&bytes);
            assert!(found.as_ref().is_err_and(|text| text.contains(why)), "{bytes:?}: {found:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_survived(head in any::<[u8; 4]>(), rest in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = raw(head, &rest);
            let (found, used) = parse(&bytes);
            assert!(used <= bytes.len());
            if found.is_ok() {
                assert_eq!(used, 16 + usize::from(u16::from_be_bytes([head[2], head[3]])));
            }
        }
    }
}
