//! Byte ranges of whole batches out of a segment, mapped or read.
//!
//! Both ways begin at the position that the offset index gives for the wanted offset, walk over headers to the batch
//! that contains it, and take whole batches from there. A mapping is only touched where it is resident: the shard never
//! takes a page fault that waits for the device. What is not resident is brought in on the blocking pool, with the
//! bytes behind it asked for ahead; should it still not be there (a bad sector, no memory), it is read instead.
//! Source: Kafka `LogSegment.read`.

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use crate::base::units::{KIB, MIB};
use crate::model::Offset;
use crate::record::{BATCH_HEADER_BYTES, BatchHeader};
use crate::runtime::file::{File, OpenMode};
use crate::runtime::{self, mapped_file};

use super::error::StorageError;
use super::log::{ReadRequest, ReadView};
use super::segment_cache::LoadedSegment;

/// Looked at behind an index entry before anything is known about the batches there.
pub(super) const LOOK_BYTES: usize = 16 * KIB;
/// Most that one read takes, whatever the request allows.
const READ_BYTES_MAX: usize = 64 * MIB;
/// Asked for ahead of a reader that missed.
const READ_AHEAD_BYTES: usize = 4 * MIB;

/// What a walk over a segment came to.
pub(super) enum Selected {
    /// These bytes, which end before `next_offset`.
    Batches(Range<usize>, Offset),
    /// Nothing that the request takes, though the segment goes on.
    Nothing,
    /// The segment has nothing at or behind the wanted offset.
    Ended,
    /// Bytes up to here must be there first.
    Needs(usize),
    /// The bytes at this place are no batch.
    Damaged(usize, String),
}

/// Selects batches from the beginning of `bytes`. The segment goes on to `total` bytes from there; `is_there` tells
/// whether the bytes up to a place can be touched.
pub(super) fn select(
    bytes: &[u8],
    total: usize,
    request: &ReadRequest,
    mut is_there: impl FnMut(usize) -> bool,
) -> Selected {
    let mut at = 0;
    let mut found: Option<(Range<usize>, Offset)> = None;
    while at < total {
        let header_end = at + BATCH_HEADER_BYTES;
        if header_end <= total && !is_there(header_end) {
            return found.map_or(Selected::Needs(header_end), |(range, next)| Selected::Batches(range, next));
        }
        let header = match bytes.get(at..).map(BatchHeader::parse) {
            Some(Ok(header)) if at + header.size_bytes() <= total => header,
            Some(Ok(_)) | None => return damaged(found, at, "the batch is cut".to_owned()),
            Some(Err(error)) => return damaged(found, at, error.to_string()),
        };
        let end = at + header.size_bytes();
        if header.last_offset() >= request.offset {
            let (start, taken) = found.as_ref().map_or((at, 0), |(range, _)| (range.start, range.len()));
            if !request.takes(taken, header.size_bytes(), header.next_offset()) {
                return found.map_or(Selected::Nothing, |(range, next)| Selected::Batches(range, next));
            }
            if !is_there(end) {
                return found.map_or(Selected::Needs(end), |(range, next)| Selected::Batches(range, next));
            }
            found = Some((start..end, header.next_offset()));
        }
        at = end;
    }
    found.map_or(Selected::Ended, |(range, next)| Selected::Batches(range, next))
}

fn damaged(found: Option<(Range<usize>, Offset)>, at: usize, reason: String) -> Selected {
    found.map_or(Selected::Damaged(at, reason), |(range, next)| Selected::Batches(range, next))
}

/// Bytes that a request probably touches behind its index entry.
fn window_bytes(request: &ReadRequest) -> usize {
    LOOK_BYTES + request.max_bytes.min(READ_BYTES_MAX)
}

/// What a read of a mapped segment came to, without waiting.
pub(super) enum MappedRead {
    /// Done.
    View(ReadView),
    /// Go on with the next segment.
    Ended,
    /// This part of the mapping must be made resident first.
    NotResident(Range<usize>),
}

/// Reads a sealed segment where it is resident.
///
/// # Errors
/// `Damaged`.
pub(super) fn read_sealed(
    segment: &LoadedSegment,
    request: &ReadRequest,
    path: &Path,
) -> Result<MappedRead, StorageError> {
    read_mapped(&segment.map, segment.indexes.offsets.lookup(request.offset), request, path)
}

/// Reads from `position` on in the mapping of a segment's data, where it is resident.
///
/// # Errors
/// `Damaged`.
pub(super) fn read_mapped(
    map: &Bytes,
    position: u64,
    request: &ReadRequest,
    path: &Path,
) -> Result<MappedRead, StorageError> {
    let start = usize::try_from(position).unwrap_or(usize::MAX);
    let Some(bytes) = map.get(start..) else { return Ok(MappedRead::Ended) };
    let mut resident = 0;
    let window = window_bytes(request).min(bytes.len());
    let selected = select(bytes, bytes.len(), request, |end| {
        if end > resident {
            let asked = end.max(if resident == 0 { window } else { 0 });
            if !bytes.get(resident..asked).is_some_and(mapped_file::is_resident) {
                return false;
            }
            resident = asked;
        }
        true
    });
    match selected {
        Selected::Batches(range, next_offset) => {
            let mut view = ReadView::empty(request.offset);
            view.push(map.slice(start + range.start..start + range.end), next_offset);
            Ok(MappedRead::View(view))
        }
        Selected::Nothing => Ok(MappedRead::View(ReadView::empty(request.offset))),
        Selected::Ended => Ok(MappedRead::Ended),
        Selected::Needs(end) => Ok(MappedRead::NotResident(start..start + end.max(window))),
        Selected::Damaged(at, reason) => {
            Err(StorageError::Damaged { path: path.to_owned(), position: (start + at) as u64, reason })
        }
    }
}

/// Makes a part of a mapping resident, and asks the kernel for what lies behind it.
pub(super) async fn make_resident(segment: &LoadedSegment, range: Range<usize>) {
    let ahead_end = (range.end + READ_AHEAD_BYTES).min(segment.map.len());
    let (needed, ahead) = (segment.map.slice(range.clone()), segment.map.slice(range.end..ahead_end));
    runtime::blocking(move || {
        mapped_file::prefault_now(&needed);
        mapped_file::read_ahead(&ahead);
    })
    .await;
}

/// A stretch of a segment's file to read from.
pub(super) struct FileSpan {
    /// The file.
    pub(super) file: File,
    /// Where to begin: at a batch that is not behind the wanted one.
    pub(super) position: u64,
    /// Where the readable bytes end.
    pub(super) end: u64,
}

/// Reads with positioned reads; `None` when the span has nothing at or behind the wanted offset.
///
/// # Errors
/// The kernel's, `Damaged`.
pub(super) async fn read_file(
    span: FileSpan,
    request: &ReadRequest,
) -> Result<Option<ReadView>, StorageError> {
    let total = usize::try_from(span.end.saturating_sub(span.position)).unwrap_or(usize::MAX);
    let mut length = window_bytes(request).min(total);
    loop {
        let bytes = span.file.read_at(span.position, length).await;
        let bytes = bytes.map_err(|error| StorageError::io("read", span.file.path(), error))?;
        if bytes.len() < length {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(StorageError::io("read", span.file.path(), error));
        }
        match select(&bytes, total, request, |end| end <= bytes.len()) {
            Selected::Batches(range, next_offset) => {
                let mut view = ReadView::empty(request.offset);
                view.push(bytes.slice(range), next_offset);
                return Ok(Some(view));
            }
            Selected::Nothing => return Ok(Some(ReadView::empty(request.offset))),
            Selected::Ended => return Ok(None),
            Selected::Needs(end) => length = end.max(length.saturating_mul(2)).min(total),
            Selected::Damaged(at, reason) => {
                let path = span.file.path().to_owned();
                return Err(StorageError::Damaged { path, position: span.position + at as u64, reason });
            }
        }
    }
}

/// Reads a sealed segment past its mapping.
///
/// # Errors
/// As [`read_file`].
pub(super) async fn read_unmapped(
    path: &Path,
    segment: &LoadedSegment,
    request: &ReadRequest,
) -> Result<Option<ReadView>, StorageError> {
    let file =
        File::open(path, OpenMode::Read).await.map_err(|error| StorageError::io("open", path, error))?;
    let position = segment.indexes.offsets.lookup(request.offset);
    read_file(FileSpan { file, position, end: segment.map.len() as u64 }, request).await
}
