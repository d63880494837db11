//! ShareGroupDescribe (key 77), version 1 (KIP-932).

use kafka_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions as Told,
};
use kafka_protocol::messages::{ShareGroupDescribeRequest, ShareGroupDescribeResponse, TopicName};

use super::{GROUP_OPERATIONS, NO_OPERATIONS, RequestContext, share_group, text};
use crate::broker::ClusterImage;
use crate::model::group::{DescribeModernGroupReply, DescribedModernMember};

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NO_OPERATIONS };
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group_id in request.group_ids {
        let group = DescribedGroup::default().with_group_id(group_id.clone());
        groups.push(match share_group(ctx, &group_id).await {
            Ok(reply) => {
                described(&ctx.broker().image(), group, reply).with_authorized_operations(operations)
            }
            Err((error, message)) => {
                group.with_error_code(error.code()).with_error_message(message.map(text))
            }
        });
    }
    ShareGroupDescribeResponse::default().with_groups(groups)
}

fn described(image: &ClusterImage, group: DescribedGroup, reply: DescribeModernGroupReply) -> DescribedGroup {
    let members = reply.members.into_iter().map(|member| member_told(image, member));
    group
        .with_group_state(text(reply.state.name()))
        .with_group_epoch(reply.epoch)
        .with_assignment_epoch(reply.assignment_epoch)
        .with_assignor_name(text(reply.assignor))
        .with_members(members.collect())
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
