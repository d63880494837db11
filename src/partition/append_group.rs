//! The queue of a partition's appends, and the groups in which they reach the log.
//!
//! Many requests that arrive in the same moment (several frames of one read, many connections that one poll found ready)
//! cost one write: the partition's task takes what the queue holds, checks each batch in order, and appends all of them
//! at once. Nothing waits for a group to fill; a lone append is a group of one.
//! Keeps: batches reach the log in the order of the queue; a group is all in the log or not at all; one group at a time,
//! while the acknowledgements of earlier ones may still wait for a sync.
//! Bounds: a group by `GROUP_BYTES_MAX` and by the room in the active segment; the queue by the bytes in flight that
//! connections are allowed (`connection.inflight.max.bytes`, `shard.inflight.max.bytes`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::BytesMut;

use super::{Appended, Partition, PartitionError};
use crate::base::clock;
use crate::base::units::MIB;
use crate::model::{NO_TIMESTAMP, Offset};
use crate::record::{self, BatchHeader, NO_SEQUENCE, TimestampType, ValidBatch};
use crate::runtime;
use crate::runtime::local::Answer;
use crate::storage::{AppendBatch, Verified};

/// A group ends once it holds so much.
const GROUP_BYTES_MAX: usize = MIB;

type AppendAnswer = Answer<Result<Appended, PartitionError>>;

/// Who made a batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum Origin {
    /// A client; its batch is checked.
    Producer {
        /// Whether it asked for acks=all.
        acks_all: bool,
        /// What the coordinator said of its transaction.
        verified: Option<Verified>,
    },
    /// This server: state records, those of transactional offset commits, and markers.
    Server {
        /// What the coordinator said of the transaction that a state record belongs to.
        verified: Option<Verified>,
    },
}

/// An append that waits for its turn.
pub(super) struct QueuedAppend {
    pub(super) records: BytesMut,
    pub(super) origin: Origin,
    pub(super) answer: AppendAnswer,
}

/// The appends of one partition that wait for their turn.
#[derive(Default)]
pub(super) struct AppendQueue {
    waiting: RefCell<VecDeque<QueuedAppend>>,
    is_emptied: Cell<bool>,
}

impl AppendQueue {
    /// Puts an append in line; whether somebody must now start to empty the queue.
    pub(super) fn push(&self, append: QueuedAppend) -> bool {
        self.waiting.borrow_mut().push_back(append);
        !self.is_emptied.replace(true)
    }

    /// The next append, if `fits` agrees to its bytes. An empty queue's emptier is done.
    fn pop(&self, fits: impl FnOnce(&[u8]) -> bool) -> Option<QueuedAppend> {
        let mut waiting = self.waiting.borrow_mut();
        if fits(&waiting.front()?.records) { waiting.pop_front() } else { None }
    }

    /// Whether nothing waits; if so, the next `push` needs a new emptier.
    fn is_done(&self) -> bool {
        let done = self.waiting.borrow().is_empty();
        self.is_emptied.set(!done);
        done
    }
}

/// Checked batches with their offsets, on their way to the log together.
struct Group {
    batches: Vec<AppendBatch>,
    answers: Vec<(AppendAnswer, Appended)>,
    next_offset: Offset,
    size_bytes: usize,
}

impl Group {
    fn new(log_end_offset: Offset) -> Self {
        Group { batches: Vec::new(), answers: Vec::new(), next_offset: log_end_offset, size_bytes: 0 }
    }

    /// Whether the producer state need not be asked about this batch: `None` when it must be, since none of this
    /// producer's batches is in the group; else whether it follows right behind the last one.
    fn follows(&self, header: &BatchHeader) -> Option<bool> {
        if !header.has_producer_id() {
            return Some(true);
        }
        let last = self.batches.iter().rev().find(|batch| batch.header.producer_id == header.producer_id)?;
        let last = &last.header;
        // Markers and what has no sequence may follow from anything, which the log's own state decides.
        let has_sequence = header.base_sequence != NO_SEQUENCE && last.base_sequence != NO_SEQUENCE;
        Some(
            has_sequence
                && last.producer_epoch == header.producer_epoch
                && last.is_transactional() == header.is_transactional()
                && header.base_sequence == record::increment_sequence(last.last_sequence(), 1),
        )
    }
}

impl Partition {
    /// Empties the queue; ends when it is empty.
    pub(super) async fn append_queued(self: Rc<Self>, is_gathered: bool) {
        if !is_gathered {
            runtime::yield_to_ready().await; // they may have more for the first group
        }
        while !self.appends.is_done() {
            if let Err(panic) = runtime::catch_panic(self.append_group()).await {
                // Its answers are dropped, which their waiters take for a failure.
                tracing::error!(partition = %self.topic_partition, panic, "an append has panicked");
            }
            runtime::yield_if_needed().await;
        }
    }

    /// Appends and answers the batches in front of the queue, as many as go together.
    async fn append_group(self: &Rc<Self>) {
        let mut group = Group::new(self.log.log_end_offset());
        let bytes_max = GROUP_BYTES_MAX.min(self.log.room_bytes());
        let mut held_back = None;
        while let Some(next) = self.appends.pop(|records| {
            group.batches.is_empty()
                || (group.size_bytes + records.len() <= bytes_max && !self.check_takes_long(records))
        }) {
            let QueuedAppend { records, origin, answer } = next;
            let (records, valid) = match self.check(records, origin).await {
                Ok(checked) => checked,
                Err(error) => {
                    answer.give(Err(error));
                    continue;
                }
            };
            match group.follows(&valid.header) {
                Some(true) => self.add_to(&mut group, records, &valid, answer),
                Some(false) => {
                    held_back = Some((records, valid, origin, answer));
                    break;
                }
                None => self.judge(&mut group, records, &valid, origin, answer),
            }
        }
        self.append_all(group).await;
        // A batch that does not follow from the group: the log's own state knows what it is, now that it has the group.
        if let Some((records, valid, origin, answer)) = held_back {
            let mut alone = Group::new(self.log.log_end_offset());
            self.judge(&mut alone, records, &valid, origin, answer);
            self.append_all(alone).await;
        }
    }

    /// Adds a batch if the producer's state in the log allows it; answers it otherwise.
    fn judge(
        self: &Rc<Self>,
        group: &mut Group,
        records: BytesMut,
        valid: &ValidBatch,
        origin: Origin,
        answer: AppendAnswer,
    ) {
        let known = match valid.header.is_control() {
            true => self.check_marker(&valid.header, &records).map(|()| None),
            false => self.known_duplicate(&valid.header, origin),
        };
        match known {
            Ok(None) => self.add_to(group, records, valid, answer),
            Ok(Some((appended, next_offset))) => {
                self.answer_when_safe(vec![(answer, appended)], next_offset);
            }
            Err(error) => answer.give(Err(error)),
        }
    }

    fn add_to(&self, group: &mut Group, mut records: BytesMut, valid: &ValidBatch, answer: AppendAnswer) {
        let base_offset = group.next_offset;
        let header = valid.assign(&mut records, base_offset, self.log.leader_epoch());
        let log_append_time_ms = match header.timestamp_type() {
            TimestampType::LogAppendTime => header.max_timestamp,
            TimestampType::CreateTime => NO_TIMESTAMP,
        };
        group.next_offset = header.next_offset();
        group.size_bytes += records.len();
        group.answers.push((answer, self.appended(base_offset, log_append_time_ms)));
        group.batches.push(AppendBatch { bytes: records.freeze(), header });
    }

    async fn append_all(self: &Rc<Self>, group: Group) {
        let Group { batches, answers, next_offset, size_bytes } = group;
        if batches.is_empty() {
            return;
        }
        match self.log.append(batches, clock::now_ms()).await {
            Ok(_) => {
                self.unseen_bytes.set(self.unseen_bytes.get() + size_bytes as u64);
                self.answer_when_safe(answers, next_offset);
            }
            Err(error) => {
                let error = PartitionError::from(error);
                for (answer, _) in answers {
                    answer.give(Err(error.clone()));
                }
            }
        }
    }

    /// Answers once everything before `next_offset` satisfies the flush policy: now if it does, else from a task, so
    /// that the next group is appended while this one waits for its sync.
    fn answer_when_safe(self: &Rc<Self>, answers: Vec<(AppendAnswer, Appended)>, next_offset: Offset) {
        let give = |safe: Result<(), PartitionError>, answers: Vec<(AppendAnswer, Appended)>| {
            for (answer, appended) in answers {
                answer.give(safe.clone().map(|()| appended));
            }
        };
        if self.acknowledge_now(next_offset) {
            return give(Ok(()), answers);
        }
        let partition = self.clone();
        runtime::spawn_detached(async move { give(partition.acknowledge(next_offset).await, answers) });
    }
}

#[cfg(test)]
mod tests;
