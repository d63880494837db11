//! What a connection does with a client's bytes before a command is carried out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = logstreams::redis::check_commands(bytes);
});
