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
mod share;
mod stream_groups;
mod subscribers;
mod topics;
mod transactions;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;

pub use configs::{AlterOp, ConfigAlteration, ConfigResource, DescribedResource};
pub use error::BrokerError;
pub use fetch::{FetchPartition, FetchRequest, FetchedPartition};
pub use offsets::{LogDirPartition, OffsetQuery};
pub use produce::{Acks, PartitionProduce, PartitionProduced, ProduceRequest, Producing};
pub use share::{ShareFetchRequest, ShareProgress, SharedRecords};
pub use topics::CreatedTopic;
pub use transactions::{ProduceTransaction, TransactionSupport};

pub use crate::metadata::{ClusterImage, PartitionImage, TopicImage};
pub use crate::partition::{EpochEnd, IsolationLevel, ListedOffset, Marker, OffsetSpec, ProducerDescription};
pub use crate::shard::{Listening, MetadataLog, NewPartitions, NewTopic};

use crate::config::Config;
use crate::model::{LeaderEpoch, NO_LEADER_EPOCH, ShardId, TopicPartition, Uuid};
use crate::shard::Shard;

/// The share of a connection's work that must belong to one other shard before it moves there.
const HAND_OVER_SHARE_PERCENT: u64 = 90;

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

/// How clients reach and know this server.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The id of the cluster, 22 characters of base64.
    pub cluster_id: String,
    /// The Kafka ports: one, or with shard listeners one for each shard.
    pub kafka_ports: Vec<u16>,
}

/// One shard's view of the whole server.
pub struct Broker {
    shard: Rc<Shard>,
    identity: Identity,
    /// How many partitions of each topic are known to be served by their owners.
    ready_topics: RefCell<AHashMap<Uuid, usize>>,
}

impl Broker {
    /// The broker of one shard.
    pub fn new(shard: Rc<Shard>, identity: Identity) -> Self {
        Broker { shard, identity, ready_topics: RefCell::default() }
    }

    /// The topics as this shard knows them.
    pub fn image(&self) -> Arc<ClusterImage> {
        self.shard.image()
    }

    /// The configuration in force, dynamic changes included.
    pub fn config(&self) -> Arc<Config> {
        self.shard.config()
    }

    /// The id of the cluster, 22 characters of base64.
    pub fn cluster_id(&self) -> &str {
        &self.identity.cluster_id
    }

    /// The shard that this broker lives on.
    pub fn shard_id(&self) -> ShardId {
        self.shard.id()
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shard.shards()
    }

    /// The nodes, for a client that dialled `dialled` (the advertised host is that unless configured).
    pub fn nodes(&self, dialled: SocketAddr) -> Vec<Node> {
        let config = self.config();
        let host = config.advertised_host.clone().unwrap_or_else(|| dialled.ip().to_canonical().to_string());
        let shard_listeners = self.identity.kafka_ports.len() > 1;
        self.identity
            .kafka_ports
            .iter()
            .enumerate()
            .map(|(shard, port)| Node {
                id: self.node_id(shard),
                host: host.clone(),
                port: config.advertised_port.filter(|_| !shard_listeners).unwrap_or(*port),
            })
            .collect()
    }

    /// The id of the node that leads the partitions (and coordinates the groups) of a shard.
    pub fn node_id(&self, shard: ShardId) -> i32 {
        let offset = if self.identity.kafka_ports.len() > 1 { shard } else { 0 };
        self.config().node_id.saturating_add(i32::try_from(offset).unwrap_or(0))
    }

    /// The leader epoch of a partition as Metadata tells it; -1 for a partition that there is not.
    pub fn leader_epoch(&self, topic_partition: &TopicPartition) -> LeaderEpoch {
        let image = self.image();
        let partition =
            image.topic(&topic_partition.topic).and_then(|topic| topic.partition(topic_partition.partition));
        partition.map_or(NO_LEADER_EPOCH, |partition| partition.leader_epoch)
    }

    /// If nearly all of a connection's work belongs to one other shard, that shard: the connection should move there.
    pub fn better_home(&self, work_by_shard: &[u64]) -> Option<ShardId> {
        let total: u64 = work_by_shard.iter().sum();
        let (busiest, work) = work_by_shard.iter().enumerate().max_by_key(|(_, work)| **work)?;
        let moves = total > 0 && busiest != self.shard.id() && work * 100 >= total * HAND_OVER_SHARE_PERCENT;
        moves.then_some(busiest)
    }

    /// Resolves when the topics have changed and every new partition of this shard is open.
    pub fn image_changed(&self) -> impl Future<Output = ()> + '_ {
        self.shard.image_changed()
    }

    /// Resolves when the server begins to stop: waiting requests are then answered and connections closed.
    pub async fn stopping(&self) {
        self.shard.stopping().await;
    }

    /// Whether the server has begun to stop.
    pub fn is_stopping(&self) -> bool {
        self.shard.is_stopping()
    }
}
