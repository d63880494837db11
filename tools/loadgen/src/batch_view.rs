//! Reads record batches (v2) out of a fetch reply without copying them.
//!
//! The bytes come from a broker: every size is checked, nothing is asserted.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};

use crate::batch::{
    ATTRIBUTES_POSITION, BATCH_LENGTH_POSITION, CRC_POSITION, HEADER_BYTES, LAST_OFFSET_DELTA_POSITION,
    LEADER_EPOCH_POSITION, MAGIC, MAGIC_POSITION, PRODUCER_ID_POSITION, RECORD_COUNT_POSITION,
    TRANSACTIONAL_ATTRIBUTE,
};
use crate::compression::Compression;
use crate::crc32c;

const CONTROL_ATTRIBUTE: i16 = 1 << 5;

/// One whole batch.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
    pub base_offset: i64,
    pub last_offset: i64,
    pub record_count: u32,
    pub producer_id: i64,
    attributes: i16,
}

impl<'a> BatchView<'a> {
    /// Cuts the first batch off `bytes`; `None` if it is not whole, as the last one of a reply may be.
    ///
    /// # Errors
    /// If the bytes cannot be a batch.
    pub fn cut(bytes: &mut &'a [u8]) -> Result<Option<Self>> {
        if bytes.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length =
            usize::try_from(i32_at(bytes, BATCH_LENGTH_POSITION)).context("a negative batch length")?;
        let total = LEADER_EPOCH_POSITION + length;
        ensure!(total >= HEADER_BYTES, "a batch of {total} bytes is shorter than its header");
        ensure!(
            bytes[MAGIC_POSITION] == MAGIC,
            "record batch magic {} is not read here",
            bytes[MAGIC_POSITION]
        );
        if total > bytes.len() {
            return Ok(None);
        }
        let (batch, rest) = bytes.split_at(total);
        *bytes = rest;
        let base_offset = i64::from_be_bytes(batch[0..8].try_into().expect("8 bytes"));
        let last_offset_delta = i32_at(batch, LAST_OFFSET_DELTA_POSITION);
        ensure!(base_offset >= 0 && last_offset_delta >= 0, "negative offsets in a batch");
        Ok(Some(Self {
            bytes: batch,
            base_offset,
            last_offset: base_offset + i64::from(last_offset_delta),
            record_count: u32::try_from(i32_at(batch, RECORD_COUNT_POSITION))
                .context("a negative record count")?,
            producer_id: i64::from_be_bytes(
                batch[PRODUCER_ID_POSITION..PRODUCER_ID_POSITION + 8].try_into().expect("8 bytes"),
            ),
            attributes: i16::from_be_bytes([batch[ATTRIBUTES_POSITION], batch[ATTRIBUTES_POSITION + 1]]),
        }))
    }

    /// Holds transaction markers, not messages.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL_ATTRIBUTE != 0
    }

    /// Belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_ATTRIBUTE != 0
    }

    /// The stored CRC is that of the bytes.
    pub fn crc_holds(&self) -> bool {
        i32_at(self.bytes, CRC_POSITION).cast_unsigned() == crc32c::of(&self.bytes[ATTRIBUTES_POSITION..])
    }

    /// The plain records, to be walked with `for_each_record`.
    ///
    /// # Errors
    /// If the codec is unknown or fails.
    pub fn plain_records(&self) -> Result<Cow<'a, [u8]>> {
        let records = &self.bytes[HEADER_BYTES..];
        Ok(match Compression::from_attributes(self.attributes)? {
            Compression::None => Cow::Borrowed(records),
            codec => Cow::Owned(codec.decompress(records)?),
        })
    }

    /// Calls `visit` with the offset and the value of each record.
    ///
    /// # Errors
    /// If the records are not sound.
    pub fn for_each_record(&self, mut visit: impl FnMut(i64, &[u8])) -> Result<()> {
        let records = self.plain_records()?;
        let mut rest: &[u8] = &records;
        for _ in 0..self.record_count {
            let size = usize::try_from(varint(&mut rest)?).context("a negative record size")?;
            ensure!(size <= rest.len(), "a record of {size} bytes where {} are left", rest.len());
            let (mut record, tail) = rest.split_at(size);
            rest = tail;
            ensure!(!record.is_empty(), "an empty record");
            record = &record[1..];
            varint(&mut record)?; // timestamp delta
            let offset_delta = varint(&mut record)?;
            optional_bytes(&mut record)?; // key
            let value = optional_bytes(&mut record)?.unwrap_or_default();
            visit(self.base_offset + offset_delta, value);
        }
        Ok(())
    }
}

fn i32_at(bytes: &[u8], position: usize) -> i32 {
    i32::from_be_bytes(bytes[position..position + 4].try_into().expect("4 bytes"))
}

/// A length and as many bytes; -1 stands for none.
fn optional_bytes<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let length = varint(bytes)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).context("a negative length in a record")?;
    ensure!(length <= bytes.len(), "a field of {length} bytes where {} are left", bytes.len());
    let (field, rest) = bytes.split_at(length);
    *bytes = rest;
    Ok(Some(field))
}

/// Reads a zigzag varint.
fn varint(bytes: &mut &[u8]) -> Result<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().context("a record ends within a number")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
        }
    }
    anyhow::bail!("a number of more than ten bytes")
}

#[cfg(test)]
mod tests {
    use super::BatchView;
    use crate::batch::{BatchBuffer, BatchHeader, BatchTemplate};
    use crate::compression::Compression;

    fn batch_of(count: u32, compression: Compression) -> Vec<u8> {
        let template = BatchTemplate::new(300, 1 << 20, count, compression, None).expect("fits");
        let mut buffer = BatchBuffer::default();
        let header = BatchHeader {
            count,
            timestamp_ms: 1,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            is_transactional: false,
        };
        template.write(&mut buffer, &header).expect("writes");
        buffer.as_slice().to_vec()
    }

    #[test]
    fn batches_are_cut_one_after_the_other_and_a_torn_tail_is_left() {
        let mut bytes = batch_of(5, Compression::None);
        bytes.extend_from_slice(&batch_of(2, Compression::Zstd));
        let whole = bytes.len();
        bytes.extend_from_slice(&batch_of(4, Compression::None)[..100]);
        let mut rest = &bytes[..];
        let mut counts = Vec::new();
        while let Some(batch) = BatchView::cut(&mut rest).expect("sound") {
            assert!(batch.crc_holds());
            let mut offsets = Vec::new();
            batch
                .for_each_record(|offset, value| {
                    assert_eq!(value.len(), 300);
                    offsets.push(offset);
                })
                .expect("sound records");
            counts.push(offsets.len());
        }
        assert_eq!(counts, [5, 2]);
        assert_eq!(rest.len(), bytes.len() - whole);
    }

    #[test]
    fn damaged_bytes_are_errors_or_crc_failures_and_never_panics() {
        let sound = batch_of(3, Compression::None);
        for position in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[position] ^= 0xff;
            let mut rest = &bytes[..];
            if let Ok(Some(batch)) = BatchView::cut(&mut rest) {
                let _ = batch.for_each_record(|_, _| {});
                assert!(
                    position < crate::batch::ATTRIBUTES_POSITION || !batch.crc_holds(),
                    "byte {position}"
                );
            }
        }
    }
}
