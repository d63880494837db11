//! Markers on their way into the partitions of a transaction that has ended: asked for by the coordinator's shard,
//! appended by the owners, again and again until all of them are there.

use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use super::apply::join_all;
use super::transactions::TransactionHost;
use super::{Shard, ShardReply, ShardRequest};
use crate::base::clock;
use crate::coordinator::transaction::MarkerOrder;
use crate::model::{CONSUMER_OFFSETS_TOPIC, TopicPartition};
use crate::partition::{Marker, PartitionError};
use crate::runtime::timeout;

/// How long to wait before markers that could not be written are tried again; twice as long each time, up to the second.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

impl Shard {
    /// Writes the markers of an order, however long it takes, and tells the coordinator.
    pub(super) async fn write_markers(self: &Rc<Self>, host: &Rc<TransactionHost>, order: MarkerOrder) {
        let marker = Marker {
            producer_id: order.producer_id,
            producer_epoch: order.producer_epoch,
            coordinator_epoch: host.log.partition().leader_epoch(),
            is_commit: order.is_commit,
            has_new_epoch: order.version.bumps_epoch(),
        };
        let mut missing = order.partitions.clone();
        let mut pause = RETRY_MIN;
        loop {
            missing = self.try_markers(marker, missing).await;
            if missing.is_empty() {
                let effects = host.coordinator.borrow_mut().markers_written(&order, clock::now_ms());
                return self.carry_out_transaction(host, effects);
            }
            timeout(pause, self.stopping()).await;
            pause = RETRY_MAX.min(pause * 2);
            if self.is_stopping() {
                return; // the next start orders them again
            }
        }
    }

    /// Asks every owner once; gives back the partitions that are to be tried again.
    async fn try_markers(
        self: &Rc<Self>,
        marker: Marker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<TopicPartition> {
        let image = self.image();
        let mut of_shards: Vec<Vec<TopicPartition>> = vec![Vec::new(); self.shards];
        for partition in partitions {
            // What is not in the image was deleted, transaction and all.
            if let Some(owner) =
                image.topic(&partition.topic).and_then(|topic| topic.owner(partition.partition))
            {
                of_shards[owner].push(partition);
            }
        }
        drop(image);
        let mut dispatched = Vec::new();
        // This shard last: its own work only begins when it is awaited.
        let here = std::mem::take(&mut of_shards[self.id]);
        let parts = of_shards.into_iter().enumerate().chain([(self.id, here)]);
        for (shard, partitions) in parts.filter(|(_, partitions)| !partitions.is_empty()) {
            let request = ShardRequest::WriteMarkers { marker, partitions: partitions.clone() };
            dispatched.push((partitions, self.dispatch(shard, request).await));
        }
        let mut missing = Vec::new();
        for (partitions, asked) in dispatched.into_iter().rev() {
            match asked.answer().await {
                ShardReply::MarkersWritten(results) => {
                    let failed = partitions.into_iter().zip(results);
                    missing.extend(failed.filter_map(|(partition, result)| to_try_again(partition, result)));
                }
                _ => missing.extend(partitions),
            }
        }
        missing
    }

    /// Appends a marker to partitions of this shard; one that is there already is not written twice.
    pub(super) async fn append_markers(
        self: &Rc<Self>,
        marker: Marker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<(), PartitionError>> {
        type Appending = Pin<Box<dyn Future<Output = Result<(), PartitionError>>>>;
        let begin = |topic_partition: &TopicPartition| -> Appending {
            let Some(partition) = self.partition(topic_partition) else {
                return Box::pin(async { Err(PartitionError::UnknownPartition) });
            };
            self.flusher.touch(topic_partition);
            if topic_partition.topic.as_str() == CONSUMER_OFFSETS_TOPIC {
                let shard = self.clone();
                return Box::pin(async move { shard.end_group_transaction(&partition, marker).await });
            }
            if partition.has_marker(&marker) {
                return Box::pin(async { Ok(()) });
            }
            Box::pin(partition.append_marker(&marker))
        };
        join_all(partitions.iter().map(begin).collect()).await
    }
}

/// A partition that refuses the marker for good (the producer or the coordinator was replaced) has no more to wait for.
fn to_try_again(partition: TopicPartition, result: Result<(), PartitionError>) -> Option<TopicPartition> {
    match result {
        Ok(()) => None,
        Err(error @ PartitionError::Producer(_)) => {
            tracing::warn!(%partition, %error, "a transaction marker is not needed any more");
            None
        }
        // At a start other shards may still be opening what they own; what cannot be opened is reported by them.
        Err(error @ PartitionError::UnknownPartition) => {
            tracing::debug!(%partition, %error, "a transaction marker waits for its partition");
            Some(partition)
        }
        Err(error) => {
            tracing::warn!(%partition, %error, "a transaction marker could not be written yet");
            Some(partition)
        }
    }
}
