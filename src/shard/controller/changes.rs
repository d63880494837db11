//! The changes themselves: what is allowed, which records they make, what the next image looks like.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::{ControllerError, NewPartitions, NewTopic, TopicChange, applied};
use crate::base::random;
use crate::config::{self, Config, TopicConfig};
use crate::metadata::placement::ShardLoads;
use crate::metadata::records::{ConfigOwner, MetadataRecord};
use crate::metadata::{ClusterImage, PartitionImage, TopicImage};
use crate::model::{
    CONSUMER_OFFSETS_TOPIC, PartitionIndex, SHARE_GROUP_STATE_TOPIC, STREAM_GROUPS_TOPIC, ShardId,
    TRANSACTION_STATE_TOPIC, TopicName, Uuid,
};
use crate::shard::Shard;

impl Shard {
    pub(super) async fn create_topics(
        self: &Rc<Self>,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Vec<Result<Arc<TopicImage>, ControllerError>> {
        let mut image = self.image_to_change();
        let mut loads = self.loads(&image);
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(topics.len());
        for topic in topics {
            let made = self.plan_topic(&topic, &image, &mut loads);
            if let Ok(topic) = &made {
                records.extend(self.records_of(topic));
                image.insert(topic.clone());
            }
            answers.push(made.map(Arc::new));
        }
        if validate_only || records.is_empty() {
            return answers;
        }
        self.commit(records, image, answers).await
    }

    /// Records a change and publishes it; if it cannot be recorded, whoever was told yes is told why not.
    async fn commit<T>(
        self: &Rc<Self>,
        records: Vec<MetadataRecord>,
        image: ClusterImage,
        mut answers: Vec<Result<T, ControllerError>>,
    ) -> Vec<Result<T, ControllerError>> {
        match self.record(records).await {
            Ok(()) => self.publish(image).await,
            Err(error) => {
                for answer in answers.iter_mut().filter(|answer| answer.is_ok()) {
                    *answer = Err(error.clone());
                }
            }
        }
        answers
    }

    fn plan_topic(
        &self,
        topic: &NewTopic,
        image: &ClusterImage,
        loads: &mut ShardLoads,
    ) -> Result<TopicImage, ControllerError> {
        let config = self.config();
        let name = TopicName::new(&topic.name)
            .map_err(|illegal| ControllerError::InvalidTopic(illegal.to_string()))?;
        if image.topic(&name).is_some() {
            return Err(ControllerError::TopicExists(format!("Topic '{name}' already exists.")));
        }
        if let Some(other) = colliding_name(&name, image) {
            return Err(ControllerError::InvalidTopic(format!(
                "Topic '{name}' collides with existing topic: {other}"
            )));
        }
        let count = partition_count(topic, &config)?;
        check_room(count, image, &config)?;
        let configs = topic_configs(topic, &config)?;
        let owners = loads.place_topic(&vec![0; count]);
        let partitions = owners.into_iter().map(|owner| PartitionImage { owner, leader_epoch: 0 }).collect();
        Ok(TopicImage { name, id: random::uuid(), partitions, configs })
    }

    fn records_of(&self, topic: &TopicImage) -> Vec<MetadataRecord> {
        let mut records = vec![MetadataRecord::Topic { name: topic.name.to_string(), id: topic.id }];
        records.extend((0..topic.partitions.len()).map(|index| self.partition_record(topic.id, index)));
        records.extend(topic.configs.iter().map(|(name, value)| MetadataRecord::Config {
            owner: ConfigOwner::Topic(topic.name.to_string()),
            name: name.clone(),
            value: Some(value.clone()),
        }));
        records
    }

    fn partition_record(&self, topic_id: Uuid, index: usize) -> MetadataRecord {
        MetadataRecord::Partition {
            topic_id,
            partition: PartitionIndex::try_from(index).unwrap_or(PartitionIndex::MAX),
            leader: self.config().node_id,
            leader_epoch: 0,
        }
    }

    /// How many partitions each shard has; a new topic's first partition goes to a shard with the fewest.
    fn loads(&self, image: &ClusterImage) -> ShardLoads {
        let mut loads = ShardLoads::new(self.shards());
        for partition in image.topics().flat_map(|topic| &topic.partitions) {
            loads.add(partition.owner, 0);
        }
        loads
    }

    pub(super) async fn delete_topics(
        self: &Rc<Self>,
        names: Vec<TopicName>,
    ) -> Vec<Result<Uuid, ControllerError>> {
        let mut image = self.image_to_change();
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(names.len());
        for name in names {
            if !self.config().delete_topic_enable {
                let text = "Topic deletion is disabled (delete.topic.enable=false).";
                answers.push(Err(ControllerError::PolicyViolation(text.to_owned())));
                continue;
            }
            answers.push(match image.remove(&name) {
                Some(topic) => {
                    records.push(MetadataRecord::RemoveTopic { id: topic.id });
                    Ok(topic.id)
                }
                None => Err(ControllerError::UnknownTopic),
            });
        }
        if records.is_empty() {
            return answers;
        }
        self.commit(records, image, answers).await
    }

    pub(super) async fn create_partitions(
        self: &Rc<Self>,
        topics: Vec<NewPartitions>,
        validate_only: bool,
    ) -> Vec<Result<(), ControllerError>> {
        let mut image = self.image_to_change();
        let mut loads = self.loads(&image);
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(topics.len());
        for wanted in topics {
            let checked = check_new_partitions(&wanted, &image, &self.config());
            answers.push(checked.map(|(mut topic, total_count)| {
                let old_count = topic.partitions.len();
                records.extend((old_count..total_count).map(|index| self.partition_record(topic.id, index)));
                extend_partitions(&mut topic, total_count, &mut loads);
                image.insert(topic);
            }));
        }
        if validate_only || records.is_empty() {
            return answers;
        }
        self.commit(records, image, answers).await
    }

    pub(super) async fn set_configs(
        self: &Rc<Self>,
        changes: Vec<TopicChange>,
    ) -> Vec<Result<(), ControllerError>> {
        let mut image = self.image_to_change();
        let mut records = Vec::new();
        let mut answers = Vec::with_capacity(changes.len());
        for change in changes {
            match &change.owner {
                ConfigOwner::Broker(_) => {
                    image.broker_configs =
                        applied(std::mem::take(&mut image.broker_configs), &change.configs);
                }
                ConfigOwner::Group(group) => {
                    let before = image.group_configs.remove(group).unwrap_or_default();
                    let after = applied(before, &change.configs);
                    if !after.is_empty() {
                        image.group_configs.insert(group.clone(), after);
                    }
                }
                ConfigOwner::Topic(name) => {
                    let Some(topic) = image.topic(name) else {
                        answers.push(Err(ControllerError::UnknownTopic));
                        continue;
                    };
                    let mut topic = TopicImage::clone(topic);
                    topic.configs = applied(topic.configs, &change.configs);
                    image.insert(topic);
                }
            }
            let owner = change.owner;
            records.extend(change.configs.into_iter().map(|(name, value)| MetadataRecord::Config {
                owner: owner.clone(),
                name,
                value,
            }));
            answers.push(Ok(()));
        }
        if records.is_empty() {
            return answers;
        }
        self.commit(records, image, answers).await
    }
}

/// Kafka's metric names replace '.' by '_', so it refuses names that differ in nothing else.
fn colliding_name(name: &TopicName, image: &ClusterImage) -> Option<TopicName> {
    if !name.contains(['.', '_']) {
        return None;
    }
    let folded = name.replace('.', "_");
    image.topics().find(|topic| topic.name.replace('.', "_") == folded).map(|topic| topic.name.clone())
}

fn partition_count(topic: &NewTopic, config: &Config) -> Result<usize, ControllerError> {
    if topic.assignment.is_empty() {
        if !matches!(topic.replication_factor, -1 | 1) {
            return Err(ControllerError::InvalidReplicationFactor(format!(
                "Unable to replicate the partition {} time(s): The target replication factor of {} cannot be reached \
                 because only 1 broker(s) are registered.",
                topic.replication_factor, topic.replication_factor
            )));
        }
        let count = if topic.partition_count == -1 { config.num_partitions } else { topic.partition_count };
        return usize::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
            ControllerError::InvalidPartitions(
                "Number of partitions was set to an invalid non-positive value.".to_owned(),
            )
        });
    }
    if topic.partition_count != -1 || topic.replication_factor != -1 {
        return Err(ControllerError::InvalidRequest(
            "A manual partition assignment was specified, but numPartitions or replicationFactor was not set to -1."
                .to_owned(),
        ));
    }
    let mut indexes: Vec<i32> = topic.assignment.iter().map(|(index, _)| *index).collect();
    indexes.sort_unstable();
    if !indexes.iter().zip(0..).all(|(index, expected)| *index == expected) {
        return Err(ControllerError::InvalidAssignment(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    for (_, replicas) in &topic.assignment {
        check_replicas(replicas, config.node_id)?;
    }
    Ok(indexes.len())
}

/// One node has one replica; which of its shards owns the partition is not the client's to say.
fn check_replicas(replicas: &[i32], node_id: i32) -> Result<(), ControllerError> {
    match replicas {
        [replica] if *replica == node_id => Ok(()),
        [replica] => Err(ControllerError::InvalidAssignment(format!(
            "The manual partition assignment includes broker {replica}, but no such broker is registered."
        ))),
        [] => Err(ControllerError::InvalidAssignment(
            "The manual partition assignment includes an empty replica list.".to_owned(),
        )),
        _ => Err(ControllerError::InvalidAssignment(
            "The manual partition assignment asks for more than one replica, and this server is one node."
                .to_owned(),
        )),
    }
}

fn check_room(count: usize, image: &ClusterImage, config: &Config) -> Result<(), ControllerError> {
    let there: usize = image.topics().map(|topic| topic.partitions.len()).sum();
    if there + count > config.partitions_max {
        return Err(ControllerError::PolicyViolation(format!(
            "This server would have {} partitions, and partitions.max is {}.",
            there + count,
            config.partitions_max
        )));
    }
    Ok(())
}

fn topic_configs(topic: &NewTopic, broker: &Config) -> Result<BTreeMap<String, String>, ControllerError> {
    match topic.name.as_str() {
        CONSUMER_OFFSETS_TOPIC | STREAM_GROUPS_TOPIC => return Ok(offsets_topic_configs(broker)),
        TRANSACTION_STATE_TOPIC => return Ok(transaction_topic_configs(broker)),
        _ => {}
    }
    if topic.name == SHARE_GROUP_STATE_TOPIC {
        return Ok(share_state_topic_configs(broker));
    }
    let mut configs = BTreeMap::new();
    for (name, value) in &topic.configs {
        let Some(value) = value else {
            return Err(ControllerError::InvalidConfig(format!(
                "Null value not supported for topic configs: {name}"
            )));
        };
        config::validate_topic_override(name, value)
            .map_err(|error| ControllerError::InvalidConfig(error.to_string()))?;
        configs.insert(name.clone(), value.clone());
    }
    TopicConfig::resolve(broker, &configs)
        .map_err(|error| ControllerError::InvalidConfig(error.to_string()))?;
    Ok(configs)
}

/// What Kafka sets on the topic that keeps what share groups have read: nothing goes by age, the share coordinators let
/// go what they have written anew.
fn share_state_topic_configs(broker: &Config) -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "delete".to_owned()),
        ("retention.ms", "-1".to_owned()),
        ("segment.bytes", broker.share_coordinator_state_topic_segment_bytes.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What Kafka sets on the offsets topic.
fn offsets_topic_configs(broker: &Config) -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "producer".to_owned()),
        ("segment.bytes", broker.offsets_topic_segment_bytes.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// What Kafka sets on the topic of transaction state.
fn transaction_topic_configs(broker: &Config) -> BTreeMap<String, String> {
    [
        ("cleanup.policy", "compact".to_owned()),
        ("compression.type", "uncompressed".to_owned()),
        ("min.insync.replicas", "1".to_owned()),
        ("segment.bytes", broker.transaction_state_log_segment_bytes.to_string()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The topic as it is, and how many partitions it shall have.
fn check_new_partitions(
    wanted: &NewPartitions,
    image: &ClusterImage,
    config: &Config,
) -> Result<(TopicImage, usize), ControllerError> {
    let topic = image.topic(&wanted.name).ok_or(ControllerError::UnknownTopic)?;
    let old_count = topic.partitions.len();
    let total_count = usize::try_from(wanted.total_count).unwrap_or(0);
    if total_count <= old_count {
        let relation = if total_count == old_count { "already has" } else { "currently has" };
        return Err(ControllerError::InvalidPartitions(format!(
            "The topic {} {relation} {old_count} partition(s); {} would not be an increase.",
            topic.name, wanted.total_count
        )));
    }
    if let Some(assignments) = &wanted.assignments {
        if assignments.len() != total_count - old_count {
            return Err(ControllerError::InvalidAssignment(format!(
                "Attempted to add {} additional partition(s), but only {} assignment(s) were specified.",
                total_count - old_count,
                assignments.len()
            )));
        }
        assignments.iter().try_for_each(|replicas| check_replicas(replicas, config.node_id))?;
    }
    check_room(total_count - old_count, image, config)?;
    Ok((TopicImage::clone(topic), total_count))
}

/// The partitions that there are stay where they are; the new ones go where the topic has the fewest.
fn extend_partitions(topic: &mut TopicImage, total_count: usize, loads: &mut ShardLoads) {
    let new_owners: Vec<ShardId> = loads.place_topic(&vec![0; total_count - topic.partitions.len()]);
    topic.partitions.extend(new_owners.into_iter().map(|owner| PartitionImage { owner, leader_epoch: 0 }));
}
