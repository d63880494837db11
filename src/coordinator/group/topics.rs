//! What coordinators know of topics and of the configs of groups. The caller hands a new view in whenever they change.

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
    /// A number that was set as a config of a group, in place of the broker's.
    fn group_config(&self, group_id: &str, name: &str) -> Option<i64>;
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

    fn group_config(&self, _group_id: &str, _name: &str) -> Option<i64> {
        None
    }

    fn for_each_name(&self, _each: &mut dyn FnMut(&str)) {}
}
