//! Writes record batches (v2) at the speed of a copy.
//!
//! ```text
//! 0           8        12            16      17      21           23
//! | base      | batch  | leader      | magic | crc   | attributes |
//! | offset 8  | len 4  | epoch 4     | 1     | 4     | 2          |
//! 23                  27             35             43            51         53              57        61
//! | last offset      | base          | max          | producer    | producer | base          | record  | records ...
//! | delta 4          | timestamp 8   | timestamp 8  | id 8        | epoch 2  | sequence 4    | count 4 |
//! ```
//!
//! A template is the whole batch with as many records as ever go into one, encoded once. A batch of `count` records is its
//! first `count` records under a fresh header, so sending costs a header, a CRC and, when keys or stamps are written, their
//! bytes. All records of a batch carry its base timestamp (delta 0), no headers, and a key of fixed length or none.
//!
//! Does not: choose what goes into a batch (see `produce`), read batches (see `batch_view`).
//! Source: Kafka's `DefaultRecordBatch` and `DefaultRecord`.

use anyhow::{Result, ensure};

use crate::compression::Compression;
use crate::{crc32c, payload};

pub const BATCH_LENGTH_POSITION: usize = 8;
pub const LEADER_EPOCH_POSITION: usize = 12;
pub const MAGIC_POSITION: usize = 16;
pub const CRC_POSITION: usize = 17;
pub const ATTRIBUTES_POSITION: usize = 21;
pub const TRANSACTIONAL_ATTRIBUTE: i16 = 1 << 4;
pub const LAST_OFFSET_DELTA_POSITION: usize = 23;
pub const BASE_TIMESTAMP_POSITION: usize = 27;
pub const MAX_TIMESTAMP_POSITION: usize = 35;
pub const PRODUCER_ID_POSITION: usize = 43;
pub const PRODUCER_EPOCH_POSITION: usize = 51;
pub const BASE_SEQUENCE_POSITION: usize = 53;
pub const RECORD_COUNT_POSITION: usize = 57;
pub const HEADER_BYTES: usize = 61;
/// The record batch format that this crate writes and reads.
pub const MAGIC: u8 = 2;

/// What differs between two batches of one template.
#[derive(Clone, Copy, Debug)]
pub struct BatchHeader {
    pub count: u32,
    pub timestamp_ms: i64,
    /// Producer id and epoch; -1 and -1 without idempotence.
    pub producer_id: i64,
    pub producer_epoch: i16,
    /// -1 without idempotence.
    pub base_sequence: i32,
    pub is_transactional: bool,
}

/// A batch under way to the socket. Reused, since its records rarely change.
#[derive(Default)]
pub struct BatchBuffer {
    bytes: Vec<u8>,
    length: usize,
    /// So many bytes at the beginning are laid out as in the template, so only what differs need be written.
    intact_bytes: usize,
}

impl BatchBuffer {
    /// The batch as it goes onto the wire.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// The records that every batch of a run is cut from.
pub struct BatchTemplate {
    compression: Compression,
    /// Header and plain records.
    plain: Vec<u8>,
    /// Header and compressed records of a full batch.
    compressed: Vec<u8>,
    /// Where each record's value begins in `plain`, and, if there are keys, its key.
    value_positions: Vec<usize>,
    key_positions: Vec<usize>,
    key_bytes: usize,
    message_bytes: usize,
}

impl BatchTemplate {
    /// Encodes as many messages of `message_bytes` as fit into `batch_bytes`, at most `count_max`, at least one. With
    /// `key_bytes` each has a key of that length, which is to be written into every batch.
    ///
    /// # Errors
    /// If a batch would not fit into the format's 32-bit sizes, or the codec fails.
    pub fn new(
        message_bytes: usize,
        batch_bytes: usize,
        count_max: u32,
        compression: Compression,
        key_bytes: Option<usize>,
    ) -> Result<Self> {
        ensure!(message_bytes < 1 << 30 && batch_bytes < 1 << 30, "messages and batches are below 1 GiB");
        let mut plain = vec![0; HEADER_BYTES];
        let (mut value_positions, mut key_positions) = (Vec::new(), Vec::new());
        while u32::try_from(value_positions.len())? < count_max.max(1) {
            let record_position = plain.len();
            let (key_position, value_position) =
                put_record(&mut plain, value_positions.len(), key_bytes, message_bytes)?;
            if plain.len() > batch_bytes && !value_positions.is_empty() {
                plain.truncate(record_position);
                break;
            }
            payload::fill(&mut plain[value_position..value_position + message_bytes], value_position as u64);
            value_positions.push(value_position);
            key_positions.push(key_position);
        }
        let mut compressed = Vec::new();
        if compression != Compression::None {
            compressed.resize(HEADER_BYTES, 0);
            compression.compress(&plain[HEADER_BYTES..], &mut compressed)?;
        }
        let key_bytes = key_bytes.unwrap_or(0);
        Ok(Self { compression, plain, compressed, value_positions, key_positions, key_bytes, message_bytes })
    }

    /// Messages in a full batch.
    pub fn count_max(&self) -> u32 {
        u32::try_from(self.value_positions.len()).expect("checked at construction")
    }

    /// Makes `buffer` a batch of the template's own filler.
    ///
    /// # Errors
    /// If the codec fails.
    pub fn write(&self, buffer: &mut BatchBuffer, header: &BatchHeader) -> Result<()> {
        if self.compression == Compression::None {
            buffer.length = self.plain_end(header.count);
            restore(buffer, &self.plain[..buffer.length]);
        } else if header.count == self.count_max() {
            restore(buffer, &self.compressed);
            buffer.length = self.compressed.len();
        } else {
            self.compress_into(buffer, &self.plain[HEADER_BYTES..self.plain_end(header.count)])?;
        }
        self.finish(buffer, header);
        Ok(())
    }

    /// Makes `buffer` a batch whose keys (empty without keys) and values were each passed through `fill` with their index.
    ///
    /// `scratch` holds plain records between calls when batches are compressed.
    ///
    /// # Errors
    /// If `fill` or the codec fails.
    pub fn write_filled(
        &self,
        buffer: &mut BatchBuffer,
        scratch: &mut Vec<u8>,
        header: &BatchHeader,
        mut fill: impl FnMut(u32, &mut [u8], &mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let plain_end = self.plain_end(header.count);
        let plain = if self.compression == Compression::None {
            restore(buffer, &self.plain[..plain_end]);
            &mut buffer.bytes
        } else {
            if scratch.is_empty() {
                scratch.extend_from_slice(&self.plain);
            }
            &mut *scratch
        };
        for index in 0..header.count {
            let position = self.value_positions[index as usize];
            let key_position = self.key_positions[index as usize];
            let (front, value) = plain.split_at_mut(position);
            let key = &mut front[key_position..key_position + self.key_bytes];
            fill(index, key, &mut value[..self.message_bytes])?;
        }
        if self.compression == Compression::None {
            buffer.length = plain_end;
        } else {
            self.compress_into(buffer, &scratch[HEADER_BYTES..plain_end])?;
        }
        self.finish(buffer, header);
        Ok(())
    }

    /// The end of the first `count` records: where the next value's record would begin.
    fn plain_end(&self, count: u32) -> usize {
        // A record ends with its value and one byte for "no headers".
        self.value_positions[count as usize - 1] + self.message_bytes + 1
    }

    fn compress_into(&self, buffer: &mut BatchBuffer, plain_records: &[u8]) -> Result<()> {
        buffer.intact_bytes = 0;
        buffer.bytes.clear();
        buffer.bytes.resize(HEADER_BYTES, 0);
        self.compression.compress(plain_records, &mut buffer.bytes)?;
        buffer.length = buffer.bytes.len();
        Ok(())
    }

    fn finish(&self, buffer: &mut BatchBuffer, header: &BatchHeader) {
        let batch = &mut buffer.bytes[..buffer.length];
        let mut put = |position: usize, field: &[u8]| {
            batch[position..position + field.len()].copy_from_slice(field);
        };
        let length = u32::try_from(buffer.length - LEADER_EPOCH_POSITION).expect("checked at construction");
        put(0, &0i64.to_be_bytes());
        put(BATCH_LENGTH_POSITION, &length.to_be_bytes());
        put(LEADER_EPOCH_POSITION, &(-1i32).to_be_bytes());
        put(MAGIC_POSITION, &[MAGIC]);
        let transactional = if header.is_transactional { TRANSACTIONAL_ATTRIBUTE } else { 0 };
        put(ATTRIBUTES_POSITION, &(self.compression as i16 | transactional).to_be_bytes());
        put(LAST_OFFSET_DELTA_POSITION, &(header.count - 1).to_be_bytes());
        put(BASE_TIMESTAMP_POSITION, &header.timestamp_ms.to_be_bytes());
        put(MAX_TIMESTAMP_POSITION, &header.timestamp_ms.to_be_bytes());
        put(PRODUCER_ID_POSITION, &header.producer_id.to_be_bytes());
        put(PRODUCER_EPOCH_POSITION, &header.producer_epoch.to_be_bytes());
        put(BASE_SEQUENCE_POSITION, &header.base_sequence.to_be_bytes());
        put(RECORD_COUNT_POSITION, &header.count.to_be_bytes());
        let crc = crc32c::of(&batch[ATTRIBUTES_POSITION..]);
        batch[CRC_POSITION..ATTRIBUTES_POSITION].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Makes `buffer` begin as the template does, which it does already for as far as it was used before.
fn restore(buffer: &mut BatchBuffer, template: &[u8]) {
    if buffer.intact_bytes < template.len() {
        buffer.bytes.truncate(buffer.intact_bytes);
        buffer.bytes.extend_from_slice(&template[buffer.intact_bytes..]);
        buffer.intact_bytes = template.len();
    }
}

/// Appends a record with a key and a value of zeros and returns where they begin.
fn put_record(
    out: &mut Vec<u8>,
    offset_delta: usize,
    key_bytes: Option<usize>,
    value_bytes: usize,
) -> Result<(usize, usize)> {
    let mut body = vec![0, 0]; // attributes, timestamp delta
    put_varint(&mut body, i64::try_from(offset_delta)?);
    put_varint(&mut body, key_bytes.map_or(Ok(-1), i64::try_from)?);
    let key_position = body.len();
    body.resize(key_position + key_bytes.unwrap_or(0), 0);
    put_varint(&mut body, i64::try_from(value_bytes)?);
    let record_bytes = body.len() + value_bytes + 1;
    put_varint(out, i64::try_from(record_bytes)?);
    let body_position = out.len();
    out.extend_from_slice(&body);
    let value_position = out.len();
    out.resize(value_position + value_bytes + 1, 0); // the last byte says "no headers"
    Ok((body_position + key_position, value_position))
}

/// Appends a zigzag varint.
fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value << 1 ^ value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::records::{Record, RecordBatchDecoder};

    use super::{BatchBuffer, BatchHeader, BatchTemplate};
    use crate::compression::Compression;

    const HEADER: BatchHeader = BatchHeader {
        count: 3,
        timestamp_ms: 1_700_000_000_123,
        producer_id: 77,
        producer_epoch: 4,
        base_sequence: 9,
        is_transactional: false,
    };

    fn decode(batch: &[u8]) -> Vec<Record> {
        let mut bytes = Bytes::copy_from_slice(batch);
        let decompress = |compressed: &mut Bytes, codec: kafka_protocol::records::Compression| {
            let ours = Compression::from_attributes(codec as i16)?;
            Ok(Bytes::from(ours.decompress(compressed)?))
        };
        RecordBatchDecoder::decode_with_custom_compression(&mut bytes, Some(decompress))
            .expect("another implementation reads it, CRC included")
            .records
    }

    #[test]
    fn another_implementation_reads_the_batch_of_every_codec() {
        for compression in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            let template = BatchTemplate::new(500, 2_000, u32::MAX, compression, None).expect("fits");
            assert_eq!(template.count_max(), 3);
            let mut buffer = BatchBuffer::default();
            for count in [3, 1, 2, 3] {
                template.write(&mut buffer, &BatchHeader { count, ..HEADER }).expect("writes");
                let records = decode(buffer.as_slice());
                assert_eq!(records.len(), count as usize, "{compression:?}");
                for (index, record) in records.iter().enumerate() {
                    assert_eq!(record.offset, index as i64);
                    assert_eq!(record.timestamp, HEADER.timestamp_ms);
                    assert_eq!((record.producer_id, record.producer_epoch), (77, 4));
                    assert_eq!(record.sequence, 9 + index as i32);
                    assert_eq!(record.key, None);
                    assert_eq!(record.value.as_ref().map(Bytes::len), Some(500));
                }
            }
        }
    }

    #[test]
    fn stamped_values_arrive_and_leave_the_rest_alone() {
        for compression in [Compression::None, Compression::Lz4] {
            let template = BatchTemplate::new(100, 64 << 10, 200, compression, None).expect("fits");
            assert_eq!(template.count_max(), 200);
            let (mut buffer, mut scratch) = (BatchBuffer::default(), Vec::new());
            for round in 0..3u8 {
                let header = BatchHeader { count: 150, ..HEADER };
                template
                    .write_filled(&mut buffer, &mut scratch, &header, |index, _, value| {
                        value[0] = round;
                        value[1] = u8::try_from(index)?;
                        Ok(())
                    })
                    .expect("writes");
                let records = decode(buffer.as_slice());
                assert_eq!(records.len(), 150);
                for (index, record) in records.iter().enumerate() {
                    let value = record.value.as_ref().expect("a value");
                    assert_eq!(value[..2], [round, index as u8]);
                    assert!(value[2..].iter().all(u8::is_ascii_uppercase));
                }
            }
        }
    }

    #[test]
    fn keys_stand_where_a_reader_looks_for_them() {
        for compression in [Compression::None, Compression::Zstd] {
            let template = BatchTemplate::new(70, 10_000, 20, compression, Some(4)).expect("fits");
            let (mut buffer, mut scratch) = (BatchBuffer::default(), Vec::new());
            for count in [1, 20, 7] {
                let header = BatchHeader { count, ..HEADER };
                template
                    .write_filled(&mut buffer, &mut scratch, &header, |index, key, value| {
                        key.copy_from_slice(&index.to_be_bytes());
                        value[0] = 7;
                        Ok(())
                    })
                    .expect("writes");
                let records = decode(buffer.as_slice());
                assert_eq!(records.len(), count as usize);
                for (index, record) in records.iter().enumerate() {
                    assert_eq!(record.key.as_deref(), Some(&(index as u32).to_be_bytes()[..]));
                    assert_eq!(record.value.as_ref().map(|value| (value.len(), value[0])), Some((70, 7)));
                }
            }
        }
    }

    #[test]
    fn a_message_larger_than_the_batch_limit_travels_alone() {
        let template = BatchTemplate::new(1_000, 10, u32::MAX, Compression::None, None).expect("fits");
        assert_eq!(template.count_max(), 1);
    }
}
