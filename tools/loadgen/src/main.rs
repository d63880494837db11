//! loadgen: drives any Kafka-protocol broker with a measured load.

fn main() {}
