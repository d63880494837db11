//! The controller: shard 0's part of changing what every shard knows.
//!
//! One change at a time: check, append its records to `__cluster_metadata`, publish the new image to every shard, and
//! answer when all of them have it. What was answered survives a crash because the records were appended first.

mod changes;
mod load;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{Shard, ShardReply, ShardRequest, state_log};
use crate::metadata::records::{ConfigOwner, MetadataRecord};
use crate::metadata::{ClusterImage, TopicImage};
use crate::model::{LeaderEpoch, Offset, ProducerId, TopicName, Uuid};
use crate::partition::Partition;
use crate::runtime::local::TurnQueue;

/// Producer ids that are recorded at a time, as Kafka does.
const PRODUCER_ID_BLOCK_COUNT: i64 = 1000;

/// What only shard 0 does.
#[derive(Debug, Clone)]
pub enum ControllerRequest {
    /// Make topics.
    CreateTopics {
        /// Which ones.
        topics: Vec<NewTopic>,
        /// Check only.
        validate_only: bool,
    },
    /// Delete topics.
    DeleteTopics(Vec<TopicName>),
    /// Add partitions to topics.
    CreatePartitions {
        /// To which, and how many.
        topics: Vec<NewPartitions>,
        /// Check only.
        validate_only: bool,
    },
    /// Put these configs in the place of a topic's.
    SetConfigs {
        /// What to change.
        changes: Vec<TopicChange>,
    },
    /// Give out a block of producer ids.
    ProducerIds,
    /// Say how far the metadata log has come.
    MetadataLog,
}

/// How far the metadata log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetadataLog {
    /// The epoch of its leader.
    pub leader_epoch: LeaderEpoch,
    /// The offset behind its last record.
    pub end_offset: Offset,
}

/// New configs of one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicChange {
    /// Whose.
    pub owner: ConfigOwner,
    /// Key and new value; `None` takes the key out.
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name, not yet checked.
    pub name: String,
    /// How many partitions; -1 for the default. Must be -1 when `assignment` is given.
    pub partition_count: i32,
    /// Kafka's replication factor; -1 for the default. Only 1 is possible. Must be -1 when `assignment` is given.
    pub replication_factor: i16,
    /// Partition index to replica node ids, if the client chose by hand.
    pub assignment: Vec<(i32, Vec<i32>)>,
    /// Topic-level configs; a null value is an error.
    pub configs: Vec<(String, Option<String>)>,
}

/// More partitions for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic's name.
    pub name: String,
    /// How many partitions it shall have then.
    pub total_count: i32,
    /// Replica node ids for each new partition, if the client chose by hand.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Answers, entry by entry in the order of the request.
#[derive(Debug, Clone)]
pub enum ControllerReply {
    /// To `CreateTopics`.
    Created(Vec<Result<Arc<TopicImage>, ControllerError>>),
    /// To `DeleteTopics`: the ids of what is gone.
    Deleted(Vec<Result<Uuid, ControllerError>>),
    /// To `CreatePartitions` and `SetConfigs`.
    Changed(Vec<Result<(), ControllerError>>),
    /// To `ProducerIds`: the first id and how many.
    ProducerIds(Result<(ProducerId, i64), ControllerError>),
    /// To `MetadataLog`.
    MetadataLog(Result<MetadataLog, ControllerError>),
}

/// Why a change was refused. The text is for the client's eyes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerError {
    /// There is no such topic.
    #[error("This server does not host this topic-partition.")]
    UnknownTopic,
    /// The name breaks the rules, or collides with another.
    #[error("{0}")]
    InvalidTopic(String),
    /// The name is taken.
    #[error("{0}")]
    TopicExists(String),
    /// A count of partitions that cannot be.
    #[error("{0}")]
    InvalidPartitions(String),
    /// More replicas than one node has.
    #[error("{0}")]
    InvalidReplicationFactor(String),
    /// An assignment to nodes that there are not.
    #[error("{0}")]
    InvalidAssignment(String),
    /// A config that is unknown, out of bounds or not supported.
    #[error("{0}")]
    InvalidConfig(String),
    /// The request contradicts itself.
    #[error("{0}")]
    InvalidRequest(String),
    /// Against a setting or a limit of this server.
    #[error("{0}")]
    PolicyViolation(String),
    /// The change could not be recorded.
    #[error("{0}")]
    Storage(String),
}

/// Shard 0's own state.
#[derive(Default)]
pub(super) struct Controller {
    /// One change at a time.
    changes: TurnQueue,
    log: RefCell<Option<Rc<Partition>>>,
    next_producer_id: Cell<ProducerId>,
}

impl Shard {
    /// Makes a change; anything but shard 0 refuses.
    pub(super) async fn control(self: &Rc<Self>, request: ControllerRequest) -> ControllerReply {
        let Some(controller) = &self.controller else {
            unreachable!("the router sends changes to shard 0");
        };
        let ticket = controller.changes.draw();
        ticket.turn().await;
        match request {
            ControllerRequest::CreateTopics { topics, validate_only } => {
                ControllerReply::Created(self.create_topics(topics, validate_only).await)
            }
            ControllerRequest::DeleteTopics(names) => {
                ControllerReply::Deleted(self.delete_topics(names).await)
            }
            ControllerRequest::CreatePartitions { topics, validate_only } => {
                ControllerReply::Changed(self.create_partitions(topics, validate_only).await)
            }
            ControllerRequest::SetConfigs { changes } => {
                ControllerReply::Changed(self.set_configs(changes).await)
            }
            ControllerRequest::ProducerIds => ControllerReply::ProducerIds(self.next_producer_ids().await),
            ControllerRequest::MetadataLog => ControllerReply::MetadataLog(self.metadata_log()),
        }
    }

    fn controller(&self) -> &Controller {
        match &self.controller {
            Some(controller) => controller,
            None => unreachable!("only shard 0 makes changes"),
        }
    }

    fn metadata_log(&self) -> Result<MetadataLog, ControllerError> {
        let log = self.controller().log.borrow();
        let not_open = || ControllerError::Storage("the metadata log is not open".to_owned());
        let log = log.as_ref().ok_or_else(not_open)?;
        Ok(MetadataLog { leader_epoch: log.leader_epoch(), end_offset: log.high_watermark() })
    }

    async fn next_producer_ids(self: &Rc<Self>) -> Result<(ProducerId, i64), ControllerError> {
        let first = self.controller().next_producer_id.get();
        let next_producer_id = first + PRODUCER_ID_BLOCK_COUNT;
        self.record(vec![MetadataRecord::ProducerIds { next_producer_id }]).await?;
        self.controller().next_producer_id.set(next_producer_id);
        Ok((first, PRODUCER_ID_BLOCK_COUNT))
    }

    /// Appends records of a change; the change counts once this resolves.
    async fn record(self: &Rc<Self>, records: Vec<MetadataRecord>) -> Result<(), ControllerError> {
        let log = self.controller().log.borrow().clone();
        let Some(log) = log else {
            return Err(ControllerError::Storage("the metadata log is not open".to_owned()));
        };
        let records = records.iter().map(|record| (None, Some(record.encode().into())));
        state_log::append(&log, records, None)
            .await
            .map_err(|error| ControllerError::Storage(format!("cannot record the change: {error}")))?;
        // What clients were promised about topics shall survive a power cut as well.
        log.log().flush().await.map_err(|error| ControllerError::Storage(error.to_string()))?;
        Ok(())
    }

    /// Tells every shard; resolves when all have taken the image over.
    async fn publish(self: &Rc<Self>, mut image: ClusterImage) {
        image.version += 1;
        let image = Arc::new(image);
        let mut dispatched = Vec::with_capacity(self.shards);
        // This shard last: its own work would only begin when awaited.
        for shard in (0..self.shards).rev() {
            let request = ShardRequest::Publish { image: image.clone(), starts: Vec::new() };
            dispatched.push(self.dispatch(shard, request).await);
        }
        for publishing in dispatched.into_iter().rev() {
            if let ShardReply::Unavailable = publishing.answer().await {
                tracing::error!("a shard did not take over a change of topics");
            }
        }
    }

    /// A copy of what every shard knows, to be changed.
    fn image_to_change(&self) -> ClusterImage {
        ClusterImage::clone(&self.image())
    }
}

/// Configs without those keys that were set to `None`.
fn applied(
    mut configs: BTreeMap<String, String>,
    changes: &[(String, Option<String>)],
) -> BTreeMap<String, String> {
    for (name, value) in changes {
        match value {
            Some(value) => configs.insert(name.clone(), value.clone()),
            None => configs.remove(name),
        };
    }
    configs
}
