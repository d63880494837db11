//! What a start makes of the files it finds: two decision tables and the work they ask for.
//!
//! First, how much to look at:
//!
//! ```text
//! last stop   checkpoint                   look at
//! clean       fits the files               nothing: the checkpoint tells the end
//! clean       does not fit                 all behind the recovery point
//! clean       without an end, or missing   the end of the active segment (a directory that comes from Kafka)
//! unclean     missing                      everything
//! unclean     there                        all behind the recovery point
//! ```
//!
//! Then, what to do where the batches stop making sense:
//!
//! ```text
//! found                          segments behind it   do
//! nothing                        -                    keep all
//! zeros to the end of the file   none                 trim them
//! damage, at or behind the r.p.  none                 cut: a torn tail, never promised to survive a power cut
//! damage before the r.p.         none                 set aside, go on behind the recovery point
//! anything                       some                 set aside, go on behind all that was there
//! ```
//!
//! *Set aside* deletes nothing: the readable prefix stays, the bytes behind it move to `<file>.set-aside`, and the log
//! goes on with offsets that were never given out, so a consumer never gets another record under a number it knew.
//! Every start after an unclean stop begins a new leader epoch. Runs on the blocking pool; source: Kafka `LogLoader`.

mod load;
mod repair;
mod scan;

use crate::model::Offset;

use super::checkpoint::LogCheckpoint;

pub(super) use load::{
    Known, Recovered, RecoveredActive, load_segment_indexes, read_last_time_entry, recover,
};

/// How the last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// The clean-shutdown marker was there.
    Clean,
    /// It was not.
    Unclean,
}

/// What the checkpoint is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointState {
    /// There is none for this log.
    Missing,
    /// It has no end: Kafka wrote it.
    WithoutEnd,
    /// Its active segment is there with just that length.
    Fits,
    /// It is not.
    Differs,
}

/// How much to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookAt {
    /// Nothing.
    Nothing,
    /// The headers behind the active segment's last index entry.
    ActiveEnd,
    /// All batches behind the recovery point.
    BehindRecoveryPoint,
    /// All batches.
    Everything,
}

/// One row of the first table; `None` stands for any checkpoint that no other row of that stop names.
pub struct StartRow {
    /// How the last run ended.
    pub last_stop: LastStop,
    /// What the checkpoint is worth.
    pub checkpoints: &'static [CheckpointState],
    /// What follows.
    pub look_at: LookAt,
}

/// The first table.
pub const START_TABLE: &[StartRow] = &[
    StartRow { last_stop: LastStop::Clean, checkpoints: &[CheckpointState::Fits], look_at: LookAt::Nothing },
    StartRow {
        last_stop: LastStop::Clean,
        checkpoints: &[CheckpointState::Differs],
        look_at: LookAt::BehindRecoveryPoint,
    },
    StartRow {
        last_stop: LastStop::Clean,
        checkpoints: &[CheckpointState::WithoutEnd, CheckpointState::Missing],
        look_at: LookAt::ActiveEnd,
    },
    StartRow {
        last_stop: LastStop::Unclean,
        checkpoints: &[CheckpointState::Missing],
        look_at: LookAt::Everything,
    },
    StartRow {
        last_stop: LastStop::Unclean,
        checkpoints: &[CheckpointState::WithoutEnd, CheckpointState::Fits, CheckpointState::Differs],
        look_at: LookAt::BehindRecoveryPoint,
    },
];

impl StartRow {
    /// Whether this row is about that situation.
    pub fn matches(&self, last_stop: LastStop, checkpoint: CheckpointState) -> bool {
        self.last_stop == last_stop && self.checkpoints.contains(&checkpoint)
    }
}

/// Looks the situation up in the first table.
pub fn look_at(last_stop: LastStop, checkpoint: CheckpointState) -> LookAt {
    let row = START_TABLE.iter().find(|row| row.matches(last_stop, checkpoint));
    row.map_or(LookAt::Everything, |row| row.look_at) // `tests/recovery_table.rs` shows that a row is always found
}

/// Where the batches stop making sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nowhere.
    Nothing,
    /// Only zeros follow, at or behind the recovery point.
    Zeros,
    /// At or behind the recovery point.
    DamageBehind,
    /// Before the recovery point (or the file ends there): what was durable is gone.
    DamageBefore,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repair {
    /// Nothing.
    Keep,
    /// Shorten the file to its batches.
    Trim,
    /// Shorten the file; records may be lost that were never promised to survive this.
    CutTail,
    /// Move the rest out of the way and go on behind it.
    SetAside,
}

/// One row of the second table.
pub struct RepairRow {
    /// Where the batches stop making sense.
    pub found: Found,
    /// Whether there are segments behind it.
    pub segments_behind: bool,
    /// What follows.
    pub repair: Repair,
}

/// The second table.
pub const REPAIR_TABLE: &[RepairRow] = &[
    RepairRow { found: Found::Nothing, segments_behind: false, repair: Repair::Keep },
    RepairRow { found: Found::Nothing, segments_behind: true, repair: Repair::Keep },
    RepairRow { found: Found::Zeros, segments_behind: false, repair: Repair::Trim },
    RepairRow { found: Found::Zeros, segments_behind: true, repair: Repair::SetAside },
    RepairRow { found: Found::DamageBehind, segments_behind: false, repair: Repair::CutTail },
    RepairRow { found: Found::DamageBehind, segments_behind: true, repair: Repair::SetAside },
    RepairRow { found: Found::DamageBefore, segments_behind: false, repair: Repair::SetAside },
    RepairRow { found: Found::DamageBefore, segments_behind: true, repair: Repair::SetAside },
];

/// Looks the finding up in the second table.
pub fn repair(found: Found, segments_behind: bool) -> Repair {
    let row = REPAIR_TABLE.iter().find(|row| row.found == found && row.segments_behind == segments_behind);
    row.map_or(Repair::SetAside, |row| row.repair) // never deletes, should a row be missing
}

/// Classifies what a scan found in one segment.
fn classify(
    damage: Option<&scan::Damage>,
    next_offset: Offset,
    is_last: bool,
    recovery_point: Offset,
) -> Found {
    match damage {
        Some(damage) if damage.expected_offset < recovery_point => Found::DamageBefore,
        Some(damage) if damage.is_zeros => Found::Zeros,
        Some(_) => Found::DamageBehind,
        None if is_last && next_offset < recovery_point => Found::DamageBefore, // the file is too short
        None => Found::Nothing,
    }
}

/// Classifies a checkpoint by the active segment's base offset and length.
fn checkpoint_state(checkpoint: Option<&LogCheckpoint>, active: Option<(Offset, u64)>) -> CheckpointState {
    match checkpoint.map(|checkpoint| checkpoint.end) {
        None => CheckpointState::Missing,
        Some(None) => CheckpointState::WithoutEnd,
        Some(Some(end)) if active == Some((end.active_base_offset, end.active_size_bytes)) => {
            CheckpointState::Fits
        }
        Some(Some(_)) => CheckpointState::Differs,
    }
}
