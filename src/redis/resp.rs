//! RESP, the Redis protocol: requests in (`decode`), replies and pushes out (`encode`).
//!
//! ```text
//! request = *<count>\r\n then per argument: $<length>\r\n<bytes>\r\n      (or one inline line of words)
//! ```
//!
//! Promise: no input makes anything here panic, and a decoder keeps at most its limits, whatever lengths a client
//! announces. Source: the RESP2 and RESP3 protocol specifications of Redis 7.

mod decode;
mod encode;

pub(super) use decode::{Args, Decoded, Decoder, Limits, OwnedArgs};
pub(super) use encode::{Encoder, Protocol, digits};
