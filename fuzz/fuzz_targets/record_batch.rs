//! Any bytes as a produce request's records, as a segment, and as a control batch.
//!
//! Promise under test: nothing panics, batches lie within the bytes, and whatever `validate` accepts is read to its
//! end by everyone else and survives being rewritten.

#![no_main]

use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use logstreams::record::{
    Batches, Compression, Retained, TimestampType, ValidationLimits, for_each_record, legacy_magic,
    only_batch, parse_control_batch, retain_records, transcode, validate,
};

fuzz_target!(|bytes: &[u8]| {
    let limits = ValidationLimits {
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        now_ms: 1_700_000_000_000,
        requires_keys: false,
    };
    let _ = legacy_magic(bytes);
    let _ = parse_control_batch(bytes);

    let mut end = 0;
    for batch in Batches::new(bytes) {
        let Ok(batch) = batch else { break };
        assert_eq!(batch.position, end);
        end += batch.bytes.len();
        let _ = batch.check_crc();
        let _ = for_each_record(batch.bytes, |record| {
            let _ = record.headers.count();
            ControlFlow::Continue(())
        });
        let _ = retain_records(batch.bytes, Some(1), |record| record.offset % 2 == 0);
    }
    assert!(end <= bytes.len());

    let Ok(batch) = only_batch(bytes) else { return };
    let Ok(valid) = validate(batch, &limits) else { return };
    let mut assigned = batch.to_vec();
    let header = valid.assign(&mut assigned, 1000, 1);
    let mut next_offset = 1000;
    let read = for_each_record(&assigned, |record| {
        assert_eq!(record.offset, next_offset);
        next_offset += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((read, next_offset), (Ok(()), header.next_offset()));
    assert_eq!(retain_records(&assigned, None, |_| true), Ok(Retained::All));
    let plain = transcode(batch, Compression::None, usize::MAX).expect("what is valid can be rewritten");
    assert!(validate(&plain, &ValidationLimits { max_message_bytes: usize::MAX, ..limits }).is_ok());
});
