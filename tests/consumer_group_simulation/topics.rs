//! The topics that come and grow.

use std::collections::BTreeMap;
use std::sync::Arc;

use logstreams::coordinator::group::topics::{Topics, TopicsView};
use logstreams::model::{TopicName, Uuid};

use crate::Random;
use crate::client::{Client, Key};

/// Names that there may be.
const NAMES: [&str; 3] = ["ta", "tb", "other"];
const PARTITION_COUNT_MAX: i32 = 6;

/// All topics.
#[derive(Debug, Clone)]
pub struct World {
    version: u64,
    next_id: u128,
    topics: BTreeMap<String, (Uuid, i32)>,
}

impl World {
    pub fn new() -> Self {
        let mut world = World { version: 1, next_id: 0, topics: BTreeMap::new() };
        world.create("ta", 4);
        world.create("tb", 3);
        world
    }

    fn create(&mut self, name: &str, count: i32) {
        self.next_id += 1;
        self.topics.insert(name.to_owned(), (Uuid::from_u128(self.next_id), count));
    }

    /// A topic is made, or grows. None is deleted, as its offsets would have to be forgotten with it.
    pub fn change(&mut self, random: &mut Random) {
        self.version += 1;
        let name = NAMES[random.below(NAMES.len() as u64) as usize];
        match self.topics.get_mut(name) {
            None => self.create(name, 2),
            Some(topic) if topic.1 < PARTITION_COUNT_MAX && !random.one_in(4) => topic.1 += 1,
            Some(_) => {}
        }
    }

    pub fn view(&self) -> Topics {
        Arc::new(self.clone())
    }

    pub fn name(&self, id: Uuid) -> Option<TopicName> {
        self.by_id(id).map(|(name, _)| name)
    }

    /// Every partition that the client wants to read.
    pub fn read_by(&self, client: &Client) -> Vec<Key> {
        let wanted = self.topics.iter().filter(|(name, _)| client.reads(name));
        wanted.flat_map(|(_, (id, count))| (0..*count).map(|partition| (*id, partition))).collect()
    }
}

impl TopicsView for World {
    fn version(&self) -> u64 {
        self.version
    }

    fn by_name(&self, name: &str) -> Option<(Uuid, i32)> {
        self.topics.get(name).copied()
    }

    fn by_id(&self, id: Uuid) -> Option<(TopicName, i32)> {
        let found = self.topics.iter().find(|(_, topic)| topic.0 == id)?;
        Some((TopicName::new(found.0).unwrap(), found.1.1))
    }

    fn group_config(&self, _group_id: &str, _name: &str) -> Option<i64> {
        None
    }

    fn for_each_name(&self, each: &mut dyn FnMut(&str)) {
        self.topics.keys().for_each(|name| each(name));
    }
}
