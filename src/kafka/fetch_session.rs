//! Incremental fetch sessions (KIP-227): the server remembers what a consumer fetches, so that a fetch names only what
//! changed and a reply holds only what is new.
//!
//! ```text
//! request           epoch   means                                    answered with
//! session id 0      0       fetch these, remember them if you can    all partitions, and a session id or 0
//! session id any    -1      fetch these, forget the session          all partitions, session id 0
//! session id S      n > 0   as before, with these changes            partitions with news, session id S
//! ```
//!
//! Lives on: one shard's connections share one cache. A client that comes back on another shard is told that the
//! session is unknown and starts a new one, as with a restarted broker.
//! Bounds: `max.incremental.fetch.session.cache.slots` sessions, [`PARTITIONS_MAX`] partitions in all of them. Beyond
//! that the session unused longest gives way if it is old enough, else the new client is served without one.
//! Differs from Kafka: sessions give way by age alone, not by size. Source: Kafka `FetchSession`, KIP-516 (topic ids).

use std::time::{Duration, Instant};

use ahash::AHashMap;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::StrBytes;

use crate::base::random;
use crate::model::{LeaderEpoch, Offset, PartitionIndex, Uuid};

/// "No session" on the wire.
pub(super) const NO_SESSION: i32 = 0;
/// The epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that wants no session.
const FINAL_EPOCH: i32 = -1;
/// Partitions in all sessions of a shard together.
const PARTITIONS_MAX: usize = 1_000_000;
/// How long a session must have been unused to give way to another.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);
/// The first version that names topics by id.
const TOPIC_ID_VERSION: i16 = 13;

/// A topic as the client names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicRef {
    /// By name, before version 13.
    Name(StrBytes),
    /// By id.
    Id(Uuid),
}

/// What a client wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of which topic.
    pub(super) topic: TopicRef,
    /// Which partition.
    pub(super) partition: PartitionIndex,
    /// From where on.
    pub(super) offset: Offset,
    /// At most so many bytes.
    pub(super) max_bytes: i32,
    /// The leader epoch that the client believes in, or -1.
    pub(super) current_leader_epoch: LeaderEpoch,
}

/// What a reply would say of one partition, as far as a session looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether it says that something is wrong.
    pub(super) is_error: bool,
    /// The high watermark in it.
    pub(super) high_watermark: Offset,
    /// The log start offset in it.
    pub(super) log_start_offset: Offset,
    /// The bytes of records in it.
    pub(super) records_bytes: usize,
}

/// How a fetch relates to sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// No session wanted.
    None,
    /// A session wanted, if there is room.
    New,
    /// A fetch of this session, whose epoch is now this.
    Of {
        /// The session.
        id: i32,
        /// Its epoch once this fetch has begun.
        epoch: i32,
    },
}

/// What a fetch is to do.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The partitions, in the order in which they are to be served.
    pub(super) wanted: Vec<Wanted>,
    /// Where the reply is to be accounted for.
    pub(super) relation: Relation,
}

/// The sessions of one shard.
pub(super) struct FetchSessionCache {
    sessions: AHashMap<i32, Session>,
    slots: usize,
    partitions: usize,
}

struct Session {
    uses_topic_ids: bool,
    epoch: i32,
    used: Instant,
    partitions: AHashMap<(TopicRef, PartitionIndex), Cached>,
    /// Counts up with every partition that moves to the end.
    order: u64,
}

struct Cached {
    wanted: Wanted,
    high_watermark: Offset,
    log_start_offset: Offset,
    /// Smaller ones are served first.
    order: u64,
}

impl FetchSessionCache {
    /// Remembers at most `slots` sessions.
    pub(super) fn new(slots: usize) -> Self {
        FetchSessionCache { sessions: AHashMap::new(), slots, partitions: 0 }
    }

    /// Finds out what a request asks for, updating its session.
    ///
    /// # Errors
    /// `FetchSessionIdNotFound`, `InvalidFetchSessionEpoch`, `FetchSessionTopicIdError`: the client begins anew.
    pub(super) fn resolve(
        &mut self,
        request: &FetchRequest,
        version: i16,
        now: Instant,
    ) -> Result<Resolved, ResponseError> {
        let uses_topic_ids = version >= TOPIC_ID_VERSION;
        // Before version 7 there are no sessions; the crate then gives the epoch of none.
        if matches!(request.session_epoch, INITIAL_EPOCH | FINAL_EPOCH) {
            if request.session_id != NO_SESSION {
                self.remove(request.session_id);
            }
            let relation = if request.session_epoch == FINAL_EPOCH { Relation::None } else { Relation::New };
            return Ok(Resolved { wanted: wanted_of(request, uses_topic_ids).collect(), relation });
        }
        let session =
            self.sessions.get_mut(&request.session_id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if session.epoch != request.session_epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        if session.uses_topic_ids != uses_topic_ids {
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        let before = session.partitions.len();
        session.update(request, uses_topic_ids);
        session.epoch = next_epoch(session.epoch);
        session.used = now;
        self.partitions = self.partitions + session.partitions.len() - before;
        if session.partitions.is_empty() {
            self.remove(request.session_id);
            return Ok(Resolved { wanted: Vec::new(), relation: Relation::None });
        }
        let mut cached: Vec<&Cached> = session.partitions.values().collect();
        cached.sort_unstable_by_key(|cached| cached.order);
        let wanted = cached.into_iter().map(|cached| cached.wanted.clone()).collect();
        Ok(Resolved { wanted, relation: Relation::Of { id: request.session_id, epoch: session.epoch } })
    }

    /// Accounts for a reply: gives the session id to send and, for each partition, whether it belongs into the reply.
    ///
    /// # Errors
    /// `FetchSessionIdNotFound`, `InvalidFetchSessionEpoch`: the session has gone or moved on meanwhile.
    pub(super) fn complete(
        &mut self,
        resolved: &Resolved,
        told: &[Told],
        version: i16,
        now: Instant,
    ) -> Result<(i32, Vec<bool>), ResponseError> {
        match resolved.relation {
            Relation::None => Ok((NO_SESSION, vec![true; told.len()])),
            Relation::New => Ok((self.create(resolved, told, version, now), vec![true; told.len()])),
            Relation::Of { id, epoch } => {
                let session = self.sessions.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
                if session.epoch != epoch {
                    return Err(ResponseError::InvalidFetchSessionEpoch);
                }
                let belongs =
                    resolved.wanted.iter().zip(told).map(|(wanted, told)| session.note(wanted, told));
                Ok((id, belongs.collect()))
            }
        }
    }

    /// How many sessions there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    fn create(&mut self, resolved: &Resolved, told: &[Told], version: i16, now: Instant) -> i32 {
        let count = resolved.wanted.len();
        if count == 0 || !self.make_room(count, now) {
            return NO_SESSION;
        }
        let id = loop {
            // Positive, and not one in use.
            let id = i32::try_from(random::number() & 0x7fff_ffff).unwrap_or(NO_SESSION);
            if id != NO_SESSION && !self.sessions.contains_key(&id) {
                break id;
            }
        };
        let mut session = Session {
            uses_topic_ids: version >= TOPIC_ID_VERSION,
            epoch: next_epoch(INITIAL_EPOCH),
            used: now,
            partitions: AHashMap::with_capacity(count),
            order: 0,
        };
        for (wanted, told) in resolved.wanted.iter().zip(told) {
            session.put(wanted.clone());
            session.note(wanted, told);
        }
        self.partitions += session.partitions.len();
        self.sessions.insert(id, session);
        id
    }

    fn make_room(&mut self, count: usize, now: Instant) -> bool {
        if self.slots == 0 || count > PARTITIONS_MAX {
            return false;
        }
        while self.sessions.len() >= self.slots || self.partitions + count > PARTITIONS_MAX {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.used);
            match oldest {
                Some((id, session)) if now.saturating_duration_since(session.used) >= EVICTABLE_AFTER => {
                    let id = *id;
                    self.remove(id);
                }
                _ => return false,
            }
        }
        true
    }

    fn remove(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.partitions -= session.partitions.len();
        }
    }
}

impl Session {
    fn update(&mut self, request: &FetchRequest, uses_topic_ids: bool) {
        for wanted in wanted_of(request, uses_topic_ids) {
            self.put(wanted);
        }
        for topic in &request.forgotten_topics_data {
            let topic_ref = if uses_topic_ids {
                TopicRef::Id(topic.topic_id)
            } else {
                TopicRef::Name(topic.topic.0.clone())
            };
            for partition in &topic.partitions {
                self.partitions.remove(&(topic_ref.clone(), *partition));
            }
        }
    }

    fn put(&mut self, wanted: Wanted) {
        if let Some(cached) = self.partitions.get_mut(&(wanted.topic.clone(), wanted.partition)) {
            cached.wanted = Wanted { topic: cached.wanted.topic.clone(), ..wanted };
            return;
        }
        // The name that came is a view of the whole request; what is kept must not keep that.
        let topic = match wanted.topic {
            TopicRef::Name(name) => TopicRef::Name(StrBytes::from_string(name.as_str().to_owned())),
            id => id,
        };
        let wanted = Wanted { topic: topic.clone(), ..wanted };
        self.order += 1;
        let cached = Cached { high_watermark: -1, log_start_offset: -1, order: self.order, wanted };
        self.partitions.insert((topic, cached.wanted.partition), cached);
    }

    /// Remembers what the client is told; whether there is news in it. A partition that gave records goes to the end,
    /// so that a full reply does not starve those behind it.
    fn note(&mut self, wanted: &Wanted, told: &Told) -> bool {
        let Some(cached) = self.partitions.get_mut(&(wanted.topic.clone(), wanted.partition)) else {
            return true;
        };
        let has_news = told.is_error
            || told.records_bytes > 0
            || told.high_watermark != cached.high_watermark
            || told.log_start_offset != cached.log_start_offset;
        // An error is told again until it is gone, and its end is news.
        cached.high_watermark = if told.is_error { -1 } else { told.high_watermark };
        cached.log_start_offset = told.log_start_offset;
        if told.records_bytes > 0 {
            self.order += 1;
            cached.order = self.order;
        }
        has_news
    }
}

fn wanted_of(request: &FetchRequest, uses_topic_ids: bool) -> impl Iterator<Item = Wanted> {
    request.topics.iter().flat_map(move |topic| {
        let topic_ref =
            if uses_topic_ids { TopicRef::Id(topic.topic_id) } else { TopicRef::Name(topic.topic.0.clone()) };
        topic.partitions.iter().map(move |partition| Wanted {
            topic: topic_ref.clone(),
            partition: partition.partition,
            offset: partition.fetch_offset,
            max_bytes: partition.partition_max_bytes,
            current_leader_epoch: partition.current_leader_epoch,
        })
    })
}

/// The epoch after `epoch`; it never comes back to that of a new session.
fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests;
