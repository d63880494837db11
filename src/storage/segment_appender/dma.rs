//! Appends past the page cache: whole blocks, several writes under way, immune to the kernel's write-back.
//!
//! ```text
//! file    |  whole buffers, written  | being written ... | the tail: one buffer, filled block by block | zeros |
//!         0                      written                                                end      prepared
//! ```
//!
//! Appended bytes are copied into aligned buffers. A buffer that is full is written once, several at a time. The tail is
//! written only when nothing else is under way: a copy of its blocks, the last one padded with zeros, one such write at
//! a time, since it rewrites a block. So a lone append is written at once, and appends that come while a write is under
//! way go out together with the next one.
//!
//! Ahead of a busy segment zeros are written in modest steps, because the file system needs four to eight times the CPU
//! for extents that were never written, and a sync then changes no metadata. A data write that would touch blocks of a
//! zero write under way waits for it. `trim` cuts what is left of the zeros.
//!
//! A failed write stops all writing: waiters get the error, appends are refused, and each further append or flush tries
//! once more. Nothing is lost meanwhile: bytes that are in no file are pinned in the tail cache and kept here.
//! Memory: at most `BACKLOG_BYTES_MAX` of unwritten bytes, and a few spare buffers, per busy segment.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::base::units::{KIB, MIB};
use crate::model::Offset;
use crate::runtime;
use crate::runtime::dma_file::{DMA_ALIGNMENT_BYTES, DmaBuffer, DmaFile, SharedDmaBuffer};
use crate::runtime::file::File;
use crate::runtime::local::Event;

use super::super::log::WrittenOffset;
use super::super::tail_cache::LogTail;

/// Whole-buffer writes under way at once. PERF.md, "DMA depth".
const WRITES_MAX: usize = 4;
/// Unwritten bytes at which an append has to wait.
const BACKLOG_BYTES_MAX: u64 = 8 * MIB as u64;
/// Zeros are written in steps of these sizes, larger ones for a segment that holds more.
const ZERO_STEP_BYTES_MIN: u64 = 64 * KIB as u64;
const ZERO_STEP_BYTES_MAX: u64 = 512 * KIB as u64;
/// Zeros reach at most so far ahead of the data; else as far as an eighth of what the segment holds.
const ZERO_AHEAD_BYTES_MAX: u64 = 16 * MIB as u64;
const BLOCK: u64 = DMA_ALIGNMENT_BYTES as u64;
const _: () = assert!(ZERO_STEP_BYTES_MIN.is_multiple_of(BLOCK) && ZERO_STEP_BYTES_MAX.is_multiple_of(BLOCK));

/// The direct write path of one segment.
pub(crate) struct DmaAppender(Rc<Writer>);

/// What a log wants to be told about its direct writes.
pub(crate) struct Progress {
    pub(crate) written: Rc<WrittenOffset>,
    pub(crate) tail: Rc<LogTail>,
}

struct Writer {
    file: DmaFile,
    reader: File,
    progress: Progress,
    buffer_bytes: usize,
    /// Zeros never reach behind this.
    segment_bytes: u64,
    state: RefCell<State>,
    /// Told whenever a write has ended.
    settled: Event,
}

struct State {
    /// Where the segment's data ends.
    end: u64,
    /// Everything before it is in the file.
    written: u64,
    /// The buffer that is being filled, and where it lies.
    tail: Option<DmaBuffer>,
    tail_position: u64,
    /// Full buffers in the order of the file, until they and all before them are written.
    full: VecDeque<FullBuffer>,
    spare: Vec<DmaBuffer>,
    /// Ends of appends that are not written yet, by position and offset.
    marks: VecDeque<(u64, Offset)>,
    writes_under_way: usize,
    tail_write: Option<Range<u64>>,
    zero_write: Option<Range<u64>>,
    /// Zeros were written up to here; `None` when they are not wanted (any more).
    prepared: Option<u64>,
    pump_scheduled: bool,
    failed: Option<Arc<io::Error>>,
}

struct FullBuffer {
    position: u64,
    buffer: SharedDmaBuffer,
    state: FullState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FullState {
    Waiting,
    Writing,
    Written,
}

/// One write that is to be started.
enum NextWrite {
    Full(u64, SharedDmaBuffer),
    Tail(u64, SharedDmaBuffer, u64),
    Zeros(Range<u64>),
}

impl DmaAppender {
    /// Appends to `file` at `position`, whose last, partly filled block holds `partial`.
    pub(crate) fn new(
        file: DmaFile,
        reader: File,
        position: u64,
        partial: &[u8],
        sizes: (usize, u64),
        progress: Progress,
    ) -> Self {
        let (buffer_bytes, segment_bytes) = sizes;
        let tail_position = position - partial.len() as u64;
        assert!(tail_position.is_multiple_of(BLOCK) && partial.len() < DMA_ALIGNMENT_BYTES);
        let mut tail = None;
        if !partial.is_empty() {
            let mut buffer = file.buffer(buffer_bytes);
            buffer.as_mut_slice()[..partial.len()].copy_from_slice(partial);
            tail = Some(buffer);
        }
        let state = State {
            end: position,
            written: position,
            tail,
            tail_position,
            full: VecDeque::new(),
            spare: Vec::new(),
            marks: VecDeque::new(),
            writes_under_way: 0,
            tail_write: None,
            zero_write: None,
            prepared: Some(0),
            pump_scheduled: false,
            failed: None,
        };
        let settled = Event::new();
        let state = RefCell::new(state);
        DmaAppender(Rc::new(Writer { file, reader, progress, buffer_bytes, segment_bytes, state, settled }))
    }

    pub(super) fn append(&self, chunks: &[Bytes], position: u64, next_offset: Offset) -> io::Result<()> {
        let writer = &self.0;
        let has_full = {
            let mut state = writer.state.borrow_mut();
            debug_assert_eq!(state.end, position);
            for chunk in chunks {
                writer.copy_in(&mut state, chunk);
            }
            let end = state.end;
            state.marks.push_back((end, next_offset));
            !state.full.is_empty()
        };
        if has_full {
            writer.pump();
        } else {
            writer.schedule_pump();
        }
        Ok(())
    }

    pub(super) fn is_ready(&self) -> bool {
        let state = self.0.state.borrow();
        state.failed.is_none() && state.end - state.written <= BACKLOG_BYTES_MAX
    }

    /// Tries once more after a failure; waits while too much is unwritten.
    pub(super) async fn make_ready(&self) -> io::Result<()> {
        let writer = &self.0;
        let unwritten_max = if writer.retry() { 0 } else { BACKLOG_BYTES_MAX / 2 };
        loop {
            {
                let state = writer.state.borrow();
                if let Some(error) = &state.failed {
                    return Err(copy_of(error));
                }
                if state.end - state.written <= unwritten_max {
                    return Ok(());
                }
            }
            writer.settled.wait().await;
        }
    }

    /// Tries once more after a failure; waits for nothing.
    pub(super) fn retry(&self) {
        self.0.retry();
    }

    pub(super) fn written_position(&self) -> u64 {
        self.0.state.borrow().written
    }

    pub(super) async fn sync(&self) -> io::Result<()> {
        self.0.file.sync_data().await
    }

    /// Cuts the file to its data. Prepares nothing from then on.
    pub(super) async fn trim(&self, size_bytes: u64) -> io::Result<()> {
        let writer = &self.0;
        writer.state.borrow_mut().prepared = None;
        loop {
            {
                let state = writer.state.borrow();
                if let Some(error) = &state.failed {
                    return Err(copy_of(error));
                }
                if state.written == state.end && state.zero_write.is_none() && state.writes_under_way == 0 {
                    break;
                }
            }
            writer.settled.wait().await;
        }
        self.0.file.truncate(size_bytes).await
    }

    pub(super) async fn settle(&self) {
        loop {
            {
                let state = self.0.state.borrow();
                let is_idle = state.writes_under_way == 0 && state.zero_write.is_none();
                if is_idle && (state.written == state.end || state.failed.is_some()) {
                    return;
                }
            }
            self.0.settled.wait().await;
        }
    }

    pub(super) fn file(&self) -> &File {
        &self.0.reader
    }
}

/// Errors of one write go to many who wait.
fn copy_of(error: &io::Error) -> io::Error {
    error
        .raw_os_error()
        .map_or_else(|| io::Error::new(error.kind(), error.to_string()), io::Error::from_raw_os_error)
}

fn align_down(position: u64) -> u64 {
    position / BLOCK * BLOCK
}

fn align_up(position: u64) -> u64 {
    position.next_multiple_of(BLOCK)
}

fn overlap(one: &Range<u64>, other: Option<&Range<u64>>) -> bool {
    other.is_some_and(|other| one.start < other.end && other.start < one.end)
}

impl Writer {
    fn copy_in(&self, state: &mut State, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let filled = usize::try_from(state.end - state.tail_position).unwrap_or(usize::MAX);
            let mut tail = match state.tail.take() {
                Some(tail) => tail,
                None => state.spare.pop().unwrap_or_else(|| self.file.buffer(self.buffer_bytes)),
            };
            let (now, later) = bytes.split_at(bytes.len().min(self.buffer_bytes - filled));
            tail.as_mut_slice()[filled..filled + now.len()].copy_from_slice(now);
            state.end += now.len() as u64;
            bytes = later;
            if filled + now.len() == self.buffer_bytes {
                let full = FullBuffer {
                    position: state.tail_position,
                    buffer: tail.share(),
                    state: FullState::Waiting,
                };
                state.full.push_back(full);
                state.tail_position = state.end;
            } else {
                state.tail = Some(tail);
            }
        }
    }

    /// Starts writing in a moment, so that appends of the same moment go out together.
    fn schedule_pump(self: &Rc<Self>) {
        if !std::mem::replace(&mut self.state.borrow_mut().pump_scheduled, true) {
            let writer = self.clone();
            runtime::spawn_detached(async move {
                runtime::yield_to_ready().await;
                writer.state.borrow_mut().pump_scheduled = false;
                writer.pump();
            });
        }
    }

    /// Starts every write that may start now.
    fn pump(self: &Rc<Self>) {
        loop {
            let next = self.next_write(&mut self.state.borrow_mut());
            let Some(next) = next else { return };
            let writer = self.clone();
            // Never cancelled: the kernel writes from the buffer until it is done.
            runtime::spawn_detached(async move { writer.write(next).await });
        }
    }

    fn next_write(&self, state: &mut State) -> Option<NextWrite> {
        if state.failed.is_some() {
            return None;
        }
        if state.writes_under_way < WRITES_MAX
            && let Some(full) = self.next_full(state)
        {
            return Some(full);
        }
        if state.full.is_empty()
            && state.writes_under_way == 0
            && state.written < state.end
            && let Some(tail) = self.next_tail(state)
        {
            return Some(tail);
        }
        self.next_zeros(state)
    }

    fn next_full(&self, state: &mut State) -> Option<NextWrite> {
        let State { full, tail_write, zero_write, .. } = state;
        let next = full.iter_mut().find(|full| full.state == FullState::Waiting)?;
        let range = next.position..next.position + self.buffer_bytes as u64;
        if overlap(&range, tail_write.as_ref()) || overlap(&range, zero_write.as_ref()) {
            return None;
        }
        next.state = FullState::Writing;
        let write = NextWrite::Full(next.position, next.buffer.clone());
        state.writes_under_way += 1;
        Some(write)
    }

    fn next_tail(&self, state: &mut State) -> Option<NextWrite> {
        let tail = state.tail.as_ref()?;
        let range = align_down(state.written).max(state.tail_position)..align_up(state.end);
        if overlap(&range, state.zero_write.as_ref()) {
            return None;
        }
        let place = |position: u64| usize::try_from(position - state.tail_position).unwrap_or(usize::MAX);
        let data = &tail.as_slice()[place(range.start)..place(state.end)];
        let mut copy = self.file.buffer(data.len().next_multiple_of(DMA_ALIGNMENT_BYTES));
        copy.as_mut_slice()[..data.len()].copy_from_slice(data);
        state.tail_write = Some(range.clone());
        state.writes_under_way += 1;
        Some(NextWrite::Tail(range.start, copy.share(), state.end))
    }

    fn next_zeros(&self, state: &mut State) -> Option<NextWrite> {
        let prepared = state.prepared?;
        if state.zero_write.is_some() || state.end == 0 {
            return None;
        }
        let step = align_up(state.end / 4).clamp(ZERO_STEP_BYTES_MIN, ZERO_STEP_BYTES_MAX);
        let ahead = (state.end / 8).clamp(step, ZERO_AHEAD_BYTES_MAX);
        let start = prepared.max(align_up(state.end));
        let range = start..start + step;
        if start - state.end >= ahead || range.end > self.segment_bytes {
            return None;
        }
        state.zero_write = Some(range.clone());
        Some(NextWrite::Zeros(range))
    }

    async fn write(self: &Rc<Self>, next: NextWrite) {
        match next {
            NextWrite::Full(position, buffer) => {
                let written = self.file.write_shared_at(&buffer, position).await;
                drop(buffer);
                self.full_ended(position, written);
            }
            NextWrite::Tail(position, buffer, end) => {
                let written = self.file.write_shared_at(&buffer, position).await;
                self.tail_ended(end, written);
            }
            NextWrite::Zeros(range) => {
                let zeros = self.file.buffer(usize::try_from(range.end - range.start).unwrap_or(0));
                let written = self.file.write_at(zeros, range.start).await;
                self.zeros_ended(range.end, written);
            }
        }
        self.pump();
        self.settled.notify();
    }

    fn full_ended(&self, position: u64, written: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        state.writes_under_way -= 1;
        let Some(full) = state.full.iter_mut().find(|full| full.position == position) else { return };
        if let Err(error) = written {
            full.state = FullState::Waiting;
            return self.fail(state, error);
        }
        full.state = FullState::Written;
        while state.full.front().is_some_and(|full| full.state == FullState::Written) {
            let Some(full) = state.full.pop_front() else { break };
            state.written = state.written.max(full.position + self.buffer_bytes as u64);
            if let Some(buffer) = full.buffer.reclaim()
                && state.spare.len() < WRITES_MAX
            {
                state.spare.push(buffer);
            }
        }
        self.advance(state);
    }

    fn tail_ended(&self, end: u64, written: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        state.writes_under_way -= 1;
        state.tail_write = None;
        if let Err(error) = written {
            return self.fail(state, error);
        }
        // Nothing before the tail was unwritten when this write began.
        state.written = state.written.max(end);
        self.advance(state);
    }

    fn zeros_ended(&self, end: u64, written: io::Result<()>) {
        let mut state = self.state.borrow_mut();
        state.zero_write = None;
        match written {
            Ok(()) => state.prepared = state.prepared.map(|_| end),
            Err(error) => {
                tracing::debug!(file = %self.file.path().display(), %error, "no room is prepared any more");
                state.prepared = None;
            }
        }
    }

    /// Tells how far the file goes now.
    fn advance(&self, mut state: std::cell::RefMut<'_, State>) {
        let mut written_offset = None;
        while let Some(&(end, next_offset)) = state.marks.front()
            && end <= state.written
        {
            state.marks.pop_front();
            written_offset = Some(next_offset);
        }
        if state.written == state.end {
            state.spare.clear(); // a quiet segment keeps only its tail
        }
        drop(state);
        if let Some(offset) = written_offset {
            self.progress.tail.pin_from(offset);
            self.progress.written.advance(offset);
        }
    }

    fn fail(&self, mut state: std::cell::RefMut<'_, State>, error: io::Error) {
        let error = Arc::new(error);
        state.failed = Some(error.clone());
        drop(state);
        self.progress.written.fail(error.clone());
        tracing::error!(file = %self.file.path().display(), %error, "a direct write failed; it will be tried again");
    }

    /// Whether there was a failure to recover from.
    fn retry(self: &Rc<Self>) -> bool {
        let had_failed = self.state.borrow_mut().failed.take().is_some();
        if had_failed {
            self.progress.written.recover();
            self.pump();
        }
        had_failed
    }
}
