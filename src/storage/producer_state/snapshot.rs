//! The bytes of a `.snapshot` file.

use std::collections::VecDeque;

use ahash::AHashMap;

use crate::base::crc32c;
use crate::model::{Offset, ProducerId};

use super::{ProducerEntry, RememberedBatch};

const VERSION: i16 = 1;
const VERSION_BYTES: usize = size_of::<i16>();
const CRC_BYTES: usize = size_of::<u32>();
const COUNT_BYTES: usize = size_of::<i32>();
const ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;
/// "No offset" in an entry.
const NO_OFFSET: Offset = -1;

/// Writes the file's bytes. Entries are ordered by producer id, so that equal states give equal files.
pub(in crate::storage) fn to_bytes(producers: &AHashMap<ProducerId, ProducerEntry>) -> Vec<u8> {
    let mut sorted: Vec<_> = producers.iter().collect();
    sorted.sort_unstable_by_key(|(producer_id, _)| **producer_id);
    let mut body = Vec::with_capacity(COUNT_BYTES + sorted.len() * ENTRY_BYTES);
    body.extend_from_slice(&i32::try_from(sorted.len()).unwrap_or(i32::MAX).to_be_bytes());
    for (producer_id, entry) in sorted {
        let last = entry.batches.back();
        body.extend_from_slice(&producer_id.to_be_bytes());
        body.extend_from_slice(&entry.epoch.to_be_bytes());
        body.extend_from_slice(&entry.last_sequence().to_be_bytes());
        body.extend_from_slice(&last.map_or(NO_OFFSET, |batch| batch.last_offset).to_be_bytes());
        body.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
        body.extend_from_slice(&entry.last_timestamp.to_be_bytes());
        body.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        body.extend_from_slice(&entry.transaction_first_offset.unwrap_or(NO_OFFSET).to_be_bytes());
    }
    let mut bytes = Vec::with_capacity(VERSION_BYTES + CRC_BYTES + body.len());
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&crc32c::checksum(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads a file; `None` when version, checksum or count do not fit.
pub(in crate::storage) fn parse(bytes: &[u8]) -> Option<Vec<(ProducerId, ProducerEntry)>> {
    let (version, rest) = bytes.split_first_chunk::<VERSION_BYTES>()?;
    let (crc, body) = rest.split_first_chunk::<CRC_BYTES>()?;
    if i16::from_be_bytes(*version) != VERSION || u32::from_be_bytes(*crc) != crc32c::checksum(body) {
        return None;
    }
    let (count, entries) = body.split_first_chunk::<COUNT_BYTES>()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || entries.len() != count {
        return None;
    }
    entries.iter().map(parse_entry).collect()
}

fn parse_entry(entry: &[u8; ENTRY_BYTES]) -> Option<(ProducerId, ProducerEntry)> {
    let (producer_id, rest) = entry.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (last_sequence, rest) = rest.split_first_chunk()?;
    let (last_offset, rest) = rest.split_first_chunk()?;
    let (offset_delta, rest) = rest.split_first_chunk()?;
    let (timestamp, rest) = rest.split_first_chunk()?;
    let (coordinator_epoch, rest) = rest.split_first_chunk()?;
    let (transaction_first_offset, _) = rest.split_first_chunk()?;
    let timestamp = i64::from_be_bytes(*timestamp);
    let transaction_first_offset = i64::from_be_bytes(*transaction_first_offset);
    let batch = RememberedBatch {
        last_sequence: i32::from_be_bytes(*last_sequence),
        last_offset: i64::from_be_bytes(*last_offset),
        offset_delta: i32::from_be_bytes(*offset_delta),
        timestamp,
    };
    let entry = ProducerEntry {
        epoch: i16::from_be_bytes(*epoch),
        coordinator_epoch: i32::from_be_bytes(*coordinator_epoch),
        last_timestamp: timestamp,
        transaction_first_offset: (transaction_first_offset >= 0).then_some(transaction_first_offset),
        last_marker_offset: None,
        batches: if batch.last_offset >= 0 { VecDeque::from([batch]) } else { VecDeque::new() },
    };
    Some((i64::from_be_bytes(*producer_id), entry))
}
