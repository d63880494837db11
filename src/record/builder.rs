//! Makes record batches: for the state logs, the Redis door, compaction and tests.

use bytes::{Bytes, BytesMut};

use crate::base::varint;
use crate::model::{
    LeaderEpoch, NO_LEADER_EPOCH, NO_PRODUCER_ID, NO_TIMESTAMP, Offset, ProducerEpoch, ProducerId,
};

use super::compression::{Compression, compress};
use super::header::{
    BATCH_HEADER_BYTES, BatchHeader, CODEC_MASK, CONTROL_BIT, LOG_OVERHEAD_BYTES, MAGIC_V2, NO_SEQUENCE,
    TRANSACTIONAL_BIT, write_crc,
};
use super::view::Header;

/// Plain record bytes that a builder takes. Far below what the length field can say, so that whatever a codec adds
/// still fits, and far above any `max.message.bytes`.
const RECORDS_BYTES_MAX: usize = 1 << 30;

/// Room that a batch begins with: the header and one small record.
const FIRST_ROOM_BYTES: usize = 256;

/// The batch can take no more: a gigabyte of records, or offset deltas beyond 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch can take no more records")]
pub struct BatchFull;

/// Collects records and makes one batch of them.
///
/// The base offset is 0 unless given, as a producer sends it; the log assigns the real one.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    /// Header room, then the plain records.
    bytes: Vec<u8>,
    compression: Compression,
    header: BatchHeader,
    next_offset_delta: i32,
    keeps_base_timestamp: bool,
}

impl BatchBuilder {
    /// An empty batch whose records will be written with `compression`.
    pub fn new(compression: Compression) -> Self {
        BatchBuilder::over(
            compression,
            BatchHeader {
                base_offset: 0,
                batch_length: 0,
                leader_epoch: NO_LEADER_EPOCH,
                magic: MAGIC_V2,
                crc: 0,
                attributes: 0,
                last_offset_delta: 0,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: NO_PRODUCER_ID,
                producer_epoch: -1,
                base_sequence: NO_SEQUENCE,
                record_count: 0,
            },
        )
    }

    fn over(compression: Compression, header: BatchHeader) -> Self {
        let mut bytes = Vec::with_capacity(FIRST_ROOM_BYTES);
        bytes.resize(BATCH_HEADER_BYTES, 0);
        BatchBuilder { bytes, compression, header, next_offset_delta: 0, keeps_base_timestamp: false }
    }

    /// A batch that carries on `header`'s offsets, leader epoch, producer and flags, but none of its records.
    ///
    /// The base timestamp stays (it may be the delete horizon); the max timestamp stays where the server stamped it
    /// and else follows the records to come.
    pub(super) fn like(header: &BatchHeader, compression: Compression) -> Self {
        let max_timestamp = header.log_append_time().unwrap_or(NO_TIMESTAMP);
        let header = BatchHeader { record_count: 0, max_timestamp, ..*header };
        BatchBuilder { keeps_base_timestamp: true, ..BatchBuilder::over(compression, header) }
    }

    /// Sets the producer's id, epoch and the sequence of the first record.
    #[must_use]
    pub fn with_producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Marks the batch as part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// Marks the records as the server's own (see `end_transaction_batch`).
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header.attributes |= CONTROL_BIT;
        self
    }

    /// Sets the offset of the first record and the leader's epoch.
    #[must_use]
    pub fn with_base_offset(mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        self
    }

    /// Appends a record behind the others. `timestamp` is -1 for none.
    ///
    /// # Errors
    /// `BatchFull`; the batch stays as it was.
    pub fn append<'h>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    ) -> Result<(), BatchFull> {
        self.append_at(self.next_offset_delta, timestamp, key, value, headers)
    }

    /// Appends a record with a given offset delta, which may leave a gap behind the last one but not go back.
    ///
    /// # Errors
    /// `BatchFull`, also for a delta that goes back; the batch stays as it was.
    pub fn append_at<'h>(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = Header<'h>, IntoIter: Clone>,
    ) -> Result<(), BatchFull> {
        let next_offset_delta = offset_delta.checked_add(1).ok_or(BatchFull)?;
        if offset_delta < self.next_offset_delta {
            return Err(BatchFull);
        }
        let base_timestamp = if self.header.record_count == 0 && !self.keeps_base_timestamp {
            timestamp
        } else {
            self.header.base_timestamp
        };
        let headers = headers.into_iter();
        let timestamp_delta = timestamp.wrapping_sub(base_timestamp);
        let body_bytes =
            body_bytes(timestamp_delta, offset_delta, key, value, headers.clone()).ok_or(BatchFull)?;
        if body_bytes > RECORDS_BYTES_MAX.saturating_sub(self.bytes.len()) {
            return Err(BatchFull);
        }

        let out = &mut self.bytes;
        out.reserve(varint::MAX_VARINT32_BYTES + body_bytes);
        write_length(out, body_bytes);
        out.push(0); // attributes: no bit has a meaning yet
        varint::write_i64(out, timestamp_delta);
        varint::write_i32(out, offset_delta);
        write_nullable(out, key);
        write_nullable(out, value);
        write_length(out, headers.clone().count());
        for header in headers {
            write_nullable(out, Some(header.key));
            write_nullable(out, header.value);
        }

        self.next_offset_delta = next_offset_delta;
        self.header.base_timestamp = base_timestamp;
        self.header.record_count += 1; // never beyond the offset delta, which was checked
        self.header.last_offset_delta = self.header.last_offset_delta.max(offset_delta);
        self.header.max_timestamp = self.header.max_timestamp.max(timestamp);
        Ok(())
    }

    /// Records so far.
    pub fn record_count(&self) -> i32 {
        self.header.record_count
    }

    /// Bytes of the batch so far, before compression.
    pub fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The batch. Without records it is a bare header, as compaction leaves it.
    pub fn finish(self) -> BytesMut {
        let BatchBuilder { bytes, compression, header, .. } = self;
        let records = bytes.get(BATCH_HEADER_BYTES..).unwrap_or_default();
        if compression != Compression::None && header.record_count > 0 {
            let mut out = vec![0; BATCH_HEADER_BYTES];
            // A codec that fails (out of memory) leaves the records plain: dearer, but as good to every reader.
            if compress(compression, records, &mut out).is_ok() {
                return seal(out, header, compression);
            }
        }
        seal(bytes, header, Compression::None)
    }
}

/// Puts the header into the first 61 bytes of `batch`, with the length, codec bits and CRC that the bytes ask for.
pub(super) fn seal(mut batch: Vec<u8>, header: BatchHeader, compression: Compression) -> BytesMut {
    let header = BatchHeader {
        batch_length: i32::try_from(batch.len().saturating_sub(LOG_OVERHEAD_BYTES)).unwrap_or(i32::MAX),
        attributes: header.attributes & !CODEC_MASK | compression.attribute_bits(),
        ..header
    };
    if let Some(place) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() {
        header.write(place);
    }
    write_crc(&mut batch);
    BytesMut::from(Bytes::from(batch))
}

/// Bytes of a record behind its length; nothing if they cannot be counted.
fn body_bytes<'h>(
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl Iterator<Item = Header<'h>>,
) -> Option<usize> {
    let mut header_count = 0;
    let mut bytes = /* attributes */ 1 + varint_bytes(timestamp_delta) + varint_bytes(i64::from(offset_delta));
    bytes = bytes.checked_add(nullable_bytes(key)?)?.checked_add(nullable_bytes(value)?)?;
    for header in headers {
        header_count += 1;
        bytes = bytes
            .checked_add(nullable_bytes(Some(header.key))?)?
            .checked_add(nullable_bytes(header.value)?)?;
    }
    bytes.checked_add(varint_bytes(header_count))
}

/// Bytes of a zigzag varint: one per seven bits, and one for zero.
fn varint_bytes(value: i64) -> usize {
    let bits = i64::BITS - ((value << 1) ^ (value >> 63)).leading_zeros();
    (bits.max(1).div_ceil(7)) as usize
}

fn nullable_bytes(bytes: Option<&[u8]>) -> Option<usize> {
    let Some(bytes) = bytes else { return Some(varint_bytes(-1)) };
    bytes.len().checked_add(varint_bytes(i64::try_from(bytes.len()).ok()?))
}

fn write_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            write_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

/// `length` is at most `RECORDS_BYTES_MAX`, so it is written as it is.
fn write_length(out: &mut Vec<u8>, length: usize) {
    varint::write_i64(out, i64::try_from(length).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Headers, check_crc};

    #[test]
    fn a_batch_without_records_is_a_bare_header() {
        for codec in Compression::ALL {
            let batch = BatchBuilder::new(codec).with_producer(1, 2, 3).finish();
            let header = BatchHeader::parse(&batch).unwrap();
            assert_eq!(batch.len(), BATCH_HEADER_BYTES);
            assert_eq!((header.record_count, header.compression()), (0, Ok(Compression::None)));
            check_crc(&batch, &header).unwrap();
        }
    }

    #[test]
    fn a_record_that_does_not_fit_leaves_the_batch_as_it_was() {
        let mut builder = BatchBuilder::new(Compression::None);
        builder.append_at(5, 10, None, Some(b"value"), Headers::NONE).unwrap();
        let before = builder.clone().finish();
        for offset_delta in [0, 5, i32::MAX] {
            assert_eq!(builder.append_at(offset_delta, 99, None, None, Headers::NONE), Err(BatchFull));
        }
        assert_eq!(builder.finish(), before);
    }

    #[test]
    fn lengths_are_counted_as_they_are_written() {
        for shift in 0..63 {
            for value in [0, 1 << shift, -(1 << shift), (1 << shift) - 1, i64::MIN, i64::MAX] {
                let mut out = Vec::new();
                varint::write_i64(&mut out, value);
                assert_eq!(varint_bytes(value), out.len(), "{value}");
            }
        }
    }
}
