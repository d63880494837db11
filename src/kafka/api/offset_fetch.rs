//! OffsetFetch (key 9), versions 1 to 9.
//!
//! 2: null for all topics, top-level error | 5: leader epoch (KIP-320) | 6: flexible | 7: stable offsets (KIP-447)
//! | 8: many groups at once (KIP-709) | 9: member id and epoch (KIP-848).
//!
//! A topic or partition without a committed offset is answered with offset -1 and no error, whether or not it exists.

use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName as WireTopicName,
};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::group::{
    ByTopic, FetchedOffset, GroupError, GroupReply, GroupRequest, NO_COMMITTED_OFFSET, OffsetFetch,
    OffsetFetchReply,
};
use crate::model::{NO_LEADER_EPOCH, PartitionIndex, TopicName};

/// The first version with many groups.
const BATCHED_VERSION: i16 = 8;
/// The first version with an error for the whole reply.
const TOP_ERROR_VERSION: i16 = 2;

/// Topics by the name that the client gave, legal or not.
type Topics<P> = Vec<(WireTopicName, Vec<P>)>;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    if ctx.version() < BATCHED_VERSION {
        let topics: Option<Topics<PartitionIndex>> = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
        let fetch = Fetch { group_id: request.group_id, member: None, topics, require_stable };
        return single(ctx, fetch).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let topics: Option<Topics<PartitionIndex>> = group
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name, topic.partition_indexes)).collect());
        let member = group.member_id.map(|id| (id.to_string(), group.member_epoch));
        let fetch = Fetch { group_id: group.group_id.clone(), member, topics, require_stable };
        let (error, topics) = fetch.ask(ctx).await;
        let topics = topics.into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|fetched| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(fetched.partition)
                    .with_committed_offset(fetched.offset)
                    .with_committed_leader_epoch(fetched.leader_epoch)
                    .with_metadata(Some(text(fetched.metadata)))
                    .with_error_code(error_code::group_code(fetched.error))
            });
            OffsetFetchResponseTopics::default().with_name(name).with_partitions(partitions.collect())
        });
        groups.push(
            OffsetFetchResponseGroup::default()
                .with_group_id(group.group_id)
                .with_topics(topics.collect())
                .with_error_code(error_code::group_code(error)),
        );
    }
    OffsetFetchResponse::default().with_groups(groups)
}

/// The reply before version 8; in version 1 the partitions carry the group's error.
async fn single(ctx: &RequestContext<'_>, fetch: Fetch) -> OffsetFetchResponse {
    let has_top_error = ctx.version() >= TOP_ERROR_VERSION;
    let asked = if has_top_error { None } else { fetch.topics.clone() };
    let (error, mut topics) = fetch.ask(ctx).await;
    if let (Some(error), Some(asked)) = (error, asked) {
        let failed = |partition| FetchedOffset { error: Some(error), ..nothing(partition) };
        let asked = asked.into_iter();
        topics =
            asked.map(|(name, partitions)| (name, partitions.into_iter().map(failed).collect())).collect();
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|fetched| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(fetched.partition)
                .with_committed_offset(fetched.offset)
                .with_committed_leader_epoch(fetched.leader_epoch)
                .with_metadata(Some(text(fetched.metadata)))
                .with_error_code(error_code::group_code(fetched.error))
        });
        OffsetFetchResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if has_top_error { response.with_error_code(error_code::group_code(error)) } else { response }
}

/// What is asked of one group.
struct Fetch {
    group_id: GroupId,
    member: Option<(String, i32)>,
    topics: Option<Topics<PartitionIndex>>,
    require_stable: bool,
}

impl Fetch {
    /// Asks the coordinator. Topics come back in the order asked, those with illegal names as having no offsets.
    async fn ask(self, ctx: &RequestContext<'_>) -> (Option<GroupError>, Topics<FetchedOffset>) {
        let asked = self.topics.as_ref().map(|topics| {
            topics
                .iter()
                .filter_map(|(name, partitions)| {
                    let topic = TopicName::new(name).ok()?;
                    Some(ByTopic { topic, topic_id: None, partitions: partitions.clone() })
                })
                .collect()
        });
        let (member_id, member_epoch) = self.member.unzip();
        let request = OffsetFetch {
            group_id: self.group_id.to_string(),
            member_id,
            member_epoch: member_epoch.unwrap_or(-1),
            topics: asked,
            require_stable: self.require_stable,
        };
        let reply = match ctx.group(GroupRequest::OffsetFetch(request)).await {
            GroupReply::OffsetFetch(reply) => reply,
            _ => OffsetFetchReply { error: Some(GroupError::CoordinatorNotAvailable), topics: Vec::new() },
        };
        if reply.error.is_some() {
            return (reply.error, Vec::new());
        }
        let mut fetched = reply.topics.into_iter();
        let topics = match self.topics {
            None => {
                fetched.map(|topic| (WireTopicName(text(topic.topic.as_str())), topic.partitions)).collect()
            }
            Some(topics) => topics
                .into_iter()
                .map(|(name, partitions)| {
                    let found = TopicName::new(&name).ok().and_then(|_| fetched.next());
                    let partitions = match found {
                        Some(found) => found.partitions,
                        None => partitions.into_iter().map(nothing).collect(),
                    };
                    (name, partitions)
                })
                .collect(),
        };
        (None, topics)
    }
}

/// No committed offset.
fn nothing(partition: PartitionIndex) -> FetchedOffset {
    FetchedOffset {
        partition,
        offset: NO_COMMITTED_OFFSET,
        leader_epoch: NO_LEADER_EPOCH,
        metadata: String::new(),
        error: None,
    }
}
