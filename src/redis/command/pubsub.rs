//! Channels: a topic is a channel, what is published is appended, what is appended is pushed.
//!
//! A channel may say where to begin: `orders@earliest`, `orders@-10m` (so long ago), `orders/0@4711` (from that offset
//! on), `orders@billing` (where the group `billing` stopped; what reaches the socket is acknowledged). Without it, a
//! subscription begins with the next record. A pattern matches topics, those that are made later as well.

use std::rc::Rc;

use super::{Call, CommandResult, Flow, commands, parse, unknown_subcommand};
use crate::base::{clock, glob};
use crate::broker::{Listening, OffsetSpec, TopicImage};
use crate::model::{Offset, PartitionIndex, TopicPartition};
use crate::redis::client::{Client, ReplyMode};
use crate::redis::entry_id::list_offset;
use crate::redis::error_reply::ErrorReply;
use crate::redis::fan_out::{Form, Kind, Subscription};
use crate::redis::group_offsets;
use crate::redis::stream_name::{self, StreamName};
use crate::redis::subscriptions::Named;
use crate::redis::writes::Writes;

commands! { "pubsub":
    "PSUBSCRIBE" -2 (PubSub NoMulti InSubscriberMode) (0 0 0) "Pushes the records of all topics that match." => psubscribe;
    "PUBLISH" 3 (PubSub Fast) (0 0 0) "Appends a record; returns how many subscribers hear of it." => publish;
    "PUBSUB" -2 (PubSub) (0 0 0) "Looks at channels and their subscribers." => pubsub;
    "PUNSUBSCRIBE" -1 (PubSub NoMulti InSubscriberMode) (0 0 0) "Ends subscriptions to patterns." => punsubscribe;
    "SPUBLISH" 3 (PubSub Fast) (1 1 1) "Appends a record; returns how many subscribers hear of it." => publish;
    "SSUBSCRIBE" -2 (PubSub NoMulti InSubscriberMode) (1 -1 1) "Pushes the records of topics." => ssubscribe;
    "SUBSCRIBE" -2 (PubSub NoMulti InSubscriberMode) (0 0 0) "Pushes the records of topics." => subscribe;
    "SUNSUBSCRIBE" -1 (PubSub NoMulti InSubscriberMode) (1 -1 1) "Ends subscriptions to topics." => sunsubscribe;
    "UNSUBSCRIBE" -1 (PubSub NoMulti InSubscriberMode) (0 0 0) "Ends subscriptions to topics." => unsubscribe;
}

/// A plain PUBLISH is gathered with others; this one has a topic to be made, or is refused.
async fn publish(call: &mut Call<'_>) -> CommandResult {
    let name = StreamName::parse(call.arg(1))?;
    let topic = stream_name::topic_or_create(call.client.broker(), name.topic).await?;
    if name.partition.is_some() {
        name.partition_of(&topic)?;
    }
    let mut writes = Writes::shared(call.client, clock::now_ms());
    if !writes.add(call.client, &call.args) {
        return Err(ErrorReply::err("the message cannot be appended"));
    }
    writes.finish(call.client.broker(), call.out).await;
    Ok(Flow::Continue)
}

async fn subscribe(call: &mut Call<'_>) -> CommandResult {
    subscribe_all(call, Kind::Channel, "subscribe").await
}

async fn ssubscribe(call: &mut Call<'_>) -> CommandResult {
    subscribe_all(call, Kind::ShardChannel, "ssubscribe").await
}

async fn psubscribe(call: &mut Call<'_>) -> CommandResult {
    subscribe_all(call, Kind::Pattern, "psubscribe").await
}

/// Each name has its own confirmation, or its own error.
async fn subscribe_all(call: &mut Call<'_>, kind: Kind, word: &str) -> CommandResult {
    let client = call.client;
    for name in call.args.from(1) {
        if !client.subscriptions.has(kind, name) {
            let limit = client.front.limits.subscriptions;
            let opened = if client.subscriptions.count() >= limit {
                Err(ErrorReply::err(format_args!(
                    "this connection has {limit} subscriptions, which is redis.subscriptions.max"
                )))
            } else {
                open(client, kind, name).await
            };
            match opened {
                Ok(named) => client.subscriptions.add(client, kind, name.to_vec(), named).await,
                Err(error) => {
                    if client.reply_mode.get() == ReplyMode::On {
                        call.out.error(&error.0);
                    }
                    continue;
                }
            }
        }
        confirm(call, kind, word, Some(name));
    }
    Ok(Flow::Continue)
}

/// Confirms that a subscription has begun or ended. As what is pushed, this leaves even when CLIENT REPLY is off.
fn confirm(call: &mut Call<'_>, kind: Kind, word: &str, name: Option<&[u8]>) {
    call.out.push(3);
    call.out.bulk(word.as_bytes());
    match name {
        Some(name) => call.out.bulk(name),
        None => call.out.null(),
    }
    call.out.count(call.client.subscriptions.count_of(kind));
    if call.client.reply_mode.get() != ReplyMode::On {
        call.client.link.queue_all(call.out.take());
    }
}

async fn open(client: &Rc<Client>, kind: Kind, name: &[u8]) -> Result<Named, ErrorReply> {
    if kind == Kind::Pattern {
        return open_pattern(client, name).await;
    }
    let (channel, start) = Start::split(name)?;
    let stream = StreamName::parse(channel)?;
    let topic = stream_name::topic_or_create(client.broker(), stream.topic).await?;
    if topic.name.is_internal() {
        return Err(ErrorReply::err(format_args!("topic '{}' is the server's own", topic.name)));
    }
    let partitions = match stream.partition {
        Some(_) => vec![stream.partition_of(&topic)?.partition],
        None => partitions_of(&topic),
    };
    let (positions, group) = start.positions(client, &topic, &partitions).await?;
    let form = Form::new(kind, name, &topic.name, client.protocol());
    let reader = Subscription::new(client, form, topic.name.clone(), stream.partition, positions, group);
    let listening = match kind {
        Kind::ShardChannel => Listening::ShardChannel(topic.name.clone()),
        _ => Listening::Channel(topic.name.clone()),
    };
    Ok(Named::channel(listening, reader))
}

async fn open_pattern(client: &Rc<Client>, pattern: &[u8]) -> Result<Named, ErrorReply> {
    let text = parse::text(pattern, "pattern")?;
    let image = client.broker().image();
    let matching: Vec<_> = image
        .topics()
        .filter(|topic| !topic.name.is_internal() && glob::matches(pattern, topic.name.as_bytes()))
        .cloned()
        .collect();
    let mut readers = Vec::with_capacity(matching.len());
    for topic in &matching {
        let (positions, _) = Start::Next.positions(client, topic, &partitions_of(topic)).await?;
        let form = Form::new(Kind::Pattern, pattern, &topic.name, client.protocol());
        readers.push(Subscription::new(client, form, topic.name.clone(), None, positions, None));
    }
    Ok(Named::pattern(text, readers, matching.iter().map(|topic| topic.id).collect()))
}

fn partitions_of(topic: &TopicImage) -> Vec<PartitionIndex> {
    (0..).take(topic.partitions.len()).collect()
}

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Start {
    /// With the next record.
    Next,
    /// With the first record there is.
    Earliest,
    /// With the first record of the last so many milliseconds.
    Ago(i64),
    /// With this record.
    At(Offset),
    /// Where the group has stopped.
    Group(String),
}

impl Start {
    /// Takes a channel apart: the topic in front of the first `@`, and what stands behind it.
    fn split(name: &[u8]) -> Result<(&[u8], Start), ErrorReply> {
        let Some(at) = name.iter().position(|byte| *byte == b'@') else { return Ok((name, Start::Next)) };
        let start = parse::text(&name[at + 1..], "place behind the '@'")?;
        let start = match start.as_str() {
            "" => {
                return Err(ErrorReply::err(
                    "nothing stands behind the '@'; write a group, earliest, -10m or an offset",
                ));
            }
            "earliest" => Start::Earliest,
            "latest" => Start::Next,
            text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Start::At(text.parse().map_err(|_| ErrorReply::not_an_integer())?)
            }
            text => match text.strip_prefix('-') {
                Some(age) => Start::Ago(milliseconds(age)?),
                None => Start::Group(start),
            },
        };
        Ok((&name[..at], start))
    }

    /// The first offset of each partition; and the group that is to remember, if there is one.
    async fn positions(
        &self,
        client: &Client,
        topic: &TopicImage,
        partitions: &[PartitionIndex],
    ) -> Result<(Vec<(PartitionIndex, Offset)>, Option<String>), ErrorReply> {
        let broker = client.broker();
        if let Start::Group(group) = self {
            return group_positions(client, topic, partitions, group).await;
        }
        if let (Start::At(_), true) = (self, partitions.len() > 1) {
            return Err(ErrorReply::err(format_args!(
                "topic '{name}' has {count} partitions, each with offsets of its own; name one, as in {name}/0@4711",
                name = topic.name,
                count = partitions.len()
            )));
        }
        let mut positions = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let place = TopicPartition::new(topic.name.clone(), *partition);
            let spec = match self {
                Start::At(offset) => {
                    positions.push((*partition, *offset));
                    continue;
                }
                Start::Earliest => OffsetSpec::Earliest,
                Start::Ago(age_ms) => OffsetSpec::Timestamp(clock::now_ms().saturating_sub(*age_ms)),
                Start::Next | Start::Group(_) => OffsetSpec::Latest,
            };
            let offset = match list_offset(broker, &place, spec).await?.0 {
                offset if offset >= 0 => offset,
                _ => list_offset(broker, &place, OffsetSpec::Latest).await?.0, // nothing is so young
            };
            positions.push((*partition, offset));
        }
        Ok((positions, None))
    }
}

/// Where the group has stopped. A group that has not begun begins at the end, and that is stored at once: from then on
/// nothing is missed, even if the subscriber dies before its first record.
async fn group_positions(
    client: &Client,
    topic: &TopicImage,
    partitions: &[PartitionIndex],
    group: &str,
) -> Result<(Vec<(PartitionIndex, Offset)>, Option<String>), ErrorReply> {
    let broker = client.broker();
    let committed = group_offsets::committed(broker, group, &topic.name, partitions).await?;
    let has_begun = committed.iter().any(Option::is_some);
    let mut positions = Vec::with_capacity(partitions.len());
    for (partition, committed) in partitions.iter().zip(committed) {
        let offset = match committed {
            Some(offset) => offset,
            // A partition that was added since.
            None if has_begun => 0,
            None => {
                let place = TopicPartition::new(topic.name.clone(), *partition);
                list_offset(broker, &place, OffsetSpec::Latest).await?.0
            }
        };
        positions.push((*partition, offset));
    }
    if !has_begun {
        group_offsets::commit(broker, group, &topic.name, &positions).await?;
    }
    Ok((positions, Some(group.to_owned())))
}

/// `500ms`, `30s`, `10m`, `2h`, `7d`.
fn milliseconds(age: &str) -> Result<i64, ErrorReply> {
    let digits = age.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = age.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let number: Option<i64> = number.parse().ok();
    number.filter(|_| unit_ms > 0).and_then(|number| number.checked_mul(unit_ms)).ok_or_else(|| {
        ErrorReply::err(format_args!("'-{age}' is no age; write -500ms, -30s, -10m, -2h or -7d"))
    })
}

async fn unsubscribe(call: &mut Call<'_>) -> CommandResult {
    unsubscribe_all(call, Kind::Channel, "unsubscribe").await
}

async fn sunsubscribe(call: &mut Call<'_>) -> CommandResult {
    unsubscribe_all(call, Kind::ShardChannel, "sunsubscribe").await
}

async fn punsubscribe(call: &mut Call<'_>) -> CommandResult {
    unsubscribe_all(call, Kind::Pattern, "punsubscribe").await
}

async fn unsubscribe_all(call: &mut Call<'_>, kind: Kind, word: &str) -> CommandResult {
    let client = call.client;
    let names = match call.args.len() {
        1 => client.subscriptions.names(kind),
        _ => call.args.from(1).map(<[u8]>::to_vec).collect(),
    };
    if names.is_empty() {
        confirm(call, kind, word, None);
    }
    for name in names {
        client.subscriptions.remove(client, kind, &name).await;
        confirm(call, kind, word, Some(&name));
    }
    Ok(Flow::Continue)
}

async fn pubsub(call: &mut Call<'_>) -> CommandResult {
    let subcommand = call.word(1);
    let all = call.client.broker().subscribers();
    let is_sharded = subcommand.starts_with("SHARD");
    let of_channels = all.iter().filter_map(|(listening, count)| match listening {
        Listening::Channel(topic) if !is_sharded => Some((topic, *count)),
        Listening::ShardChannel(topic) if is_sharded => Some((topic, *count)),
        _ => None,
    });
    match (subcommand.as_str(), call.args.len()) {
        ("CHANNELS" | "SHARDCHANNELS", 2 | 3) => {
            let pattern = call.args.get(2).unwrap_or(b"*");
            let names: Vec<_> =
                of_channels.filter(|(topic, _)| glob::matches(pattern, topic.as_bytes())).collect();
            call.out.array(names.len());
            names.iter().for_each(|(topic, _)| call.out.bulk(topic.as_bytes()));
        }
        ("NUMSUB" | "SHARDNUMSUB", _) => {
            let counts: Vec<_> = of_channels.collect();
            call.out.array(2 * (call.args.len() - 2));
            for name in call.args.from(2) {
                let count =
                    counts.iter().find(|(topic, _)| topic.as_bytes() == name).map_or(0, |(_, count)| *count);
                call.out.bulk(name);
                call.out.count(count);
            }
        }
        ("NUMPAT", 2) => {
            let patterns = all.iter().filter(|(listening, _)| matches!(listening, Listening::Pattern(_)));
            call.out.count(patterns.count());
        }
        _ => return Err(unknown_subcommand("PUBSUB", call.arg(1))),
    }
    Ok(Flow::Continue)
}

#[cfg(test)]
mod tests {
    use super::Start;

    #[test]
    fn what_stands_behind_the_at_says_where_to_begin() {
        let start = |name: &'static str| Start::split(name.as_bytes()).map(|(_, start)| start).ok();
        assert_eq!(start("orders"), Some(Start::Next));
        assert_eq!(start("orders@earliest"), Some(Start::Earliest));
        assert_eq!(start("orders@-10m"), Some(Start::Ago(600_000)));
        assert_eq!(start("orders/2@4711"), Some(Start::At(4711)));
        assert_eq!(start("orders@billing"), Some(Start::Group("billing".to_owned())));
        assert_eq!(start("orders@team@night"), Some(Start::Group("team@night".to_owned())));
        for wrong in ["orders@", "orders@-", "orders@-10", "orders@-x", "orders@99999999999999999999"] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }
}
