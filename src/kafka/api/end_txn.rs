//! EndTxn (key 26), versions 0 to 5.
//!
//! 2: PRODUCER_FENCED | 3: flexible | 4: TRANSACTION_ABORTABLE | 5: transaction version 2, answered with the epoch (and
//! id, when the epochs are used up) of the producer's next transaction (KIP-890).

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse, ProducerId};

use super::{RequestContext, transaction_code};
use crate::model::transaction::{EndTransaction, TransactionReply, TransactionRequest, TransactionVersion};

/// The first version of transaction version 2.
const EPOCH_BUMP_VERSION: i16 = 5;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: EndTxnRequest) -> EndTxnResponse {
    let bumps_epoch = ctx.version() >= EPOCH_BUMP_VERSION;
    let end = EndTransaction {
        transactional_id: request.transactional_id.to_string(),
        producer_id: request.producer_id.0,
        producer_epoch: request.producer_epoch,
        version: if bumps_epoch { TransactionVersion::V2 } else { TransactionVersion::V0 },
        is_commit: request.committed,
    };
    let response = EndTxnResponse::default().with_producer_id(ProducerId(-1)).with_producer_epoch(-1);
    match ctx.transaction(TransactionRequest::End(end)).await {
        TransactionReply::End(Ok((producer_id, producer_epoch))) if bumps_epoch => {
            response.with_producer_id(ProducerId(producer_id)).with_producer_epoch(producer_epoch)
        }
        TransactionReply::End(Ok(_)) => response,
        TransactionReply::End(Err(error)) => response.with_error_code(transaction_code(ctx, error)),
        _ => response.with_error_code(ResponseError::UnknownServerError.code()),
    }
}
