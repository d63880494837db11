//! Every rule for producers, broken once.

use super::{OwnedRecord, build, lenient_limits, read_all};
use crate::record::header::{BATCH_HEADER_BYTES, write_crc};
use crate::record::{
    BatchBuilder, BatchError, BatchHeader, Batches, Compression, Headers, InvalidBatch, RecordProblem, Stamp,
    TimestampType, ValidationLimits, check_crc, compress, end_transaction_batch, only_batch, validate,
    validate_header_and_crc,
};

const NOW_MS: i64 = 1_700_000_000_000;

fn limits() -> ValidationLimits {
    ValidationLimits {
        max_message_bytes: 1000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: 5000,
        timestamp_after_max_ms: 1000,
        now_ms: NOW_MS,
        requires_keys: false,
    }
}

fn three_records() -> Vec<OwnedRecord> {
    [b"one", b"two", b"six"].map(|value| OwnedRecord::of_value(NOW_MS, value)).to_vec()
}

/// A good batch whose header was changed before its CRC was computed.
fn batch_with(change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut batch = build(Compression::None, &three_records());
    let mut header = BatchHeader::parse(&batch).unwrap();
    change(&mut header);
    header.write(batch.first_chunk_mut::<BATCH_HEADER_BYTES>().unwrap());
    write_crc(&mut batch);
    batch
}

fn refusal(batch: &[u8]) -> InvalidBatch {
    validate(batch, &limits()).unwrap_err()
}

/// A batch of one record whose bytes, length included, are these.
fn batch_of(codec: Compression, record_count: i32, records: &[u8]) -> Vec<u8> {
    let mut batch = build(Compression::None, &three_records());
    batch.truncate(BATCH_HEADER_BYTES);
    compress(codec, records, &mut batch).unwrap();
    let header = BatchHeader::parse(&batch).unwrap();
    let header = BatchHeader {
        batch_length: i32::try_from(batch.len() - 12).unwrap(),
        attributes: codec.attribute_bits(),
        record_count,
        last_offset_delta: record_count - 1,
        ..header
    };
    header.write(batch.first_chunk_mut::<BATCH_HEADER_BYTES>().unwrap());
    write_crc(&mut batch);
    batch
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    assert!(validate(&batch_with(|_| ()), &limits()).is_ok());
    assert_eq!(refusal(&batch_with(|h| h.base_offset = 4)), InvalidBatch::BaseOffset { base_offset: 4 });
    assert_eq!(refusal(&batch_with(|h| h.record_count = 0)), InvalidBatch::NoRecords { record_count: 0 });
    assert_eq!(refusal(&batch_with(|h| h.record_count = -3)), InvalidBatch::NoRecords { record_count: -3 });
    assert_eq!(
        refusal(&batch_with(|h| h.last_offset_delta = -1)),
        InvalidBatch::OffsetRange { record_count: 3, last_offset_delta: -1 }
    );
    assert_eq!(
        refusal(&batch_with(|h| h.record_count = 4)),
        InvalidBatch::OffsetRange { record_count: 4, last_offset_delta: 2 }
    );
    assert_eq!(refusal(&batch_with(|h| h.attributes = 0x20)), InvalidBatch::ControlBatch);
    assert_eq!(refusal(&batch_with(|h| h.attributes = 7)), InvalidBatch::UnknownCodec { id: 7 });
    assert_eq!(refusal(&batch_with(|h| h.producer_id = 1)), InvalidBatch::BaseSequence { base_sequence: -1 });
    assert!(matches!(
        refusal(&batch_with(|h| h.magic = 3)),
        InvalidBatch::Corrupt(BatchError::Magic { found: 3 })
    ));
    assert_eq!(refusal(&batch_with(|h| h.magic = 1)), InvalidBatch::LegacyMagic { magic: 1 });
    assert!(matches!(
        refusal(&batch_with(|h| h.batch_length = 48)),
        InvalidBatch::Corrupt(BatchError::Length { found: 48 })
    ));
    assert!(matches!(refusal(&batch_with(|h| h.batch_length += 1)), InvalidBatch::NoBatch));
    assert!(matches!(
        refusal(&batch_with(|h| h.batch_length -= 1)),
        InvalidBatch::MoreThanOneBatch { extra_bytes: 1 }
    ));
}

#[test]
fn bytes_damaged_on_the_way_are_corrupt_whatever_they_then_say() {
    // The record count lies under the CRC: a negative one is the wire's fault until the CRC says otherwise.
    let mut batch = batch_with(|_| ());
    batch[57] = 0xff;
    assert!(matches!(refusal(&batch), InvalidBatch::Corrupt(BatchError::Crc { .. })));
}

#[test]
fn a_batch_beyond_the_topics_limit_is_refused_before_its_checksum_is_computed() {
    let mut batch = build(Compression::None, &[OwnedRecord::of_value(NOW_MS, &[0; 2000])]);
    batch[17] ^= 1;
    let refused = validate_header_and_crc(&batch, &limits()).unwrap_err();
    assert_eq!(refused, InvalidBatch::TooLarge { size_bytes: batch.len(), limit_bytes: 1000 });
}

#[test]
fn a_produce_request_holds_exactly_one_batch_and_may_drag_a_torn_one() {
    let batch = build(Compression::None, &three_records());
    let twice = [batch.as_slice(), &batch].concat();
    assert_eq!(only_batch(&batch), Ok(batch.as_slice()));
    assert_eq!(only_batch(&twice[..batch.len() + 70]), Ok(batch.as_slice()));
    assert_eq!(only_batch(&twice), Err(InvalidBatch::MoreThanOneBatch { extra_bytes: batch.len() }));
    assert_eq!(only_batch(&[]), Err(InvalidBatch::NoBatch));
    assert_eq!(only_batch(&batch[..batch.len() - 1]), Err(InvalidBatch::NoBatch));
    // The shortest message of magic 0: offset, size 14, CRC, magic, attributes, null key, null value.
    let mut legacy = [0u8; 26];
    legacy[11] = 14;
    legacy[18..].fill(0xff);
    assert_eq!(only_batch(&legacy), Err(InvalidBatch::LegacyMagic { magic: 0 }));
}

#[test]
fn control_batches_are_the_servers_alone() {
    let mut batch = end_transaction_batch(9, 2, true, 4, NOW_MS);
    assert_eq!(refusal(&batch), InvalidBatch::ControlBatch);
    batch[17] ^= 1;
    assert!(matches!(refusal(&batch), InvalidBatch::Corrupt(BatchError::Crc { .. })));
}

#[test]
fn compacted_topics_need_keys() {
    let limits = ValidationLimits { requires_keys: true, ..limits() };
    let mut records = three_records();
    records[0].key = Some(Vec::new());
    records[2].key = Some(b"k".to_vec());
    for codec in Compression::ALL {
        let refused = validate(&build(codec, &records), &limits).unwrap_err();
        assert_eq!(refused, InvalidBatch::KeyMissing { index: 1 });
        assert_eq!(refused.record_index(), Some(1));
    }
    records[1].key = Some(b"k".to_vec());
    assert!(validate(&build(Compression::None, &records), &limits).is_ok());
}

#[test]
fn timestamps_stay_in_the_topics_range() {
    for (timestamp, accepted) in [
        (NOW_MS - 5000, true),
        (NOW_MS - 5001, false),
        (NOW_MS + 1000, true),
        (NOW_MS + 1001, false),
        (-1, true), // "no timestamp" is always in range
        (-2, false),
        (i64::MIN, false),
        (i64::MAX, false),
    ] {
        let mut records = three_records();
        records[1].timestamp = timestamp;
        let result = validate(&build(Compression::None, &records), &limits());
        assert_eq!(result.is_ok(), accepted, "{timestamp}");
        if let Err(refused) = result {
            let (earliest, latest) = (NOW_MS - 5000, NOW_MS + 1000);
            assert_eq!(refused, InvalidBatch::Timestamp { index: 1, timestamp, earliest, latest });
        }
        let limits = ValidationLimits { timestamp_type: TimestampType::LogAppendTime, ..limits() };
        assert!(
            validate(&build(Compression::None, &records), &limits).is_ok(),
            "the server's time replaces it"
        );
    }
}

#[test]
fn the_server_stamps_its_time_where_the_topic_says_so() {
    let limits = ValidationLimits { timestamp_type: TimestampType::LogAppendTime, ..limits() };
    let mut batch = build(Compression::Lz4, &three_records());
    let valid = validate(&batch, &limits).unwrap();
    assert_eq!((valid.stamp, valid.max_timestamp), (Stamp::LogAppendTime { now_ms: NOW_MS }, NOW_MS));
    let header = valid.assign(&mut batch, 77, 6);
    assert_eq!((header.base_offset, header.last_offset(), header.leader_epoch), (77, 79, 6));
    assert_eq!((header.timestamp_type(), header.max_timestamp), (TimestampType::LogAppendTime, NOW_MS));
    check_crc(&batch, &header).unwrap();
    assert!(read_all(&batch).unwrap().iter().all(|(_, record)| record.timestamp == NOW_MS));

    let producers_own = batch_with(|h| h.attributes = 8);
    assert_eq!(validate(&producers_own, &limits).unwrap_err(), InvalidBatch::TimestampType);
}

#[test]
fn a_header_that_misstates_the_latest_timestamp_is_put_right() {
    let mut batch = batch_with(|h| h.max_timestamp = NOW_MS + 900_000);
    let valid = validate(&batch, &limits()).unwrap();
    assert_eq!(valid.stamp, Stamp::CreateTime { max_timestamp: NOW_MS });
    let header = valid.assign(&mut batch, 0, 0);
    assert_eq!(header.max_timestamp, NOW_MS);
    check_crc(&batch, &header).unwrap();

    // Kafka takes the type away from a producer that set it in a topic with the producers' time.
    let mut batch = batch_with(|h| h.attributes = 8);
    let header = validate(&batch, &limits()).unwrap().assign(&mut batch, 0, 0);
    assert_eq!(header.timestamp_type(), TimestampType::CreateTime);
    let batch = batch_with(|h| (h.attributes, h.max_timestamp) = (8, -1));
    assert_eq!(refusal(&batch), InvalidBatch::TimestampType);
}

#[test]
fn records_not_numbered_in_a_row_are_refused() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.append_at(0, NOW_MS, None, Some(b"a"), Headers::NONE).unwrap();
    builder.append_at(2, NOW_MS, None, Some(b"b"), Headers::NONE).unwrap();
    let mut batch = builder.finish();
    assert_eq!(refusal(&batch), InvalidBatch::OffsetRange { record_count: 2, last_offset_delta: 2 });
    batch[26] = 1;
    write_crc(&mut batch);
    assert_eq!(refusal(&batch), InvalidBatch::OffsetDelta { index: 1, offset_delta: 2 });
}

#[test]
fn malformed_records_are_refused_by_name_under_every_codec() {
    let cases: [(&[u8], RecordProblem); 14] = [
        (&[], RecordProblem::Cut),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0], RecordProblem::Varint),
        (&[1], RecordProblem::Length),
        (&[10, 0, 0], RecordProblem::Cut),
        (&[0], RecordProblem::Cut),
        (&[2, 0], RecordProblem::Varint),
        (&[12, 0, 0, 0, 3, 1, 0], RecordProblem::Key), // key length -2
        (&[12, 0, 0, 0, 8, 1, 0], RecordProblem::Key), // key longer than the record
        (&[12, 0, 0, 0, 1, 4, 0], RecordProblem::Value),
        (&[10, 0, 0, 0, 1, 1], RecordProblem::Varint),
        (&[12, 0, 0, 0, 1, 1, 1], RecordProblem::HeaderCount),
        (&[12, 0, 0, 0, 1, 1, 2], RecordProblem::HeaderCount),
        (&[16, 0, 0, 0, 1, 1, 2, 1, 1], RecordProblem::Header), // a null header key
        (&[14, 0, 0, 0, 1, 1, 0, 9], RecordProblem::LeftOver),
    ];
    for codec in Compression::ALL {
        for (records, problem) in cases {
            let found = refusal(&batch_of(codec, 1, records));
            let expected = BatchError::Record { index: 0, problem };
            if codec == Compression::None && records.is_empty() {
                // Nothing at all has no length either.
                assert!(matches!(found, InvalidBatch::MalformedRecord(_)));
                continue;
            }
            assert_eq!(found, InvalidBatch::MalformedRecord(expected), "{codec} {records:?}");
        }
        let good = [12, 0, 0, 0, 1, 1, 0];
        assert!(validate(&batch_of(codec, 1, &good), &lenient_limits()).is_ok(), "{codec}");
        let more = [good, good].concat();
        assert_eq!(
            refusal(&batch_of(codec, 1, &more)),
            InvalidBatch::MalformedRecord(BatchError::RecordsLeftOver { record_count: 1 }),
            "{codec}"
        );
    }
}

#[test]
fn compressed_rubbish_is_refused() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        for rubbish in [b"".as_slice(), b"r", b"rubbish and more rubbish"] {
            let mut batch = batch_of(Compression::None, 3, rubbish);
            batch[22] = u8::try_from(codec.attribute_bits()).unwrap();
            write_crc(&mut batch);
            let refused = refusal(&batch);
            let is_refused = matches!(refused, InvalidBatch::Decompression(_))
                || matches!(&refused, InvalidBatch::MalformedRecord(_) if rubbish.is_empty());
            assert!(is_refused, "{codec}: {refused}");
        }
        // A good stream that ends too early.
        let mut batch = build(codec, &three_records());
        batch.truncate(batch.len() - 1);
        let batch_length = i32::try_from(batch.len() - 12).unwrap();
        batch[8..12].copy_from_slice(&batch_length.to_be_bytes());
        write_crc(&mut batch);
        assert!(matches!(refusal(&batch), InvalidBatch::Decompression(_)), "{codec}: {:?}", refusal(&batch));
    }
}

#[test]
fn batches_in_a_row_end_at_the_torn_one() {
    let one = build(Compression::None, &three_records());
    let two = build(Compression::Zstd, &three_records());
    let mut bytes = [one.as_slice(), &two, &one].concat();
    bytes.truncate(bytes.len() - 5);
    let mut batches = Batches::new(&bytes);
    let found = batches.by_ref().collect::<Vec<_>>();
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].as_ref().map(|batch| (batch.position, batch.bytes)), Ok((one.len(), two.as_slice())));
    let torn = BatchError::Truncated { needed_bytes: one.len(), available_bytes: one.len() - 5 };
    assert_eq!(found[2].as_ref().unwrap_err(), &torn);
    assert_eq!(batches.position(), one.len() + two.len());
    assert!(batches.next().is_none());

    // A file that was prepared with zeros.
    let mut batches = Batches::new(&[0; 100]);
    assert_eq!(batches.next().unwrap().unwrap_err(), BatchError::Magic { found: 0 });
}
