//! One direction of a session.
//!
//! An idle session owns no buffer: bytes are read into a buffer of the thread and written on at once. Only what the
//! other side does not take is kept (at most one buffer for each direction), and nothing more is read until it is gone:
//! that is the back-pressure.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One buffer: PostgreSQL sends in pieces of 8 KiB, large results in several.
const BUFFER: usize = 32 * 1024;

thread_local! {
    static BUFFERS: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// One direction.
#[derive(Default)]
pub(crate) struct Pump {
    /// Read and not yet written, from `written` on.
    pub(crate) kept: Vec<u8>,
    written: usize,
    /// Written, and perhaps still in a buffer of TLS.
    unflushed: bool,
    ended: bool,
}

/// What a direction came to.
pub(crate) enum Stopped {
    /// The reader had no more, and the writer was told so.
    Finished,
    ReadFailed,
    WriteFailed,
}

impl Pump {
    /// Writes what was kept.
    pub(crate) fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self.kept.get(self.written..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        if self.written > 0 {
            self.kept = Vec::new();
            self.written = 0;
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        mut see: impl FnMut(&[u8]),
    ) -> Poll<Stopped> {
        loop {
            if ready!(self.poll_rest(cx, &mut to)).is_err() {
                return Poll::Ready(Stopped::WriteFailed);
            }
            // TLS keeps what the socket did not take: a full one holds up the reading.
            if self.unflushed {
                if ready!(Pin::new(&mut to).poll_flush(cx)).is_err() {
                    return Poll::Ready(Stopped::WriteFailed);
                }
                self.unflushed = false;
            }
            if self.ended {
                return match ready!(Pin::new(&mut to).poll_shutdown(cx)) {
                    Ok(()) => Poll::Ready(Stopped::Finished),
                    Err(_) => Poll::Ready(Stopped::WriteFailed),
                };
            }
            let step = BUFFERS.with_borrow_mut(|buffer| {
                let mut read = ReadBuf::new(buffer);
                if let Err(error) = ready!(Pin::new(&mut from).poll_read(cx, &mut read)) {
                    return Poll::Ready(Err(error));
                }
                let bytes = read.filled();
                see(bytes);
                let count = match Pin::new(&mut to).poll_write(cx, bytes) {
                    _ if bytes.is_empty() => 0,
                    Poll::Ready(Ok(count)) => count,
                    Poll::Ready(Err(_)) => return Poll::Ready(Ok(Step::WriteFailed)),
                    Poll::Pending => 0,
                };
                self.unflushed = true;
                self.kept.extend_from_slice(bytes.get(count..).unwrap_or_default());
                Poll::Ready(Ok(if bytes.is_empty() { Step::Ended } else { Step::Moved }))
            });
            match ready!(step) {
                Ok(Step::Moved) => {}
                Ok(Step::Ended) => self.ended = true,
                Ok(Step::WriteFailed) => return Poll::Ready(Stopped::WriteFailed),
                Err(_) => return Poll::Ready(Stopped::ReadFailed),
            }
        }
    }
}

enum Step {
    Moved,
    Ended,
    WriteFailed,
}
