//! Transactions: each request goes to the shard that coordinates its transactional id; what a transaction writes is
//! first shown to be a part of it.
//!
//! Before the first records of a transaction are appended to a partition the coordinator has to say that the partition
//! is in it (or, with transaction version 2, puts it in): else records could arrive behind the marker that ended their
//! transaction, and hold back readers forever (KIP-890). The partition is asked first, and has the last word with a guard
//! against a marker that came in between.

use std::sync::Arc;

use super::{Broker, BrokerError, PartitionProduce, TopicImage};
use crate::coordinator::group::offsets_partition_for;
use crate::coordinator::transaction::transaction_partition_for;
use crate::model::group::{GroupError, GroupReply, GroupRequest, OffsetCommit};
use crate::model::transaction::{
    AddPartitions, ListTransactions, ListedTransaction, TransactionError, TransactionReply,
    TransactionRequest, TransactionVersion,
};
use crate::model::{
    PartitionIndex, ProducerEpoch, ProducerId, ShardId, TRANSACTION_STATE_TOPIC, TopicPartition,
};
use crate::partition::{Marker, TransactionStart, Verified};
use crate::record::BatchHeader;
use crate::shard::{ShardReply, ShardRequest};

/// The coordinator is asked so often at most whether partitions are in a transaction; one new marker voids its answer once.
const VERIFICATIONS_COUNT_MAX: usize = 4;

/// What a client that writes in a transaction can be told and does by itself, by the version of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionSupport {
    /// It has added the partition, and knows INVALID_TXN_STATE only.
    Plain,
    /// It has added the partition, and knows TRANSACTION_ABORTABLE.
    Abortable,
    /// It leaves it to the server to add the partition: transaction version 2.
    AddsPartitions,
}

/// Whose transaction a produce request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTransaction {
    /// The transactional id.
    pub transactional_id: String,
    /// What the client knows.
    pub support: TransactionSupport,
}

/// A producer's part in a transaction: transactional id, producer id, epoch.
struct Participant<'a> {
    transactional_id: &'a str,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    support: TransactionSupport,
}

impl Broker {
    /// Asks the coordinator of the request's transactional id. Makes the transaction state topic on first use.
    pub async fn transaction(&self, request: TransactionRequest) -> TransactionReply {
        self.transaction_within(request, 0).await
    }

    async fn transaction_within(&self, request: TransactionRequest, wait_ms: u64) -> TransactionReply {
        let refused = request.refused(TransactionError::CoordinatorNotAvailable);
        let Ok(shard) = self.transaction_coordinator(request.transactional_id()).await else {
            return refused;
        };
        match self.shard.call(shard, ShardRequest::Transaction { request, wait_ms }).await {
            ShardReply::Transaction(reply) => reply,
            _ => refused,
        }
    }

    /// Asks every coordinator for its transactional ids.
    ///
    /// # Errors
    /// `CoordinatorLoadInProgress`, `CoordinatorNotAvailable`.
    pub async fn list_transactions(
        &self,
        wanted: ListTransactions,
    ) -> Result<Vec<ListedTransaction>, TransactionError> {
        let mut listed = Vec::new();
        for shard in 0..self.shards() {
            match self.shard.call(shard, ShardRequest::ListTransactions(wanted.clone())).await {
                ShardReply::ListedTransactions(of_shard) => listed.extend(of_shard?),
                _ => return Err(TransactionError::CoordinatorNotAvailable),
            }
        }
        Ok(listed)
    }

    /// The shard that coordinates the transactional id; makes the state topic on first use, as Kafka does.
    ///
    /// # Errors
    /// If the state topic cannot be made.
    pub async fn transaction_coordinator(&self, transactional_id: &str) -> Result<ShardId, BrokerError> {
        let topic = self.transaction_state_topic().await?;
        let count = PartitionIndex::try_from(topic.partitions.len()).unwrap_or(PartitionIndex::MAX);
        topic
            .owner(transaction_partition_for(transactional_id, count))
            .ok_or(BrokerError::UnknownTopicOrPartition)
    }

    async fn transaction_state_topic(&self) -> Result<Arc<TopicImage>, BrokerError> {
        self.internal_topic(TRANSACTION_STATE_TOPIC, self.config().transaction_state_log_num_partitions).await
    }

    /// The partition that keeps the offsets of a group; makes the offsets topic on first use.
    ///
    /// # Errors
    /// If the offsets topic cannot be made.
    pub async fn offsets_partition(&self, group_id: &str) -> Result<TopicPartition, BrokerError> {
        let topic = self.offsets_topic().await?;
        let count = PartitionIndex::try_from(topic.partitions.len()).unwrap_or(PartitionIndex::MAX);
        Ok(TopicPartition::new(topic.name.clone(), offsets_partition_for(group_id, count)))
    }

    /// Writes a marker into partitions, whatever their coordinators think of it (WriteTxnMarkers); one answer for each,
    /// in order.
    pub async fn write_markers(
        &self,
        marker: Marker,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<(), BrokerError>> {
        let questions = partitions.into_iter().map(|partition| (partition, ())).collect();
        let request = |partitions: Vec<(TopicPartition, ())>| ShardRequest::WriteMarkers {
            marker,
            partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
        };
        let answers = |reply| match reply {
            ShardReply::MarkersWritten(answers) => Some(answers),
            _ => None,
        };
        self.ask_owners(questions, request, answers).await
    }

    /// Commits offsets as a part of a transaction (TxnOffsetCommit). `commit` names the producer.
    pub async fn commit_offsets_in_transaction(
        &self,
        transactional_id: &str,
        support: TransactionSupport,
        commit: OffsetCommit,
    ) -> GroupReply {
        let refused = |error| GroupReply::OffsetCommit(commit.refused(error));
        let Some((producer_id, producer_epoch)) = commit.producer else {
            return refused(GroupError::Transaction(TransactionError::InvalidProducerIdMapping));
        };
        let participant = Participant { transactional_id, producer_id, producer_epoch, support };
        let Ok(partition) = self.offsets_partition(&commit.group_id).await else {
            return refused(GroupError::CoordinatorNotAvailable);
        };
        let mut answers = self.verify(&participant, vec![partition.clone()]).await;
        let verified = match answers.pop().unwrap_or(Err(BrokerError::ShardUnavailable)) {
            Ok(verified) => verified,
            Err(BrokerError::Transaction(error)) => return refused(GroupError::Transaction(error)),
            Err(_) => return refused(GroupError::CoordinatorNotAvailable),
        };
        let Ok(owner) = self.owner(&partition) else {
            return refused(GroupError::NotCoordinator);
        };
        let gone = refused(GroupError::CoordinatorNotAvailable);
        let request = GroupRequest::OffsetCommit(commit);
        match self.shard.call(owner, ShardRequest::GroupInTransaction { request, verified }).await {
            ShardReply::Group(reply) => reply,
            _ => gone,
        }
    }

    /// Shows that the transactional batches of a produce request belong to an open transaction; one answer for each
    /// partition, in order: what the append has to be told.
    pub(super) async fn verify_produce(
        &self,
        transaction: &ProduceTransaction,
        partitions: &[PartitionProduce],
    ) -> Vec<Result<Option<Verified>, BrokerError>> {
        let mut producer = None;
        let mut indexes = Vec::new();
        let mut asked = Vec::new();
        for (index, partition) in partitions.iter().enumerate() {
            // What is no batch at all is refused by the partition.
            let Ok(header) = BatchHeader::parse(&partition.records) else { continue };
            if !header.is_transactional() {
                continue;
            }
            let of_batch = (header.producer_id, header.producer_epoch);
            if *producer.get_or_insert(of_batch) != of_batch {
                let error = BrokerError::Transaction(TransactionError::InvalidProducerIdMapping);
                return partitions.iter().map(|_| Err(error.clone())).collect();
            }
            indexes.push(index);
            asked.push(partition.topic_partition.clone());
        }
        let mut answers: Vec<_> = partitions.iter().map(|_| Ok(None)).collect();
        if let Some((producer_id, producer_epoch)) = producer {
            let (transactional_id, support) = (transaction.transactional_id.as_str(), transaction.support);
            let participant = Participant { transactional_id, producer_id, producer_epoch, support };
            for (index, answer) in indexes.into_iter().zip(self.verify(&participant, asked).await) {
                answers[index] = answer;
            }
        }
        answers
    }

    /// Asks the partitions, and the coordinator about those in which the transaction is not open yet.
    ///
    /// A producer of transaction version 2 begins its next transaction while markers of the last one are on their way; the
    /// coordinator answers once they are there. What it says is void for a partition that took one meanwhile, so that is
    /// looked at again.
    async fn verify(
        &self,
        participant: &Participant<'_>,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<Option<Verified>, BrokerError>> {
        let mut starts = self.transaction_starts(participant, partitions.clone()).await;
        let mut said = Vec::new();
        for attempt in 1..=VERIFICATIONS_COUNT_MAX {
            let is_unknown = |start: &_| matches!(start, Ok(TransactionStart::Unknown(_)));
            let of_start = partitions.iter().zip(&starts);
            let unknown: Vec<_> = of_start
                .filter(|(_, start)| is_unknown(start))
                .map(|(partition, _)| partition.clone())
                .collect();
            if unknown.is_empty() {
                break;
            }
            said = self.ask_about(participant, unknown).await;
            if participant.support != TransactionSupport::AddsPartitions || said.iter().any(Result::is_err) {
                break;
            }
            let now = self.transaction_starts(participant, partitions.clone()).await;
            let is_settled = now.iter().zip(&starts).all(|(now, before)| now == before || !is_unknown(now));
            if is_settled || attempt == VERIFICATIONS_COUNT_MAX {
                break;
            }
            starts = now;
        }
        let mut said = said.into_iter();
        let begins_at_zero = participant.support == TransactionSupport::AddsPartitions;
        starts
            .into_iter()
            .map(|start| match start? {
                TransactionStart::Open => Ok(None),
                TransactionStart::Unknown(guard) => {
                    said.next().unwrap_or(Err(BrokerError::ShardUnavailable))?;
                    Ok(Some(Verified { guard, begins_at_zero }))
                }
            })
            .collect()
    }

    async fn transaction_starts(
        &self,
        participant: &Participant<'_>,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<TransactionStart, BrokerError>> {
        let questions = partitions.into_iter().map(|partition| (partition, ())).collect();
        let (producer_id, producer_epoch) = (participant.producer_id, participant.producer_epoch);
        let request = |partitions: Vec<(TopicPartition, ())>| ShardRequest::TransactionStarts {
            producer_id,
            producer_epoch,
            partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
        };
        let answers = |reply| match reply {
            ShardReply::TransactionStarts(starts) => Some(starts),
            _ => None,
        };
        self.ask_owners(questions, request, answers).await
    }

    /// What the coordinator says of partitions, one answer for each.
    async fn ask_about(
        &self,
        participant: &Participant<'_>,
        partitions: Vec<TopicPartition>,
    ) -> Vec<Result<(), BrokerError>> {
        let count = partitions.len();
        let config = self.config();
        let adds = participant.support == TransactionSupport::AddsPartitions;
        if !adds && !config.transaction_partition_verification_enable {
            return vec![Ok(()); count];
        }
        let request = AddPartitions {
            transactional_id: participant.transactional_id.to_owned(),
            producer_id: participant.producer_id,
            producer_epoch: participant.producer_epoch,
            version: if adds { TransactionVersion::V2 } else { TransactionVersion::V0 },
            partitions,
        };
        let reply = if adds {
            let wait_ms = config.add_partitions_to_txn_retry_backoff_max_ms;
            self.transaction_within(TransactionRequest::AddPartitions(request), wait_ms).await
        } else {
            self.transaction_within(TransactionRequest::VerifyPartitions(request), 0).await
        };
        match reply {
            TransactionReply::AddPartitions(Ok(())) => vec![Ok(()); count],
            TransactionReply::VerifyPartitions(Ok(are_in)) => {
                let missing = match participant.support {
                    TransactionSupport::Plain => TransactionError::InvalidTransactionState,
                    _ => TransactionError::TransactionAbortable,
                };
                let say = |is_in| if is_in { Ok(()) } else { Err(BrokerError::Transaction(missing)) };
                are_in.into_iter().map(say).collect()
            }
            TransactionReply::AddPartitions(Err(error)) | TransactionReply::VerifyPartitions(Err(error)) => {
                vec![Err(BrokerError::Transaction(of_partition(error))); count]
            }
            _ => vec![Err(BrokerError::ShardUnavailable); count],
        }
    }
}

/// What a partition says where the coordinator says `error`.
fn of_partition(error: TransactionError) -> TransactionError {
    match error {
        TransactionError::ProducerFenced => TransactionError::InvalidProducerEpoch,
        other => other,
    }
}
