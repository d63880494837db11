//! InitProducerId (key 22), versions 0 to 5.
//!
//! 2: flexible | 3: the producer's present id and epoch (KIP-360) | 4: PRODUCER_FENCED | 5: TRANSACTION_ABORTABLE (KIP-890).
//!
//! An idempotent producer gets a new id each time, a transactional one that of its transactional id with a new epoch.
//! Two-phase commit (version 6, KIP-939) is not served, as in Kafka 4.3.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::transaction::{InitProducerId, TransactionError, TransactionReply, TransactionRequest};
use crate::model::{NO_PRODUCER_EPOCH, NO_PRODUCER_ID, ProducerEpoch};

/// The first version that knows PRODUCER_FENCED.
const FENCED_VERSION: i16 = 4;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let given = match &request.transactional_id {
        Some(_) => init_transactional(ctx, &request).await,
        None => init_idempotent(ctx).await,
    };
    let (code, (producer_id, producer_epoch)) = match given {
        Ok(given) => (error_code::NONE, given),
        Err(error) => (error.code(), (NO_PRODUCER_ID, NO_PRODUCER_EPOCH)),
    };
    InitProducerIdResponse::default()
        .with_error_code(code)
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(producer_epoch)
}

async fn init_idempotent(ctx: &RequestContext<'_>) -> Result<(i64, ProducerEpoch), ResponseError> {
    ctx.broker().init_producer_id().await.map_err(|error| match error_code::of(&error) {
        // What is about a partition elsewhere is about the coordinator here; both are worth another try.
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
            ResponseError::CoordinatorNotAvailable
        }
        code => code,
    })
}

async fn init_transactional(
    ctx: &RequestContext<'_>,
    request: &InitProducerIdRequest,
) -> Result<(i64, ProducerEpoch), ResponseError> {
    let present = match (request.producer_id.0, request.producer_epoch) {
        (NO_PRODUCER_ID, NO_PRODUCER_EPOCH) => None,
        (NO_PRODUCER_ID, _) | (_, NO_PRODUCER_EPOCH) => return Err(ResponseError::InvalidRequest),
        present => Some(present),
    };
    let init = InitProducerId {
        transactional_id: request.transactional_id.as_ref().map(|id| id.0.to_string()).unwrap_or_default(),
        timeout_ms: request.transaction_timeout_ms,
        present,
    };
    match ctx.transaction(TransactionRequest::InitProducerId(init)).await {
        TransactionReply::InitProducerId(Err(TransactionError::ProducerFenced))
            if ctx.version() < FENCED_VERSION =>
        {
            Err(ResponseError::InvalidProducerEpoch)
        }
        TransactionReply::InitProducerId(given) => given.map_err(error_code::of_transaction),
        _ => Err(ResponseError::UnknownServerError),
    }
}
