//! What one client is subscribed to.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use super::client::Client;
use super::fan_out::{Ending, Form, Kind, Subscription};
use crate::base::glob;
use crate::broker::Listening;
use crate::model::{TopicName, Uuid};
use crate::runtime::spawn_detached;

/// What a client has written.
type Name = (Kind, Vec<u8>);

/// The subscriptions of one client, by kind and name.
#[derive(Default)]
pub(super) struct Subscriptions {
    named: RefCell<BTreeMap<Name, Rc<Named>>>,
    has_unstarted: Cell<bool>,
}

/// One channel or pattern that a client has subscribed to.
pub(super) struct Named {
    listening: Listening,
    /// The readers: one, or for a pattern one for each topic.
    readers: RefCell<Vec<Rc<Subscription>>>,
    is_started: Cell<bool>,
    is_ended: Cell<bool>,
    /// For a pattern: the topics that it reads or has read.
    known_topics: RefCell<BTreeSet<Uuid>>,
}

impl Named {
    pub(super) fn channel(listening: Listening, reader: Rc<Subscription>) -> Self {
        Named {
            listening,
            readers: RefCell::new(vec![reader]),
            is_started: Cell::new(false),
            is_ended: Cell::new(false),
            known_topics: RefCell::default(),
        }
    }

    /// A pattern with readers for the topics that are there now.
    pub(super) fn pattern(
        pattern: String,
        readers: Vec<Rc<Subscription>>,
        known_topics: BTreeSet<Uuid>,
    ) -> Self {
        Named {
            listening: Listening::Pattern(pattern),
            readers: RefCell::new(readers),
            is_started: Cell::new(false),
            is_ended: Cell::new(false),
            known_topics: RefCell::new(known_topics),
        }
    }

    fn end(&self) {
        self.is_ended.set(true);
        for reader in self.readers.borrow().iter() {
            reader.end();
        }
    }
}

impl Subscriptions {
    pub(super) fn count(&self) -> usize {
        self.named.borrow().len()
    }

    /// Subscriptions of a kind, or as Redis counts them in confirmations: channels and patterns together.
    pub(super) fn count_of(&self, kind: Kind) -> usize {
        let counts_together = |other: Kind| (kind == Kind::ShardChannel) == (other == Kind::ShardChannel);
        self.named.borrow().keys().filter(|(other, _)| counts_together(*other)).count()
    }

    pub(super) fn has(&self, kind: Kind, name: &[u8]) -> bool {
        self.named.borrow().contains_key(&(kind, name.to_vec()))
    }

    /// The names subscribed to.
    pub(super) fn names(&self, kind: Kind) -> Vec<Vec<u8>> {
        let names = self.named.borrow();
        names.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
    }

    pub(super) fn has_unstarted(&self) -> bool {
        self.has_unstarted.get()
    }

    /// Adds a subscription, which [`Subscriptions::start`] is to start. Resolves when publishers count it.
    pub(super) async fn add(&self, client: &Client, kind: Kind, name: Vec<u8>, named: Named) {
        let listening = named.listening.clone();
        self.named.borrow_mut().insert((kind, name), Rc::new(named));
        self.has_unstarted.set(true);
        self.note_counts(client);
        client.broker().count_subscriber(listening, true).await;
    }

    /// Takes a subscription away; whether there was one.
    pub(super) async fn remove(&self, client: &Client, kind: Kind, name: &[u8]) -> bool {
        let removed = self.named.borrow_mut().remove(&(kind, name.to_vec()));
        let Some(named) = removed else { return false };
        named.end();
        self.note_counts(client);
        client.broker().count_subscriber(named.listening.clone(), false).await;
        for reader in named.readers.take() {
            reader.finish(Ending::Said).await;
        }
        true
    }

    /// Starts what was added.
    pub(super) fn start(&self, client: &Rc<Client>) {
        self.has_unstarted.set(false);
        for ((_, name), named) in self.named.borrow().iter() {
            if named.is_started.replace(true) {
                continue;
            }
            for reader in named.readers.borrow().iter() {
                client.front.fan_out.start(reader);
            }
            if let Listening::Pattern(_) = &named.listening {
                spawn_detached(follow_topics(client.clone(), named.clone(), name.clone()));
            }
        }
    }

    /// Ends all, and stores how far the durable ones have come.
    pub(super) async fn end_all(&self, client: &Client, ending: Ending) {
        let all = std::mem::take(&mut *self.named.borrow_mut());
        for named in all.values() {
            named.end();
        }
        self.note_counts(client);
        for named in all.into_values() {
            client.broker().count_subscriber(named.listening.clone(), false).await;
            for reader in named.readers.take() {
                reader.finish(ending).await;
            }
        }
    }

    fn note_counts(&self, client: &Client) {
        for (place, kind) in [Kind::Channel, Kind::Pattern, Kind::ShardChannel].into_iter().enumerate() {
            let count = self.named.borrow().keys().filter(|(other, _)| *other == kind).count();
            client.membership.entry.subscriptions[place].store(count as u64, Ordering::Relaxed);
        }
    }
}

/// Subscribes a pattern to the topics that come up later, from their first record on.
async fn follow_topics(client: Rc<Client>, named: Rc<Named>, pattern: Vec<u8>) {
    while !named.is_ended.get() {
        let changed = client.broker().image_changed();
        for (topic, partitions) in unknown_topics(&client, &named, &pattern) {
            let form = Form::new(Kind::Pattern, &pattern, &topic, client.protocol());
            let positions = (0..partitions).map(|partition| (partition, 0)).collect();
            let reader = Subscription::new(&client, form, topic, None, positions, None);
            named.readers.borrow_mut().push(reader.clone());
            client.front.fan_out.start(&reader);
        }
        futures_lite::future::or(changed, client.link.wait_while(|_| !named.is_ended.get())).await;
        if client.link.is_closed() {
            return;
        }
    }
}

fn unknown_topics(client: &Client, named: &Named, pattern: &[u8]) -> Vec<(TopicName, i32)> {
    let image = client.broker().image();
    let mut known = named.known_topics.borrow_mut();
    let matching = image
        .topics()
        .filter(|topic| !topic.name.is_internal() && glob::matches(pattern, topic.name.as_bytes()));
    matching
        .filter(|topic| known.insert(topic.id))
        .map(|topic| (topic.name.clone(), i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)))
        .collect()
}
