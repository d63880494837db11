//! Opening a log and waking its active segment.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::{Rc, Weak};

use uuid::Uuid;

use crate::base::random;
use crate::model::{Offset, TopicPartition};
use crate::record::BatchHeader;
use crate::runtime;
use crate::runtime::dma_file::{DMA_ALIGNMENT_BYTES, DmaFile};
use crate::runtime::file::{File, OpenMode};

use super::super::checkpoint::LogCheckpoint;
use super::super::error::StorageError;
use super::super::file_names::SegmentFile;
use super::super::leader_epoch_cache::LeaderEpochCache;
use super::super::options::{LogOptions, WritePath};
use super::super::recovery::{self, Known, LastStop, Recovered, RecoveredActive};
use super::super::segment::{ActiveSegment, AwakeSegment, PersistedEntries, SealedSegment, SegmentIndexes};
use super::super::segment_appender::{DmaAppender, PageCacheAppender, Progress, SegmentAppender};
use super::super::shard_storage::ShardStorage;
use super::super::tail_cache::LogTail;
use super::flush::FlushState;
use super::turn::Turn;
use super::{Condition, Log, LogState, WrittenOffset};

/// What is known about a log before it is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StartHint {
    /// Whether the last run ended cleanly (`checkpoint::take_clean_shutdown_marker`).
    pub clean_shutdown: bool,
    /// What the last run wrote about this log.
    pub checkpoint: Option<LogCheckpoint>,
    /// The topic's id, for `partition.metadata` where that is missing.
    pub topic_id: Option<Uuid>,
}

impl Log {
    /// Opens a log, made if it is missing, recovered if need be. Holds no descriptor until it is used.
    ///
    /// # Errors
    /// The kernel's. Damage is repaired or set aside, and told by `tracing`.
    pub async fn open(
        topic_partition: TopicPartition,
        dir: PathBuf,
        options: LogOptions,
        shared: Rc<ShardStorage>,
        start: StartHint,
        now_ms: i64,
    ) -> Result<Log, StorageError> {
        let known = Known {
            topic_partition: topic_partition.clone(),
            dir: dir.clone(),
            options: options.clone(),
            last_stop: if start.clean_shutdown { LastStop::Clean } else { LastStop::Unclean },
            checkpoint: start.checkpoint,
            topic_id: start.topic_id,
        };
        // A new log's first append shall not wait for its file.
        let make_file = options.write_path == WritePath::PageCache && shared.has_room_for_active();
        let (recovered, file) = runtime::blocking(move || {
            let recovered = recovery::recover(&known)?;
            let make_file = make_file && recovered.is_new;
            let path = SegmentFile::Log.path(&known.dir, recovered.active.base_offset);
            // What is wrong, if anything, the first append will say.
            let file = make_file.then(|| File::open_now(&path, OpenMode::CreateNew).ok()).flatten();
            Ok((recovered, file))
        })
        .await?;
        let log = Log(Rc::new_cyclic(|me| {
            LogState::new(me.clone(), topic_partition, dir, options, shared, recovered, now_ms)
        }));
        if let Some(file) = file {
            log.0.adopt_new_file(file);
        } else if log.0.needs_file_at_once() {
            log.0.awake(&log.0.active()).await?; // the file's name is what keeps the end of the log
        }
        Ok(log)
    }
}

impl LogState {
    fn new(
        me: Weak<LogState>,
        topic_partition: TopicPartition,
        dir: PathBuf,
        options: LogOptions,
        shared: Rc<ShardStorage>,
        recovered: Recovered,
        now_ms: i64,
    ) -> Self {
        let sealed = recovered.sealed.iter().map(|segment| {
            Rc::new(SealedSegment {
                base_offset: segment.base_offset,
                size_bytes: segment.size_bytes,
                modified_ms: segment.modified_ms,
                max: Cell::new(segment.max),
                has_aborted: Cell::new(None),
            })
        });
        let flush = FlushState::new(&recovered, now_ms);
        let active = active_segment(recovered.active, now_ms, jitter_ms(&options));
        let log_end_offset = recovered.log_end_offset;
        LogState {
            me,
            id: shared.new_log_id(),
            topic_partition,
            dir,
            options: RefCell::new(Rc::new(options)),
            shared,
            condition: RefCell::new(Condition::Online),
            structure: Turn::default(),
            sealed: RefCell::new(sealed.collect()),
            active: RefCell::new(Rc::new(active)),
            waking: Turn::default(),
            log_start_offset: Cell::new(recovered.log_start_offset),
            log_end_offset: Cell::new(log_end_offset),
            tail: LogTail::new(),
            written: WrittenOffset::new(log_end_offset),
            flush,
            producers: recovered.producers,
            epochs: LeaderEpochCache::new(recovered.epochs, recovered.epochs_unsaved),
        }
    }

    /// A fresh log at offset 0 can wait for its first append; any other empty active segment cannot.
    fn needs_file_at_once(&self) -> bool {
        let active = self.active.borrow();
        active.size_bytes.get() == 0 && active.base_offset > 0
    }

    /// The active segment with its file open and its indexes loaded. Does not suspend when it is awake.
    pub(super) async fn awake(&self, active: &Rc<ActiveSegment>) -> Result<Rc<AwakeSegment>, StorageError> {
        if let Some(awake) = active.awake.borrow().as_ref() {
            return Ok(awake.clone());
        }
        let _turn = self.waking.take().await;
        if let Some(awake) = active.awake.borrow().as_ref() {
            return Ok(awake.clone());
        }
        let awake = Rc::new(Box::pin(self.wake(active)).await?); // in a box: few appends and reads need its room
        self.has_woken(active, awake.clone());
        Ok(awake)
    }

    fn has_woken(&self, active: &ActiveSegment, awake: Rc<AwakeSegment>) {
        *active.awake.borrow_mut() = Some(awake);
        if let Some(idle) = self.shared.log_woke(self.id, self.me.clone()) {
            runtime::spawn_detached(async move { idle.rest().await });
        }
    }

    /// Takes the empty file of a log that was made just now.
    fn adopt_new_file(&self, file: File) {
        let active = self.active();
        let Some(indexes) = active.recovered.borrow_mut().take() else { return };
        self.flush.directory_changed();
        let appender = self.page_cache_appender(file, 0, false);
        let (indexes, persisted) = (RefCell::new(indexes), Cell::default());
        self.has_woken(&active, Rc::new(AwakeSegment { appender, indexes, persisted }));
    }

    /// Closes the active segment's file and gives up its memory until the next use.
    async fn rest(&self) {
        let _turn = self.structure.take().await;
        let active = self.active();
        let Some(awake) = active.awake.borrow().clone() else { return };
        let rested = self.write_out(&active, &awake).await;
        match rested {
            Ok(()) => *active.awake.borrow_mut() = None,
            Err(error) => {
                tracing::warn!(topic_partition = %self.topic_partition, %error, "an idle log could not be put to rest");
                self.shared.log_woke(self.id, self.me.clone()); // it still counts
            }
        }
    }

    async fn write_out(&self, active: &ActiveSegment, awake: &AwakeSegment) -> Result<(), StorageError> {
        self.flush_to(self.log_end_offset.get()).await?;
        let path = SegmentFile::Log.path(&self.dir, active.base_offset);
        let trimmed = awake.appender.trim(active.size_bytes.get()).await;
        trimmed.map_err(|error| StorageError::io("truncate", &path, error))?;
        awake.indexes.borrow_mut().finish();
        self.persist_indexes(active.base_offset, awake).await
    }

    async fn wake(&self, active: &ActiveSegment) -> Result<AwakeSegment, StorageError> {
        let (base_offset, size_bytes) = (active.base_offset, active.size_bytes.get());
        let rebuilt = active.recovered.borrow_mut().take();
        let (indexes, persisted) = match rebuilt {
            Some(indexes) => (indexes, PersistedEntries::default()),
            None => {
                let (dir, interval_bytes) = (self.dir.clone(), self.options().index_interval_bytes);
                let loaded =
                    runtime::blocking(move || load_active(dir, base_offset, size_bytes, interval_bytes));
                let path = SegmentFile::Log.path(&self.dir, base_offset);
                let loaded = loaded.await.map_err(|error| StorageError::io("read", &path, error))?;
                active.first_timestamp.set(loaded.first_timestamp);
                (loaded.indexes, loaded.persisted)
            }
        };
        let appender = match self.open_appender(base_offset, size_bytes).await {
            Ok(appender) => appender,
            Err(error) => {
                if persisted == PersistedEntries::default() {
                    *active.recovered.borrow_mut() = Some(indexes);
                }
                return Err(error);
            }
        };
        Ok(AwakeSegment { appender, indexes: RefCell::new(indexes), persisted: Cell::new(persisted) })
    }

    /// Opens, or makes, the file of an active segment for appending at `size_bytes`.
    async fn open_appender(
        &self,
        base_offset: Offset,
        size_bytes: u64,
    ) -> Result<SegmentAppender, StorageError> {
        let path = SegmentFile::Log.path(&self.dir, base_offset);
        let opened = File::open(&path, OpenMode::Create).await;
        let file = opened.map_err(|error| StorageError::write(&self.topic_partition, &path, error))?;
        let length = file.len().map_err(|error| StorageError::io("stat", &path, error))?;
        if length == 0 {
            self.flush.directory_changed();
        }
        let torn = length > size_bytes; // whatever it is, it is not data
        if self.options().write_path == WritePath::Dma {
            let dma_file = match DmaFile::open(&path).await {
                Ok(dma_file) => Some(dma_file),
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => None, // no direct I/O on this file system
                Err(error) => return Err(StorageError::io("open", &path, error)),
            };
            if let Some(dma_file) = dma_file {
                let appender = self.dma_appender(file, dma_file, size_bytes, torn).await;
                return appender.map_err(|error| StorageError::io("open", &path, error));
            }
            tracing::warn!(topic_partition = %self.topic_partition, file = %path.display(),
                "the file system has no direct writes; the page cache is used instead");
        }
        Ok(self.page_cache_appender(file, size_bytes, torn))
    }

    fn page_cache_appender(&self, file: File, size_bytes: u64, torn: bool) -> SegmentAppender {
        let segment_bytes = self.options().segment_bytes_effective();
        self.tail.pin_from(Offset::MAX); // what is appended is in the file at once
        SegmentAppender::PageCache(PageCacheAppender::new(file, size_bytes, torn, segment_bytes))
    }

    async fn dma_appender(
        &self,
        reader: File,
        file: DmaFile,
        size_bytes: u64,
        torn: bool,
    ) -> std::io::Result<SegmentAppender> {
        if torn {
            reader.truncate(size_bytes).await?;
        }
        let block = size_bytes / DMA_ALIGNMENT_BYTES as u64 * DMA_ALIGNMENT_BYTES as u64;
        let partial = reader.read_at(block, usize::try_from(size_bytes - block).unwrap_or(0)).await?;
        if (partial.len() as u64) < size_bytes - block {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let options = self.options();
        let sizes = (options.dma_write_bytes_effective(), options.segment_bytes_effective());
        let progress = Progress { written: self.written.clone(), tail: self.tail.clone() };
        self.tail.pin_from(self.log_end_offset.get());
        Ok(SegmentAppender::Dma(DmaAppender::new(file, reader, size_bytes, &partial, sizes, progress)))
    }
}

/// What `segment.jitter.ms` takes off for one segment.
pub(super) fn jitter_ms(options: &LogOptions) -> i64 {
    let bound = u64::try_from(options.segment_jitter_ms.min(options.segment_ms)).unwrap_or(0);
    if bound == 0 { 0 } else { i64::try_from(random::number() % bound).unwrap_or(0) }
}

fn active_segment(recovered: RecoveredActive, now_ms: i64, jitter_ms: i64) -> ActiveSegment {
    let active = ActiveSegment::empty(recovered.base_offset, now_ms, jitter_ms);
    active.size_bytes.set(recovered.size_bytes);
    match recovered.rebuilt {
        Some((indexes, first_timestamp)) => {
            active.first_timestamp.set(first_timestamp);
            *active.recovered.borrow_mut() = Some(indexes);
        }
        None if recovered.size_bytes > 0 => *active.recovered.borrow_mut() = None, // they lie in their files
        None => {}
    }
    active
}

struct LoadedActive {
    indexes: SegmentIndexes,
    persisted: PersistedEntries,
    first_timestamp: Option<i64>,
}

fn load_active(
    dir: PathBuf,
    base_offset: Offset,
    size_bytes: u64,
    interval_bytes: u64,
) -> std::io::Result<LoadedActive> {
    let (indexes, from_files) =
        recovery::load_segment_indexes(&dir, base_offset, size_bytes, interval_bytes)?;
    let persisted = if from_files {
        PersistedEntries {
            offsets: indexes.offsets.len(),
            times: indexes.times.len(),
            transactions: indexes.transactions.len(),
        }
    } else {
        PersistedEntries { transactions: indexes.transactions.len(), ..PersistedEntries::default() }
    };
    let file = File::open_now(&SegmentFile::Log.path(&dir, base_offset), OpenMode::Read)?;
    let head = file.read_at_now(0, crate::record::BATCH_HEADER_BYTES)?;
    let first_timestamp = BatchHeader::parse(&head).ok().map(|header| header.max_timestamp);
    Ok(LoadedActive { indexes, persisted, first_timestamp })
}
