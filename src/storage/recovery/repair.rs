//! Cutting and setting aside.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::units::MIB;
use crate::model::Offset;
use crate::runtime::file::{File, OpenMode};

use super::super::file_names::{SET_ASIDE_SUFFIX, SegmentFile, with_suffix};

/// Copied at once.
const COPY_STEP_BYTES: usize = MIB;

/// Shortens a segment's file to `size_bytes`.
pub(super) fn cut(path: &Path, size_bytes: u64) -> io::Result<()> {
    let file = File::open_now(path, OpenMode::ReadWrite)?;
    file.truncate_now(size_bytes)?;
    file.sync_data_now()
}

/// Moves the bytes behind `position` of a segment's file to a file of their own and shortens the segment. The copy is
/// durable before anything is cut.
pub(super) fn set_rest_aside(path: &Path, position: u64) -> io::Result<Option<PathBuf>> {
    let file = File::open_now(path, OpenMode::ReadWrite)?;
    let size_bytes = file.len()?;
    if position >= size_bytes {
        return Ok(None);
    }
    let aside_path = unused(&with_suffix(path, &format!(".from-{position}{SET_ASIDE_SUFFIX}")));
    let aside = File::open_now(&aside_path, OpenMode::CreateNew)?;
    let mut bytes = Vec::new();
    let mut at = position;
    while at < size_bytes {
        file.read_into_now(&mut bytes, at, COPY_STEP_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        aside.write_at(&bytes, at - position)?;
        at += bytes.len() as u64;
    }
    aside.sync_data_now()?;
    sync_parent(path)?;
    file.truncate_now(position)?;
    file.sync_data_now()?;
    Ok(Some(aside_path))
}

/// Renames all files of a segment out of the way.
pub(super) fn set_segment_aside(dir: &Path, base_offset: Offset) -> io::Result<Vec<PathBuf>> {
    let mut moved = Vec::new();
    for file in SegmentFile::ALL {
        let path = file.path(dir, base_offset);
        if path.exists() {
            let aside = unused(&with_suffix(&path, SET_ASIDE_SUFFIX));
            fs::rename(&path, &aside)?;
            moved.push(aside);
        }
    }
    Ok(moved)
}

/// A name like `path` that nothing has yet, so that an older finding is never overwritten.
fn unused(path: &Path) -> PathBuf {
    let mut free = path.to_owned();
    let mut number = 1;
    while free.exists() {
        free = with_suffix(path, &format!(".{number}"));
        number += 1;
    }
    free
}

/// Makes the names in a file's directory durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| fs::File::open(parent)?.sync_all())
}
