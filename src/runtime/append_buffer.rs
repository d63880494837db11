//! Memory that grows at its end while its beginning is already shared.
//!
//! Small batches that arrive one by one lie side by side in one buffer, so that a reader gets thousands of them as one
//! slice. One owner appends; every view shares the memory and keeps it alive. What was appended never changes again.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

/// The memory behind a buffer and all its views.
struct Memory(Box<[UnsafeCell<MaybeUninit<u8>>]>);

// SAFETY: the only writer is the one `AppendBuffer` (it is not `Clone`), and it writes only behind its length; views
// read only before the length that the buffer had when they were made. No byte is written and read at the same time.
unsafe impl Sync for Memory {}
// SAFETY: plain bytes on the heap, bound to no thread.
unsafe impl Send for Memory {}

/// A part of the memory that was initialised before the view was made.
struct View {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        let cells = &self.memory.0[self.range.clone()];
        // SAFETY: `AppendBuffer::view` checked that the range lies before the length, so all of it is initialised, and
        // nobody writes there again (see `Memory`). `UnsafeCell<MaybeUninit<u8>>` has the layout of `u8`.
        unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<u8>(), cells.len()) }
    }
}

/// The appending end.
pub struct AppendBuffer {
    memory: Arc<Memory>,
    length: usize,
}

impl AppendBuffer {
    /// An empty buffer that will hold at most `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut cells = Vec::with_capacity(capacity);
        cells.resize_with(capacity, || UnsafeCell::new(MaybeUninit::uninit()));
        AppendBuffer { memory: Arc::new(Memory(cells.into_boxed_slice())), length: 0 }
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.memory.0.len() - self.length
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// When they do not fit `remaining`.
    pub fn push(&mut self, bytes: &[u8]) {
        let cells = &self.memory.0[self.length..self.length + bytes.len()];
        // SAFETY: the range lies behind the length, so no view covers it, and `&mut self` makes this the only writer.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                UnsafeCell::raw_get(cells.as_ptr()).cast(),
                cells.len(),
            );
        }
        self.length += bytes.len();
    }

    /// Shares a part of what was appended.
    ///
    /// # Panics
    /// When the range ends behind `len`.
    pub fn view(&self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.length,
            "a view of bytes that were not appended"
        );
        Bytes::from_owner(View { memory: self.memory.clone(), range })
    }
}

#[cfg(test)]
mod tests {
    use super::AppendBuffer;

    #[test]
    fn a_view_stays_as_it_is_while_the_buffer_grows_and_after_it_is_gone() {
        let mut buffer = AppendBuffer::with_capacity(8);
        buffer.push(b"abc");
        let early = buffer.view(1..3);
        buffer.push(b"defgh");
        let late = buffer.view(0..8);
        assert_eq!(buffer.remaining(), 0);
        drop(buffer);
        assert_eq!((&early[..], &late[..]), (&b"bc"[..], &b"abcdefgh"[..]));
    }
}
