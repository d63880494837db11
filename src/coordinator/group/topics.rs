//! What coordinators know of topics. The caller hands a new view in whenever topics have changed.

use std::fmt::Debug;
use std::sync::Arc;

use crate::model::{PartitionIndex, TopicName, Uuid};

/// The topics as they are at one moment; never changes.
pub trait TopicsView: Debug {
    /// Counts up with every change.
    fn version(&self) -> u64;
    /// The id and the number of partitions of a topic.
    fn by_name(&self, name: &str) -> Option<(Uuid, PartitionIndex)>;
    /// The name and the number of partitions of a topic.
    fn by_id(&self, id: Uuid) -> Option<(TopicName, PartitionIndex)>;
    /// Calls `each` with every topic's name, in order.
    fn for_each_name(&self, each: &mut dyn FnMut(&str));
}

/// A shared view.
pub type Topics = Arc<dyn TopicsView + Send + Sync>;

/// No topics at all, until the caller knows better.
#[derive(Debug)]
pub(super) struct NoTopics;

impl TopicsView for NoTopics {
    fn version(&self) -> u64 {
        0
    }

    fn by_name(&self, _name: &str) -> Option<(Uuid, PartitionIndex)> {
        None
    }

    fn by_id(&self, _id: Uuid) -> Option<(TopicName, PartitionIndex)> {
        None
    }

    fn for_each_name(&self, _each: &mut dyn FnMut(&str)) {}
}
