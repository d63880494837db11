//! Topics as keys. Internal topics are no keys.

use std::sync::Arc;

use super::parse::{self, Options};
use super::{Call, CommandResult, Flow, commands};
use crate::base::glob;
use crate::broker::{Broker, BrokerError, TopicImage};
use crate::redis::error_reply::ErrorReply;
use crate::redis::stream_name::StreamName;

/// Topics that one SCAN looks at unless COUNT says otherwise.
const SCAN_COUNT: usize = 10;

commands! { "generic":
    "DBSIZE" 1 (ReadOnly Fast) (0 0 0) "Returns the number of topics." => dbsize;
    "DEL" -2 (Write) (1 -1 1) "Deletes topics." => del;
    "EXISTS" -2 (ReadOnly Fast) (1 -1 1) "Counts the topics that are there." => exists;
    "EXPIRE" -3 (Write Fast) (1 1 1) "Refused: records expire, not topics." => expire;
    "KEYS" 2 (ReadOnly) (0 0 0) "Returns all topics whose names match a pattern." => keys;
    "PERSIST" 2 (Write Fast) (1 1 1) "Returns 0: no topic ever expires." => persist;
    "PEXPIRE" -3 (Write Fast) (1 1 1) "Refused: records expire, not topics." => expire;
    "PTTL" 2 (ReadOnly Fast) (1 1 1) "Returns -1 for a topic, -2 if there is none." => ttl;
    "SCAN" -2 (ReadOnly) (0 0 0) "Iterates over the topics." => scan;
    "TTL" 2 (ReadOnly Fast) (1 1 1) "Returns -1 for a topic, -2 if there is none." => ttl;
    "TYPE" 2 (ReadOnly Fast) (1 1 1) "Returns stream for a topic, none if there is none." => type_of;
    "UNLINK" -2 (Write Fast) (1 -1 1) "Deletes topics." => del;
}

fn visible_topics(broker: &Broker) -> Vec<Arc<TopicImage>> {
    broker.image().topics().filter(|topic| !topic.name.is_internal()).cloned().collect()
}

/// A name that no topic can have is a key that is not there.
fn is_there(broker: &Broker, key: &[u8]) -> bool {
    StreamName::parse(key).is_ok_and(|name| {
        let image = broker.image();
        let topic = image.topic(name.topic);
        topic.is_some_and(|topic| name.partition.is_none_or(|partition| topic.partition(partition).is_some()))
    })
}

async fn dbsize(call: &mut Call<'_>) -> CommandResult {
    call.out.count(visible_topics(call.client.broker()).len());
    Ok(Flow::Continue)
}

async fn del(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker().clone();
    let mut names = Vec::new();
    for key in call.args.from(1) {
        let Ok(name) = StreamName::parse(key) else { continue };
        let image = broker.image();
        let Some(topic) = image.topic(name.topic) else { continue };
        if name.partition.is_some() {
            return Err(ErrorReply::err("a partition cannot be deleted alone; DEL its topic, or XTRIM it"));
        }
        if topic.name.is_internal() {
            return Err(ErrorReply::err(format_args!("topic '{}' is the server's own", topic.name)));
        }
        if !names.contains(&topic.name) {
            names.push(topic.name.clone());
        }
    }
    let mut deleted = 0;
    for answer in broker.delete_topics(names).await {
        match answer {
            Ok(_) => deleted += 1,
            Err(BrokerError::UnknownTopicOrPartition) => {}
            Err(error) => return Err(error.into()),
        }
    }
    call.out.integer(deleted);
    Ok(Flow::Continue)
}

async fn exists(call: &mut Call<'_>) -> CommandResult {
    let broker = call.client.broker();
    let count = call.args.from(1).filter(|key| is_there(broker, key)).count();
    call.out.count(count);
    Ok(Flow::Continue)
}

async fn type_of(call: &mut Call<'_>) -> CommandResult {
    let is_there = is_there(call.client.broker(), call.arg(1));
    call.out.simple(if is_there { "stream" } else { "none" });
    Ok(Flow::Continue)
}

async fn ttl(call: &mut Call<'_>) -> CommandResult {
    let is_there = is_there(call.client.broker(), call.arg(1));
    call.out.integer(if is_there { -1 } else { -2 });
    Ok(Flow::Continue)
}

async fn persist(call: &mut Call<'_>) -> CommandResult {
    call.out.integer(0);
    Ok(Flow::Continue)
}

async fn expire(_call: &mut Call<'_>) -> CommandResult {
    Err(ErrorReply::err(
        "a topic does not expire as a whole; let its records expire by its config retention.ms, XTRIM it, or DEL it",
    ))
}

async fn keys(call: &mut Call<'_>) -> CommandResult {
    let pattern = call.arg(1);
    let topics = visible_topics(call.client.broker());
    let matching: Vec<_> =
        topics.iter().filter(|topic| glob::matches(pattern, topic.name.as_bytes())).collect();
    call.out.array(matching.len());
    for topic in matching {
        call.out.bulk(topic.name.as_bytes());
    }
    Ok(Flow::Continue)
}

/// Topics in an order that does not change while others come and go, so that SCAN misses none that stays.
fn scan_place(topic: &TopicImage) -> u64 {
    let (high, low) = topic.id.as_u64_pair();
    (high ^ low) | 1 // 0 is the cursor of the beginning and of the end
}

async fn scan(call: &mut Call<'_>) -> CommandResult {
    let cursor: u64 = std::str::from_utf8(call.arg(1))
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ErrorReply::err("invalid cursor"))?;
    let mut options = Options::new(call.args, 2);
    let (mut pattern, mut count, mut wants_streams) = (&b"*"[..], SCAN_COUNT, true);
    while !options.is_done() {
        if options.take("MATCH") {
            pattern = options.value()?;
        } else if options.take("COUNT") {
            count = parse::count(options.value()?)?;
            if count == 0 {
                return Err(ErrorReply::syntax());
            }
        } else if options.take("TYPE") {
            wants_streams = options.value()?.eq_ignore_ascii_case(b"stream");
        } else {
            return Err(ErrorReply::syntax());
        }
    }
    let mut topics = visible_topics(call.client.broker());
    topics.sort_by_key(|topic| scan_place(topic));
    let mut rest = topics.iter().filter(|topic| scan_place(topic) >= cursor).peekable();
    let mut found = Vec::new();
    let mut looked_at = 0;
    let mut last = None;
    // Topics of the same place (a one in 2^63 chance) go together.
    while let Some(topic) = rest.next_if(|topic| looked_at < count || last == Some(scan_place(topic))) {
        looked_at += 1;
        last = Some(scan_place(topic));
        if wants_streams && glob::matches(pattern, topic.name.as_bytes()) {
            found.push(topic);
        }
    }
    let next = rest.peek().map_or(0, |topic| scan_place(topic));
    call.out.array(2);
    call.out.bulk(next.to_string().as_bytes());
    call.out.array(found.len());
    for topic in found {
        call.out.bulk(topic.name.as_bytes());
    }
    Ok(Flow::Continue)
}
