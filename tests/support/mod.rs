//! What the integration tests share: servers under test, stock clients, records, and child processes that cannot
//! outlive their test.
//!
//! Environment:
//! - `LOGSTREAMS_TEST_TARGET=kafka` runs every client test against Apache Kafka instead; it is how the tests
//!   themselves are proven.
//! - `LOGSTREAMS_BIN` names another server binary than the one that cargo just built.

#![allow(dead_code, unused_macros, reason = "each test binary uses its own part of this")]
#![allow(clippy::disallowed_methods, reason = "the tests wait for other processes, in real time")]

pub mod clients;
pub mod modes;
pub mod process;
pub mod records;
pub mod redis;
pub mod resp;
pub mod server;
pub mod tools;
