//! Walks over the batches of a segment file, front to back, on the blocking pool.
//!
//! What lies before the recovery point is walked by its headers only; what lies behind it is read whole and its
//! checksums are checked. The file is read in large steps, and never mapped: a bad sector must be an error, not a signal.

use std::io;

use crate::base::units::{KIB, MIB};
use crate::model::Offset;
use crate::record::{self, BATCH_HEADER_BYTES, BatchHeader};
use crate::runtime::file::File;

/// Read at once where whole batches are looked at.
const WHOLE_STEP_BYTES: usize = MIB;
/// Read at once where only headers are looked at: large batches are mostly skipped, small ones share a read.
const HEADER_STEP_BYTES: usize = 64 * KIB;

/// Where and why a walk stopped before the end of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Damage {
    /// The first byte that is not part of a whole batch.
    pub(in crate::storage) position: u64,
    /// The offset that the next batch should have had, or more.
    pub(in crate::storage) expected_offset: Offset,
    /// What is wrong.
    pub(in crate::storage) reason: String,
    /// Whether only zeros follow: room that was prepared for direct writes, or pages that a power cut left empty.
    pub(in crate::storage) is_zeros: bool,
}

/// What a walk found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage) struct Walked {
    /// Bytes of whole batches.
    pub(in crate::storage) valid_bytes: u64,
    /// The offset behind the last of them.
    pub(in crate::storage) next_offset: Offset,
    /// Why it stopped early, if it did.
    pub(in crate::storage) damage: Option<Damage>,
}

/// From where to where, and how closely, to look.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Walk {
    /// Where the first batch begins.
    pub(in crate::storage) position: u64,
    /// The file's length.
    pub(in crate::storage) size_bytes: u64,
    /// No batch may begin before this offset.
    pub(in crate::storage) expected_offset: Offset,
    /// From here on checksums are checked.
    pub(in crate::storage) check_from: Offset,
}

/// Calls `visit` with each good batch: its header, its position, and its bytes as far as they were read (all of them for
/// control batches and where checksums are checked).
pub(in crate::storage) fn walk(
    file: &File,
    walk: Walk,
    mut visit: impl FnMut(&BatchHeader, u64, &[u8]),
) -> io::Result<Walked> {
    let mut window = Window { file, start: walk.position, bytes: Vec::new(), file_bytes: walk.size_bytes };
    let (mut position, mut expected_offset) = (walk.position, walk.expected_offset);
    let damage = loop {
        if position >= walk.size_bytes {
            break None;
        }
        match check_batch(&mut window, position, expected_offset, walk.check_from)? {
            Ok((header, bytes)) => {
                visit(&header, position, bytes);
                position += header.size_bytes() as u64;
                expected_offset = header.next_offset();
            }
            Err(reason) => {
                let is_zeros = only_zeros_follow(&mut window, position)?;
                break Some(Damage { position, expected_offset, reason, is_zeros });
            }
        }
    };
    Ok(Walked { valid_bytes: position, next_offset: expected_offset, damage })
}

type Checked<'w> = Result<(BatchHeader, &'w [u8]), String>;

fn check_batch<'w>(
    window: &'w mut Window<'_>,
    position: u64,
    expected_offset: Offset,
    check_from: Offset,
) -> io::Result<Checked<'w>> {
    let check_crc = expected_offset >= check_from;
    let step = if check_crc { WHOLE_STEP_BYTES } else { HEADER_STEP_BYTES };
    let header = match BatchHeader::parse(window.get(position, BATCH_HEADER_BYTES, step)?) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if header.base_offset < expected_offset || header.last_offset() < header.base_offset {
        return Ok(Err(format!("expected offset {expected_offset} or more, found {}", header.base_offset)));
    }
    let size = header.size_bytes();
    if position + size as u64 > window.file_bytes {
        return Ok(Err(format!("a batch of {size} bytes is cut after {}", window.file_bytes - position)));
    }
    if !check_crc && !header.is_control() {
        return Ok(Ok((header, &[])));
    }
    let bytes = window.get(position, size, step)?;
    if check_crc && let Err(error) = record::check_crc(bytes, &header) {
        return Ok(Err(error.to_string()));
    }
    Ok(Ok((header, bytes)))
}

fn only_zeros_follow(window: &mut Window<'_>, mut position: u64) -> io::Result<bool> {
    while position < window.file_bytes {
        let bytes = window.get(position, WHOLE_STEP_BYTES, WHOLE_STEP_BYTES)?;
        if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
            return Ok(bytes.is_empty());
        }
        position += bytes.len() as u64;
    }
    Ok(true)
}

/// The part of the file that was read last.
struct Window<'f> {
    file: &'f File,
    start: u64,
    bytes: Vec<u8>,
    file_bytes: u64,
}

impl Window<'_> {
    /// `length` bytes at `position`, fewer at the end of the file; reads at least `step` when it has to read.
    fn get(&mut self, position: u64, length: usize, step: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.file_bytes.saturating_sub(position)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let inside = position.checked_sub(self.start).and_then(|start| usize::try_from(start).ok());
        if inside.is_none_or(|start| start + length > self.bytes.len()) {
            self.file.read_into_now(&mut self.bytes, position, length.max(step).min(left))?;
            self.start = position;
        }
        let start = usize::try_from(position - self.start).unwrap_or(usize::MAX);
        let end = start.saturating_add(length).min(self.bytes.len());
        Ok(self.bytes.get(start..end).unwrap_or_default())
    }
}
