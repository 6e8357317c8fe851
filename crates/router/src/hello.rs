//! The first message of a TLS client, read only for the server name it asks for; it is passed on as it came.
//!
//! ```text
//!   records: 22, version, length ─► handshake: 1, length ─► version, random, session, ciphers, … ─► extensions ─► name
//! ```

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest record.
const RECORD: usize = 16 * 1024 + 256;

/// The longest hello: those with keys of the post-quantum kind have some 2 KiB.
const HELLO: usize = 32 * 1024;

/// More records of one hello are not read.
const RECORDS: usize = 64;

/// The server name of the hello, and all that was read. `begun` was read before. What cannot be understood has no name.
pub(crate) async fn read(
    client: &mut (impl AsyncRead + Unpin),
    begun: &[u8],
) -> io::Result<(Option<String>, Vec<u8>)> {
    let mut raw = begun.to_vec();
    let (mut message, mut at) = (Vec::new(), 0);
    for _ in 0..RECORDS {
        fill(client, &mut raw, at + 5).await?;
        let Some([22, _, _, high, low]) = raw.get(at..at + 5) else { return Ok((None, raw)) };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length == 0 || length > RECORD {
            return Ok((None, raw));
        }
        fill(client, &mut raw, at + 5 + length).await?;
        message.extend_from_slice(raw.get(at + 5..at + 5 + length).unwrap_or_default());
        at += 5 + length;
        let Some([kind, high, middle, low]) = message.get(..4) else { continue };
        let whole = 4 + u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        if *kind != 1 || whole > HELLO {
            return Ok((None, raw));
        }
        if let Some(body) = message.get(4..whole) {
            return Ok((server_name(body), raw));
        }
    }
    Ok((None, raw))
}

async fn fill(client: &mut (impl AsyncRead + Unpin), raw: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    let have = raw.len();
    if have < wanted {
        raw.resize(wanted, 0);
        client.read_exact(raw.get_mut(have..).unwrap_or_default()).await?;
    }
    Ok(())
}

/// The name in the body of a ClientHello.
fn server_name(body: &[u8]) -> Option<String> {
    // Version and random.
    let rest = body.get(34..)?;
    let (_session, rest) = vector(rest, 1)?;
    let (_ciphers, rest) = vector(rest, 2)?;
    let (_compressions, rest) = vector(rest, 1)?;
    let (mut extensions, _) = vector(rest, 2)?;
    while let Some((kind, rest)) = extensions.split_at_checked(2) {
        let (content, rest) = vector(rest, 2)?;
        extensions = rest;
        if kind == [0, 0] {
            let (list, _) = vector(content, 2)?;
            let (0, list) = list.split_first().map(|(kind, rest)| (*kind, rest))? else { return None };
            let (name, _) = vector(list, 2)?;
            return std::str::from_utf8(name).ok().map(str::to_ascii_lowercase);
        }
    }
    None
}

/// What stands behind a length of so many bytes, and what follows it.
fn vector(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(size)?;
    let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::read;
    use proptest::prelude::{any, proptest};

    fn parse(bytes: &[u8], begun: usize) -> Option<(Option<String>, Vec<u8>)> {
        let (begun, mut rest) = bytes.split_at(begun.min(bytes.len()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(read(&mut rest, begun)).ok()
    }

    fn sized(size: usize, content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u64).to_be_bytes();
        [&length[8 - size..], content].concat()
    }

    /// A hello with these extensions, in records of at most `record` bytes.
    fn hello(extensions: &[(u16, Vec<u8>)], record: usize) -> Vec<u8> {
        let all: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, content)| [kind.to_be_bytes().to_vec(), sized(2, content)].concat())
            .collect();
        let body = [vec![3; 34], sized(1, &[7; 32]), sized(2, &[0x13, 1]), sized(1, &[0]), sized(2, &all)];
        let message = [vec![1], sized(3, &body.concat())].concat();
        let records = message.chunks(record).map(|part| [vec![22, 3, 1], sized(2, part)].concat());
        records.collect::<Vec<_>>().concat()
    }

    fn name(text: &str) -> (u16, Vec<u8>) {
        (0, sized(2, &[vec![0], sized(2, text.as_bytes())].concat()))
    }

    #[test]
    fn the_name_is_found_wherever_it_stands_and_however_it_is_cut() {
        let alpn = (16, sized(2, &sized(1, b"postgresql")));
        for extensions in [vec![name("DB1.example"), alpn.clone()], vec![alpn.clone(), name("db1.example")]] {
            for record in [1000, 7] {
                let bytes = hello(&extensions, record);
                for begun in [0, 8] {
                    let (found, raw) = parse(&bytes, begun).unwrap();
                    assert_eq!(found.as_deref(), Some("db1.example"));
                    assert_eq!(raw, bytes);
                }
            }
        }
        assert_eq!(parse(&hello(&[alpn], 1000), 0).unwrap().0, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&[vec![22, 3, 1, 0, 60, 1, 0, 0, 56], bytes.clone()].concat(), 3);
            let _ = parse(&bytes, 0);
        }

        #[test]
        fn a_spoiled_hello_is_survived(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = hello(&[name("db1.example")], 1000);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes, 0);
        }
    }
}
