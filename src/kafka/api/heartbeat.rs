//! Heartbeat (key 12), versions 0 to 4.
//!
//! 3: static members (KIP-345) | 4: flexible.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::RequestContext;
use crate::kafka::error_code;
use crate::model::group::{GroupError, GroupReply, GroupRequest, Heartbeat};

pub(super) async fn handle(ctx: &RequestContext<'_>, request: HeartbeatRequest) -> HeartbeatResponse {
    let heartbeat = Heartbeat {
        group_id: request.group_id.to_string(),
        generation_id: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
    };
    let error = match ctx.group(GroupRequest::Heartbeat(heartbeat)).await {
        GroupReply::Heartbeat(reply) => reply.error,
        _ => Some(GroupError::CoordinatorNotAvailable),
    };
    HeartbeatResponse::default().with_error_code(error_code::group_code(error))
}
