//! Opening what is new and removing what is gone, whenever what every shard knows has changed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

use super::{Shard, StartPartition};
use crate::base::clock;
use crate::config::{Config, TopicConfig};
use crate::metadata::{ClusterImage, TopicImage};
use crate::model::{
    CLUSTER_METADATA_TOPIC, CONSUMER_OFFSETS_TOPIC, PartitionIndex, SHARE_GROUP_STATE_TOPIC,
    STREAM_GROUPS_TOPIC, TRANSACTION_STATE_TOPIC, TopicName, TopicPartition, Uuid,
};
use crate::partition::Partition;
use crate::runtime::{spawn, spawn_detached};
use crate::storage::{Log, LogCheckpoint, LogOptions, StartHint, StorageError, WritePath};

/// Partitions that a shard opens side by side; the blocking pool is what limits it.
const OPENS_AT_ONCE: usize = 64;

/// Topics by name as their directories tell: id (if the directory says so), and bytes of each partition.
pub type FoundTopics = BTreeMap<TopicName, (Option<Uuid>, BTreeMap<PartitionIndex, u64>)>;

/// A partition that could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open partition {topic_partition}: {source}")]
pub struct OpenFailure {
    /// Which one.
    pub topic_partition: TopicPartition,
    /// Why.
    pub source: StorageError,
}

impl Shard {
    /// Takes over a new image: opens the partitions that are now this shard's, closes and removes those of topics that
    /// are gone, puts new configs in force. Resolves when all of that is done.
    pub(super) async fn take_image(self: &Rc<Self>, image: Arc<ClusterImage>, starts: Vec<StartPartition>) {
        let old = self.image.replace(image.clone());
        match Config::with_dynamic(&self.config(), &image.broker_configs) {
            Ok(config) => *self.config.borrow_mut() = Arc::new(config),
            Err(error) => tracing::error!(%error, "stored broker configs cannot be put in force"),
        }
        self.tell_groups_of_topics();
        self.remove_topics(&old, &image).await;
        self.update_configs(&old, &image);
        let starts: AHashMap<_, _> =
            starts.into_iter().map(|start| (start.topic_partition.clone(), start)).collect();
        self.open_missing(&image, &starts).await;
        self.image_changed.notify();
    }

    async fn remove_topics(self: &Rc<Self>, old: &ClusterImage, new: &ClusterImage) {
        let mut is_any_removed = false;
        for topic in old.topics() {
            if new.topic(&topic.name).is_some_and(|kept| kept.id == topic.id) {
                continue;
            }
            for index in 0..topic.partitions.len() {
                let topic_partition = topic_partition(topic, index);
                let removed = self.partitions.borrow_mut().remove(&topic_partition);
                if let Some(partition) = removed {
                    partition.wake_waiters();
                    if let Err(error) = partition.log().delete().await {
                        tracing::error!(partition = %topic_partition, %error, "cannot remove a deleted partition");
                    }
                }
            }
            self.forget_topic_offsets(&topic.name);
            self.forget_topic_stream_groups(&topic.name);
            if topic.name.as_str() == TRANSACTION_STATE_TOPIC {
                self.close_transactions();
            }
            self.close_shares_of_topic(topic.id);
            is_any_removed = true;
        }
        if is_any_removed {
            self.forget_shares_of_missing_topics(new);
        }
    }

    fn update_configs(&self, old: &ClusterImage, new: &ClusterImage) {
        let broker_changed = old.broker_configs != new.broker_configs;
        for topic in new.topics() {
            let same = old.topic(&topic.name).is_some_and(|old| old.configs == topic.configs);
            if same && !broker_changed {
                continue;
            }
            let config = self.topic_config(topic);
            for index in 0..topic.partitions.len() {
                if let Some(partition) = self.partition(&topic_partition(topic, index)) {
                    partition.set_config(config.clone(), log_options(&config, &self.config()));
                }
            }
        }
    }

    async fn open_missing(
        self: &Rc<Self>,
        image: &ClusterImage,
        starts: &AHashMap<TopicPartition, StartPartition>,
    ) {
        let mut opening = std::collections::VecDeque::new();
        for topic in image.topics() {
            let mut config = None;
            for (index, partition) in topic.partitions.iter().enumerate() {
                let topic_partition = topic_partition(topic, index);
                if partition.owner != self.id || self.partition(&topic_partition).is_some() {
                    continue;
                }
                let config = config.get_or_insert_with(|| self.topic_config(topic)).clone();
                let start = starts.get(&topic_partition).cloned();
                let (shard, id) = (self.clone(), topic.id);
                opening.push_back(spawn(async move {
                    shard.open_partition(topic_partition, id, config, start).await
                }));
                if opening.len() >= OPENS_AT_ONCE
                    && let Some(first) = opening.pop_front()
                {
                    self.adopt(first.await);
                }
            }
        }
        for opened in opening {
            self.adopt(opened.await);
        }
    }

    /// A partition that could not be opened is not served, and said so; the others are.
    fn adopt(self: &Rc<Self>, opened: Result<Rc<Partition>, OpenFailure>) {
        let partition = match opened {
            Ok(partition) => partition,
            Err(failure) => {
                tracing::error!(%failure, "a partition is not available");
                return;
            }
        };
        let topic_partition = partition.topic_partition().clone();
        self.partitions.borrow_mut().insert(topic_partition.clone(), partition.clone());
        let shard = self.clone();
        match topic_partition.topic.as_str() {
            CONSUMER_OFFSETS_TOPIC => spawn_detached(async move { shard.load_groups(partition).await }),
            STREAM_GROUPS_TOPIC => spawn_detached(async move { shard.load_stream_groups(partition).await }),
            TRANSACTION_STATE_TOPIC => {
                spawn_detached(async move { shard.load_transactions(partition).await });
            }
            SHARE_GROUP_STATE_TOPIC => {
                spawn_detached(async move { shard.load_share_states(partition).await });
            }
            _ => {}
        }
    }

    /// Opens (or makes) the log of one partition.
    pub(super) async fn open_partition(
        &self,
        topic_partition: TopicPartition,
        topic_id: Uuid,
        config: Arc<TopicConfig>,
        start: Option<StartPartition>,
    ) -> Result<Rc<Partition>, OpenFailure> {
        let start = StartHint {
            clean_shutdown: start.as_ref().is_some_and(|start| start.clean),
            checkpoint: start.and_then(|start| start.checkpoint),
            topic_id: Some(topic_id),
        };
        let dir = self.data_dir.join(topic_partition.to_string());
        let options = log_options(&config, &self.config());
        let log =
            Log::open(topic_partition.clone(), dir, options, self.storage.clone(), start, clock::now_ms())
                .await
                .map_err(|source| OpenFailure { topic_partition: topic_partition.clone(), source })?;
        Ok(Partition::new(topic_partition, log, config))
    }

    /// The configs of a topic: its own over the broker's. They were checked when they were set (or a Kafka directory
    /// brought them, compaction included); one that does not fit any more is left out and said so.
    pub(super) fn topic_config(&self, topic: &TopicImage) -> Arc<TopicConfig> {
        let config = self.config();
        let mut fitting = BTreeMap::new();
        for (name, value) in &topic.configs {
            let mut tried = fitting.clone();
            tried.insert(name.clone(), value.clone());
            match TopicConfig::resolve_internal(&config, &tried) {
                Ok(_) => fitting = tried,
                Err(error) => {
                    tracing::error!(topic = %topic.name, %error, "a stored topic config is left out")
                }
            }
        }
        match TopicConfig::resolve_internal(&config, &fitting) {
            Ok(config) => Arc::new(config),
            Err(error) => unreachable!("each of the configs was tried: {error}"),
        }
    }

    /// How far each partition has come.
    pub(super) fn checkpoints(&self) -> Vec<(TopicPartition, LogCheckpoint)> {
        let checkpoint =
            |partition: &Rc<Partition>| (partition.topic_partition().clone(), partition.log().checkpoint());
        self.partitions.borrow().values().map(checkpoint).collect()
    }

    /// Closes every partition for good; says how far each has come and whether all could be closed properly.
    pub(super) async fn close_partitions(self: &Rc<Self>) -> (Vec<(TopicPartition, LogCheckpoint)>, bool) {
        self.close_groups();
        self.close_stream_groups();
        self.close_transactions();
        self.close_share_partitions(|_| true);
        self.close_share_states();
        let partitions = std::mem::take(&mut *self.partitions.borrow_mut());
        let count = partitions.len();
        self.sync_together(&partitions.values().cloned().collect::<Vec<_>>()).await;
        let mut closing = std::collections::VecDeque::new();
        let mut checkpoints = Vec::with_capacity(partitions.len());
        for (topic_partition, partition) in partitions {
            closing.push_back(spawn(async move { (topic_partition, partition.log().close().await) }));
            if closing.len() >= OPENS_AT_ONCE
                && let Some(first) = closing.pop_front()
            {
                note_closed(first.await, &mut checkpoints);
            }
        }
        for closed in closing {
            note_closed(closed.await, &mut checkpoints);
        }
        let all_closed = checkpoints.len() == count;
        (checkpoints, all_closed)
    }
}

fn note_closed(
    (topic_partition, closed): (TopicPartition, Result<LogCheckpoint, StorageError>),
    checkpoints: &mut Vec<(TopicPartition, LogCheckpoint)>,
) {
    match closed {
        Ok(checkpoint) => checkpoints.push((topic_partition, checkpoint)),
        Err(error) => {
            tracing::error!(partition = %topic_partition, %error, "a partition could not be closed properly");
        }
    }
}

fn topic_partition(topic: &TopicImage, index: usize) -> TopicPartition {
    TopicPartition::new(topic.name.clone(), PartitionIndex::try_from(index).unwrap_or(PartitionIndex::MAX))
}

/// The image's entry for the partition that holds the cluster's metadata; it is in no image.
pub(super) fn cluster_metadata_partition() -> TopicPartition {
    match TopicName::new(CLUSTER_METADATA_TOPIC) {
        Ok(topic) => TopicPartition::new(topic, 0),
        Err(illegal) => unreachable!("the name is legal: {illegal}"),
    }
}

/// "Keep everything" in the options of a log.
const NO_LIMIT: i64 = -1;

fn log_options(topic: &TopicConfig, config: &Config) -> LogOptions {
    // Nothing of a compacted topic goes by age or size.
    let deletes = topic.cleanup_policy.deletes();
    LogOptions {
        segment_bytes: topic.segment_bytes,
        segment_ms: topic.segment_ms,
        segment_jitter_ms: topic.segment_jitter_ms,
        index_interval_bytes: topic.index_interval_bytes,
        segment_index_bytes: topic.segment_index_bytes,
        retention_ms: topic.retention_ms.get().filter(|_| deletes).unwrap_or(NO_LIMIT),
        retention_bytes: topic.retention_bytes.get().filter(|_| deletes).unwrap_or(NO_LIMIT),
        flush_messages: topic.flush_messages,
        flush_ms: i64::try_from(topic.flush_ms).unwrap_or(i64::MAX),
        file_delete_delay_ms: topic.file_delete_delay_ms,
        write_path: match topic.chosen_write_path() {
            crate::config::WritePath::Dma => WritePath::Dma,
            _ => WritePath::PageCache,
        },
        dma_write_bytes: config.dma_write_bytes,
        producer_id_expiration_ms: config.producer_id_expiration_ms,
    }
}
