//! Implicit acknowledgement: a durable subscription's offset is stored once its pushes have reached the socket.
//!
//! At most one commit is under way for a subscription, and the next one waits a little, so that a fast stream of pushes
//! costs few of them. A commit that fails is tried again with the next one.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use crate::broker::Broker;
use crate::model::{Offset, PartitionIndex, TopicName};
use crate::redis::group_offsets;
use crate::redis::link::Link;
use crate::runtime::{sleep, spawn_detached};

/// Time between two commits of one subscription.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);
/// Time until a commit that failed is tried again.
const COMMIT_RETRY: Duration = Duration::from_millis(500);

/// What was pushed and not yet stored.
pub(super) struct Acknowledging {
    broker: Rc<Broker>,
    link: Rc<Link>,
    group: String,
    topic: TopicName,
    /// Where each push ends in the bytes of the connection, and how far it brings a partition; oldest first.
    pushed: RefCell<VecDeque<(u64, PartitionIndex, Offset)>>,
    is_running: Cell<bool>,
}

impl Acknowledging {
    pub(super) fn new(broker: Rc<Broker>, link: Rc<Link>, group: String, topic: TopicName) -> Rc<Self> {
        Rc::new(Acknowledging {
            broker,
            link,
            group,
            topic,
            pushed: RefCell::default(),
            is_running: Cell::new(false),
        })
    }

    /// Once the connection has sent the bytes up to `mark`, the partition is read up to `next_offset`.
    pub(super) fn pushed(self: &Rc<Self>, mark: u64, partition: PartitionIndex, next_offset: Offset) {
        self.pushed.borrow_mut().push_back((mark, partition, next_offset));
        if !self.is_running.replace(true) {
            spawn_detached(self.clone().run());
        }
    }

    async fn run(self: Rc<Self>) {
        let first = || self.pushed.borrow().front().copied();
        while let Some((mark, ..)) = first() {
            self.link.wait_while(|link| link.sent_bytes() < mark).await;
            if self.link.is_closed() {
                break; // `finish` does the rest
            }
            let rest = if self.commit_sent().await { COMMIT_INTERVAL } else { COMMIT_RETRY };
            sleep(rest).await;
        }
        self.is_running.set(false);
    }

    /// Stores what has reached the socket by the end of the subscription.
    pub(super) async fn finish(&self) {
        self.commit_sent().await;
    }

    async fn commit_sent(&self) -> bool {
        let sent_bytes = self.link.sent_bytes();
        let mut reached: BTreeMap<PartitionIndex, Offset> = BTreeMap::new();
        let mut last_mark = 0;
        for (mark, partition, offset) in
            self.pushed.borrow().iter().take_while(|(mark, ..)| *mark <= sent_bytes)
        {
            reached.insert(*partition, *offset);
            last_mark = *mark;
        }
        if reached.is_empty() {
            return true;
        }
        let offsets: Vec<_> = reached.into_iter().collect();
        match group_offsets::commit(&self.broker, &self.group, &self.topic, &offsets).await {
            Ok(()) => {
                self.pushed.borrow_mut().retain(|(mark, ..)| *mark > last_mark);
                true
            }
            Err(error) => {
                tracing::warn!(group = self.group, topic = %self.topic, error = error.0, "cannot store an offset");
                false
            }
        }
    }
}
