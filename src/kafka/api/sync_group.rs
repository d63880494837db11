//! SyncGroup (key 14), versions 0 to 5.
//!
//! 3: static members (KIP-345) | 4: flexible | 5: protocol type and name (KIP-559), which a client must then send.
//!
//! The reply waits for the leader's assignment, and the connection with it, as in Kafka.

use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{GroupError, GroupReply, GroupRequest, SyncGroup, SyncGroupReply};

/// The first version in which both protocol type and name must be there.
const PROTOCOL_TYPE_VERSION: i16 = 5;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    let reply = if ctx.version() >= PROTOCOL_TYPE_VERSION && !names_protocol {
        SyncGroupReply::refused(GroupError::InconsistentGroupProtocol)
    } else {
        sync(ctx, request).await
    };
    SyncGroupResponse::default()
        .with_error_code(error_code::group_code(reply.error))
        .with_protocol_type(reply.protocol_type.map(text))
        .with_protocol_name(reply.protocol_name.map(text))
        .with_assignment(reply.assignment)
}

async fn sync(ctx: &RequestContext<'_>, request: SyncGroupRequest) -> SyncGroupReply {
    let assignments = request.assignments.into_iter();
    let sync = SyncGroup {
        group_id: request.group_id.to_string(),
        generation_id: request.generation_id,
        member_id: request.member_id.to_string(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol_name: request.protocol_name.map(|name| name.to_string()),
        // A copy: what came is a view of the whole request, and the coordinator keeps this.
        assignments: assignments
            .map(|assigned| {
                (assigned.member_id.to_string(), bytes::Bytes::copy_from_slice(&assigned.assignment))
            })
            .collect(),
    };
    match ctx.group(GroupRequest::Sync(sync)).await {
        GroupReply::Sync(reply) => reply,
        _ => SyncGroupReply::refused(GroupError::CoordinatorNotAvailable),
    }
}
