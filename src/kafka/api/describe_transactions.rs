//! DescribeTransactions (key 65), version 0 (KIP-664).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName, TransactionalId,
};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::transaction::{DescribedTransaction, TransactionReply, TransactionRequest};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        states.push(describe(ctx, id).await);
    }
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

async fn describe(ctx: &RequestContext<'_>, id: TransactionalId) -> TransactionState {
    let transactional_id = id.to_string();
    let state = TransactionState::default().with_transactional_id(id);
    match ctx.transaction(TransactionRequest::Describe { transactional_id }).await {
        TransactionReply::Describe(Ok(described)) => described_state(state, &described),
        TransactionReply::Describe(Err(error)) => {
            state.with_error_code(error_code::of_transaction(error).code())
        }
        _ => state.with_error_code(ResponseError::UnknownServerError.code()),
    }
}

fn described_state(state: TransactionState, described: &DescribedTransaction) -> TransactionState {
    let topics = described.partitions.chunk_by(|left, right| left.topic == right.topic).map(|partitions| {
        TopicData::default()
            .with_topic(TopicName(text(partitions[0].topic.to_string())))
            .with_partitions(partitions.iter().map(|partition| partition.partition).collect())
    });
    state
        .with_transaction_state(text(described.state.name()))
        .with_transaction_timeout_ms(described.timeout_ms)
        .with_transaction_start_time_ms(described.start_ms)
        .with_producer_id(ProducerId(described.producer_id))
        .with_producer_epoch(described.producer_epoch)
        .with_topics(topics.collect())
}
