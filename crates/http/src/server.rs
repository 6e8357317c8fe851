//! The small server of a program that is asked about itself: router, `baton vip`, `baton dns`. Plain HTTP, bounded in everything.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// How long one connection may take for everything.
const CONNECTION: Duration = Duration::from_secs(30);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// After an error that concerns the listener.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers for ever, so many connections at once; the next ones are closed. What goes wrong on the way is handed to `failed`.
pub async fn serve<A, F>(
    listener: TcpListener,
    connections: usize,
    answer: A,
    failed: impl Fn(String) + Clone + Send + 'static,
) where
    A: Fn(SocketAddr, Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                failed(error.to_string());
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (answer, failed) = (answer.clone(), failed.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(peer, request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), answer);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
                failed(error.to_string());
            }
            drop(place);
        });
    }
}
