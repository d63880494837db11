//! One subscription to one topic: where it stands, and the form of its pushes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use bytes::Bytes;

use super::acknowledge::{Acknowledging, Ending};
use super::{Positions, Source};
use crate::broker::{Broker, OffsetSpec};
use crate::model::{Offset, PartitionIndex, TopicName, TopicPartition, Uuid};
use crate::redis::client::Client;
use crate::redis::client_table::ClientEntry;
use crate::redis::entries::Entries;
use crate::redis::entry_id::list_offset;
use crate::redis::link::Link;
use crate::redis::resp::{Encoder, Protocol};
use crate::runtime::local::Event;

/// How a client has subscribed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::redis) enum Kind {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    ShardChannel,
}

/// What stands before the payload in each push of a subscription. Subscriptions with the same form share their pushes.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::redis) struct Form {
    prefix: Vec<u8>,
}

impl Form {
    /// `name` is the channel or pattern as the client wrote it.
    pub(in crate::redis) fn new(kind: Kind, name: &[u8], topic: &TopicName, protocol: Protocol) -> Self {
        let mut out = Encoder::new(protocol);
        match kind {
            Kind::Channel => {
                out.push(3);
                out.bulk(b"message");
                out.bulk(name);
            }
            Kind::ShardChannel => {
                out.push(3);
                out.bulk(b"smessage");
                out.bulk(name);
            }
            Kind::Pattern => {
                out.push(4);
                out.bulk(b"pmessage");
                out.bulk(name);
                out.bulk(topic.as_bytes());
            }
        }
        Form { prefix: std::mem::take(out.as_mut_vec()) }
    }

    fn pushes(&self, read: &Entries, from: Offset) -> Bytes {
        let mut out = Vec::with_capacity(read.bytes.len() + read.len() * self.prefix.len());
        for (_, payload) in read.iter().filter(|(offset, _)| *offset >= from) {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(payload);
        }
        out.into()
    }
}

/// What was made of some entries so far, by form.
#[derive(Default)]
pub(super) struct Pushes {
    /// Most subscriptions to a topic have the same form.
    last: Option<(Rc<Form>, Bytes)>,
    others: AHashMap<Rc<Form>, Bytes>,
}

impl Pushes {
    fn of(&mut self, form: &Rc<Form>, read: &Entries, from: Offset) -> Bytes {
        if let Some((last, pushes)) = &self.last
            && last == form
        {
            return pushes.clone();
        }
        let pushes = self.others.get(form).cloned().unwrap_or_else(|| form.pushes(read, from));
        self.others.extend(self.last.replace((form.clone(), pushes.clone())));
        pushes
    }
}

/// A subscription of one client to one topic.
pub(in crate::redis) struct Subscription {
    link: Rc<Link>,
    entry: Arc<ClientEntry>,
    broker: Rc<Broker>,
    form: Rc<Form>,
    topic: TopicName,
    topic_id: Cell<Option<Uuid>>,
    /// One partition only, if the client named one.
    partition: Option<PartitionIndex>,
    positions: RefCell<Positions>,
    /// For a durable subscription: what stores how far it has come.
    acknowledging: Option<Rc<Acknowledging>>,
    is_attached: Cell<bool>,
    is_ended: Cell<bool>,
    changed: Event,
}

impl Subscription {
    /// A subscription that begins at `positions`; with a `group` it stores there how far it has come.
    pub(in crate::redis) fn new(
        client: &Rc<Client>,
        form: Form,
        topic: TopicName,
        partition: Option<PartitionIndex>,
        positions: Positions,
        group: Option<String>,
    ) -> Rc<Self> {
        let broker = client.broker().clone();
        let topic_id = broker.image().topic(&topic).map(|topic| topic.id);
        let acknowledging = group.map(|group| Acknowledging::new(client, group, topic.clone()));
        Rc::new(Subscription {
            link: client.link.clone(),
            entry: client.membership.entry.clone(),
            broker,
            form: Rc::new(form),
            topic,
            topic_id: Cell::new(topic_id),
            partition,
            positions: RefCell::new(positions),
            acknowledging,
            is_attached: Cell::new(false),
            is_ended: Cell::new(false),
            changed: Event::new(),
        })
    }

    pub(in crate::redis) fn topic(&self) -> &TopicName {
        &self.topic
    }

    pub(super) fn source(&self) -> Source {
        (self.topic.clone(), self.partition)
    }

    pub(super) fn positions(&self) -> Positions {
        self.positions.borrow().clone()
    }

    pub(super) fn set_position(&self, partition: PartitionIndex, offset: Offset) {
        for (of, at) in self.positions.borrow_mut().iter_mut() {
            if *of == partition {
                *at = offset;
            }
        }
    }

    pub(super) fn unsent_bytes(&self) -> u64 {
        self.link.unsent_bytes()
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.get() || self.link.is_closed()
    }

    pub(super) fn is_attached(&self) -> bool {
        self.is_attached.get() && !self.is_ended()
    }

    pub(super) fn attach(&self) {
        self.is_attached.set(true);
    }

    pub(super) fn detach(&self) {
        self.is_attached.set(false);
        self.changed.notify();
    }

    /// No further push.
    pub(in crate::redis) fn end(&self) {
        self.is_ended.set(true);
        self.changed.notify();
    }

    /// Stores how far a durable subscription that has ended has come.
    pub(in crate::redis) async fn finish(&self, ending: Ending) {
        if let Some(acknowledging) = &self.acknowledging {
            acknowledging.finish(ending).await;
        }
    }

    pub(super) async fn ended(&self) {
        while !self.is_ended() {
            self.changed.wait().await;
        }
    }

    pub(super) async fn wait_while_attached(&self) {
        while self.is_attached() {
            self.changed.wait().await;
        }
    }

    /// Pushes the entries of `read`, which begin at `from`, as far as they are new to this subscription. Pushes of the
    /// same form are made once.
    pub(super) fn push(&self, partition: PartitionIndex, from: Offset, read: &Entries, made: &mut Pushes) {
        let position = self.positions.borrow().iter().find(|(of, _)| *of == partition).map(|(_, at)| *at);
        let Some(position) = position.filter(|position| *position < read.next_offset) else { return };
        self.set_position(partition, read.next_offset);
        if read.is_empty() {
            return;
        }
        let bytes =
            if position <= from { made.of(&self.form, read, from) } else { self.form.pushes(read, position) };
        let mark = self.link.queue(bytes);
        self.link.flush_soon();
        if let Some(acknowledging) = &self.acknowledging {
            acknowledging.pushed(mark, partition, read.next_offset);
        }
    }

    /// Waits until the socket has taken what was pushed, up to `room_bytes`; counted as paused meanwhile.
    pub(super) async fn pause(&self, room_bytes: u64) {
        self.entry.paused.fetch_add(1, Ordering::Relaxed);
        self.refresh_lag().await;
        self.link.wait_while(|link| link.unsent_bytes() > room_bytes && !self.is_ended.get()).await;
        self.entry.paused.fetch_sub(1, Ordering::Relaxed);
        self.entry.lag.store(0, Ordering::Relaxed);
    }

    /// Notes how many records lie between this subscription and the end.
    pub(super) async fn refresh_lag(&self) {
        let mut lag = 0;
        for (partition, offset) in self.positions() {
            let place = TopicPartition::new(self.topic.clone(), partition);
            if let Ok((end, _)) = list_offset(&self.broker, &place, OffsetSpec::Latest).await {
                lag += (end - offset).max(0);
            }
        }
        self.entry.lag.store(lag, Ordering::Relaxed);
    }

    /// Takes in partitions that the topic has got since; waits for a topic that is gone to be made again (then from its
    /// first record on). Whether the topic is there.
    pub(super) async fn fit_to_topic(&self) -> bool {
        let changed = self.broker.image_changed();
        let image = self.broker.image();
        let Some(topic) = image.topic(&self.topic) else {
            self.topic_id.set(None);
            drop(image);
            futures_lite::future::or(changed, self.ended()).await;
            return false;
        };
        let mut positions = self.positions.borrow_mut();
        if self.topic_id.replace(Some(topic.id)) != Some(topic.id) {
            positions.iter_mut().for_each(|(_, offset)| *offset = 0);
        }
        if self.partition.is_none() {
            let known = positions.len();
            let new = (0..).take(topic.partitions.len()).skip(known).map(|partition| (partition, 0));
            positions.extend(new);
            positions.truncate(topic.partitions.len());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::entries::EntryEnd;

    #[test]
    fn pushes_are_made_once_for_each_form_in_whatever_order_subscribers_come() {
        let topic = TopicName::new("news").unwrap();
        let kinds = [(Kind::Channel, "news"), (Kind::Pattern, "n*"), (Kind::ShardChannel, "news")];
        // A form of its own for each subscriber, as with clients.
        let form =
            |(kind, name): (Kind, &str)| Rc::new(Form::new(kind, name.as_bytes(), &topic, Protocol::Resp2));
        let payload = b"$2\r\nhi\r\n".to_vec();
        let ends = vec![EntryEnd { offset: 7, timestamp_ms: 0, end: payload.len() }];
        let read = Entries { bytes: payload, ends, next_offset: 8, is_full: false };
        let mut pushes = Pushes::default();
        let made = kinds.map(|kind| pushes.of(&form(kind), &read, 7));
        assert_eq!(&made[1][..], b"*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
        for index in [0, 0, 2, 1, 1, 0, 2] {
            let again = pushes.of(&form(kinds[index]), &read, 7);
            assert_eq!(again.as_ptr(), made[index].as_ptr(), "form {index}");
        }
    }
}
