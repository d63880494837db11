//! InitProducerId (key 22), versions 0 to 5.
//!
//! 2: flexible | 3: the producer's present id and epoch (KIP-360) | 4: PRODUCER_FENCED | 5: transactions v2 (KIP-890).
//!
//! An idempotent producer gets a new id each time. A transactional one is refused with INVALID_REQUEST, which its
//! client reports at once: there are no transactions yet.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::RequestContext;
use crate::kafka::error_code;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: InitProducerIdRequest,
) -> InitProducerIdResponse {
    let nothing = |error: ResponseError| {
        InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1)
    };
    if request.transactional_id.is_some() {
        return nothing(ResponseError::InvalidRequest);
    }
    match ctx.broker().init_producer_id().await {
        Ok((producer_id, producer_epoch)) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(producer_epoch),
        Err(error) => nothing(match error_code::of(&error) {
            // What is about a partition elsewhere is about the coordinator here; both are worth another try.
            ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
                ResponseError::CoordinatorNotAvailable
            }
            code => code,
        }),
    }
}
