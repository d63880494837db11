//! Which transactions of a segment were aborted.
//!
//! ```text
//! entry = version: i16 (0) | producer id: i64 | first offset: i64 | last offset: i64 | last stable offset: i64
//! ```
//!
//! The entry lies with the segment that holds the abort marker (its last offset). A fetch at READ_COMMITTED tells the
//! client these entries, and the client drops the records. The file exists only when there are entries.
//! Source: Kafka `TransactionIndex`, `AbortedTxn`; KIP-98.

use crate::model::{Offset, ProducerId};

const VERSION: i16 = 0;
/// Bytes of an entry in the file.
const ENTRY_BYTES: usize = size_of::<i16>() + 4 * size_of::<i64>();

/// One aborted transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose it was.
    pub producer_id: ProducerId,
    /// Its first record in this partition.
    pub first_offset: Offset,
    /// Its abort marker.
    pub last_offset: Offset,
    /// The last stable offset when it was aborted.
    pub last_stable_offset: Offset,
}

/// The aborted transactions whose markers lie in one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TransactionIndex {
    entries: Vec<AbortedTransaction>,
}

impl TransactionIndex {
    /// Reads a file; entries from the first impossible one on are left out.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut index = TransactionIndex::default();
        for chunk in bytes.as_chunks::<ENTRY_BYTES>().0 {
            let Some(entry) = parse_entry(chunk) else { break };
            index.push(entry);
        }
        index
    }

    /// The entries as the file has them, from entry `from` on.
    pub(super) fn to_bytes(&self, from: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in self.entries.get(from..).unwrap_or_default() {
            bytes.extend_from_slice(&VERSION.to_be_bytes());
            for field in [entry.producer_id, entry.first_offset, entry.last_offset, entry.last_stable_offset]
            {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
        }
        bytes
    }

    /// Adds a transaction; the markers come in ascending order.
    pub(super) fn push(&mut self, entry: AbortedTransaction) {
        if self.entries.last().is_none_or(|last| last.last_offset < entry.last_offset) {
            self.entries.push(entry);
        }
    }

    /// The entries of `self` whose markers lie before `offset`, then those of `newer`.
    pub(super) fn merged_with(&self, newer: &TransactionIndex, offset: Offset) -> Self {
        let older = self.entries.iter().filter(|entry| entry.last_offset < offset);
        TransactionIndex { entries: older.chain(&newer.entries).copied().collect() }
    }

    /// Adds to `found` what overlaps `from..to`. Whether later segments need not be asked: a transaction that ends in
    /// them began at or behind the last stable offset of an entry seen here.
    pub(super) fn collect(&self, from: Offset, to: Offset, found: &mut Vec<AbortedTransaction>) -> bool {
        for entry in &self.entries {
            if entry.last_offset >= from && entry.first_offset < to {
                found.push(*entry);
            }
            if entry.last_stable_offset >= to {
                return true;
            }
        }
        false
    }

    /// Count of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn parse_entry(chunk: &[u8; ENTRY_BYTES]) -> Option<AbortedTransaction> {
    let (version, rest) = chunk.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) != VERSION {
        return None;
    }
    let mut fields = rest.as_chunks::<8>().0.iter().map(|field| i64::from_be_bytes(*field));
    let entry = AbortedTransaction {
        producer_id: fields.next()?,
        first_offset: fields.next()?,
        last_offset: fields.next()?,
        last_stable_offset: fields.next()?,
    };
    (entry.first_offset >= 0 && entry.first_offset <= entry.last_offset).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::{AbortedTransaction, TransactionIndex};

    fn aborted(first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTransaction {
        AbortedTransaction { producer_id: 7, first_offset, last_offset, last_stable_offset }
    }

    #[test]
    fn entries_are_read_back_and_a_torn_one_is_left_out() {
        let mut index = TransactionIndex::default();
        index.push(aborted(0, 10, 11));
        index.push(aborted(5, 15, 16));
        let bytes = index.to_bytes(0);
        assert_eq!(bytes.len(), 68);
        assert_eq!(TransactionIndex::parse(&bytes), index);
        assert_eq!(TransactionIndex::parse(&bytes[..50]).len(), 1);
    }

    #[test]
    fn only_what_overlaps_the_range_is_collected_and_the_search_ends_early() {
        let mut index = TransactionIndex::default();
        index.push(aborted(0, 10, 11));
        index.push(aborted(20, 30, 31));
        let mut found = Vec::new();
        assert!(index.collect(5, 15, &mut found));
        assert_eq!(found, [aborted(0, 10, 11)]);
        found.clear();
        assert!(!index.collect(25, 100, &mut found));
        assert_eq!(found, [aborted(20, 30, 31)]);
    }
}
