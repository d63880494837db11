//! Applies a request of this or another shard. Whatever order matters is taken before the first await.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{PlacedBatch, Shard, ShardReply, ShardRequest};
use crate::model::{LeaderEpoch, TopicPartition};
use crate::partition::{Appended, Partition, PartitionError, PartitionRead, ReadSpec};

type Working = Pin<Box<dyn Future<Output = ShardReply>>>;

impl Shard {
    /// Begins `request`; the future finishes it.
    pub(super) fn apply(self: &Rc<Self>, request: ShardRequest) -> Working {
        let shard = self.clone();
        match request {
            ShardRequest::Append { batches, acks_all } => self.begin_appends(batches, acks_all),
            ShardRequest::Read { reads, max_bytes } => {
                Box::pin(async move { ShardReply::Read(shard.read_all(reads, max_bytes).await) })
            }
            ShardRequest::Wait { id, positions, isolation, missing_bytes, timeout_ms } => {
                Box::pin(async move {
                    let positions = positions.iter().map(|(place, offset)| (place, *offset));
                    match shard.wait_for_bytes(id, positions, isolation, missing_bytes, timeout_ms).await {
                        true => ShardReply::Done,
                        false => ShardReply::WaitedInVain,
                    }
                })
            }
            ShardRequest::CancelWait { id } => {
                self.waits.cancel(id);
                Box::pin(async { ShardReply::Done })
            }
            ShardRequest::ListOffsets { queries, isolation } => Box::pin(async move {
                let mut answers = Vec::with_capacity(queries.len());
                for (topic_partition, spec, epoch) in queries {
                    answers.push(match shard.partition(&topic_partition) {
                        Some(partition) => partition.list_offset(spec, isolation, epoch).await,
                        None => Err(PartitionError::UnknownPartition),
                    });
                }
                ShardReply::ListedOffsets(answers)
            }),
            ShardRequest::EpochEnds(queries) => {
                let answer = |(topic_partition, believed, epoch)| {
                    self.known(&topic_partition)?.epoch_end(believed, epoch)
                };
                let answers = queries.into_iter().map(answer).collect();
                Box::pin(async { ShardReply::EpochEnds(answers) })
            }
            ShardRequest::DeleteRecords(requests) => Box::pin(async move {
                let mut answers = Vec::with_capacity(requests.len());
                for (topic_partition, offset) in requests {
                    answers.push(match shard.partition(&topic_partition) {
                        Some(partition) => partition.delete_records_before(offset).await,
                        None => Err(PartitionError::UnknownPartition),
                    });
                }
                ShardReply::DeletedRecords(answers)
            }),
            ShardRequest::Sizes(wanted) => {
                let sizes = self.sizes(wanted);
                Box::pin(async { ShardReply::Sizes(sizes) })
            }
            ShardRequest::Producers(wanted) => {
                let describe = |topic_partition| Ok(self.known(&topic_partition)?.describe_producers());
                let answers = wanted.into_iter().map(describe).collect();
                Box::pin(async { ShardReply::Producers(answers) })
            }
            ShardRequest::TransactionStarts { producer_id, producer_epoch, partitions } => {
                let start = |topic_partition| {
                    Ok(self.known(&topic_partition)?.transaction_start(producer_id, producer_epoch))
                };
                let starts = partitions.into_iter().map(start).collect();
                Box::pin(async { ShardReply::TransactionStarts(starts) })
            }
            ShardRequest::WriteMarkers { marker, partitions } => {
                Box::pin(
                    async move { ShardReply::MarkersWritten(shard.append_markers(marker, partitions).await) },
                )
            }
            ShardRequest::Transaction { request, wait_ms } => {
                Box::pin(
                    async move { ShardReply::Transaction(shard.ask_transaction(request, wait_ms).await) },
                )
            }
            ShardRequest::ListTransactions(wanted) => {
                let listed = self.list_transactions(&wanted);
                Box::pin(async { ShardReply::ListedTransactions(listed) })
            }
            ShardRequest::Group(request) => {
                Box::pin(async move { ShardReply::Group(shard.ask_group(request, None).await) })
            }
            ShardRequest::GroupOnceLoaded(request) => {
                Box::pin(async move { ShardReply::Group(shard.ask_group_once_loaded(request).await) })
            }
            ShardRequest::GroupInTransaction { request, verified } => {
                Box::pin(async move { ShardReply::Group(shard.ask_group(request, verified).await) })
            }
            ShardRequest::ListGroups(request) => {
                let listed = self.list_groups(&request);
                Box::pin(async { ShardReply::ListedGroups(listed) })
            }
            ShardRequest::StreamGroup(request) => {
                Box::pin(async move { ShardReply::StreamGroup(shard.ask_stream_group(request).await) })
            }
            ShardRequest::StreamGroupNames(place) => {
                let names = self.stream_group_names(&place);
                Box::pin(async { ShardReply::StreamGroupNames(names) })
            }
            ShardRequest::ForgetStreamGroup(group) => {
                self.forget_stream_group(&group);
                Box::pin(async { ShardReply::Done })
            }
            ShardRequest::CountSubscribers { listening, shard, count } => {
                self.subscribers.set(listening, shard, count);
                Box::pin(async { ShardReply::Done })
            }
            ShardRequest::ShareFetch(fetch) => {
                Box::pin(async move { ShardReply::ShareFetched(shard.share_fetch(fetch).await) })
            }
            ShardRequest::ShareWait(wait) => Box::pin(async move {
                match shard.share_wait(wait).await {
                    true => ShardReply::Done,
                    false => ShardReply::WaitedInVain,
                }
            }),
            ShardRequest::ShareAcknowledge(request) => {
                Box::pin(async move { ShardReply::ShareAcknowledged(shard.share_acknowledge(request).await) })
            }
            ShardRequest::ShareRelease { group_id, member_id, partitions } => Box::pin(async move {
                shard.share_release(&group_id, &member_id, &partitions).await;
                ShardReply::Done
            }),
            ShardRequest::ShareClose(keys) => {
                self.close_share_partitions(|key| keys.contains(key));
                Box::pin(async { ShardReply::Done })
            }
            ShardRequest::ShareState(request) => self.begin_share_state(request),
            ShardRequest::Control(request) => {
                Box::pin(async move { ShardReply::Controlled(shard.control(request).await) })
            }
            ShardRequest::Publish { image, starts } => Box::pin(async move {
                shard.take_image(image, starts).await;
                ShardReply::Done
            }),
            ShardRequest::LeaderEpochs => {
                let epochs = self.leader_epochs();
                Box::pin(async { ShardReply::LeaderEpochs(epochs) })
            }
            ShardRequest::Checkpoint => {
                let checkpoints = self.checkpoints();
                Box::pin(async { ShardReply::Checkpoints(checkpoints) })
            }
            ShardRequest::Close => Box::pin(async move {
                let (checkpoints, all_closed) = shard.close_partitions().await;
                ShardReply::Closed { checkpoints, all_closed }
            }),
        }
    }

    fn known(&self, topic_partition: &TopicPartition) -> Result<Rc<Partition>, PartitionError> {
        self.partition(topic_partition).ok_or(PartitionError::UnknownPartition)
    }

    /// Takes a place in line at a partition of this shard now; see [`Partition::append`].
    pub fn append(
        &self,
        (topic_partition, records, verified): PlacedBatch,
        acks_all: bool,
        is_gathered: bool,
    ) -> impl Future<Output = Result<Appended, PartitionError>> + use<> {
        let begun = self.partition(&topic_partition).map(|partition| {
            self.flusher.touch(&topic_partition);
            partition.append(records, acks_all, is_gathered, verified)
        });
        async move {
            match begun {
                Some(appending) => appending.await,
                None => Err(PartitionError::UnknownPartition),
            }
        }
    }

    /// Takes a place in line at each partition now; the appends then run one after the other for one partition and
    /// side by side for several.
    fn begin_appends(&self, mut batches: Vec<PlacedBatch>, acks_all: bool) -> Working {
        let begin = |batch| self.append(batch, acks_all, false);
        // Most requests are of one batch, which needs no more than the one box.
        if batches.len() == 1
            && let Some(only) = batches.pop().map(begin)
        {
            return Box::pin(async move { ShardReply::Appended(vec![only.await]) });
        }
        let begun = batches.into_iter().map(|batch| Box::pin(begin(batch)) as Pin<Box<_>>).collect();
        Box::pin(async move { ShardReply::Appended(join_all(begun).await) })
    }

    /// Reads a partition of this shard.
    ///
    /// # Errors
    /// `UnknownPartition`, or as [`Partition::read`].
    pub async fn read(
        &self,
        topic_partition: &TopicPartition,
        spec: &ReadSpec,
    ) -> Result<PartitionRead, PartitionError> {
        self.known(topic_partition)?.read(spec).await
    }

    async fn read_all(
        &self,
        reads: Vec<(TopicPartition, ReadSpec)>,
        max_bytes: usize,
    ) -> Vec<Result<PartitionRead, PartitionError>> {
        let mut left_bytes = max_bytes;
        let mut answers = Vec::with_capacity(reads.len());
        let mut found_some = false;
        for (topic_partition, mut spec) in reads {
            spec.max_bytes = spec.max_bytes.min(left_bytes);
            // Only the first batch of an answer may overstep its limits.
            spec.at_least_one &= !found_some;
            let answer = self.read(&topic_partition, &spec).await;
            if let Ok(read) = &answer {
                left_bytes = left_bytes.saturating_sub(read.size_bytes);
                found_some |= read.size_bytes > 0;
            }
            answers.push(answer);
        }
        answers
    }

    fn leader_epochs(&self) -> Vec<(TopicPartition, LeaderEpoch)> {
        let epoch =
            |partition: &Rc<Partition>| (partition.topic_partition().clone(), partition.leader_epoch());
        self.partitions.borrow().values().map(epoch).filter(|(_, epoch)| *epoch != 0).collect()
    }

    fn sizes(&self, wanted: Option<Vec<TopicPartition>>) -> Vec<(TopicPartition, u64)> {
        let size =
            |partition: &Rc<Partition>| (partition.topic_partition().clone(), partition.log().size_bytes());
        match wanted {
            None => self.partitions.borrow().values().map(size).collect(),
            Some(wanted) => {
                wanted.iter().filter_map(|wanted| self.partition(wanted)).map(|found| size(&found)).collect()
            }
        }
    }
}

/// Runs futures side by side to their ends; answers in their order. The first poll of each happens in order.
pub(super) async fn join_all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T>>>>) -> Vec<T> {
    if futures.len() == 1
        && let Some(only) = futures.pop()
    {
        return vec![only.await];
    }
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut all_done = true;
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(done) => *result = Some(done),
                    std::task::Poll::Pending => all_done = false,
                }
            }
        }
        if all_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}
