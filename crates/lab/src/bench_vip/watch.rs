//! Who has the addresses, who answers at them, what a name server says: looked at from inside the network, all the time.
//!
//! ```text
//!   on each host:    every 5 ms, is the address here?   ─► changes, and how often two had it
//!   at the switch:   one connection after the other     ─► who answered, and when
//!                    one question after the other       ─► what was said, and when
//! ```

use super::stand;
use crate::netns::{Host, Network};
use anyhow::Result;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};
use types::Moment;

/// The port that a host answers its number at.
const PORT: u16 = 7007;
/// Holders are looked at this often.
const LOOK: Duration = Duration::from_millis(5);
/// A connection that takes longer met nobody.
const ATTEMPT: Duration = Duration::from_millis(40);
/// After an attempt that failed, and between questions.
const PAUSE: Duration = Duration::from_millis(2);

/// An address came to a host, or left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) at: Moment,
    pub(crate) host: usize,
    pub(crate) ip: IpAddr,
    pub(crate) here: bool,
}

/// What somebody at the switch met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer<T> {
    pub(crate) begun: Moment,
    pub(crate) answered: Moment,
    /// None: nobody.
    pub(crate) by: Option<T>,
}

/// Notes that several threads make and one reads.
pub(crate) struct Notes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Notes<T> {
    fn clone(&self) -> Notes<T> {
        Notes(self.0.clone())
    }
}

impl<T: Clone> Notes<T> {
    fn new() -> Notes<T> {
        Notes(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, note: T) {
        self.lock().push(note);
    }

    pub(crate) fn last(&self) -> Option<T> {
        self.lock().last().cloned()
    }

    pub(crate) fn all(&self) -> Vec<T> {
        self.lock().clone()
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }
}

/// Everything that watches; dropped, it ends.
pub(crate) struct Watch {
    over: Arc<AtomicBool>,
    twice: Arc<AtomicUsize>,
    pub(crate) changes: Notes<Change>,
    /// Of the first address and of the second one.
    pub(crate) answers: Vec<(IpAddr, Notes<Answer<usize>>)>,
    /// Of the name servers.
    pub(crate) names: Vec<(SocketAddr, Notes<Answer<Ipv4Addr>>)>,
}

impl Watch {
    /// Watches these addresses on these hosts, and asks these name servers for `name`.
    pub(crate) fn start(
        network: &Network,
        hosts: &[Host],
        ips: &[IpAddr],
        servers: &[SocketAddr],
        name: &str,
    ) -> Result<Watch> {
        let mut watch = Watch {
            over: Arc::default(),
            twice: Arc::default(),
            changes: Notes::new(),
            answers: Vec::new(),
            names: Vec::new(),
        };
        for ip in ips {
            let holding: Arc<Vec<AtomicBool>> =
                Arc::new(hosts.iter().map(|_| AtomicBool::new(false)).collect());
            for (number, host) in hosts.iter().enumerate() {
                watch.look(host, number, *ip, holding.clone())?;
            }
            let notes = Notes::new();
            watch.answers.push((*ip, notes.clone()));
            let (over, ip) = (watch.over.clone(), *ip);
            stand(&network.switch, async move || connect(ip, &notes, &over).await)?;
        }
        for (number, host) in hosts.iter().enumerate() {
            let over = watch.over.clone();
            stand(host, async move || answer(u8::try_from(number).unwrap_or(u8::MAX), &over).await)?;
        }
        for server in servers {
            let (notes, over, server, name) = (Notes::new(), watch.over.clone(), *server, name.to_owned());
            watch.names.push((server, notes.clone()));
            stand(&network.switch, async move || ask(server, &name, &notes, &over).await)?;
        }
        Ok(watch)
    }

    fn look(&self, host: &Host, number: usize, ip: IpAddr, holding: Arc<Vec<AtomicBool>>) -> Result<()> {
        let (over, twice, changes) = (self.over.clone(), self.twice.clone(), self.changes.clone());
        stand(host, async move || {
            let mut before = false;
            while !over.load(Ordering::Relaxed) {
                let here = Host::here(ip);
                if let Some(own) = holding.get(number) {
                    own.store(here, Ordering::SeqCst);
                }
                let holders = holding.iter().filter(|held| held.load(Ordering::SeqCst)).count();
                twice.fetch_add(usize::from(holders > 1), Ordering::SeqCst);
                if here != before {
                    before = here;
                    changes.add(Change { at: clock::now(), host: number, ip, here });
                }
                sleep(LOOK).await;
            }
        })
    }

    /// In how many looks two hosts had an address.
    pub(crate) fn twice(&self) -> usize {
        self.twice.load(Ordering::SeqCst)
    }

    /// Forgets what was seen so far.
    pub(crate) fn clear(&self) {
        self.changes.clear();
        self.answers.iter().for_each(|(_, notes)| notes.clear());
        self.names.iter().for_each(|(_, notes)| notes.clear());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Answers every connection with the host's number.
async fn answer(number: u8, over: &AtomicBool) {
    let Ok(listener) = TcpListener::bind(("::", PORT)).await else { return };
    while !over.load(Ordering::Relaxed) {
        if let Ok(Ok((mut stream, _))) = timeout(ATTEMPT, listener.accept()).await {
            let _ = stream.write_all(&[number]).await;
        }
    }
}

async fn connect(ip: IpAddr, notes: &Notes<Answer<usize>>, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let begun = clock::now();
        let met = timeout(ATTEMPT, async {
            let mut number = [0];
            TcpStream::connect((ip, PORT)).await?.read_exact(&mut number).await?;
            std::io::Result::Ok(usize::from(number[0]))
        });
        let by = met.await.ok().and_then(Result::ok);
        notes.add(Answer { begun, answered: clock::now(), by });
        sleep(PAUSE).await;
    }
}

async fn ask(server: SocketAddr, name: &str, notes: &Notes<Answer<Ipv4Addr>>, over: &AtomicBool) {
    let Ok(socket) = UdpSocket::bind("0.0.0.0:0").await else { return };
    let _ = socket.connect(server).await;
    let mut id = 0_u16;
    while !over.load(Ordering::Relaxed) {
        id = id.wrapping_add(1);
        let begun = clock::now();
        let said = timeout(ATTEMPT, async {
            socket.send(&question(id, name)).await?;
            let mut reply = [0; 512];
            loop {
                let length = socket.recv(&mut reply).await?;
                // A late answer to an earlier question counts for nothing.
                if reply.first_chunk::<2>() == Some(&id.to_be_bytes()) {
                    return std::io::Result::Ok(only_address(reply.get(..length).unwrap_or_default()));
                }
            }
        });
        let by = said.await.ok().and_then(Result::ok).flatten();
        notes.add(Answer { begun, answered: clock::now(), by });
        sleep(PAUSE).await;
    }
}

/// A question for the IPv4 addresses of a name.
pub(crate) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion may be wanted: a cache in between needs it.
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The address in an answer that has one record.
fn only_address(answer: &[u8]) -> Option<Ipv4Addr> {
    let records = answer.get(6..8)?;
    (records == [0, 1]).then_some(())?;
    answer.last_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes))
}

#[cfg(test)]
mod tests {
    use super::{only_address, question};

    #[test]
    fn an_answer_with_one_record_ends_in_its_address() {
        let mut answer = question(7, "primary.c1");
        assert_eq!(only_address(&answer), None);
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 0, 0, 9]);
        assert_eq!(only_address(&answer), Some([10, 0, 0, 9].into()));
    }
}
