//! One client: its socket, and what the connection has agreed on.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::client_table::Membership;
use super::front::Front;
use super::link::Link;
use super::resp::{OwnedArgs, Protocol};
use super::subscriptions::Subscriptions;
use crate::broker::Broker;

/// A connected client.
pub(super) struct Client {
    pub(super) front: Rc<Front>,
    pub(super) link: Rc<Link>,
    pub(super) membership: Membership,
    protocol: Cell<Protocol>,
    pub(super) reply_mode: Cell<ReplyMode>,
    /// Commands since MULTI.
    pub(super) transaction: RefCell<Option<Transaction>>,
    pub(super) subscriptions: Subscriptions,
    last_command: Cell<&'static str>,
}

/// CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyMode {
    On,
    Off,
    /// No reply to this command.
    SkipThis,
    /// No reply to the next one.
    SkipNext,
}

/// What MULTI has gathered.
#[derive(Default)]
pub(super) struct Transaction {
    pub(super) commands: Vec<OwnedArgs>,
    pub(super) size_bytes: usize,
    /// A command was refused when it was queued, so EXEC refuses all.
    pub(super) is_broken: bool,
}

impl Client {
    pub(super) fn new(front: Rc<Front>, link: Rc<Link>, membership: Membership) -> Rc<Self> {
        Rc::new(Client {
            front,
            link,
            membership,
            protocol: Cell::new(Protocol::Resp2),
            reply_mode: Cell::new(ReplyMode::On),
            transaction: RefCell::new(None),
            subscriptions: Subscriptions::default(),
            last_command: Cell::new(""),
        })
    }

    pub(super) fn broker(&self) -> &Rc<Broker> {
        &self.front.broker
    }

    pub(super) fn id(&self) -> u64 {
        self.membership.entry.id
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    pub(super) fn set_protocol(&self, protocol: Protocol) {
        self.protocol.set(protocol);
        let number = if protocol == Protocol::Resp2 { 2 } else { 3 };
        self.membership.entry.protocol.store(number, Ordering::Relaxed);
    }

    /// In RESP2 a subscriber may only send commands about subscriptions.
    pub(super) fn is_in_subscriber_mode(&self) -> bool {
        self.protocol() == Protocol::Resp2 && self.subscriptions.count() > 0
    }

    /// Notes for CLIENT LIST which command the client has sent.
    pub(super) fn note_command(&self, name: &'static str) {
        if self.last_command.replace(name) != name {
            self.membership.entry.change_words(|words| words.last_command = name);
        }
    }

    /// Notes for CLIENT LIST what the client is doing.
    pub(super) fn note(&self, now_ms: i64) {
        let entry = &self.membership.entry;
        entry.last_active_ms.store(now_ms, Ordering::Relaxed);
        entry.unsent_bytes.store(self.link.unsent_bytes(), Ordering::Relaxed);
        let queued = self
            .transaction
            .borrow()
            .as_ref()
            .map_or(-1, |queue| i64::try_from(queue.commands.len()).unwrap_or(i64::MAX));
        entry.queued_commands.store(queued, Ordering::Relaxed);
    }
}
