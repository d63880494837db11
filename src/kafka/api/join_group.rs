//! JoinGroup (key 11), versions 0 to 9.
//!
//! 1: rebalance timeout (KIP-62) | 4: a new member comes back with its id (KIP-394) | 5: static members (KIP-345)
//! | 6: flexible | 7: protocol type (KIP-559) | 8: reason (KIP-800) | 9: a leader may be told to keep the assignment
//! (KIP-814).
//!
//! The reply waits for the rebalance, and the connection with it, as in Kafka.

use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{GroupError, GroupReply, GroupRequest, JoinGroup, JoinGroupReply, MemberProtocol};

/// The first version in which the protocol's type is told and its name may be null.
const PROTOCOL_TYPE_VERSION: i16 = 7;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    let version = ctx.version();
    let member_id = request.member_id.to_string();
    let protocols = request.protocols.into_iter();
    let join = JoinGroup {
        group_id: request.group_id.to_string(),
        member_id: member_id.clone(),
        group_instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: ctx.client_id().to_owned(),
        client_host: ctx.client_host(),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: if version == 0 {
            request.session_timeout_ms
        } else {
            request.rebalance_timeout_ms
        },
        protocol_type: request.protocol_type.to_string(),
        // A copy: what came is a view of the whole request, and the coordinator keeps this.
        protocols: protocols
            .map(|protocol| MemberProtocol {
                name: protocol.name.to_string(),
                metadata: bytes::Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        require_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
        reason: request.reason.map(|reason| reason.to_string()),
    };
    let reply = match ctx.group(GroupRequest::Join(join)).await {
        GroupReply::Join(reply) => reply,
        _ => JoinGroupReply::refused(&member_id, GroupError::CoordinatorNotAvailable),
    };
    let none = if version >= PROTOCOL_TYPE_VERSION { None } else { Some(text("")) };
    let members = reply.members.into_iter();
    let members = members.map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(error_code::group_code(reply.error))
        .with_generation_id(reply.generation_id)
        .with_protocol_type(reply.protocol_type.map(text))
        .with_protocol_name(reply.protocol_name.map(text).or(none))
        .with_leader(text(reply.leader))
        .with_skip_assignment(reply.skip_assignment)
        .with_member_id(text(reply.member_id))
        .with_members(members.collect())
}
