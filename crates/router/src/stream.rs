//! The two sides of a session: the client's, a plain connection or one whose TLS ends here, and the server's.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

pub(crate) enum ClientStream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// In the hands of the TLS handshake or of a carrier, or lost there.
    Taken,
}

impl ClientStream {
    /// The connection itself, where nothing lies between it and the bytes; it has to be put back.
    pub(crate) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(self, ClientStream::Taken) {
            ClientStream::Plain(stream) => Some(stream),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The connection below.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            ClientStream::Plain(stream) => Some(stream),
            ClientStream::Tls(stream) => Some(stream.get_ref().0),
            ClientStream::Taken => None,
        }
    }

    /// The stream, for a handshake that gives back another one.
    pub(crate) fn hand_over(&mut self) -> ClientStream {
        std::mem::replace(self, ClientStream::Taken)
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            ClientStream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            ClientStream::Taken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            ClientStream::Taken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            ClientStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            ClientStream::Taken => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ClientStream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            ClientStream::Taken => Poll::Ready(Ok(())),
        }
    }
}

/// The server's side; `None` in the hands of a carrier, or lost there.
pub(crate) struct ServerStream(Option<TcpStream>);

impl ServerStream {
    pub(crate) fn new(stream: TcpStream) -> ServerStream {
        ServerStream(Some(stream))
    }

    /// The connection, for who puts back a new [`ServerStream`].
    pub(crate) fn take(&mut self) -> Option<TcpStream> {
        self.0.take()
    }

    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        self.0.as_ref()
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for ServerStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(cx)
    }
}
