//! DeleteTopics (key 20), versions 1 to 6.
//!
//! 3: TOPIC_DELETION_DISABLED | 4: flexible | 5: error messages (KIP-599) | 6: by topic id (KIP-516).
//!
//! The reply comes when every shard has forgotten the topic; the timeout is ignored. A topic that is named twice, by
//! whatever means, is refused in each place.

use ahash::AHashMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName as WireTopicName};

use super::{RequestContext, text};
use crate::kafka::error_code;
use crate::model::{TopicName, Uuid};

/// The first version that names topics one by one, by name or id.
const STATES_VERSION: i16 = 6;
/// The first version whose clients know that deletion can be switched off.
const DISABLED_VERSION: i16 = 3;

pub(super) async fn handle(ctx: &RequestContext<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let wanted: Vec<(Option<WireTopicName>, Uuid)> = if ctx.version() >= STATES_VERSION {
        request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect()
    } else {
        request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil())).collect()
    };
    let mut results: Vec<DeletableTopicResult> = Vec::with_capacity(wanted.len());
    let mut named: AHashMap<TopicName, Vec<usize>> = AHashMap::new(); // name -> places in `results`
    for (name, id) in wanted {
        match resolve(ctx, name, id) {
            Ok((topic, id)) => {
                named.entry(topic.clone()).or_default().push(results.len());
                let name = Some(WireTopicName(text(topic.as_str())));
                results.push(DeletableTopicResult::default().with_name(name).with_topic_id(id));
            }
            Err(refused) => results.push(refused),
        }
    }
    let mut topics = Vec::with_capacity(named.len());
    for (topic, places) in named {
        if let [place] = places[..] {
            topics.push((topic, place));
        } else {
            for place in places {
                refuse(&mut results[place], ResponseError::InvalidRequest, "Duplicate topic.");
            }
        }
    }
    topics.sort_unstable_by_key(|(_, place)| *place);
    let names = topics.iter().map(|(topic, _)| topic.clone()).collect();
    for ((_, place), deleted) in topics.into_iter().zip(ctx.broker().delete_topics(names).await) {
        results[place].error_code = error_code::code(&deleted);
        results[place].error_message = error_code::message(&deleted);
    }
    DeleteTopicsResponse::default().with_responses(results)
}

/// The topic's name and id, or the refusal.
fn resolve(
    ctx: &RequestContext<'_>,
    name: Option<WireTopicName>,
    id: Uuid,
) -> Result<(TopicName, Uuid), DeletableTopicResult> {
    let image = ctx.broker().image();
    let found = match &name {
        Some(_) if !id.is_nil() => {
            Err((ResponseError::InvalidRequest, "You may not specify both topic name and topic id."))
        }
        None if id.is_nil() => {
            Err((ResponseError::InvalidRequest, "Neither topic name nor id were specified."))
        }
        Some(name) => {
            image.topic(name).ok_or((ResponseError::UnknownTopicOrPartition, "There is no such topic."))
        }
        None => {
            image.topic_by_id(id).ok_or((ResponseError::UnknownTopicId, "There is no topic with this id."))
        }
    };
    let disabled = (ResponseError::TopicDeletionDisabled, "Topic deletion is disabled.");
    let found = match found {
        Ok(_) if !ctx.broker().config().delete_topic_enable => Err(if ctx.version() < DISABLED_VERSION {
            (ResponseError::InvalidRequest, disabled.1)
        } else {
            disabled
        }),
        found => found,
    };
    found.map(|topic| (topic.name.clone(), topic.id)).map_err(|(error, message)| {
        let mut refused = DeletableTopicResult::default().with_name(name).with_topic_id(id);
        refuse(&mut refused, error, message);
        refused
    })
}

fn refuse(result: &mut DeletableTopicResult, error: ResponseError, message: &str) {
    result.error_code = error.code();
    result.error_message = Some(text(message));
}
