//! OffsetFetch (key 9), versions 1 to 10.
//!
//! 2: null for all topics, top-level error | 5: leader epoch (KIP-320) | 6: flexible | 7: stable offsets (KIP-447)
//! | 8: many groups at once (KIP-709) | 9: member id and epoch (KIP-848) | 10: topic ids, read by hand since the crate's
//! last request is version 9.
//!
//! A topic or partition without a committed offset is answered with offset -1 and no error, whether or not it exists;
//! an id that no topic has is an error. With ids, offsets of topics that are gone are left out where all are asked for.

use bytes::BytesMut;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName as WireTopicName,
};

use super::{Answer, ApiRow, RequestContext, reply, text};
use crate::kafka::wire::{Malformed, Reader};
use crate::kafka::{decode_guard, error_code};
use crate::model::group::{
    ByTopic, FetchedOffset, GroupError, GroupReply, GroupRequest, NO_COMMITTED_OFFSET, OffsetFetch,
    OffsetFetchReply,
};
use crate::model::{NO_LEADER_EPOCH, PartitionIndex, TopicName, Uuid};

/// The first version with many groups.
const BATCHED_VERSION: i16 = 8;
/// The first version with an error for the whole reply.
const TOP_ERROR_VERSION: i16 = 2;
/// The first version that names topics by id.
const TOPIC_ID_VERSION: i16 = 10;

pub(super) async fn answer(ctx: &RequestContext<'_>, body: BytesMut) -> Result<Answer, Malformed> {
    let request = decode(ctx.version(), body)?;
    Ok(reply(ctx, &Box::pin(handle(ctx, request)).await))
}

/// See [`super::check`].
pub(super) fn check(_row: &ApiRow, version: i16, body: BytesMut) -> Result<(), Malformed> {
    decode(version, body).map(drop)
}

fn decode(version: i16, body: BytesMut) -> Result<OffsetFetchRequest, Malformed> {
    if version < TOPIC_ID_VERSION {
        return decode_guard::decode(body.freeze(), version);
    }
    let mut reader = Reader::new(body, true);
    let mut request = OffsetFetchRequest::default();
    for _ in 0..reader.read_required_count()? {
        let mut group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(reader.read_string()?))
            .with_member_id(reader.read_nullable_string()?)
            .with_member_epoch(reader.read_i32()?)
            .with_topics(None);
        if let Some(count) = reader.read_count()? {
            let mut topics = Vec::new();
            for _ in 0..count {
                let mut topic = OffsetFetchRequestTopics::default().with_topic_id(reader.read_uuid()?);
                for _ in 0..reader.read_required_count()? {
                    topic.partition_indexes.push(reader.read_i32()?);
                }
                reader.skip_tagged_fields()?;
                topics.push(topic);
            }
            group.topics = Some(topics);
        }
        reader.skip_tagged_fields()?;
        request.groups.push(group);
    }
    request.require_stable = reader.read_bool()?;
    reader.skip_tagged_fields()?;
    Ok(request)
}

async fn handle(ctx: &RequestContext<'_>, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    if ctx.version() < BATCHED_VERSION {
        let topics = request.topics.map(|topics| {
            let topics = topics.into_iter();
            topics.map(|topic| Topic::new(topic.name, Uuid::nil(), topic.partition_indexes)).collect()
        });
        return single(ctx, Fetch { group_id: request.group_id, member: None, topics, require_stable }).await;
    }
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let topics = group.topics.map(|topics| {
            let topics = topics.into_iter();
            topics.map(|topic| Topic::new(topic.name, topic.topic_id, topic.partition_indexes)).collect()
        });
        let member = group.member_id.map(|id| (id.to_string(), group.member_epoch));
        let fetch = Fetch { group_id: group.group_id.clone(), member, topics, require_stable };
        let (error, topics) = fetch.ask(ctx).await;
        let topics = topics.into_iter().map(|topic| {
            let partitions = topic.partitions.into_iter().map(|(fetched, error)| {
                OffsetFetchResponsePartitions::default()
                    .with_partition_index(fetched.partition)
                    .with_committed_offset(fetched.offset)
                    .with_committed_leader_epoch(fetched.leader_epoch)
                    .with_metadata(Some(text(fetched.metadata)))
                    .with_error_code(error)
            });
            OffsetFetchResponseTopics::default()
                .with_name(topic.name)
                .with_topic_id(topic.id)
                .with_partitions(partitions.collect())
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
        let code = error_code::group_code(Some(error));
        topics = asked.into_iter().map(|topic| topic.map(|partition| (nothing(partition), code))).collect();
    }
    let topics = topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|(fetched, error)| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(fetched.partition)
                .with_committed_offset(fetched.offset)
                .with_committed_leader_epoch(fetched.leader_epoch)
                .with_metadata(Some(text(fetched.metadata)))
                .with_error_code(error)
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    let response = OffsetFetchResponse::default().with_topics(topics.collect());
    if has_top_error { response.with_error_code(error_code::group_code(error)) } else { response }
}

/// A topic as the client named it, legal or not, known or not.
#[derive(Clone)]
struct Topic<P> {
    name: WireTopicName,
    id: Uuid,
    partitions: Vec<P>,
}

impl<P> Topic<P> {
    fn new(name: WireTopicName, id: Uuid, partitions: Vec<P>) -> Self {
        Topic { name, id, partitions }
    }

    fn map<Q>(self, convert: impl FnMut(P) -> Q) -> Topic<Q> {
        Topic { name: self.name, id: self.id, partitions: self.partitions.into_iter().map(convert).collect() }
    }
}

/// A partition's offset and error code.
type Told = (FetchedOffset, i16);

/// What is asked of one group.
struct Fetch {
    group_id: GroupId,
    member: Option<(String, i32)>,
    topics: Option<Vec<Topic<PartitionIndex>>>,
    require_stable: bool,
}

/// How a topic's name came out.
enum Named {
    /// The coordinator can be asked about it.
    Legal(TopicName),
    /// No topic can have the name, so there are no offsets.
    Illegal,
    /// No topic has the id.
    UnknownId,
}

impl Fetch {
    /// Asks the coordinator. Topics come back in the order asked.
    async fn ask(self, ctx: &RequestContext<'_>) -> (Option<GroupError>, Vec<Topic<Told>>) {
        let by_id = ctx.version() >= TOPIC_ID_VERSION;
        let named: Option<Vec<Named>> =
            self.topics.as_ref().map(|topics| topics.iter().map(|topic| named(ctx, topic, by_id)).collect());
        let asked = self.topics.as_ref().zip(named.as_ref()).map(|(topics, named)| {
            let asked = topics.iter().zip(named).filter_map(|(topic, named)| match named {
                Named::Legal(name) => Some(ByTopic {
                    topic: name.clone(),
                    topic_id: by_id.then_some(topic.id),
                    partitions: topic.partitions.clone(),
                }),
                Named::Illegal | Named::UnknownId => None,
            });
            asked.collect()
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
        let Some((topics, named)) = self.topics.zip(named) else {
            return (None, fetched.filter_map(|topic| listed(ctx, topic, by_id)).collect());
        };
        let topics = topics.into_iter().zip(named).map(|(topic, named)| {
            let found = match named {
                Named::Legal(_) => fetched.next(),
                Named::Illegal | Named::UnknownId => None,
            };
            let error = match named {
                Named::UnknownId => ResponseError::UnknownTopicId.code(),
                Named::Legal(_) | Named::Illegal => error_code::NONE,
            };
            match found {
                Some(found) => Topic::new(topic.name, topic.id, found.partitions).map(told),
                None => topic.map(|partition| (nothing(partition), error)),
            }
        });
        (None, topics.collect())
    }
}

fn named(ctx: &RequestContext<'_>, topic: &Topic<PartitionIndex>, by_id: bool) -> Named {
    if by_id {
        let image = ctx.broker().image();
        return image
            .topic_by_id(topic.id)
            .map_or(Named::UnknownId, |known| Named::Legal(known.name.clone()));
    }
    TopicName::new(&topic.name).map_or(Named::Illegal, Named::Legal)
}

/// One topic of those that have offsets; none with ids when the topic is gone.
fn listed(ctx: &RequestContext<'_>, topic: ByTopic<FetchedOffset>, by_id: bool) -> Option<Topic<Told>> {
    let id = match ctx.broker().image().topic(&topic.topic) {
        Some(known) => known.id,
        None if by_id => return None,
        None => Uuid::nil(),
    };
    Some(Topic::new(WireTopicName(text(topic.topic.as_str())), id, topic.partitions).map(told))
}

fn told(fetched: FetchedOffset) -> Told {
    let error = error_code::group_code(fetched.error);
    (fetched, error)
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
