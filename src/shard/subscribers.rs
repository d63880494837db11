//! How many subscribers each channel has, on all shards: every shard keeps the counts of all.
//!
//! A shard that gains or loses a subscriber tells the others its new count, so that whoever publishes counts the
//! receivers without asking anybody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Shard, ShardReply, ShardRequest};
use crate::base::glob;
use crate::model::{ShardId, TopicName};

/// What a subscriber listens to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Listening {
    /// One topic.
    Channel(TopicName),
    /// One topic, as a shard channel.
    ShardChannel(TopicName),
    /// Every topic whose name matches.
    Pattern(String),
}

/// The counts, by what is listened to and by shard.
#[derive(Default)]
pub(super) struct Subscribers(RefCell<BTreeMap<Listening, Vec<u32>>>);

impl Subscribers {
    pub(super) fn set(&self, listening: Listening, shard: ShardId, count: u32) {
        let mut all = self.0.borrow_mut();
        let counts = all.entry(listening.clone()).or_default();
        if counts.len() <= shard {
            counts.resize(shard + 1, 0);
        }
        counts[shard] = count;
        if counts.iter().all(|count| *count == 0) {
            all.remove(&listening);
        }
    }

    fn of_shard(&self, listening: &Listening, shard: ShardId) -> u32 {
        self.0.borrow().get(listening).and_then(|counts| counts.get(shard)).copied().unwrap_or(0)
    }
}

impl Shard {
    /// Counts a subscriber of this shard in or out; resolves when every shard knows.
    pub async fn count_subscriber(self: &Rc<Self>, listening: Listening, comes: bool) {
        let before = self.subscribers.of_shard(&listening, self.id);
        let count = if comes { before + 1 } else { before.saturating_sub(1) };
        self.subscribers.set(listening.clone(), self.id, count);
        for shard in (0..self.shards).filter(|shard| *shard != self.id) {
            let request =
                ShardRequest::CountSubscribers { listening: listening.clone(), shard: self.id, count };
            // A shard that has stopped counts nobody.
            let ShardReply::Done = self.call(shard, request).await else { continue };
        }
    }

    /// All that is listened to, with the number of subscribers.
    pub fn subscribers(&self) -> Vec<(Listening, usize)> {
        let total = |counts: &Vec<u32>| counts.iter().map(|count| *count as usize).sum();
        self.subscribers
            .0
            .borrow()
            .iter()
            .map(|(listening, counts)| (listening.clone(), total(counts)))
            .collect()
    }

    /// How many subscribers hear of a record that is appended to `topic`, each pattern counted for itself.
    pub fn subscribers_of(&self, topic: &TopicName) -> usize {
        let all = self.subscribers.0.borrow();
        if all.is_empty() {
            return 0;
        }
        let hears = |listening: &Listening| match listening {
            Listening::Channel(name) | Listening::ShardChannel(name) => name == topic,
            Listening::Pattern(pattern) => glob::matches(pattern.as_bytes(), topic.as_bytes()),
        };
        let first = all.range(Listening::Pattern(String::new())..);
        let exact = [Listening::Channel(topic.clone()), Listening::ShardChannel(topic.clone())];
        let exact = exact.iter().filter_map(|listening| all.get_key_value(listening));
        first
            .chain(exact)
            .filter(|(listening, _)| hears(listening))
            .flat_map(|(_, counts)| counts)
            .map(|c| *c as usize)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::{Listening, Subscribers};
    use crate::model::TopicName;

    #[test]
    fn counts_are_kept_by_shard_and_forgotten_at_zero() {
        let subscribers = Subscribers::default();
        let channel = Listening::Channel(TopicName::new("orders").unwrap());
        subscribers.set(channel.clone(), 1, 3);
        subscribers.set(channel.clone(), 0, 2);
        assert_eq!((subscribers.of_shard(&channel, 0), subscribers.of_shard(&channel, 1)), (2, 3));
        subscribers.set(channel.clone(), 1, 0);
        subscribers.set(channel.clone(), 0, 0);
        assert!(subscribers.0.borrow().is_empty());
    }
}
