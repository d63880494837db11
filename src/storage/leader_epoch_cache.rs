//! Which leader epoch began at which offset.
//!
//! The file `leader-epoch-checkpoint` holds, as Kafka's checkpoint files do, a version, a count, and a line
//! `<epoch> <start offset>` each. There is one server, so an epoch is the life of the log: 0 at its creation, one more
//! whenever recovery had to cut or set aside records, since then offsets may name other records than before. A Kafka
//! directory keeps the epochs that it came with. Source: Kafka `LeaderEpochFileCache`, KIP-101, KIP-279.

use std::cell::{Cell, RefCell};

use crate::model::{LeaderEpoch, NO_LEADER_EPOCH, Offset};

use super::checkpoint;

/// What "no offset" is on the wire.
const NO_OFFSET: Offset = -1;

/// One epoch and where it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EpochEntry {
    /// The epoch.
    pub(super) epoch: LeaderEpoch,
    /// The first offset written in it.
    pub(super) start_offset: Offset,
}

/// The epochs of one log, ascending in both fields.
#[derive(Debug, Default)]
pub(super) struct LeaderEpochCache {
    entries: RefCell<Vec<EpochEntry>>,
    /// Whether the file is behind.
    dirty: Cell<bool>,
}

impl LeaderEpochCache {
    /// Takes over the entries of a file or of a recovery.
    pub(super) fn new(entries: Vec<EpochEntry>, dirty: bool) -> Self {
        LeaderEpochCache { entries: RefCell::new(entries), dirty: Cell::new(dirty) }
    }

    /// The current epoch.
    pub(super) fn latest(&self) -> LeaderEpoch {
        self.entries.borrow().last().map_or(0, |entry| entry.epoch)
    }

    /// The epoch that `offset` was written in, if it is known.
    pub(super) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let entries = self.entries.borrow();
        entries.iter().rev().find(|entry| entry.start_offset <= offset).map(|entry| entry.epoch)
    }

    /// Notes that `epoch` begins at `start_offset`, if it is new.
    pub(super) fn assign(&self, epoch: LeaderEpoch, start_offset: Offset) {
        if assign(&mut self.entries.borrow_mut(), epoch, start_offset) {
            self.dirty.set(true);
        }
    }

    /// The end of `epoch`: where the next larger epoch began, or the end of the log for the current one. The epoch in
    /// the answer is the largest one not above the question that is known; (-1, -1) when the answer is not known.
    pub(super) fn end_offset(&self, epoch: LeaderEpoch, log_end_offset: Offset) -> (LeaderEpoch, Offset) {
        let entries = self.entries.borrow();
        let Some(last) = entries.last() else { return (NO_LEADER_EPOCH, NO_OFFSET) };
        if epoch == last.epoch {
            return (epoch, log_end_offset);
        }
        let behind = entries.partition_point(|entry| entry.epoch <= epoch);
        match (behind.checked_sub(1).and_then(|slot| entries.get(slot)), entries.get(behind)) {
            _ if epoch < 0 => (NO_LEADER_EPOCH, NO_OFFSET),
            (_, None) => (NO_LEADER_EPOCH, NO_OFFSET), // an epoch of the future
            (None, Some(next)) => (epoch, next.start_offset),
            (Some(floor), Some(next)) => (floor.epoch, next.start_offset),
        }
    }

    /// Drops epochs that ended at or before the new start of the log.
    pub(super) fn truncate_before(&self, log_start_offset: Offset) {
        let mut entries = self.entries.borrow_mut();
        let gone = entries.partition_point(|entry| entry.start_offset <= log_start_offset).saturating_sub(1);
        let stale = entries.get(gone).is_some_and(|first| first.start_offset < log_start_offset);
        if gone > 0 || stale {
            entries.drain(..gone);
            if let Some(first) = entries.first_mut() {
                first.start_offset = first.start_offset.max(log_start_offset);
            }
            self.dirty.set(true);
        }
    }

    /// The file's contents if it is behind; it counts as written from now on.
    pub(super) fn take_unsaved(&self) -> Option<Vec<u8>> {
        self.dirty.replace(false).then(|| to_bytes(&self.entries.borrow()))
    }

    /// The writing of the file failed after all.
    pub(super) fn mark_unsaved(&self) {
        self.dirty.set(true);
    }
}

/// Notes that `epoch` begins at `start_offset`, if it is larger than all that are known. Whether it was.
pub(super) fn assign(entries: &mut Vec<EpochEntry>, epoch: LeaderEpoch, start_offset: Offset) -> bool {
    let new = epoch > NO_LEADER_EPOCH && entries.last().is_none_or(|last| last.epoch < epoch);
    if new {
        while entries.last().is_some_and(|last| last.start_offset >= start_offset) {
            entries.pop(); // an epoch in which nothing was written
        }
        entries.push(EpochEntry { epoch, start_offset });
    }
    new
}

/// The file's form.
pub(super) fn to_bytes(entries: &[EpochEntry]) -> Vec<u8> {
    checkpoint::lines(entries.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset)))
}

/// Reads a file; `None` when it is not in that form or does not ascend.
pub(super) fn parse(bytes: &[u8]) -> Option<Vec<EpochEntry>> {
    let mut entries: Vec<EpochEntry> = Vec::new();
    for line in checkpoint::parse_lines(bytes)? {
        let (epoch, start_offset) = line.split_once(' ')?;
        let entry = EpochEntry { epoch: epoch.parse().ok()?, start_offset: start_offset.parse().ok()? };
        let ascends = entries
            .last()
            .is_none_or(|last| last.epoch < entry.epoch && last.start_offset <= entry.start_offset);
        if !ascends || entry.epoch < 0 || entry.start_offset < 0 {
            return None;
        }
        entries.push(entry);
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> LeaderEpochCache {
        let cache = LeaderEpochCache::default();
        cache.assign(1, 10);
        cache.assign(3, 30);
        cache.assign(2, 40); // not new
        cache
    }

    #[test]
    fn the_end_of_an_epoch_follows_kafkas_rules() {
        let cache = cache();
        assert_eq!(cache.end_offset(3, 50), (3, 50));
        assert_eq!(cache.end_offset(2, 50), (1, 30), "the largest epoch below");
        assert_eq!(cache.end_offset(1, 50), (1, 30));
        assert_eq!(cache.end_offset(0, 50), (0, 10), "older than all that is known");
        assert_eq!(cache.end_offset(4, 50), (-1, -1));
        assert_eq!(cache.end_offset(-1, 50), (-1, -1));
    }

    #[test]
    fn the_file_is_kafkas_and_is_written_once_per_change() {
        let cache = cache();
        let bytes = cache.take_unsaved().unwrap();
        assert_eq!(bytes, b"0\n2\n1 10\n3 30\n");
        assert_eq!(cache.take_unsaved(), None);
        assert_eq!(parse(&bytes).unwrap().len(), 2);
        assert_eq!(parse(b"0\n2\n1 10\n"), None);
        assert_eq!(parse(b"0\n1\n1 x\n"), None);
    }

    #[test]
    fn epochs_before_the_start_of_the_log_go_and_the_one_that_covers_it_stays() {
        let cache = cache();
        cache.truncate_before(35);
        assert_eq!(cache.take_unsaved().unwrap(), b"0\n1\n3 35\n");
    }
}
