//! What is stored of a share partition, and how changes are laid over it.

use crate::model::Offset;

/// Where a stored record stands; locks are not stored. The numbers are those of Kafka's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// 0: it may be delivered.
    Available,
    /// 2: it was processed.
    Acknowledged,
    /// 4: nobody gets it any more.
    Archived,
}

impl DeliveryState {
    /// The number in a record.
    pub fn number(self) -> i8 {
        match self {
            DeliveryState::Available => 0,
            DeliveryState::Acknowledged => 2,
            DeliveryState::Archived => 4,
        }
    }

    /// The state of that number; a lock that somebody stored (1) is free.
    pub fn of(number: i8) -> DeliveryState {
        match number {
            2 => DeliveryState::Acknowledged,
            4 => DeliveryState::Archived,
            _ => DeliveryState::Available,
        }
    }
}

/// Records in a row with the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateBatch {
    /// The first of them.
    pub first_offset: Offset,
    /// The last of them.
    pub last_offset: Offset,
    /// Where they stand.
    pub state: DeliveryState,
    /// How often they were delivered.
    pub delivery_count: i16,
}

/// The state of one share partition in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// Counts the snapshots.
    pub snapshot_epoch: i32,
    /// Raised whenever the state is made anew.
    pub state_epoch: i32,
    /// The leader epoch of its last writer.
    pub leader_epoch: i32,
    /// The first record that is not done, or -1 while nobody has decided.
    pub start_offset: Offset,
    /// Those behind it that are not as new; in order, without overlap.
    pub batches: Vec<StateBatch>,
}

impl StoredState {
    /// The state of a share partition that nobody has read yet.
    pub fn new(state_epoch: i32, start_offset: Offset) -> Self {
        StoredState { snapshot_epoch: 0, state_epoch, leader_epoch: 0, start_offset, batches: Vec::new() }
    }

    /// Lays changes over the state.
    pub fn apply(&mut self, start_offset: Offset, changes: &[StateBatch]) {
        if start_offset >= 0 {
            self.start_offset = start_offset;
        }
        for change in changes {
            let mut kept = Vec::with_capacity(self.batches.len() + 2);
            for batch in std::mem::take(&mut self.batches) {
                if batch.first_offset < change.first_offset {
                    let last_offset = batch.last_offset.min(change.first_offset - 1);
                    kept.push(StateBatch { last_offset, ..batch });
                }
                if batch.last_offset > change.last_offset {
                    let first_offset = batch.first_offset.max(change.last_offset + 1);
                    kept.push(StateBatch { first_offset, ..batch });
                }
            }
            kept.push(*change);
            kept.sort_by_key(|batch| batch.first_offset);
            self.batches = kept;
        }
        let start_offset = self.start_offset;
        self.batches.retain(|batch| batch.last_offset >= start_offset);
        if let Some(first) = self.batches.first_mut() {
            first.first_offset = first.first_offset.max(start_offset);
        }
        self.join_neighbours();
    }

    fn join_neighbours(&mut self) {
        let mut joined: Vec<StateBatch> = Vec::with_capacity(self.batches.len());
        for batch in std::mem::take(&mut self.batches) {
            match joined.last_mut() {
                Some(before)
                    if before.last_offset + 1 == batch.first_offset
                        && before.state == batch.state
                        && before.delivery_count == batch.delivery_count =>
                {
                    before.last_offset = batch.last_offset;
                }
                _ => joined.push(batch),
            }
        }
        self.batches = joined;
    }
}

impl StoredState {
    /// How many records from the start offset on are done.
    pub fn delivery_complete_count(&self) -> i64 {
        let is_done = |batch: &&StateBatch| batch.state != DeliveryState::Available;
        self.batches.iter().filter(is_done).map(|batch| batch.last_offset - batch.first_offset + 1).sum()
    }
}
