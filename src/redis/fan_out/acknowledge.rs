//! Implicit acknowledgement: a durable subscription's offset is stored a while after its pushes have reached the socket.
//!
//! That the socket took a push does not tell that anybody has read it, and what a killed subscriber's kernel held is gone.
//! So a push counts as read when the connection has lived `redis.subscription.acknowledge.delay.ms` longer, or when the
//! client itself ends the subscription (UNSUBSCRIBE, RESET, QUIT). What was pushed later than that comes again to whoever
//! subscribes next.
//! At most one commit is under way for a subscription, and a fast stream of pushes costs few of them. A commit that
//! fails is tried again.
//! Bounds: what was sent is kept by the time at which that was seen, one entry for each [`SEEN_TOGETHER`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;

use crate::base::clock;
use crate::broker::Broker;
use crate::model::{Offset, PartitionIndex, TopicName};
use crate::redis::client::Client;
use crate::redis::group_offsets;
use crate::redis::link::Link;
use crate::runtime::{sleep, spawn_detached};

/// Pushes that were sent within this time are acknowledged together.
const SEEN_TOGETHER: Duration = Duration::from_millis(50);
/// Time until a commit that failed is tried again.
const COMMIT_RETRY: Duration = Duration::from_millis(500);

/// How a subscription ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::redis) enum Ending {
    /// The client said so: it has what it was sent.
    Said,
    /// Its connection is gone.
    Gone,
}

/// How far the partitions are read.
type Reached = BTreeMap<PartitionIndex, Offset>;

/// What was pushed and not yet stored.
pub(super) struct Acknowledging {
    broker: Rc<Broker>,
    link: Rc<Link>,
    group: String,
    topic: TopicName,
    delay: Duration,
    /// What is still to be sent: where a push ends in the bytes of the connection, and how far it brings a partition;
    /// oldest first.
    pushed: RefCell<VecDeque<(u64, PartitionIndex, Offset)>>,
    /// What was sent, with a time at which all of it had been; oldest first.
    sent: RefCell<VecDeque<(Instant, Reached)>>,
    is_running: Cell<bool>,
}

impl Acknowledging {
    pub(super) fn new(client: &Client, group: String, topic: TopicName) -> Rc<Self> {
        Rc::new(Acknowledging {
            broker: client.broker().clone(),
            link: client.link.clone(),
            group,
            topic,
            delay: client.front.limits.acknowledge_delay,
            pushed: RefCell::default(),
            sent: RefCell::default(),
            is_running: Cell::new(false),
        })
    }

    /// Once the connection has sent the bytes up to `mark`, the partition is sent up to `next_offset`.
    pub(super) fn pushed(self: &Rc<Self>, mark: u64, partition: PartitionIndex, next_offset: Offset) {
        self.note_sent();
        self.pushed.borrow_mut().push_back((mark, partition, next_offset));
        if !self.is_running.replace(true) {
            spawn_detached(self.clone().run());
        }
    }

    async fn run(self: Rc<Self>) {
        while !self.link.is_closed() {
            self.note_sent();
            if let Some(due) = self.next_due() {
                self.rest(due.saturating_duration_since(clock::monotonic())).await;
                if !self.link.is_closed() && !self.commit_due().await {
                    self.rest(COMMIT_RETRY).await;
                }
            } else if let Some(mark) = self.next_mark() {
                self.link.wait_while(|link| link.sent_bytes() < mark).await;
            } else {
                break;
            }
        }
        self.is_running.set(false);
    }

    async fn rest(&self, duration: Duration) {
        future::or(sleep(duration), self.link.wait_while(|_| true)).await;
    }

    fn next_mark(&self) -> Option<u64> {
        self.pushed.borrow().front().map(|(mark, ..)| *mark)
    }

    fn next_due(&self) -> Option<Instant> {
        self.sent.borrow().front().map(|(sent_by, _)| *sent_by + self.delay)
    }

    /// Takes what has reached the socket from `pushed` to `sent`.
    fn note_sent(&self) {
        let sent_bytes = self.link.sent_bytes();
        let now = clock::monotonic();
        let (mut pushed, mut sent) = (self.pushed.borrow_mut(), self.sent.borrow_mut());
        let count = pushed.iter().take_while(|(mark, ..)| *mark <= sent_bytes).count();
        for (_, partition, offset) in pushed.drain(..count) {
            match sent.back_mut().filter(|(sent_by, _)| now <= *sent_by) {
                Some((_, reached)) => drop(reached.insert(partition, offset)),
                None => sent.push_back((now + SEEN_TOGETHER, Reached::from([(partition, offset)]))),
            }
        }
    }

    /// Stores what remains to be stored by the end of the subscription.
    pub(super) async fn finish(&self, ending: Ending) {
        self.note_sent();
        match ending {
            Ending::Said => self.commit_where(|_| true).await,
            Ending::Gone => self.commit_due().await,
        };
    }

    async fn commit_due(&self) -> bool {
        let now = clock::monotonic();
        self.commit_where(|sent_by| sent_by + self.delay <= now).await
    }

    /// Stores the oldest of what was sent, as far as `is_due`; whether that worked.
    async fn commit_where(&self, is_due: impl Fn(Instant) -> bool) -> bool {
        let taken = self.take_where(is_due);
        let Some(&(sent_by, _)) = taken.last() else { return true };
        let due: Reached = taken.into_iter().flat_map(|(_, reached)| reached).collect();
        let offsets: Vec<_> = due.iter().map(|(partition, offset)| (*partition, *offset)).collect();
        let committed = group_offsets::commit(&self.broker, &self.group, &self.topic, &offsets).await;
        if let Err(error) = &committed {
            tracing::warn!(group = self.group, topic = %self.topic, error = error.0, "cannot store an offset");
            self.sent.borrow_mut().push_front((sent_by, due));
        }
        committed.is_ok()
    }

    fn take_where(&self, is_due: impl Fn(Instant) -> bool) -> Vec<(Instant, Reached)> {
        let mut sent = self.sent.borrow_mut();
        let count = sent.iter().take_while(|(sent_by, _)| is_due(*sent_by)).count();
        sent.drain(..count).collect()
    }
}
