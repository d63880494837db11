//! Topic names and the rules for legal ones (Kafka's `Topic.validate`).

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::{
    CLUSTER_METADATA_TOPIC, CONSUMER_OFFSETS_TOPIC, SHARE_GROUP_STATE_TOPIC, STREAM_GROUPS_TOPIC,
    TRANSACTION_STATE_TOPIC,
};

/// Longest legal topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A legal topic name. Cheap to clone and safe as a directory name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// Why a topic name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTopicName {
    /// The name has no characters.
    #[error("the topic name is empty")]
    Empty,
    /// `.` and `..` would be directories.
    #[error("the topic name cannot be '.' or '..'")]
    Dots,
    /// The name and a partition number must fit a file name.
    #[error("the topic name is longer than {TOPIC_NAME_BYTES_MAX} characters: '{0}'")]
    TooLong(String),
    /// A character outside `[a-zA-Z0-9._-]`.
    #[error("the topic name '{0}' contains characters other than ASCII letters, digits, '.', '_' and '-'")]
    Character(String),
}

impl TopicName {
    /// Checks `name` against Kafka's rules.
    pub fn new(name: &str) -> Result<Self, IllegalTopicName> {
        if name.is_empty() {
            return Err(IllegalTopicName::Empty);
        }
        if name == "." || name == ".." {
            return Err(IllegalTopicName::Dots);
        }
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(IllegalTopicName::TooLong(name.to_owned()));
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(IllegalTopicName::Character(name.to_owned()));
        }
        Ok(TopicName(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether clients must not create, delete or produce to it by themselves.
    pub fn is_internal(&self) -> bool {
        matches!(
            self.as_str(),
            CONSUMER_OFFSETS_TOPIC
                | TRANSACTION_STATE_TOPIC
                | CLUSTER_METADATA_TOPIC
                | STREAM_GROUPS_TOPIC
                | SHARE_GROUP_STATE_TOPIC
        )
    }
}

impl Deref for TopicName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{IllegalTopicName, TopicName};

    #[test]
    fn kafkas_rules_for_names_hold() {
        assert!(TopicName::new("orders.v1_eu-west").is_ok());
        assert_eq!(TopicName::new(""), Err(IllegalTopicName::Empty));
        assert_eq!(TopicName::new(".."), Err(IllegalTopicName::Dots));
        assert!(matches!(TopicName::new("a/b"), Err(IllegalTopicName::Character(_))));
        assert!(matches!(TopicName::new(&"x".repeat(250)), Err(IllegalTopicName::TooLong(_))));
    }
}
