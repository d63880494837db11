//! Reading: tail cache first, then the mapping of a segment where it is resident, then the file.

use std::rc::Rc;

use bytes::Bytes;

use crate::model::Offset;
use crate::runtime::{self, mapped_file};

use super::super::cold_reads::ColdSpan;
use super::super::error::StorageError;
use super::super::recovery;
use super::super::segment::{ActiveSegment, SealedSegment};
use super::super::segment_cache::LoadedSegment;
use super::super::segment_reader::{self, FileSpan, MappedRead};
use super::{Log, LogState};

/// A mapping that is still not resident after so many tries is read instead.
const RESIDENT_TRIES: usize = 3;

/// What to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadRequest {
    /// The first wanted offset; the read begins with the batch that contains it.
    pub offset: Offset,
    /// Batches that end behind this are not returned: the high watermark or the last stable offset.
    pub end_offset: Offset,
    /// Most bytes to return.
    pub max_bytes: usize,
    /// Return one batch even if it is larger than that.
    pub at_least_one: bool,
}

impl ReadRequest {
    /// Whether a batch of `more_bytes` that ends before `next_offset` still belongs to the answer.
    pub(in crate::storage) fn takes(
        &self,
        taken_bytes: usize,
        more_bytes: usize,
        next_offset: Offset,
    ) -> bool {
        next_offset <= self.end_offset
            && (taken_bytes + more_bytes <= self.max_bytes || (taken_bytes == 0 && self.at_least_one))
    }
}

/// Whole batches, in order, as they lie on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadView {
    /// Their bytes; each chunk is one or more whole batches. They own what they show.
    pub chunks: Vec<Bytes>,
    /// Bytes of all chunks.
    pub size_bytes: usize,
    /// The offset behind the last batch; the requested one when there is none.
    pub next_offset: Offset,
}

impl ReadView {
    /// No batches.
    pub fn empty(offset: Offset) -> Self {
        ReadView { chunks: Vec::new(), size_bytes: 0, next_offset: offset }
    }

    /// Adds whole batches that end before `next_offset`.
    pub(in crate::storage) fn push(&mut self, chunk: Bytes, next_offset: Offset) {
        self.size_bytes += chunk.len();
        self.next_offset = next_offset;
        self.chunks.push(chunk);
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// Where the search for an offset goes on.
enum Place {
    Sealed(Rc<SealedSegment>),
    Active(Rc<ActiveSegment>),
}

impl Log {
    /// Reads from memory: the tail cache or a resident mapping. `None` when that takes waiting; `read` then does it.
    pub fn try_read(&self, request: &ReadRequest) -> Option<Result<ReadView, StorageError>> {
        self.0.try_read(request).transpose()
    }

    /// Reads whole batches from the one that contains `offset` on, up to `end_offset` and `max_bytes`; fewer at the end
    /// of a segment. Empty when nothing fits or nothing is there yet. May be dropped at any time.
    ///
    /// # Errors
    /// `OffsetOutOfRange`, `Io`, `Damaged`, `Closed`.
    pub async fn read(&self, request: &ReadRequest) -> Result<ReadView, StorageError> {
        self.0.read(request).await
    }
}

impl LogState {
    fn try_read(&self, request: &ReadRequest) -> Result<Option<ReadView>, StorageError> {
        if let Some(view) = self.read_at_once(request)? {
            return Ok(Some(view));
        }
        let mut from = request.offset;
        loop {
            let segment = match self.place_of(from) {
                Place::Sealed(segment) => segment,
                Place::Active(active) => return self.try_read_active(&active, request),
            };
            let Some(loaded) = self.shared.segment_cache.get((self.id, segment.base_offset)) else {
                return Ok(None);
            };
            match segment_reader::read_sealed(&loaded, request, &segment.log_path(&self.dir))? {
                MappedRead::View(view) => return Ok(Some(view)),
                MappedRead::NotResident(_) => return Ok(None),
                MappedRead::Ended => from = self.offset_behind(&segment),
            }
        }
    }

    /// Reads the active segment where its page-cache pages are resident.
    fn try_read_active(
        &self,
        active: &ActiveSegment,
        request: &ReadRequest,
    ) -> Result<Option<ReadView>, StorageError> {
        let awake = active.awake.borrow().clone();
        let Some(awake) = awake else { return Ok(None) };
        let Some(map) = awake.appender.map_written(active.size_bytes.get()) else { return Ok(None) };
        let position = awake.indexes.borrow().offsets.lookup(request.offset);
        match segment_reader::read_mapped(&map, position, request, awake.appender.file().path())? {
            MappedRead::View(view) => Ok(Some(view)),
            MappedRead::NotResident(_) | MappedRead::Ended => Ok(None),
        }
    }

    /// What needs no segment: errors, the end of the log, the tail cache.
    fn read_at_once(&self, request: &ReadRequest) -> Result<Option<ReadView>, StorageError> {
        self.check_open()?;
        let (log_start_offset, log_end_offset) = (self.log_start_offset.get(), self.log_end_offset.get());
        if request.offset < log_start_offset || request.offset > log_end_offset {
            return Err(StorageError::OffsetOutOfRange {
                topic_partition: self.topic_partition.clone(),
                offset: request.offset,
                log_start_offset,
                log_end_offset,
            });
        }
        if request.offset >= request.end_offset.min(log_end_offset) {
            return Ok(Some(ReadView::empty(request.offset)));
        }
        Ok(self.tail.read(request))
    }

    async fn read(&self, request: &ReadRequest) -> Result<ReadView, StorageError> {
        let mut from = request.offset;
        let mut resident_tries = 0;
        loop {
            if let Some(view) = self.read_at_once(request)? {
                return Ok(view);
            }
            let segment = match self.place_of(from) {
                Place::Sealed(segment) => segment,
                Place::Active(active) => match self.read_active(&active, request).await? {
                    Some(view) => return Ok(view),
                    // Rolled, or cached again, while we read: look once more.
                    None if !Rc::ptr_eq(&active, &self.active()) => continue,
                    None => return Ok(ReadView::empty(request.offset)),
                },
            };
            let path = segment.log_path(&self.dir);
            let loaded = match self.load(&segment).await {
                Ok(loaded) => loaded,
                Err(error) if self.is_gone(&segment) => {
                    tracing::trace!(%error, "a segment was removed under a reader");
                    continue;
                }
                Err(error) => return Err(error),
            };
            match segment_reader::read_sealed(&loaded, request, &path)? {
                MappedRead::View(view) => return Ok(view),
                MappedRead::Ended => from = self.offset_behind(&segment),
                MappedRead::NotResident(_) if resident_tries == 0 => {
                    resident_tries += 1;
                    let span = ColdSpan {
                        key: (self.id, segment.base_offset),
                        path: &path,
                        position: loaded.indexes.offsets.lookup(request.offset),
                        end: loaded.map.len() as u64,
                    };
                    if let Some(view) = self.shared.cold_reads.read(&span, request).await {
                        if view.next_offset >= self.offset_behind(&segment) {
                            self.read_ahead(view.next_offset);
                        }
                        return Ok(view);
                    }
                }
                MappedRead::NotResident(range) if resident_tries < RESIDENT_TRIES => {
                    resident_tries += 1;
                    segment_reader::make_resident(&loaded, range).await;
                }
                MappedRead::NotResident(_) => {
                    match segment_reader::read_unmapped(&path, &loaded, request).await? {
                        Some(view) => return Ok(view),
                        None => from = self.offset_behind(&segment),
                    }
                }
            }
        }
    }

    /// A sequential reader comes to the segment that begins at `offset` next: loads it, if it is sealed, and its first block
    /// meanwhile.
    fn read_ahead(&self, offset: Offset) {
        let Place::Sealed(segment) = self.place_of(offset) else { return };
        let (path, base_offset) = (segment.log_path(&self.dir), segment.base_offset);
        if base_offset == offset {
            let span =
                ColdSpan { key: (self.id, base_offset), path: &path, position: 0, end: segment.size_bytes };
            self.shared.cold_reads.read_ahead(&span);
        }
        let log = self.me.upgrade();
        runtime::spawn_detached(async move {
            if let Some(log) = log {
                let _ = log.load(&segment).await; // what is wrong, the reader will see
            }
        });
    }

    /// The segment that holds `offset`, or the first behind a gap.
    fn place_of(&self, offset: Offset) -> Place {
        let active = self.active.borrow();
        if offset >= active.base_offset {
            return Place::Active(active.clone());
        }
        let sealed = self.sealed.borrow();
        let slot = sealed.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1);
        sealed
            .get(slot)
            .map_or_else(|| Place::Active(active.clone()), |segment| Place::Sealed(segment.clone()))
    }

    /// The base offset of the segment behind `segment`.
    fn offset_behind(&self, segment: &SealedSegment) -> Offset {
        let sealed = self.sealed.borrow();
        let behind = sealed.partition_point(|other| other.base_offset <= segment.base_offset);
        sealed.get(behind).map_or_else(|| self.active.borrow().base_offset, |next| next.base_offset)
    }

    fn is_gone(&self, segment: &SealedSegment) -> bool {
        self.sealed.borrow().binary_search_by_key(&segment.base_offset, |other| other.base_offset).is_err()
    }

    /// The sealed segment's mapping and indexes.
    pub(super) async fn load(&self, segment: &SealedSegment) -> Result<Rc<LoadedSegment>, StorageError> {
        let key = (self.id, segment.base_offset);
        let path = segment.log_path(&self.dir);
        let (dir, base_offset, size_bytes) = (self.dir.clone(), segment.base_offset, segment.size_bytes);
        let interval_bytes = self.options().index_interval_bytes;
        let load = async || {
            let map_path = path.clone();
            let load = move || {
                let map = mapped_file::map_now(&map_path)?;
                // Never look behind what the segment held when it was listed.
                let map = map.slice(..map.len().min(usize::try_from(size_bytes).unwrap_or(usize::MAX)));
                let size_bytes = map.len() as u64;
                let (indexes, _) =
                    recovery::load_segment_indexes(&dir, base_offset, size_bytes, interval_bytes)?;
                Ok(LoadedSegment { map, indexes })
            };
            runtime::blocking(load).await.map_err(|error| StorageError::io("map", &path, error))
        };
        let loaded = self.shared.segment_cache.get_or_load(key, load).await?;
        if segment.max.get().is_none() {
            segment.max.set(Some(loaded.indexes.max));
        }
        Ok(loaded)
    }

    async fn read_active(
        &self,
        active: &Rc<ActiveSegment>,
        request: &ReadRequest,
    ) -> Result<Option<ReadView>, StorageError> {
        let awake = self.awake(active).await?;
        if let Some(view) = self.try_read_active(active, request)? {
            return Ok(Some(view));
        }
        let position = awake.indexes.borrow().offsets.lookup(request.offset);
        let end = awake.appender.written_position(active.size_bytes.get());
        let file = awake.appender.file().clone();
        let span = ColdSpan { key: (self.id, active.base_offset), path: file.path(), position, end };
        if let Some(view) = self.shared.cold_reads.read(&span, request).await {
            return Ok(Some(view));
        }
        let read = segment_reader::read_file(FileSpan { file, position, end }, request).await?;
        // Bytes that are not in the file yet are in the tail cache, where the next try finds them.
        if read.is_none() && end < active.size_bytes.get() {
            return Ok(self.tail.read(request));
        }
        Ok(read)
    }
}
