//! A client's socket with all that is on its way out: replies, and pushes of subscriptions.
//!
//! Whoever queues bytes calls [`Link::flush`]; one caller at a time writes, for all. Queued bytes are counted from the
//! connection's first on, so that a subscription can tell when its last push has reached the socket.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::rc::Rc;

use bytes::Bytes;

use crate::runtime::local::Event;
use crate::runtime::spawn_detached;
use crate::runtime::tcp::Stream;

/// A socket and its queue.
pub(super) struct Link {
    stream: Rc<Stream>,
    queue: RefCell<VecDeque<Bytes>>,
    queued_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    is_flushing: Cell<bool>,
    is_closed: Cell<bool>,
    /// Close once everything has left.
    is_ending: Cell<bool>,
    /// Something was sent, or the connection ends.
    changed: Event,
}

impl Link {
    pub(super) fn new(stream: Stream) -> Self {
        Link {
            stream: Rc::new(stream),
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            is_flushing: Cell::new(false),
            is_closed: Cell::new(false),
            is_ending: Cell::new(false),
            changed: Event::new(),
        }
    }

    pub(super) fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// Puts bytes behind all others; they leave with the next flush. Answers the mark that [`Link::sent_bytes`] reaches
    /// when they have left.
    pub(super) fn queue(&self, bytes: Bytes) -> u64 {
        if !bytes.is_empty() && !self.is_closed.get() {
            self.queued_bytes.set(self.queued_bytes.get() + bytes.len() as u64);
            self.queue.borrow_mut().push_back(bytes);
        }
        self.queued_bytes.get()
    }

    /// As [`Link::queue`], for many chunks.
    pub(super) fn queue_all(&self, chunks: impl Iterator<Item = Bytes>) -> u64 {
        for chunk in chunks {
            self.queue(chunk);
        }
        self.queued_bytes.get()
    }

    /// Bytes that have reached the socket since the connection began.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Bytes that wait for the socket.
    pub(super) fn unsent_bytes(&self) -> u64 {
        self.queued_bytes.get() - self.sent_bytes.get()
    }

    /// Sends what is queued. Returns at once while another caller sends; that one sends this too.
    pub(super) async fn flush(&self) {
        if !self.is_flushing.get() && self.send_now() {
            self.send_rest().await;
        }
    }

    /// As [`Link::flush`], without waiting for a socket that is full.
    pub(super) fn flush_soon(self: &Rc<Self>) {
        if !self.is_flushing.get() && self.send_now() {
            let link = self.clone();
            spawn_detached(async move { link.send_rest().await });
        }
    }

    /// Sends what is left to a socket that is full, whenever it has room again.
    async fn send_rest(&self) {
        self.is_flushing.set(true);
        loop {
            if let Err(error) = self.stream.wait_for_room().await {
                self.lost(&error);
            }
            if !self.send_now() {
                break;
            }
        }
        self.is_flushing.set(false);
    }

    /// Sends what the socket takes at once; whether something is left.
    fn send_now(&self) -> bool {
        loop {
            let mut queue = self.queue.borrow_mut();
            if queue.is_empty() {
                break;
            }
            let written = self.stream.try_write(queue.make_contiguous());
            if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                return true;
            }
            while queue.front().is_some_and(Bytes::is_empty) {
                queue.pop_front();
            }
            drop(queue);
            self.note_sent(written);
        }
        if self.is_ending.get() {
            self.close();
        }
        false
    }

    fn note_sent(&self, written: io::Result<usize>) {
        match written {
            Ok(bytes) => {
                self.sent_bytes.set(self.sent_bytes.get() + bytes as u64);
                self.changed.notify();
            }
            Err(error) => self.lost(&error),
        }
    }

    fn lost(&self, error: &io::Error) {
        tracing::debug!(%error, "lost a connection");
        self.close();
    }

    /// Waits while `condition` holds and the connection lives; looks again whenever something has left.
    pub(super) async fn wait_while(&self, condition: impl Fn(&Link) -> bool) {
        while !self.is_closed.get() && condition(self) {
            self.changed.wait().await;
        }
    }

    /// Ends the connection now. Idempotent.
    pub(super) fn close(&self) {
        if !self.is_closed.replace(true) {
            self.stream.shutdown(Shutdown::Both);
            self.queue.borrow_mut().clear();
            self.changed.notify();
        }
    }

    /// Ends the connection once everything queued has left.
    pub(super) fn end(self: &Rc<Self>) {
        self.is_ending.set(true);
        self.stream.shutdown(Shutdown::Read);
        self.changed.notify();
        self.flush_soon();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    /// Whether nothing more is to be read from the client.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.get()
    }
}
