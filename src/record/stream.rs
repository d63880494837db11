//! Records out of a decompressor, one at a time, through a window.
//!
//! Memory: a window of at most 64 KiB, which grows only for a record that is larger, and only as its bytes really
//! arrive; so a length field that lies costs nothing. `RECORD_BYTES_MAX` bounds one record,
//! `DECOMPRESSED_BYTES_MAX` the work that a batch can make.

use std::io::{ErrorKind, Read};

use crate::base::units::{KIB, MIB};
use crate::base::varint::MAX_VARINT32_BYTES;

use super::compression::Compression;
use super::cursor::Cursor;
use super::error::{BatchError, RecordProblem};

/// Largest record that is read out of a compressed batch. As large as the largest request
/// (`socket.request.max.bytes`), so that whatever was sent uncompressed may also be sent compressed.
pub const RECORD_BYTES_MAX: usize = 100 * MIB;

/// Most bytes that one batch may decompress to: a bound on work where records are streamed, and on memory where a
/// batch is rewritten. Real producers fill batches by their plain size, which is far below.
pub const DECOMPRESSED_BYTES_MAX: usize = 256 * MIB;

const WINDOW_BYTES_MAX: usize = 64 * KIB;
const WINDOW_BYTES_MIN: usize = 4 * KIB;

/// The bodies of the records that come out of `source`.
pub(super) struct RecordStream<R> {
    source: R,
    codec: Compression,
    window: Vec<u8>,
    start: usize,
    end: usize,
    decompressed_bytes: usize,
}

impl<R: Read> RecordStream<R> {
    /// `compressed_bytes` is only a hint of how large a window pays.
    pub(super) fn new(source: R, codec: Compression, compressed_bytes: usize) -> Self {
        let window_bytes = compressed_bytes.saturating_mul(4).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        RecordStream { source, codec, window: vec![0; window_bytes], start: 0, end: 0, decompressed_bytes: 0 }
    }

    /// The next record without its length; `index` is its place in the batch, for errors.
    pub(super) fn next_body(&mut self, index: i32) -> Result<&[u8], BatchError> {
        let malformed = |problem| BatchError::Record { index, problem };
        let length = loop {
            let mut cursor = Cursor::new(self.ready());
            if let Some(length) = cursor.varint() {
                self.start = self.end - cursor.rest().len();
                break length;
            }
            if self.ready().len() >= MAX_VARINT32_BYTES {
                return Err(malformed(RecordProblem::Varint));
            }
            if self.fill(MAX_VARINT32_BYTES)? == 0 {
                return Err(malformed(RecordProblem::Cut));
            }
        };
        let length = usize::try_from(length).map_err(|_| malformed(RecordProblem::Length))?;
        if length > RECORD_BYTES_MAX {
            return Err(malformed(RecordProblem::TooLarge));
        }
        while self.ready().len() < length {
            if self.fill(length)? == 0 {
                return Err(malformed(RecordProblem::Cut));
            }
        }
        let body_start = self.start;
        self.start += length;
        Ok(&self.window[body_start..self.start])
    }

    /// Checks that nothing follows the last record, the codec's own checksums included.
    pub(super) fn expect_end(&mut self, record_count: i32) -> Result<(), BatchError> {
        if !self.ready().is_empty() || self.fill(1)? != 0 {
            return Err(BatchError::RecordsLeftOver { record_count });
        }
        Ok(())
    }

    fn ready(&self) -> &[u8] {
        &self.window[self.start..self.end]
    }

    /// Reads more behind the bytes that are ready, which are to become `wanted` bytes; 0 means the end.
    fn fill(&mut self, wanted: usize) -> Result<usize, BatchError> {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        } else if self.start + wanted > self.window.len() {
            self.window.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.window.len() {
            // All of it is real bytes of one record: only then the window grows, and at most to twice what is there.
            let grown = wanted.min(self.window.len().saturating_mul(2)).max(self.window.len() + 1);
            self.window.resize(grown, 0);
        }
        let count = loop {
            match self.source.read(&mut self.window[self.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        let count = count
            .map_err(|error| BatchError::Decompression { codec: self.codec, reason: error.to_string() })?;
        self.end += count;
        self.decompressed_bytes = self.decompressed_bytes.saturating_add(count);
        if self.decompressed_bytes > DECOMPRESSED_BYTES_MAX {
            return Err(BatchError::TooLarge { limit_bytes: DECOMPRESSED_BYTES_MAX });
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A varint length of 90 MiB, as zigzag.
    fn ninety_mib() -> Vec<u8> {
        let mut bytes = Vec::new();
        crate::base::varint::write_i32(&mut bytes, 90 * 1024 * 1024);
        bytes
    }

    #[test]
    fn a_lying_length_takes_no_memory() {
        let bytes = [ninety_mib(), vec![0; 100_000]].concat();
        let mut stream = RecordStream::new(bytes.as_slice(), Compression::Zstd, usize::MAX);
        let cut = BatchError::Record { index: 3, problem: RecordProblem::Cut };
        assert_eq!(stream.next_body(3).unwrap_err(), cut);
        assert!(stream.window.len() <= 2 * 100_000 + WINDOW_BYTES_MAX);
    }

    #[test]
    fn a_record_larger_than_the_window_arrives_whole() {
        let body =
            ninety_mib().into_iter().chain((0..300_000u32).map(|i| i.to_le_bytes()[0])).collect::<Vec<u8>>();
        let mut bytes = Vec::new();
        for _ in 0..3 {
            crate::base::varint::write_i32(&mut bytes, i32::try_from(body.len()).unwrap());
            bytes.extend_from_slice(&body);
        }
        let mut stream = RecordStream::new(bytes.as_slice(), Compression::Zstd, 10);
        for index in 0..3 {
            assert_eq!(stream.next_body(index).unwrap(), body);
        }
        stream.expect_end(3).unwrap();
    }

    #[test]
    fn a_record_beyond_the_limit_is_refused() {
        let mut bytes = Vec::new();
        crate::base::varint::write_i32(&mut bytes, i32::try_from(RECORD_BYTES_MAX).unwrap() + 1);
        let mut stream = RecordStream::new(bytes.as_slice(), Compression::Gzip, 10);
        let too_large = BatchError::Record { index: 0, problem: RecordProblem::TooLarge };
        assert_eq!(stream.next_body(0).unwrap_err(), too_large);
    }

    #[test]
    fn a_bomb_ends_at_the_bound_on_work() {
        // 0x7e is a length of 63: records of 64 bytes without end.
        let mut stream = RecordStream::new(io::repeat(0x7e), Compression::Gzip, usize::MAX);
        let refused = loop {
            if let Err(error) = stream.next_body(0) {
                break error;
            }
        };
        assert_eq!(refused, BatchError::TooLarge { limit_bytes: DECOMPRESSED_BYTES_MAX });
        assert_eq!(stream.window.len(), WINDOW_BYTES_MAX);
    }
}
