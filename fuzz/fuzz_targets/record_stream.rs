//! Any bytes as the records of a batch whose header and checksum are right, which random bytes never get to be.
//!
//! The first byte chooses the codec and whether the rest is its stream or the plain records within, the second the
//! record count. The batch then goes the way of `record_batch`'s last part: accepted means readable.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use logstreams::base::crc32c;
use logstreams::record::{
    BATCH_HEADER_BYTES, BatchBuilder, BatchHeader, Compression, Headers, LOG_OVERHEAD_BYTES, TimestampType,
    ValidationLimits, compress, for_each_record, validate,
};

fuzz_target!(|input: &[u8]| {
    let [choice, record_count, bytes @ ..] = input else { return };
    let codec = Compression::ALL[usize::from(*choice) % Compression::ALL.len()];
    let is_stream = choice & 0x80 != 0;

    let mut builder = BatchBuilder::new(Compression::None);
    for _ in 0..=*record_count {
        builder.append(0, None, None, Headers::NONE).expect("fits");
    }
    let mut batch = builder.finish().to_vec();
    batch.truncate(BATCH_HEADER_BYTES);
    if is_stream {
        batch.extend_from_slice(bytes);
    } else {
        compress(codec, bytes, &mut batch).expect("every codec takes any bytes");
    }
    let batch_length = i32::try_from(batch.len() - LOG_OVERHEAD_BYTES).expect("small");
    batch[8..12].copy_from_slice(&batch_length.to_be_bytes());
    batch[21..23].copy_from_slice(&codec.attribute_bits().to_be_bytes());
    let crc = crc32c::checksum(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());

    let limits = ValidationLimits {
        max_message_bytes: usize::MAX,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 0,
        requires_keys: false,
    };
    let accepted = validate(&batch, &limits);
    let mut found = 0;
    let read = for_each_record(&batch, |record| {
        let _ = record.headers.count();
        found += 1;
        ControlFlow::Continue(())
    });
    if accepted.is_ok() {
        let header = BatchHeader::parse(&batch).expect("a header");
        assert_eq!((read, found), (Ok(()), header.record_count));
    }
});
