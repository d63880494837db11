//! The only source of chance: ids of topics and members. Nothing here is a secret.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use uuid::Uuid;

/// A random (version 4) id, as Kafka gives topics and members.
pub fn uuid() -> Uuid {
    Uuid::new_v4()
}

/// A random number for spreading things out (session ids, first shard of a topic).
pub fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}
