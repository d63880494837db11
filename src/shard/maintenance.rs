//! Work in the background, with a small share of the core: retention, expiry of producers, checkpoints.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::connect::ShardConnections;
use super::{Shard, ShardEnds, ShardOptions, ShardReply, ShardRequest, controller};
use crate::base::clock;
use crate::model::TopicPartition;
use crate::runtime::executor::TaskQueue;
use crate::runtime::{blocking, timeout, yield_if_needed};
use crate::storage::{self, LogCheckpoint, ShardStorage, StorageLimits};

/// The share of the core that maintenance gets; requests run with 1,000.
const MAINTENANCE_SHARES: usize = 100;
/// How often the checkpoint files are written (Kafka's log.flush.offset.checkpoint.interval.ms).
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

impl Shard {
    /// Joins the other shards and begins to serve them. The shard has no partitions until an image is published.
    pub async fn start(options: ShardOptions, ends: ShardEnds) -> Rc<Shard> {
        let (mesh, receivers) = ends.join().await;
        let config = options.config;
        let shards = options.shards.max(1);
        let storage = ShardStorage::new(StorageLimits {
            tail_cache_bytes: config.tail_cache_bytes / shards,
            segment_cache_count: config.segment_cache_count.div_ceil(shards),
            segment_cache_bytes: config.segment_cache_bytes / shards as u64,
        });
        let shard = Rc::new(Shard {
            id: options.id,
            shards,
            data_dir: options.data_dir,
            config: config.into(),
            image: Default::default(),
            partitions: Default::default(),
            storage,
            connections: ShardConnections::new(mesh),
            groups: Default::default(),
            waits: Default::default(),
            flusher: Default::default(),
            controller: (options.id == 0).then(controller::Controller::default),
            stopping: Default::default(),
            stop: Default::default(),
        });
        shard.receive(receivers);
        let queue = TaskQueue::new("maintenance", MAINTENANCE_SHARES);
        shard.start_flusher(queue);
        let cleaning = shard.clone();
        queue.spawn_detached(async move { cleaning.clean_regularly().await });
        let timing = shard.clone();
        crate::runtime::spawn_detached(async move { timing.run_group_timers().await });
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
        loop {
            timeout(CHECKPOINT_INTERVAL, self.stopping()).await;
            if self.is_stopping() {
                return; // closing writes the last one
            }
            if let Err(error) = self.write_all_checkpoints().await {
                tracing::error!(%error, "cannot write the checkpoint files; the next start will check more of the logs");
            }
        }
    }

    /// Gathers how far every shard's partitions have come and writes the checkpoint files.
    pub(super) async fn write_all_checkpoints(self: &Rc<Self>) -> io::Result<()> {
        let mut checkpoints = Vec::new();
        for shard in 0..self.shards {
            if let ShardReply::Checkpoints(of_shard) = self.call(shard, ShardRequest::Checkpoint).await {
                checkpoints.extend(of_shard);
            }
        }
        let data_dir = self.data_dir.clone();
        blocking(move || write_checkpoints(&data_dir, &checkpoints, false)).await
    }
}

/// Writes the checkpoint files of the data directory; with `clean` also the marker that all partitions in it were
/// closed properly. Blocks.
///
/// # Errors
/// The file system's.
pub fn write_checkpoints(
    data_dir: &Path,
    checkpoints: &[(TopicPartition, LogCheckpoint)],
    clean: bool,
) -> io::Result<()> {
    storage::checkpoint::write(data_dir, checkpoints, clean)
}

/// Reads the checkpoint files and takes the marker of a clean stop away, so that a crash from now on is noticed.
/// The answer: each partition's checkpoint, and whether the last run stopped cleanly. Blocks.
///
/// # Errors
/// The file system's.
pub fn read_checkpoints(data_dir: &Path) -> io::Result<(Vec<(TopicPartition, LogCheckpoint)>, bool)> {
    storage::checkpoint::take(data_dir)
}
