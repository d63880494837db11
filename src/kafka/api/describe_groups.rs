//! DescribeGroups (key 15), versions 0 to 6.
//!
//! 3: authorized operations (KIP-430) | 4: static members (KIP-345) | 5: flexible | 6: GROUP_ID_NOT_FOUND with a
//! sentence (KIP-1043); before that an unknown group is in state Dead.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use super::{GROUP_OPERATIONS, NO_OPERATIONS, RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{DescribeGroup, DescribeGroupReply, GroupError, GroupReply, GroupRequest};

/// The first version that says that a group is not there.
const NOT_FOUND_VERSION: i16 = 6;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NO_OPERATIONS };
    let mut groups = Vec::with_capacity(request.groups.len());
    for group_id in request.groups {
        let describe = DescribeGroup { group_id: group_id.to_string() };
        groups.push(match ctx.group(GroupRequest::Describe(describe)).await {
            GroupReply::Describe(reply) => described(ctx.version(), group_id, reply, operations),
            _ => failed(group_id, GroupError::CoordinatorNotAvailable),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn failed(group_id: GroupId, error: GroupError) -> DescribedGroup {
    DescribedGroup::default().with_group_id(group_id).with_error_code(error_code::group_code(Some(error)))
}

fn described(version: i16, group_id: GroupId, reply: DescribeGroupReply, operations: i32) -> DescribedGroup {
    let is_missing = reply.error == Some(GroupError::GroupIdNotFound);
    let (error, message) = match reply.error {
        Some(_) if is_missing && version < NOT_FOUND_VERSION => (None, None),
        Some(_) if reply.is_of_other_type => {
            (reply.error, Some(text(format!("Group {} is not a classic group.", group_id.as_str()))))
        }
        Some(_) if is_missing => (reply.error, Some(text(format!("Group {} not found.", group_id.as_str())))),
        Some(error) => return failed(group_id, error),
        None => (None, None),
    };
    let members = reply.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.group_instance_id.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    DescribedGroup::default()
        .with_error_code(error_code::group_code(error))
        .with_error_message(message)
        .with_group_id(group_id)
        .with_group_state(text(reply.state.name()))
        .with_protocol_type(text(reply.protocol_type))
        .with_protocol_data(text(reply.protocol_name))
        .with_members(members.collect())
        .with_authorized_operations(operations)
}
