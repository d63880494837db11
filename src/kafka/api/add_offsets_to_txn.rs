//! AddOffsetsToTxn (key 25), versions 0 to 4: the partition that keeps a group's offsets becomes part of a transaction.
//!
//! 2: PRODUCER_FENCED | 3: flexible | 4: TRANSACTION_ABORTABLE (KIP-890).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use super::{RequestContext, transaction_code};
use crate::kafka::error_code;
use crate::model::transaction::{AddPartitions, TransactionReply, TransactionRequest, TransactionVersion};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let code = match ctx.broker().offsets_partition(&request.group_id).await {
        Ok(partition) => {
            let add = AddPartitions {
                transactional_id: request.transactional_id.to_string(),
                producer_id: request.producer_id.0,
                producer_epoch: request.producer_epoch,
                version: TransactionVersion::V0,
                partitions: vec![partition],
            };
            match ctx.transaction(TransactionRequest::AddPartitions(add)).await {
                TransactionReply::AddPartitions(Ok(())) => error_code::NONE,
                TransactionReply::AddPartitions(Err(error)) => transaction_code(ctx, error),
                _ => ResponseError::UnknownServerError.code(),
            }
        }
        Err(_) => ResponseError::CoordinatorNotAvailable.code(),
    };
    AddOffsetsToTxnResponse::default().with_error_code(code)
}
