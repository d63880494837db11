//! The `logstreams` binary.

fn main() {}
