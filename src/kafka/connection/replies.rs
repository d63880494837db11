//! The replies that a connection owes, in the order of its requests.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::kafka::frame::Reply;
use crate::kafka::front::Inflight;

/// Names a request whose reply is owed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct Ticket(u64);

enum Slot {
    /// The request is under way and counts.
    Owed(Inflight),
    /// It is done; the reply waits for those before it, or is none at all.
    Done(Option<Reply>),
}

/// Replies owed and replies ready, oldest first.
///
/// Invariant: `slots[0]` belongs to ticket `first`.
#[derive(Default)]
pub(super) struct Replies {
    slots: VecDeque<Slot>,
    first: u64,
    inflight_bytes: usize,
    unsent_bytes: usize,
}

impl Replies {
    /// Opens a slot behind all others.
    pub(super) fn open(&mut self, inflight: Inflight) -> Ticket {
        self.inflight_bytes += inflight.bytes();
        self.slots.push_back(Slot::Owed(inflight));
        Ticket(self.first + self.slots.len() as u64 - 1)
    }

    /// Fills the slot of a request that is done.
    pub(super) fn fill(&mut self, ticket: Ticket, reply: Option<Reply>) {
        let index = ticket.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) else { return };
        self.unsent_bytes += size_bytes(&reply);
        if let Slot::Owed(inflight) = std::mem::replace(slot, Slot::Done(reply)) {
            self.inflight_bytes -= inflight.bytes();
        }
    }

    /// Takes all replies that no request before them holds up.
    pub(super) fn take_ready(&mut self) -> Vec<Bytes> {
        let mut chunks = Vec::new();
        while let Some(Slot::Done(_)) = self.slots.front() {
            if let Some(Slot::Done(Some(reply))) = self.slots.pop_front() {
                chunks.extend(reply);
            }
            self.first += 1;
        }
        chunks
    }

    /// Notes that so many bytes have left.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.unsent_bytes -= bytes;
    }

    /// Forgets everything: the client is gone.
    pub(super) fn clear(&mut self) {
        self.first += self.slots.len() as u64;
        self.slots.clear();
        self.inflight_bytes = 0;
        self.unsent_bytes = 0;
    }

    /// Whether no request is under way and no reply unsent.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.unsent_bytes == 0
    }

    /// Bytes of the requests under way.
    pub(super) fn inflight_bytes(&self) -> usize {
        self.inflight_bytes
    }

    /// Bytes of the replies that have not left, those that still wait for their turn included.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }
}

fn size_bytes(reply: &Option<Reply>) -> usize {
    reply.iter().flatten().map(Bytes::len).sum()
}
