//! TCP: listeners and streams over plain non-blocking sockets.
//!
//! A socket is registered once, edge-triggered. Writes try the system call first and wait only when the kernel has no
//! room. Reads are tried when the kernel has announced bytes and no read has emptied the socket since: a read that
//! fills less than the room offered has emptied it, so a request costs one `recv` and none that finds nothing. Bytes
//! go straight into the caller's buffer, replies leave as one vectored write. A stream may be read by one task and
//! written by another of the same shard.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{self, Shutdown, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Weak};

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::runtime::spin;

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

/// Has this shard's epoll announce what happens at `socket`.
fn register<S: AsRawFd + OwnsDescriptor>(socket: S, interest: Interest) -> io::Result<AsyncFd<S>> {
    // SAFETY: `OwnsDescriptor` says that the socket's descriptor is open and the same for as long as the socket lives,
    // and `AsyncFd` owns the socket until it has forgotten the descriptor.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

/// A socket with the same open descriptor from its making to its drop.
///
/// # Safety
/// It must be so.
unsafe trait OwnsDescriptor {}
// SAFETY: the standard library's sockets hold an `OwnedFd`, which promises that.
unsafe impl OwnsDescriptor for net::TcpListener {}
// SAFETY: as above, and an `Arc` only shares the socket.
unsafe impl OwnsDescriptor for Arc<net::TcpStream> {}

/// A listening socket on this shard.
pub struct Listener(AsyncFd<net::TcpListener>);

impl Listener {
    /// Takes a bound socket onto this shard.
    ///
    /// # Errors
    /// The runtime's, if the descriptor cannot be registered.
    pub fn new(listener: net::TcpListener) -> io::Result<Self> {
        Ok(Listener(register(listener, Interest::READABLE)?))
    }

    /// The next connection, ready for [`Stream::new`] on any shard.
    ///
    /// # Errors
    /// The kernel's, such as "too many open files"; the listener stays usable.
    pub async fn accept(&self) -> io::Result<(Arc<net::TcpStream>, SocketAddr)> {
        let accepting = self.0.async_io(Interest::READABLE, |listener| {
            loop {
                match listener.accept() {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return done,
                }
            }
        });
        let (stream, peer) = accepting.await?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok((Arc::new(stream), peer))
    }
}

/// A connection on this shard.
pub struct Stream(AsyncFd<Arc<net::TcpStream>>);

/// Closes a connection from any thread, as long as it lives.
pub struct Closer(Weak<net::TcpStream>);

impl Closer {
    /// Closes both directions; the connection's shard and its client then see the end.
    pub fn close(&self) {
        if let Some(socket) = self.0.upgrade() {
            let _ = socket.shutdown(Shutdown::Both); // fails only if somebody was first
        }
    }
}

impl Stream {
    /// Takes an accepted connection onto this shard.
    ///
    /// # Errors
    /// The runtime's, if the descriptor cannot be registered.
    pub fn new(stream: Arc<net::TcpStream>) -> io::Result<Self> {
        Ok(Stream(register(stream, Interest::READABLE | Interest::WRITABLE)?))
    }

    /// Gives the connection back, so that another shard can take it.
    pub fn into_inner(self) -> Arc<net::TcpStream> {
        self.0.into_inner()
    }

    /// What closes this connection from elsewhere.
    pub fn closer(&self) -> Closer {
        Closer(Arc::downgrade(self.0.get_ref()))
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
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.0.poll_read_ready(cx).map_ok(drop)).await?;
                }
                done => return done,
            }
        }
    }

    /// Reads what is there now. Asks the kernel only if it has announced something since the socket was last empty.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there; otherwise the kernel's.
    pub fn try_read(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        let spare = buffer.chunk_mut();
        let room = spare.len();
        let mut received = None;
        let tried = self.0.try_io(Interest::READABLE, |socket| {
            let count = recv(socket, spare)?;
            received = Some(count);
            // The socket is empty now. `WouldBlock` says so to the runtime, which then waits for the next announcement;
            // an end that has been announced already it remembers, and one that comes later is announced.
            if (1..room).contains(&count) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        });
        let Some(count) = received else { return tried };
        // SAFETY: the kernel has initialised the first `count` bytes of the spare capacity.
        unsafe { buffer.advance_mut(count) };
        spin::note_read(self.0.get_ref().as_raw_fd(), count);
        Ok(count)
    }

    /// Writes of `chunks` what the kernel takes now, and drops it from them; how many bytes. Asks the kernel only if it has
    /// announced room since the socket was last full.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full; otherwise the kernel's.
    pub fn try_write(&self, chunks: &mut [Bytes]) -> io::Result<usize> {
        let written = self.0.try_io(Interest::WRITABLE, |socket| send(socket, chunks))?;
        advance(chunks, written);
        Ok(written)
    }

    /// Waits until a socket that was full has room again.
    ///
    /// # Errors
    /// When the executor ends.
    pub async fn wait_for_room(&self) -> io::Result<()> {
        poll_fn(|cx| self.0.poll_write_ready(cx).map_ok(drop)).await
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
            let written = match send(self.0.get_ref(), rest) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.0.async_io(Interest::WRITABLE, |socket| send(socket, rest)).await?
                }
                done => done?,
            };
            advance(rest, written);
        }
    }

    /// Closes one or both directions; a reader waiting on the other task then sees the end.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = self.0.get_ref().shutdown(how); // fails only if the peer was first
    }
}

/// Reads what is there into `spare`.
fn recv(socket: &net::TcpStream, spare: &mut UninitSlice) -> io::Result<usize> {
    loop {
        // SAFETY: `spare` is writable memory of that length, and the kernel only writes into it.
        let read = unsafe {
            libc::recv(socket.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), libc::MSG_DONTWAIT)
        };
        if let Ok(count) = usize::try_from(read) {
            return Ok(count);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Writes of `chunks` what the kernel takes now.
fn send(socket: &net::TcpStream, chunks: &[Bytes]) -> io::Result<usize> {
    let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
    if let [only] = chunks {
        return Ok(rustix::io::retry_on_intr(|| rustix::net::send(socket, only, flags))?);
    }
    let mut slices = [IoSlice::new(&[]); WRITE_SLICES_MAX];
    let mut count = 0;
    for chunk in chunks.iter().take(WRITE_SLICES_MAX) {
        slices[count] = IoSlice::new(chunk);
        count += 1;
    }
    let mut control = rustix::net::SendAncillaryBuffer::default();
    let sending = || rustix::net::sendmsg(socket, &slices[..count], &mut control, flags);
    Ok(rustix::io::retry_on_intr(sending)?)
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
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::time::Duration;

    use bytes::{Bytes, BytesMut};

    use super::{Listener, Stream, bind};
    use crate::runtime::{block_on, sleep, spawn};

    /// A plain client and the server's stream to it.
    async fn connected() -> (std::net::TcpStream, Stream) {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = Listener::new(listener).unwrap().accept().await.unwrap();
        (client, Stream::new(accepted).unwrap())
    }

    #[test]
    fn an_end_that_comes_with_the_last_bytes_is_seen_after_them() {
        block_on(async {
            let (mut client, server) = connected().await;
            client.write_all(b"last words").unwrap();
            drop(client);
            sleep(Duration::from_millis(5)).await;
            let mut received = BytesMut::with_capacity(100);
            assert_eq!(server.read(&mut received).await.unwrap(), 10);
            assert_eq!(server.read(&mut received).await.unwrap(), 0);
            assert_eq!(server.read(&mut received).await.unwrap(), 0);
        });
    }

    #[test]
    fn bytes_beyond_the_room_and_bytes_that_come_later_are_read() {
        block_on(async {
            let (mut client, server) = connected().await;
            client.write_all(&[1; 150]).unwrap();
            let mut received = BytesMut::with_capacity(100);
            let first = server.read(&mut received).await.unwrap();
            received.reserve(100);
            let second = server.read(&mut received).await.unwrap();
            assert_eq!((first, second), (100, 50));
            assert!(server.try_read(&mut received).is_err(), "nothing is there");
            let reading = spawn(async move {
                let read = server.read(&mut received).await;
                (server, received, read.unwrap())
            });
            sleep(Duration::from_millis(2)).await;
            client.write_all(&[2; 7]).unwrap();
            let (server, mut received, read) = reading.await;
            assert_eq!(read, 7);
            // Our own shutdown ends a read that waits.
            let reading = spawn(async move { server.read(&mut received).await.unwrap() });
            sleep(Duration::from_millis(2)).await;
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(reading.await, 0);
        });
    }

    #[test]
    fn shutting_down_wakes_our_own_reader_and_tells_the_client() {
        block_on(async {
            let (mut client, server) = connected().await;
            let server = std::rc::Rc::new(server);
            let reader = server.clone();
            let reading = spawn(async move { reader.read(&mut BytesMut::with_capacity(9)).await.unwrap() });
            sleep(Duration::from_millis(2)).await;
            server.shutdown(Shutdown::Both);
            assert_eq!(reading.await, 0);
            assert_eq!(client.read(&mut [0; 9]).unwrap(), 0);
        });
    }

    #[test]
    fn many_chunks_larger_than_the_socket_buffer_arrive_in_order() {
        block_on(async {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            client.set_nonblocking(true).unwrap();
            let listener = Listener::new(listener).unwrap();
            let (accepted, _) = listener.accept().await.unwrap();
            let (server, client) = (Stream::new(accepted).unwrap(), Stream::new(client.into()).unwrap());
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
