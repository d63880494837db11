//! FindCoordinator (key 10), versions 0 to 6.
//!
//! 1: key type, error message | 3: flexible | 4: many keys at once (KIP-699) | 5: new error codes | 6: share groups.
//!
//! Groups and transactional ids have a coordinator. Share groups do not exist yet: their keys are answered
//! INVALID_REQUEST with a sentence, which the Java client, librdkafka and franz-go report at once instead of asking again.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::{RequestContext, text};
use crate::kafka::error_code;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// The first version with many keys.
const BATCHED_VERSION: i16 = 4;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    if ctx.version() < BATCHED_VERSION {
        let found = find(ctx, request.key_type, request.key).await;
        return response
            .with_error_code(found.error_code)
            .with_error_message(found.error_message)
            .with_node_id(found.node_id)
            .with_host(found.host)
            .with_port(found.port);
    }
    let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
    for key in request.coordinator_keys {
        coordinators.push(find(ctx, request.key_type, key).await);
    }
    response.with_coordinators(coordinators)
}

async fn find(ctx: &RequestContext<'_>, key_type: i8, key: StrBytes) -> Coordinator {
    let nobody = |error: ResponseError, message: &str| {
        Coordinator::default()
            .with_key(key.clone())
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message(Some(text(message)))
    };
    let found = match key_type {
        GROUP => ctx.broker().group_coordinator(&key).await,
        TRANSACTION if key.is_empty() => {
            return nobody(ResponseError::InvalidRequest, "a transactional id must not be empty");
        }
        TRANSACTION => ctx.broker().transaction_coordinator(&key).await,
        _ => return nobody(ResponseError::InvalidRequest, "this server has no coordinators of this type"),
    };
    let shard = match found {
        Ok(shard) => shard,
        Err(error) => {
            let code = match error_code::of(&error) {
                // What is about a partition elsewhere is about the coordinator here; both are worth another try.
                ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => {
                    ResponseError::CoordinatorNotAvailable
                }
                code => code,
            };
            return nobody(code, &error.to_string());
        }
    };
    ctx.work.count(shard, 0);
    let id = ctx.broker().node_id(shard);
    match ctx.broker().nodes(ctx.dialled).into_iter().find(|node| node.id == id) {
        Some(node) => Coordinator::default()
            .with_key(key)
            .with_node_id(BrokerId(node.id))
            .with_host(text(node.host))
            .with_port(i32::from(node.port)),
        None => nobody(ResponseError::CoordinatorNotAvailable, "the coordinator's node is not known"),
    }
}
