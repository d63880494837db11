//! LeaveGroup (key 13), versions 0 to 5.
//!
//! 3: many members at once, static ones by name (KIP-345) | 4: flexible | 5: reason (KIP-800).
//!
//! Before version 3 the one member's error is the reply's.

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{GroupError, GroupReply, GroupRequest, LeaveGroup, LeaveGroupReply, LeavingMember};

/// The first version with many members.
const BATCHED_VERSION: i16 = 3;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let is_batched = ctx.version() >= BATCHED_VERSION;
    let members = if is_batched {
        let members = request.members.into_iter();
        members
            .map(|member| LeavingMember {
                member_id: member.member_id.to_string(),
                group_instance_id: member.group_instance_id.map(|id| id.to_string()),
                reason: member.reason.map(|reason| reason.to_string()),
            })
            .collect()
    } else {
        let member_id = request.member_id.to_string();
        vec![LeavingMember { member_id, group_instance_id: None, reason: None }]
    };
    let leave = LeaveGroup { group_id: request.group_id.to_string(), members };
    let reply = match ctx.group(GroupRequest::Leave(leave)).await {
        GroupReply::Leave(reply) => reply,
        _ => LeaveGroupReply { error: Some(GroupError::CoordinatorNotAvailable), members: Vec::new() },
    };
    if !is_batched {
        let error = reply.error.or_else(|| reply.members.first()?.error);
        return LeaveGroupResponse::default().with_error_code(error_code::group_code(error));
    }
    let members = reply.members.into_iter().map(|member| {
        MemberResponse::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
            .with_error_code(error_code::group_code(member.error))
    });
    LeaveGroupResponse::default()
        .with_error_code(error_code::group_code(reply.error))
        .with_members(members.collect())
}
