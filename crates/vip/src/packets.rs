//! Frames to and from one interface: announcements out, the claims of others in. Needs CAP_NET_RAW.

#![expect(
    unsafe_code,
    reason = "no crate builds the address of a packet socket; the one block says why it is sound"
)]

use crate::frames::{self, Claim};
use crate::links::Link;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io::{self, Read};
use tokio::io::unix::AsyncFd;

/// The longest frame of interest.
const FRAME: usize = 128;

/// A packet socket that is bound to one interface.
pub(crate) struct Wire {
    link: Link,
    socket: AsyncFd<Socket>,
}

impl Wire {
    /// Opens it. Only ARP and neighbour advertisements come in.
    pub(crate) fn open(link: Link) -> io::Result<Wire> {
        let every = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
        // Protocol 0 hears nothing until it is bound, so nothing comes in before the filter is there.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.attach_filter(&filter())?;
        socket.set_nonblocking(true)?;
        socket.bind(&address(link.index, every)?)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that are not an OwnedFd; a socket2::Socket owns one"
        )]
        let socket = AsyncFd::new(socket)?;
        Ok(Wire { link, socket })
    }

    /// The interface it is bound to.
    #[must_use]
    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Sends one frame; when the interface's queue is full it is as lost as on the wire.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        match self.socket.get_ref().send(frame) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next claim of somebody to some address.
    pub(crate) async fn claim(&self) -> io::Result<Claim> {
        loop {
            let mut ready = self.socket.readable().await?;
            let mut frame = [0; FRAME];
            let Ok(read) = ready.try_io(|socket| socket.get_ref().read(&mut frame)) else { continue };
            if let Some(claim) = frame.get(..read?).and_then(frames::claim) {
                return Ok(claim);
            }
        }
    }
}

/// Classic BPF: ARP, or IPv6 with an ICMPv6 neighbour advertisement directly in it; up to [`FRAME`] bytes of it.
fn filter() -> [SockFilter; 9] {
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    /// Skips so many instructions when it is so, so many when it is not.
    const EQUALS: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(EQUALS, 5, 0, 0x0806),
        SockFilter::new(EQUALS, 0, 5, 0x86dd),
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(EQUALS, 0, 3, 58),
        SockFilter::new(LOAD_BYTE, 0, 0, 54),
        SockFilter::new(EQUALS, 0, 1, 136),
        SockFilter::new(RETURN, 0, 0, FRAME as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}

fn address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(io::Error::other)?;
    // SAFETY: the storage that is handed out is zeroed and larger than a sockaddr_ll, which has no invalid values; its length is
    // set to what was written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let place = storage.cast::<libc::sockaddr_ll>();
            (*place).sll_family = u16::try_from(libc::AF_PACKET).unwrap_or_default();
            (*place).sll_protocol = protocol;
            (*place).sll_ifindex = index;
            *length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or_default();
            Ok(())
        })
    }?;
    Ok(address)
}
