//! Subscribers of channels, counted over all shards.

use super::{Broker, Listening};
use crate::model::TopicName;

impl Broker {
    /// Counts a subscriber in (`comes`) or out; resolves when publishers on every shard count it so.
    pub async fn count_subscriber(&self, listening: Listening, comes: bool) {
        self.shard.count_subscriber(listening, comes).await;
    }

    /// All that is listened to, with the number of subscribers.
    pub fn subscribers(&self) -> Vec<(Listening, usize)> {
        self.shard.subscribers()
    }

    /// How many subscribers hear of a record that is appended to `topic`, each pattern counted for itself.
    pub fn subscribers_of(&self, topic: &TopicName) -> usize {
        self.shard.subscribers_of(topic)
    }
}
