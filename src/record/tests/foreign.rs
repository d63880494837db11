//! Batches that other programs wrote.
