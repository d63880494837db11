//! Request frames: whatever the bytes, decoding neither panics nor reserves memory for a count that they do not bear out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The size in front is put right, so that the fuzzer need not find it.
    let mut frame = i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    let _ = logstreams::kafka::check_request(&frame);
});
