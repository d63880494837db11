//! A connection's socket with the replies owed on it; shared by the task that reads and those that finish requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::poll_once;

use super::replies::{Replies, Ticket};
use crate::base::clock;
use crate::kafka::api::Outcome;
use crate::kafka::front::Inflight;
use crate::runtime::local::Event;
use crate::runtime::tcp::Stream;
use crate::runtime::{catch_panic, spawn_detached};

/// The rest of a dispatched request.
type Finishing = Pin<Box<dyn Future<Output = Outcome>>>;

/// A socket and the replies owed on it.
///
/// Whoever makes a reply ready calls [`Link::flush`]; one caller at a time writes, for all.
pub(in crate::kafka) struct Link {
    stream: Rc<Stream>,
    replies: RefCell<Replies>,
    /// Dispatched requests whose ends a task of their own awaits, oldest first.
    finishing: RefCell<VecDeque<(Ticket, Finishing)>>,
    is_finishing: Cell<bool>,
    is_flushing: Cell<bool>,
    is_closed: Cell<bool>,
    is_stopping: Cell<bool>,
    last_active: Cell<Instant>,
    /// Something was answered, sent or closed.
    changed: Event,
}

impl Link {
    pub(super) fn new(stream: Stream) -> Self {
        Link {
            stream: Rc::new(stream),
            replies: RefCell::default(),
            finishing: RefCell::default(),
            is_finishing: Cell::new(false),
            is_flushing: Cell::new(false),
            is_closed: Cell::new(false),
            is_stopping: Cell::new(false),
            last_active: Cell::new(clock::monotonic()),
            changed: Event::new(),
        }
    }

    pub(super) fn stream(&self) -> &Rc<Stream> {
        &self.stream
    }

    /// The socket, unless somebody still reads from it.
    pub(super) fn into_stream(self) -> Option<Stream> {
        Rc::into_inner(self.stream)
    }

    /// Opens the slot of a request that starts now.
    pub(super) fn open(&self, inflight: Inflight) -> Ticket {
        self.replies.borrow_mut().open(inflight)
    }

    /// Ends a request. The reply leaves with the next flush.
    pub(super) fn answer(&self, ticket: Ticket, outcome: Outcome) {
        let reply = match outcome {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Silent => None,
            Outcome::Close(reason) => {
                tracing::debug!(reason, "closing a connection");
                self.close();
                return;
            }
        };
        if !self.is_closed.get() {
            self.replies.borrow_mut().fill(ticket, reply);
        }
        self.changed.notify();
    }

    /// Carries a dispatched request to its end beside the connection's own task. Since replies leave in order, one task
    /// awaits the oldest request, takes along whatever has ended behind it, and sends all their replies at once.
    pub(super) fn finish_later(self: &Rc<Self>, ticket: Ticket, finishing: Finishing) {
        self.finishing.borrow_mut().push_back((ticket, finishing));
        if !self.is_finishing.replace(true) {
            spawn_detached(self.clone().finish());
        }
    }

    async fn finish(self: Rc<Self>) {
        let next = || self.finishing.borrow_mut().pop_front();
        while let Some((ticket, finishing)) = next() {
            self.answer(ticket, ended(finishing).await);
            while let Some((ticket, finishing)) = next() {
                let mut ending = Box::pin(ended(finishing));
                match poll_once(&mut ending).await {
                    Some(outcome) => self.answer(ticket, outcome),
                    None => {
                        self.flush().await;
                        self.answer(ticket, ending.await);
                    }
                }
            }
            self.flush().await;
        }
        self.is_finishing.set(false);
        self.changed.notify();
    }

    /// Sends every reply whose turn has come. Returns at once while another caller sends; that one sends these too.
    pub(super) async fn flush(&self) {
        if self.is_flushing.replace(true) {
            return;
        }
        loop {
            let mut chunks = self.replies.borrow_mut().take_ready();
            if chunks.is_empty() {
                break;
            }
            let bytes = chunks.iter().map(Bytes::len).sum();
            if let Err(error) = self.stream.write_all(&mut chunks).await {
                tracing::debug!(%error, "lost a connection");
                self.close();
            }
            if self.is_closed.get() {
                break;
            }
            self.replies.borrow_mut().sent(bytes);
            self.touch();
            self.changed.notify();
        }
        self.is_flushing.set(false);
        self.changed.notify();
    }

    /// Waits while `condition` holds and the connection lives.
    pub(super) async fn wait_while(&self, condition: impl Fn(&Link) -> bool) {
        while !self.is_closed.get() && condition(self) {
            self.changed.wait().await;
        }
    }

    /// Waits until nothing is under way and every reply has left, or the connection is closed.
    pub(super) async fn wait_until_sent(&self) {
        self.flush().await;
        self.wait_while(|link| {
            link.is_flushing.get() || link.is_finishing.get() || !link.replies.borrow().is_empty()
        })
        .await;
    }

    /// Bytes of the requests under way.
    pub(super) fn inflight_bytes(&self) -> usize {
        self.replies.borrow().inflight_bytes()
    }

    /// Bytes of the replies that have not left.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.replies.borrow().unsent_bytes()
    }

    /// Notes that the client has shown life.
    pub(super) fn touch(&self) {
        self.last_active.set(clock::monotonic());
    }

    /// Whether nothing has been heard for `idle`, and no request under way explains it.
    pub(in crate::kafka) fn is_silent_since(&self, now: Instant, idle: Duration) -> bool {
        let is_waiting_for_us = !self.replies.borrow().is_empty() && !self.is_flushing.get();
        !is_waiting_for_us && now.saturating_duration_since(self.last_active.get()) >= idle
    }

    /// Ends the connection; both the reader and the writer notice. Idempotent.
    pub(in crate::kafka) fn close(&self) {
        if !self.is_closed.replace(true) {
            self.stream.shutdown(Shutdown::Both);
            self.replies.borrow_mut().clear();
            self.changed.notify();
        }
    }

    /// Asks the connection to end once what is under way is answered.
    pub(in crate::kafka) fn stop(&self) {
        self.is_stopping.set(true);
        self.stream.shutdown(Shutdown::Read);
        self.changed.notify();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.get()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }
}

/// What a request came to; a panic ends its connection only.
async fn ended(finishing: Finishing) -> Outcome {
    catch_panic(finishing).await.unwrap_or_else(|panic| {
        tracing::error!(panic, "a request failed");
        Outcome::Close("a request failed".to_owned())
    })
}
