//! Which shard has what; sends and gathers.
