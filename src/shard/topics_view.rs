//! The cluster's image as coordinators see it.

use std::sync::Arc;

use crate::config::{Config, group_number};
use crate::coordinator::group::topics::{Topics, TopicsView};
use crate::metadata::ClusterImage;
use crate::model::{PartitionIndex, TopicName, Uuid};

/// Shares the image and the broker's config; nothing is copied.
#[derive(Debug)]
struct ImageView(Arc<ClusterImage>, Arc<Config>);

/// The topics of `image`, and its groups' configs within the bounds of `config`.
pub(super) fn of(image: Arc<ClusterImage>, config: Arc<Config>) -> Topics {
    Arc::new(ImageView(image, config))
}

fn count(partitions: usize) -> PartitionIndex {
    PartitionIndex::try_from(partitions).unwrap_or(PartitionIndex::MAX)
}

impl TopicsView for ImageView {
    fn version(&self) -> u64 {
        self.0.version
    }

    fn by_name(&self, name: &str) -> Option<(Uuid, PartitionIndex)> {
        self.0.topic(name).map(|topic| (topic.id, count(topic.partitions.len())))
    }

    fn by_id(&self, id: Uuid) -> Option<(TopicName, PartitionIndex)> {
        self.0.topic_by_id(id).map(|topic| (topic.name.clone(), count(topic.partitions.len())))
    }

    fn group_config(&self, group_id: &str, name: &str) -> Option<i64> {
        group_number(&self.1, name, self.0.group_config(group_id, name)?)
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.0.topics().for_each(|topic| each(topic.name.as_str()));
    }
}
