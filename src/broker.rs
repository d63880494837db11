//! Protocol-free verbs: what a front asks of the logs, whichever protocol it speaks.
//!
//! One [`Broker`] lives on each shard. It knows the [`ClusterImage`], splits a request by owning shard, sends the parts,
//! gathers the answers in the order asked, and never blocks. Fronts see topics, offsets and bytes here, never files.

mod configs;
mod error;
mod fetch;
mod groups;
mod offsets;
mod produce;
mod router;
mod topics;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

pub use configs::{AlterOp, ConfigAlteration, ConfigResource, DescribedResource};
pub use error::BrokerError;
pub use fetch::{FetchPartition, FetchRequest, FetchedPartition, IsolationLevel};
pub use offsets::{
    EpochEnd, ListedOffset, LogDirPartition, OffsetQuery, OffsetSpec, ProducerDescription,
};
pub use produce::{Acks, PartitionProduce, PartitionProduced, ProduceRequest, Producing};
pub use topics::{CreatedTopic, NewPartitions, NewTopic};

pub use crate::metadata::{ClusterImage, PartitionImage, TopicImage};

/// A node as clients see it: the server itself, or with shard listeners each of its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The node's id.
    pub id: i32,
    /// The host that clients shall dial.
    pub host: String,
    /// The port that clients shall dial.
    pub port: u16,
}

/// One shard's view of the whole server.
pub struct Broker {
    image: RefCell<Arc<ClusterImage>>,
}

impl Broker {
    /// The topics as this shard knows them.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.image.borrow().clone()
    }

    /// The configuration in force, dynamic changes included.
    pub fn config(&self) -> Arc<crate::config::Config> {
        todo!()
    }

    /// The id of the cluster, 22 characters of base64.
    pub fn cluster_id(&self) -> &str {
        todo!()
    }

    /// The nodes, for a client that dialled `dialled` (the advertised host is that unless configured).
    pub fn nodes(&self, dialled: SocketAddr) -> Vec<Node> {
        let _ = dialled;
        todo!()
    }

    /// The id of the node that leads the partitions (and coordinates the groups) of a shard.
    pub fn node_id(&self, shard: crate::model::ShardId) -> i32 {
        let _ = shard;
        todo!()
    }

    /// The leader epoch of a partition as Metadata tells it.
    pub fn leader_epoch(&self) -> crate::model::LeaderEpoch {
        todo!()
    }

    /// If nearly all of a connection's work belongs to one other shard, that shard: the connection should move there.
    pub fn better_home(&self, work_by_shard: &[u64]) -> Option<crate::model::ShardId> {
        let _ = work_by_shard;
        todo!()
    }

    /// Resolves when the server begins to stop: waiting requests are then answered and connections closed.
    pub async fn stopping(&self) {
        todo!()
    }

    /// Whether the server has begun to stop.
    pub fn is_stopping(&self) -> bool {
        todo!()
    }
}
