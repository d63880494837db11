//! AddPartitionsToTxn (key 24), versions 0 to 5.
//!
//! 2: PRODUCER_FENCED | 3: flexible | 4: many transactions at once, and asking only (KIP-890) | 5: TRANSACTION_ABORTABLE.
//!
//! Versions from 4 on are for brokers, which ask for their producers; this server asks itself, and answers whoever asks.
//! All partitions of a transaction are added, or none.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::{RequestContext, transaction_code};
use crate::kafka::error_code;
use crate::model::TopicPartition;
use crate::model::transaction::{
    AddPartitions, TransactionError, TransactionReply, TransactionRequest, TransactionVersion,
};

/// The first version with many transactions.
const BATCHED_VERSION: i16 = 4;
/// The first version that knows TRANSACTION_ABORTABLE.
const ABORTABLE_VERSION: i16 = 5;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let response = AddPartitionsToTxnResponse::default();
    if ctx.version() < BATCHED_VERSION {
        let add = AddPartitions {
            transactional_id: request.v3_and_below_transactional_id.to_string(),
            producer_id: request.v3_and_below_producer_id.0,
            producer_epoch: request.v3_and_below_producer_epoch,
            version: TransactionVersion::V0,
            partitions: Vec::new(),
        };
        let results = add_topics(ctx, add, &request.v3_and_below_topics, false).await;
        return response.with_results_by_topic_v3_and_below(results);
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        let add = AddPartitions {
            transactional_id: transaction.transactional_id.to_string(),
            producer_id: transaction.producer_id.0,
            producer_epoch: transaction.producer_epoch,
            version: TransactionVersion::V2,
            partitions: Vec::new(),
        };
        let topic_results = add_topics(ctx, add, &transaction.topics, transaction.verify_only).await;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id)
                .with_topic_results(topic_results),
        );
    }
    response.with_results_by_transaction(results)
}

/// Adds what the topics name, or asks whether it is in the transaction.
async fn add_topics(
    ctx: &RequestContext<'_>,
    mut add: AddPartitions,
    topics: &[AddPartitionsToTxnTopic],
    verify_only: bool,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let image = ctx.broker().image();
    let named = topics.iter().flat_map(|topic| topic.partitions.iter().map(move |index| (topic, *index)));
    let known: Vec<Option<TopicPartition>> = named
        .map(|(topic, index)| {
            let known = image.topic(&topic.name).filter(|known| known.owner(index).is_some())?;
            Some(TopicPartition::new(known.name.clone(), index))
        })
        .collect();
    drop(image);
    let codes: Vec<i16> = if known.iter().all(Option::is_some) {
        add.partitions = known.into_iter().flatten().collect();
        ask(ctx, add, verify_only).await
    } else {
        let code = |partition: &Option<TopicPartition>| match partition {
            Some(_) => ResponseError::OperationNotAttempted.code(),
            None => ResponseError::UnknownTopicOrPartition.code(),
        };
        known.iter().map(code).collect()
    };
    let mut codes = codes.into_iter();
    let mut result = |index: &i32| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(*index)
            .with_partition_error_code(codes.next().unwrap_or(ResponseError::UnknownServerError.code()))
    };
    topics
        .iter()
        .map(|topic| {
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name.clone())
                .with_results_by_partition(topic.partitions.iter().map(&mut result).collect())
        })
        .collect()
}

/// One code for each partition.
async fn ask(ctx: &RequestContext<'_>, add: AddPartitions, verify_only: bool) -> Vec<i16> {
    let count = add.partitions.len();
    let request = match verify_only {
        true => TransactionRequest::VerifyPartitions(add),
        false => TransactionRequest::AddPartitions(add),
    };
    match ctx.transaction(request).await {
        TransactionReply::AddPartitions(Ok(())) => vec![error_code::NONE; count],
        TransactionReply::VerifyPartitions(Ok(are_in)) => {
            let missing = match ctx.version() {
                ABORTABLE_VERSION.. => TransactionError::TransactionAbortable,
                _ => TransactionError::InvalidTransactionState,
            };
            let code =
                |is_in| if is_in { error_code::NONE } else { error_code::of_transaction(missing).code() };
            are_in.into_iter().map(code).collect()
        }
        TransactionReply::AddPartitions(Err(error)) | TransactionReply::VerifyPartitions(Err(error)) => {
            vec![transaction_code(ctx, error); count]
        }
        _ => vec![ResponseError::UnknownServerError.code(); count],
    }
}
