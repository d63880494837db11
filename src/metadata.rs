//! What every shard knows: the topics, their partitions, and which shard owns what.
//!
//! A [`ClusterImage`] is an immutable value. Shard 0 makes the next one out of [`records`] that it has appended to
//! `__cluster_metadata`, and publishes it; every shard holds a copy. No I/O here.

pub mod image;
pub mod placement;
pub mod records;

pub use image::{ClusterImage, PartitionImage, TopicImage};
