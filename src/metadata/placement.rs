//! Spreads partitions over shards.
//!
//! Ownership is decided anew at every start, so any number of shards can open any data directory: the largest
//! partitions first, each to the shard that has the least so far. A new topic's partitions go one by one to the shards
//! with the fewest partitions, so that the partitions of one topic lie on different shards.

use crate::model::ShardId;

/// How much each shard has to carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardLoads {
    loads: Vec<Load>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Load {
    bytes: u64,
    partitions: usize,
}

impl ShardLoads {
    /// `shards` shards that carry nothing.
    pub fn new(shards: usize) -> Self {
        ShardLoads { loads: vec![Load::default(); shards.max(1)] }
    }

    /// Places the partitions of one topic, given their sizes in bytes; the answer has an owner for each.
    /// Within a topic no shard gets a second partition before every shard has one.
    pub fn place_topic(&mut self, sizes_bytes: &[u64]) -> Vec<ShardId> {
        let mut largest_first: Vec<usize> = (0..sizes_bytes.len()).collect();
        largest_first.sort_by_key(|index| (std::cmp::Reverse(sizes_bytes[*index]), *index));
        let mut of_topic = vec![0usize; self.loads.len()];
        let mut owners = vec![0; sizes_bytes.len()];
        for index in largest_first {
            let owner = (0..self.loads.len())
                .min_by_key(|shard| {
                    let load = self.loads[*shard];
                    (of_topic[*shard], load.bytes, load.partitions, *shard)
                })
                .unwrap_or(0);
            of_topic[owner] += 1;
            self.add(owner, sizes_bytes[index]);
            owners[index] = owner;
        }
        owners
    }

    /// Counts a partition that lies on `shard` already.
    pub fn add(&mut self, shard: ShardId, bytes: u64) {
        self.loads[shard].bytes += bytes;
        self.loads[shard].partitions += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::ShardLoads;

    #[test]
    fn the_partitions_of_a_topic_go_to_different_shards() {
        let mut loads = ShardLoads::new(4);
        let mut owners = loads.place_topic(&[0; 8]);
        owners.sort_unstable();
        assert_eq!(owners, [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn single_partitions_spread_and_large_ones_are_balanced() {
        let mut loads = ShardLoads::new(2);
        let owners: Vec<_> = [900, 500, 400].iter().map(|size| loads.place_topic(&[*size])[0]).collect();
        assert_eq!(owners, [0, 1, 1]);
    }
}
