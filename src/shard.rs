//! All that one core owns: its partitions, its groups and transactions, and the way to the other shards.
//!
//! Lives on: its own executor; one per core. A [`Shard`] applies [`ShardRequest`]s, its own and those of other shards, in
//! the order in which they came; nothing of it is shared and no lock is on the request path. Shard 0 is the
//! controller as well: it alone changes what every shard knows.

mod apply;
mod connect;
mod controller;
mod deadlines;
mod flusher;
mod groups;
mod maintenance;
mod markers;
mod partitions;
mod request;
mod share_partitions;
mod share_states;
mod state_log;
mod stream_groups;
mod subscribers;
mod topics_view;
mod transactions;
mod waits;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

pub use connect::{Dispatched, ShardEnds, shard_ends};
pub use controller::{
    ControllerError, ControllerReply, ControllerRequest, MetadataLog, NewPartitions, NewTopic, TopicChange,
};
pub use maintenance::find_partitions;
pub use partitions::{FoundTopics, OpenFailure};
pub use request::{
    PlacedBatch, ShardReply, ShardRequest, ShareAcknowledge, ShareFetch, ShareRead, ShareStateReply,
    ShareStateRequest, ShareWait, StartPartition,
};
pub use share_partitions::{ShareGroupSettings, ShareOffsetReset};
pub use subscribers::Listening;

use crate::config::Config;
use crate::metadata::ClusterImage;
use crate::model::{ShardId, TopicPartition};
use crate::partition::Partition;
use crate::runtime::directory::FileSystem;
use crate::runtime::local::Event;
use crate::storage::ShardStorage;

/// What a shard is given when it starts.
pub struct ShardOptions {
    /// Its number.
    pub id: ShardId,
    /// How many shards there are.
    pub shards: usize,
    /// The configuration, dynamic changes included.
    pub config: Arc<Config>,
    /// The data directory.
    pub data_dir: PathBuf,
}

/// One core's share of the server.
pub struct Shard {
    id: ShardId,
    shards: usize,
    data_dir: PathBuf,
    /// Where that lies, for syncing many partitions at once; without it each is synced alone.
    file_system: Option<FileSystem>,
    config: RefCell<Arc<Config>>,
    image: RefCell<Arc<ClusterImage>>,
    partitions: RefCell<AHashMap<TopicPartition, Rc<Partition>>>,
    storage: Rc<ShardStorage>,
    connections: connect::ShardConnections,
    groups: groups::Groups,
    stream_groups: stream_groups::StreamGroupHosts,
    transactions: transactions::Transactions,
    share_coordinators: share_states::ShareCoordinators,
    share_partitions: share_partitions::SharePartitions,
    waits: waits::Waits,
    subscribers: subscribers::Subscribers,
    flusher: flusher::Flusher,
    controller: Option<controller::Controller>,
    stopping: Cell<bool>,
    stop: Event,
    image_changed: Event,
}

impl Shard {
    /// This shard's number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// The data directory.
    pub fn data_dir(&self) -> &std::path::Path {
        &self.data_dir
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// The topics as this shard knows them.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.image.borrow().clone()
    }

    /// Resolves when a newer image than the present one is in force and its partitions are open.
    pub fn image_changed(&self) -> impl Future<Output = ()> + '_ {
        self.image_changed.wait()
    }

    /// The partition, if this shard owns it.
    pub fn partition(&self, topic_partition: &TopicPartition) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(topic_partition).cloned()
    }

    /// Every partition of this shard.
    fn all_partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// Whether the server has begun to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Resolves when the server begins to stop.
    pub async fn stopping(&self) {
        while !self.stopping.get() {
            self.stop.wait().await;
        }
    }

    /// Begins to stop: waiting fetches are answered, maintenance ends.
    pub fn begin_stop(&self) {
        self.stopping.set(true);
        self.stop.notify();
        for partition in self.all_partitions() {
            partition.wake_waiters();
        }
    }
}
