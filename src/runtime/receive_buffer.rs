//! The receive buffer of a connection: grows with the frames seen, never with the size that a frame claims to have.
//!
//! Used by every front that cuts its requests out of large reads. Does not know any protocol: whoever fills it says how
//! many bytes make the frame in front whole, if that is known.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use bytes::BytesMut;

use super::tcp::Stream;
use crate::base::units::KIB;

/// Room for one read: least and most.
const READ_MIN_BYTES: usize = 4 * KIB;
const READ_MAX_BYTES: usize = 512 * KIB;
/// Room that an empty buffer keeps while it waits for the client: what a silent connection costs.
const WAIT_MAX_BYTES: usize = 16 * KIB;
/// A frame of up to this size, or of twice what the connection has shown before, gets its room at once, so that it is
/// not copied while it arrives. For a larger one the room doubles as it arrives: memory is cheap to claim to need, and
/// with huge pages the kernel backs all of it at the first touch.
const TRUSTED_FRAME_BYTES: usize = 64 * KIB;

/// Rooms that a shard keeps for the next reader, and how small they may be.
const SPARE_ROOMS_MAX: usize = 8;
const SPARE_ROOM_BYTES_MIN: usize = 32 * KIB;

/// What is left of read buffers whose connections wait for their clients. The tail cache keeps the front of such a buffer
/// for a while; the rest serves whoever reads next, or a few kept bytes would hold half a megabyte.
#[derive(Default)]
pub struct SpareRooms(RefCell<Vec<BytesMut>>);

impl SpareRooms {
    /// Keeps the largest rooms: small ones that fit nobody must not push out those that would.
    fn put(&self, room: BytesMut) {
        if room.capacity() < SPARE_ROOM_BYTES_MIN {
            return;
        }
        let mut rooms = self.0.borrow_mut();
        if rooms.len() < SPARE_ROOMS_MAX {
            rooms.push(room);
        } else if let Some(smallest) = rooms.iter_mut().min_by_key(|kept| kept.capacity())
            && smallest.capacity() < room.capacity()
        {
            *smallest = room;
        }
    }

    /// An empty buffer with room for at least `bytes`.
    fn take(&self, bytes: usize) -> Option<BytesMut> {
        let mut rooms = self.0.borrow_mut();
        let fitting = rooms.iter().position(|room| room.capacity() >= bytes)?;
        Some(rooms.swap_remove(fitting))
    }
}

type Reading = Pin<Box<dyn Future<Output = (io::Result<usize>, BytesMut)>>>;

/// Bytes received and not yet handled.
pub struct ReceiveBuffer {
    bytes: BytesMut,
    spare: Rc<SpareRooms>,
    /// Room that the next read gets.
    read_bytes: usize,
    /// The largest frame that came whole.
    frame_max_bytes: usize,
    /// A read that waits for the client, with the room that it fills. Kept when the one who waits turns to something
    /// else, so that waiting costs one system call however often it is taken up again.
    reading: Option<Reading>,
}

impl ReceiveBuffer {
    /// A buffer that begins with bytes which were read before.
    pub fn new(leftover: BytesMut, spare: Rc<SpareRooms>) -> Self {
        ReceiveBuffer {
            bytes: leftover,
            spare,
            read_bytes: READ_MIN_BYTES,
            frame_max_bytes: 0,
            reading: None,
        }
    }

    /// What was received and not taken.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up a read that waits, and hands out what was received.
    pub fn into_bytes(self) -> BytesMut {
        self.bytes
    }

    /// Takes the whole frame of `size` bytes that lies in front.
    pub fn take_frame(&mut self, size: usize) -> BytesMut {
        self.frame_max_bytes = self.frame_max_bytes.max(size);
        self.bytes.split_to(size)
    }

    /// Reads more; 0 means that the client sends no more. May be dropped and called again: nothing is lost.
    /// `frame_bytes` is the size of the frame in front, if that is known; a hint, which is not trusted with memory.
    ///
    /// # Errors
    /// The socket's.
    pub async fn fill(&mut self, stream: &Rc<Stream>, frame_bytes: Option<usize>) -> io::Result<usize> {
        let reading = match &mut self.reading {
            Some(reading) => reading,
            None => {
                self.make_room(frame_bytes);
                let room = self.bytes.capacity() - self.bytes.len();
                match stream.try_read(&mut self.bytes) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    done => {
                        self.adapt(room, done.as_ref().copied().unwrap_or(0));
                        return done;
                    }
                }
                if self.bytes.is_empty() && self.bytes.capacity() > WAIT_MAX_BYTES {
                    let waiting = BytesMut::with_capacity(self.read_bytes.min(WAIT_MAX_BYTES));
                    self.spare.put(std::mem::replace(&mut self.bytes, waiting));
                }
                let mut tail = self.bytes.split_off(self.bytes.len());
                let stream = stream.clone();
                self.reading.insert(Box::pin(async move {
                    let read = stream.read(&mut tail).await;
                    (read, tail)
                }))
            }
        };
        let (read, tail) = reading.as_mut().await;
        self.reading = None;
        self.adapt(tail.capacity(), tail.len());
        self.bytes.unsplit(tail);
        read
    }

    /// Larger reads for a client that fills them, smaller ones for a client that does not.
    fn adapt(&mut self, room: usize, read: usize) {
        if read >= room.min(self.read_bytes) {
            self.read_bytes = (self.read_bytes * 2).min(READ_MAX_BYTES);
        } else if read < self.read_bytes / 8 {
            self.read_bytes = (self.read_bytes / 2).max(READ_MIN_BYTES);
        }
    }

    /// `needed` is what the frame in front lacks, `wanted` what is worth reading at once. Wanting more than is needed never
    /// leaves a room behind that would do: its rest may be all that is free of a buffer that the tail cache keeps.
    fn make_room(&mut self, frame_bytes: Option<usize>) {
        let length = self.bytes.len();
        let trusted = TRUSTED_FRAME_BYTES.max(2 * self.frame_max_bytes);
        let (needed, wanted) = match frame_bytes.filter(|total| *total > length) {
            // The begin of a small frame is cheap to move to where more fits than that frame's end: a client that sends
            // many of them at once is not to be read piece by piece.
            Some(total) if total <= trusted && length <= self.read_bytes / 8 => {
                (total - length, (total - length).max(self.read_bytes / 2))
            }
            Some(total) if total <= trusted => (total - length, total - length),
            Some(total) => {
                let doubled = (total - length).min(length.max(self.read_bytes));
                (doubled, doubled)
            }
            None if length > 0 => (self.read_bytes, self.read_bytes),
            None => (READ_MIN_BYTES, self.read_bytes),
        };
        let room = self.bytes.capacity() - length;
        let enough = if length > 0 { needed.max(SPARE_ROOM_BYTES_MIN) } else { needed };
        if room >= wanted.min(enough) || self.bytes.try_reclaim(wanted) {
            return;
        }
        let spare = self.spare.take(length + needed);
        let mut larger = spare.unwrap_or_else(|| BytesMut::with_capacity(length + wanted));
        larger.extend_from_slice(&self.bytes);
        self.bytes = larger;
    }
}
