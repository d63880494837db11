//! ShareGroupDescribe (key 77), version 1 (KIP-932).

use kafka_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions as Told,
};
use kafka_protocol::messages::{GroupId, ShareGroupDescribeRequest, ShareGroupDescribeResponse, TopicName};

use super::{GROUP_OPERATIONS, NO_OPERATIONS, RequestContext, text};
use crate::broker::ClusterImage;
use crate::kafka::error_code;
use crate::model::group::{
    DescribeModernGroup, DescribeModernGroupReply, DescribedModernMember, GroupError, GroupReply, GroupRequest,
};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NO_OPERATIONS };
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group_id in request.group_ids {
        let describe = DescribeModernGroup { group_id: group_id.to_string() };
        let reply = match ctx.group(GroupRequest::DescribeShare(describe)).await {
            GroupReply::DescribeConsumer(reply) => reply,
            _ => DescribeModernGroupReply::refused(GroupError::CoordinatorNotAvailable),
        };
        groups.push(described(&ctx.broker().image(), group_id, reply, operations));
    }
    ShareGroupDescribeResponse::default().with_groups(groups)
}

fn described(
    image: &ClusterImage,
    group_id: GroupId,
    reply: DescribeModernGroupReply,
    operations: i32,
) -> DescribedGroup {
    if let Some(error) = reply.error {
        let message = match error {
            GroupError::GroupIdNotFound if reply.is_of_other_type => {
                Some(format!("Group {} is not a share group.", group_id.as_str()))
            }
            GroupError::GroupIdNotFound => Some(format!("Group {} not found.", group_id.as_str())),
            _ => None,
        };
        return DescribedGroup::default()
            .with_group_id(group_id)
            .with_error_code(error_code::of_group(error).code())
            .with_error_message(message.map(text));
    }
    let members = reply.members.into_iter().map(|member| member_told(image, member));
    DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(text(reply.state.name()))
        .with_group_epoch(reply.epoch)
        .with_assignment_epoch(reply.assignment_epoch)
        .with_assignor_name(text(reply.assignor))
        .with_members(members.collect())
        .with_authorized_operations(operations)
}

fn member_told(image: &ClusterImage, member: DescribedModernMember) -> Member {
    // Topics that are gone are left out.
    let topics = member.assignment.into_iter().filter_map(|(id, partitions)| {
        let name = text(image.topic_by_id(id)?.name.as_str());
        Some(
            Told::default()
                .with_topic_id(id)
                .with_topic_name(TopicName(name))
                .with_partitions(partitions.into_iter().collect()),
        )
    });
    let assignment = Assignment::default().with_topic_partitions(topics.collect());
    Member::default()
        .with_member_id(text(member.member_id))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.topics.into_iter().map(|name| TopicName(text(name))).collect())
        .with_assignment(assignment)
}
