//! The controller's start: replay `__cluster_metadata`, make it agree with the directories, place every partition.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashSet;

use super::{ControllerError, applied};
use crate::metadata::placement::ShardLoads;
use crate::metadata::records::{ConfigOwner, MetadataRecord};
use crate::metadata::{ClusterImage, PartitionImage, TopicImage};
use crate::model::{PartitionIndex, TopicName, TopicPartition, Uuid};
use crate::record::{self, Batches};
use crate::runtime::{blocking, directory};
use crate::shard::partitions::cluster_metadata_partition;
use crate::shard::state_log::{self, StateEntry};
use crate::shard::{FoundTopics, Shard, ShardReply, ShardRequest, StartPartition};

/// What the metadata log says, record by record.
#[derive(Debug, Default)]
struct Replayed {
    names: BTreeMap<Uuid, String>,
    partition_counts: BTreeMap<Uuid, usize>,
    topic_configs: BTreeMap<String, BTreeMap<String, String>>,
    broker_configs: BTreeMap<String, String>,
    group_configs: BTreeMap<String, BTreeMap<String, String>>,
    removed: AHashSet<Uuid>,
    next_producer_id: i64,
}

impl Replayed {
    fn apply(&mut self, value: &[u8]) {
        let record = match MetadataRecord::decode(value) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "a metadata record is skipped");
                return;
            }
        };
        match record {
            MetadataRecord::Topic { name, id } => {
                self.names.insert(id, name);
            }
            MetadataRecord::Partition { topic_id, partition, .. } => {
                let count = usize::try_from(partition).unwrap_or(0) + 1;
                let known = self.partition_counts.entry(topic_id).or_default();
                *known = count.max(*known);
            }
            MetadataRecord::Config { owner, name, value } => {
                let configs = match owner {
                    ConfigOwner::Topic(topic) => self.topic_configs.entry(topic).or_default(),
                    ConfigOwner::Broker(_) => &mut self.broker_configs,
                    ConfigOwner::Group(group) => self.group_configs.entry(group).or_default(),
                };
                *configs = applied(std::mem::take(configs), &[(name, value)]);
            }
            MetadataRecord::RemoveTopic { id } => {
                if let Some(name) = self.names.remove(&id) {
                    self.topic_configs.remove(&name);
                }
                self.partition_counts.remove(&id);
                self.removed.insert(id);
            }
            MetadataRecord::ProducerIds { next_producer_id } => self.next_producer_id = next_producer_id,
        }
    }
}

impl Shard {
    /// Replays the metadata log, takes in directories that it does not know (another server's, or a copy), places all
    /// partitions and publishes the first image. Resolves when every shard has opened its partitions.
    ///
    /// # Errors
    /// If the metadata log cannot be opened, read or written.
    pub async fn load_cluster(
        self: &Rc<Self>,
        found: FoundTopics,
        starts: Vec<StartPartition>,
    ) -> Result<(), ControllerError> {
        let storage_error = |error: &dyn std::fmt::Display| ControllerError::Storage(error.to_string());
        let metadata_partition = cluster_metadata_partition();
        let start = starts.iter().find(|start| start.topic_partition == metadata_partition).cloned();
        let config = self.topic_config(&TopicImage {
            name: metadata_partition.topic.clone(),
            id: METADATA_TOPIC_ID,
            partitions: vec![PartitionImage { owner: 0, leader_epoch: 0 }],
            configs: [("cleanup.policy".to_owned(), "compact".to_owned())].into(),
        });
        let log = self
            .open_partition(metadata_partition, METADATA_TOPIC_ID, config, start)
            .await
            .map_err(|error| storage_error(&error))?;

        let mut replayed = Replayed::default();
        self.replay_snapshot(&log, &mut replayed).await;
        state_log::replay(&log, |entry| {
            if let StateEntry::Record { value: Some(value), .. } = entry {
                replayed.apply(value);
            }
        })
        .await
        .map_err(|error| storage_error(&error))?;
        let controller = self.controller();
        controller.next_producer_id.set(replayed.next_producer_id);
        *controller.log.borrow_mut() = Some(log.clone());
        self.partitions.borrow_mut().insert(log.topic_partition().clone(), log);

        let (mut image, adopted) = self.reconcile(replayed, &found);
        if !adopted.is_empty() {
            self.record(adopted).await?;
        }
        image.version = 1;
        self.publish_first(image, starts).await;
        Ok(())
    }

    /// A KRaft snapshot beside the log, as a Kafka that ran for long leaves one; what it holds comes before the log.
    async fn replay_snapshot(&self, log: &Rc<crate::partition::Partition>, replayed: &mut Replayed) {
        let dir = self.data_dir.join(log.topic_partition().to_string());
        let read = blocking(move || {
            let newest =
                directory::list_now(&dir)?.into_iter().rev().find(|name| name.ends_with(".checkpoint"));
            newest.map(|name| std::fs::read(dir.join(name))).transpose()
        });
        let bytes = match read.await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "cannot read the metadata snapshot");
                return;
            }
        };
        for batch in Batches::new(&bytes).map_while(Result::ok).filter(|batch| !batch.header.is_control()) {
            // Unreadable records end the snapshot; the log behind it still counts.
            let _ = record::for_each_record(batch.bytes, |record| {
                record.value.into_iter().for_each(|value| replayed.apply(value));
                ControlFlow::Continue(())
            });
        }
    }

    /// The topics of the log and those of the directories as one image, with records for what the log did not know.
    fn reconcile(&self, replayed: Replayed, found: &FoundTopics) -> (ClusterImage, Vec<MetadataRecord>) {
        let mut topics: BTreeMap<TopicName, (Uuid, usize)> = BTreeMap::new();
        for (id, name) in &replayed.names {
            let count = replayed.partition_counts.get(id).copied().unwrap_or(0);
            match TopicName::new(name) {
                Ok(name) if count > 0 => drop(topics.insert(name, (*id, count))),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "a topic of the metadata log is left out"),
            }
        }
        let mut adopted = Vec::new();
        for (name, (id, partitions)) in found {
            let on_disk =
                partitions.keys().next_back().map_or(0, |last| usize::try_from(*last).unwrap_or(0) + 1);
            if id.is_some_and(|id| replayed.removed.contains(&id)) {
                self.remove_leftovers(name, partitions);
                continue;
            }
            let (id, known) = match topics.get(name) {
                Some((id, count)) => (*id, *count),
                None => {
                    let id = id.unwrap_or_else(crate::base::random::uuid);
                    tracing::info!(topic = %name, partitions = on_disk, "taking in a topic found in the data directory");
                    adopted.push(MetadataRecord::Topic { name: name.to_string(), id });
                    (id, 0)
                }
            };
            adopted.extend((known..on_disk).map(|index| MetadataRecord::Partition {
                topic_id: id,
                partition: PartitionIndex::try_from(index).unwrap_or(PartitionIndex::MAX),
                leader: self.config().node_id,
                leader_epoch: 0,
            }));
            topics.insert(name.clone(), (id, known.max(on_disk)));
        }
        let mut image = ClusterImage::default();
        image.broker_configs = replayed.broker_configs;
        image.group_configs = replayed.group_configs;
        image.group_configs.retain(|_, configs| !configs.is_empty());
        for topic in self.place(topics, found, replayed.topic_configs) {
            image.insert(topic);
        }
        (image, adopted)
    }

    /// A topic was deleted and the server stopped before its files were gone.
    fn remove_leftovers(&self, name: &TopicName, partitions: &BTreeMap<PartitionIndex, u64>) {
        for partition in partitions.keys() {
            let dir = self.data_dir.join(format!("{name}-{partition}"));
            crate::runtime::spawn_detached(async move {
                if let Err(error) = directory::remove_all(&dir).await {
                    tracing::error!(dir = %dir.display(), %error, "cannot remove what is left of a deleted topic");
                }
            });
        }
    }

    /// Owners for all partitions: topics with the most bytes first, so that the rest evens out what they make uneven.
    fn place(
        &self,
        topics: BTreeMap<TopicName, (Uuid, usize)>,
        found: &FoundTopics,
        mut configs: BTreeMap<String, BTreeMap<String, String>>,
    ) -> Vec<TopicImage> {
        let mut sized: Vec<(TopicName, Uuid, Vec<u64>)> = topics
            .into_iter()
            .map(|(name, (id, count))| {
                let on_disk = found.get(&name).map(|(_, partitions)| partitions);
                let size = |index: usize| {
                    let index = PartitionIndex::try_from(index).ok()?;
                    on_disk?.get(&index).copied()
                };
                let sizes = (0..count).map(|index| size(index).unwrap_or(0)).collect();
                (name, id, sizes)
            })
            .collect();
        sized.sort_by_key(|(_, _, sizes)| std::cmp::Reverse(sizes.iter().sum::<u64>()));
        let mut loads = ShardLoads::new(self.shards());
        sized
            .into_iter()
            .map(|(name, id, sizes)| {
                let owners = loads.place_topic(&sizes);
                let partitions =
                    owners.into_iter().map(|owner| PartitionImage { owner, leader_epoch: 0 }).collect();
                let configs = configs.remove(name.as_str()).unwrap_or_default();
                TopicImage { name, id, partitions, configs }
            })
            .collect()
    }

    /// The first image, to each shard with what is known of its partitions.
    async fn publish_first(self: &Rc<Self>, image: ClusterImage, starts: Vec<StartPartition>) {
        let mut of_shards: Vec<Vec<StartPartition>> = (0..self.shards()).map(|_| Vec::new()).collect();
        for start in starts {
            let TopicPartition { topic, partition } = &start.topic_partition;
            if let Some(owner) = image.topic(topic).and_then(|topic| topic.owner(*partition)) {
                of_shards[owner].push(start);
            }
        }
        let image = Arc::new(image);
        let mut dispatched = Vec::with_capacity(self.shards());
        for (shard, starts) in of_shards.into_iter().enumerate().rev() {
            dispatched
                .push(self.dispatch(shard, ShardRequest::Publish { image: image.clone(), starts }).await);
        }
        for publishing in dispatched.into_iter().rev() {
            publishing.answer().await;
        }
        self.publish_leader_epochs(ClusterImage::clone(&image)).await;
    }

    /// The epochs that the owners found in their logs; clients are told the same one by whichever shard they ask.
    async fn publish_leader_epochs(self: &Rc<Self>, mut image: ClusterImage) {
        let mut found = Vec::new();
        for shard in 0..self.shards() {
            if let ShardReply::LeaderEpochs(epochs) = self.call(shard, ShardRequest::LeaderEpochs).await {
                found.extend(epochs);
            }
        }
        if !found.is_empty() {
            image.set_leader_epochs(found);
            self.publish(image).await;
        }
    }
}

/// The id that KRaft gives its metadata topic.
const METADATA_TOPIC_ID: Uuid = Uuid::from_u128(1);
