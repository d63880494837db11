//! Nothing lost, nothing doubled, nothing damaged: checks the stamps that one consumer reads.
//!
//! A stream is one producer's messages of one run in one partition, numbered from 0. The reader of a partition sees a stream in log
//! order, so a number beyond the expected one is a gap at once; a number below it either fills a gap (late) or is a double.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

/// Names a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId {
    pub run_id: u32,
    pub producer: u32,
    pub partition: usize,
}

/// What producers had acknowledged, for a later reader to hold against what it finds.
#[derive(Default)]
pub struct Ledger {
    streams: HashMap<String, Vec<(StreamId, u64)>>,
    resent: HashMap<String, u64>,
}

impl Ledger {
    /// So many messages of a stream in a topic were acknowledged.
    pub fn note(&mut self, topic: &str, id: StreamId, acknowledged_count: u64) {
        self.streams.entry(topic.to_string()).or_default().push((id, acknowledged_count));
    }

    /// So many messages to a topic were sent again without idempotence.
    pub fn note_resent(&mut self, topic: &str, count: u64) {
        *self.resent.entry(topic.to_string()).or_default() += count;
    }

    /// The streams of a topic with what was acknowledged of each.
    pub fn streams(&self, topic: &str) -> &[(StreamId, u64)] {
        self.streams.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Messages to a topic that were sent again without idempotence.
    pub fn resent(&self, topic: &str) -> u64 {
        self.resent.get(topic).copied().unwrap_or(0)
    }

    /// A topic was deleted.
    pub fn forget(&mut self, topic: &str) {
        self.streams.remove(topic);
        self.resent.remove(topic);
    }
}

/// The numbers of one stream that were read.
#[derive(Default)]
struct Stream {
    /// One beyond the highest number read.
    next: u64,
    /// Numbers below `next` that were not read: first to one beyond the last.
    gaps: BTreeMap<u64, u64>,
}

/// What a reader found; all zero but `received` is what one wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Messages of this run that were read, doubles included.
    pub received: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Read after a later one of the same stream.
    pub out_of_order: u64,
    pub damaged_messages: u64,
    /// Batches whose CRC does not hold, or whose records cannot be read.
    pub damaged_batches: u64,
    /// Not written by this run. No fault.
    pub foreign: u64,
    /// Messages that were sent again without idempotence: doubles and a changed order may come of it, and are no fault.
    pub resent: u64,
}

impl Verdict {
    /// Adds another reader's findings.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.out_of_order += other.out_of_order;
        self.damaged_messages += other.damaged_messages;
        self.damaged_batches += other.damaged_batches;
        self.foreign += other.foreign;
        self.resent += other.resent;
    }

    /// Every message arrived, sound; and exactly once and in order, unless some had to be sent again without idempotence.
    pub fn is_clean(&self) -> bool {
        let is_whole = self.lost + self.damaged_messages + self.damaged_batches == 0;
        is_whole && (self.resent > 0 || self.doubled + self.out_of_order == 0)
    }
}

/// Reads stamps and remembers what is missing.
#[derive(Default)]
pub struct Verifier {
    streams: HashMap<StreamId, Stream>,
    verdict: Verdict,
}

impl Verifier {
    /// One message of a stream.
    pub fn observe(&mut self, id: StreamId, sequence: u64) {
        self.verdict.received += 1;
        let stream = self.streams.entry(id).or_default();
        if sequence >= stream.next {
            if sequence > stream.next {
                stream.gaps.insert(stream.next, sequence);
            }
            stream.next = sequence + 1;
        } else if stream.fill(sequence) {
            self.verdict.out_of_order += 1;
        } else {
            self.verdict.doubled += 1;
        }
    }

    pub fn observe_foreign(&mut self) {
        self.verdict.foreign += 1;
    }

    pub fn observe_damaged_message(&mut self) {
        self.verdict.damaged_messages += 1;
    }

    pub fn observe_damaged_batch(&mut self) {
        self.verdict.damaged_batches += 1;
    }

    /// The findings so far; gaps count as lost.
    pub fn verdict(&self) -> Verdict {
        let lost =
            self.streams.values().flat_map(|stream| &stream.gaps).map(|(first, end)| end - first).sum();
        Verdict { lost, ..self.verdict }
    }

    /// How many of a stream's first `acknowledged_count` messages lie beyond the last one read: lost at the end, which
    /// no gap shows.
    pub fn missing_at_end(&self, id: StreamId, acknowledged_count: u64) -> u64 {
        let next = self.streams.get(&id).map_or(0, |stream| stream.next);
        acknowledged_count.saturating_sub(next)
    }
}

impl Stream {
    /// Takes a number out of the gap that it lies in, if it lies in one.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&first, &end)) = self.gaps.range(..=sequence).next_back() else { return false };
        if sequence >= end {
            return false;
        }
        self.gaps.remove(&first);
        if first < sequence {
            self.gaps.insert(first, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::{StreamId, Verdict, Verifier};

    const ID: StreamId = StreamId { run_id: 9, producer: 1, partition: 0 };

    fn verify(sequences: &[u64]) -> (u64, u64, u64) {
        let mut verifier = Verifier::default();
        for &sequence in sequences {
            verifier.observe(ID, sequence);
        }
        let verdict = verifier.verdict();
        assert_eq!(verdict.received, sequences.len() as u64);
        (verdict.lost, verdict.doubled, verdict.out_of_order)
    }

    #[test]
    fn losses_doubles_and_late_messages_are_told_apart() {
        assert_eq!(verify(&[0, 1, 2, 3]), (0, 0, 0));
        assert_eq!(verify(&[0, 1, 1, 2]), (0, 1, 0));
        assert_eq!(verify(&[0, 3, 4]), (2, 0, 0));
        assert_eq!(verify(&[2, 0, 1, 3]), (0, 0, 2));
        assert_eq!(verify(&[0, 9, 4, 4, 12]), (9, 1, 1));
        assert_eq!(verify(&[5, 5]), (5, 1, 0));
    }

    #[test]
    fn doubles_are_a_fault_unless_messages_were_sent_again() {
        let doubled = Verdict { received: 5, doubled: 1, ..Verdict::default() };
        assert!(!doubled.is_clean());
        assert!(Verdict { resent: 3, ..doubled }.is_clean());
        assert!(!Verdict { resent: 3, lost: 1, ..doubled }.is_clean());
        assert!(!Verdict { out_of_order: 1, ..Verdict::default() }.is_clean());
    }

    #[test]
    fn a_lost_tail_shows_against_the_acknowledged_count() {
        let mut verifier = Verifier::default();
        verifier.observe(ID, 0);
        verifier.observe(ID, 1);
        assert_eq!(verifier.missing_at_end(ID, 2), 0);
        assert_eq!(verifier.missing_at_end(ID, 5), 3);
        assert_eq!(verifier.missing_at_end(StreamId { partition: 7, ..ID }, 4), 4);
    }
}
