//! What holds for any records and for any bytes.

use std::ops::ControlFlow;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{OwnedRecord, build, lenient_limits, read_all};
use crate::record::header::write_crc;
use crate::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Batches, Compression, MAGIC_V2, RecordView, TimestampType,
    check_crc, for_each_record, legacy_magic, only_batch, parse_control_batch, retain_records,
    stamp_log_append_time, transcode, validate, validate_records,
};

fn any_codec() -> impl Strategy<Value = Compression> {
    prop::sample::select(Compression::ALL.to_vec())
}

/// Mostly small, some large enough to need several windows and blocks; compressible or not.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..200),
        1 => vec(any::<u8>(), 0..100_000),
        1 => (any::<u8>(), 0..300_000usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

fn any_record() -> impl Strategy<Value = OwnedRecord> {
    let timestamp = prop_oneof![-1..2_000_000_000_000i64, Just(-1), any::<i64>()];
    let headers = vec(("[a-z]{0,9}".prop_map(String::into_bytes), option::of(vec(any::<u8>(), 0..40))), 0..4);
    (timestamp, option::of(any_bytes()), option::of(any_bytes()), headers)
        .prop_map(|(timestamp, key, value, headers)| OwnedRecord { timestamp, key, value, headers })
}

fn any_records() -> impl Strategy<Value = Vec<OwnedRecord>> {
    vec(any_record(), 1..20)
}

fn numbered(records: &[OwnedRecord]) -> Vec<(i64, OwnedRecord)> {
    (0..).zip(records.iter().cloned()).collect()
}

/// Everything that reads bytes, on these bytes. Only panics matter.
fn read_in_every_way(bytes: &[u8]) {
    let go_on = |_: RecordView<'_>| ControlFlow::Continue(());
    let _ = legacy_magic(bytes);
    let _ = only_batch(bytes);
    let _ = validate(bytes, &lenient_limits());
    let _ = for_each_record(bytes, go_on);
    let _ = parse_control_batch(bytes);
    let _ = retain_records(bytes, Some(7), |record| record.offset % 2 == 0);
    if let Ok(header) = BatchHeader::parse(bytes) {
        let _ = check_crc(bytes, &header);
        let _ = validate_records(bytes, &header, &lenient_limits());
        let _ = (header.last_offset(), header.next_offset(), header.last_sequence(), header.size_bytes());
    }
    for codec in [Compression::None, Compression::Lz4] {
        let _ = transcode(bytes, codec, 1 << 20);
    }
    let whole = Batches::new(bytes).map_while(Result::ok).map(|batch| batch.bytes.len()).sum::<usize>();
    assert!(whole <= bytes.len());
}

/// Makes `batch` pass the CRC and the length check, so that what lies deeper is reached.
fn make_plausible(batch: &mut [u8], codec: Compression, record_count: i32) {
    let Ok(batch_length) = i32::try_from(batch.len() - 12) else { return };
    let Some(place) = batch.first_chunk_mut::<BATCH_HEADER_BYTES>() else { return };
    let header = BatchHeader {
        base_offset: 0,
        batch_length,
        leader_epoch: -1,
        magic: MAGIC_V2,
        crc: 0,
        attributes: codec.attribute_bits(),
        last_offset_delta: record_count.saturating_sub(1),
        base_timestamp: 0,
        max_timestamp: 0,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count,
    };
    header.write(place);
    write_crc(batch);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_built_is_read_back_and_is_valid(records in any_records(), codec in any_codec()) {
        let batch = build(codec, &records);
        prop_assert_eq!(read_all(&batch).unwrap(), numbered(&records));

        let valid = validate(&batch, &lenient_limits()).unwrap();
        prop_assert_eq!(only_batch(&batch).unwrap().len(), batch.len());
        prop_assert_eq!(valid.header.compression().unwrap(), codec);
        let latest = records.iter().map(|record| record.timestamp).max().unwrap().max(-1);
        prop_assert_eq!(valid.max_timestamp, latest);
        prop_assert_eq!(valid.stamp, crate::record::Stamp::Keep);
    }

    #[test]
    fn a_damaged_byte_is_refused_or_is_the_leader_epoch(
        records in any_records(), codec in any_codec(), place: prop::sample::Index, bits in 1..=255u8,
    ) {
        let mut batch = build(codec, &records);
        let position = place.index(batch.len());
        batch[position] ^= bits;
        let accepted = validate(&batch, &lenient_limits()).is_ok();
        prop_assert_eq!(accepted, (12..16).contains(&position), "position {}", position);
        read_in_every_way(&batch);
    }

    #[test]
    fn a_batch_with_foul_records_and_a_fair_crc_harms_nobody(
        records in any_records(), codec in any_codec(), damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut batch = build(codec, &records);
        for (place, byte) in damage {
            let position = BATCH_HEADER_BYTES + place.index(batch.len() - BATCH_HEADER_BYTES);
            batch[position] = byte;
        }
        write_crc(&mut batch);
        read_in_every_way(&batch);
        if let Ok(valid) = validate(&batch, &lenient_limits()) {
            // Whatever is accepted is read to the end by every reader.
            let found = read_all(&batch).unwrap();
            prop_assert_eq!(found.len(), usize::try_from(valid.header.record_count).unwrap());
        }
    }

    #[test]
    fn a_cut_batch_is_refused(records in any_records(), codec in any_codec(), place: prop::sample::Index) {
        let batch = build(codec, &records);
        let cut = &batch[..place.index(batch.len())];
        prop_assert!(validate(cut, &lenient_limits()).is_err());
        prop_assert!(only_batch(cut).is_err());
        prop_assert!(for_each_record(cut, |_| ControlFlow::Continue(())).is_err());
    }

    #[test]
    fn rubbish_harms_nobody(bytes in vec(any::<u8>(), 0..3000)) {
        read_in_every_way(&bytes);
    }

    #[test]
    fn rubbish_behind_a_fair_header_harms_nobody(
        mut bytes in vec(any::<u8>(), BATCH_HEADER_BYTES..3000), codec in any_codec(), count in prop_oneof![0..50, any::<i32>()],
    ) {
        make_plausible(&mut bytes, codec, count);
        read_in_every_way(&bytes);
    }

    #[test]
    fn another_codec_changes_neither_records_nor_header(
        records in any_records(), from in any_codec(), to in any_codec(), base_offset in 0..1_000_000i64,
    ) {
        let mut builder = BatchBuilder::new(from).with_producer(7, 3, 40).transactional();
        records.iter().for_each(|record| record.append_to(&mut builder));
        let mut batch = builder.with_base_offset(base_offset, 5).finish();
        stamp_log_append_time(&mut batch, 1234);

        let other = transcode(&batch, to, usize::MAX).unwrap();
        prop_assert_eq!(read_all(&other).unwrap(), read_all(&batch).unwrap());
        let (before, after) = (BatchHeader::parse(&batch).unwrap(), BatchHeader::parse(&other).unwrap());
        check_crc(&other, &after).unwrap();
        prop_assert_eq!(after.compression().unwrap(), to);
        prop_assert_eq!(after.timestamp_type(), TimestampType::LogAppendTime);
        let stripped = BatchHeader { batch_length: 0, crc: 0, attributes: before.attributes & !7, ..before };
        prop_assert_eq!(BatchHeader { batch_length: 0, crc: 0, attributes: after.attributes & !7, ..after }, stripped);
    }

    #[test]
    fn kafka_protocol_reads_the_same_records(mut records in any_records()) {
        use kafka_protocol::records::RecordBatchDecoder;

        // Its sums of timestamps overflow where Java's and ours wrap.
        records.iter_mut().for_each(|record| record.timestamp = record.timestamp.rem_euclid(1 << 42));
        let batch = build(Compression::None, &records);
        let decoded = RecordBatchDecoder::decode(&mut Bytes::from(batch)).unwrap();
        prop_assert_eq!(decoded.records.len(), records.len());
        for (ours, theirs) in records.iter().zip(decoded.records) {
            prop_assert_eq!(ours.timestamp, theirs.timestamp);
            prop_assert_eq!(ours.key.as_deref(), theirs.key.as_deref());
            prop_assert_eq!(ours.value.as_deref(), theirs.value.as_deref());
            for (key, value) in theirs.headers {
                let value = value.as_ref().map(|value| value.to_vec());
                prop_assert!(ours.headers.contains(&(key.as_bytes().to_vec(), value)));
            }
        }
    }

    #[test]
    fn records_of_kafka_protocol_are_read(mut records in any_records(), base_offset in 0..1_000_000i64) {
        use kafka_protocol::protocol::StrBytes;
        use kafka_protocol::records::{self, Record, RecordBatchEncoder, RecordEncodeOptions};

        // Distinct names only (theirs is a map), and times that their subtraction does not overflow on.
        for record in &mut records {
            record.timestamp = record.timestamp.rem_euclid(1 << 42);
            record.headers.sort();
            record.headers.dedup_by(|a, b| a.0 == b.0);
        }
        let theirs = (base_offset..).zip(&records).map(|(offset, record)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: records::TimestampType::Creation,
            offset,
            sequence: i32::try_from(offset - base_offset).unwrap(),
            timestamp: record.timestamp,
            key: record.key.clone().map(Bytes::from),
            value: record.value.clone().map(Bytes::from),
            headers: record.headers.iter().map(|(key, value)| {
                let key = StrBytes::from_string(String::from_utf8(key.clone()).unwrap());
                (key, value.clone().map(Bytes::from))
            }).collect(),
        }).collect::<Vec<_>>();
        let mut bytes = bytes::BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: records::Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &theirs, &options).unwrap();

        let mut found = Vec::new();
        for batch in Batches::new(&bytes) {
            let batch = batch.unwrap();
            batch.check_crc().unwrap();
            found.extend(read_all(batch.bytes).unwrap());
        }
        prop_assert_eq!(found, (base_offset..).zip(records).collect::<Vec<_>>());
    }
}
