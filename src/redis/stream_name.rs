//! Keys and channels as topics: `orders` is a topic, `orders/2` one of its partitions.
//!
//! A `/` is not legal in the name of a topic, so the two never mix.

use std::sync::Arc;

use super::error_reply::ErrorReply;
use crate::broker::{Broker, BrokerError, TopicImage};
use crate::model::{PartitionIndex, TopicName, TopicPartition};

/// A key as it was written, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamName<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: Option<PartitionIndex>,
}

impl<'a> StreamName<'a> {
    /// Takes a key apart; its topic may be illegal or missing.
    ///
    /// # Errors
    /// If the key cannot name a topic because it is no text, or the partition is no number.
    pub(super) fn parse(key: &'a [u8]) -> Result<Self, ErrorReply> {
        let text = std::str::from_utf8(key).map_err(|_| {
            ErrorReply::err(
                "a key names a topic, so it may only have ASCII letters, digits, '.', '_' and '-'",
            )
        })?;
        let Some((topic, partition)) = text.rsplit_once('/') else {
            return Ok(StreamName { topic: text, partition: None });
        };
        match partition.parse() {
            Ok(number) if number >= 0 && !partition.starts_with('+') => {
                Ok(StreamName { topic, partition: Some(number) })
            }
            _ => Err(ErrorReply::err(format_args!(
                "'{partition}' is no partition; write TOPIC/NUMBER, as in orders/2"
            ))),
        }
    }

    /// The one partition that the key names in `topic`.
    ///
    /// # Errors
    /// If the topic has several and the key does not say which, or has not the one that it names.
    pub(super) fn partition_of(&self, topic: &TopicImage) -> Result<TopicPartition, ErrorReply> {
        let count = topic.partitions.len();
        let partition = match self.partition {
            Some(partition) => partition,
            None if count == 1 => 0,
            None => {
                return Err(ErrorReply::err(format_args!(
                    "topic '{name}' has {count} partitions; name one, as in {name}/0",
                    name = topic.name
                )));
            }
        };
        if topic.partition(partition).is_none() {
            return Err(ErrorReply::err(format_args!(
                "topic '{}' has {count} partitions, 0 to {}, and no partition {partition}",
                topic.name,
                count - 1
            )));
        }
        Ok(TopicPartition::new(topic.name.clone(), partition))
    }
}

/// The partition that `key` names, if its topic is there.
///
/// # Errors
/// As [`StreamName::parse`] and [`StreamName::partition_of`], or for a name that no topic can have.
pub(super) async fn find(broker: &Broker, key: &[u8]) -> Result<Option<TopicPartition>, ErrorReply> {
    let name = StreamName::parse(key)?;
    match broker.ready_topic(name.topic).await {
        Some(topic) => name.partition_of(&topic).map(Some),
        None => {
            TopicName::new(name.topic).map_err(ErrorReply::err)?;
            Ok(None)
        }
    }
}

/// As [`find`]; a missing stream is an error.
///
/// # Errors
/// As [`find`], or `ERR no such key`.
pub(super) async fn existing(broker: &Broker, key: &[u8]) -> Result<TopicPartition, ErrorReply> {
    find(broker, key).await?.ok_or_else(ErrorReply::no_such_key)
}

/// The topic of that name, made if it is missing and topics are made on demand.
///
/// # Errors
/// If it is missing and may not or cannot be made.
pub(super) async fn topic_or_create(broker: &Broker, name: &str) -> Result<Arc<TopicImage>, ErrorReply> {
    if let Some(topic) = broker.ready_topic(name).await {
        return Ok(topic);
    }
    match broker.auto_create_topic(name).await {
        Err(BrokerError::UnknownTopicOrPartition) => Err(ErrorReply::err(format_args!(
            "topic '{name}' does not exist, and auto.create.topics.enable does not allow to make it"
        ))),
        made => Ok(made?),
    }
}

/// As [`find`]; the topic is made if it is missing and topics are made on demand.
///
/// # Errors
/// As [`find`] and [`topic_or_create`].
pub(super) async fn find_or_create(broker: &Broker, key: &[u8]) -> Result<TopicPartition, ErrorReply> {
    let name = StreamName::parse(key)?;
    name.partition_of(&*topic_or_create(broker, name.topic).await?)
}

#[cfg(test)]
mod tests {
    use super::StreamName;

    #[test]
    fn a_slash_names_a_partition() {
        let parsed = |key: &'static str| {
            StreamName::parse(key.as_bytes()).ok().map(|name| (name.topic, name.partition))
        };
        assert_eq!(parsed("orders"), Some(("orders", None)));
        assert_eq!(parsed("orders/12"), Some(("orders", Some(12))));
        for wrong in ["orders/", "orders/-1", "orders/+1", "orders/x"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        assert!(StreamName::parse(b"\xff").is_err());
    }
}
