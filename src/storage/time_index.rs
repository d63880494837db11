//! From a timestamp to an offset before which nothing newer lies.
//!
//! ```text
//! entry = timestamp: i64 | offset - base offset: u32          (big endian; timestamps ascend strictly)
//! ```
//!
//! An entry (T, O) says: T is the largest timestamp up to offset O, and O is the last offset of the batch that brought
//! it; every newer record lies behind O. An entry is added with an offset index entry when the largest timestamp has
//! grown, and once more when the segment is sealed, so that the last entry holds the largest timestamp of the segment.
//! The file may carry Kafka's preallocated zeros. Source: Kafka `TimeIndex`.

use crate::model::{NO_TIMESTAMP, Offset};

/// Bytes of an entry in the file.
pub(super) const ENTRY_BYTES: usize = size_of::<i64>() + size_of::<u32>();

/// The largest timestamp so far and the last offset of the batch that brought it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaxTimestamp {
    /// Milliseconds since the epoch; -1 for none.
    pub(super) timestamp: i64,
    /// Last offset of the first batch that has it.
    pub(super) offset: Offset,
}

impl MaxTimestamp {
    /// No batch yet.
    pub(super) fn none(base_offset: Offset) -> Self {
        MaxTimestamp { timestamp: NO_TIMESTAMP, offset: base_offset }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TimeEntry {
    timestamp: i64,
    relative_offset: u32,
}

/// The time index of one segment, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TimeIndex {
    base_offset: Offset,
    entries: Vec<TimeEntry>,
}

impl TimeIndex {
    /// An index without entries.
    pub(super) fn new(base_offset: Offset) -> Self {
        TimeIndex { base_offset, entries: Vec::new() }
    }

    /// Reads the entries of a file; `None` when it holds something impossible.
    pub(super) fn parse(base_offset: Offset, bytes: &[u8]) -> Option<Self> {
        let mut index = TimeIndex::new(base_offset);
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        for &[t1, t2, t3, t4, t5, t6, t7, t8, o1, o2, o3, o4] in entries {
            let entry = TimeEntry {
                timestamp: i64::from_be_bytes([t1, t2, t3, t4, t5, t6, t7, t8]),
                relative_offset: u32::from_be_bytes([o1, o2, o3, o4]),
            };
            let last = index.entries.last();
            if entry.timestamp == 0
                && entry.relative_offset == 0
                && last.is_none_or(|last| last.timestamp >= 0)
            {
                return Some(index); // preallocated room (an entry at time 0 is only lost to lookups, not to readers)
            }
            let ascends = last.is_none_or(|last| {
                last.timestamp < entry.timestamp && last.relative_offset <= entry.relative_offset
            });
            if !ascends {
                return None;
            }
            index.entries.push(entry);
        }
        rest.is_empty().then_some(index)
    }

    /// The entries as the file has them, from entry `from` on.
    pub(super) fn to_bytes(&self, from: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.entries.len().saturating_sub(from) * ENTRY_BYTES);
        for entry in self.entries.get(from..).unwrap_or_default() {
            bytes.extend_from_slice(&entry.timestamp.to_be_bytes());
            bytes.extend_from_slice(&entry.relative_offset.to_be_bytes());
        }
        bytes
    }

    /// Adds an entry if the timestamp has grown since the last one.
    pub(super) fn maybe_push(&mut self, max: MaxTimestamp) {
        let Ok(relative_offset) = u32::try_from(max.offset - self.base_offset) else { return };
        let grown = self.entries.last().map_or(max.timestamp > NO_TIMESTAMP, |last| {
            last.timestamp < max.timestamp && last.relative_offset <= relative_offset
        });
        if grown {
            self.entries.push(TimeEntry { timestamp: max.timestamp, relative_offset });
        }
    }

    /// The last offset up to which every timestamp is at most `timestamp`; the base offset when none is known.
    pub(super) fn lookup(&self, timestamp: i64) -> Offset {
        let behind = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        let entry = behind.checked_sub(1).and_then(|slot| self.entries.get(slot));
        self.base_offset + entry.map_or(0, |entry| i64::from(entry.relative_offset))
    }

    /// The largest timestamp that the index knows of.
    pub(super) fn last(&self) -> Option<MaxTimestamp> {
        self.entries.last().map(|entry| MaxTimestamp {
            timestamp: entry.timestamp,
            offset: self.base_offset + i64::from(entry.relative_offset),
        })
    }

    /// Count of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Bytes of the file.
    pub(super) fn size_bytes(&self) -> u64 {
        (self.entries.len() * ENTRY_BYTES) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::{MaxTimestamp, TimeIndex};

    fn sample() -> TimeIndex {
        let mut index = TimeIndex::new(100);
        index.maybe_push(MaxTimestamp { timestamp: 1_000, offset: 105 });
        index.maybe_push(MaxTimestamp { timestamp: 1_000, offset: 110 });
        index.maybe_push(MaxTimestamp { timestamp: 2_000, offset: 120 });
        index
    }

    #[test]
    fn lookup_gives_the_last_offset_with_nothing_newer_before_it() {
        let index = sample();
        assert_eq!(index.lookup(999), 100);
        assert_eq!(index.lookup(1_000), 105);
        assert_eq!(index.lookup(1_999), 105);
        assert_eq!(index.lookup(9_999), 120);
        assert_eq!(index.last(), Some(MaxTimestamp { timestamp: 2_000, offset: 120 }));
    }

    #[test]
    fn a_preallocated_file_is_read_up_to_its_zeros_and_nonsense_is_refused() {
        let mut bytes = sample().to_bytes(0);
        assert_eq!(TimeIndex::parse(100, &bytes[..13]), None);
        bytes.resize(12 * 1_000, 0);
        assert_eq!(TimeIndex::parse(100, &bytes), Some(sample()));
        let swapped: Vec<u8> = bytes[12..24].iter().chain(&bytes[..12]).copied().collect();
        assert_eq!(TimeIndex::parse(100, &swapped), None);
    }
}
