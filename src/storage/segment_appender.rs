//! The write path of an active segment: page cache or direct writes behind one contract.
//!
//! `append` takes bytes for the end of the segment and does not wait for the device. *Written* bytes survive a killed
//! process: with the page cache they are written when `append` returns, with direct writes when the whole prefix up to
//! them has arrived, which `WrittenOffset` tells. *Synced* bytes survive a power cut (`sync`). One `append` at a time;
//! `sync` and reads may overlap it. An `append` that fails has changed nothing that a reader or a recovery would take
//! for data; a direct write that fails later keeps its bytes in memory and refuses further appends until it succeeds.

mod dma;
mod page_cache;

use std::io;

use bytes::Bytes;

use crate::model::Offset;
use crate::runtime::file::File;

pub(super) use dma::{DmaAppender, Progress};
pub(super) use page_cache::PageCacheAppender;

/// One of the two write paths.
pub(super) enum SegmentAppender {
    /// Positioned writes into the page cache.
    PageCache(PageCacheAppender),
    /// Direct writes of whole blocks.
    Dma(DmaAppender),
}

impl SegmentAppender {
    /// Appends `chunks` at `position`, the end of the segment; behind them the log ends at `next_offset`.
    ///
    /// # Errors
    /// The kernel's; the segment still ends at `position`.
    pub(super) fn append(&self, chunks: &[Bytes], position: u64, next_offset: Offset) -> io::Result<()> {
        match self {
            SegmentAppender::PageCache(appender) => appender.append(chunks, position),
            SegmentAppender::Dma(appender) => appender.append(chunks, position, next_offset),
        }
    }

    /// Whether the next append may go on without `make_ready`.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            SegmentAppender::PageCache(appender) => appender.is_ready(),
            SegmentAppender::Dma(appender) => appender.is_ready(),
        }
    }

    /// Repairs what a failed write left behind; waits while the kernel reserves room, or while too much is unwritten.
    /// `position` is the segment's end.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn make_ready(&self, position: u64) -> io::Result<()> {
        match self {
            SegmentAppender::PageCache(appender) => appender.make_ready(position).await,
            SegmentAppender::Dma(appender) => appender.make_ready().await,
        }
    }

    /// Tries a failed write once more, without waiting.
    pub(super) fn retry(&self) {
        match self {
            SegmentAppender::PageCache(_) => {} // it failed within its append
            SegmentAppender::Dma(appender) => appender.retry(),
        }
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// The kernel's; after one the file must not be trusted.
    pub(super) async fn sync(&self) -> io::Result<()> {
        match self {
            SegmentAppender::PageCache(appender) => appender.sync().await,
            SegmentAppender::Dma(appender) => appender.sync().await,
        }
    }

    /// Cuts off what lies behind the data (prepared or reserved room, a torn write), once all of it is written.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn trim(&self, size_bytes: u64) -> io::Result<()> {
        match self {
            SegmentAppender::PageCache(appender) => appender.trim(size_bytes).await,
            SegmentAppender::Dma(appender) => appender.trim(size_bytes).await,
        }
    }

    /// Waits until no write is under way, however they end.
    pub(super) async fn settle(&self) {
        match self {
            SegmentAppender::PageCache(appender) => appender.settle().await,
            SegmentAppender::Dma(appender) => appender.settle().await,
        }
    }

    /// Whether `append` returns only when the bytes are written.
    pub(super) fn is_written_at_once(&self) -> bool {
        match self {
            SegmentAppender::PageCache(_) => true,
            SegmentAppender::Dma(_) => false,
        }
    }

    /// Up to where the file can be read, for a segment of `size_bytes`.
    pub(super) fn written_position(&self, size_bytes: u64) -> u64 {
        match self {
            SegmentAppender::PageCache(_) => size_bytes,
            SegmentAppender::Dma(appender) => appender.written_position(),
        }
    }

    /// What is written of a segment of `size_bytes`, mapped; `None` where the page cache does not have it.
    pub(super) fn map_written(&self, size_bytes: u64) -> Option<Bytes> {
        match self {
            SegmentAppender::PageCache(appender) => appender.map_written(size_bytes),
            SegmentAppender::Dma(_) => None,
        }
    }

    /// A handle for reading what is written.
    pub(super) fn file(&self) -> &File {
        match self {
            SegmentAppender::PageCache(appender) => appender.file(),
            SegmentAppender::Dma(appender) => appender.file(),
        }
    }
}
