//! Batches that other programs wrote, and forms of streams that ours does not write.
//!
//! `golden.txt` holds a name and a batch in hexadecimal per line, written by Kafka's own `MemoryRecords`
//! (kafka-clients 4.3.1) from the records of `golden_records`.

use super::{OwnedRecord, build, lenient_limits, read_all};
use crate::record::header::write_crc;
use crate::record::{
    BATCH_HEADER_BYTES, BatchHeader, Compression, ControlRecord, ControlType, InvalidBatch, compress,
    end_transaction_batch, only_batch, parse_control_batch, validate,
};

const NOW_MS: i64 = 1_700_000_000_000;

fn golden(name: &str) -> Vec<u8> {
    let line = include_str!("golden.txt").lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.expect("a line of this name").as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit");
    digits.chunks(2).map(|pair| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).expect("a byte")).collect()
}

fn golden_records(count: usize) -> Vec<OwnedRecord> {
    (0..count)
        .map(|i| {
            let number = i64::try_from(i).unwrap();
            OwnedRecord {
                timestamp: NOW_MS + number * 37 - (number % 5) * 1000,
                key: (i % 3 != 0).then(|| format!("key-{}", i % 7).into_bytes()),
                value: (i % 11 != 10).then(|| format!("value-{i}-{}", "abc".repeat(i * 20)).into_bytes()),
                headers: (0..i % 3)
                    .map(|j| (format!("h{j}").into_bytes(), (j != 1).then(|| format!("hv{i}").into_bytes())))
                    .collect(),
            }
        })
        .collect()
}

/// A batch of `records` whose compressed section is `stream`.
fn batch_of_stream(codec: Compression, records: &[OwnedRecord], stream: &[u8]) -> Vec<u8> {
    let mut batch = build(Compression::None, records);
    batch.truncate(BATCH_HEADER_BYTES);
    batch.extend_from_slice(stream);
    let batch_length = i32::try_from(batch.len() - 12).unwrap();
    let header = BatchHeader {
        batch_length,
        attributes: codec.attribute_bits(),
        ..BatchHeader::parse(&batch).unwrap()
    };
    header.write(batch.first_chunk_mut::<BATCH_HEADER_BYTES>().unwrap());
    write_crc(&mut batch);
    batch
}

fn plain_section(records: &[OwnedRecord]) -> Vec<u8> {
    build(Compression::None, records)[BATCH_HEADER_BYTES..].to_vec()
}

fn assert_reads(batch: &[u8], records: &[OwnedRecord]) {
    validate(batch, &lenient_limits()).unwrap();
    let found = read_all(batch).unwrap().into_iter().map(|(_, record)| record).collect::<Vec<_>>();
    assert_eq!(found, records);
}

#[test]
fn kafkas_own_batches_are_valid_and_hold_what_was_put_in() {
    for codec in Compression::ALL {
        let batch = golden(codec.name());
        let records = golden_records(if codec == Compression::None { 6 } else { 60 });
        assert_eq!(only_batch(&batch), Ok(batch.as_slice()));
        assert_reads(&batch, &records);
    }
}

#[test]
fn plain_batches_are_kafkas_byte_for_byte() {
    let ours = build(Compression::None, &golden_records(6));
    assert_eq!(ours, golden("none"));
    // A fresh batch has leader epoch -1 on both sides; the snappy framing is fixed too.
    let (ours, theirs) = (build(Compression::Snappy, &golden_records(60)), golden("snappy"));
    assert_eq!(ours[BATCH_HEADER_BYTES..][..16], theirs[BATCH_HEADER_BYTES..][..16]);
}

#[test]
fn transaction_markers_are_kafkas_byte_for_byte() {
    for (name, commits, control_type) in
        [("commit", true, ControlType::Commit), ("abort", false, ControlType::Abort)]
    {
        let batch = golden(name);
        assert_eq!(parse_control_batch(&batch), Ok(ControlRecord { control_type, coordinator_epoch: 33 }));
        let mut ours = end_transaction_batch(4242, 7, commits, 33, NOW_MS);
        // Kafka's helper writes leader epoch 0 here; the log assigns it.
        ours[12..16].copy_from_slice(&batch[12..16]);
        assert_eq!(ours, batch);
    }
}

#[test]
fn streams_in_several_parts_are_read_as_one() {
    let records = golden_records(30);
    let plain = plain_section(&records);
    let (first, second) = plain.split_at(plain.len() / 3);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Zstd] {
        let mut stream = Vec::new();
        compress(codec, first, &mut stream).unwrap();
        compress(codec, second, &mut stream).unwrap();
        assert_reads(&batch_of_stream(codec, &records, &stream), &records);
    }
}

#[test]
fn snappy_without_framing_is_read() {
    let records = golden_records(60);
    let stream = snap::raw::Encoder::new().compress_vec(&plain_section(&records)).unwrap();
    assert_reads(&batch_of_stream(Compression::Snappy, &records, &stream), &records);
}

#[test]
fn a_snappy_block_cannot_claim_more_than_it_can_hold() {
    // A raw block that says it is 4 GiB - 1.
    let stream = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x00];
    let batch = batch_of_stream(Compression::Snappy, &golden_records(1), &stream);
    let refused = validate(&batch, &lenient_limits()).unwrap_err();
    assert!(matches!(refused, InvalidBatch::Decompression(_)), "{refused}");
}

#[test]
fn lz4_frames_are_read_with_every_flag_that_kafka_reads_and_refused_with_others() {
    use std::io::Write;

    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};

    let records = golden_records(60);
    let plain = plain_section(&records);
    let stream_with = |info: FrameInfo| {
        let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let batch = |stream: &[u8]| batch_of_stream(Compression::Lz4, &records, stream);
    let info = FrameInfo::new().block_mode(BlockMode::Independent);
    for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        let info = info.clone().block_size(block_size);
        assert_reads(&batch(&stream_with(info.clone())), &records);
        assert_reads(
            &batch(&stream_with(info.clone().block_checksums(true).content_checksum(true))),
            &records,
        );
        assert_reads(&batch(&stream_with(info.content_size(Some(plain.len() as u64)))), &records);
    }

    let good = stream_with(info.clone());
    let trailing = [good.as_slice(), b"what Kafka ignores too"].concat();
    assert_reads(&batch(&trailing), &records);

    let linked = stream_with(FrameInfo::new().block_mode(BlockMode::Linked));
    let without_end = &good[..good.len() - 4];
    let mut damaged = stream_with(info.block_checksums(true));
    damaged[50] ^= 1;
    for stream in [linked.as_slice(), without_end, &damaged, &good[..6], &good[4..]] {
        let refused = validate(&batch(stream), &lenient_limits()).unwrap_err();
        assert!(matches!(refused, InvalidBatch::Decompression(_)), "{refused}");
    }
}

#[test]
fn bombs_are_refused_in_bounded_time_and_memory() {
    // One record of 200 MiB of zeros: its length is beyond the limit for one record.
    let mut plain = Vec::new();
    crate::base::varint::write_i32(&mut plain, 200 << 20);
    plain.resize(64 << 20, 0);
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut stream = Vec::new();
        compress(codec, &plain, &mut stream).unwrap();
        let batch = batch_of_stream(codec, &golden_records(1), &stream);
        let refused = validate(&batch, &lenient_limits()).unwrap_err();
        assert!(matches!(refused, InvalidBatch::MalformedRecord(_)), "{codec}: {refused}");
    }
}
