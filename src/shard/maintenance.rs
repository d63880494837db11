//! Work in the background, with a small share of the core: retention, expiry of producers, checkpoints.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connect::ShardConnections;
use super::{
    FoundTopics, Shard, ShardEnds, ShardOptions, ShardReply, ShardRequest, StartPartition, controller,
};
use crate::base::clock;
use crate::model::{CLUSTER_METADATA_TOPIC, TopicPartition};
use crate::runtime::directory::FileSystem;
use crate::runtime::executor::TaskQueue;
use crate::runtime::{timeout, yield_if_needed};
use crate::storage::{self, LogCheckpoint, ShardStorage, ShardStorageLimits, StorageError};

/// The share of the core that maintenance gets; requests run with 1,000.
const MAINTENANCE_SHARES: u32 = 100;
/// How often the checkpoint files are written when a log has moved: a start after a crash looks at what was written since.
/// Kafka's `log.flush.offset.checkpoint.interval.ms` is a minute, which may be ten gigabytes here.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

impl Shard {
    /// Begins to serve the other shards. The shard has no partitions until an image is published.
    pub async fn start(options: ShardOptions, ends: ShardEnds) -> Rc<Shard> {
        let (mesh, receivers) = ends.join();
        let config = options.config;
        let shards = options.shards.max(1);
        let storage = ShardStorage::new(ShardStorageLimits {
            tail_cache_bytes: config.tail_cache_bytes / shards,
            segment_cache_count: config.segment_cache_count.div_ceil(shards),
            segment_cache_bytes: config.segment_cache_bytes / shards as u64,
            cold_read_bytes: config.cold_read_bytes / shards,
            ..ShardStorageLimits::default()
        });
        let shard = Rc::new(Shard {
            id: options.id,
            shards,
            file_system: FileSystem::open_now(&options.data_dir).ok(),
            data_dir: options.data_dir,
            config: config.into(),
            image: Default::default(),
            partitions: Default::default(),
            storage,
            connections: ShardConnections::new(mesh),
            groups: Default::default(),
            stream_groups: Default::default(),
            transactions: Default::default(),
            share_coordinators: Default::default(),
            share_partitions: Default::default(),
            waits: Default::default(),
            subscribers: Default::default(),
            flusher: Default::default(),
            controller: (options.id == 0).then(controller::Controller::default),
            stopping: Default::default(),
            stop: Default::default(),
            image_changed: Default::default(),
        });
        shard.receive(receivers);
        let queue = TaskQueue::new(MAINTENANCE_SHARES);
        shard.start_flusher(&queue);
        let cleaning = shard.clone();
        queue.spawn_detached(async move { cleaning.clean_regularly().await });
        let timing = shard.clone();
        crate::runtime::spawn_detached(async move { timing.run_group_timers().await });
        let timing = shard.clone();
        crate::runtime::spawn_detached(async move { timing.run_transaction_timers().await });
        if shard.id == 0 {
            let checkpointing = shard.clone();
            queue.spawn_detached(async move { checkpointing.checkpoint_regularly().await });
        }
        shard
    }

    /// Retention by time and size and expiry of silent producers, partition by partition.
    async fn clean_regularly(self: Rc<Self>) {
        while !self.is_stopping() {
            let interval = Duration::from_millis(self.config().log_retention_check_interval_ms);
            timeout(interval, self.stopping()).await;
            for partition in self.all_partitions() {
                if self.is_stopping() {
                    return;
                }
                let done = partition.log().apply_retention(clock::now_ms(), partition.high_watermark()).await;
                if let Err(error) = done {
                    tracing::error!(partition = %partition.topic_partition(), %error, "retention has failed");
                }
                yield_if_needed().await;
            }
        }
    }

    async fn checkpoint_regularly(self: Rc<Self>) {
        let mut written = Arc::default();
        loop {
            timeout(CHECKPOINT_INTERVAL, self.stopping()).await;
            if self.is_stopping() {
                return; // closing writes the last one
            }
            let reached = Arc::new(self.gather_checkpoints().await);
            if reached == written {
                continue;
            }
            match storage::checkpoint::write(&self.data_dir, reached.clone()).await {
                Ok(()) => written = reached,
                Err(error) => tracing::error!(
                    %error,
                    "cannot write the checkpoint files; the next start will check more of the logs"
                ),
            }
        }
    }

    /// How far every shard's partitions have come.
    async fn gather_checkpoints(self: &Rc<Self>) -> BTreeMap<TopicPartition, LogCheckpoint> {
        let mut checkpoints = BTreeMap::new();
        for shard in 0..self.shards {
            if let ShardReply::Checkpoints(of_shard) = self.call(shard, ShardRequest::Checkpoint).await {
                checkpoints.extend(of_shard);
            }
        }
        checkpoints
    }

    /// Has every shard close its partitions, writes the last checkpoint files and, if all went well, the marker of a
    /// clean stop. Runs on shard 0, after [`Shard::begin_stop`] on every shard.
    ///
    /// # Errors
    /// If the files cannot be written; the next start then checks the logs.
    pub async fn close_all(self: &Rc<Self>) -> Result<(), StorageError> {
        let mut checkpoints: BTreeMap<TopicPartition, LogCheckpoint> = BTreeMap::new();
        let mut all_closed = true;
        // This shard last: what the others end with may still become records of the controller.
        for shard in (0..self.shards).rev() {
            match self.call(shard, ShardRequest::Close).await {
                ShardReply::Closed { checkpoints: of_shard, all_closed: of_shard_closed } => {
                    checkpoints.extend(of_shard);
                    all_closed &= of_shard_closed;
                }
                _ => all_closed = false,
            }
        }
        storage::checkpoint::write(&self.data_dir, Arc::new(checkpoints)).await?;
        if all_closed {
            storage::checkpoint::write_clean_shutdown_marker(&self.data_dir).await?;
        }
        Ok(())
    }
}

/// What lies in the data directory: topics by their directories, and what is known of each partition. Takes the marker
/// of a clean stop away, so that a crash from now on is noticed. Runs on shard 0 at start.
///
/// # Errors
/// The file system's.
pub async fn find_partitions(data_dir: &Path) -> Result<(FoundTopics, Vec<StartPartition>), StorageError> {
    let clean = storage::checkpoint::take_clean_shutdown_marker(data_dir).await?;
    let mut checkpoints = storage::checkpoint::read(data_dir).await?;
    let mut topics = FoundTopics::new();
    let mut starts = Vec::new();
    for found in storage::scan_data_dir(data_dir).await? {
        let TopicPartition { topic, partition } = found.topic_partition.clone();
        let checkpoint = checkpoints.remove(&found.topic_partition);
        starts.push(StartPartition { topic_partition: found.topic_partition, checkpoint, clean });
        if topic.as_str() != CLUSTER_METADATA_TOPIC {
            // The controller's own log is in no image.
            let (id, partitions) = topics.entry(topic).or_default();
            *id = id.or(found.topic_id);
            partitions.insert(partition, found.size_bytes);
        }
    }
    Ok((topics, starts))
}
