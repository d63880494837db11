//! Creating and deleting topics. Shard 0 makes every change; the verbs resolve when every shard knows it.

use std::sync::Arc;

use super::{Broker, BrokerError, NewPartitions, NewTopic, TopicImage};
use crate::model::{CONSUMER_OFFSETS_TOPIC, TopicName, Uuid};
use crate::shard::{ControllerError, ControllerReply, ControllerRequest, ShardReply, ShardRequest};

/// Topics beyond twice those that there are whose names are kept though they may be gone.
const READY_TOPICS_SPARE: usize = 1_000;

/// A topic that was made (or would have been, with `validate_only`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// The topic.
    pub topic: Arc<TopicImage>,
}

impl Broker {
    /// Makes topics; one answer for each, in order. With `validate_only` everything is checked and nothing made.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<CreatedTopic, BrokerError>> {
        let count = topics.len();
        match self.control(ControllerRequest::CreateTopics { topics, validate_only }).await {
            Some(ControllerReply::Created(answers)) => answers
                .into_iter()
                .map(|answer| answer.map(|topic| CreatedTopic { topic }).map_err(BrokerError::from))
                .collect(),
            _ => unavailable(count),
        }
    }

    /// The topic of that name, once all of its partitions are served. An image is in force on this shard before every
    /// owner has opened what is new in it; who must not be told "unknown" for a topic that is there waits here.
    pub async fn ready_topic(&self, name: &str) -> Option<Arc<TopicImage>> {
        let topic = self.image().topic(name)?.clone();
        if !self.is_ready(&topic) {
            // Changes go one at a time: when this one, which is none, has had its turn, the one before is over.
            self.create_topics(Vec::new(), true).await;
            self.note_ready(&topic);
        }
        Some(topic)
    }

    /// Whether [`Broker::ready_topic`] would answer at once.
    pub fn is_ready(&self, topic: &TopicImage) -> bool {
        self.ready_topics.borrow().get(&topic.id).is_some_and(|count| *count >= topic.partitions.len())
    }

    fn note_ready(&self, topic: &TopicImage) {
        let mut ready = self.ready_topics.borrow_mut();
        if ready.len() > 2 * self.image().topic_count() + READY_TOPICS_SPARE {
            let image = self.image();
            ready.retain(|id, _| image.topic_by_id(*id).is_some());
        }
        ready.insert(topic.id, topic.partitions.len());
    }

    /// Makes a topic because a client asked for its metadata, where `auto.create.topics.enable` allows it.
    /// The offsets topic is made with its own settings.
    ///
    /// # Errors
    /// `UnknownTopicOrPartition` where automatic creation is off; `InvalidTopic` for an illegal name.
    pub async fn auto_create_topic(&self, name: &str) -> Result<Arc<TopicImage>, BrokerError> {
        let legal = TopicName::new(name).map_err(|illegal| BrokerError::InvalidTopic(illegal.to_string()))?;
        let config = self.config();
        let is_offsets = name == CONSUMER_OFFSETS_TOPIC;
        if (legal.is_internal() && !is_offsets) || !config.auto_create_topics_enable {
            return Err(BrokerError::UnknownTopicOrPartition);
        }
        self.ensure_topic(name, if is_offsets { config.offsets_topic_num_partitions } else { -1 }).await
    }

    /// A topic that the server keeps its own state in, made on first use.
    pub(super) async fn internal_topic(
        &self,
        name: &str,
        partition_count: i32,
    ) -> Result<Arc<TopicImage>, BrokerError> {
        if let Some(topic) = self.image().topic(name) {
            return Ok(topic.clone());
        }
        self.ensure_topic(name, partition_count).await
    }

    /// The topic, made if it is missing.
    async fn ensure_topic(&self, name: &str, partition_count: i32) -> Result<Arc<TopicImage>, BrokerError> {
        let topic = NewTopic {
            name: name.to_owned(),
            partition_count,
            replication_factor: -1,
            assignment: Vec::new(),
            configs: Vec::new(),
        };
        let made = self.create_topics(vec![topic], false).await.pop();
        match made.unwrap_or(Err(BrokerError::ShardUnavailable)) {
            Ok(created) => {
                self.note_ready(&created.topic);
                Ok(created.topic)
            }
            Err(BrokerError::TopicAlreadyExists(_)) => {
                self.ready_topic(name).await.ok_or(BrokerError::UnknownTopicOrPartition)
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes topics; one answer for each, in order.
    pub async fn delete_topics(&self, names: Vec<TopicName>) -> Vec<Result<Uuid, BrokerError>> {
        let count = names.len();
        match self.control(ControllerRequest::DeleteTopics(names)).await {
            Some(ControllerReply::Deleted(answers)) => {
                answers.into_iter().map(|answer| answer.map_err(BrokerError::from)).collect()
            }
            _ => unavailable(count),
        }
    }

    /// Adds partitions; one answer for each topic, in order.
    pub async fn create_partitions(
        &self,
        requests: Vec<NewPartitions>,
        validate_only: bool,
    ) -> Vec<Result<(), BrokerError>> {
        let count = requests.len();
        match self.control(ControllerRequest::CreatePartitions { topics: requests, validate_only }).await {
            Some(ControllerReply::Changed(answers)) => {
                answers.into_iter().map(|answer| answer.map_err(BrokerError::from)).collect()
            }
            _ => unavailable(count),
        }
    }

    /// Asks shard 0 for a change.
    pub(super) async fn control(&self, request: ControllerRequest) -> Option<ControllerReply> {
        match self.shard.call(0, ShardRequest::Control(request)).await {
            ShardReply::Controlled(reply) => Some(reply),
            _ => None,
        }
    }
}

fn unavailable<T>(count: usize) -> Vec<Result<T, BrokerError>> {
    (0..count).map(|_| Err(BrokerError::ShardUnavailable)).collect()
}

impl From<ControllerError> for BrokerError {
    fn from(error: ControllerError) -> Self {
        match error {
            ControllerError::UnknownTopic => BrokerError::UnknownTopicOrPartition,
            ControllerError::InvalidTopic(text) => BrokerError::InvalidTopic(text),
            ControllerError::TopicExists(text) => BrokerError::TopicAlreadyExists(text),
            ControllerError::InvalidPartitions(text) => BrokerError::InvalidPartitions(text),
            ControllerError::InvalidReplicationFactor(text) => BrokerError::InvalidReplicationFactor(text),
            ControllerError::InvalidAssignment(text) => BrokerError::InvalidReplicaAssignment(text),
            ControllerError::InvalidConfig(text) => BrokerError::InvalidConfig(text),
            ControllerError::InvalidRequest(text) => BrokerError::InvalidRequest(text),
            ControllerError::PolicyViolation(text) => BrokerError::PolicyViolation(text),
            ControllerError::Storage(text) => BrokerError::Storage(text),
        }
    }
}
