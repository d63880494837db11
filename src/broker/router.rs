//! Which shard owns what; splits a list of questions by owner, asks all owners at once, gathers in the order asked.

use super::{Broker, BrokerError};
use crate::model::{ShardId, TopicPartition};
use crate::partition::PartitionError;
use crate::shard::{Dispatched, ShardReply, ShardRequest};

impl Broker {
    /// The shard that owns the partition.
    pub(super) fn owner(&self, topic_partition: &TopicPartition) -> Result<ShardId, BrokerError> {
        self.image()
            .topic(&topic_partition.topic)
            .and_then(|topic| topic.owner(topic_partition.partition))
            .ok_or(BrokerError::UnknownTopicOrPartition)
    }

    /// Asks the owner of each question's partition. `request` makes the message for one shard's questions, `answers`
    /// opens its reply.
    pub(super) async fn ask_owners<Q, A>(
        &self,
        questions: Vec<(TopicPartition, Q)>,
        request: impl Fn(Vec<(TopicPartition, Q)>) -> ShardRequest,
        answers: impl Fn(ShardReply) -> Option<Vec<Result<A, PartitionError>>>,
    ) -> Vec<Result<A, BrokerError>> {
        // Most ask of one partition, which needs no sorting out.
        if let [(only, _)] = &questions[..] {
            let answer = match self.owner(only) {
                Ok(owner) => {
                    let reply = answers(self.shard.call(owner, request(questions)).await);
                    next_of(&mut reply.into_iter().flatten())
                }
                Err(error) => Err(error),
            };
            return vec![answer];
        }
        let mut split = Split::new(self.shards(), questions.len());
        for (index, (topic_partition, question)) in questions.into_iter().enumerate() {
            match self.owner(&topic_partition) {
                Ok(owner) => split.add(owner, index, (topic_partition, question)),
                Err(error) => split.refuse(index, error),
            }
        }
        let Split { parts, mut gathered } = split;
        let mut dispatched: Vec<(Vec<usize>, Dispatched)> = Vec::new();
        // The local part is carried out when it is awaited, so the remote ones go out first.
        for (shard, (indexes, part)) in self.remote_first(parts) {
            dispatched.push((indexes, self.shard.dispatch(shard, request(part)).await));
        }
        for (indexes, asked) in dispatched.into_iter().rev() {
            let reply = answers(asked.answer().await);
            let mut replies = reply.into_iter().flatten();
            for index in indexes {
                gathered[index] = Some(next_of(&mut replies));
            }
        }
        gathered.into_iter().map(|answer| answer.unwrap_or(Err(BrokerError::ShardUnavailable))).collect()
    }

    /// The non-empty parts, other shards' before this one's.
    pub(super) fn remote_first<P>(
        &self,
        parts: Vec<(Vec<usize>, Vec<P>)>,
    ) -> impl Iterator<Item = (ShardId, (Vec<usize>, Vec<P>))> {
        let here = self.shard.id();
        let mut parts: Vec<_> =
            parts.into_iter().enumerate().filter(|(_, (_, part))| !part.is_empty()).collect();
        parts.sort_by_key(|(shard, _)| *shard == here);
        parts.into_iter()
    }
}

/// A shard's next answer; none if the shard has gone.
pub(super) fn next_of<A>(
    answers: &mut impl Iterator<Item = Result<A, PartitionError>>,
) -> Result<A, BrokerError> {
    answers.next().map_or(Err(BrokerError::ShardUnavailable), |answer| Ok(answer?))
}

/// Questions by owner, with the place of each in the request.
pub(super) struct Split<Q, A> {
    pub(super) parts: Vec<(Vec<usize>, Vec<Q>)>,
    pub(super) gathered: Vec<Option<Result<A, BrokerError>>>,
}

impl<Q, A> Split<Q, A> {
    pub(super) fn new(shards: usize, questions: usize) -> Self {
        Split {
            parts: (0..shards).map(|_| (Vec::new(), Vec::new())).collect(),
            gathered: (0..questions).map(|_| None).collect(),
        }
    }

    pub(super) fn add(&mut self, owner: ShardId, index: usize, question: Q) {
        let (indexes, part) = &mut self.parts[owner];
        indexes.push(index);
        part.push(question);
    }

    pub(super) fn refuse(&mut self, index: usize, error: BrokerError) {
        self.gathered[index] = Some(Err(error));
    }
}
