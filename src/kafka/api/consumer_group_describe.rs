//! ConsumerGroupDescribe (key 69), versions 0 and 1.
//!
//! 1: the type of each member (KIP-1099).

use kafka_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions as Told,
};
use kafka_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, TopicName};

use super::{GROUP_OPERATIONS, NO_OPERATIONS, RequestContext, modern_group, text};
use crate::broker::ClusterImage;
use crate::model::group::{DescribeModernGroupReply, DescribedModernMember, GroupRequest, TopicPartitions};

/// Kafka's numbers of the protocols that members speak.
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(super) async fn handle(
    ctx: &RequestContext<'_>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = if request.include_authorized_operations { GROUP_OPERATIONS } else { NO_OPERATIONS };
    let mut groups = Vec::with_capacity(request.group_ids.len());
    for group_id in request.group_ids {
        let group = DescribedGroup::default().with_group_id(group_id.clone());
        groups.push(match modern_group(ctx, &group_id, "consumer", GroupRequest::DescribeConsumer).await {
            Ok(reply) => {
                described(&ctx.broker().image(), group, reply).with_authorized_operations(operations)
            }
            Err((error, message)) => {
                group.with_error_code(error.code()).with_error_message(message.map(text))
            }
        });
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
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
    Member::default()
        .with_member_id(text(member.member_id))
        .with_instance_id(member.instance_id.map(text))
        .with_rack_id(member.rack_id.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.topics.into_iter().map(|name| TopicName(text(name))).collect())
        .with_subscribed_topic_regex(member.topic_regex.map(text))
        .with_assignment(assignment(image, member.assignment))
        .with_target_assignment(assignment(image, member.target))
        .with_member_type(if member.is_classic { CLASSIC_MEMBER } else { CONSUMER_MEMBER })
}

/// With names; topics that are gone are left out.
fn assignment(image: &ClusterImage, partitions: TopicPartitions) -> Assignment {
    let topics = partitions.into_iter().filter_map(|(id, partitions)| {
        let name = text(image.topic_by_id(id)?.name.as_str());
        Some(
            Told::default()
                .with_topic_id(id)
                .with_topic_name(TopicName(name))
                .with_partitions(partitions.into_iter().collect()),
        )
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
