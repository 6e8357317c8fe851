//! A server that ends while somebody logs in, at each moment of it: what the client has not seen is done again on whoever leads next, and
//! what it has seen it is told as it came.

use crate::backends::{Scripted, message, startup};
use crate::harness::{World, until};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const AUTHENTICATION_OK: [u8; 4] = [0; 4];
const WANTS_A_PASSWORD: [u8; 4] = [0, 0, 0, 3];

/// What a server does with a startup packet: it says this, piece by piece, and ends.
#[derive(Clone)]
struct Ends {
    says: Vec<Vec<u8>>,
    /// By a reset; else by an end.
    breaks: bool,
}

impl Ends {
    fn after(says: &[&[u8]]) -> Ends {
        Ends { says: says.iter().map(|piece| piece.to_vec()).collect(), breaks: false }
    }
}

fn error(sqlstate: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{sqlstate}\0Mno more\0\0");
    message(b'E', fields.as_bytes())
}

/// A server that ends like that each time, and how often somebody has come.
async fn ending(ends: Ends) -> (Scripted, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (port, came) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let seen = came.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (ends, seen) = (ends.clone(), seen.clone());
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                let mut packet = vec![0; startup(0).len()];
                stream.read_exact(&mut packet).await?;
                for piece in &ends.says {
                    stream.write_all(piece).await?;
                    // Pieces that arrive apart.
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                if ends.breaks {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                }
                drop(stream);
                seen.fetch_add(1, Ordering::AcqRel);
                Ok::<(), std::io::Error>(())
            });
        }
    });
    (Scripted { port, cancels: Arc::default() }, came)
}

async fn client(world: &World) -> TcpStream {
    let mut client = TcpStream::connect(world.router.address("primary")).await.unwrap();
    client.write_all(&startup(0)).await.unwrap();
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_not_seen_it_is_spared() {
    let world = World::start(0, |config| config.hold.timeout = Duration::from_secs(600)).await;
    let next = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await;
    let ok = message(b'R', &AUTHENTICATION_OK);
    let key = message(b'K', &[0, 0, 0, 2, 8, 8, 8, 8]);
    let (stopped, crashed, starting) = (error("57P01"), error("57P02"), error("57P03"));
    let mut moments = vec![
        ("nothing was said", Ends::after(&[])),
        ("it is stopped", Ends::after(&[&stopped])),
        ("it has crashed", Ends::after(&[&crashed])),
        ("it does not take anybody", Ends::after(&[&starting])),
        ("half an error", Ends::after(&[&stopped[..20]])),
        ("it was let in", Ends::after(&[&ok])),
        ("it was let in, and then it is stopped", Ends::after(&[&[ok.as_slice(), &stopped].concat()])),
        ("the same piece by piece", Ends::after(&[&ok, &key[..3], &key[3..], &stopped[..9], &stopped[9..]])),
        ("all but the last word", Ends::after(&[&ok, &key])),
    ];
    for at in 0..moments.len() {
        let (name, ends) = moments[at].clone();
        moments.push((name, Ends { breaks: true, ..ends }));
    }
    for (moment, ends) in moments {
        let breaks = ends.breaks;
        let (server, came) = ending(ends).await;
        let term = server.lead(&world, "demo", "db1").await;
        world.knows(term).await;
        let mut client = client(&world).await;
        until(moment, async || (came.load(Ordering::Acquire) > 0).then_some(())).await;
        next.lead(&world, "demo", "db2").await;
        let mut greeting = [0; 9 + 5 + 8 + 6];
        client.read_exact(&mut greeting).await.unwrap_or_else(|error| panic!("{moment} ({breaks}): {error}"));
        assert_eq!((greeting[0], greeting[17], greeting[22]), (b'R', 1, b'Z'), "{moment} ({breaks})");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_has_to_see_it_sees_as_it_came() {
    let world = World::start(0, |_| {}).await;
    let (ok, asks) = (message(b'R', &AUTHENTICATION_OK), message(b'R', &WANTS_A_PASSWORD));
    let (stopped, full, refused) = (error("57P01"), error("53300"), error("28P01"));
    for (moment, ends) in [
        ("the server is full", Ends::after(&[&full])),
        ("it is full when it has let the client in", Ends::after(&[&ok, &full])),
        ("the password was wrong", Ends::after(&[&refused])),
        // The client may have answered that one question: another server asks another.
        ("it was asked for a password", Ends::after(&[&asks])),
        ("it was asked for a password, and then it is stopped", Ends::after(&[&asks, &stopped])),
        ("it is no server of ours", Ends::after(&[b"HTTP/1.1 400 Bad Request"])),
    ] {
        let (server, _) = ending(ends.clone()).await;
        let term = server.lead(&world, "demo", "db1").await;
        world.knows(term).await;
        let mut said = Vec::new();
        client(&world).await.read_to_end(&mut said).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(&ends.says.concat()), "{moment}");
    }
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}
