//! The readers behind subscriptions: each record is read and decoded once for all who stand at the tail.
//!
//! A [`Subscription`] has a position in each partition of its topic. At the tail it is a member of a [`Tail`], which
//! reads the log for all of its members. A subscription that is behind (it replays, or its socket was full) reads the
//! log by itself until it has caught up. Pushes of one subscription are in the order of each partition's log, and a
//! record is pushed once.
//! Bounds: a subscription whose socket has `redis.push.buffer.bytes` to take reads no further until that has left; the
//! log keeps what it has not read.

mod acknowledge;
mod subscription;

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use futures_lite::future;

pub(super) use acknowledge::Ending;
use subscription::Pushes;
pub(super) use subscription::{Form, Kind, Subscription};

use super::entries::{self, Entries, StartOver, Wanted};
use super::error_reply::ErrorReply;
use crate::base::units::KIB;
use crate::broker::{Broker, FetchedPartition};
use crate::model::{Offset, PartitionIndex, TopicName, TopicPartition};
use crate::runtime::local::Event;
use crate::runtime::{FOREVER, sleep, spawn_detached, yield_if_needed};

/// Bytes read of the log at a time; a larger batch comes whole.
const READ_BYTES: usize = 64 * KIB;
/// Members of a tail that are pushed to between two looks at whether to give way; a push is a system call or two.
const PUSHES_PER_LOOK: usize = 8;
/// How long a reader rests after the log could not be read.
const RETRY: Duration = Duration::from_millis(500);

/// What a subscription or a tail reads: a topic, or one partition of it.
type Source = (TopicName, Option<PartitionIndex>);
/// Where a reader stands in each partition.
type Positions = Vec<(PartitionIndex, Offset)>;

/// The subscriptions of one shard and their tails.
pub(super) struct FanOut {
    broker: Rc<Broker>,
    push_buffer_bytes: u64,
    tails: RefCell<AHashMap<Source, Rc<Tail>>>,
    paused: RefCell<Vec<Weak<Subscription>>>,
}

/// The shared reader of a topic's newest records.
struct Tail {
    source: Source,
    positions: RefCell<Positions>,
    members: RefCell<Vec<Rc<Subscription>>>,
    /// A member has left.
    left: Event,
}

impl Tail {
    /// Whether a reader at `positions` misses nothing by going on from here.
    fn covers(&self, positions: &Positions) -> bool {
        let tail = self.positions.borrow();
        tail.len() == positions.len()
            && tail.iter().zip(positions).all(|((mine, at), (other, offset))| mine == other && offset >= at)
    }
}

impl FanOut {
    pub(super) fn new(broker: Rc<Broker>, push_buffer_bytes: u64) -> Rc<Self> {
        Rc::new(FanOut { broker, push_buffer_bytes, tails: RefCell::default(), paused: RefCell::default() })
    }

    /// Pushes to the subscription from now on, until it ends.
    pub(super) fn start(self: &Rc<Self>, subscription: &Rc<Subscription>) {
        spawn_detached(self.clone().serve(subscription.clone()));
    }

    /// Notes how far paused subscriptions are behind.
    pub(super) async fn refresh_lags(&self) {
        self.paused.borrow_mut().retain(|subscription| subscription.strong_count() > 0);
        let paused: Vec<_> = self.paused.borrow().iter().filter_map(Weak::upgrade).collect();
        for subscription in paused {
            subscription.refresh_lag().await;
        }
    }

    async fn serve(self: Rc<Self>, subscription: Rc<Subscription>) {
        let mut has_caught_up = false;
        while !subscription.is_ended() && !self.broker.is_stopping() {
            if !subscription.fit_to_topic().await {
                continue;
            }
            self.wait_for_room(&subscription).await;
            if self.attach(&subscription, has_caught_up) {
                subscription.wait_while_attached().await;
                has_caught_up = false;
                if subscription.is_ended()
                    && let Some(tail) = self.tails.borrow().get(&subscription.source())
                {
                    tail.left.notify();
                }
                continue;
            }
            match self.read_ahead(&subscription).await {
                Ok(found_any) => has_caught_up = !found_any,
                Err(error) => {
                    tracing::warn!(channel = %subscription.topic(), error = error.0, "a subscription cannot read");
                    future::or(sleep(RETRY), subscription.ended()).await;
                }
            }
            yield_if_needed().await;
        }
    }

    /// Waits until the subscriber's socket has taken enough of what was pushed.
    async fn wait_for_room(&self, subscription: &Rc<Subscription>) {
        if subscription.unsent_bytes() < self.push_buffer_bytes {
            return;
        }
        self.paused.borrow_mut().push(Rc::downgrade(subscription));
        subscription.pause(self.push_buffer_bytes / 2).await;
        self.paused.borrow_mut().retain(|other| !std::ptr::eq(other.as_ptr(), Rc::as_ptr(subscription)));
    }

    /// Makes the subscription a member of its topic's tail, if that covers it. There is none yet: whoever has caught up
    /// begins it.
    fn attach(self: &Rc<Self>, subscription: &Rc<Subscription>, has_caught_up: bool) -> bool {
        if subscription.unsent_bytes() >= self.push_buffer_bytes {
            return false;
        }
        let source = subscription.source();
        let known = self.tails.borrow().get(&source).cloned();
        match known {
            Some(tail) if tail.covers(&subscription.positions()) => {
                subscription.attach();
                tail.members.borrow_mut().push(subscription.clone());
            }
            None if has_caught_up => {
                subscription.attach();
                let tail = Rc::new(Tail {
                    source: source.clone(),
                    positions: RefCell::new(subscription.positions()),
                    members: RefCell::new(vec![subscription.clone()]),
                    left: Event::new(),
                });
                self.tails.borrow_mut().insert(source, tail.clone());
                spawn_detached(self.clone().read_tail(tail));
            }
            _ => return false,
        }
        true
    }

    /// Reads what is there for a subscription that is behind; whether there was something.
    async fn read_ahead(&self, subscription: &Rc<Subscription>) -> Result<bool, ErrorReply> {
        let topic = subscription.topic();
        let mut found_any = false;
        for (partition, offset) in subscription.positions() {
            if subscription.unsent_bytes() >= self.push_buffer_bytes {
                return Ok(true);
            }
            let place = TopicPartition::new(topic.clone(), partition);
            let part = entries::fetch_of(&place, offset, READ_BYTES);
            let fetched = self.broker.fetch(entries::fetch_request(vec![part])).await.pop();
            let Some(fetched) = fetched else { continue };
            let offset = match entries::start_over(&fetched, offset)? {
                StartOver::No => offset,
                StartOver::At(start) => {
                    subscription.set_position(partition, start);
                    found_any = true;
                    continue;
                }
                // The log is shorter than it was: a topic of that name was made anew.
                StartOver::Behind(_) => {
                    subscription.set_position(partition, 0);
                    found_any = true;
                    continue;
                }
            };
            if fetched.size_bytes == 0 {
                continue;
            }
            let read = decode(fetched, offset).await?;
            found_any |= read.next_offset > offset;
            if !subscription.is_ended() {
                subscription.push(partition, offset, &read, &mut Pushes::default());
            }
        }
        Ok(found_any)
    }

    /// Reads the newest records of one topic for all who stand at its end, as long as there is anybody.
    async fn read_tail(self: Rc<Self>, tail: Rc<Tail>) {
        let place = |partition| TopicPartition::new(tail.source.0.clone(), partition);
        let places: Vec<_> = tail.positions.borrow().iter().map(|(partition, _)| place(*partition)).collect();
        loop {
            let left = tail.left.wait();
            tail.members.borrow_mut().retain(|member| member.is_attached());
            if tail.members.borrow().is_empty() {
                break;
            }
            let positions = tail.positions.borrow().clone();
            let stands_at = || places.iter().zip(positions.iter().map(|(_, offset)| *offset));
            let fetching = async {
                // At the tail there is mostly nothing to read, so it begins by waiting.
                self.broker.wait_for_records(stands_at(), entries::ISOLATION, FOREVER).await;
                let parts = stands_at().map(|(place, offset)| entries::fetch_of(place, offset, READ_BYTES));
                Some(self.broker.fetch(entries::fetch_request(parts.collect())).await)
            };
            let changed = async {
                future::or(left, self.broker.image_changed()).await;
                None
            };
            let Some(fetched) = future::or(fetching, changed).await else {
                if self.has_changed(&tail) {
                    break;
                }
                continue;
            };
            if fetched.iter().any(|part| part.error.is_some()) || self.broker.is_stopping() {
                break;
            }
            let mut is_readable = true;
            for ((partition, offset), part) in positions.iter().zip(fetched) {
                is_readable &= self.pass_on(&tail, *partition, *offset, part).await;
            }
            if !is_readable {
                break;
            }
            yield_if_needed().await;
        }
        // Whoever is still here goes on alone, and finds out what is wrong.
        self.tails.borrow_mut().remove(&tail.source);
        for member in tail.members.take() {
            member.detach();
        }
    }

    /// Whether the topic has gone or grown.
    fn has_changed(&self, tail: &Tail) -> bool {
        let image = self.broker.image();
        let count = image.topic(&tail.source.0).map_or(0, |topic| topic.partitions.len());
        tail.source.1.is_none() && count != tail.positions.borrow().len() || count == 0
    }

    /// Pushes what was read of one partition to every member; a member whose socket is full leaves.
    async fn pass_on(
        &self,
        tail: &Rc<Tail>,
        partition: PartitionIndex,
        offset: Offset,
        fetched: FetchedPartition,
    ) -> bool {
        if fetched.size_bytes == 0 {
            return true;
        }
        let read = match decode(fetched, offset).await {
            Ok(read) => read,
            Err(_) => return false, // said by whoever decoded; members skip nothing: they go on alone and say so too
        };
        // From here on whoever attaches must be behind these records, so members are those of now.
        for (of, at) in tail.positions.borrow_mut().iter_mut() {
            if *of == partition {
                *at = read.next_offset;
            }
        }
        let members = tail.members.borrow().clone();
        let mut pushes = Pushes::default();
        for some in members.chunks(PUSHES_PER_LOOK) {
            for member in some.iter().filter(|member| member.is_attached()) {
                if member.unsent_bytes() < self.push_buffer_bytes {
                    member.push(partition, offset, &read, &mut pushes);
                } else {
                    member.detach();
                    tail.left.notify();
                }
            }
            yield_if_needed().await;
        }
        true
    }
}

async fn decode(fetched: FetchedPartition, offset: Offset) -> Result<Entries, ErrorReply> {
    let wanted = Wanted { from: offset, last: Offset::MAX, count: usize::MAX, max_bytes: usize::MAX };
    let found = Entries { next_offset: offset, ..Entries::default() };
    entries::decode(fetched, wanted, found, entries::encode_payload).await
}
