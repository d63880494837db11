//! Creating and deleting topics. Shard 0 makes every change; the verbs resolve when every shard knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Broker, BrokerError, TopicImage};
use crate::model::{TopicName, Uuid};

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name, not yet checked.
    pub name: String,
    /// How many partitions; -1 for the default. Must be -1 when `assignment` is given.
    pub partition_count: i32,
    /// Kafka's replication factor; -1 for the default. Only 1 is possible. Must be -1 when `assignment` is given.
    pub replication_factor: i16,
    /// Partition index to replica node ids, if the client chose by hand.
    pub assignment: Vec<(i32, Vec<i32>)>,
    /// Topic-level configs; a null value is an error.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that was made (or would have been, with `validate_only`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// The topic.
    pub topic: Arc<TopicImage>,
}

/// More partitions for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic's name.
    pub name: String,
    /// How many partitions it shall have then.
    pub total_count: i32,
    /// Replica node ids for each new partition, if the client chose by hand.
    pub assignments: Option<Vec<Vec<i32>>>,
}

impl Broker {
    /// Makes topics; one answer for each, in order. With `validate_only` everything is checked and nothing made.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<CreatedTopic, BrokerError>> {
        let _ = (topics, validate_only);
        todo!()
    }

    /// Makes a topic because a client asked for its metadata, where `auto.create.topics.enable` allows it.
    /// Internal topics are made with their own settings.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` where automatic creation is off; `InvalidTopic` for an illegal name.
    pub async fn auto_create_topic(&self, name: &str) -> Result<Arc<TopicImage>, BrokerError> {
        let _ = name;
        todo!()
    }

    /// Deletes topics; one answer for each, in order.
    pub async fn delete_topics(&self, names: Vec<TopicName>) -> Vec<Result<Uuid, BrokerError>> {
        let _ = names;
        todo!()
    }

    /// Adds partitions; one answer for each topic, in order.
    pub async fn create_partitions(
        &self,
        requests: Vec<NewPartitions>,
        validate_only: bool,
    ) -> Vec<Result<(), BrokerError>> {
        let _ = (requests, validate_only);
        todo!()
    }
}
