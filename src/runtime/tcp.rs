//! TCP: listeners and streams over plain non-blocking sockets.
//!
//! Every call tries the system call first and waits for readiness only when the kernel has nothing: on a busy
//! connection a read costs one system call and no ring entry. Bytes go straight into the caller's buffer, replies
//! leave as one vectored write. A stream may be read by one task and written by another of the same shard.

use std::io::{self, IoSlice};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use glommio::io::PollableFd;
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds for us until we accept.
const LISTEN_BACKLOG: i32 = 1024;
/// Buffers in one vectored write; the kernel takes at most 1,024.
const WRITE_SLICES_MAX: usize = 64;

/// Binds a listening socket; it may be moved to the shard that accepts.
///
/// # Errors
/// The kernel's (address in use, not ours, not permitted).
pub fn bind(address: SocketAddr) -> io::Result<net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted server takes its port back while old connections linger in TIME_WAIT. Not SO_REUSEPORT: with it a
    // second server would silently share the port.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A listening socket on this shard.
pub struct Listener(PollableFd<net::TcpListener>);

impl Listener {
    /// Takes a bound socket onto this shard.
    ///
    /// # Errors
    /// The runtime's, if the descriptor cannot be registered.
    pub fn new(listener: net::TcpListener) -> io::Result<Self> {
        PollableFd::new(listener).map(Listener).map_err(io::Error::from)
    }

    /// The next connection, ready for [`Stream::new`] on any shard.
    ///
    /// # Errors
    /// The kernel's, such as "too many open files"; the listener stays usable.
    pub async fn accept(&self) -> io::Result<(net::TcpStream, SocketAddr)> {
        loop {
            match self.0.get_ref().accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    return Ok((stream, peer));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.readable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A connection on this shard.
pub struct Stream(PollableFd<net::TcpStream>);

impl Stream {
    /// Takes an accepted connection onto this shard.
    ///
    /// # Errors
    /// The runtime's, if the descriptor cannot be registered.
    pub fn new(stream: net::TcpStream) -> io::Result<Self> {
        PollableFd::new(stream).map(Stream).map_err(io::Error::from)
    }

    /// Gives the connection back, so that another shard can take it.
    pub fn into_inner(self) -> net::TcpStream {
        self.0.into_inner()
    }

    /// The address that the client dialled.
    ///
    /// # Errors
    /// The kernel's, if the connection is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Reads what is there into the spare capacity of `buffer`, waiting until there is something.
    /// Returns the count of bytes; 0 means that the peer has closed (or that `buffer` has no room).
    ///
    /// # Errors
    /// The kernel's; the connection is then of no further use.
    pub async fn read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.readable().await?,
                done => return done,
            }
        }
    }

    /// Reads what is there now.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the kernel's.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let spare = buffer.chunk_mut();
        loop {
            // SAFETY: `spare` is writable memory of that length, and the kernel only writes into it.
            let read = unsafe {
                libc::recv(
                    self.0.get_ref().as_raw_fd(),
                    spare.as_mut_ptr().cast(),
                    spare.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            if let Ok(count) = usize::try_from(read) {
                // SAFETY: the kernel has initialised the first `count` bytes of the spare capacity.
                unsafe { buffer.advance_mut(count) };
                return Ok(count);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Writes all of `chunks` in order, many to a system call, waiting while the socket is full.
    ///
    /// # Errors
    /// The kernel's; some of the bytes may have left.
    pub async fn write_all(&self, chunks: &mut [Bytes]) -> io::Result<()> {
        let mut done = 0; // chunks that have left entirely
        loop {
            while done < chunks.len() && chunks[done].is_empty() {
                done += 1;
            }
            let rest = &mut chunks[done..];
            if rest.is_empty() {
                return Ok(());
            }
            match self.try_write(rest) {
                Ok(written) => advance(rest, written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.0.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    fn try_write(&self, chunks: &[Bytes]) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
        let mut count = 0;
        for chunk in chunks.iter().take(WRITE_SLICES_MAX) {
            slices[count] = IoSlice::new(chunk);
            count += 1;
        }
        let mut control = rustix::net::SendAncillaryBuffer::default();
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendmsg(self.0.get_ref(), &slices[..count], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                done => return Ok(done?),
            }
        }
    }

    /// Closes one or both directions; a reader waiting on the other task then sees the end.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = self.0.get_ref().shutdown(how); // fails only if the peer was first
    }
}

/// Drops the first `written` bytes of `chunks`.
fn advance(chunks: &mut [Bytes], mut written: usize) {
    for chunk in chunks {
        let taken = written.min(chunk.len());
        chunk.advance(taken);
        written -= taken;
        if written == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::{Listener, Stream, bind};
    use crate::runtime::{block_on, spawn};

    #[test]
    fn many_chunks_larger_than_the_socket_buffer_arrive_in_order() {
        block_on(async {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            let listener = Listener::new(listener).unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (server, client) = (Stream::new(accepted).unwrap(), Stream::new(client).unwrap());
            let mut chunks: Vec<Bytes> =
                (0..200u8).map(|byte| Bytes::from(vec![byte; 40_000 * usize::from(byte % 3)])).collect();
            let expected: Vec<u8> = chunks.iter().flatten().copied().collect();
            let reading = spawn(async move {
                let mut received = BytesMut::new();
                loop {
                    received.reserve(65_536);
                    if client.read(&mut received).await.unwrap() == 0 {
                        return received;
                    }
                }
            });
            server.write_all(&mut chunks).await.unwrap();
            drop(server);
            assert_eq!(reading.await, expected);
        });
    }
}
