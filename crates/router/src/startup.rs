//! What a client says first. Nothing beyond that packet is read, and nothing of it is trusted.
//!
//! ```text
//! 8 bytes ─┬─ 16 …                    a TLS hello (sslnegotiation=direct): passed on as it is
//!          ├─ length 8, 80877103      SSLRequest      ─┐ answered by the member with one byte;
//!          ├─ length 8, 80877104      GSSENCRequest   ─┘ after a no the client speaks again
//!          ├─ length, 80877102        CancelRequest
//!          └─ length, 3.x             StartupMessage
//! ```

use crate::wire::{CANCEL_KEY_BYTES, CancelKey};
use tokio::io::{AsyncRead, AsyncReadExt};

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;
const HEAD: usize = 8;

/// The first packet of a client, with its bytes as they came.
pub(crate) enum First {
    /// SSLRequest or GSSENCRequest: may the session be encrypted?
    Encryption(Vec<u8>),
    /// The beginning of a TLS hello; the rest is still to be read.
    DirectTls(Vec<u8>),
    Cancel {
        key: CancelKey,
        packet: Vec<u8>,
    },
    Startup(Vec<u8>),
}

/// Why a first packet was not accepted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unacceptable {
    /// The client went away, possibly without a word: port scanners and TCP health checks do.
    #[error("client closed before its startup packet was complete")]
    Closed(#[source] std::io::Error),
    /// Not PostgreSQL's protocol at all.
    #[error(
        "startup packet has an impossible length of {0} bytes: the client does not speak PostgreSQL's protocol"
    )]
    Length(u32),
    /// A protocol version that no supported PostgreSQL speaks.
    #[error("unsupported frontend protocol {}.{}: connect with protocol 3", .0 >> 16, .0 & 0xFFFF)]
    Protocol(u32),
}

/// Whether a request to encrypt is for TLS, and not for GSS.
#[must_use]
pub(crate) fn asks_for_tls(packet: &[u8]) -> bool {
    packet.get(4..8) == Some(SSL.to_be_bytes().as_slice())
}

/// Reads exactly one first packet of at most `limit` bytes.
pub(crate) async fn read(client: &mut (impl AsyncRead + Unpin), limit: usize) -> Result<First, Unacceptable> {
    let mut head = [0; HEAD];
    client.read_exact(&mut head).await.map_err(Unacceptable::Closed)?;
    let [first, _, _, _, code @ ..] = head;
    if first == TLS_HANDSHAKE {
        return Ok(First::DirectTls(head.to_vec()));
    }
    let [l0, l1, l2, l3, ..] = head;
    let length = u32::from_be_bytes([l0, l1, l2, l3]);
    let code = u32::from_be_bytes(code);
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    let fits = match code {
        SSL | GSSENC => bytes == HEAD,
        CANCEL => (HEAD + 8..=HEAD + CANCEL_KEY_BYTES).contains(&bytes),
        _ => (HEAD..=limit).contains(&bytes),
    };
    if !fits {
        return Err(Unacceptable::Length(length));
    }
    let known = matches!(code, SSL | GSSENC | CANCEL) || code >> 16 == 3;
    if !known {
        return Err(Unacceptable::Protocol(code));
    }
    let mut packet = head.to_vec();
    packet.resize(bytes, 0);
    let rest = packet.get_mut(HEAD..).unwrap_or_default();
    client.read_exact(rest).await.map_err(Unacceptable::Closed)?;
    Ok(match code {
        SSL | GSSENC => First::Encryption(packet),
        CANCEL => First::Cancel { key: CancelKey(packet.get(HEAD..).unwrap_or_default().into()), packet },
        _ => First::Startup(packet),
    })
}

#[cfg(test)]
mod tests {
    use super::{First, Unacceptable, read};
    use proptest::prelude::{any, proptest};

    fn parse(bytes: &[u8]) -> (Result<First, Unacceptable>, usize) {
        let mut rest = bytes;
        let first =
            tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(read(&mut rest, 10_000));
        (first, bytes.len() - rest.len())
    }

    fn packet(code: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn each_kind_is_recognised_and_nothing_more_is_read() {
        let startup = packet(196_608, b"user\0me\0\0");
        let (first, used) = parse(&[startup.clone(), b"more".to_vec()].concat());
        assert!(matches!(first, Ok(First::Startup(bytes)) if bytes == startup));
        assert_eq!(used, startup.len());
        assert!(
            matches!(parse(&packet(80_877_103, b"")).0, Ok(First::Encryption(bytes)) if bytes.len() == 8)
        );
        assert!(matches!(parse(&packet(80_877_104, b"")).0, Ok(First::Encryption(_))));
        let (first, _) = parse(&packet(80_877_102, &[0, 0, 0, 5, 1, 2, 3, 4]));
        assert!(matches!(first, Ok(First::Cancel { key, .. }) if *key.0 == [0, 0, 0, 5, 1, 2, 3, 4]));
        assert!(matches!(parse(&packet(80_877_102, &[9; 4 + 32])).0, Ok(First::Cancel { .. })));
        let (first, used) = parse(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3]);
        assert!(matches!(first, Ok(First::DirectTls(_))));
        assert_eq!(used, 8);
    }

    #[test]
    fn what_is_no_startup_packet_is_refused() {
        let refused = |bytes: &[u8]| parse(bytes).0.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused(b"GET / HTTP/1.1\r\n").contains("impossible length"));
        assert!(refused(&packet(80_877_103, b"x")).contains("impossible length"), "SSLRequest has no body");
        assert!(refused(&packet(80_877_102, &[1; 7])).contains("impossible length"));
        assert!(refused(&packet(80_877_102, &[1; 300])).contains("impossible length"));
        assert!(refused(&packet(196_608, &[0; 10_000])).contains("impossible length"));
        assert!(refused(&packet(2 << 16, &[0; 20])).contains("protocol 2.0"));
        assert!(refused(&packet(196_608, b"user\0me\0\0")[..12]).contains("closed"));
        assert!(refused(&[0, 0, 0, 7, 0, 3, 0, 0]).contains("impossible length"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_never_reads_past_its_packet(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let (_, used) = parse(&bytes);
            assert!(used <= bytes.len());
        }

        #[test]
        fn a_plausible_head_is_read_to_its_length(length in 0..12_000u32, code in any::<u32>()) {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend_from_slice(&code.to_be_bytes());
            bytes.resize(20_000, 1);
            let (first, used) = parse(&bytes);
            if first.is_ok() && bytes[0] != 0x16 {
                assert_eq!(used, length as usize);
            } else {
                assert_eq!(used, 8);
            }
        }
    }
}
