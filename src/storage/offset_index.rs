//! From an offset to a position near its batch.
//!
//! ```text
//! entry = offset - base offset: u32 | position: u32          (big endian; both ascend strictly)
//! ```
//!
//! An entry (O, P) says: the batch that begins at position P has O as its last offset. There is about one entry per
//! `index.interval.bytes`. The file may be longer than its entries: Kafka preallocates it and leaves zeros behind them
//! when it is stopped hard. Nothing here is trusted further than its order; a reader checks the batch it lands on.
//! Source: Kafka `OffsetIndex`, `AbstractIndex`.

use crate::model::Offset;

/// Bytes of an entry in the file.
pub(super) const ENTRY_BYTES: usize = size_of::<u32>() + size_of::<u32>();

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    /// Last offset of the batch, less the segment's base offset.
    relative_offset: u32,
    /// Where the batch begins.
    position: u32,
}

/// The offset index of one segment, in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OffsetIndex {
    base_offset: Offset,
    entries: Vec<OffsetEntry>,
}

impl OffsetIndex {
    /// An index without entries.
    pub(super) fn new(base_offset: Offset) -> Self {
        OffsetIndex { base_offset, entries: Vec::new() }
    }

    /// Reads the entries of a file for a segment of `segment_bytes`; `None` when it holds something impossible.
    pub(super) fn parse(base_offset: Offset, bytes: &[u8], segment_bytes: u64) -> Option<Self> {
        let mut index = OffsetIndex::new(base_offset);
        let (entries, rest) = bytes.as_chunks::<ENTRY_BYTES>();
        for &[o1, o2, o3, o4, p1, p2, p3, p4] in entries {
            let entry = OffsetEntry {
                relative_offset: u32::from_be_bytes([o1, o2, o3, o4]),
                position: u32::from_be_bytes([p1, p2, p3, p4]),
            };
            if entry.relative_offset == 0 && entry.position == 0 {
                return Some(index); // preallocated room
            }
            let ascends = index.entries.last().is_none_or(|last| {
                last.relative_offset < entry.relative_offset && last.position < entry.position
            });
            if !ascends || u64::from(entry.position) >= segment_bytes {
                return None;
            }
            index.entries.push(entry);
        }
        rest.is_empty().then_some(index)
    }

    /// The entries as the file has them, from entry `from` on.
    pub(super) fn to_bytes(&self, from: usize) -> Vec<u8> {
        let entries = self.entries.get(from..).unwrap_or_default();
        entries
            .iter()
            .flat_map(|entry| [entry.relative_offset.to_be_bytes(), entry.position.to_be_bytes()])
            .flatten()
            .collect()
    }

    /// Notes that the batch at `position` ends with `last_offset`. What does not ascend is left out.
    pub(super) fn push(&mut self, last_offset: Offset, position: u64) {
        let (Ok(relative_offset), Ok(position)) =
            (u32::try_from(last_offset - self.base_offset), u32::try_from(position))
        else {
            return;
        };
        let entry = OffsetEntry { relative_offset, position };
        if self.entries.last().is_none_or(|last| last.relative_offset < relative_offset) {
            self.entries.push(entry);
        }
    }

    /// A position at or before the batch that contains `offset`, as near as the index knows.
    pub(super) fn lookup(&self, offset: Offset) -> u64 {
        let relative_offset = offset - self.base_offset;
        let behind =
            self.entries.partition_point(|entry| i64::from(entry.relative_offset) <= relative_offset);
        behind
            .checked_sub(1)
            .and_then(|slot| self.entries.get(slot))
            .map_or(0, |entry| u64::from(entry.position))
    }

    /// The position of the last entry; 0 without one.
    pub(super) fn last_position(&self) -> u64 {
        self.entries.last().map_or(0, |entry| u64::from(entry.position))
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
    use super::OffsetIndex;

    fn sample() -> OffsetIndex {
        let mut index = OffsetIndex::new(100);
        index.push(109, 4_096);
        index.push(119, 8_192);
        index
    }

    #[test]
    fn lookup_lands_at_or_before_the_batch() {
        let index = sample();
        assert_eq!(index.lookup(100), 0);
        assert_eq!(index.lookup(108), 0, "the entry is for the batch that ends with 109");
        assert_eq!(index.lookup(109), 4_096);
        assert_eq!(index.lookup(5_000), 8_192);
    }

    #[test]
    fn a_preallocated_file_is_read_up_to_its_zeros() {
        let mut bytes = sample().to_bytes(0);
        bytes.resize(10 * 1024, 0);
        assert_eq!(OffsetIndex::parse(100, &bytes, 10_000), Some(sample()));
    }

    #[test]
    fn an_index_that_does_not_ascend_or_points_outside_is_refused() {
        let bytes = sample().to_bytes(0);
        assert_eq!(OffsetIndex::parse(100, &bytes, 8_192), None);
        assert_eq!(OffsetIndex::parse(100, &bytes[..9], 10_000), None);
        let swapped: Vec<u8> = bytes[8..].iter().chain(&bytes[..8]).copied().collect();
        assert_eq!(OffsetIndex::parse(100, &swapped, 10_000), None);
    }
}
