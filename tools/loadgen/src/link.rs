//! One non-blocking connection to one broker: frames out, frames in.
//!
//! Lives on: the worker that owns its client. Opened by a client when it first needs that broker, dropped when it breaks.
//! Promise: frames leave in the order given; a frame's batch is handed back once its last byte is in the socket.
//! Does not: know requests from one another (see `produce`, `consume`), wait (see `worker`).

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::{Errno, read, retry_on_intr};

use crate::batch::BatchBuffer;
use crate::wire::{FRAME_BYTES_MAX, SIZE_BYTES};

/// Room for a read when no frame says how much is to come.
const READ_BYTES_MIN: usize = 4 << 10;

/// A request on its way: what stands before the batch, the batch if there is one, what stands behind it.
#[derive(Default)]
pub struct OutFrame {
    pub head: Vec<u8>,
    pub batch: Option<BatchBuffer>,
    pub tail: &'static [u8],
}

impl OutFrame {
    fn parts(&self) -> [&[u8]; 3] {
        [&self.head, self.batch.as_ref().map_or(&[], BatchBuffer::as_slice), self.tail]
    }

    fn size_bytes(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }
}

/// A connection and what is on its way through it.
pub struct Link {
    stream: TcpStream,
    token: u64,
    outbox: VecDeque<OutFrame>,
    /// Bytes of the first frame in `outbox` that are in the socket.
    written_bytes: usize,
    wants_write: bool,
    inbox: Vec<u8>,
}

impl Link {
    /// Takes over a fresh connection and registers it with `poller` under `token`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(stream: TcpStream, poller: &OwnedFd, token: u64) -> Result<Self> {
        stream.set_nonblocking(true)?;
        epoll::add(poller, &stream, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        Ok(Self {
            stream,
            token,
            outbox: VecDeque::new(),
            written_bytes: 0,
            wants_write: false,
            inbox: Vec::new(),
        })
    }

    /// Whether the socket took everything so far.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Frames that are not wholly in the socket.
    pub fn unsent_count(&self) -> usize {
        self.outbox.len()
    }

    /// Queues a frame and writes what the socket takes. Frames that are out go to `spent`.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn send(&mut self, frame: OutFrame, poller: &OwnedFd, spent: &mut Vec<OutFrame>) -> Result<()> {
        self.outbox.push_back(frame);
        self.flush(poller, spent)
    }

    /// Writes what the socket takes, and asks epoll for the rest.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn flush(&mut self, poller: &OwnedFd, spent: &mut Vec<OutFrame>) -> Result<()> {
        while let Some(frame) = self.outbox.front() {
            let mut skip = self.written_bytes;
            let slices = frame.parts().map(|part| {
                let skipped = skip.min(part.len());
                skip -= skipped;
                IoSlice::new(&part[skipped..])
            });
            match self.stream.write_vectored(&slices) {
                Ok(0) => bail!("the broker takes no more bytes"),
                Ok(count) => self.written_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("writing to the broker"),
            }
            if self.written_bytes == frame.size_bytes() {
                self.written_bytes = 0;
                spent.extend(self.outbox.pop_front());
            }
        }
        let wants_write = !self.outbox.is_empty();
        if wants_write != self.wants_write {
            let flags = if wants_write {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            epoll::modify(poller, &self.stream, epoll::EventData::new_u64(self.token), flags)?;
            self.wants_write = wants_write;
        }
        Ok(())
    }

    /// Reads what there is, or at least one whole reply; epoll tells again of what is left. Whole replies, without their sizes, go to `frames`; they share one buffer, which comes
    /// back by `recycle`.
    ///
    /// # Errors
    /// If the connection is broken or closed, or the broker announces an absurd size.
    pub fn receive(&mut self, frames: &mut VecDeque<Bytes>) -> Result<Option<Bytes>> {
        loop {
            let missing = self.missing_bytes()?;
            self.inbox.reserve(missing.max(READ_BYTES_MIN));
            let spare = self.inbox.capacity() - self.inbox.len();
            let count = match retry_on_intr(|| read(self.stream.as_fd(), spare_capacity(&mut self.inbox))) {
                Ok(0) => bail!("the broker closed the connection"),
                Ok(count) => count,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error).context("reading from the broker"),
            };
            // A full buffer may mean more; anything less is all there was, and epoll tells of what follows.
            if count < spare || self.missing_bytes()? == 0 {
                break;
            }
        }
        let whole_bytes = self.whole_frames_bytes()?;
        if whole_bytes == 0 {
            return Ok(None);
        }
        let tail = self.inbox[whole_bytes..].to_vec();
        let shared = Bytes::from(std::mem::replace(&mut self.inbox, tail));
        let mut position = 0;
        while position < whole_bytes {
            let size = size_at(&shared, position)?;
            frames.push_back(shared.slice(position + SIZE_BYTES..position + SIZE_BYTES + size));
            position += SIZE_BYTES + size;
        }
        Ok(Some(shared))
    }

    /// Takes the buffer of handled frames back, if nobody holds on to it: a fetch of megabytes must not fault in fresh
    /// memory each time.
    pub fn recycle(&mut self, mut shared: Bytes) {
        if self.inbox.is_empty() && shared.is_unique() {
            shared.clear();
            self.inbox = Vec::from(shared);
        }
    }

    /// Bytes until the first frame is whole; 0 if it is.
    fn missing_bytes(&self) -> Result<usize> {
        if self.inbox.len() < SIZE_BYTES {
            return Ok(SIZE_BYTES - self.inbox.len());
        }
        Ok((SIZE_BYTES + size_at(&self.inbox, 0)?).saturating_sub(self.inbox.len()))
    }

    /// Where the last whole frame ends.
    fn whole_frames_bytes(&self) -> Result<usize> {
        let mut position = 0;
        while position + SIZE_BYTES <= self.inbox.len() {
            let end = position + SIZE_BYTES + size_at(&self.inbox, position)?;
            if end > self.inbox.len() {
                break;
            }
            position = end;
        }
        Ok(position)
    }
}

fn size_at(bytes: &[u8], position: usize) -> Result<usize> {
    let size = u32::from_be_bytes(bytes[position..position + SIZE_BYTES].try_into().expect("4 bytes"));
    let size = usize::try_from(size)?;
    ensure!(size <= FRAME_BYTES_MAX, "the broker announces a reply of {size} bytes");
    Ok(size)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use rustix::event::epoll;

    use super::{Link, OutFrame};

    #[test]
    fn frames_arrive_whole_however_the_bytes_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let mut link =
            Link::new(TcpStream::connect(&address).expect("accepts"), &poller, 7).expect("registers");
        let (mut peer, _) = listener.accept().expect("connected");
        peer.set_nodelay(true).expect("a socket");

        let mut bytes = Vec::new();
        for size in [0u32, 1, 5, 20_000, 3] {
            bytes.extend_from_slice(&size.to_be_bytes());
            bytes.extend((0..size).map(|index| index as u8));
        }
        let mut sizes = Vec::new();
        for (start, end) in [(0, 2), (2, 3), (3, 9), (9, 6_000), (6_000, bytes.len())] {
            peer.write_all(&bytes[start..end]).expect("sends");
            std::thread::sleep(Duration::from_millis(20));
            // Level-triggered: what one call leaves in the socket, the next one brings.
            for _ in 0..3 {
                let mut frames = VecDeque::new();
                let shared = link.receive(&mut frames).expect("open");
                sizes.extend(frames.drain(..).map(|frame| frame.len()));
                if let Some(shared) = shared {
                    link.recycle(shared);
                }
            }
        }
        assert_eq!(sizes, [0, 1, 5, 20_000, 3]);
    }

    #[test]
    fn frames_larger_than_the_socket_buffer_leave_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound").to_string();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let mut link =
            Link::new(TcpStream::connect(&address).expect("accepts"), &poller, 7).expect("registers");
        let (mut peer, _) = listener.accept().expect("connected");
        let reader = std::thread::spawn(move || {
            let mut bytes = vec![0; 3 * 10_000_002];
            std::thread::sleep(Duration::from_millis(50));
            peer.read_exact(&mut bytes).expect("all of it");
            bytes
        });
        let mut spent = Vec::new();
        for fill in 1..=3u8 {
            let frame = OutFrame { head: vec![fill; 10_000_000], batch: None, tail: &[8, 9] };
            link.send(frame, &poller, &mut spent).expect("open");
        }
        assert!(!link.is_flushed());
        while !link.is_flushed() {
            std::thread::sleep(Duration::from_millis(1));
            link.flush(&poller, &mut spent).expect("open");
        }
        assert_eq!(spent.len(), 3);
        let bytes = reader.join().expect("reads");
        for (fill, frame) in (1..=3u8).zip(bytes.chunks(10_000_002)) {
            assert!(frame[..10_000_000].iter().all(|&byte| byte == fill));
            assert_eq!(frame[10_000_000..], [8, 9]);
        }
    }
}
